//! Which silent connections keep hyper and its buffers. To make them anew costs the next request some 50 microseconds, most
//! of it page faults; to keep them costs memory for each of the many connections on which nothing happens. So a few keep
//! them.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

/// The free places of one worker. Atomic only because hyper wants streams that may change threads; these never do.
#[derive(Clone)]
pub(super) struct Warm(Arc<AtomicUsize>);

/// One of them, free again once it is dropped.
pub(super) struct Kept(Arc<AtomicUsize>);

impl Warm {
    pub(super) fn new(places: usize) -> Self {
        Self(Arc::new(AtomicUsize::new(places)))
    }

    /// A place, if there is one.
    pub(super) fn keep(&self) -> Option<Kept> {
        let one_less = |free: usize| free.checked_sub(1);
        let taken = self
            .0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less);
        taken.ok().map(|_| Kept(self.0.clone()))
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_as_many_places_as_were_made() {
        let warm = Warm::new(2);
        let (one, other) = (warm.keep(), warm.clone().keep());
        assert!(one.is_some() && other.is_some() && warm.keep().is_none());
        drop(one);
        let again = warm.keep();
        assert!(again.is_some() && warm.keep().is_none());
        assert!(Warm::new(0).keep().is_none());
    }
}
