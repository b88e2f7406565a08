//! The groups of IPv6 that questions for announced addresses go to.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::Ipv6Addr,
    sync::Arc,
};

use socket2::{Domain, Socket, Type};

/// Groups of IPv6 that this host takes part in, each on one device. Cards let their frames through, and switches that look
/// into multicast send them here.
#[derive(Debug, Default)]
pub(super) struct Groups {
    joined: BTreeMap<(u32, Ipv6Addr), Arc<Socket>>,
    /// The newest, and how often it was used.
    newest: Option<(Arc<Socket>, usize)>,
}

/// Groups of one socket: the kernel bounds what one may take (`net.core.optmem_max`).
const PER_SOCKET: usize = 64;

impl Groups {
    /// Takes part in these, and in no others; the number is that of the device.
    ///
    /// # Errors
    /// When the kernel refuses one; the others are as they were.
    pub(super) fn follow(&mut self, wanted: BTreeSet<(u32, Ipv6Addr)>) -> io::Result<()> {
        self.joined.retain(|place, socket| {
            let keep = wanted.contains(place);
            if !keep {
                // Of a device that is gone there is nothing to leave.
                let _ = socket.leave_multicast_v6(&place.1, place.0);
            }
            keep
        });
        for place in wanted {
            if !self.joined.contains_key(&place) {
                let socket = self.socket()?;
                socket.join_multicast_v6(&place.1, place.0)?;
                self.joined.insert(place, socket);
            }
        }
        Ok(())
    }

    fn socket(&mut self) -> io::Result<Arc<Socket>> {
        if let Some((socket, used)) = &mut self.newest
            && *used < PER_SOCKET
        {
            *used += 1;
            return Ok(socket.clone());
        }
        let socket = Arc::new(Socket::new(Domain::IPV6, Type::DGRAM, None)?);
        self.newest = Some((socket.clone(), 1));
        Ok(socket)
    }
}
