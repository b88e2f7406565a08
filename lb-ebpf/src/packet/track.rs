//! What a packet's flags mean for its flow, known or not.

use lb_common::packet::seen;

use super::parse::tcp_flag::{ACK, FIN, RST, SYN};

/// Seconds in which a SYN that is sent once more is of the handshake that the backend has answered.
const HANDSHAKE_SECONDS: u32 = 3;

/// The [`seen`] bits of a packet.
#[inline(always)]
pub const fn seen_of(flags: u8) -> u8 {
    // Bit by bit and without a branch: every branch doubles what the verifier walks through.
    const _: () = assert!(FIN == 1 && SYN == 2 && RST == 4 && ACK == 16 && seen::SYN == 1);
    let (fin, syn) = (flags & 1, (flags >> 1) & 1);
    let (rst, ack) = ((flags >> 2) & 1, (flags >> 4) & 1 & !syn);
    syn | (ack * seen::ACK) | (fin * seen::FIN) | (rst * seen::RST)
}

/// What has been seen from one side, after another packet of it. A side that acknowledges after a RST has not ended: the
/// RST was somebody else's, whom both ends ignore (RFC 5961, section 3).
#[inline(always)]
pub const fn seen_with(before: u8, flags: u8) -> u8 {
    const _: () = assert!(seen::ACK << 2 == seen::RST);
    let bits = seen_of(flags);
    // Without a branch, as above.
    before & !((bits & seen::ACK) << 2) | bits
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

/// What becomes of a client's TCP packet whose flow has an entry that was made `age` seconds ago; `client` and `backend` are
/// what has been seen from each side.
///
/// A SYN never trusts an entry, so that a backend which drains gets nothing new at once: but for one that is
/// established, which an attacker could otherwise move. RFC 5961, section 4, has its backend answer that. And for one whose
/// backend has just answered the same SYN, for the client may be about to acknowledge that answer.
#[inline(always)]
pub const fn known(flags: u8, client: u8, backend: u8, age: u32) -> Known {
    if opens(flags) {
        let over = (client | backend) & (seen::FIN | seen::RST) != 0;
        return if over {
            Known::Select
        } else if client & seen::ACK != 0 {
            Known::Keep(client | seen::SYN_AGAIN)
        } else if backend & seen::SYN != 0 && age <= HANDSHAKE_SECONDS {
            Known::Keep(client)
        } else {
            Known::Select
        };
    }
    if flags & RST != 0 && client & seen::ACK == 0 {
        return Known::Remove;
    }
    Known::Keep(seen_with(client, flags))
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

#[cfg(test)]
mod tests {
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
            (seen::SYN, seen::RST, Known::Select),
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
                    known(flags, client, backend, 60),
                    expect,
                    "{client:#x} {backend:#x}"
                );
            }
        }
        let again = established | seen::SYN_AGAIN;
        assert_eq!(known(SYN, again, 0, 60), Known::Keep(again));
    }

    #[test]
    fn a_syn_that_was_just_answered_goes_the_same_way() {
        for (client, backend, age, expect) in [
            (seen::SYN, seen::SYN, 0, Known::Keep(seen::SYN)),
            (seen::SYN, seen::SYN, 3, Known::Keep(seen::SYN)),
            (seen::SYN, seen::SYN, 4, Known::Select),
            (seen::SYN, 0, 0, Known::Select),
            (seen::SYN, seen::SYN | seen::RST, 0, Known::Select),
            (seen::SYN, seen::SYN | seen::FIN, 0, Known::Select),
            (seen::SYN | seen::RST, seen::SYN, 0, Known::Select),
        ] {
            assert_eq!(
                known(SYN, client, backend, age),
                expect,
                "{client:#x} {backend:#x} {age}"
            );
        }
    }

    #[test]
    fn a_side_that_goes_on_after_a_rst_has_not_ended() {
        let established = seen::SYN | seen::ACK;
        let reset = established | seen::RST;
        for (before, flags, expect) in [
            (established, RST, reset),
            (established, RST | ACK, reset),
            (reset, ACK, established),
            (reset, FIN | ACK, established | seen::FIN),
            (reset, RST | ACK, reset),
            (reset, RST, reset),
            // A SYN acknowledges nothing yet, and neither does what has no ACK.
            (reset, SYN | ACK, reset),
            (reset, SYN, reset),
            (reset, 0, reset),
            (established | seen::FIN, ACK, established | seen::FIN),
            (0, ACK, seen::ACK),
        ] {
            assert_eq!(seen_with(before, flags), expect, "{before:#x} {flags:#x}");
        }
        assert_eq!(known(ACK, reset, seen::SYN, 60), Known::Keep(established));
    }

    #[test]
    fn a_rst_removes_what_has_no_handshake_and_ends_what_has() {
        assert_eq!(known(RST, seen::SYN, 0, 0), Known::Remove);
        assert_eq!(known(RST | ACK, seen::SYN, seen::SYN, 0), Known::Remove);
        let established = seen::SYN | seen::ACK;
        assert_eq!(
            known(RST, established, 0, 0),
            Known::Keep(established | seen::RST)
        );
    }

    #[test]
    fn anything_else_goes_by_the_entry_and_leaves_its_mark() {
        assert_eq!(
            known(ACK, seen::SYN, seen::SYN, 0),
            Known::Keep(seen::SYN | seen::ACK)
        );
        let established = seen::SYN | seen::ACK;
        assert_eq!(
            known(FIN | ACK, established, 0, 0),
            Known::Keep(established | seen::FIN)
        );
        // No request: a client that answers a SYN, or one that wants everything at once.
        assert_eq!(
            known(SYN | ACK, established, 0, 0),
            Known::Keep(established)
        );
        assert_eq!(
            known(SYN | FIN, established, 0, 0),
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
}
