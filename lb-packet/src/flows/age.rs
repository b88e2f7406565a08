//! Which flows are over: from what was seen of both sides, without maps or a clock.

use lb_common::{
    PROTO_TCP,
    packet::{Way, seen},
};

/// Seconds that a flow of TCP lasts without a packet: before its handshake is done, after it, and after its end.
const OPENING: u32 = 60;
const ESTABLISHED: u32 = 8000;
const CLOSING: u32 = 10;

/// Before its handshake is done, when the maps are half full and when they are three quarters full: a flood
/// of handshakes that nobody ends must not keep others out.
const OPENING_HALF: u32 = 20;
const OPENING_FULL: u32 = 5;

/// What is known of a flow: the side of its client, that of its backend, or both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sides {
    pub(crate) proto: u8,
    pub(crate) way: u8,
    pub(crate) client: Option<Side>,
    pub(crate) backend: Option<Side>,
    /// When the first packet came, if that is known.
    pub(crate) start_seconds: Option<u32>,
}

/// What came from one side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Side {
    pub(crate) seen: u8,
    pub(crate) last_seconds: u32,
}

/// How full the maps of flows are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Pressure {
    /// Less than half.
    #[default]
    Low,
    /// Half or more.
    High,
    /// Three quarters or more.
    Full,
}

impl Pressure {
    /// With so many of so many entries in use.
    pub(crate) fn of(used: u64, room: u32) -> Self {
        let room = u64::from(room.max(1));
        match () {
            () if used * 4 >= room * 3 => Self::Full,
            () if used * 2 >= room => Self::High,
            () => Self::Low,
        }
    }
}

/// How many seconds the flow lasts without a packet.
pub(crate) fn lasts(sides: &Sides, pressure: Pressure, udp_seconds: u32) -> u32 {
    if sides.proto != PROTO_TCP {
        return udp(sides, pressure, udp_seconds);
    }
    let bits = |side: Option<Side>| side.map_or(0, |side| side.seen);
    let (client, backend) = (bits(sides.client), bits(sides.backend));
    if (client | backend) & seen::RST != 0 || client & backend & seen::FIN != 0 {
        return CLOSING;
    }
    // Of a flow in a tunnel nobody sees the other side: its client still acknowledges what it receives.
    if sides.way == Way::Tunnel as u8 && client & seen::FIN != 0 {
        return OPENING;
    }
    // An ACK that nobody answers may be anybody's: a backend behind a filter is silent. And of a flow whose entry is another's by
    // now only the backend's end can tell.
    let unanswered = sides.way != Way::Tunnel as u8 && sides.backend.is_some_and(|it| it.seen == 0);
    if unanswered {
        return opening(pressure);
    }
    if sides.client.is_none() && backend & seen::FIN != 0 {
        return OPENING;
    }
    // The side of the client may have been evicted: then the backend's tells as much.
    let evidence = if sides.client.is_some() {
        client
    } else {
        backend
    };
    if evidence & seen::ACK != 0 {
        return ESTABLISHED;
    }
    opening(pressure)
}

/// A datagram is sent by whoever likes to: under pressure those that nobody answers make room first.
fn udp(sides: &Sides, pressure: Pressure, udp_seconds: u32) -> u32 {
    let answered = match (sides.client, sides.backend, sides.start_seconds) {
        // What has an answer later than its beginning.
        (Some(_), Some(backend), Some(start)) => backend.last_seconds != start,
        _ => true,
    };
    let limit = match (pressure, answered) {
        (Pressure::Low, _) => u32::MAX,
        (Pressure::High, true) => OPENING,
        (Pressure::High, false) | (Pressure::Full, true) => OPENING_HALF,
        (Pressure::Full, false) => OPENING_FULL,
    };
    udp_seconds.min(limit)
}

const fn opening(pressure: Pressure) -> u32 {
    match pressure {
        Pressure::Low => OPENING,
        Pressure::High => OPENING_HALF,
        Pressure::Full => OPENING_FULL,
    }
}

/// Seconds since the last packet of either side.
fn youngest(sides: &Sides, now: u32) -> Option<u32> {
    let age = |side: Side| {
        // A packet may have come since `now` was asked for.
        let age = now.wrapping_sub(side.last_seconds);
        if age > u32::MAX / 2 { 0 } else { age }
    };
    let sides = [sides.client, sides.backend].into_iter().flatten();
    sides.map(age).min()
}

/// Whether the backend's side alone tells that the flow goes on at `now`: whatever the client's side may show that does not
/// [`end`](may_end) one, and also if there is none.
pub(crate) fn goes_on(backend: &Sides, now: u32, pressure: Pressure, udp_seconds: u32) -> bool {
    let Some(age) = youngest(backend, now) else {
        return false;
    };
    if backend.proto != PROTO_TCP {
        return age <= udp_seconds.min(opening(pressure));
    }
    let up = Side {
        seen: seen::SYN | seen::ACK,
        last_seconds: now.wrapping_sub(age),
    };
    let both = Sides {
        client: Some(up),
        ..*backend
    };
    [backend, &both]
        .iter()
        .all(|it| age <= lasts(it, pressure, udp_seconds))
}

/// Whether a client's side that shows this may let a flow of TCP be over sooner than the backend's side tells.
pub(crate) fn may_end(seen: u8) -> bool {
    seen & (seen::FIN | seen::RST) != 0 || seen & seen::ACK == 0
}

/// Whether the flow is over at `now`, in coarse monotonic seconds.
pub(crate) fn is_over(sides: &Sides, now: u32, pressure: Pressure, udp_seconds: u32) -> bool {
    youngest(sides, now).is_none_or(|age| age > lasts(sides, pressure, udp_seconds))
}

