//! The log as its readers take it.

use lb_testkit::eventually;

use crate::kit::{LIMIT, World};

/// Waits until the log has this word.
#[track_caller]
fn await_said(world: &World, word: &str) -> String {
    let said = eventually(LIMIT, || {
        let said = world.said();
        said.contains(word).then_some(()).ok_or(said)
    });
    said.unwrap_or_else(|late| panic!("{late}"));
    world.said()
}

#[test]
fn what_others_write_forges_no_line_of_the_log() {
    let mut world = World::new();
    world.publish("[[service]]\nname = \"a\\nERROR forged by a name\"\n");
    world.start(&[]);
    await_said(&world, "forged by a name");
    world.await_ready();
    let said = world.said();
    for line in said.lines() {
        let line = line.trim_start();
        // Each has the time that the agent gave it.
        assert!(line.starts_with("20"), "{line}\nin\n{said}");
    }
    world.finish();
}

#[test]
fn where_standard_error_is_the_journal_each_line_begins_with_its_level() {
    let mut world = World::new();
    let as_systemd = "JOURNAL_STREAM=$(stat -Lc %d:%i /proc/self/fd/2) exec \"$@\"";
    world.start_by("sh", &["-c", as_systemd, "sh"]);
    world.await_ready();
    world.publish("[[service\n");
    let said = await_said(&world, "the last good ones stay");
    for line in said.lines() {
        let level = line.strip_prefix('<').and_then(|line| line.split_once('>'));
        let (level, text) = level.unwrap_or_else(|| panic!("{line}\nin\n{said}"));
        assert!(["3", "4", "6"].contains(&level), "{line}");
        let warns = text.contains("the last good ones stay");
        assert_eq!(level == "4" && warns, warns, "{line}");
    }
    // The front's process says so, too.
    world.terminate();
    await_said(&world, "<6>front drains");
    world.finish();
}
