//! The packet path of a whole agent: a client that no socket hook sees, behind a veth, and instances in namespaces of their own.

mod card;
mod devices;
mod life;
mod seen;

use std::{
    fs,
    net::{Ipv4Addr, TcpStream},
};

use lb_testkit::{Netns, eventually};

use crate::kit::{Instance, LIMIT, World, connect, greeting, service};

/// A host that sends packets on, with a client and two instances, each behind a veth.
struct Place {
    world: World,
    client: Netns,
    instances: [Instance; 2],
    vip: Ipv4Addr,
    _behind: [Netns; 2],
}

/// The options of the service: its drain is brief.
const OPTIONS: &str = "options = { lb_drain = \"1s\", lb_port = \"80\" }\n[[service.instance]]";

impl Place {
    /// An agent runs and serves both instances.
    fn new() -> Self {
        let world = World::new();
        let client = behind(&world.netns, "lb-client", 1);
        let behind = [2, 3].map(|net| behind(&world.netns, &format!("lb-back{net}"), net));
        sends_on_unseen(&world, "clients = [\"lb-cli*\"]");
        let start = |(id, net): (&str, u8)| {
            Instance::start(&behind[usize::from(net) - 2], id, [10, 78, net, 2])
        };
        let instances = [("a", 2), ("b", 3)].map(start);
        let mut place = Self {
            world,
            client,
            instances,
            vip: Ipv4Addr::UNSPECIFIED,
            _behind: behind,
        };
        place.publish(&[0, 1]);
        place.world.start(&[]);
        place.world.await_ready();
        place.vip = place.world.await_usable("www_hello", &["a", "b"]);
        place
    }

    fn publish(&self, instances: &[usize]) {
        let instances: Vec<_> = instances.iter().map(|&at| &self.instances[at]).collect();
        let services = service("www_hello", &instances);
        let services = services.replacen("[[service.instance]]", OPTIONS, 1);
        self.world.publish(&services);
    }

    /// A flow of the client to `id`.
    fn flow_to(&self, id: &str) -> TcpStream {
        let found = eventually(LIMIT, || {
            let flow = connect(&self.client, self.vip, 80).map_err(|error| error.to_string())?;
            match greeting(&flow).map_err(|error| error.to_string())? {
                met if met == id => Ok(flow),
                met => Err(met),
            }
        });
        found.unwrap_or_else(|late| panic!("{late}\n{}", self.world.said()))
    }

    fn start_again(&mut self) {
        self.world.start(&[]);
        self.world.await_ready();
        self.world.await_usable("www_hello", &["a", "b"]);
    }
}

/// The host sends packets on by its packet path, which is configured like this. Nobody's connects are seen by the socket hooks.
fn sends_on_unseen(world: &World, packet: &str) {
    let nobody = world.all_groups().join("nobody");
    fs::create_dir(&nobody).unwrap();
    let (clients, nobody) = (world.clients(), nobody.display().to_string());
    let usual = world
        .usual()
        .replace(&clients.display().to_string(), &nobody);
    world.configure(&format!("{usual}[packet]\n{packet}\n"));
    let forward = || fs::write("/proc/sys/net/ipv4/ip_forward", "1");
    world.netns.enter(forward).unwrap().unwrap();
}

/// A namespace that `netns` is the router of, by its device `port`.
fn behind(netns: &Netns, port: &str, net: u8) -> Netns {
    let leaf = Netns::new(port).unwrap();
    let there = leaf.path().display().to_string();
    netns
        .ip(&format!(
            "link add {port} type veth peer name eth0 netns {there}\n\
             addr add 10.78.{net}.1/24 dev {port}\nlink set {port} up\n"
        ))
        .unwrap();
    leaf.ip(&format!(
        "addr add 10.78.{net}.2/24 dev eth0\nlink set eth0 up\nroute add default via 10.78.{net}.1\n"
    ))
    .unwrap();
    leaf
}

#[track_caller]
fn goes_on(flow: &TcpStream, id: &str) {
    assert_eq!(greeting(flow).unwrap(), id);
}
