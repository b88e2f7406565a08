//! What a packet is, as far as its first bytes say: for people. Pure, and never outside of these bytes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

/// What can be seen of a packet. What is not in it, or was cut off, is `null`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Glance {
    /// `tcp`, `udp`, `icmp`, `icmpv6`, `tunnel`, `arp`, `fragment`, or the number of another protocol.
    pub protocol: Option<String>,
    /// The source address.
    pub source: Option<IpAddr>,
    /// The source port of TCP and UDP.
    pub source_port: Option<u16>,
    /// The destination address.
    pub destination: Option<IpAddr>,
    /// The destination port of TCP and UDP.
    pub destination_port: Option<u16>,
    /// Flags of TCP by their letters, such as `SA`.
    pub flags: Option<String>,
}

impl Glance {
    /// A glance at a frame of Ethernet.
    pub fn at(frame: &[u8]) -> Self {
        let mut at = 12;
        let mut kind = word(frame, at);
        // Up to two tags of VLANs (IEEE 802.1Q).
        for _ in 0..2 {
            if matches!(kind, Some(0x8100 | 0x88a8)) {
                at += 4;
                kind = word(frame, at);
            }
        }
        let rest = frame.get(at + 2..).unwrap_or_default();
        match kind {
            Some(0x0800) => v4(rest),
            Some(0x86dd) => v6(rest),
            Some(0x0806) => Self {
                protocol: Some("arp".to_owned()),
                source: part(rest, 14).map(|it: [u8; 4]| Ipv4Addr::from(it).into()),
                destination: part(rest, 24).map(|it: [u8; 4]| Ipv4Addr::from(it).into()),
                ..Self::default()
            },
            _ => Self::default(),
        }
    }

    fn with(mut self, protocol: u8, segment: &[u8]) -> Self {
        let name = match protocol {
            1 => "icmp".to_owned(),
            4 | 41 => "tunnel".to_owned(),
            6 => "tcp".to_owned(),
            17 => "udp".to_owned(),
            58 => "icmpv6".to_owned(),
            other => other.to_string(),
        };
        self.protocol = Some(name);
        if matches!(protocol, 6 | 17) {
            self.source_port = word(segment, 0);
            self.destination_port = word(segment, 2);
        }
        if protocol == 6 {
            self.flags = segment.get(13).map(|flags| {
                let letters = "FSRPAUEC".chars().enumerate();
                letters
                    .filter(|(bit, _)| flags >> bit & 1 == 1)
                    .map(|(_, letter)| letter)
                    .collect()
            });
        }
        self
    }
}

fn v4(packet: &[u8]) -> Glance {
    let glance = Glance {
        source: part(packet, 12).map(|it: [u8; 4]| Ipv4Addr::from(it).into()),
        destination: part(packet, 16).map(|it: [u8; 4]| Ipv4Addr::from(it).into()),
        ..Glance::default()
    };
    let (Some(first), Some(protocol)) = (packet.first(), packet.get(9)) else {
        return glance;
    };
    // The offset of a fragment, in eights of bytes.
    if word(packet, 6).is_some_and(|it| it & 0x1fff != 0) {
        let protocol = Some("fragment".to_owned());
        return Glance { protocol, ..glance };
    }
    let head = usize::from(first & 0xf) * 4;
    glance.with(*protocol, packet.get(head..).unwrap_or_default())
}

fn v6(packet: &[u8]) -> Glance {
    let glance = Glance {
        source: part(packet, 8).map(|it: [u8; 16]| Ipv6Addr::from(it).into()),
        destination: part(packet, 24).map(|it: [u8; 16]| Ipv6Addr::from(it).into()),
        ..Glance::default()
    };
    let Some(mut next) = packet.get(6).copied() else {
        return glance;
    };
    let mut at = 40;
    // As many extension headers as the programs pass over.
    for _ in 0..6 {
        let head = packet.get(at..).unwrap_or_default();
        let (Some(&following), Some(&length)) = (head.first(), head.get(1)) else {
            break;
        };
        match next {
            // Hop by hop, routing, destination options (RFC 8200 section 4).
            0 | 43 | 60 => at += usize::from(length) * 8 + 8,
            44 => {
                let protocol = Some("fragment".to_owned());
                return Glance { protocol, ..glance };
            }
            _ => break,
        }
        next = following;
    }
    glance.with(next, packet.get(at..).unwrap_or_default())
}

