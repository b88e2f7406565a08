//! What flows of the packet path are called.

use std::time::Duration;

use lb_common::{
    PROTO_UDP,
    packet::{Way, seen},
};
use lb_packet::FlowEntry;

/// The clock of sampled packets.
pub fn monotonic() -> Duration {
    let clock = nix::time::ClockId::CLOCK_MONOTONIC;
    // Every kernel has it.
    clock.now().map_or(Duration::ZERO, Duration::from)
}

/// How packets get to their backend, in one word.
pub fn way(way: Way) -> &'static str {
    match way {
        Way::Destination => "destination",
        Way::Full => "full",
        Way::Tunnel => "tunnel",
        Way::Hairpin => "hairpin",
    }
}

/// How far a flow is, in one word.
pub fn state(flow: &FlowEntry) -> &'static str {
    if flow.proto == PROTO_UDP {
        return "open";
    }
    let sides = [flow.from_client, flow.from_backend].into_iter().flatten();
    let seen = sides.fold(0, |seen, it| seen | it.seen);
    let acknowledged = flow.from_client.is_none_or(|it| it.seen & seen::ACK != 0);
    if seen & seen::RST != 0 {
        "reset"
    } else if seen & seen::FIN != 0 {
        "closing"
    } else if acknowledged {
        "established"
    } else {
        "opening"
    }
}

#[cfg(test)]
mod tests {
    use lb_packet::Sight;

    use super::*;

    #[test]
    fn a_flow_is_as_far_as_both_sides_say() {
        let (syn, up) = (seen::SYN, seen::SYN | seen::ACK);
        for (client, backend, expect) in [
            (Some(syn), None, "opening"),
            (Some(syn), Some(syn), "opening"),
            (Some(up), Some(syn), "established"),
            // The kernel forgot the client's side, which it does with old ones.
            (None, Some(up), "established"),
            (Some(up), Some(up | seen::FIN), "closing"),
            (Some(up | seen::RST), Some(up | seen::FIN), "reset"),
        ] {
            let sight = |seen: Option<u8>| {
                seen.map(|seen| Sight {
                    seen,
                    idle_seconds: 0,
                })
            };
            let mut flow = FlowEntry {
                proto: 6,
                client: "192.0.2.9:4000".parse().unwrap(),
                vip: "198.18.0.9:80".parse().unwrap(),
                backend: None,
                index: 1,
                way: None,
                local_port: 4000,
                from_client: sight(client),
                from_backend: sight(backend),
                age_seconds: None,
            };
            assert_eq!(state(&flow), expect, "{client:?} {backend:?}");
            flow.proto = PROTO_UDP;
            assert_eq!(state(&flow), "open");
        }
    }
}
