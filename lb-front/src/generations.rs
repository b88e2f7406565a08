//! A map of bounded size that forgets what has rested longest.
//!
//! What is new or asked for lies in the young generation. When that is full it becomes the old one, and what was still
//! in the old one is forgotten: no list to keep in order, and no search for what has to go.

use std::{collections::HashMap, hash::Hash, mem};

pub(super) struct Generations<K, V> {
    young: HashMap<K, V>,
    old: HashMap<K, V>,
    /// Entries of each.
    most: usize,
}

impl<K: Hash + Eq + Copy, V: Copy> Generations<K, V> {
    pub(super) fn new(most: usize) -> Self {
        Self {
            young: HashMap::new(),
            old: HashMap::new(),
            most,
        }
    }

    pub(super) fn find(&mut self, key: &K) -> Option<V> {
        if let Some(value) = self.young.get(key) {
            return Some(*value);
        }
        let value = self.old.remove(key)?;
        self.put(*key, value);
        Some(value)
    }

    pub(super) fn put(&mut self, key: K, value: V) {
        if self.young.len() >= self.most && !self.young.contains_key(&key) {
            self.old = mem::take(&mut self.young);
        }
        self.young.insert(key, value);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_asked_for_stays_and_the_rest_is_forgotten() {
        let mut map = Generations::new(2);
        map.put(0, 'a');
        for key in 1..100 {
            map.put(key, 'b');
            assert_eq!(map.find(&0), Some('a'));
            assert!(map.young.len() + map.old.len() <= 4);
        }
        assert_eq!(map.find(&1), None);
    }

    proptest! {
        #[test]
        fn the_last_ones_are_there_with_their_last_values(keys in proptest::collection::vec(0_u8..20, 0..200)) {
            let most = 4;
            let mut map = Generations::new(most);
            let mut last: VecDeque<(u8, usize)> = VecDeque::new();
            for (at, key) in keys.into_iter().enumerate() {
                map.put(key, at);
                last.retain(|(other, _)| *other != key);
                last.push_back((key, at));
                if last.len() > most {
                    last.pop_front();
                }
                prop_assert!(map.young.len() <= most && map.old.len() <= most);
            }
            for (key, at) in last {
                prop_assert_eq!(map.young.get(&key).or(map.old.get(&key)), Some(&at));
            }
        }
    }
}
