//! The certificates for Consul: told at the start when they are wrong, and read again on SIGHUP.

use std::fs;

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::kit::World;

/// A configuration whose Consul is never there, with this key more.
fn with_consul(world: &World, line: &str) -> String {
    let usual = world.usual();
    format!("{usual}[sources.consul]\naddress = \"https://127.0.0.1:8501\"\n{line}\n")
}

/// An authority that nothing else knows.
fn authority() -> String {
    let key = rcgen::KeyPair::generate().unwrap();
    let params = rcgen::CertificateParams::default();
    params.self_signed(&key).unwrap().pem()
}

#[test]
fn certificates_that_cannot_be_used_stop_the_start() {
    let mut world = World::new();
    let missing = world.path("ca.pem").display().to_string();
    world.configure(&with_consul(&world, &format!("ca_file = \"{missing}\"")));
    let attempt = world.attempt(&[]);
    attempt.expect(1, &["[sources.consul]", &missing, "cannot be read"]);
    world.assert_untouched();
    fs::write(&missing, "rotten").unwrap();
    let attempt = world.attempt(&[]);
    attempt.expect(1, &["[sources.consul]", &missing, "holds no certificate"]);
    world.assert_untouched();
    world.finish();
}

#[test]
fn sighup_reads_certificates_again_and_keeps_the_old_ones_if_they_are_broken() {
    let mut world = World::new();
    let path = world.path("ca.pem");
    fs::write(&path, authority()).unwrap();
    let line = format!("ca_file = \"{}\"", path.display());
    world.configure(&with_consul(&world, &line));
    world.start(&[]);
    let told = |world: &World, told: bool| {
        world.await_report(|report| {
            let problems = report.problems();
            (problems.contains("the old certificates stay in use") == told).then_some(problems)
        })
    };
    world.await_page_report(|report| report.problems().is_empty().then_some(()));
    let agent = Pid::from_raw(i32::try_from(world.agent_id()).unwrap());
    fs::write(&path, "rotten").unwrap();
    kill(agent, Signal::SIGHUP).unwrap();
    let problems = told(&world, true);
    assert!(
        problems.contains("ca.pem holds no certificate"),
        "{problems}"
    );
    fs::write(&path, authority()).unwrap();
    kill(agent, Signal::SIGHUP).unwrap();
    told(&world, false);
    assert!(world.said().contains("SIGHUP"), "{}", world.said());
    world.finish();
}
