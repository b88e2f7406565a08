//! A host of one agent: a namespace, a cgroup for the agent and one for the clients, which the test itself joins.

use std::{
    fs,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
};

use lb_testkit::{Cgroup, Netns, Process, Spawn, eventually};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tempfile::TempDir;

use super::{Attempt, Instance, LIMIT, service};

/// A cgroup is joined by the whole process, so only one test at a time may have a world.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// There is no world as long as this is kept. What is started beside one is in its cgroup, and ends with it.
pub(crate) fn alone() -> MutexGuard<'static, ()> {
    ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The world. Fields are dropped in this order: processes before what they live in.
pub(crate) struct World {
    agent: Option<Process>,
    runs: usize,
    home: PathBuf,
    client: Cgroup,
    /// Of the agent alone: after its end nothing may be left in it.
    agents: Cgroup,
    group: Cgroup,
    pub(crate) netns: Arc<Netns>,
    folder: TempDir,
    _guard: MutexGuard<'static, ()>,
}

impl World {
    /// Makes the place, with no agent in it, a usual configuration and no service.
    pub(crate) fn new() -> Self {
        let guard = alone();
        let folder = TempDir::with_prefix("lb-agent-test-").unwrap();
        let netns = Arc::new(Netns::new("agent-test").unwrap());
        fs::create_dir(folder.path().join("bpf")).unwrap();
        netns.mount_bpffs(&folder.path().join("bpf")).unwrap();
        let group = Cgroup::new("agent-test").unwrap();
        let agents = group.subgroup("agent").unwrap();
        let client = group.subgroup("client").unwrap();

        let own = fs::read_to_string("/proc/self/cgroup").unwrap();
        let own = own.lines().find_map(|line| line.strip_prefix("0::"));
        let top = group.path().parent().unwrap();
        let home = top.join(own.unwrap().trim_start_matches('/'));
        fs::write(client.path().join("cgroup.procs"), "0").unwrap();
        let world = Self {
            agent: None,
            runs: 0,
            home: home.join("cgroup.procs"),
            client,
            agents,
            group,
            netns,
            folder,
            _guard: guard,
        };
        world.configure(&world.usual());
        world.publish("service = []\n");
        world
    }

    /// A world whose agent runs, is ready and knows these services.
    pub(crate) fn with_services(services: impl FnOnce(&Netns) -> String) -> Self {
        let mut world = Self::new();
        let services = services(&world.netns);
        world.publish(&services);
        world.start(&[]);
        world.await_ready();
        world
    }

    /// A world whose agent serves `www_hello` by the instance `a`, with that service's address.
    pub(crate) fn with_one() -> (Self, Instance, Ipv4Addr) {
        let mut instance = None;
        let world = Self::with_services(|netns| {
            let a = instance.insert(Instance::start(netns, "a", [127, 0, 1, 1]));
            service("www_hello", &[a])
        });
        let vip = world.await_usable("www_hello", &["a"]);
        (world, instance.unwrap(), vip)
    }

    /// A world whose agent serves `www_hello` by the instances `a` and `b`, with that service's address.
    pub(crate) fn with_two() -> (Self, [Instance; 2], Ipv4Addr) {
        let mut instances = None;
        let world = Self::with_services(|netns| {
            let start = |(id, last)| Instance::start(netns, id, [127, 0, 1, last]);
            let all = instances.insert([("a", 1), ("b", 2)].map(start));
            service("www_hello", &[&all[0], &all[1]])
        });
        let vip = world.await_usable("www_hello", &["a", "b"]);
        (world, instances.unwrap(), vip)
    }

    /// What every configuration here says: nothing of the machine is used, and probes are quick.
    pub(crate) fn usual(&self) -> String {
        let (folder, client) = (self.folder.path().display(), self.client.path().display());
        format!(
            "state_dir = \"{folder}/state\"\n\
             bpffs = \"{folder}/bpf\"\n\
             cgroup = \"{client}\"\n\
             socket = \"{folder}/admin.sock\"\n\
             [sources.docker]\nsocket = \"off\"\n\
             [sources.file]\npath = \"{folder}/services.toml\"\n\
             [dns]\nupstreams = []\n\
             [health]\ninterval = \"200ms\"\ntimeout = \"200ms\"\n"
        )
    }

