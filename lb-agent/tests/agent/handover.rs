//! The agent ends and its front does not, or not yet.

use std::path::PathBuf;

use lb_testkit::eventually;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{
    kit::{LIMIT, World},
    life::requests,
};

fn signal(world: &World, signal: Signal) {
    let agent = Pid::from_raw(i32::try_from(world.agent_id()).unwrap());
    kill(agent, signal).unwrap();
}

/// Restarts the agent with these flags more, and no request may fail.
#[track_caller]
fn restart(world: &mut World, flags: &[&str]) {
    let traffic = requests(&world.netns);
    traffic.await_more(10);
    signal(world, Signal::SIGUSR2);
    let ended = world.ended();
    assert_eq!(ended.code, Some(0), "{}", ended.said);
    traffic.await_more(10);
    world.start(flags);
    world.await_ready();
    traffic.await_more(10);
    assert_eq!(traffic.failures(), Vec::<String>::new(), "{}", world.said());
}

#[test]
fn a_restart_leaves_the_front_to_the_next_agent_and_nobody_is_refused() {
    let (mut world, _instances, _) = World::with_two();
    let front = world.children();
    assert_eq!(front.len(), 1, "one front: {front:?}");
    restart(&mut world, &[]);
    assert_eq!(world.children(), front, "the front is adopted");
    // What cannot change while it runs makes another front.
    restart(&mut world, &["--log-format=json"]);
    let alone = eventually(LIMIT, || match &world.children()[..] {
        [one] if *one != front[0] => Ok(()),
        others => Err(format!("{others:?} instead of one that is not {front:?}")),
    });
    alone.unwrap_or_else(|late| panic!("{late}\n{}", world.said()));
    world.await_front("www.hello", |answer| answer.status == 200);
    world.finish();
}

#[test]
fn the_front_goes_on_for_the_grace_of_an_agent_that_is_not_ready_any_more() {
    let (mut world, _instances, _) = World::with_two();
    world.terminate();
    world.configure(&format!("{}[front]\ngrace = \"1h\"\n", world.usual()));
    world.start(&[]);
    world.await_ready();
    let front = world.children()[0];
    signal(&world, Signal::SIGTERM);
    world.await_page("/ready", |answer| answer.status == 503);
    for _ in 0..10 {
        assert_eq!(world.front("www.hello").unwrap().status, 200);
    }
    assert!(world.is_running());
    // The second one means now.
    world.terminate();
    assert!(!PathBuf::from(format!("/proc/{front}")).exists());
    world.finish();
}
