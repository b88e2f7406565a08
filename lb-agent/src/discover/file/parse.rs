//! The text of a services file as a catalog. Pure.
//!
//! A mistake of form (syntax, an unknown key, a wrong type) makes the whole file wrong; an entry that cannot be
//! used (a host name for an address, no port) is left out and reported, and the others go on.

use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    fmt,
    net::{IpAddr, SocketAddr},
    sync::{Arc, LazyLock},
};

use crate::{
    catalog::{Catalog, Instance, InstanceKey, Problem, Reach, SourceHealth},
    discover::server_address,
    document::{Lined, Mistake, Reader, Table},
    options::{dotted, is_dns_name},
};

/// Why a services file cannot be used: all its mistakes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct FileError {
    /// In the order of their lines.
    pub mistakes: Vec<Mistake>,
}

/// How many mistakes its text has: a file may have one in each of its lines, and the text is a line of the log.
const SHOWN: usize = 8;

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, mistake) in self.mistakes.iter().take(SHOWN).enumerate() {
            let separator = if index == 0 { "" } else { "; " };
            write!(f, "{separator}{mistake}")?;
        }
        match self.mistakes.len().saturating_sub(SHOWN) {
            0 => Ok(()),
            more => write!(f, "; and {more} more, which `lb-agent check-config` tells"),
        }
    }
}

/// The catalog that `text` describes.
///
/// # Errors
///
/// All mistakes of form.
pub fn parse(text: &str) -> Result<Catalog, FileError> {
    // Whoever rewrites a file in place empties it first: nothing is not the same as no service.
    if text.trim().is_empty() {
        let message = "the file is empty; write `service = []` if there is no service";
        return Err(FileError {
            mistakes: vec![Mistake {
                line: 1,
                message: message.to_owned(),
            }],
        });
    }
    let services = declared(text, &mut Common::default())?;
    let placed: Vec<_> = services.iter().map(|service| (0, service)).collect();
    Ok(catalog(&placed))
}

/// A `[[service]]` as it stands in a text. Lines count from the beginning of that text.
#[derive(Clone, Debug)]
pub(super) struct Declared {
    line: usize,
    /// Empty if it is to be left out.
    name: Arc<str>,
    instances: Arc<[Arc<Instance>]>,
    /// What is wrong with it, by line.
    problems: Vec<(usize, Problem)>,
}

/// What services have in common with their neighbours, and share.
#[derive(Debug, Default)]
pub(super) struct Common {
    tags: Arc<BTreeSet<String>>,
    meta: Arc<BTreeMap<String, String>>,
}

/// Every `[[service]]` of `text`.
///
/// # Errors
///
/// All mistakes of form.
pub(super) fn declared(text: &str, common: &mut Common) -> Result<Vec<Declared>, FileError> {
    let (mut reader, mut root) = Reader::open(text).map_err(|mistakes| FileError { mistakes })?;
    let tables = root.tables(&mut reader, "service").into_iter();
    let services = tables
        .filter_map(|table| service(&mut reader, table, common))
        .collect();
    root.finish(&mut reader);
    let mistakes = reader.finish();
    if mistakes.is_empty() {
        Ok(services)
    } else {
        Err(FileError { mistakes })
    }
}

/// The catalog of `services`, each with the number of lines before the text that it stands in.
pub(super) fn catalog(services: &[(usize, &Declared)]) -> Catalog {
    let usable = || services.iter().filter(|(_, it)| !it.name.is_empty());
    // Of two with one name the last one in this order counts: the first in the file.
    let named = usable().rev();
    let named = named.map(|(_, service)| (service.name.clone(), service.instances.clone()));
    let mut catalog = Catalog {
        services: named.collect(),
        problems: Vec::new(),
    };
    let doubled = catalog.services.len() < usable().count();
    let mut met = BTreeSet::new();
    for (before, service) in services {
        let theirs = service.problems.iter();
        let theirs = theirs.map(|(line, problem)| located(before + line, problem));
        catalog.problems.extend(theirs);
        if doubled && !service.name.is_empty() && !met.insert(&service.name) {
            let message = "declared twice; put all its instances into the first declaration, \
                           this one is left out";
            let problem = Problem::new(format!("service {}", service.name), message);
            let problem = located(before + service.line, &problem);
            catalog.problems.push(problem);
        }
    }
    catalog
}

