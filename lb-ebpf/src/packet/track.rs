//! What a packet's flags mean for its flow, known or not, and how long a flow is kept without a packet.

use lb_common::{PROTO_TCP, packet::seen};

use super::parse::tcp_flag::{ACK, FIN, RST, SYN};

/// Seconds that TCP entries last: without a handshake, with one, and after the end.
const OPENING_SECONDS: u32 = 60;
const ESTABLISHED_SECONDS: u32 = 8000;
const CLOSING_SECONDS: u32 = 10;

/// The [`seen`] bits of a packet.
#[inline(always)]
pub const fn seen_of(flags: u8) -> u8 {
    // Bit by bit and without a branch: every branch doubles what the verifier walks through.
    const _: () = assert!(FIN == 1 && SYN == 2 && RST == 4 && ACK == 16);
    let (fin, syn) = (flags & 1, (flags >> 1) & 1);
    let (rst, ack) = ((flags >> 2) & 1, (flags >> 4) & 1 & !syn);
    (syn * seen::SYN) | (ack * seen::ACK) | (fin * seen::FIN) | (rst * seen::RST)
}

/// Whether a packet asks for a new flow.
#[inline(always)]
const fn opens(flags: u8) -> bool {
    flags & (SYN | ACK | RST | FIN) == SYN
}

/// What becomes of a client's TCP packet whose flow has an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    /// It goes by the entry, whose bits become these.
    Keep(u8),
    /// A backend is chosen as if there were no entry.
    Select,
    /// It goes by the entry, which is then removed.
    Remove,
}

/// What becomes of a client's TCP packet whose flow has an entry; `client` and `backend` are what has been seen from each side.
///
/// A SYN never trusts an entry, so that a backend which drains gets nothing new at once: but for one that is
/// established, which an attacker could otherwise move. RFC 5961, section 4, has its backend answer that.
#[inline(always)]
pub const fn known(flags: u8, client: u8, backend: u8) -> Known {
    if opens(flags) {
        let over = (client | backend) & (seen::FIN | seen::RST) != 0;
        return if client & seen::ACK != 0 && !over {
            Known::Keep(client | seen::SYN_AGAIN)
        } else {
            Known::Select
        };
    }
    if flags & RST != 0 && client & seen::ACK == 0 {
        return Known::Remove;
    }
    Known::Keep(client | seen_of(flags))
}

/// What a client's TCP packet is whose flow has no entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missed {
    /// A SYN: a backend is chosen and written down.
    Opens,
    /// In the midst of a flow: it goes by the table, if its way allows it.
    Midst,
    /// A RST: the same, but nothing is ever written down for it.
    Ends,
}

/// What a client's TCP packet is whose flow has no entry.
#[inline(always)]
pub const fn missed(flags: u8) -> Missed {
    if opens(flags) {
        Missed::Opens
    } else if flags & RST != 0 {
        Missed::Ends
    } else {
        Missed::Midst
    }
}

/// How many seconds a flow is kept without a packet; `client` and `backend` are what has been seen from each side.
/// A flow with one FIN may go on the other way for as long as any.
#[inline(always)]
pub const fn lasts_seconds(proto: u8, client: u8, backend: u8, udp_seconds: u32) -> u32 {
    if proto != PROTO_TCP {
        udp_seconds
    } else if (client | backend) & seen::RST != 0 || client & backend & seen::FIN != 0 {
        CLOSING_SECONDS
    } else if client & seen::ACK != 0 {
        ESTABLISHED_SECONDS
    } else {
        OPENING_SECONDS
    }
}

#[cfg(test)]
mod tests {
    use lb_common::PROTO_UDP;

    use super::*;

    #[test]
    fn every_flag_has_its_bit() {
        for (flags, expect) in [
            (0, 0),
            (SYN, seen::SYN),
            (SYN | ACK, seen::SYN),
            (ACK, seen::ACK),
            (FIN | ACK, seen::FIN | seen::ACK),
            (RST, seen::RST),
            (RST | ACK, seen::RST | seen::ACK),
            // PSH, URG, ECE, CWR.
            (8 | 32 | 64 | 128, 0),
        ] {
            assert_eq!(seen_of(flags), expect, "{flags:#x}");
        }
    }

    #[test]
    fn a_syn_selects_anew_unless_the_flow_is_established() {
        let established = seen::SYN | seen::ACK;
        for (client, backend, expect) in [
            (seen::SYN, 0, Known::Select),
            (seen::SYN, seen::SYN, Known::Select),
            (
                established,
                seen::SYN,
                Known::Keep(established | seen::SYN_AGAIN),
            ),
            (established | seen::FIN, 0, Known::Select),
            (established, seen::FIN, Known::Select),
            (established | seen::RST, 0, Known::Select),
            (established, seen::RST, Known::Select),
        ] {
            // With and without the bits of RFC 3168.
            for flags in [SYN, SYN | 64 | 128] {
                assert_eq!(
                    known(flags, client, backend),
                    expect,
                    "{client:#x} {backend:#x}"
                );
            }
        }
        let again = established | seen::SYN_AGAIN;
        assert_eq!(known(SYN, again, 0), Known::Keep(again));
    }

    #[test]
    fn a_rst_removes_what_has_no_handshake_and_ends_what_has() {
        assert_eq!(known(RST, seen::SYN, 0), Known::Remove);
        assert_eq!(known(RST | ACK, seen::SYN, seen::SYN), Known::Remove);
        let established = seen::SYN | seen::ACK;
        assert_eq!(
            known(RST, established, 0),
            Known::Keep(established | seen::RST)
        );
    }

    #[test]
    fn anything_else_goes_by_the_entry_and_leaves_its_mark() {
        assert_eq!(
            known(ACK, seen::SYN, seen::SYN),
            Known::Keep(seen::SYN | seen::ACK)
        );
        let established = seen::SYN | seen::ACK;
        assert_eq!(
            known(FIN | ACK, established, 0),
            Known::Keep(established | seen::FIN)
        );
        // No request: a client that answers a SYN, or one that wants everything at once.
        assert_eq!(known(SYN | ACK, established, 0), Known::Keep(established));
        assert_eq!(
            known(SYN | FIN, established, 0),
            Known::Keep(established | seen::FIN)
        );
    }

    #[test]
    fn only_a_syn_opens_a_flow() {
        for (flags, expect) in [
            (SYN, Missed::Opens),
            (SYN | 64 | 128, Missed::Opens),
            (SYN | ACK, Missed::Midst),
            (SYN | FIN, Missed::Midst),
            (ACK, Missed::Midst),
            (FIN | ACK, Missed::Midst),
            (0, Missed::Midst),
            (RST, Missed::Ends),
            (RST | ACK, Missed::Ends),
            (SYN | RST, Missed::Ends),
        ] {
            assert_eq!(missed(flags), expect, "{flags:#x}");
        }
    }

    #[test]
    fn a_flow_lasts_as_long_as_its_state_says() {
        let established = seen::SYN | seen::ACK;
        for (client, backend, expect) in [
            (seen::SYN, 0, 60),
            (seen::SYN, seen::SYN, 60),
            (established, seen::SYN, 8000),
            (established | seen::FIN, seen::SYN, 8000),
            (established, seen::FIN, 8000),
            (established | seen::FIN, seen::FIN, 10),
            (established | seen::RST, 0, 10),
            (seen::SYN, seen::RST, 10),
        ] {
            assert_eq!(lasts_seconds(PROTO_TCP, client, backend, 30), expect);
        }
        assert_eq!(lasts_seconds(PROTO_UDP, 0, 0, 30), 30);
    }
}
