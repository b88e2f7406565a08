//! What the page says, without a browser; `tests/admin/page` has one.

use super::*;
use crate::{
    admin::{compose::compose, history::Rings, report::ServiceState, sample},
    snapshot::{ServiceName, Snapshot, Source},
    stats::Stats,
};

fn rendered(snapshot: Option<&Snapshot>, stats: Option<&Stats>) -> String {
    shown(
        &compose(sample::material(snapshot, stats)),
        &View::default(),
    )
}

fn shown(report: &Report, view: &View) -> String {
    page(report, view, &Rings::default(), false).into_string()
}

#[test]
fn errors_come_before_services() {
    let html = rendered(Some(&sample::snapshot()), Some(&sample::stats()));
    let at = |text: &str| html.find(text).unwrap_or_else(|| panic!("no {text}"));
    assert!(at("</strong> service refused") < at("What is wrong"));
    assert!(at("none of 1 instance can be used") < at("the pool 198.18.0.0/30 is full"));
    assert!(at("the pool 198.18.0.0/30 is full") < at("id=\"services\""));
}

#[test]
fn anchors_of_both_naming_schemes_are_there_once() {
    let html = rendered(Some(&sample::snapshot()), None);
    for id in [
        "www_hello_backend",
        "hello_www_backend",
        "world.dev_www_backend",
        "www_world_dev_backend",
        "db_backend",
    ] {
        assert_eq!(html.matches(&format!("id=\"{id}\"")).count(), 1, "{id}");
    }
}

#[test]
fn the_levels_of_health_are_three_fields() {
    let html = rendered(Some(&sample::snapshot()), Some(&sample::stats()));
    for text in [
        "own probe",
        "source",
        "state",
        "connection refused",
        "l4_down",
        "draining",
        "no answer\nfrom pg_isready",
    ] {
        assert!(html.contains(text), "no {text}");
    }
}

#[test]
fn the_age_of_stale_data_is_in_sight() {
    let html = rendered(Some(&sample::snapshot()), None);
    assert!(html.contains("running on the last good table"), "{html}");
    assert!(
        html.contains("age <span data-k=\"source|consul|age\">3 min 12 s<"),
        "{html}"
    );
}

#[test]
fn what_the_front_says_of_backends_is_shown() {
    let (snapshot, front) = (sample::snapshot(), sample::front());
    let mut material = sample::material(Some(&snapshot), None);
    material.front = Some(&front);
    let html = shown(&compose(material), &View::default());
    assert_eq!(
        html.matches(", ejected for 25 s by 2 workers: connect_refused")
            .count(),
        1
    );
    // Failed and repeated attempts, of both services that share the instance.
    for (key, text) in [("errors", "4"), ("retries", "4")] {
        for label in ["www", "world.dev_www"] {
            let cell = format!("data-k=\"{label}|n1/www-1|{key}\">{text}<");
            assert!(html.contains(&cell), "no {cell} in {html}");
        }
    }
}

#[test]
fn markup_in_names_and_check_output_is_text() {
    let mut snapshot = sample::snapshot();
    let mut evil = snapshot.services[&ServiceName::whole("db")].clone();
    for backend in std::sync::Arc::make_mut(&mut evil).backends.values_mut() {
        backend.checks[0].output = "<img src=x onerror=alert(1)>".to_owned();
    }
    let name = ServiceName::whole("\"><script>alert(1)</script>");
    snapshot.services.insert(name, evil);
    let html = rendered(Some(&snapshot), None);
    assert!(!html.contains("<script>alert"), "{html}");
    assert!(!html.contains("<img"), "{html}");
    assert!(html.contains("&lt;script&gt;alert(1)"));
}

#[test]
fn only_http_becomes_a_link() {
    let mut material = sample::material(None, None);
    let snapshot = sample::snapshot();
    material.snapshot = Some(&snapshot);
    material.hosts.insert(
        "www_hello".to_owned(),
        vec!["javascript:alert(1)".to_owned(), "http://a/".to_owned()],
    );
    let html = shown(&compose(material), &View::default());
    assert!(html.contains("href=\"http://a/\""));
    assert!(!html.contains("href=\"javascript"));
}

