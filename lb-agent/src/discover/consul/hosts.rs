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
/// How long one question may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// Resolves `host` until nobody listens any more, and tells what has changed. `turns` bounds how many are asked
/// for at once.
pub(super) async fn follow(host: Arc<str>, events: mpsc::Sender<Event>, turns: Arc<Semaphore>) {
    let mut last = None;
    loop {
        let answer = {
            let Ok(_turn) = turns.acquire().await else {
                return;
            };
            resolve(&host, last.as_ref()).await
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
        sleep(AGAIN).await;
    }
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
