//! Devices and programs come and go.

use std::{fs, os::fd::AsFd as _};

use lb_testkit::eventually;

use super::{Place, behind, goes_on};
use crate::kit::{LIMIT, connect, greeting};

#[test]
fn a_client_whose_device_comes_later_is_served_and_one_that_goes_is_forgotten() {
    let place = Place::new();
    let netns = &place.world.netns;
    let late = behind(netns, "lb-client2", 4);
    let devices = |report: &crate::kit::Report| {
        let devices = report.0["packet"]["devices"].as_array()?.clone();
        let names = devices
            .iter()
            .map(|it| it["name"].as_str().unwrap().to_owned());
        Some(names.collect::<Vec<_>>())
    };
    let both = ["lb-client", "lb-client2"];
    place
        .world
        .await_report(|report| devices(report).filter(|it| *it == both));
    let flow = connect(&late, place.vip, 80).unwrap();
    greeting(&flow).unwrap();
    netns.ip("link del lb-client2\n").unwrap();
    place
        .world
        .await_report(|report| devices(report).filter(|it| *it == both[..1]));
    let said = place.world.said();
    assert!(!said.contains("somebody took programs off"), "{said}");
    place.world.finish();
}

#[test]
fn programs_stay_on_devices_that_may_be_a_containers_until_docker_has_told() {
    let mut place = Place::new();
    let flow = place.flow_to("b");
    place.world.terminate();
    // Whoever was served without being named may have been so by a label.
    let usual = fs::read_to_string(place.world.config()).unwrap();
    let unnamed = usual.replace("lb-cli*", "other*");
    let silent = format!("socket = \"{}\"", place.world.path("none.sock").display());
    let silent = unnamed.replacen("socket = \"off\"", &silent, 1);
    assert_ne!(silent, unnamed);
    place.world.configure(&silent);
    place.world.start(&[]);
    // It has attached what it knows of before it shows that.
    place.world.await_page_report(|report| {
        let maps = report.0["packet"]["maps"].as_object()?;
        (!maps.is_empty()).then_some(())
    });
    goes_on(&flow, "b");
    place.world.terminate();
    // Where there are no containers the device is nobody's.
    place.world.configure(&unnamed);
    place.start_again();
    let gone = eventually(LIMIT, || match connect(&place.client, place.vip, 80) {
        Err(_) => Ok(()),
        Ok(_) => Err("still served"),
    });
    gone.unwrap_or_else(|late| panic!("{late}\n{}", place.world.said()));
    place.world.finish();
}

#[test]
fn a_device_that_cannot_be_served_keeps_no_programs_on_others_that_are_no_more_configured() {
    let mut place = Place::new();
    drop(place.flow_to("a"));
    place.world.terminate();
    // No driver runs XDP there.
    place
        .world
        .netns
        .ip("link add lb-br9 type bridge\n")
        .unwrap();
    let usual = fs::read_to_string(place.world.config()).unwrap();
    let other = usual.replace(
        "clients = [\"lb-cli*\"]",
        "cards = [\"lb-br9\"]\nxdp = \"native\"",
    );
    assert_ne!(other, usual);
    place.world.configure(&other);
    place.start_again();
    place.world.await_degraded(&["card lb-br9", "xdp_card"]);
    let gone = eventually(LIMIT, || match connect(&place.client, place.vip, 80) {
        Err(_) => Ok(()),
        Ok(_) => Err("still served"),
    });
    gone.unwrap_or_else(|late| panic!("{late}\n{}", place.world.said()));
    place.world.finish();
}

#[test]
fn programs_that_somebody_takes_off_a_device_come_again() {
    let place = Place::new();
    drop(place.flow_to("a"));
    let links = place.world.path("bpf/lb/packet/links");
    let take_off = || {
        let pins = fs::read_dir(links).unwrap().map(Result::unwrap);
        for pin in pins.map(|it| it.path()) {
            let link = lb_sys::bpf::object_get(&pin).unwrap();
            lb_sys::bpf::link_detach(link.as_fd()).unwrap();
        }
    };
    place.world.netns.enter(take_off).unwrap();
    let told = eventually(LIMIT, || {
        let said = place.world.said();
        let told = said.contains("somebody took programs off the device");
        told.then_some(()).ok_or(said)
    });
    told.unwrap_or_else(|late| panic!("{late}"));
    drop(place.flow_to("a"));
    place.world.await_fine();
    place.world.finish();
}

#[test]
fn a_network_with_the_address_of_clients_that_meet_themselves_is_told() {
    let place = Place::new();
    place.world.await_fine();
    let with = |verb: &str| {
        let line = format!("addr {verb} 169.254.0.1/16 dev lb-client\n");
        place.world.netns.ip(&line).unwrap();
    };
    with("add");
    let words = [
        "169.254.0.0/16 on lb-client contains 169.254.255.77",
        "give lb-client another network",
    ];
    place.world.await_degraded(&words);
    with("del");
    place.world.await_fine();
    place.world.finish();
}
