//! A real Docker Engine, a real Consul, and `lb-agent register` between them.

use std::{
    collections::BTreeSet,
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use lb_testkit::{Docker, eventually};
use serde_json::Value;

use crate::support::{BOUND, Consul, MASTER};

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
    pub(crate) register: Option<Child>,
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

    pub(crate) fn command(&self, flags: &[&str]) -> Command {
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

    pub(crate) fn end(&mut self) {
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
    pub(crate) async fn services(&self) -> BTreeSet<String> {
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

    pub(crate) async fn until_all(&self, expect: &BTreeSet<String>) {
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
        until_so(look);
    }

    /// Waits until service `id` says `text` under `key` of its Meta: another one may have been registered first.
    pub(crate) async fn until_meta(&self, id: &str, key: &str, text: &str) {
        let look = async || {
            let services = self.read("agent/services").await;
            match services[id]["Meta"][key] == text {
                true => Ok(()),
                false => Err(format!("{services:#}")),
            }
        };
        until_so(look);
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
        until_so(look);
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
        until_so(look);
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.end();
    }
}

/// Waits until `look` finds it so.
fn until_so(look: impl AsyncFn() -> Result<(), String>) {
    let handle = tokio::runtime::Handle::current();
    tokio::task::block_in_place(|| eventually(BOUND, || handle.block_on(look())).unwrap());
}
