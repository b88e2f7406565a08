//! Host names that instances are registered with: what they mean, asked again and again.

use std::{net::IpAddr, sync::Arc, time::Duration};

use tokio::{
    net::lookup_host,
    sync::{Semaphore, mpsc},
    time::{sleep, timeout},
};

use super::follow::Event;

/// How long an answer is good. The system's resolver does not tell.
const AGAIN: Duration = Duration::from_secs(30);
/// The same of one that cannot be resolved, at the longest.
const LONGEST: Duration = Duration::from_secs(300);
/// How long one question may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// How many names are asked for at a time.
const LOOKUPS: usize = 16;
/// How many of those that have failed before. Each takes its whole time, and must not take that of the others.
const LOOKUPS_FAILING: usize = 8;

/// Bounds how many names are asked for at once.
#[derive(Debug)]
pub(super) struct Lookups {
    good: Semaphore,
    failing: Semaphore,
}

impl Default for Lookups {
    fn default() -> Self {
        Self {
            good: Semaphore::new(LOOKUPS),
            failing: Semaphore::new(LOOKUPS_FAILING),
        }
    }
}

/// Resolves `host` until nobody listens any more, and tells what has changed.
pub(super) async fn follow(host: Arc<str>, events: mpsc::Sender<Event>, turns: Arc<Lookups>) {
    let mut last = None;
    let mut failures = 0u32;
    loop {
        let answer = {
            let turns = if failures > 0 {
                &turns.failing
            } else {
                &turns.good
            };
            let Ok(_turn) = turns.acquire().await else {
                return;
            };
            resolve(&host, last.as_ref()).await
        };
        failures = if answer.is_ok() {
            0
        } else {
            failures.saturating_add(1)
        };
        if last.as_ref() != Some(&answer) {
            last = Some(answer.clone());
            if events
                .send(Event::Resolved(host.clone(), answer))
                .await
                .is_err()
            {
                return;
            }
        }
        sleep(pause(failures)).await;
    }
}

/// How long to wait after so many failures in a row.
fn pause(failures: u32) -> Duration {
    (AGAIN * (1 << failures.saturating_sub(1).min(4))).min(LONGEST)
}

async fn resolve(host: &str, last: Option<&Result<IpAddr, String>>) -> Result<IpAddr, String> {
    match timeout(PATIENCE, lookup_host((host, 0))).await {
        Err(_) => Err(format!("no answer within {} s", PATIENCE.as_secs())),
        Ok(Err(error)) => Err(error.to_string()),
        Ok(Ok(found)) => {
            let found = found.map(|address| address.ip().to_canonical()).collect();
            choose(found, last).ok_or_else(|| "it has no address".to_owned())
        }
    }
}

/// One of several addresses: the one in use while it is among them, else the lowest, an IPv4 one first. Name
/// servers change the order from answer to answer, which must not move anybody.
fn choose(found: Vec<IpAddr>, last: Option<&Result<IpAddr, String>>) -> Option<IpAddr> {
    let in_use = last.and_then(|last| last.as_ref().ok());
    match in_use.filter(|ip| found.contains(ip)) {
        Some(&ip) => Some(ip),
        None => found.into_iter().min_by_key(|ip| (ip.is_ipv6(), *ip)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ips(texts: &[&str]) -> Vec<IpAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn a_name_that_fails_again_and_again_is_asked_for_less_often() {
        let waits: Vec<_> = (0..7).map(|n| pause(n).as_secs()).collect();
        assert_eq!(waits, [30, 30, 60, 120, 240, 300, 300]);
        assert_eq!(pause(u32::MAX), LONGEST);
    }

    #[test]
    fn the_address_in_use_stays_while_it_is_among_the_answers() {
        let used = Ok("10.0.0.9".parse().unwrap());
        let chosen = choose(ips(&["10.0.0.1", "10.0.0.9"]), Some(&used));
        assert_eq!(chosen, "10.0.0.9".parse().ok());
        assert_eq!(
            choose(ips(&["10.0.0.1"]), Some(&used)),
            "10.0.0.1".parse().ok()
        );
    }

    #[test]
    fn the_order_of_an_answer_means_nothing_and_ipv4_comes_first() {
        for order in [
            ["::2", "10.0.0.2", "10.0.0.1"],
            ["10.0.0.1", "::2", "10.0.0.2"],
        ] {
            assert_eq!(choose(ips(&order), None), "10.0.0.1".parse().ok());
        }
        assert_eq!(choose(ips(&["fd00::2"]), None), "fd00::2".parse().ok());
        assert_eq!(choose(Vec::new(), None), None);
    }
}
