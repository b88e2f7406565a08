use proptest::prelude::*;

use super::*;

const MAC: Mac = [2, 0, 0, 0, 0, 1];
const OTHER: Mac = [2, 0, 0, 0, 0, 2];
const VIP: Ipv4Addr = Ipv4Addr::new(198, 18, 194, 107);
const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 9);

fn v6(text: &str) -> Ipv6Addr {
    text.parse().unwrap()
}

fn question() -> [u8; ARP_BYTES] {
    let mut frame = arp(EVERYBODY, OTHER, REQUEST, CLIENT, (NOBODY, VIP));
    frame[0] = 0xff;
    frame
}

/// A solicitation as a kernel sends it.
fn solicitation(sender: &str, target: &str, option: bool) -> Vec<u8> {
    let (sender, target) = (v6(sender), v6(target));
    let group = solicited_node(target);
    let mut message = vec![SOLICITATION, 0, 0, 0, 0, 0, 0, 0];
    message.extend(target.octets());
    if option {
        message.extend([1, 1]);
        message.extend(OTHER);
    }
    let sum = checksum(sender.octets(), group.octets(), &message);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    let mut frame = Vec::from(multicast(group));
    frame.extend(OTHER);
    frame.extend(TYPE_IPV6);
    let length = u8::try_from(message.len()).unwrap();
    frame.extend([0x60, 0, 0, 0, 0, length, ICMPV6, 255]);
    frame.extend(sender.octets());
    frame.extend(group.octets());
    frame.extend(message);
    frame
}

#[test]
fn who_asks_by_arp_is_told_alone() {
    let asked = arp_question(&question()).unwrap();
    assert_eq!(asked.target, VIP);
    let answer = arp_answer(&asked, MAC);
    #[rustfmt::skip]
    let expect = [
        2, 0, 0, 0, 0, 2,  2, 0, 0, 0, 0, 1,  8, 6,
        0, 1,  8, 0,  6, 4,  0, 2,
        2, 0, 0, 0, 0, 1,  198, 18, 194, 107,
        2, 0, 0, 0, 0, 2,  10, 77, 0, 9,
    ];
    assert_eq!(answer, expect);
    assert_eq!(arp_question(&answer), None);
}

#[test]
fn an_announcement_by_arp_is_a_request_of_the_address_for_itself() {
    #[rustfmt::skip]
    let expect = [
        255, 255, 255, 255, 255, 255,  2, 0, 0, 0, 0, 1,  8, 6,
        0, 1,  8, 0,  6, 4,  0, 1,
        2, 0, 0, 0, 0, 1,  198, 18, 194, 107,
        0, 0, 0, 0, 0, 0,  198, 18, 194, 107,
    ];
    let announcement = arp_announcement(VIP, MAC);
    assert_eq!(announcement, expect);
    assert_eq!(arp_question(&announcement), None, "it asks for nothing");
    assert_eq!(arp_claim(&announcement), Some((VIP, MAC)));
    assert_eq!(arp_claim(&question()), None);
}

#[test]
fn who_is_about_to_take_an_address_hears_that_it_is_taken() {
    let probe = arp(
        EVERYBODY,
        OTHER,
        REQUEST,
        Ipv4Addr::UNSPECIFIED,
        (NOBODY, VIP),
    );
    assert_eq!(arp_question(&probe).map(|it| it.target), Some(VIP));
    let probe = ndp_question(&solicitation("::", "fd62:6c62:76:1::c26b", false)).unwrap();
    let answer = ndp_answer(&probe, MAC);
    assert_eq!(answer[..6], [0x33, 0x33, 0, 0, 0, 1]);
    assert_eq!(answer[58], OVERRIDE);
}

#[test]
fn who_asks_by_neighbour_discovery_is_told_alone() {
    for option in [true, false] {
        let frame = solicitation("fe80::9", "fd62:6c62:76:1::c26b", option);
        let asked = ndp_question(&frame).unwrap();
        assert_eq!(asked.target, v6("fd62:6c62:76:1::c26b"));
        let answer = ndp_answer(&asked, MAC);
        let mut expect = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 0x86, 0xdd];
        expect.extend([0x60, 0, 0, 0, 0, 32, 58, 255]);
        expect.extend(v6("fd62:6c62:76:1::c26b").octets());
        expect.extend(v6("fe80::9").octets());
        let sum = at::<2>(&answer, 56).unwrap();
        expect.extend([136, 0, sum[0], sum[1], 0x60, 0, 0, 0]);
        expect.extend(v6("fd62:6c62:76:1::c26b").octets());
        expect.extend([2, 1, 2, 0, 0, 0, 0, 1]);
        assert_eq!(answer[..], expect);
        // Made by another program, so that sums are right and not only consistent.
        assert_eq!(sum, [0xbb, 0xc8]);
    }
}