#[cfg(test)]
mod tests {
    use lb_common::PROTO_UDP;
    use proptest::prelude::*;

    use super::*;

    const SYN: u8 = seen::SYN;
    const UP: u8 = seen::SYN | seen::ACK;
    const FIN: u8 = UP | seen::FIN;
    const RST: u8 = UP | seen::RST;

    fn sides(client: Option<u8>, backend: Option<u8>) -> Sides {
        let side = |seen| Side {
            seen,
            last_seconds: 100,
        };
        Sides {
            proto: PROTO_TCP,
            way: Way::Full as u8,
            client: client.map(side),
            backend: backend.map(side),
            start_seconds: Some(100),
        }
    }

    #[test]
    fn a_flow_lasts_as_long_as_its_state_says() {
        for (what, client, backend, expect) in [
            ("only a SYN", Some(SYN), None, 60),
            (
                "only a SYN, and an entry for the answer",
                Some(SYN),
                Some(0),
                60,
            ),
            ("a SYN and its answer", Some(SYN), Some(SYN), 60),
            ("a handshake", Some(UP), Some(SYN), 8000),
            ("data both ways", Some(UP), Some(UP), 8000),
            ("the client has no more to say", Some(FIN), Some(UP), 8000),
            ("the backend has no more to say", Some(UP), Some(FIN), 8000),
            ("both have ended", Some(FIN), Some(FIN), 10),
            ("the client broke off", Some(RST), Some(UP), 10),
            ("the backend broke off", Some(UP), Some(RST), 10),
            ("the backend refused", Some(SYN), Some(seen::RST), 10),
            ("an ACK that nobody answered", Some(UP), Some(0), 60),
            (
                "the entry is of another flow by now, and the backend ended",
                None,
                Some(FIN),
                60,
            ),
            (
                "the client's side was evicted in the midst",
                None,
                Some(UP),
                8000,
            ),
            (
                "the client's side was evicted at the beginning",
                None,
                Some(SYN),
                60,
            ),
        ] {
            let lasts = lasts(&sides(client, backend), Pressure::Low, 30);
            assert_eq!(lasts, expect, "{what}");
        }
    }

    #[test]
    fn udp_has_its_own_time_and_a_tunnel_shows_one_side_only() {
        let udp = Sides {
            proto: PROTO_UDP,
            ..sides(Some(0), Some(0))
        };
        for (pressure, start, expect) in [
            (Pressure::Low, 100, 45),
            (Pressure::High, 100, 20),
            (Pressure::Full, 100, 5),
            (Pressure::High, 90, 45),
            (Pressure::Full, 90, 20),
        ] {
            let udp = Sides {
                start_seconds: Some(start),
                ..udp
            };
            assert_eq!(lasts(&udp, pressure, 45), expect, "{pressure:?}, {start}");
        }
        let way = Way::Tunnel as u8;
        let tunnel = |client| Sides {
            way,
            ..sides(Some(client), None)
        };
        for (client, expect) in [(SYN, 60), (UP, 8000), (FIN, 60), (RST, 10)] {
            assert_eq!(lasts(&tunnel(client), Pressure::Low, 30), expect);
        }
    }

    #[test]
    fn only_those_without_a_handshake_go_sooner_under_pressure() {
        for (pressure, expect) in [
            (Pressure::Low, 60),
            (Pressure::High, 20),
            (Pressure::Full, 5),
        ] {
            assert_eq!(lasts(&sides(Some(SYN), Some(SYN)), pressure, 30), expect);
            assert_eq!(lasts(&sides(Some(UP), Some(UP)), pressure, 30), 8000);
            assert_eq!(lasts(&sides(Some(FIN), Some(FIN)), pressure, 30), 10);
        }
        let at = |used| Pressure::of(used, 100);
        assert_eq!(
            [at(49), at(50), at(74), at(75), at(200)],
            [
                Pressure::Low,
                Pressure::High,
                Pressure::High,
                Pressure::Full,
                Pressure::Full
            ]
        );
    }

    #[test]
    fn a_packet_from_either_side_keeps_both() {
        let mut both = sides(Some(UP), Some(UP));
        assert!(!is_over(&both, 8100, Pressure::Low, 30));
        assert!(is_over(&both, 8101, Pressure::Low, 30));
        both.backend = Some(Side {
            seen: UP,
            last_seconds: 8101,
        });
        assert!(!is_over(&both, 8101, Pressure::Low, 30));
        // It came after `now` was asked for, or the seconds have gone round.
        assert!(!is_over(&both, 8100, Pressure::Low, 30));
        assert!(!is_over(&both, 90_u32.wrapping_sub(100), Pressure::Low, 30));
    }

    proptest! {
        /// What the backend's side alone decides holds, whatever the client's shows, unless it is one of those that are kept in mind.
        #[test]
        fn what_goes_on_by_the_backends_side_is_not_over_by_both(
            client: Option<u8>, backend: u8, proto in prop_oneof![Just(6_u8), Just(17)], way in 0..4_u8,
            ages in (0..9000_u32, 0..9000_u32), pressure in 0..3_usize,
        ) {
            let pressure = [Pressure::Low, Pressure::High, Pressure::Full][pressure];
            let side = |seen, age| Side { seen, last_seconds: 10_000 - age };
            let client = client.map(|seen| side(seen, ages.0));
            let both = Sides { proto, way, client, backend: Some(side(backend, ages.1)), start_seconds: client.map(|_| 1000) };
            let alone = Sides { client: None, start_seconds: None, ..both };
            let is_in_mind = proto == PROTO_TCP && client.is_some_and(|it| may_end(it.seen));
            if goes_on(&alone, 10_000, pressure, 30) && !is_in_mind {
                prop_assert!(!is_over(&both, 10_000, pressure, 30));
            }
        }
    }
}
