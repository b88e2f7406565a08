//! Packets as they come from a card: TCP over IPv4 or IPv6, without data. Pure.
//!
//! The last three bytes of an IPv4 source, and the middle ones of an IPv6 source, are zero: the feeding program puts a
//! number there. Checksums are those of the packet with zeroes; who changes a packet changes them by what it changed.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Their clients: the number of one goes into bytes 27 to 29 of its packets.
pub(super) const CLIENTS: Ipv4Addr = Ipv4Addr::new(100, 0, 0, 0);
pub(super) const CLIENTS6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x6c62, 0, 0, 0, 0, 0, 9);

/// The port of all clients.
const CLIENT_PORT: u16 = 40_000;

/// What is said in a TCP head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Segment {
    /// A connection begins.
    Syn,
    /// In the midst of one.
    Ack,
}

/// A frame from a client to `destination`.
pub(super) fn frame(destination: SocketAddr, segment: Segment) -> Vec<u8> {
    let mut tcp = Vec::with_capacity(TCP_BYTES.into());
    tcp.extend(CLIENT_PORT.to_be_bytes());
    tcp.extend(destination.port().to_be_bytes());
    // Sequence and acknowledgement, the length of the head in words and the flags, the window.
    tcp.extend(1_u32.to_be_bytes());
    let (acknowledged, flags) = match segment {
        Segment::Syn => (0_u32, 0x02),
        Segment::Ack => (1, 0x10),
    };
    tcp.extend(acknowledged.to_be_bytes());
    tcp.extend([0x50, flags]);
    tcp.extend(0xffff_u16.to_be_bytes());
    tcp.extend([0; 4]);
    let (mut head, ether) = match destination.ip() {
        IpAddr::V4(vip) => (head4(CLIENTS, vip), ETHER_IPV4),
        IpAddr::V6(vip) => (head6(CLIENTS6, vip), ETHER_IPV6),
    };
    let addresses = match destination {
        SocketAddr::V4(_) => 12..20,
        SocketAddr::V6(_) => 8..40,
    };
    // The pseudo head: addresses, protocol and length.
    let sum = checksum([
        &head[addresses],
        &[0, PROTO_TCP],
        &TCP_BYTES.to_be_bytes(),
        &tcp,
    ]);
    tcp[16..18].copy_from_slice(&sum.to_be_bytes());
    if destination.is_ipv4() {
        let sum = checksum([&head]);
        head[10..12].copy_from_slice(&sum.to_be_bytes());
    }
    let mut frame = Vec::with_capacity(SHORTEST);
    // The program is handed what the card has taken, so whose address this is does not matter.
    frame.extend([2, 0x6c, 0x62, 0x91, 0, 1]);
    frame.extend([2, 0x6c, 0x62, 0x91, 0, 2]);
    frame.extend(ether.to_be_bytes());
    frame.extend(head);
    frame.extend(tcp);
    // As the shortest that a card sees, and longer than what is made anew for each run.
    frame.resize(frame.len().max(SHORTEST), 0);
    frame
}

fn head4(source: Ipv4Addr, destination: Ipv4Addr) -> Vec<u8> {
    let mut head = vec![0x45, 0];
    head.extend((20 + TCP_BYTES).to_be_bytes());
    // Identification; not to be fragmented; hops, protocol, and the checksum that is filled in later.
    head.extend([0, 1, 0x40, 0, 64, PROTO_TCP, 0, 0]);
    head.extend(source.octets());
    head.extend(destination.octets());
    head
}

fn head6(source: Ipv6Addr, destination: Ipv6Addr) -> Vec<u8> {
    let mut head = vec![0x60, 0, 0, 0];
    head.extend(TCP_BYTES.to_be_bytes());
    head.extend([PROTO_TCP, 64]);
    head.extend(source.octets());
    head.extend(destination.octets());
    head
}

/// RFC 1071. All parts have an even length.
fn checksum<const PARTS: usize>(parts: [&[u8]; PARTS]) -> u16 {
    let words = parts.iter().flat_map(|part| part.chunks_exact(2));
    let sum: u32 = words
        .map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])))
        .sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    !((sum & 0xffff) as u16 + (sum >> 16) as u16)
}

const TCP_BYTES: u16 = 20;
const SHORTEST: usize = 74;
const ETHER_IPV4: u16 = 0x0800;
const ETHER_IPV6: u16 = 0x86dd;
const PROTO_TCP: u8 = 6;

#[cfg(test)]
mod tests {
    use super::*;

    /// Whoever adds up all that a checksum covers, itself included, gets all ones.
    #[test]
    fn the_checksums_of_a_frame_are_right() {
        for vip in ["198.18.0.2:80", "[fd62:6c62:76:1::2]:80"] {
            for segment in [Segment::Syn, Segment::Ack] {
                let vip: SocketAddr = vip.parse().unwrap();
                let frame = frame(vip, segment);
                let (head, addresses) = match vip {
                    SocketAddr::V4(_) => (20, 26..34),
                    SocketAddr::V6(_) => (40, 22..54),
                };
                let tcp = &frame[14 + head..14 + head + 20];
                assert_eq!(
                    checksum([&frame[addresses], &[0, 6, 0, 20], tcp]),
                    0,
                    "{vip}"
                );
                if vip.is_ipv4() {
                    assert_eq!(checksum([&frame[14..34]]), 0);
                }
            }
        }
    }

    #[test]
    fn the_number_of_a_client_has_its_place_in_the_source_address() {
        for vip in ["198.18.0.2:80", "[fd62:6c62:76:1::2]:80"] {
            let frame = frame(vip.parse().unwrap(), Segment::Ack);
            assert_eq!(frame[27..30], [0; 3], "{vip}");
            assert!(frame.len() >= 64, "{vip}");
        }
    }
}
