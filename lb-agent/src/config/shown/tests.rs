use std::collections::BTreeSet;

use crate::config::{RawConfig, Setting, resolve::tests::World};

/// Everything at once: each table of the file is there.
fn everything() -> World {
    World::new()
        .toml(
            r#"
state_dir = "/state"
[vip]
quarantine = "90s"
[sources.consul]
address = "https://c:8501"
[sources.docker]
enabled = true
socket = "/run/d.sock"
[front]
sticky_key_file = "/sticky"
[front.auth]
people = "/people"
[front.pages]
no_route = "/no-route.html"
[front.tls]
folder = "/certificates"
[front.tls.acme]
directory = "https://ca.example/directory"
names = ["www.example.org"]
accept_terms = true
[front.limits]
head = "10s"
[metrics.otlp]
endpoint = "https://collector.example"
headers_file = "/headers"
[packet]
cards = ["eth0"]
[registrar]
enabled = true
"#,
        )
        .variable("CONSUL_HTTP_TOKEN", MARKER)
        .variable("CONSUL_HTTP_AUTH", "user:s3cret-marker")
        .variable("LB_REGISTRAR_DRAIN", "2m")
}

const MARKER: &str = "s3cret-marker";

#[test]
fn every_key_has_its_value_and_its_origin() {
    let settings = everything()
        .flag("--pool=10.9.0.0/16")
        .settings(&["--pool"]);
    let of = |key: &str| {
        let setting: &Setting = settings.iter().find(|it| it.key == key).unwrap();
        (setting.value.to_string(), setting.origin.clone())
    };
    let expect = |value: &str, origin: &str| (value.to_owned(), origin.to_owned());
    assert_eq!(of("vip.pool"), expect("\"10.9.0.0/16\"", "--pool"));
    assert_eq!(
        of("sources.file.path"),
        expect("\"/s.toml\"", "LB_SERVICES")
    );
    assert_eq!(of("state_dir"), expect("\"/state\"", "/etc/lb/lb.toml:2"));
    assert_eq!(of("vip.quarantine"), expect("\"90s\"", "/etc/lb/lb.toml:4"));
    assert_eq!(
        of("registrar.drain"),
        expect("\"2m\"", "LB_REGISTRAR_DRAIN")
    );
    assert_eq!(of("limits.services"), expect("4096", "default"));
    assert_eq!(of("front.drain"), expect("\"30s\"", "default"));
    assert_eq!(of("front.grace"), expect("\"0\"", "default"));
    assert_eq!(of("front.limits.body_idle"), expect("null", "default"));
    assert_eq!(
        of("sources.consul.token"),
        expect("\"***\"", "CONSUL_HTTP_TOKEN")
    );
    assert_eq!(
        of("sources.consul.auth"),
        expect("\"***\"", "CONSUL_HTTP_AUTH")
    );
}

#[test]
fn no_secret_is_shown() {
    let shown = serde_json::to_string(&everything().settings(&[])).unwrap();
    assert!(!shown.contains(MARKER), "{shown}");
    assert_eq!(shown.matches("***").count(), 2);
}

#[test]
fn no_key_is_forgotten() {
    let (config, raw) = everything().load_with_origins().unwrap();
    let rows = config.rows(&raw);
    let shown: BTreeSet<_> = rows.iter().flat_map(|it| it.fields).copied().collect();
    let all: BTreeSet<_> = RawConfig::default().origins().into_keys().collect();
    // Tables, whose keys are shown.
    let tables = ["consul", "tls", "acme", "otlp", "packet"];
    let all: BTreeSet<_> = all.into_iter().filter(|it| !tables.contains(it)).collect();
    assert_eq!(shown, all);
    let keys: BTreeSet<_> = rows.iter().map(|it| it.key).collect();
    assert_eq!(keys.len(), rows.len(), "a key is there twice");
}

#[test]
fn what_is_not_in_force_is_not_shown() {
    let settings = World::new().settings(&[]);
    let begins = |table: &str| {
        settings
            .iter()
            .filter(|it| it.key.starts_with(table))
            .count()
    };
    assert_eq!(begins("sources.consul"), 0);
    assert_eq!(begins("front.tls"), 0);
    assert_eq!(begins("metrics.otlp"), 0);
    assert_eq!(begins("registrar"), 1);
    assert_eq!(begins("sources.docker"), 2);
}
