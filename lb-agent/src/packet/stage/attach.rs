//! Keeps the programs at the devices that are to be served, and off all others.

use std::collections::{BTreeMap, BTreeSet};

use super::{super::devices, Stage};
use crate::causes::error_chain;

impl Stage {
    /// Attaches the programs to devices that have come, and takes them off those that are no more to be served.
    pub(super) fn attach(&mut self) {
        let packet = &self.config.packet;
        let (wanted, missing) = devices::wanted(&self.place, packet, &self.labelled.devices);
        let is_wanted = |index: u32, name: &str| {
            let found = wanted.get(&index);
            found.is_some_and(|(wanted, _)| wanted == name)
        };
        let attached = self.programs.attached();
        let gone = attached
            .iter()
            .filter(|it| !is_wanted(it.index, &it.device));
        let gone: Vec<_> = gone.map(|it| it.device.clone()).collect();
        for device in gone {
            let left = self.programs.detach(&device);
            self.tell_once(&format!("cannot leave the device {device}"), left);
        }
        let mut faults: BTreeMap<String, String> = missing
            .into_iter()
            .map(|name| (name, "there is no such device yet".to_owned()))
            .collect();
        self.in_place.clear();
        let mut refused = BTreeSet::new();
        for (index, (name, role)) in wanted {
            let attached = self.programs.attached().iter();
            let mut attached = attached.filter(|it| it.index == index && it.device == name);
            if let Some(attached) = attached.next() {
                let found = look(attached);
                let gone = found.iter().filter(|(_, there)| !there);
                let gone: Vec<_> = gone.map(|((_, program), _)| *program).collect();
                self.in_place.extend(found);
                // With a device that has gone its programs have: the kernel tells of that next.
                if gone.is_empty() || !is_there(index) {
                    continue;
                }
                // What cannot be put back is told of below.
                if !self.faults.contains_key(&name) {
                    tracing::warn!(
                        device = name,
                        programs = gone.join(", "),
                        "somebody took programs off the device; attaching them again"
                    );
                }
            }
            let error = match self.programs.attach(&name, role) {
                Ok(attached) => {
                    self.in_place.extend(look(attached));
                    None
                }
                Err(error) => Some(error_chain(&error)),
            };
            if let Some(error) = error {
                if self.faults.get(&name) != Some(&error) {
                    tracing::warn!(device = name, error, "the device is not served");
                }
                faults.insert(name, error);
                refused.insert(index);
            }
        }
        self.faults = faults;
        // A device that cannot be attached anew keeps what an earlier agent attached, and so does one that may be a container's.
        if !self.settled && self.labelled.complete {
            let left = self.programs.detach_others(&refused);
            let left = self.tell_once("cannot leave the devices of an earlier agent", left);
            self.settled = left.is_some() && refused.is_empty();
        }
    }
}

/// Asks the kernel whether the programs of a device are in place.
fn look(device: &lb_packet::Attached) -> Vec<((u32, &'static str), bool)> {
    let hooks = device.hooks.iter();
    let told = hooks.filter_map(|it| Some(((device.index, it.program), it.in_place()?)));
    told.collect()
}

/// Whether there is a device of this index at this moment.
fn is_there(index: u32) -> bool {
    nix::net::if_::if_indextoname(index).is_ok()
}
