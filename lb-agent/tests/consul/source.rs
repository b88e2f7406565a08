//! The consul source and the VIP records against one Consul.

use std::{collections::BTreeMap, net::Ipv4Addr, sync::Arc, time::Duration};

use lb_agent::{
    catalog::{Catalog, SourceHealth, SourceState},
    discover::consul::{self, Config, Token},
    snapshot::ServiceName,
    vip::{self, Entry, How, Names, Order, Pool, Vips},
};
use serde_json::json;
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinHandle,
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    fake::{Answer, Fake},
    support::{BOUND, Consul, MASTER},
};

/// A running consul source.
pub(crate) struct Source {
    pub(crate) state: watch::Receiver<SourceState>,
    stop: CancellationToken,
    stage: JoinHandle<Result<(), consul::Error>>,
}

/// How soon a change in Consul must be seen: before a blocking query ends by itself, after 55 s, or everybody has a turn,
/// after 60 s. So what is seen within it was told by Consul, however busy the machine is.
pub(crate) const SOON: Duration = BOUND;

pub(crate) fn config(address: &str) -> Config {
    Config {
        hold: Duration::from_secs(3),
        ..Config::new(address.parse().unwrap())
    }
}

impl Source {
    pub(crate) fn start(config: Config) -> Self {
        let (out, state) = watch::channel(SourceState::default());
        let stop = CancellationToken::new();
        let stage = tokio::spawn(consul::run(config, out, stop.clone()));
        Self { state, stop, stage }
    }

    /// Waits until the state is as told, and gives it.
    #[track_caller]
    pub(crate) fn until(
        &mut self,
        bound: Duration,
        mut told: impl FnMut(&SourceState) -> bool,
    ) -> impl Future<Output = SourceState> {
        let caller = std::panic::Location::caller();
        async move {
            let found = timeout(bound, self.state.wait_for(|state| told(state))).await;
            let found = found.map(|state| state.unwrap().clone());
            found.unwrap_or_else(|_| panic!("{caller}: still {:#?}", *self.state.borrow()))
        }
    }

    #[track_caller]
    pub(crate) fn catalog(
        &mut self,
        bound: Duration,
        mut told: impl FnMut(&Catalog) -> bool,
    ) -> impl Future<Output = Arc<Catalog>> {
        let state = self.until(bound, move |state| {
            state.catalog.as_ref().is_some_and(|catalog| told(catalog))
        });
        async move { state.await.catalog.unwrap() }
    }

    pub(crate) async fn end(self) {
        self.stop.cancel();
        timeout(SOON, self.stage).await.unwrap().unwrap().unwrap();
    }
}

/// The ids of the instances of `service`; empty also if there is no such service.
pub(crate) fn ids<'a>(catalog: &'a Catalog, service: &str) -> Vec<&'a str> {
    let instances = catalog
        .services
        .get(service)
        .into_iter()
        .flat_map(|it| it.iter());
    instances.map(|instance| &*instance.key.id).collect()
}

fn health(catalog: &Catalog, service: &str) -> Option<SourceHealth> {
    Some(catalog.services.get(service)?.first()?.health)
}

#[tokio::test]
async fn the_first_catalog_holds_everything_that_is_registered() {
    let consul = Consul::start().await;
    consul.register("a", "a1", 1).await;
    consul.register("a", "a2", 2).await;
    consul.register("a/b c", "odd", 3).await;
    let mut source = Source::start(config(&consul.address()));
    let state = source.until(BOUND, |state| state.catalog.is_some()).await;
    let catalog = state.catalog.unwrap();
    assert_eq!(ids(&catalog, "a"), ["a1", "a2"]);
    assert_eq!(ids(&catalog, "a/b c"), ["odd"]);
    assert_eq!(ids(&catalog, "consul").len(), 1);
    assert_eq!(catalog.problems.len(), 1, "{:?}", catalog.problems);
    assert_eq!(catalog.problems[0].subject, "service a/b c");
    assert!(state.updated.is_some() && state.error.is_none());
    source.end().await;
}

