//! Questions that others must answer: which resolver is asked, in what order, and what is remembered.
//!
//! Equal questions that come while one is under way wait for its answer: one name asked by a thousand
//! containers is one question, which also leaves a forger one chance and not a thousand (RFC 5452
//! section 5). State: the cache, and which resolver is asked first.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use hickory_proto::op::ResponseCode;
use quick_cache::{DefaultHashBuilder, OptionsBuilder, Weighter, sync::DefaultLifecycle};
use tokio::time::{Instant, timeout_at};
use tracing::{debug, info, warn};

use super::{
    cache::Stored,
    decide::Via,
    exchange::{Question, exchange},
    message::{Reply, Request},
};

/// Asks others, and remembers what they said.
pub(super) struct Forwarder {
    /// Whoever asks these keeps them to the end, whoever takes their place meanwhile.
    upstreams: ArcSwap<Group>,
    consul: Arc<Group>,
    cache: Cache,
}

impl Forwarder {
    pub(super) fn new(upstreams: Vec<SocketAddr>, consul: Option<SocketAddr>) -> Self {
        let consul = consul.into_iter().collect();
        Self {
            upstreams: ArcSwap::from_pointee(Group::new("upstream", upstreams, 1)),
            consul: Arc::new(Group::new("Consul", consul, 0)),
            cache: cache(),
        }
    }

    /// Asks these upstreams from now on. What others said is not remembered: they may know other names.
    pub(super) fn ask_others(&self, upstreams: Vec<SocketAddr>) {
        let number = self.upstreams.load().number + 1;
        let next = Group::new("upstream", upstreams, number);
        self.upstreams.store(Arc::new(next));
    }

    /// The answer of others to `request`. If nobody answers, it says so.
    pub(super) async fn ask(&self, request: &Request, via: Via) -> Reply {
        let group = match via {
            Via::Upstreams => self.upstreams.load_full(),
            Via::Consul => Arc::clone(&self.consul),
        };
        if group.servers.is_empty() {
            return request.reply(ResponseCode::ServFail);
        }
        let key = (group.number, Question::of(request));
        let stored = self.remember(&group, key).await;
        stored.reply(request, Instant::now())
    }

    async fn remember(&self, group: &Group, key: Key) -> Arc<Stored> {
        let asked = Instant::now();
        loop {
            match self.cache.get_value_or_guard_async(&key).await {
                Ok(stored) if stored.answers(asked, Instant::now()) => return stored,
                // Removed unless somebody else already put a newer one there.
                Ok(stale) => {
                    self.cache
                        .remove_if(&key, |stored| Arc::ptr_eq(stored, &stale));
                }
                // The guard is ours: the others wait until it is filled or dropped.
                Err(guard) => {
                    let stored = Arc::new(group.ask(&key.1).await);
                    // An entry that has no room is only lost to the next asker.
                    drop(guard.insert(Arc::clone(&stored)));
                    return stored;
                }
            }
        }
    }
}

/// Resolvers that give the same answers.
struct Group {
    what: &'static str,
    /// Tells their answers from those of others in the cache.
    number: u64,
    servers: Vec<SocketAddr>,
    preferred: Mutex<Preferred>,
    failing: AtomicBool,
}

/// Which of them is asked first: one that answered, so that a dead one costs its time-out now and then and not for
/// every name.
#[derive(Clone, Copy)]
struct Preferred {
    index: usize,
    /// When that one took the place of another, or when another was last tried in its stead.
    since: Instant,
}

impl Group {
    fn new(what: &'static str, servers: Vec<SocketAddr>, number: u64) -> Self {
        Self {
            what,
            number,
            servers,
            preferred: Mutex::new(Preferred {
                index: 0,
                since: Instant::now(),
            }),
            failing: AtomicBool::new(false),
        }
    }

