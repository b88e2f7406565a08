//! The script: what the demo shows, in order. Each step does something, looks at it from outside, and fails if it is
//! not so.

use std::{
    collections::BTreeMap,
    net::Ipv4Addr,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};

use super::{
    cast::{A, B, C, HELLO, W, WORLD},
    curl::{Answer, Place},
    download,
    traffic::{self, Traffic},
    transcript::{Evidence, Transcript},
    world::World,
};

type Step = fn(&mut World, &mut Evidence) -> Result<()>;

/// Title and content of each step.
const SCRIPT: [(&str, Step); COUNT] = [
    (
        "Every service has a virtual IP and a name",
        names_and_addresses,
    ),
    (
        "A client reaches http://www.hello/ by name, through the virtual IP",
        by_name,
    ),
    ("The outside world reaches it by Host name", by_host),
    ("It is scaled to three instances", scale),
    (
        "The application of b breaks while its port stays open",
        break_application,
    ),
    ("Instance c is killed", kill_instance),
    (
        "The agent is restarted, then killed, in the middle of a download",
        restart_agent,
    ),
    ("The status page shows all of it", status_page),
];

/// How many steps there are.
pub(super) const COUNT: usize = 8;

/// Plays all steps, the failed ones included: each starts from what should be there. Without the first there is
/// nothing to show.
pub(super) fn play(world: &mut World, transcript: &mut Transcript) {
    for (number, (title, step)) in SCRIPT.into_iter().enumerate() {
        if world.is_stopped() {
            return;
        }
        let fine = transcript.step(title, |evidence| step(world, evidence));
        if !fine && number == 0 {
            return;
        }
    }
}

fn names_and_addresses(world: &mut World, evidence: &mut Evidence) -> Result<()> {
    world.scale_up(&[&A, &B, &W])?;
    world.start_agent()?;
    world.until(PATIENCE, || all_usable(world, HELLO, &["a", "b"]))?;
    world.until(PATIENCE, || all_usable(world, WORLD, &["w"]))?;
    let report = world.report()?;
    for (service, name) in [(HELLO, "www.hello"), (WORLD, "www.world.dev")] {
        let vip = report.service(service)?.vip()?;
        let answer = world.client().resolve(name)?;
        ensure!(
            answer == vip,
            "{name} is {answer}, but the service has {vip}"
        );
        let backends = &report.service(service)?.backends;
        let backends: Vec<_> = backends.iter().map(|b| b.address.to_string()).collect();
        evidence.say(format!(
            "{service:15} {vip:15} {name:14} → {}",
            backends.join(", ")
        ));
    }
    for problem in report.problems() {
        evidence.say(format!("the agent says: {problem}"));
    }
    Ok(())
}

fn by_name(world: &mut World, evidence: &mut Evidence) -> Result<()> {
    let report = world.report()?;
    let service = report.service(HELLO)?;
    let client = world.client();
    let page = client.get("http://www.hello/")?;
    ensure!(
        page.body.contains("<h1>Hello world!</h1>"),
        "the page is {:?}",
        page.body
    );
    let is_its = |peer| service.families().any(|(_, address)| address == peer);
    ensure!(
        is_its(page.peer),
        "the client sees {} as its peer, not the virtual IP",
        page.peer
    );
    // Which of the two a client takes is its own choice.
    for (family, address) in service.families() {
        let page = client.place().ask(&[family, "http://www.hello/"])?;
        ensure!(
            (page.status, page.peer) == (200, address),
            "with {family} the client is answered {} and sees {} as its peer, not {address}",
            page.status,
            page.peer
        );
    }
    let seen = see(&["a", "b"], || client.get("http://www.hello/id"))?;
    evidence.say(format!("http://www.hello/ is answered by {seen}"));
    let whose = if page.peer.is_ipv6() {
        "virtual IP's IPv6 twin"
    } else {
        "virtual IP"
    };
    evidence.say(format!(
        "the client's peer is the {whose}, {}: no NAT, no proxy",
        page.peer
    ));

    let other = client.get("http://www.world.dev/")?;
    ensure!(
        other.body.contains("<h1>Hello developers!</h1>"),
        "www.world.dev shows {:?}",
        other.body
    );
    client.ensure_unreachable_without_hooks(service.vip()?.into())?;
    evidence.say("http://www.world.dev/ is another service; without the hooks nothing answers");
    Ok(())
}

