mod answers;
mod packet;

use std::{fs, io, net::IpAddr, path::Path, time::Duration};

use lb_common::MAP_VERSION;
use tempfile::TempDir;

use super::{
    Finding, Findings, Style,
    facts::{Agent, Consul, Dns, Facts, Listener},
    host, judge,
};
use crate::{
    admin::report::{Component, Mark},
    cli::Exit,
    config::{Config, Outside, RunArgs, Xdp},
    packet::Driver,
};

/// A host that nothing is wrong with, as files below a folder.
struct Tree(TempDir);

impl Tree {
    fn clean() -> Self {
        let tree = Self(TempDir::new().unwrap());
        for (path, text) in [
            ("proc/sys/kernel/osrelease", "6.12.0-1-amd64\n"),
            ("proc/sys/kernel/unprivileged_bpf_disabled", "2\n"),
            ("proc/sys/net/core/bpf_jit_enable", "1\n"),
            ("proc/sys/net/ipv4/conf/all/rp_filter", "0\n"),
            ("proc/sys/net/bridge/bridge-nf-call-iptables", "1\n"),
            ("proc/self/mountinfo", MOUNTS),
            (
                "proc/self/status",
                "Name:\tlb-agent\nCapEff:\t000001ffffffffff\n",
            ),
            (
                "proc/self/limits",
                "Max open files            1024       524288      files\n",
            ),
            ("sys/class/net/eth0/mtu", "1500\n"),
            ("sys/kernel/btf/vmlinux", ""),
            ("sys/fs/bpf/lb/links/connect4", ""),
            ("sys/fs/cgroup/cgroup.procs", ""),
        ] {
            tree.plant(path, text);
        }
        tree.plant(&format!("sys/fs/bpf/lb/v{MAP_VERSION}/SERVICES"), "");
        tree
    }

