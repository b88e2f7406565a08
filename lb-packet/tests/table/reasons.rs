//! Whether the table is complete: each fate that a packet may have has a row, of each family and each hook that gives it.

use std::collections::BTreeSet;

use lb_common::packet::Fate;

use crate::{
    kit::{Row, V4, V6},
    rows,
};

/// Where packets are seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Hook {
    Xdp,
    Tc,
}

impl Hook {
    fn of(row: &Row) -> Self {
        if row.program.starts_with("xdp") {
            Self::Xdp
        } else {
            Self::Tc
        }
    }
}

/// What no row can have at one of the hooks, by the word of the fate, and why not.
const NOT_THERE: &[(Hook, &str, &str)] = &[
    (
        Hook::Xdp,
        "destination",
        "backends of this host are the stack's",
    ),
    (Hook::Tc, "tunnelled", TUNNELS),
    (Hook::Tc, "untunnelled", TUNNELS),
    (Hook::Tc, "stranger", TUNNELS),
    (Hook::Tc, "no-host", TUNNELS),
    (Hook::Tc, "local", "it is what XDP leaves to tc"),
    (Hook::Tc, "stack", ROUTES),
    (Hook::Tc, "too-big", ROUTES),
    (Hook::Tc, "expired", ROUTES),
    (Hook::Tc, "no-route", ROUTES),
    (
        Hook::Tc,
        "resize",
        "the kernel refuses a change of what was read only where memory is short",
    ),
];

const TUNNELS: &str = "tunnels begin and end at the card";
const ROUTES: &str = "the stack finds the way, and tells who sent what has none";

#[test]
fn each_fate_has_a_row_of_each_family_at_each_hook_that_gives_it() {
    let rows = rows();
    // Who lets a packet through that is none of ours counts nothing.
    let had: BTreeSet<_> = rows
        .iter()
        .map(|row| (Hook::of(row), row.family, row.fate.unwrap_or(Fate::Passed)))
        .collect();
    let mut wrong = Vec::new();
    for hook in [Hook::Xdp, Hook::Tc] {
        for fate in Fate::ALL {
            let absent = NOT_THERE
                .iter()
                .any(|(at, word, _)| *at == hook && *word == fate.as_str());
            for family in [V4, V6] {
                if had.contains(&(hook, family, fate)) == absent {
                    let has = if absent {
                        "a row, and should not have any"
                    } else {
                        "no row"
                    };
                    wrong.push(format!("{hook:?} {} {fate:?} has {has}", family.as_str()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
