//! Reads the facts of the host from files. It changes nothing, and what cannot be read is not known.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    ops::RangeInclusive,
    os::fd::AsFd as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use ipnet::IpNet;

use super::facts::{Host, Listener, Mount, Paths};
use crate::{
    announce,
    config::{Config, Packet, unescaped},
    network,
    packet::Driver,
    programs::{DATAGRAM_HOOKS, HOOKS, pin_root},
};

/// The host whose files lie below `root`. What belongs to a process is that of `agent`, else our own.
pub(super) fn read(root: &Path, config: Option<&Config>, agent: Option<u32>) -> Host {
    let files = Files(root);
    let process = agent.map_or("self".to_owned(), |it| it.to_string());
    let status = files.text(&format!("proc/{process}/status"));
    let sysctl = |name: &str| files.number(&format!("proc/sys/{name}"));
    let below = |path: &Path| files.at(path.strip_prefix("/").unwrap_or(path));
    let bpffs = config.map(|it| below(&it.bpffs));
    let is_here = root == Path::new("/");
    Host {
        kernel: files.text("proc/sys/kernel/osrelease"),
        has_btf: files
            .is_there("sys/kernel")
            .then(|| files.is_there("sys/kernel/btf/vmlinux")),
        jit: sysctl("net/core/bpf_jit_enable"),
        unprivileged_bpf: sysctl("kernel/unprivileged_bpf_disabled"),
        mounts: files.text("proc/self/mountinfo").map(|it| mounts(&it)),
        has_cgroup: config.map(|it| below(&it.cgroup).is_dir()),
        containers: containers(&files),
        others: match config {
            Some(config) if is_here => others(&config.cgroup),
            _ => BTreeMap::new(),
        },
        pins: bpffs
            .as_ref()
            .and_then(|it| names(&pin_root(it)))
            .unwrap_or_default(),
        bpffs_entries: bpffs.as_deref().and_then(names),
        // An agent has given up what it needs no more.
        capabilities: status
            .filter(|_| agent.is_none())
            .and_then(|it| u64::from_str_radix(field(&it, "CapEff:")?, 16).ok()),
        refuses_bpf: (is_here && agent.is_none()).then(refuses_bpf),
        profile: files
            .text(&format!("proc/{process}/attr/current"))
            .map(|it| it.trim_end_matches('\0').to_owned()),
        rp_filter: of_devices(&files, "proc/sys/net/ipv4/conf", "rp_filter"),
        bridge_nf: sysctl("net/bridge/bridge-nf-call-iptables"),
        open_files: files
            .text(&format!("proc/{process}/limits"))
            .and_then(|it| open_files(&it)),
        mtu: of_devices(&files, "sys/class/net", "mtu"),
        links: announce::links().ok(),
        paths: config
            .and_then(|it| it.packet.as_ref())
            .map(|it| paths(&files, it, is_here)),
    }
}

fn paths(files: &Files<'_>, config: &Packet, is_here: bool) -> Paths {
    let cards = config.cards.iter().filter(|_| is_here);
    let drivers = cards.map(|card| (card.clone(), Driver::of(card)));
    let devices: BTreeSet<_> = names(&files.at("sys/class/net"))
        .unwrap_or_default()
        .into_iter()
        .collect();
    // A veth with an address of its own has no mark there; whoever serves one as a client's names it.
    let has = |device: &str, mark: &str| {
        let file = format!("sys/class/net/{device}/{mark}");
        files.at(&file).exists()
    };
    let leads_inside = |device: &&String| has(device, "bridge") || has(device, "tun_flags");
    Paths {
        inside: devices.iter().filter(leads_inside).cloned().collect(),
        devices,
        drivers: drivers.collect(),
        vlans: files
            .text("proc/self/net/vlan/config")
            .map(|it| vlans(&it))
            .unwrap_or_default(),
        forwards: files.number("proc/sys/net/ipv4/ip_forward"),
        local_ports: files
            .text("proc/sys/net/ipv4/ip_local_port_range")
            .and_then(|it| local_ports(&it)),
        addresses: is_here.then(addresses).flatten(),
    }
}

/// The first and the last, with blanks between.
pub(crate) fn local_ports(text: &str) -> Option<RangeInclusive<u16>> {
    let mut ports = text.split_ascii_whitespace().map(str::parse);
    match (ports.next()?, ports.next()?) {
        (Ok(first), Ok(last)) => Some(first..=last),
        _ => None,
    }
}

