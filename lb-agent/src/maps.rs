//! The maps of the kernel programs: the only module that reads and writes them.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddrV4},
    os::fd::{AsRawFd, RawFd},
    time::Instant,
};

use aya::{
    maps::{Array, HashMap, MapData, MapError, PerCpuArray, PerCpuValues, RingBuf},
    util::nr_cpus,
};
use lb_common::{
    Active, Backend, BackendId, Balance, Counters, Cursor, Event, Service, ServiceKey, Suspect,
    Table, map,
};
use thiserror::Error;

use crate::{
    installed::{Installed, InstalledBackend, InstalledService, Room},
    plan::{Step, backend_value},
    programs::Programs,
    stats::MapFill,
};

/// A map operation that the kernel refused.
#[derive(Debug, Error)]
#[error("cannot {verb} map {map}")]
pub struct Error {
    verb: &'static str,
    map: &'static str,
    #[source]
    source: MapError,
}

fn failed(verb: &'static str, map: &'static str) -> impl FnOnce(MapError) -> Error {
    move |source| Error { verb, map, source }
}

/// The open maps. What they hold is in [`Installed`], which the caller keeps.
pub struct Maps {
    services: HashMap<MapData, ServiceKey, Service>,
    tables: Array<MapData, Table>,
    cursors: Array<MapData, Cursor>,
    counters: PerCpuArray<MapData, Counters>,
    backends: Array<MapData, Backend>,
    suspects: Array<MapData, Suspect>,
    active: Array<MapData, Active>,
    /// Of `SERVICES`: a hash does not tell its size.
    service_capacity: u32,
}

/// What the kernel tells about backends, as it happens.
pub struct Events(RingBuf<MapData>);

macro_rules! take {
    ($ebpf:expr, $name:expr) => {
        $ebpf
            .take_map($name)
            .ok_or(MapError::InvalidName {
                name: $name.to_owned(),
            })
            .and_then(TryFrom::try_from)
            .map_err(failed("open", $name))
    };
}

impl Maps {
    /// Takes the maps out of the loaded object.
    ///
    /// # Errors
    /// When one is missing or of another kind.
    pub fn open(programs: &mut Programs) -> Result<(Self, Events), Error> {
        let service_capacity = programs.service_capacity();
        let ebpf = programs.ebpf();
        let maps = Self {
            services: take!(ebpf, map::SERVICES)?,
            tables: take!(ebpf, map::TABLES)?,
            cursors: take!(ebpf, map::CURSORS)?,
            counters: take!(ebpf, map::COUNTERS)?,
            backends: take!(ebpf, map::BACKENDS)?,
            suspects: take!(ebpf, map::SUSPECTS)?,
            active: take!(ebpf, map::ACTIVE)?,
            service_capacity,
        };
        Ok((maps, Events(take!(ebpf, map::EVENTS)?)))
    }

    /// How much the maps that belong together all have room for. An adopted map keeps its size, so they may
    /// differ.
    pub fn room(&self) -> Room {
        Room {
            services: self
                .tables
                .len()
                .min(self.cursors.len())
                .min(self.counters.len())
                .min(self.service_capacity),
            backends: self
                .backends
                .len()
                .min(self.suspects.len())
                .min(self.active.len()),
        }
    }

    /// Reads back what an earlier agent left in the maps.
    ///
    /// # Errors
    /// When the kernel refuses a read.
    pub fn read_back(&self) -> Result<Installed, Error> {
        let room = self.room();
        let mut generations = BTreeMap::new();
        let mut backends: BTreeMap<SocketAddrV4, InstalledBackend> = BTreeMap::new();
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
        Ok(Installed::found(
            services,
            backends,
            generations,
            room,
            Instant::now(),
        ))
    }

    /// What the maps hold at a backend index.
    ///
    /// # Errors
    /// When the kernel refuses the read.
    pub fn backend(&self, index: u32) -> Result<Option<(SocketAddrV4, InstalledBackend)>, Error> {
        Ok(installed_backend(index, self.raw_backend(index)?))
    }

