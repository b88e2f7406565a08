mod orders;

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
    vip::{Names, Vips},
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

#[test]
fn a_domain_tag_makes_a_part_of_the_instances_that_carry_it() {
    let snapshot = snapshot(&[("file", state(WWW))]);
    let shown: Vec<String> = snapshot
        .services
        .iter()
        .map(|(name, service)| {
            let keys: Vec<String> = service.backends.keys().map(ToString::to_string).collect();
            format!("{name}: {}", keys.join(" "))
        })
        .collect();
    assert_eq!(
        shown,
        [
            "www: file/a file/b",
            "www.hello: file/a",
            "www.world.dev: file/b"
        ]
    );
    let whole = &snapshot.services[&ServiceName::whole("www")];
    let part = &snapshot.services[&ServiceName::part("www", "hello")];
    assert_eq!(whole.options.balance, Balance::Random);
    assert_eq!(part.options, whole.options);
    assert_eq!(whole.aliases, BTreeSet::from(["shop.test".to_owned()]));
    assert_eq!(part.aliases, BTreeSet::new());
    let weights: Vec<u16> = whole.backends.values().map(|it| it.weight).collect();
    assert_eq!(weights, [1, 7]);
}

#[test]
fn a_backend_is_usable_when_both_levels_agree() {
    let off = "[[service]]\nname = \"off\"\noptions.lb_check = \"off\"\n\
               instance = [{ id = \"x\", address = \"10.0.0.9\", port = 1 }]\n";
    let mut facts = NOTHING;
    let mut judge = |address: &str, state| {
        let target = (address.parse().unwrap(), CheckKind::Tcp);
        facts.verdicts.put(target, probe(state));
    };
    judge("10.0.0.1:80", ProbeState::Up);
    judge("10.0.0.9:1", ProbeState::Down);
    let all = sources(&[("file", state(&format!("{WWW}{off}")))]);
    let snapshot = assemble(&all, &facts.facts());
    let states = |service: &str| -> Vec<State> {
        let service = &snapshot.services[&ServiceName::whole(service)];
        service.backends.values().map(Backend::state).collect()
    };
    assert_eq!(states("www"), [State::Usable, State::Starting]);
    // The verdict on its address belongs to another check.
    assert_eq!(states("off"), [State::Usable]);
}

#[test]
fn the_snapshot_is_complete_when_every_source_answered_and_the_probes_settled() {
    let mut settled = NOTHING;
    settled.verdicts.settled = true;
    let silent = SourceState::default();
    for (states, facts, complete) in [
        (vec![("file", state(WWW))], &settled, true),
        (vec![("file", state(WWW))], &NOTHING, false),
        (
            vec![("consul", silent), ("file", state(WWW))],
            &settled,
            false,
        ),
    ] {
        let snapshot = assemble(&sources(&states), &facts.facts());
        assert_eq!(snapshot.complete, complete, "{states:?}");
    }
}

#[test]
fn problems_of_all_stages_are_united_and_sorted() {
    let wrong = "[[service]]\nname = \"w\"\ntags = [\"lb_balance=x\"]\ninstance = [\n\
                 { id = \"a\", address = \"10.0.0.1\", port = 1 },\n{ id = \"b\", address = \"b\", port = 1 }]\n";
    let mut facts = NOTHING;
    facts
        .vips
        .problems
        .push(Problem::new("pool", "is full; widen it"));
    facts
        .problems
        .push(Problem::new("front", "cannot listen; free the port"));
    facts
        .problems
        .push(Problem::new("front", "cannot listen; free the port"));
    let snapshot = assemble(&sources(&[("file", state(wrong))]), &facts.facts());
    let subjects: Vec<&str> = snapshot
        .problems
        .iter()
        .map(|it| it.subject.as_str())
        .collect();
    assert_eq!(
        subjects,
        ["front", "instance file/b", "pool", "service w"],
        "{:?}",
        snapshot.problems
    );
}

