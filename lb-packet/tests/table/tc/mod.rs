//! The programs of the stack: what clients on this host send to VIPs, what others send to VIPs whose backends are here, and what
//! comes back to both.

mod answers;
mod flows;
mod hairpin;
mod messages;
mod refused;
mod segment;

use std::{net::IpAddr, sync::Arc};

use lb_common::Be32;

use crate::kit::{
    CARD, CLIENT, CLIENT_DEVICE, Desired, Family, Frame, Row, neighbour, row, scene, vip,
};

pub(crate) fn rows(family: Family) -> Vec<Row> {
    let mut rows = Vec::new();
    for place in [Place::Client, Place::Card] {
        let at = At { place, family };
        rows.extend(answers::rows(at));
        rows.extend(flows::rows(at));
        rows.extend(messages::rows(at));
        rows.extend(refused::rows(at));
    }
    rows.extend(hairpin::rows(family));
    rows.extend(segment::rows(family));
    rows
}

/// Which device the programs are at.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// A client's, on this host.
    Client,
    /// The network card.
    Card,
}

/// Where rows take place: both have the same rules.
#[derive(Clone, Copy)]
struct At {
    place: Place,
    family: Family,
}

impl At {
    /// Begins a row about packets to VIPs.
    fn inwards(self, says: &str) -> Row {
        let program = match self.place {
            Place::Client => "tc_client_in",
            Place::Card => "tc_card_in",
        };
        row(program, self.family, says)
    }

    /// Begins a row about answers. What came before it came by [`At::known`].
    fn outwards(self, says: &str) -> Row {
        let program = match self.place {
            Place::Client => "tc_client_out",
            Place::Card => "tc_card_out",
        };
        row(program, self.family, says)
    }

    /// A packet that came inwards before.
    fn known(self, row: Row, frame: &Frame) -> Row {
        let program = match self.place {
            Place::Client => "tc_client_in",
            Place::Card => "tc_card_in",
        };
        row.after_by(program, frame)
    }

    fn client(self) -> IpAddr {
        match self.place {
            Place::Client => self.family.ip("10.77.0.2"),
            Place::Card => self.family.client(),
        }
    }

    /// The VIP that is balanced here, and another one of the same backend.
    fn vips(self) -> (u8, u8) {
        match self.place {
            Place::Client => (vip::FULL, vip::FULL_TOO),
            Place::Card => (vip::LOCAL, vip::LOCAL_TOO),
        }
    }

    fn vip(self) -> IpAddr {
        self.family.vip(self.vips().0)
    }

    fn backend(self) -> IpAddr {
        match self.place {
            Place::Client => self.family.ip("10.1.0.10"),
            Place::Card => self.family.ip("10.77.0.20"),
        }
    }

    /// Devices of a packet to a VIP.
    #[expect(clippy::wrong_self_convention, reason = "where the frame is from")]
    fn from_client(self, frame: Frame) -> Frame {
        match self.place {
            Place::Client => frame.macs(CLIENT_DEVICE, CLIENT),
            Place::Card => frame.macs(CARD, neighbour(254)),
        }
    }

    /// Devices of a packet to a client.
    fn to_client(self, frame: Frame) -> Frame {
        match self.place {
            Place::Client => frame.macs(CLIENT, CLIENT_DEVICE),
            Place::Card => frame.macs(neighbour(254), CARD),
        }
    }

    /// A SYN of the client.
    fn syn(self) -> Frame {
        self.from_client(Frame::tcp((self.client(), 1000), (self.vip(), 80)))
    }

    /// A datagram of the client.
    fn datagram(self) -> Frame {
        self.from_client(Frame::udp((self.client(), 1000), (self.vip(), 53)))
    }

    /// What a client is told without a backend. At the card, the stack finds out who takes the frame: the packet may have come out of a
    /// tunnel.
    fn told(self, frame: Frame) -> Frame {
        match self.place {
            Place::Client => frame,
            Place::Card => frame.macs(CARD, neighbour(254)),
        }
    }

    /// The same packet as the backend gets it.
    fn sent(self, frame: &Frame) -> Frame {
        frame.clone().to(self.backend(), 8080)
    }

    /// An answer as the backend gives it, of TCP with such flags.
    fn answer(self, flags: u8) -> Frame {
        let frame = Frame::tcp((self.backend(), 8080), (self.client(), 1000));
        self.to_client(frame.flags(flags))
    }

    /// The same as the client gets it.
    fn answered(self, frame: &Frame) -> Frame {
        frame.clone().from(self.vip(), 80)
    }

    /// The backend of both VIPs is taken away.
    fn nobody(self) -> impl Fn(&mut Desired) + 'static {
        let (one, other) = self.vips();
        let vips = [one, other].map(|number| Be32::from_host(scene::vip4(number).into()));
        move |desired| {
            for (key, wanted) in &mut desired.endpoints {
                if vips.contains(&key.vip) {
                    wanted.members = Arc::from([]);
                }
            }
        }
    }
}
