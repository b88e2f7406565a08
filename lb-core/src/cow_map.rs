//! An ordered map whose copies share what is the same, and that finds what differs between two of them without looking
//! at what they share.
//!
//! The entries lie in order in chunks of at most 128, each with an allocation of its own. A copy takes a reference
//! to every chunk; a change then copies one chunk. With `n` entries of which `d` differ, a copy costs `n / 128`, a
//! look-up `log n`, and [`CowMap::differences`] `n / 128 + d * 128`.

use std::{
    borrow::Borrow,
    cmp::Ordering,
    fmt,
    ops::{Bound, Index},
    sync::Arc,
};

use serde::{Serialize, Serializer};

/// The map. A key that is inserted again keeps its first form, as in the standard library's.
#[derive(Clone)]
pub struct CowMap<K, V> {
    /// In the order of their keys; none is empty.
    chunks: Vec<Chunk<K, V>>,
    /// Entries.
    len: usize,
}

type Chunk<K, V> = Arc<Vec<(K, V)>>;

/// A key, its value before and its value after.
pub type Difference<'m, K, V> = (&'m K, Option<&'m V>, Option<&'m V>);

/// Entries of a chunk, at most. A larger one makes the copying of a map cheaper, and a change dearer.
const CHUNK: usize = 128;

impl<K, V> CowMap<K, V> {
    /// An empty map.
    pub const fn new() -> Self {
        Self {
            chunks: Vec::new(),
            len: 0,
        }
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The entries, in the order of their keys.
    pub fn iter(&self) -> Iter<'_, K, V> {
        Iter {
            chunks: &self.chunks,
            rest: &[],
        }
    }

    /// The keys, in order.
    pub fn keys(&self) -> impl Iterator<Item = &K> {
        self.iter().map(|(key, _)| key)
    }

    /// The values, in the order of their keys.
    pub fn values(&self) -> impl Iterator<Item = &V> {
        self.iter().map(|(_, value)| value)
    }
}

impl<K: Ord, V> CowMap<K, V> {
    /// The value of `key`.
    pub fn get<Q: Ord + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        Some(self.get_key_value(key)?.1)
    }

    /// The entry of `key`, which holds the key in the form in which it was inserted.
    pub fn get_key_value<Q: Ord + ?Sized>(&self, key: &Q) -> Option<(&K, &V)>
    where
        K: Borrow<Q>,
    {
        let chunk = self.chunks.get(self.chunk_of(key))?;
        let (key, value) = &chunk[place(chunk, key).ok()?];
        Some((key, value))
    }

    /// Whether there is an entry of `key`.
    pub fn contains_key<Q: Ord + ?Sized>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        self.get(key).is_some()
    }

    /// The entries from `start` on, in order.
    pub fn tail<Q: Ord + ?Sized>(&self, start: Bound<&Q>) -> Iter<'_, K, V>
    where
        K: Borrow<Q>,
    {
        let (Bound::Included(key) | Bound::Excluded(key)) = start else {
            return self.iter();
        };
        let at = self.chunk_of(key);
        let Some(chunk) = self.chunks.get(at) else {
            return self.iter();
        };
        let first = match place(chunk, key) {
            Ok(of_key) => of_key + usize::from(matches!(start, Bound::Excluded(_))),
            Err(would_be) => would_be,
        };
        Iter {
            chunks: &self.chunks[at + 1..],
            rest: &chunk[first..],
        }
    }

    /// What differs between `self` and the one `after`, as `same` sees their values, in the order of the keys. Chunks
    /// that both share are not looked at.
    pub fn differences<'m>(
        &'m self,
        after: &'m Self,
        same: impl Fn(&V, &V) -> bool,
    ) -> impl Iterator<Item = Difference<'m, K, V>> {
        differences(self.iter(), after.iter(), Iter::skip_shared, same)
    }

    /// Where the chunk is that `key` belongs to; 0 if there is none.
    fn chunk_of<Q: Ord + ?Sized>(&self, key: &Q) -> usize
    where
        K: Borrow<Q>,
    {
        let begins_before = |chunk: &Chunk<K, V>| chunk[0].0.borrow() <= key;
        self.chunks.partition_point(begins_before).saturating_sub(1)
    }
}

