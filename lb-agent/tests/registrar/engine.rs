//! `lb-agent register` between a real Docker Engine and a real Consul.

use std::{
    collections::BTreeSet,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

use crate::support::{BOUND, Consul, MASTER};
use lb_testkit::{Docker, eventually};
use serde_json::Value;

/// An engine of this test's own, with the image `web`.
pub(crate) fn engine() -> Docker {
    let packages = std::env::var_os("LB_DOCKER").map_or_else(
        || {
            panic!(
                "these tests need a Docker Engine: run `cargo xtask test`, which fetches one, \
                 or set LB_DOCKER to the folder of its packages"
            )
        },
        PathBuf::from,
    );
    let docker = Docker::start(&packages).unwrap();
    docker.busybox("web").unwrap();
    docker
}

/// An engine, a Consul, and the command between them. The command is ended with its test.
pub(crate) struct World {
    register: Option<Child>,
    pub(crate) consul: Consul,
    pub(crate) docker: Docker,
    http: reqwest::Client,
}

impl World {
    pub(crate) async fn new() -> Self {
        Self {
            register: None,
            consul: Consul::start_guarded().await,
            docker: engine(),
            http: reqwest::Client::builder().no_proxy().build().unwrap(),
        }
    }

    fn command(&self, flags: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_lb-agent"));
        command
            .arg("register")
            .args(flags)
            .arg("--host=h")
            .arg("--docker")
            .arg(self.docker.socket())
            .arg(format!("consul://{}", self.consul.address()))
            .env("CONSUL_HTTP_TOKEN", MASTER)
            .env("NO_COLOR", "1")
            .stdin(Stdio::null());
        command
    }

    pub(crate) fn register(&mut self, flags: &[&str]) {
        self.end();
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(self.docker.folder().join("register.log"))
            .unwrap();
        let mut command = self.command(flags);
        let child = command.stdout(log.try_clone().unwrap()).stderr(log).spawn();
        self.register = Some(child.unwrap());
    }

    fn end(&mut self) {
        if let Some(mut child) = self.register.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.docker.folder().join("register.log")).unwrap_or_default()
    }

    pub(crate) fn run(&self, name: &str, flags: &[&str]) {
        let fixed = ["run", "-d", "--stop-signal", "KILL", "--name", name];
        self.docker(&[&fixed, flags, &["web"]].concat());
    }

    pub(crate) fn docker(&self, arguments: &[&str]) -> String {
        tokio::task::block_in_place(|| self.docker.docker(arguments)).unwrap()
    }

    pub(crate) async fn read(&self, path: &str) -> Value {
        let url = format!("http://{}/v1/{path}", self.consul.address());
        let request = self.http.get(url).header("X-Consul-Token", MASTER);
        request.send().await.unwrap().json().await.unwrap()
    }

    /// What Consul holds, as `name address id`.
    async fn services(&self) -> BTreeSet<String> {
        let services = self.read("agent/services").await;
        let services = services.as_object().unwrap().iter();
        let line = |(id, it): (&String, &Value)| {
            let text = |key: &str| it[key].as_str().unwrap_or_default().to_owned();
            format!(
                "{} {}:{} {id}",
                text("Service"),
                text("Address"),
                it["Port"]
            )
        };
        services.map(line).collect()
    }

    /// Waits until Consul holds exactly services with these names and ids.
    pub(crate) async fn until(&self, expect: &[&str]) {
        let expect: BTreeSet<String> = expect.iter().map(|it| (*it).to_owned()).collect();
        self.until_all(&expect).await;
    }

    async fn until_all(&self, expect: &BTreeSet<String>) {
        let look = async || {
            let held = self.services().await;
            let plain = held.iter().map(|line| {
                let mut words = line.split(' ');
                let (name, id) = (words.next(), words.nth(1));
                format!("{} {}", name.unwrap(), id.unwrap())
            });
            match plain.collect::<BTreeSet<_>>() == *expect {
                true => Ok(()),
                false => Err(format!("{held:#?}, not {expect:#?}\n{}", self.log())),
            }
        };
        let handle = tokio::runtime::Handle::current();
        tokio::task::block_in_place(|| eventually(BOUND, || handle.block_on(look())).unwrap());
    }

    /// Waits until service `id` says `text` under `key` of its Meta: another one may have been registered first.
    async fn until_meta(&self, id: &str, key: &str, text: &str) {
        let look = async || {
            let services = self.read("agent/services").await;
            match services[id]["Meta"][key] == text {
                true => Ok(()),
                false => Err(format!("{services:#}")),
            }
        };
        let handle = tokio::runtime::Handle::current();
        tokio::task::block_in_place(|| eventually(BOUND, || handle.block_on(look())).unwrap());
    }

    /// Waits until the check `id` has this status.
    pub(crate) async fn until_check(&self, id: &str, status: Option<&str>) {
        let look = async || {
            let checks = self.read("agent/checks").await;
            let now = checks[id]["Status"].as_str();
            match now == status {
                true => Ok(()),
                false => Err(format!("{id}: {now:?}\n{}", self.log())),
            }
        };
        let handle = tokio::runtime::Handle::current();
        tokio::task::block_in_place(|| eventually(BOUND, || handle.block_on(look())).unwrap());
    }

    /// The same, with this in what the check printed.
    pub(crate) async fn until_output(&self, id: &str, status: &str, part: &str) {
        let look = async || {
            let check = &self.read("agent/checks").await[id];
            let output = check["Output"].as_str().unwrap_or_default();
            match check["Status"] == status && output.contains(part) {
                true => Ok(()),
                false => Err(format!("{check:#}\n{}", self.log())),
            }
        };
        let handle = tokio::runtime::Handle::current();
        tokio::task::block_in_place(|| eventually(BOUND, || handle.block_on(look())).unwrap());
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.end();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn consul_holds_exactly_what_runs_through_every_turn_of_a_containers_life() {
    let mut world = World::new().await;
    world.run("early", &["-e", "SERVICE_NAME=first"]);
    world.register(&["-internal"]);
    world.until(&["first h:early:80"]).await;

    world.run(
        "one",
        &["-l", "SERVICE_80_NAME=www_hello", "-e", "SERVICE_TAGS=a,b"],
    );
    world
        .until(&["first h:early:80", "www_hello h:one:80"])
        .await;
    let service = &world.read("agent/services").await["h:one:80"];
    let networks = service["Meta"]["lb-networks"].as_str().unwrap();
    let address = format!(
        "{}:{}",
        service["Address"].as_str().unwrap(),
        service["Port"]
    );
    assert_eq!(networks, format!("bridge={address}"));

    world.docker(&["rename", "one", "two"]);
    world
        .until(&["first h:early:80", "www_hello h:two:80"])
        .await;
    world.docker(&["pause", "two"]);
    world
        .until_check("_service_maintenance:h:two:80", Some("critical"))
        .await;
    world.docker(&["unpause", "two"]);
    world
        .until_check("_service_maintenance:h:two:80", None)
        .await;
    world.docker(&["restart", "two"]);
    world
        .until(&["first h:early:80", "www_hello h:two:80"])
        .await;
    world.docker(&["kill", "two"]);
    world.until(&["first h:early:80"]).await;
    world.docker(&["start", "two"]);
    world
        .until(&["first h:early:80", "www_hello h:two:80"])
        .await;
    world.docker(&["rm", "-f", "two"]);
    world.until(&["first h:early:80"]).await;

    // Dead within its first moment, many times over.
    for round in 0..5 {
        let name = format!("brief-{round}");
        world.docker(&["run", "--name", &name, "web", "/bin/busybox", "true"]);
    }
    world.run("last", &[]);
    world.until(&["first h:early:80", "web h:last:80"]).await;
    world.docker(&["stop", "last"]);
    world.until(&["first h:early:80"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_at_once_and_a_restart_of_each_part_lose_nothing() {
    let mut world = World::new().await;
    world.register(&["-internal"]);
    let names: Vec<String> = (0..8).map(|n| format!("c{n}")).collect();
    tokio::task::block_in_place(|| {
        std::thread::scope(|scope| {
            for name in &names {
                scope.spawn(|| world.run(name, &[]));
            }
        });
    });
    let all = |names: &[String]| names.iter().map(|it| format!("web h:{it}:80")).collect();
    world.until_all(&all(&names)).await;

    // While nobody looks, one goes and one comes.
    world.end();
    world.docker(&["kill", "c0"]);
    world.run("c8", &[]);
    world.register(&["-internal"]);
    let names: Vec<String> = (1..9).map(|n| format!("c{n}")).collect();
    world.until_all(&all(&names)).await;

    // The engine ends all containers with itself.
    tokio::task::block_in_place(|| {
        world.docker.stop().unwrap();
        world.docker.run().unwrap();
    });
    world.until(&[]).await;
    world.docker(&["start", "c1", "c2"]);
    world.until(&["web h:c1:80", "web h:c2:80"]).await;
    world.consul.wipe().await;
    world.until(&["web h:c1:80", "web h:c2:80"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn addresses_follow_networks_and_the_preview_says_the_same() {
    let mut world = World::new().await;
    world.docker(&["network", "create", "lb-other"]);
    world.register(&["-internal"]);
    world.run("one", &[]);
    world.until(&["web h:one:80"]).await;
    let before = world.services().await;
    // Which of two is meant is not known; it says so instead of guessing.
    world.docker(&["network", "connect", "lb-other", "one"]);
    world.until(&[]).await;
    world.docker(&["network", "disconnect", "bridge", "one"]);
    world.until(&["web h:one:80"]).await;
    assert_ne!(world.services().await, before);
    assert!(
        world
            .log()
            .contains("it is on several networks (bridge, lb-other)"),
        "{}",
        world.log()
    );

    world.run(
        "two",
        &["--network", "lb-other", "-l", "SERVICE_NETWORK=bridge"],
    );
    world.docker(&["network", "connect", "bridge", "two"]);
    world.until(&["web h:one:80", "web h:two:80"]).await;
    world.run("host", &["--network", "host", "-l", "SERVICE_NAME=hosted"]);
    // Port 80 of that network is taken.
    world.docker(&[
        "run",
        "-d",
        "--name",
        "shared",
        "--network",
        "container:one",
        "-l",
        "SERVICE_81_NAME=side",
        "-l",
        "SERVICE_80_IGNORE=1",
        "--stop-signal",
        "KILL",
        "web",
        "/bin/busybox",
        "sleep",
        "600",
    ]);
    world.run(
        "published",
        &["-p", "8080:80", "-l", "SERVICE_IP=192.0.2.9"],
    );
    let all = [
        "web h:one:80",
        "web h:two:80",
        "side h:shared:81",
        "web h:published:80",
    ];
    // The Consul agent belongs to another node, so its address is not this host's.
    world.until(&all).await;
    world.register(&["-internal", "-ip=192.0.2.1"]);
    world
        .until(&[&all[..], &["hosted h:host:80"]].concat())
        .await;
    world
        .until_meta("h:published:80", "lb-published", "192.0.2.1:8080")
        .await;
    let services = world.read("agent/services").await;
    assert_eq!(services["h:host:80"]["Address"], "192.0.2.1");
    assert_eq!(
        services["h:shared:81"]["Address"],
        services["h:one:80"]["Address"]
    );

    let output = world.command(&["-internal", "--dry-run"]).output().unwrap();
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).unwrap();
    for line in world.services().await {
        let words: Vec<_> = line.split(' ').collect();
        let [name, address, id] = words[..] else {
            panic!("{line}");
        };
        let expect = format!("  registers {name} at {address} as {id}\n");
        assert!(
            text.contains(&expect) || id == "h:host:80",
            "{expect}{text}"
        );
    }
    assert!(
        text.contains("leaves out: port 80/tcp: SERVICE_IGNORE is set"),
        "{text}"
    );
    let flags = ["-internal", "-ip=192.0.2.1", "--dry-run", "-o", "json"];
    let output = world.command(&flags).output().unwrap();
    assert!(output.status.success());
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["host"], "h");
    let previewed = json["containers"].as_array().unwrap().iter();
    let previewed = previewed.flat_map(|it| it["registers"].as_array().unwrap());
    let line = |it: &Value| {
        let text = |key: &str| it[key].as_str().unwrap().to_owned();
        format!(
            "{} {}:{} {}",
            text("Name"),
            text("Address"),
            it["Port"],
            text("ID")
        )
    };
    assert_eq!(
        previewed.map(line).collect::<BTreeSet<_>>(),
        world.services().await
    );
    // The Consul agent is that of another host.
    let problem = json["problems"][0]["message"].as_str().unwrap();
    assert!(problem.contains("belongs to node"), "{problem}");

    // Of published ports only those of the host are.
    world.register(&["-ip=192.0.2.1"]);
    world
        .until(&["web h:published:80", "hosted h:host:80"])
        .await;
    assert!(
        world
            .services()
            .await
            .contains("web 192.0.2.9:8080 h:published:80")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_is_away_ends_the_command_so_that_its_socket_is_mounted_anew() {
    let mut world = World::new().await;
    world.register(&["-internal", "--give-up=1s"]);
    world.run("one", &[]);
    world.until(&["web h:one:80"]).await;
    tokio::task::block_in_place(|| world.docker.kill().unwrap());
    let mut child = world.register.take().unwrap();
    let ended = || match child.try_wait() {
        Ok(Some(status)) => Ok(status.code()),
        other => Err(format!("{other:?}")),
    };
    let code = tokio::task::block_in_place(|| eventually(Duration::from_secs(30), ended).unwrap());
    assert_eq!(code, Some(1));
    assert!(
        world.log().contains("the Docker Engine has been away"),
        "{}",
        world.log()
    );
    // Unknown is not empty.
    assert_eq!(world.services().await.len(), 1);
}
