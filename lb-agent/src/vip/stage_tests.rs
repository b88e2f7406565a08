use std::net::Ipv4Addr;

use tokio::time::timeout;

use super::*;
use crate::snapshot::ServiceName;

/// A running stage without a Consul.
struct Running {
    orders: mpsc::Sender<Request>,
    names: watch::Sender<Option<Wanted>>,
    vips: watch::Receiver<Option<Arc<Vips>>>,
    stop: CancellationToken,
    stage: tokio::task::JoinHandle<Result<(), Error>>,
}

const BOUND: Duration = Duration::from_secs(10);

impl Running {
    fn start(records: PathBuf) -> Self {
        Self::start_with(records, Duration::from_secs(600))
    }

    fn start_with(records: PathBuf, quarantine: Duration) -> Self {
        let (orders, taken) = mpsc::channel(4);
        let (names, wanted) = watch::channel(None);
        let (out, vips) = watch::channel(None);
        let stop = CancellationToken::new();
        let config = Config {
            // Five addresses: collisions are the rule.
            pool: Pool::try_from("10.0.0.0/29".parse::<ipnet::Ipv4Net>().unwrap()).unwrap(),
            datacenter: "dc1".to_owned(),
            quarantine,
            records,
            consul: None,
        };
        let stage = tokio::spawn(run(config, wanted, out, taken, stop.clone()));
        Self {
            orders,
            names,
            vips,
            stop,
            stage,
        }
    }

    async fn ask(&mut self, names: &[&str]) -> Arc<Vips> {
        let names: Names = names
            .iter()
            .map(|n| (ServiceName::whole(*n), None))
            .collect();
        self.names.send_replace(Some(Wanted::all(names.clone())));
        let served = |vips: &Option<Arc<Vips>>| {
            vips.as_ref().is_some_and(|vips| {
                names.keys().eq(vips.by_name.keys()) || names.len() > 5 && vips.by_name.len() == 5
            })
        };
        let vips = timeout(BOUND, self.vips.wait_for(served))
            .await
            .unwrap()
            .unwrap();
        vips.clone().unwrap()
    }

    async fn order(&self, order: Order) -> Result<Vec<Entry>, String> {
        let (reply, answer) = oneshot::channel();
        let sent = self.orders.send(Request { order, reply });
        timeout(BOUND, sent).await.unwrap().unwrap();
        timeout(BOUND, answer).await.unwrap().unwrap()
    }

    async fn pin(&self, service: &str, address: &str) -> Result<Vec<Entry>, String> {
        let (service, address) = (service.to_owned(), address.parse().unwrap());
        self.order(Order::Pin { service, address }).await
    }

    async fn release(&self, target: &str) -> Result<Vec<Entry>, String> {
        let target = target.to_owned();
        self.order(Order::Release { target }).await
    }

    /// Waits until `name` has `address`, or none.
    async fn until(&mut self, name: &str, address: Option<Ipv4Addr>) {
        let name = ServiceName::whole(name);
        let told = |vips: &Option<Arc<Vips>>| {
            let vips = vips.as_ref();
            vips.is_some_and(|vips| vips.by_name.get(&name).copied() == address)
        };
        timeout(BOUND, self.vips.wait_for(told))
            .await
            .unwrap()
            .unwrap();
    }

    async fn end(self) {
        self.stop.cancel();
        timeout(BOUND, self.stage).await.unwrap().unwrap().unwrap();
    }
}

#[tokio::test]
async fn nothing_is_published_before_names_are_known() {
    let directory = tempfile::tempdir().unwrap();
    let mut running = Running::start(directory.path().join("vips.json"));
    assert!(running.vips.borrow().is_none());
    assert_eq!(running.ask(&[]).await, Arc::default());
    running.end().await;
}

#[tokio::test]
async fn collisions_are_the_same_after_a_restart_in_whatever_order_names_come() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("vips.json");
    let mut first = Running::start(file.clone());
    first.ask(&["e"]).await;
    let before = first.ask(&["a", "b", "c", "d", "e"]).await;
    first.end().await;
    let mut second = Running::start(file);
    for some in [
        &["d"][..],
        &["a", "d"],
        &["b", "c"],
        &["a", "b", "c", "d", "e"],
    ] {
        for (name, vip) in &second.ask(some).await.by_name {
            assert_eq!(before.by_name[name], *vip, "{name}");
        }
    }
    second.end().await;
}

#[tokio::test]
async fn a_damaged_file_is_set_aside_and_reported_and_names_are_served() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("vips.json");
    std::fs::write(&file, "{broken").unwrap();
    let mut running = Running::start(file.clone());
    let vips = running.ask(&["a"]).await;
    assert!(
        vips.problems[0].message.contains("set aside"),
        "{:?}",
        vips.problems
    );
    running.end().await;
    assert!(!file.exists());
    let left = std::fs::read_dir(directory.path()).unwrap();
    let left: Vec<_> = left.map(|it| it.unwrap().file_name()).collect();
    assert!(
        left.iter().any(|name| name == "vips.json.damaged"),
        "{left:?}"
    );
}

