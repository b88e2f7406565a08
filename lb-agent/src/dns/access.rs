//! Who may ask: this host, and its neighbours on the networks that it has an address in.
//!
//! A private address alone says little: another tenant's machine may have one, and a resolver that answers
//! it is open to it. Networks come and go with containers, so they are read anew when an unknown client asks, and now
//! and then when a known one does.

use std::{
    io,
    net::IpAddr,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use ipnet::IpNet;
use tokio::time::Instant;
use tracing::warn;

use crate::{network, vip::Pools};

pub(super) struct Access {
    pools: Pools,
    neighbours: Vec<IpNet>,
    allow: Vec<IpNet>,
    networks: Box<dyn Fn() -> io::Result<Vec<IpNet>> + Send + Sync>,
    known: Mutex<Known>,
}

/// The host's networks as they were at some moment.
#[derive(Default)]
struct Known {
    networks: Vec<IpNet>,
    /// When they were last asked for.
    read: Option<Instant>,
    /// The same, for a client that none of them holds.
    read_for_stranger: Option<Instant>,
    /// Whether the kernel did not tell them the last time.
    failed: bool,
}

impl Access {
    /// `neighbours` bounds whose neighbours may ask: a host's public network is nobody's own. Who is in `allow` may ask
    /// from wherever it is.
    pub(super) fn new(pools: Pools, neighbours: Vec<IpNet>, allow: Vec<IpNet>) -> Self {
        Self::with(pools, neighbours, allow, host_networks)
    }

    fn with(
        pools: Pools,
        neighbours: Vec<IpNet>,
        allow: Vec<IpNet>,
        networks: impl Fn() -> io::Result<Vec<IpNet>> + Send + Sync + 'static,
    ) -> Self {
        Self {
            pools,
            neighbours,
            allow,
            networks: Box::new(networks),
            known: Mutex::default(),
        }
    }

    /// Whether `client` may ask. This host always may: by its loopback and by the agent's own addresses,
    /// which the kernel takes as the source of what is sent to them from here.
    pub(super) fn allows(&self, client: IpAddr, now: Instant) -> bool {
        let client = client.to_canonical();
        let own = self.pools.vip(client) == Some(self.pools.own());
        if client.is_loopback() || own || holds(&self.allow, client) {
            return true;
        }
        holds(&self.neighbours, client) && self.is_neighbour(client, now)
    }

    fn is_neighbour(&self, client: IpAddr, now: Instant) -> bool {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let within = |limit, read| now.saturating_duration_since(read) < limit;
        let stranger = !holds(&known.networks, client);
        // Apart, so that a newcomer does not have to wait because a neighbour has just asked.
        let fresh = if stranger {
            known
                .read_for_stranger
                .is_some_and(|it| within(READ_EVERY, it))
        } else {
            known.read.is_some_and(|it| within(LEAVE_WITHIN, it))
        };
        if fresh {
            return !stranger;
        }
        known.read = Some(now);
        if stranger {
            known.read_for_stranger = Some(now);
        }
        known.learn((self.networks)());
        holds(&known.networks, client)
    }
}

impl Known {
    /// Unknown is not empty: what was known stays until the kernel tells something else.
    fn learn(&mut self, told: io::Result<Vec<IpNet>>) {
        let failed = told.is_err();
        match told {
            Ok(networks) => self.networks = networks,
            Err(error) if !self.failed => {
                warn!(%error, "the host's networks cannot be read; DNS goes by those known before");
            }
            Err(_) => {}
        }
        self.failed = failed;
    }
}

fn holds(networks: &[IpNet], client: IpAddr) -> bool {
    networks.iter().any(|net| net.contains(&client))
}

/// The networks of this host's devices, as the kernel tells them.
fn host_networks() -> io::Result<Vec<IpNet>> {
    let all = network::held()?;
    Ok(all
        .flat_map(|held| held.networks().collect::<Vec<_>>())
        .collect())
}

/// An unknown client costs no more than one look at the devices in this time.
const READ_EVERY: Duration = Duration::from_secs(1);

/// How long the neighbours on a network that is gone may go on asking.
const LEAVE_WITHIN: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use std::{
        net::Ipv4Addr,
        sync::{
            Arc,
            atomic::{AtomicUsize, Ordering},
        },
    };

    use super::*;
    use crate::dns::private_networks;

    fn pools() -> Pools {
        Pools {
            v6: Some(crate::vip::Pool6::default()),
            ..Pools::default()
        }
    }

    fn nets(texts: &[&str]) -> Vec<IpNet> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[track_caller]
    fn check(access: &Access, client: &str, expect: bool) {
        let now = Instant::now();
        assert_eq!(
            access.allows(client.parse().unwrap(), now),
            expect,
            "{client}"
        );
    }

    #[test]
    fn only_this_host_and_its_neighbours_may_ask() {
        let networks = || {
            let all = ["172.17.0.1/16", "fe80::5/64", "fd00::7/64", "192.0.2.9/24"];
            Ok(nets(&all))
        };
        let access = Access::with(
            pools(),
            private_networks(),
            nets(&["203.0.113.0/24"]),
            networks,
        );
        for client in [
            "127.0.0.1",
            "::1",
            "198.18.0.1",
            "fd62:6c62:76:1::1",
            // Allowed by name.
            "203.0.113.9",
            "172.17.0.2",
            "::ffff:172.17.0.2",
            "fe80::1",
            "fd00::1",
        ] {
            check(&access, client, true);
        }
        for client in [
            "198.18.0.2",
            "fd62:6c62:76:1::2",
            // Private, and of another network.
            "10.0.0.1",
            "172.18.0.2",
            "fd00:1::1",
            // A neighbour on a public network.
            "192.0.2.1",
            "2001:db8::1",
            "::ffff:8.8.8.8",
        ] {
            check(&access, client, false);
        }
        let closed = Access::with(pools(), Vec::new(), Vec::new(), networks);
        check(&closed, "198.18.0.1", true);
        check(&closed, "172.17.0.2", false);
    }

    #[test]
    fn a_new_network_is_found_and_strangers_do_not_make_us_look_again_and_again() {
        let reads = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&reads);
        let access = Access::with(pools(), private_networks(), Vec::new(), move || match count
            .fetch_add(1, Ordering::Relaxed)
        {
            0 => Ok(nets(&["172.17.0.1/16"])),
            _ => Ok(nets(&["172.17.0.1/16", "10.9.0.1/24"])),
        });
        let begin = Instant::now();
        let newcomer = "10.9.0.2".parse().unwrap();
        for _ in 0..1000 {
            assert!(!access.allows(newcomer, begin));
        }
        assert!(access.allows("172.17.0.2".parse().unwrap(), begin));
        assert_eq!(reads.load(Ordering::Relaxed), 1);
        assert!(access.allows(newcomer, begin + READ_EVERY));
        assert!(access.allows(newcomer, begin + READ_EVERY));
        assert_eq!(reads.load(Ordering::Relaxed), 2);
    }

    #[test]
    fn a_network_that_is_gone_is_forgotten_and_one_that_cannot_be_read_is_not() {
        let reads = AtomicUsize::new(0);
        let access = Access::with(pools(), private_networks(), Vec::new(), move || match reads
            .fetch_add(1, Ordering::Relaxed)
        {
            0 => Ok(nets(&["172.17.0.1/16"])),
            1 => Err(io::ErrorKind::OutOfMemory.into()),
            _ => Ok(nets(&["10.9.0.1/24"])),
        });
        let mut now = Instant::now();
        let neighbour = "172.17.0.2".parse().unwrap();
        assert!(access.allows(neighbour, now));
        now += LEAVE_WITHIN;
        assert!(access.allows(neighbour, now), "it was not told to be gone");
        // A newcomer need not wait for the next look on account of a neighbour.
        assert!(access.allows("10.9.0.2".parse().unwrap(), now));
        assert!(!access.allows(neighbour, now + READ_EVERY));
    }

    #[test]
    fn the_kernel_tells_the_networks_of_this_host() {
        let networks = host_networks().unwrap();
        assert!(holds(&networks, IpAddr::V4(Ipv4Addr::LOCALHOST)));
        assert!(!holds(&networks, [8, 8, 8, 8].into()), "{networks:?}");
    }
}
