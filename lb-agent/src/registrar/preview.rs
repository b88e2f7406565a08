//! What would be registered for each container, and why not: for people, and for programs. Pure.

use std::{collections::BTreeMap, sync::Arc};

use serde::Serialize;

use super::{
    grammar::registrations,
    registration::{Check, CheckKind, Reading, Registration},
    settings::Settings,
    wish::reports,
};
use crate::{
    admin::text::{visible, visible_json},
    catalog::Problem,
    discover::consul::agent::{Body, Report, body},
    docker::{Container, Containers, State},
};

/// The containers in the order of their names, each with what it would register.
pub fn preview(containers: &Containers, settings: &Settings) -> String {
    let mut text = format!("host {}\n", settings.host);
    for container in by_name(containers) {
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

fn by_name(containers: &Containers) -> Vec<&Arc<Container>> {
    let mut by_name: Vec<_> = containers.values().collect();
    by_name.sort_by_key(|it| (&it.name, &it.id));
    by_name
}

/// The same as JSON, with the `problems` that are no container's.
///
/// # Errors
/// Never: all of it is JSON.
pub fn preview_json(
    containers: &Containers,
    settings: &Settings,
    problems: &[Problem],
) -> Result<String, serde_json::Error> {
    let read: Vec<Read> = by_name(containers)
        .into_iter()
        .map(|container| Read::new(container, registrations(container, containers, settings)))
        .collect();
    let whole = Whole {
        host: &settings.host,
        containers: read.iter().map(Read::shown).collect(),
        problems,
    };
    let mut text = serde_json::to_string_pretty(&whole)?;
    text.push('\n');
    Ok(visible_json(&text).into_owned())
}

#[derive(Serialize)]
struct Whole<'p> {
    host: &'p str,
    containers: Vec<Shown<'p>>,
    problems: &'p [Problem],
}

#[derive(Serialize)]
struct Shown<'p> {
    name: &'p str,
    id: &'p str,
    state: &'static str,
    /// Word for word what Consul is sent while the container runs.
    registers: Vec<Body<'p>>,
    left_out: &'p [String],
    problems: &'p [Problem],
}

/// What [`Shown`] borrows from.
struct Read<'c> {
    container: &'c Container,
    reading: Reading,
    reports: Vec<BTreeMap<String, Report>>,
}

impl<'c> Read<'c> {
    fn new(container: &'c Container, reading: Reading) -> Self {
        let registrations = reading.registrations.iter();
        Self {
            reports: registrations.map(|it| reports(it, container)).collect(),
            container,
            reading,
        }
    }

    fn shown(&self) -> Shown<'_> {
        let registrations = self.reading.registrations.iter().zip(&self.reports);
        Shown {
            name: &self.container.name,
            id: &self.container.id,
            state: match self.container.state {
                State::Created => "created",
                State::Running => "running",
                State::Ending => "ending",
                State::Paused => "paused",
                State::Exited(_) => "ended",
            },
            registers: registrations
                .map(|(it, reports)| body(it, reports))
                .collect(),
            left_out: &self.reading.left_out,
            problems: &self.reading.problems,
        }
    }
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
        tagged,
        tags,
        weight,
        ..
    } = registration;
    line(text, &format!("  registers {name} at {address} as {id}"));
    for (tag, address) in tagged {
        line(text, &format!("    at {address} as {tag}"));
    }
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
        CheckKind::Alias(id) => format!("as the service {id}"),
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
        docker::{Container, Endpoint, NetworkMode, Port, Protocol, Published},
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
            published: vec![Published {
                port: Port {
                    number: 80,
                    protocol,
                },
                host_address: [0, 0, 0, 0].into(),
                host_port: 8080,
            }],
            network: NetworkMode::Networks,
            networks: [("net".to_owned(), Endpoint { ipv4, ipv6: None })].into(),
            state: State::Running,
            process: None,
            health: None,
            runtime: String::new(),
        };
        let settings = Settings {
            addressing: Addressing::Internal,
            tagged: [("wan".to_owned(), [192, 0, 2, 9].into())].into(),
            ..Settings::new("h")
        };
        let containers = Containers::from([(web.id.clone(), Arc::new(web))]);
        let text = preview(&containers, &settings);
        let expect = "host h\n\nweb (0123456789ab)\n  \
                      registers www_hello at 10.0.0.5:80 as h:web:80\n    \
                      at 192.0.2.9:8080 as wan\n    \
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

        let doubt = [Problem::new("registrar", "it is odd")];
        let text = preview_json(&containers, &settings, &doubt).unwrap();
        assert!(!text.contains('\u{1b}'), "{text}");
        let json: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(json["host"], "h");
        assert_eq!(json["problems"][0]["message"], "it is odd");
        let web = &json["containers"][0];
        assert_eq!(
            (&web["name"], &web["state"]),
            (&"web".into(), &"running".into())
        );
        assert_eq!(web["left_out"][0], "port 443/tcp: SERVICE_IGNORE is set");
        assert_eq!(web["problems"][0]["subject"], "container web");
        let registered = &web["registers"][0];
        assert_eq!(registered["ID"], "h:web:80");
        assert_eq!(registered["Name"], "www_hello");
        assert_eq!(registered["Tags"], serde_json::json!(["a", "b\u{1b}"]));
        assert_eq!(registered["Meta"]["lb-networks"], "net=10.0.0.5:80");
        assert_eq!(registered["TaggedAddresses"]["wan"]["Address"], "192.0.2.9");
        assert_eq!(registered["Checks"][0]["HTTP"], "http://10.0.0.5:80/up");
        let none = preview_json(&Containers::new(), &settings, &[]).unwrap();
        let none: serde_json::Value = serde_json::from_str(&none).unwrap();
        let empty = serde_json::json!({"host": "h", "containers": [], "problems": []});
        assert_eq!(none, empty);
    }
}
