//! Whether what is known of a service's checks is what the list of all checks says. Pure.
//!
//! The list tells nothing but that: it has no address, and an instance without a check is not in it. It is compared with
//! the answers about services and not with the list before: a check that turned and turned back between two lists, or
//! came and went, may have been read in between.

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap},
    fmt,
    hash::{BuildHasher, BuildHasherDefault, DefaultHasher},
};

use serde::{
    Deserialize, Deserializer,
    de::{SeqAccess, Visitor},
};

/// The states of all checks in one number for each service, and one for each node. Names are hashed: of ten
/// thousand checks nothing else is kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Checks {
    services: HashMap<Name, u64>,
    nodes: HashMap<Name, u64>,
    pub(super) count: usize,
    /// How large the answer was.
    pub(super) bytes: usize,
}

/// The states of the checks that the answer about one service tells.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Told {
    service: u64,
    /// A node's own checks concern every instance on it.
    nodes: BTreeMap<Name, u64>,
}

/// The hash of a service's or a node's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Name(u64);

/// What matters of one check.
#[derive(Clone, Copy, Debug, Hash)]
pub(super) struct State<'c> {
    pub(super) node: &'c str,
    pub(super) check_id: &'c str,
    /// Empty if the check is the node's own.
    pub(super) service_id: &'c str,
    pub(super) status: &'c str,
}

impl Name {
    /// Consul takes upper and lower case for the same.
    fn of(text: &str) -> Self {
        Self(hash(text.to_lowercase()))
    }
}

impl Checks {
    /// Reads `/v1/health/state/any`.
    pub(super) fn parse(body: &[u8]) -> Result<Self, serde_json::Error> {
        let mut checks: Self = serde_json::from_slice(body)?;
        checks.bytes = body.len();
        Ok(checks)
    }

    /// Whether this says of `service` what its own answer `told`.
    pub(super) fn agree(&self, service: &str, told: &Told) -> bool {
        let sum = |sums: &HashMap<Name, u64>, name| sums.get(&name).copied().unwrap_or(0);
        sum(&self.services, Name::of(service)) == told.service
            && told
                .nodes
                .iter()
                .all(|(&name, &it)| sum(&self.nodes, name) == it)
    }
}

impl Told {
    /// Adds one instance on `node`, with the checks of both. Each check comes with the service that it belongs to.
    pub(super) fn add<'c>(
        &mut self,
        service: &str,
        node: &str,
        checks: impl Iterator<Item = (&'c str, State<'c>)>,
    ) {
        let mut of_node = 0u64;
        for (of_service, state) in checks {
            if of_service.is_empty() {
                of_node = of_node.wrapping_add(hash(state));
            } else if Name::of(of_service) == Name::of(service) {
                self.service = self.service.wrapping_add(hash(state));
            }
        }
        // The same with each instance on it.
        self.nodes.insert(Name::of(node), of_node);
    }
}

fn hash(value: impl std::hash::Hash) -> u64 {
    BuildHasherDefault::<DefaultHasher>::default().hash_one(value)
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Check<'b> {
    #[serde(borrow)]
    node: Cow<'b, str>,
    #[serde(borrow, rename = "CheckID")]
    check_id: Cow<'b, str>,
    #[serde(borrow)]
    status: Cow<'b, str>,
    #[serde(borrow, default, rename = "ServiceID")]
    service_id: Cow<'b, str>,
    #[serde(borrow, default)]
    service_name: Cow<'b, str>,
}

