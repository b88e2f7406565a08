//! Packets for the tests: one that somebody sends, and what is wrong with one.

mod any;
mod faults;

use lb_common::{Be16, Be32, PROTO_TCP, PROTO_UDP};

pub(crate) use self::{
    any::{any_sent, seeds},
    faults::{checksum, faults, pseudo_checksum},
};
use super::{Ends4, Ends6, Places};

/// A packet as its sender means it.
#[derive(Clone, Debug)]
pub(crate) struct Sent {
    pub(crate) tags: Vec<u16>,
    /// As in `Target::address`: IPv4 is mapped.
    pub(crate) source: [u32; 4],
    pub(crate) destination: [u32; 4],
    pub(crate) source_port: Be16,
    pub(crate) destination_port: Be16,
    pub(crate) proto: u8,
    pub(crate) flags: u8,
    pub(crate) hops: u8,
    /// Of the IP head.
    pub(crate) class: u8,
    /// TCP options, a multiple of four bytes.
    pub(crate) tcp_options: Vec<u8>,
    /// IPv4 options, a multiple of four bytes.
    pub(crate) options: Vec<u8>,
    /// IPv6 extension headers, outermost first: which, and all but its first byte.
    pub(crate) extensions: Vec<(u8, Vec<u8>)>,
    pub(crate) payload: Vec<u8>,
}

const MAPPED: u32 = 0xffff_u32.to_be();

fn words(octets: [u8; 16]) -> [u32; 4] {
    std::array::from_fn(|index| {
        u32::from_ne_bytes(octets[4 * index..4 * index + 4].try_into().unwrap())
    })
}

/// An address as four words; IPv4 is mapped.
pub(crate) fn address(text: &str) -> [u32; 4] {
    match text.parse().unwrap() {
        std::net::IpAddr::V4(v4) => words(v4.to_ipv6_mapped().octets()),
        std::net::IpAddr::V6(v6) => words(v6.octets()),
    }
}

fn octets(words: [u32; 4]) -> [u8; 16] {
    let mut octets = [0; 16];
    for (bytes, word) in octets.chunks_exact_mut(4).zip(words) {
        bytes.copy_from_slice(&word.to_ne_bytes());
    }
    octets
}

impl Sent {
    fn new(source: &str, destination: &str, proto: u8) -> Self {
        Self {
            tags: Vec::new(),
            source: address(source),
            destination: address(destination),
            source_port: Be16::from_host(40_000),
            destination_port: Be16::from_host(80),
            proto,
            flags: if proto == PROTO_TCP { 2 } else { 0 },
            hops: 64,
            class: 0,
            tcp_options: Vec::new(),
            options: Vec::new(),
            extensions: Vec::new(),
            payload: b"hello".to_vec(),
        }
    }

    pub(crate) fn tcp4() -> Self {
        Self::new("10.0.0.1", "198.18.1.2", PROTO_TCP)
    }

    pub(crate) fn udp4() -> Self {
        Self::new("10.0.0.1", "198.18.1.2", PROTO_UDP)
    }

    pub(crate) fn tcp6() -> Self {
        Self::new("2001:db8::1", "fd62:6c62:76:1::102", PROTO_TCP)
    }

    pub(crate) fn udp6() -> Self {
        Self::new("2001:db8::1", "fd62:6c62:76:1::102", PROTO_UDP)
    }

    pub(crate) fn tagged(mut self, tags: &[u16]) -> Self {
        self.tags = tags.to_vec();
        self
    }

    /// With an extension header around all others.
    pub(crate) fn extended(mut self, which: u8, rest: &[u8]) -> Self {
        self.extensions.insert(0, (which, rest.to_vec()));
        self
    }

    pub(crate) fn v6(&self) -> bool {
        self.source[..3] != [0, 0, MAPPED]
    }

    pub(crate) fn network(&self) -> usize {
        14 + 4 * self.tags.len()
    }