impl<K: Ord + Clone, V: Clone> CowMap<K, V> {
    /// Puts a value in. Returns the one that `key` had.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        let at = self.chunk_of(&key);
        let Some(chunk) = self.chunks.get_mut(at) else {
            self.chunks.push(Arc::new(vec![(key, value)]));
            self.len = 1;
            return None;
        };
        let place = place(chunk, &key);
        let entries = Arc::make_mut(chunk);
        match place {
            Ok(place) => Some(std::mem::replace(&mut entries[place].1, value)),
            Err(place) => {
                entries.insert(place, (key, value));
                self.len += 1;
                if entries.len() > CHUNK {
                    // What is inserted in order fills its chunks.
                    let last = at + 1 == self.chunks.len() && place + 1 == self.chunks[at].len();
                    self.split(at, if last { CHUNK } else { CHUNK / 2 });
                }
                None
            }
        }
    }

    /// Takes the value of `key` out.
    pub fn remove<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        let at = self.chunk_of(key);
        let chunk = self.chunks.get_mut(at)?;
        let place = place(chunk, key).ok()?;
        let entries = Arc::make_mut(chunk);
        let (_, value) = entries.remove(place);
        self.len -= 1;
        if entries.is_empty() {
            self.chunks.remove(at);
        } else {
            self.join(at);
            if at > 0 {
                self.join(at - 1);
            }
        }
        Some(value)
    }

    fn split(&mut self, at: usize, first: usize) {
        let rest = Arc::make_mut(&mut self.chunks[at]).split_off(first);
        self.chunks.insert(at + 1, Arc::new(rest));
    }

    /// Makes one chunk of this and the next if both are small: a map that shrinks keeps few.
    fn join(&mut self, at: usize) {
        let next = self.chunks.get(at + 1).map_or(CHUNK, |next| next.len());
        if self.chunks[at].len() + next <= CHUNK / 2 {
            let next = self.chunks.remove(at + 1);
            Arc::make_mut(&mut self.chunks[at]).extend_from_slice(&next);
        }
    }
}

impl<K: Ord + Clone, V: Clone> CowMap<K, V> {
    /// The value of `key`, to be changed.
    pub fn get_mut<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<&mut V>
    where
        K: Borrow<Q>,
    {
        let at = self.chunk_of(key);
        let chunk = self.chunks.get_mut(at)?;
        let place = place(chunk, key).ok()?;
        Some(&mut Arc::make_mut(chunk)[place].1)
    }

    /// The values, to be changed, in the order of their keys.
    pub fn values_mut(&mut self) -> impl Iterator<Item = &mut V> {
        let chunks = self.chunks.iter_mut();
        chunks.flat_map(|chunk| Arc::make_mut(chunk).iter_mut().map(|(_, value)| value))
    }
}

/// What differs between two ordered sequences of entries, as `same` sees their values. Before each look at both, `skip` may
/// pass over what they share.
pub(crate) fn differences<'m, K: Ord + 'm, V: 'm, I>(
    mut old: I,
    mut new: I,
    skip: impl Fn(&mut I, &mut I),
    same: impl Fn(&V, &V) -> bool,
) -> impl Iterator<Item = Difference<'m, K, V>>
where
    I: Iterator<Item = (&'m K, &'m V)> + Clone,
{
    std::iter::from_fn(move || {
        loop {
            skip(&mut old, &mut new);
            let order = match (old.clone().next(), new.clone().next()) {
                (None, None) => return None,
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some((old, _)), Some((new, _))) => old.cmp(new),
            };
            match order {
                Ordering::Less => {
                    let (key, value) = old.next()?;
                    return Some((key, Some(value), None));
                }
                Ordering::Greater => {
                    let (key, value) = new.next()?;
                    return Some((key, None, Some(value)));
                }
                Ordering::Equal => {
                    let ((_, old), (key, new)) = (old.next()?, new.next()?);
                    if !same(old, new) {
                        return Some((key, Some(old), Some(new)));
                    }
                }
            }
        }
    })
}

