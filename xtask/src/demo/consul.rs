//! A real Consul, and instances registered in it as a registrar would do.

use std::{collections::BTreeSet, path::Path, time::Duration};

use anyhow::{Context, Result, ensure};
use lb_testkit::Process;
use serde_json::json;

use super::{
    Stop,
    curl::Place,
    source::{CHECK, PORT, Registration},
};

/// A Consul of one server that keeps everything in memory.
pub(super) struct Consul {
    _process: Process,
    /// The ids that it knows from us.
    registered: BTreeSet<&'static str>,
}

impl Consul {
    /// Starts it at `place` and waits until it has a leader: itself.
    pub(super) fn start(
        binary: &Path,
        place: Place<'_>,
        folder: &Path,
        stop: &Stop,
    ) -> Result<Self> {
        let process = place
            .process("consul", &binary.to_string_lossy())
            .args(["agent", "-dev", "-node", "lb-demo"])
            .args(["-bind", "127.0.0.1", "-client", "127.0.0.1"])
            // It would ask a server of its maker whether it is the newest.
            .args(["-hcl", "disable_update_check = true"])
            .log(folder)
            .start()?;
        let ready = || {
            let leader = place.get(&format!("http://{ADDRESS}/v1/status/leader"))?;
            ensure!(leader.body.len() > 2, "it has no leader yet");
            Ok(())
        };
        stop.or_until(START, ready)
            .context("Consul does not start; see consul.log")?;
        Ok(Self {
            _process: process,
            registered: BTreeSet::new(),
        })
    }

    /// The part of the agent's configuration that names it.
    pub(super) fn config() -> String {
        format!("[sources.consul]\naddress = \"{ADDRESS}\"\n")
    }

    /// Lets exactly these instances be registered.
    pub(super) fn publish(
        &mut self,
        registrations: &[&Registration],
        place: Place<'_>,
    ) -> Result<()> {
        let wanted: BTreeSet<_> = registrations.iter().map(|one| one.id).collect();
        for one in registrations {
            // Again and again is fine, but would end a maintenance.
            if !self.registered.contains(one.id) {
                put(place, "register?replace-existing-checks=true", &body(one))?;
            }
        }
        for id in self.registered.difference(&wanted) {
            put(place, &format!("deregister/{id}"), "")?;
        }
        self.registered = wanted;
        Ok(())
    }
}

fn put(place: Place<'_>, what: &str, body: &str) -> Result<()> {
    let url = format!("http://{ADDRESS}/v1/agent/service/{what}");
    let answer = place.ask(&["--request", "PUT", "--data-binary", body, &url])?;
    ensure!(
        answer.status == 200,
        "Consul answers {} to {what}: {}",
        answer.status,
        answer.body
    );
    Ok(())
}

/// The registration of an instance: like the file's, with a check of Consul's own beside ours.
fn body(one: &Registration) -> String {
    json!({
        "ID": one.id,
        "Name": one.service,
        "Address": one.address,
        "Port": PORT,
        "Tags": one.tags,
        "Meta": { "lb_check": CHECK },
        "Check": {
            "Name": "page",
            "HTTP": format!("http://{}/", one.socket()),
            "Interval": "1s",
            "Timeout": "2s",
        },
    })
    .to_string()
}

/// In the host's namespace, so nobody else's Consul is in the way.
const ADDRESS: &str = "127.0.0.1:8500";

/// An election among one takes some seconds.
const START: Duration = Duration::from_secs(60);
