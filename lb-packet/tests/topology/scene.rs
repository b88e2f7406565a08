//! A host with a client behind a device and two backends, and the agent there.

use std::net::SocketAddr;

use lb_packet::Role;
use lb_testkit::Netns;

use crate::{
    agent::{Agent, Pins, member},
    load::Server,
    net::{Family, Lan, V4, V6, ip, route, router, vip},
};

/// The host, the client in network 77, and two backends in network 1.
pub(crate) struct Scene {
    pub(crate) host: Netns,
    pub(crate) client: Netns,
    pub(crate) backends: [Netns; 2],
    networks: Vec<Lan>,
    pub(crate) pins: Pins,
}

const DEVICES: [(&str, Role); 1] = [("vm0", Role::Client)];

impl Scene {
    pub(crate) fn new() -> Self {
        let mut scene = Self::without_client();
        let network = Lan::plain(77);
        network.plug(&scene.host, "vm0", 1);
        network.plug(&scene.client, "eth0", 2);
        scene.networks.push(network);
        scene.leads_to_client();
        scene
    }

    /// The device of the host that leads to the client, and that of the client, are still to be made.
    pub(crate) fn without_client() -> Self {
        let (host, client) = (router("host"), Netns::new("client").unwrap());
        let backends = [(); 2].map(|()| Netns::new("backend").unwrap());
        let network = Lan::plain(1);
        network.plug(&host, "eth0", 1);
        for (backend, number) in backends.iter().zip(10..) {
            network.plug(backend, "eth0", number);
            route(backend, 77, 1, 1);
        }
        let pins = Pins::new(&host);
        Self {
            host,
            client,
            backends,
            networks: vec![network],
            pins,
        }
    }

    /// The client sends all by the host.
    pub(crate) fn leads_to_client(&self) {
        self.client
            .ip(&format!(
                "route add default via {}\nroute add default via {}\n",
                ip(V4, 77, 1),
                ip(V6, 77, 1)
            ))
            .unwrap();
    }

    pub(crate) fn agent(&self) -> Agent {
        let mut agent = Agent::start(&self.host, &self.pins, None, &DEVICES);
        agent.serve(10, &both(), false);
        agent
    }

    pub(crate) fn servers(&self, family: Family) -> Vec<Server> {
        let numbered = self.backends.iter().zip(10..);
        numbered
            .map(|(backend, number)| {
                Server::start(
                    backend,
                    SocketAddr::new(ip(family, 1, number), 8080),
                    number,
                )
            })
            .collect()
    }
}

/// Both backends, in both families.
pub(crate) fn both() -> Vec<lb_packet::Member> {
    let of = |family| [10, 11].map(|host| member(ip(family, 1, host)));
    [V4, V6].into_iter().flat_map(of).collect()
}

pub(crate) fn to(family: Family) -> SocketAddr {
    SocketAddr::new(vip(family, 10), 80)
}