    /// Writes the configuration.
    pub(crate) fn configure(&self, text: &str) {
        fs::write(self.config(), text).unwrap();
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.path("lb.toml")
    }

    /// A path in the folder of this world.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Replaces the services file, so that nobody reads half of it.
    pub(crate) fn publish(&self, services: &str) {
        let new = self.path("services.new");
        fs::write(&new, services).unwrap();
        fs::rename(&new, self.path("services.toml")).unwrap();
    }

    /// Starts `lb-agent run` with these flags more, and does not wait.
    pub(crate) fn start(&mut self, flags: &[&str]) {
        let process = self.spawn(BINARY, &[], flags);
        self.agent = Some(process);
    }

    /// The same by way of another program that `before` makes start the agent.
    pub(crate) fn start_by(&mut self, program: &str, before: &[&str]) {
        let process = self.spawn(program, &[before, &[BINARY]].concat(), &[]);
        self.agent = Some(process);
    }

    /// The same by way of `setpriv`, with no more capabilities than these: `sys_admin`, `bpf` and so on.
    pub(crate) fn start_with(&mut self, capabilities: &[&str]) {
        let [bounding, inherited] = limits(capabilities);
        let process = self.spawn("setpriv", &[&bounding, &inherited, BINARY], &[]);
        self.agent = Some(process);
    }

    /// Starts it where it has to end by itself, with no more capabilities than these.
    pub(crate) fn attempt_with(&mut self, capabilities: &[&str]) -> Attempt {
        let [bounding, inherited] = limits(capabilities);
        self.attempt_by("setpriv", &[&bounding, &inherited, BINARY], &[])
    }

    /// Starts it where it has to end by itself, with these flags more.
    pub(crate) fn attempt(&mut self, flags: &[&str]) -> Attempt {
        self.attempt_by(BINARY, &[], flags)
    }

    /// The same by way of another program that `before` makes start the agent.
    pub(crate) fn attempt_by(&mut self, program: &str, before: &[&str], flags: &[&str]) -> Attempt {
        let mut process = self.spawn(program, before, flags);
        let status = process.wait(LIMIT);
        let said = fs::read_to_string(process.log().unwrap()).unwrap();
        Attempt {
            code: status
                .unwrap_or_else(|late| panic!("{late}\n{said}"))
                .code(),
            said,
        }
    }

    /// The cgroup of the clients, which the agent balances.
    pub(crate) fn clients(&self) -> PathBuf {
        self.client.path().to_owned()
    }

    /// The cgroup above those of the clients and of the agent.
    pub(crate) fn all_groups(&self) -> &Path {
        self.group.path()
    }

    /// What a program says that is not in the clients' cgroup.
    pub(crate) fn run_outside(
        &self,
        program: &str,
        arguments: &[&str],
    ) -> lb_testkit::Result<String> {
        let place = self.group.subgroup("outside")?;
        let program = Spawn::new("outside", program).args(arguments);
        program.netns(&self.netns).cgroup(&place).output()
    }

    fn spawn(&mut self, program: &str, before: &[&str], flags: &[&str]) -> Process {
        self.runs += 1;
        Spawn::new(format!("agent-{}", self.runs), program)
            .args(before)
            .args(["run", "--config"])
            .arg(self.config())
            .args(flags)
            .netns(&self.netns)
            .cgroup(&self.agents)
            .log(self.folder.path())
            .start()
            .unwrap()
    }

    /// The number of the agent's process.
    pub(crate) fn agent_id(&self) -> u32 {
        self.agent.as_ref().unwrap().id()
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.agent.as_mut().is_some_and(Process::is_running)
    }

    /// How an agent ended that was expected to live.
    pub(crate) fn ended(&mut self) -> Attempt {
        let mut agent = self.agent.take().unwrap();
        Attempt {
            code: agent.wait(LIMIT).unwrap().code(),
            said: self.said(),
        }
    }

    /// The numbers of the processes that the agent started.
    pub(crate) fn children(&self) -> Vec<u32> {
        let mut all = self.agents.processes().unwrap();
        let agent = self.agent.as_ref().map(Process::id);
        all.retain(|&id| Some(id) != agent);
        all
    }

    /// What the agent of the last start wrote.
    pub(crate) fn said(&self) -> String {
        fs::read_to_string(self.path(&format!("agent-{}.log", self.runs))).unwrap_or_default()
    }

