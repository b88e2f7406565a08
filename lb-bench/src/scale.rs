//! What a large file of services costs the agent: the time until it is in the kernel's maps, the time of one change, and
//! memory.
//!
//! The agent is that of the image, a process of its own with everything it usually does, in a namespace and a cgroup of
//! its own. Nothing asks it: the maps are read from outside, as the kernel's programs would find them.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use aya::maps::{Array, Map, MapData};
use lb_common::{Backend, ServiceKey, Table, map};
use lb_testkit::{Cgroup, Netns};
use serde::Serialize;

use crate::{
    statistics::{median, percentile},
    subject::{Services, Subject, last_words, pinned, resident_mb, services},
};

/// The figures.
#[derive(Debug, Serialize)]
pub(crate) struct Figures {
    /// From the start of the agent, or from the moment in which the file is there, whichever takes longer, until all of
    /// it is in the maps.
    pub(crate) full_load_s: f64,
    /// From the moment in which the file with one change is there until the map has it: the median.
    pub(crate) one_change_ms: f64,
    /// The same at the 99th percentile.
    pub(crate) one_change_p99_ms: f64,
    /// What the agent keeps in memory after that.
    pub(crate) rss_mb: f64,
    /// The same of the front.
    pub(crate) front_rss_mb: f64,
    /// Of one CPU, while changes come one after the other without a pause.
    pub(crate) cpu_share: f64,
}

/// Measures with so many services of so many instances each, and so many changes.
///
/// # Errors
/// When the agent cannot be started, or does not bring the services into the maps in time.
pub(crate) fn measure(
    services: usize,
    instances: usize,
    changes: usize,
    bare: bool,
) -> Result<Figures> {
    inside(bare, |stage| {
        let Stage {
            folder,
            bpffs,
            netns,
            agents,
        } = stage;
        let file = ServicesFile::new(folder, services, instances);
        // Once the whole file at the start of the first agent, once it replaces an empty one.
        file.publish()?;
        let began = Instant::now();
        let mut agent = Subject::start(folder, netns, agents)?;
        let at_start = await_full(bpffs, &file, began, &mut agent)?;
        file.publish_text("service = []\n")?;
        await_count(bpffs, 0, &mut agent)?;
        let replaced = file.publish()?;
        let replaced = await_full(bpffs, &file, replaced, &mut agent)?;

        let mut file = file;
        let cpu = cpu_time(agent.id())?;
        let began = Instant::now();
        let times = one_by_one(bpffs, &mut file, changes, &mut agent)?;
        let cpu_share = (cpu_time(agent.id())? - cpu).as_secs_f64() / began.elapsed().as_secs_f64();
        let front = agents
            .processes()?
            .into_iter()
            .find(|&process| process != agent.id());
        let figures = Figures {
            full_load_s: at_start.max(replaced).as_secs_f64(),
            one_change_ms: median(&times).context("no change was measured")?,
            one_change_p99_ms: percentile(&times, 99).context("no change was measured")?,
            rss_mb: resident_mb(agent.id())?,
            front_rss_mb: front.map_or(Ok(0.0), resident_mb)?,
            cpu_share,
        };
        agent.end()?;
        Ok(figures)
    })
}

/// Does `look` while an agent has so many services of so many instances each in the maps; the socket of its command line
/// is `admin.sock` in the folder.
///
/// # Errors
/// When the agent cannot be started, or does not bring the services into the maps in time, and what `look` says.
pub(crate) fn among<T: Send>(
    services: usize,
    instances: usize,
    look: impl FnOnce(&Path) -> Result<T> + Send,
) -> Result<T> {
    inside(false, |stage| {
        let file = ServicesFile::new(stage.folder, services, instances);
        file.publish()?;
        let began = Instant::now();
        let mut agent = Subject::start(stage.folder, stage.netns, stage.agents)?;
        await_full(&stage.bpffs, &file, began, &mut agent)?;
        let seen = look(stage.folder)?;
        agent.end()?;
        Ok(seen)
    })
}

