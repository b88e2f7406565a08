//! The agent's program itself: whether it runs here, what it says of this host, and a flow through a VIP that it gave.

use std::{
    fs::{self, File},
    io::{Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Output, Stdio},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use lb_testkit::eventually;
use serde_json::Value;

use crate::tried::Tried;

/// The static program in the initial file system.
const PROGRAM: &str = "/bin/lb-agent";

const FOLDER: &str = "/run/lb";

/// It is a debug build on an emulated processor.
const LIMIT: Duration = Duration::from_secs(90);

/// Runs the agent with one service.
pub(crate) fn examine(tried: &mut Tried, cgroup: &Path) {
    const RUNS: &str = "the agent: ready";
    let (mut agent, vips) = match start(cgroup) {
        Ok(Started::Runs(agent, vips)) => (agent, vips),
        Ok(Started::Refuses(said)) => return tried.refused(RUNS, said),
        Err(error) => return tried.note(RUNS, Err(error)),
    };
    tried.note(RUNS, Ok(String::new()));
    let through = vips.iter().try_for_each(|&vip| greet(vip));
    tried.note("the agent: its VIPs", through.map(|()| String::new()));
    tried.note(
        "the agent: `status`",
        complaints(&["status"], "components", "name", "detail"),
    );
    let doctor = ["doctor", "--config", CONFIG];
    tried.note(
        "the agent: `doctor`",
        complaints(&doctor, "", "check", "finding"),
    );
    tried.note("the agent: SIGTERM", agent.end().map(|()| String::new()));
}

/// What became of the start.
enum Started {
    /// The agent, ready, and the addresses of its service.
    Runs(Agent, Vec<IpAddr>),
    /// Its last line.
    Refuses(String),
}

const CONFIG: &str = "/run/lb/lb.toml";

const LOG: &str = "/run/lb/lb-agent.log";

const GREETING: &[u8] = b"hello\n";

fn start(cgroup: &Path) -> Result<Started> {
    fs::create_dir_all(FOLDER)?;
    let listener = TcpListener::bind(("127.0.0.3", 0))?;
    let port = listener.local_addr()?.port();
    let service = format!(
        "[[service]]\nname = \"greeter\"\n[[service.instance]]\nid = \"a\"\naddress = \"127.0.0.3\"\nport = {port}\n"
    );
    fs::write("/run/lb/services.toml", service)?;
    let config = format!(
        "state_dir = \"{FOLDER}/state\"\ncgroup = \"{}\"\nsocket = \"{FOLDER}/admin.sock\"\n\
         [sources.docker]\nsocket = \"off\"\n[sources.file]\npath = \"{FOLDER}/services.toml\"\n\
         [dns]\nupstreams = []\n",
        cgroup.display()
    );
    fs::write(CONFIG, config)?;
    // For as long as the machine runs; whoever comes may be gone before the greeting.
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let _ = stream.write_all(GREETING);
        }
    });
    let log = File::create(LOG)?;
    let child = Command::new(PROGRAM)
        .args(["run", "--config", CONFIG])
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .with_context(|| format!("cannot start {PROGRAM}"))?;
    let mut agent = Agent(child);
    let mut refusal = None;
    let vips = eventually(LIMIT, || {
        if let Some(status) = agent.0.try_wait()? {
            let said = last_line()?;
            refusal = Some((status, said));
            return Ok(Vec::new());
        }
        usable()
    })
    .with_context(|| {
        format!(
            "it does not get ready; it says: {}",
            last_line().unwrap_or_default()
        )
    })?;
    match refusal {
        None => Ok(Started::Runs(agent, vips)),
        Some((status, said)) if status.code().is_some() && !said.contains("panicked") => {
            Ok(Started::Refuses(said))
        }
        Some((status, said)) => bail!("it ends with {status}: {said}"),
    }
}

/// The running agent.
struct Agent(Child);

impl Agent {
    /// Ends it as an init does.
    fn end(&mut self) -> Result<()> {
        let id = i32::try_from(self.0.id())?;
        let term = nix::sys::signal::Signal::SIGTERM;
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(id), term)?;
        let status = eventually(LIMIT, || {
            self.0.try_wait()?.context("it does not end after SIGTERM")
        })?;
        ensure!(status.success(), "it ends with {status}: {}", last_line()?);
        Ok(())
    }
}

/// The addresses of the service, once the agent is ready and has a usable backend.
fn usable() -> Result<Vec<IpAddr>> {
    let status = ask(&["status"])?;
    ensure!(
        status["ready"] == true,
        "not ready: {}",
        status["waiting_for"]
    );
    let services = ask(&["services"])?;
    let service = &services[0];
    ensure!(
        service["usable"] == 1,
        "no usable backend: {}",
        service["backends"]
    );
    ["vip", "vip6"]
        .map(|field| Ok(service[field].as_str().context("no VIP")?.parse()?))
        .into_iter()
        .collect()
}

/// Connects to a VIP of the agent's, and hears what the backend says.
fn greet(vip: IpAddr) -> Result<()> {
    let address = SocketAddr::new(vip, 80);
    let mut stream = TcpStream::connect_timeout(&address, LIMIT)
        .with_context(|| format!("cannot connect to {vip}"))?;
    stream.set_read_timeout(Some(LIMIT))?;
    let peer = stream.peer_addr()?;
    ensure!(peer == address, "the client sees {peer} for {address}");
    let mut heard = Vec::new();
    stream.read_to_end(&mut heard)?;
    ensure!(heard == GREETING, "{vip} says {heard:?}");
    Ok(())
}

/// What is not well of what a command lists, one line each; fails where that is an error.
fn complaints(command: &[&str], list: &str, name: &str, detail: &str) -> Result<String> {
    let answer = ask(command)?;
    let lines = if list.is_empty() {
        &answer
    } else {
        &answer[list]
    };
    let lines = lines.as_array().context("no list")?;
    let text = |line: &Value, field: &str| line[field].as_str().unwrap_or_default().to_owned();
    let bad = lines.iter().filter(|line| line["mark"] != "ok");
    let said: Vec<_> = bad
        .clone()
        .map(|line| format!("{}: {}", text(line, name), text(line, detail)))
        .collect();
    let said = said.join("; ");
    ensure!(!bad.clone().any(|line| line["mark"] == "error"), "{said}");
    Ok(said)
}

/// What a command of the agent's program prints.
fn ask(command: &[&str]) -> Result<Value> {
    let Output { stdout, stderr, .. } = Command::new(PROGRAM)
        .args(["--socket", "/run/lb/admin.sock", "-o", "json"])
        .args(command)
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot start {PROGRAM}"))?;
    serde_json::from_slice(&stdout).with_context(|| String::from_utf8_lossy(&stderr).into_owned())
}

fn last_line() -> Result<String> {
    let log = fs::read_to_string(LOG)?;
    let last = log.lines().rfind(|it| !it.trim().is_empty());
    Ok(last.unwrap_or_default().to_owned())
}
