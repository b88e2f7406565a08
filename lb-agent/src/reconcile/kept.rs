//! Where the programs keep a client of a service with affinity.

use lb_common::{ANY_PORT, AffinityKey, Be32, PROTO_TCP, PROTO_UDP};

use super::{Stage, count::monotonic_nanos};
use crate::stats::{Kept, KeptRequest};

impl Stage {
    /// Answers who asks.
    pub(super) fn kept(&self, request: KeptRequest) {
        let KeptRequest { client, vip, reply } = request;
        let vip = Be32::from_host(vip.into());
        let kept = [(PROTO_TCP, "tcp"), (PROTO_UDP, "udp")].into_iter();
        let kept = kept.filter_map(|(proto, name)| self.kept_at((client, vip, proto), name));
        // Whoever asked may have gone.
        drop(reply.send(kept.collect()));
    }

    /// As the programs decide it: its time is not over, and slots name the backend.
    fn kept_at(&self, (client, vip, proto): (u64, Be32, u8), name: &str) -> Option<Kept> {
        let key = AffinityKey::new(client, vip, ANY_PORT, proto);
        let last = self.maps.affinity(&key).ok()??;
        let now = u32::try_from(monotonic_nanos() / 1_000_000_000 % (1 << 32)).ok()?;
        let seconds_ago = now.wrapping_sub(last.last_seconds);
        let address = *self.installed.addresses.get(&last.backend)?;
        let backend = self.installed.backends.get(&address)?;
        let mut endpoints = self.endpoints_of(vip).filter(|(key, _)| key.proto == proto);
        let named = endpoints.any(|(key, _)| {
            let endpoint = self.installed.services.get(key);
            endpoint.is_some_and(|it| {
                it.affinity_seconds >= seconds_ago && it.slots.contains(&last.backend)
            })
        });
        (named && backend.id.generation == last.generation).then(|| Kept {
            proto: name.to_owned(),
            address,
            seconds_ago,
        })
    }
}
