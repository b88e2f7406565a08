//! What people and programs see of the agent: commands, page, metrics, and how little it takes.

use std::{
    fs,
    net::Ipv4Addr,
    time::{Duration, Instant},
};

use lb_testkit::eventually;
use nix::unistd::{SysconfVar, sysconf};

use crate::kit::{Instance, LIMIT, Report, World, greeting, service};

#[test]
fn status_ends_with_0_when_fine_3_when_degraded_and_1_without_an_agent() {
    let (mut world, [a, b], _) = World::with_two();
    let fine = world.ask(&["status"]);
    assert_eq!(fine.code, Some(0), "{fine:?}");
    drop(a);
    let degraded = eventually(LIMIT, || match world.ask(&["status", "-o", "json"]) {
        asked if asked.code == Some(3) => Ok(asked),
        asked => Err(format!("{asked:?}")),
    });
    let degraded = degraded.unwrap();
    assert!(degraded.json().is_object(), "{degraded:?}");
    assert!(degraded.err.is_empty(), "{degraded:?}");
    let said = world.ask(&["status"]).out;
    assert!(said.contains("www_hello"), "{said}");
    // Ready and degraded are two things: one dead instance does not take an agent out of service.
    assert_eq!(world.ask(&["healthcheck"]).code, Some(0));
    assert_eq!(world.page("/ready").unwrap().status, 200);
    drop(b);
    world.terminate();
    let gone = world.ask(&["status"]);
    assert_eq!(gone.code, Some(1), "{gone:?}");
    assert!(
        gone.out.is_empty() && gone.err.contains("admin.sock"),
        "{gone:?}"
    );
    world.finish();
}

#[test]
fn every_command_speaks_json_and_a_wrong_one_is_usage() {
    let (world, [a, b], vip) = World::with_two();
    let status = world.ask(&["-o", "json", "status"]).json();
    assert!(status.is_object(), "{status:#}");
    let services = world.ask(&["services", "-o", "json"]).json();
    assert_eq!(services[0]["name"], "www_hello", "{services:#}");
    assert_eq!(services[0]["vip"], vip.to_string());
    let one = world.ask(&["services", "www_hello", "-o", "json"]).json();
    assert_eq!(one, services);
    let backends = world.ask(&["backends", "-o", "json"]).json();
    for (backend, instance) in backends.as_array().unwrap().iter().zip([&a, &b]) {
        assert_eq!(backend["id"], instance.id(), "{backends:#}");
        assert_eq!(backend["address"], instance.address().to_string());
        assert_eq!(backend["state"], "usable");
    }
    let drained = world.ask(&["drain", "www_hello/a", "-o", "json"]).json();
    assert!(drained.is_object(), "{drained:#}");

    let nobody = world.ask(&["services", "nobody"]);
    assert_eq!(nobody.code, Some(1), "{nobody:?}");
    assert!(
        nobody.err.contains("nobody") && nobody.out.is_empty(),
        "{nobody:?}"
    );
    for wrong in [&["stats"][..], &["drain"], &["status", "-o", "xml"]] {
        assert_eq!(world.ask(wrong).code, Some(2), "{wrong:?}");
    }
    world.finish();
}

#[test]
fn health_readiness_and_metrics_are_pages_and_the_counts_are_exact() {
    let (mut world, _instances, vip) = World::with_two();
    assert_eq!(world.page("/healthz").unwrap().status, 200);
    assert_eq!(world.page("/ready").unwrap().status, 200);
    let page = world.page("/").unwrap();
    assert_eq!(page.status, 200);
    assert!(page.body.contains("www_hello") && page.body.contains(&vip.to_string()));
    assert_eq!(world.page("/nothing").unwrap().status, 404);
    let ready = world.ask(&["healthcheck"]);
    assert_eq!((ready.code, ready.out.as_str()), (Some(0), ""), "{ready:?}");

    let flows: Vec<_> = (0..5).map(|_| world.connect(vip, 80).unwrap()).collect();
    for flow in &flows {
        greeting(flow).unwrap();
    }
    world.await_report(|report| {
        let flows = &report.service("www_hello")?["flows"];
        (flows["total"] == 5 && flows["active"] == 5).then_some(())
    });
    let metrics = world.await_page("/metrics", |answer| {
        let mine = |line: &&str| line.contains("www_hello") && line.starts_with("lb_");
        let mut mine = answer.body.lines().filter(mine);
        answer.status == 200 && mine.any(|line| line.ends_with(" 5") || line.ends_with(" 5.0"))
    });
    for line in metrics.body.lines().filter(|line| !line.starts_with('#')) {
        let (name, value) = line.rsplit_once(' ').unwrap();
        assert!(value.parse::<f64>().is_ok(), "{line}");
        assert!(
            name.starts_with("lb_") || name.starts_with("process_"),
            "{line}"
        );
    }
    drop(flows);
    world.await_report(|report| {
        let flows = &report.service("www_hello")?["flows"];
        (flows["active"] == 0 && flows["total"] == 5).then_some(())
    });
    world.finish();
}

