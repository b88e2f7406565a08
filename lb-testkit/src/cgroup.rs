//! A group of processes in the cgroup2 tree, to attach hooks to, and to end everything in it at once.
//!
//! The value owns the group; [`Cgroup::new`] also starts a watchdog, a shell that waits for its owner's end and then
//! does what `Drop` would have done. So a SIGKILL leaves nothing behind either, and neither does a child of a child.

use std::{
    fs, io,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{Error, Result, eventually};

/// A cgroup. Dropping it kills every process in it and in its subgroups, and removes it.
#[derive(Debug)]
pub struct Cgroup {
    path: PathBuf,
    /// Of a subgroup: its top has one.
    watchdog: Option<Watchdog>,
}

impl Cgroup {
    /// Makes the group `lb-<label>-<pid of the caller>-<number>` at the top of the cgroup2 tree.
    ///
    /// # Errors
    /// When no cgroup2 is mounted, or the kernel refuses.
    pub fn new(label: &str) -> Result<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("lb-{label}-{}-{number}", std::process::id());
        let path = top()?.join(name);
        let watchdog = Watchdog::start(&path)?;
        make(&path)?;
        Ok(Self {
            path,
            watchdog: Some(watchdog),
        })
    }

    /// Makes a group within this one. It must be dropped before.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn subgroup(&self, name: &str) -> Result<Self> {
        let path = self.path.join(name);
        make(&path)?;
        Ok(Self {
            path,
            watchdog: None,
        })
    }

    /// The processes in it, those of its subgroups not counted.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn processes(&self) -> Result<Vec<u32>> {
        let list = self.path.join("cgroup.procs");
        let text =
            fs::read_to_string(&list).map_err(Error::of("read", list.display().to_string()))?;
        Ok(text.lines().filter_map(|line| line.parse().ok()).collect())
    }

    /// The group's folder: what hooks are attached to.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // The twins of a subgroup are within those of its top; one of its bare name would be a stranger's.
        let twins = self.watchdog.as_ref().map(|_| twins(&self.path));
        if let Err(error) = remove(&self.path, &twins.unwrap_or_default()) {
            eprintln!("cannot remove {}: {error}", self.path.display());
        }
        drop(self.watchdog.take());
    }
}

/// Removes what owners of groups `lb-<label>-…` left behind that are gone, watchdog and all. Returns what it removed.
///
/// # Errors
/// When no cgroup2 is mounted, or a group cannot be emptied.
pub fn sweep(label: &str) -> Result<Vec<PathBuf>> {
    let top = top()?;
    let entries = fs::read_dir(&top).map_err(Error::of("list", top.display().to_string()))?;
    let mut removed = Vec::new();
    for entry in entries.filter_map(io::Result::ok) {
        let name = entry.file_name();
        let owner = name.to_str().and_then(|name| owner(name, label));
        if owner.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
            let path = entry.path();
            remove(&path, &twins(&path))
                .map_err(Error::of("remove", path.display().to_string()))?;
            removed.push(path);
        }
    }
    Ok(removed)
}

/// The process that made the group `name`, if it is one of ours with this label.
fn owner(name: &str, label: &str) -> Option<u32> {
    let rest = name.strip_prefix("lb-")?.strip_prefix(label)?;
    let (pid, number) = rest.strip_prefix('-')?.split_once('-')?;
    number.parse::<u32>().ok()?;
    pid.parse().ok()
}

/// Where the cgroup2 tree is mounted: hybrid hosts have it beside the older one.
fn top() -> Result<PathBuf> {
    let mounts =
        fs::read_to_string("/proc/self/mounts").map_err(Error::of("read", "/proc/self/mounts"))?;
    mount_of_cgroup2(&mounts).ok_or(Error::NoCgroup2)
}

fn mount_of_cgroup2(mounts: &str) -> Option<PathBuf> {
    mounts_of(mounts, "cgroup2").next()
}

fn mounts_of(mounts: &str, kind: &str) -> impl Iterator<Item = PathBuf> {
    mounts.lines().filter_map(move |line| {
        let mut fields = line.split(' ').skip(1);
        let (place, found) = (fields.next()?, fields.next()?);
        (found == kind).then(|| PathBuf::from(place.replace("\\040", " ")))
    })
}

fn make(path: &Path) -> Result<()> {
    fs::create_dir(path).map_err(Error::of("make cgroup", path.display().to_string()))
}

/// Kills what is in the group at `path` and below, and removes it and its `twins`. An absent group is fine.
fn remove(path: &Path, twins: &[PathBuf]) -> io::Result<()> {
    eventually(PATIENCE, || {
        for twin in twins {
            thaw_all(twin);
        }
        kill_all(path);
        remove_tree(path)?;
        twins.iter().try_for_each(|twin| remove_tree(twin))
    })
    .map_err(|late| late.last)
}

/// Where a container engine makes groups of the same name as the group at the top `path` on a hybrid host: once in each tree of the first version.
fn twins(path: &Path) -> Vec<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let name = path.file_name().unwrap_or_default();
    let trees = mounts_of(&mounts, "cgroup");
    trees.map(|tree| tree.join(name)).collect()
}

/// A process in a frozen group of the first version does not even hear SIGKILL.
fn thaw_all(path: &Path) {
    let state = path.join("freezer.state");
    if state.exists() {
        // A group that goes away meanwhile needs nothing.
        let _ = fs::write(state, "THAWED");
        for subgroup in subgroups(path) {
            thaw_all(&subgroup);
        }
    }
}