fn by_host(world: &mut World, evidence: &mut Evidence) -> Result<()> {
    let (front, _) = world.addresses()?;
    let url = |host: &str, path: &str| format!("http://{host}:{}{path}", front.port());
    let page = Place::MACHINE.get(&url("www.hello.localhost", "/"))?;
    ensure!(
        page.body.contains("<h1>Hello world!</h1>"),
        "the page is {:?}",
        page.body
    );
    let by_host = || {
        let address = format!("http://{front}/id");
        let answer = Place::MACHINE.ask(&["--header", "Host: www.hello", &address])?;
        ensure!(answer.status == 200, "it answers {}", answer.status);
        Ok(answer)
    };
    let seen = see(&["a", "b"], by_host)?;
    evidence.say(format!(
        "{} and `Host: www.hello` are answered by {seen}",
        url("www.hello.localhost", "/")
    ));
    let alias = Place::MACHINE.get(&url("hello.home.localhost", "/"))?;
    ensure!(
        alias.body.contains("<h1>Hello developers!</h1>"),
        "the alias shows {:?}",
        alias.body
    );
    let nobody = Place::MACHINE.ask(&[&url("nobody.localhost", "/")])?;
    ensure!(
        nobody.status == 503,
        "a name that nobody has answers {}",
        nobody.status
    );
    evidence.say("its alias hello.home.localhost reaches www_world_dev; an unknown name is a 503");
    Ok(())
}

fn scale(world: &mut World, evidence: &mut Evidence) -> Result<()> {
    world.scale_up(&[&C])?;
    let start = Instant::now();
    let client = world.client();
    world.until(PATIENCE, || {
        let answer = client.get("http://www.hello/id")?;
        ensure!(answer.body == "c", "c has not answered yet");
        Ok(())
    })?;
    let took = start.elapsed();
    let seen = see(&["a", "b", "c"], || client.get("http://www.hello/id"))?;
    evidence.say(format!("answered by {seen}"));
    evidence.say(format!(
        "c served its first client {:.1} s after it was registered",
        took.as_secs_f64()
    ));
    Ok(())
}

fn break_application(world: &mut World, evidence: &mut Evidence) -> Result<()> {
    world.on_host().post(&B.page("/break"))?;
    let seen = see_broken(world, evidence);
    // Whatever was seen: the next step starts from three good instances.
    world.on_host().post(&B.page("/mend"))?;
    seen?;
    world.until(PATIENCE, || all_usable(world, HELLO, &["a", "b", "c"]))?;
    evidence.say("mended, it is back");
    Ok(())
}

fn see_broken(world: &World, evidence: &mut Evidence) -> Result<()> {
    let start = Instant::now();
    world.until(PATIENCE, || all_usable(world, HELLO, &["a", "c"]))?;
    evidence.say(format!(
        "b answers 502 and is `{}` after {:.1} s",
        world.report()?.service(HELLO)?.state("b")?,
        start.elapsed().as_secs_f64()
    ));
    world.connect(B.socket())?;
    world.on_host().get(&B.page("/logo.png"))?;
    let client = world.client();
    let seen = see(&["a", "c"], || client.get("http://www.hello/id"))?;
    evidence.say(format!(
        "its port is open, its /logo.png is there; the service is answered by {seen}"
    ));
    Ok(())
}

fn kill_instance(world: &mut World, evidence: &mut Evidence) -> Result<()> {
    let seen = see_killed(world, evidence);
    world.scale_up(&[&C])?;
    seen?;
    world.until(PATIENCE, || all_usable(world, HELLO, &["a", "b", "c"]))?;
    evidence.say("started again, c is back");
    Ok(())
}

fn see_killed(world: &mut World, evidence: &mut Evidence) -> Result<()> {
    let [vip, front] = traffic_both_ways(world)?;
    world.until(PATIENCE, || vip.ensure_more(0, 20))?;
    world.until(PATIENCE, || front.ensure_more(0, 20))?;
    world.kill_instance("c")?;
    world.until(PATIENCE, || all_usable(world, HELLO, &["a", "b"]))?;
    let before = [vip.count(), front.count()];
    world.until(PATIENCE, || vip.ensure_more(before[0], 50))?;
    world.until(PATIENCE, || front.ensure_more(before[1], 50))?;

    let outcomes = vip.finish()?;
    let failed = traffic::ensure_good_after_detection(&outcomes)?;
    evidence.say(format!(
        "by the virtual IP: {} requests, {failed} failed at the kill, none after the first detection",
        outcomes.len()
    ));
    let through_front = traffic::ensure_all_good("through the front", &front.finish()?)?;
    evidence.say(format!(
        "through the front: {through_front} requests, none failed"
    ));
    Ok(())
}

