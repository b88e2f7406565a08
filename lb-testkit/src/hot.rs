//! Hot paths of user space, as tests: `cargo xtask bench guard` counts the instructions of each.

use std::hint::black_box;

/// The variable that says how often a hot path is taken.
pub const RUNS: &str = "LB_HOT_RUNS";

/// What the names of these tests begin with.
pub const PREFIX: &str = "hot_path_";

/// Takes a path once, or as often as `LB_HOT_RUNS` says. What each run costs is the difference of two numbers of runs, so neither the
/// test around it nor what it prepares counts.
pub fn hot_path<T>(mut path: impl FnMut() -> T) {
    let runs = std::env::var(RUNS).ok().and_then(|it| it.parse().ok());
    for _ in 0..runs.unwrap_or(1_u32) {
        black_box(path());
    }
}
