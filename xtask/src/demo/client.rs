//! A client on the agent's host, such as a process in a container: its connects meet the hooks, its resolver is the
//! agent, and otherwise it knows nothing of any load balancer.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr},
    path::Path,
};

use anyhow::{Context, Result, ensure};
use lb_testkit::{Cgroup, Netns};

use super::{
    agent::{POOL, RESOLVER},
    curl::{Answer, Place},
};

pub(super) struct Client {
    netns: Netns,
    cgroup: Cgroup,
}

impl Client {
    /// A client whose processes live in `cgroup`, and whose own files are written to `folder`.
    pub(super) fn new(cgroup: Cgroup, folder: &Path) -> Result<Self> {
        let netns = Netns::new("client")?;
        for (name, over, content) in [
            (
                "resolv.conf",
                "/etc/resolv.conf",
                format!("nameserver {RESOLVER}\n"),
            ),
            // The machine may ask systemd-resolved by another way than this file.
            (
                "nsswitch.conf",
                "/etc/nsswitch.conf",
                "hosts: files dns\n".into(),
            ),
        ] {
            let file = folder.join(name);
            fs::write(&file, content).with_context(|| format!("cannot write {name}"))?;
            if Path::new(over).exists() {
                netns.bind(&file, Path::new(over))?;
            }
        }
        Ok(Self { netns, cgroup })
    }

    /// Lets it reach the resolver through `gateway`, and nothing else of the pool.
    pub(super) fn route_pool_via(&self, gateway: Ipv4Addr) -> Result<()> {
        let routes =
            format!("route add unreachable {POOL}\nroute add {RESOLVER}/32 via {gateway}\n");
        self.netns.ip(&routes)?;
        Ok(())
    }

    pub(super) fn netns(&self) -> &Netns {
        &self.netns
    }

    /// Where the hooks are to be.
    pub(super) fn cgroup(&self) -> &Cgroup {
        &self.cgroup
    }

    pub(super) fn place(&self) -> Place<'_> {
        Place {
            netns: Some(&self.netns),
            cgroup: Some(&self.cgroup),
        }
    }

    /// The address of `name`, as the C library finds it.
    pub(super) fn resolve(&self, name: &str) -> Result<IpAddr> {
        let said = self
            .place()
            .process("getent", "getent")
            .args(["ahostsv4", name])
            .output()
            .with_context(|| format!("{name} has no address"))?;
        let first = said.split_whitespace().next();
        first
            .and_then(|address| address.parse().ok())
            .with_context(|| format!("getent said {said:?}"))
    }

    pub(super) fn get(&self, url: &str) -> Result<Answer> {
        self.place().get(url)
    }

    /// Connects to `address` as a process of the same namespace that no hook sees.
    pub(super) fn ensure_unreachable_without_hooks(&self, address: IpAddr) -> Result<()> {
        let outside = Place {
            netns: Some(&self.netns),
            cgroup: None,
        };
        let url = format!("http://{address}/");
        let reached = outside.curl().args(["--max-time", "2", &url]).output();
        ensure!(
            reached.is_err(),
            "{url} answers without the hooks: something else than the agent balances here"
        );
        Ok(())
    }
}
