//! A host for documents: one shell in a namespace with a Docker Engine and a Consul of its own, in which commands are
//! typed as they stand.

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    os::unix::{fs::PermissionsExt as _, fs::symlink},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    sync::{
        MutexGuard,
        mpsc::{Receiver, channel},
    },
    thread,
    time::Duration,
};

use lb_testkit::{Cgroup, Docker, Process, Spawn, eventually};

use crate::kit::{BINARY, alone};

/// The host. Fields are dropped in this order: what runs before what it runs in.
pub(super) struct Host {
    shell: Child,
    typed: ChildStdin,
    lines: Receiver<String>,
    has_agent: bool,
    /// Of the machine.
    name: String,
    _consul: Process,
    agents: Cgroup,
    _clients: Cgroup,
    docker: Docker,
    _alone: MutexGuard<'static, ()>,
}

/// What a command printed, and how it ended.
#[derive(Debug)]
pub(super) struct Said {
    pub(super) text: String,
    pub(super) code: i32,
}

impl Host {
    pub(super) fn new() -> Self {
        let alone = alone();
        let packages = std::env::var_os("LB_DOCKER").expect("`cargo xtask test` sets LB_DOCKER");
        let docker = Docker::start(Path::new(&packages)).unwrap();
        // In the place of the one that would be pulled: it listens on port 80, too.
        docker.busybox("nginx").unwrap();
        let home = docker.folder().join("home");
        fs::create_dir(&home).unwrap();
        private_places(&docker);
        let path = programs(&docker);
        let clients = docker.cgroup().subgroup("clients").unwrap();
        let agents = Cgroup::new("documents-agent").unwrap();
        let consul = consul(&docker, &clients);

        let mut shell = Command::new("bash");
        shell
            .args(["--noprofile", "--norc"])
            .env_clear()
            .env("PATH", path)
            .env("HOME", &home)
            .env("LC_ALL", "C")
            // The one of the machine is nobody's business here.
            .env("LB_CGROUP", docker.cgroup().path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        fs::write(
            home.join(".curlrc"),
            "fail-with-body\nmax-time = 5\nsilent\n",
        )
        .unwrap();
        let mut shell = docker.netns().enter(|| shell.spawn()).unwrap().unwrap();
        let (typed, printed) = (shell.stdin.take().unwrap(), shell.stdout.take().unwrap());
        let (sender, lines) = channel();
        thread::spawn(move || {
            let lines = BufReader::new(printed).lines();
            // The receiver goes with the host.
            let _ = lines
                .map_while(Result::ok)
                .try_for_each(|line| sender.send(line));
        });
        let mut host = Self {
            shell,
            typed,
            lines,
            has_agent: false,
            name: fs::read_to_string("/proc/sys/kernel/hostname")
                .unwrap()
                .trim()
                .to_owned(),
            _consul: consul,
            agents,
            _clients: clients,
            docker,
            _alone: alone,
        };
        let group = host._clients.path().join("cgroup.procs");
        host.must(&format!("echo $$ > {}; cd \"$HOME\"", group.display()));
        host
    }

    /// Writes a file that a document shows with its path.
    pub(super) fn write(&self, path: &str, text: &str) {
        let path = Path::new(path);
        let written = self.docker.netns().enter(|| {
            fs::create_dir_all(path.parent().unwrap())?;
            fs::write(path, format!("{text}\n"))
        });
        written.unwrap().unwrap();
    }

    /// Types a command and waits for its end.
    pub(super) fn say(&mut self, command: &str) -> Said {
        // What goes on by itself says nothing in between.
        let to = if command.ends_with('&') {
            ">/dev/null"
        } else {
            ""
        };
        let script = format!("{{ {command}\n}} </dev/null {to} 2>&1; printf '\\n{END} %d\\n' $?\n");
        self.typed.write_all(script.as_bytes()).unwrap();
        let mut text = Vec::new();
        loop {
            let line = self.lines.recv_timeout(PATIENCE);
            let line = line.unwrap_or_else(|_| panic!("{command} does not end: {text:?}"));
            if let Some(code) = line.strip_prefix(END) {
                let code = code.trim().parse().unwrap();
                let text = text.join("\n").trim_end().replace(&self.name, NAME);
                return Said { text, code };
            }
            text.push(line);
        }
    }

    fn must(&mut self, command: &str) {
        let said = self.say(command);
        assert_eq!(said.code, 0, "{command}: {}", said.text);
    }

    /// Types a command that stays in the foreground into another terminal, and waits until it does its work. The agent
    /// that ran is ended before.
    pub(super) fn run(&mut self, command: &str) -> Result<(), String> {
        self.end();
        let group = self.agents.path().join("cgroup.procs");
        let log = self.log();
        self.must(&format!(
            "( echo $BASHPID > {}; exec env {command}\n) > {} 2>&1 &\nlb_agent=$!",
            group.display(),
            log.display()
        ));
        self.has_agent = true;
        let runs = command.contains(" run");
        let up = eventually(PATIENCE, || {
            let log = fs::read_to_string(&log).unwrap_or_default();
            let ready = match runs {
                true => self.say("lb-agent healthcheck").code == 0,
                false => log.contains("registering containers"),
            };
            let alive = self.say("kill -0 $lb_agent").code == 0;
            match alive && ready {
                true => Ok(()),
                false => Err(log),
            }
        });
        up.map_err(|late| late.to_string())
    }

    /// Ends the agent as Ctrl-C does.
    pub(super) fn end(&mut self) {
        if std::mem::take(&mut self.has_agent) {
            // Its exit status is that of `wait`.
            self.must("kill -INT $lb_agent; wait $lb_agent");
        }
    }

    fn log(&self) -> PathBuf {
        self.docker.folder().join("agent.log")
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.shell.kill();
        let _ = self.shell.wait();
    }
}

/// What a command would change on the machine is the host's own.
fn private_places(docker: &Docker) {
    let etc = docker.folder().join("etc");
    let copied = Command::new("cp").args(["-a", "/etc"]).arg(&etc).output();
    let copied = copied.unwrap();
    assert!(copied.status.success(), "{copied:?}");
    // Nobody answers there: names that are not ours have no answer, and nothing leads out.
    let resolver = etc.join("resolv.conf");
    let _ = fs::remove_file(&resolver);
    fs::write(&resolver, "nameserver 192.0.2.53\n").unwrap();
    let netns = docker.netns();
    netns.bind(&etc, Path::new("/etc")).unwrap();
    let state = docker.folder().join("var-lib");
    fs::create_dir(&state).unwrap();
    netns.bind(&state, Path::new("/var/lib")).unwrap();
    netns.mount_bpffs(Path::new("/sys/fs/bpf")).unwrap();
    let socket = docker.socket();
    let linked = netns.enter(|| {
        let _ = fs::remove_file("/run/docker.sock");
        let _ = fs::remove_dir_all("/run/lb");
        symlink(socket, "/run/docker.sock")
    });
    linked.unwrap().unwrap();
    let routes = "route add unreachable 198.18.0.0/16 metric 4096\n";
    netns.ip(routes).unwrap();
}

/// A folder with the commands that documents use, before those of the machine.
fn programs(docker: &Docker) -> String {
    let folder = docker.folder().join("programs");
    fs::create_dir(&folder).unwrap();
    let consul = std::env::var_os("LB_CONSUL").expect("`cargo xtask test` sets LB_CONSUL");
    symlink(BINARY, folder.join("lb-agent")).unwrap();
    symlink(consul, folder.join("consul")).unwrap();
    // With what its packages need, which is nobody else's.
    let variables = docker.client("env", "/usr/bin/env").output().unwrap();
    let wanted = [
        "PATH=",
        "LD_LIBRARY_PATH=",
        "DOCKER_HOST=",
        "DOCKER_CONFIG=",
    ];
    let wanted = |line: &&str| wanted.iter().any(|name| line.starts_with(name));
    let variables: Vec<_> = variables.lines().filter(wanted).collect();
    let wrapper = folder.join("docker");
    let script = format!(
        "#!/bin/sh\nexec env '{}' docker \"$@\"\n",
        variables.join("' '")
    );
    fs::write(&wrapper, script).unwrap();
    fs::set_permissions(&wrapper, fs::Permissions::from_mode(0o755)).unwrap();
    format!(
        "{}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        folder.display()
    )
}

/// A Consul agent of this host.
fn consul(docker: &Docker, group: &Cgroup) -> Process {
    let program = std::env::var_os("LB_CONSUL").unwrap();
    let consul = Spawn::new("consul", program)
        .args(["agent", "-dev", "-log-level=warn", "-hcl"])
        // It checks within its interval otherwise.
        .arg("enable_script_checks = false")
        .netns(docker.netns())
        .cgroup(group)
        .log(docker.folder());
    consul.start().unwrap()
}

/// What documents call it.
const NAME: &str = "dock-1";

const END: &str = "--- the command ended with";

/// An engine and a Consul on a busy machine are slow.
const PATIENCE: Duration = Duration::from_secs(40);