#[tokio::test]
async fn instances_come_and_go_and_the_last_takes_its_service_along() {
    let consul = Consul::start().await;
    let mut source = Source::start(config(&consul.address()));
    source
        .catalog(BOUND, |catalog| ids(catalog, "a").is_empty())
        .await;
    consul.register("a", "a1", 1).await;
    source
        .catalog(SOON, |catalog| ids(catalog, "a") == ["a1"])
        .await;
    consul.register("a", "a2", 2).await;
    source
        .catalog(SOON, |catalog| ids(catalog, "a") == ["a1", "a2"])
        .await;
    consul.deregister("a1").await;
    source
        .catalog(SOON, |catalog| ids(catalog, "a") == ["a2"])
        .await;
    consul.deregister("a2").await;
    source
        .catalog(SOON, |catalog| !catalog.services.contains_key("a"))
        .await;
    // It may come back, and is followed again.
    consul.register("a", "a3", 3).await;
    source
        .catalog(SOON, |catalog| ids(catalog, "a") == ["a3"])
        .await;
    source.end().await;
}

#[tokio::test]
async fn health_maintenance_weights_and_tags_are_seen() {
    let consul = Consul::start().await;
    let instance = |tags: &[&str], weight: u16| {
        json!({"Name": "a", "ID": "a1", "Address": "10.99.0.1", "Port": 1, "Tags": tags,
               "Weights": {"Passing": weight, "Warning": 2},
               "TaggedAddresses": {"virtual": {"Address": "198.18.9.9", "Port": 0}},
               "Check": {"CheckID": "ttl", "TTL": "10m", "Status": "passing"}})
    };
    consul
        .put("agent/service/register", instance(&["x"], 7))
        .await;
    let mut source = Source::start(config(&consul.address()));
    let catalog = source.catalog(BOUND, |_| true).await;
    let a1 = &catalog.services["a"][0];
    assert_eq!((a1.weight, a1.health), (7, SourceHealth::Passing));
    assert_eq!(a1.meta[consul::VIRTUAL_ADDRESS], "198.18.9.9");

    for (verb, expect) in [
        ("warn", SourceHealth::Warning),
        ("fail", SourceHealth::Critical),
        ("pass", SourceHealth::Passing),
    ] {
        consul
            .put(&format!("agent/check/{verb}/ttl"), json!(null))
            .await;
        source
            .catalog(SOON, |catalog| health(catalog, "a") == Some(expect))
            .await;
    }
    consul
        .put(
            "agent/service/maintenance/a1?enable=true&reason=disk",
            json!(null),
        )
        .await;
    let catalog = source
        .catalog(SOON, |catalog| {
            health(catalog, "a") == Some(SourceHealth::Maintenance)
        })
        .await;
    let reasons = catalog.services["a"][0]
        .checks
        .iter()
        .map(|check| check.output.as_str());
    assert!(reasons.into_iter().any(|reason| reason == "disk"));
    consul
        .put("agent/service/maintenance/a1?enable=false", json!(null))
        .await;
    source
        .catalog(SOON, |catalog| {
            health(catalog, "a") == Some(SourceHealth::Passing)
        })
        .await;

    consul
        .put(
            "agent/service/register",
            instance(&["x", "lb_balance=random"], 9),
        )
        .await;
    let changed = |catalog: &Catalog| {
        let a1 = &catalog.services["a"][0];
        a1.weight == 9 && a1.tags.contains("lb_balance=random")
    };
    source.catalog(SOON, changed).await;
    source.end().await;
}

#[tokio::test]
async fn what_cannot_be_used_is_left_out_and_named() {
    let consul = Consul::start().await;
    consul.register("a", "good", 1).await;
    consul.register("a", "no-port", 0).await;
    let name = json!({"Name": "a", "ID": "name", "Address": "http://web/", "Port": 1});
    consul.put("agent/service/register", name).await;
    let mut source = Source::start(config(&consul.address()));
    let catalog = source.catalog(BOUND, |_| true).await;
    assert_eq!(ids(&catalog, "a"), ["good"]);
    let subjects: Vec<_> = catalog
        .problems
        .iter()
        .map(|p| p.subject.as_str())
        .collect();
    assert_eq!(
        subjects,
        ["instance lb-test/name", "instance lb-test/no-port"]
    );
    source.end().await;
}

