//! Small graphs of the last minutes, as SVG. Pure.
//!
//! The page allows no inline style: sizes are attributes, colours are classes.

use std::fmt::Write as _;

use maud::{Markup, html};

use super::live::Live;
use crate::admin::{STEP, history::POINTS};

/// The graph of one of `live`'s lines: `kind` is its colour and says what it counts.
pub(super) fn spark(live: &Live, line: &str, kind: &str, what: &str) -> Markup {
    let minutes = POINTS as u64 * STEP.as_secs() / 60;
    html! {
        svg.spark.(kind) viewBox={ "0 0 " (WIDTH) " " (HEIGHT) } width=(WIDTH) height=(HEIGHT)
            preserveAspectRatio="none" role="img" aria-label={ (what) ", the last " (minutes) " minutes" } {
            path data-k=(live.key(line)) data-a="d" d=(live.value(line)) {}
        }
    }
}

/// The path of the points, highest on top; a gap where nothing is known.
pub(super) fn path(points: &[Option<u32>]) -> String {
    let highest = points.iter().flatten().copied().max().unwrap_or(0).max(1);
    let mut text = String::new();
    // The newest is at the right edge, however few there are.
    let first = POINTS.saturating_sub(points.len());
    let mut drawn: Option<(usize, u64)> = None;
    let mut pending = None;
    for (at, point) in points.iter().enumerate() {
        let Some(point) = *point else {
            if let Some((x, y)) = pending.take() {
                let _ = write!(text, "L{x} {y}");
            }
            drawn = None;
            continue;
        };
        let x = first + at + 1;
        let y = LOW - u64::from(point) * (LOW - 1) / u64::from(highest);
        match drawn {
            // A level stretch is drawn when it ends.
            Some((_, before)) if before == y => pending = Some((x, y)),
            Some(_) => {
                if let Some((x, y)) = pending.take() {
                    let _ = write!(text, "L{x} {y}");
                }
                let _ = write!(text, "L{x} {y}");
            }
            None => {
                let _ = write!(text, "M{x} {y}");
            }
        }
        drawn = Some((x, y));
    }
    if let Some((x, y)) = pending {
        let _ = write!(text, "L{x} {y}");
    }
    text
}

/// How thick a line of the picture is at so many flows a second.
pub(super) fn width(rate: Option<f64>) -> String {
    let rate = rate.unwrap_or(0.0);
    let width = 1.5 + (1.0 + rate).log2();
    format!("{:.1}", width.min(10.0))
}

/// A unit for each point.
const WIDTH: usize = POINTS;
const HEIGHT: u64 = 22;
/// Where zero is.
const LOW: u64 = HEIGHT - 1;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_graph_ends_at_the_right_and_breaks_at_gaps() {
        let points = [Some(0), Some(10), Some(10), Some(10), None, Some(5)];
        assert_eq!(path(&points), "M115 21L116 1L118 1M120 11");
        assert_eq!(path(&[]), "");
        assert_eq!(path(&[None, Some(0), Some(0)]), "M119 21L120 21");
    }

    #[test]
    fn a_line_grows_with_the_rate_and_has_its_limits() {
        let widths = [None, Some(0.0), Some(1.0), Some(1e9)].map(width);
        assert_eq!(widths, ["1.5", "1.5", "2.5", "10.0"]);
    }
}
