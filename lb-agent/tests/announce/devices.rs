//! Devices that come, go and lose their link.

use std::{fs, time::Duration};

use lb_testkit::eventually;

use crate::{
    kit::{Host, LIMIT, Segment, twin},
    wire::Said,
};

const SOON: Duration = Duration::from_secs(2);

#[test]
fn a_host_whose_cable_is_pulled_lets_another_one_answer() {
    let (segment, owner, other) = Segment::with_two();
    let (vip, mac) = (owner.vip("www"), other.mac());
    let wire = segment.wire();
    // Consul is beyond the same cable, so the session ends by itself.
    segment.cable(&owner, "down");
    let told = Said::ArpAnnouncement(vip, mac);
    let heard = wire.until(LIMIT, |heard| heard.contains(&told));
    assert!(heard.contains(&told), "{heard:?}\n{}", other.said());
    let without = eventually(LIMIT, || {
        let line = owner.line();
        let is_told = line.as_ref().is_some_and(|it| it.1.contains("not on eth0"));
        is_told.then_some(()).ok_or(format!("{line:?}"))
    });
    without.unwrap();
    let problems = owner.json(&["status"]).to_string();
    assert!(problems.contains("see to the cable"), "{problems}");
    segment.cable(&owner, "up");
    owner.await_line("ok", |it| it.contains(") answers for the VIPs"));
    let told = wire.who_has(vip, SOON);
    assert_eq!(told, [mac].into(), "{}\n{}", owner.said(), other.said());
}

#[test]
fn a_host_that_always_answers_needs_no_consul_and_waits_for_its_device() {
    let segment = Segment::new();
    let mut host = Host::bare(3);
    host.configure("[announce]\ndevices = [\"eth0\"]\nowner = \"always\"\n");
    host.start();
    host.await_line("warning", |it| {
        it == "nobody answers for the VIPs; not on eth0"
    });
    let told = host.doctor();
    assert!(told.contains("eth0: there is no such device"), "{told}");
    let wire = segment.wire();
    segment.plug(&host);
    host.await_line("ok", |it| {
        it.starts_with("this host answers for 2 addresses")
    });
    let (vip, mac) = (host.vip("www"), host.mac());
    let told = Said::NdpAnnouncement(twin(vip), mac);
    let heard = wire.until(LIMIT, |heard| heard.contains(&told));
    assert!(heard.contains(&told), "{heard:?}");
    assert_eq!(wire.who_has(vip, SOON), [mac].into());
    assert_eq!(wire.who_has6(twin(vip), SOON), [mac].into());
    let told = host.doctor();
    assert!(told.contains("eth0 has a link"), "{told}");

    // A device of the same name that is another one is heard as well.
    host.netns.ip("link del eth0\n").unwrap();
    host.await_line("warning", |it| it.starts_with("nobody answers"));
    segment.plug(&host);
    host.await_line("ok", |it| it.starts_with("this host answers"));
    let again = host.mac();
    assert_ne!(again, mac);
    let answers = eventually(LIMIT, || {
        let told = [wire.who_has(vip, SOON), wire.who_has6(twin(vip), SOON)];
        match told == [[again].into(), [again].into()] {
            true => Ok(()),
            false => Err(format!("{told:?}")),
        }
    });
    answers.unwrap();
    host.terminate();
}

#[test]
fn hundreds_of_vips_are_announced_and_their_questions_reach_the_host() {
    let segment = Segment::new();
    let mut host = Host::bare(4);
    host.configure("[announce]\ndevices = [\"eth0\"]\nowner = \"always\"\n");
    let names: Vec<_> = (0..300).map(|number| format!("s{number}")).collect();
    host.publish(&names.iter().map(String::as_str).collect::<Vec<_>>());
    segment.plug(&host);
    host.start();
    host.await_line("ok", |it| it == "this host answers for 600 addresses");
    // In each round, all in bursts.
    for protocol in ["arp", "ndp"] {
        let count =
            format!("lb_announce_frames_total{{protocol=\"{protocol}\",kind=\"announcement\"}}");
        let sent = eventually(LIMIT, || match host.metric(&count) {
            Some(900.0) => Ok(()),
            told => Err(format!("{protocol}: {told:?}")),
        });
        sent.unwrap();
    }
    assert_eq!(host.metric("lb_announce_unsent_total"), Some(0.0));
    // Cards and switches pass on what is for groups that somebody takes part in.
    let groups = || {
        let told = host
            .netns
            .enter(|| fs::read_to_string("/proc/thread-self/net/igmp6"));
        let told = told.unwrap().unwrap();
        let of_device = told.lines().filter(|it| it.contains("eth0"));
        of_device
            .filter(|it| it.contains("ff0200000000000000000001ff"))
            .count()
    };
    assert!(groups() >= 300, "{}", groups());
    let wire = segment.wire();
    let (first, mac) = (host.vip("s0"), host.mac());
    assert_eq!(wire.who_has6(twin(first), SOON), [mac].into());
    host.publish(&["s0"]);
    let left = eventually(LIMIT, || match groups() {
        left @ ..10 => Ok(left),
        many => Err(format!("{many} are left")),
    });
    left.unwrap();
    assert_eq!(wire.who_has6(twin(first), SOON), [mac].into());
    host.terminate();
}

#[test]
fn two_hosts_that_always_answer_are_told_of_each_other() {
    let segment = Segment::new();
    let mut hosts = [5, 6].map(Host::bare);
    for host in &mut hosts {
        segment.plug(host);
        host.configure("[announce]\ndevices = [\"eth0\"]\nowner = \"always\"\n");
        host.start();
        host.await_line("ok", |it| {
            it.starts_with("this host answers for 2 addresses")
        });
    }
    let told = eventually(LIMIT, || {
        match hosts[0].metric("lb_announce_conflicts_total") {
            Some(1.0..) => Ok(()),
            told => Err(format!("{told:?}")),
        }
    });
    told.unwrap();
    assert!(
        hosts[0].said().contains("another host announces a VIP"),
        "{}",
        hosts[0].said()
    );
}

#[test]
fn the_kernel_answers_for_no_vip_and_for_the_agents_own_address_unless_it_is_told_not_to() {
    let segment = Segment::new();
    let mut host = Host::bare(7);
    segment.plug(&host);
    host.configure("");
    host.start();
    let (vip, own) = (host.vip("www"), [198, 18, 0, 1].into());
    let set = |name: &str| {
        let path = format!("/proc/sys/net/ipv4/conf/eth0/{name}");
        host.netns.enter(|| fs::write(path, "1")).unwrap().unwrap();
    };
    // What makes a kernel answer for others.
    for name in ["forwarding", "proxy_arp"] {
        set(name);
    }
    let wire = segment.wire();
    assert_eq!(wire.who_has(own, SOON), [host.mac()].into());
    assert!(wire.who_has(vip, SOON).is_empty());
    assert!(wire.who_has6(twin(vip), SOON).is_empty());
    assert!(wire.who_has6(twin(own), SOON).is_empty());
    set("arp_ignore");
    assert!(wire.who_has(own, SOON).is_empty());
    assert_eq!(host.line(), None, "nothing is said of what is off");
    host.terminate();
}
