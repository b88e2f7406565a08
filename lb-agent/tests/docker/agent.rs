//! The whole agent on the engine's host: a flow through a VIP ends in a container.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io,
    net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket},
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use lb_testkit::{Cgroup, Docker, Process, Spawn, eventually, http};
use nix::sched::{CloneFlags, setns};
use serde_json::Value;

use crate::kit::{LIMIT, engine, start};

/// The agent, and a cgroup of clients on the host. Dropped before the engine whose host it is on.
pub(crate) struct Agent {
    process: Process,
    pub(crate) clients: Cgroup,
    _own: Cgroup,
    log: PathBuf,
}

impl Agent {
    /// One whose hooks see the clients on the host alone.
    fn start(docker: &Docker) -> Self {
        let clients = docker.cgroup().subgroup("clients").unwrap();
        let hooked = clients.path().to_owned();
        Self::start_on(docker, clients, &hooked, "")
    }

    /// The same with a packet path.
    fn start_with_packets(docker: &Docker) -> Self {
        let clients = docker.cgroup().subgroup("clients").unwrap();
        let hooked = clients.path().to_owned();
        Self::start_on(docker, clients, &hooked, "[packet]\n")
    }

    /// One whose hooks see the engine's containers too.
    pub(crate) fn start_for_all(docker: &Docker) -> Self {
        let clients = docker.cgroup().subgroup("clients").unwrap();
        Self::start_on(docker, clients, docker.cgroup().path(), "")
    }

    fn start_on(docker: &Docker, clients: Cgroup, hooked: &Path, more: &str) -> Self {
        let folder = docker.folder();
        docker.prepare_for_agent("bpf").unwrap();
        let own = docker.cgroup().subgroup("agent").unwrap();
        let (place, cgroup) = (folder.display(), hooked.display());
        let config = format!(
            "state_dir = \"{place}/state\"\nbpffs = \"{place}/bpf\"\ncgroup = \"{cgroup}\"\n\
             socket = \"{place}/admin.sock\"\n\
             [sources.docker]\nsocket = \"unix://{}\"\n\
             [front]\nlisten = [\"127.0.0.1:8000\"]\n\
             [dns]\nupstreams = []\n\
             [health]\ninterval = \"200ms\"\ntimeout = \"200ms\"\n{more}",
            docker.socket().display()
        );
        let file = folder.join("lb.toml");
        fs::write(&file, config).unwrap();
        let process = Spawn::new("agent", env!("CARGO_BIN_EXE_lb-agent"))
            .args(["run", "--config"])
            .arg(&file)
            .hide("LB_")
            .hide("DOCKER_")
            .hide("CONSUL_")
            .netns(docker.netns())
            .cgroup(&own)
            .log(folder)
            .start()
            .unwrap();
        Self {
            process,
            clients,
            _own: own,
            log: folder.join("agent.log"),
        }
    }

    /// The VIP of the service, once these instances of it are usable, and no others.
    pub(crate) fn until_usable(
        &mut self,
        docker: &Docker,
        service: &str,
        instances: &[&str],
    ) -> String {
        let expected: BTreeSet<String> = instances.iter().map(|it| (*it).to_owned()).collect();
        let found = eventually(LIMIT, || {
            assert!(self.process.is_running(), "{}", read(&self.log));
            let url = "http://127.0.0.1:9180/api/v1/snapshot";
            let report = curl(docker, None, url).map_err(|error| error.to_string())?;
            let report: Value = serde_json::from_str(&report).map_err(|it| it.to_string())?;
            let services = report["services"].as_array().into_iter().flatten();
            let found = services.into_iter().find(|it| it["name"] == service);
            let found = found.ok_or_else(|| format!("no {service} in {report}"))?;
            let usable: BTreeSet<String> = found["backends"]
                .as_array()
                .into_iter()
                .flatten()
                .filter(|it| it["state"] == "usable")
                .filter_map(|it| it["id"].as_str()?.split(':').nth(1).map(str::to_owned))
                .collect();
            let vip = found["vip"].as_str();
            match vip.filter(|_| usable == expected) {
                Some(vip) => Ok(vip.to_owned()),
                None => Err(format!("{usable:?} of {found}")),
            }
        });
        found.unwrap_or_else(|late| panic!("{late}\n{}", read(&self.log)))
    }
}

impl Agent {
    /// What the agent has said so far.
    pub(crate) fn said(&self) -> String {
        read(&self.log)
    }
}

fn read(log: &Path) -> String {
    fs::read_to_string(log).unwrap_or_default()
}

/// Asks from the engine's host, as one of `clients`.
pub(crate) fn curl(
    docker: &Docker,
    clients: Option<&Cgroup>,
    url: &str,
) -> lb_testkit::Result<String> {
    let curl = Spawn::new("curl", "curl")
        .args([
            "--silent",
            "--show-error",
            "--fail",
            "--max-time",
            "5",
            "--noproxy",
            "*",
            url,
        ])
        .netns(docker.netns());
    match clients {
        None => curl.output(),
        Some(clients) => curl.cgroup(clients).output(),
    }
}

