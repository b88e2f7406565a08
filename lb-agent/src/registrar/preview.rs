//! What would be registered for each container, and why not, for people. Pure.

use super::{
    grammar::registrations,
    registration::{Check, CheckKind, Reading, Registration},
    settings::Settings,
};
use crate::{
    admin::text::visible,
    docker::{Containers, State},
};

/// The containers in the order of their names, each with what it would register.
pub fn preview(containers: &Containers, settings: &Settings) -> String {
    let mut text = format!("host {}\n", settings.host);
    let mut by_name: Vec<_> = containers.values().collect();
    by_name.sort_by_key(|it| (&it.name, &it.id));
    for container in by_name {
        let short: String = container.id.chars().take(12).collect();
        let state = match container.state {
            State::Created => ", created: registers nothing before it runs",
            State::Exited(_) => ", ended: registers nothing",
            State::Ending => ", ending: in maintenance",
            State::Paused => ", paused: in maintenance",
            State::Running => "",
        };
        text.push('\n');
        line(&mut text, &format!("{} ({short}{state})", container.name));
        let reading = registrations(container, containers, settings);
        write_reading(&mut text, &reading);
    }
    if containers.is_empty() {
        text.push_str("\nthe engine has no container\n");
    }
    text
}

fn write_reading(text: &mut String, reading: &Reading) {
    for registration in &reading.registrations {
        write_registration(text, registration);
    }
    for reason in &reading.left_out {
        line(text, &format!("  leaves out: {reason}"));
    }
    for problem in &reading.problems {
        line(text, &format!("  problem: {}", problem.message));
    }
}

fn write_registration(text: &mut String, registration: &Registration) {
    let Registration {
        name,
        id,
        address,
        tags,
        weight,
        ..
    } = registration;
    line(text, &format!("  registers {name} at {address} as {id}"));
    if !tags.is_empty() {
        line(text, &format!("    tags: {}", tags.join(", ")));
    }
    if let Some(weight) = weight {
        line(text, &format!("    weight: {weight}"));
    }
    for check in &registration.checks {
        line(text, &format!("    check: {}", describe(check)));
    }
    for (key, value) in &registration.meta {
        line(text, &format!("    meta: {key}={value}"));
    }
}

fn describe(check: &Check) -> String {
    let every = format!("every {} s", check.interval.as_secs_f64());
    match &check.kind {
        CheckKind::Http { url, method } => {
            format!("{} {url} {every}", method.as_deref().unwrap_or("GET"))
        }
        CheckKind::Command(arguments) => format!("runs {} {every}", arguments.join(" ")),
        CheckKind::Tcp(address) => format!("connects to {address} {every}"),
        CheckKind::Grpc { address, .. } => format!("gRPC health at {address} {every}"),
        CheckKind::Ttl(ttl) => format!("reports itself within {} s", ttl.as_secs_f64()),
        CheckKind::Heartbeat(ttl) => {
            format!("the registrar reports within {} s", ttl.as_secs_f64())
        }
        CheckKind::Docker => "its HEALTHCHECK".to_owned(),
        CheckKind::Unusable(reason) => format!("always critical: {reason}"),
    }
}

/// Words of containers are written by others: no line of them ends one of ours.
fn line(text: &mut String, line: &str) {
    text.push_str(&visible(line));
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, sync::Arc};

    use super::*;
    use crate::{
        docker::{Container, Endpoint, NetworkMode, Port, Protocol},
        registrar::Addressing,
    };

    #[test]
    fn a_preview_says_what_is_registered_what_is_not_and_why() {
        let word = |key: &str, text: &str| (format!("SERVICE_{key}"), text.to_owned());
        let protocol = Protocol::Tcp;
        let ipv4 = Some([10, 0, 0, 5].into());
        let web = Container {
            id: "0123456789abcdef".to_owned(),
            name: "web".to_owned(),
            image: "team/web:1".to_owned(),
            created: 1,
            environment: vec![
                word("80_NAME", "www_hello"),
                word("80_TAGS", "a,b\x1b"),
                word("443_IGNORE", "1"),
                word("CHECK_HTTP", "/up"),
                word("WEIGHT", "no"),
            ],
            labels: BTreeMap::new(),
            exposed: [80, 443].map(|number| Port { number, protocol }).into(),
            published: Vec::new(),
            network: NetworkMode::Networks,
            networks: [("net".to_owned(), Endpoint { ipv4, ipv6: None })].into(),
            state: State::Running,
            process: None,
            health: None,
        };
        let settings = Settings {
            addressing: Addressing::Internal,
            ..Settings::new("h")
        };
        let containers = Containers::from([(web.id.clone(), Arc::new(web))]);
        let text = preview(&containers, &settings);
        let expect = "host h\n\nweb (0123456789ab)\n  \
                      registers www_hello at 10.0.0.5:80 as h:web:80\n    \
                      tags: a, b\\u{1b}\n    \
                      check: GET http://10.0.0.5:80/up every 10 s\n";
        assert!(text.starts_with(expect), "{text}");
        assert!(
            text.contains("\n    meta: lb-networks=net=10.0.0.5:80\n"),
            "{text}"
        );
        assert!(
            text.contains("\n  leaves out: port 443/tcp: SERVICE_IGNORE is set\n"),
            "{text}"
        );
        assert!(
            text.contains("\n  problem: SERVICE_WEIGHT=`no` has no effect"),
            "{text}"
        );
        let none = preview(&Containers::new(), &settings);
        assert_eq!(none, "host h\n\nthe engine has no container\n");
    }
}
