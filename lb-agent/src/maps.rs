//! The maps of the kernel programs: the only module that reads and writes them. Here they are opened, and steps are
//! carried out.

pub(crate) mod previous;
mod read_back;
pub(crate) mod told;

use std::{collections::BTreeMap, io::ErrorKind, path::Path, time::Instant};

use aya::{
    maps::{Array, HashMap, MapData, MapError, PerCpuArray, PerCpuValues},
    util::nr_cpus,
};
use lb_common::{
    Active, Affinity, AffinityKey, Backend, Client, Counters, Cursor, Latency, Service, ServiceKey,
    Suspect, Table, map,
};
use thiserror::Error;

pub use self::told::{Events, Traces};
use crate::{
    installed::{Installed, InstalledBackend, Room},
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
    latencies: Array<MapData, Latency>,
    clients: HashMap<MapData, u64, Client>,
    affinity: HashMap<MapData, AffinityKey, Affinity>,
    /// What an agent of the version before counted, if there was one.
    former_counters: Option<previous::FormerCounters>,
    /// Of `SERVICES`: a hash does not tell its size.
    service_capacity: u32,
    /// Whether they were made for this agent, and are empty until it writes.
    new: bool,
}

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
    /// Takes the maps out of the loaded object. Those of the version before are copied into them, if an agent of it was
    /// the last one.
    ///
    /// # Errors
    /// When one is missing or of another kind, or cannot be copied.
    pub fn open(programs: &mut Programs) -> Result<(Self, Events, Traces), Error> {
        let service_capacity = programs.service_capacity();
        let new = programs.has_new_maps();
        let former = programs.to_take_over().map(Path::to_owned);
        let former_counters = programs.former_counters().map(previous::counters);
        let former_counters = former_counters.transpose()?;
        let ebpf = programs.ebpf();
        let mut maps = Self {
            services: take!(ebpf, map::SERVICES)?,
            tables: take!(ebpf, map::TABLES)?,
            cursors: take!(ebpf, map::CURSORS)?,
            counters: take!(ebpf, map::COUNTERS)?,
            backends: take!(ebpf, map::BACKENDS)?,
            suspects: take!(ebpf, map::SUSPECTS)?,
            active: take!(ebpf, map::ACTIVE)?,
            latencies: take!(ebpf, map::LATENCIES)?,
            clients: take!(ebpf, map::CLIENTS)?,
            affinity: take!(ebpf, map::AFFINITY)?,
            former_counters,
            service_capacity,
            new,
        };
        let events = Events(take!(ebpf, map::EVENTS)?);
        if let Some(folder) = former
            && !maps.take_over(&folder)?
        {
            tracing::warn!(
                folder = %folder.display(),
                "the maps of the version before are out of date and not taken over"
            );
        }
        Ok((maps, events, Traces(take!(ebpf, map::TRACES)?)))
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
                .min(self.latencies.len())
                .min(self.active.len()),
        }
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
                counted_at,
                fresh,
            } => {
                if *fresh {
                    self.clear_suspicion(id.index)?;
                    self.latencies
                        .set(id.index, Latency::default(), 0)
                        .map_err(failed("write", map::LATENCIES))?;
                }
                let backend = InstalledBackend {
                    id: *id,
                    weight: *weight,
                    counted_at: *counted_at,
                };
                self.backends
                    .set(id.index, backend_value(*address, backend), 0)
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
                table.halves[(service.half & 1) as usize] = service.half(*key);
                self.tables
                    .set(service.table, table, 0)
                    .map_err(failed("write", map::TABLES))?;
                self.services
                    .insert(*key, service.value(), 0)
                    .map_err(failed("write", map::SERVICES))?;
            }
            Step::RemoveService { key } => {
                gone(self.services.remove(key)).map_err(failed("remove from", map::SERVICES))?;
            }
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

    /// How connects to the address of a backend went.
    ///
    /// # Errors
    /// When the kernel refuses the read.
    pub fn latency(&self, index: u32) -> Result<Latency, Error> {
        self.latencies
            .get(&index, 0)
            .map_err(failed("read", map::LATENCIES))
    }

    /// Where the client with this network namespace cookie is said to stand.
    ///
    /// # Errors
    /// When the kernel refuses a read.
    pub fn clients(&self) -> Result<BTreeMap<u64, Client>, Error> {
        let clients = self.clients.iter();
        clients
            .collect::<Result<_, _>>()
            .map_err(failed("read", map::CLIENTS))
    }

    /// The backend that a client was given last, where that is to be kept.
    ///
    /// # Errors
    /// When the kernel refuses the read.
    pub fn affinity(&self, client: &AffinityKey) -> Result<Option<Affinity>, Error> {
        match self.affinity.get(client, 0) {
            Ok(kept) => Ok(Some(kept)),
            Err(MapError::KeyNotFound) => Ok(None),
            Err(error) => Err(failed("read", map::AFFINITY)(error)),
        }
    }

    /// Says where a client stands, or that it is not known.
    ///
    /// # Errors
    /// When the kernel refuses the write.
    pub fn set_client(&mut self, cookie: u64, client: Option<Client>) -> Result<(), Error> {
        match client {
            Some(client) => self
                .clients
                .insert(cookie, client, 0)
                .map_err(failed("write", map::CLIENTS)),
            None => gone(self.clients.remove(&cookie)).map_err(failed("remove from", map::CLIENTS)),
        }
    }

    /// Says where all `clients` stand, of whom the maps hold `told`. Who does not fit stands on the host for the programs,
    /// and keeps nobody else out.
    ///
    /// # Errors
    /// The first of what the kernel refuses, when all the rest is done; to be tried again.
    pub fn set_clients(
        &mut self,
        told: &mut BTreeMap<u64, Client>,
        clients: &BTreeMap<u64, Client>,
    ) -> Result<(), Error> {
        let mut refused = Ok(());
        // Those who are gone first: they leave room. No cookie ever comes back, so it is not the new ones' either.
        let gone = told.keys().filter(|cookie| !clients.contains_key(cookie));
        let gone: Vec<_> = gone.map(|&cookie| (cookie, None)).collect();
        let come = clients.iter().map(|(&cookie, &it)| (cookie, Some(it)));
        for (cookie, client) in gone.into_iter().chain(come) {
            if told.get(&cookie) == client.as_ref() {
                continue;
            }
            match self.set_client(cookie, client) {
                Ok(()) => drop(match client {
                    Some(client) => told.insert(cookie, client),
                    None => told.remove(&cookie),
                }),
                Err(error) => refused = refused.and(Err(error)),
            }
        }
        refused
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
        let former = self.former_counters.as_ref();
        let former = former.map(|former| previous::counted(former, table));
        let before = former.transpose()?.unwrap_or_default();
        Ok(per_cpu.iter().fold(before, |mut sum, cpu| {
            sum.flows += cpu.flows;
            sum.failed += cpu.failed;
            sum.untold += cpu.untold;
            for (sum, cpu) in sum.refused.iter_mut().zip(cpu.refused) {
                *sum += cpu;
            }
            sum
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
        if let Some(former) = &mut self.former_counters {
            previous::clear(former, table, cpus)?;
        }
        self.cursors
            .set(table, Cursor::default(), 0)
            .map_err(failed("write", map::CURSORS))
    }
}

/// Whether the removal of a key left none: it may not have been there.
fn gone(removed: Result<(), MapError>) -> Result<(), MapError> {
    match removed {
        // aya answers a look-up with the other error, but this with the kernel's own.
        Err(MapError::SyscallError(error)) if error.io_error.kind() == ErrorKind::NotFound => {
            Ok(())
        }
        Err(MapError::KeyNotFound) => Ok(()),
        other => other,
    }
}
