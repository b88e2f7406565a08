//! What connections cost on which nothing happens.

use std::{
    io,
    net::{SocketAddr, SocketAddrV4},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use socket2::{Domain, Socket, Type};

use super::{
    load::answered,
    stage::{Proxy, Stage},
    wire::Wire,
    workload::Workload,
};
use crate::subject::resident_mb;

/// So many idle connections are compared with so many.
const FEW: u32 = 10;
const MANY: u32 = 5_000;

/// What a proxy keeps in memory for each connection on which one request was answered, in KB of a thousand bytes.
///
/// # Errors
/// When a request fails.
pub(super) fn kb_per_connection(stage: &Stage, proxy: Proxy, settles_in: Duration) -> Result<f64> {
    let mut connections = Vec::new();
    let mut resident = |count: u32| -> Result<f64> {
        while connections.len() < count as usize {
            let connection = from_another(connections.len(), proxy.address(WORKLOAD))
                .and_then(|stream| answered(WORKLOAD, stream))
                .with_context(|| format!("{} refuses a connection", proxy.name()))?;
            connections.push(connection);
        }
        settled(stage, proxy, settles_in)
    };
    let few = resident(FEW)?;
    let many = resident(MANY)?;
    Ok((many - few) * 1000.0 / f64::from(MANY - FEW))
}

/// A connection of one of many clients: none of them has so many that a proxy would mind.
fn from_another(number: usize, proxy: SocketAddrV4) -> io::Result<Wire> {
    let host = u8::try_from(number % CLIENTS).unwrap_or_default() + 1;
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.bind(&SocketAddr::from(([127, 0, 1, host], 0)).into())?;
    socket.connect(&proxy.into())?;
    Wire::over(socket.into(), &None)
}

/// What it keeps once it has seen that nothing happens: a proxy may give up buffers after a while of silence, and so may
/// its allocator.
fn settled(stage: &Stage, proxy: Proxy, settles_in: Duration) -> Result<f64> {
    let mut least = f64::INFINITY;
    let mut since = Instant::now();
    while since.elapsed() < settles_in {
        let now = resident_mb(stage.worker(proxy))?;
        if now < least {
            least = now;
            since = Instant::now();
        }
        sleep(Duration::from_millis(200));
    }
    Ok(least)
}

const WORKLOAD: Workload = Workload::KeepAlive;

const CLIENTS: usize = 100;