#[tokio::test]
async fn a_consul_that_is_away_is_named_with_the_remedy_and_found_when_it_comes() {
    let mut consul = Consul::start().await;
    consul.register("a", "a1", 1).await;
    consul.kill();
    let mut source = Source::start(config(&consul.address()));
    let state = source.until(BOUND, |state| state.error.is_some()).await;
    assert!(state.catalog.is_none(), "unknown is never empty");
    let error = state.error.unwrap();
    let expected = format!("cannot reach Consul at http://{}: ", consul.address());
    assert!(error.starts_with(&expected), "{error}");
    assert!(
        error.ends_with("; start it or correct its address"),
        "{error}"
    );
    consul.run().await;
    source
        .catalog(SOON, |catalog| ids(catalog, "a") == ["a1"])
        .await;
    source.end().await;
}

#[tokio::test]
async fn the_last_good_catalog_outlives_consul() {
    let mut consul = Consul::start().await;
    consul.register("a", "a1", 1).await;
    let mut source = Source::start(config(&consul.address()));
    source
        .catalog(BOUND, |catalog| ids(catalog, "a") == ["a1"])
        .await;
    consul.kill();
    let state = source.until(SOON, |state| state.error.is_some()).await;
    assert_eq!(ids(&state.catalog.unwrap(), "a"), ["a1"]);
    consul.run().await;
    let state = source.until(BOUND, |state| state.error.is_none()).await;
    assert_eq!(ids(&state.catalog.unwrap(), "a"), ["a1"]);
    // Not only the list is read again, the watch of the service is, too.
    consul.register("a", "a2", 2).await;
    source
        .catalog(SOON, |catalog| ids(catalog, "a") == ["a1", "a2"])
        .await;
    source.end().await;
}

#[tokio::test]
async fn a_wiped_consul_empties_nothing_before_its_agents_had_time_to_register_again() {
    let mut consul = Consul::start().await;
    for n in 0..20 {
        consul.register("b", &format!("b{n}"), 1).await;
    }
    consul.register("a", "a1", 1).await;
    let mut source = Source::start(config(&consul.address()));
    source
        .catalog(BOUND, |catalog| ids(catalog, "b").len() == 20)
        .await;
    consul.wipe().await;
    let held = |state: &SourceState| {
        state
            .error
            .as_ref()
            .is_some_and(|e| e.contains("went back in time"))
    };
    let state = source.until(BOUND, held).await;
    let catalog = state.catalog.unwrap();
    assert_eq!(
        (ids(&catalog, "a"), ids(&catalog, "b").len()),
        (vec!["a1"], 20)
    );
    // One registers again, and the answer that names it is believed at once.
    consul.register("a", "a9", 9).await;
    let catalog = source
        .catalog(SOON, |catalog| ids(catalog, "a") == ["a9"])
        .await;
    assert_eq!(ids(&catalog, "b").len(), 20);
    // The other does not; the end of the hold and the leader's word take it away.
    source
        .catalog(BOUND, |catalog| !catalog.services.contains_key("b"))
        .await;
    source.until(BOUND, |state| state.error.is_none()).await;
    source.end().await;
}

#[tokio::test]
async fn services_beyond_the_blocking_queries_are_polled() {
    let consul = Consul::start().await;
    for n in 0..6 {
        consul.register(&format!("s{n}"), &format!("i{n}"), 1).await;
    }
    let config = Config {
        max_watches: 2,
        ..config(&consul.address())
    };
    let mut source = Source::start(config);
    source
        .catalog(BOUND, |catalog| catalog.services.len() == 7)
        .await;
    for n in 0..6 {
        consul.register(&format!("s{n}"), &format!("j{n}"), 2).await;
    }
    let grown = |catalog: &Catalog| (0..6).all(|n| ids(catalog, &format!("s{n}")).len() == 2);
    source.catalog(BOUND, grown).await;
    for n in 0..6 {
        consul.deregister(&format!("i{n}")).await;
        consul.deregister(&format!("j{n}")).await;
    }
    source
        .catalog(BOUND, |catalog| catalog.services.len() == 1)
        .await;
    source.end().await;
}

