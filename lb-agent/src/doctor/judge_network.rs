//! What the facts of the network namespace mean. Pure.

use std::net::SocketAddr;

use ipnet::IpNet;

use super::{
    Finding,
    facts::{Listener, Network},
};

/// The findings of the network namespace.
pub(super) fn network(network: &Network) -> Vec<Finding> {
    let mut found: Vec<_> = network.taken.iter().map(taken).collect();
    if found.is_empty() {
        found.push(Finding::ok("ports", "nobody else has those of the agent"));
    }
    let before = found.len();
    found.extend(network.in_the_way.iter().map(|(pool, what)| {
        let flag = match pool {
            IpNet::V4(_) => "pool",
            IpNet::V6(_) => "pool6",
        };
        Finding::error(
            "pool",
            format!("{pool} is in use by somebody else: {what}"),
            format!("choose another one with --{flag}, or remove that"),
        )
    }));
    if found.len() == before {
        found.push(Finding::ok("pool", "nobody else uses its addresses"));
    }
    found
}

fn taken((listener, owner): &(Listener, Option<String>)) -> Finding {
    let Listener {
        protocol, ip, port, ..
    } = listener;
    let place = SocketAddr::new(*ip, *port);
    let who = owner.as_deref().unwrap_or("somebody who cannot be seen");
    if who.starts_with("lb-agent ") {
        let found = format!(
            "{who} has {protocol} {place}: a front that the next agent takes over, or another agent"
        );
        return Finding::unknown("ports", found);
    }
    let remedy = match who {
        who if who.starts_with("docker-proxy") => {
            "publish that port elsewhere, or let the front listen on another address with --front"
        }
        _ if *port == 53 => "end it, or let the resolver listen elsewhere with --dns",
        _ => "end it, or choose another port with --front or --admin",
    };
    Finding::error(
        "ports",
        format!("{who} has {protocol} {place}, which the agent is to have"),
        remedy,
    )
}
