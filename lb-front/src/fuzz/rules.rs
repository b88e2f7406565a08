//! What the rules of a service make of a request: who asks, where that client was served before, and where it is sent.

use std::sync::Arc;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use hyper::{
    HeaderMap, Request, Uri,
    header::{self, HeaderName, HeaderValue},
    http::request::Parts,
};
use tokio::sync::Semaphore;

use super::fields;
use crate::{
    answer::Reason,
    lasting::Lasting,
    passwords::Passwords,
    policy::{Asking, Note, Policy, Sticky, StickyKey},
    request::{self, Checked},
    routes::{RouteBackend, RouteService, RoutesChange, lies_under},
    rules::{Canary, Cors, Redirect, Rules, Target},
    table::{Group, Settings, Table},
    users::Users,
};

/// The head of a request, as lines.
pub fn front_rules(data: &[u8]) {
    let Some(parts) = fields::request(data) else {
        return;
    };
    let Ok(checked) = request::check(&parts) else {
        return;
    };
    WORLD.with(|world| {
        for policy in &world.redirects {
            redirected(policy, &parts, &checked);
        }
        match world.policy.before(&parts, &checked, false) {
            Ok(note) => world.judged(&parts, note),
            Err(answer) => {
                assert_eq!(answer.reason, Reason::Preflight);
                read_by(&parts.headers, answer.response.headers());
            }
        }
    });
}

/// Whoever is sent elsewhere is there then, at the same path.
fn redirected(policy: &Policy, parts: &Parts, checked: &Checked) {
    let Err(answer) = policy.before(parts, checked, false) else {
        return;
    };
    assert_eq!(answer.reason, Reason::Redirect);
    let location = answer.response.headers().get(header::LOCATION);
    let location = location.and_then(|location| location.to_str().ok());
    let location: Option<Uri> = location.and_then(|location| location.parse().ok());
    let (Some(authority), Some(path)) = (
        location.as_ref().and_then(|location| location.authority()),
        location
            .as_ref()
            .and_then(|location| location.path_and_query()),
    ) else {
        panic!("{parts:?} leads to {location:?}");
    };
    let asked = match parts.uri.path() {
        "*" => ("/".to_owned(), None),
        asked => (encoded(asked), parts.uri.query().map(encoded)),
    };
    let led = (path.path().to_owned(), path.query().map(str::to_owned));
    assert_eq!(led, asked);
    let next = Request::get(path.as_str()).header(header::HOST, authority.as_str());
    let next = next.body(()).map(|next| next.into_parts().0);
    let there = next.is_ok_and(|next| {
        request::check(&next).is_ok_and(|checked| policy.before(&next, &checked, true).is_ok())
    });
    assert!(there, "{parts:?} leads to {location:?}");
}

/// Without a byte that is no part of a URL.
fn encoded(text: &str) -> String {
    let bytes = text.bytes().map(|byte| match byte {
        b'!'..=b'~' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    });
    bytes.collect()
}

/// Services with these rules.
struct World {
    policy: Policy,
    /// By their backends.
    cookies: Vec<Vec<u8>>,
    redirects: Vec<Policy>,
    table: Table,
    lasting: Lasting,
    passwords: Passwords,
}

