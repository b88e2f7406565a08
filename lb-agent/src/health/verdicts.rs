//! What our probes say of every target, as a value that is cheap to copy and to compare.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc};

use super::Target;
use crate::{
    options::CheckKind,
    snapshot::{Probe, changes},
};

/// What our probes say of every target that is probed.
///
/// The targets lie in many small maps, each with an allocation of its own: a copy of the whole, one of which then
/// changes, shares all but one of them.
#[derive(Clone, Debug, Default)]
pub struct Verdicts {
    /// Empty, or [`SHARDS`] of them.
    shards: Vec<Arc<Shard>>,
    /// Whether every target that the sources named at first has had its first verdict. Never taken back.
    pub settled: bool,
}

type Shard = BTreeMap<Target, Arc<Probe>>;

static EMPTY: Shard = Shard::new();

/// A hundred thousand targets are 200 in each.
const SHARDS: usize = 512;

impl Verdicts {
    /// No verdict on anybody.
    pub const NONE: Self = Self {
        shards: Vec::new(),
        settled: false,
    };

    /// The verdict on `address` asked in this way.
    pub fn of(&self, address: SocketAddr, check: &CheckKind) -> Option<&Probe> {
        if *check == CheckKind::Off {
            return None;
        }
        let shard = self.shards.get(place(address))?;
        shard.get(&(address, check.clone())).map(|probe| &**probe)
    }

    /// Notes a verdict.
    pub fn put(&mut self, target: Target, probe: Probe) {
        if self.shards.is_empty() {
            self.shards = vec![Arc::default(); SHARDS];
        }
        if let Some(shard) = self.shards.get_mut(place(target.0)) {
            Arc::make_mut(shard).insert(target, Arc::new(probe));
        }
    }

    /// Forgets a target.
    pub(super) fn remove(&mut self, target: &Target) {
        if let Some(shard) = self.shards.get_mut(place(target.0)) {
            Arc::make_mut(shard).remove(target);
        }
    }

    /// Every target with its verdict, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (&Target, &Probe)> {
        let all = self.shards.iter().flat_map(|shard| shard.iter());
        all.map(|(target, probe)| (target, &**probe))
    }

    /// The targets on which `before` said something else, or nothing, or this one no longer does.
    pub fn changed_since<'v>(&'v self, before: &'v Self) -> impl Iterator<Item = &'v Target> {
        let shard = |of: &'v Self, at: usize| of.shards.get(at);
        (0..SHARDS).flat_map(move |at| {
            let (old, new) = (shard(before, at), shard(self, at));
            let same = match (old, new) {
                (Some(old), Some(new)) => Arc::ptr_eq(old, new),
                (None, None) => true,
                _ => false,
            };
            let pair = (!same).then(|| {
                (
                    old.map_or(&EMPTY, |it| &**it),
                    new.map_or(&EMPTY, |it| &**it),
                )
            });
            let both = pair.into_iter();
            both.flat_map(|(old, new)| changes(old, new).map(|(target, ..)| target))
        })
    }
}

/// Two verdicts are equal when they say the same of the same targets.
impl PartialEq for Verdicts {
    fn eq(&self, other: &Self) -> bool {
        let says = |target: &Target, of: &Self| of.of(target.0, &target.1).cloned();
        self.settled == other.settled
            && self
                .changed_since(other)
                .all(|target| says(target, self) == says(target, other))
    }
}

impl Eq for Verdicts {}

/// In which shard an address lies: the high bits of a multiplication by the golden ratio (Knuth, volume 3, section
/// 6.4).
fn place(address: SocketAddr) -> usize {
    let bits = match address {
        SocketAddr::V4(address) => u64::from(u32::from(*address.ip())),
        SocketAddr::V6(address) => {
            let bits = u128::from(*address.ip());
            // The two halves, mixed: prefix and host part.
            u64::try_from((bits >> 64) ^ (bits & u128::from(u64::MAX))).unwrap_or(0)
        }
    };
    let hash = (bits ^ u64::from(address.port()) << 32).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    usize::try_from(hash >> 32).unwrap_or(0) % SHARDS
}
