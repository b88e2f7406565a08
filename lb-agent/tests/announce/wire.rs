//! What goes over a wire: questions of ARP and neighbour discovery asked, answers and announcements heard. Frames are made
//! here anew, so that an agent that misunderstands an RFC is not understood by its own mistake.

use std::{
    collections::BTreeSet,
    io::Read as _,
    net::{Ipv4Addr, Ipv6Addr},
    os::fd::AsRawFd as _,
    time::{Duration, Instant},
};

use lb_testkit::Netns;
use nix::{ifaddrs::getifaddrs, sys::socket::bind};
use socket2::{Domain, Protocol, Socket, Type};

pub(crate) type Mac = [u8; 6];

/// A socket that hears and says frames on one device.
pub(crate) struct Wire {
    socket: Socket,
    mac: Mac,
    link_local: Ipv6Addr,
}

/// What somebody says of an address.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Said {
    /// To one who asked by ARP.
    ArpAnswer(Ipv4Addr, Mac),
    /// To everybody by ARP.
    ArpAnnouncement(Ipv4Addr, Mac),
    /// To one who asked by neighbour discovery.
    NdpAnswer(Ipv6Addr, Mac),
    /// To everybody by neighbour discovery, with the flag that overrides.
    NdpAnnouncement(Ipv6Addr, Mac),
}

/// After the first answer, for a second one that must not come. Hosts of the tests answer within a few milliseconds.
const LATE: Duration = Duration::from_millis(300);

impl Wire {
    pub(crate) fn open(netns: &Netns, device: &str) -> Self {
        netns
            .enter(|| {
                // Everything, ETH_P_ALL.
                let all = Protocol::from(i32::from(3_u16.to_be()));
                let socket = Socket::new(Domain::PACKET, Type::RAW, Some(all)).unwrap();
                let entries: Vec<_> = getifaddrs().unwrap().collect();
                let of_device = entries.iter().filter(|it| it.interface_name == device);
                let addresses: Vec<_> = of_device.filter_map(|it| it.address).collect();
                let link = addresses.iter().find_map(|it| it.as_link_addr().copied());
                let link = link.unwrap();
                bind(socket.as_raw_fd(), &link).unwrap();
                let v6 = addresses
                    .iter()
                    .filter_map(|it| Some(it.as_sockaddr_in6()?.ip()));
                let mut link_local = v6.filter(Ipv6Addr::is_unicast_link_local);
                Self {
                    socket,
                    mac: link.addr().unwrap(),
                    link_local: link_local.next().unwrap(),
                }
            })
            .unwrap()
    }

    /// What is said next, within this time.
    pub(crate) fn next(&self, within: Duration) -> Option<Said> {
        let end = Instant::now() + within;
        let mut buffer = [0; 2048];
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            self.socket.set_read_timeout(Some(left)).unwrap();
            if let Ok(length) = (&self.socket).read(&mut buffer)
                && let Some(said) = read(&buffer[..length])
            {
                return Some(said);
            }
        }
    }

    /// Everything that is heard until `enough`, or the time is over.
    pub(crate) fn until(
        &self,
        within: Duration,
        mut enough: impl FnMut(&[Said]) -> bool,
    ) -> Vec<Said> {
        let end = Instant::now() + within;
        let mut heard = Vec::new();
        while !enough(&heard) {
            match self.next(end.saturating_duration_since(Instant::now())) {
                Some(said) => heard.push(said),
                None => break,
            }
        }
        heard
    }

    /// Who answers to a question of ARP.
    pub(crate) fn who_has(&self, address: Ipv4Addr, within: Duration) -> BTreeSet<Mac> {
        let mut frame = vec![0xff; 6];
        frame.extend(self.mac);
        frame.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
        frame.extend(self.mac);
        frame.extend([10, 77, 0, 9, 0, 0, 0, 0, 0, 0]);
        frame.extend(address.octets());
        self.ask(&frame, within, |said| match said {
            Said::ArpAnswer(of, mac) if *of == address => Some(*mac),
            _ => None,
        })
    }

    /// Who answers to a question of neighbour discovery.
    pub(crate) fn who_has6(&self, address: Ipv6Addr, within: Duration) -> BTreeSet<Mac> {
        let last: [u8; 16] = address.octets();
        let mut group = [0; 16];
        group[..2].copy_from_slice(&[0xff, 2]);
        group[11..13].copy_from_slice(&[1, 0xff]);
        group[13..].copy_from_slice(&last[13..]);
        let mut message = vec![135, 0, 0, 0, 0, 0, 0, 0];
        message.extend(last);
        message.extend([1, 1]);
        message.extend(self.mac);
        let mut pseudo = self.link_local.octets().to_vec();
        pseudo.extend(group);
        pseudo.extend([0, 0, 0, 32, 0, 0, 0, 58]);
        let words = pseudo.chunks(2).chain(message.chunks(2));
        let sum: u32 = words
            .map(|it| u32::from(it[0]) << 8 | u32::from(it[1]))
            .sum();
        let sum = (sum & 0xffff) + (sum >> 16);
        let sum = !u16::try_from((sum & 0xffff) + (sum >> 16)).unwrap();
        message[2..4].copy_from_slice(&sum.to_be_bytes());
        let mut frame = vec![0x33, 0x33, group[12], group[13], group[14], group[15]];
        frame.extend(self.mac);
        frame.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, 32, 58, 255]);
        frame.extend(self.link_local.octets());
        frame.extend(group);
        frame.extend(message);
        self.ask(&frame, within, |said| match said {
            Said::NdpAnswer(of, mac) if *of == address => Some(*mac),
            _ => None,
        })
    }

    /// Says `frame` and hears whose answers there are: all that come soon after the first.
    fn ask(
        &self,
        frame: &[u8],
        within: Duration,
        answer: impl Fn(&Said) -> Option<Mac>,
    ) -> BTreeSet<Mac> {
        // What was said before is no answer.
        while self.next(Duration::from_millis(1)).is_some() {}
        self.socket.send(frame).unwrap();
        let first = |heard: &[Said]| heard.iter().any(|it| answer(it).is_some());
        let mut heard = self.until(within, first);
        if first(&heard) {
            heard.extend(self.until(LATE, |_| false));
        }
        heard.iter().filter_map(answer).collect()
    }
}

fn read(frame: &[u8]) -> Option<Said> {
    match frame.get(12..14)? {
        [8, 6] => {
            let sender = frame.get(22..28)?.try_into().ok()?;
            let address = Ipv4Addr::from(<[u8; 4]>::try_from(frame.get(28..32)?).ok()?);
            let of_all = frame[..6] == [0xff; 6] && frame.get(38..42)? == address.octets();
            match frame.get(20..22)? {
                [0, 2] => Some(Said::ArpAnswer(address, sender)),
                [0, 1] if of_all => Some(Said::ArpAnnouncement(address, sender)),
                _ => None,
            }
        }
        [0x86, 0xdd] if frame.get(20..22)? == [58, 255] && *frame.get(54)? == 136 => {
            let address = Ipv6Addr::from(<[u8; 16]>::try_from(frame.get(62..78)?).ok()?);
            let mac = frame.get(80..86)?.try_into().ok()?;
            match (&frame[..2], frame[58]) {
                ([0x33, 0x33], 0x20) => Some(Said::NdpAnnouncement(address, mac)),
                (_, 0x60) => Some(Said::NdpAnswer(address, mac)),
                _ => None,
            }
        }
        _ => None,
    }
}
