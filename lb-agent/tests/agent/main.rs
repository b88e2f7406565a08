//! The agent as its users meet it: the real binary in a namespace and cgroups of its own, asked only in the ways
//! that they have.
#![expect(clippy::unwrap_used, reason = "a failed step is a failed test")]

#[path = "../support/crowd.rs"]
mod crowd;
#[path = "../support/dig.rs"]
mod dig;
#[path = "../support/ends.rs"]
#[expect(dead_code, reason = "the tests of the programs use all of it")]
mod ends;
#[path = "../support/former.rs"]
#[expect(dead_code, reason = "the tests of the programs use all of it")]
mod former;
#[path = "../support/mod.rs"]
#[expect(dead_code, reason = "the tests of Consul use the rest")]
mod support;

mod allowed;
mod appearance;
mod bad_entries;
mod bad_start;
mod bad_surroundings;
mod bundle;
mod changes;
mod check_config;
mod choices;
mod collisions;
mod consul_tls;
mod doctor;
mod documents;
mod drains;
mod handover;
mod kills;
mod kit;
mod life;
mod limits;
mod local;
mod logs;
mod maintenance;
mod names;
mod orders;
mod otlp;
mod packets;
mod privileges;
mod prometheus;
mod published;
mod restarts;
mod seeing;
mod systemd;
mod uninstall;
