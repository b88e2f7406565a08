use super::*;

/// What a backend gets of `fields` from `peer`, whose proxies in 10.0.0.0/8 and fd00::/8 are trusted.
fn told(peer: &str, fields: &[(&'static str, &str)]) -> HeaderMap {
    let forwarding = Forwarding {
        trusted_proxies: vec!["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()],
        forwarded: true,
        ..Forwarding::default()
    };
    let mut headers = HeaderMap::new();
    for (name, value) in fields {
        headers.append(*name, value.parse().unwrap());
    }
    let text = HeaderValue::from_str(peer).unwrap();
    let peer = Peer {
        address: peer.parse().unwrap(),
        text: &text,
        secure: false,
    };
    let authority = HeaderValue::from_static("web:8080");
    let id = forwarding.id(peer.address, &headers, &Ids::default());
    let passes = forwarding.passes(peer.address);
    let passed = headers.iter().filter(|(name, _)| passes(name));
    let mut told = HeaderMap::new();
    for (name, value) in passed {
        told.append(name, value.clone());
    }
    forwarding.tell(&mut told, peer, &authority, id.as_ref());
    told
}

#[track_caller]
fn has(headers: &HeaderMap, fields: &[(&str, &str)]) {
    for (name, value) in fields {
        let all: Vec<_> = headers.get_all(*name).iter().collect();
        assert_eq!(all, [value], "{name}");
    }
}

const FORGED: [(&str, &str); 9] = [
    ("x-forwarded-for", "6.6.6.6"),
    ("x-forwarded-proto", "https"),
    ("x-forwarded-host", "admin"),
    ("x-forwarded-port", "443"),
    ("x-forwarded-server", "here"),
    ("x-real-ip", "127.0.0.1"),
    ("forwarded", "for=6.6.6.6"),
    ("x-request-id", "chosen"),
    ("x_forwarded_for", "6.6.6.6"),
];

#[test]
fn nothing_that_a_stranger_says_is_passed_on() {
    let headers = told("192.0.2.7", &FORGED);
    has(
        &headers,
        &[
            ("x-forwarded-for", "192.0.2.7"),
            ("x-forwarded-proto", "http"),
            ("x-forwarded-host", "web:8080"),
            ("x-forwarded-port", "8080"),
            ("forwarded", "for=192.0.2.7;host=\"web:8080\";proto=http"),
        ],
    );
    for name in ["x-forwarded-server", "x-real-ip", "x_forwarded_for"] {
        assert!(!headers.contains_key(name), "{name}");
    }
    let id = headers["x-request-id"].to_str().unwrap();
    assert!(
        id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit()),
        "{id}"
    );
}

#[test]
fn what_a_trusted_proxy_says_is_kept_and_continued() {
    let headers = told("10.1.2.3", &FORGED);
    has(
        &headers,
        &[
            ("x-forwarded-for", "6.6.6.6, 10.1.2.3"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "admin"),
            ("x-forwarded-port", "443"),
            ("x-forwarded-server", "here"),
            ("x-real-ip", "127.0.0.1"),
            (
                "forwarded",
                "for=6.6.6.6, for=10.1.2.3;host=\"web:8080\";proto=http",
            ),
            ("x-request-id", "chosen"),
        ],
    );
    assert!(!headers.contains_key("x_forwarded_for"));
}

#[test]
fn a_trusted_proxy_that_says_nothing_or_nonsense_is_helped_out() {
    let nonsense = [
        ("x-forwarded-proto", "gopher"),
        ("x-forwarded-host", "a"),
        ("x-forwarded-host", "b"),
        ("x-forwarded-port", "0"),
        ("x-request-id", "a\" b"),
    ];
    for fields in [&[][..], &nonsense] {
        let headers = told("10.1.2.3", fields);
        has(
            &headers,
            &[
                ("x-forwarded-for", "10.1.2.3"),
                ("x-forwarded-proto", "http"),
                ("x-forwarded-host", "web:8080"),
                ("x-forwarded-port", "8080"),
            ],
        );
        assert_eq!(headers["x-request-id"].len(), 32);
    }
    let headers = told(
        "10.1.2.3",
        &[("x-forwarded-proto", "https"), ("x-forwarded-host", "w")],
    );
    has(&headers, &[("x-forwarded-port", "443")]);
}

#[test]
fn an_ipv6_address_is_bare_in_one_field_and_in_brackets_and_quotes_in_the_other() {
    let headers = told("2001:db8::7", &[]);
    has(
        &headers,
        &[
            ("x-forwarded-for", "2001:db8::7"),
            (
                "forwarded",
                "for=\"[2001:db8::7]\";host=\"web:8080\";proto=http",
            ),
        ],
    );
}

#[test]
fn the_client_is_the_nearest_address_that_is_no_trusted_proxys() {
    let client = |peer: &str, lines: &[&str]| {
        let forwarding = Forwarding {
            trusted_proxies: vec!["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()],
            ..Forwarding::default()
        };
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(X_FORWARDED_FOR, line.parse().unwrap());
        }
        let client = forwarding.client(peer.parse().unwrap(), &headers);
        client.to_string()
    };
    assert_eq!(client("192.0.2.7", &["6.6.6.6"]), "192.0.2.7");
    assert_eq!(client("::ffff:10.0.0.1", &["192.0.2.7"]), "192.0.2.7");
    assert_eq!(client("10.0.0.1", &["127.0.0.1, 192.0.2.7"]), "192.0.2.7");
    assert_eq!(
        client("10.0.0.1", &["127.0.0.1", "192.0.2.7,10.0.0.2"]),
        "192.0.2.7"
    );
    assert_eq!(client("10.0.0.1", &["192.0.2.7:81, fd00::1"]), "192.0.2.7");
    assert_eq!(client("fd00::1", &["[2001:db8::7]:81"]), "2001:db8::7");
    assert_eq!(client("fd00::1", &["[2001:db8::7]"]), "2001:db8::7");
    assert_eq!(client("10.0.0.1", &["192.0.2.7, unknown"]), "10.0.0.1");
    assert_eq!(client("10.0.0.1", &["10.0.0.3"]), "10.0.0.3");
    assert_eq!(client("10.0.0.1", &[]), "10.0.0.1");
    // Its own loopback is none of ours.
    assert_eq!(client("10.0.0.1", &["127.0.0.1"]), "10.0.0.1");
    assert_eq!(client("fd00::1", &["::1, 10.0.0.9"]), "10.0.0.9");
}

#[test]
fn no_two_ids_are_equal() {
    let (ids, others) = (Ids::default(), Ids::default());
    let all: std::collections::HashSet<_> = (0..1000)
        .flat_map(|_| [ids.next(), others.next()])
        .collect();
    assert_eq!(all.len(), 2000);
}
