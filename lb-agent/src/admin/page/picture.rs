//! The way of connections as a picture: names, the virtual address, instances. Pure.
//!
//! The tables say the same in words, so it is one image to a screen reader. Its lines are as thick as there are
//! new flows, and a dashed one carries none because its instance is out.

use maud::{Markup, html};

use super::live::Live;
use crate::admin::{
    history::{Kind, Rings},
    report::{Service, ServiceState},
};

/// The picture of `services`, from top to bottom.
pub(super) fn picture(services: &[&Service], rings: &Rings, limits: Limits) -> Markup {
    let mut top = HEAD;
    let mut blocks = Vec::new();
    for service in services {
        let block = Block::new(service, top, limits);
        top += block.height + GUTTER;
        blocks.push(block);
    }
    html! {
        div.scroll tabindex="0" role="region" aria-label="Picture of the way of connections" {
            svg.picture viewBox={ "0 0 " (WIDTH) " " (top) } width=(WIDTH) height=(top) role="img"
                aria-label="Names lead to virtual addresses, and these to instances; the tables say the same" {
                text.head x=(NAMES) y="14" text-anchor="end" { "names" }
                text.head x=(VIPS) y="14" { "virtual address (VIP)" }
                text.head x=(BACKENDS) y="14" { "instances" }
                @for block in &blocks { (block.draw(rings)) }
            }
        }
    }
}

/// Those that the overview's picture shows: the worst, then the busiest.
pub(super) fn chosen<'s>(services: &[&'s Service], rings: &Rings) -> Vec<&'s Service> {
    let rated = services.iter().map(|service| {
        let rate = rings.last_rate(&service.label, Kind::Flows);
        (*service, rate.unwrap_or(0.0))
    });
    let mut rated: Vec<(&Service, f64)> = rated.collect();
    rated.sort_by(|(one, busy), (other, busier)| {
        let bad = other.state.cmp(&one.state);
        bad.then_with(|| busier.total_cmp(busy))
    });
    rated.truncate(SERVICES);
    rated.into_iter().map(|(service, _)| service).collect()
}

/// How much of each service there is room for.
#[derive(Clone, Copy)]
pub(super) struct Limits {
    pub(super) names: usize,
    pub(super) backends: usize,
}

impl Limits {
    pub(super) const OVERVIEW: Self = Self {
        names: 3,
        backends: 4,
    };
    pub(super) const SERVICE: Self = Self {
        names: 8,
        backends: 16,
    };
}

/// A service's part of the picture.
struct Block<'s> {
    service: &'s Service,
    top: usize,
    height: usize,
    names: Vec<String>,
    backends: usize,
}

impl<'s> Block<'s> {
    fn new(service: &'s Service, top: usize, limits: Limits) -> Self {
        let mut names: Vec<String> = service.hosts.clone();
        if names.is_empty() {
            names.push("not on the front: VIP or DNS name only".to_owned());
        }
        let more = names.len().saturating_sub(limits.names);
        names.truncate(limits.names);
        if more > 0 {
            names.push(format!("and {more} more"));
        }
        let all = service.backends.len();
        let backends = all.min(limits.backends);
        let right = backends + usize::from(all > backends || all == 0);
        let lines = names.len().max(right).max(2);
        Self {
            service,
            top,
            height: lines * LINE,
            names,
            backends,
        }
    }

    /// The middle of entry `at` of `of`, which stand around the block's middle.
    fn middle(&self, at: usize, of: usize) -> usize {
        let room = self.height - of * LINE;
        self.top + room / 2 + at * LINE + LINE / 2
    }

    fn draw(&self, rings: &Rings) -> Markup {
        let service = self.service;
        let live = Live::service(service, rings);
        let centre = self.top + self.height / 2;
        let refused = service.state == ServiceState::Refused;
        let all = service.backends.len();
        let more = all - self.backends;
        let right = self.backends + usize::from(more > 0 || all == 0);
        let vip = service.vip;
        html! {
            g.(service.state.as_str()) {
                @for (at, name) in self.names.iter().enumerate() {
                    @let y = self.middle(at, self.names.len());
                    text.name x=(NAMES) y=(y + 4) text-anchor="end" { (short(name, 40)) title { (name) } }
                    path.way.refused[refused] d=(curve((NAMES_END, y), (VIPS, centre)))
                        data-k=[(!refused).then(|| live.key("flow-width"))] data-a="stroke-width"
                        stroke-width=(if refused { "1.5" } else { live.value("flow-width") }) {}
                }
                rect.box x=(VIPS) y=(centre - 20) width=(VIPS_WIDTH) height="40" rx="6" {}
                text.service x=(VIPS + 10) y=(centre - 4) { (short(&service.name, 26)) title { (service.name) } }
                text.vip x=(VIPS + 10) y=(centre + 12) {
                    @if let Some(vip) = vip { (vip) } @else { "no address" }
                    @if refused { " · refused" }
                }
                @for (at, backend) in service.backends.iter().take(self.backends).enumerate() {
                    @let y = self.middle(at, right);
                    @let live = Live::backend(service, backend, rings);
                    @let usable = backend.state.usable();
                    path.way.(backend.state.as_str()) d=(curve((VIPS + VIPS_WIDTH, centre), (BACKENDS - 8, y)))
                        data-k=[usable.then(|| live.key("flow-width"))] data-a="stroke-width"
                        stroke-width=(if usable { live.value("flow-width") } else { "1.5" }) {}
                    circle.(backend.state.as_str()) cx=(BACKENDS - 4) cy=(y) r="4" {}
                    text.backend x=(BACKENDS + 6) y=(y + 4) {
                        (short(&backend.key.id, 22)) " "
                        tspan.address { (backend.address) }
                        @if !usable { tspan.state.(backend.state.as_str()) { " " (backend.state.as_str()) } }
                        title { (backend.key) " at " (backend.address) ": " (backend.state.as_str()) }
                    }
                }
                @if all == 0 {
                    text.state x=(BACKENDS + 6) y=(self.middle(0, right) + 4) { "no instance is registered" }
                } @else if more > 0 {
                    text.backend x=(BACKENDS + 6) y=(self.middle(self.backends, right) + 4) { "and " (more) " more" }
                }
            }
        }
    }
}

/// A line that leaves and arrives level.
fn curve((x, y): (usize, usize), (to_x, to_y): (usize, usize)) -> String {
    let middle = usize::midpoint(x, to_x);
    format!("M{x} {y}C{middle} {y} {middle} {to_y} {to_x} {to_y}")
}

/// At most so many characters.
fn short(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    let start: String = text.chars().take(most - 1).collect();
    format!("{start}…")
}

/// Services of the overview.
const SERVICES: usize = 6;
/// Where the names end, and where the other columns begin and end.
const NAMES: usize = 282;
const NAMES_END: usize = 290;
const VIPS: usize = 370;
const VIPS_WIDTH: usize = 200;
const BACKENDS: usize = 680;
const WIDTH: usize = 1060;
/// Above the first service.
const HEAD: usize = 24;
/// Of a name or an instance.
const LINE: usize = 22;
/// Between services.
const GUTTER: usize = 12;