/// Where an agent is started.
struct Stage<'a> {
    folder: &'a Path,
    bpffs: PathBuf,
    netns: &'a Netns,
    agents: &'a Cgroup,
}

/// Plays in a namespace of its own.
fn inside<T: Send>(bare: bool, play: impl FnOnce(&Stage<'_>) -> Result<T> + Send) -> Result<T> {
    let folder = tempfile::Builder::new().prefix("lb-bench-").tempdir()?;
    let folder = folder.path();
    let netns = Netns::new("bench-scale")?;
    let group = Cgroup::new("bench-scale")?;
    let agents = group.subgroup("agent")?;
    let clients = group.subgroup("client")?;
    let bpffs = folder.join("bpf");
    fs::create_dir(&bpffs).context("cannot make the folder of the bpf file system")?;
    netns.mount_bpffs(&bpffs)?;
    configure(folder, clients.path(), bare)?;
    let stage = Stage {
        folder,
        bpffs,
        netns: &netns,
        agents: &agents,
    };
    let played = netns.enter(|| play(&stage))?;
    played.with_context(|| format!("the agent's last words:\n{}", last_words(folder)))
}

/// Makes one change after the other, each in another service, and measures in milliseconds until the map has it.
fn one_by_one(
    bpffs: &Path,
    file: &mut ServicesFile,
    changes: usize,
    agent: &mut Subject,
) -> Result<Vec<f64>> {
    let maps = Maps::open(bpffs)?;
    let keys = maps.keys_by_service()?;
    let mut times = Vec::with_capacity(changes);
    for change in 0..changes {
        // Spread over the file, and never the same twice in a row.
        let service = change * 7919 % file.services.len();
        let weights = &mut file.services[service];
        match change % 3 {
            0 => weights[0] += 1,
            1 => weights.push(1),
            _ if weights.len() > 1 => drop(weights.pop()),
            // Without its last instance the map would never have it: a service that is emptied is no change of this kind.
            _ => weights.push(1),
        }
        let key = keys.get(&service).context("a service is not in the map")?;
        let before = maps.services.get(key, 0)?.generation;
        let began = file.publish()?;
        agent
            .wait_until(Duration::from_micros(20), || {
                Ok(maps.services.get(key, 0)?.generation != before)
            })
            .with_context(|| format!("change {change} does not reach the map"))?;
        times.push(began.elapsed().as_secs_f64() * 1000.0);
    }
    Ok(times)
}

/// Waits until every service is in the maps with all its instances.
fn await_full(
    bpffs: &Path,
    file: &ServicesFile,
    began: Instant,
    agent: &mut Subject,
) -> Result<Duration> {
    await_count(bpffs, file.services.len(), agent)?;
    let maps = Maps::open(bpffs)?;
    let instances = file.services[0].len();
    agent
        .wait_until(Duration::from_millis(5), || {
            for entry in maps.services.iter() {
                if entry?.1.count as usize != instances {
                    return Ok(false);
                }
            }
            Ok(true)
        })
        .with_context(|| format!("not every service comes to {instances} instances"))?;
    Ok(began.elapsed())
}

fn await_count(bpffs: &Path, count: usize, agent: &mut Subject) -> Result<()> {
    agent
        .wait_until(Duration::from_millis(5), || {
            // The agent may not have made them yet.
            let Ok(maps) = Maps::open(bpffs) else {
                return Ok(false);
            };
            Ok(maps.services.keys().filter(Result::is_ok).count() == count)
        })
        .with_context(|| format!("the maps do not come to {count} services"))
}

/// The agent's maps, read only.
struct Maps {
    services: Services,
    tables: Array<MapData, Table>,
    backends: Array<MapData, Backend>,
}

impl Maps {
    fn open(bpffs: &Path) -> Result<Self> {
        Ok(Self {
            services: services(bpffs)?,
            tables: Map::Array(pinned(bpffs, map::TABLES)?).try_into()?,
            backends: Map::Array(pinned(bpffs, map::BACKENDS)?).try_into()?,
        })
    }

    /// The key of every service, by its number: its first backend tells whose it is.
    fn keys_by_service(&self) -> Result<BTreeMap<usize, ServiceKey>> {
        let mut keys = BTreeMap::new();
        for entry in self.services.iter() {
            let (key, service) = entry?;
            let table = self.tables.get(&service.table, 0)?;
            let backend = table.halves[(service.half & 1) as usize].slots[0];
            let backend = self.backends.get(&backend, 0)?;
            // All are IPv4: the last four bytes.
            let address = Ipv4Addr::from(u32::from_be(backend.address[3]));
            keys.insert(service_at(address), key);
        }
        Ok(keys)
    }
}

/// The address of an instance: the service's number in the first 17 bits after `10`, its own in the last seven.
fn address(service: usize, instance: usize) -> Ipv4Addr {
    let number = service << INSTANCE_BITS | instance;
    Ipv4Addr::from(10 << 24 | u32::try_from(number).unwrap_or(0))
}

fn service_at(address: Ipv4Addr) -> usize {
    (u32::from(address) & 0x00ff_ffff) as usize >> INSTANCE_BITS
}

const INSTANCE_BITS: u32 = 7;

/// The file, as weights of the instances of each service.
struct ServicesFile {
    folder: PathBuf,
    services: Vec<Vec<u16>>,
}

impl ServicesFile {
    fn new(folder: &Path, services: usize, instances: usize) -> Self {
        Self {
            folder: folder.to_owned(),
            services: vec![vec![1; instances]; services],
        }
    }

    /// Puts it in place; when that was.
    fn publish(&self) -> Result<Instant> {
        let mut text = String::new();
        for (service, weights) in self.services.iter().enumerate() {
            write!(
                text,
                "[[service]]\nname = \"service-{service}\"\noptions.lb_check = \"off\"\ninstance = [\n"
            )?;
            for (instance, weight) in weights.iter().enumerate() {
                let address = address(service, instance);
                writeln!(
                    text,
                    "  {{ id = \"i-{service}-{instance}\", address = \"{address}\", port = 8080, weight = {weight} }},"
                )?;
            }
            text.push_str("]\n\n");
        }
        self.publish_text(&text)
    }

    fn publish_text(&self, text: &str) -> Result<Instant> {
        let new = self.folder.join("services.new");
        fs::write(&new, text).context("cannot write the services")?;
        let began = Instant::now();
        fs::rename(&new, self.folder.join("services.toml")).context("cannot name the services")?;
        Ok(began)
    }
}

fn configure(folder: &Path, cgroup: &Path, bare: bool) -> Result<()> {
    let others = !bare;
    let (folder_name, cgroup) = (folder.display(), cgroup.display());
    let text = format!(
        "state_dir = \"{folder_name}/state\"\nbpffs = \"{folder_name}/bpf\"\ncgroup = \"{cgroup}\"\n\
         socket = \"{folder_name}/admin.sock\"\n\
         [sources.docker]\nsocket = \"off\"\n\
         [sources.file]\npath = \"{folder_name}/services.toml\"\n\
         [dns]\nenabled = {others}\nupstreams = []\n[front]\nenabled = {others}\n\
         [limits]\nservices = 16384\nbackends = 131072\n"
    );
    fs::write(folder.join("lb.toml"), text).context("cannot write the configuration")
}

/// The time that a process has had on CPUs (`proc_pid_stat(5)`, fields 14 and 15, in hundredths of a second).
fn cpu_time(process: u32) -> Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat"))
        .context("cannot read the time of a process")?;
    // The second field is a name in parentheses, which may hold anything.
    let (_, fields) = stat.rsplit_once(')').context("a process has a name")?;
    let ticks = fields.split_whitespace().skip(11).take(2);
    let ticks: u64 = ticks.filter_map(|field| field.parse::<u64>().ok()).sum();
    Ok(Duration::from_millis(ticks * 10))
}
