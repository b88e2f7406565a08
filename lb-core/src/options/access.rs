//! Which clients a service lets in: `lb_allow` and `lb_deny`.

use std::{
    collections::BTreeSet,
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ipnet::{IpNet, Ipv4Net};
use serde::Serialize;

use super::cut;

/// Whom a service lets in.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Access {
    /// If there are any, only clients that match one of them are let in.
    pub allow: Vec<Rule>,
    /// Clients that match one of them are kept out, whatever `allow` says.
    pub deny: Vec<Rule>,
}

/// Some clients.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// Those with an address in here.
    Net(IpNet),
    /// The host's own processes, and containers in its network namespace.
    Host,
    /// Containers on the Docker network of this name.
    Network(String),
    /// None. Stands in a list to allow of which nothing could be read: whoever writes one means to keep others out.
    Nobody,
}

/// What is known of a client.
#[derive(Clone, Copy)]
pub struct Client<'c> {
    /// Whether it is in the network namespace of the host.
    pub host: bool,
    /// Whether one of the addresses that its flows may come from lies in a network.
    pub lies_in: &'c dyn Fn(&IpNet) -> bool,
    /// The Docker networks that it is on, by name.
    pub networks: &'c BTreeSet<String>,
}

impl Client<'_> {
    /// The host's own processes, on no network of Docker's.
    pub const HOST: Self = Self {
        host: true,
        lies_in: &|net| LOOPBACK.iter().any(|address| net.contains(address)),
        networks: &BTreeSet::new(),
    };
}

/// The addresses by which rules may mean the host, beside its name.
const LOOPBACK: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::LOCALHOST),
    IpAddr::V6(Ipv6Addr::LOCALHOST),
];

impl Access {
    /// Whether `client` is let in.
    pub fn admits(&self, client: &Client<'_>) -> bool {
        self.against(client).is_none()
    }

    /// What keeps `client` out, as it would be written; `None` if it is let in.
    pub fn against(&self, client: &Client<'_>) -> Option<String> {
        if let Some(rule) = self.deny.iter().find(|rule| rule.matches(client)) {
            return Some(format!("lb_deny={rule}"));
        }
        let allowed = self.allow.is_empty() || self.allow.iter().any(|rule| rule.matches(client));
        let rules = || {
            self.allow
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
        };
        (!allowed).then(|| format!("lb_allow={}", rules().join(",")))
    }

    /// The networks that its rules ask about.
    pub fn nets(&self) -> impl Iterator<Item = IpNet> {
        let rules = self.allow.iter().chain(&self.deny);
        rules.filter_map(|rule| match rule {
            Rule::Net(net) => Some(*net),
            Rule::Host | Rule::Network(_) | Rule::Nobody => None,
        })
    }

    /// Whether every client is let in, known or not.
    pub fn is_open(&self) -> bool {
        self.allow.is_empty() && self.deny.is_empty()
    }
}

impl Rule {
    fn matches(&self, client: &Client<'_>) -> bool {
        match self {
            Self::Net(net) => (client.lies_in)(net),
            Self::Host => client.host,
            Self::Network(name) => client.networks.contains(name),
            Self::Nobody => false,
        }
    }

    fn read(text: &str) -> Option<Self> {
        if text == "host" {
            return Some(Self::Host);
        }
        if let Some(name) = text.strip_prefix("network:") {
            return is_network_name(name).then(|| Self::Network(name.to_owned()));
        }
        if let Ok(address) = text.parse::<IpAddr>() {
            return Some(Self::Net(address.to_canonical().into()));
        }
        let net: IpNet = text.parse().ok()?;
        // `10.1.2.3/8` means either one address or many: nobody can tell which.
        (net.trunc() == net).then(|| Self::Net(canonical(net)))
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Net(net) if net.prefix_len() == net.max_prefix_len() => net.addr().fmt(f),
            Self::Net(net) => net.fmt(f),
            Self::Host => f.write_str("host"),
            Self::Network(name) => write!(f, "network:{name}"),
            Self::Nobody => f.write_str("nobody"),
        }
    }
}