    fn plant(&self, path: &str, text: &str) {
        let path = self.0.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn remove(&self, path: &str) {
        let path = self.0.path().join(path);
        let removed = if path.is_dir() {
            fs::remove_dir_all(path)
        } else {
            fs::remove_file(path)
        };
        removed.unwrap();
    }

    fn facts(&self, config: &Config) -> Facts {
        Facts {
            host: host::read(self.0.path(), Some(config), None),
            ..Facts::default()
        }
    }

    /// What is wrong.
    fn faults(&self) -> Vec<Finding> {
        let config = config();
        faults(judge(&self.facts(&config), Some(&config)))
    }
}

const MOUNTS: &str = "22 1 0:20 / /sys rw - sysfs sysfs rw\n\
                      35 22 0:30 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n\
                      36 22 0:31 / /sys/fs/bpf rw - bpf bpf rw\n";
const HALF: &str = "35 22 0:30 / /sys/fs/cgroup rw - tmpfs none rw\n\
                    36 22 0:31 / /sys/fs/bpf rw - bpf bpf rw\n";
const NO_BPFFS: &str = "35 22 0:30 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";

fn config() -> Config {
    let args = RunArgs {
        services: Some("/s.toml".into()),
        consul: vec!["127.0.0.1:8500".to_owned()],
        docker: Some("/run/d.sock".to_owned()),
        ..RunArgs::default()
    };
    configured(&args)
}

/// What `args` come to on a host that has these mounts and no other file.
fn configured(args: &RunArgs) -> Config {
    let outside = Outside {
        variable: &|_| None,
        read: &|path| match path == Path::new("/proc/self/mountinfo") {
            true => Ok(MOUNTS.to_owned()),
            false => Err(io::ErrorKind::NotFound.into()),
        },
    };
    Config::load_from(args, outside).unwrap()
}

fn faults(found: Findings) -> Vec<Finding> {
    let is_fault = |it: &Finding| matches!(it.mark, Mark::Error | Mark::Warning);
    found.0.into_iter().filter(is_fault).collect()
}

/// A fault: its check, how bad it is, a part of what is said, and a part of the remedy.
type Expected = (&'static str, Mark, &'static str, &'static str);

#[track_caller]
fn expect(found: &[Finding], expected: &[Expected]) {
    let checks = |all: &[Finding]| -> Vec<_> { all.iter().map(|it| it.check).collect() };
    let wanted: Vec<_> = expected.iter().map(|it| it.0).collect();
    assert_eq!(checks(found), wanted, "{found:#?}");
    for (it, (_, mark, part, remedy)) in found.iter().zip(expected) {
        assert_eq!(it.mark, *mark, "{it:?}");
        assert!(it.finding.contains(part), "{it:?} lacks {part}");
        assert!(
            it.remedy.as_ref().is_some_and(|it| it.contains(remedy)),
            "{it:?} lacks {remedy}"
        );
    }
}

#[test]
fn nothing_is_found_on_a_clean_host() {
    let (tree, config) = (Tree::clean(), config());
    assert_eq!(tree.faults(), []);
    let found = judge(&tree.facts(&config), Some(&config));
    assert_eq!(found.exit(), Exit::Fine);
    // Each check says something, so that nobody thinks it was not made.
    for check in [
        "configuration",
        "kernel",
        "btf",
        "jit",
        "capabilities",
        "rp_filter",
        "br_netfilter",
        "open files",
        "mtu",
        "cgroup",
        "hooks",
        "bpffs",
        "pins",
        "ports",
        "pool",
    ] {
        let said = found.0.iter().filter(|it| it.check == check).count();
        assert_eq!(said, 1, "{check}: {found:#?}");
    }
}

/// What is planted, and what must be found of it.
type Fault = (fn(&Tree), Expected);

/// Faults of files, those that are errors first, in the order of their checks.
const FAULTS: [Fault; 11] = [
    (
        |it| it.plant("proc/sys/kernel/osrelease", "5.10.0-8\n"),
        ("kernel", Mark::Error, "5.10.0-8 is too old", "newer kernel"),
    ),
    (
        |it| it.remove("sys/kernel/btf"),
        (
            "btf",
            Mark::Error,
            "btf/vmlinux is missing",
            "CONFIG_DEBUG_INFO_BTF",
        ),
    ),
    (
        // All but CAP_NET_ADMIN.
        |it| it.plant("proc/self/status", "CapEff:\t000001ffffffefff\n"),
        (
            "capabilities",
            Mark::Error,
            "CAP_NET_ADMIN missing",
            "CAP_NET_ADMIN",
        ),
    ),
    (
        |it| it.plant("proc/self/mountinfo", HALF),
        (
            "cgroup",
            Mark::Error,
            "/sys/fs/cgroup is no directory of the cgroup v2",
            "--cgroup",
        ),
    ),
    (
        |it| it.plant("proc/self/mountinfo", NO_BPFFS),
        (
            "bpffs",
            Mark::Error,
            "is no bpffs but a directory",
            "mount -t bpf bpf /sys/fs/bpf",
        ),
    ),
    (
        |it| it.plant("sys/fs/bpf/lb/v9999/SERVICES", ""),
        (
            "pins",
            Mark::Error,
            "v9999 holds maps of another version",
            "lb-agent uninstall",
        ),
    ),
    (
        |it| it.plant("proc/sys/net/core/bpf_jit_enable", "0\n"),
        ("jit", Mark::Warning, "interprets", "bpf_jit_enable=1"),
    ),
    (
        |it| it.plant("proc/sys/net/bridge/bridge-nf-call-iptables", "0\n"),
        (
            "br_netfilter",
            Mark::Warning,
            "pass by iptables",
            "bridge-nf-call-iptables=1",
        ),
    ),
    (
        |it| {
            it.plant(
                "proc/self/limits",
                "Max open files            64       64      files\n",
            );
        },
        ("open files", Mark::Warning, "64 files", "LimitNOFILE"),
    ),
    (
        |it| it.plant("sys/class/net/eth1/mtu", "576\n"),
        ("mtu", Mark::Warning, "eth1 (576)", "mtu 1280"),
    ),
    (
        |it| it.plant("sys/fs/bpf/lb/mine/x", ""),
        ("pins", Mark::Warning, "not ours: mine", "move it away"),
    ),
];

#[test]
fn each_fault_of_the_host_is_found_alone() {
    for (plant, expected) in FAULTS {
        let tree = Tree::clean();
        plant(&tree);
        expect(&tree.faults(), &[expected]);
    }
}

#[test]
fn all_faults_of_the_host_are_found_at_once() {
    let tree = Tree::clean();
    // Of two that plant the same file, one.
    let all = FAULTS
        .iter()
        .enumerate()
        .filter(|(at, _)| ![3, 10].contains(at));
    let mut expected = Vec::new();
    for (_, (plant, it)) in all {
        plant(&tree);
        expected.push(*it);
    }
    expect(&tree.faults(), &expected);
}

#[test]
fn containers_outside_of_the_cgroup_are_named() {
    let tree = Tree::clean();
    let id = "c0ffee00".repeat(8);
    tree.plant("proc/77/cgroup", &format!("0::/docker/{id}\n"));
    assert_eq!(tree.faults(), []);
    let narrow = Config {
        cgroup: "/sys/fs/cgroup/apps".into(),
        ..config()
    };
    tree.plant("sys/fs/cgroup/apps/cgroup.procs", "");
    let found = faults(judge(&tree.facts(&narrow), Some(&narrow)));
    expect(
        &found,
        &[(
            "containers",
            Mark::Warning,
            "outside of /sys/fs/cgroup/apps",
            "--cgroup-parent",
        )],
    );
}

#[test]
fn strict_reverse_paths_are_told_and_no_fault() {
    let (tree, config) = (Tree::clean(), config());
    tree.plant("proc/sys/net/ipv4/conf/eth0/rp_filter", "1\n");
    let found = judge(&tree.facts(&config), Some(&config)).0;
    let told = found.iter().find(|it| it.check == "rp_filter").unwrap();
    assert_eq!(
        (told.mark, told.finding.contains("strict on eth0")),
        (Mark::Ok, true)
    );
}

#[test]
fn a_wrong_configuration_hides_nothing_of_the_host() {
    let tree = Tree::clean();
    tree.plant("proc/sys/kernel/osrelease", "4.19.0\n");
    let facts = Facts {
        mistakes: vec!["/lb.toml:3: `x`: write y".to_owned()],
        host: host::read(tree.0.path(), None, None),
        ..Facts::default()
    };
    let found = faults(judge(&facts, None));
    let of_file = ("configuration", Mark::Error, "/lb.toml:3", "check-config");
    let of_host = ("kernel", Mark::Error, "4.19.0", "newer");
    expect(&found, &[of_file, of_host]);
}

#[test]
fn the_worst_comes_first_and_nothing_is_obeyed_by_a_terminal() {
    let found = Findings(vec![
        Finding::error("ports", "evil\x1b[2J has it", "end it"),
        Finding::ok("kernel", "Linux"),
    ]);
    let table = found.table(Style::Plain);
    assert!(table.starts_with("!! ports   evil"), "{table}");
    assert!(
        table.contains("\n           -> end it\nok kernel  Linux\n"),
        "{table}"
    );
    assert!(!table.contains('\x1b'), "{table}");
    assert_eq!(found.exit(), Exit::Degraded);
    let json = serde_json::to_value(&found).unwrap();
    assert_eq!(json[0]["mark"], "error");
    assert_eq!(json[1]["remedy"], serde_json::Value::Null);
}

#[tokio::test]
async fn who_is_silent_costs_a_second_and_is_told() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let place = silent.local_addr().unwrap();
    let mut config = config();
    let consul = config.sources.consul.as_mut().unwrap();
    consul.addresses = vec![place.to_string().parse().unwrap()];
    config.sources.docker = None;
    config.dns.upstreams = Some(Vec::new());
    let folder = TempDir::new().unwrap();
    let began = std::time::Instant::now();
    let (agent, process, _) = super::ask::agent(&folder.path().join("none.sock")).await;
    assert_eq!((&agent, process), (&Agent::Away, None));
    let facts = super::ask::all(&config, folder.path(), agent, None).await;
    assert!(began.elapsed() < Duration::from_secs(5));
    let why = facts.consul.unwrap().unwrap_err();
    assert!(why.contains(&place.to_string()), "{why}");
}
