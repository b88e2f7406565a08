//! The stage against real listeners on loopback, in real time: paused time would run ahead of the sockets.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpSocket},
    sync::{mpsc, watch},
    task::JoinHandle,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use super::{Config, Metrics, Verdicts, run};
use crate::{
    catalog::InstanceKey,
    options::{CheckKind, Options},
    snapshot::{Backend, Probe, ProbeState, Service, ServiceName, Snapshot},
};

struct Stage {
    snapshots: watch::Sender<Option<Arc<Snapshot>>>,
    suspects: mpsc::Sender<SocketAddr>,
    verdicts: watch::Receiver<Arc<Verdicts>>,
    stop: CancellationToken,
    stage: JoinHandle<()>,
}

impl Stage {
    fn start(config: Config) -> Self {
        let (snapshots, snapshots_in) = watch::channel(None);
        let (suspects, suspects_in) = mpsc::channel(8);
        let (verdicts_out, verdicts) = watch::channel(Arc::default());
        let stop = CancellationToken::new();
        let metrics = Arc::new(Metrics::default());
        let stage = tokio::spawn(run(
            config,
            snapshots_in,
            suspects_in,
            verdicts_out,
            metrics,
            stop.clone(),
        ));
        Self {
            snapshots,
            suspects,
            verdicts,
            stop,
            stage,
        }
    }

    fn follow(&self, addresses: &[SocketAddr], answered: bool) {
        let snapshot = Arc::new(snapshot(addresses, answered));
        self.snapshots.send_replace(Some(snapshot));
    }

    async fn until(&mut self, condition: impl FnMut(&Arc<Verdicts>) -> bool) -> Arc<Verdicts> {
        let verdicts = timeout(DEADLINE, self.verdicts.wait_for(condition)).await;
        verdicts.expect("in time").expect("the stage runs").clone()
    }

    async fn until_state(&mut self, address: SocketAddr, state: ProbeState) -> Probe {
        let is = |it: &Verdicts| {
            it.of(address, &CheckKind::Tcp)
                .is_some_and(|probe| probe.state == state)
        };
        let verdicts = self.until(|it| is(it)).await;
        verdicts.of(address, &CheckKind::Tcp).unwrap().clone()
    }

    async fn end(self) {
        self.stop.cancel();
        timeout(DEADLINE, self.stage).await.unwrap().unwrap();
    }
}

fn snapshot(addresses: &[SocketAddr], answered: bool) -> Snapshot {
    in_container(None, addresses, answered)
}

fn in_container(container: Option<&str>, addresses: &[SocketAddr], answered: bool) -> Snapshot {
    let backend = |address: &SocketAddr| {
        let key = InstanceKey::new("n", address.to_string());
        let mut backend = Backend::usable(*address);
        backend.probe.state = ProbeState::Starting;
        backend.container = container.map(Into::into);
        (key, backend)
    };
    let service = Service {
        vip: None,
        options: Options::default(),
        aliases: BTreeSet::new(),
        backends: addresses.iter().map(backend).collect(),
    };
    Snapshot {
        number: 1,
        answered,
        stopgap: false,
        complete: false,
        services: [(ServiceName::whole("s"), Arc::new(service))].into(),
        problems: Vec::new(),
        sources: BTreeMap::new(),
    }
}

