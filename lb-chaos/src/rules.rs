//! What must hold, and whether what a client saw agrees with it. Pure.

use std::{collections::BTreeMap, fmt, net::Ipv4Addr};

use crate::{
    event::{Outcome, Seen, Try},
    history::History,
    moment::Moment,
};

/// What must hold whatever fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Invariant {
    /// Who answers is a backend of the service that was asked for.
    RightService,
    /// No connect and no request reaches a backend that was taken out, after the deadline.
    RemovedIsNotReached,
    /// A new flow is served as long as one backend is usable.
    ConnectIsServed,
    /// A request through the front is served as long as one backend is usable.
    RequestIsServed,
    /// No established flow ends while its backend lives and is registered.
    FlowLivesOn,
    /// A service has the same VIP on every host, and keeps it.
    VipsAreEqual,
    /// After a fault has ended every host knows all there is.
    HostRecovers,
    /// No process of ours panics.
    NobodyPanics,
}

impl fmt::Display for Invariant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::RightService => "a backend of the service that was asked for answers",
            Self::RemovedIsNotReached => "no flow reaches a removed backend after the deadline",
            Self::ConnectIsServed => "no connect fails while one backend is usable",
            Self::RequestIsServed => "no request of the front fails while one backend is usable",
            Self::FlowLivesOn => "no established flow is broken by the control plane",
            Self::VipsAreEqual => "VIPs are equal on all hosts, and stay",
            Self::HostRecovers => "a host recovers when the fault is over",
            Self::NobodyPanics => "no process panics",
        })
    }
}

/// Something that must not be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// What does not hold.
    pub invariant: Invariant,
    /// On which host, if it is about one.
    pub host: Option<usize>,
    /// When it was seen.
    pub at: Moment,
    /// What was seen.
    pub what: String,
}

/// Judges what a client on `host` saw.
pub fn judge(history: &History, host: usize, seen: &Seen) -> Option<Violation> {
    let violation = |invariant, at, what: String| Violation {
        invariant,
        host: Some(host),
        at,
        what,
    };
    if let Some((service, backend, at)) = answered(seen)
        && history.service_of(backend) != Some(service)
    {
        let whose = match history.service_of(backend) {
            Some(other) => format!("of {other}"),
            None => "whom nobody knows".to_owned(),
        };
        let what = format!(
            "a {} for {service} reached {backend:?}, {whose}",
            kind(seen)
        );
        return Some(violation(Invariant::RightService, at, what));
    }
    match seen {
        Seen::Echo => None,
        Seen::Connect(it) | Seen::Request(it) => match &it.outcome {
            Outcome::Reached(backend) => {
                let removed = reached_a_removed(history, host, it, backend)?;
                let kind = kind(seen);
                let late = it.begun.since(removed).as_secs_f64();
                let what = format!(
                    "a {kind} for {} reached {backend}, {late:.3} s after it was removed",
                    it.service
                );
                Some(violation(Invariant::RemovedIsNotReached, it.begun, what))
            }
            Outcome::Failed(why) => {
                let (invariant, excused) = match seen {
                    Seen::Request(_) => (
                        Invariant::RequestIsServed,
                        request_may_fail(history, host, it),
                    ),
                    _ => (
                        Invariant::ConnectIsServed,
                        connect_may_fail(history, host, it),
                    ),
                };
                let took = it.ended.since(it.begun).as_secs_f64();
                let what = format!(
                    "a {} for {} failed after {took:.3} s: {why}",
                    kind(seen),
                    it.service
                );
                (!excused).then(|| violation(invariant, it.begun, what))
            }
        },
        Seen::Broken {
            service,
            backend,
            opened,
            ended,
            why,
        } => {
            let life = history.backends.get(backend)?;
            let severed = history.hosts[host].severed.get(backend);
            let excused = life.down.overlap(*opened, *ended)
                || life.away.overlap(*opened, *ended)
                || severed.is_some_and(|spans| spans.overlap(*opened, *ended));
            let age = ended.since(*opened).as_secs_f64();
            let what = format!("a flow of {service} to {backend} ended after {age:.3} s: {why}");
            (!excused).then(|| violation(Invariant::FlowLivesOn, *ended, what))
        }
    }
}

