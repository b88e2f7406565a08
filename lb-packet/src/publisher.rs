//! Tells the programs what is desired, and knows what they were told.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    os::fd::{AsFd as _, OwnedFd},
    time::{Duration, Instant},
};

use aya::{
    maps::{Array, HashMap, MapData, MapError, PerCpuArray, PerCpuValues},
    util::nr_cpus,
};
use lb_common::{
    Be32,
    packet::{
        Endpoint, EndpointKey, Hop, Maglev, Settings, Target, Traffic, endpoint_flag,
        packet_map as map,
    },
};

use crate::{
    Desired, Error, Limits, Programs,
    address::{address, address4, be32, socket, words},
    book::{Book, Found, Home, Placed},
    error::there,
    free_list::REST,
    plan::{self, Refused, SLOTS, Step},
};

/// What was done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Endpoints that came or changed.
    pub published: usize,
    /// Endpoints that went.
    pub removed: usize,
    /// Backends that came.
    pub placed: usize,
    /// Backends that went; their flows are over.
    pub freed: usize,
    /// What there is no room for.
    pub refused: Vec<Refused>,
    /// When to call again although nothing else changed: backends are freed, or indexes have rested, a while after.
    pub again: Option<Instant>,
}

/// How long it took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Times {
    /// To find out what is to be done, and to make the tables.
    pub planning: Duration,
    /// To write it into the maps.
    pub writing: Duration,
}

/// The writer of the maps. There is one at a time.
pub struct Publisher {
    maps: Maps,
    book: Book,
    times: Times,
    /// A table on its way into the map: 128 KiB that are not made anew each time.
    table: Box<Maglev>,
}

struct Maps {
    endpoints: HashMap<MapData, EndpointKey, Endpoint>,
    maglevs: Array<MapData, Maglev>,
    tables: Tables,
    targets: Array<MapData, Target>,
    hops: Array<MapData, Hop>,
    vips: HashMap<MapData, u32, u32>,
    hosts: HashMap<MapData, [u32; 4], u32>,
    settings: Array<MapData, Settings>,
    service_traffic: PerCpuArray<MapData, Traffic>,
    target_traffic: PerCpuArray<MapData, Traffic>,
    cpus: usize,
}

impl Publisher {
    /// Opens the maps and reads back what an earlier agent left in them.
    ///
    /// # Errors
    /// When the kernel refuses a read.
    pub fn open(programs: &mut Programs) -> Result<Self, Error> {
        let maps = Maps {
            endpoints: programs.map(map::ENDPOINTS)?,
            maglevs: programs.map(map::MAGLEVS)?,
            tables: Tables::open(programs)?,
            targets: programs.map(map::TARGETS)?,
            hops: programs.map(map::HOPS)?,
            vips: programs.map(map::VIPS)?,
            hosts: programs.map(map::HOSTS)?,
            settings: programs.map(map::SETTINGS)?,
            service_traffic: programs.map(map::SERVICE_TRAFFIC)?,
            target_traffic: programs.map(map::TARGET_TRAFFIC)?,
            cpus: nr_cpus()
                .map_err(|(_, error)| Error::system("count the CPUs for", map::FATES)(error))?,
        };
        let limits = programs.limits();
        let book = if programs.has_new_maps() {
            Book::empty(limits)
        } else {
            maps.read_back(limits)?
        };
        let table = Box::new(Maglev {
            slots: [0; SLOTS + 3],
        });
        Ok(Self {
            maps,
            book,
            times: Times::default(),
            table,
        })
    }

    /// Brings the maps to what is desired. May be called as often as one likes: what is so already costs nothing.
    ///
    /// # Errors
    /// When the kernel refuses a write. What was done until then is known, and the next call does the rest.
    pub fn apply(&mut self, desired: &Desired) -> Result<Report, Error> {
        let now = Instant::now();
        let plan = plan::plan(&self.book, desired, now);
        let planned = Instant::now();
        let mut report = Report {
            refused: plan.refused,
            again: plan.again,
            ..Report::default()
        };
        let done = self.carry_out(&plan.steps, &mut report);
        if (report.refused.iter()).any(|it| matches!(it, Refused::Host(_) | Refused::Vip(_))) {
            // The plan may have made room after it needed some.
            report.again = [report.again, Some(now + REST)].into_iter().flatten().min();
        }
        self.times = Times {
            planning: planned - now,
            writing: planned.elapsed(),
        };
        let whole = done.is_ok() && report.refused.is_empty();
        self.book.settle(desired, whole);
        done.map(|()| report)
    }

