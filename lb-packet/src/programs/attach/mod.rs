//! Attaching programs to devices, so that they stay when the agent goes and the next one finds them.
//!
//! Links are pinned and get the new program in place: there is no moment without one. Below kernel 6.6 the programs of tc
//! hang from a qdisc, without a link; then the program itself is pinned, to remember where it hangs.

mod card;
mod clsact;
mod hook;
mod link;
mod tc;
mod xdp;

use std::{collections::BTreeSet, path::PathBuf};

pub(super) use self::clsact::detach as detach_filter;
pub use self::hook::{Attached, Hook, How, Role, XdpMode};
use self::{card::require_link_address, hook::Spot};
use super::{
    Programs,
    pin::{self, Pin},
};
use crate::Error;

impl Programs {
    /// Attaches to `device` what its role asks for, in the place of an earlier agent's programs where there are some. To
    /// be called again when it is there under another index, or something of it is not in place: the rest is left alone.
    ///
    /// # Errors
    /// When there is no such device, it joins packets, or the kernel refuses; what was attached until then stays.
    pub fn attach(&mut self, device: &str, role: Role) -> Result<&Attached, Error> {
        let index = nix::net::if_::if_nametoindex(device).map_err(|source| Error::Device {
            device: device.to_owned(),
            source: source.into(),
        })?;
        let is_it = |it: &Attached| it.device == device && it.index == index;
        let whole = self.attached.iter().position(is_it);
        let begun = self.begun.iter().position(is_it);
        let before = whole.map(|at| self.attached.remove(at));
        let before = before.or_else(|| begun.map(|at| self.begun.remove(at)));
        let mut attached = before.unwrap_or_else(|| Attached {
            device: device.to_owned(),
            index,
            role,
            hooks: Vec::new(),
            fallback: None,
        });
        attached.role = role;
        if let Err(error) = self.complete(&mut attached) {
            let is_there = |it: &Attached| nix::net::if_::if_indextoname(it.index).is_ok();
            self.begun.retain(is_there);
            let list = match whole {
                Some(_) => &mut self.attached,
                None => &mut self.begun,
            };
            list.push(attached);
            return Err(error);
        }
        self.attached.retain(|it| it.device != device);
        self.begun.retain(|it| it.device != device);
        self.attached.push(attached);
        let last = self.attached.len() - 1;
        Ok(&self.attached[last])
    }

    /// Attaches what is not in place; what is, is left alone.
    fn complete(&mut self, attached: &mut Attached) -> Result<(), Error> {
        let index = attached.index;
        // What puts the VIP back comes first: nothing begins a flow before that is there.
        let programs = match attached.role {
            Role::Card { .. } => ["tc_card_out", "tc_card_in"],
            Role::Client => ["tc_client_out", "tc_client_in"],
        };
        let how = self.tc();
        for program in programs {
            if !attached.runs(program, how) {
                let hook = self.attach_tc(Spot {
                    program,
                    device: &attached.device,
                    index,
                    how,
                })?;
                attached.put(hook);
            }
        }
        if let Role::Card { mode } = attached.role {
            require_link_address(&attached.device)?;
            let done = self.attach_xdp(attached, mode);
            if done.is_ok() && attached.takes_frames() {
                // After: what other cards send out by a device must be meant for one that runs the program.
                self.insert_card(index)?;
            } else {
                self.forget_card(index)?;
            }
            done?;
        }
        Ok(())
    }

    /// Takes the programs off a device, which ends what they do there; the flows stay in the maps.
    ///
    /// # Errors
    /// When a pin cannot be removed or a filter not be taken away; the call can be repeated.
    pub fn detach(&mut self, device: &str) -> Result<(), Error> {
        let Some(at) = self.attached.iter().position(|it| it.device == device) else {
            return Ok(());
        };
        let index = self.attached[at].index;
        self.begun.retain(|it| it.index != index);
        self.forget_card(index)?;
        self.remove_pins(|pin| pin.index == index)?;
        self.attached.remove(at);
        tracing::info!(device, "the packet path left the device");
        Ok(())
    }

    /// Takes away what an earlier agent attached to devices that are not attached now, except those of these indexes.
    ///
    /// # Errors
    /// As [`Programs::detach`].
    pub fn detach_others(&mut self, except: &BTreeSet<u32>) -> Result<(), Error> {
        self.forget_other_cards(except)?;
        self.remove_pins(|pin| {
            if except.contains(&pin.index) {
                return false;
            }
            let mut attached = self.attached.iter().filter(|it| it.index == pin.index);
            !attached.any(|it| {
                let mut hooks = it.hooks.iter();
                hooks.any(|hook| hook.program == pin.program && hook.how == pin.how)
            })
        })
    }

    /// The devices, and what runs there.
    pub fn attached(&self) -> &[Attached] {
        &self.attached
    }

    /// Lets programs of tc hang from the qdisc clsact, as below kernel 6.6: for tests.
    pub fn use_clsact(&mut self) {
        self.clsact = true;
    }

    fn pin(&self, spot: Spot<'_>) -> PathBuf {
        self.links
            .join(pin::name(spot.program, spot.index, spot.how))
    }

    /// Removes pins, and with them what they keep attached.
    fn remove_pins(&self, goes: impl Fn(&Pin) -> bool) -> Result<(), Error> {
        let pins = pin::list(&self.links)?;
        pins.iter()
            .filter(|pin| goes(pin))
            .try_for_each(|pin| pin.remove(&self.links))
    }
}
