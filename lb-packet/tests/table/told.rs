//! What is told of packets by the ring: of all of them (that, every row is tried with), of some, of those of a service.

use lb_common::{Be32, packet::Fate};
use lb_packet::{Desired, Packet};

use crate::{
    kit::{ACK, CLIENT, CLIENT_DEVICE, Family, Frame, Pass, Row, V4, World, row, scene, vip},
    world,
};

/// Lets all packets of a VIP be told.
fn trace(number: u8) -> impl Fn(&mut Desired) + 'static {
    let vip = Be32::from_host(scene::vip4(number).into());
    move |desired| {
        for (key, wanted) in &mut desired.endpoints {
            if key.vip == vip {
                wanted.trace = true;
            }
        }
    }
}

fn fates(told: &[Packet]) -> Vec<Option<Fate>> {
    told.iter().map(|packet| packet.fate).collect()
}

fn syn(family: Family) -> Frame {
    let client = family.ip("10.77.0.2");
    Frame::tcp((client, 1000), (family.vip(vip::FULL), 80)).macs(CLIENT_DEVICE, CLIENT)
}

pub(crate) fn rows(family: Family) -> Vec<Row> {
    let syn = syn(family);
    let data = syn.clone().flags(ACK).payload(b"data");
    let sent = |frame: &Frame| frame.clone().to(family.ip("10.1.0.10"), 8080);
    let with = |says: &str, frame: &Frame| {
        let row = row("tc_client_in", family, says).takes(frame);
        row.becomes(Pass, &sent(frame), Fate::Destination)
    };
    let is = |fates: Vec<Option<Fate>>| {
        move |world: &mut World| assert_eq!(self::fates(&world.told()), fates)
    };
    let one = vec![Some(Fate::Destination)];
    vec![
        with("of packets that nobody asks for nothing is told", &syn).then(is(Vec::new())),
        with("a SYN to a service that is traced is told", &syn)
            .desired(trace(vip::FULL))
            .then(is(one.clone())),
        with("data to a service that is traced is told", &data)
            .after(&syn)
            .desired(trace(vip::FULL))
            .then(is(one)),
        with(
            "while a service is traced, nothing is told of another one",
            &syn,
        )
        .desired(trace(vip::THREE))
        .then(is(Vec::new())),
        with(
            "data of a known flow of another one is not told either",
            &data,
        )
        .desired(trace(vip::THREE))
        .after(&syn)
        .then(is(Vec::new())),
    ]
}

/// Sends the same packet so many times, of which one in `every` is to be told; answers how many are, and how many found no room.
fn pour(world: &mut World, every: u32, count: usize) -> (usize, u64) {
    world.apply(|desired| desired.settings.sample = every);
    let before = world.figures.fates().unwrap();
    world.pour("tc_client_in", &syn(V4), count, |_| {});
    let after = world.figures.fates().unwrap();
    let went = after.packets[&Fate::Destination] - before.packets[&Fate::Destination];
    assert_eq!(usize::try_from(went).unwrap(), count, "all go on");
    (world.told().len(), after.untold - before.untold)
}

#[test]
fn one_packet_of_so_many_is_told() {
    world(|world| {
        let (told, untold) = pour(world, 100, 10_000);
        // Drawn by lot: a hundred, and ten more or less.
        assert!((30..300).contains(&told), "{told}");
        assert_eq!(untold, 0);
    });
}

#[test]
fn packets_that_find_no_room_in_the_ring_are_counted_and_go_on() {
    world(|world| {
        let (told, untold) = pour(world, 1, 10_000);
        assert!(told > 1000 && untold > 1000, "{told} and {untold}");
        assert_eq!(told as u64 + untold, 10_000);
        // Once somebody has read it, there is room again.
        assert_eq!(pour(world, 1, 10), (10, 0));
    });
}
