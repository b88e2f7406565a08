//! Endpoints and their tables: which are written anew, into which table, and in which order.

use std::collections::BTreeSet;

use lb_common::packet::{Endpoint, EndpointKey, endpoint_flag, scope};

use super::{Maker, Refused, Step};
use crate::{Member, Wanted, book::Placed, maglev};

impl<'a> Maker<'a> {
    /// Where the card leaves a packet to the stack, somebody there takes it: endpoints of this host come before those that lead
    /// to them, and end after them.
    pub(super) fn endpoints(&mut self) {
        let desired = self.desired;
        let is_local = |key: &EndpointKey| key.scope & scope::LOCAL != 0;
        let changed = self.changed.iter().copied();
        let (local, all): (Vec<_>, Vec<_>) = changed.partition(|(key, _)| is_local(key));
        let mut ends = Vec::new();
        for (key, wanted) in local {
            let steps = self.plan.steps.len();
            self.endpoint(*key, wanted);
            let empty = |step: &Step| match step {
                Step::PutEndpoint { placed, .. } => {
                    placed.endpoint.flags & endpoint_flag::EMPTY != 0
                }
                _ => false,
            };
            if self.plan.steps.last().is_some_and(empty) {
                ends.extend(self.plan.steps.drain(steps..));
            }
        }
        for (key, wanted) in all {
            self.endpoint(*key, wanted);
        }
        let gone = self.book.endpoints.keys();
        let gone = gone.filter(|key| !desired.endpoints.contains_key(key));
        let (local, all): (Vec<_>, Vec<_>) = gone.partition(|key| is_local(key));
        let steps = &mut self.plan.steps;
        steps.extend(all.into_iter().copied().map(Step::RemoveEndpoint));
        steps.append(&mut self.come_home);
        steps.append(&mut ends);
        steps.extend(local.into_iter().copied().map(Step::RemoveEndpoint));
    }

    fn endpoint(&mut self, key: EndpointKey, wanted: &'a Wanted) {
        let placed = self.book.endpoints.get(&key);
        // No table is made for who only may have changed. Indexes of members stay while they are named.
        if let Some(placed) = placed
            && placed.is_of(wanted)
            && self.names_all(&key, wanted, placed)
        {
            return;
        }
        let takers = self.takers(&key, wanted);
        let slots = slots(&takers);
        let mut flags = wanted.flags();
        if slots.is_empty() {
            flags |= endpoint_flag::EMPTY;
        }
        let digest = digest(&slots);
        let changed = placed.is_none_or(|placed| placed.digest != digest);
        let same_flags = placed.is_some_and(|placed| placed.endpoint.flags == flags);
        let fresh = placed.is_none();
        let Some(service) = placed
            .map(|it| it.endpoint.service)
            .or_else(|| self.free_services.take(self.now))
        else {
            self.plan.refused.push(Refused::Endpoint(key));
            self.again(self.free_services.next_rested());
            return;
        };
        let live = placed.map_or(service * 2 + 1, |it| it.endpoint.table);
        // An empty endpoint's table is not read: what was there stays.
        let table = if changed && !slots.is_empty() {
            live ^ 1
        } else {
            live
        };
        // Each of them has a slot: there are no more indexes than slots.
        let named = takers.iter().map(|(_, index)| (*index).into());
        let named: BTreeSet<u32> = named.collect();
        if table != live {
            let named = named.clone();
            self.plan.steps.push(Step::PutTable {
                table,
                slots,
                named,
            });
        }
        if !changed && same_flags {
            let members = wanted.members.clone();
            self.plan.steps.push(Step::Recognise { key, members });
            return;
        }
        self.published = self.published.wrapping_add(1).max(1);
        let endpoint = Endpoint {
            service,
            table,
            flags,
            generation: self.published,
        };
        let placed = Placed {
            endpoint,
            digest,
            named,
            members: Some(wanted.members.clone()),
        };
        self.plan
            .steps
            .push(Step::PutEndpoint { key, placed, fresh });
    }

    /// Those of them who take new flows and have an index, and that.
    fn takers(&self, key: &EndpointKey, wanted: &'a Wanted) -> Vec<(&'a Member, u16)> {
        let takers = self.serving(key, wanted).filter(|it| it.weight > 0);
        let with_index = takers.filter_map(|member| {
            let index = self.home(&member.address)?.index;
            Some((member, u16::try_from(index).ok()?))
        });
        with_index.collect()
    }

    /// Whether its table names the takers and nobody else: nobody moved to this host or away, and who found no room before still
    /// finds none.
    fn names_all(&self, key: &EndpointKey, wanted: &'a Wanted, placed: &Placed) -> bool {
        let takers = self.takers(key, wanted);
        let named = |(_, index): &(&Member, u16)| placed.named.contains(&(*index).into());
        takers.len() == placed.named.len() && takers.iter().all(named)
    }
}

/// The table of these, an index in each slot; empty when there are none.
fn slots(takers: &[(&Member, u16)]) -> Box<[u16]> {
    let identities = takers.iter().map(|(member, _)| member.address.to_string());
    let identities: Vec<_> = identities.collect();
    let both = identities.iter().zip(takers);
    let shares = both.map(|(identity, (member, index))| {
        let share = maglev::Member {
            identity: identity.as_bytes(),
            weight: member.weight,
        };
        (share, *index)
    });
    maglev::table_of(shares.collect(), maglev::Size::Packets).into()
}

/// Tells tables apart.
pub(crate) fn digest(slots: &[u16]) -> u64 {
    // Four slots at a time, mixed by an odd number and a turn: 16,385 rounds.
    slots.chunks(4).fold(slots.len() as u64, |digest, four| {
        let word = four
            .iter()
            .fold(0, |word, &slot| word << 16 | u64::from(slot));
        (digest ^ word)
            .wrapping_mul(0x9e37_79b9_7f4a_7c15)
            .rotate_left(29)
    })
}
