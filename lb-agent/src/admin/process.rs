//! What a process of ours uses, read from /proc.

use std::{
    fs,
    path::Path,
    time::{Duration, SystemTime},
};

use super::figures::{Figure, Sample};

/// The usual `process_*` figures of the process whose folder of /proc this is; one that cannot be read is left out.
pub(super) fn figures(folder: &Path) -> Vec<Figure> {
    let read = |name: &str| fs::read_to_string(folder.join(name)).unwrap_or_default();
    let (status, stat, limits) = (read("status"), read("stat"), read("limits"));
    let boot = fs::read_to_string("/proc/stat").unwrap_or_default();
    let gauge = |name, help, value: Option<f64>| {
        Figure::gauge(name, help, value.map(Sample::plain).into_iter().collect())
    };
    vec![
        gauge(
            STARTED,
            "When the process started, in seconds since 1970.",
            started(&stat, &boot),
        ),
        gauge(
            "process_resident_memory_bytes",
            "Memory that the process holds.",
            bytes(&status, "VmRSS:"),
        ),
        gauge(
            "process_virtual_memory_bytes",
            "Addresses that the process has taken.",
            bytes(&status, "VmSize:"),
        ),
        gauge(
            "process_threads",
            "Threads of the process.",
            field(&status, "Threads:").and_then(|threads| threads.parse().ok()),
        ),
        Figure::counter(
            "process_cpu_seconds",
            "Processor time that the process used, user and system.",
            cpu_seconds(&stat).map(Sample::plain).into_iter().collect(),
        ),
        gauge(
            "process_open_fds",
            "File descriptors that the process has open.",
            open_fds(folder),
        ),
        gauge(
            "process_max_fds",
            "File descriptors that the process may have open.",
            max_fds(&limits),
        ),
    ]
}

/// When the process of these `figures` started, to a second and not later.
pub(super) fn started_at(figures: &[Figure]) -> Option<SystemTime> {
    let started = figures.iter().find(|it| it.name == STARTED)?;
    let since = Duration::try_from_secs_f64(started.samples.first()?.value.floor()).ok()?;
    SystemTime::UNIX_EPOCH.checked_add(since)
}

fn field<'s>(status: &'s str, name: &str) -> Option<&'s str> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    Some(line.trim())
}

fn bytes(status: &str, name: &str) -> Option<f64> {
    let kibibytes = field(status, name)?.strip_suffix("kB")?.trim();
    Some(kibibytes.parse::<f64>().ok()? * 1024.0)
}

/// The numbers of /proc/…/stat from the third, the state, on: proc_pid_stat(5).
fn numbers(stat: &str) -> Option<impl Iterator<Item = &str>> {
    // The command's name may hold spaces and parentheses; fields count from behind its last one.
    let (_, rest) = stat.rsplit_once(')')?;
    Some(rest.split_ascii_whitespace())
}

pub(super) fn cpu_seconds(stat: &str) -> Option<f64> {
    let mut fields = numbers(stat)?.skip(11);
    let user: f64 = fields.next()?.parse().ok()?;
    let system: f64 = fields.next()?.parse().ok()?;
    Some((user + system) / TICKS_PER_SECOND)
}

pub(super) fn started(stat: &str, boot: &str) -> Option<f64> {
    let ticks: f64 = numbers(stat)?.nth(19)?.parse().ok()?;
    let boot: f64 = field(boot, "btime ")?.parse().ok()?;
    Some(boot + ticks / TICKS_PER_SECOND)
}

fn max_fds(limits: &str) -> Option<f64> {
    let soft = field(limits, "Max open files")?.split_whitespace().next()?;
    match soft {
        "unlimited" => Some(f64::INFINITY),
        number => number.parse().ok(),
    }
}

fn open_fds(folder: &Path) -> Option<f64> {
    let entries = fs::read_dir(folder.join("fd")).ok()?.count();
    // The directory that is being read is itself open here.
    let own = usize::from(folder == Path::new(OWN));
    u32::try_from(entries.saturating_sub(own))
        .ok()
        .map(f64::from)
}

/// Of the process that reads it.
pub(super) const OWN: &str = "/proc/self";
const STARTED: &str = "process_start_time_seconds";

/// USER_HZ: fixed at 100 in the kernel's interface on every architecture that we build for.
const TICKS_PER_SECOND: f64 = 100.0;

#[cfg(test)]
mod tests {
    use std::time::{SystemTime, UNIX_EPOCH};

    use super::*;

    fn value(figures: &[Figure], name: &str) -> f64 {
        let figure = figures.iter().find(|figure| figure.name == name);
        figure.unwrap().samples[0].value
    }

    #[test]
    fn this_process_and_another_one_have_memory_processor_time_and_descriptors() {
        let mut other = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .unwrap();
        let folder = format!("/proc/{}", other.id());
        for folder in [OWN, &folder] {
            let figures = figures(Path::new(folder));
            let resident = value(&figures, "process_resident_memory_bytes");
            assert!(resident > 0.0, "{figures:?}");
            assert!(value(&figures, "process_virtual_memory_bytes") >= resident);
            assert!(value(&figures, "process_threads") >= 1.0);
            assert!(value(&figures, "process_cpu_seconds") >= 0.0);
            let open = value(&figures, "process_open_fds");
            assert!(open >= 3.0 && open < value(&figures, "process_max_fds"));
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
            let age = now.as_secs_f64() - value(&figures, "process_start_time_seconds");
            // The kernel tells whole seconds of its boot.
            assert!((-2.0..3600.0).contains(&age), "{age}");
        }
        other.kill().unwrap();
        other.wait().unwrap();
        let gone = figures(Path::new(&folder));
        assert!(gone.iter().all(|figure| figure.samples.is_empty()));
    }

    #[test]
    fn a_command_with_parentheses_hides_no_field() {
        let stat = "7 (a) b) S 1 1 1 0 -1 0 0 0 0 0 150 50 0 0 20 0 1 0 300 0 0";
        assert_eq!(cpu_seconds(stat), Some(2.0));
        assert_eq!(started(stat, "cpu 1\nbtime 1000\n"), Some(1003.0));
        assert_eq!(cpu_seconds(""), None);
    }
}
