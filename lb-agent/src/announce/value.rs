//! What others read of the stage: who answers for the VIPs, and what is shown of it.

use std::{collections::BTreeMap, time::SystemTime};

use super::moment::Moment;
use crate::catalog::Problem;

/// Who answers for the VIPs at the moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Announcing {
    /// The host that does; `None` if nobody does, or that is not known.
    pub owner: Option<String>,
    /// Whether that is this one.
    pub mine: bool,
    /// Since when it is so.
    pub since: Option<SystemTime>,
    /// Until when this host may answer unless it hears more; `None` has no end.
    pub until: Option<Moment>,
}

impl Announcing {
    /// Whether this host may answer at `now`. Who was kept from running may still read an old value.
    pub fn holds(&self, now: Moment) -> bool {
        self.mine && self.until.is_none_or(|until| now.is_before(until))
    }
}

/// What the stage shows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// What is wrong with each device; `None` if nothing is.
    pub devices: BTreeMap<String, Option<String>>,
    /// Addresses of both families that are announced by whoever is the owner.
    pub addresses: usize,
    /// Why questions over IPv6 may not come here.
    pub groups: Option<String>,
    /// Why the election does not go on.
    pub election: Option<String>,
    /// Why the program of the operator failed.
    pub hook: Option<String>,
}

impl Status {
    /// What is wrong, for people.
    pub(super) fn problems(&self) -> Vec<Problem> {
        let devices = self.devices.iter().filter_map(|(device, trouble)| {
            let trouble = trouble.as_ref()?;
            Some(Problem::new(format!("announce on {device}"), trouble))
        });
        let rest = [
            ("announce", &self.election),
            ("announce IPv6", &self.groups),
            ("announce hook", &self.hook),
        ];
        let rest = rest
            .into_iter()
            .filter_map(|(subject, trouble)| Some(Problem::new(subject, trouble.as_ref()?)));
        devices.chain(rest).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn nobody_holds_what_is_not_theirs_or_is_over() {
        let now = Moment::now();
        let of = |mine, until| Announcing {
            mine,
            until,
            ..Announcing::default()
        };
        let later = Some(now.after(Duration::from_secs(1)));
        assert!(of(true, None).holds(now));
        assert!(of(true, later).holds(now));
        assert!(!of(true, Some(now)).holds(now));
        assert!(!of(false, later).holds(now));
    }
}
