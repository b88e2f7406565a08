//! What clients notice while instances come and go, and while the agent, Consul or the engine is away: nothing, or as
//! little as can be.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};

use super::{
    super::{
        download,
        steps::see,
        traffic::{self, Traffic},
        transcript::Evidence,
    },
    stack::Stack,
    steps::{AGENT, HELLO, by_vip, compose, scale_to, traffic_both_ways, usable, vip},
};

/// Each leaves as a good citizen does: it goes on accepting for two seconds after its signal.
pub(super) fn replace(stack: &mut Stack, evidence: &mut Evidence) -> Result<()> {
    scale_to(stack, evidence, CROWD)?;
    // In the order of their names, whose numbers have gaps.
    let old = stack.containers("hello")?.into_keys();
    let [vip, front] = traffic_both_ways(stack)?;
    evidence.say("for each: $ docker run … lb-hello, then $ docker stop hello-web-…");
    let stack = &*stack;
    thread::scope(|scope| {
        let mut leaving = Vec::new();
        for (number, old) in old.enumerate() {
            stack.start_instance(&format!("new-{number}"), &["--worker", "/bin/php-fpm"])?;
            // As a rolling deployment does: it does not run ahead of what takes the place.
            stack.until(|| {
                let usable = stack.report()?.service(HELLO)?.usable().len();
                ensure!(usable > CROWD / 2, "{usable} instances are usable");
                Ok(())
            })?;
            let part = format!(":{old}:");
            leaving.push(scope.spawn(move || stack.docker().docker(["stop", &old])));
            stack.until(|| {
                let report = stack.report()?;
                let usable = report.service(HELLO)?.usable();
                let here = usable.iter().any(|it| it.contains(&part));
                ensure!(!here, "{part} still takes new flows");
                Ok(())
            })?;
        }
        for one in leaving {
            one.join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        }
        anyhow::Ok(())
    })?;
    stack.until(|| usable(stack, HELLO, CROWD))?;
    let vip = traffic::ensure_all_good("by the virtual IP", &vip.finish()?)?;
    let front = traffic::ensure_all_good("through the front", &front.finish()?)?;
    evidence.say(format!(
        "all {CROWD} are others now; {vip} requests by the virtual IP and {front} through the front, none failed"
    ));
    // The walk goes on with those of the file.
    compose(stack, evidence, "scale web=3")?;
    stack.until(|| usable(stack, HELLO, CROWD + 3))?;
    remove(stack, (0..CROWD).map(|number| format!("new-{number}")))?;
    stack.until(|| usable(stack, HELLO, 3))
}

/// What did not say that it would leave costs no more than what was under way.
pub(super) fn lose(stack: &mut Stack, evidence: &mut Evidence) -> Result<()> {
    let names = ["rude-1", "rude-2"];
    for name in names {
        stack.start_instance(name, &["--notice", "0"])?;
    }
    stack.until(|| usable(stack, HELLO, 5))?;
    let url = format!("http://{}/id", vip(stack)?);
    for (name, what) in names.into_iter().zip(["stop", "kill"]) {
        let traffic = (0..CLIENTS).map(|_| Traffic::start(stack.client(), &[], &url));
        let traffic = traffic.collect::<Result<Vec<_>>>()?;
        let all_go_on = || {
            let before: Vec<_> = traffic.iter().map(Traffic::count).collect();
            stack.until(|| {
                let mut all = traffic.iter().zip(&before);
                all.try_for_each(|(one, before)| one.ensure_more(*before, 20).map(drop))
            })
        };
        all_go_on()?;
        evidence.say(format!("$ docker {what} {name}"));
        let told = Instant::now();
        stack
            .ask_engine(&format!("/containers/{name}/{what}"))?
            .wait()?;
        all_go_on()?;
        let failed = traffic.iter().flat_map(Traffic::failures);
        let failed: Vec<Duration> = failed
            .map(|begun| begun.saturating_duration_since(told))
            .collect();
        ensure!(
            failed.iter().all(|after| *after < NOTICED),
            "what was begun so long after the signal failed: {failed:?}"
        );
        ensure!(
            failed.len() <= CLIENTS,
            "of {CLIENTS} clients, each with one request under way, {} failed: {failed:?}",
            failed.len()
        );
        evidence.say(format!(
            "{CLIENTS} clients ask all the time: {} requests failed, none that was begun more than {} ms after it",
            failed.len(),
            NOTICED.as_millis()
        ));
        for one in traffic {
            one.finish()?;
        }
    }
    remove(stack, names)?;
    stack.until(|| usable(stack, HELLO, 3))
}

