//! What people are shown of a container.

use super::*;
use crate::registrar::{Chosen, Life, Registered, Seen};

/// `box` on the networks `back` and `bridge`, published on the host's port 8080.
fn shown(words: &[(&str, &str)], settings: &Settings) -> Seen {
    let mut container = container(&[80], words);
    let back = Endpoint {
        ipv4: Some([172, 19, 0, 5].into()),
        ipv6: None,
    };
    container.networks.insert("back".to_owned(), back);
    container.published = vec![Published {
        port: tcp(80),
        host_address: [0, 0, 0, 0].into(),
        host_port: 8080,
    }];
    let reading = registrations(&container, &Containers::new(), settings);
    Seen::new(&container, Life::Running, &reading)
}

fn only(seen: &Seen) -> &Registered {
    let [only] = &seen.registers[..] else {
        panic!("{seen:?}")
    };
    only
}

#[test]
fn the_network_that_was_chosen_is_told_with_those_that_were_not() {
    let seen = shown(&[("SERVICE_NETWORK", "bridge")], &internal());
    assert_eq!((seen.name.as_str(), seen.id.as_str()), ("box", &ID[..12]));
    let one = only(&seen);
    assert_eq!(one.by, Chosen::Network);
    assert_eq!(one.network.as_deref(), Some("bridge"));
    assert_eq!(one.address, "172.17.0.5:80".parse().unwrap());
    assert_eq!(one.port, "80/tcp");
    let networks: Vec<_> = one.networks.keys().collect();
    assert_eq!(networks, ["back", "bridge"]);
    assert_eq!(one.published, Some("192.0.2.1:8080".parse().unwrap()));
    assert_eq!(one.to_string(), "its own on the network bridge");
}

#[test]
fn an_address_of_the_host_and_one_that_is_said_are_of_no_network() {
    let seen = shown(&[], &published());
    assert_eq!(
        (only(&seen).by, &only(&seen).network),
        (Chosen::Published, &None)
    );
    let seen = shown(&[("SERVICE_IP", "203.0.113.7")], &published());
    assert_eq!(only(&seen).address, "203.0.113.7:8080".parse().unwrap());
    assert_eq!(
        (only(&seen).by, &only(&seen).network),
        (Chosen::Said, &None)
    );
}

#[test]
fn what_has_no_effect_and_what_cannot_be_registered_are_told_with_the_reason() {
    let words = [("SERVICE_WEIGHT", "no"), ("SERVICE_NETWORK", "back")];
    let seen = shown(&words, &internal());
    only(&seen);
    let all = seen.refused.join("\n");
    assert!(all.contains("SERVICE_WEIGHT=`no` has no effect"), "{all}");
    let seen = shown(&[], &internal());
    assert!(seen.registers.is_empty(), "{seen:?}");
    let all = seen.refused.join("\n");
    assert!(
        all.contains("it is on several networks (back, bridge)"),
        "{all}"
    );
    let seen = shown(&[("SERVICE_IGNORE", "1")], &internal());
    assert_eq!(seen.left_out, ["port 80/tcp: SERVICE_IGNORE is set"]);
    assert!(seen.refused.is_empty(), "{seen:?}");
}
