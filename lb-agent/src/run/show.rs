//! What the stages show on the page, in `status` and in the metrics.

mod announce;
mod changes;
mod figures;
mod lines;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use lb_agent::{
    routes::{RouteConfig, Routes},
    snapshot::Snapshot,
};

pub(super) use announce::{announce_figures, announce_line};
pub(super) use changes::{Changes, follow};
pub(super) use figures::{
    certificates_figures, clients_figures, docker_figures, front_figures, reconcile_figures,
    removal_figures, routes_figures,
};
pub(super) use lines::{
    certificates_line, clients_line, dns_line, docker_line, front_line, packet_line, registrar_line,
};

pub(super) fn host_names(
    snapshot: Option<&Snapshot>,
    config: &RouteConfig,
) -> BTreeMap<String, Vec<String>> {
    let mut names: BTreeMap<String, Vec<String>> = BTreeMap::new();
    if let Some(snapshot) = snapshot {
        let (routes, _) = Routes::new(snapshot, config);
        for (host, label) in routes.hosts() {
            names.entry(label.to_owned()).or_default().push(host);
        }
    }
    names
}
