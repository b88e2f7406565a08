//! The time between a container's stop signal and its end: no new flow, in Consul as in the agent, and those that are
//! there live on.

use std::fs;

use lb_testkit::{Docker, Spawn, eventually};
use serde_json::json;
use tokio::runtime::Handle;

use crate::{
    agent::{Agent, curl, registered, service},
    support::{BOUND, Consul},
    world::{World, engine},
};

/// Serves on after its stop signal, until there is a file `/end`.
const LIVES_ON: &str = "trap : TERM; /bin/busybox rm -f /end; /bin/busybox httpd -f -p 80 -h /www & \
                        until [ -e /end ]; do /bin/busybox sleep 0.1; done";

/// Runs `docker stop`. `meanwhile` happens before it is over, and must end the container.
fn stop(docker: &Docker, name: &str, meanwhile: impl Future<Output = ()>) {
    let handle = Handle::current();
    tokio::task::block_in_place(|| {
        std::thread::scope(|scope| {
            let stopping = scope.spawn(|| docker.docker(["stop", "-t", "60", name]));
            handle.block_on(meanwhile);
            stopping.join().unwrap().unwrap();
        });
    });
}

/// Lets a container that [`LIVES_ON`] end.
fn end(docker: &Docker, name: &str) {
    let touch = ["exec", name, "/bin/busybox", "touch", "/end"];
    docker.docker(touch).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn consul_hears_of_the_stop_and_no_registration_undoes_it_until_the_end() {
    let mut world = World::new().await;
    world.register(&["-internal", "--resync=500ms"]);
    let docker = &world.docker;
    let run = [
        "run", "-d", "--name", "one", "web", "/bin/sh", "-c", LIVES_ON,
    ];
    docker.docker(run).unwrap();
    world.until(&["web h:one:80"]).await;
    let maintenance = "_service_maintenance:h:one:80";
    stop(docker, "one", async {
        world.until_check(maintenance, Some("critical")).await;
        let fetch = [
            "exec",
            "one",
            "/bin/busybox",
            "wget",
            "-q",
            "-O",
            "-",
            "http://127.0.0.1/",
        ];
        assert_eq!(docker.docker(fetch).unwrap(), "hello", "it serves on");

        // The next look at Consul, with something to do.
        world.run("two", &[]);
        world.until(&["web h:one:80", "web h:two:80"]).await;
        world.until_check(maintenance, Some("critical")).await;

        // Consul forgets a maintenance when the service is registered again, whoever does that.
        let begun = || world.log().matches("maintenance begins").count();
        assert_eq!(begun(), 1, "{}", world.log());
        let held = &world.read("agent/services").await["h:one:80"];
        let again = json!({
            "ID": "h:one:80", "Name": held["Service"], "Address": held["Address"], "Port": held["Port"],
            "Meta": held["Meta"]
        });
        let path = "agent/service/register?replace-existing-checks=true";
        world.consul.put(path, again).await;
        let drained_again = || match begun() {
            2 => Ok(()),
            other => Err(format!("{other} times\n{}", world.log())),
        };
        tokio::task::block_in_place(|| eventually(BOUND, drained_again).unwrap());
        world.until_check(maintenance, Some("critical")).await;
        world.until(&["web h:one:80", "web h:two:80"]).await;
        end(docker, "one");
    });
    world.until(&["web h:two:80"]).await;
    world.until_check(maintenance, None).await;
    docker.docker(["start", "one"]).unwrap();
    world.until(&["web h:one:80", "web h:two:80"]).await;
    world.until_check(maintenance, None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registrar_that_starts_while_a_container_ends_undoes_nothing() {
    let mut world = World::new().await;
    world.register(&["-internal"]);
    world.run("one", &[]);
    world.until(&["web h:one:80"]).await;
    // As process 1 it is deaf to that.
    world.docker(&["kill", "-s", "TERM", "one"]);
    let maintenance = "_service_maintenance:h:one:80";
    world.until_check(maintenance, Some("critical")).await;
    world.register(&["-internal"]);
    world.run("two", &[]);
    world.until(&["web h:one:80", "web h:two:80"]).await;
    world.until_check(maintenance, Some("critical")).await;
    assert!(!world.log().contains("maintenance ends"), "{}", world.log());
    world.docker(&["kill", "one"]);
    world.until(&["web h:two:80"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flow_lives_through_the_drain_and_new_ones_are_refused() {
    let docker = engine();
    let socket = docker.folder().join("consul.sock");
    let http = format!("127.0.0.1 unix://{}", socket.display());
    let consul = Consul::start_with(|_| json!({"addresses": {"http": http}})).await;
    let at = format!("unix://{}", docker.socket().display());
    let mut agent = Agent::start(&docker, &format!("unix://{}", socket.display()), &at);
    let name = ["run", "-d", "--name", "one", "-l", "SERVICE_NAME=shop"];
    let run = [&name[..], &["web", "/bin/sh", "-c", LIVES_ON]].concat();
    docker.docker(run).unwrap();
    let vip = agent.until(&docker, |report| {
        let shop = service(report, "shop")?;
        let is_usable = shop["backends"][0]["state"] == "usable";
        Some(shop["vip"].as_str().filter(|_| is_usable)?.to_owned())
    });

    let ask = docker.folder().join("ask");
    let script = format!(
        "exec 3<>/dev/tcp/{vip}/80; echo open; until [ -e {} ]; do sleep 0.1; done; \
         printf 'GET / HTTP/1.0\\r\\n\\r\\n' >&3; cat <&3",
        ask.display()
    );
    let bash = Spawn::new("flow", "bash").args(["-c", &script]);
    let bash = bash.netns(docker.netns()).cgroup(&agent.clients);
    let mut flow = bash.log(docker.folder()).start().unwrap();
    let log = flow.log().unwrap().to_owned();
    let said = |word: &str| match fs::read_to_string(&log) {
        Ok(said) if said.contains(word) => Ok(()),
        said => Err(format!("{said:?}")),
    };
    eventually(BOUND, || said("open")).unwrap();

    stop(&docker, "one", async {
        let drains = |report: &serde_json::Value| {
            let backend = &service(report, "shop")?["backends"][0];
            let both = backend["state"] == "leaving" && backend["source"]["state"] == "maintenance";
            both.then(|| backend["active"].clone())
        };
        assert_eq!(agent.until(&docker, drains), 1, "the one flow");
        let url = format!("http://{vip}/");
        let refused = curl(&docker, Some(&agent.clients), &url).unwrap_err();
        assert!(refused.to_string().contains("connect"), "{refused}");
        fs::write(&ask, "").unwrap();
        eventually(BOUND, || said("hello")).unwrap();
        assert!(flow.wait(BOUND).unwrap().success());
        end(&docker, "one");
    });
    registered(&consul, <[String]>::is_empty).await;
    agent.until(&docker, |report| {
        service(report, "shop").is_none().then_some(())
    });
}