fn part<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}

fn word(bytes: &[u8], at: usize) -> Option<u16> {
    part(bytes, at).map(u16::from_be_bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(kinds: &[u16], rest: &[u8]) -> Vec<u8> {
        let mut frame = vec![0; 12];
        for kind in kinds {
            frame.extend(kind.to_be_bytes());
            // The tag itself.
            if matches!(kind, 0x8100 | 0x88a8) {
                frame.extend([0, 7]);
            }
        }
        frame.extend(rest);
        frame
    }

    fn v4_head(protocol: u8, offset: u16) -> Vec<u8> {
        let mut head = vec![0x46, 0, 0, 0, 0, 0];
        head.extend(offset.to_be_bytes());
        head.extend([64, protocol, 0, 0, 192, 0, 2, 9, 198, 18, 0, 9]);
        // An option.
        head.extend([1, 1, 1, 0]);
        head
    }

    const SYN_ACK: [u8; 20] = [
        0x0f, 0xa0, 0, 80, 0, 0, 0, 0, 0, 0, 0, 0, 0x50, 0x12, 0, 0, 0, 0, 0, 0,
    ];

    #[test]
    fn tcp_over_ipv4_is_seen_behind_tags_and_options() {
        for kinds in [&[0x0800][..], &[0x8100, 0x0800], &[0x88a8, 0x8100, 0x0800]] {
            let packet = [v4_head(6, 0x4000), SYN_ACK.to_vec()].concat();
            let glance = Glance::at(&frame(kinds, &packet));
            assert_eq!(glance.protocol.as_deref(), Some("tcp"), "{kinds:x?}");
            assert_eq!(glance.source, "192.0.2.9".parse().ok());
            assert_eq!(glance.destination, "198.18.0.9".parse().ok());
            assert_eq!(
                (glance.source_port, glance.destination_port),
                (Some(4000), Some(80))
            );
            assert_eq!(glance.flags.as_deref(), Some("SA"));
        }
    }

    #[test]
    fn a_later_fragment_has_no_ports_and_other_protocols_none_either() {
        let fragment = Glance::at(&frame(&[0x0800], &v4_head(17, 0x0003)));
        assert_eq!(fragment.protocol.as_deref(), Some("fragment"));
        assert_eq!(fragment.source_port, None);
        for (protocol, name) in [(1, "icmp"), (4, "tunnel"), (47, "47")] {
            let glance = Glance::at(&frame(&[0x0800], &v4_head(protocol, 0)));
            assert_eq!(glance.protocol.as_deref(), Some(name));
        }
        let mut arp = vec![0; 28];
        arp[24..].copy_from_slice(&[198, 18, 0, 9]);
        let arp = Glance::at(&frame(&[0x0806], &arp));
        assert_eq!(arp.protocol.as_deref(), Some("arp"));
        assert_eq!(arp.destination, "198.18.0.9".parse().ok());
    }

    #[test]
    fn udp_over_ipv6_is_seen_behind_extension_headers() {
        let mut head = vec![0x60, 0, 0, 0, 0, 24, 0, 64];
        head.extend("2001:db8::9".parse::<Ipv6Addr>().unwrap().octets());
        head.extend("fd62::9".parse::<Ipv6Addr>().unwrap().octets());
        // Hop by hop, then destination options of 16 bytes, then UDP.
        head.extend([60, 0, 0, 0, 0, 0, 0, 0]);
        head.extend([17, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        head.extend([0x0f, 0xa0, 0, 53]);
        let glance = Glance::at(&frame(&[0x86dd], &head));
        assert_eq!(glance.protocol.as_deref(), Some("udp"));
        assert_eq!(glance.destination, "fd62::9".parse().ok());
        assert_eq!(glance.destination_port, Some(53));
        assert_eq!(glance.flags, None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_looked_at(bytes in prop::collection::vec(any::<u8>(), 0..128), kind in prop_oneof![Just(0x0800_u16), Just(0x86dd), Just(0x8100), any::<u16>()]) {
            let _ = Glance::at(&bytes);
            let _ = Glance::at(&frame(&[kind], &bytes));
        }
    }
}
