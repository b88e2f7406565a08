//! The catalog with everything the agent adds to it: VIPs, its own health verdicts, orders, problems.
//!
//! One immutable value, made by the stage `assemble` of the agent; the maps, the routes of the front, the names of the
//! resolver and every report are pure functions of it.

use std::{
    cmp::Ordering,
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::{Duration, SystemTime},
};

use serde::{Deserialize, Serialize};

use crate::{
    catalog::{Check, InstanceKey, Problem, Reach, SourceHealth},
    cow_map::{self, CowMap, Difference},
    options::{Local, Options},
    order::{Mode, Order},
};

/// Everything the agent knows at one moment.
///
/// Two snapshots are equal when nothing would be done otherwise after one than after the other: the number and mere
/// figures for people ([`Source::updated`], [`Probe::took`]) do not count. The channel of snapshots always holds the
/// newest one and wakes its readers only for one that differs.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Snapshot {
    /// Rises with each one that readers are woken for: by it they say how far they have come.
    pub number: u64,
    /// Whether every source has had its first full answer: a name that is not here does not exist.
    pub answered: bool,
    /// Whether those that have not had one told what an earlier agent kept: all there is to go by, perhaps for long.
    pub stopgap: bool,
    /// Whether, beyond that, every backend in those first answers has had its first verdict by our own
    /// probes. Before that nothing that the maps already hold may be removed: unknown is not empty.
    pub complete: bool,
    /// Services and their tagged parts, by name. What stays the same keeps its allocation from one snapshot to the
    /// next, so that [`changes`] costs what has changed.
    pub services: CowMap<ServiceName, Arc<Service>>,
    /// Everything that is wrong at the moment.
    pub problems: Vec<Problem>,
    /// The discovery sources, by name (`file`, `consul`).
    pub sources: BTreeMap<String, Source>,
}

impl PartialEq for Snapshot {
    fn eq(&self, other: &Self) -> bool {
        let Self {
            number: _,
            answered,
            stopgap,
            complete,
            services,
            problems,
            sources,
        } = self;
        (answered, stopgap, complete) == (&other.answered, &other.stopgap, &other.complete)
            && *services == other.services
            && *problems == other.problems
            && *sources == other.sources
    }
}

impl Eq for Snapshot {}

impl Snapshot {
    /// What a stage has reached that acted on all of it: its number if it is complete, or a stopgap while a source is away;
    /// `None` if it has to wait for more.
    pub fn reached(&self) -> Option<u64> {
        (self.complete || self.stopgap).then_some(self.number)
    }
}

/// A discovery source, for people to read.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Source {
    /// When its last good answer came; `None` before the first. Not part of equality once there is one.
    pub updated: Option<SystemTime>,
    /// Why it cannot be read at the moment.
    pub error: Option<String>,
}

impl PartialEq for Source {
    fn eq(&self, other: &Self) -> bool {
        let Self { updated, error } = self;
        updated.is_some() == other.updated.is_some() && *error == other.error
    }
}

impl Eq for Source {}

/// A service, or the part of it whose instances carry a domain tag (`hello` of `www` is `www.hello`).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ServiceName {
    /// What Consul calls the service.
    pub service: Arc<str>,
    /// The domain tag that selects a part of it.
    pub tag: Option<Arc<str>>,
}

impl Snapshot {
    /// Whether any source has ever answered. Before that the snapshot only says why none has.
    pub fn is_known(&self) -> bool {
        self.sources.values().any(|source| source.updated.is_some())
    }
}

impl ServiceName {
    /// The whole of a service.
    pub fn whole(service: impl Into<Arc<str>>) -> Self {
        Self {
            service: service.into(),
            tag: None,
        }
    }

    /// The instances of a service that carry `tag`.
    pub fn part(service: impl Into<Arc<str>>, tag: impl Into<Arc<str>>) -> Self {
        Self {
            service: service.into(),
            tag: Some(tag.into()),
        }
    }

    /// The name on the page, in metrics and as an anchor: `www_hello`, or `hello_www` for the part of
    /// `www` that is tagged `hello`.
    pub fn label(&self) -> String {
        match &self.tag {
            None => self.service.to_string(),
            Some(tag) => format!("{tag}_{}", self.service),
        }
    }
}

/// What differs between two maps whose equal values mostly share their allocation: each such key with the value
/// `before` and the one `after`. Values of one allocation are not looked at.
pub fn changes<'m, K: Ord, V>(
    before: &'m CowMap<K, Arc<V>>,
    after: &'m CowMap<K, Arc<V>>,
) -> impl Iterator<Item = Difference<'m, K, Arc<V>>>
where
    V: ?Sized,
{
    before.differences(after, Arc::ptr_eq)
}

