//! A swarm of one node: a stack on an overlay network, and a service that publishes at its host.

use std::{collections::BTreeSet, fs};

use lb_testkit::{Docker, eventually};

use crate::{
    agent::{Agent, curl},
    kit::LIMIT,
    views::{client, networked, until_refused},
};

/// Nobody but the network itself reaches it there, and so no probe of the agent does. Without `dnsrr` swarm wants a table of
/// its own in the kernel, which need not be there (`CONFIG_IP_VS`).
const STACK: &str = r#"
version: "3.8"
services:
  shop:
    image: web
    networks: [over]
    stop_signal: KILL
    labels: { SERVICE_NAME: shop, SERVICE_LB_CHECK: "off" }
    deploy: { replicas: 2, endpoint_mode: dnsrr }
networks:
  over: { name: lb-over, driver: overlay, attachable: true }
"#;

/// The names of the containers of a service of the swarm, once there are so many.
fn tasks(docker: &Docker, service: &str, count: usize) -> BTreeSet<String> {
    let filter = format!("label=com.docker.swarm.service.name={service}");
    let found = eventually(LIMIT, || {
        let names = docker.docker(["ps", "--filter", &filter, "--format", "{{.Names}}"]);
        let names: BTreeSet<_> = names.unwrap().lines().map(str::to_owned).collect();
        match names.len() == count {
            true => Ok(names),
            false => Err(format!("{names:?}")),
        }
    });
    found.unwrap()
}

fn until_usable(
    docker: &Docker,
    agent: &mut Agent,
    service: &str,
    tasks: &BTreeSet<String>,
) -> String {
    let tasks: Vec<&str> = tasks.iter().map(String::as_str).collect();
    agent.until_usable(docker, service, &tasks)
}

/// What the container `client` is answered at the VIP.
#[track_caller]
fn until_answered(docker: &Docker, agent: &Agent, client: &str, vip: &str) {
    let ask = format!("printf 'GET / HTTP/1.0\\r\\n\\r\\n' | /bin/busybox nc -w 5 {vip} 80");
    let found = eventually(LIMIT, || {
        let said = docker.docker(["exec", client, "/bin/sh", "-c", &ask]);
        match said.map_err(|error| error.to_string())? {
            said if said.ends_with("hello") => Ok(()),
            said => Err(said),
        }
    });
    found.unwrap_or_else(|late| panic!("{late}\n{}", agent.said()));
}

#[test]
fn a_stack_is_balanced_on_its_overlay_network_and_a_published_service_everywhere() {
    let docker = networked();
    let init = ["swarm", "init", "--advertise-addr", "172.31.0.1"];
    docker.docker(init).unwrap();
    let file = docker.folder().join("stack.yml");
    // By its id it is used as it is here; by a name the engine would first look for a newer one elsewhere.
    let image = docker.docker(["image", "inspect", "--format", "{{.Id}}", "web"]);
    let image = image.unwrap();
    fs::write(
        &file,
        STACK.replace("image: web", &format!("image: {image}")),
    )
    .unwrap();
    let file = file.display().to_string();
    let deploy = [
        "stack",
        "deploy",
        "--resolve-image",
        "never",
        "-c",
        &file,
        "lb",
    ];
    docker.docker(deploy).unwrap();
    let edge = "service create --detach --no-resolve-image --name edge --stop-signal KILL \
                --container-label SERVICE_NAME=edge --publish mode=host,target=80,published=8081";
    let edge = edge.split_whitespace().chain([image.as_str()]);
    docker.docker(edge).unwrap();
    let (shops, edges) = (tasks(&docker, "lb_shop", 2), tasks(&docker, "edge", 1));
    client(&docker, "near", "lb-over");
    client(&docker, "far", "lb-far");

    let mut agent = Agent::start_for_all(&docker);
    let shop = until_usable(&docker, &mut agent, "shop", &shops);
    until_answered(&docker, &agent, "near", &shop);
    until_refused(&docker, &agent, "far", &shop);
    docker
        .docker(["service", "scale", "--detach", "lb_shop=3"])
        .unwrap();
    let shops = tasks(&docker, "lb_shop", 3);
    assert_eq!(until_usable(&docker, &mut agent, "shop", &shops), shop);
    until_answered(&docker, &agent, "near", &shop);

    let edge = until_usable(&docker, &mut agent, "edge", &edges);
    let url = format!("http://{edge}/");
    assert_eq!(curl(&docker, Some(&agent.clients), &url).unwrap(), "hello");
    for name in ["near", "far"] {
        until_answered(&docker, &agent, name, &edge);
    }

    docker.docker(["service", "rm", "lb_shop"]).unwrap();
    tasks(&docker, "lb_shop", 0);
    until_refused(&docker, &agent, "near", &shop);
}
