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
/// one instance, the first of them keeps it.
pub fn merge<'c>(catalogs: impl IntoIterator<Item = &'c Catalog>) -> Catalog {
    let mut services: BTreeMap<&Arc<str>, BTreeMap<&InstanceKey, &Arc<Instance>>> = BTreeMap::new();
    let mut problems = Vec::new();
    for catalog in catalogs {
        problems.extend(catalog.problems.iter().cloned());
        for (name, instances) in &catalog.services {
            let known = services.entry(name).or_default();
            for instance in &**instances {
                let kept = *known.entry(&instance.key).or_insert(instance);
                if kept != instance {
                    let (key, address) = (&instance.key, instance.address);
                    let message = format!(
                        "registered twice for service {name}; {} is used and {address} is left \
                         out: give one of them another id",
                        kept.address
                    );
                    problems.push(Problem::new(format!("instance {key}"), message));
                }
            }
        }
    }
    let services = services
        .into_iter()
        .map(|(name, known)| (name.clone(), known.into_values().cloned().collect()))
        .collect();
    problems.sort();
    problems.dedup();
    Catalog { services, problems }
}

#[cfg(test)]
mod tests {
    use super::{Catalog, file::parse, merge, server_address};

    fn catalog(text: &str) -> Catalog {
        parse(text).unwrap()
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
    fn merging_one_catalog_twice_changes_nothing() {
        let one = catalog(
            "[[service]]\nname = \"db\"\n\
             instance = [{ id = \"a\", address = \"10.0.0.1\", port = 1 }]\n",
        );
        assert_eq!(merge([&one, &one]), one);
    }
}
