//! The list of services, its search and its pages.

use maud::{Markup, html};

use super::{
    graph, hosts,
    live::Live,
    overview::states,
    view::{ROWS, View},
    wrong,
};
use crate::admin::{history::Rings, report::Service};

/// The search: a plain form, so that it works without scripts.
pub(super) fn search(view: &View, all: &[Service]) -> Markup {
    html! {
        h2 id="services" { "Services" }
        form.search id="search" action="/" method="get" role="search" {
            label for="q" { "Find by name, host name, address, instance or state" }
            input id="q" type="search" name="q" value=(view.q) autocomplete="off" spellcheck="false" {}
            label for="state" { "Show" }
            select id="state" name="state" {
                option value="" selected[view.state.is_none()] { "all " (all.len()) }
                @for (state, n) in states(all) {
                    option value=(state.as_str()) selected[view.state == Some(state)] { (n) " " (state.as_str()) }
                }
            }
            button type="submit" { "Find" }
            @if !view.is_all() { a href="/#services" { "Show all" } }
        }
    }
}

/// The rows of the page that is asked for. `here` says whether a service's section is on this page.
pub(super) fn list(view: &View, found: &[&Service], here: bool, rings: &Rings) -> Markup {
    let pages = found.len().div_ceil(ROWS).max(1);
    let page = view.page.min(pages - 1);
    let from = page * ROWS;
    let rows = &found[from..found.len().min(from + ROWS)];
    html! {
        p role="status" id="found" {
            @if found.is_empty() { "No service is like that." }
            @else if pages == 1 { (found.len()) " found" }
            @else { (from + 1) " to " (from + rows.len()) " of " (found.len()) " found" }
        }
        @if !rows.is_empty() { (table(rows, here, rings)) }
        @if pages > 1 {
            nav.pages aria-label="Pages of the list" {
                @if page > 0 { a href=(view.href(page - 1)) rel="prev" { "Previous" } }
                span { "page " (page + 1) " of " (pages) }
                @if page + 1 < pages { a href=(view.href(page + 1)) rel="next" { "Next" } }
            }
        }
    }
}

fn table(rows: &[&Service], here: bool, rings: &Rings) -> Markup {
    html! {
        div.scroll tabindex="0" role="region" aria-label="List of services" {
            table.list aria-labelledby="services" {
                thead {
                    tr {
                        th scope="col" { "service" }
                        th scope="col" { "state" }
                        th scope="col" { "VIP" }
                        th.n scope="col" { "usable" }
                        th.n scope="col" { "new/s" }
                        th scope="col" { "10 minutes" }
                        th.n scope="col" { "open" }
                        th.n scope="col" { "flows" }
                        th.n scope="col" { "refused" }
                        th.n scope="col" { "failed" }
                        th.n scope="col" { "connect p50" }
                        th.n scope="col" { "p99" }
                        th.n scope="col" { "HTTP/s" }
                        th scope="col" { "host names" }
                    }
                }
                tbody {
                    @for service in rows { (row(service, here, rings)) }
                }
            }
        }
    }
}

fn row(service: &Service, here: bool, rings: &Rings) -> Markup {
    let live = Live::service(service, rings);
    let href = match here {
        true => format!("#{}", super::anchor(service)),
        false => wrong::href(service),
    };
    html! {
        tr.(service.state.as_str()) data-service=(service.label) {
            th scope="row" { a href=(href) { (service.name) } }
            td.mark data-label="state" { (service.state.as_str()) }
            td.w data-label="VIP" { (super::vip(service)) }
            td.n data-label="usable" { (service.usable) "/" (service.backends.len()) }
            td.n data-label="new/s" { (live.text("flow-rate")) }
            td.graph data-label="10 minutes" { (graph::spark(&live, "flow-line", "flows", "new flows")) }
            td.n data-label="open" { (live.text("active")) }
            td.n data-label="flows" { (live.text("flows")) }
            td.n data-label="refused" title=[service.flows.map(super::refusals)] { (live.text("refused")) }
            td.n data-label="failed" { (live.text("failed")) }
            td.n data-label="connect p50" { (live.text("p50")) }
            td.n data-label="p99" { (live.text("p99")) }
            td.n data-label="HTTP/s" { (live.text("request-rate")) }
            td data-label="host names" { (hosts(service, HOSTS)) }
        }
    }
}

/// Host names of a row; the service's section has all.
const HOSTS: usize = 3;
