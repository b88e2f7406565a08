//! What the front's fuzz targets do with bytes, and the replay of everything they are kept for.
//!
//! This exists for the tests and for `cargo xtask fuzz` only: the front has none of it. A new target is a function
//! here, a line in [`TARGETS`], three lines in `fuzz/targets/` and seeds in `fuzz/corpus/`.

mod announced;
mod fields;
mod forwarding;
mod frames;
pub(crate) mod framing;
mod messages;
mod routing;
mod rules;

pub use announced::front_proxy_header;
pub use forwarding::front_forwarding;
pub use frames::front_frames;
pub use framing::front_guard;
pub use messages::front_messages;
pub use routing::front_route;
pub use rules::front_rules;

/// Every target, by its name.
#[cfg(test)]
const TARGETS: &[(&str, lb_testkit::fuzz::Target)] = &[
    ("front_forwarding", front_forwarding),
    ("front_frames", front_frames),
    ("front_guard", front_guard),
    ("front_messages", front_messages),
    ("front_proxy_header", front_proxy_header),
    ("front_route", front_route),
    ("front_rules", front_rules),
];

#[test]
fn every_kept_input_of_every_target_is_harmless() {
    lb_testkit::fuzz::replay("lb_front", TARGETS).unwrap();
}
