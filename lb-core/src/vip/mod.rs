//! Virtual addresses: the pools, who has which address, and what is written down of that.
//!
//! Nothing here knows where records are kept, nor what time it is: both come in.

pub mod allocator;
pub mod order;
mod pool;
mod pool6;
pub mod record;

use std::{collections::BTreeMap, net::Ipv4Addr, sync::Arc};

pub use order::{Entry, How, Order};
pub use pool::{Pool, PoolError};
pub use pool6::{Pool6, Pool6Error, Pools, v4_of, v6_of};

use crate::{catalog::Problem, snapshot::ServiceName};

/// The names that want a VIP, each with the address that its registration asks for.
pub type Names = BTreeMap<ServiceName, Option<Ipv4Addr>>;

/// Those that are known of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// They.
    pub names: Arc<Names>,
    /// Whether every source has answered. Before that one that is not there may still come.
    pub answered: bool,
}

impl Wanted {
    /// These, and no others, by sources that have all answered.
    pub fn all(names: Names) -> Self {
        Self {
            names: Arc::new(names),
            answered: true,
        }
    }
}

/// The VIPs of all current names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Vips {
    /// By name. A name without one is in `problems`, or waits for a moment for its record.
    pub by_name: BTreeMap<ServiceName, Ipv4Addr>,
    /// What is wrong with VIPs.
    pub problems: Vec<Problem>,
}
