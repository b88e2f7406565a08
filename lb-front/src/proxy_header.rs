//! The header of the PROXY protocol, versions 1 and 2: what a proxy that passes connections on says of the client, before
//! the client's first byte.
//!
//! Pure: looks at what has come so far, and says what goes to a backend ([`written`]). Who may say so is not known here.

mod written;

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    str::FromStr,
};

use super::client::Ends;

/// What the first bytes of a connection are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Header {
    /// The beginning of a header, all of them: more has to come.
    Part,
    /// A header of this `length`, and perhaps bytes of the client.
    Whole {
        length: usize,
        /// `None`: the proxy speaks for itself, or cannot tell.
        ends: Option<Ends>,
    },
}

/// They are no header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed;

/// No more than [`MOST`] bytes are ever looked at.
pub(super) fn parse(bytes: &[u8]) -> Result<Header, Malformed> {
    let begins = |signature: &[u8]| {
        let known = bytes.len().min(signature.len());
        bytes[..known] == signature[..known]
    };
    if begins(SIGNATURE) {
        binary(bytes)
    } else if begins(WORD) {
        line(bytes)
    } else {
        Err(Malformed)
    }
}

/// Version 1.
fn line(bytes: &[u8]) -> Result<Header, Malformed> {
    let seen = &bytes[..bytes.len().min(LINE)];
    // Nothing below a space may be in it but its end.
    let Some(end) = seen.iter().position(|byte| *byte < b' ') else {
        return if seen.len() < LINE {
            Ok(Header::Part)
        } else {
            Err(Malformed)
        };
    };
    match &seen[end..] {
        [b'\r', b'\n', ..] => {}
        [b'\r'] if seen.len() < LINE => return Ok(Header::Part),
        _ => return Err(Malformed),
    }
    let text = std::str::from_utf8(&seen[WORD.len()..end]).map_err(|_| Malformed)?;
    let ends = match text.split_once(' ').unwrap_or((text, "")) {
        // Whatever follows.
        ("UNKNOWN", _) => None,
        ("TCP4", rest) => Some(addresses::<Ipv4Addr>(rest)?),
        ("TCP6", rest) => Some(addresses::<Ipv6Addr>(rest)?),
        _ => return Err(Malformed),
    };
    let length = end + 2;
    Ok(Header::Whole { length, ends })
}

/// Both addresses, then both ports; those of the client first.
fn addresses<A: FromStr + Into<IpAddr>>(text: &str) -> Result<Ends, Malformed> {
    let mut words = text.split(' ');
    let mut word = || words.next().ok_or(Malformed);
    let address = |text: &str| Ok::<IpAddr, _>(text.parse::<A>().map_err(|_| Malformed)?.into());
    let port = |text: &str| {
        let digits = text.bytes().all(|byte| byte.is_ascii_digit());
        let plain = digits && (text == "0" || !text.starts_with('0'));
        let port = Some(text).filter(|_| plain).and_then(|it| it.parse().ok());
        port.ok_or(Malformed)
    };
    let (client, own) = (address(word()?)?, address(word()?)?);
    let ends = Ends {
        client: SocketAddr::new(client, port(word()?)?),
        own: SocketAddr::new(own, port(word()?)?),
    };
    match words.next() {
        None => Ok(ends),
        Some(_) => Err(Malformed),
    }
}

/// Version 2.
fn binary(bytes: &[u8]) -> Result<Header, Malformed> {
    let Some((&[command, kind, high, low], rest)) = bytes
        .get(SIGNATURE.len()..)
        .and_then(<[u8]>::split_first_chunk)
    else {
        return match bytes.get(SIGNATURE.len()) {
            Some(command) if !COMMANDS.contains(command) => Err(Malformed),
            _ => Ok(Header::Part),
        };
    };
    let (family, transport) = (kind >> 4, kind & 0xf);
    let length = usize::from(u16::from_be_bytes([high, low]));
    let whole = SIGNATURE.len() + 4 + length;
    if !COMMANDS.contains(&command) || family > UNIX || transport > DATAGRAM || whole > MOST {
        return Err(Malformed);
    }
    let needed = match family {
        INET => 2 * 4 + 4,
        INET6 => 2 * 16 + 4,
        UNIX => 2 * 108,
        _ => 0,
    };
    let local = command == LOCAL;
    if length < needed && !local {
        return Err(Malformed);
    }
    let Some(content) = rest.get(..length) else {
        return Ok(Header::Part);
    };
    // Client, own address, both ports. What follows is for whoever knows what it means.
    let ends = match (family, transport) {
        _ if local => None,
        (INET, STREAM) => ends::<4>(content),
        (INET6, STREAM) => ends::<16>(content),
        _ => None,
    };
    let length = whole;
    Ok(Header::Whole { length, ends })
}