    /// Asks one after the other until one answers, and the silent ones once more if none does.
    async fn ask(&self, question: &Question) -> Stored {
        let deadline = Instant::now() + BUDGET;
        let (first, preferred) = self.begin();
        let mut refusal = None;
        for turn in 0..2 * self.servers.len() {
            if turn == self.servers.len() && refusal.is_some() {
                break;
            }
            let index = (first + turn) % self.servers.len();
            let server = self.servers[index];
            let until = deadline.min(Instant::now() + ATTEMPT);
            match timeout_at(until, exchange(server, question)).await {
                Ok(Ok((message, bytes))) => {
                    let stored = Stored::new(message, bytes, Instant::now());
                    if matches!(
                        stored.code(),
                        ResponseCode::NoError | ResponseCode::NXDomain
                    ) {
                        self.answered(index, preferred);
                        return stored;
                    }
                    refusal.get_or_insert(stored);
                }
                Ok(Err(error)) => {
                    debug!(%server, error = &error as &dyn std::error::Error, "DNS server failed");
                }
                Err(_) => debug!(%server, "DNS server did not answer in time"),
            }
            if Instant::now() >= deadline {
                break;
            }
        }
        if refusal.is_none() && !self.failing.swap(true, Ordering::Relaxed) {
            warn!(servers = ?self.servers, "no {} DNS server answers; names outside this host fail", self.what);
        }
        refusal.unwrap_or_else(|| Stored::failure(Instant::now()))
    }

    /// Whom a question asks first, and who is preferred. The first server knows names that the others may not, so that it is
    /// not left for good: one question tries it again now and then.
    fn begin(&self) -> (usize, usize) {
        let mut preferred = self.preferred();
        let index = preferred.index;
        if index == 0 || preferred.since.elapsed() < RETURN_AFTER {
            return (index, index);
        }
        preferred.since = Instant::now();
        (0, index)
    }

    /// `index` answered a question that began when `before` was preferred.
    fn answered(&self, index: usize, before: usize) {
        let server = self.servers[index];
        if self.failing.swap(false, Ordering::Relaxed) {
            info!(%server, "{} DNS server answers again", self.what);
        }
        let mut preferred = self.preferred();
        // What began before another question changed it knows nothing newer.
        if index == before || preferred.index != before {
            return;
        }
        *preferred = Preferred {
            index,
            since: Instant::now(),
        };
        drop(preferred);
        info!(%server, "{} DNS server changed", self.what);
    }

    fn preferred(&self) -> MutexGuard<'_, Preferred> {
        self.preferred
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// The number of who is asked, and what.
type Key = (u64, Question);

type Cache = quick_cache::sync::Cache<Key, Arc<Stored>, Weigh>;

#[derive(Clone)]
struct Weigh;

impl Weighter<Key, Arc<Stored>> for Weigh {
    fn weight(&self, _: &Key, stored: &Arc<Stored>) -> u64 {
        stored.weight()
    }
}

fn cache() -> Cache {
    let options = OptionsBuilder::new()
        .estimated_items_capacity(ESTIMATED_ENTRIES)
        .weight_capacity(CACHE_BYTES)
        // Few, so that the largest answer there is has room in one.
        .shards(4)
        .build();
    match options {
        Ok(options) => Cache::with_options(
            options,
            Weigh,
            DefaultHashBuilder::default(),
            DefaultLifecycle::default(),
        ),
        Err(_) => Cache::with_weighter(ESTIMATED_ENTRIES, CACHE_BYTES, Weigh),
    }
}

/// How long one resolver may take before the next is asked.
const ATTEMPT: Duration = Duration::from_millis(1500);

/// How long all of them together may take: libc asks again after five seconds.
const BUDGET: Duration = Duration::from_millis(4500);

/// How long the first resolver is passed over after another one answered in its stead.
const RETURN_AFTER: Duration = Duration::from_secs(30);

const CACHE_BYTES: u64 = 8 << 20;
const ESTIMATED_ENTRIES: usize = 4096;

#[cfg(test)]
mod tests {
    use hickory_proto::{
        op::{Message, Query},
        rr::{Name, RData, Record, RecordType, rdata::TXT},
    };

    use super::*;

    #[test]
    fn the_cache_takes_any_single_answer_and_never_more_than_its_room() {
        let cache = cache();
        let mut message = Message::query();
        let text = RData::TXT(TXT::new(vec!["x".repeat(250); 4]));
        message.answers = vec![Record::from_rdata(Name::root(), 60, text); 60];
        let stored = Arc::new(Stored::new(message, usize::from(u16::MAX), Instant::now()));
        for index in 0..1000 {
            let name = Name::from_ascii(format!("n{index}.example.com.")).unwrap();
            let question = Question {
                query: Query::query(name, RecordType::TXT),
                edns: false,
                dnssec_ok: false,
                checking_disabled: false,
            };
            let key = (1, question);
            cache.insert(key.clone(), Arc::clone(&stored));
            assert!(cache.get(&key).is_some());
            assert!(cache.weight() <= CACHE_BYTES);
        }
        assert!(cache.len() > 10);
    }
}