#[tokio::test]
async fn a_token_without_rights_sees_nothing_and_takes_nothing_away() {
    let consul = Consul::start_guarded().await;
    consul.register("a", "a1", 1).await;
    let mut anonymous = Source::start(config(&consul.address()));
    let state = anonymous.until(BOUND, |state| state.error.is_some()).await;
    assert!(state.catalog.is_none(), "unknown is never empty");
    let error = state.error.unwrap();
    assert!(
        error.contains("service_prefix \"\" and node_prefix \"\" read"),
        "{error}"
    );
    anonymous.end().await;

    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("token");
    std::fs::write(&file, format!("{MASTER}\n")).unwrap();
    let mut source = Source::start(Config {
        token: Some(Token::File(file.clone())),
        ..config(&consul.address())
    });
    source
        .catalog(BOUND, |catalog| ids(catalog, "a") == ["a1"])
        .await;
    // The token is replaced by one that Consul does not know.
    std::fs::write(&file, "00000000-1111-2222-3333-444444444444").unwrap();
    consul.register("a", "a2", 2).await;
    consul.register("b", "b1", 2).await;
    let state = source.until(BOUND, |state| state.error.is_some()).await;
    let catalog = state.catalog.unwrap();
    assert!(!ids(&catalog, "a").is_empty(), "{catalog:?}");
    // And by the right one.
    std::fs::write(&file, MASTER).unwrap();
    source
        .catalog(BOUND, |catalog| {
            ids(catalog, "a") == ["a1", "a2"] && ids(catalog, "b") == ["b1"]
        })
        .await;
    source.until(BOUND, |state| state.error.is_none()).await;
    source.end().await;
}

#[tokio::test]
async fn a_filtered_answer_keeps_what_is_known() {
    let fake = Fake::start().await;
    let mut source = Source::start(config(&fake.address()));
    source
        .catalog(BOUND, |catalog| ids(catalog, "a") == ["a1"])
        .await;
    fake.say(Answer::Filtered);
    let state = source.until(BOUND, |state| state.error.is_some()).await;
    assert_eq!(ids(&state.catalog.unwrap(), "a"), ["a1"]);
    fake.say(Answer::Instance);
    source.until(BOUND, |state| state.error.is_none()).await;
    source.end().await;
}

#[tokio::test]
async fn a_server_without_a_leader_empties_nothing() {
    let fake = Fake::start().await;
    let mut source = Source::start(config(&fake.address()));
    source
        .catalog(BOUND, |catalog| ids(catalog, "a") == ["a1"])
        .await;
    fake.say(Answer::EmptyWithoutLeader);
    let state = source.until(BOUND, |state| state.error.is_some()).await;
    assert_eq!(ids(&state.catalog.unwrap(), "a"), ["a1"]);
    assert!(state.error.unwrap().contains("No cluster leader"));
    source.end().await;
}

#[tokio::test]
async fn a_server_that_knows_no_leader_and_has_an_older_state_changes_nothing() {
    let fake = Fake::start().await;
    let mut source = Source::start(config(&fake.address()));
    source
        .catalog(BOUND, |catalog| ids(catalog, "a") == ["a1"])
        .await;
    fake.say(Answer::OlderWithoutLeader);
    let state = source.until(BOUND, |state| state.error.is_some()).await;
    assert_eq!(ids(&state.catalog.unwrap(), "a"), ["a1"]);
    assert!(state.error.unwrap().contains("No cluster leader"));
    fake.say(Answer::Instance);
    source.until(BOUND, |state| state.error.is_none()).await;
    source.end().await;
}

#[tokio::test]
async fn a_server_that_loses_its_leader_during_a_wait_is_found_out_after_it() {
    let fake = Fake::start().await;
    let mut source = Source::start(Config {
        wait: Duration::from_secs(1),
        ..config(&fake.address())
    });
    source
        .catalog(BOUND, |catalog| ids(catalog, "a") == ["a1"])
        .await;
    fake.say(Answer::LostDuringWait);
    let state = source.until(BOUND, |state| state.error.is_some()).await;
    assert!(state.error.unwrap().contains("No cluster leader"));
    fake.say(Answer::Instance);
    source.until(BOUND, |state| state.error.is_none()).await;
    source.end().await;
}