/// What differs between two maps, as `same` sees their values.
pub fn differences<'m, K: Ord, V>(
    before: &'m BTreeMap<K, V>,
    after: &'m BTreeMap<K, V>,
    same: impl Fn(&V, &V) -> bool,
) -> impl Iterator<Item = Difference<'m, K, V>> {
    cow_map::differences(before.iter(), after.iter(), |_, _| {}, same)
}

/// In the order of their texts; a name that shares the text of the other is not read.
impl Ord for ServiceName {
    fn cmp(&self, other: &Self) -> Ordering {
        let texts = |one: &Arc<str>, other: &Arc<str>| {
            if Arc::ptr_eq(one, other) {
                Ordering::Equal
            } else {
                one.cmp(other)
            }
        };
        texts(&self.service, &other.service).then_with(|| match (&self.tag, &other.tag) {
            (Some(one), Some(other)) => texts(one, other),
            (one, other) => one.is_some().cmp(&other.is_some()),
        })
    }
}

impl PartialOrd for ServiceName {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.tag {
            None => f.write_str(&self.service),
            Some(tag) => write!(f, "{}.{tag}", self.service),
        }
    }
}

impl Serialize for ServiceName {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// One service as the data plane is to serve it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Service {
    /// Its virtual address; `None` while none could be given (see `problems`).
    pub vip: Option<Ipv4Addr>,
    /// What its registrations ask for.
    pub options: Options,
    /// Complete host names beside the ones made from its name.
    pub aliases: BTreeSet<String>,
    /// Its instances, by key.
    pub backends: BTreeMap<InstanceKey, Backend>,
}

impl Service {
    /// The backends that take new flows.
    pub fn usable(&self) -> impl Iterator<Item = (&InstanceKey, &Backend)> {
        self.backends
            .iter()
            .filter(|(_, backend)| backend.state().usable())
    }

    /// The share of new flows that each backend has on this host, beside the others of the service: its weight, and
    /// what `lb_local` and slow start make of it. 0 takes none.
    pub fn shares(&self) -> impl Iterator<Item = (&InstanceKey, &Backend, u16)> {
        let favours =
            self.options.local == Local::Prefer && self.backends.values().any(|it| it.local);
        let ramps = self.ramps();
        let full = move |backend: &Backend| {
            let times = if favours && backend.local {
                LOCAL_FAVOUR
            } else {
                1
            };
            // In percent only where there are such, or every weight would be a hundred times itself.
            let percent = if ramps { FULL.into() } else { 1 };
            u32::from(backend.weight) * times * percent
        };
        // Where the heaviest would not fit, all of them are scaled down alike.
        let heaviest = self.backends.values().map(full).max().unwrap_or(0);
        let scale = heaviest.div_ceil(u16::MAX.into()).max(1);
        self.backends.iter().map(move |(key, backend)| {
            let share = match self.options.local {
                Local::Only if !backend.local => 0,
                _ if ramps => full(backend) / u32::from(FULL) * u32::from(backend.ramp.min(FULL)),
                _ => full(backend),
            };
            let share = share.div_ceil(scale);
            (key, backend, u16::try_from(share).unwrap_or(u16::MAX))
        })
    }

    /// Whether some of its backends are spared: not where nobody could take flows in their place.
    fn ramps(&self) -> bool {
        let takes = |it: &&Backend| {
            it.state().usable() && it.weight > 0 && (it.local || self.options.local != Local::Only)
        };
        let all = || self.backends.values();
        all().any(|it| it.ramp < FULL) && all().filter(takes).any(|it| it.ramp == FULL)
    }
}

/// How many times the weight of another host's backend one of this host has under `lb_local=prefer`.
const LOCAL_FAVOUR: u32 = 16;

/// One instance with both levels of health.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Backend {
    /// Where flows go, from the host.
    pub address: SocketAddr,
    /// How clients reach it that stand elsewhere.
    pub reach: Arc<Reach>,
    /// Whether it runs on this host.
    pub local: bool,
    /// The container that it runs in, where that is known: another one at the same address is somebody else.
    pub container: Option<Arc<str>>,
    /// Marks of the registration.
    pub tags: Arc<BTreeSet<String>>,
    /// Relative share, 0 to 65535.
    pub weight: u16,
    /// Whether the front gives it a share of what is for canaries.
    pub canary: bool,
    /// Level 2: what the source's checks say.
    pub source: SourceHealth,
    /// Those checks.
    pub checks: Vec<Check>,
    /// Level 1: what our own probes say.
    pub probe: Probe,
    /// What an operator ordered of it.
    pub order: Order,
    /// Whether its container, which runs on this host, is ending or gone.
    pub leaving: bool,
    /// The percent of its share that it has under slow start; [`FULL`] for most.
    pub ramp: u8,
}

