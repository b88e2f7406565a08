mod checks;
mod ids;
mod maintenance;

use std::sync::Arc;

use super::*;
use crate::{
    discover::consul::agent::{HeldCheck, TaggedAddress},
    docker::{Container, Endpoint, Health, NetworkMode, Port, Protocol, Published, State},
    registrar::{
        Addressing, CheckStatus, Settings,
        wish::{Deregister, wishes},
    },
};

fn container(id: &str, state: State) -> Container {
    let endpoint = Endpoint {
        ipv4: Some([172, 17, 0, 5].into()),
        ipv6: None,
    };
    let protocol = Protocol::Tcp;
    Container {
        id: id.to_owned(),
        name: id.to_owned(),
        image: "web".to_owned(),
        created: 1,
        environment: Vec::new(),
        labels: BTreeMap::new(),
        exposed: [Port {
            number: 80,
            protocol,
        }]
        .into(),
        published: vec![Published {
            port: Port {
                number: 80,
                protocol,
            },
            host_address: [0, 0, 0, 0].into(),
            host_port: 8080,
        }],
        network: NetworkMode::Networks,
        networks: BTreeMap::from([("bridge".to_owned(), endpoint)]),
        state,
        process: None,
        health: None,
        runtime: String::new(),
    }
}

fn wished_with(containers: Vec<Container>, deregister: Deregister) -> Wishes {
    wished_beside(&[], containers, deregister)
}

/// What is wished while nothing is known of the containers `unread`.
fn wished_beside(unread: &[&str], containers: Vec<Container>, deregister: Deregister) -> Wishes {
    let containers = containers
        .into_iter()
        .map(|it| (it.id.clone(), Arc::new(it)));
    let settings = Settings {
        addressing: Addressing::Internal,
        tagged: [("wan".to_owned(), [192, 0, 2, 9].into())].into(),
        ..Settings::new("h")
    };
    wishes(
        &containers.collect(),
        &unread.iter().map(|&id| id.to_owned()).collect(),
        &BTreeSet::new(),
        &settings,
        deregister,
    )
}

fn wished(containers: Vec<Container>) -> Wishes {
    wished_with(containers, Deregister::Always)
}

fn steps_with(wishes: &Wishes, held: &Held, memory: &Memory) -> Vec<Step> {
    let adopt = BTreeSet::new();
    let host = "h";
    let adopt = &adopt;
    plan(wishes, held, Ownership { host, adopt }, memory).0
}

fn steps(wishes: &Wishes, held: &Held) -> Vec<Step> {
    steps_with(wishes, held, &Memory::default())
}

/// What Consul holds once `steps` are carried out; as 1.8.7, it ends a maintenance at a registration.
fn carry_out(held: &mut Held, steps: &[Step]) {
    for step in steps {
        match step {
            Step::Register(it) => {
                let own = TaggedAddress {
                    address: it.address.ip().to_string(),
                    port: it.address.port().into(),
                };
                let asked = tagged(&it.tagged);
                let asked = asked.into_iter().map(|(tag, at)| (tag.to_owned(), at));
                let service = Service {
                    tagged_addresses: asked.chain([("lan_ipv4".to_owned(), own)]).collect(),
                    name: it.name.clone(),
                    address: it.address.ip().to_string(),
                    port: it.address.port().into(),
                    tags: it.tags.clone(),
                    meta: it.meta.clone(),
                    weights: weights(it),
                };
                held.services.insert(it.id.clone(), service);
                held.checks.retain(|_, check| check.service_id != it.id);
                for check in &it.checks {
                    let check_held = HeldCheck {
                        service_id: it.id.clone(),
                        status: "critical".to_owned(),
                        notes: String::new(),
                    };
                    held.checks.insert(check.id.clone(), check_held);
                }
            }
            Step::Maintain { id, reason } => {
                let check = HeldCheck {
                    service_id: id.clone(),
                    status: "critical".to_owned(),
                    notes: reason.clone(),
                };
                held.checks.entry(maintenance(id)).or_insert(check);
            }
            Step::Resume { id } => {
                held.checks.remove(&maintenance(id));
            }
            Step::Deregister { id } => {
                held.services.remove(id);
                held.checks.retain(|_, check| check.service_id != *id);
            }
            Step::Report { check, report } => {
                report
                    .status
                    .as_str()
                    .clone_into(&mut held.checks.get_mut(check).unwrap().status);
            }
        }
    }
}

fn maintenance(id: &str) -> String {
    format!("_service_maintenance:{id}")
}

fn held(wishes: &Wishes) -> Held {
    let mut held = Held::default();
    carry_out(&mut held, &steps(wishes, &Held::default()));
    held
}

fn maintain(reason: &str) -> Step {
    Step::Maintain {
        id: "h:a:80".to_owned(),
        reason: reason.to_owned(),
    }
}

#[test]
fn what_is_as_it_should_be_makes_no_step() {
    let wishes = wished(vec![
        container("a", State::Running),
        container("b", State::Paused),
    ]);
    assert_eq!(steps(&wishes, &held(&wishes)), []);
}

