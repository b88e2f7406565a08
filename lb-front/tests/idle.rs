//! What connections cost on which nothing happens, in a process of its own.
#![expect(
    clippy::unwrap_used,
    reason = "a test's tools may fail as loudly as the test itself"
)]

#[expect(dead_code, unused_imports, reason = "the other tests use the rest")]
#[path = "front/kit/mod.rs"]
mod kit;

use std::{
    io::{BufRead as _, BufReader, Read as _},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use kit::{Backend, Client, GET, TestFront};
use lb_front::Limits;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// The agent's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const CONNECTIONS: usize = 10_000;
/// Resident bytes for each.
const BOUND: usize = 8 * 1024;
/// For the process of the clients: one alone may not have so many descriptors.
const ADDRESS: &str = "LB_TEST_FRONT";

#[test]
fn ten_thousand_idle_connections_cost_little_and_serve_on() {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
    if let Ok(address) = std::env::var(ADDRESS) {
        return be_clients(&address);
    }
    let backend = Backend::named("a");
    let limits = Limits {
        first_byte: Duration::from_secs(600),
        keep_alive: Duration::from_secs(600),
        client_connections: 2 * CONNECTIONS,
        connections_per_client: 2 * CONNECTIONS,
        ..Limits::default()
    };
    let front = TestFront::limited(limits, &[&backend]);
    // The pool, the threads and the tables take their memory.
    assert_eq!(front.ask(GET).body, "a");
    let before = resident();
    let mut clients = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "ten_thousand_idle_connections_cost_little_and_serve_on",
            "--nocapture",
        ])
        .env(ADDRESS, front.address.to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let said = BufReader::new(clients.stdout.take().unwrap());
    let mut said = said.lines().map(Result::unwrap);
    assert!(said.any(|line| line.ends_with("all are open")));
    assert_eq!(front.stats().open, CONNECTIONS as u64);
    let deadline = Instant::now() + Duration::from_secs(60);
    let each = loop {
        let each = resident().saturating_sub(before) / CONNECTIONS;
        if each <= BOUND {
            break each;
        }
        assert!(Instant::now() < deadline, "{each} bytes for each");
        std::thread::sleep(Duration::from_millis(50));
    };
    println!("{each} bytes for each idle connection");
    drop(clients.stdin.take());
    assert!(said.any(|line| line.ends_with("all are good")));
    assert!(clients.wait().unwrap().success());
}

/// Opens the connections, and asks again on some once the input ends.
fn be_clients(address: &str) {
    let address = address.parse().unwrap();
    let mut clients: Vec<Client> = Vec::new();
    for number in 0..CONNECTIONS {
        let mut client = Client::connect(address);
        // Some have not asked for anything yet.
        if number % 10 > 0 {
            assert_eq!(client.send(GET).answer().body, "a");
        }
        clients.push(client);
    }
    println!("all are open");
    std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
    for client in clients.iter_mut().step_by(95) {
        assert_eq!(client.send(GET).answer().body, "a");
    }
    println!("all are good");
}

fn resident() -> usize {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: usize = pages.split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4096
}
