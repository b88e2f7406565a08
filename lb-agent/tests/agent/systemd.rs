//! What systemd is told: a socket of the test is in its place.

use std::{
    fs,
    os::unix::net::UnixDatagram,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::kit::{LIMIT, World};

/// What stands in systemd's place.
struct Systemd {
    heard: UnixDatagram,
    variables: [String; 2],
}

impl Systemd {
    /// It wants to hear every two seconds that the agent lives.
    fn of(world: &World) -> Self {
        let place = world.path("notify");
        let heard = UnixDatagram::bind(&place).unwrap();
        heard.set_read_timeout(Some(LIMIT)).unwrap();
        let variables = [
            format!("NOTIFY_SOCKET={}", place.display()),
            "WATCHDOG_USEC=2000000".to_owned(),
        ];
        Self { heard, variables }
    }

    fn start(&self, world: &mut World) {
        let [socket, watchdog] = &self.variables;
        world.start_by("env", &[socket, watchdog]);
    }

    fn next(&self) -> String {
        let mut room = [0; 1024];
        let length = self.heard.recv(&mut room).expect("nothing is told");
        String::from_utf8(room[..length].to_vec()).unwrap()
    }

    /// What is told up to the first that begins so, without the signs of life.
    #[track_caller]
    fn until(&self, beginning: &str) -> Vec<String> {
        let (mut all, start) = (Vec::new(), Instant::now());
        while start.elapsed() < LIMIT {
            let told = self.next();
            let is_last = told.starts_with(beginning);
            if told != "WATCHDOG=1" || is_last {
                all.push(told);
            }
            if is_last {
                return all;
            }
        }
        panic!("{beginning} is not in {all:?}");
    }
}

#[test]
fn systemd_hears_of_the_start_a_reload_life_and_the_end() {
    let mut world = World::new();
    let systemd = Systemd::of(&world);
    systemd.start(&mut world);
    let told = systemd.until("READY=1");
    let (ready, before) = told.split_last().unwrap();
    assert_eq!(ready, "READY=1");
    let is_status = |told: &String| told.starts_with("STATUS=waiting for ");
    assert!(before.iter().all(is_status), "{told:?}");
    systemd.until("STATUS=ready");
    world.await_ready();

    // Two signs of life are not further apart than is wanted.
    systemd.until("WATCHDOG=1");
    let lived = Instant::now();
    systemd.until("WATCHDOG=1");
    assert!(lived.elapsed() < Duration::from_secs(2));

    let agent = Pid::from_raw(i32::try_from(world.agent_id()).unwrap());
    kill(agent, Signal::SIGHUP).unwrap();
    let told = systemd.until("READY=1");
    assert!(
        told[0].starts_with("RELOADING=1\nMONOTONIC_USEC="),
        "{told:?}"
    );
    let metrics = world.page("/metrics").unwrap().body;
    assert!(
        metrics.contains("\nlb_config_reloads_total 1.0\n"),
        "{metrics}"
    );

    // The front is none of its concern.
    let children = world.children();
    assert!(!children.is_empty());
    for child in children {
        let variables = fs::read(format!("/proc/{child}/environ")).unwrap();
        let variables = String::from_utf8_lossy(&variables);
        assert!(!variables.contains("NOTIFY_SOCKET"), "{variables}");
    }

    world.terminate();
    systemd.until("STOPPING=1");
    world.finish();
}

#[test]
fn an_agent_whose_source_is_away_has_started_and_says_what_it_waits_for() {
    let mut world = World::new();
    let services = world.path("services.toml");
    fs::remove_file(&services).unwrap();
    let systemd = Systemd::of(&world);
    systemd.start(&mut world);
    let mut told = systemd.until("READY=1");
    if told.len() == 1 {
        told = systemd.until("STATUS=waiting for ");
    }
    assert!(told.concat().contains("catalog"), "{told:?}");
    assert_eq!(world.page("/ready").unwrap().status, 503);
    world.publish("service = []\n");
    systemd.until("STATUS=ready");
    world.await_ready();
    world.finish();
}