#[test]
fn a_flow_through_a_vip_ends_in_a_container_and_never_in_one_that_ended() {
    let docker = engine();
    start(&docker, "one", &["-l", "SERVICE_NAME=shop"]);
    let mut agent = Agent::start(&docker);
    let vip = agent.until_usable(&docker, "shop", &["one"]);
    let url = format!("http://{vip}/");
    assert_eq!(curl(&docker, Some(&agent.clients), &url).unwrap(), "hello");

    start(&docker, "two", &["-l", "SERVICE_NAME=shop"]);
    agent.until_usable(&docker, "shop", &["one", "two"]);
    docker.docker(["kill", "one"]).unwrap();
    agent.until_usable(&docker, "shop", &["two"]);
    for _ in 0..20 {
        assert_eq!(curl(&docker, Some(&agent.clients), &url).unwrap(), "hello");
    }
    docker.docker(["pause", "two"]).unwrap();
    agent.until_usable(&docker, "shop", &[]);
    let refused = curl(&docker, Some(&agent.clients), &url).unwrap_err();
    assert!(refused.to_string().contains("connect"), "{refused}");
    docker.docker(["unpause", "two"]).unwrap();
    agent.until_usable(&docker, "shop", &["two"]);
    assert_eq!(curl(&docker, Some(&agent.clients), &url).unwrap(), "hello");
}

#[test]
fn the_packets_of_a_container_with_the_label_are_balanced_and_those_of_others_are_not() {
    let docker = engine();
    start(&docker, "one", &["-l", "SERVICE_NAME=shop"]);
    start(&docker, "guest", &["-l", "lb.client=packet"]);
    start(&docker, "other", &[]);
    let mut agent = Agent::start_with_packets(&docker);
    let vip = agent.until_usable(&docker, "shop", &["one"]);
    let to = SocketAddr::new(vip.parse().unwrap(), 80);
    let ask = |name: &str| {
        let answer = inside(&docker, name, move || {
            let stream = TcpStream::connect_timeout(&to, Duration::from_secs(2))?;
            stream.set_read_timeout(Some(LIMIT))?;
            http::ask(stream, "GET", "/", "")?.text()
        });
        answer.map_err(|error: io::Error| error.to_string())
    };
    let hello = eventually(LIMIT, || ask("guest"));
    let hello = hello.unwrap_or_else(|late| panic!("{late}\n{}", agent.said()));
    assert!(hello.trim_end().ends_with("hello"), "{hello}");
    // No hook sees either of them.
    ask("other").unwrap_err();
    // It is served by its label alone, as long as it runs.
    let status = |holds: fn(usize) -> bool| {
        let devices = eventually(LIMIT, || {
            let answer = curl(&docker, None, "http://127.0.0.1:9180/api/v1/snapshot");
            let report: Value = serde_json::from_str(&answer.map_err(|it| it.to_string())?)
                .map_err(|it| it.to_string())?;
            let devices = report["packet"]["devices"].as_array().map_or(0, Vec::len);
            match holds(devices) {
                true => Ok(()),
                false => Err(report["packet"].to_string()),
            }
        });
        devices.unwrap_or_else(|late| panic!("{late}\n{}", agent.said()));
    };
    status(|devices| devices == 1);
    docker.docker(["kill", "guest"]).unwrap();
    status(|devices| devices == 0);
}

/// What `job` answers in the network of the container `name`.
fn inside<T: Send + 'static>(
    docker: &Docker,
    name: &str,
    job: impl FnOnce() -> T + Send + 'static,
) -> T {
    let pid = docker.docker(["inspect", "--format", "{{.State.Pid}}", name]);
    let namespace = File::open(format!("/proc/{}/ns/net", pid.unwrap().trim())).unwrap();
    let inside = move || {
        setns(namespace, CloneFlags::CLONE_NEWNET).unwrap();
        job()
    };
    // What is opened stays in the namespace, the thread ends.
    thread::spawn(inside).join().unwrap()
}

/// A socket at the UDP port `port` in the network of the container `name`.
pub(crate) fn bind_in(docker: &Docker, name: &str, port: u16) -> UdpSocket {
    inside(docker, name, move || {
        UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)).unwrap()
    })
}

#[test]
fn one_vip_leads_to_the_udp_port_and_the_tcp_port_of_a_container() {
    let docker = engine();
    let both = ["-l", "SERVICE_80_NAME=shop", "--expose", "80/udp"];
    start(&docker, "one", &both);
    let server = bind_in(&docker, "one", 80);
    let mut agent = Agent::start(&docker);
    let vip = agent.until_usable(&docker, "shop", &["one"]);
    // The UDP instance is not probed, so the TCP one may be usable later.
    let hello = eventually(LIMIT, || {
        curl(&docker, Some(&agent.clients), &format!("http://{vip}/")).map_err(|it| it.to_string())
    });
    assert_eq!(hello.unwrap(), "hello");

    server.set_read_timeout(Some(LIMIT)).unwrap();
    let answering = thread::spawn(move || {
        let mut buffer = [0; 16];
        let (length, client) = server.recv_from(&mut buffer).unwrap();
        server.send_to(b"datagram\n", client).unwrap();
        buffer[..length].to_vec()
    });
    // `read` of bash would take the first byte and lose the rest of the datagram.
    let take = "timeout 20 dd bs=64 count=1 <&3 2>/dev/null";
    let ask = format!("exec 3<>/dev/udp/{vip}/80; echo asked >&3; {take}");
    let told = Spawn::new("udp", "bash")
        .args(["-c", &ask])
        .netns(docker.netns())
        .cgroup(&agent.clients)
        .output();
    assert_eq!(told.unwrap(), "datagram");
    assert_eq!(answering.join().unwrap(), b"asked\n");
}

