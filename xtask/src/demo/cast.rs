//! Who plays: the services and their instances.

use std::net::Ipv4Addr;

use super::source::Registration;

/// The service that is scaled, broken and killed.
pub(super) const HELLO: &str = "www_hello";

/// Another service, to tell it from.
pub(super) const WORLD: &str = "www_world_dev";

pub(super) static A: Registration = hello("a", 11);

pub(super) static B: Registration = hello("b", 12);

pub(super) static C: Registration = hello("c", 13);

pub(super) static W: Registration = Registration {
    service: WORLD,
    id: "w",
    address: Ipv4Addr::new(10, 77, 0, 21),
    greeting: "developers",
    tags: &["server_alias=hello.home.localhost"],
};

const fn hello(id: &'static str, last: u8) -> Registration {
    Registration {
        service: HELLO,
        id,
        address: Ipv4Addr::new(10, 77, 0, last),
        greeting: "world",
        tags: &[],
    }
}
