use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::{
    routes::RouteBackend,
    rules::{Canary, Rules},
};

/// The cookies `lb` of the service `web`, whose backends are at these ports; those from `first_canary` on are canaries.
fn sticky(label: &str, key: &[u8], ports: &[u16], first_canary: u16, share: u16) -> Sticky {
    let backend = |&port: &u16| RouteBackend {
        address: at(port),
        usable: true,
        weight: 1,
        canary: port >= first_canary,
        cut: None,
    };
    let canary = Canary { share, field: None };
    let service = RouteService {
        label: label.into(),
        backends: ports.iter().map(backend).collect(),
        access: None,
        h2c: false,
        rules: Some(Arc::new(Rules {
            sticky: Some("lb".into()),
            canary: Some(canary),
            ..Rules::default()
        })),
    };
    Sticky::new(&service, Some(&StickyKey::of(key))).unwrap()
}

fn at(port: u16) -> SocketAddr {
    ([10, 0, 0, 1], port).into()
}

/// What a client of the backend at `port` is given.
fn given(sticky: &Sticky, port: u16) -> String {
    let mut headers = HeaderMap::new();
    sticky.tell(&mut headers, Shown::default(), Some(at(port)), false);
    let cookie = headers[header::SET_COOKIE].to_str().unwrap();
    cookie.split_once(';').unwrap().0.to_owned()
}

fn headers(fields: &[&[u8]]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for field in fields {
        headers.append(header::COOKIE, HeaderValue::from_bytes(field).unwrap());
    }
    headers
}

/// Where a request with these cookies goes on, by port, and in which group.
fn wish(sticky: &Sticky, cookies: &str, forced: Option<Group>) -> (Option<u16>, Option<Group>) {
    let wish = sticky.wish(sticky.read(&headers(&[cookies.as_bytes()])), forced);
    let instances = &mut sticky.instances.iter();
    let instance = instances.find(|it| Some(it.backend) == wish.backend);
    (instance.map(|it| it.address.port()), wish.group)
}

#[test]
fn a_client_stays_at_its_instance_and_without_it_in_its_group() {
    use Group::{Canary, Rest};
    let all = sticky("web", b"k", &[1, 2, 11, 12], 11, 500);
    assert_eq!(wish(&all, "", None), (None, None));
    assert_eq!(wish(&all, &given(&all, 2), None), (Some(2), Some(Rest)));
    let canary = given(&all, 12);
    assert_eq!(wish(&all, &canary, None), (Some(12), Some(Canary)));
    let fewer = sticky("web", b"k", &[1, 11], 11, 500);
    assert_eq!(wish(&fewer, &canary, None), (None, Some(Canary)));
    // Who is no canary any more keeps its clients.
    let promoted = sticky("web", b"k", &[1, 2, 12], 99, 500);
    assert_eq!(wish(&promoted, &canary, None), (Some(12), Some(Rest)));
    // What the request says counts more.
    assert_eq!(wish(&all, &canary, Some(Rest)), (None, Some(Rest)));
    assert_eq!(wish(&all, &canary, Some(Canary)), (Some(12), Some(Canary)));
}

#[test]
fn a_group_without_a_share_keeps_nobody() {
    let cookie = |port| given(&sticky("web", b"k", &[1, 11], 11, 500), port);
    let none = sticky("web", b"k", &[1, 11], 11, 0);
    assert_eq!(wish(&none, &cookie(11), None), (None, None));
    assert_eq!(wish(&none, &cookie(1), None).0, Some(1));
    let forced = Some(Group::Canary);
    assert_eq!(wish(&none, &cookie(11), forced), (Some(11), forced));
    let whole = sticky("web", b"k", &[1, 11], 11, WHOLE);
    assert_eq!(wish(&whole, &cookie(1), None), (None, None));
    // Unless there is nobody else.
    let alone = sticky("web", b"k", &[11], 11, 0);
    assert_eq!(wish(&alone, &cookie(11), None).0, Some(11));
}

#[test]
fn who_has_the_key_knows_the_cookie_and_nobody_else() {
    let here = sticky("web", b"k", &[1, 2], 99, 0);
    let cookie = given(&here, 2);
    assert!(!cookie.contains("10.0.0.1"), "{cookie}");
    let there = sticky("web", b"k", &[3, 2, 1], 99, 0);
    assert_eq!(wish(&there, &cookie, None).0, Some(2));
    for other in [
        sticky("web", b"another", &[1, 2], 99, 0),
        sticky("api", b"k", &[1, 2], 99, 0),
    ] {
        assert_eq!(wish(&other, &cookie, None), (None, None));
    }
    assert_eq!(format!("{:?}", StickyKey::of(b"k")), "(hidden)");
}

