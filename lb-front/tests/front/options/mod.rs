//! The options of the front, each as a client and a backend see it.

mod auth;
mod canary;
mod compress;
mod cors;
mod headers;
mod idle;
mod maintenance;
mod path;
mod rate;
mod redirect;
mod retries;
mod sticky;
mod timeout;

use std::sync::Arc;

use lb_front::{Settings, routes::RoutesChange, rules::Rules};

use crate::kit::{Backend, TestFront, routes};

/// A front whose service `web`, on `backend`, has these rules.
fn front(rules: Rules, backend: &Backend) -> TestFront {
    let front = TestFront::with(&[backend]);
    front
        .front
        .publish(&ruled(rules, backend), &Settings::default());
    front
}

/// The routes of the kit, with rules for `web`, which is first.
fn ruled(rules: Rules, backend: &Backend) -> RoutesChange {
    let mut routes = routes(&[backend.address]);
    let web = routes.services[0].1.as_mut().unwrap();
    Arc::make_mut(web).rules = Some(Arc::new(rules));
    routes
}

/// The service alone, as it is sent when only its rules change.
fn changed(rules: Rules, backend: &Backend) -> RoutesChange {
    let mut change = ruled(rules, backend);
    change.hosts.clear();
    change.host_addresses = None;
    change
}
