//! The door of the fuzz targets to who has which VIP.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    path::PathBuf,
    time::Duration,
};

use super::{
    Config, Names, Pool, Wanted,
    allocator::{Allocator, Records},
    record::{Known, Record},
    share,
    stage::{self, VERSION},
};
use crate::{catalog::Problem, snapshot::ServiceName, state_file};

/// Before the address in the name of a key.
pub(crate) const PREFIX: &str = super::record::PREFIX;

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
    let mut allocator = stage::allocator(&config(pool), BTreeMap::new(), BTreeMap::new(), NOW);
    allocator.learn(records.clone(), 7, Duration::ZERO);
    outcome(allocator, &records, others)
}

/// The same after a start, by the files that an earlier agent left; a damaged one is set aside.
pub(crate) fn kept(
    pool: Pool,
    records: &[u8],
    known: &[u8],
    others: impl IntoIterator<Item = ServiceName>,
) -> Outcome {
    let version = VERSION..=VERSION;
    let records: BTreeMap<Ipv4Addr, Record> =
        state_file::read(records, &version).unwrap_or_default();
    let known: BTreeMap<Ipv4Addr, Known> = state_file::read(known, &version).unwrap_or_default();
    let allocator = stage::allocator(&config(pool), records, known, NOW);
    let records = allocator.records().clone();
    outcome(allocator, &records, others)
}

fn outcome(
    mut allocator: Allocator,
    records: &Records,
    others: impl IntoIterator<Item = ServiceName>,
) -> Outcome {
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
    let round = allocator.allocate(&Wanted::all(names.clone()), NOW);
    Outcome {
        names,
        recorded,
        by_name: round.by_name,
        claims: round.claims,
        problems: round.problems,
    }
}

fn config(pool: Pool) -> Config {
    Config {
        pool,
        datacenter: "dc1".to_owned(),
        quarantine: Duration::from_secs(600),
        records: PathBuf::new(),
        consul: None,
    }
}

/// Since 1970.
const NOW: Duration = Duration::from_secs(1_000_000);