#[test]
fn an_announcement_by_neighbour_discovery_goes_to_all_and_overrides() {
    let frame = ndp_announcement(v6("fd62:6c62:76:1::7"), MAC);
    assert_eq!(frame[..6], [0x33, 0x33, 0, 0, 0, 1]);
    assert_eq!(frame[38..54], ALL_NODES.octets());
    assert_eq!(frame[58], OVERRIDE);
    let (source, to) = (at(&frame, 22).unwrap(), at(&frame, 38).unwrap());
    assert_eq!(checksum(source, to, &frame[54..]), 0);
}

#[test]
fn what_is_no_question_of_arp_is_not_answered() {
    let wrong = |at: usize, byte: u8| {
        let mut frame = question();
        frame[at] = byte;
        arp_question(&frame)
    };
    for (at, byte, why) in [
        (13, 0x00, "another protocol"),
        (15, 6, "another kind of link"),
        (17, 1, "another kind of address"),
        (18, 8, "longer link addresses"),
        (19, 16, "longer addresses"),
        (21, 2, "an answer"),
        (22, 0x03, "a sender that is many"),
    ] {
        assert_eq!(wrong(at, byte), None, "{why}");
    }
    assert_eq!(arp_question(&question()[..41]), None, "cut off");
}

#[test]
fn what_is_no_question_of_neighbour_discovery_is_not_answered() {
    let good = solicitation("fe80::9", "fd62:6c62:76:1::7", true);
    assert!(ndp_question(&good).is_some());
    for (at, byte, why) in [
        (13, 0x00, "another protocol"),
        (14, 0x40, "another version"),
        (20, 17, "another protocol in it"),
        (21, 254, "from beyond a router"),
        (54, 133, "another message"),
        (55, 1, "another code"),
        (56, 0, "a wrong sum"),
        (19, 200, "longer than the frame"),
        (19, 8, "too short for an address"),
        (79, 0, "an option without a length"),
    ] {
        let mut frame = good.clone();
        frame[at] = byte;
        assert_eq!(ndp_question(&frame), None, "{why}");
    }
    let of_group = solicitation("fe80::9", "ff02::1", true);
    assert_eq!(ndp_question(&of_group), None, "a group is nobody's");
}

#[test]
fn questions_for_an_address_go_to_the_group_of_its_last_bytes() {
    assert_eq!(
        solicited_node(v6("fd62:6c62:76:1::ab12:c26b")),
        v6("ff02::1:ff12:c26b")
    );
    let group = solicited_node(v6("fd62::12:3456"));
    assert_eq!(multicast(group), [0x33, 0x33, 0xff, 0x12, 0x34, 0x56]);
}

/// What a filter of the kernel does with a frame, as far as ours go.
fn passes(tests: &[Test], frame: &[u8]) -> bool {
    tests.iter().all(|&(load, offset, mask, value)| {
        let offset = usize::try_from(offset).unwrap();
        let loaded = match load {
            LOAD_BYTE => at::<1>(frame, offset).map(|it| u32::from(it[0])),
            LOAD_HALF => at(frame, offset).map(|it| u32::from(u16::from_be_bytes(it))),
            _ => at(frame, offset).map(u32::from_be_bytes),
        };
        loaded.is_some_and(|loaded| loaded & mask == value)
    })
}

#[test]
fn filters_let_through_what_is_asked_for_the_pool_alone() {
    let arp = arp_tests("198.18.0.0/16".parse().unwrap());
    assert!(passes(&arp, &question()));
    assert!(!passes(&arp, &arp_announcement(CLIENT, MAC)));
    let other = arp_tests("198.19.0.0/16".parse().unwrap());
    assert!(!passes(&other, &question()));
    let ndp = ndp_tests("fd62:6c62:76:1::/64".parse().unwrap());
    assert!(passes(
        &ndp,
        &solicitation("fe80::9", "fd62:6c62:76:1::7", true)
    ));
    assert!(!passes(
        &ndp,
        &solicitation("fe80::9", "fd62:6c62:76:2::7", true)
    ));
    assert!(!passes(
        &ndp,
        &ndp_announcement(v6("fd62:6c62:76:1::7"), MAC)
    ));
}

proptest! {
    #[test]
    fn nothing_that_others_send_is_too_much(frame in prop::collection::vec(any::<u8>(), 0..120)) {
        let _ = arp_question(&frame);
        let _ = arp_claim(&frame);
        let _ = ndp_question(&frame);
    }

    #[test]
    fn a_question_that_is_damaged_anywhere_never_makes_a_wrong_answer(
        at in 0..86_usize, byte in any::<u8>(), length in 0..90_usize,
    ) {
        let mut frame = solicitation("fe80::9", "fd62:6c62:76:1::7", true);
        frame[at] = byte;
        frame.truncate(length);
        if let Some(asked) = ndp_question(&frame) {
            let answer = ndp_answer(&asked, MAC);
            let (source, to) = (super::at(&answer, 22).unwrap(), super::at(&answer, 38).unwrap());
            prop_assert_eq!(checksum(source, to, &answer[54..]), 0);
        }
    }
}
