//! What the facts of the host mean, and what to do about it. Pure.

use lb_common::{MAP_VERSION, map};

use super::{
    Finding,
    facts::{Host, Mount},
    judge_announce::announce,
};
use crate::config::Config;

/// The findings of the host alone.
pub(super) fn host(host: &Host, config: Option<&Config>) -> Vec<Finding> {
    let mut found = Vec::new();
    found.extend(host.kernel.as_deref().map(kernel));
    found.extend(host.has_btf.map(btf));
    found.extend(host.jit.map(|jit| self::jit(jit, host.unprivileged_bpf)));
    found.extend(host.capabilities.map(capabilities));
    found.extend(host.refuses_bpf.map(|it| bpf(it, host.profile.as_deref())));
    found.extend(rp_filter(host));
    found.extend(host.bridge_nf.map(|it| bridge(it, config)));
    found.extend(host.open_files.map(open_files));
    found.extend(mtu(host));
    if let Some(config) = config {
        found.extend(cgroup(host, config));
        found.extend(containers(host, config));
        found.push(others(host));
        found.extend(bpffs(host, config));
        found.push(pins(host, config));
        found.extend(announce(host, config));
    }
    found
}

fn kernel(release: &str) -> Finding {
    let check = "kernel";
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    let version: (u32, u32) = match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => (major, minor),
        _ => return Finding::unknown(check, format!("cannot read the release {release:?}")),
    };
    if version < (5, 19) {
        let found = format!("Linux {release} is too old: the socket hooks need 5.19 or newer");
        return Finding::error(check, found, "boot a newer kernel");
    }
    let mut found = format!("Linux {release}");
    if version < (6, 10) {
        found.push_str("; before 6.10 traces do not know the process");
    }
    Finding::ok(check, found)
}

fn btf(has_btf: bool) -> Finding {
    match has_btf {
        true => Finding::ok("btf", "the kernel describes its types"),
        false => Finding::error(
            "btf",
            "/sys/kernel/btf/vmlinux is missing: the programs cannot be loaded",
            "boot a kernel with CONFIG_DEBUG_INFO_BTF=y",
        ),
    }
}

fn jit(jit: u32, unprivileged: Option<u32>) -> Finding {
    if jit == 0 {
        return Finding::warning(
            "jit",
            "the kernel interprets programs, which makes each connect slower",
            "sysctl -w net.core.bpf_jit_enable=1",
        );
    }
    let open = match unprivileged {
        Some(0) => "; every user may load programs (kernel.unprivileged_bpf_disabled is 0)",
        _ => "",
    };
    Finding::ok("jit", format!("programs are compiled{open}"))
}

/// The bits of linux/capability.h that loading and attaching need, and those that make something work.
const NET_ADMIN: (u32, &str) = (12, "CAP_NET_ADMIN");
const SYS_ADMIN: (u32, &str) = (21, "CAP_SYS_ADMIN");
const BPF: (u32, &str) = (39, "CAP_BPF");
const PERFMON: (u32, &str) = (38, "CAP_PERFMON");
const OF_USE: [(u32, &str, &str); 7] = [
    (
        19,
        "CAP_SYS_PTRACE",
        "containers count as the host, and flows are not cut after a drain",
    ),
    (
        2,
        "CAP_DAC_READ_SEARCH",
        "UDP flows of other users are not cut",
    ),
    (10, "CAP_NET_BIND_SERVICE", "ports below 1024 cannot be had"),
    (7, "CAP_SETUID", "the front runs as this user"),
    (6, "CAP_SETGID", "the front runs with this group"),
    (
        8,
        "CAP_SETPCAP",
        "the front cannot give up its bounding set",
    ),
    (5, "CAP_KILL", "a front of another user cannot be ended"),
];

fn capabilities(held: u64) -> Finding {
    let check = "capabilities";
    let lacks = |bit: u32| held & (1 << bit) == 0;
    let needed: &[_] = match lacks(SYS_ADMIN.0) {
        true => &[BPF, PERFMON, NET_ADMIN],
        false => &[NET_ADMIN],
    };
    let missing: Vec<_> = needed
        .iter()
        .filter(|it| lacks(it.0))
        .map(|it| it.1)
        .collect();
    if !missing.is_empty() {
        let found = format!("too few to load and attach: {} missing", missing.join(", "));
        let remedy = format!("run it as root, or give it {}", missing.join(", "));
        return Finding::error(check, found, remedy);
    }
    let lost: Vec<_> = OF_USE.iter().filter(|it| lacks(it.0)).collect();
    if !lost.is_empty() {
        let each = lost.iter().map(|it| format!("without {} {}", it.1, it.2));
        let names: Vec<_> = lost.iter().map(|it| it.1).collect();
        let remedy = format!("give it {}, or go without", names.join(", "));
        return Finding::warning(check, each.collect::<Vec<_>>().join("; "), remedy);
    }
    Finding::ok(check, "all that are of use are there")
}