fn located(line: usize, problem: &Problem) -> Problem {
    let message = format!("{} (line {line} of the file)", problem.message);
    Problem::new(problem.subject.clone(), message)
}

fn service(reader: &mut Reader, mut table: Table<'_>, common: &mut Common) -> Option<Declared> {
    let line = table.line;
    let name = table.string(reader, "name");
    let tags = share(&mut common.tags, tags(&mut table, reader));
    let options = table.table(reader, "options");
    let meta: BTreeMap<String, String> = options
        .map(|options| options.texts(reader))
        .unwrap_or_default()
        .into_iter()
        .map(|(key, text)| (key, text.value))
        .collect();
    let meta = share(&mut common.meta, meta);

    let subject = name
        .as_ref()
        .map_or("[[service]]", |name| name.value.as_str())
        .to_owned();
    let mut entries = Entries {
        service: &subject,
        tags,
        meta,
        met: 0,
        problems: Vec::new(),
    };
    let mut instances: BTreeMap<Arc<str>, Arc<Instance>> = BTreeMap::new();
    for table in table.tables(reader, "instance") {
        let line = table.line;
        let Some(instance) = entries.instance(reader, table) else {
            continue;
        };
        match instances.entry(instance.key.id.clone()) {
            Entry::Vacant(free) => {
                free.insert(Arc::new(instance));
            }
            Entry::Occupied(taken) => {
                let message = "its id is taken by an earlier instance; give it another one";
                entries.leave_out(taken.key(), line, message);
            }
        }
    }
    table.finish(reader);
    let mut problems = entries.problems;

    let Some(Lined { value: name, .. }) = name else {
        reader.report(line, "[[service]] needs a `name`");
        return None;
    };
    if let Some(message) = unfit(&name) {
        problems.push((line, Problem::new(format!("service {name}"), message)));
    }
    Some(Declared {
        line,
        name: name.into(),
        instances: instances.into_values().collect(),
        problems,
    })
}

/// `value`, or its equal in `last`, which becomes it.
fn share<T: Eq>(last: &mut Arc<T>, value: T) -> Arc<T> {
    if **last != value {
        *last = Arc::new(value);
    }
    Arc::clone(last)
}

impl PartialEq for Declared {
    /// Where it stands does not count.
    fn eq(&self, other: &Self) -> bool {
        let Self {
            line: _,
            name,
            instances,
            problems,
        } = self;
        (name, instances, problems) == (&other.name, &other.instances, &other.problems)
    }
}

impl Declared {
    /// Empty if it is to be left out, which is a problem.
    pub(super) fn name(&self) -> &Arc<str> {
        &self.name
    }

    pub(super) fn instances(&self) -> &Arc<[Arc<Instance>]> {
        &self.instances
    }

    pub(super) fn has_problems(&self) -> bool {
        !self.problems.is_empty()
    }

    /// Takes over what is the same in `before`, so that it keeps its allocation.
    pub(super) fn keep(&mut self, before: &Catalog) {
        let Some((name, before)) = before.services.get_key_value(&self.name) else {
            return;
        };
        self.name = name.clone();
        if **before == *self.instances {
            self.instances = before.clone();
            return;
        }
        // Both are sorted by their keys.
        let kept = |it: &Arc<Instance>| {
            let at = before.binary_search_by(|old| old.key.cmp(&it.key)).ok();
            let same = at.map(|at| &before[at]).filter(|old| *old == it);
            same.unwrap_or(it).clone()
        };
        self.instances = self.instances.iter().map(kept).collect();
    }
}

/// The instances of one service as far as they have been read.
struct Entries<'s> {
    service: &'s str,
    /// Those of the service, which all its instances have.
    tags: Arc<BTreeSet<String>>,
    meta: Arc<BTreeMap<String, String>>,
    /// Instances met, which is also the order of their registration.
    met: u64,
    problems: Vec<(usize, Problem)>,
}

