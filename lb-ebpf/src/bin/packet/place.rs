//! Where packets are seen, and so which ways there are for them.

use lb_common::packet::{Endpoint, Fate, Target, Way, endpoint_flag, scope, target_flag};

use crate::family::{Ends, Family};

/// One of the places.
pub(crate) trait Place {
    /// What its endpoints have in their scope beside the family.
    const SCOPE: u8;

    /// The way to a backend that was just chosen.
    fn way<F: Family>(
        ends: &F::Ends,
        endpoint: &Endpoint,
        target: *const Target,
    ) -> Result<Way, Fate>;

    /// The same for one that was chosen before; none if the flow was another place's. The error says where it goes on.
    fn known_way(way: u8, target: *const Target) -> Result<Option<Way>, Fate>;
}

/// The device of a client on this host.
pub(crate) struct Client;
/// The network card, before the stack.
pub(crate) struct Card;
/// The network card, on the way up the stack: backends of this host alone.
pub(crate) struct Local;

impl Place for Client {
    const SCOPE: u8 = 0;

    #[inline(always)]
    fn way<F: Family>(ends: &F::Ends, _: &Endpoint, target: *const Target) -> Result<Way, Fate> {
        Ok(if F::of(target) == ends.client() {
            Way::Hairpin
        } else {
            Way::Destination
        })
    }

    #[inline(always)]
    fn known_way(way: u8, _: *const Target) -> Result<Option<Way>, Fate> {
        Ok(match Way::try_from(way) {
            Ok(way @ (Way::Destination | Way::Hairpin)) => Some(way),
            _ => None,
        })
    }
}

impl Place for Card {
    const SCOPE: u8 = 0;

    #[inline(always)]
    fn way<F: Family>(
        _: &F::Ends,
        endpoint: &Endpoint,
        target: *const Target,
    ) -> Result<Way, Fate> {
        if is_local(target) {
            return Err(Fate::Local);
        }
        if endpoint.flags & endpoint_flag::TUNNEL != 0 {
            // SAFETY: array values live as long as the map.
            let host = unsafe { (*target).host };
            return if host == [0; 4] {
                Err(Fate::NoHost)
            } else {
                Ok(Way::Tunnel)
            };
        }
        F::own().map(|_| Way::Full).ok_or(Fate::NoRoute)
    }

    #[inline(always)]
    fn known_way(way: u8, target: *const Target) -> Result<Option<Way>, Fate> {
        // A backend whose host turns out to be this one keeps the flows that it has another way.
        match Way::try_from(way) {
            Ok(way @ (Way::Full | Way::Tunnel)) => Ok(Some(way)),
            Ok(Way::Destination) if is_local(target) => Err(Fate::Local),
            _ => Ok(None),
        }
    }
}

impl Place for Local {
    const SCOPE: u8 = scope::LOCAL;

    #[inline(always)]
    fn way<F: Family>(_: &F::Ends, _: &Endpoint, _: *const Target) -> Result<Way, Fate> {
        Ok(Way::Destination)
    }

    #[inline(always)]
    fn known_way(way: u8, target: *const Target) -> Result<Option<Way>, Fate> {
        Ok(match Way::try_from(way) {
            Ok(way @ Way::Destination) if is_local(target) => Some(way),
            _ => None,
        })
    }
}

/// Whether it is on this host.
#[inline(always)]
pub(crate) fn is_local(target: *const Target) -> bool {
    // SAFETY: array values live as long as the map.
    unsafe { (*target).flags & target_flag::LOCAL != 0 }
}