fn bpf(refused: bool, profile: Option<&str>) -> Finding {
    if !refused {
        return Finding::ok("bpf", "bpf(2) may be called");
    }
    let confined = profile.filter(|it| !it.starts_with("unconfined") && !it.is_empty());
    let profile = confined.map(|it| format!("; AppArmor confines it by {it}"));
    Finding::error(
        "bpf",
        format!(
            "bpf(2) is refused, most often by a seccomp profile{}",
            profile.unwrap_or_default()
        ),
        "give the container compose/seccomp.json, or that of its engine with SYS_ADMIN",
    )
}

/// It drops what comes by another way than answers would go, which VIPs never make anything do.
fn rp_filter(host: &Host) -> Option<Finding> {
    let strict = |(device, value): (&String, &u32)| (*value == 1).then(|| device.clone());
    let strict: Vec<_> = host.rp_filter.iter().filter_map(strict).collect();
    (!host.rp_filter.is_empty()).then(|| match strict.is_empty() {
        true => Finding::ok("rp_filter", "not strict"),
        false => Finding::ok(
            "rp_filter",
            format!("strict on {}, which VIPs do not mind", some(&strict)),
        ),
    })
}

fn bridge(calls: u32, config: Option<&Config>) -> Finding {
    let engine = config.is_some_and(|it| it.sources.docker.is_some());
    match calls {
        0 if engine => Finding::warning(
            "br_netfilter",
            "answers between containers of one bridge pass by iptables, so published ports do not work between them",
            "sysctl -w net.bridge.bridge-nf-call-iptables=1",
        ),
        _ => Finding::ok(
            "br_netfilter",
            format!("bridge-nf-call-iptables is {calls}"),
        ),
    }
}

fn open_files(limit: u64) -> Finding {
    match limit {
        0..FEWEST_FILES => Finding::warning(
            "open files",
            format!("{limit} files may be open at once, so the front has few connections"),
            "raise the hard limit: LimitNOFILE=524288 in systemd's unit, ulimits in a container",
        ),
        u64::MAX => Finding::ok("open files", "without a limit"),
        _ => Finding::ok("open files", format!("{limit} may be open at once")),
    }
}

/// Fewer than systemd gives any service.
const FEWEST_FILES: u64 = 4096;

fn mtu(host: &Host) -> Option<Finding> {
    let small = host.mtu.iter().filter(|(_, mtu)| **mtu < 1280);
    let small: Vec<_> = small
        .map(|(device, mtu)| format!("{device} ({mtu})"))
        .collect();
    (!host.mtu.is_empty()).then(|| match small.is_empty() {
        true => Finding::ok("mtu", "every device carries IPv6"),
        false => Finding::warning(
            "mtu",
            format!("too small for IPv6, which needs 1280: {}", some(&small)),
            "ip link set DEVICE mtu 1280, or more",
        ),
    })
}

/// The deepest mount that `path` lies in.
fn mount_of<'m>(mounts: &'m [Mount], path: &str) -> Option<&'m Mount> {
    let covers = |point: &str| {
        let rest = path.strip_prefix(point.trim_end_matches('/'));
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    // Of two at one place the later one hides the other.
    let all = mounts.iter().filter(|it| covers(&it.point));
    all.max_by_key(|it| it.point.len())
}

fn cgroup(host: &Host, config: &Config) -> Option<Finding> {
    let check = "cgroup";
    let mounts = host.mounts.as_ref()?;
    let path = config.cgroup.to_string_lossy();
    let is_v2 = mount_of(mounts, &path).is_some_and(|it| it.kind == "cgroup2");
    if !is_v2 || host.has_cgroup == Some(false) {
        let found = format!("{path} is no directory of the cgroup v2 tree");
        let remedy = "correct --cgroup, or mount the tree: mount -t cgroup2 none DIR";
        return Some(Finding::error(check, found, remedy));
    }
    let hybrid = mounts.iter().any(|it| it.kind == "cgroup");
    let hybrid = if hybrid {
        "; version 1 is mounted, too"
    } else {
        ""
    };
    Some(Finding::ok(check, format!("{path} is in the tree{hybrid}")))
}

