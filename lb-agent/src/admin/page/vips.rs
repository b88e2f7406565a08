//! The virtual addresses, on a page of their own.

use std::collections::HashMap;

use axum::{
    Extension,
    extract::{Query, State, rejection::QueryRejection},
    response::{Html, IntoResponse as _, Response},
};
use maud::{Markup, html};
use serde::Deserialize;

use super::{frame, overview::since, place::Place, wrong};
use crate::{
    admin::{
        compose::age,
        guard::Access,
        refusals::Failed,
        report::{Report, Service},
        reports::apart,
        router::Desk,
        text,
        vips::known,
    },
    vip::{Entry, How, Pools},
};

/// What is looked for.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(in crate::admin) struct Wish {
    /// A part of a service's name or of an address.
    q: String,
}

impl Wish {
    /// Those of `entries` that are meant.
    fn of<'e>(&self, entries: &'e [Entry], pools: Pools) -> Vec<&'e Entry> {
        let word = self.q.trim().to_lowercase();
        let meant = |entry: &&Entry| {
            let service = entry.service.as_ref();
            let twin = || pools.twin(entry.address).map(|twin| twin.to_string());
            word.is_empty()
                || service.is_some_and(|name| name.to_lowercase().contains(&word))
                || entry.address.to_string().contains(&word)
                || twin().is_some_and(|twin| twin.contains(&word))
        };
        entries.iter().filter(meant).collect()
    }
}

/// `GET /vips`.
pub(in crate::admin) async fn show(
    State(desk): State<Desk>,
    Extension(access): Extension<Access>,
    wish: Result<Query<Wish>, QueryRejection>,
) -> Response {
    let wish = wish.map(|Query(wish)| wish).unwrap_or_default();
    let report = desk.report().await;
    let told = known(&desk).await;
    let page = move || {
        let body = section(&told, &wish, &report, desk.pools);
        frame(&report, Some(Place::Vips), access.published, &body).into_string()
    };
    Html(apart(page).await).into_response()
}

fn section(
    told: &Result<Vec<Entry>, Failed>,
    wish: &Wish,
    report: &Report,
    pools: Pools,
) -> Markup {
    html! {
        h2 id="vips-title" { "Virtual addresses" }
        p {
            "Each service has an address by the hash of its name, the same on every host, unless something else says otherwise. "
            code { "lb-agent vip pin" } " and " code { "lb-agent vip release" } " change that."
        }
        form.search action="/vips" method="get" role="search" aria-label="Virtual addresses" {
            label for="vip-q" { "Find by service or address" }
            input id="vip-q" type="search" name="q" value=(wish.q) autocomplete="off" spellcheck="false" {}
            button type="submit" { "Find" }
            @if !wish.q.trim().is_empty() { a href="/vips" { "Show all" } }
        }
        div data-part="vips" {
            @match told {
                Err(failed) => p.unknown { "They are not known: " (failed.why()) "." },
                Ok(entries) if entries.is_empty() => p { "None is given or kept." },
                Ok(entries) => (table(&wish.of(entries, pools), report, pools)),
            }
        }
    }
}

fn table(entries: &[&Entry], report: &Report, pools: Pools) -> Markup {
    let services = report.services.iter().flatten();
    let services: HashMap<&str, &Service> = services.map(|it| (&*it.name, it)).collect();
    let more = entries.len().saturating_sub(ROWS);
    html! {
        p role="status" { (entries.len()) " found" }
        div.scroll tabindex="0" role="region" aria-label="List of virtual addresses" {
            table.rows aria-labelledby="vips-title" {
                thead {
                    tr {
                        @for head in ["address", "service", "in use", "why", "since", "until"] {
                            th scope="col" { (head) }
                        }
                    }
                }
                tbody {
                    @for entry in entries.iter().take(ROWS) { (row(entry, &services, report.now_unix, pools)) }
                }
            }
        }
        @if more > 0 { p { "And " (more) " more: " code { "lb-agent vip list" } " has all." } }
    }
}

