//! Backends, and their registrations in Consul. Each change is written into the history.

use std::{
    net::{Ipv4Addr, SocketAddr, TcpStream},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use lb_testkit::{Process, Spawn, eventually};
use serde_json::{Value, json};

use super::{BACKENDS, Cluster, LIMIT, SERVICES_OF_BACKENDS, consul};
use crate::moment::Moment;

const BACKEND_PORT: u16 = 8080;
/// The node of services that no client uses.
const OTHER: &str = "others";

/// One backend, which may have ended.
pub(super) struct Backend {
    id: String,
    service: &'static str,
    address: Ipv4Addr,
    process: Option<Process>,
}

impl Cluster {
    pub(super) fn start_backends(&mut self) -> Result<()> {
        let mut last = 20;
        for (service, count) in SERVICES_OF_BACKENDS {
            for number in 1..=count {
                last += 1;
                let address = Ipv4Addr::new(10, 78, 0, last);
                let line = format!("addr add {address}/24 dev eth0\n");
                self.backend_netns.ip(&line)?;
                let id = format!("{service}-{number}");
                self.history.backend(&id, service);
                self.backends.push(Backend {
                    id,
                    service,
                    address,
                    process: None,
                });
                let index = self.backends.len() - 1;
                self.start_backend(index)?;
                self.register(index)?;
            }
        }
        Ok(())
    }

    /// How many backends there are.
    pub(crate) fn backend_count(&self) -> usize {
        self.backends.len()
    }

    /// The id and the address of a backend.
    pub(crate) fn backend(&self, index: usize) -> (&str, Ipv4Addr) {
        let backend = &self.backends[index];
        (&backend.id, backend.address)
    }

    /// Ends a backend in the middle of whatever it does.
    pub(crate) fn kill_backend(&mut self, index: usize) -> Result<()> {
        let backend = &mut self.backends[index];
        self.history.down(&backend.id, Moment::now());
        let mut process = backend.process.take().context("that backend has ended")?;
        Ok(process.kill()?)
    }

    /// Starts a backend, and waits until it answers.
    pub(crate) fn start_backend(&mut self, index: usize) -> Result<()> {
        let backend = &mut self.backends[index];
        let address = SocketAddr::from((backend.address, BACKEND_PORT));
        let process = Spawn::new(&backend.id, &self.programs.own)
            .args(["backend", &backend.id, &address.to_string()])
            .netns(&self.backend_netns)
            .cgroup(&self.backend_group)
            .log(self.folder.path())
            .start()?;
        backend.process = Some(process);
        let connect = || TcpStream::connect_timeout(&address, Duration::from_secs(1));
        let up = self
            .backend_netns
            .enter(|| eventually(LIMIT, connect).map(drop))?;
        up.with_context(|| format!("the backend {} does not come up", backend.id))?;
        self.history.up(&backend.id, Moment::now());
        Ok(())
    }

    /// Registers a backend in Consul, with a check.
    pub(crate) fn register(&mut self, index: usize) -> Result<()> {
        let backend = &self.backends[index];
        self.history.returned(&backend.id, Moment::now());
        let (address, port) = (backend.address, BACKEND_PORT);
        let body = json!({
            "ID": backend.id, "Name": backend.service, "Address": address, "Port": port,
            "Check": {"TCP": format!("{address}:{port}"), "Interval": "1s", "Timeout": "2s",
                      "Status": "passing"},
        });
        self.change("/v1/agent/service/register", &body.to_string())?;
        let (service, id) = (backend.service, backend.id.clone());
        self.await_listed(service, &id, true)
    }

    /// Takes a backend out of Consul; it goes on running. Returns when a majority of the servers has decided it.
    pub(crate) fn remove(&mut self, index: usize) -> Result<()> {
        let (service, id) = (
            self.backends[index].service,
            self.backends[index].id.clone(),
        );
        self.change(&format!("/v1/agent/service/deregister/{id}"), "")?;
        self.await_listed(service, &id, false)?;
        self.history.removed(&id, Moment::now());
        Ok(())
    }

    /// Registers a service that no client uses, behind a backend that there is: at a node of its own, since the Consul agent makes its
    /// changes one after the other.
    pub(crate) fn register_other(&self, name: &str, id: &str) -> Result<()> {
        let address = self.backends[0].address;
        let service = json!({"ID": id, "Service": name, "Address": address, "Port": BACKEND_PORT});
        let body = json!({"Node": OTHER, "Address": address, "Service": service});
        self.change("/v1/catalog/register", &body.to_string())
    }

    /// Takes it away again.
    pub(crate) fn deregister_other(&self, id: &str) -> Result<()> {
        let body = json!({"Node": OTHER, "ServiceID": id});
        self.change("/v1/catalog/deregister", &body.to_string())
    }

    /// Has Consul change something, which may be said more than once: on a busy machine its servers lose their leader at times.
    fn change(&self, path: &str, body: &str) -> Result<()> {
        eventually(LIMIT, || self.ask_local("PUT", path, body))
            .map(drop)
            .with_context(|| format!("Consul does not take {path}"))
    }

    fn ask_local(&self, method: &str, path: &str, body: &str) -> Result<String> {
        consul::ask(&self.lan, BACKENDS, method, path, body)
    }

    /// Waits until the servers list an instance of a service, or do not any more. The answer is the leader's.
    fn await_listed(&self, service: &str, id: &str, listed: bool) -> Result<()> {
        let path = format!("/v1/catalog/service/{service}?consistent");
        eventually(LIMIT, || {
            let said = self.ask_local("GET", &path, "")?;
            let all: Vec<Value> = serde_json::from_str(&said)?;
            let found = all.iter().any(|it| it["ServiceID"] == id);
            ensure!(found == listed, "{id} is listed: {found}");
            Ok(())
        })
        .with_context(|| format!("Consul does not take a change of {id}"))
    }
}