#[test]
fn a_source_that_fails_goes_on_serving_and_says_so() {
    let mut failing = state(WWW);
    failing.error = Some("cannot reach Consul".to_owned());
    let snapshot = snapshot(&[("consul", failing)]);
    assert!(snapshot.services.contains_key(&ServiceName::whole("www")));
    assert_eq!(
        snapshot.sources["consul"].error.as_deref(),
        Some("cannot reach Consul")
    );
}

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
        let (names, mut names_in) = watch::channel(None::<Arc<Names>>);
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
                let names = names_in.borrow_and_update().clone().unwrap_or_default();
                let given = names.keys().cloned().zip(1u8..);
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
async fn before_a_source_answered_only_why_is_published() {
    let directory = TempDir::new().unwrap();
    let mut stage = Stage::start(directory.path());
    let error = Some("cannot read".to_owned());
    let silent = SourceState {
        error,
        ..SourceState::default()
    };
    stage.source.send_replace(silent);
    let unknown = stage.until(|it| it.sources["file"].error.is_some()).await;
    assert!(!unknown.is_known() && !unknown.answered && !unknown.complete);
    let early = timeout(Duration::from_secs(5), stage.snapshots.changed()).await;
    assert!(early.is_err(), "{:?}", stage.snapshots.borrow());
    let snapshot = stage.serve(WWW).await;
    assert_eq!(snapshot.services.len(), 3);
    stage.end().await;
}

