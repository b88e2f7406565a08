//! What proxies say of a client, and anybody else can say as well.

use std::net::IpAddr;

use hyper::{HeaderMap, header::HeaderValue};

use super::fields::fields;
use crate::forward::{Forwarding, Ids, Peer};

/// Two bytes say whose connection it is, and what is configured; then there are lines with fields.
pub fn front_forwarding(data: &[u8]) {
    let Some((&[peer, ways], lines)) = data.split_first_chunk() else {
        return;
    };
    let address: IpAddr = PEERS[usize::from(peer) % PEERS.len()].into();
    let address = if ways & 4 == 0 {
        address
    } else {
        mapped(address)
    };
    let Ok(text) = HeaderValue::from_str(&address.to_canonical().to_string()) else {
        return;
    };
    let peer = Peer {
        address,
        text: &text,
        secure: ways & 1 != 0,
    };
    let forwarding = Forwarding {
        trusted_proxies: TRUSTED.iter().filter_map(|it| it.parse().ok()).collect(),
        forwarded: ways & 2 != 0,
        ..Forwarding::default()
    };
    told(&forwarding, peer, &fields(lines));
}

fn told(forwarding: &Forwarding, peer: Peer<'_>, headers: &HeaderMap) {
    let authority = HeaderValue::from_static("web:8080");
    let client = forwarding.client(peer.address, headers);
    let secure = forwarding.is_secure(peer, headers);
    let id = forwarding.id(peer.address, headers, &Ids::default());
    let passes = forwarding.passes(peer.address);
    let mut told = HeaderMap::new();
    for (name, value) in headers.iter().filter(|(name, _)| passes(name)) {
        told.append(name, value.clone());
    }
    forwarding.tell(&mut told, peer, &authority, id.as_ref());

    let one = |name: &str| {
        let mut values = told.get_all(name).iter();
        let value = values.next().map(HeaderValue::as_bytes);
        assert!(
            value.is_some() && values.next().is_none(),
            "{name} in {told:?}"
        );
        value.unwrap_or_default()
    };
    let last = one("x-forwarded-for").rsplit(|&byte| byte == b' ').next();
    assert_eq!(last, Some(peer.text.as_bytes()));
    let port = String::from_utf8_lossy(one("x-forwarded-port")).into_owned();
    assert!(port.parse::<u16>().is_ok_and(|port| port > 0), "{port}");
    let proto = one("x-forwarded-proto").to_ascii_lowercase();
    assert_eq!(matches!(&*proto, b"https" | b"wss"), secure, "{told:?}");
    let id = one("x-request-id");
    assert!((1..=128).contains(&id.len()) && id.iter().all(u8::is_ascii_graphic));
    one("x-forwarded-host");
    assert_eq!(told.contains_key("forwarded"), forwarding.forwarded);

    let trusted = forwarding.trusts(peer.address);
    if !trusted {
        // Nothing that it says.
        assert_eq!((client, secure), (peer.address.to_canonical(), peer.secure));
        assert_eq!(one("x-forwarded-for"), peer.text.as_bytes());
        assert_eq!(one("x-forwarded-host"), authority.as_bytes());
        assert_eq!(port, "8080");
        assert!(!told.contains_key("x-real-ip"));
    }
    assert!(!told.keys().any(|name| name.as_str().contains('_')));
    // A front behind this one, which trusts it, takes the request for the same client's.
    let ours = HeaderValue::from_static("10.0.0.1");
    let next = Peer {
        address: [10, 0, 0, 1].into(),
        text: &ours,
        secure: false,
    };
    assert_eq!(forwarding.is_secure(next, &told), secure, "{told:?}");
    if !peer.address.to_canonical().is_loopback() {
        assert_eq!(forwarding.client(next.address, &told), client, "{told:?}");
    }
}

fn mapped(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().into(),
        address @ IpAddr::V6(_) => address,
    }
}

/// A stranger, a proxy and the host itself, which is one here.
const PEERS: [[u8; 4]; 3] = [[192, 0, 2, 7], [10, 1, 2, 3], [127, 0, 0, 1]];
const TRUSTED: [&str; 3] = ["10.0.0.0/8", "fd00::/8", "127.0.0.0/8"];
