//! One application: started, scaled, broken and mended.

use std::time::Instant;

use anyhow::{Context as _, Result, ensure};

use super::{HELLO, by_vip, compose, id, scale_to, traffic_both_ways, usable, vip};
use crate::demo::{docker::stack::Stack, steps::see, traffic, transcript::Evidence};

pub(super) fn application(stack: &mut Stack, evidence: &mut Evidence) -> Result<()> {
    compose(stack, evidence, "up -d")?;
    stack.until(|| usable(stack, HELLO, 1))?;
    let id = id(stack, "hello-web-1")?;
    let page = stack.front("www.hello.localhost", "/")?;
    ensure!(
        page.body.contains("<h1>Hello world!</h1>") && page.body.contains(&id),
        "the page is {:?}",
        page.body
    );
    evidence.say(format!(
        "http://www.hello.localhost/ says: My hostname is {id}"
    ));
    let front = stack.on_host().ask(&[
        "--interface",
        "127.0.0.7",
        "http://www.hello.localhost/from",
    ])?;
    ensure!(
        front.body.lines().nth(1) == Some("127.0.0.7"),
        "of a client at 127.0.0.7 the application is told {:?}",
        front.body
    );
    evidence.say("it is told of a client at 127.0.0.7 by X-Forwarded-For");
    let passing = stack.consul("/v1/health/service/www_hello?passing")?;
    let found = &passing[0]["Service"]["ID"];
    ensure!(
        found
            .as_str()
            .is_some_and(|id| id.contains(":hello-web-1:80")),
        "Consul says {passing}"
    );
    let page = stack.front("proxy-admin.infra.localhost", "/")?.body;
    for anchor in ["www_hello_backend", "hello_www_backend"] {
        ensure!(
            page.contains(&format!("id=\"{anchor}\"")),
            "the page has no #{anchor}"
        );
    }
    ensure!(
        page.contains("hello-web-1"),
        "the page does not show hello-web-1"
    );
    evidence.say(format!(
        "Consul has it as {found}; our page at #hello_www_backend and #www_hello_backend"
    ));
    Ok(())
}

pub(super) fn scale(stack: &mut Stack, evidence: &mut Evidence) -> Result<()> {
    scale_to(stack, evidence, 2)?;
    let both = [id(stack, "hello-web-1")?, id(stack, "hello-web-2")?];
    let both: Vec<&str> = both.iter().map(String::as_str).collect();
    let seen = see(&both, || stack.front("www.hello.localhost", "/id"))?;
    evidence.say(format!("through the front the id changes: {seen}"));
    let vip = vip(stack)?;
    let seen = see(&both, || by_vip(stack, vip))?;
    evidence.say(format!("by the virtual IP {vip}, too: {seen}"));
    Ok(())
}

pub(super) fn break_application(stack: &mut Stack, evidence: &mut Evidence) -> Result<()> {
    scale_to(stack, evidence, 3)?;
    let start = Instant::now();
    evidence.say("$ docker exec hello-web-2 pkill php-fpm");
    stack
        .docker()
        .docker(["exec", "hello-web-2", "pkill", "php-fpm"])?;
    stack.until(|| usable(stack, HELLO, 2))?;
    let took = start.elapsed().as_secs_f64();
    let checks = stack.consul("/v1/health/service/www_hello")?;
    let broken = checks.as_array().into_iter().flatten();
    let mut broken = broken.filter(|it| {
        it["Service"]["ID"]
            .as_str()
            .is_some_and(|id| id.contains(":hello-web-2:"))
    });
    let broken = broken.next().context("Consul does not have hello-web-2")?;
    let outputs = broken["Checks"].as_array().into_iter().flatten();
    ensure!(
        outputs
            .into_iter()
            .any(|check| check["Status"] == "critical"),
        "Consul says {broken}"
    );
    let report = stack.report()?;
    let service = report.service(HELLO)?;
    let backend = service
        .backends
        .iter()
        .find(|it| it.id.contains(":hello-web-2:"));
    let backend = backend.context("our page does not have hello-web-2")?;
    let levels = (&*backend.probe.state, &*backend.source.state);
    ensure!(levels == ("up", "critical"), "the levels are {levels:?}");
    evidence.say(format!(
        "after {took:.1} s level 1, our connect, is `up`; level 2, Consul's GET /, is `critical`; it is `{}`",
        backend.state
    ));
    stack
        .on_host()
        .get(&format!("http://{}/logo.png", backend.address))?;
    let others = [id(stack, "hello-web-1")?, id(stack, "hello-web-3")?];
    let others: Vec<&str> = others.iter().map(String::as_str).collect();
    let [vip, front] = traffic_both_ways(stack)?;
    for traffic in [&vip, &front] {
        stack.until(|| traffic.ensure_more(0, 50))?;
    }
    let seen = see(&others, || stack.front("www.hello.localhost", "/id"))?;
    let vip = traffic::ensure_all_good("by the virtual IP", &vip.finish()?)?;
    let front = traffic::ensure_all_good("through the front", &front.finish()?)?;
    evidence.say(format!(
        "its port is open and its files are there; served by {seen}"
    ));
    evidence.say(format!(
        "{vip} requests by the virtual IP, {front} through the front, none failed"
    ));
    Ok(())
}

pub(super) fn repair(stack: &mut Stack, evidence: &mut Evidence) -> Result<()> {
    let old = id(stack, "hello-web-2")?;
    evidence.say("$ docker rm -f hello-web-2");
    stack.docker().docker(["rm", "-f", "hello-web-2"])?;
    scale_to(stack, evidence, 3)?;
    let new: Vec<String> = stack.containers("hello")?.into_values().collect();
    ensure!(!new.contains(&old), "{old} is still there");
    let new: Vec<&str> = new.iter().map(String::as_str).collect();
    let seen = see(&new, || stack.front("www.hello.localhost", "/id"))?;
    evidence.say(format!("served by {seen}"));
    Ok(())
}
