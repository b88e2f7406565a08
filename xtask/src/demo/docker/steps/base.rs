//! The base stack: what it shows, and that nothing of it is left.

use std::{ffi::OsString, fs, io, path::Path};

use anyhow::{Result, ensure};

use super::{AGENT, compose, usable};
use crate::demo::{
    docker::{
        rights,
        stack::{Stack, pins},
    },
    transcript::Evidence,
};

pub(super) fn base(stack: &mut Stack, evidence: &mut Evidence) -> Result<()> {
    for image in stack.images() {
        let tenths = image.bytes / 100_000;
        evidence.say(format!(
            "image {:22} {:4}.{} MB",
            image.name,
            tenths / 10,
            tenths % 10
        ));
    }
    compose(stack, evidence, "-f consul.yml up -d")?;
    let health = ["inspect", "--format", "{{.State.Health.Status}}", AGENT];
    stack.until(|| {
        let health = stack.docker().docker(health)?;
        ensure!(health == "healthy", "the agent's container is {health}");
        Ok(())
    })?;
    for service in ["consul-admin_infra", "proxy-admin_infra"] {
        stack.until(|| usable(stack, service, 1))?;
    }
    let ui = stack.front("consul-admin.infra.localhost", "/ui/")?;
    ensure!(ui.body.contains("Consul"), "the UI is {:?}", ui.body);
    let page = stack.front("proxy-admin.infra.localhost", "/")?;
    ensure!(
        page.body.contains("consul-admin_infra"),
        "the page is {:?}",
        page.body
    );
    evidence.say("http://consul-admin.infra.localhost/ui/ is Consul's UI, http://proxy-admin.infra.localhost/ our page");
    let hidden = stack
        .on_host()
        .ask(&["--header", "Host: consul", "http://127.0.0.1/"])?;
    ensure!(
        hidden.status == 503,
        "the front routes to Consul itself: {}",
        hidden.status
    );
    evidence.say("nothing else has a route: Consul's own service is a 503");
    rights::check(stack, evidence)?;
    for problem in stack.report()?.problems() {
        evidence.say(format!("the agent says: {problem}"));
    }
    Ok(())
}

pub(super) fn leave(stack: &Stack, evidence: &mut Evidence) -> Result<()> {
    for file in [
        "internal.yml",
        "internal-b.yml",
        "hello2.yml",
        "docker-compose.yml",
    ] {
        compose(stack, evidence, &format!("-f {file} down"))?;
    }
    stack.until(|| {
        let left = stack.consul("/v1/catalog/services")?;
        let left: Vec<_> = left
            .as_object()
            .into_iter()
            .flatten()
            .map(|(name, _)| name.as_str())
            .collect();
        let base = ["consul", "consul-admin_infra", "proxy-admin_infra"];
        ensure!(left == base, "Consul still has {left:?}");
        Ok(())
    })?;
    compose(stack, evidence, "-f consul.yml stop agent")?;
    let done = compose(
        stack,
        evidence,
        "-f consul.yml run --rm -T agent uninstall --purge",
    )?;
    for part in ["detached connect4", "left: /var/lib/lb: empty, and a mount"] {
        ensure!(done.contains(part), "it says {done}");
    }
    compose(stack, evidence, "-f consul.yml down --volumes")?;
    for list in [
        "ps --all --quiet",
        "volume ls --quiet",
        "network ls --quiet --filter type=custom",
    ] {
        let left = stack.docker().docker(list.split(' '))?;
        ensure!(left.is_empty(), "`docker {list}` says {left}");
    }
    let pins = pins(stack.docker());
    let left = stack.docker().netns().enter(|| names_in(&pins))??;
    ensure!(left.is_empty(), "{left:?} are left in {}", pins.display());
    let lo = stack.docker().netns().ip("addr show dev lo\n")?;
    ensure!(!lo.contains("198.18."), "lo still has {lo}");
    evidence.say("no container, volume, network, hook, pin or address is left");
    Ok(())
}

/// What is in a bpffs, but for what the kernel itself puts into each.
fn names_in(bpffs: &Path) -> io::Result<Vec<OsString>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(bpffs)? {
        names.push(entry?.file_name());
    }
    names.retain(|name| name != "maps.debug" && name != "progs.debug");
    Ok(names)
}
