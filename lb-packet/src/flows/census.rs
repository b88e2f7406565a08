//! How many flows are where the table leads: what a change of it, or of the host that has a VIP, means for them.

use std::collections::{BTreeMap, HashMap};

use lb_common::{
    ANY_PORT, Be16, PROTO_TCP,
    packet::{Endpoint, EndpointKey, Flow, Way, endpoint_flag, scope, seen},
};

use super::{
    Backends, Flows,
    entry::{Ends, Family, V4, V6},
    maps::Maps,
};
use crate::{Error, Publisher, publisher::Tables};

/// The flows of one endpoint that are under way: of TCP those after their handshake and before an end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Census {
    /// All of them.
    pub flows: u64,
    /// Those whose backend is not the one that the table gives them now. They stay with it as long as this host has them.
    pub elsewhere: u64,
    /// Those that no other host can go on with: answers come to a port of this host; or the other one replaces the client's address as
    /// well, while a backend of TCP that is on either of the hosts knows the flow with another end.
    pub bound: u64,
    /// Those that neither are elsewhere nor bound: by the same table another host leads them to the same backend.
    pub follow: u64,
    /// Those of TCP whose beginning was not seen here: another host had them before, or they were forgotten.
    pub adopted: u64,
}

impl std::ops::AddAssign for Census {
    fn add_assign(&mut self, other: Self) {
        self.flows += other.flows;
        self.elsewhere += other.elsewhere;
        self.bound += other.bound;
        self.follow += other.follow;
        self.adopted += other.adopted;
    }
}

impl Flows {
    /// Counts the flows under way by endpoint, in the scope of all backends. It reads each flow, and the table of each endpoint that has one.
    ///
    /// # Errors
    /// When the kernel refuses a read.
    pub fn census(&self, publisher: &Publisher) -> Result<BTreeMap<EndpointKey, Census>, Error> {
        let mut count = Count {
            backends: Backends::of(publisher),
            endpoints: publisher.endpoints().collect(),
            tables: &self.tables,
            slots: HashMap::new(),
            found: BTreeMap::new(),
        };
        Maps::<V4>::each_flow(&self.v4.flows_fd, |ends, flow| {
            count.add::<V4>(&ends, &flow)
        })?;
        Maps::<V6>::each_flow(&self.v6.flows_fd, |ends, flow| {
            count.add::<V6>(&ends, &flow)
        })?;
        Ok(count.found)
    }
}

struct Count<'a> {
    backends: Backends,
    endpoints: HashMap<EndpointKey, Endpoint>,
    tables: &'a Tables,
    /// Tables that were read, by their index.
    slots: HashMap<u32, Vec<u16>>,
    found: BTreeMap<EndpointKey, Census>,
}

impl Count<'_> {
    fn add<F: Family>(&mut self, ends: &Ends, flow: &Flow) -> Result<(), Error> {
        let key = |port| EndpointKey {
            vip: ends.vip,
            port,
            proto: ends.proto,
            scope: if F::V6 { scope::V6 } else { 0 },
        };
        let keys = [key(ANY_PORT), key(Be16::from_host(ends.vip_port))];
        let found = keys
            .into_iter()
            .find_map(|key| Some((key, *self.endpoints.get(&key)?)));
        // Who has no endpoint is led nowhere, by nobody; and whose backend is gone is over.
        let Some((key, endpoint)) = found else {
            return Ok(());
        };
        let there = self.backends.get(flow.backend, flow.generation);
        if there.is_none() || !is_under_way(ends.proto, flow.seen) {
            return Ok(());
        }
        let led_to = self.slot(&endpoint, ends)?;
        let elsewhere = led_to.map(u32::from) != Some(flow.backend);
        let bound = matches!(Way::try_from(flow.way), Ok(Way::Full | Way::Hairpin))
            || ends.proto == PROTO_TCP && endpoint.flags & endpoint_flag::TUNNEL == 0;
        *self.found.entry(key).or_default() += Census {
            flows: 1,
            elsewhere: elsewhere.into(),
            bound: bound.into(),
            follow: u64::from(!elsewhere && !bound),
            adopted: u64::from(ends.proto == PROTO_TCP && flow.seen & seen::SYN == 0),
        };
        Ok(())
    }

    /// Who is in the flow's slot; `None` where the table is not to be read.
    fn slot(&mut self, endpoint: &Endpoint, ends: &Ends) -> Result<Option<u16>, Error> {
        if endpoint.flags & endpoint_flag::EMPTY != 0 {
            return Ok(None);
        }
        let slots = match self.slots.entry(endpoint.table) {
            std::collections::hash_map::Entry::Occupied(known) => known.into_mut(),
            std::collections::hash_map::Entry::Vacant(new) => {
                new.insert(self.tables.read(endpoint.table)?)
            }
        };
        let slot = usize::try_from(ends.hash().slot()).ok();
        Ok(slot.and_then(|slot| slots.get(slot)).copied())
    }
}

/// Whether the flow would be missed: its handshake is done, and nobody whose bits these are has ended it.
pub(super) fn is_under_way(proto: u8, bits: u8) -> bool {
    proto != PROTO_TCP || bits & seen::ACK != 0 && bits & (seen::FIN | seen::RST) == 0
}

#[cfg(test)]
mod tests {
    use lb_common::PROTO_UDP;

    use super::*;

    #[test]
    fn a_flow_is_under_way_between_its_handshake_and_its_end() {
        for (bits, expect) in [
            (seen::SYN, false),
            (seen::SYN | seen::ACK, true),
            // Its beginning was not seen.
            (seen::ACK, true),
            (seen::SYN | seen::ACK | seen::SYN_AGAIN, true),
            (seen::SYN | seen::ACK | seen::FIN, false),
            (seen::ACK | seen::RST, false),
        ] {
            assert_eq!(is_under_way(PROTO_TCP, bits), expect, "{bits:b}");
        }
        assert!(is_under_way(PROTO_UDP, 0));
    }
}
