//! The containers of this host, and what is registered for each, on a page of their own.

use axum::{
    Extension,
    extract::State,
    response::{Html, IntoResponse as _, Response},
};
use maud::{Markup, html};

use super::{frame, overview::since, place::Place, withheld, wrong};
use crate::{
    admin::{
        guard::Access,
        published,
        registered::{NONE, Registrations},
        router::Desk,
        text,
    },
    catalog::Problem,
    registrar::{Registered, Seen},
};

/// `GET /registrar`. Where the page is published it is not shown.
pub(in crate::admin) async fn show(
    State(desk): State<Desk>,
    Extension(access): Extension<Access>,
) -> Response {
    let report = desk.report().await;
    if access.published {
        return withheld(&report, "Registrar", published::REGISTRATIONS);
    }
    let told = desk.registrations();
    let body = html! {
        div data-part="registrar" { (section(told.as_ref(), report.now_unix)) }
    };
    Html(frame(&report, Some(Place::Registrar), false, &body).into_string()).into_response()
}

pub(super) fn section(told: Option<&Registrations>, now_unix: u64) -> Markup {
    html! {
        h2 id="containers-title" { "What is registered for containers" }
        @match told {
            None => p { (wrong::code(&sentence(NONE))) },
            Some(told) => { (all(told, now_unix)) }
        }
    }
}

fn all(told: &Registrations, now_unix: u64) -> Markup {
    html! {
        p {
            "This host is " strong { (told.host.as_deref().unwrap_or("not known yet")) } ". "
            @match told.synced_unix {
                Some(at) => { "Consul held all of it " (since(at, now_unix)) " ago." }
                None => "Consul has not held all of it yet.",
            }
        }
        @if let Some(error) = &told.error { p { span.error { (wrong::code(error)) } } }
        @match &told.containers {
            None => p.unknown { "The containers are not known yet: the Docker Engine has not answered, or Consul has not told who this host is." },
            Some(containers) if containers.is_empty() => p { "No container runs." },
            Some(containers) => {
                p { (text::count(containers.len(), "container")) ", " (text::count(services(containers), "registration")) "." }
                (table(containers))
            }
        }
        (others(told))
    }
}

fn services(containers: &[Seen]) -> usize {
    containers.iter().map(|it| it.registers.len()).sum()
}

fn table(containers: &[Seen]) -> Markup {
    let heads = [
        "container",
        "state",
        "registered",
        "not registered",
        "refused",
    ];
    html! {
        div.scroll tabindex="0" role="region" aria-label="Containers" {
            table.rows aria-labelledby="containers-title" {
                thead { tr { @for head in heads { th scope="col" { (head) } } } }
                tbody {
                    @for container in containers.iter().take(CONTAINERS) { (row(container)) }
                }
            }
        }
        @if containers.len() > CONTAINERS {
            p { "And " (containers.len() - CONTAINERS) " more: " code { "lb-agent register --dry-run" } " has all." }
        }
    }
}

fn row(container: &Seen) -> Markup {
    let bad = !container.refused.is_empty();
    html! {
        tr.warning[bad] {
            th scope="row" { (container.name) br; span.address { (container.id) } }
            td data-label="state" { (container.life.as_str()) }
            td data-label="registered" {
                @if container.registers.is_empty() { "nothing" }
                @else { ul.plain { @for one in &container.registers { li { (registered(one)) } } } }
            }
            td data-label="not registered" {
                @if container.left_out.is_empty() { "–" }
                @else { ul.plain { @for reason in &container.left_out { li { (reason) } } } }
            }
            td data-label="refused" {
                @if container.refused.is_empty() { "–" }
                @else { ul.plain { @for why in &container.refused { li { span.error { (wrong::code(why)) } } } } }
            }
        }
    }
}

/// The address that was chosen, why, and which others there were.
fn registered(one: &Registered) -> Markup {
    let mut others: Vec<String> = one
        .networks
        .iter()
        .filter(|(_, address)| **address != one.address)
        .map(|(network, address)| format!("{address} on {network}"))
        .collect();
    let published = one.published.filter(|it| *it != one.address);
    others.extend(published.map(|it| format!("{it} where the host publishes it")));
    html! {
        strong { (one.service) } " (port " (one.port) ") at " (one.address) ", " (one.to_string())
        @if !others.is_empty() { br; span.address { "not at " (others.join(", ")) } }
    }
}

/// What is wrong and no container's own.
fn others(told: &Registrations) -> Markup {
    let shown = |problem: &&Problem| {
        let mut containers = told.containers.iter().flat_map(|it| it.iter());
        !containers.any(|it| it.refused.contains(&problem.message))
    };
    let others: Vec<Problem> = told.problems.iter().filter(shown).cloned().collect();
    html! {
        @if !others.is_empty() {
            h3 id="wrong-title" { "What else is wrong, and what to do" }
            (wrong::table(&wrong::problems(&others)))
        }
    }
}

fn sentence(text: &str) -> String {
    format!("{}.", wrong::capital(text))
}

/// Rows.
const CONTAINERS: usize = 500;
