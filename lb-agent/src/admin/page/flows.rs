//! Who is connected where, and who was turned away, on a page of its own.
//!
//! The flows themselves are there only for who may know the clients; everybody who reads is told how many there are.

use std::{cmp::Reverse, collections::BTreeMap, time::Duration};

use axum::{
    Extension,
    body::to_bytes,
    extract::{Query, State, rejection::QueryRejection},
    response::{Html, IntoResponse as _, Response},
};
use maud::{Markup, html};

use super::{frame, number::thousands, place::Place};
use crate::admin::{
    flows::Wish,
    guard::Access,
    report::{Flow, FlowList, PacketFlow, Refused, Report},
    reports::apart,
    router::Desk,
    text,
};

/// `GET /flows`.
pub(in crate::admin) async fn show(
    State(desk): State<Desk>,
    Extension(access): Extension<Access>,
    wish: Result<Query<Wish>, QueryRejection>,
) -> Response {
    let report = desk.report().await;
    // An empty field of the form asks for nothing, and so does what makes no sense.
    let mut wish = wish.map(|Query(wish)| wish).unwrap_or_default();
    for field in [&mut wish.service, &mut wish.client] {
        *field = field.take().map(|it| it.trim().to_owned());
        *field = field.take().filter(|it| !it.is_empty());
    }
    let sees = access.sees_clients();
    let listed = match sees {
        false => None,
        true => Some(match desk.flows(&wish).await {
            Ok(list) => Ok(list),
            Err(refusal) => Err(words(refusal).await),
        }),
    };
    let page = move || page(&report, &wish, listed.as_ref(), access.published).into_string();
    Html(apart(page).await).into_response()
}

/// What a refusal says.
async fn words(refusal: Response) -> String {
    let bytes = to_bytes(refusal.into_body(), WORDS).await;
    let said = bytes.ok().and_then(|it| serde_json::from_slice(&it).ok());
    said.map_or_else(
        || "the agent did not say why".to_owned(),
        |Refused { error }| error,
    )
}

pub(super) fn page(
    report: &Report,
    wish: &Wish,
    listed: Option<&Result<FlowList, String>>,
    published: bool,
) -> Markup {
    let body = html! {
        h2 id="flows-title" { "Flows" }
        (search(wish, listed.is_some()))
        // Another part for who has signed in, so that the form is made anew, too.
        div data-part=(if listed.is_some() { "flows" } else { "counts" }) {
            @match listed {
                None => { (told(report, wish, published)) }
                Some(Err(why)) => p.unknown { "They are not known: " (why) "." },
                Some(Ok(list)) => { (list_of(list)) }
            }
            (turned_away(report, wish))
        }
    };
    frame(report, Some(Place::Flows), published, &body)
}

fn search(wish: &Wish, sees: bool) -> Markup {
    html! {
        form.search action="/flows" method="get" role="search" aria-label="Flows" {
            label for="flow-service" { "Of the service" }
            input id="flow-service" type="search" name="service" value=[wish.service.as_deref()] autocomplete="off" spellcheck="false" {}
            @if sees {
                label for="flow-client" { "of the client (an address, a process or a container)" }
                input id="flow-client" type="search" name="client" value=[wish.client.as_deref()] autocomplete="off" spellcheck="false" {}
            }
            button type="submit" { "Find" }
            @if wish.service.is_some() || wish.client.is_some() { a href="/flows" { "Show all" } }
        }
    }
}

/// Open flows of one backend.
struct Count<'c> {
    service: &'c str,
    backend: String,
    flows: u64,
}

