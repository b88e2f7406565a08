//! What is wrong with the lengths and the checksums of a packet, read by nothing that is tested here.

use lb_common::PROTO_UDP;

use super::{MAPPED, octets, words};

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
