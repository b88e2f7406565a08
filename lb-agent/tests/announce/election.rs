//! Who answers: one host, and another one when that is gone, however it went.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use lb_testkit::eventually;
use nix::sys::signal::Signal;

use crate::{
    kit::{FOLLOWS, Host, LIMIT, Segment, TTL, twin},
    wire::{Mac, Said},
};

const SOON: Duration = Duration::from_secs(2);

fn only(mac: Mac) -> BTreeSet<Mac> {
    [mac].into()
}

/// Asks for the address of `www` until `host` alone answers, in both families, and never another one of `others`.
#[track_caller]
fn await_answers(segment: &Segment, host: &Host, others: &[&Host], within: Duration) {
    let (wire, vip, mac) = (segment.wire(), host.vip("www"), host.mac());
    let others: BTreeSet<_> = others.iter().map(|it| it.mac()).collect();
    let asked = eventually(within, || {
        let told = wire.who_has(vip, SOON);
        assert!(told.is_disjoint(&others), "{told:?}");
        match told == only(mac) {
            true => Ok(()),
            false => Err(format!("{told:?} answered")),
        }
    });
    asked.unwrap_or_else(|late| panic!("{late}\n{}", host.said()));
    assert_eq!(wire.who_has6(twin(vip), SOON), only(mac), "{}", host.said());
}

fn announcements(heard: &[Said], said: &Said) -> usize {
    heard.iter().filter(|it| *it == said).count()
}

#[test]
fn one_host_answers_and_another_one_does_when_it_is_killed() {
    let (segment, mut owner, mut other) = Segment::with_two();
    let (vip, gone, next) = (owner.vip("www"), owner.mac(), other.mac());
    assert_eq!(other.vip("www"), vip);
    let twin = twin(vip);
    await_answers(&segment, &owner, &[&other], LIMIT);
    let is_owner = "lb_announce_owner{key=\"lb-agent/announce\"}";
    assert_eq!(owner.metric(is_owner), Some(1.0));
    assert_eq!(other.metric(is_owner), Some(0.0));
    assert!(
        owner.metric("lb_announce_frames_total{protocol=\"arp\",kind=\"answer\"}") >= Some(1.0)
    );
    let told = other.await_line("ok", |it| it.contains("answers for the VIPs"));
    let address = format!("(10.77.0.{})", 10 + owner.number);
    assert!(told.contains(&address), "{told}");

    // A client that has found it without an agent.
    let [v4, v6] = [vip.to_string(), twin.to_string()];
    let finds = |mac: Mac| {
        let found = eventually(LIMIT, || {
            let found = [segment.neighbour(&v4), segment.neighbour(&v6)];
            match found == [Some(mac); 2] {
                true => Ok(()),
                false => Err(format!("{found:?} and not {mac:?}")),
            }
        });
        found.unwrap();
    };
    segment.seek(&v4);
    segment.seek(&v6);
    finds(gone);

    let wire = segment.wire();
    let killed = Instant::now();
    owner.kill();
    let all = [
        Said::ArpAnnouncement(vip, next),
        Said::NdpAnnouncement(twin, next),
    ];
    let heard = wire.until(FOLLOWS, |heard| all.iter().all(|it| heard.contains(it)));
    let took = killed.elapsed();
    assert!(took > TTL / 2, "sooner than a session ends: {took:?}");
    for said in &all {
        assert!(
            heard.contains(said),
            "{said:?} not in {heard:?}\n{}",
            other.said()
        );
    }
    // It is told anew without asking.
    finds(next);
    let three = |heard: &[Said]| all.iter().all(|it| announcements(heard, it) == 2);
    let heard = wire.until(LIMIT, three);
    assert!(three(&heard), "three times in all: {heard:?}");
    await_answers(&segment, &other, &[], LIMIT);
    let events = other.json(&["events"]).to_string();
    assert!(events.contains("\"took over\""), "{events}");
    assert_eq!(other.metric("lb_announce_takeovers_total"), Some(1.0));

    // One that ends as it should gives it back at once.
    owner.start();
    owner.await_line("ok", |it| it.contains(") answers for the VIPs"));
    let ended = Instant::now();
    other.terminate();
    let heard = wire.until(SOON, |heard| {
        heard.contains(&Said::ArpAnnouncement(vip, gone))
    });
    assert!(
        heard.contains(&Said::ArpAnnouncement(vip, gone)),
        "{heard:?}"
    );
    assert!(ended.elapsed() < 2 * SOON, "{:?}", ended.elapsed());
    await_answers(&segment, &owner, &[], LIMIT);
    owner.terminate();
    assert!(segment.wire().who_has(vip, SOON).is_empty());
}

#[test]
fn without_consul_nobody_answers_once_the_session_may_be_over() {
    let (segment, owner, other) = Segment::with_two();
    let (vip, wire) = (owner.vip("www"), segment.wire());
    await_answers(&segment, &owner, &[&other], LIMIT);
    let frozen = Instant::now();
    segment.freeze();
    // Asks until it has been quiet for longer than a session.
    let mut last = frozen;
    while last.elapsed() < TTL + Duration::from_secs(1) {
        if !wire.who_has(vip, Duration::from_millis(100)).is_empty() {
            last = Instant::now();
        }
    }
    // A renewal may have been asked for just before; the rest is what asking takes.
    let answered = last.duration_since(frozen);
    assert!(answered < TTL + Duration::from_secs(1), "{answered:?}");
    let told = owner.await_line("error", |it| it.starts_with("nobody is known to answer"));
    assert!(told.contains("Consul"), "{told}");
    assert!(wire.who_has(vip, SOON).is_empty());
    assert!(wire.who_has6(twin(vip), SOON).is_empty());
    let events = owner.json(&["events"]).to_string();
    assert!(events.contains("\"lost\""), "{events}");

    segment.thaw();
    let again = eventually(LIMIT, || {
        let told = wire.who_has(vip, SOON);
        match told.len() {
            1 => Ok(()),
            _ => Err(format!("{told:?}")),
        }
    });
    again.unwrap();
}

