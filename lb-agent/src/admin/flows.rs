//! The open flows: who has one, to which VIP, and where it goes.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use axum::{
    Extension, Json,
    extract::{Query, State, rejection::QueryRejection},
    http::StatusCode,
    response::{IntoResponse as _, Response},
};
use lb_common::PROTO_UDP;
use lb_packet::FlowEntry;
use serde::Deserialize;
use tokio::time::timeout;

use super::{
    guard::Access,
    refusals::{Failed, asked, no_service, refused},
    report::{Flow, FlowList, PacketFlow},
    router::Desk,
};
use crate::{
    causes::error_chain,
    packet,
    snapshot::{Service, ServiceName, Snapshot},
    sockets::{self, Flows},
    vip::Pools,
};

/// What may be asked.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wish {
    /// Only the flows of this service and its parts.
    pub(super) service: Option<String>,
    /// Only those of this client, as [`Flow::is_of`] knows it.
    pub(super) client: Option<String>,
}

/// `GET /api/v1/flows`. They name clients and processes, and to find them all processes are looked through: so they are for
/// the socket, and for whoever shows the token or a session at the address that the page listens on.
pub(super) async fn list(
    State(desk): State<Desk>,
    Extension(access): Extension<Access>,
    wish: Result<Query<Wish>, QueryRejection>,
) -> Result<Response, Response> {
    if !access.sees_clients() {
        return Err(refused(StatusCode::FORBIDDEN, NOT_FOR_ALL.to_owned()));
    }
    let flows = desk.flows(&asked(wish)?).await?;
    Ok(Json(flows).into_response())
}

impl Desk {
    /// The open flows that are wished for, the newest first; what is answered if they cannot be listed.
    pub(super) async fn flows(&self, wish: &Wish) -> Result<FlowList, Response> {
        let snapshot = self.known()?;
        let vips = |name| vips_of(&snapshot, name).ok_or_else(|| no_service(name));
        let vips = wish.service.as_deref().map(vips).transpose()?;
        let listed = timeout(PATIENCE, self.sockets.list(vips.clone())).await;
        let listed = listed.map_err(|_| Failed::Silent.answer())?;
        let flows = listed.map_err(|error| {
            let why = format!("{}: see the agent's log", error_chain(&error));
            refused(StatusCode::SERVICE_UNAVAILABLE, why)
        })?;
        let mut list = told(flows, &snapshot);
        if let Some(packet) = &self.packet
            && packet.seen.borrow().error.is_none()
        {
            let meant = packet::Meant {
                vips,
                ..packet::Meant::default()
            };
            let listed = packet.flows(meant).await;
            let listed = listed.ok_or_else(|| Failed::Silent.answer())?;
            let listed = listed.map_err(|why| refused(StatusCode::SERVICE_UNAVAILABLE, why))?;
            list.packets_left_out = listed.left_out;
            list.packets = packets(listed.flows, &snapshot, self.pools);
        }
        if let Some(client) = &wish.client {
            list.flows.retain(|flow| flow.is_of(client));
            list.packets.retain(|flow| flow.is_of(client));
        }
        Ok(list)
    }
}

