//! The text of a services file as a catalog. Pure.
//!
//! A mistake of form (syntax, an unknown key, a wrong type) makes the whole file wrong; an entry that cannot be
//! used (a host name for an address, no port) is left out and reported, and the others go on.

use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    fmt,
    net::{IpAddr, SocketAddr},
    sync::Arc,
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

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, mistake) in self.mistakes.iter().enumerate() {
            let separator = if index == 0 { "" } else { "; " };
            write!(f, "{separator}{mistake}")?;
        }
        Ok(())
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
    let (mut reader, mut root) = Reader::open(text).map_err(|mistakes| FileError { mistakes })?;
    let mut file = File::default();
    for table in root.tables(&mut reader, "service") {
        file.service(&mut reader, table);
    }
    root.finish(&mut reader);
    let mistakes = reader.finish();
    if mistakes.is_empty() {
        Ok(file.catalog)
    } else {
        Err(FileError { mistakes })
    }
}

/// The file as far as it has been read.
#[derive(Default)]
struct File {
    catalog: Catalog,
    /// Instances met, which is also the order of their registration.
    instances: u64,
}

impl File {
    fn service(&mut self, reader: &mut Reader, mut table: Table<'_>) {
        let line = table.line;
        let name = table.string(reader, "name");
        let tags = tags(&mut table, reader);
        let options = table.table(reader, "options");
        let meta: BTreeMap<String, String> = options
            .map(|options| options.texts(reader))
            .unwrap_or_default()
            .into_iter()
            .map(|(key, text)| (key, text.value))
            .collect();

        let subject = name
            .as_ref()
            .map_or("[[service]]", |name| name.value.as_str())
            .to_owned();
        let mut instances: BTreeMap<String, Instance> = BTreeMap::new();
        for table in table.tables(reader, "instance") {
            let line = table.line;
            let Some(mut instance) = self.instance(reader, table, &subject) else {
                continue;
            };
            instance.tags.extend(tags.iter().cloned());
            instance.meta.clone_from(&meta);
            match instances.entry(instance.key.id.clone()) {
                Entry::Vacant(free) => {
                    free.insert(instance);
                }
                Entry::Occupied(taken) => {
                    let message = "its id is taken by an earlier instance; give it another one";
                    self.leave_out(&subject, taken.key(), line, message);
                }
            }
        }
        table.finish(reader);

        let Some(Lined { value: name, .. }) = name else {
            reader.report(line, "[[service]] needs a `name`");
            return;
        };
        if let Some(message) = unfit(&name) {
            self.problem(format!("service {name}"), line, message);
        }
        if name.is_empty() {
            return;
        }
        if self.catalog.services.contains_key(&*name) {
            let message = "declared twice; put all its instances into the first declaration, \
                           this one is left out";
            self.problem(format!("service {name}"), line, message);
            return;
        }
        let instances = instances.into_values().map(Arc::new).collect();
        self.catalog.services.insert(name.into(), instances);
    }

    fn instance(
        &mut self,
        reader: &mut Reader,
        mut table: Table<'_>,
        service: &str,
    ) -> Option<Instance> {
        self.instances += 1;
        let line = table.line;
        let id = table.string(reader, "id");
        let address = table.string(reader, "address");
        let port = table.integer(reader, "port");
        let weight = table.integer(reader, "weight");
        let tags = tags(&mut table, reader);
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
                self.leave_out(service, &id, line, message);
                return None;
            }
        };
        Some(Instance {
            key: InstanceKey {
                node: NODE.to_owned(),
                id,
            },
            address,
            reach: Reach::default(),
            local: true,
            container: None,
            tags,
            meta: BTreeMap::new(),
            weight,
            health,
            checks: Vec::new(),
            registered: self.instances,
        })
    }

    fn leave_out(&mut self, service: &str, id: &str, line: usize, message: impl fmt::Display) {
        let message = format!("left out of service {service}: {message}");
        self.problem(format!("instance {NODE}/{id}"), line, message);
    }

    fn problem(&mut self, subject: String, line: usize, message: impl fmt::Display) {
        let problem = Problem::new(subject, format!("{message} (line {line} of the file)"));
        self.catalog.problems.push(problem);
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

#[cfg(test)]
mod tests;
