//! The lines of `status`.

use std::{net::UdpSocket, time::SystemTime};

use lb_agent::{
    admin::{self, Component, Mark},
    catalog::Problem,
    clients::Clients,
    docker, front, packet, registrar,
};
use lb_front::FrontStats;
use tokio::sync::watch;

pub(crate) fn front_line(stats: Option<&FrontStats>) -> Component {
    match stats {
        None => Component::new("front", Mark::Warning, "has not reported yet"),
        Some(stats) => {
            let served: u64 = stats.terminations.iter().map(|it| it.count).sum();
            let FrontStats {
                pid, workers, open, ..
            } = stats;
            let mut detail = format!(
                "process {pid}, {workers} workers, {open} connections open, {served} requests"
            );
            let failed = stats.terminations.iter().filter(|it| it.is_error());
            let failed: u64 = failed.map(|it| it.count).sum();
            if let Some(percent) = admin::text::percent(failed, served) {
                detail += &format!(", 5xx {percent} %");
            }
            let queued: u64 = stats.services.iter().map(|service| service.queued).sum();
            if queued > 0 {
                detail += &format!(", {queued} waiting for a place");
            }
            let ejected = stats.services.iter().flat_map(|service| {
                let name = &service.service;
                let ejected = service.ejected.iter();
                ejected.map(move |it| format!("{} of {name} ({})", it.address, it.why))
            });
            let ejected: Vec<_> = ejected.collect();
            let mark = match ejected.is_empty() {
                true => Mark::Ok,
                false => Mark::Warning,
            };
            if let Some(first) = ejected.first() {
                detail += &format!("; ejected: {first}");
            }
            if ejected.len() > 1 {
                detail += &format!(" and {} more", ejected.len() - 1);
            }
            Component::new("front", mark, detail)
        }
    }
}

pub(crate) fn certificates_line(in_use: &[front::InUse]) -> Component {
    let Some(first) = in_use.iter().min_by_key(|it| it.until) else {
        return Component::new("tls", Mark::Error, "no certificate: nobody can connect");
    };
    let left = first
        .until
        .duration_since(SystemTime::now())
        .unwrap_or_default();
    let mark = match left.is_zero() {
        true => Mark::Error,
        false => Mark::Ok,
    };
    let many = admin::text::count(in_use.len(), "certificate");
    let detail = match left.is_zero() {
        true => format!("{many}; that of {} has expired", first.name),
        false => format!(
            "{many}; that of {} expires first, in {}",
            first.name,
            admin::text::duration(left)
        ),
    };
    Component::new("tls", mark, detail)
}

pub(crate) fn registrar_line(status: watch::Receiver<registrar::Status>) -> admin::ComponentLine {
    Box::new(move || {
        let status = status.borrow();
        let host = status.host.as_deref().unwrap_or("this host");
        let services = status.services;
        let left_out = match status.left_out {
            0 => String::new(),
            left_out => format!(
                "; {} without a registered port: `lb-agent register --dry-run` says why",
                admin::text::count(left_out, "container")
            ),
        };
        let (mark, detail) = match (&status.error, status.synced) {
            (Some(error), _) => (Mark::Error, error.clone()),
            (None, None) => (Mark::Warning, "waits for the Docker Engine".to_owned()),
            (None, Some(_)) if !status.problems.is_empty() => (
                Mark::Warning,
                format!(
                    "services of {host}: {services}, problems: {}{left_out}",
                    status.problems.len()
                ),
            ),
            (None, Some(_)) => (
                Mark::Ok,
                format!("services of {host} in Consul: {services}{left_out}"),
            ),
        };
        Component::new("registrar", mark, detail)
    })
}

pub(crate) fn dns_line(sockets: &[UdpSocket]) -> admin::ComponentLine {
    let addresses: Vec<_> = sockets
        .iter()
        .filter_map(|socket| socket.local_addr().ok())
        .map(|address| address.to_string())
        .collect();
    let detail = format!("listens on {}", addresses.join(", "));
    Box::new(move || Component::new("dns", Mark::Ok, detail.clone()))
}