    fn carry_out(&mut self, steps: &[Step], report: &mut Report) -> Result<(), Error> {
        for step in steps {
            if let Err(error) = self.maps.carry_out(step, &mut self.table) {
                // A map that is full of these keeps nothing else from being told.
                report.refused.push(match step {
                    Step::PutHost(host) if is_full(&error) => Refused::Host(*host),
                    Step::PutVip(vip) if is_full(&error) => Refused::Vip(*vip),
                    _ => return Err(error),
                });
                continue;
            }
            // The time when it was done: the rest of an index begins then.
            self.book.note(step, Instant::now());
            match step {
                Step::PutEndpoint { .. } => report.published += 1,
                Step::RemoveEndpoint(_) => report.removed += 1,
                Step::PutTarget { fresh: true, .. } => report.placed += 1,
                Step::FreeTarget { .. } => report.freed += 1,
                _ => {}
            }
        }
        Ok(())
    }

    /// How long the last [`Publisher::apply`] took.
    pub fn times(&self) -> Times {
        self.times
    }

    /// What the programs were told last of what may change while they run.
    pub fn settings(&self) -> Settings {
        self.book.settings
    }

    /// The endpoints that the programs know, each with its index in `SERVICE_TRAFFIC`.
    pub fn endpoints(&self) -> impl Iterator<Item = (EndpointKey, Endpoint)> {
        self.book
            .endpoints
            .iter()
            .map(|(key, placed)| (*key, placed.endpoint))
    }

    /// The backends that flows may name, each with its index and what the programs know of it.
    pub fn targets(&self) -> impl Iterator<Item = (SocketAddr, u32, Target)> {
        self.book
            .targets
            .iter()
            .map(|(address, home)| (*address, home.index, home.target))
    }
}

impl Maps {
    fn carry_out(&mut self, step: &Step, room: &mut Maglev) -> Result<(), Error> {
        match step {
            Step::PutSettings(settings) => self
                .settings
                .set(0, *settings, 0)
                .map_err(Error::map("write", map::SETTINGS)),
            Step::PutHost(host) => self
                .hosts
                .insert(words(*host), 1, 0)
                .map_err(Error::map("write", map::HOSTS)),
            Step::RemoveHost(host) => there(self.hosts.remove(&words(*host)))
                .map(drop)
                .map_err(Error::map("remove from", map::HOSTS)),
            Step::PutVip(vip) => self
                .vips
                .insert(be32(*vip).raw(), 1, 0)
                .map_err(Error::map("write", map::VIPS)),
            Step::RemoveVip(vip) => there(self.vips.remove(&be32(*vip).raw()))
                .map(drop)
                .map_err(Error::map("remove from", map::VIPS)),
            Step::PutTarget { home, fresh, .. } => {
                if *fresh {
                    let none = self.nothing(map::TARGET_TRAFFIC)?;
                    self.target_traffic
                        .set(home.index, none, 0)
                        .map_err(Error::map("write", map::TARGET_TRAFFIC))?;
                }
                self.targets
                    .set(home.index, home.target, 0)
                    .map_err(Error::map("write", map::TARGETS))?;
                // It leads to the one before, or to its host of before.
                self.hops
                    .set(home.index, Hop::default(), 0)
                    .map_err(Error::map("write", map::HOPS))
            }
            Step::PutTable { table, slots, .. } => {
                room.slots[..SLOTS].copy_from_slice(slots);
                let value: &Maglev = room;
                self.maglevs
                    .set(*table, value, 0)
                    .map_err(Error::map("write", map::MAGLEVS))
            }
            Step::PutEndpoint { key, placed, fresh } => {
                if *fresh {
                    let none = self.nothing(map::SERVICE_TRAFFIC)?;
                    let set = self.service_traffic.set(placed.endpoint.service, none, 0);
                    set.map_err(Error::map("write", map::SERVICE_TRAFFIC))?;
                }
                self.endpoints
                    .insert(key, placed.endpoint, 0)
                    .map_err(Error::map("write", map::ENDPOINTS))
            }
            Step::Recognise { .. } => Ok(()),
            Step::RemoveEndpoint(key) => there(self.endpoints.remove(key))
                .map(drop)
                .map_err(Error::map("remove from", map::ENDPOINTS)),
            Step::FreeTarget { home, .. } => {
                let free = Target {
                    generation: home.target.generation,
                    ..Target::default()
                };
                self.targets
                    .set(home.index, free, 0)
                    .map_err(Error::map("write", map::TARGETS))
            }
        }
    }

