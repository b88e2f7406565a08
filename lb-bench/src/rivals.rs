//! What else could stand between a client and two servers: HAProxy in TCP mode, and a rule of nftables.
//!
//! HAProxy is in the namespace of the bridge, where the host of containers would run it. The rule is in the output hook of
//! its clients, who have a namespace of their own on the same bridge: their packets go the way of a VIP's, and nobody
//! else's are tracked. Both lead to the servers in the cgroup without hooks.

use std::{
    ffi::OsString,
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result};
use ipnet::Ipv4Net;
use lb_testkit::{Cgroup, Netns, Process, Spawn, eventually};
use tempfile::TempDir;

use crate::{
    server::{Kind, Network, Place, backends},
    world::{self, BRIDGE, BRIDGE6, PREFIX},
};

/// Whom clients could turn to instead of a VIP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Rival {
    Haproxy,
    Nft,
}

impl Rival {
    pub(crate) const ALL: [Self; 2] = [Self::Haproxy, Self::Nft];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Haproxy => "HAProxy",
            Self::Nft => "nftables",
        }
    }

    /// What it leads to, each with two servers.
    fn services(self) -> &'static [(Network, Kind)] {
        let all = &[
            (Network::Bridge, Kind::Short),
            (Network::Bridge, Kind::Echo),
            (Network::Bridge, Kind::Sink),
            (Network::Bridge6, Kind::Short),
            (Network::Bridge, Kind::Datagram),
        ];
        match self {
            Self::Haproxy => &all[..4],
            Self::Nft => all,
        }
    }

    /// Where its clients turn to. The port is that of the servers: the rule has nothing to rewrite but the address.
    pub(crate) fn address(self, network: Network, kind: Kind) -> SocketAddr {
        let address: IpAddr = match (self, network) {
            (Self::Haproxy, Network::Bridge6) => BRIDGE6.into(),
            (Self::Haproxy, _) => BRIDGE.into(),
            (Self::Nft, Network::Bridge6) => NFT6.into(),
            (Self::Nft, _) => NFT.into(),
        };
        let [server, _] = backends(network, kind, Place::Bare);
        (address, server.port()).into()
    }
}

/// The addresses that the rules of nftables replace. No device has them.
const NFT: Ipv4Addr = Ipv4Addr::new(10, 79, 0, 1);
const NFT6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x6c62, 0x79, 0, 0, 0, 0, 1);

/// How long they may take to come up.
const PATIENCE: Duration = Duration::from_secs(10);

/// They end with this value.
pub(crate) struct Rivals {
    _haproxy: Process,
    /// Where the clients of nftables are.
    translated: Netns,
    folder: TempDir,
}

impl Rivals {
    /// Starts them with the programs in `packages`, a folder with one folder for each Debian package, on the bridge in
    /// `host`. HAProxy's sockets belong to `bare`.
    ///
    /// # Errors
    /// When one cannot be started, or the kernel refuses the rules.
    pub(crate) fn start(packages: &Path, host: &Netns, bare: &Cgroup) -> Result<Self> {
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
        let translated = translated_clients(host)?;
        let rules = folder.path().join("nft.rules");
        fs::write(&rules, nft_rules())?;
        Spawn::new("nft", packages.join("nftables/usr/sbin/nft"))
            .arg("-f")
            .arg(&rules)
            .env("LD_LIBRARY_PATH", &libraries)
            .netns(&translated)
            .output()
            .context("the rules of nftables do not come into being")?;
        Ok(Self {
            _haproxy: haproxy,
            translated,
            folder,
        })
    }

    /// Waits until both lead to servers. For the namespace of HAProxy's clients.
    ///
    /// # Errors
    /// When one does not.
    pub(crate) fn await_ready(&self) -> Result<()> {
        for rival in Rival::ALL {
            for &(network, kind) in rival.services() {
                let address = rival.address(network, kind);
                let answers = || eventually(PATIENCE, || world::answers(kind, address));
                self.as_client_of(rival, answers)?.with_context(|| {
                    let log = self.folder.path().join("haproxy.log");
                    let log = fs::read_to_string(log).unwrap_or_default();
                    format!(
                        "{} leads nowhere at {address}; HAProxy says: {log}",
                        rival.name()
                    )
                })?;
            }
        }
        Ok(())
    }

    /// Runs `job` where the clients of `rival` are. To be called where HAProxy's are.
    ///
    /// # Errors
    /// When the namespace cannot be entered.
    pub(crate) fn as_client_of<T: Send>(
        &self,
        rival: Rival,
        job: impl FnOnce() -> T + Send,
    ) -> Result<T> {
        match rival {
            Rival::Haproxy => Ok(job()),
            Rival::Nft => Ok(self.translated.enter(job)?),
        }
    }
}

/// Where their libraries are, for `LD_LIBRARY_PATH`.
pub(crate) fn libraries(packages: &Path) -> OsString {
    let names = [
        "liblua5.3-0",
        "libopentracing-c-wrapper0",
        "libopentracing1",
        "libunwind8",
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
    // One thread: everything is on one core.
    let mut config = "global\n    nbthread 1\n    maxconn 4096\ndefaults\n    mode tcp\n    balance roundrobin\n    \
                      timeout connect 5s\n    timeout client 60s\n    timeout server 60s\n"
        .to_owned();
    for &(network, kind) in Rival::Haproxy.services() {
        let address = Rival::Haproxy.address(network, kind);
        config += &format!(
            "listen {}-{}\n    bind {address}\n",
            network.name(),
            address.port()
        );
        if kind == Kind::Sink {
            // Moved within the kernel, large amounts are faster and small ones slower. `splice-auto` makes no difference.
            config += "    option splice-request\n";
        }
        let [first, second] = backends(network, kind, Place::Bare);
        config += &format!("    server first {first}\n    server second {second}\n");
    }
    config
}

/// One rule for each family, which takes turns.
fn nft_rules() -> String {
    let rules = |family, address: IpAddr, network| {
        let [first, second] = backends(network, Kind::Short, Place::Bare).map(|server| server.ip());
        format!(
            "table {family} bench {{\n chain to_servers {{\n  type nat hook output priority -100;\n  \
             {family} daddr {address} dnat to numgen inc mod 2 map {{ 0 : {first}, 1 : {second} }}\n }}\n}}\n",
        )
    };
    rules("ip", NFT.into(), Network::Bridge) + &rules("ip6", NFT6.into(), Network::Bridge6)
}

/// The namespace for the clients of nftables. There every packet is tracked as soon as there is a rule.
fn translated_clients(host: &Netns) -> Result<Netns> {
    let clients = Netns::new("bench-nft")?;
    let address = Ipv4Net::new(Ipv4Addr::new(10, 76, 255, 4), PREFIX)?;
    host.plug("lb-bridge", "lb-nft", &clients, address, BRIDGE)?;
    clients.ip(&format!(
        "addr add fd00:6c62:76::ff04/64 dev eth0 nodad\nroute add {NFT6}/128 dev eth0\n"
    ))?;
    world::limit_closed(&clients)?;
    // The table of tracked connections is one for the machine: closed ones must not fill it.
    for timeout in ["time_wait", "close"] {
        let name = format!("netfilter/nf_conntrack_tcp_timeout_{timeout}");
        world::set(&clients, &name, "1")?;
    }
    Ok(clients)
}
