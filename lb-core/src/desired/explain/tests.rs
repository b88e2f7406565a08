//! One service as several clients see it.

use super::*;
use crate::{
    catalog::Reach,
    clients::{Clients, Standing},
    options::{Access, Options, Rule},
    snapshot::{ProbeState, Snapshot},
};

fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// A container on the network `web`, perhaps published.
fn container(last: u8, published: bool) -> Backend {
    let address = SocketAddr::from(([172, 18, 0, last], 80));
    Backend {
        reach: Reach {
            networks: [("web".to_owned(), address)].into(),
            published: published.then(|| SocketAddr::from(([10, 1, 1, 1], 8000 + u16::from(last)))),
            ..Reach::default()
        }
        .shared(),
        ..Backend::usable(address)
    }
}

fn service(backends: impl IntoIterator<Item = Backend>) -> Service {
    let key = |n: usize| InstanceKey::new("n", n.to_string());
    let backends = backends.into_iter().enumerate();
    Service {
        vip: Some([198, 18, 0, 9].into()),
        options: Options::default(),
        aliases: BTreeSet::new(),
        backends: backends.map(|(n, backend)| (key(n), backend)).collect(),
    }
}

/// The clients 1 on `web`, 2 on `other`, 3 on `other` that reaches nothing else.
fn clients() -> Clients {
    let standing = |network: &str, outside| Standing {
        container: String::new(),
        name: String::new(),
        networks: [network.to_owned()].into(),
        addresses: [[172, 19, 0, 9].into()].into(),
        outside,
    };
    let all = [("web", true), ("other", true), ("other", false)];
    let all = all.map(|(network, outside)| standing(network, outside));
    Clients {
        by_cookie: (1..).zip(all).collect(),
    }
}

/// What `service` is to the client with this cookie, 0 for the host; and the endpoints that the maps get.
fn explained(service: &Service, client: u64, suspects: &[&str]) -> Explanation {
    let name = ServiceName::whole("s");
    let mut snapshot = Snapshot::default();
    snapshot
        .services
        .insert(name.clone(), service.clone().into());
    let views = Views::of(&clients(), &snapshot);
    let suspects = suspects.iter().map(|it| at(it)).collect();
    let cookie = Some(client);
    let client = views.clients.get(&client).copied();
    let pools = Pools::default();
    explain((&name, service), (client, cookie), &views, &suspects, pools).unwrap()
}

fn verdicts(explanation: &Explanation) -> Vec<(&str, Option<By>, u32)> {
    let all = explanation.backends.iter();
    all.map(|it| (it.verdict.as_str(), it.by, it.share_permille))
        .collect()
}

#[test]
fn the_address_and_the_verdict_follow_from_where_the_client_stands() {
    let service = service([container(2, true), container(3, false)]);
    let own = ("given", Some(By::Container), 500);
    let host = explained(&service, 0, &[]);
    assert_eq!((host.view, verdicts(&host)), (HOST_VIEW, vec![own, own]));
    // The host sees the same, and yet the view is another: outsiders see less.
    assert_eq!(verdicts(&explained(&service, 1, &[])), [own, own]);
    let other = explained(&service, 2, &[]);
    assert_eq!(other.view, OUTSIDE_VIEW);
    let published = ("given", Some(By::Published), 1000);
    assert_eq!(verdicts(&other), [published, ("no-path", None, 0)]);
    let inside = explained(&service, 3, &[]);
    assert_eq!(inside.view, INTERNAL_VIEW);
    assert_eq!(inside.ways[0].refused.as_deref(), Some("no-path"));
    assert_eq!(verdicts(&inside), [("no-path", None, 0); 2]);
}

#[test]
fn a_backend_that_takes_no_flow_is_told_with_the_cause() {
    let backend = |address: &str| Backend::usable(at(address));
    let mut down = backend("10.0.0.2:80");
    down.probe.state = ProbeState::Down;
    let service = service([
        backend("10.0.0.1:80"),
        down,
        Backend {
            weight: 0,
            ..backend("10.0.0.3:80")
        },
        backend("198.18.3.3:80"),
    ]);
    let found = explained(&service, 0, &[]);
    let verdicts = verdicts(&found);
    let registered = Some(By::Registered);
    assert_eq!(verdicts[0], ("given", registered, 1000));
    assert_eq!(verdicts[1], ("l4_down", registered, 0));
    assert_eq!(verdicts[2], ("weight 0", registered, 0));
    assert!(verdicts[3].0.contains("VIP pool"), "{verdicts:?}");
}

#[test]
fn who_is_kept_out_is_told_by_which_rule() {
    let mut service = service([container(2, true)]);
    service.options.access = Access {
        allow: Vec::new(),
        deny: vec![Rule::Host, Rule::Network("web".to_owned())],
    };
    for (client, rule) in [(0, "lb_deny=host"), (1, "lb_deny=network:web")] {
        let found = explained(&service, client, &[]);
        assert_eq!(found.denied.as_deref(), Some(rule));
        assert_eq!(found.ways[0].refused.as_deref(), Some("denied"));
        assert_eq!(verdicts(&found)[0].0, "denied");
    }
    let found = explained(&service, 2, &[]);
    assert_eq!((found.denied.clone(), found.ways[0].choices), (None, 1));
    service.options.access = Access {
        allow: vec![Rule::Network("web".to_owned())],
        deny: Vec::new(),
    };
    let found = explained(&service, 2, &[]);
    assert_eq!(found.denied.as_deref(), Some("lb_allow=network:web"));
}