/// The youngest first.
fn packets(mut flows: Vec<FlowEntry>, snapshot: &Snapshot, pools: Pools) -> Vec<PacketFlow> {
    flows.sort_by_key(|flow| flow.age_seconds.unwrap_or(u32::MAX));
    let services = snapshot.services.iter();
    let by_vip: BTreeMap<IpAddr, (&ServiceName, &Service)> = services
        .filter_map(|(name, service)| Some((service.vip?, (name, &**service))))
        .flat_map(|(vip, it)| {
            let twin = pools.twin(vip).map(IpAddr::V6);
            [Some(IpAddr::V4(vip)), twin]
                .into_iter()
                .flatten()
                .map(move |vip| (vip, it))
        })
        .collect();
    let one = |flow: FlowEntry| {
        let owner = by_vip.get(&flow.vip.ip());
        let backend = flow.backend.and_then(|address| {
            let mut backends = owner?.1.backends.iter();
            let found = backends.find(|(_, backend)| backend.addresses().any(|it| it == address));
            found.map(|(key, _)| key.to_string())
        });
        let sides = [flow.from_client, flow.from_backend];
        let idle = sides.iter().flatten().map(|it| it.idle_seconds).min();
        PacketFlow {
            service: owner.map(|(name, _)| name.to_string()),
            vip: flow.vip,
            backend,
            address: flow.backend,
            protocol: protocol(flow.proto).to_owned(),
            way: flow.way.map(|way| packet::way(way).to_owned()),
            state: packet::state(&flow).to_owned(),
            client: flow.client,
            local_port: flow.local_port,
            age_seconds: flow.age_seconds.map(u64::from),
            idle_seconds: idle.unwrap_or(0).into(),
        }
    };
    flows.into_iter().map(one).collect()
}

fn protocol(proto: u8) -> &'static str {
    match proto {
        PROTO_UDP => "udp",
        _ => "tcp",
    }
}

/// The VIPs that `name` means: of one service, or of all parts of one. `None` if it means nothing.
pub(super) fn vips_of(snapshot: &Snapshot, name: &str) -> Option<BTreeSet<Ipv4Addr>> {
    if let Some((_, service)) = snapshot.find(name) {
        return Some(service.vip.into_iter().collect());
    }
    let services = snapshot.services.iter();
    let mut parts = services.filter(|(it, _)| *it.service == *name).peekable();
    parts.peek()?;
    Some(parts.filter_map(|(_, service)| service.vip).collect())
}

fn told(mut flows: Flows, snapshot: &Snapshot) -> FlowList {
    flows
        .listed
        .sort_by_key(|flow| Reverse(flow.origin.start_ns));
    let services = snapshot.services.iter();
    let by_vip: BTreeMap<Ipv4Addr, (&ServiceName, &Service)> = services
        .filter_map(|(name, service)| Some((service.vip?, (name, &**service))))
        .collect();
    let one = |flow: sockets::Flow| {
        let owner = by_vip.get(&flow.origin.vip);
        let backend = owner.and_then(|(_, service)| {
            let mut backends = service.backends.iter();
            let found = backends
                .find(|(_, backend)| backend.addresses().any(|it| it == flow.origin.address));
            found.map(|(key, _)| key.to_string())
        });
        let process = flow.process;
        Flow {
            service: owner.map(|(name, _)| name.to_string()),
            vip: SocketAddr::new(flow.origin.vip.into(), flow.origin.vip_port),
            backend,
            address: flow.origin.address,
            protocol: flow.protocol.to_owned(),
            state: flow.state.to_owned(),
            client: flow.local,
            age_seconds: flow.age.as_secs(),
            netns: flow.netns,
            uid: flow.uid,
            pid: process.as_ref().map(|it| it.pid),
            command: process.as_ref().map(|it| it.command.clone()),
            container: process.and_then(|it| it.container),
        }
    };
    FlowList {
        packets: Vec::new(),
        packets_left_out: 0,
        left_out: flows.left_out,
        unseen: flows.sight.limits(),
        flows: flows.listed.into_iter().map(one).collect(),
    }
}

/// To who may not.
pub(super) const NOT_FOR_ALL: &str = "flows name the clients and processes of this host: run `lb-agent flows` on it, or show the \
     token at the address that the page listens on";
