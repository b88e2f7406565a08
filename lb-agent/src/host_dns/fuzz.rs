//! The door of the fuzz targets to the files of resolvers.

use std::net::Ipv4Addr;

use super::text;

/// A `resolv.conf` in which the agent is named, and what is read of that.
pub(crate) struct Edited {
    /// With our line.
    pub(crate) with: String,
    /// With our line once more.
    pub(crate) again: String,
    /// Whom our line names.
    pub(crate) named: Option<Ipv4Addr>,
    /// When our line is taken out; `None` if the file goes.
    pub(crate) restored: Option<String>,
    /// As it would be without us.
    pub(crate) rest: String,
}

/// Puts `own` into a `resolv.conf`; `None` is a file that is not there.
pub(crate) fn edited(before: Option<&str>, own: Ipv4Addr) -> Edited {
    let with = text::with_line(before, own);
    Edited {
        again: text::with_line(Some(&with), own),
        named: text::named(&with),
        restored: text::restored(&with),
        rest: text::without_line(before.unwrap_or_default()),
        with,
    }
}

/// What is said of a `resolv.conf`: who writes it, whether it asks systemd-resolved, and whether it asks in turn.
pub(crate) fn judged(of: &str) -> (Option<&'static str>, bool, bool) {
    (
        text::writer(of),
        text::asks_resolved(of),
        text::asks_in_turn(of),
    )
}
