//! The open flows, of sockets and of the packet path.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// The answer to `GET /api/v1/flows`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct FlowList {
    /// Open flows.
    pub flows: Vec<Flow>,
    /// How many more there are.
    pub left_out: u64,
    /// Flows of the packet path.
    #[serde(default)]
    pub packets: Vec<PacketFlow>,
    /// How many more of these there are.
    #[serde(default)]
    pub packets_left_out: u64,
    /// Whose flows cannot be seen, and why; `null` if all are.
    pub unseen: Option<String>,
}

/// A client's open flow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Flow {
    /// The service; `null` if it is gone.
    pub service: Option<String>,
    /// What the client connected to.
    pub vip: SocketAddr,
    /// The backend as `node/id`; `null` if it is gone.
    pub backend: Option<String>,
    /// Where the flow goes.
    pub address: SocketAddr,
    /// `tcp` or `udp`.
    pub protocol: String,
    /// The state of the socket.
    pub state: String,
    /// The client's end.
    pub client: SocketAddr,
    /// Since the connect.
    pub age_seconds: u64,
    /// The inode of the client's network namespace.
    pub netns: u64,
    /// The user that the socket belongs to.
    pub uid: u32,
    /// A process that has the socket open; `null` if none is seen.
    pub pid: Option<u32>,
    /// Its name.
    pub command: Option<String>,
    /// Its container, by the first digits of the id; `null` if it runs in none.
    pub container: Option<String>,
}

impl Flow {
    /// Whether it is of `client`: an address, the number or name of a process, or the id of a container.
    pub fn is_of(&self, client: &str) -> bool {
        let pid = self.pid.map(|pid| pid.to_string());
        let container = self.container.as_deref();
        self.client.to_string() == client
            || self.client.ip().to_string() == client
            || pid.as_deref() == Some(client)
            || self.command.as_deref() == Some(client)
            // Either may be cut off.
            || container.is_some_and(|id| {
                let cut = client.len() >= SHORTEST_ID && id.starts_with(client);
                cut || client.starts_with(id)
            })
    }
}

/// A flow that the packet path balances: its client is on another host, or one that no socket of this host is seen of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct PacketFlow {
    /// The service; `null` if it is gone.
    pub service: Option<String>,
    /// What the client sends to.
    pub vip: SocketAddr,
    /// The backend as `node/id`; `null` if it is gone.
    pub backend: Option<String>,
    /// Where the packets go; `null` if the backend is gone.
    pub address: Option<SocketAddr>,
    /// `tcp` or `udp`.
    pub protocol: String,
    /// How they get there: `destination` with the VIP replaced, `full` with both ends, `tunnel`, `hairpin` to the client itself.
    pub way: Option<String>,
    /// `opening`, `established`, `closing`, `reset`; `open` for UDP.
    pub state: String,
    /// The client's end.
    pub client: SocketAddr,
    /// The client's port as the backend sees it.
    pub local_port: u16,
    /// Since the first packet; `null` if that is not known any more.
    pub age_seconds: Option<u64>,
    /// Since the last packet of either side.
    pub idle_seconds: u64,
}

impl PacketFlow {
    /// Whether it is of `client`, an address.
    pub fn is_of(&self, client: &str) -> bool {
        self.client.to_string() == client || self.client.ip().to_string() == client
    }
}

/// Characters of a container's id from which on it means one.
const SHORTEST_ID: usize = 4;
