//! `lb-agent doctor`: what keeps an agent from running well on this host, and what to do about it.
//!
//! All facts are read once (`facts`), by readers that change nothing: no lock, no port, no mount. What they mean is
//! judged by pure functions. It needs no agent, and tells what one says if it runs.

mod ask;
mod facts;
pub(crate) mod host;
mod judge;
mod judge_announce;
mod judge_network;
mod judge_packet;
mod judge_services;

use std::path::{Path, PathBuf};

use serde::Serialize;

use self::facts::Facts;
use crate::{
    admin::{report::Mark, text::visible},
    cli::{DEFAULT_SOCKET, Exit, Style},
    config::{Config, RunArgs},
};

/// Looks over this host.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct DoctorArgs {
    /// Also connect through every VIP
    #[arg(long)]
    pub probe: bool,
    /// The root directory of the host's files, for a container that sees them elsewhere
    #[arg(long, value_name = "DIR", default_value = "/")]
    pub root: PathBuf,
    /// Only tell whether bpf(2) is refused, by the exit status.
    #[arg(long, hide = true)]
    pub try_bpf: bool,
    /// What `run` is told.
    #[command(flatten)]
    pub run: RunArgs,
}

/// What one check found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Which check.
    pub check: &'static str,
    /// How bad it is.
    pub mark: Mark,
    /// What was found.
    pub finding: String,
    /// What to do; `null` where nothing has to be done.
    pub remedy: Option<String>,
}

impl Finding {
    fn new(check: &'static str, mark: Mark, finding: impl Into<String>) -> Self {
        Self {
            check,
            mark,
            finding: finding.into(),
            remedy: None,
        }
    }

    fn ok(check: &'static str, finding: impl Into<String>) -> Self {
        Self::new(check, Mark::Ok, finding)
    }

    fn unknown(check: &'static str, finding: impl Into<String>) -> Self {
        Self::new(check, Mark::Unknown, finding)
    }

    fn warning(check: &'static str, finding: impl Into<String>, remedy: impl Into<String>) -> Self {
        let remedy = Some(remedy.into());
        Self {
            remedy,
            ..Self::new(check, Mark::Warning, finding)
        }
    }

    fn error(check: &'static str, finding: impl Into<String>, remedy: impl Into<String>) -> Self {
        let remedy = Some(remedy.into());
        Self {
            remedy,
            ..Self::new(check, Mark::Error, finding)
        }
    }
}

/// Everything that was found, worst first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Findings(pub Vec<Finding>);

/// Whether `bpf(2)` may be called; for the child that [`examine`] starts.
pub fn may_call_bpf() -> bool {
    host::try_bpf()
}

/// Looks at everything.
pub async fn examine(args: &DoctorArgs, socket: Option<&Path>) -> Findings {
    let loaded = Config::load(&args.run);
    let config = loaded.as_ref().ok();
    let configured = config.map(|it| it.socket.as_path());
    let socket = socket.or(configured).unwrap_or(Path::new(DEFAULT_SOCKET));
    let (agent, process, report) = ask::agent(socket).await;
    let mut facts = match config {
        Some(config) => {
            let probe = report.as_ref().filter(|_| args.probe);
            ask::all(config, &args.root, agent, probe).await
        }
        None => Facts {
            agent,
            ..Facts::default()
        },
    };
    if let Err(error) = &loaded {
        facts.mistakes.clone_from(&error.mistakes);
    }
    facts.host = {
        let (root, config) = (args.root.clone(), config.cloned());
        let read = move || host::read(&root, config.as_ref(), process);
        tokio::task::spawn_blocking(read).await.unwrap_or_default()
    };
    judge(&facts, config)
}

/// What the facts mean.
fn judge(facts: &Facts, config: Option<&Config>) -> Findings {
    let mut found: Vec<_> = facts
        .mistakes
        .iter()
        .map(|it| Finding::error("configuration", it.clone(), "lb-agent check-config"))
        .collect();
    if config.is_some() {
        found.push(Finding::ok("configuration", "correct"));
        found.extend(judge_network::network(&facts.network));
    }
    found.extend(judge::host(&facts.host, config));
    if let Some(packet) = config.and_then(|it| it.packet.as_ref()) {
        found.extend(judge_packet::findings(&facts.host, packet));
    }
    found.extend(judge_services::services(facts, config));
    found.sort_by_key(|it| it.mark);
    Findings(found)
}

impl Findings {
    /// How the command ends.
    pub fn exit(&self) -> Exit {
        let bad = |it: &Finding| matches!(it.mark, Mark::Error | Mark::Warning);
        match self.0.iter().any(bad) {
            true => Exit::Degraded,
            false => Exit::Fine,
        }
    }

    /// A line for each, and one for its remedy.
    pub fn table(&self, style: Style) -> String {
        let width = self.0.iter().map(|it| it.check.len()).max().unwrap_or(0);
        let mut text = String::new();
        for it in &self.0 {
            let (mark, found) = (style.mark(it.mark), visible(&it.finding));
            text.push_str(&format!("{mark} {:width$}  {found}\n", it.check));
            if let Some(remedy) = &it.remedy {
                text.push_str(&format!("   {:width$}  -> {}\n", "", visible(remedy)));
            }
        }
        text
    }
}

#[cfg(test)]
mod tests;
