//! Who showed wrong tokens, and how long each next one takes: half a second, then twice as long each time.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::{sync::Semaphore, time::sleep};

/// The wrong tokens of late, by the address that they came from; `None` is the unix socket.
#[derive(Debug)]
pub(super) struct Guesses {
    all: Mutex<BTreeMap<Option<IpAddr>, Guessed>>,
    /// For those that wait: each has one of the listener's connections as long.
    waiting: Semaphore,
}

impl Default for Guesses {
    fn default() -> Self {
        Self {
            all: Mutex::default(),
            waiting: Semaphore::new(WAITING),
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Guessed {
    times: u32,
    last: Instant,
}

impl Guesses {
    /// Whether so many wait that no token is looked at: without a wait the answer would tell at no cost whether it is right.
    pub(super) fn is_crowded(&self) -> bool {
        self.waiting.available_permits() == 0
    }

    /// Notes one more, and waits as long as its answer has to; false if there is no place to wait in.
    pub(super) async fn wait(&self, client: Option<IpAddr>) -> bool {
        let Ok(_place) = self.waiting.try_acquire() else {
            return false;
        };
        sleep(self.note(client, Instant::now())).await;
        true
    }

    /// Notes one more, and says how long its answer has to wait.
    fn note(&self, client: Option<IpAddr>, now: Instant) -> Duration {
        let mut all = self.lock();
        all.retain(|_, it| now.saturating_duration_since(it.last) < MEMORY);
        if all.len() >= MOST && !all.contains_key(&client) {
            let oldest = all.iter().min_by_key(|(_, it)| it.last);
            if let Some(oldest) = oldest.map(|(client, _)| *client) {
                all.remove(&oldest);
            }
        }
        let guessed = all.entry(client).or_insert(Guessed {
            times: 0,
            last: now,
        });
        let delay = FIRST * (1 << guessed.times.min(DOUBLED));
        *guessed = Guessed {
            times: guessed.times.saturating_add(1),
            last: now,
        };
        delay
    }

    /// Who showed the right token is no guesser.
    pub(super) fn forget(&self, client: Option<IpAddr>) {
        self.lock().remove(&client);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Option<IpAddr>, Guessed>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Before the first wrong token is answered.
const FIRST: Duration = Duration::from_millis(500);
/// How often that doubles: to 8 seconds, which is below what a request may take.
const DOUBLED: u32 = 4;
/// How long a wrong token is remembered.
const MEMORY: Duration = Duration::from_secs(300);
/// Wrong tokens whose answers wait at a time, of the connections that a listener has.
const WAITING: usize = 16;
/// Addresses that are remembered.
const MOST: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn client(last: u8) -> Option<IpAddr> {
        Some(IpAddr::from([10, 0, 0, last]))
    }

    #[test]
    fn each_wrong_token_of_an_address_takes_longer_up_to_a_bound() {
        let (guesses, now) = (Guesses::default(), Instant::now());
        let waits: Vec<u128> = (0..7)
            .map(|_| guesses.note(client(1), now).as_millis())
            .collect();
        assert_eq!(waits, [500, 1000, 2000, 4000, 8000, 8000, 8000]);
        assert_eq!(guesses.note(client(2), now), FIRST);
        assert_eq!(guesses.note(client(1), now + MEMORY), FIRST);
        guesses.forget(client(1));
        assert_eq!(guesses.note(client(1), now + MEMORY), FIRST);
    }

    #[test]
    fn the_address_that_was_quiet_for_longest_is_forgotten_for_a_new_one() {
        let (guesses, now) = (Guesses::default(), Instant::now());
        for last in 0..64 {
            guesses.note(client(last), now + Duration::from_millis(last.into()));
        }
        let later = now + Duration::from_secs(1);
        guesses.note(client(100), later);
        assert_eq!(guesses.lock().len(), MOST);
        assert_eq!(guesses.note(client(1), later), FIRST * 2);
        assert_eq!(guesses.note(client(0), later), FIRST);
    }
}
