//! The life of a TCP flow, packet by packet, beside one who remembers all of them.

use std::vec::Vec;

use lb_common::packet::seen;

use crate::packet::{Known, Missed, known, missed, seen_of, seen_with, tcp_flag};

/// An entry as the programs keep it, and all packets since it was made.
#[derive(Default)]
struct Flow {
    client: u8,
    backend: u8,
    age: u32,
    from_client: Vec<u8>,
    from_backend: Vec<u8>,
}

/// Each byte is a packet: its six lowest bits are the flags, the highest says that the backend sent it, the one below that a
/// second went by before.
pub fn packet_track(data: &[u8]) {
    let mut flow: Option<Flow> = None;
    for &byte in data {
        let (flags, of_backend) = (byte & 0x3f, byte & 0x80 != 0);
        if byte & 0x40 != 0
            && let Some(flow) = &mut flow
        {
            flow.age += 1;
        }
        match &mut flow {
            Some(flow) if of_backend => {
                flow.from_backend.push(flags);
                flow.backend = seen_with(flow.backend, flags);
            }
            Some(entry) => {
                let said = known(flags, entry.client, entry.backend, entry.age);
                assert_eq!(said.kind(), entry.plainly(flags), "{flags:#x}");
                match said {
                    Known::Keep(bits) => {
                        entry.from_client.push(flags);
                        entry.client = bits;
                    }
                    Known::Select => flow = Some(Flow::opened(flags)),
                    Known::Remove => flow = None,
                }
            }
            // What comes back for no flow is nobody's.
            None if of_backend => {}
            None => {
                let opens = flags & 0b1_0111 == tcp_flag::SYN;
                let expect = match (opens, flags & tcp_flag::RST != 0) {
                    (true, _) => Missed::Opens,
                    (false, true) => Missed::Ends,
                    (false, false) => Missed::Midst,
                };
                assert_eq!(missed(flags), expect, "{flags:#x}");
                if expect != Missed::Ends {
                    flow = Some(Flow::opened(flags));
                }
            }
        }
        if let Some(flow) = &flow {
            flow.check();
        }
    }
}

impl Flow {
    fn opened(flags: u8) -> Self {
        Self {
            client: seen_of(flags),
            from_client: [flags].into(),
            ..Self::default()
        }
    }

    /// What becomes of a client's packet, by all that came before.
    fn plainly(&self, flags: u8) -> &'static str {
        let acknowledged = self.from_client.iter().any(|it| acknowledges(*it));
        if flags & 0b1_0111 == tcp_flag::SYN {
            let answered = self.from_backend.iter().any(|it| it & tcp_flag::SYN != 0);
            let over = is_over(&self.from_client) || is_over(&self.from_backend);
            return match !over && (acknowledged || answered && self.age <= 3) {
                true => "kept",
                false => "selected",
            };
        }
        match flags & tcp_flag::RST != 0 && !acknowledged {
            true => "removed",
            false => "kept",
        }
    }

    /// The bits of each side say what that one has sent.
    fn check(&self) {
        for (bits, sent) in [
            (self.client, &self.from_client),
            (self.backend, &self.from_backend),
        ] {
            let any = |flag| sent.iter().any(|it| it & flag != 0);
            assert_eq!(bits & seen::FIN != 0, any(tcp_flag::FIN), "{sent:x?}");
            assert_eq!(bits & seen::RST != 0, is_reset(sent), "{sent:x?}");
            let acknowledged = sent.iter().any(|it| acknowledges(*it));
            assert_eq!(bits & seen::ACK != 0, acknowledged, "{sent:x?}");
        }
        // Only the client's side can ask anew.
        assert_eq!(self.backend & seen::SYN_AGAIN, 0);
    }
}

impl Known {
    fn kind(self) -> &'static str {
        match self {
            Self::Keep(_) => "kept",
            Self::Select => "selected",
            Self::Remove => "removed",
        }
    }
}

fn is_over(sent: &[u8]) -> bool {
    is_reset(sent) || sent.iter().any(|it| it & tcp_flag::FIN != 0)
}

/// A side that acknowledges after a RST has not ended.
fn is_reset(sent: &[u8]) -> bool {
    let reset = sent.iter().rposition(|it| it & tcp_flag::RST != 0);
    let goes_on = |at: usize| sent[at + 1..].iter().any(|it| acknowledges(*it));
    reset.is_some_and(|at| !goes_on(at))
}

/// A SYN acknowledges nothing yet.
fn acknowledges(flags: u8) -> bool {
    flags & (tcp_flag::ACK | tcp_flag::SYN) == tcp_flag::ACK
}
