//! What the answers of Consul, the engine, the resolver and the agent mean. Pure.

use std::net::SocketAddr;

use super::{
    Finding,
    facts::{Agent, Consul, Dns, Facts},
};
use crate::{admin::report::Mark, config::Config};

/// The findings of those who were asked.
pub(super) fn services(facts: &Facts, config: Option<&Config>) -> Vec<Finding> {
    let mut found = agent(&facts.agent);
    let Some(config) = config else {
        return found;
    };
    if let Some(consul) = &facts.consul {
        found.extend(match consul {
            Ok(look) => self::consul(look),
            Err(why) => vec![Finding::error(
                "consul",
                why.clone(),
                "start Consul's agent on this host, or correct --consul",
            )],
        });
    }
    if let Some(docker) = &facts.docker {
        found.push(match docker {
            Ok(ahead) => clock("docker", "answers all that it is asked", *ahead),
            Err(why) => Finding::error(
                "docker",
                why.clone(),
                "let this user reach it, and a filter before it let pass GET of /version, /info, /containers, /networks and /events; \
                 or --docker off",
            ),
        });
    }
    found.extend(dns(&facts.dns, config));
    if let Some(failed) = &facts.probes {
        found.extend(failed.iter().map(|it| {
            Finding::error(
                "probe",
                it.clone(),
                "lb-agent explain host SERVICE says why; only processes below --cgroup reach VIPs",
            )
        }));
        if failed.is_empty() {
            found.push(Finding::ok(
                "probe",
                "every VIP with ports of its own was reached",
            ));
        }
    }
    found
}

fn agent(agent: &Agent) -> Vec<Finding> {
    let (version, components, problems) = match agent {
        Agent::Away => return vec![Finding::unknown("agent", "none answers at its socket")],
        Agent::Mute(why) => {
            let remedy = "see its log; `lb-agent status` asks it with more patience";
            return vec![Finding::error("agent", why.clone(), remedy)];
        }
        Agent::Answers {
            version,
            components,
            problems,
        } => (version, components, *problems),
    };
    let mut found = Vec::new();
    let own = env!("CARGO_PKG_VERSION");
    if version != own {
        found.push(Finding::warning(
            "version",
            format!("the agent that runs is {version}, this command {own}"),
            "restart the agent: `systemctl restart lb-agent` costs no flow",
        ));
    }
    for it in components.iter().filter(|it| it.mark != Mark::Ok) {
        found.push(Finding {
            check: "agent",
            mark: it.mark,
            finding: format!("{}: {}", it.name, it.detail),
            remedy: Some("lb-agent status".to_owned()),
        });
    }
    if problems > 0 {
        let are = crate::admin::text::count(problems, "problem");
        found.push(Finding::warning(
            "problems",
            format!("the agent tells of {are} with what was registered or configured"),
            "lb-agent status names each with what to do",
        ));
    }
    if found.is_empty() {
        found.push(Finding::ok(
            "agent",
            format!("{version}, and all is well with it"),
        ));
    }
    found
}

fn consul(look: &Consul) -> Vec<Finding> {
    let mut found = Vec::new();
    if !look.has_leader {
        found.push(Finding::error(
            "consul",
            "its servers have no leader: nothing new is learnt, and no VIP is recorded",
            "bring back a majority of its servers: consul operator raft list-peers",
        ));
    }
    if !look.knows_token {
        found.push(Finding::error(
            "consul token",
            "Consul does not know the token",
            "give a valid one in CONSUL_HTTP_TOKEN or [sources.consul] token_file",
        ));
    } else if !look.lacks.is_empty() {
        let hides_services = look.lacks.iter().any(|it| it.starts_with("service"));
        let mark = if hides_services {
            Mark::Error
        } else {
            Mark::Warning
        };
        found.push(Finding {
            check: "consul token",
            mark,
            finding: format!("it lacks: {}", look.lacks.join(", ")),
            remedy: Some("add these lines to its policy (docs/consul.md)".to_owned()),
        });
    }
    let clock = clock("consul", "answers", look.ahead);
    if found.is_empty() || clock.mark != Mark::Ok {
        found.push(clock);
    }
    found
}

fn clock(check: &'static str, well: &str, ahead: Option<i64>) -> Finding {
    match ahead {
        Some(ahead) if ahead.abs() > SKEW => Finding::warning(
            check,
            format!(
                "its clock is {} s {} ours: times are wrong, and certificates may be",
                ahead.abs(),
                if ahead > 0 { "ahead of" } else { "behind" }
            ),
            "let both hosts follow NTP: timedatectl set-ntp true",
        ),
        _ => Finding::ok(check, well),
    }
}

/// Seconds that answers may take, and some more.
const SKEW: i64 = 5;

fn dns(dns: &Dns, config: &Config) -> Vec<Finding> {
    if !config.dns.enabled {
        return Vec::new();
    }
    let mut found = Vec::new();
    match &dns.answer {
        Some(Some(why)) => found.push(Finding::error(
            "resolver",
            format!("it does not answer: {why}"),
            "see `lb-agent status` and the log; a firewall may drop port 53 on this host",
        )),
        Some(None) => found.push(Finding::ok("resolver", "answers")),
        None => {}
    }
    let is_loop = |it: &&SocketAddr| config.dns.listen.contains(it);
    match &dns.upstreams {
        Some(upstreams) if upstreams.iter().any(|it| is_loop(&it)) => found.push(Finding::error(
            "upstreams",
            "the resolver is to ask itself",
            "name the servers of the network in [dns] upstreams",
        )),
        Some(upstreams) if upstreams.is_empty() && config.dns.upstreams.is_none() => {
            found.push(Finding::warning(
                "upstreams",
                "/etc/resolv.conf names no other server, so names of others are not found",
                "name some in [dns] upstreams",
            ));
        }
        Some(upstreams) => {
            let all: Vec<_> = upstreams.iter().map(ToString::to_string).collect();
            let all = if all.is_empty() {
                "none, as configured".to_owned()
            } else {
                all.join(", ")
            };
            found.push(Finding::ok("upstreams", all));
        }
        None => {}
    }
    let own = config.dns.listen.first().map(SocketAddr::ip);
    match &dns.host {
        Some(Ok(Some(asked))) if Some(*asked) != own => found.push(Finding::warning(
            "host names",
            format!("the host's processes ask {asked}, where this configuration has no resolver"),
            "lb-agent resolver install",
        )),
        Some(Ok(Some(asked))) => {
            found.push(Finding::ok(
                "host names",
                format!("the host's processes ask {asked}"),
            ));
        }
        Some(Ok(None)) if config.dns.host => found.push(Finding::warning(
            "host names",
            "[dns] host is set, but the host's processes do not ask the agent",
            "lb-agent resolver install, which also says why it cannot",
        )),
        Some(Ok(None)) => found.push(Finding::ok(
            "host names",
            "the host's own processes do not ask the agent (`lb-agent resolver install`)",
        )),
        Some(Err(why)) => found.push(Finding::unknown("host names", why.clone())),
        None => {}
    }
    found
}
