//! Each fault alone, and all that must hold while it lasts and after it. Needs root, the agent's program beside this crate's, a
//! Consul in `LB_CONSUL`, a Docker Engine in `LB_DOCKER` and libfaketime in `LB_FAKETIME`.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use lb_chaos::{
    Cluster, Fault, Programs,
    rules::Invariant,
    run,
    schedule::{Step, When},
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// Tests that wait for each other share one cluster, which goes with the last of them. One that failed leaves none.
fn shared() -> Arc<Mutex<Option<Cluster>>> {
    static SHARED: Mutex<Weak<Mutex<Option<Cluster>>>> = Mutex::new(Weak::new());
    let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    shared.upgrade().unwrap_or_else(|| {
        let new = Arc::default();
        *shared = Arc::downgrade(&new);
        new
    })
}

/// Lets a fault happen, and nothing that must hold is broken.
#[track_caller]
fn survive(fault: Fault, pick: u32, removal: Option<(When, u32)>) {
    let shared = shared();
    let mut place = shared.lock().unwrap_or_else(PoisonError::into_inner);
    // Taken out: a panic must not leave a wounded cluster to the next test.
    let mut cluster = place.take().unwrap_or_else(whole);
    let step = Step {
        fault,
        pick,
        lasts: 20,
        removal,
    };
    let tried = run::step(&mut cluster, step).unwrap_or_else(|error| panic!("{error:#}"));
    assert!(tried.connects > 80 && tried.requests > 80, "{tried}");
    *place = Some(cluster);
}

/// What a cluster that is whole is made of.
fn whole() -> Cluster {
    let programs = Programs::beside(env!("CARGO_BIN_EXE_lb-chaos").into());
    let cluster = programs.and_then(|it| Cluster::start(&it));
    cluster.unwrap_or_else(|error| panic!("{error:#}"))
}

/// The checker sees what it is there for: an agent and a front are killed, and nobody has written that down.
#[test]
fn what_nobody_excused_is_told_with_the_step_the_time_the_host_and_the_log() {
    let mut cluster = whole();
    for process in cluster.agent_processes(1).unwrap() {
        let process = Pid::from_raw(process.try_into().unwrap());
        kill(process, Signal::SIGKILL).unwrap();
    }
    let step = Step {
        fault: Fault::HostPartition,
        pick: 0,
        lasts: 20,
        removal: None,
    };
    let told = run::step(&mut cluster, step).unwrap_err();
    let broken: &run::Broken = told.downcast_ref().unwrap();
    let found = |invariant| {
        let mut all = broken.violations.iter();
        all.any(|it| it.invariant == invariant && it.host != Some(0))
    };
    assert!(found(Invariant::RequestIsServed), "{broken}");
    assert!(found(Invariant::HostRecovers), "{broken}");
    assert!(
        !found(Invariant::FlowLivesOn),
        "flows need nobody: {broken}"
    );
    let text = broken.to_string();
    for words in [
        "HostPartition",
        " s, host 1: no request of the front fails",
        "the agent of host 1 said last:",
        "INFO ready",
    ] {
        assert!(text.contains(words), "{words} is not in {text}");
    }
}

#[test]
fn an_agent_that_is_killed_again_and_again_loses_nothing() {
    // Twice more, while it starts.
    survive(Fault::AgentKill, 4, Some((When::During, 0)));
}

#[test]
fn an_agent_that_hands_over_loses_nothing() {
    survive(Fault::AgentHandover, 0, Some((When::During, 3)));
}

#[test]
fn an_agent_that_stops_leaves_flows_and_connects() {
    survive(Fault::AgentStop, 1, None);
}

#[test]
fn a_host_without_agent_and_front_leaves_flows_and_connects() {
    survive(Fault::AgentAndFrontKill, 0, Some((When::Before, 1)));
}

#[test]
fn another_version_takes_over_and_this_one_again_and_nothing_is_lost() {
    survive(Fault::OtherVersion, 0, Some((When::During, 4)));
}

#[test]
fn changes_arrive_without_one_consul_server() {
    survive(Fault::ConsulServerKill, 0, Some((When::During, 4)));
}

#[test]
fn changes_arrive_after_consuls_leader_is_lost() {
    survive(Fault::ConsulLeaderLoss, 0, Some((When::During, 2)));
}

/// The servers that are left may not have heard of the removal before they choose another leader.
#[test]
fn a_backend_does_not_come_back_when_consuls_leader_is_lost_just_after_its_removal() {
    survive(Fault::ConsulLeaderLoss, 461, Some((When::Before, 796)));
}

#[test]
fn without_a_majority_of_consul_all_goes_on() {
    survive(Fault::ConsulMajorityLoss, 1, Some((When::Before, 5)));
}

#[test]
fn without_an_answer_of_consul_all_goes_on() {
    survive(Fault::ConsulSilence, 0, None);
}

#[test]
fn a_host_that_consul_does_not_reach_goes_on() {
    survive(Fault::ConsulPartition, 1, Some((When::During, 1)));
}

#[test]
fn hosts_need_not_reach_each_other() {
    survive(Fault::HostPartition, 0, Some((When::During, 0)));
}

#[test]
fn a_backend_out_of_reach_is_avoided() {
    survive(Fault::BackendPartition, 2, None);
}

#[test]
fn a_slow_and_lossy_link_costs_time_alone() {
    survive(Fault::BadLink, 0, Some((When::During, 4)));
}

#[test]
fn a_backend_that_flaps_costs_what_was_under_way_alone() {
    survive(Fault::BackendFlapping, 3, None);
}

#[test]
fn a_container_that_flaps_costs_what_was_under_way_alone() {
    // Those in containers come after six others.
    survive(Fault::BackendFlapping, 7, Some((When::During, 3)));
}

#[test]
fn a_docker_engine_that_stops_takes_its_containers_alone() {
    survive(Fault::EngineStop, 0, Some((When::During, 1)));
}

#[test]
fn a_docker_engine_that_is_killed_takes_nobody_until_it_starts_again() {
    survive(Fault::EngineKill, 0, Some((When::During, 4)));
}

#[test]
fn a_registrar_that_is_killed_makes_good_what_happened_without_it() {
    survive(Fault::RegistrarKill, 1, Some((When::During, 2)));
}

#[test]
fn a_thousand_changes_a_minute_cost_nothing() {
    survive(Fault::ManyChanges, 0, Some((When::During, 2)));
}

#[test]
fn a_full_disk_for_the_state_costs_nothing() {
    survive(Fault::StateDiskFull, 1, Some((When::During, 4)));
}

#[test]
fn an_agent_that_may_open_nothing_leaves_flows_and_connects_and_requests() {
    survive(Fault::NoDescriptors, 0, Some((When::During, 3)));
}

#[test]
fn a_host_without_ports_recovers_and_keeps_its_flows() {
    survive(Fault::NoPorts, 1, Some((When::During, 5)));
}

#[test]
fn an_agent_that_is_ended_for_want_of_memory_loses_nothing() {
    survive(Fault::NoMemory, 1, Some((When::During, 2)));
}

#[test]
fn a_clock_that_jumps_costs_nothing() {
    survive(Fault::ClockJump, 1, Some((When::During, 0)));
}

#[test]
fn services_beyond_the_maps_room_leave_the_others_alone() {
    survive(Fault::FullMaps, 0, Some((When::During, 5)));
}

#[test]
fn a_client_that_means_harm_is_not_noticed_by_others() {
    survive(Fault::HostileClient, 1, Some((When::During, 1)));
}