fn containers(host: &Host, config: &Config) -> Option<Finding> {
    config.sources.docker.as_ref()?;
    let path = config.cgroup.to_string_lossy();
    let mount = mount_of(host.mounts.as_ref()?, &path).filter(|it| it.kind == "cgroup2")?;
    let group = path[mount.point.trim_end_matches('/').len()..].trim_end_matches('/');
    let is_outside = |it: &&String| {
        let rest = it.strip_prefix(group);
        rest.is_none_or(|rest| !rest.is_empty() && !rest.starts_with('/'))
    };
    let outside: Vec<_> = host.containers.iter().filter(is_outside).cloned().collect();
    if host.containers.is_empty() {
        return None;
    }
    Some(match outside.is_empty() {
        true => Finding::ok("containers", format!("all are below {path}")),
        false => Finding::warning(
            "containers",
            format!(
                "outside of {path}, so they reach no VIP: {}",
                some(&outside)
            ),
            "name a directory above all of them with --cgroup, or start the engine with a --cgroup-parent below it",
        ),
    })
}

fn others(host: &Host) -> Finding {
    if host.others.is_empty() {
        return Finding::ok("hooks", "nobody else rewrites where connects go");
    }
    let each = host.others.iter();
    let each: Vec<_> = each
        .map(|(hook, all)| format!("{hook}: {}", all.join(", ")))
        .collect();
    Finding::warning(
        "hooks",
        format!(
            "others have programs at them, and of two that rewrite an address the last one wins: {}",
            each.join("; ")
        ),
        "let one of them balance: end the other (Cilium: kubeProxyReplacement), or keep it out of --cgroup",
    )
}

fn bpffs(host: &Host, config: &Config) -> Option<Finding> {
    let check = "bpffs";
    let path = config.bpffs.to_string_lossy();
    let is_bpffs = mount_of(host.mounts.as_ref()?, &path).is_some_and(|it| it.kind == "bpf");
    let mount = format!("mount -t bpf bpf {path}, or correct --bpffs");
    Some(match &host.bpffs_entries {
        None => Finding::error(
            check,
            format!("{path} is no directory"),
            format!("mkdir -p {path}; {mount}"),
        ),
        Some(_) if is_bpffs => Finding::ok(check, format!("{path} is one")),
        Some(entries) if entries.is_empty() => {
            let may = host
                .capabilities
                .is_none_or(|it| it & (1 << SYS_ADMIN.0) != 0);
            match may {
                true => Finding::ok(check, format!("{path} is none; the agent mounts it")),
                false => Finding::error(
                    check,
                    format!("{path} is none, and CAP_SYS_ADMIN is missing to mount it"),
                    mount,
                ),
            }
        }
        Some(_) => Finding::error(
            check,
            format!("{path} is no bpffs but a directory with files in it"),
            mount,
        ),
    })
}

/// What lies beside the folders of versions.
const OF_ALL_VERSIONS: [&str; 4] = ["links", "packet", map::ACTIVE, map::RECORDS];

fn pins(host: &Host, config: &Config) -> Finding {
    let check = "pins";
    let folder = crate::programs::pin_root(&config.bpffs);
    let folder = folder.display();
    let version = |name: &str| name.strip_prefix('v')?.parse::<u32>().ok();
    let known = [MAP_VERSION, MAP_VERSION - 1];
    let alien = host
        .pins
        .iter()
        .find(|it| version(it).is_some_and(|it| !known.contains(&it)));
    if let Some(alien) = alien {
        return Finding::error(
            check,
            format!(
                "{folder}/{alien} holds maps of another version, which this agent cannot take over"
            ),
            "start an agent of a version in between, or run `lb-agent uninstall`, which forgets the open flows",
        );
    }
    let is_foreign =
        |it: &&String| version(it).is_none() && !OF_ALL_VERSIONS.contains(&it.as_str());
    let foreign: Vec<_> = host.pins.iter().filter(is_foreign).cloned().collect();
    match (foreign.is_empty(), host.pins.is_empty()) {
        (false, _) => Finding::warning(
            check,
            format!("{folder} has what is not ours: {}", some(&foreign)),
            "move it away: `lb-agent uninstall` leaves what it does not know",
        ),
        (true, true) => Finding::ok(check, "none are there yet"),
        (true, false) => Finding::ok(check, "those of an agent are there"),
    }
}

/// The first few, and how many more there are.
fn some(all: &[String]) -> String {
    let named: Vec<_> = all.iter().take(3).map(String::as_str).collect();
    match all.len() - named.len() {
        0 => named.join(", "),
        more => format!("{} and {more} more", named.join(", ")),
    }
}
