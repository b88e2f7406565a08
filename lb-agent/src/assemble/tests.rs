mod composed;
mod containers;
mod moments;
mod orders;
mod published;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};

use proptest::{collection, prelude::*};
use tempfile::TempDir;
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinHandle,
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    Facts, Inputs, LOOK_EVERY, Outputs, Percents, SHORTEST_WINDOW, WINDOW, assemble,
    compose::{Last, compose},
    known::{Known, understand},
    run,
};
use crate::{
    admin::{Events, events::Kind},
    catalog::{Instance, InstanceKey, Problem, SourceState},
    discover::file::parse,
    health::Verdicts,
    options::{Balance, CheckKind},
    order::{Mode, Order, OrderOutcome, OrderRequest, Orders},
    snapshot::{Backend, Probe, ProbeState, ServiceName, Snapshot, State},
    vip::{Vips, Wanted},
};

fn state(text: &str) -> SourceState {
    SourceState {
        catalog: Some(Arc::new(parse(text).unwrap())),
        updated: Some(SystemTime::UNIX_EPOCH),
        ..SourceState::default()
    }
}

fn sources(states: &[(&str, SourceState)]) -> BTreeMap<String, SourceState> {
    let named = states.iter().cloned();
    named.map(|(name, it)| (name.to_owned(), it)).collect()
}

fn snapshot(states: &[(&str, SourceState)]) -> Snapshot {
    assemble(&sources(states), &NOTHING.facts())
}

/// The catalog of `text`, whose instances all run in containers of this host: `a` in `container-a`.
fn in_containers(text: &str) -> SourceState {
    let mut state = state(text);
    let mut catalog = Arc::unwrap_or_clone(state.catalog.unwrap());
    for instances in catalog.services.values_mut() {
        let moved = instances.iter().map(|it| {
            let container = Some(format!("container-{}", it.key.id));
            let it = Instance::clone(it);
            Arc::new(Instance { container, ..it })
        });
        *instances = moved.collect();
    }
    state.catalog = Some(Arc::new(catalog));
    state
}

/// What [`Facts`] share.
struct Owned {
    vips: Vips,
    verdicts: Verdicts,
    orders: Orders,
    departed: BTreeSet<String>,
    ramps: Percents,
    problems: Vec<Problem>,
}

impl Owned {
    fn facts(&self) -> Facts {
        Facts {
            vips: Arc::new(self.vips.clone()),
            verdicts: Arc::new(self.verdicts.clone()),
            orders: Arc::new(self.orders.clone()),
            departed: Arc::new(self.departed.clone()),
            ramps: Arc::new(self.ramps.clone()),
            problems: self.problems.clone(),
            since: SystemTime::UNIX_EPOCH,
        }
    }
}

const NOTHING: Owned = Owned {
    vips: Vips {
        by_name: BTreeMap::new(),
        problems: Vec::new(),
    },
    verdicts: Verdicts::NONE,
    orders: Orders::new(),
    departed: BTreeSet::new(),
    ramps: BTreeMap::new(),
    problems: Vec::new(),
};

fn probe(state: ProbeState) -> Probe {
    Probe {
        state,
        since: SystemTime::UNIX_EPOCH,
        error: None,
        took: None,
    }
}

const WWW: &str = r#"
[[service]]
name = "www"
tags = ["lb_balance=random", "server_alias=shop.test"]
[[service.instance]]
id = "a"
address = "10.0.0.1"
port = 80
tags = ["hello"]
[[service.instance]]
id = "b"
address = "10.0.0.2"
port = 80
tags = ["world.dev", "lb_weight=7"]
"#;

fn key(id: &str) -> InstanceKey {
    InstanceKey::new("file", id)
}

const DRAIN: Order = Order {
    mode: Mode::Drain,
    until: None,
};

/// A running stage, and a VIP stage that gives 198.18.0.n to the n-th name.
struct Stage {
    source: watch::Sender<SourceState>,
    verdicts: watch::Sender<Arc<Verdicts>>,
    orders: mpsc::Sender<OrderRequest>,
    departed: watch::Sender<Arc<BTreeSet<String>>>,
    problems: watch::Sender<Vec<Problem>>,
    snapshots: watch::Receiver<Option<Arc<Snapshot>>>,
    events: Events,
    stop: CancellationToken,
    stage: JoinHandle<()>,
}

