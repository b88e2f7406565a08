//! One network: a switch that every host is plugged into.

use std::net::Ipv4Addr;

use anyhow::{Context as _, Result, ensure};
use ipnet::Ipv4Net;
use lb_testkit::{Cable, Netns, eventually};

use super::LIMIT;

/// The network. Its switch has an address, too: from there Consul is asked.
pub(crate) struct Lan {
    pub(crate) hub: Netns,
}

/// Of the switch.
const HUB: Ipv4Addr = Ipv4Addr::new(10, 78, 0, 254);

impl Lan {
    pub(super) fn new() -> Result<Self> {
        let hub = Netns::new("switch")?;
        hub.add_bridge("lb-br0", Ipv4Net::new(HUB, 24)?)?;
        Ok(Self { hub })
    }

    /// Plugs a host in, as `eth0` with this address.
    pub(super) fn plug(&self, host: &Netns, port: &str, address: Ipv4Addr) -> Result<()> {
        let address = Ipv4Net::new(address, 24)?;
        self.hub
            .plug("lb-br0", &format!("lb-{port}"), host, address, HUB)
            .with_context(|| format!("cannot plug in {port}"))
    }

    /// The same by a cable that can be spoiled.
    pub(super) fn lay(&self, host: &Netns, port: &str, address: Ipv4Addr) -> Result<Cable> {
        let port = format!("lb-{port}");
        let cable = Cable::between((&self.hub, &port), (host, "eth0"))?;
        self.hub
            .ip(&format!("link set {port} master lb-br0 up\n"))?;
        host.ip(&format!(
            "addr add {address}/24 dev eth0\nlink set eth0 up\nroute add default via {HUB}\n"
        ))?;
        eventually(LIMIT, || {
            let said = self.hub.ip(&format!("link show dev {port}\n"))?;
            ensure!(said.contains("state forwarding"), "{said}");
            Ok(())
        })
        .with_context(|| format!("the switch does not forward from {port}"))?;
        Ok(cable)
    }
}
