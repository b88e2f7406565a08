//! What our registrar leaves in an instance's Meta: its container, that container's other addresses, and who
//! registered it. Pure.

use std::{collections::BTreeMap, net::SocketAddr};

use super::parse::reachable;
use crate::catalog::Reach;

/// What was left.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Marks {
    pub(super) reach: Reach,
    pub(super) container: Option<String>,
    /// The identity of the host whose registrar it was.
    pub(super) registrar: Option<String>,
}

/// Takes the marks out of `meta`. One that makes no sense is told to `wrong` and has no effect.
pub(super) fn take(meta: &mut BTreeMap<String, String>, wrong: &mut impl FnMut(String)) -> Marks {
    let mut marks = Marks {
        registrar: meta.remove(REGISTRAR).filter(|host| !host.is_empty()),
        ..Marks::default()
    };
    let mut complain = |key: &str, text: &str, expected: &str| {
        wrong(format!(
            "its meta `{key}`, `{text}`, is not {expected} and was passed over; leave this key to the \
             registrar"
        ));
    };
    if let Some(id) = meta.remove(CONTAINER) {
        if id.len() == 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            marks.container = Some(id);
        } else {
            complain(CONTAINER, &id, "the full id of a container");
        }
    }
    if let Some(text) = meta.remove(PUBLISHED) {
        marks.reach.published = address(&text);
        if marks.reach.published.is_none() {
            complain(PUBLISHED, &text, "an IP address and a port");
        }
    }
    if let Some(text) = meta.remove(NETWORKS) {
        for entry in text.split(',').filter(|entry| !entry.is_empty()) {
            let network = entry.split_once('=').filter(|(name, _)| !name.is_empty());
            match network.and_then(|(name, at)| Some((name, address(at)?))) {
                Some((name, at)) => {
                    marks.reach.networks.insert(name.to_owned(), at);
                }
                None => complain(NETWORKS, entry, "a network, `=`, an IP address and a port"),
            }
        }
    }
    marks
}

/// An address that a server can have, IPv6 in brackets.
fn address(text: &str) -> Option<SocketAddr> {
    let address: SocketAddr = text.parse().ok()?;
    let ip = reachable(address.ip()).ok()?;
    (address.port() != 0).then(|| SocketAddr::new(ip, address.port()))
}

const CONTAINER: &str = "lb-container";
const NETWORKS: &str = "lb-networks";
const PUBLISHED: &str = "lb-published";
const REGISTRAR: &str = "lb-registrar";

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(entries: &[(&str, &str)]) -> (Marks, BTreeMap<String, String>, Vec<String>) {
        let text = |&(key, value): &(&str, &str)| (key.to_owned(), value.to_owned());
        let mut meta = entries.iter().map(text).collect();
        let mut problems = Vec::new();
        let marks = take(&mut meta, &mut |problem| problems.push(problem));
        (marks, meta, problems)
    }

    #[test]
    fn the_registrars_marks_become_addresses_and_leave_the_meta() {
        let id = "ab".repeat(32);
        let (marks, meta, problems) = taken(&[
            (CONTAINER, &id),
            (NETWORKS, "front=172.18.0.2:80,back=[fd00::2]:80"),
            (PUBLISHED, "192.0.2.1:8080"),
            (REGISTRAR, "host-1"),
            ("lb_balance", "random"),
        ]);
        assert_eq!(problems, [""; 0]);
        assert_eq!(marks.container, Some(id));
        assert_eq!(marks.registrar.as_deref(), Some("host-1"));
        assert_eq!(marks.reach.published, "192.0.2.1:8080".parse().ok());
        assert_eq!(
            marks.reach.networks["front"],
            "172.18.0.2:80".parse().unwrap()
        );
        assert_eq!(
            marks.reach.networks["back"],
            "[fd00::2]:80".parse().unwrap()
        );
        assert_eq!(meta.into_keys().collect::<Vec<_>>(), ["lb_balance"]);
    }

    #[test]
    fn a_wrong_mark_is_told_and_costs_no_other() {
        let (marks, _, problems) = taken(&[
            (CONTAINER, "abc"),
            (
                NETWORKS,
                "a=172.18.0.2:80,b=nowhere,=1.2.3.4:1,c=172.18.0.3:0,d",
            ),
            (PUBLISHED, "169.254.169.254:80"),
        ]);
        assert_eq!(marks.container, None);
        assert_eq!(marks.reach.published, None);
        assert_eq!(marks.reach.networks.into_keys().collect::<Vec<_>>(), ["a"]);
        assert_eq!(problems.len(), 6, "{problems:#?}");
        assert!(
            problems[0].contains("`lb-container`, `abc`"),
            "{problems:#?}"
        );
        assert!(problems[0].contains("leave this key to the registrar"));
    }

    #[test]
    fn no_marks_are_none() {
        let (marks, _, problems) = taken(&[("lb_weight", "2")]);
        assert_eq!((marks, problems.len()), (Marks::default(), 0));
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_it_panic(container in ".*", networks in ".*", published in ".*") {
            taken(&[(CONTAINER, &container), (NETWORKS, &networks), (PUBLISHED, &published)]);
        }
    }
}
