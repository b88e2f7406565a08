//! A look at a Consul that nothing comes of: whether it answers, and what of it a token may see.

use std::time::{Duration, SystemTime};

use reqwest::Method;
use tokio::sync::watch;

use super::{
    answer::Answer,
    client::{Client, Consistency},
};
use crate::config;

/// What was seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Look {
    /// Whether the cluster has a leader.
    pub(crate) has_leader: bool,
    /// Rights that the token lacks, as a policy states them.
    pub(crate) lacks: Vec<&'static str>,
    /// Whether it knows the token at all.
    pub(crate) knows_token: bool,
    /// By how many seconds its clock is ahead of ours.
    pub(crate) ahead: Option<i64>,
}

/// Asks the Consul of `consul` for a little of each that the agent reads. Nothing is written.
///
/// # Errors
/// Why it cannot be asked.
pub(crate) async fn look(consul: &config::Consul, limit: Duration) -> Result<Look, String> {
    let (_reload, told) = watch::channel(());
    let config = consul.client(told).ok_or("no address is given")?;
    let client = Client::new(config).map_err(said)?;
    let get = |path: &'static [&'static str]| {
        let client = &client;
        async move {
            let answer = client.request(Method::GET, path, &[("stale", "")], None, limit);
            answer.await
        }
    };
    let leader = get(&["status", "leader"]).await.map_err(said)?;
    let mut look = Look {
        has_leader: leader.status.is_success() && leader.body.trim_ascii() != b"\"\"",
        knows_token: true,
        ahead: leader.date.as_deref().and_then(ahead),
        ..Look::default()
    };
    if client.config().token.is_some() {
        let own = get(&["acl", "token", "self"]).await.map_err(said)?;
        look.knows_token = !matches!(own.status.as_u16(), 403 | 404);
    }
    let services = get(&["catalog", "services"]);
    let itself = get(&["health", "service", "consul"]);
    let agent = get(&["agent", "self"]);
    let keys = client.read(
        &["kv", "lb-agent", "vip", "readable"],
        None,
        Consistency::Stale,
    );
    let (services, itself, agent, keys) = tokio::join!(services, itself, agent, keys);
    let may_see_services = services
        .map(|it| !denies(&it) && it.body.windows(9).any(|it| it == b"\"consul\":"))
        .map_err(said)?;
    if !may_see_services {
        look.lacks.push("service_prefix \"\" read");
    } else if itself.is_ok_and(|it| denies(&it) || it.body.trim_ascii() == b"[]") {
        look.lacks.push("node_prefix \"\" read");
    }
    if agent.is_ok_and(|it| it.status.as_u16() == 403) {
        look.lacks.push("agent_prefix \"\" read");
    }
    if keys.is_ok_and(|it| it.status.as_u16() == 403) {
        look.lacks.push("key_prefix \"lb-agent/\" write");
    }
    Ok(look)
}

fn denies(answer: &Answer) -> bool {
    answer.filtered || answer.status.as_u16() == 403
}

fn said(error: impl std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

/// By how much the time of a `Date` header is ahead of ours.
fn ahead(date: &str) -> Option<i64> {
    let theirs = seconds(date)?;
    let ours = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .ok()?;
    Some(theirs - i64::try_from(ours.as_secs()).ok()?)
}

/// `Sun, 06 Nov 1994 08:49:37 GMT` as seconds since 1970.
fn seconds(date: &str) -> Option<i64> {
    let mut words = date.split_ascii_whitespace().skip(1);
    let day: i64 = words.next()?.parse().ok()?;
    let month = words.next()?;
    let month = MONTHS.iter().position(|it| *it == month)?;
    let month = i64::try_from(month).ok()? + 1;
    let year: i64 = words.next()?.parse().ok()?;
    let mut time = words.next()?.split(':').map(str::parse::<i64>);
    let mut next = || time.next()?.ok();
    let (hours, minutes, seconds) = (next()?, next()?, next()?);
    // Years that begin in March, so that the odd day is their last.
    let (year, month) = if month > 2 {
        (year, month - 3)
    } else {
        (year - 1, month + 9)
    };
    let days = 365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 1;
    Some((days - 719_468) * 86_400 + hours * 3600 + minutes * 60 + seconds)
}

const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];

#[cfg(test)]
mod tests {
    use super::seconds;

    #[test]
    fn dates_of_headers_are_read() {
        for (date, expect) in [
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(784_111_777)),
            ("Thu, 01 Jan 1970 00:00:00 GMT", Some(0)),
            ("Thu, 29 Feb 2024 12:00:00 GMT", Some(1_709_208_000)),
            ("Fri, 01 Mar 2024 00:00:00 GMT", Some(1_709_251_200)),
            ("soon", None),
            ("Thu, 29 Feb", None),
        ] {
            assert_eq!(seconds(date), expect, "{date}");
        }
    }
}