#[test]
fn what_a_service_has_counted_stays_when_a_port_and_an_instance_of_it_go() {
    let mut instance = None;
    let on_ports = |ports: &str, instance: &Instance| {
        let options = format!("options = {{ lb_port = \"{ports}\" }}\n[[service.instance]]");
        service("www_hello", &[instance]).replace("[[service.instance]]", &options)
    };
    let world = World::with_services(|netns| {
        let a = instance.insert(Instance::start(netns, "a", [127, 0, 1, 1]));
        on_ports("80,81", a)
    });
    let vip = world.await_usable("www_hello", &["a"]);
    let flow = |port, id: &str| {
        let flow = world.connect(vip, port).unwrap();
        assert_eq!(greeting(&flow).unwrap(), id);
    };
    let counted = |report: &Report| report.service("www_hello")?["flows"]["total"].as_u64();
    let connected = || {
        let metrics = world.page("/metrics").unwrap().body;
        let name = "lb_connect_duration_seconds_count{service=\"www_hello\"} ";
        let line = metrics.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap_or_else(|| panic!("{metrics}")).to_owned()
    };
    for (port, flows) in [(80, 3), (81, 2)] {
        (0..flows).for_each(|_| flow(port, "a"));
    }
    assert_eq!(counted(&world.report()), Some(5));
    assert_eq!(connected(), "5");

    let b = Instance::start(&world.netns, "b", [127, 0, 1, 2]);
    world.publish(&on_ports("80", &b));
    world.await_usable("www_hello", &["b"]);
    world.await_report(|report| {
        let endpoints = &report.0["data_plane"]["maps"]["SERVICES"]["entries"];
        (*endpoints == 1).then_some(())
    });
    assert_eq!(counted(&world.report()), Some(5));
    assert_eq!(connected(), "5");
    flow(80, "b");
    assert_eq!(counted(&world.report()), Some(6));
    assert_eq!(connected(), "6");
    world.finish();
}

#[test]
fn the_page_of_another_host_name_and_changes_without_the_token_are_refused() {
    let (world, _instances, vip) = World::with_two();
    let rebound = crate::kit::http(
        &world.netns,
        (Ipv4Addr::LOCALHOST, 9180).into(),
        "evil.example",
        "/api/v1/snapshot",
    );
    let answer = rebound.unwrap();
    assert!((400..500).contains(&answer.status), "{answer:?}");
    assert!(!answer.body.contains(&vip.to_string()), "{answer:?}");
    world.finish();
}

#[test]
fn an_idle_agent_takes_little_memory_and_next_to_no_time() {
    let (world, _instances, _) = World::with_two();
    let processes: Vec<u32> = world
        .children()
        .into_iter()
        .chain([world.agent_id()])
        .collect();
    let used = || -> u64 { processes.iter().map(|&id| ticks(id)).sum() };
    let (start, before) = (Instant::now(), used());
    // The span of the measurement, not a wait for something.
    std::thread::sleep(Duration::from_secs(5));
    let (spent, span) = (used() - before, start.elapsed());
    let per_second = sysconf(SysconfVar::CLK_TCK).unwrap().unwrap();
    let share = ratio(spent, u64::try_from(per_second).unwrap()) / span.as_secs_f64();
    let own: Vec<u64> = processes.iter().map(|&id| own_kib(id)).collect();
    println!(
        "idle: {:.2} % of a core, {own:?} KiB of their own (front, agent)",
        share * 100.0
    );
    assert!(share < 0.03, "{share} of a core");
    let agent = own[own.len() - 1];
    assert!(agent < 22 * 1024, "{agent} KiB");
    world.finish();
}

/// The processor time that a process has used, in ticks: fields 14 and 15 of proc_pid_stat(5).
fn ticks(id: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).unwrap();
    // The second field is a name and may have blanks in it.
    let (_, rest) = stat.rsplit_once(") ").unwrap();
    let fields = rest.split(' ').skip(11).take(2);
    fields.map(|field| field.parse::<u64>().unwrap()).sum()
}

/// What a process has in memory that is in no file: code that nobody has optimised would be most of it.
fn own_kib(id: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{id}/status")).unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
    kib.unwrap().trim().parse().unwrap()
}

fn ratio(part: u64, whole: u64) -> f64 {
    f64::from(u32::try_from(part).unwrap()) / f64::from(u32::try_from(whole).unwrap())
}
