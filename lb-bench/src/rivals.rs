//! What else could stand between a client and two servers: HAProxy in TCP mode, and a rule of nftables.
//!
//! Both work in the namespace of the bridge, where the host of containers would run them, and lead to the servers in the
//! cgroup without hooks.

use std::{
    ffi::OsString,
    fs,
    net::{Ipv4Addr, SocketAddrV4, TcpStream},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result};
use lb_testkit::{Cgroup, Netns, Process, Spawn, eventually};
use tempfile::TempDir;

use crate::{
    client,
    server::{Kind, Network, Place, backends},
};

/// Where HAProxy listens: at the bridge's own address.
pub(crate) const HAPROXY: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 76, 255, 1), 8001);

/// The address that the rule of nftables replaces. The way to it leads through the bridge's namespace.
pub(crate) const NFT: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 79, 0, 1), 80);

/// How long they may take to come up.
const PATIENCE: Duration = Duration::from_secs(10);

/// They end with this value.
pub(crate) struct Rivals {
    _haproxy: Process,
    folder: TempDir,
}

impl Rivals {
    /// Starts them with the programs in `packages`, a folder with one folder for each Debian package. HAProxy's sockets
    /// belong to `bare`.
    ///
    /// # Errors
    /// When one cannot be started, or the kernel refuses the rule.
    pub(crate) fn start(
        packages: &Path,
        host: &Netns,
        client: &Netns,
        bare: &Cgroup,
    ) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("lb-bench-").tempdir()?;
        let libraries = libraries(packages);
        let haproxy = folder.path().join("haproxy.cfg");
        fs::write(&haproxy, haproxy_config())?;
        let haproxy = Spawn::new("haproxy", packages.join("haproxy/usr/sbin/haproxy"))
            .args(["-db", "-f"])
            .arg(&haproxy)
            .env("LD_LIBRARY_PATH", &libraries)
            .netns(host)
            .cgroup(bare)
            .log(folder.path())
            .start()?;
        route_through(host, client)?;
        let rules = folder.path().join("nft.rules");
        fs::write(&rules, nft_rules())?;
        Spawn::new("nft", packages.join("nftables/usr/sbin/nft"))
            .arg("-f")
            .arg(&rules)
            .env("LD_LIBRARY_PATH", &libraries)
            .netns(host)
            .output()
            .context("the rule of nftables does not come into being")?;
        forget_soon(host)?;
        Ok(Self {
            _haproxy: haproxy,
            folder,
        })
    }

    /// Waits until both lead to a server. For the client's namespace.
    ///
    /// # Errors
    /// When one does not.
    pub(crate) fn await_ready(&self) -> Result<()> {
        for (rival, address) in [("HAProxy", HAPROXY), ("nftables", NFT)] {
            let ready = || TcpStream::connect(address).and_then(client::finish);
            eventually(PATIENCE, ready).with_context(|| {
                let log = self.folder.path().join("haproxy.log");
                let log = fs::read_to_string(log).unwrap_or_default();
                format!("{rival} leads nowhere at {address}; HAProxy says: {log}")
            })?;
        }
        Ok(())
    }
}

fn libraries(packages: &Path) -> OsString {
    let names = [
        "liblua5.3-0",
        "libopentracing-c-wrapper0",
        "libopentracing1",
        "libnftables1",
        "libnftnl11",
        "libmnl0",
    ];
    let folder = format!("usr/lib/{}-linux-gnu", std::env::consts::ARCH);
    let folders: Vec<PathBuf> = names
        .iter()
        .map(|name| packages.join(name).join(&folder))
        .collect();
    std::env::join_paths(folders).unwrap_or_default()
}

fn haproxy_config() -> String {
    let servers: String = backends(Network::Bridge, Kind::Short, Place::Bare)
        .iter()
        .map(|address| format!("    server s{} {address}\n", address.ip()))
        .collect();
    // One thread: everything is on one core.
    format!(
        "global\n    nbthread 1\n    maxconn 4096\ndefaults\n    mode tcp\n    timeout connect 5s\n    \
         timeout client 60s\n    timeout server 60s\nlisten bench\n    bind {HAPROXY}\n    balance roundrobin\n{servers}"
    )
}

fn nft_rules() -> String {
    let [first, second] = backends(Network::Bridge, Kind::Short, Place::Bare);
    format!(
        "table ip bench {{\n chain to_servers {{\n  type nat hook prerouting priority dstnat;\n  \
         ip daddr {} tcp dport {} dnat to numgen inc mod 2 map {{ 0 : {}, 1 : {} }} : {}\n }}\n}}\n",
        NFT.ip(),
        NFT.port(),
        first.ip(),
        second.ip(),
        first.port(),
    )
}

/// A second device of the client, whose packets the host routes: those of a bridge pass its rules by, and the answers
/// must come back the way they went.
fn route_through(host: &Netns, client: &Netns) -> Result<()> {
    let there = client.path().display().to_string();
    host.ip(&format!(
        "link add lb-routed type veth peer name eth1 netns {there}\naddr add 10.78.0.1/24 dev lb-routed\n\
         link set lb-routed up\n"
    ))?;
    client.ip(&format!(
        "addr add 10.78.0.2/24 dev eth1\nlink set eth1 up\nroute add {}/32 via 10.78.0.1\n",
        NFT.ip()
    ))?;
    host.enter(|| fs::write("/proc/sys/net/ipv4/ip_forward", "1"))?
        .context("the bridge's namespace does not forward")?;
    Ok(())
}

/// The table of tracked connections is one for the machine: closed ones must not fill it. And the bridge's own traffic,
/// which all others use, is not to be tracked.
fn forget_soon(host: &Netns) -> Result<()> {
    let settings = [
        ("netfilter/nf_conntrack_tcp_timeout_time_wait", "1"),
        ("netfilter/nf_conntrack_tcp_timeout_close", "1"),
        ("bridge/bridge-nf-call-iptables", "0"),
    ];
    for (name, value) in settings {
        let file = Path::new("/proc/sys/net").join(name);
        host.enter(|| match file.exists() {
            true => fs::write(&file, value),
            // A kernel without the bridge's filter has nothing to turn off.
            false => Ok(()),
        })?
        .with_context(|| format!("cannot set {}", file.display()))?;
    }
    Ok(())
}