#[tokio::test]
async fn nonsense_is_told_and_keeps_what_is_known() {
    let fake = Fake::start().await;
    let mut source = Source::start(config(&fake.address()));
    source
        .catalog(BOUND, |catalog| ids(catalog, "a") == ["a1"])
        .await;
    fake.say(Answer::Nonsense);
    let catalog = source
        .catalog(BOUND, |catalog| !catalog.problems.is_empty())
        .await;
    assert_eq!(ids(&catalog, "a"), ["a1"]);
    let problem = catalog.problems[0].to_string();
    assert!(problem.contains("cannot be read"), "{problem}");
    source.end().await;
}

#[tokio::test]
async fn a_consul_that_answers_every_query_at_once_is_not_asked_in_a_busy_loop() {
    let fake = Fake::start().await;
    let mut source = Source::start(config(&fake.address()));
    source
        .catalog(BOUND, |catalog| ids(catalog, "a") == ["a1"])
        .await;
    fake.say(Answer::InstanceAtOnce);
    let window = Duration::from_secs(3);
    let before = fake.requests();
    let began = Instant::now();
    let updated = source.state.borrow_and_update().updated;
    // Real time passes here because the number of requests in it is what is asserted.
    tokio::time::sleep(window).await;
    // Three watches, each a burst of five and one a second; a busy machine takes longer to look.
    let asked = fake.requests() - before;
    let seconds = began.elapsed().as_secs() + 1;
    let bound = 3 * (5 + usize::try_from(seconds).unwrap());
    assert!((3..=bound + 3).contains(&asked), "{asked} requests");
    assert!(
        !source.state.has_changed().unwrap(),
        "the answers are the same"
    );
    assert!(source.state.borrow().updated > updated);
    source.end().await;
}

/// A running VIP stage.
pub(crate) struct Vip {
    orders: mpsc::Sender<vip::Request>,
    names: watch::Sender<Option<Arc<Names>>>,
    vips: watch::Receiver<Option<Arc<Vips>>>,
    stop: CancellationToken,
    stage: JoinHandle<Result<(), vip::Error>>,
    _directory: tempfile::TempDir,
}

impl Vip {
    fn start(address: &str) -> Self {
        Self::start_as(config(address))
    }

