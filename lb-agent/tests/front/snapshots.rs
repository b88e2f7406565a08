//! Snapshots of the services that the front's tests know.

use std::net::SocketAddr;

use lb_agent::{
    catalog::InstanceKey,
    options::Options,
    snapshot::{Backend as Instance, Service, ServiceName, Snapshot},
};
/// The service `web` with usable backends at `addresses`, and `down` without any.
pub(crate) fn snapshot(addresses: &[SocketAddr]) -> Snapshot {
    let service = |addresses: &[SocketAddr]| Service {
        vip: None,
        options: Options::default(),
        aliases: ["Alias.example".to_owned()].into(),
        backends: addresses
            .iter()
            .enumerate()
            .map(|(id, &address)| instance(id, address))
            .collect(),
    };
    Snapshot {
        answered: true,
        complete: true,
        services: [
            (ServiceName::whole("web"), service(addresses).into()),
            (
                ServiceName::whole("down"),
                Service {
                    aliases: [].into(),
                    ..service(&[])
                }
                .into(),
            ),
        ]
        .into(),
        ..Snapshot::default()
    }
}

fn instance(id: usize, address: SocketAddr) -> (InstanceKey, Instance) {
    let key = InstanceKey::new("test", id.to_string());
    (key, Instance::usable(address))
}
