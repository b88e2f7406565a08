//! What the tests of the grammar share: a container, and ways to read it.

mod addresses;
mod attributes;
mod checks;
mod limits;
mod names;
mod seen;

use std::{collections::BTreeMap, net::Ipv6Addr, sync::Arc};

use proptest::prelude::*;

use super::*;
use crate::{
    docker::{Endpoint, Health, NetworkMode, Published, State},
    registrar::{Check, CheckKind, CheckStatus},
};

const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

/// A container `box` of the image `team/web:1.2` on the network `bridge`, with these exposed ports and words.
fn container(ports: &[u16], words: &[(&str, &str)]) -> Container {
    let endpoint = Endpoint {
        ipv4: Some([172, 17, 0, 5].into()),
        ipv6: None,
    };
    Container {
        id: ID.to_owned(),
        name: "box".to_owned(),
        image: "registry:5000/team/web:1.2".to_owned(),
        created: 1,
        environment: words
            .iter()
            .map(|(key, text)| ((*key).to_owned(), (*text).to_owned()))
            .collect(),
        labels: BTreeMap::new(),
        exposed: ports.iter().map(|&number| tcp(number)).collect(),
        published: Vec::new(),
        network: NetworkMode::Networks,
        networks: BTreeMap::from([("bridge".to_owned(), endpoint)]),
        state: State::Running,
        process: None,
        health: None,
        runtime: String::new(),
    }
}

fn tcp(number: u16) -> Port {
    let protocol = Protocol::Tcp;
    Port { number, protocol }
}

fn udp(number: u16) -> Port {
    let protocol = Protocol::Udp;
    Port { number, protocol }
}

fn internal() -> Settings {
    Settings {
        addressing: Addressing::Internal,
        host_address: Some([192, 0, 2, 1].into()),
        ..Settings::new("host1")
    }
}

fn published() -> Settings {
    Settings {
        addressing: Addressing::Published,
        ..internal()
    }
}

fn read(container: &Container, settings: &Settings) -> Reading {
    registrations(container, &BTreeMap::new(), settings)
}

/// The only registration of `container` with internal addresses, without a complaint.
#[track_caller]
fn only(container: &Container) -> Registration {
    let mut reading = read(container, &internal());
    assert_eq!(reading.problems, []);
    assert_eq!(reading.registrations.len(), 1, "{reading:?}");
    reading.registrations.remove(0)
}

#[track_caller]
fn names(container: &Container, settings: &Settings, expect: &[&str]) {
    let reading = read(container, settings);
    let names = reading.registrations.iter().map(|it| it.name.as_str());
    assert_eq!(names.collect::<Vec<_>>(), expect, "{reading:?}");
}

/// The only problem of `container` must hold `part`.
#[track_caller]
fn problem(container: &Container, settings: &Settings, part: &str) {
    let reading = read(container, settings);
    assert_eq!(reading.problems.len(), 1, "{:?}", reading.problems);
    assert_eq!(reading.problems[0].subject, "container box");
    let message = &reading.problems[0].message;
    assert!(message.contains(part), "{message}");
}

/// The attributes, without our marks.
fn attributes(registration: &Registration) -> Vec<(&str, &str)> {
    let meta = registration.meta.iter();
    meta.filter(|(key, _)| !key.starts_with("lb-"))
        .map(|(key, text)| (&**key, &**text))
        .collect()
}
