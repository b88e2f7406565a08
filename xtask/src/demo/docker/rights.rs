//! What the processes of the agent's container may do, read from the kernel.

use std::fs;

use anyhow::{Context, Result, ensure};

use super::{super::transcript::Evidence, stack::Stack, steps::AGENT};

/// The agent has what its compose file gives and the front has nothing.
pub(super) fn check(stack: &Stack, evidence: &mut Evidence) -> Result<()> {
    let agent = stack.process(AGENT)?;
    // The front may be the child of any thread.
    let mut children: Vec<u32> = Vec::new();
    for entry in fs::read_dir(format!("/proc/{agent}/task"))?.flatten() {
        let of_thread = fs::read_to_string(entry.path().join("children")).unwrap_or_default();
        children.extend(
            of_thread
                .split_whitespace()
                .filter_map(|it| it.parse::<u32>().ok()),
        );
    }
    let is_front = |pid: &&u32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.split(|byte| *byte == 0).any(|word| word == b"front")
    };
    let front = children
        .iter()
        .find(is_front)
        .context("the agent has no front")?;
    let (agent, front) = (Rights::of(agent)?, Rights::of(*front)?);
    ensure!(
        agent.filtered && front.filtered,
        "the seccomp profile is not in force"
    );
    ensure!(
        front.capabilities == 0 && front.user == NOBODY,
        "the front is user {} with the capabilities {:x}",
        front.user,
        front.capabilities
    );
    ensure!(
        agent.capabilities & !ALLOWED == 0,
        "the agent has more capabilities than its compose file gives: {:x}",
        agent.capabilities
    );
    evidence.say(format!(
        "the agent has {} capabilities of 41, its front none and is user {NOBODY}; seccomp filters both",
        agent.capabilities.count_ones()
    ));
    Ok(())
}

struct Rights {
    user: u32,
    capabilities: u64,
    filtered: bool,
}

impl Rights {
    fn of(process: u32) -> Result<Self> {
        let status = fs::read_to_string(format!("/proc/{process}/status"))?;
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let value = line.and_then(|line| line.split_whitespace().next());
            value.with_context(|| format!("process {process} has no {name}"))
        };
        Ok(Self {
            user: field("Uid:")?.parse()?,
            capabilities: u64::from_str_radix(field("CapEff:")?, 16)?,
            filtered: field("Seccomp:")? == "2",
        })
    }
}

/// Whom the front becomes.
const NOBODY: u32 = 65534;

/// DAC_READ_SEARCH, KILL, SETGID, SETUID, NET_BIND_SERVICE, NET_ADMIN, SYS_PTRACE and SYS_ADMIN, by their numbers.
const ALLOWED: u64 = 1 << 2 | 1 << 5 | 1 << 6 | 1 << 7 | 1 << 10 | 1 << 12 | 1 << 19 | 1 << 21;
