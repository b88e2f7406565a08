//! What a service looks like from where a container stands: real containers, real networks, real hooks.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, UdpSocket},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use lb_testkit::{Docker, eventually};
use serde_json::Value;

use crate::{
    agent::{Agent, bind_in, curl},
    kit::{LIMIT, engine, start},
};

/// What a server runs: a page that tells where the client came from.
const SERVER: &str = "/bin/busybox mkdir -p /www/cgi-bin && \
    echo '#!/bin/sh' > /www/cgi-bin/peer && echo 'echo; echo $REMOTE_ADDR' >> /www/cgi-bin/peer && \
    /bin/busybox chmod +x /www/cgi-bin/peer && exec /bin/busybox httpd -f -p 80 -h /www";

pub(crate) fn run(docker: &Docker, name: &str, arguments: &[&str], command: &[&str]) {
    let usual = ["run", "-d", "--stop-signal", "KILL", "--name", name];
    let all = usual.iter().chain(arguments).chain(&["web"]).chain(command);
    docker.docker(all).unwrap();
}

/// A server of the service of its own name on `network`.
pub(crate) fn server(docker: &Docker, name: &str, network: &str, more: &[&str]) {
    let label = format!("SERVICE_NAME={name}");
    let usual = ["--net", network, "-l", &label];
    run(
        docker,
        name,
        &[&usual, more].concat(),
        &["/bin/sh", "-c", SERVER],
    );
}

/// A container that is no service.
pub(crate) fn client(docker: &Docker, name: &str, network: &str) {
    let ignored = ["--net", network, "-l", "SERVICE_IGNORE=1"];
    run(docker, name, &ignored, &["/bin/busybox", "sleep", "1000"]);
}

/// The address of the container in the network.
pub(crate) fn address(docker: &Docker, name: &str, network: &str) -> String {
    let format = format!("{{{{(index .NetworkSettings.Networks \"{network}\").IPAddress}}}}");
    docker
        .docker(["inspect", "--format", &format, name])
        .unwrap()
}

/// Whom the server sees when the container asks by the VIP.
fn seen(docker: &Docker, client: &str, vip: &str) -> Result<String, String> {
    // Not wget: without the files of a C library it does not get as far as its connect.
    let ask =
        format!("printf 'GET /cgi-bin/peer HTTP/1.0\\r\\n\\r\\n' | /bin/busybox nc -w 5 {vip} 80");
    let said = docker.docker(["exec", client, "/bin/sh", "-c", &ask]);
    let said = said.map_err(|error| error.to_string())?;
    let last = said.lines().last().unwrap_or_default();
    // The server may listen for both families.
    let peer = last.trim_matches(['[', ']']).trim_start_matches("::ffff:");
    peer.parse::<Ipv4Addr>().map_err(|_| said.clone())?;
    Ok(peer.to_owned())
}

/// Waits until the container is seen as `peer`.
#[track_caller]
pub(crate) fn until_seen(docker: &Docker, agent: &Agent, client: &str, vip: &str, peer: &str) {
    let found = eventually(LIMIT, || match seen(docker, client, vip) {
        Ok(found) if found == peer => Ok(()),
        other => Err(format!("{client} is seen as {other:?} instead of {peer}")),
    });
    found.unwrap_or_else(|late| panic!("{late}\n{}", agent.said()));
}

/// Waits until the container is refused, and then is at once.
#[track_caller]
pub(crate) fn until_refused(docker: &Docker, agent: &Agent, client: &str, vip: &str) {
    let found = eventually(LIMIT, || match seen(docker, client, vip) {
        Err(error) if error.contains("Connection refused") => Ok(()),
        other => Err(format!("{client} gets {other:?} instead of a refusal")),
    });
    found.unwrap_or_else(|late| panic!("{late}\n{}", agent.said()));
    let start = Instant::now();
    let refused = seen(docker, client, vip).unwrap_err();
    // Much less than the time that an unanswered connect would take; starting a process in a container takes most of it.
    assert!(start.elapsed() < Duration::from_secs(4), "{refused}");
}

