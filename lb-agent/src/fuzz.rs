//! What the fuzz targets do with bytes, and the replay of everything they are kept for.
//!
//! This exists for the tests and for `cargo xtask fuzz` only: the agent has none of it. A new target is a function
//! here, a line in [`TARGETS`], three lines in `fuzz/targets/` and seeds in `fuzz/corpus/`.

mod admin;
mod announce;
mod bundle;
mod configuration;
mod consul;
mod dns;
mod docker;
mod files;
mod front;
mod kernel;
mod registrar;

use std::sync::Arc;

pub use admin::{admin_guard, admin_orders, cli_answers, otlp_headers};
pub use announce::{consul_lock, neighbours};
pub use bundle::secrets;
pub use configuration::configuration;
pub use consul::{
    consul_checks, consul_keys, consul_listing, consul_names, consul_registered, consul_self,
};
pub use dns::{dns_answer, dns_question};
pub use docker::{docker_container, docker_events};
pub use files::{proc_files, resolv_conf, state_files, vips_kept};
pub use front::{certificate, htpasswd};
pub use kernel::{decisions, samples, sock_diag};
pub use registrar::registrar;

use lb_front::carried;

use crate::{
    catalog::{Catalog, Instance, InstanceKey, Problem, Reach, SourceHealth},
    discover::file,
    options,
};

/// Every target, by its name.
#[cfg(test)]
const TARGETS: &[(&str, lb_testkit::fuzz::Target)] = &[
    ("admin_guard", admin_guard),
    ("admin_orders", admin_orders),
    ("certificate", certificate),
    ("cli_answers", cli_answers),
    ("configuration", configuration),
    ("consul_checks", consul_checks),
    ("consul_keys", consul_keys),
    ("consul_listing", consul_listing),
    ("consul_lock", consul_lock),
    ("consul_names", consul_names),
    ("consul_registered", consul_registered),
    ("consul_self", consul_self),
    ("decisions", decisions),
    ("dns_answer", dns_answer),
    ("dns_question", dns_question),
    ("docker_container", docker_container),
    ("docker_events", docker_events),
    ("host_names", host_names),
    ("htpasswd", htpasswd),
    ("neighbours", neighbours),
    ("options", options),
    ("otlp_headers", otlp_headers),
    ("proc_files", proc_files),
    ("registrar", registrar),
    ("resolv_conf", resolv_conf),
    ("samples", samples),
    ("secrets", secrets),
    ("services_file", services_file),
    ("sock_diag", sock_diag),
    ("state_files", state_files),
    ("vips_kept", vips_kept),
];

/// A line is a tag, one that begins with `meta:` a key and a value; an empty line ends a registration.
pub fn options(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let mut instances = vec![instance(0)];
    for line in text.lines() {
        let registered = u64::try_from(instances.len()).unwrap_or(u64::MAX);
        let Some(last) = instances.last_mut() else {
            return;
        };
        match line.strip_prefix("meta:") {
            _ if line.is_empty() => instances.push(instance(registered)),
            Some(meta) => {
                let (key, value) = meta.split_once('=').unwrap_or((meta, ""));
                Arc::make_mut(&mut last.meta).insert(key.to_owned(), value.to_owned());
            }
            None => drop(Arc::make_mut(&mut last.tags).insert(line.to_owned())),
        }
    }
    let instances: Vec<_> = instances.into_iter().map(Arc::new).collect();
    let resolved = options::resolve("fuzz", &instances);
    for problem in &resolved.problems {
        readable(problem);
    }
    for name in resolved.aliases.iter().chain(&resolved.domain_tags) {
        assert!(options::is_dns_name(&options::dotted(name)), "{name:?}");
    }
    // The order in which a source tells of instances means nothing.
    let reversed: Vec<_> = instances.iter().rev().cloned().collect();
    assert_eq!(options::resolve("fuzz", &reversed), resolved);
}

/// A services file.
pub fn services_file(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    match file::parse(text) {
        Ok(Catalog { services, problems }) => {
            services
                .values()
                .flat_map(|it| it.iter())
                .for_each(|it| usable(it));
            problems.iter().for_each(named);
        }
        Err(error) => assert!(!error.mistakes.is_empty(), "refused without a reason"),
    }
}

/// A name as it is asked of the resolver or comes as a Host.
pub fn host_names(data: &[u8]) {
    let Ok(name) = std::str::from_utf8(data) else {
        return;
    };
    let carried = carried::carried(name);
    for before in carried::named(name) {
        assert!(name.starts_with(before) && before.len() < name.len());
        // What is taken off is an address, so the name carries one.
        assert!(carried.is_some(), "{name:?}");
    }
}

fn instance(registered: u64) -> Instance {
    Instance {
        key: InstanceKey::new("fuzz", registered.to_string()),
        address: ([10, 0, 0, 1], 80).into(),
        reach: Reach::default().shared(),
        local: true,
        container: None,
        tags: Default::default(),
        meta: Arc::default(),
        weight: 1,
        health: SourceHealth::Passing,
        checks: Vec::new(),
        registered,
    }
}

fn usable(instance: &Instance) {
    let (ip, port) = (instance.address.ip(), instance.address.port());
    assert!(
        port != 0 && !ip.is_unspecified() && !ip.is_multicast(),
        "{ip} {port}"
    );
}

fn named(problem: &Problem) {
    assert!(!problem.subject.is_empty() && !problem.message.is_empty());
}

/// A problem that does not repeat a foreign text at length.
fn readable(problem: &Problem) {
    named(problem);
    assert!(problem.message.len() < 2_000, "{}", problem.message.len());
}

#[test]
fn every_kept_input_of_every_target_is_harmless() {
    lb_testkit::fuzz::replay("lb_agent", TARGETS).unwrap();
}