    pub(crate) fn start_as(consul: Config) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (orders, taken) = mpsc::channel(4);
        let (names, wanted) = watch::channel(None);
        let (out, vips) = watch::channel(None);
        let stop = CancellationToken::new();
        let config = vip::Config {
            // Thirteen addresses: collisions are the rule.
            pool: Pool::try_from("10.0.0.0/28".parse::<ipnet::Ipv4Net>().unwrap()).unwrap(),
            datacenter: "dc1".to_owned(),
            quarantine: Duration::from_secs(600),
            records: directory.path().join("vips.json"),
            consul: Some(consul),
        };
        let stage = tokio::spawn(vip::run(config, wanted, out, taken, stop.clone()));
        Self {
            orders,
            names,
            vips,
            stop,
            stage,
            _directory: directory,
        }
    }

    pub(crate) fn want<'a>(&self, names: impl IntoIterator<Item = &'a str>) {
        let names = names
            .into_iter()
            .map(|name| (ServiceName::whole(name), None));
        self.names.send_replace(Some(Arc::new(names.collect())));
    }

    async fn order(&self, order: Order) -> Result<Vec<Entry>, String> {
        let (reply, answer) = oneshot::channel();
        let request = vip::Request { order, reply };
        timeout(BOUND, self.orders.send(request))
            .await
            .unwrap()
            .unwrap();
        timeout(BOUND, answer).await.unwrap().unwrap()
    }

    async fn pin(&self, service: &str, address: Ipv4Addr) -> Result<Vec<Entry>, String> {
        let service = service.to_owned();
        self.order(Order::Pin { service, address }).await
    }

    async fn release(&self, target: &str) -> Result<Vec<Entry>, String> {
        let target = target.to_owned();
        self.order(Order::Release { target }).await
    }

    /// Waits until `name` has the VIP that is told.
    #[track_caller]
    fn until(
        &mut self,
        name: &str,
        told: impl Fn(Ipv4Addr) -> bool,
    ) -> impl Future<Output = Ipv4Addr> {
        let caller = std::panic::Location::caller();
        let name = ServiceName::whole(name);
        async move {
            let vip = |vips: &Option<Arc<Vips>>| vips.as_ref()?.by_name.get(&name).copied();
            let found = timeout(
                BOUND,
                self.vips.wait_for(|vips| vip(vips).is_some_and(&told)),
            );
            let found = found.await.map(|vips| vip(&vips.unwrap()).unwrap());
            found.unwrap_or_else(|_| panic!("{caller}: still {:#?}", *self.vips.borrow()))
        }
    }

    pub(crate) async fn all(&mut self, count: usize) -> BTreeMap<ServiceName, Ipv4Addr> {
        let full =
            |vips: &Option<Arc<Vips>>| vips.as_ref().is_some_and(|v| v.by_name.len() == count);
        let found = timeout(BOUND, self.vips.wait_for(full)).await;
        let found = found.map(|vips| vips.unwrap().clone().unwrap().by_name.clone());
        found.unwrap_or_else(|_| panic!("still {:#?}", *self.vips.borrow()))
    }

    /// Waits until nothing is left to tell.
    pub(crate) async fn settled(&mut self) {
        let settled =
            |vips: &Option<Arc<Vips>>| vips.as_ref().is_some_and(|v| v.problems.is_empty());
        let found = timeout(BOUND, self.vips.wait_for(settled)).await.is_ok();
        assert!(found, "still {:#?}", *self.vips.borrow());
    }

    /// Waits until every name has this VIP.
    pub(crate) async fn agrees(&mut self, all: &BTreeMap<ServiceName, Ipv4Addr>) {
        let agreed = |vips: &Option<Arc<Vips>>| vips.as_ref().is_some_and(|v| v.by_name == *all);
        let found = timeout(BOUND, self.vips.wait_for(agreed)).await.is_ok();
        assert!(found, "still {:#?}", *self.vips.borrow());
    }

    pub(crate) async fn end(self) {
        self.stop.cancel();
        timeout(SOON, self.stage).await.unwrap().unwrap().unwrap();
    }
}

pub(crate) const LETTERS: [&str; 10] = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"];

#[tokio::test]
async fn two_hosts_that_see_names_at_once_agree_on_every_vip() {
    let consul = Consul::start().await;
    let (mut one, mut two) = (Vip::start(&consul.address()), Vip::start(&consul.address()));
    // Opposite orders of arrival, at the same time.
    for n in 1..=LETTERS.len() {
        one.want(LETTERS.into_iter().take(n));
        two.want(LETTERS.into_iter().rev().take(n));
        tokio::task::yield_now().await;
    }
    let deadline = Instant::now() + BOUND;
    loop {
        let (a, b) = (one.all(10).await, two.all(10).await);
        if a == b {
            break;
        }
        assert!(Instant::now() < deadline, "{a:#?} {b:#?}");
        tokio::select! {
            changed = one.vips.changed() => changed.unwrap(),
            changed = two.vips.changed() => changed.unwrap(),
            () = tokio::time::sleep_until(deadline) => {}
        }
    }
    // A third host that comes later reads what the others recorded.
    let mut three = Vip::start(&consul.address());
    three.want(LETTERS);
    let expected = one.all(10).await;
    let agreed = |vips: &Option<Arc<Vips>>| vips.as_ref().is_some_and(|v| v.by_name == expected);
    timeout(BOUND, three.vips.wait_for(agreed))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(one.vips.borrow().as_ref().unwrap().problems, []);
    one.end().await;
    two.end().await;
    three.end().await;
}

