//! How many connections Consul over TLS takes, and when one is given up.

use std::time::Duration;

use lb_agent::{catalog::SourceState, discover::consul::Config};

use super::authority::Authority;
use crate::{
    kit::{SOON, Source, ids},
    support::{BOUND, until},
};

/// Established connections of this machine to a port of 127.0.0.1.
fn connections(port: u16) -> usize {
    let peer = format!("0100007F:{port:04X}");
    let table = std::fs::read_to_string("/proc/self/net/tcp").unwrap();
    let lines = table.lines().map(|line| line.split_whitespace());
    lines
        .filter_map(|mut columns| Some((columns.nth(2)?.to_owned(), columns.next()?.to_owned())))
        .filter(|(remote, state)| *remote == peer && state == "01")
        .count()
}

#[tokio::test]
async fn three_hundred_services_are_followed_over_two_connections_also_after_a_restart() {
    const SERVICES: usize = 300;
    let authority = Authority::new();
    let mut consul = authority.consul().await;
    for n in 0..SERVICES {
        consul.register(&format!("s{n}"), &format!("i{n}"), 1).await;
    }
    let config = Config {
        // Nothing is polled.
        max_watches: 2 * SERVICES,
        ..authority.config(&consul)
    };
    let mut source = Source::start(config);
    source
        .catalog(2 * BOUND, |catalog| catalog.services.len() == SERVICES + 1)
        .await;
    let port = consul.ports().https;
    // Each carries 200 requests.
    until(BOUND, || connections(port) == 2).await;
    for n in [0, SERVICES - 1] {
        let (service, id) = (format!("s{n}"), format!("j{n}"));
        consul.register(&service, &id, 2).await;
        source
            .catalog(SOON, |catalog| ids(catalog, &service).len() == 2)
            .await;
    }

    consul.kill();
    source.until(BOUND, |state| state.error.is_some()).await;
    consul.run().await;
    source.until(2 * BOUND, |state| state.error.is_none()).await;
    consul.register("s7", "j7", 2).await;
    source
        .catalog(BOUND, |catalog| ids(catalog, "s7").len() == 2)
        .await;
    assert!(connections(port) <= 2, "{}", connections(port));
    source.end().await;
}

#[tokio::test]
async fn a_consul_that_falls_silent_over_http2_is_noticed_before_its_queries_would_end() {
    let authority = Authority::new();
    let consul = authority.consul().await;
    let config = Config {
        wait: Duration::from_secs(300),
        ..authority.config(&consul)
    };
    let mut source = Source::start(config);
    source.catalog(BOUND, |_| true).await;
    consul.freeze();
    let silent = |state: &SourceState| state.error.is_some();
    // Ten seconds to the next ping, and ten for its answer.
    source.until(Duration::from_secs(60), silent).await;
    consul.thaw();
    source.until(2 * BOUND, |state| state.error.is_none()).await;
    source.end().await;
}