impl World {
    fn judged(&self, parts: &Parts, note: Note) {
        let headers = &parts.headers;
        let said = only(headers, &CANARY).map(HeaderValue::as_bytes);
        let forced = match said.map(<[u8]>::to_ascii_lowercase).as_deref() {
            Some(b"always") => Some(Group::Canary),
            Some(b"never") => Some(Group::Rest),
            _ => None,
        };
        let wish = note.wish;
        assert!(forced.is_none() || wish.group == forced, "{headers:?}");
        let pairs = pairs(headers);
        let mut shown = pairs.iter().filter_map(|pair| ours(pair));
        let first = shown.next();
        // Nobody names a backend without its cookie.
        if let Some(backend) = wish.backend {
            let cookie = &self.cookies[backend as usize];
            assert!(first.into_iter().chain(shown).any(|shown| shown == cookie));
        } else if let (Some(first), None, None) = (first, shown.next(), forced) {
            assert!(self.cookies.iter().all(|cookie| cookie != first));
        }
        let takes = |name: &HeaderName, word: &str| {
            headers.get_all(name).iter().any(|value| {
                let value = String::from_utf8_lossy(value.as_bytes()).to_ascii_lowercase();
                value.contains(word)
            })
        };
        let gzip = header::ACCEPT_ENCODING;
        assert!(!note.gzip || takes(&gzip, "gzip") || takes(&gzip, "*"));
        let mut controls = headers.get_all(header::CACHE_CONTROL).iter();
        let strict = controls.any(|it| it.as_bytes().eq_ignore_ascii_case(b"no-transform"));
        assert!(!note.gzip || !strict);
        self.passed_on(parts, &note, &pairs);
        let asking = Asking {
            client: [192, 0, 2, 7].into(),
            headers,
            lasting: &self.lasting,
            table: &self.table,
            passwords: &self.passwords,
        };
        match self.policy.admit(&asking, note) {
            // Of nobody is a password right before it was looked at.
            Ok(note) => assert!(note.is_open() && says_who(headers), "{headers:?}"),
            Err(answer) => {
                assert_eq!(answer.reason, Reason::Unauthorized);
                assert!(!says_who(headers), "{headers:?}");
                read_by(headers, answer.response.headers());
            }
        }
    }

    /// The backend gets no password, none of our cookies and all others, and the path below the prefix.
    fn passed_on(&self, parts: &Parts, note: &Note, shown: &[Vec<u8>]) {
        let mut passed = parts.clone();
        self.policy.on_request(&mut passed, note);
        let headers = &passed.headers;
        assert!(!headers.contains_key(header::AUTHORIZATION));
        assert!(!headers.contains_key("x-forwarded-user"));
        assert!(!headers.contains_key("x-out"));
        let set = only(headers, &HeaderName::from_static("x-in"));
        assert_eq!(set, Some(&HeaderValue::from_static("1")));
        let others = shown.iter().filter(|pair| ours(pair).is_none());
        assert!(pairs(headers).iter().eq(others), "{headers:?}");
        let (before, after) = (&parts.uri, &passed.uri);
        if !lies_under(before.path(), PREFIX) {
            assert_eq!(before, after);
            return;
        }
        assert_eq!(headers["x-forwarded-prefix"], PREFIX);
        let whole = |uri: &Uri| uri.path_and_query().map(|it| it.as_str().to_owned());
        let rest = whole(before).map(|whole| whole[PREFIX.len()..].to_owned());
        let rest = rest.map(|rest| match rest.starts_with('/') {
            true => rest,
            false => format!("/{rest}"),
        });
        assert_eq!(whole(after), rest);
    }
}

/// The answer may be read by pages of one origin, and that is told to no other page.
fn read_by(asked: &HeaderMap, told: &HeaderMap) {
    let allowed = told.get(header::ACCESS_CONTROL_ALLOW_ORIGIN);
    let allowed = allowed.map(HeaderValue::as_bytes);
    let asks = asked.get(header::ORIGIN).map(HeaderValue::as_bytes);
    let ours = asks.filter(|origin| *origin == ORIGIN.as_bytes());
    assert_eq!(allowed, ours);
    let credentials = told.contains_key(header::ACCESS_CONTROL_ALLOW_CREDENTIALS);
    assert_eq!(credentials, ours.is_some());
    let methods = told.contains_key(header::ACCESS_CONTROL_ALLOW_METHODS);
    assert!(ours.is_some() || !methods);
}

