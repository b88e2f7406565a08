//! Requests to Consul: which server is asked, with which token and scope, at which pace.
//!
//! It never interprets a body, and asks again only to ask another server; those who ask do the rest.

use std::{sync::Mutex, time::Duration};

use arc_swap::ArcSwap;
use bytes::Bytes;
use reqwest::Method;
use tokio::{sync::watch, time::Instant};

mod exchange;
mod files;

pub(crate) use super::answer::Answer;
use super::{
    config::Config,
    error::{RequestError, SetupError},
    leader::Leader,
    line::Line,
    metrics::Metrics,
    pace::Bucket,
    servers::Servers,
    version::AgentInfo,
};

/// Asks one cluster. All who share it share its pace of requests.
#[derive(Debug)]
pub(crate) struct Client {
    config: Config,
    servers: ArcSwap<Servers>,
    reload: Mutex<watch::Receiver<()>>,
    /// For the watches of services, of which there may be thousands.
    pace: Line,
    /// For all else, which shall not queue behind those.
    pace_of_few: Line,
    /// Told when Consul answers again, to end the waiting of everybody who failed meanwhile.
    pub(crate) recovered: watch::Sender<()>,
    pub(super) leader: Leader,
}

/// How a read wants to be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Consistency {
    /// By any server, also without a leader.
    Stale,
    /// By the leader.
    Leader,
    /// By the leader, once a majority has confirmed it and it has applied all that was decided before: a new one may
    /// not have, and an old one may have been replaced.
    Consistent,
}

/// One question, whoever it is put to.
struct Question<'q> {
    method: Method,
    path: &'q [&'q str],
    query: &'q [(&'q str, &'q str)],
    /// The index to pass and the time to wait for it. Another server has others, and is asked without.
    hold: Option<(u64, Duration)>,
    body: Option<Bytes>,
    /// For each server to begin to answer, the wait not counted.
    limit: Duration,
}

impl Question<'_> {
    fn is_watch_of_a_service(&self) -> bool {
        self.path.starts_with(&["health", "service"]) && self.query.contains(&("stale", ""))
    }
}

/// For answers that Consul does not hold back on purpose.
pub(crate) const AT_ONCE: Duration = Duration::from_secs(10);
/// Requests per second of all watches together.
const PACE: Duration = Duration::from_millis(10);
/// So many pass at once: a full load, or a change of every service.
const PACE_BURST: u32 = 4096;

impl Client {
    /// A client for the Consul of `config`.
    ///
    /// # Errors
    /// When the files of TLS cannot be used.
    pub(crate) fn new(config: Config) -> Result<Self, SetupError> {
        let servers = Servers::new(&config, 0)?;
        config.report(None);
        Ok(Self {
            servers: ArcSwap::from_pointee(servers),
            reload: Mutex::new(config.reload.clone()),
            config,
            pace: Line::new(Bucket::new(PACE_BURST, PACE)),
            pace_of_few: Line::new(Bucket::new(PACE_BURST, PACE)),
            recovered: watch::Sender::new(()),
            leader: Leader::default(),
        })
    }

    pub(crate) fn config(&self) -> &Config {
        &self.config
    }

    pub(super) fn metrics(&self) -> &Metrics {
        &self.config.metrics
    }

    /// Whether one connection carries many requests, so that blocking queries cost no connections, whichever address is
    /// asked. `None` before the first answer.
    pub(crate) fn multiplexes(&self) -> Option<bool> {
        self.servers.load().multiplex()
    }

    /// Who is asked first, by its place among the addresses.
    pub(crate) fn asked(&self) -> usize {
        self.servers.load().current().0
    }

    /// Whether the one that is asked is the agent of this host: the only one there is, or one that is reached without
    /// leaving the host.
    pub(crate) fn asks_own_agent(&self) -> bool {
        let servers = self.servers.load();
        servers.all.len() == 1 || servers.current().1.address.is_of_this_host()
    }

    /// The part of `whole` that one server may take, so that within it another can be asked.
    pub(crate) fn share_of(&self, whole: Duration) -> Duration {
        let is_alone = self.config.addresses.len() == 1;
        if is_alone { whole } else { whole / 2 }
    }

    /// What the agent that is asked says of itself.
    ///
    /// # Errors
    /// When it does not say; the token needs `agent_prefix "" read`.
    pub(crate) async fn agent(&self) -> Result<AgentInfo, RequestError> {
        let servers = self.servers.load_full();
        let (at, server) = servers.current();
        let info = self.info(server).await;
        if let Err(RequestError::Unreachable { .. }) = info {
            servers.leave(at, servers.after(at));
        }
        info
    }

