//! The status page: the report as HTML. Errors first; it reads and filters without scripts, and a script only keeps
//! it up to date and sends an operator's wishes. maud escapes every text, for names and check output are written by
//! others.

pub(super) mod configuration;
pub(super) mod flows;
mod graph;
mod happened;
mod list;
pub(super) mod live;
mod number;
mod overview;
mod picture;
mod place;
pub(super) mod registrar;
mod service;
#[cfg(test)]
mod tests;
mod view;
pub(super) mod vips;
pub(super) mod wrong;

use std::collections::BTreeSet;

use axum::{
    Extension,
    extract::{Path, Query, State, rejection::QueryRejection},
    http::StatusCode,
    response::{Html, IntoResponse as _, Response},
};
use maud::{DOCTYPE, Markup, html};

use self::{
    picture::Limits,
    place::Place,
    view::{Asked, ROWS, View},
};
use super::{
    compose::age,
    guard::Access,
    history::Rings,
    openapi::OPENAPI_PATH,
    published::Withheld,
    report::{Flows, Mark, Report, Service},
    reports::apart,
    router::Desk,
    stream,
};
use crate::catalog::SourceHealth;

/// `GET /`.
pub(super) async fn overview(
    State(desk): State<Desk>,
    Extension(access): Extension<Access>,
    asked: Result<Query<Asked>, QueryRejection>,
) -> Response {
    let view = View::from(asked.map(|Query(asked)| asked).unwrap_or_default());
    let report = desk.report_for(&access).await;
    let page = move || page(&report, &view, &desk.history.read(), access.published).into_string();
    Html(apart(page).await).into_response()
}

/// `GET /service/…`: one service by its label, or by an anchor of either naming scheme.
pub(super) async fn one(
    State(desk): State<Desk>,
    Extension(access): Extension<Access>,
    Path(name): Path<String>,
) -> Response {
    let report = desk.report().await;
    let page = move || alone(&report, &name, &desk.history.read(), access.published);
    let (status, page) = apart(page).await;
    (status, Html(page.into_string())).into_response()
}

fn alone(report: &Report, name: &str, rings: &Rings, published: bool) -> (StatusCode, Markup) {
    let services = report.services.iter().flatten();
    let anchored =
        |it: &&Service| anchor(it) == name || other_anchor(it).is_some_and(|it| it == name);
    let mut labelled = services.clone().filter(|it| it.label == name);
    let found = labelled.next().or_else(|| services.clone().find(anchored));
    let (status, body) = match found {
        Some(service) => {
            let body = service::alone(service, report.now_unix, rings);
            (StatusCode::OK, body)
        }
        None => {
            let body = html! { p { "There is no service " strong { (name) } " here." } };
            (StatusCode::NOT_FOUND, body)
        }
    };
    (status, frame(report, None, published, &back(body)))
}

/// `GET /events`.
pub(super) async fn events(
    State(desk): State<Desk>,
    Extension(access): Extension<Access>,
) -> Response {
    let report = desk.report().await;
    let list = desk.events_for(&access, None, EVENTS);
    let body = html! {
        div data-part="events" { (happened::section(&list, report.now_unix)) }
    };
    let page = frame(&report, Some(Place::Events), access.published, &body);
    Html(page.into_string()).into_response()
}

/// In the place of a page that is not shown where it was asked for.
fn withheld(report: &Report, title: &str, what: Withheld) -> Response {
    let body = html! {
        h2 { (title) }
        p { (wrong::code(&wrong::capital(&what.to_string()))) "." }
    };
    let page = frame(report, None, true, &body).into_string();
    (StatusCode::FORBIDDEN, Html(page)).into_response()
}

fn back(body: Markup) -> Markup {
    html! {
        p { a href="/" { "All services" } }
        div data-part="service" { (body) }
    }
}

/// The whole page. What the script renews has the name of a part.
fn page(report: &Report, view: &View, rings: &Rings, published: bool) -> Markup {
    let wrong = wrong::all(report);
    let all = report.services.as_deref().unwrap_or_default();
    let found = view.of(all);
    let here = all.len() <= ROWS;
    let body = html! {
        section id="summary" data-part="summary" aria-labelledby="summary-title" {
            (overview::summary(report, &wrong, rings))
        }
        section id="wrong" data-part="wrong" { (wrong::section(&wrong)) }
        @match &report.services {
            None => p.unknown { "Services are not known yet: no discovery source has answered." },
            Some(services) if services.is_empty() => p { "Discovery has answered: there is no service." },
            Some(services) => {
                div data-part="picture" {
                    @if !found.is_empty() {
                        section id="picture" aria-labelledby="picture-title" {
                            h2 id="picture-title" { "Where connections go" }
                            p { "Thick lines have many new flows, dashed ones none: that instance is out." }
                            (picture::picture(&picture::chosen(&found, rings), rings, Limits::OVERVIEW))
                        }
                    }
                }
                section aria-labelledby="services" {
                    (list::search(view, services))
                    div data-part="list" { (list::list(view, &found, here, rings)) }
                }
                @if here { div data-part="details" { (details(report, &found, services, rings)) } }
            }
        }
        section id="parts" data-part="parts" { (overview::parts(report)) }
    };
    frame(report, Some(Place::Overview), published, &body)
}