pub(super) fn kill_base(stack: &mut Stack, evidence: &mut Evidence) -> Result<()> {
    let vip = vip(stack)?;
    let file = stack.docker().folder().join("download");
    let mut download = download::start(stack.client(), &vip.to_string(), &file)?;
    stack.until(|| {
        let arrived = download::length(&file);
        ensure!(arrived > 0, "nothing has been downloaded yet");
        Ok(())
    })?;
    let traffic = Traffic::start(stack.client(), &[], &format!("http://{vip}/id"))?;
    stack.until(|| traffic.ensure_more(0, 20))?;
    evidence.say(format!("$ docker kill {AGENT}"));
    stack.docker().docker(["kill", AGENT])?;
    let dead = traffic.count();
    let served = stack.until(|| traffic.ensure_more(dead, 50))?;
    let front = stack.front("www.hello.localhost", "/id");
    ensure!(front.is_err(), "the front outlived its container");
    compose(stack, evidence, "-f consul.yml up -d")?;
    stack.until(|| usable(stack, HELLO, 3))?;
    stack.until(|| stack.front("www.hello.localhost", "/id"))?;
    evidence.say(format!(
        "{served} connects by the virtual IP were served without it, the front refused; it took over what was there"
    ));
    evidence.say("$ docker kill infra-consul-1");
    stack.docker().docker(["kill", "infra-consul-1"])?;
    let dead = traffic.count();
    let served = stack.until(|| traffic.ensure_more(dead, 50))?;
    let known = stack.report()?.service(HELLO)?.usable().len();
    ensure!(
        known == 3,
        "without Consul {known} of 3 instances are usable"
    );
    compose(stack, evidence, "-f consul.yml up -d")?;
    stack.until(|| consul_has(stack, 3))?;
    let all = traffic::ensure_all_good("by the virtual IP", &traffic.finish()?)?;
    evidence.say(format!(
        "{served} more without Consul; of {all} in all none failed"
    ));
    let arrived = download::length(&file);
    ensure!(
        download.is_running(),
        "the download ended meanwhile, after {arrived} bytes"
    );
    for backend in &stack.report()?.service(HELLO)?.backends {
        let hurry = format!("http://{}/hurry", backend.address);
        stack.on_host().post(&hurry)?;
    }
    let status = download.wait(Duration::from_secs(40))?;
    ensure!(status.success(), "the download failed: curl {status}");
    let from = download::sender(&file)?;
    evidence.say(format!(
        "a download by the virtual IP had {} KiB by then, went on, and is complete: {} MiB, all from {from}",
        arrived / 1024,
        download::BYTES >> 20,
    ));
    Ok(())
}

pub(super) fn restart_engine(stack: &mut Stack, evidence: &mut Evidence) -> Result<()> {
    evidence.say(
        "it ends all containers, and starts them again, each with its policy `unless-stopped`",
    );
    stack.restart_engine()?;
    stack.until(|| usable(stack, HELLO, 3))?;
    stack.until(|| consul_has(stack, 3))?;
    let all = stack.containers("hello")?;
    let all: Vec<&str> = all.values().map(String::as_str).collect();
    let vip = vip(stack)?;
    let seen = see(&all, || by_vip(stack, vip))?;
    evidence.say(format!("by the virtual IP {vip}: {seen}"));
    let seen = see(&all, || stack.front("www.hello.localhost", "/id"))?;
    evidence.say(format!("through the front: {seen}"));
    Ok(())
}

/// Fails unless Consul has exactly so many instances of hello, and each is well.
fn consul_has(stack: &Stack, number: usize) -> Result<()> {
    let path = format!("/v1/health/service/{HELLO}");
    let [all, passing] = ["", "?passing"].map(|which| stack.consul(&format!("{path}{which}")));
    let [all, passing] = [all?, passing?].map(|list| list.as_array().map_or(0, Vec::len));
    ensure!(
        (all, passing) == (number, number),
        "Consul has {all} instances, of which {passing} are well, and not {number}"
    );
    Ok(())
}

fn remove(stack: &Stack, names: impl IntoIterator<Item = impl AsRef<str>>) -> Result<()> {
    for name in names {
        stack.docker().docker(["rm", "-f", name.as_ref()])?;
    }
    Ok(())
}

/// How many instances are replaced.
const CROWD: usize = 20;

/// How many ask at the same time.
const CLIENTS: usize = 4;

/// What is begun so long after the signal must not fail, whatever became of the instance.
const NOTICED: Duration = Duration::from_millis(100);
