//! The whole agent with its registrar, on the engine's host: from a container through Consul to its VIP.

use std::{fs, path::PathBuf};

use lb_testkit::{Cgroup, Docker, Process, Spawn, eventually};
use serde_json::{Value, json};

use crate::support::{BOUND, Consul};

/// The agent, and a cgroup of clients. Dropped before the engine whose host it is on.
pub(crate) struct Agent {
    process: Process,
    pub(crate) clients: Cgroup,
    _own: Cgroup,
    log: PathBuf,
}

impl Agent {
    /// One that registers containers, of an engine that is asked at `engine`.
    pub(crate) fn start(docker: &Docker, consul: &str, engine: &str) -> Self {
        let registrar = "[registrar]\nenabled = true\nhost = \"lb-test\"\ninternal = true\n";
        let more = format!("[sources.docker]\nsocket = \"{engine}\"\n{registrar}");
        Self::start_with(docker, consul, &more)
    }

    /// One that knows of no engine.
    pub(crate) fn start_without_engine(docker: &Docker, consul: &str) -> Self {
        Self::start_with(docker, consul, "[sources.docker]\nsocket = \"off\"\n")
    }

    fn start_with(docker: &Docker, consul: &str, more: &str) -> Self {
        let folder = docker.folder();
        docker.prepare_for_agent("bpf").unwrap();
        let clients = docker.cgroup().subgroup("clients").unwrap();
        let own = docker.cgroup().subgroup("agent").unwrap();
        let (place, cgroup) = (folder.display(), clients.path().display());
        let config = format!(
            "state_dir = \"{place}/state\"\nbpffs = \"{place}/bpf\"\ncgroup = \"{cgroup}\"\n\
             socket = \"{place}/admin.sock\"\n\
             [sources.consul]\naddress = \"{consul}\"\n\
             {more}\
             [front]\nlisten = [\"127.0.0.1:8000\"]\n\
             [dns]\nupstreams = []\n\
             [health]\ninterval = \"200ms\"\ntimeout = \"200ms\"\n"
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

    /// What `look` finds in the agent's API.
    pub(crate) fn until<T>(&mut self, docker: &Docker, look: impl Fn(&Value) -> Option<T>) -> T {
        let found = eventually(BOUND, || {
            assert!(self.process.is_running(), "{}", self.said());
            let url = "http://127.0.0.1:9180/api/v1/snapshot";
            let report = curl(docker, None, url).map_err(|error| error.to_string())?;
            let report: Value = serde_json::from_str(&report).map_err(|it| it.to_string())?;
            look(&report).ok_or_else(|| format!("{report:#}"))
        });
        found.unwrap_or_else(|late| panic!("{late}\n{}", self.said()))
    }

    /// What one of its clients is answered at `url`.
    #[track_caller]
    pub(crate) fn fetch(&self, docker: &Docker, url: &str) -> String {
        let answer = curl(docker, Some(&self.clients), url);
        answer.unwrap_or_else(|error| {
            // What refused it is among the figures.
            let report = curl(docker, None, "http://127.0.0.1:9180/api/v1/snapshot");
            panic!("{error}\n{report:?}\n{}", self.said())
        })
    }

    fn said(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

/// Asks from the engine's host, as one of `clients`.
pub(crate) fn curl(
    docker: &Docker,
    clients: Option<&Cgroup>,
    url: &str,
) -> lb_testkit::Result<String> {
    let quiet = ["--silent", "--show-error", "--fail", "--noproxy", "*"];
    let curl = Spawn::new("curl", "curl")
        .args(quiet)
        .args(["--max-time", "5", url])
        .netns(docker.netns());
    match clients {
        None => curl.output(),
        Some(clients) => curl.cgroup(clients).output(),
    }
}

/// The service of this name that the agent knows.
pub(crate) fn service<'r>(report: &'r Value, name: &str) -> Option<&'r Value> {
    let services = report["services"].as_array()?;
    services.iter().find(|it| it["name"] == name)
}

/// The names of the services that Consul's agent has, when they are as `expect` says.
pub(crate) async fn registered(consul: &Consul, expect: impl Fn(&[String]) -> bool) -> Vec<String> {
    let look = async || {
        let services = consul.get("agent/services").await;
        let services = services.as_object().unwrap().values();
        let names: Vec<_> = services
            .map(|it| it["Service"].as_str().unwrap().to_owned())
            .collect();
        match expect(&names) {
            true => Ok(names),
            false => Err(format!("{names:?}")),
        }
    };
    let handle = tokio::runtime::Handle::current();
    tokio::task::block_in_place(|| eventually(BOUND, || handle.block_on(look())).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_is_in_consul_and_at_its_vip_while_it_runs_and_nowhere_afterwards() {
    let docker = crate::world::engine();
    // The engine's host is a network of its own, which a socket leads into.
    let socket = docker.folder().join("consul.sock");
    let http = format!("127.0.0.1 unix://{}", socket.display());
    let consul = Consul::start_with(|_| json!({"addresses": {"http": http}})).await;
    let at = format!("unix://{}", docker.socket().display());
    let mut agent = Agent::start(&docker, &format!("unix://{}", socket.display()), &at);
    let run = |arguments: &[&str]| {
        let output = tokio::task::block_in_place(|| docker.docker(arguments));
        output.unwrap()
    };
    let words = [
        "-l",
        "SERVICE_NAME=www_shop",
        "-l",
        "SERVICE_LB_BALANCE=random",
    ];
    let start = ["run", "-d", "--stop-signal", "KILL", "--name", "one"];
    run(&[&start[..], &words, &["web"]].concat());
    registered(&consul, |names| names == ["www_shop"]).await;
    let held = &consul.get("agent/services").await["lb-test:one:80"];
    assert_eq!(held["Meta"]["lb-registrar"], "lb-test");
    assert_eq!(held["Meta"]["lb_balance"], "random");

    let vip = agent.until(&docker, |report| {
        let shop = service(report, "www_shop")?;
        let backend = &shop["backends"].as_array()?[..];
        let [backend] = backend else { return None };
        let is_usable = backend["state"] == "usable" && backend["id"] == "lb-test:one:80";
        Some(shop["vip"].as_str().filter(|_| is_usable)?.to_owned())
    });
    let url = format!("http://{vip}/");
    assert_eq!(agent.fetch(&docker, &url), "hello");
    let registrar = agent.until(&docker, |report| {
        let parts = report["components"].as_array()?.iter();
        let mut parts = parts.filter(|it| it["name"] == "registrar");
        Some(parts.next()?["detail"].as_str()?.to_owned())
    });
    assert_eq!(registrar, "services of lb-test in Consul: 1");
    let ask = |path: &str| -> Value {
        let told = curl(
            &docker,
            None,
            &format!("http://127.0.0.1:9180/api/v1/{path}"),
        );
        serde_json::from_str(&told.unwrap()).unwrap()
    };
    let told = ask("registrar");
    let [one] = &told["containers"].as_array().unwrap()[..] else {
        panic!("{told:#}")
    };
    assert_eq!(
        (&one["name"], &one["life"]),
        (&json!("one"), &json!("running"))
    );
    let shop = &one["registers"][0];
    assert_eq!(
        (&shop["service"], &shop["by"]),
        (&json!("www_shop"), &json!("network"))
    );
    let network = shop["network"].as_str().unwrap();
    assert_eq!(shop["address"], shop["networks"][network], "{told:#}");
    let settings = ask("configuration");
    let mut settings = settings["settings"].as_array().unwrap().iter();
    let host = settings.find(|it| it["key"] == "registrar.host").unwrap();
    assert_eq!(host["value"], "lb-test");
    assert!(
        host["origin"].as_str().unwrap().contains("lb.toml:"),
        "{host}"
    );

    run(&["stop", "one"]);
    registered(&consul, <[String]>::is_empty).await;
    agent.until(&docker, |report| {
        service(report, "www_shop").is_none().then_some(())
    });
    let refused = curl(&docker, Some(&agent.clients), &url).unwrap_err();
    assert!(refused.to_string().contains("connect"), "{refused}");
    // The same again: nothing of the first time is in its way.
    run(&["start", "one"]);
    registered(&consul, |names| names == ["www_shop"]).await;
    let again = agent.until(&docker, |report| {
        let shop = service(report, "www_shop")?;
        let is_usable = shop["backends"][0]["state"] == "usable";
        Some(shop["vip"].as_str().filter(|_| is_usable)?.to_owned())
    });
    assert_eq!(again, vip);
    assert_eq!(agent.fetch(&docker, &url), "hello");
}