#[test]
fn every_difference_registers_again() {
    let wishes = wished(vec![container("a", State::Running)]);
    let good = held(&wishes);
    type Spoil = fn(&mut Service);
    let spoils: [Spoil; 8] = [
        |it| drop(it.tagged_addresses.remove("wan")),
        |it| {
            it.tagged_addresses
                .insert("old".to_owned(), TaggedAddress::default());
        },
        |it| it.name.push('x'),
        |it| it.address = "10.0.0.1".to_owned(),
        |it| it.port = 1,
        |it| it.tags.push("x".to_owned()),
        |it| it.weights.passing = 9,
        |it| {
            it.meta.insert(CHECKS.to_owned(), "other".to_owned());
        },
    ];
    for (number, spoil) in spoils.into_iter().enumerate() {
        let mut held = good.clone();
        spoil(held.services.get_mut("h:a:80").unwrap());
        let steps = steps(&wishes, &held);
        assert!(
            matches!(&steps[..], [Step::Register(_)]),
            "{number}: {steps:?}"
        );
    }
}

#[test]
fn an_ending_container_is_drained_first_never_registered_and_gone_at_its_end() {
    let mut held = held(&wished(vec![container("a", State::Running)]));
    let mut ending = container("a", State::Ending);
    ending
        .labels
        .insert("SERVICE_TAGS".to_owned(), "changed".to_owned());
    let wishes = wished(vec![ending, container("new", State::Running)]);
    let now = steps(&wishes, &held);
    assert_eq!(now[0], maintain("lb-agent: the container is ending"));
    assert!(matches!(&now[1], Step::Register(it) if it.id == "h:new:80"));
    assert_eq!(now.len(), 2);
    carry_out(&mut held, &now);
    assert_eq!(steps(&wishes, &held), []);
    assert_eq!(
        steps(
            &wished(vec![container("b", State::Ending)]),
            &Held::default()
        ),
        []
    );
    let wishes = wished(vec![
        container("a", State::Exited(0)),
        container("new", State::Running),
    ]);
    let id = "h:a:80".to_owned();
    assert_eq!(steps(&wishes, &held), [Step::Deregister { id }]);
}

#[test]
fn on_success_keeps_what_ended_badly() {
    let held = held(&wished(vec![container("a", State::Running)]));
    for (code, stays) in [
        (0, false),
        (1, true),
        (137, false),
        (143, false),
        (127, true),
    ] {
        let ended = vec![container("a", State::Exited(code))];
        let kept = steps(&wished_with(ended.clone(), Deregister::OnSuccess), &held);
        assert_eq!(kept.is_empty(), stays, "{code}");
        assert_eq!(steps(&wished(ended), &held).len(), 1, "{code}");
    }
    // Removed.
    assert_eq!(
        steps(&wished_with(Vec::new(), Deregister::OnSuccess), &held).len(),
        1
    );
}

#[test]
fn what_a_container_registered_stays_while_it_cannot_be_read() {
    let (one, mut sharer) = (
        container("a", State::Running),
        container("b", State::Running),
    );
    sharer.network = NetworkMode::Container("a".to_owned());
    let held = held(&wished(vec![one, sharer.clone()]));
    assert_eq!(held.services.len(), 2);
    // Where the other one is reached is known by the one whose network it shares.
    let beside = |unread: &[&str]| wished_beside(unread, vec![sharer.clone()], Deregister::Always);
    assert_eq!(steps(&beside(&["a"]), &held), []);
    assert_eq!(steps(&beside(&[]), &held).len(), 2);
}

#[test]
fn what_is_published_stays_while_nobody_says_where_this_host_is() {
    let mut everywhere = container("a", State::Running);
    everywhere.published[0].host_address = [0, 0, 0, 0].into();
    let wished_at = |host_address: Option<[u8; 4]>| {
        let settings = Settings {
            host_address: host_address.map(Into::into),
            ..Settings::new("h")
        };
        let all = [("a".to_owned(), Arc::new(everywhere.clone()))].into();
        let none = BTreeSet::new();
        wishes(&all, &none, &none, &settings, Deregister::Always)
    };
    let held = held(&wished_at(Some([192, 0, 2, 7])));
    assert_eq!(held.services.len(), 1);
    let unknown = wished_at(None);
    assert_eq!((unknown.services.len(), unknown.problems.len()), (0, 1));
    assert_eq!(steps(&unknown, &held), []);
}

#[test]
fn containers_that_run_and_register_nothing_are_counted() {
    let portless = |id, state| Container {
        exposed: BTreeSet::new(),
        published: Vec::new(),
        ..container(id, state)
    };
    let wished = wished(vec![
        container("a", State::Running),
        portless("b", State::Running),
        portless("c", State::Exited(0)),
    ]);
    assert_eq!((wished.services.len(), wished.left_out), (1, 1));
}