#[test]
fn a_suspect_is_skipped_while_there_is_another() {
    let all = ["10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"];
    let service = service(all.map(|it| Backend::usable(at(it))));
    let found = explained(&service, 0, &all[..1]);
    assert_eq!(found.ways[0].choices, 2);
    let suspects: Vec<_> = found.backends.iter().map(|it| it.suspect).collect();
    assert_eq!(suspects, [true, false, false]);
    assert_eq!(explained(&service, 0, &all).ways[0].choices, 3);
}

#[test]
fn an_address_of_the_other_family_is_for_its_sockets_alone() {
    let service = service(["10.0.0.1:80", "[fd00::1]:80"].map(|it| Backend::usable(at(it))));
    let found = explained(&service, 0, &[]);
    let kinds: Vec<_> = found.ways.iter().map(|it| it.sockets.as_str()).collect();
    assert_eq!(kinds, ["ipv4", "ipv6"]);
    assert_eq!((found.ways[0].choices, found.ways[1].choices), (1, 2));
    let registered = Some(By::Registered);
    let expect = [
        ("given", registered, 1000),
        ("given to ipv6 sockets", registered, 500),
    ];
    assert_eq!(verdicts(&found), expect);
}

#[test]
fn a_hash_leads_a_client_to_one_backend_and_past_the_suspected_ones() {
    let backends = (1..=5).map(|n| Backend::usable(([10, 0, 0, n], 80).into()));
    let mut service = service(backends);
    let leads_to = |service: &Service, suspects: &[&str]| {
        let found = explained(service, 1, suspects);
        let [way] = &found.ways[..] else {
            panic!("{found:?}");
        };
        way.leads_to
    };
    assert_eq!(leads_to(&service, &[]), None);
    service.options.balance = crate::options::Balance::Maglev;
    let first = leads_to(&service, &[]).unwrap();
    let second = leads_to(&service, &[&first.to_string()]).unwrap();
    assert_ne!(first, second);
    let all = (1..=5).map(|n| format!("10.0.0.{n}:80"));
    let all: Vec<_> = all.collect();
    let all: Vec<_> = all.iter().map(String::as_str).collect();
    // All of them are: then nobody is skipped.
    assert_eq!(leads_to(&service, &all), Some(first));
    let others: Vec<_> = all[1..].to_vec();
    assert_eq!(leads_to(&service, &others), Some(at(all[0])));
    service.backends.clear();
    assert_eq!(leads_to(&service, &[]), None);
}

#[test]
fn a_service_without_instances_is_refused_for_that() {
    let found = explained(&service([]), 0, &[]);
    assert_eq!(found.ways[0].refused.as_deref(), Some("no-backend"));
    assert_eq!((found.ways[0].choices, found.denied), (0, None));
    // One that takes no new flow is none.
    let idle = Backend {
        weight: 0,
        ..Backend::usable(at("10.0.0.1:80"))
    };
    let found = explained(&service([idle]), 0, &[]);
    assert_eq!(found.ways[0].refused.as_deref(), Some("no-backend"));
    let given = explained(&service([Backend::usable(at("10.0.0.1:80"))]), 0, &[]);
    assert_eq!(given.ways[0].refused, None);
}

#[test]
fn what_the_host_or_the_network_leaves_out_is_told_apart() {
    let elsewhere = Backend {
        local: false,
        ..Backend::usable(at("10.0.0.2:80"))
    };
    let mut service = service([container(2, false), elsewhere]);
    service.options.local = Local::Only;
    let registered = Some(By::Registered);
    let left_out = ("not on this host (lb_local=only)", registered, 0);
    let host = explained(&service, 0, &[]);
    let given = ("given", Some(By::Container), 1000);
    assert_eq!(verdicts(&host), [given, left_out]);
    // A client on another network does not reach the one that is on this host.
    let other = explained(&service, 2, &[]);
    assert_eq!(verdicts(&other), [("no-path", None, 0), left_out]);
}

#[test]
fn whose_address_it_is_is_the_same_word_everywhere() {
    for (by, word) in [
        (By::Container, "container"),
        (By::Published, "published"),
        (By::Registered, "registered"),
    ] {
        assert_eq!(by.as_str(), word);
        assert_eq!(serde_json::to_value(by).unwrap(), word);
    }
}

#[test]
fn no_client_is_led_to_a_suspected_backend_while_there_is_another() {
    let slots = ["10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"].map(at);
    for suspected in slots {
        for cookie in 0..100 {
            let all_sound = hashed(&slots, cookie, &BTreeSet::new()).unwrap();
            let leads_to = hashed(&slots, cookie, &[suspected].into()).unwrap();
            assert_ne!(leads_to, suspected);
            // Whoever was not there stays.
            assert!(leads_to == all_sound || all_sound == suspected);
        }
    }
    // On from the first one, at the beginning after the end.
    for (n, &first) in slots.iter().enumerate() {
        let next = slots[(n + 1) % slots.len()];
        let mut cookies = 0..100;
        let cookie = cookies.find(|&it| hashed(&slots, it, &BTreeSet::new()) == Some(first));
        assert_eq!(hashed(&slots, cookie.unwrap(), &[first].into()), Some(next));
    }
}
