//! Discovery: each source sends the whole of what it knows as a [`Catalog`], again and again.
//!
//! There is no trait tower: a source is a function `run(config, out, stop)` that owns its state and sends
//! [`SourceState`](crate::catalog::SourceState) values. Nothing downstream calls back. [`merge`] makes one
//! catalog of all of them.

pub mod consul;
pub mod docker;
pub mod file;

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use crate::catalog::{Catalog, Instance, InstanceKey, Problem};

/// The address at which a server that registers `ip` is reached; `None` if no server can listen there.
///
/// Somebody who may register a service could otherwise point every client of the host at the cloud's metadata
/// service, at a group, or at this host itself. An IPv4 address in the dress of IPv6 (RFC 4291 section
/// 2.5.5.2) is the IPv4 one: the kernel sends packets there, whatever it is called.
fn server_address(ip: IpAddr) -> Option<IpAddr> {
    let ip = ip.to_canonical();
    let forbidden = match ip {
        IpAddr::V4(ip) => {
            ip.octets()[0] == 0 || ip.is_multicast() || ip.is_broadcast() || ip.is_link_local()
        }
        IpAddr::V6(ip) => ip.is_unspecified() || ip.is_multicast() || ip.is_unicast_link_local(),
    };
    (!forbidden).then_some(ip)
}

/// One catalog of several: instances of a service that two sources know are united. When two sources claim
/// one instance, the first of them keeps it. What is as it was in the merged catalog `before` keeps its allocation.
pub fn merge<'c>(
    catalogs: impl IntoIterator<Item = &'c Arc<Catalog>>,
    before: &Catalog,
) -> Arc<Catalog> {
    let mut catalogs = catalogs.into_iter();
    let Some(first) = catalogs.next() else {
        return Arc::default();
    };
    let mut merged = Arc::clone(first);
    for catalog in catalogs {
        let united = Arc::make_mut(&mut merged);
        united.problems.extend(catalog.problems.iter().cloned());
        for (name, instances) in &catalog.services {
            let all = match united.services.get(name) {
                None => instances.clone(),
                Some(known) if Arc::ptr_eq(known, instances) => continue,
                Some(known) => {
                    let both = unite(name, known, instances, &mut united.problems);
                    let before = before.services.get(name).filter(|it| ***it == *both);
                    before.cloned().unwrap_or_else(|| both.into())
                }
            };
            united.services.insert(name.clone(), all);
        }
        united.problems.sort();
        united.problems.dedup();
    }
    merged
}

fn unite(
    service: &str,
    first: &[Arc<Instance>],
    second: &[Arc<Instance>],
    problems: &mut Vec<Problem>,
) -> Vec<Arc<Instance>> {
    let mut known: BTreeMap<&InstanceKey, &Arc<Instance>> = BTreeMap::new();
    for instance in first.iter().chain(second) {
        let kept = *known.entry(&instance.key).or_insert(instance);
        if kept != instance {
            let (key, address) = (&instance.key, instance.address);
            let message = format!(
                "registered twice for service {service}; {} is used and {address} is left \
                 out: give one of them another id",
                kept.address
            );
            problems.push(Problem::new(format!("instance {key}"), message));
        }
    }
    known.into_values().cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::{Arc, Catalog, file::parse, server_address};

    fn catalog(text: &str) -> Arc<Catalog> {
        Arc::new(parse(text).unwrap())
    }

    fn merge<const N: usize>(catalogs: [&Arc<Catalog>; N]) -> Catalog {
        let merged = super::merge(catalogs, &Catalog::default());
        Arc::unwrap_or_clone(merged)
    }

    #[test]
    fn no_server_listens_at_an_address_that_means_nobody_or_everybody() {
        for text in [
            "0.0.0.0",
            "0.1.2.3",
            "224.0.0.1",
            "255.255.255.255",
            "169.254.169.254",
            "::",
            "ff02::1",
            "fe80::1",
            "::ffff:0.0.0.0",
            "::ffff:169.254.169.254",
            "::ffff:224.0.0.1",
        ] {
            assert_eq!(server_address(text.parse().unwrap()), None, "{text}");
        }
    }

    #[test]
    fn an_address_mapped_into_ipv6_is_its_ipv4_address() {
        for (text, address) in [
            ("::ffff:10.0.0.1", "10.0.0.1"),
            ("10.0.0.1", "10.0.0.1"),
            ("fd00::1", "fd00::1"),
        ] {
            let address = Some(address.parse().unwrap());
            assert_eq!(server_address(text.parse().unwrap()), address, "{text}");
        }
    }

    #[test]
    fn nothing_merged_is_nothing() {
        assert_eq!(merge([]), Catalog::default());
    }

    #[test]
    fn instances_of_two_sources_are_united_and_a_doubled_one_is_told() {
        let one = catalog(
            "[[service]]\nname = \"db\"\n\
             instance = [{ id = \"a\", address = \"10.0.0.1\", port = 1 }]\n",
        );
        let other = catalog(
            "[[service]]\nname = \"db\"\n\
             instance = [{ id = \"a\", address = \"10.0.0.9\", port = 1 }, \
                         { id = \"b\", address = \"10.0.0.2\", port = 1 }]\n\
             [[service]]\nname = \"web\"\n",
        );
        let merged = merge([&one, &other]);
        let addresses: Vec<String> = merged.services["db"]
            .iter()
            .map(|instance| instance.address.to_string())
            .collect();
        assert_eq!(addresses, ["10.0.0.1:1", "10.0.0.2:1"]);
        assert_eq!(*merged.services["web"], []);
        assert_eq!(merged.problems.len(), 1);
        assert!(
            merged.problems[0]
                .message
                .contains("10.0.0.9:1 is left out")
        );
    }

    #[test]
    fn merging_the_same_catalogs_again_changes_nothing() {
        let one = catalog(
            "[[service]]\nname = \"db\"\n\
             instance = [{ id = \"a\", address = \"10.0.0.1\", port = 1 }]\n",
        );
        assert_eq!(merge([&one, &one]), *one);
        let again = catalog(
            "[[service]]\nname = \"db\"\n\
             instance = [{ id = \"b\", address = \"10.0.0.2\", port = 1 }]\n",
        );
        let both = super::merge([&one, &again], &Catalog::default());
        let kept = super::merge([&one, &again], &both);
        assert!(Arc::ptr_eq(&kept.services["db"], &both.services["db"]));
    }
}
