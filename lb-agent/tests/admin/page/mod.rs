//! The page in a real browser.
//!
//! The browser is given by `LB_CHROMIUM`, `LB_CHROMEDRIVER` and `LB_AXE`, as `cargo xtask test` sets them. It lives in
//! a network namespace with nothing but the page, and there is one at a time.

mod acts;
mod lasts;
mod looks;
mod many;
mod places;
mod values;

use std::{
    env,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use lb_agent::{snapshot::Snapshot, sockets::Sockets, stats::Stats};
use lb_testkit::{Browser, Netns, browser::Programs, eventually};
use serde_json::Value;
use tokio::runtime::Runtime;

use crate::agent::{Agent, Around, no_sockets};

/// Two browsers on two cores are slower than one after the other.
static ONE: Mutex<()> = Mutex::new(());

/// An agent's page and a browser that can see it.
struct Stage {
    browser: Browser<'static>,
    agent: Option<Agent>,
    netns: &'static Netns,
    runtime: Runtime,
    _alone: MutexGuard<'static, ()>,
}

impl Stage {
    fn new(snapshot: Snapshot, figures: impl Fn() -> Stats + Send + 'static) -> Self {
        Self::among(no_sockets(), snapshot, figures)
    }

    /// The same with flows.
    fn among(
        sockets: Sockets,
        snapshot: Snapshot,
        figures: impl Fn() -> Stats + Send + 'static,
    ) -> Self {
        let alone = ONE.lock().unwrap_or_else(PoisonError::into_inner);
        // Its descriptors end with the test program.
        let netns: &'static Netns = Box::leak(Box::new(Netns::new("browser").unwrap()));
        let runtime = Runtime::new().unwrap();
        let agent = agent(&runtime, netns, "127.0.0.1:0", (sockets, snapshot), figures);
        let programs = Programs {
            chromium: &given("LB_CHROMIUM"),
            driver: &given("LB_CHROMEDRIVER"),
        };
        let browser = Browser::start(netns, programs).unwrap();
        browser.look(1280, 900, false).unwrap();
        Self {
            browser,
            agent: Some(agent),
            netns,
            runtime,
            _alone: alone,
        }
    }

    fn agent(&mut self) -> &mut Agent {
        self.agent.as_mut().unwrap()
    }

    /// Goes to a path of the page.
    fn go(&mut self, path: &str) {
        let address = format!("http://{}{path}", self.agent().address);
        self.browser.go(&address).unwrap();
    }

    /// What an expression of JavaScript says.
    fn says(&self, expression: &str) -> Value {
        self.browser.run(&format!("return {expression}")).unwrap()
    }

    /// Waits until an expression is true.
    #[track_caller]
    fn awaits(&self, expression: &str) {
        let asked = || match self.says(expression) {
            Value::Bool(true) => Ok(()),
            other => Err(format!("{expression} is {other}")),
        };
        if let Err(late) = eventually(SOON, asked) {
            panic!(
                "{late}; the page says {}",
                self.says("document.body.innerText")
            );
        }
    }

    /// Waits until the script has its stream and knows what the reader may do.
    fn awaits_script(&self) {
        self.awaits("document.getElementById('live').textContent === 'live'");
        self.awaits("document.getElementById('sign').textContent !== ''");
    }

    /// The console is empty, but for what is expected there.
    #[track_caller]
    fn console_has_only(&self, expected: &[&str]) {
        let lines = self.browser.console().unwrap();
        // Pages of the browser's own, before ours.
        let own = |line: &str| line.starts_with("chrome://");
        let other = |line: &&String| !own(line) && !expected.iter().any(|it| line.contains(it));
        let others: Vec<_> = lines.iter().filter(other).collect();
        assert!(others.is_empty(), "{others:?}");
    }

    fn end(mut self) {
        drop(self.browser);
        if let Some(agent) = self.agent.take() {
            self.runtime.block_on(agent.end());
        }
    }
}

fn agent(
    runtime: &Runtime,
    netns: &Netns,
    address: &str,
    (sockets, snapshot): (Sockets, Snapshot),
    figures: impl Fn() -> Stats + Send + 'static,
) -> Agent {
    // The port of one that just ended is free at once: the standard library sets SO_REUSEADDR.
    let tcp = netns.enter(|| std::net::TcpListener::bind(address).unwrap());
    let around = Around {
        sockets,
        registers: true,
        packets: false,
        otlp: None,
    };
    let agent = Agent::start_among(around, tcp.unwrap(), snapshot, STEP, figures);
    let agent = runtime.block_on(agent);
    agent.readiness.set("maps");
    agent.readiness.set("listeners");
    agent
}

fn given(name: &str) -> PathBuf {
    let Some(value) = env::var_os(name) else {
        panic!("set {name}, as `cargo xtask test` does")
    };
    value.into()
}

/// Keeps a picture where people find it.
fn keep(picture: &[u8], name: &str) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/screenshots");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join(name), picture).unwrap();
}

/// Between two points of the graphs: all are there within seconds.
const STEP: Duration = Duration::from_millis(50);
/// For what happens by itself, on a machine that does much else.
const SOON: Duration = Duration::from_secs(20);
