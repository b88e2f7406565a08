//! A cluster under load and steady changes: memory, descriptors, threads and maps of its agents must stay as they are.

use std::{
    collections::BTreeMap,
    fs,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::{
    cluster::{Cluster, HOSTS, Programs},
    fault::Fault,
    rules,
    slope::{Sample, Trend},
};

/// Time between two samples.
const SAMPLE_EVERY: Duration = Duration::from_secs(1);
/// Time between two changes in Consul.
const CHANGE_EVERY: Duration = Duration::from_millis(250);
/// How many services come and go. Each stays for a whole round of the others.
const CHANGING: usize = 16;
/// Changes between two kills of a backend.
const KILL_EVERY: usize = 40;

/// What may grow by how much, while it is watched: by this part of it, or by so much.
const MEMORY: (f64, f64) = (0.03, 1024.0);
const DESCRIPTORS: (f64, f64) = (0.05, 2.0);
const THREADS: (f64, f64) = (0.0, 1.0);
const ENTRIES: (f64, f64) = (0.02, 4.0);

/// Watches for so long, prints what was seen, and says whether it is flat.
///
/// # Errors
/// When something grows, something that must hold does not, or the cluster does not come up.
pub fn soak(programs: &Programs, time: Duration) -> Result<()> {
    let mut cluster = Cluster::start(programs).context("the cluster does not come up")?;
    println!(
        "soak: {} minutes, {HOSTS} hosts, a change each {CHANGE_EVERY:?}",
        time.as_secs() / 60
    );
    let watched = watch(&mut cluster, time);
    let (series, changes, tries) = watched.with_context(|| cluster.last_words())?;
    println!("{changes} changes in Consul, {tries} tries of clients were judged");
    println!(
        "{:<34} {:>10} {:>12} {:>12} {:>10}  flat",
        "of", "median", "an hour", "grown by", "may by"
    );
    let mut growing = Vec::new();
    for ((host, what), samples) in &series {
        let trend = Trend::of(samples).context("there are too few samples")?;
        let (part, least) = allowed(what);
        let flat = trend.is_flat(part, least);
        println!(
            "{:<34} {:>10.0} {:>12.1} {:>12.1} {:>10.1}  {}",
            format!("host {host}: {what}"),
            trend.median,
            trend.slope * 3600.0,
            trend.growth(),
            (trend.median * part).max(least),
            if flat { "yes" } else { "NO" },
        );
        if !flat {
            growing.push(format!("{what} of host {host}"));
        }
    }
    ensure!(
        growing.is_empty(),
        "it grows: {}\n{}",
        growing.join(", "),
        cluster.last_words()
    );
    Ok(())
}

/// Samples by host and by what they are of.
type Series = BTreeMap<(usize, String), Vec<Sample>>;

fn watch(cluster: &mut Cluster, time: Duration) -> Result<(Series, usize, usize)> {
    let began = Instant::now();
    let (mut series, mut changes, mut tries) = (Series::new(), 0, 0);
    let mut sampled = Duration::ZERO;
    while began.elapsed() < time {
        // The pace of who changes: nothing is waited for.
        let due = CHANGE_EVERY * u32::try_from(changes)?;
        std::thread::sleep(due.saturating_sub(began.elapsed()));
        change(cluster, changes)?;
        changes += 1;
        if began.elapsed() < sampled {
            continue;
        }
        sampled = began.elapsed() + SAMPLE_EVERY;
        for host in 0..HOSTS {
            let at = began.elapsed().as_secs_f64();
            for (what, value) in sample(cluster, host)? {
                series.entry((host, what)).or_default().push((at, value));
            }
            for seen in cluster.hosts[host].take_seen() {
                tries += 1;
                if let Some(violation) = rules::judge(&cluster.history, host, &seen) {
                    anyhow::bail!(
                        "host {host}, after {at:.0} s: {}: {}",
                        violation.invariant,
                        violation.what
                    );
                }
            }
        }
    }
    ensure!(tries > 0, "no client tried anything");
    cluster.await_calm()?;
    let differ = cluster.vips_differ();
    ensure!(differ.is_empty(), "VIPs differ: {differ:?}");
    for host in &cluster.hosts {
        ensure!(!host.log().contains("panicked"), "an agent panicked");
    }
    let registrar = cluster.engine.log();
    ensure!(!registrar.contains("panicked"), "the registrar panicked");
    Ok((series, changes, tries))
}

/// One change: a service comes or goes, and now and then a backend is killed and comes back.
fn change(cluster: &mut Cluster, number: usize) -> Result<()> {
    if number % KILL_EVERY == KILL_EVERY - 1 {
        let pick = u32::try_from(number / KILL_EVERY)?;
        return Fault::BackendFlapping.apply(cluster, pick)?.heal(cluster);
    }
    let id = format!("changing-{}", number % CHANGING);
    match number / CHANGING % 2 {
        0 => cluster.register_other(&id, &id),
        _ => cluster.deregister_other(&id),
    }
}

/// What there is to see of a host's agent and its front.
fn sample(cluster: &Cluster, host: usize) -> Result<Vec<(String, f64)>> {
    let host = &cluster.hosts[host];
    let mut all = Vec::new();
    for (name, process) in [("agent", host.agent_id()?), ("front", host.front_id()?)] {
        let status = fs::read_to_string(format!("/proc/{process}/status"))?;
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let value = line.and_then(|rest| rest.split_whitespace().next()?.parse::<f64>().ok());
            value.with_context(|| format!("the kernel does not tell {name} of a process"))
        };
        // What is of files can be dropped at any time, and is the program itself for the most part.
        all.push((format!("{name}, memory in KiB"), field("RssAnon:")?));
        all.push((format!("{name}, threads"), field("Threads:")?));
        let open = fs::read_dir(format!("/proc/{process}/fd"))?.count();
        let open = f64::from(u32::try_from(open)?);
        all.push((format!("{name}, descriptors"), open));
    }
    let report = host.report()?;
    let maps = report["data_plane"]["maps"].as_object();
    for (map, fill) in maps.context("the agent does not tell of its maps")? {
        let entries = fill["entries"].as_f64();
        let entries = entries.with_context(|| format!("the fill of {map} is {fill}"))?;
        all.push((format!("map {map}, entries"), entries));
    }
    let services = report["services"].as_array().map_or(0, Vec::len);
    let leaving = |it: &Value| it["leaving"].as_array().map_or(0, Vec::len);
    let leaving: usize = report["services"]
        .as_array()
        .into_iter()
        .flatten()
        .map(leaving)
        .sum();
    let number = |it: usize| Ok::<_, anyhow::Error>(f64::from(u32::try_from(it)?));
    all.push(("services known, entries".to_owned(), number(services)?));
    all.push(("backends leaving, entries".to_owned(), number(leaving)?));
    Ok(all)
}

fn allowed(what: &str) -> (f64, f64) {
    match what.rsplit(' ').next() {
        Some("KiB") => MEMORY,
        Some("threads") => THREADS,
        Some("descriptors") => DESCRIPTORS,
        // Services come and go in rounds: half of them are there at any time.
        _ if what.starts_with("services") => (0.0, 8.0),
        _ => ENTRIES,
    }
}
