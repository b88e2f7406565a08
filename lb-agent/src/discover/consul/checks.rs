//! What the list of all checks says has changed. Pure.
//!
//! It names the services whose checks changed, and only that: it has no address, and an instance without a
//! check is not in it.

use std::{
    borrow::Cow,
    collections::HashMap,
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

/// The hash of a service's or a node's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Name(u64);

impl Name {
    pub(super) fn of(text: &str) -> Self {
        Self(hash(text))
    }
}

/// What differs between two answers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Changes {
    pub(super) services: Vec<Name>,
    /// Their own checks concern every instance on them.
    pub(super) nodes: Vec<Name>,
}

impl Checks {
    /// Reads `/v1/health/state/any`.
    pub(super) fn parse(body: &[u8]) -> Result<Self, serde_json::Error> {
        let mut checks: Self = serde_json::from_slice(body)?;
        checks.bytes = body.len();
        Ok(checks)
    }

    /// What changed from `before` to this.
    pub(super) fn since(&self, before: &Self) -> Changes {
        Changes {
            services: differing(&before.services, &self.services),
            nodes: differing(&before.nodes, &self.nodes),
        }
    }
}

fn differing(before: &HashMap<Name, u64>, now: &HashMap<Name, u64>) -> Vec<Name> {
    let gone = before.keys().filter(|name| !now.contains_key(name));
    let other = now
        .iter()
        .filter(|(name, state)| before.get(name) != Some(state));
    gone.chain(other.map(|(name, _)| name)).copied().collect()
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
                    let state = hash((node, check_id, service_id, status));
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
    use std::slice::from_ref;

    use serde_json::{Value, json};

    use super::*;

    fn check(node: &str, service: &str, id: &str, status: &str) -> Value {
        json!({"Node": node, "CheckID": format!("service:{id}"), "Status": status, "ServiceID": id,
               "ServiceName": service, "Output": "a\"b", "ModifyIndex": 9})
    }

    #[track_caller]
    fn changed(before: &[Value], now: &[Value]) -> (Vec<Name>, Vec<Name>) {
        let parse = |checks: &[Value]| Checks::parse(json!(checks).to_string().as_bytes()).unwrap();
        let Changes {
            mut services,
            mut nodes,
        } = parse(now).since(&parse(before));
        services.sort();
        nodes.sort();
        (services, nodes)
    }

    #[test]
    fn a_check_that_comes_goes_or_turns_names_its_service() {
        let a = check("n", "a", "a1", "passing");
        let b = check("n", "b", "b1", "passing");
        let failing = check("n", "b", "b1", "critical");
        let just_b = (vec![Name::of("b")], vec![]);
        let (a, b) = (&a, &b);
        assert_eq!(changed(from_ref(a), &[a.clone(), b.clone()]), just_b);
        assert_eq!(changed(&[a.clone(), b.clone()], from_ref(a)), just_b);
        assert_eq!(
            changed(&[a.clone(), b.clone()], &[a.clone(), failing]),
            just_b
        );
    }

    #[test]
    fn the_order_means_nothing_and_neither_does_what_a_check_printed() {
        let a = check("n", "a", "a1", "passing");
        let b = check("n", "b", "b1", "passing");
        let mut other = a.clone();
        other["Output"] = json!("c");
        let nothing = (vec![], vec![]);
        assert_eq!(changed(&[a, b.clone()], &[b, other]), nothing);
    }

    #[test]
    fn an_instance_that_moves_to_another_node_is_a_change() {
        let (here, there) = (
            check("n", "a", "a1", "passing"),
            check("m", "a", "a1", "passing"),
        );
        assert_eq!(changed(&[here], &[there]), (vec![Name::of("a")], vec![]));
    }

    #[test]
    fn a_check_of_a_node_names_the_node() {
        let node = |status: &str| json!({"Node": "n", "CheckID": "serfHealth", "Status": status});
        let changed = changed(&[node("passing")], &[node("critical")]);
        assert_eq!(changed, (vec![], vec![Name::of("n")]));
    }

    #[test]
    fn no_checks_are_an_answer_and_nonsense_is_none() {
        assert_eq!(Checks::parse(b"[]").unwrap().count, 0);
        assert!(Checks::parse(b"<html>").is_err());
        assert!(Checks::parse(b"[{}]").is_err());
    }
}