#[tokio::test]
async fn without_consul_colliding_names_are_served_and_the_risk_is_told_until_it_comes_back() {
    let mut consul = Consul::start().await;
    consul.kill();
    let mut vip = Vip::start(&consul.address());
    vip.want(LETTERS);
    let served = vip.all(10).await;
    let told = |vips: &Option<Arc<Vips>>| vips.as_ref().is_some_and(|v| !v.problems.is_empty());
    let problems = timeout(BOUND, vip.vips.wait_for(told))
        .await
        .unwrap()
        .unwrap()
        .clone();
    let text = problems.unwrap().problems[0].to_string();
    assert!(
        text.contains("other hosts may choose differently"),
        "{text}"
    );
    assert!(text.contains("cannot reach Consul"), "{text}");
    consul.run().await;
    let settled = |vips: &Option<Arc<Vips>>| vips.as_ref().is_some_and(|v| v.problems.is_empty());
    let vips = timeout(2 * BOUND, vip.vips.wait_for(settled))
        .await
        .unwrap()
        .unwrap()
        .clone();
    assert_eq!(vips.unwrap().by_name, served);
    vip.end().await;
}

#[tokio::test]
async fn a_token_that_may_not_read_the_records_is_told_and_colliding_names_are_served() {
    let fake = Fake::start().await;
    let mut vip = Vip::start(&fake.address());
    vip.want(LETTERS);
    vip.all(10).await;
    let told = |vips: &Option<Arc<Vips>>| vips.as_ref().is_some_and(|v| !v.problems.is_empty());
    let vips = timeout(BOUND, vip.vips.wait_for(told))
        .await
        .unwrap()
        .unwrap()
        .clone();
    let text = vips.unwrap().problems[0].to_string();
    assert!(text.contains("403"), "{text}");
    assert!(text.contains("key_prefix \"lb-agent/\" write"), "{text}");
    vip.end().await;
}

#[tokio::test]
async fn a_pin_holds_on_every_host_until_any_of_them_releases_it() {
    let consul = Consul::start().await;
    let (mut one, mut two) = (Vip::start(&consul.address()), Vip::start(&consul.address()));
    one.want(["a"]);
    two.want(["a"]);
    let home = one.until("a", |_| true).await;
    assert_eq!(two.until("a", |_| true).await, home);
    let other = |not: Ipv4Addr| {
        let mut pool = (2..15).map(|last| Ipv4Addr::new(10, 0, 0, last));
        pool.find(|it| *it != not && *it != home).unwrap()
    };
    let first = other(home);
    let pinned = one.pin("a", first).await.unwrap();
    assert_eq!((pinned[0].how, pinned[0].in_use), (How::Pin, true));
    two.until("a", |vip| vip == first).await;
    one.until("a", |vip| vip == first).await;

    // The other host may pin it anew: the former pin is gone everywhere.
    let second = other(first);
    two.pin("a", second).await.unwrap();
    one.until("a", |vip| vip == second).await;
    let refused = one.pin("b", second).await.unwrap_err();
    assert!(refused.contains("recorded for service a"), "{refused}");

    // Either host may release it; the service goes where its hash leads, on both.
    one.release("a").await.unwrap();
    two.until("a", |vip| vip == home).await;
    one.until("a", |vip| vip == home).await;
    // Whichever host was told first, and by whom: nobody else gets what clients may remember.
    for host in [&one, &two] {
        let listed = host.order(Order::List).await.unwrap();
        assert!(listed.iter().all(|it| it.how != How::Pin), "{listed:?}");
        let resting = listed.iter().filter(|it| it.how == How::Quarantine);
        let resting: Vec<_> = resting.map(|it| it.address).collect();
        assert_eq!(resting, [first.min(second), first.max(second)]);
    }
    one.end().await;
    two.end().await;
}

#[tokio::test]
async fn a_release_leaves_no_lower_index_once_consul_has_forgotten_it() {
    let consul = Consul::start().await;
    let mut vip = Vip::start(&consul.address());
    vip.want(["a", "b"]);
    let before = vip.all(2).await;
    let mut pool = (2..15).map(|last| Ipv4Addr::new(10, 0, 0, last));
    let mut free = || {
        pool.find(|it| before.values().all(|vip| vip != it))
            .unwrap()
    };
    // What is left is not forgotten: the highest index of a key.
    let newest = async || {
        let keys = consul.get("kv/lb-agent/vip?recurse").await;
        let keys = keys.as_array().unwrap().iter();
        keys.map(|it| it["ModifyIndex"].as_u64().unwrap())
            .max()
            .unwrap()
    };
    // Twice, since a value that stays the same is no write.
    for service in ["a", "b"] {
        vip.pin(service, free()).await.unwrap();
        let with_it = newest().await;
        vip.release(service).await.unwrap();
        assert!(newest().await > with_it);
    }
    vip.end().await;
}

