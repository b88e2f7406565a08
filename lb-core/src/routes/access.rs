//! Which clients a service lets in on the front, which knows them by nothing but the address that they come from.
//!
//! Never more than its VIP lets in, as far as an address tells: a rule that names a Docker network lets nobody in here
//! and keeps everybody out but the host, which is on none.

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use lb_front::routes::RouteAccess;

use crate::options::{Access, Client, Rule};

/// What `access` means on the front; `None` where it has no rules.
pub(super) fn on_front(access: &Access) -> Option<RouteAccess> {
    let allow = match &*access.allow {
        _ if cannot_be_told(access).is_some() => Vec::new(),
        [] => vec![Ipv4Net::default().into(), Ipv6Net::default().into()],
        rules => nets(rules),
    };
    (!access.is_open()).then(|| RouteAccess {
        host: access.admits(&Client::HOST),
        allow,
        deny: nets(&access.deny),
    })
}

/// The rule that keeps out clients whom the front cannot tell from others.
pub(super) fn cannot_be_told(access: &Access) -> Option<&Rule> {
    let mut deny = access.deny.iter();
    deny.find(|rule| matches!(rule, Rule::Network(_)))
}

fn nets(rules: &[Rule]) -> Vec<IpNet> {
    let net = |rule: &Rule| match rule {
        Rule::Net(net) => Some(*net),
        Rule::Host | Rule::Network(_) | Rule::Nobody => None,
    };
    rules.iter().filter_map(net).collect()
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, net::IpAddr};

    use proptest::prelude::*;

    use super::*;

    const WORLD: &str = "203.0.113.7";
    const NEAR: &str = "10.1.2.3";
    const OWN: &str = "10.1.0.1";
    const LOOPBACK: &str = "127.0.0.1";

    fn rule() -> impl Strategy<Value = Rule> {
        let net = |text: &str| Rule::Net(text.parse().unwrap());
        prop_oneof![
            Just(Rule::Host),
            Just(Rule::Nobody),
            Just(Rule::Network("web".to_owned())),
            Just(net("10.0.0.0/8")),
            Just(net("10.1.2.3/32")),
            Just(net("127.0.0.0/8")),
            Just(net("0.0.0.0/0")),
            Just(net("::/0")),
        ]
    }

    fn access(allow: &[Rule], deny: &[Rule]) -> Access {
        Access {
            allow: allow.to_vec(),
            deny: deny.to_vec(),
        }
    }

    fn admits(access: &Access, client: &str) -> bool {
        let own = [OWN.parse().unwrap()].into();
        on_front(access).is_none_or(|it| it.admits(client.parse().unwrap(), &own))
    }

    #[track_caller]
    fn check(allow: &[Rule], deny: &[Rule], expected: &[&str]) {
        let access = access(allow, deny);
        let all = [WORLD, NEAR, OWN, LOOPBACK];
        let let_in: Vec<_> = all.into_iter().filter(|it| admits(&access, it)).collect();
        assert_eq!(let_in, expected);
    }

    #[test]
    fn who_is_let_in_is_told_by_the_address() {
        let near = || Rule::Net("10.0.0.0/8".parse().unwrap());
        let web = || Rule::Network("web".to_owned());
        check(&[], &[], &[WORLD, NEAR, OWN, LOOPBACK]);
        // The host is not let in by an address that it happens to have, nor kept in by another one.
        check(&[near()], &[], &[NEAR]);
        check(&[], &[near()], &[WORLD, LOOPBACK]);
        check(&[near(), Rule::Host], &[], &[NEAR, OWN, LOOPBACK]);
        check(&[Rule::Host], &[], &[OWN, LOOPBACK]);
        check(&[], &[Rule::Host], &[WORLD, NEAR]);
        let loopback = Rule::Net("127.0.0.1/32".parse().unwrap());
        check(&[], &[loopback], &[WORLD, NEAR]);
        // Nobody is known to be on a network, and nobody but the host not to be.
        check(&[web()], &[], &[]);
        check(&[web(), near()], &[], &[NEAR]);
        check(&[], &[web()], &[OWN, LOOPBACK]);
        check(&[near()], &[web()], &[]);
        check(&[Rule::Nobody], &[], &[]);
    }

    #[test]
    fn an_ipv4_address_within_ipv6_is_that_ipv4_address() {
        let access = access(&[Rule::Net("10.1.2.3/32".parse().unwrap())], &[]);
        assert!(admits(&access, "::ffff:10.1.2.3"));
        assert!(!admits(&access, "::ffff:10.1.2.4"));
    }

    proptest! {
        #[test]
        fn nobody_is_let_in_whom_the_vip_keeps_out(
            allow in proptest::collection::vec(rule(), 0..3),
            deny in proptest::collection::vec(rule(), 0..3),
        ) {
            let access = access(&allow, &deny);
            let on_vip = |client: &Client<'_>| access.admits(client);
            for own in [OWN, LOOPBACK] {
                prop_assert!(!admits(&access, own) || on_vip(&Client::HOST));
            }
            // A container on a network, or on none that a rule names.
            for networks in [BTreeSet::new(), ["web".to_owned()].into()] {
                for address in [NEAR, WORLD] {
                    let ip: IpAddr = address.parse().unwrap();
                    let lies_in = |net: &IpNet| net.contains(&ip);
                    let client = Client { host: false, lies_in: &lies_in, networks: &networks };
                    prop_assert!(!admits(&access, address) || on_vip(&client));
                }
            }
        }
    }
}