/// Whether there is the name of a user and a password.
fn says_who(headers: &HeaderMap) -> bool {
    let field = only(headers, &header::AUTHORIZATION).map(HeaderValue::as_bytes);
    let space = field.and_then(|field| field.iter().position(|&byte| byte == b' '));
    let (Some(field), Some(space)) = (field, space) else {
        return false;
    };
    let (scheme, token) = field.split_at(space);
    let decoded = STANDARD.decode(token.trim_ascii()).unwrap_or_default();
    let colon = decoded.iter().position(|&byte| byte == b':');
    let name = colon.and_then(|colon| std::str::from_utf8(&decoded[..colon]).ok());
    scheme.eq_ignore_ascii_case(b"basic")
        && name.is_some()
        && !decoded.iter().any(u8::is_ascii_control)
}

/// All cookies.
fn pairs(headers: &HeaderMap) -> Vec<Vec<u8>> {
    let fields = headers.get_all(header::COOKIE).iter();
    let pairs = fields.flat_map(|field| field.as_bytes().split(|&byte| byte == b';'));
    let pairs = pairs.map(|pair| pair.trim_ascii().to_vec());
    pairs.filter(|pair| !pair.is_empty()).collect()
}

/// The value of a cookie that is ours.
fn ours(pair: &[u8]) -> Option<&[u8]> {
    let equals = pair.iter().position(|&byte| byte == b'=')?;
    let is_ours = pair[..equals].trim_ascii() == COOKIE.as_bytes();
    is_ours.then(|| pair[equals + 1..].trim_ascii())
}

fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a HeaderValue> {
    let mut values = headers.get_all(name).iter();
    values.next().filter(|_| values.next().is_none())
}

thread_local! {
    static WORLD: World = world();
}

fn world() -> World {
    let redirect = |to| Rules {
        redirect: Some(Redirect { status: 308, to }),
        ..Rules::default()
    };
    let redirects = [
        Target::Https(None),
        Target::Https(Some(8443)),
        Target::Site("https://www.example".into()),
    ];
    let redirects = redirects.map(|to| Policy::new(&redirect(to), None));
    let rules = Rules {
        auth: Some("team".into()),
        canary: Some(Canary {
            share: 5_000,
            field: Some(CANARY.as_str().into()),
        }),
        compress: true,
        cors: Some(Cors {
            origins: Some([ORIGIN.into()].into()),
            credentials: true,
        }),
        path: Some(PREFIX.into()),
        sticky: Some(COOKIE.into()),
        strip: true,
        request_headers: [("x-in".into(), Some("1".into())), ("x-out".into(), None)].into(),
        ..Rules::default()
    };
    let backend = |last| RouteBackend {
        address: ([10, 0, 0, last], 80).into(),
        usable: true,
        weight: 1,
        canary: last > 2,
        cut: None,
    };
    let service = RouteService {
        label: "web".into(),
        backends: (1..=3).map(backend).collect(),
        access: None,
        h2c: false,
        rules: Some(Arc::new(rules.clone())),
    };
    let sticky = Sticky::new(&service, Some(&StickyKey::of(b"secret")));
    let policy = Policy::new(&rules, sticky);
    let cookies = service.backends.iter().map(|backend| {
        let mut headers = HeaderMap::new();
        policy.on_switch(&mut headers, Note::default(), Some(backend.address));
        let cookie = headers[header::SET_COOKIE].as_bytes();
        let value = cookie.split(|&byte| byte == b';').next();
        value.and_then(ours).unwrap_or_default().to_vec()
    });
    let users = [("ann".to_owned(), "$2y$05$x".to_owned())];
    let change = RoutesChange {
        users: vec![("team".into(), Some(Arc::new(Users::new(users.into()))))],
        ..RoutesChange::default()
    };
    World {
        cookies: cookies.collect(),
        policy,
        redirects: redirects.into(),
        table: Table::new(&change, &Settings::default(), &Table::unknown()),
        lasting: Lasting::default(),
        passwords: Passwords::new(Arc::new(Semaphore::new(1))),
    }
}

const COOKIE: &str = "lb";
const ORIGIN: &str = "https://app.example";
const PREFIX: &str = "/api";
const CANARY: HeaderName = HeaderName::from_static("x-canary");