#[test]
fn the_unknown_is_said_and_not_shown_as_nothing() {
    assert!(rendered(None, None).contains("not known yet"));
    let mut empty = Snapshot::default();
    assert!(rendered(Some(&empty), None).contains("not known yet"));
    let answered = Source {
        updated: Some(std::time::SystemTime::UNIX_EPOCH),
        error: None,
    };
    empty.sources.insert("file".to_owned(), answered);
    assert!(rendered(Some(&empty), None).contains("there is no service"));
    let html = rendered(Some(&sample::snapshot()), None);
    assert!(html.contains("data-k=\"db|active\">?<"), "{html}");
}

#[test]
fn nothing_is_inline_and_nothing_is_foreign() {
    let html = rendered(Some(&sample::snapshot()), Some(&sample::stats()));
    assert!(!html.contains("style="));
    assert!(!html.contains("<style"));
    assert!(!html.contains(" onclick"));
    for asset in html.split("src=\"").skip(1) {
        assert!(asset.starts_with("/assets/"), "{asset}");
    }
}

/// `n` services that are alike but in their names.
fn many(n: usize) -> Report {
    let mut snapshot = sample::snapshot();
    let one = snapshot.services[&ServiceName::whole("www_hello")].clone();
    for at in 0..n {
        let name = ServiceName::whole(format!("many_{at:05}"));
        snapshot.services.insert(name, one.clone());
    }
    compose(sample::material(Some(&snapshot), Some(&sample::stats())))
}

#[test]
fn many_services_are_pages_of_rows_whose_sections_are_elsewhere() {
    let report = many(10_000);
    let html = shown(&report, &View::default());
    assert!(html.len() < 1_000_000, "{} bytes", html.len());
    assert_eq!(
        html.matches("<tr class=\"degraded\" data-service").count(),
        ROWS - 1
    );
    assert!(!html.contains("<section class=\"service\""));
    assert!(html.contains("href=\"/service/many_00000\""));
    assert!(html.contains("page 1 of 51"));
    let last = View {
        page: 50,
        ..View::default()
    };
    let html = shown(&report, &last);
    assert!(html.contains("page 51 of 51") && html.contains("www_hello"));
}

#[test]
fn a_search_is_by_any_text_that_names_a_service() {
    let report = compose(sample::material(Some(&sample::snapshot()), None));
    let services = report.services.unwrap();
    let found = |q: &str, state| {
        let view = View {
            q: q.to_owned(),
            state,
            page: 0,
        };
        let names = view.of(&services).into_iter();
        names.map(|it| it.name.clone()).collect::<Vec<_>>()
    };
    assert_eq!(found("HELLO", None), ["www_hello"]);
    assert_eq!(found("198.18.12.7", None), ["www_hello"]);
    assert_eq!(found("db-1", None), ["db"]);
    assert_eq!(found("l4_down", None), ["www_hello"]);
    assert_eq!(found("www localhost", None), ["www_hello"]);
    assert_eq!(found("", Some(ServiceState::Refused)), ["db"]);
    assert_eq!(found("nothing", None).len(), 0);
    assert_eq!(found(" ", None).len(), 4);
}

#[test]
fn a_search_is_an_address_and_back() {
    let view = View {
        q: "a b&c/ü".to_owned(),
        state: Some(ServiceState::Degraded),
        page: 0,
    };
    assert_eq!(
        view.href(2),
        "/?q=a%20b%26c%2F%C3%BC&state=degraded&page=3#services"
    );
    assert_eq!(View::default().href(0), "/?#services");
}

#[test]
fn a_page_of_a_thousand_services_is_made_soon() {
    let report = many(1_000);
    let start = std::time::Instant::now();
    let html = shown(&report, &View::default());
    let took = start.elapsed();
    assert!(html.len() < 1_000_000);
    // 200 ms are the limit of a release build, which is some ten times faster than this one.
    assert!(took.as_millis() < 2_000, "{took:?}");
}
