//! Several agents on one network, of which one answers for the VIPs: real programs in namespaces, a real Consul, and a client
//! that has no agent.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod devices;
mod election;
mod kit;
mod packets;
mod routers;
mod wire;