/// The VLANs in a table such as `eth0.5 | 5 | eth0` below two lines of its head, each with its device.
fn vlans(table: &str) -> Vec<(String, String)> {
    let line = |line: &str| {
        let mut fields = line.split('|').map(str::trim);
        let (vlan, device) = (fields.next()?, fields.nth(1)?);
        Some((vlan.to_owned(), device.to_owned()))
    };
    table.lines().skip(2).filter_map(line).collect()
}

fn addresses() -> Option<Vec<(String, IpNet)>> {
    let all = network::held().ok()?.map(|held| {
        let net = held.net();
        (held.device, net)
    });
    Some(all.collect())
}

/// The files below a root.
struct Files<'r>(&'r Path);

impl Files<'_> {
    fn at(&self, path: impl AsRef<Path>) -> PathBuf {
        self.0.join(path)
    }

    fn is_there(&self, path: &str) -> bool {
        self.at(path).exists()
    }

    fn text(&self, path: &str) -> Option<String> {
        let text = fs::read_to_string(self.at(path)).ok()?;
        Some(text.trim_end().to_owned())
    }

    fn number(&self, path: &str) -> Option<u32> {
        self.text(path)?.parse().ok()
    }
}

fn names(folder: &Path) -> Option<Vec<String>> {
    let entries = fs::read_dir(folder).ok()?.flatten();
    let mut names: Vec<_> = entries
        .map(|it| it.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    Some(names)
}

fn field<'t>(text: &'t str, name: &str) -> Option<&'t str> {
    text.lines()
        .find_map(|it| it.strip_prefix(name))
        .map(str::trim)
}

/// The hard limit: the front raises its own to that.
fn open_files(limits: &str) -> Option<u64> {
    let mut numbers = field(limits, "Max open files")?.split_ascii_whitespace();
    match numbers.nth(1)? {
        "unlimited" => Some(u64::MAX),
        number => number.parse().ok(),
    }
}

fn of_devices(files: &Files<'_>, folder: &str, file: &str) -> BTreeMap<String, u32> {
    let devices = names(&files.at(folder)).unwrap_or_default().into_iter();
    devices
        .filter_map(|device| {
            let number = files.number(&format!("{folder}/{device}/{file}"))?;
            Some((device, number))
        })
        .collect()
}

/// The lines of `mountinfo` (proc_pid_mountinfo(5)).
pub(super) fn mounts(mountinfo: &str) -> Vec<Mount> {
    let mount = |line: &str| {
        let (before, after) = line.split_once(" - ")?;
        Some(Mount {
            point: unescaped(before.split(' ').nth(4)?),
            kind: after.split(' ').next()?.to_owned(),
        })
    };
    mountinfo.lines().filter_map(mount).collect()
}

/// The cgroups of processes that run in containers: engines name these by an id of 64 digits.
fn containers(files: &Files<'_>) -> Vec<String> {
    let is_id = |part: &[u8]| part.len() == 64 && part.iter().all(u8::is_ascii_hexdigit);
    let processes = names(&files.at("proc")).unwrap_or_default().into_iter();
    let numbered = processes.filter(|it| it.bytes().all(|it| it.is_ascii_digit()));
    let groups = numbered.filter_map(|it| {
        let group = files.text(&format!("proc/{it}/cgroup"))?;
        let path = group.lines().find_map(|it| it.strip_prefix("0::"))?;
        let mut windows = path.as_bytes().windows(64);
        windows.any(is_id).then(|| path.to_owned())
    });
    groups.collect::<BTreeSet<_>>().into_iter().collect()
}

/// Who else has programs where ours are to be.
fn others(cgroup: &Path) -> BTreeMap<&'static str, Vec<String>> {
    let Ok(cgroup) = fs::File::open(cgroup) else {
        return BTreeMap::new();
    };
    let ours: Vec<&str> = HOOKS.into_iter().chain(DATAGRAM_HOOKS).collect();
    let mut names = BTreeMap::new();
    for program in aya::programs::loaded_programs().flatten() {
        let name = program.name_as_str().unwrap_or_default().to_owned();
        names.insert(program.id(), name);
    }
    let mut others: BTreeMap<_, Vec<String>> = BTreeMap::new();
    for (hook, kind) in REWRITING {
        let attached = lb_sys::bpf::effective(cgroup.as_fd(), kind);
        for id in attached.unwrap_or_default() {
            let name = names.get(&id).map_or("", |it| it.as_str());
            if !ours.contains(&name) {
                let named = others.entry(hook).or_default();
                named.push(format!("{name} (program {id})"));
            }
        }
    }
    others
}

/// The hooks that may change where something goes, by `enum bpf_attach_type`.
const REWRITING: [(&str, u32); 4] = [
    ("connect4", 10),
    ("connect6", 11),
    ("sendmsg4", 14),
    ("sendmsg6", 15),
];