#[test]
fn the_agent_tells_its_clients_and_knows_the_host() {
    let docker = engine();
    start(&docker, "one", &[]);
    start(&docker, "host", &["--net", "host"]);
    // In the namespace of the host, by way of another container.
    let beside = "run -d --name beside --net container:host web /bin/busybox sleep 1000";
    docker.docker(beside.split(' ')).unwrap();
    let mut agent = Agent::start(&docker);
    let told = eventually(LIMIT, || {
        assert!(agent.process.is_running(), "{}", read(&agent.log));
        let answer = curl(&docker, None, "http://127.0.0.1:9180/api/v1/clients");
        let answer = answer.map_err(|error| error.to_string())?;
        let all: Value = serde_json::from_str(&answer).map_err(|it| it.to_string())?;
        let names: Vec<_> = all.as_array().into_iter().flatten().collect();
        let names: Vec<_> = names.iter().map(|it| &it["name"]).collect();
        match *names == ["one"] {
            true => Ok(()),
            false => Err(answer),
        }
    });
    told.unwrap_or_else(|late| panic!("{late}\n{}", read(&agent.log)));
    let status = curl(&docker, None, "http://127.0.0.1:9180/api/v1/snapshot").unwrap();
    let status: Value = serde_json::from_str(&status).unwrap();
    let lines = status["components"].as_array().unwrap();
    let line = lines.iter().find(|it| it["name"] == "clients").unwrap();
    assert_eq!(line["detail"], "1 container is known", "{status}");
}

#[test]
fn what_a_container_would_get_is_explained() {
    let docker = engine();
    start(&docker, "one", &["-l", "SERVICE_NAME=shop"]);
    docker.docker(["network", "create", "lb-away"]).unwrap();
    start(&docker, "near", &["-l", "SERVICE_IGNORE=1"]);
    start(
        &docker,
        "far",
        &["-l", "SERVICE_IGNORE=1", "--net", "lb-away"],
    );
    let mut agent = Agent::start(&docker);
    agent.until_usable(&docker, "shop", &["one"]);
    let explain = |client: &str| {
        let path = format!("/api/v1/explain?client={client}&service=shop");
        let url = format!("http://127.0.0.1:9180{path}");
        // Until the agent knows the client.
        let answer = eventually(LIMIT, || curl(&docker, None, &url));
        let answer = answer.unwrap_or_else(|late| panic!("{late}\n{}", read(&agent.log)));
        serde_json::from_str::<Value>(&answer).unwrap()
    };
    for client in ["host", "near"] {
        let told = explain(client);
        assert_eq!(told["ways"][0]["choices"], 1, "{told}");
        assert_eq!(told["backends"][0]["by"], "container", "{told}");
        assert_eq!(told["backends"][0]["verdict"], "given", "{told}");
    }
    // Docker keeps its networks apart, and nothing is published.
    let told = explain("far");
    assert_eq!(
        told["client"]["standing"]["networks"][0], "lb-away",
        "{told}"
    );
    assert_eq!(told["view"], 1, "{told}");
    assert_eq!(told["ways"][0]["refused"], "no-path", "{told}");
    assert_eq!(told["backends"][0]["verdict"], "no-path", "{told}");
}

#[test]
fn a_container_finds_services_by_short_names() {
    let docker = engine();
    start(&docker, "one", &["-l", "SERVICE_NAME=www_hello"]);
    let mut agent = Agent::start(&docker);
    let vip = agent.until_usable(&docker, "www_hello", &["one"]);
    let search = ["--dns", "198.18.0.1", "--dns-search", "localdomain"];
    let ignored = ["-l", "SERVICE_IGNORE=1"];
    start(&docker, "client", &[search.as_slice(), &ignored].concat());
    for (name, answer) in [
        ("www.hello", vip.as_str()),
        ("www_hello", &vip),
        ("www.hello.virtual.consul", &vip),
        // The front, and not the container itself.
        ("www.hello.127.0.0.1.xip.io", "198.18.0.1"),
        (&vip, "www_hello"),
    ] {
        let ask = ["exec", "client", "/bin/busybox", "nslookup", name];
        let said = docker.docker(ask).unwrap();
        // What comes first is who was asked.
        let (_, found) = said.split_once("\n\n").unwrap_or_default();
        assert!(found.contains(answer), "{name}: {said}");
    }
}
