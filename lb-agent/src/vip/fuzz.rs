//! The door of the fuzz targets to who has which VIP.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    time::Duration,
};

use super::{
    Names,
    allocator::{Allocator, Records},
    pool::Pool,
    share,
};
use crate::{catalog::Problem, snapshot::ServiceName};

/// Before the address in the name of a key.
pub(crate) const PREFIX: &str = share::PREFIX;

/// What comes of records.
pub(crate) struct Outcome {
    pub(crate) names: Names,
    /// Whom the addresses are recorded for; `None` if that cannot be read.
    pub(crate) recorded: BTreeMap<Ipv4Addr, Option<ServiceName>>,
    pub(crate) by_name: BTreeMap<ServiceName, Ipv4Addr>,
    /// Who waits for a record of its own.
    pub(crate) claims: BTreeMap<Ipv4Addr, ServiceName>,
    pub(crate) problems: Vec<Problem>,
}

/// Gives addresses of `pool` to `others` and to everybody whom the keys below [`PREFIX`] name.
pub(crate) fn allocate(
    pool: Pool,
    keys: &BTreeMap<String, Vec<u8>>,
    others: impl IntoIterator<Item = ServiceName>,
) -> Outcome {
    let records = share::records(keys);
    let recorded = records.iter().map(|(address, owner)| {
        let name = owner.as_ref().map(|it| it.name.clone());
        (*address, name)
    });
    let recorded: BTreeMap<_, _> = recorded.collect();
    let named: BTreeSet<ServiceName> = recorded.values().flatten().cloned().collect();
    let names: Names = named
        .into_iter()
        .chain(others)
        .map(|name| (name, None))
        .collect();
    let (own, left) = (Records::new(), BTreeMap::new());
    let quarantine = Duration::from_secs(600);
    let mut allocator = Allocator::new(pool, "dc1".to_owned(), quarantine, own, left);
    allocator.learn(records, 7, Duration::ZERO);
    let round = allocator.allocate(&names, Duration::from_secs(1_000_000));
    Outcome {
        names,
        recorded,
        by_name: round.by_name,
        claims: round.claims,
        problems: round.problems,
    }
}
