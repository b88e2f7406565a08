//! The catalog: the whole of what discovery knows, one immutable value.
//!
//! A source sends `None` until it has had its first full answer: unknown is never empty.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::{IpAddr, SocketAddr},
    sync::{Arc, LazyLock},
    time::SystemTime,
};

use serde::{Deserialize, Serialize};

use crate::cow_map::CowMap;

/// Everything that one source, or all of them together, know.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Catalog {
    /// The instances of each service, by its name. A source keeps the allocation of what stays the same, so that
    /// whoever reads the next catalog need not look at it again.
    pub services: CowMap<Arc<str>, Arc<[Arc<Instance>]>>,
    /// What had to be left out, and why. The rest is in `services`.
    pub problems: Vec<Problem>,
}

/// One registered instance of a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Instance {
    /// Who it is.
    pub key: InstanceKey,
    /// Where it says that it listens.
    pub address: SocketAddr,
    /// How clients that stand elsewhere reach it, if they cannot reach `address`.
    pub reach: Arc<Reach>,
    /// Whether it runs on this host.
    pub local: bool,
    /// The full id of the Docker container that it runs in, where that is known.
    pub container: Option<String>,
    /// Free-form marks: options (`lb_balance=round-robin`), aliases, domain tags. Mostly those of its neighbours,
    /// so they are shared.
    pub tags: Arc<BTreeSet<String>>,
    /// Options written as key and value.
    pub meta: Arc<BTreeMap<String, String>>,
    /// Relative share, 1 to 65535; 0 takes no new flow.
    pub weight: u16,
    /// The verdict of the source's own checks.
    pub health: SourceHealth,
    /// Those checks, for people to read.
    pub checks: Vec<Check>,
    /// Orders registrations: where instances of a service disagree on an option, the highest wins. Consul's
    /// `CreateIndex`, or the position in the file.
    pub registered: u64,
}

/// The other addresses that an instance is reached by: of its container, and of its host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reach {
    /// Its own address on each Docker network of its host, by the network's name.
    pub networks: BTreeMap<String, SocketAddr>,
    /// Where its host publishes it.
    pub published: Option<SocketAddr>,
    /// Its host, where the source says that it has another address than the instance.
    #[serde(default)]
    pub host: Option<IpAddr>,
}

impl Reach {
    /// Behind a pointer; nothing, as nearly every instance has it, is the same one everywhere.
    pub fn shared(self) -> Arc<Self> {
        static NOTHING: LazyLock<Arc<Reach>> = LazyLock::new(Arc::default);
        if self == **NOTHING {
            NOTHING.clone()
        } else {
            Arc::new(self)
        }
    }
}

/// Identifies an instance for as long as it is registered. A service id alone is unique per Consul agent
/// only. Many stages keep one for each instance, so copies share their texts.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "for-tests", derive(schemars::JsonSchema))]
pub struct InstanceKey {
    /// The Consul node, or `file`.
    pub node: Arc<str>,
    /// The service id.
    pub id: Arc<str>,
}

impl InstanceKey {
    /// The instance that `node` knows as `id`.
    pub fn new(node: impl Into<Arc<str>>, id: impl Into<Arc<str>>) -> Self {
        Self {
            node: node.into(),
            id: id.into(),
        }
    }
}

impl fmt::Display for InstanceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.node, self.id)
    }
}

/// What the source's own checks say of an instance, worst last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "for-tests", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum SourceHealth {
    /// All node and service checks pass, or there are none.
    Passing,
    /// A check warns: no new flows.
    Warning,
    /// A check fails: no new flows.
    Critical,
    /// Taken out by an operator: drain.
    Maintenance,
}

/// One check of the source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "for-tests", derive(schemars::JsonSchema))]
pub struct Check {
    /// Its name.
    pub name: String,
    /// Its state.
    pub health: SourceHealth,
    /// What it printed, cut at [`CHECK_OUTPUT_LIMIT`] bytes.
    pub output: String,
}

/// Bytes of a check's output that are kept.
pub const CHECK_OUTPUT_LIMIT: usize = 4096;

/// Something that could not be used, and what to do about it. It never breaks the rest.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "for-tests", derive(schemars::JsonSchema))]
pub struct Problem {
    /// The thing concerned, such as `service www_hello` or `instance file/a`.
    pub subject: String,
    /// What is wrong with it and what to do, as one sentence.
    pub message: String,
}

impl Problem {
    /// A problem of `subject`.
    pub fn new(subject: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            subject: subject.into(),
            message: message.into(),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.subject, self.message)
    }
}

/// What one discovery source last said; each source sends these through a `watch` channel.
#[derive(Clone, Debug, Default)]
pub struct SourceState {
    /// The last good catalog; `None` until the first full answer.
    pub catalog: Option<Arc<Catalog>>,
    /// Whether that catalog was kept on disk by an earlier agent. What is not in it may be there all the same.
    pub kept: bool,
    /// When the last good answer came, which may have said nothing new: this moves without waking anybody.
    pub updated: Option<SystemTime>,
    /// Why the source cannot be read at the moment; the last good catalog goes on serving.
    pub error: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_reached_in_no_other_way_is_kept_once_and_the_rest_as_it_is() {
        let one = Reach::default().shared();
        assert_eq!(*one, Reach::default());
        assert!(Arc::ptr_eq(&one, &Reach::default().shared()));
        let published = Reach {
            published: Some(([10, 1, 1, 1], 8080).into()),
            ..Reach::default()
        };
        assert_eq!(*published.clone().shared(), published);
    }

    #[test]
    fn an_instance_and_a_problem_are_written_in_one_line() {
        assert_eq!(
            InstanceKey::new("host-1", "web-a").to_string(),
            "host-1/web-a"
        );
        let problem = Problem::new("service www", "is wrong; mend it");
        assert_eq!(problem.to_string(), "service www: is wrong; mend it");
    }
}