#[tokio::test]
async fn two_hosts_that_pin_one_address_at_once_do_not_both_have_their_way() {
    let consul = Consul::start().await;
    let (mut one, mut two) = (Vip::start(&consul.address()), Vip::start(&consul.address()));
    one.want(["a", "b"]);
    two.want(["a", "b"]);
    let before = one.all(2).await;
    assert_eq!(two.all(2).await, before);
    let mut pool = (2..15).map(|last| Ipv4Addr::new(10, 0, 0, last));
    let free = pool
        .find(|it| before.values().all(|vip| vip != it))
        .unwrap();
    let (a, b) = tokio::join!(one.pin("a", free), two.pin("b", free));
    assert_ne!(a.is_ok(), b.is_ok(), "{a:?} {b:?}");
    let winner = if a.is_ok() { "a" } else { "b" };
    for vip in [&mut one, &mut two] {
        vip.until(winner, |vip| vip == free).await;
    }
    one.end().await;
    two.end().await;
}

/// A token with these rules.
async fn token(consul: &Consul, rules: &str) -> Token {
    let secret = "b1c7d2a4-0000-4000-8000-9d1c5f0a7e33";
    let policy = json!({"Name": "lb-test", "Rules": rules});
    consul.put("acl/policy", policy).await;
    let token = json!({"SecretID": secret, "Policies": [{"Name": "lb-test"}]});
    consul.put("acl/token", token).await;
    Token::Value(secret.to_owned())
}

#[tokio::test]
async fn a_token_without_rights_to_the_store_is_told_only_when_it_matters() {
    for rules in [
        // None at all, and to read only.
        "service_prefix \"\" { policy = \"read\" }",
        "key_prefix \"lb-agent/\" { policy = \"read\" }",
    ] {
        let consul = Consul::start_guarded().await;
        let mut with = config(&consul.address());
        with.token = Some(token(&consul, rules).await);
        let mut vip = Vip::start_as(with);
        // Nothing collides: the hash is all that hosts need to agree.
        vip.want(["a"]);
        let home = vip.until("a", |_| true).await;
        let refused = vip.pin("a", free_beside(home)).await.unwrap_err();
        assert!(
            refused.contains("key_prefix \"lb-agent/\" write"),
            "{refused}"
        );
        assert_eq!(vip.vips.borrow().as_ref().unwrap().problems, []);
        assert_eq!(vip.until("a", |_| true).await, home);

        vip.want(LETTERS);
        vip.all(LETTERS.len()).await;
        let told =
            |vips: &Option<Arc<Vips>>| vips.as_ref().is_some_and(|vips| !vips.problems.is_empty());
        let vips = timeout(BOUND, vip.vips.wait_for(told)).await;
        let text = vips.unwrap().unwrap().as_ref().unwrap().problems[0].to_string();
        assert!(text.contains("key_prefix \"lb-agent/\" write"), "{text}");
        vip.end().await;
    }
}

#[tokio::test]
async fn a_release_that_the_token_may_not_write_is_refused_with_the_right() {
    let consul = Consul::start_guarded().await;
    let key = "kv/lb-agent/vip/10.0.0.14";
    let record = json!({"version": 1, "service": "other", "pinned": true});
    consul.put(key, record).await;
    let mut with = config(&consul.address());
    with.token = Some(token(&consul, "key_prefix \"lb-agent/\" { policy = \"read\" }").await);
    let vip = Vip::start_as(with);
    let known = async {
        while vip.order(Order::List).await.unwrap().is_empty() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(BOUND, known).await.unwrap();
    let refused = vip.release("other").await.unwrap_err();
    assert!(
        refused.contains("key_prefix \"lb-agent/\" write"),
        "{refused}"
    );
    assert_eq!(consul.get(key).await.as_array().unwrap().len(), 1);
    vip.end().await;
}

fn free_beside(taken: Ipv4Addr) -> Ipv4Addr {
    let mut pool = (2..15).map(|last| Ipv4Addr::new(10, 0, 0, last));
    pool.find(|it| *it != taken).unwrap()
}
