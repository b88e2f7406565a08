//! In preparation.

use std::{collections::BTreeMap, net::Ipv4Addr};

use crate::{catalog::Problem, snapshot::ServiceName};

/// The virtual addresses given out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Vips {
    /// By service; a name is missing while it has none.
    pub by_name: BTreeMap<ServiceName, Ipv4Addr>,
    /// Why some have none.
    pub problems: Vec<Problem>,
}