/// Which service was asked for and who answered, if anybody did.
fn answered(seen: &Seen) -> Option<(&str, &str, Moment)> {
    match seen {
        Seen::Echo => None,
        Seen::Connect(it) | Seen::Request(it) => match &it.outcome {
            Outcome::Reached(backend) => Some((&it.service, backend, it.begun)),
            Outcome::Failed(_) => None,
        },
        Seen::Broken {
            service,
            backend,
            opened,
            ..
        } => Some((service, backend, *opened)),
    }
}

fn kind(seen: &Seen) -> &'static str {
    match seen {
        Seen::Request(_) => "request",
        Seen::Broken { .. } | Seen::Echo => "flow",
        _ => "connect",
    }
}

/// When the backend that answered had been removed, if it was all the time and the host had to know.
fn reached_a_removed(history: &History, host: usize, it: &Try, backend: &str) -> Option<Moment> {
    let life = history.backends.get(backend)?;
    let mut away = life.away.iter();
    let span = away.find(|span| span.covers(it.begun, it.ended))?;
    let due = history.due(host, span.from)?;
    (it.begun > due).then_some(span.from)
}

/// Whether the failure may be that of a backend that ended, or was out of reach, and that this host need not have heeded.
fn unheeded(history: &History, host: usize, it: &Try) -> bool {
    let of_service = |id: &&String| {
        let life = history.backends.get(*id);
        life.is_some_and(|life| life.service == it.service)
    };
    let lost = |span: &crate::history::Span| {
        let due = history.due(host, span.from);
        span.overlaps(it.begun, it.ended) && due.is_none_or(|due| it.begun <= due)
    };
    let severed = history.hosts[host].severed.iter();
    let mut severed = severed.filter(|(id, _)| of_service(id));
    let mut lives = history.backends.values();
    lives.any(|life| life.service == it.service && life.down.iter().any(lost))
        || severed.any(|(_, spans)| spans.iter().any(lost))
}

/// Whether no backend may have been usable.
fn nobody_usable(history: &History, it: &Try) -> bool {
    let lives = history.backends.values();
    let mut lives = lives.filter(|life| life.service == it.service);
    lives.all(|life| life.down.overlap(it.begun, it.ended) || life.away.overlap(it.begun, it.ended))
}

fn connect_may_fail(history: &History, host: usize, it: &Try) -> bool {
    let portless = history.hosts[host].portless.overlap(it.begun, it.ended);
    portless || unheeded(history, host, it) || nobody_usable(history, it)
}

/// A refused connect is tried elsewhere by the front. Only what was under way at a backend when that ended may be lost, and what
/// waits for a backend that fell silent.
fn request_may_fail(history: &History, host: usize, it: &Try) -> bool {
    let under_way = |span: &crate::history::Span| it.begun <= span.from && span.from <= it.ended;
    let mut lives = history.backends.values();
    let lost = lives.any(|life| {
        life.service == it.service
            && (life.down.iter().any(under_way) || life.ending.overlap(it.begun, it.ended))
    });
    let silent = history.hosts[host].severed.iter().any(|(id, spans)| {
        let same = history.backends.get(id);
        same.is_some_and(|life| life.service == it.service)
            && spans.iter().any(|span| {
                let due = history.due(host, span.from);
                span.overlaps(it.begun, it.ended) && due.is_none_or(|due| it.begun <= due)
            })
    });
    let host = &history.hosts[host];
    let frontless =
        host.frontless.overlap(it.begun, it.ended) || host.portless.overlap(it.begun, it.ended);
    lost || silent || frontless || nobody_usable(history, it)
}

/// Whether each service has one VIP, of which `hosts` tell.
pub fn compare_vips(at: Moment, hosts: &[(usize, BTreeMap<String, Ipv4Addr>)]) -> Vec<Violation> {
    let mut first: BTreeMap<&str, (usize, Ipv4Addr)> = BTreeMap::new();
    let mut found = Vec::new();
    for (host, vips) in hosts {
        for (service, vip) in vips {
            let (other, same) = *first.entry(service).or_insert((*host, *vip));
            if same != *vip {
                found.push(Violation {
                    invariant: Invariant::VipsAreEqual,
                    host: Some(*host),
                    at,
                    what: format!("{service} is {vip} here and {same} on host {other}"),
                });
            }
        }
    }
    found
}

#[cfg(test)]
mod tests;
