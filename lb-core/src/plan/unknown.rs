//! What becomes of tables as long as a source has not answered, or nobody has said where clients stand: unknown is not
//! empty, so what nobody names stays; what is known to be bad goes all the same. Pure.

use std::collections::{BTreeMap, BTreeSet};

use lb_common::{Balance, FAMILY_ANY, HOST_VIEW, SLOTS, ServiceKey, flag};

use super::Step;
use crate::{
    desired::{Desired, Endpoint},
    installed::{Installed, InstalledService},
};

/// What `slots` are then: with all that `old` has and nobody names. `None` if not all that they would lose have been
/// probed yet, or if there are more backends than a table holds.
pub(super) fn grown(
    installed: &Installed,
    old: &InstalledService,
    slots: Vec<u32>,
    endpoint: &Endpoint,
) -> Option<Vec<u32>> {
    if endpoint.flags & flag::DENIED != 0 {
        // Nobody is let in, whoever its backends are.
        return Some(slots);
    }
    let stay: BTreeSet<u32> = slots.iter().copied().collect();
    let lost = old.slots.iter().filter(|index| !stay.contains(index));
    let (named, unnamed): (Vec<u32>, Vec<u32>) =
        lost.partition(|index| is_named(installed, endpoint, **index));
    if !endpoint.proven && !named.is_empty() {
        return None;
    }
    if unnamed.is_empty() {
        return Some(slots);
    }
    match endpoint.balance {
        Balance::Maglev => Some(overlaid(&old.slots, slots, unnamed)),
        _ => joined(slots, unnamed),
    }
}

/// The flags of `old` that stay: those that lead to endpoints which stay, or to nothing.
pub(super) fn leading(old: &InstalledService, desired: &Desired) -> u32 {
    let stay = match (desired.complete, desired.unlocated) {
        (true, false) => 0,
        (true, true) => flag::VIEWS,
        (false, _) => flag::VIEWS | flag::V6,
    };
    old.flags & stay
}

/// What to do about an endpoint that `desired` has not, although its service: clients there see by now what others see,
/// unless it is not known where they are. Nothing where that cannot be told.
pub(super) fn superseded(
    installed: &Installed,
    old: &InstalledService,
    desired: &Desired,
    key: ServiceKey,
) -> Option<Step> {
    let host = desired.services.get(&of_host(key))?;
    let views = desired.services.range(of_host(key)..);
    let views = views.take_while(|(it, _)| of_host(**it) == of_host(key));
    // Where there are rules, who has no endpoint of its own is kept out.
    let rules = views.clone().any(|(_, it)| it.flags & flag::DENIED != 0);
    let hidden = desired.unlocated && key.view != HOST_VIEW;
    if !host.proven || hidden && rules {
        return None;
    }
    let is_known = |index: &u32| is_named(installed, host, *index);
    if !hidden && (rules || old.slots.iter().all(is_known)) {
        return Some(Step::RemoveService { key });
    }
    // An address that some view is given takes flows.
    let taken: BTreeSet<u32> = views
        .flat_map(|(_, endpoint)| &endpoint.slots)
        .filter_map(|address| Some(installed.backends.get(address)?.id.index))
        .collect();
    let stays = |index: &&u32| !is_known(index) || taken.contains(index);
    let rest: Vec<u32> = old.slots.iter().filter(stays).copied().collect();
    if rest.len() == old.slots.len() {
        return None;
    }
    let slots = match old.balance {
        Balance::Maglev => overlaid(&old.slots, Vec::new(), rest),
        _ => rest,
    };
    let service = InstalledService {
        half: old.half ^ 1,
        generation: installed.next_generation(),
        slots,
        ..old.clone()
    };
    Some(Step::PutService {
        key,
        service,
        fresh: false,
    })
}

/// The endpoint of the same service for clients on the host.
pub(super) fn of_host(key: ServiceKey) -> ServiceKey {
    ServiceKey {
        view: HOST_VIEW,
        family: FAMILY_ANY,
        ..key
    }
}

/// Whether a backend is one of those that the service is known to have.
fn is_named(installed: &Installed, endpoint: &Endpoint, index: u32) -> bool {
    let address = installed.addresses.get(&index);
    address.is_some_and(|address| endpoint.named.binary_search(address).is_ok())
}

/// The table of hashes `old` with the `unnamed` where they are, and everybody else who is in `slots` as well: those that
/// are lost, and those that a new one has, are as in `slots`. So no other client is sent elsewhere.
fn overlaid(old: &[u32], slots: Vec<u32>, unnamed: Vec<u32>) -> Vec<u32> {
    let before: BTreeSet<u32> = old.iter().copied().collect();
    let after: BTreeSet<u32> = slots.iter().copied().collect();
    let kept: BTreeSet<u32> = unnamed.iter().copied().collect();
    // Where nobody else is left, they take the place of those that are lost.
    let slots = if slots.is_empty() { unnamed } else { slots };
    let both = old.iter().cycle().zip(slots.iter().cycle());
    both.take(old.len().max(slots.len()))
        .map(|(&old, &new)| {
            let stays = kept.contains(&old) || after.contains(&old) && before.contains(&new);
            if stays { old } else { new }
        })
        .collect()
}

/// The sequences `slots` and `unnamed`, one after the other. Where a table has no room for that, who has several slots gives
/// up some, the last ones first.
fn joined(mut slots: Vec<u32>, unnamed: Vec<u32>) -> Option<Vec<u32>> {
    slots.extend(unnamed);
    let mut over = slots.len().saturating_sub(SLOTS as usize);
    let mut times: BTreeMap<u32, usize> = BTreeMap::new();
    for index in &slots {
        *times.entry(*index).or_default() += 1;
    }
    slots.reverse();
    slots.retain(|index| {
        let left = times.get_mut(index).filter(|left| over > 0 && **left > 1);
        let Some(left) = left else {
            return true;
        };
        *left -= 1;
        over -= 1;
        false
    });
    slots.reverse();
    (over == 0).then_some(slots)
}

#[cfg(test)]
mod tests;
