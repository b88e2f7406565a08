//! Who may hold how many connections of a listener. The unix socket is open to every user of the host where some may use it,
//! so whoever may not, and whoever merely may, must leave room for root and the agent's own user.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::guard::{Actor, Rank};

/// The places of one listener.
pub(super) struct Places {
    /// More wait, and behind these whoever comes, in the kernel's queue.
    seats: Arc<Semaphore>,
    /// Those of them that users of the list may have.
    of_listed: Arc<Semaphore>,
    /// Where somebody is told that there is no seat.
    doors: Arc<Semaphore>,
}

impl Default for Places {
    fn default() -> Self {
        let places = |n| Arc::new(Semaphore::new(n));
        Self {
            seats: places(SEATS),
            of_listed: places(SEATS - OWN),
            doors: places(DOORS),
        }
    }
}

/// A place, as long as it is kept.
#[derive(Debug)]
pub(super) enum Place {
    /// Where requests are answered.
    Seat {
        _seat: OwnedSemaphorePermit,
        _of_listed: Option<OwnedSemaphorePermit>,
    },
    /// Where one is refused.
    Door {
        /// Whether that is only because others of the list have all seats that it may have.
        crowded: bool,
        _door: OwnedSemaphorePermit,
    },
}

impl Place {
    /// Whether it would have a seat if others of the list had fewer.
    pub(super) fn is_crowded(&self) -> bool {
        matches!(self, Self::Door { crowded: true, .. })
    }
}

impl Places {
    /// A place for `actor`; `None` if it is not even told why it has none. Only those wait who may have every seat, so
    /// nobody else holds up who comes behind.
    pub(super) async fn find(&self, actor: &Actor) -> Option<Place> {
        let of_listed = match actor {
            Actor::Local { rank, .. } => match rank {
                Rank::Owner => None,
                Rank::Listed => Some(&self.of_listed),
                Rank::Stranger => return self.door(false),
            },
            Actor::Remote { .. } => None,
        };
        let seats = Arc::clone(&self.seats);
        let Some(of_listed) = of_listed else {
            let _seat = seats.acquire_owned().await.ok()?;
            let _of_listed = None;
            return Some(Place::Seat { _seat, _of_listed });
        };
        let of_listed = Arc::clone(of_listed).try_acquire_owned();
        match (of_listed, seats.try_acquire_owned()) {
            (Ok(of_listed), Ok(_seat)) => Some(Place::Seat {
                _seat,
                _of_listed: Some(of_listed),
            }),
            _ => self.door(true),
        }
    }

    fn door(&self, crowded: bool) -> Option<Place> {
        let _door = Arc::clone(&self.doors).try_acquire_owned().ok()?;
        Some(Place::Door { crowded, _door })
    }
}

/// Connections at a time.
const SEATS: usize = 64;
/// Those of them that are left for root, the agent's own user and over TCP.
const OWN: usize = 16;
/// Connections at a time that are told that they have no seat.
const DOORS: usize = 4;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_may_not_has_no_seat_and_who_merely_may_leaves_some_for_root() {
        let places = Places::default();
        let local = |uid, rank| Actor::Local { uid, rank };
        let (root, listed) = (local(0, Rank::Owner), local(1000, Rank::Listed));
        let stranger = local(1001, Rank::Stranger);
        let mut seats = Vec::new();
        let mut doors = Vec::new();
        for _ in 0..DOORS {
            let door = places.find(&stranger).await.unwrap();
            assert!(!door.is_crowded());
            doors.push(door);
        }
        assert!(places.find(&stranger).await.is_none());
        for _ in 0..SEATS - OWN {
            let seat = places.find(&listed).await.unwrap();
            assert!(matches!(seat, Place::Seat { .. }));
            seats.push(seat);
        }
        // The doors are taken by others.
        assert!(places.find(&listed).await.is_none());
        doors.pop();
        assert!(places.find(&listed).await.unwrap().is_crowded());
        for _ in 0..OWN {
            let seat = places.find(&root).await.unwrap();
            assert!(matches!(seat, Place::Seat { .. }));
            seats.push(seat);
        }
        let waits = timeout(Duration::from_secs(60), places.find(&root)).await;
        assert!(waits.is_err(), "there are more seats than there are");
        // Who merely may does not wait: root stands behind.
        seats.remove(0);
        let root = places.find(&root).await.unwrap();
        assert!(places.find(&listed).await.unwrap().is_crowded());
        drop(root);
        let seat = places.find(&listed).await.unwrap();
        assert!(matches!(seat, Place::Seat { .. }));
    }
}
