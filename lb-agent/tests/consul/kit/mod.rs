//! The stages that talk with Consul, each started by itself, and what they are asked.

mod source;
mod vip;

use std::time::Duration;

use lb_agent::discover::consul::Config;

pub(crate) use self::{
    source::{Source, ids, knowing},
    vip::{LETTERS, Vip},
};
use crate::support::BOUND;

/// How soon a change in Consul must be seen: before a blocking query ends by itself, after 55 s, or everybody has a turn,
/// after 60 s. So what is seen within it was told by Consul, however busy the machine is.
pub(crate) const SOON: Duration = BOUND;

pub(crate) fn config(address: &str) -> Config {
    Config {
        hold: Duration::from_secs(3),
        ..Config::new(address.parse().unwrap())
    }
}