fn row(entry: &Entry, services: &HashMap<&str, &Service>, now_unix: u64, pools: Pools) -> Markup {
    let service = entry.service.as_deref();
    let service = service.and_then(|name| services.get(name).copied());
    html! {
        tr {
            th scope="row" {
                (entry.address)
                @if let Some(twin) = pools.twin(entry.address) { br; span.address { (twin) } }
            }
            td data-label="service" {
                @match (service, &entry.service) {
                    (Some(service), _) => a href=(wrong::href(service)) { (service.name) },
                    (None, Some(name)) => (name),
                    (None, None) => "not known",
                }
            }
            td data-label="in use" { @if entry.in_use { "yes" } @else { "no" } }
            td data-label="why" { strong { (entry.how.as_str()) } ": " (meaning(entry.how)) }
            td data-label="since" {
                @match entry.since_unix {
                    Some(at) => { (since(at, now_unix)) " ago" }
                    None => "not known",
                }
            }
            td data-label="until" {
                @match entry.until_unix {
                    Some(at) => { "in " (text::duration(age(at, now_unix))) }
                    None => "–",
                }
            }
        }
    }
}

fn meaning(how: How) -> &'static str {
    match how {
        How::Hash => "by the hash of its name",
        How::Record => "by a record, because the hash leads to another's address",
        How::Wish => "its registration asks for it",
        How::Pin => "an operator pinned it",
        How::Kept => "it had it before",
        How::Quarantine => "its service left, and nobody else has it for a while",
        How::Unreadable => "its record cannot be read",
    }
}

/// Rows.
const ROWS: usize = 500;

#[cfg(test)]
mod tests {
    use std::{net::Ipv4Addr, time::Instant};

    use super::*;
    use crate::{
        admin::{compose::compose, sample},
        snapshot::ServiceName,
    };

    /// This many services with an address each.
    fn many(n: u32) -> (Report, Result<Vec<Entry>, Failed>) {
        let mut snapshot = sample::snapshot();
        let one = snapshot.services[&ServiceName::whole("www_hello")].clone();
        let mut entries = Vec::new();
        for at in 0..n {
            let name = format!("many_{at:05}");
            entries.push(Entry {
                address: Ipv4Addr::from_bits(Ipv4Addr::new(198, 18, 0, 0).to_bits() + at),
                service: Some(name.clone()),
                how: How::Hash,
                in_use: true,
                since_unix: None,
                until_unix: None,
            });
            snapshot
                .services
                .insert(ServiceName::whole(name), one.clone());
        }
        let report = compose(sample::material(Some(&snapshot), None));
        (report, Ok(entries))
    }

    fn shown(q: &str, (report, told): &(Report, Result<Vec<Entry>, Failed>)) -> String {
        let wish = Wish { q: q.to_owned() };
        section(told, &wish, report, Pools::default()).into_string()
    }

    #[test]
    fn of_ten_thousand_addresses_the_first_are_shown_soon_and_each_is_found() {
        let all = many(10_000);
        let start = Instant::now();
        let html = shown("", &all);
        let took = start.elapsed();
        assert_eq!(html.matches("<th scope=\"row\">").count(), ROWS);
        assert!(html.contains("And 9500 more: <code>lb-agent vip list</code>"));
        assert!(html.contains("href=\"/service/many_00499\""));
        assert!(!html.contains("many_00500"));
        // 200 ms are the limit of a release build, which is some ten times faster than this one.
        assert!(took.as_millis() < 2_000, "{took:?}");
        for (q, name) in [
            (" MANY_09999 ", "many_09999"),
            ("198.18.39.15", "many_09999"),
        ] {
            let html = shown(q, &all);
            assert!(html.contains("1 found"), "{q}: {html}");
            assert!(html.contains(name) && !html.contains("more:"), "{q}");
        }
        assert!(shown("nobody", &all).contains("0 found"));
    }
}
