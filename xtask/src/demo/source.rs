//! What tells the agent of the instances.

use std::{
    fmt::Write as _,
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

use super::{Stop, consul::Consul, curl::Place};

/// One instance as it is registered.
#[derive(Debug)]
pub(super) struct Registration {
    pub(super) service: &'static str,
    pub(super) id: &'static str,
    pub(super) address: Ipv4Addr,
    /// Whom its page greets.
    pub(super) greeting: &'static str,
    pub(super) tags: &'static [&'static str],
}

impl Registration {
    /// Where it listens.
    pub(super) fn socket(&self) -> SocketAddr {
        (self.address, PORT).into()
    }

    /// One of its pages, past every balancer.
    pub(super) fn page(&self, path: &str) -> String {
        format!("http://{}{path}", self.socket())
    }
}

/// A discovery source of the agent, and how to change what it says.
pub(super) enum Source {
    File(PathBuf),
    Consul(Consul),
}

impl Source {
    /// A file in `folder`.
    pub(super) fn file(folder: &Path) -> Self {
        Self::File(folder.join("services.toml"))
    }

    /// A Consul, running at `place`.
    pub(super) fn consul(
        binary: &Path,
        place: Place<'_>,
        folder: &Path,
        stop: &Stop,
    ) -> Result<Self> {
        Consul::start(binary, place, folder, stop).map(Self::Consul)
    }

    /// Its part of the agent's configuration.
    pub(super) fn config(&self) -> String {
        match self {
            Self::File(path) => format!("[sources.file]\npath = \"{}\"\n", path.display()),
            Self::Consul(_) => Consul::config(),
        }
    }

    /// Lets it say that exactly these instances exist.
    pub(super) fn publish(
        &mut self,
        registrations: &[&Registration],
        place: Place<'_>,
    ) -> Result<()> {
        match self {
            Self::File(path) => {
                // Renamed into place, so that nobody reads half of it.
                let new = path.with_extension("new");
                let written =
                    fs::write(&new, file(registrations)).and_then(|()| fs::rename(&new, &*path));
                written.with_context(|| format!("cannot write {}", path.display()))
            }
            Self::Consul(consul) => consul.publish(registrations, place),
        }
    }
}

/// The content of the file source.
fn file(registrations: &[&Registration]) -> String {
    let mut services: Vec<_> = registrations.iter().map(|r| r.service).collect();
    services.sort_unstable();
    services.dedup();
    let mut text = String::new();
    for service in services {
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "[[service]]\nname = \"{service}\"\noptions = {{ lb_check = \"{CHECK}\" }}\n"
        );
        for one in registrations.iter().filter(|one| one.service == service) {
            let Registration {
                id, address, tags, ..
            } = one;
            let _ = writeln!(
                text,
                "[[service.instance]]\nid = \"{id}\"\naddress = \"{address}\"\nport = {PORT}\ntags = {tags:?}\n"
            );
        }
    }
    text
}

/// The port of every instance.
pub(super) const PORT: u16 = 80;

/// The agent asks for the page, so that a broken application is seen though its port is open.
pub(super) const CHECK: &str = "http /";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_names_each_service_once_with_its_instances() {
        let one = |service, id, last, tags| Registration {
            service,
            id,
            address: Ipv4Addr::new(10, 77, 0, last),
            greeting: "world",
            tags,
        };
        let (a, w) = (one("x", "a", 11, &[][..]), one("y", "w", 21, &["k=v"][..]));
        let b = one("x", "b", 12, &[]);
        let expect = "[[service]]\nname = \"x\"\noptions = { lb_check = \"http /\" }\n\n\
                      [[service.instance]]\nid = \"a\"\naddress = \"10.77.0.11\"\nport = 80\ntags = []\n\n\
                      [[service.instance]]\nid = \"b\"\naddress = \"10.77.0.12\"\nport = 80\ntags = []\n\n\
                      [[service]]\nname = \"y\"\noptions = { lb_check = \"http /\" }\n\n\
                      [[service.instance]]\nid = \"w\"\naddress = \"10.77.0.21\"\nport = 80\ntags = [\"k=v\"]\n\n";
        assert_eq!(file(&[&a, &w, &b]), expect);
    }
}
