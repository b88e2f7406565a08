//! Who the clients are, with the namespaces of real containers.

use std::{
    collections::BTreeSet,
    fs::File,
    net::UdpSocket,
    os::fd::AsFd as _,
    path::PathBuf,
    sync::Arc,
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use lb_agent::{
    catalog::Problem,
    clients::{self, Clients, Config, Outputs, Standing},
    docker::Address,
};
use lb_testkit::Docker;
use nix::sched::{CloneFlags, setns};
use tokio::{sync::watch, time::timeout};
use tokio_util::sync::CancellationToken;

use crate::{
    fake::Fake,
    kit::{Follower, LIMIT, engine, follow, named, start},
};

/// The stage behind a follower; dropping it ends both.
struct Watch {
    follower: Follower,
    clients: watch::Receiver<Option<Arc<Clients>>>,
    problems: watch::Receiver<Vec<Problem>>,
    stop: CancellationToken,
}

impl Watch {
    fn start(docker: &Docker) -> Self {
        Self::of(follow(docker), "/proc".into())
    }

    fn of(follower: Follower, proc: PathBuf) -> Self {
        let outputs = Outputs::default();
        let (clients, problems) = (outputs.clients.subscribe(), outputs.problems.subscribe());
        let stop = CancellationToken::new();
        let engine = follower.engine.clone();
        tokio::spawn(clients::run(Config { proc }, engine, outputs, stop.clone()));
        Self {
            follower,
            clients,
            problems,
            stop,
        }
    }

    /// Waits for a value of which this holds.
    #[track_caller]
    fn until(&mut self, holds: impl Fn(&Clients) -> bool) -> impl Future<Output = Arc<Clients>> {
        let place = std::panic::Location::caller();
        async move {
            let known = |it: &Option<Arc<Clients>>| it.as_deref().is_some_and(&holds);
            let waited = timeout(LIMIT, self.clients.wait_for(known)).await;
            let found = waited.map(|it| it.unwrap().clone().unwrap());
            found.unwrap_or_else(|_| panic!("{place}: not in time: {:#?}", self.clients.borrow()))
        }
    }

    /// Waits for the container `name` to be a client of which this holds; answers its cookie too.
    #[track_caller]
    fn until_client(
        &mut self,
        name: &str,
        holds: impl Fn(&Standing) -> bool,
    ) -> impl Future<Output = (u64, Standing)> {
        let clients = self.until(move |all| client(all, name).is_some_and(|(_, it)| holds(&it)));
        async move { client(&*clients.await, name).unwrap() }
    }

    /// The cookie that a socket has in the namespace of the container `name`.
    fn cookie_in(&self, name: &str) -> u64 {
        let container = named(&self.follower.engine.borrow(), name).unwrap();
        let pid = container.process.unwrap().pid;
        let inside = move || {
            let namespace = File::open(format!("/proc/{pid}/ns/net")).unwrap();
            setns(namespace, CloneFlags::CLONE_NEWNET).unwrap();
            cookie_here()
        };
        thread::spawn(inside).join().unwrap()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn cookie_here() -> u64 {
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    lb_sys::netns::cookie(socket.as_fd()).unwrap()
}

fn client(clients: &Clients, name: &str) -> Option<(u64, Standing)> {
    let mut all = clients.by_cookie.iter();
    let (cookie, standing) = all.find(|(_, it)| it.name == name)?;
    Some((*cookie, standing.clone()))
}

fn names(clients: &Clients) -> BTreeSet<&str> {
    let all = clients.by_cookie.values();
    all.map(|it| it.name.as_str()).collect()
}

fn on(standing: &Standing, networks: &[&str]) -> bool {
    standing.networks.iter().eq(networks)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_container_stands_where_its_networks_are() {
    let docker = engine();
    docker.docker(["network", "create", "lb-other"]).unwrap();
    let mut watch = Watch::start(&docker);
    assert_eq!(*watch.until(|_| true).await, Clients::default());
    // Known while the follower runs, not by its first list.
    let internal = ["network", "create", "--internal", "lb-inner"];
    docker.docker(internal).unwrap();
    let id = start(&docker, "one", &[]);
    start(&docker, "inner", &["--net", "lb-inner"]);
    start(&docker, "host", &["--net", "host"]);
    start(&docker, "none", &["--net", "none"]);
    let beside = "run -d --name beside --net container:one web /bin/busybox sleep 1000";
    docker.docker(beside.split(' ')).unwrap();

    let (cookie, one) = watch.until_client("one", |it| on(it, &["bridge"])).await;
    assert_eq!((&one.container, one.outside), (&id, true));
    let address = docker.docker([
        "inspect",
        "--format",
        "{{.NetworkSettings.Networks.bridge.IPAddress}}",
        "one",
    ]);
    let addresses: Vec<String> = one.addresses.iter().map(ToString::to_string).collect();
    assert_eq!(addresses, [address.unwrap()]);
    assert_eq!(cookie, watch.cookie_in("one"));
    assert_ne!(cookie, docker.netns().enter(cookie_here).unwrap());

    let (inner_cookie, inner) = watch
        .until_client("inner", |it| on(it, &["lb-inner"]))
        .await;
    assert!(!inner.outside && inner_cookie != cookie);
    let (_, none) = watch.until_client("none", |_| true).await;
    assert!(!none.outside && on(&none, &[]) && none.addresses.is_empty());
    watch
        .follower
        .until_container("beside", |it| it.process.is_some())
        .await;
    assert_eq!(watch.cookie_in("beside"), cookie);
    let known = watch.until(|all| all.by_cookie.len() >= 3).await;
    assert_eq!(names(&known), ["inner", "none", "one"].into());

    // Networks that come and go leave the namespace what it is.
    let network = |what: &str, network: &str, name: &str| {
        docker.docker(["network", what, network, name]).unwrap();
    };
    network("connect", "lb-other", "inner");
    let (same, both) = watch
        .until_client("inner", |it| on(it, &["lb-inner", "lb-other"]))
        .await;
    assert_eq!(
        (same, both.outside, both.addresses.len()),
        (inner_cookie, true, 2)
    );
    network("disconnect", "lb-other", "inner");
    let alone = watch
        .until_client("inner", |it| on(it, &["lb-inner"]))
        .await;
    assert_eq!(alone, (inner_cookie, inner));
    network("disconnect", "bridge", "one");
    let (_, cut) = watch.until_client("one", |it| on(it, &[])).await;
    assert!(!cut.outside);
    network("connect", "bridge", "one");
    watch.until_client("one", |it| on(it, &["bridge"])).await;

    // The namespace outlives its owner as long as somebody else is in it, and leads nowhere.
    docker.docker(["stop", "one"]).unwrap();
    let orphaned = watch.until_client("beside", |it| on(it, &[])).await;
    assert_eq!((orphaned.0, orphaned.1.outside), (cookie, false));
    docker.docker(["start", "one"]).unwrap();
    let (again, _) = watch.until_client("one", |it| on(it, &["bridge"])).await;
    assert_ne!(again, cookie);
    assert_eq!(again, watch.cookie_in("one"));
    assert!(client(&watch.clients.borrow().clone().unwrap(), "beside").is_some());
    for name in ["one", "beside", "inner", "none", "host"] {
        docker.docker(["rm", "-f", name]).unwrap();
    }
    watch.until(|all| all.by_cookie.is_empty()).await;
    assert!(
        watch.problems.borrow().is_empty(),
        "{:?}",
        watch.problems.borrow()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_is_away_takes_no_client_away() {
    let mut docker = engine();
    let mut watch = Watch::start(&docker);
    start(&docker, "one", &[]);
    let before = watch.until(|all| client(all, "one").is_some()).await;
    docker.kill().unwrap();
    watch.follower.until(|engine| engine.error.is_some()).await;
    // It has had that value, and has nothing new to say of it.
    assert_eq!(watch.clients.borrow().clone().unwrap(), before);
    docker.run().unwrap();
    // The engine ends what it finds running when it starts anew.
    watch.until(|all| all.by_cookie.is_empty()).await;
    docker.docker(["start", "one"]).unwrap();
    watch.until_client("one", |it| it.outside).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_container_is_a_client_soon() {
    let docker = engine();
    let mut watch = Watch::start(&docker);
    watch.until(|_| true).await;
    let mut took = Vec::new();
    for number in 0..20 {
        let name = format!("new-{number}");
        let known = watch.until_client(&name, |it| it.outside);
        let name = name.clone();
        let began = thread::scope(|threads| {
            threads.spawn(|| start(&docker, &name, &[]));
            let known = async {
                known.await;
                SystemTime::now()
            };
            tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(known))
        });
        let container = named(&watch.follower.engine.borrow(), &name).unwrap();
        let started = Duration::from_nanos(container.process.unwrap().started);
        took.push(began.duration_since(UNIX_EPOCH + started).unwrap());
    }
    took.sort();
    let (median, longest) = (took[took.len() / 2], took[took.len() - 1]);
    println!("from the start of a container to its client: median {median:?}, longest {longest:?}");
    // A generous bound, for a busy machine.
    assert!(longest < Duration::from_secs(2), "{took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_hides_the_processes_is_told_with_its_remedy() {
    let fake = Fake::start("1.12", "1.41");
    let id = "stranger";
    // A process that is there, and of another container: so it looks from a process namespace of one's own.
    fake.put_running(id, std::process::id());
    let mut watch = Watch::of(Follower::start(fake.address()), "/proc".into());
    let known = watch.until(|_| true).await;
    assert!(known.by_cookie.is_empty());
    let told = timeout(LIMIT, watch.problems.wait_for(|all| !all.is_empty())).await;
    let told = told.unwrap().unwrap()[0].to_string();
    assert!(
        told.contains("pid: host") && told.contains("container stranger"),
        "{told}"
    );
    // It ends: nothing is left to complain about.
    fake.put(id, "exited");
    fake.tell(id, "die", &serde_json::json!({"exitCode": "0"}));
    let told = timeout(LIMIT, watch.problems.wait_for(Vec::is_empty)).await;
    told.unwrap().unwrap();
}

#[test]
fn without_the_right_to_enter_everybody_stands_on_the_host() {
    let docker = engine();
    start(&docker, "one", &[]);
    let address = Address::Unix(docker.socket());
    // Rights are a thread's own, and those that it starts have no more.
    let poor = thread::spawn(|| {
        let right = caps::Capability::CAP_SYS_ADMIN;
        caps::drop(None, caps::CapSet::Effective, right).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        runtime.unwrap().block_on(async {
            let mut watch = Watch::of(Follower::start(address), "/proc".into());
            assert!(watch.until(|_| true).await.by_cookie.is_empty());
            let told = timeout(LIMIT, watch.problems.wait_for(|all| !all.is_empty())).await;
            let told = told.unwrap().unwrap()[0].to_string();
            assert!(told.contains("SYS_ADMIN"), "{told}");
        });
    });
    poor.join().unwrap();
}