impl<'de> Deserialize<'de> for Checks {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct All;
        impl<'de> Visitor<'de> for All {
            type Value = Checks;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of checks")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut all: A) -> Result<Checks, A::Error> {
                let mut checks = Checks::default();
                while let Some(check) = all.next_element::<Check<'de>>()? {
                    checks.count += 1;
                    let Check {
                        node,
                        check_id,
                        status,
                        service_id,
                        service_name,
                    } = &check;
                    let state = hash(State {
                        node,
                        check_id,
                        service_id,
                        status,
                    });
                    let sum = if service_name.is_empty() {
                        checks.nodes.entry(Name::of(node)).or_default()
                    } else {
                        checks.services.entry(Name::of(service_name)).or_default()
                    };
                    // Whatever the order is.
                    *sum = sum.wrapping_add(state);
                }
                Ok(checks)
            }
        }
        deserializer.deserialize_seq(All)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::discover::consul::parse::{Standpoint, listing};

    fn check(node: &str, service: &str, id: &str, status: &str) -> Value {
        json!({"Node": node, "CheckID": format!("service:{id}"), "Status": status, "ServiceID": id,
               "ServiceName": service, "Output": "a\"b"})
    }

    fn of_node(node: &str, status: &str) -> Value {
        json!({"Node": node, "CheckID": "serfHealth", "Status": status, "ServiceID": "", "ServiceName": ""})
    }

    /// Whether `list` agrees with an answer about service `a` that has `entries`: an instance's node and id, and checks.
    fn agree(list: &[&Value], entries: &[(&str, &str, &[&Value])]) -> bool {
        let entries: Vec<_> = entries
            .iter()
            .map(|(node, id, checks)| {
                json!({"Node": {"Node": node, "Address": "10.0.0.1"}, "Checks": checks,
                       "Service": {"ID": id, "Service": "a", "Port": 1}})
            })
            .collect();
        let answer = listing(
            "a",
            json!(entries).to_string().as_bytes(),
            &Standpoint::default(),
        );
        let list = Checks::parse(json!(list).to_string().as_bytes()).unwrap();
        list.agree("a", &answer.unwrap().checks)
    }

    #[test]
    fn a_check_that_comes_goes_or_turns_concerns_its_service_alone() {
        let (good, bad) = (
            &check("n", "a", "a1", "passing"),
            &check("n", "a", "a1", "critical"),
        );
        let other = &check("n", "b", "b1", "passing");
        for (list, told, agrees) in [
            (&[good, other][..], &[good][..], true),
            (&[good], &[good], true),
            (&[bad, other], &[good], false),
            (&[other], &[good], false),
            (&[good], &[], false),
            (&[other], &[], true),
        ] {
            assert_eq!(
                agree(list, &[("n", "a1", told)]),
                agrees,
                "{list:?} {told:?}"
            );
        }
    }

    #[test]
    fn the_order_means_nothing_and_neither_does_what_a_check_printed() {
        let (one, two) = (
            &check("n", "a", "a1", "passing"),
            &check("n", "a", "a2", "critical"),
        );
        let mut other = one.clone();
        other["Output"] = json!("c");
        let told: [(_, _, &[_]); 2] = [("n", "a1", &[one]), ("n", "a2", &[two])];
        assert!(agree(&[two, &other], &told));
    }

    #[test]
    fn an_instance_that_moves_to_another_node_is_a_change() {
        let (here, there) = (
            &check("n", "a", "a1", "passing"),
            &check("m", "a", "a1", "passing"),
        );
        assert!(!agree(&[there], &[("n", "a1", &[here])]));
    }

    #[test]
    fn a_check_of_a_node_concerns_every_service_on_it_and_no_other() {
        let (good, bad) = (&of_node("n", "passing"), &of_node("n", "critical"));
        let elsewhere = &of_node("m", "critical");
        let told: [(_, _, &[_]); 2] = [("n", "a1", &[good]), ("n", "a2", &[good])];
        assert!(agree(&[good, elsewhere], &told));
        assert!(!agree(&[bad, elsewhere], &told));
        assert!(!agree(&[elsewhere], &told), "it is gone");
        assert!(agree(&[bad], &[]), "no instance is on it");
    }

    #[test]
    fn upper_and_lower_case_are_the_same_service() {
        let check = &check("n", "A", "a1", "passing");
        assert!(agree(&[check], &[("n", "a1", &[check])]));
    }

    #[test]
    fn no_checks_are_an_answer_and_nonsense_is_none() {
        assert_eq!(Checks::parse(b"[]").unwrap().count, 0);
        assert!(Checks::parse(b"<html>").is_err());
        assert!(Checks::parse(b"[{}]").is_err());
    }
}
