//! A real engine and the stage that follows it.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use lb_agent::docker::{self, Address, Config, Container, Containers, Engine, State};
use lb_testkit::{Docker, eventually};
use tokio::{sync::watch, task::JoinHandle, time::timeout};
use tokio_util::sync::CancellationToken;

/// How long a test waits for what must come. An engine on a busy machine is slow.
pub(crate) const LIMIT: Duration = Duration::from_secs(30);

/// An engine of this test's own, with the image `web`.
pub(crate) fn engine() -> Docker {
    let packages = std::env::var_os("LB_DOCKER").map_or_else(
        || {
            panic!(
                "these tests need a Docker Engine: run `cargo xtask test`, which fetches one, or \
                 set LB_DOCKER to the folder of its packages"
            )
        },
        PathBuf::from,
    );
    let docker = Docker::start(&packages).unwrap();
    docker.busybox("web").unwrap();
    docker
}

/// Runs the stage; dropping it ends it.
pub(crate) struct Follower {
    pub(crate) engine: watch::Receiver<Engine>,
    pub(crate) departed: watch::Receiver<Arc<BTreeSet<String>>>,
    pub(crate) stage: JoinHandle<Result<(), docker::Error>>,
    stop: CancellationToken,
}

impl Follower {
    pub(crate) fn start(address: Address) -> Self {
        Self::start_with(Config {
            longest_pause: Duration::from_millis(250),
            ..Config::new(address)
        })
    }

    pub(crate) fn start_with(config: Config) -> Self {
        let (out, engine) = watch::channel(Engine::default());
        let (departed_in, departed) = watch::channel(Arc::default());
        let stop = CancellationToken::new();
        let stage = tokio::spawn(docker::run(config, out, departed_in, stop.clone()));
        Self {
            engine,
            departed,
            stage,
            stop,
        }
    }

    /// Waits for a value of which this holds.
    #[track_caller]
    pub(crate) fn until(
        &mut self,
        holds: impl Fn(&Engine) -> bool,
    ) -> impl Future<Output = Engine> {
        let place = std::panic::Location::caller();
        async move {
            let waited = timeout(LIMIT, self.engine.wait_for(|engine| holds(engine))).await;
            let found = waited.map(|engine| engine.unwrap().clone());
            found.unwrap_or_else(|_| panic!("{place}: not in time: {:#?}", self.engine.borrow()))
        }
    }

    /// Waits for the container `name` to be one of which this holds.
    #[track_caller]
    pub(crate) fn until_container(
        &mut self,
        name: &str,
        holds: impl Fn(&Container) -> bool,
    ) -> impl Future<Output = Arc<Container>> {
        let engine = self.until(move |engine| named(engine, name).is_some_and(|it| holds(&it)));
        async move { named(&engine.await, name).unwrap() }
    }

    /// Waits until the value is exactly what the engine itself says.
    pub(crate) async fn until_it_agrees_with(&mut self, docker: &Docker) {
        let agrees = || {
            let format = "{{.ID}} {{.Names}} {{.State}}";
            let said = docker.docker(["ps", "-a", "--no-trunc", "--format", format]);
            let said: BTreeSet<String> = said.unwrap().lines().map(str::to_owned).collect();
            let known = self.engine.borrow().containers.clone().unwrap_or_default();
            let known: BTreeSet<String> = known.values().map(|it| line(it)).collect();
            match said == known {
                true => Ok(()),
                false => Err(format!("the engine says {said:#?}, the stage {known:#?}")),
            }
        };
        tokio::task::block_in_place(|| eventually(LIMIT, agrees).unwrap());
        let gone = |it: &Container| matches!(it.state, State::Exited(_) | State::Ending);
        let containers = self.engine.borrow().containers.clone().unwrap();
        let departed = self.departed.borrow().clone();
        for container in containers.values() {
            assert_eq!(
                departed.contains(&container.id),
                gone(container),
                "{container:#?}"
            );
        }
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn line(container: &Container) -> String {
    let state = match container.state {
        State::Created => "created",
        State::Running | State::Ending => "running",
        State::Paused => "paused",
        State::Exited(_) => "exited",
    };
    format!("{} {} {state}", container.id, container.name)
}

pub(crate) fn named(engine: &Engine, name: &str) -> Option<Arc<Container>> {
    let all: &Containers = engine.containers.as_deref()?;
    all.values().find(|it| it.name == name).cloned()
}

/// The names of all containers with their states.
pub(crate) fn states(engine: &Engine) -> BTreeMap<String, State> {
    let all = engine.containers.as_deref().unwrap();
    all.values().map(|it| (it.name.clone(), it.state)).collect()
}

pub(crate) fn follow(docker: &Docker) -> Follower {
    Follower::start(Address::Unix(docker.socket()))
}

/// Starts a container of the image `web`, with these arguments more; answers its id.
pub(crate) fn start(docker: &Docker, name: &str, arguments: &[&str]) -> String {
    let usual = ["run", "-d", "--stop-signal", "KILL", "--name", name];
    let all = usual.iter().chain(arguments).chain(&["web"]);
    docker.docker(all).unwrap()
}
