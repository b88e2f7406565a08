//! What the agent has installed, seen from outside in its pinned map.

use std::{
    net::Ipv4Addr,
    path::Path,
    sync::mpsc::{Receiver, TryRecvError},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use aya::maps::{HashMap, Map, MapData};
use lb_common::{ANY_PORT, Be32, HOST_VIEW, MAP_VERSION, PROTO_TCP, Service, ServiceKey, map};

pub(super) struct Installed {
    services: HashMap<MapData, ServiceKey, Service>,
}

/// One change that is on its way.
pub(super) struct Awaited {
    pub(super) key: ServiceKey,
    /// What the map holds as long as it has not arrived.
    pub(super) before: Service,
    /// Told the moment it is there.
    pub(super) seen: std::sync::mpsc::Sender<Instant>,
    pub(super) until: Instant,
}

impl Installed {
    /// Opens the map as soon as it is pinned.
    ///
    /// # Errors
    /// When it is not there in time.
    pub(super) fn open(bpffs: &Path, until: Instant) -> Result<Self> {
        let pin = bpffs.join(format!("lb/v{MAP_VERSION}/{}", map::SERVICES));
        while !pin.exists() {
            ensure!(
                Instant::now() < until,
                "no map is pinned at {}",
                pin.display()
            );
            sleep(Duration::from_millis(1));
        }
        let data = MapData::from_pin(&pin).context("cannot open the pinned map")?;
        let services = HashMap::try_from(Map::HashMap(data))?;
        Ok(Self { services })
    }

    /// Waits until there are so many services with a backend, and says how long that took since `began`.
    ///
    /// # Errors
    /// When it takes too long.
    pub(super) fn wait_for(
        &self,
        services: usize,
        began: Instant,
        patience: Duration,
    ) -> Result<Duration> {
        loop {
            let served = self
                .services
                .iter()
                .flatten()
                .filter(|(_, it)| it.count > 0);
            let served = served.count();
            if served >= services {
                return Ok(began.elapsed());
            }
            if began.elapsed() > patience {
                bail!("only {served} of {services} services are in the map");
            }
            sleep(Duration::from_millis(10));
        }
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

    /// Watches for changes until nobody will send any more, with `pause` between two looks.
    pub(super) fn watch(&self, changes: &Receiver<Awaited>, pause: Duration) {
        let mut awaited: Vec<Awaited> = Vec::new();
        loop {
            loop {
                match changes.try_recv() {
                    Ok(change) => awaited.push(change),
                    Err(TryRecvError::Empty) => break,
                    Err(TryRecvError::Disconnected) if awaited.is_empty() => return,
                    Err(TryRecvError::Disconnected) => break,
                }
            }
            awaited.retain(|change| {
                let now = self.services.get(&change.key, 0).ok();
                let arrived = now.is_some_and(|now| now != change.before);
                let at = Instant::now();
                if arrived {
                    // Whoever waits for it may have given up.
                    let _ = change.seen.send(at);
                }
                !arrived && at < change.until
            });
            sleep(pause);
        }
    }
}
