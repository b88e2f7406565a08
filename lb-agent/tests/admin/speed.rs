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

/// An agent with a thousand services more than usual, of three backends each.
async fn with_a_thousand() -> Agent {
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
    agent
}

/// Gets the metrics as curl does, which unpacks what it asked for packed; what came, the bytes on the wire, and the time.
fn scrape(url: &str, packed: bool) -> (String, usize, Duration) {
    let mut curl = Command::new("curl");
    curl.args(["--silent", "--show-error", "--fail"]).args([
        "--write-out",
        "\n%{size_download} %{time_total}",
        url,
    ]);
    if packed {
        curl.arg("--compressed");
    }
    let done = curl.stderr(Stdio::inherit()).output().unwrap();
    assert!(done.status.success(), "{done:?}");
    let text = String::from_utf8(done.stdout).unwrap();
    let (body, told) = text.rsplit_once('\n').unwrap();
    let (bytes, seconds) = told.split_once(' ').unwrap();
    let took = Duration::from_secs_f64(seconds.parse().unwrap());
    (body.to_owned(), bytes.parse().unwrap(), took)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_scrape_of_a_thousand_services_is_packed_to_a_tenth_and_quick() {
    let agent = with_a_thousand().await;
    let url = format!("http://{}/metrics", agent.address);
    let scraped = tokio::task::spawn_blocking(move || {
        let all = [false, true].map(|packed| {
            let mut all: Vec<_> = (0..9).map(|_| scrape(&url, packed)).collect();
            all.sort_by_key(|(.., took)| *took);
            all
        });
        let [plain, packed] = &all;
        for (what, all) in [("plain", plain), ("packed", packed)] {
            let (times, bytes) = ([all[0].2, all[4].2, all[8].2], all[0].1);
            println!("1002 services, {what}: {bytes} bytes, best, median, worst {times:?}");
        }
        all
    });
    let [plain, packed] = scraped.await.unwrap();
    let series = |text: &str| {
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let names = lines.filter_map(|line| line.rsplit_once(' '));
        names.map(|(name, _)| name.to_owned()).collect::<Vec<_>>()
    };
    assert!(series(&plain[0].0).len() > 10_000);
    assert_eq!(series(&plain[0].0), series(&packed[0].0));
    assert!(packed[0].1 * 10 < plain[0].1, "{}", packed[0].1);
    // What else runs on the machine may slow down some of them.
    assert!(packed[0].2 <= 4 * LIMIT, "{:?}", packed[0].2);
    agent.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_status_of_a_thousand_services_is_there_at_once() {
    let agent = with_a_thousand().await;
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
