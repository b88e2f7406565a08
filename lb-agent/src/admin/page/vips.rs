//! The virtual addresses, on a page of their own.

use axum::{
    Extension,
    extract::State,
    response::{Html, IntoResponse as _, Response},
};
use maud::{Markup, html};

use super::{frame, overview::since, place::Place, wrong};
use crate::{
    admin::{
        action::Failed, compose::age, guard::Access, report::Report, router::Desk, text, vips::ask,
    },
    vip::{Entry, How, Order, Pools},
};

/// `GET /vips`.
pub(in crate::admin) async fn show(
    State(desk): State<Desk>,
    Extension(access): Extension<Access>,
) -> Response {
    let report = desk.report().await;
    let told = ask(&desk, Order::List).await;
    let body = html! {
        div data-part="vips" { (section(&told, &report, desk.pools)) }
    };
    let page = frame(&report, Some(Place::Vips), access.published, &body);
    Html(page.into_string()).into_response()
}

pub(super) fn section(told: &Result<Vec<Entry>, Failed>, report: &Report, pools: Pools) -> Markup {
    html! {
        h2 id="vips-title" { "Virtual addresses" }
        p {
            "Each service has an address by the hash of its name, the same on every host, unless something else says otherwise. "
            code { "lb-agent vip pin" } " and " code { "lb-agent vip release" } " change that."
        }
        @match told {
            Err(failed) => p.unknown { "They are not known: " (failed.why()) "." },
            Ok(entries) if entries.is_empty() => p { "None is given or kept." },
            Ok(entries) => (table(entries, report, pools)),
        }
    }
}

fn table(entries: &[Entry], report: &Report, pools: Pools) -> Markup {
    html! {
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
                    @for entry in entries { (row(entry, report, pools)) }
                }
            }
        }
    }
}

fn row(entry: &Entry, report: &Report, pools: Pools) -> Markup {
    let mut services = report.services.iter().flatten();
    let service = services.find(|it| Some(&it.name) == entry.service.as_ref());
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
                    Some(at) => { (since(at, report.now_unix)) " ago" }
                    None => "not known",
                }
            }
            td data-label="until" {
                @match entry.until_unix {
                    Some(at) => { "in " (text::duration(age(at, report.now_unix))) }
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
