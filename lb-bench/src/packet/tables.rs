//! What a table takes to be made and to be published, and what the loss of a backend moves in it.

use std::{net::Ipv4Addr, sync::Arc, time::Instant};

use anyhow::{Context as _, Result};
use lb_common::{Be16, Be32, PROTO_TCP, packet::EndpointKey};
use lb_packet::{
    Desired, Member, Place, Publisher, Wanted,
    maglev::{self, Size, table},
};

use super::{
    Effort,
    card::{self, Card, Instance},
};
use crate::statistics::{median, percentile};

/// What was found.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tables {
    /// Milliseconds of making one for [`MEMBERS`] backends.
    pub(super) build: f64,
    /// Milliseconds of publishing the change of one service among [`SERVICES`], the making of its table included.
    pub(super) publish: f64,
    pub(super) publish_p99: f64,
    /// The greatest share of slots that moved beyond those of the backend that was lost, one of 10.
    pub(super) disruption_of_10: f64,
    /// The same, one of 100.
    pub(super) disruption_of_100: f64,
}

/// Backends of the table that is made.
pub(super) const MEMBERS: usize = 100;

/// Services that there are when one of them changes, and backends of each.
pub(super) const SERVICES: u8 = 100;
const BACKENDS: u8 = 10;

/// Measures all of it.
///
/// # Errors
/// When the kernel refuses.
pub(super) fn measure(effort: &Effort) -> Result<Tables> {
    let (publish, publish_p99) = publish(effort.changes)?;
    Ok(Tables {
        build: build(effort.changes),
        publish,
        publish_p99,
        disruption_of_10: disruption(10),
        disruption_of_100: disruption(100),
    })
}

fn build(times: usize) -> f64 {
    let identities = identities(MEMBERS);
    let members = members(&identities);
    let samples: Vec<_> = (0..times)
        .map(|_| {
            let start = Instant::now();
            std::hint::black_box(table(std::hint::black_box(&members), Size::Packets));
            start.elapsed().as_secs_f64() * 1e3
        })
        .collect();
    median(&samples).unwrap_or(f64::NAN)
}

/// The median and the 99th percentile of so many changes.
fn publish(changes: usize) -> Result<(f64, f64)> {
    Card::new()?.enter(|| {
        let mut programs = card::programs(Instance::Steady, u32::from(SERVICES))?;
        let mut publisher = Publisher::open(&mut programs)?;
        let mut desired = Desired::default();
        for service in 0..SERVICES {
            serve(&mut desired, service, BACKENDS);
        }
        publisher.apply(&desired)?;
        let mut samples = Vec::new();
        for change in 0..changes {
            // Each loses a backend, and has it back when it has its turn again.
            let service = u8::try_from(change % usize::from(SERVICES))?;
            let lost = u8::from(change / usize::from(SERVICES) % 2 == 0);
            serve(&mut desired, service, BACKENDS - lost);
            let start = Instant::now();
            publisher.apply(&desired)?;
            samples.push(start.elapsed().as_secs_f64() * 1e3);
        }
        let both = median(&samples).zip(percentile(&samples, 99));
        both.context("nothing was published")
    })
}

fn key(service: u8) -> EndpointKey {
    EndpointKey {
        vip: Be32::from_host(Ipv4Addr::new(198, 18, 1, service).into()),
        port: Be16::from_host(80),
        proto: PROTO_TCP,
        scope: 0,
    }
}

/// Lets so many backends serve, each of which is on a host.
fn serve(desired: &mut Desired, service: u8, backends: u8) {
    let address = |backend| (Ipv4Addr::new(10, 91, service, backend), 8080).into();
    for backend in 0..BACKENDS {
        let place = Place {
            host: Some(Ipv4Addr::new(10, 92, 0, backend).into()),
            local: false,
        };
        if backend < backends {
            desired.places.insert(address(backend), place);
        } else {
            desired.places.remove(&address(backend));
        }
    }
    let members: Arc<[Member]> = (0..backends)
        .map(|backend| Member {
            address: address(backend),
            weight: 1,
        })
        .collect();
    let wanted = Wanted {
        members,
        tunnel: false,
        trace: false,
    };
    desired.endpoints.insert(key(service), wanted);
}

/// The greatest share that moves from a backend that stays, whichever of `count` is lost. Pure.
fn disruption(count: usize) -> f64 {
    let identities = identities(count);
    let before = table(&members(&identities), Size::Packets);
    let moved = (0..count).map(|lost| {
        let mut fewer = members(&identities);
        fewer[lost].weight = 0;
        let after = table(&fewer, Size::Packets);
        let slots = before.iter().zip(&after);
        slots
            .filter(|(before, after)| **before as usize != lost && before != after)
            .count()
    });
    moved.max().unwrap_or(0) as f64 / Size::Packets.slots() as f64
}

fn identities(count: usize) -> Vec<String> {
    (0..count)
        .map(|number| format!("10.91.{}.{}:8080", number / 250, number % 250))
        .collect()
}

fn members(identities: &[String]) -> Vec<maglev::Member<'_>> {
    let members = identities.iter().map(|identity| maglev::Member {
        identity: identity.as_bytes(),
        weight: 1,
    });
    members.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loss_of_one_of_ten_moves_little_beyond_its_own() {
        let moved = disruption(10);
        assert!(0.0 < moved && moved < 0.01, "{moved}");
    }
}
