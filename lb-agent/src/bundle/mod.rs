//! `lb-agent bundle`: what somebody who is to help needs to see, in one archive, without secrets.
//!
//! Everything in it goes through `mask` first. Who a client is, is not in it. Without an agent there is less in it, and
//! `MANIFEST` says why.

mod archive;
mod kernel;
pub(crate) mod mask;

use std::{
    fs::{self, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde::Serialize;
use serde_json::{Value, json};

use self::mask::{HIDDEN, Secrets};
use crate::{
    admin::{
        report::{CLIENTS_PATH, FLOWS_PATH, FlowList, LOG_PATH, SNAPSHOT_PATH, VIPS_PATH},
        text::visible,
    },
    cli::{Client, DEFAULT_SOCKET},
    config::{Config, DEFAULT_FILE, Outside, RunArgs, is_typed},
    doctor::{self, DoctorArgs},
    last_lines::Kept,
};

/// Gathers what is to be seen.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct BundleArgs {
    /// Where to write it; the file must not be there yet [default: lb-agent-HOST-TIME.tar.gz here]
    #[arg(short, long, value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// What `run` is told.
    #[command(flatten)]
    pub run: RunArgs,
}

/// What was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Bundle {
    /// Where.
    pub file: PathBuf,
    /// What is in it.
    pub contents: Vec<String>,
    /// What is not in it, each with why.
    pub left_out: Vec<String>,
    /// What would be masked if it were known, each with why it is not.
    pub not_masked: Vec<String>,
}

impl Bundle {
    /// For people.
    pub fn text(&self) -> String {
        let (file, contents) = (self.file.display(), self.contents.join(", "));
        let mut text = format!("wrote {file}: {contents}\n");
        for line in &self.left_out {
            text.push_str(&format!("left out: {}\n", visible(line)));
        }
        for line in &self.not_masked {
            text.push_str(&format!("not masked: {}\n", visible(line)));
        }
        text
    }
}

/// Gathers everything and writes the archive.
///
/// # Errors
/// When the file cannot be written. What cannot be had is left out.
pub async fn write(args: &BundleArgs, socket: Option<&Path>) -> io::Result<Bundle> {
    let unix = SystemTime::now().duration_since(UNIX_EPOCH);
    let unix = unix.map_or(0, |it| it.as_secs());
    let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let folder = format!("lb-agent-{}-{unix}", host.trim());
    let file = match &args.file {
        Some(file) => file.clone(),
        None => format!("{folder}.tar.gz").into(),
    };
    // Before the work, which takes seconds; whoever may read it is decided before there is anything to read.
    let out = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&file)?;
    let mut parts = gather(args, socket).await;
    let manifest = parts.manifest(unix);
    parts
        .files
        .insert(0, ("MANIFEST".to_owned(), manifest.into_bytes()));
    archive::write(&out, &folder, &parts.files, unix)?;
    out.sync_all()?;
    Ok(Bundle {
        file,
        contents: parts.files.into_iter().map(|(name, _)| name).collect(),
        left_out: parts.left_out,
        not_masked: parts.secrets.unread().to_vec(),
    })
}

async fn gather(args: &BundleArgs, socket: Option<&Path>) -> Parts {
    let loaded = Config::load_with_origins(&args.run, Outside::real());
    let config = loaded.as_ref().ok().map(|(config, _)| config);
    let secrets = match config {
        Some(config) => Secrets::of(Some(config)),
        None => {
            let file = args.run.config.as_deref();
            let file = file.unwrap_or(Path::new(DEFAULT_FILE));
            let text = fs::read_to_string(file);
            let state = args.run.state_dir.as_deref();
            let mut secrets = Secrets::of_wrong(text.as_deref().unwrap_or_default(), state);
            match &text {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    secrets.cannot_read(file, error);
                }
                _ => {}
            }
            secrets
        }
    };
    let mut parts = Parts {
        secrets,
        files: Vec::new(),
        left_out: LEFT_OUT.map(str::to_owned).to_vec(),
    };
    let version = json!({ "lb_agent": env!("CARGO_PKG_VERSION"), "arch": std::env::consts::ARCH });
    parts.json("version.json", version);
    parts.json(
        "config.json",
        match &loaded {
            Ok((config, raw)) => json!(config.settings(raw, &is_typed)),
            Err(error) => json!({ "mistakes": error.mistakes }),
        },
    );
    let doctor = DoctorArgs {
        root: "/".into(),
        run: args.run.clone(),
        ..DoctorArgs::default()
    };
    parts.json("doctor.json", json!(doctor::examine(&doctor, socket).await));
    let bpffs = config.map_or(Path::new("/sys/fs/bpf"), |it| it.bpffs.as_path());
    parts.text("kernel.txt", &kernel::facts(bpffs));
    let configured = config.map(|it| it.socket.as_path());
    let socket = socket.or(configured).unwrap_or(Path::new(DEFAULT_SOCKET));
    of_agent(&Client::new(socket), &mut parts).await;
    parts
}

