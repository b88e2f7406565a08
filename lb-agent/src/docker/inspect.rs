//! The engine's description of one container as our value.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use serde::Deserialize;

use super::{
    Container, Endpoint, Health, NetworkMode, Port, Process, Protocol, Published, State, event,
    time::nanoseconds,
};

/// A container, and what its end is judged by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Inspected {
    pub(super) container: Container,
    /// When it was started last, in nanoseconds since 1970 by the engine's clock; 0 if never.
    pub(super) started: u64,
    /// The signal that asks it to end.
    pub(super) stop_signal: i32,
    /// How long after that it is killed.
    pub(super) stop_timeout: Duration,
}

/// Reads the answer to `/containers/<id>/json`.
///
/// # Errors
/// When it is none.
pub(super) fn parse(text: &[u8]) -> Result<Inspected, serde_json::Error> {
    let raw: Raw = serde_json::from_slice(text)?;
    let mut network = network_mode(&raw.host_config.network_mode);
    let mut networks = raw.network_settings.networks.unwrap_or_default();
    match network {
        NetworkMode::Networks => {}
        // The mode is that of its creation; it may have left that network for others.
        NetworkMode::None => networks.retain(|name, _| name != "none"),
        NetworkMode::Host | NetworkMode::Container(_) => networks.clear(),
    }
    if network == NetworkMode::None && !networks.is_empty() {
        network = NetworkMode::Networks;
    }
    let ports = raw.network_settings.ports.unwrap_or_default();
    let declared = raw.config.exposed_ports.unwrap_or_default();
    let started = nanoseconds(&raw.state.started_at).unwrap_or_default();
    let stop_signal = event::signal(raw.config.stop_signal.as_deref().unwrap_or_default());
    let container = Container {
        name: raw.name.strip_prefix('/').unwrap_or(&raw.name).to_owned(),
        image: raw.config.image,
        created: nanoseconds(&raw.created).unwrap_or_default(),
        environment: environment(&raw.config.env.unwrap_or_default()),
        labels: raw.config.labels.unwrap_or_default(),
        exposed: declared
            .keys()
            .chain(ports.keys())
            .filter_map(|text| port(text))
            .collect(),
        published: published(&ports),
        networks: networks
            .into_iter()
            .map(|(name, raw)| (name, raw.endpoint()))
            .collect(),
        network,
        state: raw.state.state(),
        process: (raw.state.pid != 0).then_some(Process {
            pid: raw.state.pid,
            started,
        }),
        health: raw.state.health.and_then(RawHealth::health),
        runtime: raw.host_config.runtime.unwrap_or_default(),
        id: raw.id,
    };
    Ok(Inspected {
        container,
        started,
        stop_signal: stop_signal.unwrap_or(SIGTERM),
        stop_timeout: raw.config.stop_timeout.map_or(STOP_TIMEOUT, stop_timeout),
    })
}

/// The engine's defaults.
const SIGTERM: i32 = 15;
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// Below zero the engine waits for ever.
fn stop_timeout(seconds: i64) -> Duration {
    u64::try_from(seconds).map_or(Duration::MAX, Duration::from_secs)
}

fn network_mode(text: &str) -> NetworkMode {
    match text {
        "host" => NetworkMode::Host,
        "none" => NetworkMode::None,
        _ => match text.strip_prefix("container:") {
            Some(id) => NetworkMode::Container(id.to_owned()),
            None => NetworkMode::Networks,
        },
    }
}

fn environment(entries: &[String]) -> Vec<(String, String)> {
    let pairs = entries.iter().filter_map(|entry| entry.split_once('='));
    pairs
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
}

/// Reads `80/tcp`.
fn port(text: &str) -> Option<Port> {
    let (number, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = match protocol {
        "tcp" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        "sctp" => Protocol::Sctp,
        _ => return None,
    };
    let number = number.parse().ok().filter(|&number| number != 0)?;
    Some(Port { number, protocol })
}

fn published(ports: &BTreeMap<String, Option<Vec<Binding>>>) -> Vec<Published> {
    let mut all: Vec<Published> = Vec::new();
    for (text, bindings) in ports {
        let Some(port) = port(text) else { continue };
        for binding in bindings.iter().flatten() {
            let host_port = binding.host_port.parse().unwrap_or_default();
            // Some engines leave the address out when it is every address.
            let host_address = match binding.host_ip.as_str() {
                "" => Ok(IpAddr::from([0, 0, 0, 0])),
                text => text.parse(),
            };
            if let (Ok(host_address), 1..) = (host_address, host_port) {
                all.push(Published {
                    port,
                    host_address,
                    host_port,
                });
            }
        }
    }
    all.sort();
    all
}

#[derive(Deserialize)]
struct Raw {
    #[serde(rename = "Id")]
    id: String,
    #[serde(rename = "Name")]
    name: String,
    #[serde(rename = "Created", default)]
    created: String,
    #[serde(rename = "State")]
    state: RawState,
    #[serde(rename = "Config")]
    config: RawConfig,
    #[serde(rename = "HostConfig", default)]
    host_config: HostConfig,
    #[serde(rename = "NetworkSettings", default)]
    network_settings: NetworkSettings,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RawState {
    #[serde(default)]
    status: String,
    /// 0 if there is none.
    #[serde(default)]
    pid: u32,
    #[serde(default)]
    exit_code: i64,
    #[serde(default)]
    started_at: String,
    health: Option<RawHealth>,
}

impl RawState {
    fn state(&self) -> State {
        match self.status.as_str() {
            "created" => State::Created,
            "running" => State::Running,
            "paused" => State::Paused,
            // restarting, removing, exited, dead: nobody is there to answer.
            _ => State::Exited(self.exit_code),
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RawHealth {
    #[serde(default)]
    status: String,
    log: Option<Vec<RawProbe>>,
}

impl RawHealth {
    fn health(self) -> Option<Health> {
        match self.status.as_str() {
            "starting" => Some(Health::Starting),
            "healthy" => Some(Health::Healthy),
            "unhealthy" => {
                let last = self.log.and_then(|mut log| log.pop());
                let output = last.map(|probe| probe.output).unwrap_or_default();
                Some(Health::Unhealthy(output.trim().to_owned()))
            }
            _ => None,
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RawProbe {
    #[serde(default)]
    output: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RawConfig {
    #[serde(default)]
    image: String,
    env: Option<Vec<String>>,
    labels: Option<BTreeMap<String, String>>,
    exposed_ports: Option<BTreeMap<String, serde::de::IgnoredAny>>,
    stop_signal: Option<String>,
    stop_timeout: Option<i64>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct HostConfig {
    #[serde(default)]
    network_mode: String,
    runtime: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct NetworkSettings {
    ports: Option<BTreeMap<String, Option<Vec<Binding>>>>,
    // The address that stands beside these is that of one of them, and newer engines have it no more.
    networks: Option<BTreeMap<String, RawEndpoint>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Binding {
    #[serde(default)]
    host_ip: String,
    #[serde(default)]
    host_port: String,
}

#[derive(Deserialize)]
struct RawEndpoint {
    #[serde(rename = "IPAddress", default)]
    ipv4: String,
    #[serde(rename = "GlobalIPv6Address", default)]
    ipv6: String,
}

impl RawEndpoint {
    /// A container that does not run has empty addresses.
    fn endpoint(&self) -> Endpoint {
        Endpoint {
            ipv4: self.ipv4.parse().ok(),
            ipv6: self.ipv6.parse().ok(),
        }
    }
}

#[cfg(test)]
mod tests;
