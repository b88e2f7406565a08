//! What happened of late, on a page of its own: the newest first.

use maud::{Markup, html};

use super::overview::since;
use crate::admin::events::EventList;

/// The list as it is now.
pub(super) fn section(list: &EventList, now_unix: u64) -> Markup {
    html! {
        h2 { "What happened" }
        @if list.events.is_empty() {
            p { "Nothing yet: the agent has just started." }
        } @else {
            p { "The newest first, of those that are kept. " code { "lb-agent events --follow" } " shows them as they happen." }
            div.scroll tabindex="0" role="region" aria-label="What happened" {
                table.events {
                    thead {
                        tr {
                            @for head in ["ago", "kind", "what", "from", "to", "why", "by"] {
                                th scope="col" { (head) }
                            }
                        }
                    }
                    tbody {
                        @for event in list.events.iter().rev() {
                            @let what = &event.what;
                            tr {
                                td data-label="ago" { (since(event.unix, now_unix)) }
                                td data-label="kind" { (what.kind.as_str()) }
                                th scope="row" { (what.subject) }
                                td data-label="from" { (text(what.from.as_deref())) }
                                td data-label="to" { (text(what.to.as_deref())) }
                                td data-label="why" { (text(what.cause.as_deref())) }
                                td data-label="by" { (text(what.actor.as_deref())) }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn text(text: Option<&str>) -> &str {
    text.unwrap_or("–")
}
