//! What the agent has installed, seen from outside in its pinned map.

use std::{net::Ipv4Addr, path::Path, time::Duration};

use anyhow::{Context as _, Result};
use lb_common::{ANY_PORT, Be32, HOST_VIEW, PROTO_TCP, Service, ServiceKey};

use crate::subject::{Services, Subject, services};

pub(super) struct Installed {
    services: Services,
}

impl Installed {
    /// Opens the map as soon as it is pinned, and waits until it has so many services with a backend.
    ///
    /// # Errors
    /// When it takes too long.
    pub(super) fn of(agent: &mut Subject, bpffs: &Path, count: usize) -> Result<Self> {
        let mut opened = None;
        agent
            .wait_until(Duration::from_millis(1), || {
                opened = services(bpffs).ok();
                Ok(opened.is_some())
            })
            .context("the agent pins no map")?;
        let services = opened.context("no map is pinned")?;
        let mut served = 0;
        agent
            .wait_until(Duration::from_millis(10), || {
                let all = services.iter().flatten();
                served = all.filter(|(_, it)| it.count > 0).count();
                Ok(served >= count)
            })
            .with_context(|| format!("only {served} of {count} services are in the map"))?;
        Ok(Self { services })
    }

    /// The element of the service with this VIP.
    ///
    /// # Errors
    /// When there is none.
    pub(super) fn service(&self, vip: Ipv4Addr) -> Result<(ServiceKey, Service)> {
        let key = ServiceKey::new(Be32::from_host(vip.into()), ANY_PORT, PROTO_TCP, HOST_VIEW);
        let service = self.services.get(&key, 0);
        Ok((
            key,
            service.with_context(|| format!("{vip} is not in the map"))?,
        ))
    }

    /// Whether the element of `key` is another one than `before`.
    pub(super) fn differs(&self, (key, before): &(ServiceKey, Service)) -> bool {
        let now = self.services.get(key, 0);
        now.is_ok_and(|now| now != *before)
    }
}
