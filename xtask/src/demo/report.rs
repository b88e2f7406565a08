//! The agent's own report, as far as the demo reads it: `/api/v1/snapshot`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use anyhow::{Context, Result};
use serde::Deserialize;

/// What the agent knows.
#[derive(Debug, Deserialize)]
pub(super) struct Report {
    /// `None` until discovery has answered.
    services: Option<Vec<Service>>,
    problems: Vec<Problem>,
}

/// One service.
#[derive(Debug, Deserialize)]
pub(super) struct Service {
    pub(super) name: String,
    pub(super) vip: Option<Ipv4Addr>,
    /// Its IPv6 twin.
    pub(super) vip6: Option<Ipv6Addr>,
    pub(super) backends: Vec<Backend>,
}

/// One instance.
#[derive(Debug, Deserialize)]
pub(super) struct Backend {
    pub(super) id: String,
    pub(super) address: SocketAddr,
    pub(super) state: String,
    /// What the agent's own probe says.
    pub(super) probe: Level,
    /// What the source says.
    pub(super) source: Level,
}

/// One of the two levels of health.
#[derive(Debug, Deserialize)]
pub(super) struct Level {
    pub(super) state: String,
}

#[derive(Debug, Deserialize)]
struct Problem {
    subject: String,
    message: String,
}

impl Report {
    /// Reads the agent's JSON.
    pub(super) fn parse(json: &str) -> Result<Self> {
        serde_json::from_str(json).context("the agent's snapshot has another form than expected")
    }

    /// The service `name`.
    pub(super) fn service(&self, name: &str) -> Result<&Service> {
        let services = self
            .services
            .as_ref()
            .context("the agent knows no services yet")?;
        services
            .iter()
            .find(|service| service.name == name)
            .with_context(|| format!("the agent knows no service {name}"))
    }

    /// What the agent complains of.
    pub(super) fn problems(&self) -> impl Iterator<Item = String> {
        self.problems
            .iter()
            .map(|problem| format!("{}: {}", problem.subject, problem.message))
    }
}

impl Service {
    /// Its virtual address.
    pub(super) fn vip(&self) -> Result<Ipv4Addr> {
        self.vip
            .with_context(|| format!("{} has no virtual address", self.name))
    }

    /// Its virtual address and the IPv6 twin, each with curl's word for the family.
    pub(super) fn families(&self) -> impl Iterator<Item = (&'static str, IpAddr)> {
        let v4 = self.vip.map(|vip| ("--ipv4", vip.into()));
        let v6 = self.vip6.map(|twin| ("--ipv6", twin.into()));
        v4.into_iter().chain(v6)
    }

    /// The ids of the instances that take new flows, in order.
    pub(super) fn usable(&self) -> Vec<&str> {
        let usable = self.backends.iter().filter(|b| b.state == "usable");
        let mut ids: Vec<_> = usable.map(|backend| backend.id.as_str()).collect();
        ids.sort_unstable();
        ids
    }

    /// The state of instance `id`, in the agent's word.
    pub(super) fn state(&self, id: &str) -> Result<&str> {
        Ok(&self.backend(id)?.state)
    }

    /// Instance `id`.
    pub(super) fn backend(&self, id: &str) -> Result<&Backend> {
        let mut backends = self.backends.iter();
        backends
            .find(|backend| backend.id == id)
            .with_context(|| format!("{} has no instance {id}", self.name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const JSON: &str = r#"{"api":1,"problems":[{"subject":"service x","message":"is odd"}],"services":[
        {"name":"www_hello","vip":"198.18.4.2","hosts":["www.hello"],"backends":[
            {"node":"file","id":"b","address":"10.77.0.12:80","state":"l4_down",
             "probe":{"state":"down"},"source":{"state":"passing"}},
            {"node":"file","id":"a","address":"10.77.0.11:80","state":"usable",
             "probe":{"state":"up"},"source":{"state":"passing"}}]}]}"#;

    #[test]
    fn usable_instances_and_states_are_read_by_id() {
        let report = Report::parse(JSON).unwrap();
        let service = report.service("www_hello").unwrap();
        assert_eq!(service.vip().unwrap().to_string(), "198.18.4.2");
        assert_eq!(service.usable(), ["a"]);
        assert_eq!(service.state("b").unwrap(), "l4_down");
        let backend = service.backend("b").unwrap();
        assert_eq!(
            (&*backend.probe.state, &*backend.source.state),
            ("down", "passing")
        );
        assert!(service.state("c").is_err());
        assert_eq!(report.problems().collect::<Vec<_>>(), ["service x: is odd"]);
    }

    #[test]
    fn services_that_are_not_known_yet_are_not_none() {
        let report = Report::parse(r#"{"problems":[],"services":null}"#).unwrap();
        let error = report.service("www_hello").unwrap_err().to_string();
        assert!(error.contains("yet"), "{error}");
    }
}
