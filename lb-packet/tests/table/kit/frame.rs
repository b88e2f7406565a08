//! Packets as their senders mean them, and as they lie on the wire: whole checksums, computed from nothing.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An address of a network device.
pub(crate) type Mac = [u8; 6];

/// Flags of TCP.
pub(crate) const FIN: u8 = 1;
pub(crate) const SYN: u8 = 2;
pub(crate) const RST: u8 = 4;
pub(crate) const ACK: u8 = 16;

/// A frame of Ethernet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) to: Mac,
    pub(crate) from: Mac,
    /// VLANs, outermost first.
    pub(crate) tags: Vec<u16>,
    pub(crate) ip: Ip,
}

/// A packet of IPv4 or IPv6, by its addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ip {
    pub(crate) source: IpAddr,
    pub(crate) destination: IpAddr,
    /// TTL or hop limit.
    pub(crate) hops: u8,
    /// Type of service or traffic class.
    pub(crate) class: u8,
    /// IPv4: the identification; IPv6: the flow label.
    pub(crate) id: u16,
    /// IPv4: don't fragment.
    pub(crate) whole: bool,
    /// Offset in units of eight bytes, and whether more come.
    pub(crate) fragment: Option<(u16, bool)>,
    /// IPv4 options, a multiple of four bytes.
    pub(crate) options: Vec<u8>,
    /// IPv6 extension headers: which, and all but its first byte.
    pub(crate) extensions: Vec<(u8, Vec<u8>)>,
    pub(crate) body: Body,
}

/// What a packet bears.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Body {
    Tcp {
        source: u16,
        destination: u16,
        sequence: u32,
        acknowledged: u32,
        flags: u8,
        /// A multiple of four bytes.
        options: Vec<u8>,
        payload: Vec<u8>,
    },
    Udp {
        source: u16,
        destination: u16,
        /// IPv4 allows to do without.
        checksum: bool,
        payload: Vec<u8>,
    },
    /// ICMP or ICMPv6, after the family.
    Icmp {
        kind: u8,
        code: u8,
        /// The second word of its head.
        word: u32,
        payload: Vec<u8>,
    },
    /// A packet in a tunnel.
    Ip(Box<Ip>),
    /// Something else.
    Raw(u8, Vec<u8>),
}

impl Frame {
    /// A SYN between two addresses and ports.
    pub(crate) fn tcp(source: (IpAddr, u16), destination: (IpAddr, u16)) -> Self {
        Self::with(
            source.0,
            destination.0,
            Body::Tcp {
                source: source.1,
                destination: destination.1,
                sequence: 1000,
                acknowledged: 0,
                flags: SYN,
                options: Vec::new(),
                payload: Vec::new(),
            },
        )
    }

    /// A datagram between two addresses and ports.
    pub(crate) fn udp(source: (IpAddr, u16), destination: (IpAddr, u16)) -> Self {
        Self::with(
            source.0,
            destination.0,
            Body::Udp {
                source: source.1,
                destination: destination.1,
                checksum: true,
                payload: b"question".to_vec(),
            },
        )
    }

    /// A message of ICMP or ICMPv6.
    pub(crate) fn icmp(
        source: IpAddr,
        destination: IpAddr,
        kind: u8,
        code: u8,
        word: u32,
        payload: Vec<u8>,
    ) -> Self {
        let body = Body::Icmp {
            kind,
            code,
            word,
            payload,
        };
        Self::with(source, destination, body)
    }

    /// The reset that answers a packet of TCP: it goes back to the sender, and says nothing but that.
    pub(crate) fn reset(&self, sequence: u32, acknowledged: u32, flags: u8) -> Self {
        let Body::Tcp {
            source,
            destination,
            ..
        } = &self.ip.body
        else {
            panic!("only TCP has resets");
        };
        let (from, to) = (self.ip.destination, self.ip.source);
        let mut bytes = [destination.to_be_bytes(), source.to_be_bytes()].concat();
        bytes.extend(sequence.to_be_bytes());
        bytes.extend(acknowledged.to_be_bytes());
        bytes.extend([0x50, flags, 0, 0, 0, 0, 0, 0]);
        let check = with_ends(from, to, 6, &bytes);
        bytes[16..18].copy_from_slice(&check.to_be_bytes());
        let mut frame = Self::with(from, to, Body::Raw(6, bytes)).made_here();
        frame.tags.clone_from(&self.tags);
        frame.macs(self.from, self.to)
    }

    /// As a program makes packets: not one of many.
    #[must_use]
    pub(crate) fn made_here(mut self) -> Self {
        self.ip.id = 0;
        self
    }