/// Whether `bpf(2)` is refused. A child asks: a profile may end whoever does.
fn refuses_bpf() -> bool {
    let Ok(own) = std::env::current_exe() else {
        return false;
    };
    let asked = Command::new(own)
        .args(["doctor", "--try-bpf"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    asked.is_ok_and(|it| !it.success())
}

/// What the child does: asks for a pin without a name, which the kernel lets everybody do.
pub(super) fn try_bpf() -> bool {
    let asked = lb_sys::bpf::object_get(Path::new(""));
    let refused = nix::errno::Errno::EPERM as i32;
    !asked.is_err_and(|error| error.raw_os_error() == Some(refused))
}

/// Who listens in the network namespace of this process, or that of the tables below `root`.
pub(super) fn listeners(root: &Path) -> Vec<Listener> {
    let files = Files(root);
    let tables = [
        ("tcp", "tcp"),
        ("tcp", "tcp6"),
        ("udp", "udp"),
        ("udp", "udp6"),
    ];
    let mut all = Vec::new();
    for (protocol, table) in tables {
        let text = files.text(&format!("proc/self/net/{table}"));
        let text = text.unwrap_or_default();
        let lines = text.lines().skip(1);
        all.extend(lines.filter_map(|it| listener(protocol, it)));
    }
    all
}

/// A line of `/proc/net/tcp` and its like, if it is of a socket that waits for others.
fn listener(protocol: &'static str, line: &str) -> Option<Listener> {
    let fields: Vec<_> = line.split_ascii_whitespace().collect();
    let (local, remote, state) = (fields.get(1)?, fields.get(2)?, fields.get(3)?);
    let waits = match protocol {
        "tcp" => *state == "0A",
        _ => remote.ends_with(":0000"),
    };
    let (ip, port) = local.split_once(':')?;
    let inode = fields.get(9)?.parse().ok()?;
    waits.then_some(Listener {
        protocol,
        ip: address(ip)?,
        port: u16::from_str_radix(port, 16).ok()?,
        inode,
    })
}

/// Words of four bytes, each as this machine has it in memory.
fn address(hex: &str) -> Option<IpAddr> {
    let word = |at: usize| {
        let word = u32::from_str_radix(hex.get(at * 8..at * 8 + 8)?, 16).ok()?;
        Some(word.to_ne_bytes())
    };
    match hex.len() {
        8 => Some(Ipv4Addr::from(word(0)?).into()),
        32 => {
            let words = [word(0)?, word(1)?, word(2)?, word(3)?];
            let mut bytes = [0; 16];
            bytes.copy_from_slice(words.as_flattened());
            Some(Ipv6Addr::from(bytes).to_canonical())
        }
        _ => None,
    }
}

#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_of_sockets_are_read() {
        let line = |local: &str, remote: &str, state: &str| {
            format!(
                "  0: {local} {remote} {state} 00000000:00000000 00:00000000 00000000 0 0 4711 1"
            )
        };
        let tcp = line("0100007F:0050", "00000000:0000", "0A");
        let found = listener("tcp", &tcp).unwrap();
        assert_eq!(
            (found.ip.to_string(), found.port),
            ("127.0.0.1".to_owned(), 80)
        );
        assert_eq!(found.inode, 4711);
        let open = line("0100007F:0050", "0100007F:9000", "01");
        assert_eq!(listener("tcp", &open), None);
        let any = "00000000000000000000000000000000";
        let udp = line(&format!("{any}:0035"), &format!("{any}:0000"), "07");
        let found = listener("udp", &udp).unwrap();
        assert_eq!((found.ip.to_string(), found.port), ("::".to_owned(), 53));
        assert_eq!(listener("tcp", "sl local_address"), None);
    }

    #[test]
    fn limits_and_mounts_are_read() {
        let limits = "Limit                     Soft Limit           Hard Limit           Units\n\
                      Max open files            1024                 524288               files\n";
        assert_eq!(open_files(limits), Some(524_288));
        assert_eq!(local_ports("32768\t60999"), Some(32_768..=60_999));
        assert_eq!(local_ports("32768"), None);
        let table = "VLAN Dev name    | VLAN ID\nName-Type: VLAN_NAME_TYPE_RAW_PLUS_VID_NO_PAD\neth0.5         | 5  | eth0\nodd\n";
        assert_eq!(vlans(table), [("eth0.5".to_owned(), "eth0".to_owned())]);
        let mounts = mounts("35 22 0:30 / /a\\040b rw shared:9 - cgroup2 none rw\nodd\n");
        assert_eq!(mounts.len(), 1);
        assert_eq!((&*mounts[0].point, &*mounts[0].kind), ("/a b", "cgroup2"));
    }
}