/// For who may not know the clients.
fn told(report: &Report, wish: &Wish, published: bool) -> Markup {
    let services = report.services.iter().flatten();
    let services = services.filter(|it| is_meant(wish, [&it.name, &it.label, &it.service]));
    let counts = services.flat_map(|service| {
        let backends = service.backends.iter();
        backends.map(|backend| Count {
            service: &service.name,
            backend: format!("{} at {}", backend.key, backend.address),
            flows: backend.active.unwrap_or(0),
        })
    });
    html! {
        p {
            @if published {
                "Who the clients are is not shown through a published page. "
            } @else {
                "Sign in to see who the clients are and which processes they have. "
            }
            code { "lb-agent flows" } " on the host tells."
        }
        @if report.data_plane.is_none() { p.unknown { "How many there are is not known: the data plane does not answer." } }
        @else { (counted(counts.collect())) }
    }
}

fn is_meant(wish: &Wish, names: [&String; 3]) -> bool {
    wish.service
        .as_ref()
        .is_none_or(|meant| names.contains(&meant))
}

/// The newest flows, and how many each backend has of those that were asked for.
fn list_of(list: &FlowList) -> Markup {
    let mut counts: BTreeMap<(&str, String), u64> = BTreeMap::new();
    for flow in &list.flows {
        let service = flow.service.as_deref().unwrap_or("gone");
        let backend = flow.backend.as_deref().unwrap_or("gone");
        let backend = format!("{backend} at {}", flow.address);
        *counts.entry((service, backend)).or_default() += 1;
    }
    let counts = counts.into_iter();
    let counts = counts.map(|((service, backend), flows)| Count {
        service,
        backend,
        flows,
    });
    html! {
        @if let Some(unseen) = &list.unseen { p.unknown { "Not seen: " (unseen) "." } }
        @if list.left_out > 0 {
            p.unknown { (thousands(list.left_out)) " more are open and not counted here." }
        }
        (counted(counts.collect()))
        h3 id="newest-title" { "The newest" }
        @if list.flows.is_empty() {
            p { "No flow is like that." }
        } @else {
            @if list.flows.len() > NEWEST { p { (NEWEST) " of " (list.flows.len()) "." } }
            (newest(&list.flows))
        }
        @if !list.packets.is_empty() {
            h3 id="packets-title" { "On the packet path" }
            @if list.packets.len() > NEWEST || list.packets_left_out > 0 {
                p { "Some of " (thousands(list.packets.len() as u64 + list.packets_left_out)) "." }
            }
            (of_packets(&list.packets))
        }
    }
}

/// Flows of clients that no socket of this host is seen of.
fn of_packets(flows: &[PacketFlow]) -> Markup {
    let heads = [
        "client",
        "age",
        "silent for",
        "service",
        "VIP",
        "goes to",
        "state",
    ];
    let time = |seconds| text::duration(Duration::from_secs(seconds));
    html! {
        div.scroll tabindex="0" role="region" aria-label="Flows on the packet path" {
            table.rows aria-labelledby="packets-title" {
                thead { tr { @for head in heads { th scope="col" { (head) } } } }
                tbody {
                    @for flow in flows.iter().take(NEWEST) {
                        tr {
                            th scope="row" { (flow.client) }
                            td.w data-label="age" { (flow.age_seconds.map_or_else(|| "not known".to_owned(), time)) }
                            td.w data-label="silent for" { (time(flow.idle_seconds)) }
                            td data-label="service" { (flow.service.as_deref().unwrap_or("gone")) }
                            td data-label="VIP" { (flow.vip) }
                            td data-label="goes to" {
                                (flow.backend.as_deref().unwrap_or("gone"))
                                @if let Some(address) = flow.address { br; span.address { (address) } }
                            }
                            td data-label="state" { (flow.protocol) ", " (flow.state) ", " (flow.way.as_deref().unwrap_or("?")) }
                        }
                    }
                }
            }
        }
    }
}