fn restart_agent(world: &mut World, evidence: &mut Evidence) -> Result<()> {
    let file = world.folder().join("download");
    let mut download = download::start(world.client().place(), "www.hello", &file)?;
    world.until(PATIENCE, || {
        ensure!(
            download::length(&file) > 0,
            "nothing has been downloaded yet"
        );
        Ok(())
    })?;
    let [vip, front] = traffic_both_ways(world)?;

    world.terminate_agent()?;
    let dead = vip.count();
    world
        .until(PATIENCE, || vip.ensure_more(dead, 20))
        .context("by the virtual IP, after the agent ended")?;
    world.start_agent()?;
    evidence.say("SIGTERM: new connects were served with no agent there; the next one took over");

    world.kill_agent()?;
    let (dead, dead_front) = (vip.count(), front.count());
    let served = world
        .until(PATIENCE, || vip.ensure_more(dead, 20))
        .context("by the virtual IP, after the agent was killed")?;
    let served_front = world
        .until(PATIENCE, || front.ensure_more(dead_front, 20))
        .context("through the front, after the agent was killed")?;
    evidence.say(format!(
        "SIGKILL: {served} connects by the virtual IP and {served_front} through the front served meanwhile"
    ));
    world.start_agent()?;
    world.until(PATIENCE, || all_usable(world, HELLO, &["a", "b", "c"]))?;

    let arrived = download::length(&file);
    ensure!(
        download.is_running(),
        "the download ended during the restarts, after {arrived} bytes"
    );
    let by_vip = traffic::ensure_all_good("by the virtual IP", &vip.finish()?)?;
    let through_front = traffic::ensure_all_good("through the front", &front.finish()?)?;
    for instance in [&A, &B, &C] {
        world.on_host().post(&instance.page("/hurry"))?;
    }
    let status = download.wait(PATIENCE)?;
    ensure!(status.success(), "the download failed: curl {status}");
    let from = download::sender(&file)?;
    evidence.say(format!(
        "the download had {} KiB by then, went on, and is complete: {} MiB, all from {from}",
        arrived / 1024,
        download::BYTES >> 20,
    ));
    evidence.say(format!(
        "in all {by_vip} connects by the virtual IP and {through_front} through the front, none failed"
    ));
    Ok(())
}

fn status_page(world: &mut World, evidence: &mut Evidence) -> Result<()> {
    let (front, page) = world.addresses()?;
    let url = format!("http://{page}/");
    let body = Place::MACHINE.get(&url)?.body;
    for needed in [
        HELLO,
        WORLD,
        "www_hello_backend",
        &vip(world)?.to_string(),
        "10.77.0.11",
    ] {
        ensure!(body.contains(needed), "{url} does not show {needed}");
    }
    evidence.say(format!("{url}, and the service itself at"));
    evidence.say(format!("http://www.hello.localhost:{}/", front.port()));
    Ok(())
}

/// A client by the virtual IP, and one through the front.
fn traffic_both_ways(world: &World) -> Result<[Traffic; 2]> {
    let (front, _) = world.addresses()?;
    let by_vip = format!("http://{}/id", vip(world)?);
    let by_host = format!("http://{front}/id");
    Ok([
        Traffic::start(world.client().place(), &[], &by_vip)?,
        Traffic::start(Place::MACHINE, &["--header", "Host: www.hello"], &by_host)?,
    ])
}

/// Asks until everybody in `expected` has answered, and for a while more; fails if somebody else does.
pub(super) fn see(expected: &[&str], mut ask: impl FnMut() -> Result<Answer>) -> Result<String> {
    let mut seen = BTreeMap::new();
    for _ in 0..ASK_AT_MOST {
        let answer = ask()?.body;
        ensure!(
            expected.contains(&answer.as_str()),
            "{answer:?} answers, who should not"
        );
        *seen.entry(answer).or_insert(0_u32) += 1;
        if seen.values().sum::<u32>() >= ASK_AT_LEAST && seen.len() == expected.len() {
            let seen: Vec<_> = seen.iter().map(|(id, n)| format!("{id} {n}×")).collect();
            return Ok(seen.join(", "));
        }
    }
    bail!("of {expected:?}, only these answered in {ASK_AT_MOST} requests: {seen:?}")
}

/// Fails unless exactly these instances take new flows.
fn all_usable(world: &World, service: &str, ids: &[&str]) -> Result<()> {
    let report = world.report()?;
    let usable = report.service(service)?.usable();
    ensure!(
        usable == ids,
        "usable instances of {service} are {usable:?}, not {ids:?}"
    );
    Ok(())
}

fn vip(world: &World) -> Result<Ipv4Addr> {
    world.report()?.service(HELLO)?.vip()
}

/// Much longer than anything takes on an idle machine; a step that needs it all has failed.
const PATIENCE: Duration = Duration::from_secs(20);

/// Enough to see a stray answer.
const ASK_AT_LEAST: u32 = 12;

/// With two random choices, one of three instances is missed by this many requests about never.
const ASK_AT_MOST: u32 = 60;