    /// Anything.
    pub(crate) fn with(source: IpAddr, destination: IpAddr, body: Body) -> Self {
        Self {
            to: [2, 0, 0, 0, 1, 1],
            from: [2, 0, 0, 0, 2, 254],
            tags: Vec::new(),
            ip: Ip {
                source,
                destination,
                hops: 64,
                class: 0,
                id: 0x1234,
                whole: true,
                fragment: None,
                options: Vec::new(),
                extensions: Vec::new(),
                body,
            },
        }
    }

    /// From another address and port. A port of 0 stays as it is.
    #[must_use]
    pub(crate) fn from(mut self, address: IpAddr, port: u16) -> Self {
        self.ip.source = address;
        if port != 0
            && let Body::Tcp { source, .. } | Body::Udp { source, .. } = &mut self.ip.body
        {
            *source = port;
        }
        self
    }

    /// To another address and port. A port of 0 stays as it is.
    #[must_use]
    pub(crate) fn to(mut self, address: IpAddr, port: u16) -> Self {
        self.ip.destination = address;
        if port != 0
            && let Body::Tcp { destination, .. } | Body::Udp { destination, .. } = &mut self.ip.body
        {
            *destination = port;
        }
        self
    }

    /// To and from other devices.
    #[must_use]
    pub(crate) fn macs(mut self, to: Mac, from: Mac) -> Self {
        (self.to, self.from) = (to, from);
        self
    }

    /// With so many hops left.
    #[must_use]
    pub(crate) fn hops(mut self, hops: u8) -> Self {
        self.ip.hops = hops;
        self
    }

    /// In a VLAN, outside of those that it is in.
    #[must_use]
    pub(crate) fn tag(mut self, tag: u16) -> Self {
        self.tags.insert(0, tag);
        self
    }

    /// With other flags of TCP; an ACK acknowledges something.
    #[must_use]
    pub(crate) fn flags(mut self, new: u8) -> Self {
        if let Body::Tcp {
            flags,
            acknowledged,
            ..
        } = &mut self.ip.body
        {
            *flags = new;
            *acknowledged = if new & ACK != 0 { 7000 } else { 0 };
        }
        self
    }

    /// With other options of TCP.
    #[must_use]
    pub(crate) fn tcp_options(mut self, new: &[u8]) -> Self {
        if let Body::Tcp { options, .. } = &mut self.ip.body {
            *options = new.to_vec();
        }
        self
    }

    /// With another payload.
    #[must_use]
    pub(crate) fn payload(mut self, new: &[u8]) -> Self {
        if let Body::Tcp { payload, .. } | Body::Udp { payload, .. } | Body::Icmp { payload, .. } =
            &mut self.ip.body
        {
            *payload = new.to_vec();
        }
        self
    }

    /// Changed in any other way.
    #[must_use]
    pub(crate) fn change(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    /// In a tunnel between two hosts.
    #[must_use]
    pub(crate) fn in_tunnel(mut self, source: IpAddr, destination: IpAddr) -> Self {
        let outer = Self::with(source, destination, Body::Raw(0, Vec::new())).ip;
        let inner = std::mem::replace(&mut self.ip, outer);
        self.ip.body = Body::Ip(Box::new(inner));
        self
    }

    /// As it lies on the wire.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut bytes = [self.to, self.from].concat();
        for tag in &self.tags {
            bytes.extend(0x8100_u16.to_be_bytes());
            bytes.extend(tag.to_be_bytes());
        }
        let kind: u16 = if self.ip.source.is_ipv4() {
            0x0800
        } else {
            0x86dd
        };
        bytes.extend(kind.to_be_bytes());
        bytes.extend(self.ip.bytes());
        bytes
    }
}