/// The [`Backend::ramp`] of one that has its whole share.
pub const FULL: u8 = 100;

/// Level 1 of health: the verdict of our own probes.
#[derive(Clone, Debug, Serialize)]
pub struct Probe {
    /// The verdict.
    pub state: ProbeState,
    /// Since when.
    pub since: SystemTime,
    /// Why the last probe failed.
    pub error: Option<String>,
    /// How long the last successful probe took. Not part of equality.
    pub took: Option<Duration>,
}

impl PartialEq for Probe {
    fn eq(&self, other: &Self) -> bool {
        let Self {
            state,
            since,
            error,
            took: _,
        } = self;
        (*state, *since) == (other.state, other.since) && *error == other.error
    }
}

impl Eq for Probe {}

/// The verdict of our own probes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "for-tests", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum ProbeState {
    /// New, not probed often enough: takes no flow yet.
    Starting,
    /// Answers.
    Up,
    /// Does not answer.
    Down,
    /// Not probed (`lb_check=off`): counts as up.
    Off,
}

/// The state of a backend, one word, worst cause first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "for-tests", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Takes new flows.
    Usable,
    /// Waits for its first successful probes.
    Starting,
    /// Our own probes fail.
    L4Down,
    /// A check of the source warns.
    ConsulWarning,
    /// A check of the source fails.
    ConsulCritical,
    /// Taken out in the source: established flows live on until a deadline. Or here by an operator: they are cut.
    Maintenance,
    /// Taken out here by an operator: established flows live on until a deadline.
    Draining,
    /// Its container is ending: established flows live on.
    Leaving,
}

impl State {
    /// Whether new flows may go there.
    pub fn usable(self) -> bool {
        self == Self::Usable
    }

    /// The word in metrics, tables and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Usable => "usable",
            Self::Starting => "starting",
            Self::L4Down => "l4_down",
            Self::ConsulWarning => "consul_warning",
            Self::ConsulCritical => "consul_critical",
            Self::Maintenance => "maintenance",
            Self::Draining => "draining",
            Self::Leaving => "leaving",
        }
    }
}

#[cfg(any(test, feature = "for-tests"))]
impl Backend {
    /// One of this host without marks, that takes flows.
    pub fn usable(address: SocketAddr) -> Self {
        Self {
            address,
            reach: Reach::default().shared(),
            local: true,
            container: None,
            tags: Arc::default(),
            weight: 1,
            canary: false,
            source: SourceHealth::Passing,
            checks: Vec::new(),
            probe: Probe {
                state: ProbeState::Up,
                since: SystemTime::UNIX_EPOCH,
                error: None,
                took: None,
            },
            order: Order::default(),
            leaving: false,
            ramp: FULL,
        }
    }
}

impl Backend {
    /// All addresses that flows may go to, from wherever their clients stand.
    pub fn addresses(&self) -> impl Iterator<Item = SocketAddr> {
        let others = self.reach.networks.values().chain(&self.reach.published);
        let others = others.filter(|other| **other != self.address);
        std::iter::once(self.address).chain(others.copied())
    }

    /// Both levels and the operator's word, combined: usable is "the source says yes and so do we".
    pub fn state(&self) -> State {
        if self.leaving {
            return State::Leaving;
        }
        match self.order.mode {
            Mode::Drain => return State::Draining,
            Mode::Maintenance => return State::Maintenance,
            Mode::Ready => {}
        }
        match (self.source, self.probe.state) {
            (SourceHealth::Maintenance, _) => State::Maintenance,
            (SourceHealth::Critical, _) => State::ConsulCritical,
            (SourceHealth::Warning, _) => State::ConsulWarning,
            (SourceHealth::Passing, ProbeState::Down) => State::L4Down,
            (SourceHealth::Passing, ProbeState::Starting) => State::Starting,
            (SourceHealth::Passing, ProbeState::Up | ProbeState::Off) => State::Usable,
        }
    }
}

#[cfg(test)]
mod tests;
