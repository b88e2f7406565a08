//! Where a packet would go, and why: asked of the same maps, by the same rules as the programs'.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use aya::maps::{Array, HashMap, MapData, MapError};
use lb_common::{
    ANY_PORT, Be16,
    packet::{
        Endpoint, EndpointKey, Target, Way, endpoint_flag, packet_map as map, scope, target_flag,
    },
};

use crate::{
    Error, Flows, Programs,
    address::{address, be32},
    flows::{Ends, backend_of, now_seconds},
    publisher::Tables,
};

/// Whose packet it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Question {
    /// IANA protocol number.
    pub proto: u8,
    /// Who sends it.
    pub client: SocketAddr,
    /// The IPv4 VIP, or the one that stands for the IPv6 VIP.
    pub vip: Ipv4Addr,
    /// Its port.
    pub vip_port: u16,
    /// Whether only backends of this host are asked, as tc at the card does.
    pub local: bool,
}

/// Where it would go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// By an entry of its flow.
    Flow {
        /// The backend.
        backend: SocketAddr,
        /// How.
        way: Option<Way>,
        /// The port that the backend sees.
        local_port: u16,
        /// Seconds since the client's last packet.
        idle_seconds: u32,
    },
    /// By an entry whose backend is gone: TCP is reset, UDP is given another one.
    Gone {
        /// The index that the entry names.
        index: u32,
        /// Where a new flow would go.
        otherwise: Option<SocketAddr>,
    },
    /// By the table: there is no entry.
    Table {
        /// The backend.
        backend: SocketAddr,
        /// Its host, where that is known.
        host: Option<IpAddr>,
        /// Whether that is this host.
        local: bool,
        /// The slot of the flow's hash.
        slot: u32,
        /// Whether packets go there through a tunnel.
        tunnel: bool,
        /// The endpoint that answers.
        key: EndpointKey,
    },
    /// No backend of the endpoint is usable.
    NoBackend {
        /// The endpoint.
        key: EndpointKey,
    },
    /// Nobody has the address and port in this scope.
    NoEndpoint,
}

/// The maps that are asked.
pub struct Explainer {
    endpoints: HashMap<MapData, EndpointKey, Endpoint>,
    tables: Tables,
    targets: Array<MapData, Target>,
}

impl Explainer {
    /// Opens the maps.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn open(programs: &mut Programs) -> Result<Self, Error> {
        Ok(Self {
            endpoints: programs.map(map::ENDPOINTS)?,
            tables: Tables::open(programs)?,
            targets: programs.map(map::TARGETS)?,
        })
    }

    /// Where a packet goes at this moment.
    ///
    /// # Errors
    /// When the kernel refuses a read.
    pub fn explain(&self, flows: &Flows, question: &Question) -> Result<Answer, Error> {
        let ends = Ends {
            client: question.client.ip(),
            client_port: question.client.port(),
            vip: be32(question.vip),
            vip_port: question.vip_port,
            proto: question.proto,
        };
        let Some(flow) = flows.find(&ends)? else {
            return self.anew(&ends, question.local);
        };
        let target = self.target(flow.backend)?;
        if target.generation == flow.generation && target.port.raw() != 0 {
            let idle = now_seconds().wrapping_sub(flow.last_seconds);
            return Ok(Answer::Flow {
                backend: backend_of(&target),
                way: Way::try_from(flow.way).ok(),
                local_port: flow.local_port.host(),
                idle_seconds: if idle > u32::MAX / 2 { 0 } else { idle },
            });
        }
        let otherwise = match self.anew(&ends, question.local)? {
            Answer::Table { backend, .. } => Some(backend),
            _ => None,
        };
        Ok(Answer::Gone {
            index: flow.backend,
            otherwise,
        })
    }

    /// As the programs choose: on the way up the stack, too, whom all hosts mean, if it is here.
    fn anew(&self, ends: &Ends, local: bool) -> Result<Answer, Error> {
        let answer = self.by_table(ends, false)?;
        match answer {
            Answer::Table { local: true, .. } => Ok(answer),
            _ if local => self.by_table(ends, true),
            _ => Ok(answer),
        }
    }

    fn by_table(&self, ends: &Ends, local: bool) -> Result<Answer, Error> {
        let family = if ends.client.is_ipv6() { scope::V6 } else { 0 };
        let key = |port| EndpointKey {
            vip: ends.vip,
            port,
            proto: ends.proto,
            scope: family | if local { scope::LOCAL } else { 0 },
        };
        let keys = [key(ANY_PORT), key(Be16::from_host(ends.vip_port))];
        for key in keys {
            let endpoint = match self.endpoints.get(&key, 0) {
                Ok(endpoint) => endpoint,
                Err(MapError::KeyNotFound) => continue,
                Err(error) => return Err(Error::map("read", map::ENDPOINTS)(error)),
            };
            if endpoint.flags & endpoint_flag::EMPTY != 0 {
                return Ok(Answer::NoBackend { key });
            }
            let slots = self.tables.read(endpoint.table)?;
            let slot = ends.hash().slot();
            let place = usize::try_from(slot).ok().and_then(|slot| slots.get(slot));
            let index = place.copied().unwrap_or(0);
            let target = self.target(index.into())?;
            if target.port.raw() == 0 {
                return Ok(Answer::NoBackend { key });
            }
            return Ok(Answer::Table {
                backend: backend_of(&target),
                host: (target.host != [0; 4]).then(|| address(target.host)),
                local: target.flags & target_flag::LOCAL != 0,
                slot,
                tunnel: endpoint.flags & endpoint_flag::TUNNEL != 0,
                key,
            });
        }
        Ok(Answer::NoEndpoint)
    }

    fn target(&self, index: u32) -> Result<Target, Error> {
        self.targets
            .get(&index, 0)
            .map_err(Error::map("read", map::TARGETS))
    }
}