/// On a loopback address of its own, so that no other test takes the port when the listener is dropped.
async fn listener() -> (TcpListener, SocketAddr) {
    static USED: AtomicU8 = AtomicU8::new(1);
    let host = Ipv4Addr::new(127, 78, 0, USED.fetch_add(1, Ordering::Relaxed));
    let listener = TcpListener::bind((host, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

const DEADLINE: Duration = Duration::from_secs(20);

/// Longer than any test may last: whatever happens in time does not happen by the interval.
const SLOW: Config = Config {
    interval: Duration::from_secs(3600),
    timeout: Duration::from_secs(2),
    rise: 2,
    fall: 3,
};

#[tokio::test]
async fn a_suspected_backend_that_died_is_down_long_before_the_interval_ends() {
    let mut stage = Stage::start(SLOW);
    let (dying, gone) = listener().await;
    let (_living, stays) = listener().await;
    stage.follow(&[gone, stays], true);
    stage.until_state(gone, ProbeState::Up).await;
    stage.until_state(stays, ProbeState::Up).await;
    drop(dying);
    stage.suspects.send(gone).await.unwrap();
    stage.suspects.send(stays).await.unwrap();
    let probe = stage.until_state(gone, ProbeState::Down).await;
    assert_eq!(probe.error.as_deref(), Some("connection refused"));
    stage.until_state(stays, ProbeState::Up).await;
    stage.end().await;
}

#[tokio::test]
async fn another_container_at_the_same_address_is_up_when_it_listens_itself() {
    let quick = Config {
        interval: Duration::from_millis(200),
        ..SLOW
    };
    let mut stage = Stage::start(quick);
    let (former, address) = listener().await;
    let follow = |stage: &Stage, container| {
        let snapshot = in_container(Some(container), &[address], true);
        stage.snapshots.send_replace(Some(Arc::new(snapshot)));
    };
    follow(&stage, "a");
    stage.until_state(address, ProbeState::Up).await;
    drop(former);
    follow(&stage, "b");
    let state = |it: &Verdicts| {
        let probe = it.on(address, &CheckKind::Tcp, Some("b"));
        probe.map(|it| it.state)
    };
    let verdicts = stage.until(|it| state(it).is_some()).await;
    assert_ne!(state(&verdicts), Some(ProbeState::Up));
    let _latter = TcpListener::bind(address).await.unwrap();
    stage.until(|it| state(it) == Some(ProbeState::Up)).await;
    stage.end().await;
}

#[tokio::test]
async fn a_backend_falls_and_rises_again_without_any_hint() {
    let quick = Config {
        interval: Duration::from_millis(200),
        ..SLOW
    };
    let mut stage = Stage::start(quick);
    let (first, address) = listener().await;
    stage.follow(&[address], true);
    stage.until_state(address, ProbeState::Up).await;
    drop(first);
    stage.until_state(address, ProbeState::Down).await;
    let _second = TcpListener::bind(address).await.unwrap();
    let probe = stage.until_state(address, ProbeState::Up).await;
    assert_eq!(probe.error, None);
    assert!(probe.took.is_some());
    stage.end().await;
}

#[tokio::test]
async fn the_verdicts_settle_when_all_sources_answered_and_every_target_was_judged() {
    let mut stage = Stage::start(SLOW);
    let (_living, up) = listener().await;
    let closed = TcpSocket::new_v4().unwrap();
    closed.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let down = closed.local_addr().unwrap();
    stage.follow(&[up], false);
    stage.until_state(up, ProbeState::Up).await;
    assert!(!stage.verdicts.borrow().settled);
    stage.follow(&[up, down], true);
    let verdicts = stage.until(|it| it.settled).await;
    let state = |address| verdicts.of(address, &CheckKind::Tcp).unwrap().state;
    assert_eq!(state(up), ProbeState::Up);
    assert_eq!(state(down), ProbeState::Down);
    stage.end().await;
}

#[test]
fn a_backend_that_no_address_of_this_host_leads_to_is_down_and_holds_nobody_up() {
    let host = lb_testkit::Netns::new("health").unwrap();
    let judged = async {
        std::fs::write("/proc/sys/net/ipv6/conf/all/disable_ipv6", "1").unwrap();
        let mut stage = Stage::start(SLOW);
        let (_living, up) = listener().await;
        let beyond = SocketAddr::from((Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 7), 80));
        stage.follow(&[up, beyond], true);
        let verdicts = stage.until(|it| it.settled).await;
        stage.end().await;
        let of = |address| verdicts.of(address, &CheckKind::Tcp).unwrap().clone();
        (of(up), of(beyond))
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let (up, beyond) = host.enter(|| runtime.block_on(judged)).unwrap();
    assert_eq!(up.state, ProbeState::Up);
    assert_eq!(beyond.state, ProbeState::Down);
    let why = beyond.error.as_deref();
    assert_eq!(why, Some("this host has no address to reach it from"));
}

/// Answers 200 and 500 in turn, for as long as it is asked.
async fn flapping(listener: TcpListener) {
    for answer in ["200 OK", "500 Internal Server Error"].iter().cycle() {
        let Ok((mut stream, _)) = listener.accept().await else {
            return;
        };
        let mut head = BufReader::new(&mut stream).lines();
        while matches!(head.next_line().await, Ok(Some(line)) if !line.is_empty()) {}
        let answer = format!("HTTP/1.1 {answer}\r\ncontent-length: 0\r\n\r\n");
        // Whoever asked may have gone.
        let _ = stream.write_all(answer.as_bytes()).await;
    }
}

#[tokio::test]
async fn a_backend_that_flaps_from_the_start_is_down_and_holds_nobody_up() {
    let mut stage = Stage::start(SLOW);
    let (listener, address) = listener().await;
    let server = tokio::spawn(flapping(listener));
    let check = CheckKind::Http("/".to_owned());
    let mut snapshot = snapshot(&[address], true);
    for service in snapshot.services.values_mut() {
        Arc::make_mut(service).options.check = check.clone();
    }
    stage.snapshots.send_replace(Some(Arc::new(snapshot)));
    let verdicts = stage.until(|it| it.settled).await;
    let probe = verdicts.of(address, &check).unwrap();
    assert_eq!(probe.state, ProbeState::Down);
    server.abort();
    stage.end().await;
}

#[tokio::test]
async fn who_comes_after_the_first_answer_is_not_waited_for() {
    let mut stage = Stage::start(SLOW);
    // It never accepts, so that a probe over HTTP gets no answer.
    let (_silent, slow) = listener().await;
    let check = CheckKind::Http("/".to_owned());
    let (_living, up) = listener().await;
    stage.follow(&[up], true);
    stage.until(|it| it.of(up, &CheckKind::Tcp).is_some()).await;
    let mut snapshot = snapshot(&[up], true);
    let late = self::snapshot(&[slow], true);
    let mut service = late.services[&ServiceName::whole("s")].clone();
    Arc::make_mut(&mut service).options.check = check.clone();
    snapshot
        .services
        .insert(ServiceName::whole("late"), service);
    stage.snapshots.send_replace(Some(Arc::new(snapshot)));
    let verdicts = stage
        .until(|it| it.settled && it.of(slow, &check).is_some())
        .await;
    let probe = verdicts.of(slow, &check).unwrap();
    assert_eq!(probe.state, ProbeState::Starting);
    stage.end().await;
}

#[tokio::test]
async fn no_backend_at_all_settles_at_once() {
    let mut stage = Stage::start(SLOW);
    stage.follow(&[], true);
    let verdicts = stage.until(|it| it.settled).await;
    assert_eq!(verdicts.iter().count(), 0);
    stage.end().await;
}

#[tokio::test]
async fn a_thousand_targets_are_judged_with_bounded_descriptors() {
    let mut stage = Stage::start(SLOW);
    let (_listener, address) = listener().await;
    // One listener, a thousand of the addresses of loopback: only the first answers.
    let others = (1..1000u16).map(|n| {
        let [high, low] = n.to_be_bytes();
        SocketAddr::from(([127, 77, high, low], address.port()))
    });
    let addresses: Vec<SocketAddr> = std::iter::once(address).chain(others).collect();
    stage.follow(&addresses, true);
    let verdicts = stage.until(|it| it.settled).await;
    let up = verdicts.iter().filter(|(_, it)| it.state == ProbeState::Up);
    assert_eq!(verdicts.iter().count(), 1000);
    assert_eq!(up.count(), 1);
    stage.end().await;
}
