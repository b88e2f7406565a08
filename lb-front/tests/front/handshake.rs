//! The opening of a WebSocket (RFC 6455 section 4): what each side is told of the other one, what is answered in place of an
//! agreement, and what the options of a service make of it.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use lb_front::{
    Limits, Reason, Settings, StickyKey,
    rules::{Cors, Maintenance, Rate, Redirect, Rules, Target},
    users::Users,
};

use crate::{
    kit::{Client, GET, Seen, TestFront, routes},
    wskit::{
        AnyClient, BINARY, Endpoint, Frame, Raw, TEXT, TRANSPORTS, agreed, agreement, connect,
        front, opening,
    },
};

#[test]
fn both_sides_get_the_fields_of_the_other_one() {
    let raw = Raw::start();
    let front = front(Limits::default(), &[&raw.backend]);
    for transport in TRANSPORTS {
        let mut client = connect(&front, transport);
        let asked = "Sec-WebSocket-Protocol: chat.v2, chat.v1\r\nSec-WebSocket-Protocol: plain\r\nSec-WebSocket-Extensions: permessage-deflate; client_max_window_bits, x-other\r\nOrigin: http://page.example\r\nCookie: a=b\r\n";
        client.send(opening("/chat?room=1", asked));
        let (seen, mut peer) = raw.taken();
        assert!(
            seen.head.starts_with("GET /chat?room=1 HTTP/1.1\r\n"),
            "{}",
            seen.head
        );
        for (name, values) in [
            ("host", &["web"][..]),
            ("upgrade", &["websocket"]),
            ("connection", &["upgrade"]),
            ("sec-websocket-key", &["dGhlIHNhbXBsZSBub25jZQ=="]),
            ("sec-websocket-version", &["13"]),
            ("sec-websocket-protocol", &["chat.v2, chat.v1", "plain"]),
            (
                "sec-websocket-extensions",
                &["permessage-deflate; client_max_window_bits, x-other"],
            ),
            ("origin", &["http://page.example"]),
            ("cookie", &["a=b"]),
            ("x-forwarded-proto", &[transport]),
            ("content-length", &[]),
            ("transfer-encoding", &[]),
        ] {
            assert_eq!(all(&seen.head, name), values, "{name} in {}", seen.head);
        }
        let told = "Sec-WebSocket-Protocol: chat.v1\r\nSec-WebSocket-Extensions: permessage-deflate\r\nSet-Cookie: c=d; Path=/\r\n";
        peer.send(agreement(&seen, told));
        let head = agreed(&mut client);
        for (name, value) in [
            ("sec-websocket-protocol", "chat.v1"),
            ("sec-websocket-extensions", "permessage-deflate"),
            ("set-cookie", "c=d; Path=/"),
        ] {
            assert_eq!(all(&head, name), [value], "{name} in {head}");
        }
        talk(&mut client, &mut peer);
    }
}

/// The values of all fields of this name.
fn all<'a>(head: &'a str, name: &str) -> Vec<&'a str> {
    let fields = head.lines().filter_map(|line| line.split_once(": "));
    let fields = fields.filter(|(field, _)| field.eq_ignore_ascii_case(name));
    fields.map(|(_, value)| value).collect()
}

/// A frame each way.
#[track_caller]
fn talk(client: &mut AnyClient, peer: &mut Client) {
    let (up, down) = (Frame::whole(TEXT, "up"), Frame::whole(BINARY, "down"));
    client.send(up.masked());
    assert_eq!(peer.bytes(up.masked().len()), up.masked());
    peer.send(down.bare());
    assert_eq!(client.bytes(down.bare().len()), down.bare());
}

#[test]
fn what_a_backend_answers_instead_arrives_whole_and_http_goes_on() {
    let raw = Raw::start();
    let front = front(Limits::default(), &[&raw.backend]);
    for transport in TRANSPORTS {
        for (answer, status, fields, body) in [
            (
                "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic realm=\"x\"\r\nContent-Length: 5\r\n\r\nwho??",
                401,
                &[("www-authenticate", "Basic realm=\"x\"")][..],
                "who??",
            ),
            (
                "HTTP/1.1 302 Found\r\nLocation: wss://other.example/\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nover\r\n0\r\n\r\n",
                302,
                &[("location", "wss://other.example/")],
                "4\r\nover\r\n0\r\n\r\n",
            ),
            // Section 4.4.
            (
                "HTTP/1.1 426 Upgrade Required\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13, 8\r\nSec-WebSocket-Version: 7\r\nContent-Length: 3\r\n\r\nold",
                426,
                &[
                    ("sec-websocket-version", "13, 8"),
                    ("sec-websocket-version", "7"),
                    ("upgrade", "websocket"),
                    ("connection", "upgrade"),
                ],
                "old",
            ),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\npage",
                200,
                &[],
                "page",
            ),
        ] {
            let mut client = connect(&front, transport);
            client.send(opening("/", ""));
            let (_, mut peer) = raw.taken();
            peer.send(answer);
            let got = client.answer();
            assert_eq!((got.status, &*got.body), (status, body), "{transport}");
            for (name, value) in fields {
                assert!(all(&got.head, name).contains(value), "{name}: {}", got.head);
            }
            // On the same connection, and the client's next try is one.
            client.send(opening("/again", ""));
            let seen = Seen {
                connection: 0,
                head: peer.head(),
                body: Vec::new(),
            };
            assert!(seen.head.starts_with("GET /again "), "{}", seen.head);
            peer.send(agreement(&seen, ""));
            agreed(&mut client);
            talk(&mut client, &mut peer);
        }
    }
}