#[tokio::test]
async fn a_state_directory_that_cannot_be_written_is_reported_and_names_are_served() {
    let directory = tempfile::tempdir().unwrap();
    let mut running = Running::start(directory.path().join("absent/vips.json"));
    let vips = running.ask(&["a", "b", "c", "d", "e"]).await;
    let told = |vips: &Option<Arc<Vips>>| {
        let mut problems = vips.iter().flat_map(|vips| &vips.problems);
        problems
            .any(|it| it.subject.starts_with("VIP records") && it.message.contains("cannot write"))
    };
    assert!(vips.by_name.len() == 5);
    timeout(BOUND, running.vips.wait_for(told))
        .await
        .unwrap()
        .unwrap();
    running.end().await;
}

#[tokio::test]
async fn a_quarantine_outlives_the_agent_and_ends() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("vips.json");
    let mut first = Running::start(file.clone());
    let before = first.ask(&["a", "b", "c", "d", "e"]).await;
    first.end().await;

    // All five addresses are in quarantine: nobody knows yet who is still there.
    let mut second = Running::start(file.clone());
    let names = Names::from([(ServiceName::whole("new"), None)]);
    second.names.send_replace(Some(Wanted::all(names)));
    let refused = |vips: &Option<Arc<Vips>>| {
        let mut problems = vips.iter().flat_map(|vips| &vips.problems);
        problems.any(|it| it.subject == "service new" && it.message.contains("quarantine"))
    };
    timeout(BOUND, second.vips.wait_for(refused))
        .await
        .unwrap()
        .unwrap();
    let listed = second.order(Order::List).await.unwrap();
    let quarantined = listed.iter().filter(|it| it.how == How::Quarantine);
    assert_eq!(
        quarantined.count() + listed.iter().filter(|it| it.how == How::Record).count(),
        5
    );
    // An operator who knows better ends one.
    let a = before.by_name[&ServiceName::whole("a")];
    let freed = second.release("a").await.unwrap();
    assert_eq!((freed[0].address, freed[0].in_use), (a, false));
    second.until("new", Some(a)).await;
    second.end().await;

    let mut third = Running::start_with(file, Duration::ZERO);
    third.ask(&["f", "g", "h", "i", "j"]).await;
    third.end().await;
}

#[tokio::test]
async fn a_quarantine_ends_by_itself() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("vips.json");
    let mut running = Running::start_with(file, Duration::from_millis(300));
    running.ask(&["a", "b", "c", "d", "e"]).await;
    running.ask(&["f", "g", "h", "i", "j"]).await;
    running.end().await;
}

#[tokio::test]
async fn a_pin_is_carried_out_listed_kept_and_released() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("vips.json");
    let mut running = Running::start(file.clone());
    let before = running.ask(&["a"]).await.by_name[&ServiceName::whole("a")];
    let free = (2..=6).map(|last| Ipv4Addr::new(10, 0, 0, last));
    let free = free.into_iter().find(|it| *it != before).unwrap();
    let pinned = running.pin("a", &free.to_string()).await.unwrap();
    assert_eq!((pinned[0].how, pinned[0].in_use), (How::Pin, true));
    running.until("a", Some(free)).await;
    running.end().await;

    let mut running = Running::start(file);
    assert_eq!(
        running.ask(&["a"]).await.by_name[&ServiceName::whole("a")],
        free
    );
    let listed = running.order(Order::List).await.unwrap();
    let pin = listed.iter().find(|it| it.how == How::Pin).unwrap();
    assert_eq!((pin.address, pin.service.as_deref()), (free, Some("a")));
    let released = running.release("a").await.unwrap();
    assert_eq!((released[0].address, released[0].how), (free, How::Pin));
    running.until("a", Some(before)).await;
    running.end().await;
}

#[tokio::test]
async fn orders_that_cannot_be_carried_out_are_refused_with_the_reason() {
    let directory = tempfile::tempdir().unwrap();
    let mut running = Running::start(directory.path().join("vips.json"));
    let vips = running.ask(&["a", "b"]).await;
    let of = |name: &str| vips.by_name[&ServiceName::whole(name)].to_string();
    for (service, address, why) in [
        ("a", "10.0.0.1", "the agent's own address"),
        (
            "a",
            "10.0.0.7",
            "not one that services may have in the pool 10.0.0.0/29",
        ),
        ("a", "192.0.2.1", "not one that services may have"),
        ("a", &of("b"), "in use by service b"),
        ("", "10.0.0.3", "a service has a name"),
    ] {
        let refused = running.pin(service, address).await.unwrap_err();
        assert!(refused.contains(why), "{refused}");
    }
    for (target, why) in [
        ("a", "in use by service a"),
        (&*of("a"), "in use by service a"),
        ("nobody", "nothing is kept for nobody"),
        ("10.0.0.1", "nothing is kept for 10.0.0.1"),
    ] {
        let refused = running.release(target).await.unwrap_err();
        assert!(refused.contains(why), "{refused}");
    }
    running.ask(&["b"]).await;
    let refused = running.pin("b", &of("a")).await.unwrap_err();
    assert!(refused.contains("clients may remember it"), "{refused}");
    assert_eq!(running.vips.borrow().as_ref().unwrap().by_name.len(), 1);
    running.end().await;
}