/// What all pages have around `body`; `None` is a page that the navigation does not name.
fn frame(report: &Report, place: Option<Place>, published: bool, body: &Markup) -> Markup {
    let every = place.map_or(0, Place::every_seconds);
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title(report)) }
                link rel="icon" type="image/svg+xml" href=(ICON_PATH);
                link rel="stylesheet" href=(STYLE_PATH);
                // Long enough to type a search in.
                noscript { meta http-equiv="refresh" content="30"; }
                script src=(SCRIPT_PATH) defer {}
                script src=(ACTIONS_PATH) defer {}
            }
            body {
                a.skip href="#report" { "Skip to the report" }
                header {
                    h1 { "lb-agent on " (report.host) }
                    p.lead {
                        "Each service has one virtual address, its VIP. Programs on this host connect to that, and the "
                        "kernel leads every new connection (a flow) to an instance that is healthy."
                    }
                    p.line {
                        "version " (report.version) ", up " (overview::since(report.started_unix, report.now_unix))
                        span id="live" role="status" {}
                        span id="sign" {}
                    }
                    (place::navigation(place, published))
                }
                main id="report" tabindex="-1" data-now=(report.now_unix) data-seen=(stream::seen(report)) data-every=(every) {
                    (body)
                }
                footer {
                    a href="/api/v1/snapshot" { "JSON" } " "
                    a href=(OPENAPI_PATH) { "API" } " "
                    a href="/metrics" { "metrics" } " "
                    a href="/ready" { "ready" }
                }
            }
        }
    }
}

fn title(report: &Report) -> String {
    let worst = report.components.iter().map(|line| line.mark).min();
    let wrong = match worst {
        Some(Mark::Ok) | None if report.problems.is_empty() => "",
        Some(Mark::Error) => "✗ ",
        _ => "! ",
    };
    format!("{wrong}lb-agent on {}", report.host)
}

/// The sections of `found`. An id may occur once: the services' own anchors first, then those of the other naming
/// scheme.
fn details(report: &Report, found: &[&Service], all: &[Service], rings: &Rings) -> Markup {
    let mut taken: BTreeSet<String> = all.iter().map(anchor).collect();
    let mut shown = BTreeSet::new();
    html! {
        @for service in found {
            @let own = Some(anchor(service)).filter(|id| shown.insert(id.clone()));
            @let other = other_anchor(service).filter(|id| taken.insert(id.clone()));
            (service::section(service, report.now_unix, rings, own.as_deref(), other.as_deref()))
        }
    }
}

/// `www_hello_backend`, or `hello_www_backend` for a tagged part.
fn anchor(service: &Service) -> String {
    format!("{}_backend", service.label)
}

/// The anchor that the other naming scheme has for the same thing, so that links of both work:
/// `www_hello` is to one scheme what the part `hello` of `www` is to the other.
fn other_anchor(service: &Service) -> Option<String> {
    match &service.tag {
        Some(tag) => Some(format!(
            "{}_{}_backend",
            service.service,
            tag.replace('.', "_")
        )),
        None => {
            let (first, rest) = service.service.split_once('_')?;
            Some(format!("{}_{first}_backend", rest.replace('_', ".")))
        }
    }
}

fn vip(service: &Service) -> String {
    service
        .vip
        .map_or_else(|| "none".to_owned(), |vip| vip.to_string())
}

/// The VIP with its twin.
fn vips(service: &Service) -> String {
    let twin = service.vip6.map(|twin| format!(" and {twin}"));
    vip(service) + &twin.unwrap_or_default()
}

/// The reasons of refusals.
fn refusals(flows: Flows) -> String {
    let reasons = flows.refusals.by_reason();
    reasons
        .map(|(reason, count)| format!("{reason} {count}"))
        .join(", ")
}

/// The first `most` host names.
fn hosts(service: &Service, most: usize) -> Markup {
    let more = service.hosts.len().saturating_sub(most);
    html! {
        @for (n, host) in service.hosts.iter().take(most).enumerate() {
            @if n > 0 { ", " }
            @if host.starts_with("http://") || host.starts_with("https://") {
                a href=(host) rel="noopener" { (host) }
            } @else { (host) }
        }
        @if more > 0 { " and " (more) " more" }
    }
}

/// Events on their page.
const EVENTS: usize = 200;

/// The word for a verdict of the source.
fn word(health: SourceHealth) -> &'static str {
    match health {
        SourceHealth::Passing => "passing",
        SourceHealth::Warning => "warning",
        SourceHealth::Critical => "critical",
        SourceHealth::Maintenance => "maintenance",
    }
}

/// Where the page's style is served.
pub(super) const STYLE_PATH: &str = "/assets/page.css";
/// The style.
pub(super) const STYLE: &str = include_str!("page/page.css");
/// Where the page's script is served.
pub(super) const SCRIPT_PATH: &str = "/assets/page.js";
/// The script.
pub(super) const SCRIPT: &str = include_str!("page/page.js");
/// Where the script of an operator's buttons is served.
pub(super) const ACTIONS_PATH: &str = "/assets/actions.js";
/// That script.
pub(super) const ACTIONS: &str = include_str!("page/actions.js");
/// Where the page's icon is served. Without one every visit asks for one that is not there.
pub(super) const ICON_PATH: &str = "/assets/icon.svg";
/// The icon.
pub(super) const ICON: &str = include_str!("page/icon.svg");
