use super::*;

fn guard() -> Guard {
    Guard {
        names: vec!["lb.example".to_owned()],
        published: Published::Token,
        token: Token::from_text("0123456789abcdef").unwrap(),
        sessions: Sessions::default(),
        guesses: Guesses::default(),
    }
}

fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in pairs {
        map.append(*name, value.parse().unwrap());
    }
    map
}

fn remote(own: &str) -> Actor {
    Actor::Remote {
        peer: "127.0.0.1:40000".parse().unwrap(),
        own: own.parse().unwrap(),
    }
}

#[track_caller]
fn read(own: &str, host: &str, expect: Result<(), Refusal>) {
    let uri = Uri::from_static("/");
    let headers = headers(&[("host", host)]);
    let verdict = guard().admit(&remote(own), &Method::GET, &uri, &headers);
    assert_eq!(verdict.map(drop), expect, "{host} at {own}");
}

#[test]
fn only_hosts_on_the_list_are_served() {
    const OWN: &str = "127.0.0.1:9180";
    for host in [
        "127.0.0.1:9180",
        "[::1]:9180",
        "localhost:9180",
        "LOCALHOST:8000",
    ] {
        read(OWN, host, Ok(()));
    }
    for host in ["lb.example", "LB.example.:9180"] {
        read(OWN, host, Err(Refusal::NoToken));
    }
    for host in [
        "evil.example:9180",
        "127.0.0.1.nip.io:9180",
        "127.0.0.1:80",
        "10.0.0.1:9180",
        "u@localhost:9180",
        "localhost.evil.example",
    ] {
        read(OWN, host, Err(Refusal::ForeignHost));
    }
    for host in [
        "",
        "a b",
        "a/b",
        "localhost:x",
        "localhost:99999",
        "localhost:",
        "[::1]evil.example:9180",
        "[::1]127.0.0.1:9180",
    ] {
        read(OWN, host, Err(Refusal::BadHost));
    }
}

#[test]
fn an_absolute_target_does_not_hide_behind_an_innocent_host() {
    let uri = Uri::from_static("http://evil.example/");
    let headers = headers(&[("host", "localhost")]);
    let verdict = guard().admit(&remote("127.0.0.1:9180"), &Method::GET, &uri, &headers);
    assert_eq!(verdict, Err(Refusal::ForeignHost));
}

#[test]
fn two_hosts_are_none() {
    let headers = headers(&[("host", "localhost"), ("host", "localhost")]);
    let uri = Uri::from_static("/");
    let verdict = guard().admit(&remote("127.0.0.1:9180"), &Method::GET, &uri, &headers);
    assert_eq!(verdict, Err(Refusal::BadHost));
}

#[test]
fn beyond_loopback_reading_needs_the_token_too_except_for_probes() {
    let own = "10.0.0.5:9180";
    read(own, "10.0.0.5:9180", Err(Refusal::NoToken));
    let headers = headers(&[("host", "10.0.0.5:9180")]);
    for path in ["/healthz", "/ready"] {
        let uri = Uri::from_static(path);
        let verdict = guard().admit(&remote(own), &Method::GET, &uri, &headers);
        assert_eq!(verdict.map(drop), Ok(()), "{path}");
    }
}

#[test]
fn a_listener_of_both_families_serves_ipv4_as_one_of_ipv4_does() {
    let own = "[::ffff:127.0.0.1]:9180";
    for host in ["127.0.0.1:9180", "localhost:9180", own] {
        read(own, host, Ok(()));
    }
    read(own, "10.0.0.5:9180", Err(Refusal::ForeignHost));
    read(own, "127.0.0.1:80", Err(Refusal::ForeignHost));
    let own = "[::ffff:10.0.0.5]:9180";
    for host in ["10.0.0.5:9180", own] {
        read(own, host, Err(Refusal::NoToken));
    }
    let with_token = headers(&[("host", "10.0.0.5:9180"), BEARER]);
    let uri = Uri::from_static("/");
    let verdict = guard().admit(&remote(own), &Method::GET, &uri, &with_token);
    assert_eq!(verdict.map(drop), Ok(()));
}