#[test]
fn forged_cookies_are_none_and_do_not_hide_a_good_one() {
    let sticky = sticky("web", b"k", &[1, 2], 99, 0);
    let cookie = given(&sticky, 2);
    let value = cookie.strip_prefix("lb=").unwrap();
    let (instance, group) = value.split_at(32);
    let long = format!("lb={}", "a".repeat(20_000));
    let forged = [
        "lb",
        "lb=",
        "lb=\"\"",
        &long,
        &format!("lb={value}0"),
        &format!("lb={}", value.to_uppercase()),
        &format!("lb={instance}"),
        &format!("lb={instance}{}", "0".repeat(16)),
        &format!("LB={value}"),
        &format!("xlb={value}"),
        &format!("lb2={value}"),
        &format!("a=\"lb={value}\""),
    ];
    for forged in forged {
        assert_eq!(wish(&sticky, forged, None), (None, None), "{forged}");
        for both in [format!("{forged}; {cookie}"), format!("{cookie};{forged}")] {
            assert_eq!(wish(&sticky, &both, None).0, Some(2), "{both}");
        }
    }
    // Of another service on the same host, which the browser sends, too.
    let unknown = format!("lb={}{group}", "0".repeat(32));
    assert_eq!(wish(&sticky, &unknown, None).0, None);
    assert_eq!(
        wish(&sticky, &format!("{unknown}; {cookie}"), None).0,
        Some(2)
    );
}

#[test]
fn what_a_client_shows_already_is_not_said_again() {
    let sticky = sticky("web", b"k", &[1, 2], 99, 0);
    let shown = sticky.read(&headers(&[given(&sticky, 2).as_bytes()]));
    let mut answer = HeaderMap::new();
    sticky.tell(&mut answer, shown, Some(at(2)), true);
    sticky.tell(&mut answer, shown, Some(at(7)), true);
    sticky.tell(&mut answer, shown, None, true);
    assert!(answer.is_empty(), "{answer:?}");
    sticky.tell(&mut answer, shown, Some(at(1)), true);
    let cookie = answer[header::SET_COOKIE].to_str().unwrap();
    let attributes = "; Path=/; HttpOnly; SameSite=Lax; Secure";
    assert!(cookie.ends_with(attributes), "{cookie}");
    assert_eq!(answer[header::CACHE_CONTROL], "private");
}

#[test]
fn other_cookies_pass_byte_by_byte() {
    let sticky = sticky("web", b"k", &[1], 99, 0);
    type Fields = &'static [&'static [u8]];
    let cases: [(Fields, Fields); 6] = [
        (&[b"lb=x"], &[]),
        (
            &[b"a=\xff\xe9; lb=x;b=\"1;2\" "],
            &[b"a=\xff\xe9;b=\"1;2\" "],
        ),
        (&[b" lb=x;  b=2"], &[b"b=2"]),
        (&[b"lb=1; lb = 2;lb=3"], &[]),
        (&[b"a=1", b"lb=x", b"b=2"], &[b"a=1", b"b=2"]),
        (&[b"a=1;; ,lbx=2; lb"], &[b"a=1;; ,lbx=2; lb"]),
    ];
    for (before, after) in cases {
        let mut fields = headers(before);
        sticky.take(&mut fields);
        let left: Vec<_> = fields.get_all(header::COOKIE).iter().collect();
        assert_eq!(left, after);
    }
}

proptest! {
    #[test]
    fn no_cookie_is_too_odd(bytes in proptest::collection::vec(any::<u8>(), 0..200), begin in "(lb=)?") {
        let sticky = sticky("web", b"k", &[1, 11], 11, 500);
        let field = [begin.as_bytes(), &bytes].concat();
        let Ok(field) = HeaderValue::from_bytes(&field) else { return Ok(()) };
        let mut fields = HeaderMap::from_iter([(header::COOKIE, field)]);
        prop_assert_eq!(sticky.read(&fields).instance, None);
        sticky.take(&mut fields);
        prop_assert!(sticky.values(&fields).next().is_none());
    }
}
