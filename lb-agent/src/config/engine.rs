//! How the Docker Engine is reached: `[sources.docker]`, `--docker` and `DOCKER_HOST`.

use std::{
    io,
    path::{Path, PathBuf},
};

use super::{Docker, Given, Origin, RawConfig, resolve::Judge};
use crate::{
    discover,
    docker::{Address, AddressError},
    registrar::Addressing,
};

/// What `raw` says of the engine. Without a word it is followed if its socket is there, and its containers are services
/// if there is no Consul that would know them.
pub(super) fn resolve(raw: &RawConfig, consul: bool, judge: &mut Judge<'_>) -> Option<Docker> {
    let enabled = raw.docker_enabled.as_ref().map(|it| it.value);
    let given = raw.docker_socket.as_ref();
    if given.is_some_and(|it| it.value.trim() == OFF) {
        return None;
    }
    // Whoever set the variable for the `docker` command may mean an engine that we cannot talk to.
    let foreign = |it: &&Given<String>| {
        matches!(it.origin, Origin::Variable(_)) && address(it.value.trim()).is_err()
    };
    let given = given.filter(|it| !foreign(it)).cloned();
    let place = judge.text(&given, Address::default(), address);
    let there = match &place {
        Address::Unix(path) => is_there(path, judge),
        Address::Tcp(_) => true,
    };
    let source = discover::docker::Config {
        networks: raw
            .docker_networks
            .as_ref()
            .map_or_else(Vec::new, |it| it.value.clone()),
        addressing: judge.text(&raw.docker_addressing, Addressing::Internal, addressing),
    };
    let proc = judge.text(&raw.docker_proc, PathBuf::from("/proc"), proc);
    (there || given.is_some() || enabled == Some(true)).then(|| Docker {
        address: place,
        source: enabled.unwrap_or(!consul).then_some(source),
        proc,
    })
}

/// In the place of an address: the engine is left alone.
const OFF: &str = "off";

/// A socket cannot be read, but it says so in another way than what is not there.
fn is_there(path: &Path, judge: &Judge<'_>) -> bool {
    let read = (judge.outside.read)(path);
    !read.is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
}

fn address(text: &str) -> Result<Address, String> {
    let read = text.parse();
    read.map_err(|error: AddressError| format!("{error}, or off"))
}

fn proc(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    let good = path.is_absolute().then_some(path);
    good.ok_or_else(|| "write where the host's /proc is mounted, such as /host/proc".to_owned())
}

fn addressing(text: &str) -> Result<Addressing, String> {
    match text {
        "internal" => Ok(Addressing::Internal),
        "published" => Ok(Addressing::Published),
        _ => Err("write internal or published".to_owned()),
    }
}
