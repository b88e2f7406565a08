//! Faults of what an agent may use of its host.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::Write as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};
use lb_testkit::eventually;
use rustix::process::{Pid, Resource, Rlimit, prlimit};

use super::Wound;
use crate::{
    cluster::{Cluster, LIMIT},
    moment::Moment,
};

/// The file that takes all the room.
const FILLS: &str = "state/filled";
/// Where the tree of the memory controller is, of the first version.
const MEMORY: &str = "/sys/fs/cgroup/memory";
/// Much less than the agent needs to start.
const TOO_LITTLE: &str = "4194304";

/// Leaves not a byte for the agent's state.
pub(super) fn fill_disk(cluster: &mut Cluster, host: usize) -> Result<Wound> {
    let host_of = &cluster.hosts[host];
    let path = host_of.folder.join(FILLS);
    let full = host_of.netns.enter(|| {
        let mut file = File::create(&path)?;
        let mut piece = vec![0; 64 * 1024];
        loop {
            match file.write_all(&piece) {
                Ok(()) => {}
                // Smaller and smaller, to the last byte.
                Err(_) if piece.len() > 1 => piece.truncate(piece.len() / 2),
                Err(error) => break Ok::<_, std::io::Error>(error),
            }
        }
    })?;
    let full = full.context("cannot fill the disk")?;
    ensure!(
        full.kind() == std::io::ErrorKind::StorageFull,
        "the disk is not full: {full}"
    );
    Ok(Wound::Disk { host })
}

/// Gives the room back.
pub(super) fn free_disk(cluster: &mut Cluster, host: usize) -> Result<()> {
    let host = &cluster.hosts[host];
    let path = host.folder.join(FILLS);
    let freed = host.netns.enter(|| fs::remove_file(path))?;
    freed.context("cannot free the disk")
}

/// Lets the agent open nothing more: it keeps what it has.
pub(super) fn take_descriptors(cluster: &mut Cluster, host: usize) -> Result<Wound> {
    cluster.history.blind(host, Moment::now());
    let agent = cluster.hosts[host].agent_id()?;
    let open: BTreeSet<u64> = fs::read_dir(format!("/proc/{agent}/fd"))?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect();
    // A new one has the lowest number that is free, which must not be below the limit.
    let free = (0..).find(|number| !open.contains(number));
    let limit = limit_of(
        agent,
        Rlimit {
            current: free,
            maximum: None,
        },
    )?;
    let before = prlimit(Some(pid(agent)?), Resource::Nofile, limit);
    let before = before.context("cannot limit the agent's descriptors")?;
    Ok(Wound::Descriptors {
        host,
        before: (before.current, before.maximum),
    })
}

/// The limit with the maximum that holds for a process.
fn limit_of(process: u32, limit: Rlimit) -> Result<Rlimit> {
    let text = fs::read_to_string(format!("/proc/{process}/limits"))?;
    let line = text.lines().find(|line| line.starts_with("Max open files"));
    let maximum = line.and_then(|line| line.split_whitespace().nth(4)?.parse().ok());
    Ok(Rlimit {
        maximum: Some(maximum.context("the kernel does not tell the limit of descriptors")?),
        ..limit
    })
}

/// Lets it open files again.
pub(super) fn give_descriptors(
    cluster: &mut Cluster,
    host: usize,
    (current, maximum): (Option<u64>, Option<u64>),
) -> Result<()> {
    let agent = cluster.hosts[host].agent_id()?;
    let limit = Rlimit { current, maximum };
    prlimit(Some(pid(agent)?), Resource::Nofile, limit)
        .context("cannot give the agent its descriptors back")
        .map(drop)
}

fn pid(process: u32) -> Result<Pid> {
    Pid::from_raw(i32::try_from(process)?).context("no process has the number 0")
}

