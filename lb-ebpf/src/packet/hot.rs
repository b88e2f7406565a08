//! What is done for each packet, to count its instructions.

use std::hint::black_box;

use lb_common::{Be16, Be32};
use lb_testkit::hot_path;

use super::{
    IPV4_HEAD, enclose4, plain4, plain6, rewrite4, rewrite6,
    samples::{Sent, faults},
};

/// The same packet from another port.
fn moved(sent: &Sent) -> Sent {
    Sent {
        source_port: Be16::from_host(50_000),
        ..sent.clone()
    }
}

#[test]
fn hot_path_of_reading_heads() {
    let (four, six) = (Sent::tcp4().frame(), Sent::tcp6().frame());
    assert!(plain4(&*four).is_some() && plain6(&*six).is_some());
    hot_path(|| (plain4(black_box(&*four)), plain6(black_box(&*six))));
}

#[test]
fn hot_path_of_rewriting_both_ends() {
    let [four, six] = [Sent::tcp4(), Sent::tcp6()];
    let [to4, to6] = [moved(&four), moved(&six)];
    let [mut frame4, mut frame6] = [four.frame(), six.frame()];
    // There and back, so that each run finds what the first one did.
    hot_path(|| {
        for (from, to) in [(&four, &to4), (&to4, &four)] {
            let (old, new) = (from.ends4(), to.ends4());
            rewrite4(&mut *frame4, from.places(), black_box(&old), &new, 0);
        }
        for (from, to) in [(&six, &to6), (&to6, &six)] {
            let (old, new) = (from.ends6(), to.ends6());
            rewrite6(&mut *frame6, from.places(), black_box(&old), &new, 0);
        }
    });
    assert_eq!((frame4, frame6), (four.frame(), six.frame()));
}

#[test]
fn hot_path_of_a_tunnels_head() {
    let sent = Sent::tcp4();
    let inner = sent.frame();
    let length = u16::try_from(inner.len() - sent.network()).unwrap();
    let mut frame = vec![0; IPV4_HEAD];
    frame.extend(&inner);
    let made = frame.clone();
    hot_path(|| {
        frame.copy_from_slice(&made);
        let ends = [[10, 0, 0, 1], [10, 0, 0, 2]].map(|it| Be32::from_raw(u32::from_ne_bytes(it)));
        enclose4(
            &mut *frame,
            sent.network(),
            black_box(length),
            ends[0],
            ends[1],
            1,
        )
    });
    let mut outer = frame.clone();
    outer.drain(sent.network()..sent.network() + IPV4_HEAD);
    assert_ne!(frame, made);
    assert_eq!(faults(&outer), [""; 0]);
}
