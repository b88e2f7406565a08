//! Networks of namespaces: each a switch that hosts are plugged into, in both families.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use lb_testkit::{Netns, eventually};

/// IPv4 or IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    V4,
    V6,
}

pub(crate) use Family::{V4, V6};

/// The address of host `host` of network `network`.
pub(crate) fn ip(family: Family, network: u8, host: u8) -> IpAddr {
    match family {
        V4 => Ipv4Addr::new(10, network, 0, host).into(),
        V6 => Ipv6Addr::new(0xfd10, network.into(), 0, 0, 0, 0, 0, host.into()).into(),
    }
}

/// The VIP number `number`.
pub(crate) fn vip(family: Family, number: u8) -> IpAddr {
    match family {
        V4 => Ipv4Addr::new(198, 18, 0, number).into(),
        V6 => Ipv6Addr::new(0xfd00, 0xc612, 0, 0, 0, 0, 0, number.into()).into(),
    }
}

pub(crate) const POOL: &str = "198.18.0.0/16";
pub(crate) const POOL6: &str = "fd00:c612::/112";

/// One network.
pub(crate) struct Lan {
    pub(crate) switch: Netns,
    number: u8,
}

impl Lan {
    pub(crate) fn new(number: u8) -> Self {
        let switch = Netns::new("switch").unwrap();
        switch
            .ip("link add br0 address 02:6c:62:00:00:01 type bridge\nlink set br0 up\n")
            .unwrap();
        Self { switch, number }
    }

    /// Plugs `host` in: its device `device` has the address `host_number` of this network. Returns when it is forwarded.
    pub(crate) fn plug(&self, host: &Netns, device: &str, host_number: u8) {
        let port = format!("port{host_number}");
        let there = host.path().display().to_string();
        self.switch
            .ip(&format!(
                "link add {port} type veth peer name {device} netns {there}\n\
                 link set {port} master br0 up\n"
            ))
            .unwrap();
        host.ip(&format!(
            "link set {device} up\naddr add {}/24 dev {device}\naddr add {}/64 dev {device} nodad\n",
            ip(V4, self.number, host_number),
            ip(V6, self.number, host_number),
        ))
        .unwrap();
        // What programs of XDP send there is taken only like this.
        self.switch
            .enter(|| lb_sys::ethtool::join_after_driver(&port, true))
            .unwrap()
            .unwrap();
        eventually(std::time::Duration::from_secs(10), || {
            let said = self.switch.ip(&format!("link show dev {port}\n")).unwrap();
            if said.contains("state forwarding") {
                Ok(())
            } else {
                Err(said)
            }
        })
        .unwrap();
    }
}

/// A host whose packets bear whole checksums, which programs of XDP need on a veth.
pub(crate) fn without_offloads(host: &Netns, device: &str) {
    host.enter(|| lb_sys::ethtool::offload_checksums(device, false))
        .unwrap()
        .unwrap();
}

/// A host that sends on what is not for it.
pub(crate) fn router(label: &str) -> Netns {
    let host = Netns::new(label).unwrap();
    host.enter(|| {
        for name in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
            std::fs::write(format!("/proc/sys/net/{name}"), "1").unwrap();
        }
    })
    .unwrap();
    host
}

/// Sends what is for `network` by the host `by` of the network `near`.
pub(crate) fn route(host: &Netns, network: u8, near: u8, by: u8) {
    host.ip(&format!(
        "route add 10.{network}.0.0/24 via {}\nroute add {}/64 via {}\n",
        ip(V4, near, by),
        ip(V6, network, 0),
        ip(V6, near, by),
    ))
    .unwrap();
}

/// Sends what is for VIPs by that host.
pub(crate) fn route_vips(host: &Netns, near: u8, by: u8) {
    host.ip(&format!(
        "route add {POOL} via {}\nroute add {POOL6} via {}\n",
        ip(V4, near, by),
        ip(V6, near, by),
    ))
    .unwrap();
}