impl Ip {
    /// As it lies on the wire.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let (proto, body) = self.body.bytes(self.source, self.destination);
        match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                self.v4(source, destination, proto, &body)
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                self.v6(source, destination, proto, &body)
            }
            _ => panic!("one packet has addresses of one family"),
        }
    }

    fn v4(&self, source: Ipv4Addr, destination: Ipv4Addr, proto: u8, body: &[u8]) -> Vec<u8> {
        let head = 20 + self.options.len();
        let words = u8::try_from(head / 4).unwrap();
        let total = u16::try_from(head + body.len()).unwrap();
        let (offset, more) = self.fragment.unwrap_or_default();
        let flags = offset | u16::from(more) << 13 | u16::from(self.whole) << 14;
        let mut bytes = vec![0x40 | words, self.class];
        for word in [total, self.id, flags] {
            bytes.extend(word.to_be_bytes());
        }
        bytes.extend([self.hops, proto, 0, 0]);
        bytes.extend(source.octets());
        bytes.extend(destination.octets());
        bytes.extend(&self.options);
        let check = checksum(&[&bytes]);
        bytes[10..12].copy_from_slice(&check.to_be_bytes());
        bytes.extend(body);
        bytes
    }

    fn v6(&self, source: Ipv6Addr, destination: Ipv6Addr, proto: u8, body: &[u8]) -> Vec<u8> {
        let mut extensions = self.extensions.clone();
        if let Some((offset, more)) = self.fragment {
            let mut rest = vec![0];
            rest.extend((offset << 3 | u16::from(more)).to_be_bytes());
            rest.extend(u32::from(self.id).to_be_bytes());
            extensions.push((44, rest));
        }
        let mut next: Vec<u8> = extensions.iter().map(|(kind, _)| *kind).collect();
        next.push(proto);
        let mut payload = Vec::new();
        for ((_, rest), after) in extensions.iter().zip(&next[1..]) {
            payload.push(*after);
            payload.extend(rest);
        }
        payload.extend(body);
        let first = 6 << 28 | u32::from(self.class) << 20 | u32::from(self.id);
        let mut bytes = first.to_be_bytes().to_vec();
        bytes.extend(u16::try_from(payload.len()).unwrap().to_be_bytes());
        bytes.extend([next[0], self.hops]);
        bytes.extend(source.octets());
        bytes.extend(destination.octets());
        bytes.extend(payload);
        bytes
    }
}

impl Body {
    fn bytes(&self, source: IpAddr, destination: IpAddr) -> (u8, Vec<u8>) {
        match self {
            Self::Tcp {
                source: from,
                destination: to,
                sequence,
                acknowledged,
                flags,
                options,
                payload,
            } => {
                let mut bytes = [from.to_be_bytes(), to.to_be_bytes()].concat();
                bytes.extend(sequence.to_be_bytes());
                bytes.extend(acknowledged.to_be_bytes());
                let words = u8::try_from(5 + options.len() / 4).unwrap();
                bytes.extend([words << 4, *flags, 0xff, 0xff, 0, 0, 0, 0]);
                bytes.extend(options);
                bytes.extend(payload);
                let check = with_ends(source, destination, 6, &bytes);
                bytes[16..18].copy_from_slice(&check.to_be_bytes());
                (6, bytes)
            }
            Self::Udp {
                source: from,
                destination: to,
                checksum,
                payload,
            } => {
                let length = u16::try_from(8 + payload.len()).unwrap();
                let mut bytes: Vec<u8> = [*from, *to, length, 0]
                    .into_iter()
                    .flat_map(u16::to_be_bytes)
                    .collect();
                bytes.extend(payload);
                if *checksum {
                    let check = match with_ends(source, destination, 17, &bytes) {
                        0 => 0xffff,
                        check => check,
                    };
                    bytes[6..8].copy_from_slice(&check.to_be_bytes());
                }
                (17, bytes)
            }
            Self::Icmp {
                kind,
                code,
                word,
                payload,
            } => {
                let mut bytes = vec![*kind, *code, 0, 0];
                bytes.extend(word.to_be_bytes());
                bytes.extend(payload);
                let (proto, check) = match source {
                    IpAddr::V4(_) => (1, checksum(&[&bytes])),
                    IpAddr::V6(_) => (58, with_ends(source, destination, 58, &bytes)),
                };
                bytes[2..4].copy_from_slice(&check.to_be_bytes());
                (proto, bytes)
            }
            Self::Ip(inner) => {
                let proto = if inner.source.is_ipv4() { 4 } else { 41 };
                (proto, inner.bytes())
            }
            Self::Raw(proto, bytes) => (*proto, bytes.clone()),
        }
    }
}

/// The checksum of the Internet (RFC 1071).
pub(crate) fn checksum(parts: &[&[u8]]) -> u16 {
    let bytes = parts.concat();
    let words = bytes.chunks(2).map(|pair| match pair {
        [high, low] => u32::from(u16::from_be_bytes([*high, *low])),
        [high] => u32::from(*high) << 8,
        _ => 0,
    });
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap()
}

/// The same with the ends of the packet, as TCP, UDP and ICMPv6 have it.
fn with_ends(source: IpAddr, destination: IpAddr, proto: u8, bytes: &[u8]) -> u16 {
    let octets = |address| match address {
        IpAddr::V4(address) => Ipv4Addr::octets(&address).to_vec(),
        IpAddr::V6(address) => Ipv6Addr::octets(&address).to_vec(),
    };
    let length = u32::try_from(bytes.len()).unwrap();
    checksum(&[
        &octets(source),
        &octets(destination),
        &length.to_be_bytes(),
        &[0, 0, 0, proto],
        bytes,
    ])
}
