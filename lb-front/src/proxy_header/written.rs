//! The header that a backend gets.

use std::net::{IpAddr, Ipv6Addr};

use super::{Ends, INET, INET6, LOCAL, PROXY, SIGNATURE, STREAM};
use crate::rules::ProxyProtocol;

impl ProxyProtocol {
    /// The header of a connection that is nobody's but of whoever opens it, such as a check.
    pub fn of_ourselves(self) -> Vec<u8> {
        match self {
            Self::V1 => b"PROXY UNKNOWN\r\n".to_vec(),
            Self::V2 => [SIGNATURE, &[LOCAL, 0, 0, 0]].concat(),
        }
    }

    /// That of one on which a client's requests go on.
    pub(crate) fn of(self, ends: Ends) -> Vec<u8> {
        let addresses = (
            ends.client.ip().to_canonical(),
            ends.own.ip().to_canonical(),
        );
        let (client, own) = (ends.client.port(), ends.own.port());
        match self {
            Self::V1 => {
                let (family, from, to) = match addresses {
                    (from @ IpAddr::V4(_), to @ IpAddr::V4(_)) => ("TCP4", from, to),
                    (from, to) => ("TCP6", long(from).into(), long(to).into()),
                };
                format!("PROXY {family} {from} {to} {client} {own}\r\n").into_bytes()
            }
            Self::V2 => {
                let ports = [client.to_be_bytes(), own.to_be_bytes()].concat();
                let kind = |family: u8| (family << 4) | STREAM;
                match addresses {
                    (IpAddr::V4(from), IpAddr::V4(to)) => {
                        let head = [PROXY, kind(INET), 0, 2 * 4 + 4];
                        [SIGNATURE, &head, &from.octets(), &to.octets(), &ports].concat()
                    }
                    (from, to) => {
                        let head = [PROXY, kind(INET6), 0, 2 * 16 + 4];
                        let (from, to) = (long(from).octets(), long(to).octets());
                        [SIGNATURE, &head, &from, &to, &ports].concat()
                    }
                }
            }
        }
    }
}

/// As one of IPv6, where the other end is one.
fn long(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use proptest::prelude::*;

    use super::*;
    use crate::proxy_header::{Header, parse};

    fn ends(client: &str, own: &str) -> Ends {
        Ends {
            client: client.parse().unwrap(),
            own: own.parse().unwrap(),
        }
    }

    #[test]
    fn a_header_names_both_ends() {
        for (client, own, line) in [
            (
                "192.0.2.7:56324",
                "198.51.100.1:443",
                "TCP4 192.0.2.7 198.51.100.1 56324 443",
            ),
            // As a listener for both families sees IPv4.
            (
                "[::ffff:192.0.2.7]:1",
                "[::ffff:198.51.100.1]:80",
                "TCP4 192.0.2.7 198.51.100.1 1 80",
            ),
            (
                "[2001:db8::7]:1",
                "[2001:db8::1]:80",
                "TCP6 2001:db8::7 2001:db8::1 1 80",
            ),
            (
                "[2001:db8::7]:1",
                "198.51.100.1:80",
                "TCP6 2001:db8::7 ::ffff:198.51.100.1 1 80",
            ),
        ] {
            let header = ProxyProtocol::V1.of(ends(client, own));
            let header = String::from_utf8(header).unwrap();
            assert_eq!(header, format!("PROXY {line}\r\n"));
        }
        let four = ProxyProtocol::V2.of(ends("192.0.2.7:56324", "198.51.100.1:443"));
        let address = [192, 0, 2, 7, 198, 51, 100, 1, 0xdc, 4, 1, 0xbb];
        let head = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c";
        assert_eq!(four, [&head[..], &address].concat());
    }

    #[test]
    fn who_speaks_for_itself_names_nobody() {
        for how in [ProxyProtocol::V1, ProxyProtocol::V2] {
            let header = how.of_ourselves();
            let length = header.len();
            let whole = Header::Whole { length, ends: None };
            assert_eq!(parse(&header), Ok(whole));
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(client: SocketAddr, own: SocketAddr) {
            for how in [ProxyProtocol::V1, ProxyProtocol::V2] {
                let header = how.of(Ends { client, own });
                let length = header.len();
                let Ok(Header::Whole { length: read, ends: Some(ends) }) = parse(&header) else {
                    panic!("no header: {header:?}");
                };
                prop_assert_eq!(read, length);
                for (read, written) in [(ends.client, client), (ends.own, own)] {
                    let read = (read.ip().to_canonical(), read.port());
                    prop_assert_eq!(read, (written.ip().to_canonical(), written.port()));
                }
            }
        }
    }
}
