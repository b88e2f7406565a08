//! A virtual machine behind a tap: its kernel leaves checksums and the cutting of segments to the host, and takes packets like that
//! from it, as through QEMU or vhost.

use std::{io::ErrorKind, net::SocketAddr};

use lb_common::packet::Fate;
use lb_testkit::{Cable, Quality};

use crate::{
    client::{datagrams_are_balanced, is_balanced, learns_of_a_narrow_link, reaches_itself},
    load::Talk,
    net::{V4, V6, ip, vip},
    scene::{Scene, to},
};

/// The client of a scene as a virtual machine, and the cable to it.
struct Machine {
    scene: Scene,
    cable: Cable,
}

impl Machine {
    fn new() -> Self {
        let scene = Scene::without_client();
        let ends = [(&scene.host, "vm0", 1), (&scene.client, "eth0", 2)];
        let cable = Cable::between((&scene.host, "vm0"), (&scene.client, "eth0")).unwrap();
        for (end, device, number) in ends {
            end.ip(&format!(
                "link set {device} up\naddr add {}/24 dev {device}\naddr add {}/64 dev {device} nodad\n",
                ip(V4, 77, number),
                ip(V6, 77, number),
            ))
            .unwrap();
        }
        scene.leads_to_client();
        Self { scene, cable }
    }

    /// Packets came and went as machines send and take them.
    fn left_work_to_each_other(&self) {
        let (there, back) = (self.cable.from_machine(), self.cable.from_host());
        assert!(there.unsummed > 100 && there.uncut > 10, "{there:?}");
        assert!(back.unsummed > 100 && back.uncut > 10, "{back:?}");
    }
}

#[test]
fn a_virtual_machine_is_balanced() {
    let machine = Machine::new();
    is_balanced(&machine.scene, V4);
    machine.left_work_to_each_other();
}

#[test]
fn a_virtual_machine_is_balanced_by_ipv6() {
    let machine = Machine::new();
    is_balanced(&machine.scene, V6);
    machine.left_work_to_each_other();
}

#[test]
fn connections_over_a_bad_cable_are_slow_and_do_not_break() {
    for family in [V4, V6] {
        let machine = Machine::new();
        machine.cable.spoil(Quality {
            lost: 10,
            twice: 10,
            late: 20,
            ..Quality::default()
        });
        is_balanced(&machine.scene, family);
    }
}

#[test]
fn much_at_once_goes_through_a_tap() {
    let machine = Machine::new();
    let _agent = machine.scene.agent();
    for family in [V4, V6] {
        let _servers = machine.scene.servers(family);
        let mut talk = Talk::begin(&machine.scene.client, to(family)).unwrap();
        talk.say(20_000_000).unwrap();
        talk.end().unwrap();
    }
    machine.left_work_to_each_other();
}

#[test]
fn a_virtual_machine_that_is_its_own_backend_reaches_itself() {
    let machine = Machine::new();
    reaches_itself(&machine.scene);
    machine.left_work_to_each_other();
}

#[test]
fn datagrams_of_a_virtual_machine_are_balanced() {
    let machine = Machine::new();
    datagrams_are_balanced(&machine.scene);
    let (there, back) = (machine.cable.from_machine(), machine.cable.from_host());
    assert!(
        there.unsummed >= 200 && back.unsummed >= 200,
        "{there:?} {back:?}"
    );
}

#[test]
fn a_virtual_machine_learns_of_a_narrow_link_to_the_backend() {
    learns_of_a_narrow_link(&Machine::new().scene);
}

#[test]
fn a_virtual_machine_is_refused_where_nobody_serves() {
    let machine = Machine::new();
    let mut agent = machine.scene.agent();
    agent.serve(17, &[], false);
    for family in [V4, V6] {
        let before = agent.fate(Fate::NoBackend);
        let nobody = SocketAddr::new(vip(family, 17), 80);
        let refused = Talk::begin(&machine.scene.client, nobody).err().unwrap();
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused, "{refused}");
        // One SYN: the first answer is understood.
        assert_eq!(agent.fate(Fate::NoBackend), before + 1);
    }
}
