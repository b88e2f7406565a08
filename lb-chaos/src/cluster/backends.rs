//! Backends, and their registrations in Consul. Each change is written into the history.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    net::{Ipv4Addr, SocketAddrV4, TcpStream},
    ops::Range,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use lb_testkit::{Process, Spawn, eventually};
use serde_json::{Value, json};

use super::{BACKENDS, Cluster, LIMIT, SERVICES_OF_BACKENDS, consul};
use crate::moment::Moment;

const BACKEND_PORT: u16 = 8080;
/// The port of the first backend in a container, of all addresses of the host.
const CONTAINER_PORT: u16 = 18080;
/// How long one answer of a backend may take.
const ANSWERS_WITHIN: Duration = Duration::from_secs(1);
/// The node of services that no client uses.
const OTHER: &str = "others";

/// One backend, which may have ended.
pub(super) struct Backend {
    id: String,
    service: &'static str,
    address: SocketAddrV4,
    place: Place,
}

/// Where it runs.
enum Place {
    /// As a process of the host, which is registered by hand.
    Process(Option<Process>),
    /// In a container, which the registrar registers.
    Container,
}

impl Cluster {
    /// Those in containers come last.
    pub(super) fn start_backends(&mut self) -> Result<()> {
        let mut last = 20;
        for (service, count) in SERVICES_OF_BACKENDS {
            for number in 1..=count {
                last += 1;
                let address = Ipv4Addr::new(10, 78, 0, last);
                let line = format!("addr add {address}/24 dev eth0\n");
                self.backend_netns().ip(&line)?;
                let address = SocketAddrV4::new(address, BACKEND_PORT);
                let index = self.add(service, number, address, Place::Process(None));
                self.start_backend(index)?;
                self.register(index)?;
            }
        }
        self.engine.start_registrar()?;
        for (port, (service, count)) in (CONTAINER_PORT..).zip(SERVICES_OF_BACKENDS) {
            let address = SocketAddrV4::new(BACKENDS, port);
            let index = self.add(service, count + 1, address, Place::Container);
            let id = self.backends[index].id.clone();
            self.engine.create(&id, service, address)?;
            self.await_answer(index)?;
            self.await_listed(service, &id, true)?;
        }
        Ok(())
    }

    fn add(
        &mut self,
        service: &'static str,
        number: usize,
        address: SocketAddrV4,
        place: Place,
    ) -> usize {
        let id = format!("{service}-{number}");
        self.history.backend(&id, service);
        self.backends.push(Backend {
            id,
            service,
            address,
            place,
        });
        self.backends.len() - 1
    }

    /// How many backends there are.
    pub(crate) fn backend_count(&self) -> usize {
        self.backends.len()
    }

    /// How many of them are processes that are registered by hand.
    pub(crate) fn process_count(&self) -> usize {
        self.backends.len() - self.containers().len()
    }

    /// Those in containers.
    pub(crate) fn containers(&self) -> Range<usize> {
        let first = self.backends.iter();
        let first = first.take_while(|it| !matches!(it.place, Place::Container));
        first.count()..self.backends.len()
    }

    /// The id and the address of a backend.
    pub(crate) fn backend(&self, index: usize) -> (&str, Ipv4Addr) {
        let backend = &self.backends[index];
        (&backend.id, *backend.address.ip())
    }

    /// Ends a backend in the middle of whatever it does.
    pub(crate) fn kill_backend(&mut self, index: usize) -> Result<()> {
        let backend = &mut self.backends[index];
        match &mut backend.place {
            Place::Process(process) => {
                self.history.down(&backend.id, Moment::now());
                let mut process = process.take().context("that backend has ended")?;
                Ok(process.kill()?)
            }
            Place::Container => {
                self.history.ending(&backend.id, Moment::now());
                self.engine.kill(&backend.id)?;
                self.history.ended(&backend.id, Moment::now());
                Ok(())
            }
        }
    }

    /// Starts a backend, and waits until it answers.
    pub(crate) fn start_backend(&mut self, index: usize) -> Result<()> {
        let backend = &mut self.backends[index];
        match &mut backend.place {
            Place::Process(process) => {
                let spawn = Spawn::new(&backend.id, &self.programs.own)
                    .args(["backend", &backend.id, &backend.address.to_string()])
                    .netns(self.engine.docker.netns())
                    .cgroup(&self.backend_group)
                    .log(self.folder.path());
                *process = Some(spawn.start()?);
            }
            Place::Container => self.engine.start_again(&backend.id)?,
        }
        self.await_answer(index)
    }

    /// Ends the engine as an operator does: its containers end with it, at moments that nobody knows.
    pub(crate) fn stop_engine(&mut self) -> Result<()> {
        self.containers_end();
        self.engine.docker.stop()?;
        for container in self.containers() {
            let id = &self.backends[container].id;
            self.history.ended(id, Moment::now());
        }
        Ok(())
    }

    /// Starts the engine. What has outlived the last one ends and begins anew.
    pub(crate) fn start_engine(&mut self) -> Result<()> {
        self.containers_end();
        self.engine.docker.run()?;
        self.containers().try_for_each(|it| self.await_answer(it))
    }

    fn containers_end(&mut self) {
        for container in self.containers() {
            let id = &self.backends[container].id;
            self.history.ending(id, Moment::now());
        }
    }

    /// Waits until a backend answers.
    fn await_answer(&mut self, index: usize) -> Result<()> {
        let backend = &self.backends[index];
        // The proxy of an engine takes connections for which there is nobody yet.
        let answer = || {
            let mut stream = TcpStream::connect_timeout(&backend.address.into(), ANSWERS_WITHIN)?;
            stream.set_read_timeout(Some(ANSWERS_WITHIN))?;
            stream.write_all(b"who\n")?;
            let mut line = String::new();
            BufReader::new(stream).read_line(&mut line)?;
            ensure!(line.trim_end() == backend.id, "{line:?} answers");
            Ok(())
        };
        let up = self.backend_netns().enter(|| eventually(LIMIT, answer))?;
        up.with_context(|| format!("the backend {} does not come up", backend.id))?;
        self.history.up(&backend.id, Moment::now());
        Ok(())
    }

    /// Registers a backend that is a process in Consul, with a check.
    pub(crate) fn register(&mut self, index: usize) -> Result<()> {
        let backend = &self.backends[index];
        self.history.returned(&backend.id, Moment::now());
        let (address, port) = (backend.address.ip(), backend.address.port());
        let body = json!({
            "ID": backend.id, "Name": backend.service, "Address": address, "Port": port,
            "Check": {"TCP": format!("{address}:{port}"), "Interval": "1s", "Timeout": "2s",
                      "Status": "passing"},
        });
        self.change("/v1/agent/service/register", &body.to_string())?;
        let (service, id) = (backend.service, backend.id.clone());
        self.await_listed(service, &id, true)
    }

    /// Takes such a backend out of Consul; it goes on running. Returns when a majority of the servers has decided it.
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
        let address = self.backends[0].address.ip();
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

    /// Waits until a backend is not registered any more.
    pub(crate) fn await_away(&self, index: usize) -> Result<()> {
        let backend = &self.backends[index];
        self.await_listed(backend.service, &backend.id, false)
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