impl Stage {
    fn start(state_dir: &Path) -> Self {
        let (source, source_in) = watch::channel(SourceState::default());
        let (names, mut names_in) = watch::channel(None::<Wanted>);
        let (vips, vips_in) = watch::channel(None);
        let (verdicts, verdicts_in) = watch::channel(Arc::default());
        let (orders, orders_in) = mpsc::channel(1);
        let (departed, departed_in) = watch::channel(Arc::default());
        let (problems, problems_in) = watch::channel(Vec::new());
        let (snapshots_out, snapshots) = watch::channel(None);
        let events = Events::default();
        let stop = CancellationToken::new();
        tokio::spawn(async move {
            while names_in.changed().await.is_ok() {
                let wanted = names_in.borrow_and_update().clone().unwrap_or_default();
                let given = wanted.names.keys().cloned().zip(1u8..);
                let by_name = given.map(|(name, n)| (name, Ipv4Addr::new(198, 18, 0, n)));
                let by_name = by_name.collect();
                let problems = Vec::new();
                vips.send_replace(Some(Arc::new(Vips { by_name, problems })));
            }
        });
        let inputs = Inputs {
            sources: BTreeMap::from([("file".to_owned(), source_in)]),
            vips: vips_in,
            verdicts: verdicts_in,
            orders: orders_in,
            departed: departed_in,
            problems: vec![problems_in],
        };
        let outputs = Outputs {
            names,
            snapshots: snapshots_out,
            events: events.clone(),
        };
        let stage = tokio::spawn(run(state_dir.to_owned(), inputs, outputs, stop.clone()));
        Self {
            source,
            verdicts,
            orders,
            departed,
            problems,
            snapshots,
            events,
            stop,
            stage,
        }
    }

    async fn until(&mut self, mut condition: impl FnMut(&Snapshot) -> bool) -> Arc<Snapshot> {
        let fulfils = |it: &Option<Arc<Snapshot>>| it.as_deref().is_some_and(&mut condition);
        let snapshot = timeout(DEADLINE, self.snapshots.wait_for(fulfils)).await;
        let snapshot = snapshot.expect("in time").expect("the stage runs");
        snapshot.clone().unwrap()
    }

    async fn serve(&mut self, text: &str) -> Arc<Snapshot> {
        self.source.send_replace(state(text));
        let names: BTreeSet<String> = parse(text)
            .unwrap()
            .services
            .keys()
            .map(ToString::to_string)
            .collect();
        self.until(|snapshot| {
            let whole = snapshot.services.iter().filter(|(it, _)| it.tag.is_none());
            let vips = snapshot.services.values().all(|it| it.vip.is_some());
            whole
                .map(|(it, _)| &*it.service)
                .eq(names.iter().map(String::as_str))
                && vips
        })
        .await
    }

    async fn drain(&self, service: &str, backend: Option<&str>, undo: bool) -> Answer {
        let mode = if undo { Mode::Ready } else { Mode::Drain };
        self.order(service, backend, mode, None).await
    }

    async fn order(
        &self,
        service: &str,
        backend: Option<&str>,
        mode: Mode,
        deadline: Option<Duration>,
    ) -> Answer {
        let (reply, answer) = oneshot::channel();
        let request = OrderRequest {
            service: service.to_owned(),
            backend: backend.map(str::to_owned),
            mode,
            deadline,
            reply,
        };
        self.orders.send(request).await.unwrap();
        timeout(DEADLINE, answer).await.unwrap().unwrap()
    }

    async fn end(self) {
        self.stop.cancel();
        timeout(DEADLINE, self.stage).await.unwrap().unwrap();
    }
}

type Answer = Result<OrderOutcome, String>;

const DEADLINE: Duration = Duration::from_secs(20);

fn drained(snapshot: &Snapshot) -> Vec<String> {
    let www = &snapshot.services[&ServiceName::whole("www")];
    let drained = www
        .backends
        .iter()
        .filter(|(_, it)| it.order.mode == Mode::Drain);
    drained.map(|(key, _)| key.to_string()).collect()
}

