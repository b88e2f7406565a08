//! Who may ask the engine: the agent by way of a filter; or the registrar alone, which may do nothing else.

use std::{
    fs,
    net::TcpListener,
    process::{Child, Command, Stdio},
};

use lb_testkit::{Docker, eventually};
use serde_json::{Value, json};

use crate::{
    agent::{Agent, registered, service},
    filter::{ALLOWED, Filter},
    support::{BOUND, Consul},
};

/// A Consul that the engine's host reaches by the socket that is answered, too.
async fn consul(docker: &Docker) -> (Consul, String) {
    let socket = docker.folder().join("consul.sock");
    let http = format!("127.0.0.1 unix://{}", socket.display());
    let consul = Consul::start_with(|_| json!({"addresses": {"http": http}})).await;
    (consul, format!("unix://{}", socket.display()))
}

fn run(docker: &Docker, name: &str, words: &[&str]) {
    let start = ["run", "-d", "--stop-signal", "KILL", "--name", name];
    let all = start.iter().chain(words).chain(&["web"]);
    tokio::task::block_in_place(|| docker.docker(all)).unwrap();
}

/// Where the service leads to, once `host:id` is its only instance and usable.
fn until_usable(agent: &mut Agent, docker: &Docker, id: &str) -> String {
    agent.until(docker, |report| {
        let shop = service(report, "www_shop")?;
        let [backend] = &shop["backends"].as_array()?[..] else {
            return None;
        };
        let is_usable = backend["state"] == "usable" && backend["id"] == id;
        Some(shop["vip"].as_str().filter(|_| is_usable)?.to_owned())
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn the_agent_needs_no_more_of_the_engine_than_is_said() {
    let docker = crate::world::engine();
    let (consul, at) = consul(&docker).await;
    let listener = docker.netns().enter(|| TcpListener::bind("127.0.0.1:0"));
    let filter = Filter::start(listener.unwrap().unwrap(), docker.socket());
    let mut agent = Agent::start(&docker, &at, &format!("tcp://{}", filter.address));
    run(&docker, "one", &["-l", "SERVICE_NAME=www_shop"]);
    let vip = until_usable(&mut agent, &docker, "lb-test:one:80");
    let url = format!("http://{vip}/");
    assert_eq!(agent.fetch(&docker, &url), "hello");
    agent.until(&docker, |report| {
        let lines = report["components"].as_array()?.iter();
        let said = |name: &str| lines.clone().find(|it| it["name"] == name);
        let (clients, engine) = (said("clients")?, said("docker")?);
        let all = clients["detail"] == "1 container is known" && engine["detail"] == "1 container";
        all.then_some(())
    });
    for order in [
        "network create lb-other",
        "network connect lb-other one",
        "network disconnect lb-other one",
        "pause one",
        "unpause one",
        "stop one",
    ] {
        tokio::task::block_in_place(|| docker.docker(order.split(' '))).unwrap();
    }
    registered(&consul, <[String]>::is_empty).await;
    let asked = filter.asked();
    assert!(asked.iter().eq(ALLOWED.iter()), "{asked:#?}");
}

/// The command in a process that may do nothing. It is ended with its test.
struct Registrar(Child);

impl Registrar {
    /// By way of `setpriv`, which is told this.
    fn start(docker: &Docker, consul: &Consul, filter: &Filter, rights: &[&str]) -> Self {
        let log = fs::File::create(docker.folder().join("register.log")).unwrap();
        let child = Command::new("setpriv")
            .args(rights)
            .arg(env!("CARGO_BIN_EXE_lb-agent"))
            .args(["register", "--internal", "--explicit", "--host=lb-test"])
            .arg(format!("--docker=tcp://{}", filter.address))
            .arg(format!("consul://{}", consul.address()))
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn();
        Self(child.unwrap())
    }

    /// It holds no capability but these bits of them, and gets no other.
    #[track_caller]
    fn assert_holds(&self, bits: u64) {
        let read = || fs::read_to_string(format!("/proc/{}/status", self.0.id())).unwrap();
        let given_up = eventually(BOUND, || {
            let status = read();
            let is = |set: &str, bits: u64| status.contains(&format!("{set}:\t{bits:016x}\n"));
            let held = ["CapPrm", "CapEff", "CapBnd"]
                .iter()
                .all(|set| is(set, bits));
            let others = ["CapInh", "CapAmb"].iter().all(|set| is(set, 0));
            match held && others && status.contains("NoNewPrivs:\t1\n") {
                true => Ok(()),
                false => Err(status),
            }
        });
        given_up.unwrap();
    }
}

impl Drop for Registrar {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registrar_apart_needs_no_capability_and_the_agent_beside_it_no_engine() {
    let docker = crate::world::engine();
    let (consul, at) = consul(&docker).await;
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let filter = Filter::start(listener, docker.socket());
    let nothing = ["--bounding-set=-all", "--inh-caps=-all"];
    let registrar = Registrar::start(&docker, &consul, &filter, &nothing);
    let mut agent = Agent::start_without_engine(&docker, &at);
    // Explicitly: a port that says nothing is left out.
    run(&docker, "silent", &[]);
    run(&docker, "one", &["-l", "SERVICE_80_NAME=www_shop"]);
    let vip = until_usable(&mut agent, &docker, "lb-test:one:80");
    registrar.assert_holds(0);
    let url = format!("http://{vip}/");
    assert_eq!(agent.fetch(&docker, &url), "hello");
    let lines: Vec<Value> = agent.until(&docker, |report| report["components"].as_array().cloned());
    let of_engine = ["docker", "clients", "registrar"];
    let told = lines
        .iter()
        .filter(|it| of_engine.iter().any(|name| it["name"] == *name));
    assert_eq!(told.count(), 0, "{lines:#?}");

    tokio::task::block_in_place(|| docker.docker(["kill", "one"])).unwrap();
    registered(&consul, <[String]>::is_empty).await;
    agent.until(&docker, |report| {
        service(report, "www_shop").is_none().then_some(())
    });
    let asked = filter.asked();
    let outside = asked.iter().find(|it| !ALLOWED.contains(&it.as_str()));
    assert_eq!(outside, None, "{asked:#?}");

    drop(registrar);
    let registrar = Registrar::start(&docker, &consul, &filter, &[]);
    // CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH.
    registrar.assert_holds(0b110);
}
