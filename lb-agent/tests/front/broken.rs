//! Connections between agents and fronts that break, and fronts that end, at the wrong moment.

use std::{net::Shutdown, os::unix::net::UnixStream};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{
    agent::Agent,
    agents::{Agents, await_end, left_by, stand_between},
    kit::eventually,
    snapshots::snapshot,
};

#[test]
fn a_front_whose_connection_breaks_before_it_is_replaced_gives_its_place_all_the_same() {
    // The agent cannot say anything any more; or it sees the end.
    for how in [Shutdown::Read, Shutdown::Both] {
        let (mut agents, old) = left_by("first");
        stand_between(agents.directory.path(), <[u8]>::to_vec, vec![how]);
        let second = agents.start("second");
        await_end(old);
        agents.settled();
        assert_eq!(agents.ask(), "a");
        assert_ne!(agents.front(&second), old);
        second.stop();
    }
}

#[test]
fn clients_get_an_answer_when_a_front_dies_before_the_next_one_has_routes() {
    let (mut agents, old) = left_by("first");
    let mut config = Agent::config(agents.directory.path(), vec![agents.address]);
    config.kind = "second".to_owned();
    let second = Agent::run(config, vec![]);
    let waiting = agents.front(&second);
    kill(Pid::from_raw(old.try_into().unwrap()), Signal::SIGKILL).unwrap();
    await_end(old);
    let answer = agents.ask();
    assert!(answer.starts_with("starting"), "{answer}");
    second.publish(snapshot(&[agents.backend.address]));
    eventually("routes arrive", || (agents.ask() == "a").then_some(()));
    await_end(waiting);
    agents.front(&second);
    second.stop();
}

#[test]
fn an_agent_that_has_just_lost_its_front_still_ends_it_with_itself() {
    let mut agents = Agents::new();
    let agent = agents.start("");
    let front = agents.front(&agent);
    eventually("routes arrive", || (agents.ask() == "a").then_some(()));
    // As a new agent's, it takes the place of the one that there is.
    let _other = UnixStream::connect(agents.control()).unwrap();
    eventually("it is told", || {
        let problems = agent.problems.borrow();
        let told = problems.iter().any(|it| it.message.contains("it ended"));
        told.then_some(())
    });
    agent.stop();
    await_end(front);
}