    pub(crate) fn transport(&self) -> usize {
        let extensions: usize = self.extensions.iter().map(|(_, rest)| rest.len() + 1).sum();
        let head = if self.v6() {
            40 + extensions
        } else {
            20 + self.options.len()
        };
        self.network() + head
    }

    pub(crate) fn places(&self) -> Places {
        Places {
            network: self.network(),
            transport: self.transport(),
            proto: self.proto,
        }
    }

    pub(crate) fn ends4(&self) -> Ends4 {
        Ends4 {
            source: Be32::from_raw(self.source[3]),
            destination: Be32::from_raw(self.destination[3]),
            source_port: self.source_port,
            destination_port: self.destination_port,
        }
    }

    pub(crate) fn ends6(&self) -> Ends6 {
        Ends6 {
            source: self.source,
            destination: self.destination,
            source_port: self.source_port,
            destination_port: self.destination_port,
        }
    }

    /// The frame, with all checksums.
    pub(crate) fn frame(&self) -> Vec<u8> {
        let mut frame = b"\x02to\x00\x00\x01\x02fr\x00\x00\x02".to_vec();
        for (index, tag) in self.tags.iter().enumerate() {
            frame.extend(tag.to_be_bytes());
            frame.extend([0, u8::try_from(index).unwrap() + 1]);
        }
        frame.extend(if self.v6() {
            [0x86, 0xdd]
        } else {
            [0x08, 0x00]
        });
        let inner = self.inner();
        if self.v6() {
            frame.extend([0x60 | self.class >> 4, self.class << 4, 0, 0]);
            let extensions: Vec<u8> = self
                .extensions
                .iter()
                .enumerate()
                .flat_map(|(index, (_, rest))| {
                    let next = self.extensions.get(index + 1).map_or(self.proto, |it| it.0);
                    std::iter::once(next).chain(rest.iter().copied())
                })
                .collect();
            frame.extend(
                u16::try_from(extensions.len() + inner.len())
                    .unwrap()
                    .to_be_bytes(),
            );
            frame.push(self.extensions.first().map_or(self.proto, |it| it.0));
            frame.push(self.hops);
            frame.extend(octets(self.source));
            frame.extend(octets(self.destination));
            frame.extend(extensions);
        } else {
            let head = 20 + self.options.len();
            let mut ip = vec![0x40 | u8::try_from(head / 4).unwrap(), self.class];
            ip.extend(u16::try_from(head + inner.len()).unwrap().to_be_bytes());
            ip.extend([0x12, 0x34, 0x40, 0x00, self.hops, self.proto, 0, 0]);
            ip.extend(self.source[3].to_ne_bytes());
            ip.extend(self.destination[3].to_ne_bytes());
            ip.extend(&self.options);
            let check = checksum(&[&ip]);
            ip[10..12].copy_from_slice(&check.to_be_bytes());
            frame.extend(ip);
        }
        frame.extend(inner);
        frame
    }

    fn inner(&self) -> Vec<u8> {
        let mut inner = self.source_port.raw().to_ne_bytes().to_vec();
        inner.extend(self.destination_port.raw().to_ne_bytes());
        let at = if self.proto == PROTO_TCP {
            let words = u8::try_from(5 + self.tcp_options.len() / 4).unwrap();
            inner.extend([1, 2, 3, 4, 5, 6, 7, 8, words << 4]);
            inner.extend([self.flags, 0xff, 0xff, 0, 0, 0, 0]);
            inner.extend(&self.tcp_options);
            16
        } else {
            inner.extend(u16::try_from(8 + self.payload.len()).unwrap().to_be_bytes());
            inner.extend([0, 0]);
            6
        };
        inner.extend(&self.payload);
        let check = self.check(&inner);
        inner[at..at + 2].copy_from_slice(&check.to_be_bytes());
        inner
    }

    fn check(&self, inner: &[u8]) -> u16 {
        pseudo_checksum(self.source, self.destination, self.proto, inner)
    }
}