#[tokio::test(start_paused = true)]
async fn the_first_change_is_published_at_once_and_the_next_within_the_window() {
    let directory = TempDir::new().unwrap();
    let mut stage = Stage::start(directory.path());
    stage.serve(WWW).await;
    tokio::time::advance(WINDOW * 10).await;
    tokio::task::yield_now().await;

    let began = Instant::now();
    let more = |n: usize| format!("{WWW}[[service]]\nname = \"more{n}\"\n");
    stage.serve(&more(0)).await;
    assert_eq!(began.elapsed(), Duration::ZERO);
    let mut published = 0;
    for n in 1..=10 {
        stage.source.send_replace(state(&more(n)));
        tokio::task::yield_now().await;
    }
    let last = ServiceName::whole("more10");
    loop {
        let current = stage.snapshots.borrow_and_update().clone().unwrap();
        let service = current.services.get(&last);
        if service.is_some_and(|it| it.vip.is_some()) {
            break;
        }
        stage.snapshots.changed().await.unwrap();
        published += 1;
    }
    assert!(began.elapsed() <= WINDOW * 2, "{:?}", began.elapsed());
    assert!(published <= 2, "{published} snapshots for one burst");
    stage.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_change_of_any_input_is_published_and_no_change_is_not() {
    let directory = TempDir::new().unwrap();
    let mut stage = Stage::start(directory.path());
    stage.serve(WWW).await;
    let mut verdicts = Verdicts::NONE;
    verdicts.settled = true;
    for address in ["10.0.0.1:80", "10.0.0.2:80"] {
        let target = (address.parse().unwrap(), CheckKind::Tcp);
        verdicts.put(target, probe(ProbeState::Up));
    }
    stage.verdicts.send_replace(Arc::new(verdicts.clone()));
    stage.until(|it| it.complete).await;
    let problem = Problem::new("front", "cannot listen; free the port");
    stage.problems.send_replace(vec![problem.clone()]);
    stage.until(|it| it.problems.contains(&problem)).await;

    stage.verdicts.send_replace(Arc::new(verdicts));
    stage.problems.send_replace(vec![problem]);
    stage.source.send_replace(state(WWW));
    let idle = timeout(Duration::from_secs(5), stage.snapshots.changed()).await;
    assert!(idle.is_err(), "published without a change");
    stage.end().await;
}

#[tokio::test(start_paused = true)]
async fn mere_figures_reach_the_reports_and_wake_nobody() {
    let directory = TempDir::new().unwrap();
    let mut stage = Stage::start(directory.path());
    stage.serve(WWW).await;
    let target = ("10.0.0.1:80".parse().unwrap(), CheckKind::Tcp);
    let verdicts = |took| {
        let mut probe = probe(ProbeState::Up);
        probe.took = Some(took);
        let mut verdicts = Verdicts::NONE;
        verdicts.settled = true;
        verdicts.put(target.clone(), probe);
        Arc::new(verdicts)
    };
    let (fast, slow) = (Duration::from_micros(100), Duration::from_millis(3));
    stage.verdicts.send_replace(verdicts(fast));
    stage.until(|it| it.complete).await;
    stage.snapshots.mark_unchanged();

    let answer = SystemTime::UNIX_EPOCH + Duration::from_secs(60);
    stage.verdicts.send_replace(verdicts(slow));
    stage.source.send_if_modified(|state| {
        state.updated = Some(answer);
        false
    });
    let woken = timeout(LOOK_EVERY * 3, stage.snapshots.changed()).await;
    assert!(woken.is_err(), "figures are no news");
    let snapshot = stage.snapshots.borrow().clone().unwrap();
    let www = &snapshot.services[&ServiceName::whole("www")];
    let took: Vec<_> = www.backends.values().map(|it| it.probe.took).collect();
    assert_eq!(took, [Some(slow), None]);
    assert_eq!(snapshot.sources["file"].updated, Some(answer));
    stage.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_source_that_ended_leaves_its_last_word() {
    let directory = TempDir::new().unwrap();
    let mut stage = Stage::start(directory.path());
    stage.serve(WWW).await;
    let (gone, _) = watch::channel(SourceState::default());
    drop(std::mem::replace(&mut stage.source, gone));
    stage.problems.send_replace(vec![Problem::new("a", "b")]);
    let snapshot = stage.until(|it| !it.problems.is_empty()).await;
    assert_eq!(snapshot.services.len(), 3);
    stage.end().await;
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

#[tokio::test(start_paused = true)]
async fn a_container_that_ends_takes_its_backend_out_at_once() {
    let directory = TempDir::new().unwrap();
    let mut stage = Stage::start(directory.path());
    stage.serve(WWW).await;
    stage.source.send_replace(in_containers(WWW));
    tokio::task::yield_now().await;
    let began = Instant::now();
    let gone = BTreeSet::from(["container-b".to_owned(), "container-x".to_owned()]);
    stage.departed.send_replace(Arc::new(gone));
    let states = |it: &Snapshot, name: ServiceName| -> Vec<State> {
        let service = &it.services[&name];
        service.backends.values().map(Backend::state).collect()
    };
    let www = || ServiceName::whole("www");
    let left = |it: &Snapshot| states(it, www()) == [State::Starting, State::Leaving];
    let snapshot = stage.until(left).await;
    assert!(began.elapsed() < SHORTEST_WINDOW, "{:?}", began.elapsed());
    let part = ServiceName::part("www", "world.dev");
    assert_eq!(states(&snapshot, part), [State::Leaving]);
    // Its container was only said to end, and goes on.
    stage.departed.send_replace(Arc::default());
    let back = |it: &Snapshot| states(it, www()) == [State::Starting, State::Starting];
    stage.until(back).await;
    stage.end().await;
}

#[test]
fn a_container_of_another_host_is_not_ours_to_know_of() {
    let mut source = in_containers(WWW);
    let catalog = Arc::make_mut(source.catalog.as_mut().unwrap());
    for instances in catalog.services.values_mut() {
        let remote = instances.iter().map(|it| {
            let it = Instance::clone(it);
            Arc::new(Instance { local: false, ..it })
        });
        *instances = remote.collect();
    }
    let mut facts = NOTHING;
    facts.departed.insert("container-a".to_owned());
    let snapshot = assemble(&sources(&[("consul", source)]), &facts.facts());
    let www = &snapshot.services[&ServiceName::whole("www")];
    assert!(www.backends.values().all(|it| !it.leaving));
}

/// Everything that may be known at one moment, drawn from few enough names that moments resemble each other.
#[derive(Clone, Debug)]
struct Moment {
    /// What two sources say.
    sources: [Vec<(u8, Vec<u8>, u8)>; 2],
    vips: BTreeSet<u8>,
    judged: BTreeSet<(u8, bool)>,
    drains: BTreeSet<(u8, u8)>,
    departed: BTreeSet<u8>,
    ramps: BTreeMap<(u8, u8), u8>,
}

/// What a service says beside its name.
const SAYS: [&str; 4] = ["", "hello", "lb_check=off", "lb_balance=x"];

impl Moment {
    fn any() -> impl Strategy<Value = Self> {
        let service = (0..4u8, collection::vec(1..5u8, 0..4), 0..4u8);
        let services = || collection::vec(service.clone(), 0..4);
        (
            [services(), services()],
            collection::btree_set(0..4u8, 0..5),
            collection::btree_set((1..5u8, any::<bool>()), 0..4),
            collection::btree_set((0..4u8, 1..5u8), 0..3),
            collection::btree_set(1..5u8, 0..3),
            collection::btree_map((0..4u8, 1..5u8), 10..100u8, 0..3),
        )
            .prop_map(|(sources, vips, judged, drains, departed, ramps)| Self {
                sources,
                vips,
                judged,
                drains,
                departed,
                ramps,
            })
    }

    fn sources(&self) -> BTreeMap<String, SourceState> {
        let text = |services: &[(u8, Vec<u8>, u8)]| {
            let service = |(name, ids, says): &(u8, Vec<u8>, u8)| {
                let tags = SAYS[usize::from(*says)];
                let instance =
                    |id: &u8| format!("{{ id = \"{id}\", address = \"10.0.0.{id}\", port = 80 }}");
                let instances: Vec<String> = ids.iter().map(instance).collect();
                format!(
                    "[[service]]\nname = \"s{name}\"\ntags = [\"{tags}\"]\ninstance = [{}]\n",
                    instances.join(", ")
                )
            };
            let text: String = services.iter().map(service).collect();
            in_containers(&format!("{text}# End.\n"))
        };
        let [one, other] = &self.sources;
        sources(&[("consul", text(one)), ("file", text(other))])
    }

    fn facts(&self) -> Facts {
        let mut facts = NOTHING;
        for n in &self.vips {
            let vip = |last| Ipv4Addr::new(198, 18, *n, last);
            let (whole, part) = (format!("s{n}"), "hello");
            let names = [
                (ServiceName::whole(&*whole), vip(1)),
                (ServiceName::part(&*whole, part), vip(2)),
            ];
            facts.vips.by_name.extend(names);
        }
        for (last, up) in &self.judged {
            let target = (SocketAddr::from(([10, 0, 0, *last], 80)), CheckKind::Tcp);
            let state = if *up {
                ProbeState::Up
            } else {
                ProbeState::Down
            };
            facts.verdicts.put(target, probe(state));
        }
        for (name, id) in &self.drains {
            let orders = facts.orders.entry(format!("s{name}")).or_default();
            orders.insert(key(&id.to_string()), DRAIN);
        }
        let departed = self.departed.iter().map(|id| format!("container-{id}"));
        facts.departed = departed.collect();
        for ((name, id), percent) in &self.ramps {
            let ramps = facts.ramps.entry(format!("s{name}").into()).or_default();
            ramps.insert(key(&id.to_string()), *percent);
        }
        facts.facts()
    }
}

proptest! {
    #[test]
    fn any_sequence_ends_in_the_snapshot_of_the_last_moment_alone(
        moments in collection::vec(Moment::any(), 1..6), repeats in any::<bool>(),
    ) {
        let mut known = Known::default();
        let mut last: Option<(Snapshot, Facts)> = None;
        for moment in &moments {
            // The same catalogs again share nothing with those before; then everything is looked at.
            for _ in 0..=u8::from(repeats) {
                let changed = known.learn(&moment.sources()).into_iter().collect();
                let facts = moment.facts();
                let before = last.as_ref().map(|(snapshot, facts)| Last {
                    snapshot,
                    facts,
                    changed: &changed,
                });
                let snapshot = compose(&known, &facts, before);
                prop_assert_eq!(&snapshot, &assemble(&moment.sources(), &facts));
                last = Some((snapshot, facts));
            }
        }
    }

    #[test]
    fn what_no_fact_concerns_keeps_its_allocation(moment in Moment::any(), judged in 1..5u8) {
        let known = understand(&moment.sources());
        let facts = moment.facts();
        let first = compose(&known, &facts, None);
        let mut verdicts = Verdicts::clone(&facts.verdicts);
        let address = SocketAddr::from(([10, 0, 0, judged], 80));
        verdicts.put((address, CheckKind::Tcp), probe(ProbeState::Starting));
        let next = Facts { verdicts: Arc::new(verdicts), ..facts.clone() };
        let changed = BTreeSet::new();
        let last = Last { snapshot: &first, facts: &facts, changed: &changed };
        let second = compose(&known, &next, Some(last));
        for (name, service) in &second.services {
            // With a service its parts are made anew.
            let whole = &second.services[&ServiceName::whole(name.service.clone())];
            let concerned = whole.backends.values().any(|it| it.address == address);
            let probed = service.options.check != CheckKind::Off;
            let kept = Arc::ptr_eq(service, &first.services[name]);
            prop_assert!(kept || (concerned && probed), "{name}");
        }
    }
}