/// An engine with the networks `lb-near`, `lb-far` and, internal, `lb-inner`, whose host has an address for the others.
pub(crate) fn networked() -> Docker {
    let docker = engine();
    // Towards nobody: so the host has an address that it calls its own.
    let route = "route add default via 172.31.0.254 dev lb-docker0\n";
    docker.netns().ip(route).unwrap();
    for network in ["lb-near", "lb-far"] {
        docker.docker(["network", "create", network]).unwrap();
    }
    let inner = ["network", "create", "--internal", "lb-inner"];
    docker.docker(inner).unwrap();
    docker
}

#[test]
fn a_container_gets_the_address_that_it_reaches_from_where_it_stands() {
    let docker = networked();
    server(&docker, "published", "lb-near", &["-p", "8081:80"]);
    server(&docker, "hidden", "lb-near", &[]);
    server(&docker, "inner", "lb-inner", &[]);
    for (name, network) in [
        ("near", "lb-near"),
        ("far", "lb-far"),
        ("inside", "lb-inner"),
    ] {
        client(&docker, name, network);
    }
    let mut agent = Agent::start_for_all(&docker);
    let [published, hidden, inner] =
        ["published", "hidden", "inner"].map(|it| agent.until_usable(&docker, it, &[it]));

    // On the same network: the container's own address, and the source is real.
    let near = address(&docker, "near", "lb-near");
    until_seen(&docker, &agent, "near", &published, &near);
    until_seen(&docker, &agent, "near", &hidden, &near);
    let inside = address(&docker, "inside", "lb-inner");
    until_seen(&docker, &agent, "inside", &inner, &inside);
    // On another one: where the host publishes it, or not at all.
    let far = address(&docker, "far", "lb-far");
    let by_host = eventually(LIMIT, || seen(&docker, "far", &published)).unwrap();
    assert!(
        by_host != near && by_host != far,
        "it came past the host: {by_host}"
    );
    until_refused(&docker, &agent, "far", &hidden);
    until_refused(&docker, &agent, "near", &inner);
    // From an internal one nothing else is reached, published or not.
    until_refused(&docker, &agent, "inside", &published);
    until_refused(&docker, &agent, "inside", &hidden);
    // The host reaches them all.
    for vip in [&published, &hidden, &inner] {
        let url = format!("http://{vip}/cgi-bin/peer");
        curl(&docker, Some(&agent.clients), &url).unwrap();
    }
}

#[test]
fn a_container_that_joins_the_servers_network_reaches_it_and_no_more_when_it_leaves() {
    let docker = networked();
    server(&docker, "hidden", "lb-near", &[]);
    client(&docker, "client", "lb-far");
    let mut agent = Agent::start_for_all(&docker);
    let vip = agent.until_usable(&docker, "hidden", &["hidden"]);
    for _ in 0..2 {
        until_refused(&docker, &agent, "client", &vip);
        docker
            .docker(["network", "connect", "lb-near", "client"])
            .unwrap();
        let its = address(&docker, "client", "lb-near");
        until_seen(&docker, &agent, "client", &vip, &its);
        docker
            .docker(["network", "disconnect", "lb-near", "client"])
            .unwrap();
    }
    until_refused(&docker, &agent, "client", &vip);
}

