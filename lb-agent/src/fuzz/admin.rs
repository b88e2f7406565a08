//! Requests for the admin interface, and what its answers become on a terminal.

use std::{net::SocketAddr, sync::LazyLock, time::SystemTime};

use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, header};

use crate::{
    admin::{
        fuzz::{self, May, NAME, TOKEN},
        otlp, text,
    },
    assemble,
    catalog::Catalog,
    discover::file,
    order::{Mode, Order, Orders},
};

/// A line of words (`own=` and `peer=` an address and port, `open`, `socket`, `stranger`), a request line, and fields.
pub fn admin_guard(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let mut lines = text.lines();
    let (words, asked) = (
        lines.next().unwrap_or_default(),
        lines.next().unwrap_or_default(),
    );
    let mut asked = asked.split(' ');
    let method = Method::from_bytes(asked.next().unwrap_or_default().as_bytes());
    let uri: Result<Uri, _> = asked.next().unwrap_or_default().parse();
    let (Ok(method), Ok(uri)) = (method, uri) else {
        return;
    };
    let mut headers = HeaderMap::new();
    for line in lines {
        let (name, value) = line.split_once(':').unwrap_or((line, ""));
        let name = HeaderName::from_bytes(name.as_bytes());
        if let (Ok(name), Ok(value)) = (name, HeaderValue::from_str(value.trim())) {
            headers.append(name, value);
        }
    }
    let word = |word: &str| words.split(' ').any(|it| it == word);
    let address = |key: &str, usual: &str| -> Option<SocketAddr> {
        let said = words.split(' ').find_map(|it| it.strip_prefix(key));
        said.unwrap_or(usual).parse().ok()
    };
    if word("socket") {
        let verdict = fuzz::admit_here(word("stranger"), (&method, &uri), &headers);
        assert!(!word("stranger") || verdict.is_err());
        if verdict.is_ok() && !reads(&method) {
            meant(&headers);
        }
        return told(verdict);
    }
    let own = address("own=", "127.0.0.1:9180");
    let (Some(own), Some(peer)) = (own, address("peer=", "127.0.0.1:40000")) else {
        return;
    };
    let verdict = fuzz::admit((own, peer), word("open"), (&method, &uri), &headers);
    if let Ok(may) = verdict {
        admitted(own, (&method, &uri), &headers, may);
    }
    told(verdict);
}

fn reads(method: &Method) -> bool {
    *method == Method::GET || *method == Method::HEAD
}

/// Who is turned away is told what to do.
fn told(verdict: Result<May, (axum::http::StatusCode, String)>) {
    if let Err((status, why)) = verdict {
        assert!(status.is_client_error() && why.len() > 20, "{status} {why}");
    }
}

/// What must be true of a request that is let in.
fn admitted(own: SocketAddr, (method, uri): (&Method, &Uri), headers: &HeaderMap, may: May) {
    let path = uri.path();
    let is_session = path == "/api/v1/session";
    let hosts: Vec<_> = headers.get_all(header::HOST).iter().collect();
    let [host] = hosts[..] else {
        panic!("{} Hosts", hosts.len());
    };
    let host = host.to_str().unwrap_or_default().to_owned();
    for named in [
        Some(&*host),
        uri.authority().map(axum::http::uri::Authority::as_str),
    ]
    .into_iter()
    .flatten()
    {
        assert!(!named.contains('@'), "{named}");
        let name = named.rsplit_once(':').map_or(named, |(name, _)| name);
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        let literal = named.parse::<SocketAddr>().is_ok()
            || name
                .trim_matches(['[', ']'])
                .parse::<std::net::IpAddr>()
                .is_ok();
        // No name that somebody else may lead here.
        assert!(literal || name == "localhost" || name == NAME, "{named}");
        assert!(name != NAME || may.published);
    }
    assert!(!may.published || !may.change);
    assert!(!may.change || may.is_known);
    assert!(!may.see_clients || may.is_known && !may.published);
    if may.is_known {
        let says = |name: &HeaderName, what: &str| {
            let values = headers
                .get_all(name)
                .iter()
                .filter_map(|it| it.to_str().ok());
            values
                .into_iter()
                .any(|it| it.to_ascii_lowercase().contains(what))
        };
        let token = says(&header::AUTHORIZATION, TOKEN) || says(&header::AUTHORIZATION, "basic ");
        assert!(
            token || says(&header::COOKIE, "lb_session=id"),
            "{headers:?}"
        );
    }
    if !reads(method) {
        meant(headers);
        assert!(is_session || may.change);
        let origin = headers.get(header::ORIGIN).and_then(|it| it.to_str().ok());
        let same = |it: &str| {
            it.rsplit_once("//")
                .is_some_and(|(_, it)| it.eq_ignore_ascii_case(&host))
        };
        assert!(origin.is_none_or(same), "{headers:?}");
    } else if !may.is_known && !matches!(path, "/healthz" | "/ready") && !is_session {
        assert!(may.read && own.ip().to_canonical().is_loopback());
    }
}

