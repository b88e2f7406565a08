//! `lb_path` and `lb_strip`.

use std::sync::Arc;

use lb_front::{
    Reason, Settings,
    routes::{RouteService, RoutesChange},
    rules::Rules,
};

use crate::kit::{Backend, GET, TestFront, routes};

/// `web` on one backend, and `/api` of its host, and of `only`, on another, which is asked without that if `strip`.
fn shared(web: &Backend, api: &Backend, strip: bool) -> RoutesChange {
    let mut shared = routes(&[web.address]);
    let mut service = RouteService::clone(routes(&[api.address]).services[0].1.as_ref().unwrap());
    service.label = "api".into();
    service.rules = Some(Arc::new(Rules {
        path: Some("/api".to_owned()),
        strip,
        ..Rules::default()
    }));
    shared.services.push((7, Some(Arc::new(service))));
    let prefix = |host: &str| (host.to_owned(), "/api".to_owned(), Some(7));
    shared.paths = vec![prefix("web"), prefix("only")];
    shared
}

fn at(path: &str, host: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n")
}

#[test]
fn services_share_a_host_by_path() {
    let (web, api) = (Backend::named("web"), Backend::named("api"));
    let front = TestFront::with(&[]);
    let routes = shared(&web, &api, false);
    front.front.publish(&routes, &Settings::default());
    for (path, body) in [
        ("/", "web"),
        ("/api", "api"),
        ("/api?x=/api", "api"),
        ("/api/v1/x?y", "api"),
        ("/apix", "web"),
        ("/x/api", "web"),
        ("http://web/api/x", "api"),
    ] {
        assert_eq!(front.ask(at(path, "web")).body, body, "{path}");
        // A name that carries an address is the name before it.
        if path.starts_with('/') {
            let carried = front.ask(at(path, "web.10.0.0.7.nip.io"));
            assert_eq!(carried.body, body, "{path}");
        }
    }
    let targets: Vec<_> = api
        .seen()
        .iter()
        .map(|seen| seen.head.lines().next().unwrap().to_owned())
        .collect();
    assert!(
        targets.contains(&"GET /api/v1/x?y HTTP/1.1".to_owned()),
        "{targets:?}"
    );
    // It has no more of a host that is nobody else's.
    assert_eq!(front.ask(at("/api", "only")).body, "api");
    assert_eq!(front.ask(at("/", "only")).body, "no_route: no such name\n");
    // A prefix that is taken away is its host's again.
    let change = RoutesChange {
        paths: vec![("web".to_owned(), "/api".to_owned(), None)],
        ..RoutesChange::default()
    };
    front.front.change(&change);
    assert_eq!(front.ask(at("/api", "web")).body, "web");
}

#[test]
fn a_path_that_may_be_read_as_another_one_is_refused_where_services_share_a_host() {
    let (web, api) = (Backend::named("web"), Backend::named("api"));
    let front = TestFront::with(&[]);
    let routes = shared(&web, &api, false);
    front.front.publish(&routes, &Settings::default());
    let paths = [
        "/api/../x",
        "/x/%2e%2e/api",
        "/api%2fx",
        "/x/..;/api",
        "/%2E/",
        "/%61pi",
        "//api/x",
        "/;x/api",
        "/api;v=1/x",
    ];
    for path in paths {
        let answer = front.ask(at(path, "web"));
        assert_eq!(answer.status, 400, "{path}");
        assert_eq!(answer.field("connection"), Some("close"));
    }
    assert!(web.seen().is_empty() && api.seen().is_empty());
    assert_eq!(front.stats().ended(Reason::BadRequest), 9);
    // Elsewhere it is nobody's business but the service's.
    for path in paths {
        assert_eq!(front.ask(at(path, "alias.example")).body, "web");
    }
}

#[test]
fn backends_may_be_asked_without_the_prefix() {
    let (web, api) = (Backend::named("web"), Backend::named("api"));
    let front = TestFront::with(&[]);
    let routes = shared(&web, &api, true);
    front.front.publish(&routes, &Settings::default());
    for (path, target) in [
        ("/api", "/"),
        ("/api/", "/"),
        ("/api?x=y", "/?x=y"),
        ("/api/v1?x", "/v1?x"),
        ("/api/api/x", "/api/x"),
        ("/api//x", "//x"),
    ] {
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: web\r\nX-Forwarded-Prefix: /forged\r\n\r\n");
        assert_eq!(front.ask(request).body, "api");
        let seen = api.seen().pop().unwrap();
        let line = seen.head.lines().next().unwrap();
        assert_eq!(line, format!("GET {target} HTTP/1.1"));
        assert_eq!(seen.field("x-forwarded-prefix"), Some("/api"));
    }
    assert_eq!(front.ask(GET).body, "web");
    assert_eq!(web.seen()[0].field("x-forwarded-prefix"), None);
}