pub(crate) fn docker_line(engine: &docker::Engine) -> Component {
    let (mark, detail) = match (&engine.error, engine.containers.as_deref()) {
        (Some(error), _) => (Mark::Warning, error.clone()),
        (None, None) => (Mark::Warning, "the engine has not answered yet".to_owned()),
        (None, Some(containers)) => (Mark::Ok, admin::text::count(containers.len(), "container")),
    };
    Component::new("docker", mark, detail)
}

pub(crate) fn clients_line(clients: Option<&Clients>, problems: &[Problem]) -> Component {
    let (mark, detail) = match (clients, problems) {
        (None, _) => (Mark::Warning, "waits for the Docker Engine".to_owned()),
        (Some(clients), problems) => {
            let known = match clients.by_cookie.len() {
                1 => "1 container is known".to_owned(),
                count => format!("{count} containers are known"),
            };
            match problems.len() {
                0 => (Mark::Ok, known),
                count => (Mark::Warning, format!("{known}, problems: {count}")),
            }
        }
    };
    Component::new("clients", mark, detail)
}

pub(crate) fn packet_line(seen: &packet::Seen) -> Component {
    const NAME: &str = "packet path";
    if let Some(error) = &seen.error {
        return Component::new(NAME, Mark::Error, error.clone());
    }
    let mut parts: Vec<String> = Vec::new();
    let mut mark = Mark::Ok;
    for device in &seen.devices {
        if let Some(error) = &device.error {
            mark = mark.min(Mark::Warning);
            parts.push(format!("{} {}: {error}", device.role, device.name));
        }
        let loose = device.hooks.iter().filter(|it| it.in_place == Some(false));
        let loose: Vec<_> = loose.map(|it| it.program.as_str()).collect();
        if !loose.is_empty() {
            mark = Mark::Error;
            parts.push(format!(
                "{} is not attached to {}",
                loose.join(", "),
                device.name
            ));
        }
    }
    let served = seen.devices.iter().filter(|it| !it.hooks.is_empty());
    let (cards, clients): (Vec<_>, Vec<_>) = served.partition(|it| it.role == "card");
    parts.extend(cards.into_iter().map(|it| {
        let fallback = it.fallback.as_deref();
        let fallback = fallback.map(|why| format!(" ({why})"));
        format!(
            "card {}: {}{}",
            it.name,
            ways(it),
            fallback.unwrap_or_default()
        )
    }));
    if let Some(first) = clients.first() {
        let many = admin::text::count(clients.len(), "device");
        parts.push(format!("{many} of clients: {}", ways(first)));
    }
    if parts.is_empty() {
        parts.push("none of its devices is there".to_owned());
    }
    let elsewhere: u64 = seen.strays.values().map(|it| it.elsewhere).sum();
    if elsewhere > 0 {
        parts.push(format!(
            "open flows where the table leads no more: {elsewhere}"
        ));
    }
    let percent = |(entries, room): (u64, u64)| entries.saturating_mul(100) / room.max(1);
    let fullest = seen.maps.iter().map(|(map, fill)| (percent(*fill), map));
    if let Some((percent, map)) = fullest.max() {
        parts.push(format!("fullest map {map} at {percent} %"));
        if percent >= FULL_PERCENT {
            mark = mark.min(Mark::Warning);
        }
    }
    Component::new(NAME, mark, parts.join("; "))
}

/// How the programs of a device are attached, each way once.
fn ways(device: &packet::Device) -> String {
    let mut ways: Vec<_> = device.hooks.iter().map(|it| it.how.as_str()).collect();
    ways.sort_unstable();
    ways.dedup();
    ways.join(", ")
}

/// From here on a map wants attention.
const FULL_PERCENT: u64 = 90;
