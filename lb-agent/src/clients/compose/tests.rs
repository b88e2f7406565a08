use std::sync::Arc;

use nix::errno::Errno;

use super::*;
use crate::docker::{Endpoint, Network};

/// The host's cookie here.
const HOST: u64 = 1;

/// A running container on these networks, with the address 10.0.0.`last` in each.
fn container(id: &str, network: NetworkMode, networks: &[&str], last: u8) -> Container {
    let endpoint = Endpoint {
        ipv4: Some([10, 0, 0, last].into()),
        ipv6: None,
    };
    let networks = networks.iter().map(|&name| (name.to_owned(), endpoint));
    Container {
        id: id.to_owned(),
        name: format!("name-{id}"),
        image: String::new(),
        created: 0,
        environment: Vec::new(),
        labels: BTreeMap::new(),
        exposed: BTreeSet::new(),
        published: Vec::new(),
        network,
        networks: networks.collect(),
        state: State::Running,
        process: Some(Process { pid: 7, started: 7 }),
        health: None,
        runtime: String::new(),
    }
}

fn own(id: &str, networks: &[&str], last: u8) -> Container {
    container(id, NetworkMode::Networks, networks, last)
}

fn of(id: &str, owner: &str) -> Container {
    container(id, NetworkMode::Container(owner.to_owned()), &[], 0)
}

/// The clients with `inner` as the only internal network.
fn known(all: &[Container], cookies: &[(&str, u64)]) -> Clients {
    let containers = all.iter().map(|it| (it.id.clone(), Arc::new(it.clone())));
    let networks = [("front", false), ("back", false), ("inner", true)];
    let networks = networks.map(|(name, internal)| (name.to_owned(), Network { internal }));
    let cookies = cookies.iter().map(|&(id, cookie)| (id.to_owned(), cookie));
    clients(
        &containers.collect(),
        &networks.into(),
        &cookies.collect(),
        HOST,
    )
}

/// Cookie, owner, networks, and whether they lead outside.
fn lines(clients: &Clients) -> Vec<(u64, &str, String, bool)> {
    let all = clients.by_cookie.iter();
    all.map(|(&cookie, it)| {
        let networks = it.networks.iter().map(String::as_str).collect::<Vec<_>>();
        (
            cookie,
            it.container.as_str(),
            networks.join(" "),
            it.outside,
        )
    })
    .collect()
}

fn line(cookie: u64, id: &str, networks: &str, outside: bool) -> (u64, String, String, bool) {
    (cookie, id.to_owned(), networks.to_owned(), outside)
}

#[track_caller]
fn check(all: &[Container], cookies: &[(&str, u64)], expected: &[(u64, String, String, bool)]) {
    let clients = known(all, cookies);
    let found: Vec<_> = lines(&clients)
        .into_iter()
        .map(|(cookie, id, networks, outside)| line(cookie, id, &networks, outside))
        .collect();
    assert_eq!(found, expected);
}

#[test]
fn a_client_has_the_networks_of_its_container() {
    let all = [
        own("a", &["front"], 2),
        own("b", &["front", "inner"], 3),
        own("c", &["inner"], 4),
        // The engine has made this network, and has not told us yet.
        own("d", &["new"], 5),
        own("e", &[], 6),
        container("f", NetworkMode::None, &[], 7),
    ];
    let cookies = [
        ("a", 11),
        ("b", 12),
        ("c", 13),
        ("d", 14),
        ("e", 15),
        ("f", 16),
    ];
    check(
        &all,
        &cookies,
        &[
            line(11, "a", "front", true),
            line(12, "b", "front inner", true),
            line(13, "c", "inner", false),
            line(14, "d", "new", true),
            line(15, "e", "", false),
            line(16, "f", "", false),
        ],
    );
    let clients = known(&all, &cookies);
    let addresses = &clients.by_cookie[&12].addresses;
    assert!(addresses.iter().eq(&[IpAddr::from([10, 0, 0, 3])]));
    assert_eq!(clients.by_cookie[&12].name, "name-b");
}

#[test]
fn who_is_on_the_host_or_has_ended_is_no_client() {
    let mut ended = own("ended", &["front"], 2);
    ended.state = State::Exited(0);
    let mut ending = own("ending", &["front"], 3);
    ending.state = State::Ending;
    let mut paused = own("paused", &["front"], 4);
    paused.state = State::Paused;
    let all = [
        ended,
        ending,
        paused,
        container("host", NetworkMode::Host, &[], 0),
        of("beside", "host"),
        // Its cookie was not found.
        own("unknown", &["front"], 5),
    ];
    let cookies = [
        ("ended", 11),
        ("ending", 12),
        ("paused", 13),
        ("beside", HOST),
    ];
    check(
        &all,
        &cookies,
        &[
            line(12, "ending", "front", true),
            line(13, "paused", "front", true),
        ],
    );
    assert_eq!(process(&all[3]), None);
}

#[test]
fn a_namespace_that_is_shared_is_its_owners() {
    // The order of the ids does not matter.
    for (sharer, owner) in [("a", "b"), ("b", "a")] {
        let all = [of(sharer, owner), own(owner, &["front"], 2)];
        let shared = [line(11, owner, "front", true)];
        check(&all, &[(sharer, 11), (owner, 11)], &shared);
        // The owner's process could not be looked at; nobody else can have made that namespace.
        let through = [line(11, sharer, "front", true)];
        check(&all, &[(sharer, 11)], &through);
    }
}

#[test]
fn a_namespace_whose_owner_has_left_leads_nowhere() {
    let mut ended = own("owner", &["front"], 2);
    ended.state = State::Exited(0);
    let alone = [line(11, "sharer", "", false)];
    check(&[of("sharer", "owner"), ended], &[("sharer", 11)], &alone);
    check(&[of("sharer", "owner")], &[("sharer", 11)], &alone);
    // It was started again, and the engine made a new one for it.
    let again = [
        line(11, "sharer", "", false),
        line(12, "owner", "front", true),
    ];
    let all = [of("sharer", "owner"), own("owner", &["front"], 2)];
    check(&all, &[("sharer", 11), ("owner", 12)], &again);
}

#[test]
fn each_reason_is_told_once_with_its_remedy() {
    let faults = [
        ("web", Fault::NotThere),
        ("db", Fault::Denied(Errno::EPERM)),
        ("api", Fault::NotThere),
    ];
    let told: Vec<String> = problems(faults, Path::new("/proc"))
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(
        told,
        [
            "clients: the container web (and 1 more) has no process in /proc; run the agent in the host's process namespace (pid: host), or mount the host's /proc and name it in [sources.docker] proc; \
             until then its connections are taken for the host's",
            "clients: the network namespace of the container db may not be entered (Operation not permitted); give the \
             agent SYS_ADMIN and SYS_PTRACE; until then its connections are taken for the host's",
        ]
    );
    assert!(problems([], Path::new("/proc")).is_empty());
}
