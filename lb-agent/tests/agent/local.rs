//! `lb_local`: whom a client meets where a real Consul has instances of this host and of another.

use std::{collections::BTreeMap, io, net::Ipv4Addr};

use lb_testkit::eventually;
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::{
    kit::{Instance, LIMIT, World, greeting},
    support::Consul,
};

/// The service `shop`, served by `here` on the Consul agent's own node and by `there` on another one.
struct Pair {
    world: World,
    here: Option<Instance>,
    there: Instance,
    vip: Ipv4Addr,
    consul: Consul,
    runtime: Runtime,
}

impl Pair {
    fn new(local: &str) -> Self {
        let runtime = Runtime::new().unwrap();
        let world = World::new();
        // The agent's host is a network of its own, which a socket leads into.
        let socket = world.path("consul.sock");
        let http = format!("127.0.0.1 unix://{}", socket.display());
        let consul = Consul::start_with(|_| json!({"addresses": {"http": http}}));
        let consul = runtime.block_on(consul);
        world.configure(&format!(
            "{}[sources.consul]\naddress = \"unix://{}\"\n",
            world.usual(),
            socket.display()
        ));
        let start = |id, last| Instance::start(&world.netns, id, [127, 0, 1, last]);
        let (here, there) = (start("here", 1), start("there", 2));
        let mut pair = Self {
            here: Some(here),
            there,
            vip: Ipv4Addr::UNSPECIFIED,
            consul,
            runtime,
            world,
        };
        pair.register(local);
        pair.world.start(&[]);
        pair.world.await_ready();
        pair.vip = pair.world.await_usable("shop", &["here", "there"]);
        pair
    }

    /// Registers both with this `lb_local`.
    fn register(&self, local: &str) {
        let (here, there) = (self.here.as_ref().unwrap().address(), self.there.address());
        let options = [
            format!("lb_local={local}"),
            "lb_balance=round-robin".to_owned(),
        ];
        let put = |path, body| self.runtime.block_on(self.consul.put(path, body));
        put(
            "agent/service/register",
            json!({"Name": "shop", "ID": "here", "Tags": options, "Address": here.ip(), "Port": here.port()}),
        );
        put(
            "catalog/register",
            json!({"Node": "elsewhere", "Address": "127.0.1.2",
                   "Service": {"Service": "shop", "ID": "there", "Tags": options,
                               "Address": there.ip(), "Port": there.port()}}),
        );
    }

    /// How many of so many flows met whom.
    fn met(&self, flows: usize) -> BTreeMap<String, usize> {
        let mut met = BTreeMap::new();
        for _ in 0..flows {
            let flow = self.world.connect(self.vip, 80).unwrap();
            *met.entry(greeting(&flow).unwrap()).or_default() += 1;
        }
        met
    }

    /// Waits until so many flows meet these.
    #[track_caller]
    fn until_met(&self, flows: usize, expect: &[(&str, usize)]) {
        let expect: BTreeMap<_, _> = expect.iter().map(|&(id, n)| (id.to_owned(), n)).collect();
        let found = eventually(LIMIT, || match self.met(flows) {
            met if met == expect => Ok(()),
            met => Err(format!("{met:?}, not {expect:?}")),
        });
        found.unwrap();
    }

    fn finish(self) {
        self.world.finish();
    }
}

#[test]
fn preferred_instances_of_this_host_get_sixteen_of_seventeen_flows_until_they_end() {
    let mut pair = Pair::new("prefer");
    pair.until_met(34, &[("here", 32), ("there", 2)]);
    pair.register("any");
    pair.until_met(34, &[("here", 17), ("there", 17)]);
    pair.register("prefer");
    pair.until_met(34, &[("here", 32), ("there", 2)]);
    pair.here = None;
    pair.world.await_usable("shop", &["there"]);
    pair.until_met(20, &[("there", 20)]);
    pair.finish();
}

#[test]
fn with_only_no_flow_leaves_the_host_though_nobody_else_could_serve() {
    let mut pair = Pair::new("only");
    pair.until_met(20, &[("here", 20)]);
    pair.here = None;
    let refused = eventually(LIMIT, || match pair.world.connect(pair.vip, 80) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
        other => Err(format!("{other:?}")),
    });
    refused.unwrap();
    // It is not for want of one elsewhere.
    pair.world.await_usable("shop", &["there"]);
    let error = pair.world.connect(pair.vip, 80).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    let answer = pair.world.page("/api/v1/explain?client=host&service=shop");
    let told: Value = serde_json::from_str(&answer.unwrap().body).unwrap();
    assert!(
        told.to_string()
            .contains("not on this host (lb_local=only)"),
        "{told:#}"
    );
    pair.finish();
}
