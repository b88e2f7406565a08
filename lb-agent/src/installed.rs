//! What the maps hold, as far as this agent knows: read back from them at the start, then changed by each
//! step that the kernel has taken, never before.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::SocketAddrV4,
    time::{Duration, Instant},
};

use lb_common::{BackendId, Balance, ServiceKey};

/// How long an index rests before it is given out again. No program run lasts this long, so none that still
/// reads an old table can meet a stranger behind the index.
const REST: Duration = Duration::from_secs(2);

/// What the maps hold.
#[derive(Clone, Debug, Default)]
pub struct Installed {
    /// Virtual endpoints.
    pub services: BTreeMap<ServiceKey, InstalledService>,
    /// Backends that may be named by a table or a flow.
    pub backends: BTreeMap<SocketAddrV4, InstalledBackend>,
    /// Table indexes not in use.
    pub free_tables: FreeList,
    /// Backend indexes not in use.
    pub free_backends: FreeList,
    /// The last generation of each backend index that was ever used.
    pub generations: BTreeMap<u32, u32>,
}

/// A virtual endpoint in the maps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InstalledService {
    /// Index in `TABLES`, `CURSORS` and `COUNTERS`.
    pub table: u32,
    /// The live half.
    pub half: u32,
    /// Generation of the live half.
    pub generation: u32,
    /// How a backend is chosen.
    pub balance: Balance,
    /// Backend indexes in use by the live half.
    pub slots: Vec<u32>,
}

/// A backend in the maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InstalledBackend {
    /// Its id.
    pub id: BackendId,
    /// Its weight.
    pub weight: u16,
}

impl Installed {
    /// Empty maps for so many services and backends. Index 0 is never given out.
    pub fn empty(services: u32, backends: u32) -> Self {
        Self {
            free_tables: (1..services).collect(),
            free_backends: (1..backends).collect(),
            ..Self::default()
        }
    }

    /// Backend indexes that a live table names.
    pub fn referenced(&self) -> BTreeSet<u32> {
        self.services
            .values()
            .flat_map(|service| service.slots.iter().copied())
            .collect()
    }
}

/// Indexes that are not in use; the one that has rested longest is given out first.
#[derive(Clone, Debug, Default)]
pub struct FreeList {
    rested: VecDeque<u32>,
    resting: VecDeque<(Instant, u32)>,
}

impl FromIterator<u32> for FreeList {
    fn from_iter<T: IntoIterator<Item = u32>>(indexes: T) -> Self {
        Self {
            rested: indexes.into_iter().collect(),
            resting: VecDeque::new(),
        }
    }
}

impl FreeList {
    /// Takes an index that has rested, if there is one at `now`.
    pub fn take(&mut self, now: Instant) -> Option<u32> {
        while let Some(&(since, index)) = self.resting.front() {
            if now.saturating_duration_since(since) < REST {
                break;
            }
            self.resting.pop_front();
            self.rested.push_back(index);
        }
        self.rested.pop_front()
    }

    /// Gives an index back that was taken but not used.
    pub fn untake(&mut self, index: u32) {
        self.rested.push_front(index);
    }

    /// Takes `index` in particular, which is in use already.
    pub fn claim(&mut self, index: u32) {
        // Mostly the one at the front: it has just been taken in a plan.
        if self.rested.front() == Some(&index) {
            self.rested.pop_front();
        } else if self
            .resting
            .front()
            .is_some_and(|&(_, resting)| resting == index)
        {
            self.resting.pop_front();
        } else {
            self.rested.retain(|&free| free != index);
            self.resting.retain(|&(_, resting)| resting != index);
        }
    }

    /// Gives back an index that was in use until `now`.
    pub fn give_back(&mut self, index: u32, now: Instant) {
        self.resting.push_back((now, index));
    }

    /// How many are free, resting ones included.
    pub fn len(&self) -> usize {
        self.rested.len() + self.resting.len()
    }

    /// Whether none is free.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_rests_before_it_is_given_out_again_and_the_oldest_goes_first() {
        let start = Instant::now();
        let mut free: FreeList = (1..=2).collect();
        assert_eq!(free.take(start), Some(1));
        free.give_back(1, start);
        assert_eq!(free.take(start), Some(2));
        assert_eq!(free.take(start), None);
        assert_eq!(free.take(start + REST), Some(1));
    }

    #[test]
    fn a_claimed_index_is_not_given_out() {
        let mut free: FreeList = (1..=2).collect();
        free.claim(1);
        assert_eq!(free.take(Instant::now()), Some(2));
        assert!(free.is_empty());
    }
}
