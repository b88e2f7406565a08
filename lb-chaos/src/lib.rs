//! What must hold while things fail.
//!
//! A [`Cluster`] is a few hosts in network namespaces: three Consul servers, backends that they check, some of them in containers that
//! a registrar registers, hosts with the real agent and clients that ask all the time. A [`Fault`] is done to it and undone; what clients saw is then judged by [`rules`], against the
//! [`History`] of what happened. [`Schedule`] is a sequence of faults by a seed.
//!
//! Rules, history and schedule are pure. Nothing outside the namespaces and the cgroup of the cluster is touched.
//!
//! | file | room |
//! |---|---|
//! | `cluster/` | the cluster: `lan` (the switch), `consul`, `engine` (Docker and the registrar), `backends`, `host` (an agent and its clients) |
//! | `fault.rs`, `fault/wound.rs` | what is done, and what that leaves and how it is undone |
//! | `fault/limits.rs`, `fault/clock.rs` | what an agent may use of its host; the time of day as it sees it |
//! | `schedule.rs`, `run.rs` | which fault comes when; steps, one after the other |
//! | `soak.rs`, `slope.rs` | load and steady changes for a long time; whether a series of samples grows |
//! | `history.rs`, `rules.rs` | what happened, and when it must be heeded; what must hold |
//! | `event.rs`, `moment.rs` | what clients see; moments that all processes share |
//! | `client.rs`, `hostile.rs`, `backend.rs` | what the processes of the cluster do that are ours |

pub mod backend;
pub mod client;
mod cluster;
pub mod event;
pub mod fault;
pub mod history;
pub mod hostile;
pub mod moment;
pub mod rules;
pub mod run;
pub mod schedule;
pub mod slope;
pub mod soak;

pub use cluster::{Cluster, HOSTS, Programs};
pub use fault::Fault;
pub use history::History;
pub use schedule::Schedule;