/// What no plain form sends.
fn meant(headers: &HeaderMap) {
    let json = headers
        .get(header::CONTENT_TYPE)
        .and_then(|it| it.to_str().ok());
    let json = json.map(str::to_ascii_lowercase);
    assert!(json.is_some_and(|it| it.trim_start().starts_with("application/json")));
    assert!(headers.get("x-lb-action").is_some_and(|it| it == "1"));
    let site = headers.get("sec-fetch-site");
    assert!(site.is_none_or(|it| it == "none" || it == "same-origin"));
}

/// Each line is an order for instances, one after the other.
pub fn admin_orders(data: &[u8]) {
    let mut orders = Orders::new();
    assert_eq!(CATALOG.services.len(), 2);
    for line in data.split(|&byte| byte == b'\n') {
        let Some(Ok(order)) = fuzz::state_order(line) else {
            continue;
        };
        // What the command line writes is what is read.
        let again = serde_json::to_vec(&order).ok();
        let again = again.and_then(|it| fuzz::state_order(&it));
        assert_eq!(again, Some(Ok(order.clone())));
        let deadline = order.deadline_seconds.map(std::time::Duration::from_secs);
        let meant = Order::new(order.mode, deadline, SystemTime::UNIX_EPOCH);
        let wanted = (&*order.service, order.backend.as_deref());
        let outcome = assemble::fuzz::ordered(&orders, &CATALOG, wanted, meant);
        let (after, matched) = match outcome {
            Ok(outcome) => outcome,
            Err(why) => {
                assert!(why.contains("; "), "no remedy: {why}");
                continue;
            }
        };
        assert!(!matched.is_empty());
        let all = |orders: &Orders| -> Vec<_> {
            let each = orders.iter().flat_map(|(service, of)| {
                of.iter()
                    .map(move |it| (service.clone(), it.0.clone(), *it.1))
            });
            each.collect()
        };
        let (before, now) = (all(&orders), all(&after));
        for key in &matched {
            let of_it: Vec<_> = now.iter().filter(|it| it.1 == *key).collect();
            assert_eq!(of_it.is_empty(), order.mode == Mode::Ready, "{key}");
            assert!(of_it.iter().all(|it| it.2 == meant) || of_it.len() > 1);
        }
        // Nobody else is concerned.
        let others = |of: &[(String, _, Order)]| -> Vec<_> {
            of.iter()
                .filter(|it| !matched.contains(&it.1))
                .cloned()
                .collect()
        };
        assert_eq!(others(&before), others(&now));
        // All are for who is there, and outlive the agent.
        assert_eq!(assemble::fuzz::left(&after, &CATALOG), after);
        let kept = assemble::fuzz::keep_orders(&after);
        assert_eq!(assemble::fuzz::kept_orders(&kept).as_ref(), Some(&after));
        orders = after;
    }
}

/// Two services, one with a part, and an instance that is called as one of the other.
static CATALOG: LazyLock<Catalog> = LazyLock::new(|| {
    let instance = |id: &str, port| {
        format!("[[service.instance]]\nid = \"{id}\"\naddress = \"10.0.0.1\"\nport = {port}\n")
    };
    let text = format!(
        "[[service]]\nname = \"www\"\ntags = [\"hello\"]\n{}{}[[service]]\nname = \"db\"\n{}",
        instance("a", 1),
        instance("b", 2),
        instance("c", 3),
    );
    file::parse(&text).unwrap_or_default()
});

/// A file of header fields for a receiver of metrics.
pub fn otlp_headers(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    match otlp::headers::parse(text) {
        Ok(headers) => {
            assert!(headers.len() <= text.lines().count());
            for (name, value) in &headers {
                // Nobody prints them, and nothing is made up.
                assert!(value.is_sensitive(), "{name}");
                let value = value.to_str().unwrap_or_default();
                assert!(text.contains(value), "{name}");
            }
        }
        Err((line, remedy)) => {
            assert!((1..=text.lines().count()).contains(&line) && !remedy.is_empty());
        }
    }
}

/// A line that says of what, then an answer of the admin interface. For `top` each line is a report.
pub fn cli_answers(data: &[u8]) {
    let end = data.iter().position(|&byte| byte == b'\n');
    let (kind, body) = data.split_at(end.unwrap_or(data.len()));
    let kind = std::str::from_utf8(kind).unwrap_or_default();
    for printed in crate::cli::fuzz::printed(kind, body) {
        let plain = printed.replace("\r\n", "\n");
        let obeyed = plain.chars().find(|it| *it != '\n' && text::obeyed(*it));
        assert_eq!(obeyed, None, "{printed:?}");
    }
}
