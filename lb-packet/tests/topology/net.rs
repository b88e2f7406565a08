//! Networks of namespaces: each a switch that hosts are plugged into, in both families.

use std::{
    cell::RefCell,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use aya::{
    Ebpf, EbpfLoader, include_bytes_aligned,
    programs::{Xdp, XdpMode},
};
use lb_common::packet::packet_map as map;
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
    pub(crate) number: u8,
    /// What its ports run, if anything: a veth takes frames that a program of XDP sends to it only if it runs one, too.
    pass: Option<RefCell<Ebpf>>,
}

/// The object of the kernel programs once more, with maps of no size, for `xdp_pass` alone.
fn pass() -> Ebpf {
    let mut loader = EbpfLoader::new();
    for map in [
        map::ENDPOINTS,
        map::MAGLEVS,
        map::TARGETS,
        map::HOPS,
        map::FLOWS4,
        map::FLOWS6,
        map::REPLIES4,
        map::REPLIES6,
        map::SERVICE_TRAFFIC,
        map::TARGET_TRAFFIC,
    ] {
        loader.map_max_entries(map, 1);
    }
    let object = include_bytes_aligned!(concat!(env!("OUT_DIR"), "/packet"));
    let mut ebpf = loader.load(object).unwrap();
    of(&mut ebpf).load().unwrap();
    ebpf
}

fn of(ebpf: &mut Ebpf) -> &mut Xdp {
    let program = ebpf.program_mut("xdp_pass").unwrap();
    program.try_into().unwrap()
}

impl Lan {
    /// One whose hosts may run programs of XDP.
    pub(crate) fn new(number: u8) -> Self {
        Self {
            pass: Some(RefCell::new(pass())),
            ..Self::plain(number)
        }
    }

    /// One whose hosts leave the cutting of segments to each other. Where a port runs XDP, they do not.
    pub(crate) fn plain(number: u8) -> Self {
        let switch = Netns::new("switch").unwrap();
        switch
            .ip("link add br0 address 02:6c:62:00:00:01 type bridge\nlink set br0 up\n")
            .unwrap();
        Self {
            switch,
            number,
            pass: None,
        }
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
        if let Some(pass) = &self.pass {
            let mut pass = pass.borrow_mut();
            let program = of(&mut pass);
            let attach = || program.attach(&port, XdpMode::Driver).map(drop);
            self.switch.enter(attach).unwrap().unwrap();
        }
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

/// Lets a host take packets by a device whose answers it would send by another one, or not (`rp_filter`: 0 is any, 1 only those of
/// this device, 2 those of any device).
pub(crate) fn reverse_paths(host: &Netns, device: &str, value: u8) {
    host.enter(|| {
        for (name, value) in [("all", 0), (device, value)] {
            let path = format!("/proc/sys/net/ipv4/conf/{name}/rp_filter");
            std::fs::write(path, value.to_string()).unwrap();
        }
    })
    .unwrap();
}

/// The address of a device on its link.
pub(crate) fn link_address(host: &Netns, device: &str) -> String {
    let said = host.ip(&format!("link show dev {device}\n")).unwrap();
    let (_, rest) = said.split_once("link/ether ").unwrap();
    rest.split_whitespace().next().unwrap().to_owned()
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

/// The way from a router to the backends of network 1 takes packets of 1300 bytes, whatever their paths; the way back takes all.
pub(crate) fn narrow(host: &Netns, device: &str) {
    host.ip(&format!(
        "route add 10.1.0.8/29 dev {device} mtu lock 1300\nroute add fd10:1::8/125 dev {device} mtu lock 1300\n"
    ))
    .unwrap();
}
