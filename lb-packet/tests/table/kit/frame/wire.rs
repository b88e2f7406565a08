//! Packets as they lie on the wire: whole checksums, computed from nothing.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{Body, Frame, Ip};

impl Frame {
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
fn checksum(parts: &[&[u8]]) -> u16 {
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
pub(super) fn with_ends(source: IpAddr, destination: IpAddr, proto: u8, bytes: &[u8]) -> u16 {
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
