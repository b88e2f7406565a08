//! What a question costs from the start of the command to its end.

use std::{
    process::{Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use lb_agent::snapshot::ServiceName;

use crate::{
    agent::Agent,
    values::{key, service, snapshot},
};

/// A build for tests is so much slower.
const LIMIT: Duration = match cfg!(debug_assertions) {
    true => Duration::from_millis(500),
    false => Duration::from_millis(50),
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_status_of_a_thousand_services_is_there_at_once() {
    let agent = Agent::start().await;
    let mut snapshot = snapshot();
    for number in 0..1000_u16 {
        let [high, low] = number.to_be_bytes();
        let mut service = service(Some([198, 18, 16 + high, low].into()));
        for id in ["b", "c"] {
            let backend = service.backends[&key("a")].clone();
            service.backends.insert(key(id), backend);
        }
        let name = ServiceName::whole(format!("service_{number}"));
        snapshot.services.insert(name, service.into());
    }
    agent.snapshots.send_replace(Some(Arc::new(snapshot)));
    let socket = agent.socket.clone();
    let times = tokio::task::spawn_blocking(move || {
        let time = |_| {
            let start = Instant::now();
            let done = Command::new(env!("CARGO_BIN_EXE_lb-agent"))
                .args(["status", "--socket"])
                .arg(&socket)
                .stderr(Stdio::inherit())
                .output()
                .unwrap();
            let took = start.elapsed();
            let text = String::from_utf8(done.stdout).unwrap();
            assert!(text.contains("1002 services"), "{text}");
            took
        };
        let mut times: Vec<_> = (0..9).map(time).collect();
        times.sort();
        times
    });
    let times = times.await.unwrap();
    println!(
        "status of 1002 services: median {:?}, worst {:?}",
        times[4], times[8]
    );
    // What else runs on the machine may slow down some of them.
    assert!(times[0] <= LIMIT, "{times:?}");
    agent.end().await;
}