#[tokio::test(start_paused = true)]
async fn what_changes_from_one_snapshot_to_the_next_is_an_event_once() {
    let directory = TempDir::new().unwrap();
    let mut stage = Stage::start(directory.path());
    stage.serve(WWW).await;
    let known = stage.events.read(Some(0), 1000).last;
    stage.drain("www", Some("a"), false).await.unwrap();
    stage.until(|it| drained(it) == ["file/a"]).await;
    let stale = SourceState {
        error: Some("it is away".to_owned()),
        ..state(WWW)
    };
    let wrong = Problem::new("route", "take the other one");
    stage.source.send_replace(stale);
    stage.problems.send_replace(vec![wrong]);
    let is_stale = |it: &Snapshot| it.sources["file"].error.is_some();
    stage
        .until(|it| is_stale(it) && !it.problems.is_empty())
        .await;
    stage.source.send_replace(state(WWW));
    stage.problems.send_replace(Vec::new());
    stage
        .until(|it| !is_stale(it) && it.problems.is_empty())
        .await;
    stage.serve("service = []").await;
    let told = stage.events.read(Some(known), 1000).events;
    let of = |kind| {
        let told = told
            .iter()
            .map(|it| &it.what)
            .filter(move |it| it.kind == kind);
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        let lines = told.map(|it| {
            let (subject, cause) = (&it.subject, text(&it.cause));
            format!("{subject}: {} > {} {cause}", text(&it.from), text(&it.to))
        });
        lines.map(|it| it.trim_end().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(
        of(Kind::Backend),
        ["instance file/a of service www: starting > draining"]
    );
    assert_eq!(
        of(Kind::Source),
        ["file: current > stale it is away", "file: stale > current"]
    );
    assert_eq!(
        of(Kind::Problem),
        [
            "route:  > wrong take the other one",
            "route: wrong >  take the other one"
        ]
    );
    assert_eq!(of(Kind::Service)[0], "service www: there >");
    stage.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_backend_that_comes_back_gets_its_share_step_by_step() {
    let directory = TempDir::new().unwrap();
    let mut stage = Stage::start(directory.path());
    let text = WWW.replace("lb_balance=random", "lb_slow_start=20");
    stage.serve(&text).await;
    let judge = |b: ProbeState| {
        let mut verdicts = Verdicts::NONE;
        verdicts.settled = true;
        for (address, state) in [("10.0.0.1:80", ProbeState::Up), ("10.0.0.2:80", b)] {
            let target = (address.parse().unwrap(), CheckKind::Tcp);
            verdicts.put(target, probe(state));
        }
        Arc::new(verdicts)
    };
    let ramps = |it: &Snapshot| -> Vec<u8> {
        let www = &it.services[&ServiceName::whole("www")];
        www.backends.values().map(|it| it.ramp).collect()
    };
    // Both were there at the agent's start.
    stage.verdicts.send_replace(judge(ProbeState::Up));
    let first = stage.until(|it| it.complete).await;
    assert_eq!(ramps(&first), [100, 100]);
    stage.verdicts.send_replace(judge(ProbeState::Down));
    let usable = |it: &Snapshot| it.services[&ServiceName::whole("www")].usable().count();
    stage.until(|it| usable(it) == 1).await;

    stage.verdicts.send_replace(judge(ProbeState::Up));
    let snapshot = stage.until(|it| usable(it) == 2).await;
    let back = Instant::now();
    assert_eq!(ramps(&snapshot), [100, 10]);
    let part = &snapshot.services[&ServiceName::part("www", "world.dev")];
    let alone: Vec<u16> = part.shares().map(|(_, _, share)| share).collect();
    assert_eq!(alone, [7], "nobody could take its flows");
    for percent in [19, 28, 37, 46, 55, 64, 73, 82, 91, 100] {
        let next = stage.until(|it| ramps(it)[1] != ramps(&snapshot)[1] && ramps(it)[1] >= percent);
        let snapshot = next.await;
        assert_eq!(ramps(&snapshot), [100, percent]);
        let after = Duration::from_secs(2) * u32::from((percent - 10) / 9);
        let late = back.elapsed().checked_sub(after);
        assert!(late.is_some_and(|it| it < WINDOW), "{percent}: {late:?}");
    }
    stage.end().await;
}