/// What the agent tells, if there is one.
async fn of_agent(client: &Client, parts: &mut Parts) {
    match client.text(SNAPSHOT_PATH, PATIENCE).await {
        Ok(bytes) => match serde_json::from_slice(&bytes) {
            Ok(report) => parts.report(report),
            Err(error) => parts.leave_out("status.json, services.json, backends.json", error),
        },
        Err(error) => parts.leave_out("status.json, services.json, backends.json", error),
    }
    for (name, path) in [("vips.json", VIPS_PATH), ("clients.json", CLIENTS_PATH)] {
        match client.text(path, PATIENCE).await {
            Ok(bytes) => match serde_json::from_slice(&bytes) {
                Ok(value) => parts.json(name, value),
                Err(error) => parts.leave_out(name, error),
            },
            Err(error) => parts.leave_out(name, error),
        }
    }
    // The agent looks through all processes for them.
    match client.text(FLOWS_PATH, 2 * PATIENCE).await {
        Ok(bytes) => match serde_json::from_slice(&bytes) {
            Ok(flows) => parts.flows(flows),
            Err(error) => parts.leave_out("flows.json", error),
        },
        Err(error) => parts.leave_out("flows.json", error),
    }
    match client.text("/metrics", PATIENCE).await {
        Ok(bytes) => parts.text("metrics.txt", &String::from_utf8_lossy(&bytes)),
        Err(error) => parts.leave_out("metrics.txt", error),
    }
    match client.text(LOG_PATH, PATIENCE).await {
        Ok(bytes) => match serde_json::from_slice(&bytes) {
            Ok(kept) => parts.log(&kept),
            Err(error) => parts.leave_out("log.txt", error),
        },
        Err(error) => parts.leave_out("log.txt", error),
    }
}

/// The files of an archive, all of them masked.
struct Parts {
    secrets: Secrets,
    files: Vec<(String, Vec<u8>)>,
    left_out: Vec<String>,
}

impl Parts {
    fn text(&mut self, name: &str, text: &str) {
        self.files
            .push((name.to_owned(), self.secrets.mask(text).into_bytes()));
    }

    fn json(&mut self, name: &str, mut value: Value) {
        self.secrets.mask_json(&mut value);
        self.files
            .push((name.to_owned(), format!("{value:#}\n").into_bytes()));
    }

    fn leave_out(&mut self, name: &str, why: impl std::fmt::Display) {
        let line = self.secrets.mask(&format!("{name}: {why}"));
        self.left_out.push(line.replace('\n', " "));
    }

    /// The report in three files: how the agent is, its services, and their backends.
    fn report(&mut self, mut report: Value) {
        let mut services = report["services"].take();
        let mut backends = Vec::new();
        for service in services.as_array_mut().into_iter().flatten() {
            let name = service["name"].clone();
            let theirs = service["backends"].take();
            for mut backend in theirs.as_array().cloned().unwrap_or_default() {
                backend["service"] = name.clone();
                backends.push(backend);
            }
            service.as_object_mut().map(|it| it.remove("backends"));
        }
        report.as_object_mut().map(|it| it.remove("services"));
        self.json("status.json", report);
        self.json("services.json", services);
        self.json("backends.json", Value::from(backends));
    }

    /// The first flows, without what tells whose they are.
    fn flows(&mut self, mut list: FlowList) {
        let beyond = list.flows.drain(FLOWS.min(list.flows.len())..).count();
        list.left_out += beyond as u64;
        let mut value = json!(list);
        for flow in value["flows"].as_array_mut().into_iter().flatten() {
            for field in OF_CLIENTS {
                if let Some(known) = flow.get_mut(field).filter(|it| !it.is_null()) {
                    *known = Value::from(HIDDEN);
                }
            }
        }
        self.json("flows.json", value);
    }

    fn log(&mut self, kept: &Kept) {
        let mut text = match kept.dropped {
            0 => String::new(),
            dropped => format!("({dropped} older lines were not kept)\n"),
        };
        for line in &kept.lines {
            text.push_str(line);
            text.push('\n');
        }
        self.text("log.txt", &text);
    }

    fn manifest(&self, unix: u64) -> String {
        let mut text = format!("lb-agent bundle, made at {unix} (seconds since 1970)\n\nIn it:\n");
        for (name, bytes) in &self.files {
            text.push_str(&format!("  {name}  {} bytes\n", bytes.len()));
        }
        text.push_str("\nLeft out:\n");
        for line in &self.left_out {
            text.push_str(&format!("  {line}\n"));
        }
        if !self.secrets.unread().is_empty() {
            text.push_str("\nNot known here, and so whole wherever they occur:\n");
        }
        for line in self.secrets.unread() {
            text.push_str(&format!("  not masked: {}\n", visible(line)));
        }
        text
    }
}

/// For each answer of the agent.
const PATIENCE: Duration = Duration::from_secs(5);

/// What is never in it.
const LEFT_OUT: [&str; 5] = [
    "secrets: tokens, passwords, keys and hashes are *** wherever they are known to be",
    "queries: what stands behind the ? of a path is ***",
    "output of checks: others wrote it",
    "who has a flow: addresses, processes, users and containers of clients are ***; see `lb-agent flows`",
    "lines of the log that may name clients: those of the audit, those of the front's process, and what is below INFO; see `journalctl -u lb-agent`",
];

/// Flows that are in it.
const FLOWS: usize = 1_000;

/// What of a flow tells whose it is.
const OF_CLIENTS: [&str; 6] = ["client", "netns", "uid", "pid", "command", "container"];