#[test]
fn versions_that_a_backend_wants_reach_a_client_of_http_1_0_without_an_upgrade() {
    let raw = Raw::start();
    let front = front(Limits::default(), &[&raw.backend]);
    let mut client = front.client();
    client.send("GET / HTTP/1.0\r\nHost: web\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
    let (seen, mut peer) = raw.taken();
    assert_eq!(all(&seen.head, "upgrade"), [""; 0]);
    peer.send("HTTP/1.1 426 Upgrade Required\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 0\r\n\r\n");
    let answer = client.answer();
    assert_eq!((answer.status, answer.field("upgrade")), (426, None));
}

/// `web` on `backend`, with these rules.
fn ruled(rules: Rules, raw: &Raw) -> TestFront {
    let front = front(Limits::default(), &[]);
    let mut routes = routes(&[raw.backend.address]);
    let web = routes.services[0].1.as_mut().unwrap();
    let path = rules.path.clone();
    Arc::make_mut(web).rules = Some(Arc::new(rules));
    if let Some(path) = path {
        routes.hosts = vec![];
        routes.paths = vec![("web".to_owned(), path, Some(1))];
    }
    let hash = bcrypt::hash("secret", 4).unwrap();
    let users = Users::new([("ann".to_owned(), hash)].into());
    routes.users = vec![("staff".to_owned(), Some(Arc::new(users)))];
    let settings = Settings {
        sticky_key: Some(StickyKey::of(b"secret")),
        ..Settings::default()
    };
    front.front.publish(&routes, &settings);
    front
}

/// Opens at `path` with `fields`; gives what each side was told.
#[track_caller]
fn open(front: &TestFront, raw: &Raw, path: &str, fields: &str) -> [(String, String); 2] {
    TRANSPORTS.map(|transport| {
        let mut client = connect(front, transport);
        client.send(opening(path, fields));
        let (seen, mut peer) = raw.taken();
        let own = "Access-Control-Allow-Origin: *\r\nServer: x\r\n";
        peer.send(agreement(&seen, own));
        let head = agreed(&mut client);
        talk(&mut client, &mut peer);
        (seen.head, head)
    })
}

fn fields(fields: &[(&str, Option<&str>)]) -> BTreeMap<String, Option<String>> {
    let owned = |&(name, value): &(&str, Option<&str>)| (name.to_owned(), value.map(str::to_owned));
    fields.iter().map(owned).collect()
}

#[test]
fn an_opening_is_stripped_of_its_path() {
    let raw = Raw::start();
    let rules = Rules {
        path: Some("/live".to_owned()),
        strip: true,
        ..Rules::default()
    };
    let front = ruled(rules, &raw);
    for (seen, _) in open(&front, &raw, "/live/chat?a=b", "") {
        assert!(seen.starts_with("GET /chat?a=b HTTP/1.1\r\n"), "{seen}");
        assert_eq!(all(&seen, "x-forwarded-prefix"), ["/live"]);
    }
    let elsewhere = front.ask(opening("/other", ""));
    assert_eq!(elsewhere.status, 503);
}

#[test]
fn an_agreement_sets_the_cookie_that_keeps_a_client() {
    let raw = Raw::start();
    let rules = Rules {
        sticky: Some("stay".to_owned()),
        ..Rules::default()
    };
    let front = ruled(rules, &raw);
    for (_, head) in open(&front, &raw, "/", "") {
        let cookie = all(&head, "set-cookie")[0].split(';').next().unwrap();
        assert!(cookie.starts_with("stay="), "{head}");
        let shown = format!("Cookie: a=b; {cookie}\r\n");
        for (seen, head) in open(&front, &raw, "/", &shown) {
            assert_eq!(all(&seen, "cookie"), ["a=b"]);
            assert_eq!(all(&head, "set-cookie"), [""; 0]);
        }
    }
}

#[test]
fn fields_of_an_opening_and_its_agreement_are_set_and_removed() {
    let raw = Raw::start();
    let rules = Rules {
        request_headers: fields(&[("x-tenant", Some("blue")), ("origin", None)]),
        response_headers: fields(&[("x-frame-options", Some("DENY")), ("server", None)]),
        ..Rules::default()
    };
    let front = ruled(rules, &raw);
    let sent = "X-Tenant: red\r\nOrigin: http://page.example\r\n";
    for (seen, head) in open(&front, &raw, "/", sent) {
        assert_eq!(all(&seen, "x-tenant"), ["blue"]);
        assert_eq!(all(&seen, "origin"), [""; 0]);
        assert_eq!(all(&head, "x-frame-options"), ["DENY"]);
        assert_eq!(all(&head, "server"), [""; 0]);
    }
}

#[test]
fn an_agreement_says_which_pages_may_read_it() {
    let raw = Raw::start();
    let rules = Rules {
        cors: Some(Cors {
            origins: Some(["http://page.example".to_owned()].into()),
            credentials: false,
        }),
        compress: true,
        ..Rules::default()
    };
    let front = ruled(rules, &raw);
    let own = "Origin: http://page.example\r\nAccept-Encoding: gzip\r\n";
    for (seen, head) in open(&front, &raw, "/", own) {
        assert_eq!(all(&seen, "origin"), ["http://page.example"]);
        assert_eq!(
            all(&head, "access-control-allow-origin"),
            ["http://page.example"]
        );
        assert_eq!(all(&head, "content-encoding"), [""; 0]);
    }
    for (_, head) in open(&front, &raw, "/", "Origin: http://other.example\r\n") {
        assert_eq!(all(&head, "access-control-allow-origin"), [""; 0]);
    }
}

#[test]
fn only_users_may_open() {
    let raw = Raw::start();
    let rules = Rules {
        auth: Some("staff".to_owned()),
        ..Rules::default()
    };
    let front = ruled(rules, &raw);
    let by = |password: &str| {
        let token = STANDARD.encode(format!("ann:{password}"));
        format!("Authorization: Basic {token}\r\n")
    };
    for transport in TRANSPORTS {
        let mut client = connect(&front, transport);
        for fields in ["", &by("wrong")] {
            let answer = client.send(opening("/", fields)).answer();
            assert_eq!(answer.status, 401, "{transport}");
            assert!(answer.field("www-authenticate").is_some());
            assert!(answer.body.starts_with("unauthorized: "), "{}", answer.body);
        }
        client.send(opening("/", &by("secret")));
        let (seen, mut peer) = raw.taken();
        assert_eq!(all(&seen.head, "x-forwarded-user"), ["ann"]);
        assert_eq!(all(&seen.head, "authorization"), [""; 0]);
        peer.send(agreement(&seen, ""));
        agreed(&mut client);
        talk(&mut client, &mut peer);
    }
    assert_eq!(raw.backend.seen().len(), 2);
}

#[test]
fn rules_that_answer_by_themselves_answer_an_opening() {
    let raw = Raw::start();
    let notice = Rules {
        maintenance: Some(Maintenance::default()),
        ..Rules::default()
    };
    let redirect = Rules {
        redirect: Some(Redirect {
            status: 307,
            to: Target::Site("https://www.example".to_owned()),
        }),
        ..Rules::default()
    };
    for (rules, reason, status) in [
        (notice, Reason::Maintenance, 503),
        (redirect, Reason::Redirect, 307),
    ] {
        let front = ruled(rules, &raw);
        for transport in TRANSPORTS {
            let mut client = connect(&front, transport);
            // Nothing is left of it in the next answer.
            for _ in 0..2 {
                let answer = client.send(opening("/x", "")).answer();
                assert_eq!(answer.status, status, "{}", answer.head);
                assert!(!answer.body.is_empty());
            }
        }
        assert_eq!(front.stats().ended(reason), 4);
    }
    assert!(raw.backend.seen().is_empty());
}

#[test]
fn frames_are_no_requests_to_a_limit_of_their_rate() {
    let endpoint = Endpoint::start();
    let front = front(Limits::default(), &[]);
    let mut routes = routes(&[endpoint.backend.address]);
    let rules = Rules {
        rate: Some(Rate {
            requests: 1,
            seconds: 3600,
            burst: 1,
        }),
        timeout_milliseconds: Some(300),
        ..Rules::default()
    };
    Arc::make_mut(routes.services[0].1.as_mut().unwrap()).rules = Some(Arc::new(rules));
    front.front.publish(&routes, &Settings::default());
    let mut client = connect(&front, "https");
    client.send(opening("/", ""));
    agreed(&mut client);
    let begun = std::time::Instant::now();
    let said = Frame::whole(TEXT, "again");
    // Nor does `lb_timeout` count here.
    while begun.elapsed() < Duration::from_millis(600) {
        client.send(said.masked());
        assert_eq!(client.bytes(said.bare().len()), said.bare());
    }
    assert_eq!(front.ask(opening("/", "")).status, 429);
    assert_eq!(front.ask(GET).status, 429);
}