fn ends<const LENGTH: usize>(content: &[u8]) -> Option<Ends>
where
    IpAddr: From<[u8; LENGTH]>,
{
    let (client, rest) = content.split_first_chunk::<LENGTH>()?;
    let (own, rest) = rest.split_first_chunk::<LENGTH>()?;
    let (of_client, rest) = rest.split_first_chunk()?;
    let of_own = rest.first_chunk()?;
    let address =
        |address: [u8; LENGTH], port| SocketAddr::new(address.into(), u16::from_be_bytes(port));
    Some(Ends {
        client: address(*client, *of_client),
        own: address(*own, *of_own),
    })
}

const WORD: &[u8] = b"PROXY ";
const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// Of version 2, and behind that whether the proxy speaks for itself.
const LOCAL: u8 = 0x20;
/// The same for a client.
const PROXY: u8 = 0x21;
const COMMANDS: [u8; 2] = [LOCAL, PROXY];
const INET: u8 = 1;
const INET6: u8 = 2;
const UNIX: u8 = 3;
const STREAM: u8 = 1;
const DATAGRAM: u8 = 2;
/// Version 1, its end included: no legal line is longer.
const LINE: usize = 107;
/// Version 2: what clouds and certificates add takes some hundred bytes.
pub(super) const MOST: usize = 4096;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn whole(bytes: &[u8], ends: Option<(&str, &str)>) {
        let ends = ends.map(|(client, own)| Ends {
            client: client.parse().unwrap(),
            own: own.parse().unwrap(),
        });
        let length = bytes.len();
        let header = Ok(Header::Whole { length, ends });
        assert_eq!(parse(bytes), header, "{bytes:?}");
        assert_eq!(parse(&[bytes, b"GET"].concat()), header);
        for length in 0..length {
            let part = &bytes[..length];
            assert_eq!(parse(part), Ok(Header::Part), "{part:?}");
        }
    }

    fn v2(command: u8, kind: u8, content: &[u8]) -> Vec<u8> {
        let length = u16::try_from(content.len()).unwrap().to_be_bytes();
        [SIGNATURE, &[command, kind], &length, content].concat()
    }

    #[test]
    fn version_1_is_a_line() {
        whole(
            b"PROXY TCP4 192.0.2.7 198.51.100.1 56324 443\r\n",
            Some(("192.0.2.7:56324", "198.51.100.1:443")),
        );
        whole(
            b"PROXY TCP6 2001:db8::7 2001:db8::1 0 65535\r\n",
            Some(("[2001:db8::7]:0", "[2001:db8::1]:65535")),
        );
        let longest = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff";
        let longest = format!("PROXY UNKNOWN {longest} {longest} 65535 65535\r\n");
        assert_eq!(longest.len(), LINE);
        whole(longest.as_bytes(), None);
        whole(b"PROXY UNKNOWN\r\n", None);
    }

    #[test]
    fn version_2_is_binary_and_what_is_behind_the_addresses_is_passed_over() {
        let four = [192, 0, 2, 7, 198, 51, 100, 1, 0xdc, 4, 1, 0xbb];
        let ends = Some(("192.0.2.7:56324", "198.51.100.1:443"));
        whole(&v2(0x21, 0x11, &four), ends);
        let more = [&four[..], &[4; 300]].concat();
        whole(&v2(0x21, 0x11, &more), ends);
        let mut six = [0; 36];
        (six[0], six[1], six[15], six[33]) = (0x20, 1, 7, 80);
        (six[16], six[31], six[34]) = (0x20, 9, 1);
        whole(
            &v2(0x21, 0x21, &six),
            Some(("[2001::7]:80", "[2000::9]:256")),
        );
        for other in [
            // The proxy itself, with and without addresses; datagrams, unix, unknown.
            v2(0x20, 0, b""),
            v2(0x20, 0x11, b""),
            v2(0x20, 0x11, &four),
            v2(0x21, 0x12, &four),
            v2(0x21, 0x31, &[0; 216]),
            v2(0x21, 0, b"abc"),
        ] {
            whole(&other, None);
        }
    }

    #[test]
    fn what_is_no_header_is_known_at_its_first_wrong_byte() {
        for wrong in [
            "GET / HTTP/1.1\r\n",
            "P ",
            "PROXY TCP4 192.0.2.7 198.51.100.1 1 2\n",
            "PROXY TCP4 192.0.2.7 198.51.100.1 1 2\r\r",
            "PROXY TCP4 192.0.2.7 198.51.100.1 1 2 \r\n",
            "PROXY TCP4 192.0.2.7  198.51.100.1 1 2\r\n",
            "PROXY TCP4 192.0.2.7 198.51.100.1 1\r\n",
            "PROXY TCP4 192.0.2.7 198.51.100.1 01 2\r\n",
            "PROXY TCP4 192.0.2.7 198.51.100.1 +1 2\r\n",
            "PROXY TCP4 192.0.2.7 198.51.100.1 65536 2\r\n",
            "PROXY TCP4 192.0.2.07 198.51.100.1 1 2\r\n",
            "PROXY TCP4 2001:db8::7 2001:db8::1 1 2\r\n",
            "PROXY TCP6 192.0.2.7 198.51.100.1 1 2\r\n",
            "PROXY UDP4 192.0.2.7 198.51.100.1 1 2\r\n",
            "PROXY unknown\r\n",
            "PROXY TCP4\r\n",
            "PROXY \r\n",
        ] {
            assert_eq!(parse(wrong.as_bytes()), Err(Malformed), "{wrong:?}");
        }
        let endless = [b"PROXY UNKNOWN ", &[b'x'; 93][..]].concat();
        assert_eq!(parse(&endless[..LINE - 1]), Ok(Header::Part));
        assert_eq!(parse(&endless), Err(Malformed));
        let late = [&endless[..LINE - 1], b"\r\n"].concat();
        assert_eq!(parse(&late), Err(Malformed));
        for wrong in [
            v2(0x11, 0x11, &[0; 12]),
            v2(0x22, 0x11, &[0; 12]),
            v2(0x21, 0x41, &[0; 12]),
            v2(0x21, 0x13, &[0; 12]),
            v2(0x21, 0x11, &[0; 11]),
            v2(0x21, 0x21, &[0; 35]),
            v2(0x21, 0x31, &[0; 215]),
            v2(0x21, 0x11, &[0; MOST]),
        ] {
            assert_eq!(parse(&wrong), Err(Malformed), "{wrong:?}");
            assert_eq!(parse(&wrong[..16]), Err(Malformed), "{wrong:?}");
        }
        assert_eq!(parse(&v2(0x33, 0, b"")[..13]), Err(Malformed));
    }

    /// Bytes that are not far from a header.
    fn near() -> impl Strategy<Value = Vec<u8>> {
        let text = "PROXY (TCP4|TCP6|UNKNOWN)( [0-9a-f.:]{1,9}){0,4}\r?\n?.{0,9}";
        let kind = (0x1f..0x23_u8, 0..0x44_u8, 0..5000_u16);
        let content = proptest::collection::vec(any::<u8>(), 0..60);
        let binary = (kind, content).prop_map(|((command, kind, length), content)| {
            let length = length.to_be_bytes();
            [SIGNATURE, &[command, kind], &length, &content].concat()
        });
        let any = proptest::collection::vec(any::<u8>(), 0..60);
        prop_oneof![text.prop_map(String::into_bytes), binary, any]
    }

    proptest! {
        #[test]
        fn more_bytes_change_nothing_that_was_said(bytes in near(), at in 0..70_usize) {
            let at = at.min(bytes.len());
            match parse(&bytes[..at]) {
                Ok(Header::Part) => {}
                said => prop_assert_eq!(said, parse(&bytes)),
            }
            if let Ok(Header::Whole { length, .. }) = parse(&bytes) {
                prop_assert!(length <= bytes.len() && length <= MOST);
            }
        }
    }
}