#[track_caller]
fn change(actor: &Actor, pairs: &[(&'static str, &str)], expect: Result<(), Refusal>) {
    let uri = Uri::from_static("/api/v1/instances/state");
    let verdict = guard().admit(actor, &Method::POST, &uri, &headers(pairs));
    assert_eq!(verdict.map(drop), expect, "{pairs:?}");
}

const HOST: (&str, &str) = ("host", "localhost:9180");
const JSON: (&str, &str) = ("content-type", "application/json; charset=utf-8");
const ACTION: (&str, &str) = ("x-lb-action", "1");
const BEARER: (&str, &str) = ("authorization", "Bearer 0123456789abcdef");

#[test]
fn a_change_over_tcp_needs_json_the_action_header_and_the_token() {
    let actor = remote("127.0.0.1:9180");
    change(&actor, &[HOST, JSON, ACTION, BEARER], Ok(()));
    change(&actor, &[HOST, ACTION, BEARER], Err(Refusal::NotJson));
    change(&actor, &[HOST, JSON, BEARER], Err(Refusal::NoAction));
    change(&actor, &[HOST, JSON, ACTION], Err(Refusal::NoToken));
    let form = ("content-type", "text/plain");
    change(&actor, &[HOST, form, ACTION, BEARER], Err(Refusal::NotJson));
    let wrong = ("authorization", "Bearer 0123456789abcdee");
    let pairs = [HOST, JSON, ACTION, wrong];
    change(&actor, &pairs, Err(Refusal::WrongToken));
}

#[test]
fn a_change_from_another_origin_is_refused() {
    let actor = remote("127.0.0.1:9180");
    let with = |extra| [HOST, JSON, ACTION, BEARER, extra];
    change(&actor, &with(("origin", "http://localhost:9180")), Ok(()));
    change(&actor, &with(("sec-fetch-site", "same-origin")), Ok(()));
    for extra in [
        ("origin", "http://evil.example"),
        ("origin", "http://localhost:8080"),
        ("origin", "https://localhost:9180"),
        ("origin", "null"),
        ("sec-fetch-site", "cross-site"),
        ("sec-fetch-site", "same-site"),
    ] {
        change(&actor, &with(extra), Err(Refusal::CrossSite));
    }
}

#[test]
fn where_the_page_is_published_the_token_reads_and_nothing_changes() {
    let own = remote("127.0.0.1:9180");
    let published = [("host", "lb.example")];
    let passed_on = [HOST, ("x-forwarded-for", "127.0.0.1")];
    for pairs in [&published[..], &passed_on] {
        let with = |extra: &[(&'static str, &'static str)]| headers(&[pairs, extra].concat());
        let open = Guard {
            published: Published::Open,
            ..guard()
        };
        let read = |guard: &Guard, own: &Actor, path: &'static str, headers: &HeaderMap| {
            let verdict = guard.admit(own, &Method::GET, &Uri::from_static(path), headers);
            verdict.map(|access| assert!(!access.may_change))
        };
        assert_eq!(read(&guard(), &own, "/", &with(&[])), Err(Refusal::NoToken));
        assert_eq!(read(&guard(), &own, "/", &with(&[BEARER])), Ok(()));
        assert_eq!(read(&guard(), &own, "/ready", &with(&[])), Ok(()));
        assert_eq!(read(&open, &own, "/", &with(&[])), Ok(()));
        // What the proxy was shown itself is not for us.
        let foreign = ("authorization", "Basic dXNlcjpwYXNzd29yZA==");
        assert_eq!(read(&open, &own, "/", &with(&[foreign])), Ok(()));
        // Beyond loopback nobody says who connects.
        let beyond = remote("10.0.0.5:80");
        let answer = read(&open, &beyond, "/", &with(&[]));
        assert_eq!(answer, Err(Refusal::NoToken));
        for guard in [guard(), open] {
            let uri = Uri::from_static("/api/v1/instances/state");
            let headers = with(&[JSON, ACTION, BEARER]);
            let verdict = guard.admit(&own, &Method::POST, &uri, &headers);
            assert_eq!(verdict, Err(Refusal::Published), "{pairs:?}");
        }
    }
}

#[test]
fn an_absolute_target_names_the_published_page_too() {
    let uri = Uri::from_static("http://lb.example/");
    let headers = headers(&[HOST]);
    let verdict = guard().admit(&remote("127.0.0.1:9180"), &Method::GET, &uri, &headers);
    assert_eq!(verdict, Err(Refusal::NoToken));
}

#[test]
fn who_shows_the_token_may_change_where_the_page_is_not_published() {
    let own = remote("127.0.0.1:9180");
    let ask = |pairs: &[(&'static str, &str)], path: &'static str| {
        let uri = Uri::from_static(path);
        guard().admit(&own, &Method::GET, &uri, &headers(pairs))
    };
    let access = ask(&[HOST], "/").unwrap();
    assert!(access.may_read && !access.may_change && access.who == Who::Nobody);
    let access = ask(&[HOST, BEARER], "/").unwrap();
    assert!(access.may_read && access.may_change && access.who == Who::Token);
    // Else whoever guesses would be told at no cost.
    let wrong = ("authorization", "Bearer 0123456789abcdee");
    assert_eq!(ask(&[HOST, wrong], "/"), Err(Refusal::WrongToken));
    assert_eq!(
        ask(&[HOST, wrong], "/ready").map(|it| it.who),
        Ok(Who::Nobody)
    );
    // How a page knows that it has to ask for the token.
    let published = ask(&[("host", "lb.example")], "/api/v1/session").unwrap();
    assert!(!published.may_read && !published.may_change && published.published);
}

#[test]
fn behind_tls_at_the_front_the_origin_is_that_of_https() {
    let own = remote("127.0.0.1:9180");
    let ask = |pairs: &[(&'static str, &str)]| {
        let uri = Uri::from_static(SESSION_PATH);
        let verdict = guard().admit(&own, &Method::POST, &uri, &headers(pairs));
        verdict.map(|access| access.secure)
    };
    let published = ("host", "lb.example");
    let tls = [
        published,
        JSON,
        ACTION,
        ("x-forwarded-for", "192.0.2.7"),
        ("x-forwarded-proto", "https"),
    ];
    let (https, http) = (
        ("origin", "https://lb.example"),
        ("origin", "http://lb.example"),
    );
    let with = |origin| [&tls[..], &[origin]].concat();
    assert_eq!(ask(&tls), Ok(true));
    assert_eq!(ask(&with(https)), Ok(true));
    assert_eq!(ask(&with(http)), Err(Refusal::CrossSite));
    assert_eq!(ask(&[published, JSON, ACTION, http]), Ok(false));
    let plain = [published, JSON, ACTION, https];
    assert_eq!(ask(&plain), Err(Refusal::CrossSite));
}

#[test]
fn a_client_is_named_by_the_front_of_this_host_and_by_nobody_else() {
    let told = headers(&[("x-forwarded-for", "203.0.113.9, 192.0.2.7")]);
    let client = |own: &str, peer: &str, headers: &HeaderMap| {
        client(own.parse().unwrap(), peer.parse().unwrap(), headers).to_string()
    };
    let loopback = "127.0.0.1:9180";
    assert_eq!(client(loopback, "127.0.0.1:40000", &told), "192.0.2.7");
    let beyond = "10.0.0.5:9180";
    assert_eq!(client(beyond, "10.0.0.5:40000", &told), "192.0.2.7");
    assert_eq!(client(beyond, "10.0.0.9:40000", &told), "10.0.0.9");
    let none = HeaderMap::new();
    assert_eq!(client(loopback, "127.0.0.1:40000", &none), "127.0.0.1");
    let nonsense = headers(&[("x-forwarded-for", "unknown")]);
    assert_eq!(client(loopback, "127.0.0.1:40000", &nonsense), "127.0.0.1");
}

#[test]
fn on_the_socket_the_user_counts_and_not_the_token() {
    let own = Actor::Local {
        uid: 0,
        rank: Rank::Listed,
    };
    change(&own, &[JSON, ACTION], Ok(()));
    change(&own, &[JSON], Err(Refusal::NoAction));
    let foreign = Actor::Local {
        uid: 1000,
        rank: Rank::Stranger,
    };
    change(&foreign, &[JSON, ACTION], Err(Refusal::ForeignUser));
}