/// For the thread that lists, which may be ending flows. Below the patience of the command.
const PATIENCE: Duration = Duration::from_secs(9);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        admin::sample,
        sockets::{Origin, Process, Sight},
    };

    fn flow(vip: [u8; 4], address: &str) -> sockets::Flow {
        sockets::Flow {
            netns: 7,
            protocol: "tcp",
            state: "established",
            uid: 1000,
            local: "10.0.0.9:4000".parse().unwrap(),
            origin: Origin {
                backend: Default::default(),
                start_ns: 0,
                vip: vip.into(),
                vip_port: 80,
                address: address.parse().unwrap(),
            },
            age: Duration::from_millis(2500),
            process: Some(Process {
                pid: 17,
                command: "curl".to_owned(),
                container: None,
            }),
        }
    }

    #[test]
    fn a_flow_is_told_with_its_service_and_backend_and_without_what_is_gone() {
        let flows = Flows {
            listed: vec![
                flow([198, 18, 12, 7], "10.0.0.3:80"),
                flow([198, 18, 12, 7], "10.0.0.77:80"),
                flow([198, 18, 99, 99], "10.0.0.3:80"),
            ],
            left_out: 3,
            sight: Sight::default(),
        };
        let told = told(flows, &sample::snapshot());
        let named = told.flows.iter();
        let named: Vec<_> = named
            .map(|it| (it.service.as_deref(), it.backend.as_deref()))
            .collect();
        let hello = Some("www_hello");
        assert_eq!(
            named,
            [(hello, Some("file/c")), (hello, None), (None, None)]
        );
        assert_eq!((told.left_out, told.unseen), (3, None));
        assert_eq!(told.flows[0].age_seconds, 2);
        assert_eq!(told.flows[0].command.as_deref(), Some("curl"));
    }

    #[test]
    fn a_flow_of_packets_is_told_with_its_service_and_state_the_youngest_first() {
        use lb_common::packet::{Way, seen};
        let sight = |seen, idle_seconds| Some(lb_packet::Sight { seen, idle_seconds });
        let up = seen::SYN | seen::ACK;
        let flow = |vip: &str, backend: Option<&str>, age| FlowEntry {
            proto: 6,
            client: "192.0.2.9:4000".parse().unwrap(),
            vip: vip.parse().unwrap(),
            backend: backend.map(|it| it.parse().unwrap()),
            index: 3,
            way: Some(Way::Full),
            local_port: 61_000,
            from_client: sight(up, 7),
            from_backend: sight(up, 5),
            age_seconds: age,
        };
        let pools = Pools {
            v6: Some(Default::default()),
            ..Pools::default()
        };
        let listed = vec![
            flow("198.18.12.7:80", None, None),
            flow("198.18.12.7:80", Some("10.0.0.3:80"), Some(60)),
            flow("[fd62:6c62:76:1::c07]:80", Some("10.0.0.77:80"), Some(9)),
            flow("198.18.99.99:80", Some("10.0.0.3:80"), Some(70)),
        ];
        let told = packets(listed, &sample::snapshot(), pools);
        let named: Vec<_> = told
            .iter()
            .map(|it| (it.service.as_deref(), it.backend.as_deref()))
            .collect();
        let hello = Some("www_hello");
        assert_eq!(
            named,
            [
                (hello, None),
                (hello, Some("file/c")),
                (None, None),
                (hello, None)
            ]
        );
        let first = &told[0];
        assert_eq!(first.age_seconds, Some(9));
        assert_eq!((first.idle_seconds, first.local_port), (5, 61_000));
        assert_eq!((&*first.protocol, &*first.state), ("tcp", "established"));
        assert_eq!(first.way.as_deref(), Some("full"));
        assert!(first.is_of("192.0.2.9") && first.is_of("192.0.2.9:4000"));
        assert!(!first.is_of("192.0.2") && !first.is_of("4000"));
    }

    #[test]
    fn a_service_is_meant_by_name_or_label_or_with_its_parts() {
        let snapshot = sample::snapshot();
        let www = Some(BTreeSet::from([Ipv4Addr::new(198, 18, 0, 9)]));
        for name in ["www", "www.world.dev", "world.dev_www"] {
            assert_eq!(vips_of(&snapshot, name), www, "{name}");
        }
        // Known, and without a VIP.
        assert_eq!(vips_of(&snapshot, "db"), Some(BTreeSet::new()));
        assert_eq!(vips_of(&snapshot, "nobody"), None);
    }
}