    fn raw_backend(&self, index: u32) -> Result<Backend, Error> {
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
            slots: half
                .slots
                .into_iter()
                .take(service.count as usize)
                .collect(),
        })
    }

    /// Carries out one step and, once the kernel has taken it, notes it in `installed`.
    ///
    /// # Errors
    /// When the kernel refuses a write; `installed` is then unchanged and the step can be tried again.
    pub fn carry_out(&mut self, step: &Step, installed: &mut Installed) -> Result<(), Error> {
        match step {
            Step::PutBackend {
                address,
                id,
                weight,
                fresh,
            } => {
                if *fresh {
                    self.clear_suspicion(id.index)?;
                }
                self.backends
                    .set(id.index, backend_value(*address, *id, *weight), 0)
                    .map_err(failed("write", map::BACKENDS))?;
            }
            Step::PutService {
                key,
                service,
                fresh,
            } => {
                if *fresh {
                    self.clear_figures(service.table)?;
                }
                let mut table = self
                    .tables
                    .get(&service.table, 0)
                    .map_err(failed("read", map::TABLES))?;
                table.halves[(service.half & 1) as usize] = service.half(key.vip);
                self.tables
                    .set(service.table, table, 0)
                    .map_err(failed("write", map::TABLES))?;
                self.services
                    .insert(*key, service.value(), 0)
                    .map_err(failed("write", map::SERVICES))?;
            }
            Step::RemoveService { key } => match self.services.remove(key) {
                Ok(()) | Err(MapError::KeyNotFound) => {}
                Err(error) => return Err(failed("remove from", map::SERVICES)(error)),
            },
            Step::FreeBackend { address } => {
                if let Some(backend) = installed.backends.get(address) {
                    // The generation stays: the id never comes back.
                    let free = Backend {
                        generation: backend.id.generation,
                        ..Backend::default()
                    };
                    self.backends
                        .set(backend.id.index, free, 0)
                        .map_err(failed("write", map::BACKENDS))?;
                }
            }
        }
        installed.apply(step, Instant::now());
        Ok(())
    }

    /// Ends the kernel's suspicion of a backend.
    ///
    /// # Errors
    /// When the kernel refuses the write.
    pub fn clear_suspicion(&mut self, index: u32) -> Result<(), Error> {
        self.suspects
            .set(index, Suspect::default(), 0)
            .map_err(failed("write", map::SUSPECTS))
    }

    /// Open flows of a backend.
    ///
    /// # Errors
    /// When the kernel refuses the read.
    pub fn active(&self, index: u32) -> Result<u64, Error> {
        // A count below zero would be a fault of the programs; show it as none rather than as 2^64.
        let flows = self
            .active
            .get(&index, 0)
            .map_err(failed("read", map::ACTIVE))?
            .flows;
        Ok(if flows > u64::MAX / 2 { 0 } else { flows })
    }

    /// Coarse monotonic nanoseconds until which the kernel skips a backend; 0 when it does not.
    ///
    /// # Errors
    /// When the kernel refuses the read.
    pub fn suspected_until(&self, index: u32) -> Result<u64, Error> {
        Ok(self
            .suspects
            .get(&index, 0)
            .map_err(failed("read", map::SUSPECTS))?
            .until_ns)
    }

    /// Figures of one table, summed over the CPUs.
    ///
    /// # Errors
    /// When the kernel refuses the read.
    pub fn counters(&self, table: u32) -> Result<Counters, Error> {
        let per_cpu = self
            .counters
            .get(&table, 0)
            .map_err(failed("read", map::COUNTERS))?;
        Ok(per_cpu
            .iter()
            .fold(Counters::default(), |sum, cpu| Counters {
                flows: sum.flows + cpu.flows,
                refused: sum.refused + cpu.refused,
                failed: sum.failed + cpu.failed,
                spare: 0,
            }))
    }

    /// How full the maps are.
    pub fn fill(&self, installed: &Installed) -> BTreeMap<&'static str, MapFill> {
        let fill = |entries: usize, capacity: u32| MapFill {
            entries: entries as u64,
            // Index 0 is never given out.
            capacity: capacity.saturating_sub(1).into(),
        };
        let room = self.room();
        BTreeMap::from([
            (map::SERVICES, fill(installed.services.len(), room.services)),
            (map::BACKENDS, fill(installed.backends.len(), room.backends)),
        ])
    }

    fn clear_figures(&mut self, table: u32) -> Result<(), Error> {
        let cpus = nr_cpus().map_err(|(_, error)| failed("size", map::COUNTERS)(error.into()))?;
        let zeroes = PerCpuValues::try_from(vec![Counters::default(); cpus])
            .map_err(|error| failed("size", map::COUNTERS)(error.into()))?;
        self.counters
            .set(table, zeroes, 0)
            .map_err(failed("write", map::COUNTERS))?;
        self.cursors
            .set(table, Cursor::default(), 0)
            .map_err(failed("write", map::CURSORS))
    }
}

/// What a value of `BACKENDS` says; nothing if its index is free.
fn installed_backend(index: u32, backend: Backend) -> Option<(SocketAddrV4, InstalledBackend)> {
    let (ip, port) = (Ipv4Addr::from(backend.address.host()), backend.port.host());
    let generation = backend.generation;
    let installed = InstalledBackend {
        id: BackendId { index, generation },
        weight: backend.weight,
    };
    (port != 0).then_some((SocketAddrV4::new(ip, port), installed))
}

impl Events {
    /// Takes the next event, if one is waiting.
    pub fn take(&mut self) -> Option<Event> {
        let item = self.0.next()?;
        let word = |at: usize| Some(u32::from_ne_bytes(item.get(at..at + 4)?.try_into().ok()?));
        let (low, high) = (word(0)?, word(4)?);
        Some(Event {
            backend: u64::from(high) << 32 | u64::from(low),
            kind: word(8)?,
            table: word(12)?,
        })
    }
}

impl AsRawFd for Events {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}
