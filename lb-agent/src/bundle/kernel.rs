//! What the kernel says that bears upon the agent.

use std::{fs, path::Path};

/// For people: what stands in files of /proc and /sys, where the trees are mounted, and what is pinned below `bpffs`.
pub(super) fn facts(bpffs: &Path) -> String {
    let mut text = String::new();
    for path in FILES {
        let said = fs::read_to_string(path);
        let said = said.unwrap_or_else(|error| format!("({error})"));
        text.push_str(&format!("== {path}\n{}\n", said.trim_end()));
    }
    let types = fs::metadata(TYPES);
    let types = types.map_or_else(
        |error| format!("({error})"),
        |file| format!("{} bytes", file.len()),
    );
    text.push_str(&format!("== {TYPES}\n{types}\n"));
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let of_ours = |it: &&str| {
        [" - cgroup", " - bpf "]
            .iter()
            .any(|kind| it.contains(kind))
    };
    text.push_str("== mounts of cgroup and bpf\n");
    for mount in mounts.lines().filter(of_ours) {
        text.push_str(mount);
        text.push('\n');
    }
    let root = crate::programs::pin_root(bpffs);
    text.push_str(&format!("== pins below {}\n", root.display()));
    let mut pins = Vec::new();
    pins_below(&root, DEPTH, &mut pins);
    pins.sort();
    for pin in &pins {
        text.push_str(pin);
        text.push('\n');
    }
    text
}

fn pins_below(folder: &Path, depth: usize, pins: &mut Vec<String>) {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) => return pins.push(format!("{}: ({error})", folder.display())),
    };
    for entry in entries.flatten() {
        if pins.len() >= PINS {
            return;
        }
        let path = entry.path();
        pins.push(path.display().to_string());
        if depth > 0 && path.is_dir() {
            pins_below(&path, depth - 1, pins);
        }
    }
}

const DEPTH: usize = 3;
const PINS: usize = 500;
const TYPES: &str = "/sys/kernel/btf/vmlinux";

const FILES: [&str; 19] = [
    "/proc/version",
    "/proc/uptime",
    "/proc/loadavg",
    "/sys/kernel/security/lsm",
    "/sys/kernel/security/lockdown",
    "/proc/sys/kernel/unprivileged_bpf_disabled",
    "/proc/sys/kernel/bpf_stats_enabled",
    "/proc/sys/net/core/bpf_jit_enable",
    "/proc/sys/net/core/bpf_jit_harden",
    "/proc/sys/net/core/somaxconn",
    "/proc/sys/net/ipv4/ip_forward",
    "/proc/sys/net/ipv4/ip_local_port_range",
    "/proc/sys/net/ipv4/conf/all/rp_filter",
    "/proc/sys/net/ipv6/conf/lo/disable_ipv6",
    "/proc/sys/net/mptcp/enabled",
    "/proc/sys/net/bridge/bridge-nf-call-iptables",
    "/proc/self/limits",
    "/proc/meminfo",
    "/proc/pressure/cpu",
];
