//! The place: a Docker Engine of the demo's own with our images in it, and Compose.

use std::{
    collections::BTreeMap,
    fs,
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
    path::PathBuf,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use lb_testkit::{Cgroup, Docker, Spawn};
use serde_json::Value;

use super::super::{
    Stop,
    curl::{Answer, Place},
    report::Report,
};
use crate::{
    image::{self, Build, Image},
    packages, setup, tools, workspace,
};

/// Everything that the demo made. Fields are dropped in this order.
pub(super) struct Stack {
    /// Of processes on the engine's host: the hooks see their connects.
    clients: Cgroup,
    docker: Docker,
    compose: PathBuf,
    images: Vec<Image>,
    stop: Stop,
}

impl Stack {
    /// Builds the images, starts the engine and gives it to them.
    pub(super) fn start(how: Build, stop: Stop) -> Result<Self> {
        setup::programs()?;
        let compose = packages::compose(&tools())?;
        let images = image::build(how, true)?;
        eprintln!("demo: starting a Docker Engine and loading the images");
        let docker = Docker::start(&packages::docker(&tools())?)?;
        for image in &images {
            let load = ["load".as_ref(), "--input".as_ref(), image.file.as_os_str()];
            docker.docker(load)?;
        }
        let [(pins, _), (run, _)] = FOLDERS;
        docker.prepare_for_agent(pins)?;
        fs::create_dir(docker.folder().join(run)).with_context(|| format!("cannot make {run}"))?;
        Ok(Self {
            clients: docker.cgroup().subgroup("clients")?,
            docker,
            compose,
            images,
            stop,
        })
    }

    pub(super) fn docker(&self) -> &Docker {
        &self.docker
    }

    pub(super) fn images(&self) -> &[Image] {
        &self.images
    }

    /// `docker compose <words>` in the folder compose/. Answers what it printed.
    pub(super) fn compose(&self, words: &str) -> Result<String> {
        let mut files = Vec::new();
        let mut rest = Vec::new();
        let mut words = words.split(' ').peekable();
        while let Some(word) = words.next() {
            match (word, words.peek()) {
                ("-f", Some(file)) => {
                    files.push(compose_folder().join(file));
                    words.next();
                }
                _ => rest.push(word),
            }
        }
        if files.is_empty() {
            files.push(compose_folder().join("docker-compose.yml"));
        }
        let mut compose = self.environment(self.docker.client("docker compose", &self.compose));
        for file in files {
            compose = compose.arg("--file").arg(file);
        }
        Ok(compose.args(rest).output()?)
    }

    /// What a real host has in its usual places is the demo's own here.
    fn environment<'a>(&self, mut spawn: Spawn<'a>) -> Spawn<'a> {
        for prefix in ["LB_", "COMPOSE_", "CONSUL_", "AGENT_", "HELLO_"] {
            spawn = spawn.hide(prefix);
        }
        for (folder, variable) in FOLDERS {
            spawn = spawn.env(variable, self.docker.folder().join(folder));
        }
        spawn
            .env("LB_CGROUP", self.docker.cgroup().path())
            .env("DOCKER_SOCKET", self.docker.socket())
            .env("HOST_IP", HOST_IP)
            .env("DOMAIN", "localhost")
            .env("FRONT", "127.0.0.1:80")
    }

    /// A process on the engine's host that no hook sees.
    pub(super) fn on_host(&self) -> Place<'_> {
        Place {
            netns: Some(self.docker.netns()),
            cgroup: None,
        }
    }

    /// A client on the engine's host.
    pub(super) fn client(&self) -> Place<'_> {
        Place {
            netns: Some(self.docker.netns()),
            cgroup: Some(&self.clients),
        }
    }

    /// Asks the front on the engine's host for a page that must be there.
    pub(super) fn front(&self, host: &str, path: &str) -> Result<Answer> {
        self.on_host().get(&format!("http://{host}{path}"))
    }

    /// What the agent knows.
    pub(super) fn report(&self) -> Result<Report> {
        let url = "http://127.0.0.1:9180/api/v1/snapshot";
        Report::parse(&self.on_host().get(url)?.body)
    }

    /// What Consul answers.
    pub(super) fn consul(&self, path: &str) -> Result<Value> {
        let body = self
            .on_host()
            .get(&format!("http://127.0.0.1:8500{path}"))?
            .body;
        serde_json::from_str(&body).with_context(|| format!("Consul answers {path} with {body}"))
    }

    /// The containers of a project, by name, each with the id that it calls itself.
    pub(super) fn containers(&self, project: &str) -> Result<BTreeMap<String, String>> {
        let filter = format!("label=com.docker.compose.project={project}");
        let list = ["ps", "--filter", &filter, "--format", "{{.Names}} {{.ID}}"];
        let said = self.docker.docker(list)?;
        let pairs = said.lines().filter_map(|line| line.split_once(' '));
        Ok(pairs
            .map(|(name, id)| (name.to_owned(), id.to_owned()))
            .collect())
    }

    /// Starts one more instance of the application beside those of docker-compose.yml, with `arguments` for its program.
    pub(super) fn start_instance(&self, name: &str, arguments: &[&str]) -> Result<()> {
        let run = "run --detach --network hello_default --stop-timeout 40 --label SERVICE_80_NAME=www_hello \
                   --label SERVICE_80_CHECK_HTTP=/ --label SERVICE_80_CHECK_INTERVAL=2s \
                   --label SERVICE_80_LB_EXPOSE=true --name";
        let words = run.split(' ').chain([name, image::HELLO]);
        self.docker.docker(words.chain(arguments.iter().copied()))?;
        Ok(())
    }

    /// Asks the engine for something, without the time that its command takes to start.
    pub(super) fn ask_engine(&self, path: &str) -> Result<Ended> {
        let mut stream =
            UnixStream::connect(self.docker.socket()).context("cannot connect to the engine")?;
        write!(
            stream,
            "POST {path} HTTP/1.1\r\nHost: docker\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
        )
        .context("cannot ask the engine")?;
        Ok(Ended(stream))
    }

    /// Ends the engine as an operator does, and starts it again.
    pub(super) fn restart_engine(&mut self) -> Result<()> {
        self.docker.stop()?;
        self.docker.run()?;
        Ok(())
    }

    /// The process of the container `name`.
    pub(super) fn process(&self, name: &str) -> Result<u32> {
        let said = self
            .docker
            .docker(["inspect", "--format", "{{.State.Pid}}", name])?;
        said.parse()
            .with_context(|| format!("{name} has no process: {said}"))
    }

    /// Asks `probe` until it has a value, the time is over, or somebody asks the demo to end.
    pub(super) fn until<T>(&self, probe: impl FnMut() -> Result<T>) -> Result<T> {
        self.stop.or_until(PATIENCE, probe)
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.stop.is_asked()
    }

    /// Prints what the containers of the base stack said, for whoever looks for the cause of a failure.
    pub(super) fn show_logs(&self) {
        let said = self.compose("-f consul.yml --ansi never logs --tail 12 --no-color");
        eprintln!("demo: the base stack said:\n{}", said.unwrap_or_default());
    }

    /// Ends the engine and looks whether all of it is gone.
    pub(super) fn end(self) -> Result<()> {
        let (group, folder) = (
            self.docker.cgroup().path().to_owned(),
            self.docker.folder().to_owned(),
        );
        drop(self);
        for left in [group, folder] {
            ensure!(!left.exists(), "{} is still there", left.display());
        }
        Ok(())
    }
}

/// What the engine was asked for.
pub(super) struct Ended(UnixStream);

impl Ended {
    /// Waits until it is done.
    pub(super) fn wait(mut self) -> Result<()> {
        let mut said = String::new();
        self.0
            .read_to_string(&mut said)
            .context("the engine breaks off")?;
        ensure!(said.starts_with("HTTP/1.1 204"), "the engine says: {said}");
        Ok(())
    }
}

/// Where the compose files are.
fn compose_folder() -> PathBuf {
    workspace().join("compose")
}

/// Folders of the demo in the place of the host's, and the variables that name them.
const FOLDERS: [(&str, &str); 2] = [("pins", "LB_PINS"), ("run", "LB_RUN")];

/// Where the demo's pins are.
pub(super) fn pins(docker: &Docker) -> PathBuf {
    docker.folder().join(FOLDERS[0].0)
}

/// The bridge of the engine: all containers and the host itself reach it.
const HOST_IP: &str = "172.31.0.1";

/// Engines, Consul's first check and a busy machine take seconds each; what needs all of this has failed.
const PATIENCE: Duration = Duration::from_secs(40);