    fn nothing(&self, map: &'static str) -> Result<PerCpuValues<Traffic>, Error> {
        PerCpuValues::try_from(vec![Traffic::default(); self.cpus])
            .map_err(Error::system("write", map))
    }

    fn read_back(&self, limits: Limits) -> Result<Book, Error> {
        let mut found = Found {
            settings: self
                .settings
                .get(&0, 0)
                .map_err(Error::map("read", map::SETTINGS))?,
            ..Found::default()
        };
        for index in 1..=limits.backends {
            let target = self
                .targets
                .get(&index, 0)
                .map_err(Error::map("read", map::TARGETS))?;
            if target.generation != 0 {
                found.generations.insert(index, target.generation);
            }
            if target.port.raw() != 0 {
                found
                    .targets
                    .insert(socket(target.address, target.port), Home { index, target });
            }
        }
        for entry in self.endpoints.iter() {
            let (key, endpoint) = entry.map_err(Error::map("read", map::ENDPOINTS))?;
            let slots = if endpoint.flags & endpoint_flag::EMPTY == 0 {
                self.tables.read(endpoint.table)?
            } else {
                Vec::new()
            };
            let placed = Placed {
                endpoint,
                digest: plan::digest(&slots),
                named: named(&slots),
                members: None,
            };
            found.endpoints.insert(key, placed);
        }
        for entry in self.vips.iter() {
            let (vip, _): (u32, u32) = entry.map_err(Error::map("read", map::VIPS))?;
            found.vips.insert(vip_address(vip));
        }
        for entry in self.hosts.iter() {
            let (host, _): ([u32; 4], u32) = entry.map_err(Error::map("read", map::HOSTS))?;
            let host: IpAddr = address(host);
            found.hosts.insert(host);
        }
        Ok(Book::found(found, limits, Instant::now()))
    }
}

/// Reads tables, by way of the heap: a value is larger than what a stack should hold several copies of.
pub(crate) struct Tables(OwnedFd);

impl Tables {
    pub(crate) fn open(programs: &Programs) -> Result<Self, Error> {
        programs.descriptor(map::MAGLEVS).map(Self)
    }

    /// The slots of the table at an index of `MAGLEVS`.
    pub(crate) fn read(&self, table: u32) -> Result<Vec<u16>, Error> {
        let value = lb_sys::bpf::array_value(self.0.as_fd(), table);
        let value = value.map_err(Error::system("read", map::MAGLEVS))?;
        let slots = value.chunks_exact(2).take(SLOTS);
        Ok(slots
            .map(|slot| u16::from_ne_bytes([slot[0], slot[1]]))
            .collect())
    }
}

/// The indexes in a table. There are as many slots as can be indexes: a mark for each is faster than a set that grows.
fn named(slots: &[u16]) -> BTreeSet<u32> {
    let mut marks = vec![false; usize::from(u16::MAX) + 1];
    for &slot in slots {
        marks[usize::from(slot)] = true;
    }
    (0..)
        .zip(marks)
        .filter_map(|(index, marked)| marked.then_some(index))
        .collect()
}

fn vip_address(raw: u32) -> Ipv4Addr {
    address4(Be32::from_raw(raw))
}

/// Whether a map had no room.
fn is_full(error: &Error) -> bool {
    let Error::Map { source, .. } = error else {
        return false;
    };
    let MapError::SyscallError(error) = &**source else {
        return false;
    };
    error.io_error.raw_os_error() == Some(nix::errno::Errno::E2BIG as i32)
}