#[test]
fn an_owner_that_slept_answers_nothing_of_what_it_was_asked_meanwhile() {
    let (segment, owner, other) = Segment::with_two();
    let (vip, wire) = (owner.vip("www"), segment.wire());
    await_answers(&segment, &owner, &[&other], LIMIT);
    owner.signal(Signal::SIGSTOP);
    await_answers(&segment, &other, &[&owner], FOLLOWS + LIMIT);
    // Questions wait at its socket.
    for _ in 0..5 {
        assert_eq!(wire.who_has(vip, SOON), only(other.mac()));
    }
    owner.signal(Signal::SIGCONT);
    owner.await_line("ok", |it| it.contains(") answers for the VIPs"));
    let heard = wire.until(Duration::from_millis(500), |_| false);
    let of_owner = |said: &Said| {
        matches!(said, Said::ArpAnswer(of, mac) | Said::ArpAnnouncement(of, mac)
            if *of == vip && *mac == owner.mac())
    };
    assert!(!heard.iter().any(of_owner), "{heard:?}");
}

#[test]
fn an_agent_that_follows_a_killed_one_goes_on_with_its_session() {
    let (segment, mut owner, other) = Segment::with_two();
    await_answers(&segment, &owner, &[&other], LIMIT);
    owner.kill();
    owner.start();
    owner.await_line("ok", |it| it.starts_with("this host answers"));
    await_answers(&segment, &owner, &[&other], LIMIT);
    assert_eq!(other.metric("lb_announce_takeovers_total"), Some(0.0));
    // One that hands over to the next does not give it back.
    owner.signal(Signal::SIGUSR2);
    owner.await_end();
    owner.start();
    owner.await_line("ok", |it| it.starts_with("this host answers"));
    assert_eq!(other.metric("lb_announce_takeovers_total"), Some(0.0));
}

#[test]
fn a_vip_that_comes_later_is_announced_and_one_that_is_gone_is_nobodys() {
    let (segment, owner, other) = Segment::with_two();
    await_answers(&segment, &owner, &[&other], LIMIT);
    // Each that was there before has been announced three times: `www` and Consul itself.
    let count = "lb_announce_frames_total{protocol=\"arp\",kind=\"announcement\"}";
    let before = eventually(LIMIT, || match owner.metric(count) {
        Some(6.0) => Ok(()),
        told => Err(format!("{told:?}")),
    });
    before.unwrap();
    let wire = segment.wire();
    for host in [&owner, &other] {
        host.publish(&["www", "shop"]);
    }
    let (vip, mac) = (owner.vip("shop"), owner.mac());
    let all = [
        Said::ArpAnnouncement(vip, mac),
        Said::NdpAnnouncement(twin(vip), mac),
    ];
    let three = |heard: &[Said]| all.iter().all(|it| announcements(heard, it) == 3);
    let heard = wire.until(LIMIT, three);
    assert!(three(&heard), "{heard:?}");
    let old = owner.vip("www");
    let again = Said::ArpAnnouncement(old, mac);
    assert!(!heard.contains(&again), "the old one is known: {heard:?}");
    assert_eq!(wire.who_has(vip, SOON), only(mac));
    assert_eq!(wire.who_has6(twin(vip), SOON), only(mac));
    owner.publish(&["shop"]);
    let gone = eventually(LIMIT, || {
        let told = wire.who_has(old, Duration::from_millis(300));
        told.is_empty().then_some(()).ok_or(format!("{told:?}"))
    });
    gone.unwrap();
    // What is none of ours was never answered.
    assert!(wire.who_has([198, 18, 255, 254].into(), SOON).is_empty());
}

#[test]
fn somebody_who_takes_the_lock_away_ends_the_ownership() {
    let (segment, owner, _other) = Segment::with_two();
    let key = "kv/lb-agent/announce/owner";
    let entry: serde_json::Value = serde_json::from_str(&segment.ask("GET", key)).unwrap();
    let session = entry[0]["Session"].as_str().unwrap().to_owned();
    let told = segment.ask("GET", &format!("session/info/{session}"));
    assert!(
        told.contains(&session) && !told.contains("serfHealth"),
        "{told}"
    );
    segment.ask("PUT", &format!("session/destroy/{session}"));
    let lost = eventually(LIMIT, || {
        let events = owner.json(&["events"]).to_string();
        events.contains("\"lost\"").then_some(()).ok_or(events)
    });
    lost.unwrap();
    // Consul keeps the lock from everybody for a second; then one has it again.
    let again = eventually(LIMIT, || {
        let told = segment.wire().who_has(owner.vip("www"), SOON);
        (told.len() == 1).then_some(()).ok_or(format!("{told:?}"))
    });
    again.unwrap();
}
