//! The options of a service, as its registrations write them in tags, meta or the file.
//!
//! Pure: registrations in, resolved options and problems out. A wrong option is reported and has no effect;
//! it never breaks the service, nor another option. Which options there are stands in [`table`].

pub mod access;
pub mod front;
mod registrations;
pub mod table;
mod value;

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use lb_front::rules::{ProxyProtocol, Rules};
use serde::Serialize;

pub use access::{Access, Client, Rule};
use front::FrontSetting;
pub use front::is_list;
pub use registrations::{Resolved, resolve};
pub use value::{LONGEST, dotted, is_dns_name, parse_duration, parse_size};

/// What a service's registrations ask for, resolved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Options {
    /// `lb_balance`: how a backend is chosen.
    pub balance: Balance,
    /// `lb_check`: how our own probe asks.
    pub check: CheckKind,
    /// `lb_port`: the ports its VIP answers on; empty means every port.
    pub ports: BTreeSet<u16>,
    /// `lb_drain`: how long established flows of a drained backend may go on.
    pub drain: Duration,
    /// `lb_expose`: whether the front routes to it; `None` leaves that to the configuration.
    pub expose: Option<bool>,
    /// `lb_local`: what it matters that an instance runs on this host.
    pub local: Local,
    /// `lb_affinity`: for how long after its last flow a client keeps its backend; zero means not at all. Whole
    /// seconds.
    pub affinity: Duration,
    /// `lb_allow` and `lb_deny`: which clients are let in.
    pub access: Access,
    /// `lb_proto`: what its instances speak.
    pub proto: Proto,
    /// Whether those with the tag `udp` speak UDP beside that: a DNS server answers at port 53 of both.
    pub udp_by_tag: bool,
    /// `lb_slow_start`: how long a backend that came late takes to get its whole share; zero means no time.
    pub slow_start: Duration,
    /// `lb_packet`: how packets reach its instances on other hosts.
    pub packet: Packet,
    /// What only the front acts on; `None` where nothing of that is stated.
    pub front: Option<Arc<Rules>>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            balance: Balance::LeastConn,
            check: CheckKind::Tcp,
            ports: BTreeSet::new(),
            drain: Duration::from_secs(30),
            expose: None,
            local: Local::Any,
            affinity: Duration::ZERO,
            access: Access::default(),
            proto: Proto::Tcp,
            udp_by_tag: false,
            slow_start: Duration::ZERO,
            packet: Packet::Nat,
            front: None,
        }
    }
}

impl Options {
    /// Whether its VIP answers TCP, and UDP.
    pub fn speaks(&self) -> (bool, bool) {
        let udp = self.proto == Proto::Udp;
        (!udp, udp || self.udp_by_tag)
    }

    /// The paths of its host names that it has on the front, by their beginning; `None` is all of them.
    pub fn path(&self) -> Option<&str> {
        self.front.as_ref()?.path.as_deref()
    }

    /// Whether an instance with these tags speaks UDP.
    pub fn is_udp(&self, tags: &BTreeSet<String>) -> bool {
        self.proto == Proto::Udp || self.udp_by_tag && tags.contains(UDP)
    }

    /// How our own probe asks an instance with these tags. What is asked of a TCP port says nothing of the UDP port
    /// beside it.
    pub fn check_of(&self, tags: &BTreeSet<String>) -> &CheckKind {
        match self.udp_by_tag && tags.contains(UDP) {
            true => &CheckKind::Off,
            false => &self.check,
        }
    }
}

/// What the instances of a service speak, and so its VIP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Proto {
    /// Anything over TCP.
    #[default]
    Tcp,
    /// Anything over UDP, and nothing over TCP.
    Udp,
    /// HTTP over TCP.
    Http,
    /// HTTP/2 without TLS over TCP.
    H2c,
}

/// What it matters that an instance runs on this host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Local {
    /// Nothing.
    #[default]
    Any,
    /// Those of this host take most of the new flows.
    Prefer,
    /// Only those of this host take any.
    Only,
}

/// How a backend is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Balance {
    /// Two random backends; the one with fewer active flows wins.
    LeastConn,
    /// In turn.
    RoundRobin,
    /// By chance.
    Random,
    /// By a hash of the client's address.
    Maglev,
}

/// How packets reach backends of other hosts, where the packet path balances them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Packet {
    /// From this host's own address: the backend answers this host.
    #[default]
    Nat,
    /// In a tunnel to the backend's host, whose agent does the rest: the backend answers the client.
    Tunnel,
    /// Not at all: the VIP is one of sockets alone.
    Off,
}

/// How our own probe asks.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum CheckKind {
    /// A TCP connect.
    Tcp,
    /// An HTTP GET of this path; 2xx and 3xx answers pass.
    Http(String),
    /// The same behind a header of the PROXY protocol.
    HttpAfter(ProxyProtocol, String),
    /// The same by HTTP/2, which is spoken without being agreed on.
    Http2(String),
    /// No probe: the source's word alone counts.
    Off,
}

/// One usable option.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Setting {
    Balance(Balance),
    Check(CheckKind),
    Ports(BTreeSet<u16>),
    Drain(Duration),
    Expose(bool),
    Local(Local),
    Affinity(Duration),
    Allow(Vec<Rule>),
    Deny(Vec<Rule>),
    Proto(Proto),
    SlowStart(Duration),
    Packet(Packet),
    Front(FrontSetting),
    Weight(u16),
}

/// A value that cannot be used as it is.
#[derive(Debug)]
struct Wrong {
    /// What to write instead, as the rest of a sentence.
    remedy: String,
    /// What of it counts all the same.
    left: Option<Setting>,
}

impl From<String> for Wrong {
    fn from(remedy: String) -> Self {
        Self { remedy, left: None }
    }
}

impl From<&str> for Wrong {
    fn from(remedy: &str) -> Self {
        remedy.to_owned().into()
    }
}

impl Setting {
    fn apply(self, options: &mut Options) {
        match self {
            Self::Balance(balance) => options.balance = balance,
            Self::Check(check) => options.check = check,
            Self::Ports(ports) => options.ports = ports,
            Self::Drain(drain) => options.drain = drain,
            Self::Expose(expose) => options.expose = Some(expose),
            Self::Local(local) => options.local = local,
            Self::Affinity(affinity) => options.affinity = affinity,
            Self::Allow(rules) => options.access.allow = rules,
            Self::Deny(rules) => options.access.deny = rules,
            Self::Proto(proto) => options.proto = proto,
            Self::SlowStart(time) => options.slow_start = time,
            Self::Packet(packet) => options.packet = packet,
            Self::Front(setting) => setting.apply(options),
            // A weight belongs to its instance.
            Self::Weight(_) => {}
        }
    }
}

/// The beginning of a text that somebody else wrote, for a message.
pub fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(SHOWN)]
}

/// Bytes of a foreign text that a message repeats.
const SHOWN: usize = 120;

/// The tag of an instance at a UDP port, as registrators set it.
const UDP: &str = "udp";

#[cfg(test)]
mod tests;
