//! The table: what each program does with each kind of packet, in both families, by `BPF_PROG_TEST_RUN`.
//!
//! `LB_ROW=words` runs the rows alone whose sentence has these words. `kit` runs rows, `kit/scene.rs` says where they take place.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod flood;
mod kit;
mod reasons;
mod strangers;
mod tc;
mod told;
mod written;
mod xdp;

use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
};

use kit::{Row, V4, V6, World, scene};
use lb_testkit::Netns;
use nix::{
    sched::{CpuSet, sched_getcpu, sched_setaffinity},
    unistd::Pid,
};

/// Every row, of both families.
fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    for family in [V4, V6] {
        rows.extend(strangers::rows(family));
        rows.extend(xdp::rows(family));
        rows.extend(tc::rows(family));
        rows.extend(told::rows(family));
        rows.extend(written::rows(family));
    }
    rows
}

/// Runs `job` in a world of its own.
fn world<T: Send>(job: impl FnOnce(&mut World) -> T + Send) -> T {
    let (host, outside) = (Netns::new("host").unwrap(), Netns::new("outside").unwrap());
    let folder = tempfile::Builder::new()
        .prefix("lb-test-")
        .tempdir()
        .unwrap();
    host.mount_bpffs(folder.path()).unwrap();
    let devices = scene::build(&host, &outside);
    // Test runs look up routes in the namespace of the thread, and some figures are each CPU's own.
    host.enter(|| {
        stay_on_one_cpu();
        job(&mut World::new(folder.path(), devices))
    })
    .unwrap()
}

/// Keeps this thread on the CPU that it runs on.
fn stay_on_one_cpu() {
    let mut here = CpuSet::new();
    here.set(sched_getcpu().unwrap()).unwrap();
    sched_setaffinity(Pid::from_raw(0), &here).unwrap();
}

#[test]
fn every_row_holds() {
    let only = std::env::var("LB_ROW").unwrap_or_default();
    let (ran, wrong) = world(|world| {
        let mut ran: BTreeMap<(&str, &str), usize> = BTreeMap::new();
        let mut wrong = Vec::new();
        for row in rows().iter().filter(|row| row.says.contains(&only)) {
            *ran.entry((row.program, row.family.as_str())).or_default() += 1;
            match catch_unwind(AssertUnwindSafe(|| world.check(row))) {
                Ok(Ok(())) => {}
                Ok(Err(why)) => wrong.push(why),
                // Its message stands above.
                Err(_) => wrong.push(format!("{}: {} panicked", row.program, row.says)),
            }
        }
        (ran, wrong)
    });
    for ((program, family), count) in &ran {
        println!("{program:<14} {family} {count:>4} rows");
    }
    println!("{:>24} rows", ran.values().sum::<usize>());
    assert!(
        wrong.is_empty(),
        "{} rows do not hold:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

#[test]
fn every_packet_is_told_as_it_came() {
    let only = std::env::var("LB_ROW").unwrap_or_default();
    let wrong = world(|world| {
        // The programs tell what becomes of flows whose backend is gone as they tell all else, and to wait for each takes seconds.
        let rows = rows();
        let rows = rows
            .iter()
            .filter(|row| !row.waits && row.says.contains(&only));
        rows.filter_map(|row| world.check_told(row).err())
            .collect::<Vec<_>>()
    });
    assert!(
        wrong.is_empty(),
        "of {} packets something else is told:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

#[test]
fn the_table_is_long_enough() {
    assert!(rows().len() >= 200, "{} rows", rows().len());
}

#[test]
fn no_row_is_said_twice() {
    let mut seen = BTreeMap::new();
    for row in rows() {
        let said = (row.program, row.family, row.says);
        assert_eq!(seen.insert(said.clone(), ()), None, "{said:?}");
    }
}
