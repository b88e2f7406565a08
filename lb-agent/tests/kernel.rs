//! The kernel programs in a real kernel: real `connect()` in a cgroup and a network namespace of their own.

mod kernel {
    mod adoption;
    mod balance;
    mod counts;
    mod suspicion;
    mod world;
}