    /// Ends the agent as systemd does.
    #[track_caller]
    pub(crate) fn terminate(&mut self) {
        let mut agent = self.agent.take().unwrap();
        agent.terminate().unwrap();
        let status = agent.wait(LIMIT);
        let status = status.unwrap_or_else(|late| panic!("{late}\n{}", self.said()));
        assert!(status.success(), "{status}\n{}", self.said());
        self.assert_clean();
    }

    /// Ends the agent in the middle of whatever it does.
    pub(crate) fn kill(&mut self) {
        self.agent.take().unwrap().kill().unwrap();
    }

    /// Ends the agent and all that it started, in the middle of whatever they do.
    pub(crate) fn kill_all(&mut self) {
        let children = self.children();
        self.kill();
        for child in children {
            let child = Pid::from_raw(i32::try_from(child).unwrap());
            kill(child, Signal::SIGKILL).unwrap();
        }
        let gone = eventually(LIMIT, || match self.children() {
            left if left.is_empty() => Ok(()),
            left => Err(format!("{left:?} still run")),
        });
        gone.unwrap();
    }

    /// Nothing of the agent runs any more, and it never panicked.
    #[track_caller]
    pub(crate) fn assert_clean(&self) {
        let gone = eventually(LIMIT, || match self.agents.processes().unwrap() {
            left if left.is_empty() => Ok(()),
            left => Err(format!("the agent left processes: {left:?}")),
        });
        gone.unwrap_or_else(|late| panic!("{late}\n{}", self.said()));
        self.assert_calm();
    }

    /// No agent of this world panicked.
    #[track_caller]
    pub(crate) fn assert_calm(&self) {
        for run in 1..=self.runs {
            let said = fs::read_to_string(self.path(&format!("agent-{run}.log"))).unwrap();
            assert!(!said.contains("panicked"), "{said}");
        }
    }

    /// Neither pins nor an address nor a route: what a start that failed must leave.
    #[track_caller]
    pub(crate) fn assert_untouched(&self) {
        self.assert_clean();
        let mut left = self.netns.enter(|| files(&self.path("bpf"))).unwrap();
        // The kernel's own, in every bpffs.
        left.retain(|pin| !["maps.debug", "progs.debug"].contains(&pin.as_str()));
        let network = self.network();
        let of_pool = network
            .lines()
            .filter(|line| line.contains("198.18.") || line.contains("fd62:"));
        left.extend(of_pool.map(str::to_owned));
        assert_eq!(
            left,
            Vec::<String>::new(),
            "left behind; it said:\n{}",
            self.said()
        );
    }

    /// The addresses and routes of the namespace.
    pub(crate) fn network(&self) -> String {
        let list = |arguments: &[&str]| {
            let output = Command::new("ip").args(arguments).output().unwrap();
            String::from_utf8(output.stdout).unwrap()
        };
        self.netns
            .enter(|| {
                list(&["-o", "addr"])
                    + &list(&["route", "show", "table", "all"])
                    + &list(&["-6", "route", "show", "table", "all"])
            })
            .unwrap()
    }

    /// Ends the agent, takes everything down and looks whether it is gone.
    #[track_caller]
    pub(crate) fn finish(mut self) {
        if self.agent.is_some() {
            self.terminate();
        }
        let group = self.group.path().to_owned();
        drop(self);
        assert!(!group.exists(), "{} is still there", group.display());
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // Out of the group, which is about to be emptied by force.
        if let Err(error) = fs::write(&self.home, "0")
            && !thread::panicking()
        {
            panic!("cannot go back to {}: {error}", self.home.display());
        }
    }
}

/// What `setpriv` is told so that root has no more capabilities than these.
pub(crate) fn limits(capabilities: &[&str]) -> [String; 2] {
    let added: String = capabilities.iter().map(|it| format!(",+{it}")).collect();
    ["bounding-set", "inh-caps"].map(|set| format!("--{set}=-all{added}"))
}

/// The names of all files in a folder and below; empty folders do not count.
fn files(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap().map(Result::unwrap);
    let names = entries.flat_map(|entry| match entry.file_type().unwrap().is_dir() {
        true => files(&entry.path()),
        false => vec![entry.file_name().to_string_lossy().into_owned()],
    });
    names.collect()
}

pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_lb-agent");
