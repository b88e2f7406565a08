//! What the programs counted, summed over all CPUs.

use std::{collections::BTreeMap, net::SocketAddr};

use aya::maps::{MapData, PerCpuArray};
use lb_common::packet::{EndpointKey, Fate, Traffic, oddity, packet_map as map};

use crate::{Error, Programs, Publisher};

/// The maps with figures.
pub struct Figures {
    fates: PerCpuArray<MapData, u64>,
    services: PerCpuArray<MapData, Traffic>,
    targets: PerCpuArray<MapData, Traffic>,
}

/// How many packets had each fate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fates {
    /// All of them, also those that no packet had.
    pub packets: BTreeMap<Fate, u64>,
    /// Packets with IPv4 options or IPv6 extension headers, whatever became of them.
    pub options: u64,
    /// Samples that found no room.
    pub untold: u64,
}

impl Figures {
    /// Opens the maps.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn open(programs: &mut Programs) -> Result<Self, Error> {
        Ok(Self {
            fates: programs.map(map::FATES)?,
            services: programs.map(map::SERVICE_TRAFFIC)?,
            targets: programs.map(map::TARGET_TRAFFIC)?,
        })
    }

    /// What became of packets.
    ///
    /// # Errors
    /// When the kernel refuses a read.
    pub fn fates(&self) -> Result<Fates, Error> {
        let mut fates = Fates::default();
        for fate in Fate::ALL {
            fates.packets.insert(fate, self.fate(fate as u32)?);
        }
        fates.options = self.fate(oddity::OPTIONS)?;
        fates.untold = self.fate(oddity::UNTOLD)?;
        Ok(fates)
    }

    /// What went to each endpoint, since it came.
    ///
    /// # Errors
    /// When the kernel refuses a read.
    pub fn endpoints(
        &self,
        publisher: &Publisher,
    ) -> Result<BTreeMap<EndpointKey, Traffic>, Error> {
        let all = publisher.endpoints();
        all.map(|(key, endpoint)| {
            Ok((
                key,
                sum(&self.services, endpoint.service, map::SERVICE_TRAFFIC)?,
            ))
        })
        .collect()
    }

    /// What went to each backend, since it came.
    ///
    /// # Errors
    /// When the kernel refuses a read.
    pub fn backends(&self, publisher: &Publisher) -> Result<BTreeMap<SocketAddr, Traffic>, Error> {
        let all = publisher.targets();
        all.map(|(address, index, _)| {
            Ok((address, sum(&self.targets, index, map::TARGET_TRAFFIC)?))
        })
        .collect()
    }

    fn fate(&self, index: u32) -> Result<u64, Error> {
        let each = self
            .fates
            .get(&index, 0)
            .map_err(Error::map("read", map::FATES))?;
        Ok(each.iter().sum())
    }
}

fn sum(
    figures: &PerCpuArray<MapData, Traffic>,
    index: u32,
    name: &'static str,
) -> Result<Traffic, Error> {
    let each = figures.get(&index, 0).map_err(Error::map("read", name))?;
    Ok(each.iter().fold(Traffic::default(), |sum, it| Traffic {
        packets: sum.packets.wrapping_add(it.packets),
        bytes: sum.bytes.wrapping_add(it.bytes),
        flows: sum.flows.wrapping_add(it.flows),
        dropped: sum.dropped.wrapping_add(it.dropped),
    }))
}