impl Serialize for Rule {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The rules in `text`, sorted, so that two orders of one list do not disagree.
///
/// # Errors
///
/// The first part that is no rule, with what to write instead, and the rules that the others are.
pub(super) fn rules(text: &str) -> Result<Vec<Rule>, (String, Vec<Rule>)> {
    // No colons here, which are part of IPv6 addresses; blanks, since Registrator splits tags at commas.
    let parts = text.split(|letter: char| letter == ',' || letter.is_whitespace());
    let parts = parts.filter(|part| !part.is_empty());
    let mut rules = BTreeSet::new();
    let mut wrong = None;
    for part in parts {
        match Rule::read(part) {
            Some(rule) => drop(rules.insert(rule)),
            None => wrong = wrong.or(Some(part)),
        }
    }
    let read = rules.into_iter().collect::<Vec<_>>();
    match wrong {
        None if read.is_empty() => Err((format!("write {FORMS}"), read)),
        None => Ok(read),
        Some(wrong) => Err((format!("in place of `{}` write {FORMS}", cut(wrong)), read)),
    }
}

/// IPv4 networks written as IPv6 ones are IPv4 networks.
fn canonical(net: IpNet) -> IpNet {
    let mapped = |net: ipnet::Ipv6Net| {
        let prefix = net.prefix_len().checked_sub(96)?;
        Ipv4Net::new(net.addr().to_ipv4_mapped()?, prefix).ok()
    };
    match net {
        IpNet::V6(six) => mapped(six).map_or(net, IpNet::V4),
        IpNet::V4(_) => net,
    }
}

/// Whether Docker takes it for the name of a network.
fn is_network_name(name: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    name.starts_with(|letter: char| letter.is_ascii_alphanumeric()) && name.bytes().all(inner)
}

const FORMS: &str = "addresses, networks such as 10.0.0.0/8 with no bit behind the prefix, `host` or \
                     `network:<Docker network>`, separated by commas or blanks";

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A list to allow, a list to deny, the client (`host`, or its networks; and its addresses), whether it is let in.
    #[track_caller]
    fn check(allow: &str, deny: &str, networks: &[&str], addresses: &[&str], admitted: bool) {
        let list = |text: &str| {
            if text.is_empty() {
                Vec::new()
            } else {
                rules(text).unwrap()
            }
        };
        let access = Access {
            allow: list(allow),
            deny: list(deny),
        };
        let parsed: Vec<IpAddr> = addresses.iter().map(|it| it.parse().unwrap()).collect();
        let client = Client {
            host: networks == ["host"],
            lies_in: &|net| parsed.iter().any(|it| net.contains(&it.to_canonical())),
            networks: &networks.iter().map(ToString::to_string).collect(),
        };
        assert_eq!(
            access.admits(&client),
            admitted,
            "{allow} not {deny}: {networks:?} {addresses:?}"
        );
    }

    #[test]
    fn without_a_list_everybody_is_let_in() {
        check("", "", &["host"], &["192.0.2.1"], true);
        check("", "", &["front"], &[], true);
    }

    #[test]
    fn with_a_list_to_allow_everybody_else_is_kept_out() {
        check("host", "", &["host"], &["192.0.2.1"], true);
        check("host", "", &["front"], &["172.18.0.2"], false);
        check("network:front", "", &["back", "front"], &[], true);
        check("network:front", "", &["host"], &[], false);
        check("172.18.0.0/16", "", &["front"], &["172.18.0.2"], true);
        check("172.18.0.0/16", "", &["front"], &["172.19.0.2"], false);
        check("172.18.0.0/16", "", &["front"], &[], false);
        check("fd00::/8", "", &["front"], &["172.18.0.2", "fd12::2"], true);
        check("host 172.18.0.2", "", &["front"], &["172.18.0.2"], true);
    }

    #[test]
    fn a_list_to_deny_wins() {
        check("", "network:front", &["front", "back"], &[], false);
        check("", "network:front", &["back"], &[], true);
        check(
            "172.18.0.0/16",
            "172.18.0.2",
            &["a"],
            &["172.18.0.2"],
            false,
        );
        check("172.18.0.0/16", "172.18.0.2", &["a"], &["172.18.0.3"], true);
        check("host", "host", &["host"], &[], false);
        // One of its addresses is enough.
        check(
            "",
            "172.18.0.2",
            &["a"],
            &["172.18.0.2", "172.19.0.2"],
            false,
        );
    }

    #[test]
    fn an_ipv4_address_within_ipv6_is_that_ipv4_address() {
        check("192.0.2.1", "", &["a"], &["::ffff:192.0.2.1"], true);
        check("::ffff:192.0.2.1", "", &["a"], &["192.0.2.1"], true);
        check("::ffff:192.0.2.0/120", "", &["a"], &["192.0.2.1"], true);
    }

    #[test]
    fn nobody_is_nobody() {
        let access = Access {
            allow: vec![Rule::Nobody],
            deny: Vec::new(),
        };
        for host in [true, false] {
            assert!(!access.admits(&Client {
                host,
                lies_in: &|_| true,
                networks: &BTreeSet::new(),
            }));
        }
        assert!(!access.is_open() && Access::default().is_open());
    }

    #[test]
    fn a_wrong_part_is_named_and_the_others_are_kept() {
        for (text, named, kept) in [
            ("", "write addresses", 0),
            (" ,", "write addresses", 0),
            ("10.0.0.1/8", "in place of `10.0.0.1/8`", 0),
            ("10.0.0.0/33", "in place of `10.0.0.0/33`", 0),
            ("host, hosts,10.0.0.1", "in place of `hosts`", 2),
            ("network:", "in place of `network:`", 0),
            ("network:-a", "in place of `network:-a`", 0),
            ("Host", "in place of `Host`", 0),
            ("10.0.0.1:80", "in place of `10.0.0.1:80`", 0),
            ("nobody", "in place of `nobody`", 0),
        ] {
            let (remedy, read) = rules(text).unwrap_err();
            assert!(remedy.contains(named), "{text}: {remedy}");
            assert_eq!(read.len(), kept, "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_rule_is_read_as_it_is_written(text in "host|network:[a-z0-9][a-z0-9_.-]{0,9}|10\\.0\\.[0-9]\\.0/24|fd0[0-9]::/64|fe80::[1-9]") {
            let read = rules(&text).unwrap();
            prop_assert_eq!(read.len(), 1);
            prop_assert_eq!(read[0].to_string(), text);
        }

        #[test]
        fn no_text_panics_and_no_rule_is_nobody(text in ".{0,40}") {
            let read = rules(&text).unwrap_or_else(|(_, kept)| kept);
            prop_assert!(!read.contains(&Rule::Nobody));
        }
    }
}
