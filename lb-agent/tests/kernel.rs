//! The kernel programs in a real kernel: real `connect()` in a cgroup and a network namespace of their own.
#![expect(
    clippy::unwrap_used,
    reason = "an unmet expectation is the test's failure, in its helpers too"
)]

#[path = "support/crowd.rs"]
mod crowd;
#[path = "support/dig.rs"]
mod dig;
#[path = "support/ends.rs"]
mod ends;
#[path = "support/former.rs"]
mod former;

mod kernel {
    mod adoption;
    mod applications;
    mod balance;
    mod clients;
    mod counts;
    mod families;
    mod full;
    mod lookups;
    mod model;
    mod order;
    mod resolvers;
    mod sockets;
    mod suspicion;
    mod updates;
    mod upgrade;
    mod world;
}
