//! What the tests stand on: a world with one agent, instances in it, and ways to ask.

mod ask;
mod instance;
mod outcome;
mod seen;
mod traffic;
mod world;

pub(crate) use ask::{Answer, Report, connect, dns, dns_message, exchange, greeting, http};
pub(crate) use instance::Instance;
pub(crate) use outcome::{Asked, Attempt};
pub(crate) use traffic::Traffic;
pub(crate) use world::{BINARY, World, alone, limits};

use std::time::Duration;

/// How long a test waits for what must come: an agent with a packet path has a million instructions verified before it is ready, beside
/// other tests.
pub(crate) const LIMIT: Duration = Duration::from_secs(30);

/// A services file with one service of these instances.
pub(crate) fn service(name: &str, instances: &[&Instance]) -> String {
    let mut text = format!("[[service]]\nname = \"{name}\"\n");
    for instance in instances {
        let (id, address) = (instance.id(), instance.address());
        text += &format!(
            "[[service.instance]]\nid = \"{id}\"\naddress = \"{}\"\nport = {}\n",
            address.ip(),
            address.port()
        );
    }
    text
}