/// Removes a group that is empty of processes, subgroups first. Folders of a cgroup hold files that are no files:
/// `remove_dir_all` cannot remove them.
fn remove_tree(path: &Path) -> io::Result<()> {
    for subgroup in subgroups(path) {
        remove_tree(&subgroup)?;
    }
    match fs::remove_dir(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn kill_all(path: &Path) {
    // Kernel 5.14: all at once, with no fork slipping through. The group may be gone: then so is its content.
    if fs::write(path.join("cgroup.kill"), "1").is_ok() {
        return;
    }
    for subgroup in subgroups(path) {
        kill_all(&subgroup);
    }
    let processes = fs::read_to_string(path.join("cgroup.procs")).unwrap_or_default();
    for pid in processes.lines().filter_map(|line| line.parse().ok()) {
        // It may have ended by itself meanwhile.
        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
    }
}

fn subgroups(path: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(path).into_iter().flatten();
    let folders = entries
        .filter_map(io::Result::ok)
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    folders.map(|entry| entry.path()).collect()
}

/// A shell that outlives its owner by a moment. It waits for the end of its input, which the kernel closes
/// however the owner ends, and then empties and removes the group.
#[derive(Debug)]
struct Watchdog {
    shell: Child,
    /// Closed first: that is the signal.
    alive: Option<ChildStdin>,
}

impl Watchdog {
    fn start(group: &Path) -> Result<Self> {
        let mut shell = Command::new("/bin/sh")
            .args(["-c", SCRIPT, "lb-watchdog"])
            .arg(group)
            .args(twins(group))
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // Ctrl-C goes to the whole foreground group; this one has to stay.
            .process_group(0)
            .spawn()
            .map_err(Error::of(
                "start the watchdog of",
                group.display().to_string(),
            ))?;
        let alive = shell.stdin.take();
        Ok(Self { shell, alive })
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        drop(self.alive.take());
        let _ = self.shell.wait();
    }
}

/// Bounded: about ten seconds, then it gives up. `sleep` takes whole seconds only where it is not GNU's.
const SCRIPT: &str = r#"
read -r _
[ -d "$1" ] || exit 0
for _ in 1 2 3 4 5 6 7 8 9 10; do
    find "$@" -name freezer.state | while read -r state; do echo THAWED > "$state"; done
    echo 1 > "$1/cgroup.kill" || find "$1" -name cgroup.procs -exec cat {} + | xargs -r kill -9
    find "$@" -depth -type d -exec rmdir {} \;
    [ -d "$1" ] || exit 0
    sleep 1
done
"#;

/// A killed process is gone within milliseconds, unless its last writes go to a slow disk.
const PATIENCE: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Spawn;

    #[test]
    fn the_tree_is_found_on_unified_and_on_hybrid_hosts() {
        let hybrid = "tmpfs /sys/fs/cgroup tmpfs rw 0 0\n\
                      cgroup /sys/fs/cgroup/pids cgroup rw,pids 0 0\n\
                      cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n";
        let unified = "cgroup2 /sys/fs/cgroup cgroup2 rw,nsdelegate 0 0\n";
        let expect = |mounts, place: &str| {
            assert_eq!(mount_of_cgroup2(mounts), Some(PathBuf::from(place)));
        };
        expect(hybrid, "/sys/fs/cgroup/unified");
        expect(unified, "/sys/fs/cgroup");
        assert_eq!(mount_of_cgroup2("proc /proc proc rw 0 0\n"), None);
    }

    #[test]
    fn only_groups_of_the_label_have_an_owner() {
        assert_eq!(owner("lb-demo-17-0", "demo"), Some(17));
        assert_eq!(owner("lb-demo-17", "demo"), None);
        assert_eq!(owner("lb-bench-17-0", "demo"), None);
        assert_eq!(owner("lb-demo-x-0", "demo"), None);
        assert_eq!(owner("system.slice", "demo"), None);
    }

    #[test]
    fn dropping_a_group_ends_what_is_in_its_subgroups() {
        let group = Cgroup::new("test").unwrap();
        let inner = group.subgroup("inner").unwrap();
        let mut process = Spawn::new("sleeper", "sleep")
            .arg("600")
            .cgroup(&inner)
            .start()
            .unwrap();
        assert_eq!(inner.processes().unwrap(), [process.id()]);
        let path = group.path().to_owned();
        drop(group);
        assert!(!path.exists());
        assert!(!process.wait(Duration::from_secs(5)).unwrap().success());
    }

    #[test]
    fn the_watchdog_cleans_up_for_an_owner_that_was_killed() {
        let group = top()
            .unwrap()
            .join(format!("lb-test-{}-orphan", std::process::id()));
        let mut watchdog = Watchdog::start(&group).unwrap();
        make(&group).unwrap();
        make(&group.join("inner")).unwrap();
        let mut orphan = Command::new("sleep").arg("600").spawn().unwrap();
        fs::write(group.join("inner/cgroup.procs"), orphan.id().to_string()).unwrap();
        // All that a killed owner does: its end of the pipe closes.
        drop(watchdog.alive.take());
        assert!(!orphan.wait().unwrap().success());
        watchdog.shell.wait().unwrap();
        assert!(!group.exists());
    }

    #[test]
    fn a_sweep_removes_the_groups_of_the_dead_and_no_others() {
        let mut dead = Command::new("true").spawn().unwrap();
        dead.wait().unwrap();
        let stale = top().unwrap().join(format!("lb-swept-{}-0", dead.id()));
        make(&stale).unwrap();
        let ours = Cgroup::new("swept").unwrap();
        assert_eq!(sweep("swept").unwrap(), [stale]);
        assert!(ours.path().exists());
    }
}
