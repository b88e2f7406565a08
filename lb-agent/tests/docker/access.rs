//! Which containers a service lets in, and what is told of each that tries.

use std::{
    io::{BufRead as _, BufReader},
    process::{Command, Stdio},
};

use lb_testkit::{Docker, eventually};
use serde_json::Value;

use crate::{
    agent::{Agent, curl},
    kit::LIMIT,
    views::{address, client, networked, server, until_refused, until_seen},
};

/// An engine with the services `closed`, which keeps out the network `lb-far`, and `open`, which lets in that one alone,
/// both published; and a client on each of two networks.
fn guarded() -> (Docker, Agent, [String; 2]) {
    let docker = networked();
    let deny = ["-p", "8081:80", "-l", "SERVICE_LB_DENY=network:lb-far"];
    server(&docker, "closed", "lb-near", &deny);
    let allow = ["-p", "8082:80", "-l", "SERVICE_LB_ALLOW=network:lb-far"];
    server(&docker, "open", "lb-near", &allow);
    client(&docker, "near", "lb-near");
    client(&docker, "far", "lb-far");
    let mut agent = Agent::start_for_all(&docker);
    let vips = ["closed", "open"].map(|it| agent.until_usable(&docker, it, &[it]));
    (docker, agent, vips)
}

#[test]
fn a_container_is_let_in_by_its_networks_for_as_long_as_it_is_on_them() {
    let (docker, agent, [closed, open]) = guarded();
    let near = address(&docker, "near", "lb-near");
    until_seen(&docker, &agent, "near", &closed, &near);
    until_refused(&docker, &agent, "near", &open);
    until_refused(&docker, &agent, "far", &closed);
    // The host is on no network of Docker's.
    curl(
        &docker,
        Some(&agent.clients),
        &format!("http://{closed}/cgi-bin/peer"),
    )
    .unwrap();
    curl(&docker, Some(&agent.clients), &format!("http://{open}/")).unwrap_err();

    let network = |what: &str| {
        docker.docker(["network", what, "lb-far", "near"]).unwrap();
    };
    network("connect");
    // Where it lets in and keeps out, keeping out wins.
    until_refused(&docker, &agent, "near", &closed);
    until_seen(&docker, &agent, "near", &open, &near);
    network("disconnect");
    until_seen(&docker, &agent, "near", &closed, &near);
    until_refused(&docker, &agent, "near", &open);
}

#[test]
fn what_becomes_of_a_container_that_connects_is_told_with_its_name() {
    let (docker, agent, [closed, _]) = guarded();
    let near = address(&docker, "near", "lb-near");
    until_seen(&docker, &agent, "near", &closed, &near);
    until_refused(&docker, &agent, "far", &closed);
    let mut trace = Command::new(env!("CARGO_BIN_EXE_lb-agent"))
        .arg("--socket")
        .arg(docker.folder().join("admin.sock"))
        .args(["trace", "closed", "--count", "2"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(trace.stdout.take().unwrap()).lines();
    assert!(lines.next().unwrap().unwrap().starts_with("TIME "));
    let connect = |client: &str| {
        let ask = format!("/bin/busybox nc -w 5 {closed} 80 </dev/null");
        docker.docker(["exec", client, "/bin/sh", "-c", &ask])
    };
    connect("near").unwrap();
    connect("far").unwrap_err();
    let [granted, refused] = [(); 2].map(|()| lines.next().unwrap().unwrap());
    let server = address(&docker, "closed", "lb-near");
    for (line, words) in [
        (&granted, [" near ", &format!(" at {server}:80")]),
        (&refused, [" far ", " refused: denied"]),
    ] {
        assert!(line.contains(&format!(" {closed}:80 ")), "{line}");
        assert!(
            line.contains(" busybox ") || line.contains(" nc "),
            "{line}"
        );
        for word in words {
            assert!(line.contains(word), "{word} is not in {line}");
        }
    }
    assert!(trace.wait().unwrap().success());
    // As it is foretold.
    let url = "http://127.0.0.1:9180/api/v1/explain?client=far&service=closed";
    let told = eventually(LIMIT, || curl(&docker, None, url)).unwrap();
    let told: Value = serde_json::from_str(&told).unwrap();
    assert_eq!(told["ways"][0]["refused"], "denied", "{told}");
}
