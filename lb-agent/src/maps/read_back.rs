//! What the maps hold, read back.

use std::{
    collections::BTreeMap,
    net::{Ipv6Addr, SocketAddr},
    time::Instant,
};

use aya::maps::MapError;
use lb_common::{Backend, BackendId, Balance, Service, ServiceKey, map};

use super::{Error, Maps, failed};
use crate::installed::{Installed, InstalledBackend, InstalledService, Room};

impl Maps {
    /// What an earlier agent left in the maps, before anything is written. New ones are not looked through, which with room for
    /// ten thousand services takes a fifth of a second.
    ///
    /// # Errors
    /// When the kernel refuses a read.
    pub fn read_at_start(&self) -> Result<Installed, Error> {
        if !self.new {
            return self.read_back();
        }
        let Room { services, backends } = self.room();
        Ok(Installed::empty(services, backends))
    }

    /// Reads back what the maps hold.
    ///
    /// # Errors
    /// When the kernel refuses a read.
    pub fn read_back(&self) -> Result<Installed, Error> {
        let room = self.room();
        let mut generations = BTreeMap::new();
        let mut backends: BTreeMap<SocketAddr, InstalledBackend> = BTreeMap::new();
        for index in 1..room.backends {
            let backend = self.raw_backend(index)?;
            if backend.generation != 0 {
                generations.insert(index, backend.generation);
            }
            backends.extend(installed_backend(index, backend));
        }
        let mut services = BTreeMap::new();
        for entry in self.services.iter() {
            let (key, service) = entry.map_err(failed("read", map::SERVICES))?;
            let service = self.installed_service(service)?;
            services.insert(key, service);
        }
        let mut published = BTreeMap::new();
        for index in 1..room.services {
            let table = self
                .tables
                .get(&index, 0)
                .map_err(failed("read", map::TABLES))?;
            let last = table.halves[0].generation.max(table.halves[1].generation);
            if last != 0 {
                published.insert(index, last);
            }
        }
        Ok(Installed::found(
            services,
            backends,
            generations,
            &published,
            room,
            Instant::now(),
        ))
    }

    /// What the maps hold at a backend index.
    ///
    /// # Errors
    /// When the kernel refuses the read.
    pub fn backend(&self, index: u32) -> Result<Option<(SocketAddr, InstalledBackend)>, Error> {
        Ok(installed_backend(index, self.raw_backend(index)?))
    }

    pub(super) fn raw_backend(&self, index: u32) -> Result<Backend, Error> {
        self.backends
            .get(&index, 0)
            .map_err(failed("read", map::BACKENDS))
    }

    /// What the maps hold for an endpoint.
    ///
    /// # Errors
    /// When the kernel refuses a read.
    pub fn service(&self, key: &ServiceKey) -> Result<Option<InstalledService>, Error> {
        match self.services.get(key, 0) {
            Ok(service) => self.installed_service(service).map(Some),
            Err(MapError::KeyNotFound) => Ok(None),
            Err(error) => Err(failed("read", map::SERVICES)(error)),
        }
    }

    /// How many endpoints the maps hold.
    ///
    /// # Errors
    /// When the kernel refuses a read.
    pub fn endpoints(&self) -> Result<usize, Error> {
        let mut keys = self.services.keys();
        keys.try_fold(0, |count, key| {
            key.map(|_| count + 1)
                .map_err(failed("read", map::SERVICES))
        })
    }

    fn installed_service(&self, service: Service) -> Result<InstalledService, Error> {
        let table = self
            .tables
            .get(&service.table, 0)
            .map_err(failed("read", map::TABLES))?;
        let half = table.halves[(service.half & 1) as usize];
        Ok(InstalledService {
            table: service.table,
            half: service.half,
            generation: service.generation,
            balance: Balance::try_from(service.balance).unwrap_or(Balance::LeastConn),
            affinity_seconds: service.affinity_seconds,
            flags: service.flags,
            slots: half
                .slots
                .into_iter()
                .take(service.count as usize)
                .collect(),
        })
    }
}

/// What a value of `BACKENDS` says; nothing if its index is free.
fn installed_backend(index: u32, backend: Backend) -> Option<(SocketAddr, InstalledBackend)> {
    let mut octets = [0; 16];
    for (bytes, word) in octets.chunks_exact_mut(4).zip(backend.address) {
        bytes.copy_from_slice(&word.to_ne_bytes());
    }
    let (ip, port) = (Ipv6Addr::from(octets).to_canonical(), backend.port.host());
    let generation = backend.generation;
    let installed = InstalledBackend {
        id: BackendId { index, generation },
        weight: backend.weight,
        counted_at: BackendId::from_bits(backend.counted_at),
    };
    (port != 0).then_some((SocketAddr::new(ip, port), installed))
}
