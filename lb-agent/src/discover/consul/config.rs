//! How Consul is reached, and how careful its answers are taken.

use std::{fmt, path::PathBuf, time::Duration};

use tokio::sync::watch;
use tracing::warn;

use super::{
    address::Address,
    error::SetupError,
    metrics::Metrics,
    tls::{Tls, TlsError},
};
use crate::catalog::Problem;

/// How Consul is reached.
#[derive(Clone, Debug)]
pub struct Config {
    /// The agents or servers of one cluster; at least one. The first is asked until it fails, then the next.
    pub addresses: Vec<Address>,
    /// What protects the addresses with `https`.
    pub tls: Tls,
    /// What authorises us; `None` asks anonymously.
    pub token: Option<Token>,
    /// What lets us pass an HTTP proxy before Consul.
    pub basic_auth: Option<BasicAuth>,
    /// The datacenter asked about; `None` is the agent's own.
    pub datacenter: Option<String>,
    /// The namespace asked about; Consul Enterprise alone knows any.
    pub namespace: Option<String>,
    /// The admin partition asked about; Consul Enterprise 1.11 and later alone knows any.
    pub partition: Option<String>,
    /// How long Consul may hold a blocking query. Short enough that the connections of a killed agent,
    /// which count against Consul's limit until their queries end, are soon gone.
    pub wait: Duration,
    /// Answers from servers that lost their leader longer ago than this are asked for again.
    pub max_stale: Duration,
    /// Services followed by a blocking query each; the others are polled. Consul allows 200 connections for
    /// an address, which we share with everybody on the host.
    pub max_watches: usize,
    /// How long the last known instances of a service are kept when Consul's state went back in time and
    /// no longer holds any: the cluster was wiped or restored, and agents need a while to register again.
    pub hold: Duration,
    /// Whether an instance that warns takes new flows.
    pub warning: Warning,
    /// Who this host is to the registrar: what that registered is local. Unset, the Consul node tells.
    pub host: Option<String>,
    /// Where the last good catalog is kept for an agent that starts while Consul is away.
    pub saved: Option<PathBuf>,
    /// Changes when the files of certificates and keys must be read again.
    pub reload: watch::Receiver<()>,
    /// What is wrong with how Consul is reached, for people. Clones tell the same people.
    pub problems: watch::Sender<Vec<Problem>>,
    /// What is counted, by all clones together.
    pub metrics: Metrics,
    /// What Consul is asked for, to tell the problems of several clients apart.
    pub purpose: &'static str,
}

/// What becomes of an instance that has a warning check and no failing one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Warning {
    /// It takes no new flows.
    #[default]
    Exclude,
    /// It takes flows by `Weights.Warning`.
    Include,
}

impl Config {
    /// The default of `wait`.
    pub const WAIT: Duration = Duration::from_secs(55);
    /// The default of `max_stale`.
    pub const MAX_STALE: Duration = Duration::from_secs(30);
    /// The default of `max_watches`.
    pub const MAX_WATCHES: u16 = 64;

    /// The defaults for the Consul at `address`.
    pub fn new(address: Address) -> Self {
        Self {
            addresses: vec![address],
            tls: Tls::default(),
            token: None,
            basic_auth: None,
            datacenter: None,
            namespace: None,
            partition: None,
            wait: Self::WAIT,
            max_stale: Self::MAX_STALE,
            max_watches: Self::MAX_WATCHES.into(),
            hold: Duration::from_secs(60),
            reload: watch::Sender::default().subscribe(),
            problems: watch::Sender::default(),
            metrics: Metrics::default(),
            purpose: "the source",
            warning: Warning::default(),
            host: None,
            saved: None,
        }
    }

    /// Reads the files of TLS, to tell at the start what is wrong with them.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn check(&self) -> Result<(), TlsError> {
        self.tls.load_for(&self.addresses).map(drop)
    }

    /// Tells what is wrong with the way to Consul, and the log when that changes. What other clients told stays: each
    /// reads the files by itself.
    pub(super) fn report(&self, unread: Option<&SetupError>) {
        let ours = format!("sources.consul for {}", self.purpose);
        let mut problems = Vec::new();
        if self.tls.trust_anybody {
            problems.push(Problem::new(
                BLIND,
                "nobody looks at Consul's certificate, so anybody can pass for it and learn the token: name its \
                 authority with ca_file and remove tls_verify = false",
            ));
        }
        if let Some(error) = unread {
            let cause = std::error::Error::source(error).map(ToString::to_string);
            problems.push(Problem::new(
                &ours,
                format!(
                    "{error}: {}; the old certificates stay in use",
                    cause.unwrap_or_default()
                ),
            ));
        }
        self.problems.send_if_modified(|now| {
            for problem in problems.iter().filter(|it| !now.contains(it)) {
                warn!(%problem, "the way to Consul has a problem");
            }
            // All clients say the same of whom they trust.
            let others = now
                .iter()
                .filter(|it| ![BLIND, &*ours].contains(&&*it.subject));
            problems.extend(others.cloned());
            problems.sort();
            let changed = *now != problems;
            *now = std::mem::take(&mut problems);
            changed
        });
    }
}

/// The subject of what is wrong for all clients.
const BLIND: &str = "sources.consul";

/// A Consul ACL token. It is never shown.
#[derive(Clone)]
pub enum Token {
    /// The token itself.
    Value(String),
    /// A file that holds it, read at every request so that a new token needs no restart.
    File(PathBuf),
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Value(_) => f.write_str("Value(…)"),
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
        }
    }
}

/// A user and a password. The password is never shown.
#[derive(Clone)]
pub struct BasicAuth {
    /// The user.
    pub user: String,
    /// The password.
    pub password: Option<String>,
}

impl BasicAuth {
    /// Of `user` or `user:password`.
    pub fn from_pair(text: &str) -> Self {
        let (user, password) = match text.split_once(':') {
            Some((user, password)) => (user, Some(password.to_owned())),
            None => (text, None),
        };
        let user = user.to_owned();
        Self { user, password }
    }
}

impl fmt::Debug for BasicAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BasicAuth")
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_authorises_is_never_shown() {
        let config = Config {
            token: Some(Token::Value("s3cret".to_owned())),
            basic_auth: Some(BasicAuth {
                user: "u".to_owned(),
                password: Some("s3cret".to_owned()),
            }),
            ..Config::new("127.0.0.1:8500".parse().unwrap())
        };
        assert!(!format!("{config:?}").contains("s3cret"));
    }

    #[test]
    fn a_client_that_reads_the_files_says_nothing_of_what_another_could_not_read() {
        let one = Config::new("127.0.0.1:8500".parse().unwrap());
        let other = Config {
            purpose: "another",
            ..one.clone()
        };
        let told = one.problems.subscribe();
        let subjects = || -> Vec<_> { told.borrow().iter().map(|it| it.subject.clone()).collect() };
        let half = SetupError::Tls(TlsError::Half);
        one.report(Some(&half));
        other.report(None);
        assert_eq!(subjects(), ["sources.consul for the source"]);
        other.report(Some(&half));
        assert_eq!(subjects().len(), 2);
        one.report(None);
        assert_eq!(subjects(), ["sources.consul for another"]);
        other.report(None);
        assert_eq!(subjects(), [""; 0]);
    }
}