/// Lets an agent start where the kernel ends it for want of memory.
pub(super) fn take_memory(cluster: &mut Cluster, host: usize) -> Result<Wound> {
    let (group, events) = small_group(cluster.group.path())?;
    cluster.history.blind(host, Moment::now());
    let front = cluster.hosts[host].front_id()?;
    cluster.hosts[host].kill_agent()?;
    let program = cluster.hosts[host].agent_program().display().to_string();
    let script = format!(
        "echo $$ > {}/cgroup.procs && exec {program} \"$@\"",
        group.display()
    );
    let before = ["-c".to_owned(), script, "agent".to_owned()];
    cluster.hosts[host].start_agent_by("/bin/sh".into(), &before)?;
    cluster.await_agent_end(host)?;
    let ended = fs::read_to_string(group.join(events))?;
    let count = ended
        .lines()
        .find_map(|line| line.strip_prefix("oom_kill "));
    ensure!(
        count.is_some_and(|it| it.trim() != "0"),
        "the agent did not end for want of memory: {ended}"
    );
    ensure!(
        cluster.hosts[host].front_id()? == front,
        "the front was not left alive"
    );
    Ok(Wound::Memory { host, group })
}

/// A group with too little memory, and its file that counts who was ended for that. It goes with the cluster's group `own`, also
/// when this process is killed: on a hybrid host by its name.
fn small_group(own: &Path) -> Result<(PathBuf, &'static str)> {
    const LACKS: &str = "the memory controller of cgroups is needed for this fault";
    let first = Path::new(MEMORY);
    if first.is_dir() {
        let name = own.file_name().context("the cluster's group has a name")?;
        let group = first.join(name);
        fs::create_dir_all(&group).context(LACKS)?;
        fs::write(group.join("memory.limit_in_bytes"), TOO_LITTLE)?;
        return Ok((group, "memory.oom_control"));
    }
    for folder in own.parent().into_iter().chain([own]) {
        fs::write(folder.join("cgroup.subtree_control"), "+memory").context(LACKS)?;
    }
    let group = own.join("small");
    fs::create_dir_all(&group)?;
    fs::write(group.join("memory.max"), TOO_LITTLE)?;
    Ok((group, "memory.events"))
}

/// Starts it where there is enough.
pub(super) fn give_memory(cluster: &mut Cluster, host: usize, group: &Path) -> Result<()> {
    cluster.hosts[host].start_agent()?;
    eventually(LIMIT, || fs::remove_dir(group))
        .with_context(|| format!("cannot remove {}", group.display()))
}

/// Waits until every agent tells a problem with these words.
pub(super) fn await_told(cluster: &Cluster, words: &str) -> Result<()> {
    for host in &cluster.hosts {
        eventually(LIMIT, || {
            let report = host.report()?;
            let told = report["components"].to_string() + &report["problems"].to_string();
            ensure!(told.contains(words), "{words} is not in {told}");
            Ok(())
        })?;
    }
    Ok(())
}

/// The ports that connections are given by the kernel.
const PORTS: &str = "/proc/sys/net/ipv4/ip_local_port_range";

/// Leaves a host next to no ports for new connections.
pub(super) fn take_ports(cluster: &mut Cluster, host: usize) -> Result<Wound> {
    cluster.history.portless(host, Moment::now());
    let netns = &cluster.hosts[host].netns;
    let taken = netns.enter(|| {
        let before = fs::read_to_string(PORTS)?;
        fs::write(PORTS, "61000 61001")?;
        Ok::<_, std::io::Error>(before)
    })?;
    let before = taken.context("cannot take a host's ports")?;
    Ok(Wound::Ports { host, before })
}

/// Gives them back.
pub(super) fn give_ports(cluster: &mut Cluster, host: usize, before: &str) -> Result<()> {
    let netns = &cluster.hosts[host].netns;
    let given = netns.enter(|| fs::write(PORTS, before))?;
    given.context("cannot give a host its ports back")?;
    cluster.history.ported(host, Moment::now());
    Ok(())
}
