//! What all followers share: the client, and how many may ask at a time.

use std::{
    sync::Arc,
    sync::atomic::{AtomicUsize, Ordering},
};

use arc_swap::ArcSwap;
use tokio::sync::{Semaphore, mpsc, watch};

use super::Event;
use crate::discover::consul::{client::Client, parse::Standpoint};

/// What all followers share.
pub(in super::super) struct Shared {
    pub(in super::super) client: Client,
    pub(in super::super) events: mpsc::Sender<Event>,
    pub(super) standpoint: ArcSwap<Standpoint>,
    /// One permit for each blocking query on a service.
    pub(in super::super) watches: Arc<Semaphore>,
    max_watches: AtomicUsize,
    /// Permits that their holders must not give back.
    too_many_watches: AtomicUsize,
    /// One for each other read of a service.
    pub(super) reads: Semaphore,
    /// How many of these there are beyond [`READS`].
    more_reads: AtomicUsize,
    /// How many services are left without a blocking query.
    pub(in super::super) polled: watch::Sender<usize>,
}

/// Reads of services at a time that Consul does not hold back, each on a connection of its own, or sharing one.
const READS: usize = 8;
const READS_MULTIPLEXED: usize = 32;
/// No limit for all that Consul can hold.
const WATCHES_MULTIPLEXED: usize = 1_000_000;

impl Shared {
    pub(in super::super) fn new(client: Client, events: mpsc::Sender<Event>) -> Self {
        let config = client.config();
        let max_watches = config.max_watches;
        let standpoint = Standpoint {
            node: None,
            host: config.host.clone(),
            foreign: false,
            warning: config.warning,
        };
        Self {
            events,
            standpoint: ArcSwap::from_pointee(standpoint),
            watches: Arc::new(Semaphore::new(max_watches)),
            max_watches: AtomicUsize::new(max_watches),
            too_many_watches: AtomicUsize::new(0),
            reads: Semaphore::new(READS),
            more_reads: AtomicUsize::new(0),
            polled: watch::Sender::new(0),
            client,
        }
    }

    pub(in super::super) fn max_watches(&self) -> usize {
        self.max_watches.load(Ordering::Relaxed)
    }

    /// Where one connection carries many requests, blocking queries cost none. A failover may lead to where they do.
    pub(super) fn fit(&self) {
        let wanted = match self.client.multiplexes() {
            Some(true) => WATCHES_MULTIPLEXED,
            Some(false) => self.client.config().max_watches,
            None => return,
        };
        self.resize(wanted);
    }

    fn resize(&self, wanted: usize) {
        let before = self.max_watches.swap(wanted, Ordering::Relaxed);
        if wanted > before {
            // Those that are owed are kept by their holders.
            let owed = self.too_many_watches.swap(0, Ordering::Relaxed);
            self.watches
                .add_permits((wanted - before).saturating_sub(owed));
            let more = READS_MULTIPLEXED - READS;
            let before = self.more_reads.swap(more, Ordering::Relaxed);
            self.reads.add_permits(more - before);
        } else if wanted < before {
            let fewer = before - wanted;
            let owed = fewer - self.watches.forget_permits(fewer);
            self.too_many_watches.fetch_add(owed, Ordering::Relaxed);
            let more = self.more_reads.load(Ordering::Relaxed);
            let fewer = self.reads.forget_permits(more);
            self.more_reads.store(more - fewer, Ordering::Relaxed);
        }
    }

    /// Whether a holder of a permit must end its watch without giving the permit back.
    pub(super) fn takes_one_back(&self) -> bool {
        let one_less = |owed: usize| owed.checked_sub(1);
        self.too_many_watches
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less)
            .is_ok()
    }

    /// Learns which node the Consul agent is: its instances are local, unless another datacenter is asked about.
    pub(super) async fn identify(&self) -> Option<Result<(), String>> {
        if !self.client.asks_own_agent() {
            // Its instances are not local; what our own agent said stays true.
            return Some(Ok(()));
        }
        let agent = match self.client.agent().await {
            Ok(agent) => agent,
            Err(error) if error.is_forbidden() => {
                return Some(Err(
                    "the token may not read the Consul agent's name, so instances count as local only if \
                     this host's registrar registered them; give it agent_prefix \"\" read"
                        .to_owned(),
                ));
            }
            // Whatever it is, the list of services shows it, too.
            Err(_) => return None,
        };
        let config = self.client.config();
        // The names of nodes and hosts are unique within a datacenter only.
        let is_foreign = |asked: &String| !asked.eq_ignore_ascii_case(&agent.datacenter);
        let is_own = !config.datacenter.as_ref().is_some_and(is_foreign);
        self.standpoint.store(Arc::new(Standpoint {
            node: Some(agent.node).filter(|_| is_own),
            host: config.host.clone().filter(|_| is_own),
            foreign: !is_own,
            warning: config.warning,
        }));
        Some(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::discover::consul::Config;

    #[tokio::test]
    async fn watches_end_when_a_failover_makes_connections_few_again() {
        let config = Config::new("127.0.0.1:8500".parse().unwrap());
        let few = config.max_watches;
        let client = Client::new(config).unwrap();
        let shared = Shared::new(client, mpsc::channel(1).0);
        shared.resize(WATCHES_MULTIPLEXED);
        let held = |count| -> Vec<_> {
            let permit = |_| shared.watches.clone().try_acquire_owned().unwrap();
            (0..count).map(permit).collect()
        };
        let mut watches = held(few + 3);
        shared.fit();
        assert_eq!(shared.max_watches(), few);
        while shared.takes_one_back() {
            watches.pop().unwrap().forget();
        }
        assert_eq!(watches.len(), few);
        assert_eq!(shared.watches.available_permits(), 0);
        drop(watches);
        assert_eq!(shared.watches.available_permits(), few);
        assert_eq!(shared.reads.available_permits(), READS);
        // Back again before all are given back: none is lost.
        shared.resize(WATCHES_MULTIPLEXED);
        let watches = held(few + 3);
        shared.fit();
        shared.resize(WATCHES_MULTIPLEXED);
        drop(watches);
        assert_eq!(shared.watches.available_permits(), WATCHES_MULTIPLEXED);
        assert_eq!(shared.reads.available_permits(), READS_MULTIPLEXED);
    }
}
