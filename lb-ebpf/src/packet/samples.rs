//! Packets for the tests: one that somebody sends, and what is wrong with one.

use lb_common::{Be16, Be32, PROTO_TCP, PROTO_UDP};
use proptest::prelude::*;

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

/// The checksum over the pseudo head and what is inside.
pub(crate) fn pseudo_checksum(
    source: [u32; 4],
    destination: [u32; 4],
    proto: u8,
    inner: &[u8],
) -> u16 {
    // What differs between the pseudo heads of both families are zeroes, and the mapped form.
    let length = u16::try_from(inner.len()).unwrap().to_be_bytes();
    let address = |words: [u32; 4]| {
        if words[..3] == [0, 0, MAPPED] {
            words[3].to_ne_bytes().to_vec()
        } else {
            octets(words).to_vec()
        }
    };
    let (source, destination) = (address(source), address(destination));
    let check = checksum(&[&source, &destination, &[0, proto], &length, inner]);
    if proto == PROTO_UDP && check == 0 {
        0xffff
    } else {
        check
    }
}

/// The checksum as RFC 1071 writes it down: byte pairs, in network order. Each part but the last is of even length.
pub(crate) fn checksum(parts: &[&[u8]]) -> u16 {
    let mut sum: u64 = 0;
    for pair in parts.iter().flat_map(|part| part.chunks(2)) {
        sum += u64::from(pair[0]) << 8 | u64::from(*pair.get(1).unwrap_or(&0));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap()
}

/// What is wrong with the lengths and the checksums of a packet, read by nothing that is tested here.
pub(crate) fn faults(frame: &[u8]) -> Vec<String> {
    let mut at = 12;
    while matches!(frame[at..at + 2], [0x81, 0x00] | [0x88, 0xa8]) {
        at += 4;
    }
    let (kind, ip) = (&frame[at..at + 2], &frame[at + 2..]);
    match kind {
        [0x08, 0x00] => ip_faults(ip, false),
        [0x86, 0xdd] => ip_faults(ip, true),
        other => vec![format!("EtherType {other:x?}")],
    }
}

fn ip_faults(ip: &[u8], v6: bool) -> Vec<String> {
    let mut faults = Vec::new();
    let (proto, source, destination, inner) = if v6 {
        if usize::from(u16::from_be_bytes([ip[4], ip[5]])) + 40 != ip.len() {
            faults.push(format!("IPv6 length of {}", ip.len()));
        }
        let (mut proto, mut at) = (ip[6], 40);
        while let 0 | 43 | 44 | 60 | 51 = proto {
            let length = match proto {
                44 => 8,
                51 => (usize::from(ip[at + 1]) + 2) * 4,
                _ => (usize::from(ip[at + 1]) + 1) * 8,
            };
            proto = ip[at];
            at += length;
        }
        let address = |at: usize| words(ip[at..at + 16].try_into().unwrap());
        (proto, address(8), address(24), &ip[at..])
    } else {
        if usize::from(u16::from_be_bytes([ip[2], ip[3]])) != ip.len() {
            faults.push(format!("IPv4 length of {}", ip.len()));
        }
        let head = usize::from(ip[0] & 15) * 4;
        if checksum(&[&ip[..head]]) != 0 {
            faults.push("IPv4 checksum".into());
        }
        let address = |at: usize| {
            let word = u32::from_ne_bytes(ip[at..at + 4].try_into().unwrap());
            [0, 0, MAPPED, word]
        };
        (ip[9], address(12), address(16), &ip[head..])
    };
    let wrong = match proto {
        4 => return [faults, ip_faults(inner, false)].concat(),
        41 => return [faults, ip_faults(inner, true)].concat(),
        1 => checksum(&[inner]) != 0,
        17 if inner[6..8] == [0, 0] => v6,
        _ => !matches!(
            pseudo_checksum(source, destination, proto, inner),
            0 | 0xffff
        ),
    };
    if proto == PROTO_UDP && usize::from(u16::from_be_bytes([inner[4], inner[5]])) != inner.len() {
        faults.push("UDP length".into());
    }
    if wrong {
        faults.push(format!("checksum of protocol {proto}"));
    }
    faults
}

/// Any TCP or UDP packet.
pub(crate) fn any_sent() -> impl Strategy<Value = Sent> {
    let family = prop_oneof![Just(Sent::tcp4()), Just(Sent::tcp6())];
    let tags = prop::sample::select(vec![vec![], vec![], vec![0x8100], vec![0x88a8, 0x8100]]);
    let extension = (
        prop::sample::select(vec![0_u8, 43, 60]),
        prop::sample::select(vec![7_usize, 15]),
    )
        .prop_map(|(which, size)| {
            let mut rest = vec![0; size];
            rest[0] = u8::from(size == 15);
            (which, rest)
        });
    (
        family,
        tags,
        any::<([u32; 4], [u32; 4], u16, u16)>(),
        prop::sample::select(vec![PROTO_TCP, PROTO_UDP]),
        any::<u8>(),
        1..=u8::MAX,
        0..=3_usize,
        prop::collection::vec(extension, 0..3),
        prop::collection::vec(any::<u8>(), 0..40),
    )
        .prop_map(
            |(mut sent, tags, ends, proto, flags, hops, options, extensions, payload)| {
                if sent.v6() {
                    (sent.source, sent.destination) = (ends.0, ends.1);
                    // Nobody's mapped address.
                    sent.source[0] |= 1;
                    sent.destination[0] |= 1;
                    sent.extensions = extensions;
                } else {
                    (sent.source[3], sent.destination[3]) = (ends.0[3], ends.1[3]);
                    // No operation, the end of the list, and padding.
                    sent.options = [1, 1, 0, 0].repeat(options);
                }
                sent.source_port = Be16::from_raw(ends.2);
                sent.destination_port = Be16::from_raw(ends.3);
                sent.tags = tags;
                sent.proto = proto;
                sent.flags = if proto == PROTO_TCP { flags } else { 0 };
                sent.hops = hops;
                sent.payload = payload;
                sent
            },
        )
}

/// A frame of each kind, for fuzzing to begin with.
pub(crate) fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let enclosed = |outer: &[u8], inner: Sent| {
        let mut frame = inner.frame();
        frame.splice(14..14, outer.iter().copied());
        frame
    };
    let mut syn = Sent::tcp4();
    syn.tcp_options = vec![2, 4, 5, 0xb4, 1, 1, 4, 2];
    let mut long = Sent::udp4();
    long.payload = vec![7; 200];
    let mut options = Sent::tcp4();
    options.options = vec![1, 1, 1, 0];
    // A router's words about a packet that came from it: time exceeded, and too big.
    let mut error4 = vec![
        0x45, 0, 0, 77, 0, 1, 0, 0, 60, 1, 0, 0, 10, 0, 0, 9, 10, 0, 0, 1,
    ];
    error4.extend([3, 4, 0, 0, 0, 0, 5, 0]);
    let mut error6 = vec![0x60, 0, 0, 0, 0, 73, 58, 60];
    error6.extend([7; 32]);
    error6.extend([2, 0, 0, 0, 0, 0, 5, 0]);
    let mut tunnel = vec![
        0x45, 0, 0, 69, 0, 1, 0, 0, 60, 4, 0, 0, 10, 0, 0, 9, 10, 0, 0, 1,
    ];
    let of_tunnel = [error4.clone(), tunnel.clone()].concat();
    tunnel[8] = 1;
    let mut echo = Sent::udp4().frame();
    echo[23] = 1;
    echo.splice(34..42, [8, 0, 0, 0, 0, 1, 0, 2]);
    let mut solicitation = Sent::udp6().frame();
    (solicitation[20], solicitation[21]) = (58, 255);
    solicitation.truncate(54);
    solicitation.extend([135, 0, 0, 0, 0, 0, 0, 0]);
    solicitation.extend([0xfd; 16]);
    solicitation.extend([1, 1, 2, 0, 0, 0, 0, 9]);
    let mut arp = vec![2; 12];
    arp.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
    arp.extend([9; 20]);
    vec![
        ("arp", arp),
        ("echo4", echo),
        ("error4", enclosed(&error4, Sent::udp4())),
        ("error6", enclosed(&error6, Sent::tcp6())),
        ("error_of_tunnel4", enclosed(&of_tunnel, Sent::tcp4())),
        ("long4", long.frame()),
        ("options4", options.frame()),
        ("solicitation6", solicitation),
        ("syn4", syn.frame()),
        ("tagged6", Sent::udp6().tagged(&[0x88a8, 0x8100]).frame()),
        ("tcp6", Sent::tcp6().extended(60, &[0; 7]).frame()),
        ("tunnel4", enclosed(&tunnel, Sent::tcp4())),
        ("udp4", Sent::udp4().frame()),
    ]
}