impl Entries<'_> {
    fn instance(&mut self, reader: &mut Reader, mut table: Table<'_>) -> Option<Instance> {
        self.met += 1;
        let line = table.line;
        let id = table.string(reader, "id");
        let address = table.string(reader, "address");
        let port = table.integer(reader, "port");
        let weight = table.integer(reader, "weight");
        let mut tags = tags(&mut table, reader);
        let health = table.string(reader, "health");
        table.finish(reader);

        let Some(Lined { value: id, .. }) = id else {
            reader.report(line, "[[service.instance]] needs an `id`");
            return None;
        };
        let made = read_address(address)
            .and_then(|ip| Ok((SocketAddr::new(ip, read_port(port)?), read_weight(weight)?)))
            .and_then(|(address, weight)| Ok((address, weight, read_health(health)?)));
        let (address, weight, health) = match made {
            Ok(made) => made,
            Err(message) => {
                self.leave_out(&id, line, message);
                return None;
            }
        };
        Some(Instance {
            key: InstanceKey::new(node(), id),
            address,
            reach: Reach::default().shared(),
            local: true,
            container: None,
            tags: if tags.is_empty() {
                self.tags.clone()
            } else {
                tags.extend(self.tags.iter().cloned());
                tags.into()
            },
            meta: self.meta.clone(),
            weight,
            health,
            checks: Vec::new(),
            registered: self.met,
        })
    }

    fn leave_out(&mut self, id: &str, line: usize, message: impl fmt::Display) {
        let message = format!("left out of service {}: {message}", self.service);
        let problem = Problem::new(format!("instance {NODE}/{id}"), message);
        self.problems.push((line, problem));
    }
}

fn tags(table: &mut Table<'_>, reader: &mut Reader) -> BTreeSet<String> {
    let tags = table.strings(reader, "tags");
    tags.map_or_else(BTreeSet::new, |tags| tags.value.into_iter().collect())
}

/// What keeps a service of this name from being asked for by name.
fn unfit(name: &str) -> Option<&'static str> {
    if name.is_empty() {
        return Some("its name is empty and it is left out; name it");
    }
    (!is_dns_name(&dotted(name))).then_some(
        "its name cannot be a host name, so it is reached by its VIP only; use letters, digits, \
         `-`, `_` and `.`",
    )
}

fn read_address(address: Option<Lined<String>>) -> Result<IpAddr, String> {
    let Lined { value, .. } = address.ok_or("it has no `address`; write its IP address")?;
    let ip: IpAddr = value
        .parse()
        .map_err(|_| format!("`{value}` is not an IP address; host names are not resolved here"))?;
    server_address(ip).ok_or_else(|| format!("{ip} cannot be a server's address; write its own"))
}

fn read_port(port: Option<Lined<i64>>) -> Result<u16, String> {
    let Lined { value, .. } = port.ok_or("it has no `port`; write the one it listens on")?;
    let port = u16::try_from(value).ok().filter(|&port| port != 0);
    port.ok_or_else(|| format!("there is no port {value}; write one from 1 to 65535"))
}

fn read_weight(weight: Option<Lined<i64>>) -> Result<u16, String> {
    let Some(Lined { value, .. }) = weight else {
        return Ok(1);
    };
    u16::try_from(value).map_err(|_| format!("weight {value} is not from 0 to 65535"))
}

fn read_health(health: Option<Lined<String>>) -> Result<SourceHealth, String> {
    match health.as_ref().map(|health| &*health.value) {
        None | Some("passing") => Ok(SourceHealth::Passing),
        Some("maintenance") => Ok(SourceHealth::Maintenance),
        Some(other) => Err(format!(
            "there is no health `{other}`; write passing or maintenance"
        )),
    }
}

/// The node of every instance in the file.
const NODE: &str = "file";

/// [`NODE`] as one text for all.
fn node() -> Arc<str> {
    static SHARED: LazyLock<Arc<str>> = LazyLock::new(|| NODE.into());
    SHARED.clone()
}

#[cfg(test)]
mod tests;
