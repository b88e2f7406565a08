//! The engine's JSON as bytes, and what must be true of whatever is made of it.

use std::sync::Arc;

use super::registrar::acceptable;
use crate::{
    docker::{self, Containers, State},
    registrar::{Addressing, Settings, registrations},
};

/// A container as the engine describes it, and what it would be registered as.
pub fn docker_container(data: &[u8]) {
    let Some(container) = docker::fuzz::container(data) else {
        return;
    };
    for published in &container.published {
        assert!(published.host_port != 0 && published.port.number != 0);
    }
    let containers = Containers::from([(container.id.clone(), Arc::new(container))]);
    let settings = Settings {
        addressing: Addressing::Internal,
        ..Settings::new("host")
    };
    for container in containers.values() {
        acceptable(&registrations(container, &containers, &settings));
    }
}

/// What the engine says, a line at a time: an event, or a container as it is from then on.
pub fn docker_events(data: &[u8]) {
    let lines = data.split(|&byte| byte == b'\n');
    let (shown, departed, engine) = docker::fuzz::follow(lines);
    assert!(shown.keys().eq(engine.keys()), "{shown:?} {engine:?}");
    for (id, container) in &engine {
        let state = shown[id].state;
        let lives = matches!(container.state, State::Running | State::Paused);
        assert!(state == container.state || lives && state == State::Ending);
        let ends = matches!(state, State::Ending | State::Exited(_));
        assert!(departed.contains(id) || !ends, "{id} takes new flows");
    }
}
