//! The front as the agent knows it: a process that is supervised, and rules of services.
#![expect(
    clippy::unwrap_used,
    reason = "a test's tools may fail as loudly as the test itself"
)]

#[path = "front/access.rs"]
mod access;
#[path = "front/acme.rs"]
mod acme;
#[path = "front/agent.rs"]
mod agent;
#[path = "front/agents.rs"]
mod agents;
#[path = "front/broken.rs"]
mod broken;
#[path = "front/documents.rs"]
mod documents;
#[expect(dead_code, reason = "the front's own tests use the rest")]
#[path = "../../lb-front/tests/front/kit/mod.rs"]
mod kit;
#[expect(dead_code, reason = "the front's own tests use the rest")]
#[path = "../../lb-front/tests/front/kit_h2.rs"]
mod kit_h2;
#[path = "front/load.rs"]
mod load;
#[path = "front/logging.rs"]
mod logging;
#[path = "front/orders.rs"]
mod orders;
#[path = "front/pages.rs"]
mod pages;
#[path = "front/process.rs"]
mod process;
#[path = "front/snapshots.rs"]
mod snapshots;
#[path = "front/tls.rs"]
mod tls;
#[path = "../../lb-front/tests/front/tlskit.rs"]
mod tlskit;
#[path = "front/upgrade.rs"]
mod upgrade;
#[path = "front/users.rs"]
mod users;
