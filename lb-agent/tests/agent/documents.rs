//! The documents are true. Here: the examples of `docs/options.md` are run as they stand.

mod compare;
mod compose;
mod host;
mod links;
mod run;
mod sources;
mod words;

use std::{
    collections::BTreeMap,
    io,
    net::{Ipv4Addr, SocketAddr, TcpStream},
};

use lb_agent::{discover::file, options::table};
use lb_testkit::eventually;

use crate::kit::{Instance, LIMIT, World, greeting};

const TEXT: &str = include_str!("../../../docs/options.md");

/// A services file, and lines that say whom clients meet then.
fn examples() -> impl Iterator<Item = (&'static str, &'static str)> {
    let block = |text: &'static str, language: &str| {
        let (_, block) = text.split_once(&format!("```{language}\n")).unwrap();
        block.split_once("```").unwrap().0
    };
    let starts = TEXT.match_indices("```toml\n").map(|(at, _)| &TEXT[at..]);
    starts.map(move |text| (block(text, "toml"), block(text, "text")))
}

/// Whom so many connects to a VIP meet, in the words of the document.
fn met(world: &World, vip: Ipv4Addr, port: u16, times: usize) -> Result<String, io::Error> {
    let mut all: BTreeMap<String, usize> = BTreeMap::new();
    for _ in 0..times {
        match world.connect(vip, port) {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                return Ok("refused".to_owned());
            }
            flow => *all.entry(greeting(&flow?)?).or_default() += 1,
        }
    }
    let all = all.iter().map(|(id, count)| format!("{id} {count}×"));
    Ok(all.collect::<Vec<_>>().join(", "))
}

/// A flow to the instance `id` of the one service in `services`, from before its maintenance.
fn flow_to(world: &World, services: &str, id: &str) -> TcpStream {
    world.publish(&services.replace(", health = \"maintenance\"", ""));
    let catalog = file::parse(services).unwrap();
    let name = catalog.services.keys().next().unwrap();
    let vip = world.await_report(|report| report.vip(name));
    let flow = eventually(LIMIT, || {
        let flow = world.connect(vip, 80).map_err(|error| error.to_string())?;
        match greeting(&flow).map_err(|error| error.to_string())? {
            met if met == id => Ok(flow),
            met => Err(met),
        }
    });
    flow.unwrap()
}

/// Waits until a line of an example is true.
fn compare(world: &World, line: &str, open: Option<&TcpStream>) {
    let (what, expected) = line.split_once(" → ").unwrap();
    if let Some(flow) = open.filter(|_| what.starts_with(OPEN)) {
        assert_eq!(expected, "cut");
        let cut = eventually(LIMIT, || match greeting(flow) {
            Ok(id) => Err(id),
            Err(_) => Ok(()),
        });
        return cut.unwrap();
    }
    let (to, times) = match what.split_once(", ") {
        Some((to, times)) => (to, times.strip_suffix(" times").unwrap().parse().unwrap()),
        None => (what, 1),
    };
    let (name, port) = to.split_once(':').unwrap();
    let vip = world.await_report(|report| report.vip(name));
    let found = eventually(LIMIT, || {
        let met = met(world, vip, port.parse().unwrap(), times);
        let met = met.map_err(|error| error.to_string())?;
        let id = met.split(' ').next().unwrap();
        match met == expected.replace("one of them", id) {
            true => Ok(()),
            false => Err(met),
        }
    });
    found.unwrap_or_else(|late| panic!("{line}: {late}"));
}

#[test]
fn every_example_of_the_options_is_met_as_it_says() {
    let mut world = World::new();
    world.start(&[]);
    world.await_ready();
    let mut instances = Vec::new();
    let mut lines = 0;
    for (services, told) in examples() {
        let catalog = file::parse(services).unwrap();
        for instance in catalog.services.values().flat_map(|it| it.iter()) {
            let SocketAddr::V4(address) = instance.address else {
                panic!("{} is not IPv4", instance.address);
            };
            let started = Instance::start_at(&world.netns, &instance.key.id, address);
            started.break_application(&*instance.key.id == "broken");
            instances.push(started);
        }
        let open = told.lines().find_map(|line| line.strip_prefix(OPEN));
        let open = open.and_then(|rest| rest.split(' ').next());
        let open = open.map(|id| flow_to(&world, services, id));
        world.publish(services);
        for line in told.lines() {
            compare(&world, line, open.as_ref());
            lines += 1;
        }
        assert_eq!(world.report().problems(), "", "{services}");
    }
    assert!(lines > 0, "there is no example");
    world.finish();
}

#[test]
fn every_option_has_an_example_that_is_run() {
    for option in table::all().map(|option| option.name) {
        // A test of the front says it of these.
        if table::FRONT.iter().any(|front| front.name == option) {
            continue;
        }
        let stated = |text: &str| {
            let ways = [format!("{option} = "), format!("{option}=")];
            ways.iter().any(|way| text.contains(way))
        };
        let shown = match option {
            "lb_expose" | "lb_proto" => stated(include_str!("../../../docs/http.md")),
            // What it does is seen from other hosts.
            "lb_packet" => stated(include_str!("../../../docs/packet-path.md")),
            _ => examples().any(|(services, _)| stated(services)),
        };
        assert!(shown, "there is no example of {option}");
    }
}

const OPEN: &str = "an open flow to ";
