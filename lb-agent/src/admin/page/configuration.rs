//! The configuration, on a page of its own: each key, its value and where that comes from.

use axum::{
    Extension,
    extract::State,
    response::{Html, IntoResponse as _, Response},
};
use maud::{Markup, html};
use serde_json::Value;

use super::{frame, place::Place, withheld, wrong};
use crate::{
    admin::{guard::Access, published, report::Report, router::Desk},
    config::Setting,
};

/// `GET /configuration`. Where the page is published it is not shown.
pub(in crate::admin) async fn show(
    State(desk): State<Desk>,
    Extension(access): Extension<Access>,
) -> Response {
    let report = desk.report().await;
    if access.published {
        return withheld(&report, "Configuration", published::CONFIGURATION);
    }
    let body = section(&desk.settings, &report);
    let page = frame(&report, Some(Place::Configuration), false, &body);
    Html(page.into_string()).into_response()
}

pub(super) fn section(settings: &[Setting], report: &Report) -> Markup {
    let problems = wrong::problems(&report.problems);
    html! {
        h2 id="settings-title" { "Configuration" }
        p {
            "What holds since the agent started, and where it comes from; a secret is " code { "***" }
            ". A restart with SIGUSR2 takes a changed file over without a lost connection."
        }
        div data-part="problems" {
            h3 id="wrong-title" { "What is wrong with what was registered or configured" }
            @if problems.is_empty() { p.fine { "Nothing." } } @else { (wrong::table(&problems)) }
        }
        @if settings.is_empty() { p.unknown { "The configuration is not known here." } }
        @else {
            div.scroll tabindex="0" role="region" aria-label="Configuration" {
                table.rows.settings aria-labelledby="settings-title" {
                    thead { tr { th scope="col" { "key" } th scope="col" { "value" } th scope="col" { "from" } } }
                    tbody {
                        @for setting in settings {
                            tr {
                                th scope="row" { (setting.key) }
                                td data-label="value" { (value(&setting.value)) }
                                td data-label="from" { (setting.origin) }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn value(value: &Value) -> Markup {
    html! {
        @match value {
            Value::Null => "–",
            Value::String(text) => code { (text) },
            Value::Array(all) if all.is_empty() => "none",
            Value::Array(all) => { @for (at, one) in all.iter().enumerate() { @if at > 0 { ", " } (self::value(one)) } }
            other => code { (other.to_string()) },
        }
    }
}