fn counted(mut counts: Vec<Count<'_>>) -> Markup {
    counts.retain(|it| it.flows > 0);
    counts.sort_by_key(|it| Reverse(it.flows));
    let all: u64 = counts.iter().map(|it| it.flows).sum();
    html! {
        p role="status" { (thousands(all)) " open" }
        @if !counts.is_empty() {
            div.scroll tabindex="0" role="region" aria-label="Open flows by instance" {
                table.rows aria-label="Open flows by instance" {
                    thead { tr { th scope="col" { "instance" } th scope="col" { "service" } th.n scope="col" { "open" } } }
                    tbody {
                        @for count in counts.iter().take(NEWEST) {
                            tr {
                                th scope="row" { (count.backend) }
                                td data-label="service" { (count.service) }
                                td.n data-label="open" { (thousands(count.flows)) }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn newest(flows: &[Flow]) -> Markup {
    let heads = [
        "client", "age", "process", "service", "VIP", "goes to", "state",
    ];
    html! {
        div.scroll tabindex="0" role="region" aria-label="The newest flows" {
            table.rows aria-labelledby="newest-title" {
                thead { tr { @for head in heads { th scope="col" { (head) } } } }
                tbody {
                    @for flow in flows.iter().take(NEWEST) {
                        tr {
                            th scope="row" { (flow.client) }
                            td.w data-label="age" { (text::duration(Duration::from_secs(flow.age_seconds))) }
                            td data-label="process" { (process(flow)) }
                            td data-label="service" { (flow.service.as_deref().unwrap_or("gone")) }
                            td data-label="VIP" { (flow.vip) }
                            td data-label="goes to" {
                                (flow.backend.as_deref().unwrap_or("gone")) br; span.address { (flow.address) }
                            }
                            td data-label="state" { (flow.protocol) ", " (flow.state) }
                        }
                    }
                }
            }
        }
    }
}

fn process(flow: &Flow) -> Markup {
    html! {
        @match (&flow.command, flow.pid) {
            (Some(command), Some(pid)) => { (command) " (" (pid) ")" }
            _ => "not seen",
        }
        ", uid " (flow.uid)
        @if let Some(container) = &flow.container { br; span.address { "container " (container) } }
    }
}

/// Connects that were refused, by reason.
fn turned_away(report: &Report, wish: &Wish) -> Markup {
    let services = report.services.iter().flatten();
    let services = services.filter(|it| is_meant(wish, [&it.name, &it.label, &it.service]));
    let refused = services.filter_map(|service| Some((service, service.flows?)));
    let mut refused: Vec<_> = refused.filter(|(_, flows)| flows.refused > 0).collect();
    refused.sort_by_key(|(_, flows)| Reverse(flows.refused));
    html! {
        h3 id="refused-title" { "Turned away, by reason" }
        @match &report.data_plane {
            None => p.unknown { "Not known: the data plane does not answer." },
            Some(plane) => {
                p {
                    (thousands(plane.unknown)) " to addresses of the pool that nobody has, or not on that port. "
                    @if refused.is_empty() { "None to a service." }
                }
                @if !refused.is_empty() {
                    div.scroll tabindex="0" role="region" aria-label="Turned away, by reason" {
                        table.rows aria-labelledby="refused-title" {
                            thead {
                                tr {
                                    th scope="col" { "service" }
                                    @for (reason, _) in refused[0].1.refusals.by_reason() { th.n scope="col" { (reason) } }
                                }
                            }
                            tbody {
                                @for (service, flows) in refused.iter().take(NEWEST) {
                                    tr {
                                        th scope="row" { (service.name) }
                                        @for (reason, count) in flows.refusals.by_reason() {
                                            td.n data-label=(reason) { (thousands(count)) }
                                        }
                                    }
                                }
                            }
                        }
                    }
                    p {
                        code { "no-backend" } ": no instance was usable; " code { "no-path" }
                        ": none of the usable ones could be reached from where the client stands; " code { "denied" }
                        ": the service does not let the client in. " code { "lb-agent explain" } " tells for one client."
                    }
                }
            }
        }
    }
}

/// Rows of a table.
const NEWEST: usize = 200;
/// Bytes of a refusal.
const WORDS: usize = 16 * 1024;
