//! The script: the walk from an empty host to a scaled, broken and mended application, and back.

use std::{ffi::OsString, fs, io, net::Ipv4Addr, path::Path, time::Instant};

use anyhow::{Context, Result, bail, ensure};

use super::{
    super::{
        curl::Answer,
        steps::see,
        traffic::{self, Traffic},
        transcript::{Evidence, Transcript},
    },
    load, rights,
    stack::{Stack, pins},
};

type Step = fn(&mut Stack, &mut Evidence) -> Result<()>;

/// Title and content of each step, but for the last one: [`take_down`].
const SCRIPT: [(&str, Step); COUNT - 1] = [
    ("The base stack: Consul and the agent", base),
    ("An application is started", application),
    ("It is scaled to two instances", scale),
    (
        "Of three instances one breaks while its port stays open",
        break_application,
    ),
    (
        "The broken container is removed, another takes its place",
        repair,
    ),
    (
        "A second application, with a domain and an alias of its own",
        second_application,
    ),
    (
        "Components call each other by short names, without links",
        internal_calls,
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
        leave(stack, evidence)
    });
}

fn base(stack: &mut Stack, evidence: &mut Evidence) -> Result<()> {
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

fn application(stack: &mut Stack, evidence: &mut Evidence) -> Result<()> {
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

fn scale(stack: &mut Stack, evidence: &mut Evidence) -> Result<()> {
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

fn break_application(stack: &mut Stack, evidence: &mut Evidence) -> Result<()> {
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

fn repair(stack: &mut Stack, evidence: &mut Evidence) -> Result<()> {
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

fn second_application(stack: &mut Stack, evidence: &mut Evidence) -> Result<()> {
    compose(stack, evidence, "-f hello2.yml up -d")?;
    stack.until(|| usable(stack, WORLD, 1))?;
    for host in ["www.world.dev.localhost", "hello.home.localhost"] {
        let page = stack.front(host, "/")?;
        ensure!(
            page.body.contains("<h1>Hello developers!</h1>"),
            "{host} shows {:?}",
            page.body
        );
    }
    let page = stack.front("proxy-admin.infra.localhost", "/")?.body;
    for anchor in ["world.dev_www_backend", "www_world_dev_backend"] {
        ensure!(
            page.contains(&format!("id=\"{anchor}\"")),
            "the page has no #{anchor}"
        );
    }
    evidence
        .say("http://www.world.dev.localhost/ and http://hello.home.localhost/ greet developers");
    let answer = compose(
        stack,
        evidence,
        "-f hello2.yml exec -T web2 ask http://www.hello/",
    )?;
    ensure!(
        answer.contains("<h1>Hello world!</h1>"),
        "it is answered {answer:?}"
    );
    evidence.say("answered by www_hello: another project, on a network of its own, by the ports that it publishes");
    // A name of the front means the host; there it listens on loopback alone.
    let front = stack.compose("-f hello2.yml exec -T web2 ask http://www.hello.localhost/");
    let refused = match front {
        Ok(answer) => bail!("a container is answered {answer:?} by a front on loopback"),
        Err(error) => error.to_string(),
    };
    ensure!(refused.contains("refused"), "{refused}");
    Ok(())
}

fn internal_calls(stack: &mut Stack, evidence: &mut Evidence) -> Result<()> {
    compose(stack, evidence, "-f internal-b.yml up -d")?;
    compose(stack, evidence, "-f internal.yml up -d")?;
    for service in [
        "b",
        "b_line",
        "b_published",
        "b_published_line",
        "b_hidden",
        "b_hidden_line",
    ] {
        stack.until(|| usable(stack, service, 1))?;
    }
    for (url, instance) in [
        ("http://b/id", "b-near-1"),
        ("tcp://b.line:7000", "b-near-1"),
        ("http://b.published/id", "b-published-1"),
        ("tcp://b.published.line:7000", "b-published-1"),
    ] {
        let expected = id(stack, instance)?;
        let words = format!("-f internal.yml exec -T a ask {url}");
        // The agent may not know the new networks of A yet.
        let answer = stack.until(|| stack.compose(&words))?;
        ensure!(
            answer == expected,
            "{url} is answered {answer:?}, not by {instance}"
        );
        evidence.say(format!("a: ask {url:30} → {instance}"));
    }
    let own = [
        "inspect",
        "--format",
        "{{.NetworkSettings.Networks.calls.IPAddress}}",
        "a-a-1",
    ];
    let own = stack.docker().docker(own)?;
    let seen = stack.compose("-f internal.yml exec -T a ask http://b/from")?;
    ensure!(seen == own, "{own} is seen as {seen:?}");
    let away = stack.compose("-f internal.yml exec -T a ask http://b.published/from")?;
    evidence.say(format!(
        "b sees a's own address, {own}; at a published port Docker shows it {away}"
    ));
    for url in ["http://b.hidden/id", "tcp://b.hidden.line:7000"] {
        let refused = match stack.compose(&format!("-f internal.yml exec -T a ask {url}")) {
            Ok(answer) => bail!("{url} is answered {answer:?}, though no way leads there"),
            Err(error) => error.to_string(),
        };
        ensure!(refused.contains("refused"), "{url}: {refused}");
        evidence.say(format!("a: ask {url:30} → connection refused"));
    }
    let explained = compose(
        stack,
        evidence,
        "-f consul.yml exec -T agent lb-agent explain a-a-1 b_hidden",
    )?;
    ensure!(explained.contains("no-path"), "it says {explained}");
    let verdict = explained.lines().find(|line| line.contains("no-path"));
    evidence.say(
        verdict
            .unwrap_or_default()
            .split_whitespace()
            .collect::<Vec<_>>()
            .join("  "),
    );
    Ok(())
}

fn leave(stack: &Stack, evidence: &mut Evidence) -> Result<()> {
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
