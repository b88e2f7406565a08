use std::time::Duration;

use tokio::time::timeout;

use super::*;

/// A running stage without a Consul.
struct Running {
    names: watch::Sender<Option<Arc<Names>>>,
    vips: watch::Receiver<Option<Arc<Vips>>>,
    stop: CancellationToken,
    stage: tokio::task::JoinHandle<Result<(), Error>>,
}

const BOUND: Duration = Duration::from_secs(10);

impl Running {
    fn start(records: PathBuf) -> Self {
        let (names, wanted) = watch::channel(None);
        let (out, vips) = watch::channel(None);
        let stop = CancellationToken::new();
        let config = Config {
            // Five addresses: collisions are the rule.
            pool: Pool::try_from("10.0.0.0/29".parse::<ipnet::Ipv4Net>().unwrap()).unwrap(),
            datacenter: "dc1".to_owned(),
            records,
            consul: None,
        };
        let stage = tokio::spawn(run(config, wanted, out, stop.clone()));
        Self {
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
        self.names.send_replace(Some(Arc::new(names.clone())));
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
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
}

#[tokio::test]
async fn a_state_directory_that_cannot_be_written_is_reported_and_names_are_served() {
    let directory = tempfile::tempdir().unwrap();
    let mut running = Running::start(directory.path().join("absent/vips.json"));
    let vips = running.ask(&["a", "b", "c", "d", "e"]).await;
    assert!(
        vips.problems[0].message.contains("cannot write"),
        "{:?}",
        vips.problems
    );
    running.end().await;
}
