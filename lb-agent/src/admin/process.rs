//! What this process uses, read from /proc.

use std::{fs, time::SystemTime};

use super::figures::{Figure, Sample};

/// The usual `process_*` figures; one that cannot be read is left out.
pub(super) fn figures(started: SystemTime) -> Vec<Figure> {
    let started = started
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0.0, |since| since.as_secs_f64());
    let plain = |value: Option<f64>| value.map(Sample::plain).into_iter().collect();
    vec![
        Figure::gauge(
            "process_start_time_seconds",
            "When the process started, in seconds since 1970.",
            plain(Some(started)),
        ),
        Figure::gauge(
            "process_resident_memory_bytes",
            "Memory that the process holds.",
            plain(resident_bytes()),
        ),
        Figure::counter(
            "process_cpu_seconds",
            "Processor time that the process used, user and system.",
            plain(cpu_seconds()),
        ),
        Figure::gauge(
            "process_open_fds",
            "File descriptors that the process has open.",
            plain(open_fds()),
        ),
    ]
}

fn resident_bytes() -> Option<f64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024.0)
}

fn cpu_seconds() -> Option<f64> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // The command's name may hold spaces and parentheses; fields count from behind its last one.
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace().skip(11);
    let user: f64 = fields.next()?.parse().ok()?;
    let system: f64 = fields.next()?.parse().ok()?;
    Some((user + system) / TICKS_PER_SECOND)
}

fn open_fds() -> Option<f64> {
    let entries = fs::read_dir("/proc/self/fd").ok()?.count();
    // The directory that is being read is itself open.
    u32::try_from(entries.saturating_sub(1)).ok().map(f64::from)
}

/// USER_HZ: fixed at 100 in the kernel's interface on every architecture that we build for.
const TICKS_PER_SECOND: f64 = 100.0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_memory_processor_time_and_descriptors() {
        assert!(resident_bytes().unwrap() > 100_000.0);
        assert!(cpu_seconds().is_some());
        assert!(open_fds().unwrap() >= 3.0);
    }
}
