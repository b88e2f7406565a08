//! What is done for each change, to count its instructions.

use std::{collections::BTreeMap, hint::black_box};

use lb_testkit::hot_path;

use super::{tests::desired, *};

#[test]
fn hot_path_of_planning_one_change() {
    let many = |services: u8| -> BTreeMap<u8, Vec<u8>> {
        (1..=services).map(|n| (n, vec![n, n + 1])).collect()
    };
    let (few, more) = (desired(&many(99)), desired(&many(100)));
    let (mut installed, now) = (Installed::empty(256, 256), Instant::now());
    for step in plan(&installed, &few, |_| 0, now).0 {
        installed.apply(&step, now);
    }
    let (steps, problems) = plan(&installed, &more, |_| 0, now);
    assert!(problems.is_empty());
    assert_eq!(steps.len(), 2, "a backend and a service: {steps:?}");
    hot_path(|| plan(&installed, black_box(&more), |_| 0, now));
}