#[test]
fn what_was_counted_at_an_address_stays_when_the_last_client_that_needed_it_has_gone() {
    let docker = networked();
    server(&docker, "both", "lb-far", &[]);
    let join = ["network", "connect", "lb-near", "both"];
    docker.docker(join).unwrap();
    client(&docker, "client", "lb-near");
    let mut agent = Agent::start_for_all(&docker);
    let vip = agent.until_usable(&docker, "both", &["both"]);
    let its = address(&docker, "client", "lb-near");
    until_seen(&docker, &agent, "client", &vip, &its);
    // How many backends the maps hold, and the handshakes of the service and of its instance.
    let figures = || {
        let url = "http://127.0.0.1:9180/api/v1/snapshot";
        let report = curl(&docker, None, url).map_err(|error| error.to_string())?;
        let report: Value = serde_json::from_str(&report).map_err(|error| error.to_string())?;
        let service = report["services"].as_array().into_iter().flatten();
        let service = service.into_iter().find(|it| it["name"] == "both");
        let service = service.ok_or("no service")?;
        let counts = [service, &service["backends"][0]].map(|it| it["connects"]["count"].as_u64());
        let held = report["data_plane"]["maps"]["BACKENDS"]["entries"].as_u64();
        Ok::<_, String>((held, counts))
    };
    let before = eventually(LIMIT, || match figures()? {
        (Some(held), [Some(all), Some(own)]) if all > 0 && own > 0 => Ok((held, [all, own])),
        other => Err(format!("{other:?}")),
    });
    let (held, counts) = before.unwrap_or_else(|late| panic!("{late}\n{}", agent.said()));
    docker.docker(["rm", "-f", "client"]).unwrap();
    let after = eventually(LIMIT, || match figures()? {
        (Some(left), after) if left < held => Ok(after),
        other => Err(format!("{other:?}")),
    });
    let after = after.unwrap_or_else(|late| panic!("{late}\n{}", agent.said()));
    for (before, after) in counts.into_iter().zip(after) {
        assert!(after >= Some(before), "{counts:?} became {after:?}");
    }
}

/// Sends the file `told` to whoever asks for it by TFTP, one after the other. Answers who did.
fn send_files(server: UdpSocket, clients: usize) -> JoinHandle<BTreeSet<IpAddr>> {
    server.set_read_timeout(Some(LIMIT)).unwrap();
    thread::spawn(move || {
        let mut seen = BTreeSet::new();
        while seen.len() < clients {
            let mut room = [0; 512];
            let (length, client) = server.recv_from(&mut room).unwrap();
            // Only a request to read begins a transfer; the rest are acknowledgements.
            if room[..length].starts_with(b"\0\x01told\0") {
                server.send_to(b"\0\x03\0\x01told\n", client).unwrap();
                seen.insert(client.ip());
            }
        }
        seen
    })
}

/// What the container is told by TFTP at the VIP. Its client never connects its socket.
fn told(docker: &Docker, client: &str, vip: &str) -> lb_testkit::Result<String> {
    let ask = format!("/bin/busybox tftp -g -r told -l /got {vip} && /bin/busybox cat /got");
    docker.docker(["exec", client, "/bin/sh", "-c", &ask])
}

#[test]
fn datagrams_of_a_container_go_where_it_reaches_the_server_or_nowhere() {
    let docker = networked();
    let file = ["-l", "SERVICE_69_NAME=files", "-l", "SERVICE_80_IGNORE=yes"];
    let usual = ["--net", "lb-near", "--expose", "69/udp"];
    start(&docker, "server", &[&file[..], &usual].concat());
    for network in ["near", "far"] {
        client(&docker, network, &format!("lb-{network}"));
    }
    let mut agent = Agent::start_for_all(&docker);
    let vip = agent.until_usable(&docker, "files", &["server"]);
    let sending = send_files(bind_in(&docker, "server", 69), 1);
    let near = eventually(LIMIT, || told(&docker, "near", &vip));
    let near = near.unwrap_or_else(|late| panic!("{late}\n{}", agent.said()));
    assert_eq!(near, "told");
    // By its own address, and from its own.
    let own = address(&docker, "near", "lb-near").parse().unwrap();
    assert_eq!(sending.join().unwrap(), BTreeSet::from([own]));
    let far = eventually(LIMIT, || match told(&docker, "far", &vip) {
        Err(error) if error.to_string().contains("Connection refused") => Ok(()),
        other => Err(format!("{other:?}")),
    });
    far.unwrap_or_else(|late| panic!("{late}\n{}", agent.said()));
}