    /// Reads `path` at once, or, given an index, as soon as it is passed or the wait is over.
    pub(crate) async fn read(
        &self,
        path: &[&str],
        index: Option<u64>,
        consistency: Consistency,
    ) -> Result<Answer, RequestError> {
        let query: &[_] = match consistency {
            Consistency::Stale => &[("stale", "")],
            // An agent with `discovery_max_stale` would else ask anybody.
            Consistency::Leader => &[("leader", "")],
            Consistency::Consistent => &[("consistent", "")],
        };
        self.watch(path, query, index).await
    }

    /// Like [`Client::read`] from the leader, for all keys below `prefix`.
    pub(crate) async fn read_keys(
        &self,
        prefix: &str,
        index: Option<u64>,
    ) -> Result<Answer, RequestError> {
        self.watch(&key_path(prefix), &[("recurse", "")], index)
            .await
    }

    /// Stores `value` under `key` if there is no such key yet. For `limit` see [`Client::request`].
    pub(crate) async fn create_key(
        &self,
        key: &str,
        value: Vec<u8>,
        limit: Duration,
    ) -> Result<Answer, RequestError> {
        let (path, query) = (key_path(key), [("cas", "0")]);
        self.request(Method::PUT, &path, &query, Some(value), limit)
            .await
    }

    async fn watch(
        &self,
        path: &[&str],
        query: &[(&str, &str)],
        index: Option<u64>,
    ) -> Result<Answer, RequestError> {
        self.ask(Question {
            method: Method::GET,
            path,
            query,
            hold: index.map(|index| (index, self.config.wait)),
            body: None,
            limit: AT_ONCE,
        })
        .await
    }

    /// Any request below `/v1`: the segments of `path` and the values of `query` are encoded here. An answer of
    /// any status is an answer. Each server has `limit` to begin to answer.
    ///
    /// Where a server cannot answer, the next one gets the same request at once. Everybody leaves one that cannot be
    /// reached, and one that refuses as soon as another does better: without a leader all refuse alike. Only what begins
    /// with `agent` concerns the agent that is asked: it fails, and the next request goes to the next server.
    ///
    /// # Errors
    /// When there is no whole answer in time.
    pub(crate) async fn request(
        &self,
        method: Method,
        path: &[&str],
        query: &[(&str, &str)],
        body: Option<Vec<u8>>,
        limit: Duration,
    ) -> Result<Answer, RequestError> {
        self.ask(Question {
            method,
            path,
            query,
            hold: None,
            body: body.map(Bytes::from),
            limit,
        })
        .await
    }

    async fn ask(&self, mut question: Question<'_>) -> Result<Answer, RequestError> {
        self.reload_if_told();
        let mut servers = self.servers.load_full();
        let is_of_agent = question.path.first() == Some(&"agent");
        let mut at = servers.current().0;
        let (mut turn, mut refusal, mut is_repeated) = (0, None, false);
        let mut busy = None;
        loop {
            let asked = Instant::now();
            let answer = tokio::select! {
                answer = self.put_to(&servers.all[at], &question) => answer,
                // It failed somebody else, and who waits there would notice much later.
                () = servers.left(at), if question.hold.is_some() => {
                    question.hold = None;
                    at = servers.current().0;
                    continue;
                }
                // The token may be another one, with other rights.
                () = self.told_to_reload(), if question.hold.is_some() && self.has_token_file() => {
                    self.reload_if_told();
                    question.hold = None;
                    servers = self.servers.load_full();
                    at = servers.current().0;
                    continue;
                }
            };
            let is_unreachable = matches!(answer, Err(RequestError::Unreachable { .. }));
            let is_busy = match &answer {
                Ok(answer) => answer.is_for_another(),
                Err(error) => error.is_for_another(),
            };
            if !is_unreachable && !is_busy {
                if let Some(busy) = busy {
                    servers.leave(busy, at);
                }
                servers.answered_by(at);
                return answer;
            }
            // Some versions of Consul now and then end a blocking query with an error instead of an answer.
            if let Some((_, wait)) = question.hold
                && is_busy
                && asked.elapsed() >= wait * 9 / 10
                && !std::mem::replace(&mut is_repeated, true)
            {
                continue;
            }
            turn += 1;
            if servers.all.len() == 1 || is_of_agent && is_busy {
                return answer;
            }
            let next = servers.after(at);
            match is_busy {
                true => _ = busy.get_or_insert(at),
                false => servers.leave(at, next),
            }
            at = next;
            if is_of_agent {
                return answer;
            }
            // One that speaks says more than one that is away.
            let told = match refusal.take() {
                Some(refusal) if is_unreachable => refusal,
                _ => answer,
            };
            if turn >= servers.all.len() {
                return told;
            }
            let is_away = matches!(told, Err(RequestError::Unreachable { .. }));
            refusal = (!is_away).then_some(told);
            question.hold = None;
            self.metrics().failovers.inc();
        }
    }
}

/// The slashes of a key are part of the path.
fn key_path(key: &str) -> Vec<&str> {
    std::iter::once("kv").chain(key.split('/')).collect()
}

#[cfg(test)]
mod tests;
