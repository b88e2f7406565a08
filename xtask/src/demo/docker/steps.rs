//! The script: the walk from an empty host to a scaled, broken and mended application, and back.

mod application;
mod base;
mod calls;

use std::net::Ipv4Addr;

use anyhow::{Result, ensure};

use super::{
    super::{
        curl::Answer,
        traffic::Traffic,
        transcript::{Evidence, Transcript},
    },
    load,
    stack::Stack,
};

type Step = fn(&mut Stack, &mut Evidence) -> Result<()>;

/// Title and content of each step, but for the last one: [`take_down`].
const SCRIPT: [(&str, Step); COUNT - 1] = [
    ("The base stack: Consul and the agent", base::base),
    ("An application is started", application::application),
    ("It is scaled to two instances", application::scale),
    (
        "Of three instances one breaks while its port stays open",
        application::break_application,
    ),
    (
        "The broken container is removed, another takes its place",
        application::repair,
    ),
    (
        "A second application, with a domain and an alias of its own",
        calls::second_application,
    ),
    (
        "Components call each other by short names, without links",
        calls::internal_calls,
    ),
    (
        "Twenty instances are replaced one by one under load",
        load::replace,
    ),
    (
        "Instances that leave without notice, or are killed",
        load::lose,
    ),
    (
        "The agent's container is killed under load, then Consul's",
        load::kill_base,
    ),
    ("The engine is restarted", load::restart_engine),
];

/// How many steps there are.
pub(super) const COUNT: usize = 12;

/// Plays all steps but the last, the failed ones included. Without the first there is nothing to show.
pub(super) fn play(stack: &mut Stack, transcript: &mut Transcript) {
    for (number, (title, step)) in SCRIPT.into_iter().enumerate() {
        if stack.is_stopped() {
            return;
        }
        let fine = transcript.step(title, |evidence| step(stack, evidence));
        if !fine && number == 0 {
            return;
        }
    }
}

/// The last step.
pub(super) fn take_down(stack: &Stack, transcript: &mut Transcript) {
    transcript.step("Everything is taken down", |evidence| {
        base::leave(stack, evidence)
    });
}

/// Says and does it.
pub(super) fn compose(stack: &Stack, evidence: &mut Evidence, words: &str) -> Result<String> {
    evidence.say(format!("$ docker compose {}", words.replace(" -T ", " ")));
    stack.compose(words)
}

pub(super) fn scale_to(stack: &Stack, evidence: &mut Evidence, number: usize) -> Result<()> {
    compose(stack, evidence, &format!("scale web={number}"))?;
    stack.until(|| usable(stack, HELLO, number))
}

/// Fails unless exactly so many instances of `service` take new flows.
pub(super) fn usable(stack: &Stack, service: &str, number: usize) -> Result<()> {
    let report = stack.report()?;
    let usable = report.service(service)?.usable();
    ensure!(
        usable.len() == number,
        "usable instances of {service} are {usable:?}, not {number}"
    );
    Ok(())
}

/// What the container `name` calls itself.
pub(super) fn id(stack: &Stack, name: &str) -> Result<String> {
    let said = stack
        .docker()
        .docker(["inspect", "--format", "{{.Config.Hostname}}", name])?;
    Ok(said)
}

pub(super) fn vip(stack: &Stack) -> Result<Ipv4Addr> {
    stack.report()?.service(HELLO)?.vip()
}

pub(super) fn by_vip(stack: &Stack, vip: Ipv4Addr) -> Result<Answer> {
    stack.client().get(&format!("http://{vip}/id"))
}

/// A client by the virtual IP, and one through the front.
pub(super) fn traffic_both_ways(stack: &Stack) -> Result<[Traffic; 2]> {
    Ok([
        Traffic::start(stack.client(), &[], &format!("http://{}/id", vip(stack)?))?,
        Traffic::start(stack.on_host(), &[], "http://www.hello.localhost/id")?,
    ])
}

pub(super) const HELLO: &str = "www_hello";

const WORLD: &str = "www_world_dev";

pub(super) const AGENT: &str = "infra-agent-1";