/// Where in a chunk `key` is, or would be.
fn place<K: Borrow<Q>, V, Q: Ord + ?Sized>(chunk: &[(K, V)], key: &Q) -> Result<usize, usize> {
    chunk.binary_search_by(|(it, _)| it.borrow().cmp(key))
}

/// The entries of a map, in order.
#[derive(Debug)]
pub struct Iter<'m, K, V> {
    /// Those that are not begun.
    chunks: &'m [Chunk<K, V>],
    /// What is left of the one before them.
    rest: &'m [(K, V)],
}

impl<'m, K, V> Iter<'m, K, V> {
    /// Passes over chunks that both have next and share.
    fn skip_shared(&mut self, other: &mut Self) {
        // What is left of chunks that are begun comes before all of them; to look once for each chunk is enough.
        if !self.rest.is_empty() {
            return;
        }
        let both = self.chunks.iter().zip(other.chunks);
        let shared = both.take_while(|(one, other)| Arc::ptr_eq(one, other));
        let shared = shared.count();
        self.chunks = &self.chunks[shared..];
        other.chunks = &other.chunks[shared..];
    }
}

/// Not derived, which would ask the same of keys and values.
impl<K, V> Clone for Iter<'_, K, V> {
    fn clone(&self) -> Self {
        Self { ..*self }
    }
}

impl<'m, K, V> Iterator for Iter<'m, K, V> {
    type Item = (&'m K, &'m V);

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            let (first, chunks) = self.chunks.split_first()?;
            (self.rest, self.chunks) = (first, chunks);
        }
        let ((key, value), rest) = self.rest.split_first()?;
        self.rest = rest;
        Some((key, value))
    }
}

impl<K, V> Default for CowMap<K, V> {
    fn default() -> Self {
        Self::new()
    }
}

impl<K: Ord, V: PartialEq> PartialEq for CowMap<K, V> {
    fn eq(&self, other: &Self) -> bool {
        self.len == other.len && self.differences(other, V::eq).next().is_none()
    }
}

impl<K: Ord, V: Eq> Eq for CowMap<K, V> {}

impl<K: fmt::Debug, V: fmt::Debug> fmt::Debug for CowMap<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self).finish()
    }
}

impl<K: Serialize, V: Serialize> Serialize for CowMap<K, V> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self)
    }
}

impl<K: Ord + Clone, V: Clone> Extend<(K, V)> for CowMap<K, V> {
    fn extend<I: IntoIterator<Item = (K, V)>>(&mut self, entries: I) {
        for (key, value) in entries {
            self.insert(key, value);
        }
    }
}

impl<K: Ord + Clone, V: Clone> FromIterator<(K, V)> for CowMap<K, V> {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(entries: I) -> Self {
        let mut map = Self::default();
        map.extend(entries);
        map
    }
}

impl<K: Ord + Clone, V: Clone, const N: usize> From<[(K, V); N]> for CowMap<K, V> {
    fn from(entries: [(K, V); N]) -> Self {
        entries.into_iter().collect()
    }
}

impl<'m, K, V> IntoIterator for &'m CowMap<K, V> {
    type Item = (&'m K, &'m V);
    type IntoIter = Iter<'m, K, V>;

    fn into_iter(self) -> Iter<'m, K, V> {
        self.iter()
    }
}

/// # Panics
///
/// When there is no such key.
impl<K: Ord + Borrow<Q>, V, Q: Ord + ?Sized> Index<&Q> for CowMap<K, V> {
    type Output = V;

    fn index(&self, key: &Q) -> &V {
        self.get(key).expect("no entry of this key")
    }
}

#[cfg(test)]
mod tests;
