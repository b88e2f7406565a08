//! What the maps hold for what is installed, value by value.

use std::net::{IpAddr, SocketAddr};

use lb_common::{Backend, Be16, Half, SLOTS, Service, ServiceKey};

use crate::installed::{InstalledBackend, InstalledService};

impl InstalledService {
    /// The value of `SERVICES` that publishes it.
    pub fn value(&self) -> Service {
        Service {
            table: self.table,
            half: self.half,
            count: u32::try_from(self.slots.len()).unwrap_or(SLOTS),
            generation: self.generation,
            balance: self.balance as u32,
            flags: self.flags,
            affinity_seconds: self.affinity_seconds,
            spare: 0,
        }
    }

    /// The half of its table that the value names, for the endpoint `owner`.
    pub fn half(&self, owner: ServiceKey) -> Half {
        let mut half = Half {
            generation: self.generation,
            owner,
            slots: [0; SLOTS as usize],
        };
        for (slot, &index) in half.slots.iter_mut().zip(self.slots.iter().cycle()) {
            *slot = index;
        }
        half
    }
}

/// The value of `BACKENDS` for a backend.
pub fn backend_value(address: SocketAddr, backend: InstalledBackend) -> Backend {
    let ip = match address.ip() {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    };
    let mut words = [0; 4];
    for (word, bytes) in words.iter_mut().zip(ip.octets().chunks_exact(4)) {
        *word = u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    }
    Backend {
        address: words,
        port: Be16::from_host(address.port()),
        weight: backend.weight.max(1),
        generation: backend.id.generation,
        counted_at: backend.counted_at.to_bits(),
    }
}
