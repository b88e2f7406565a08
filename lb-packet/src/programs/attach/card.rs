//! The list of cards by which frames may leave, as the programs read it.

use std::collections::BTreeSet;

use aya::maps::{HashMap, MapData};
use lb_common::packet::packet_map as map;

use crate::{Error, error::there, programs::Programs};

impl Programs {
    /// Tells the programs of a card by its index: they send frames out of such devices alone, which have an address on a link.
    /// Attaching does that; tests run programs without it.
    ///
    /// # Errors
    /// When the device has no such address, or the kernel refuses.
    pub fn tell_card(&mut self, device: &str, index: u32) -> Result<(), Error> {
        require_link_address(device)?;
        self.insert_card(index)
    }

    pub(super) fn insert_card(&mut self, index: u32) -> Result<(), Error> {
        let inserted = self.cards()?.insert(index, 1, 0);
        inserted.map_err(Error::map("write", map::CARDS))
    }

    pub(super) fn forget_card(&mut self, index: u32) -> Result<(), Error> {
        let removed = self.cards()?.remove(&index);
        let removed = there(removed).map(drop);
        removed.map_err(Error::map("remove from", map::CARDS))
    }

    /// Forgets the cards of an earlier agent that are none now, except those of these indexes.
    pub(super) fn forget_other_cards(&mut self, except: &BTreeSet<u32>) -> Result<(), Error> {
        let known: Result<Vec<u32>, _> = self.cards()?.keys().collect();
        for index in known.map_err(Error::map("read", map::CARDS))? {
            let mut attached = self.attached.iter();
            let is_card = attached.any(|it| it.index == index && it.takes_frames());
            if !is_card && !except.contains(&index) {
                self.forget_card(index)?;
            }
        }
        Ok(())
    }

    fn cards(&self) -> Result<HashMap<MapData, u32, u32>, Error> {
        self.map(map::CARDS)
    }
}

/// Fails where a device has no address on a link: frames without one are not understood.
pub(super) fn require_link_address(device: &str) -> Result<(), Error> {
    let device = device.to_owned();
    match nix::ifaddrs::getifaddrs() {
        Ok(mut all) => {
            let has_address = all.any(|it| {
                let address = it.address.as_ref().and_then(|it| it.as_link_addr()?.addr());
                it.interface_name == device && address.is_some()
            });
            let none = || Error::NoLinkAddress { device };
            has_address.then_some(()).ok_or_else(none)
        }
        Err(error) => Err(Error::Device {
            device,
            source: error.into(),
        }),
    }
}
