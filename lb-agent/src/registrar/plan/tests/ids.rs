//! Who has an id: ours, somebody else, or two at once.

use super::*;

#[test]
fn only_what_carries_our_mark_is_swept_whatever_its_id() {
    let mut held = Held::default();
    let mut put = |id: &str, host: Option<&str>| {
        let mark = |host: &str| (REGISTRAR.to_owned(), host.to_owned());
        let service = Service {
            meta: host.map(mark).into_iter().collect(),
            ..Service::default()
        };
        held.services.insert(id.to_owned(), service);
    };
    put("custom", Some("h"));
    put("h:gone:80", Some("h"));
    put("h:theirs:80", Some("other"));
    put("old:web-1:80", None);
    put("old:web-1:53:udp", None);
    put("old:x", None);
    // Docker gives no such names, and Registrator no such ports.
    put("old:x:80", None);
    put("old:-web:80", None);
    put("old:web-1:http", None);
    put("old:web-1:", None);
    put("consul", None);
    let gone = |adopt: &[&str]| {
        let adopt = adopt.iter().map(|it| (*it).to_owned()).collect();
        let owner = Ownership {
            host: "h",
            adopt: &adopt,
        };
        let (steps, _) = plan(&Wishes::default(), &held, owner, &Memory::default());
        let ids = steps.into_iter().map(|step| match step {
            Step::Deregister { id } => id,
            other => panic!("{other:?}"),
        });
        ids.collect::<Vec<_>>()
    };
    assert_eq!(gone(&[]), ["custom", "h:gone:80"]);
    assert_eq!(
        gone(&["old"]),
        ["custom", "h:gone:80", "old:web-1:53:udp", "old:web-1:80"]
    );
}

#[test]
fn an_id_of_somebody_else_is_told_and_left_alone() {
    let wishes = wished(vec![container("a", State::Running)]);
    for (mark, part) in [
        (None, "something else"),
        (Some("other"), "registrar of host other"),
    ] {
        let mut held = held(&wishes);
        let meta = &mut held.services.get_mut("h:a:80").unwrap().meta;
        meta.remove(REGISTRAR);
        meta.extend(mark.map(|it| (REGISTRAR.to_owned(), it.to_owned())));
        let adopt = BTreeSet::new();
        let owner = Ownership {
            host: "h",
            adopt: &adopt,
        };
        let (steps, problems) = plan(&wishes, &held, owner, &Memory::default());
        assert_eq!(steps, []);
        assert!(problems[0].message.contains(part), "{problems:?}");
    }
}

#[test]
fn the_older_of_two_containers_keeps_an_id() {
    let named = |id: &str, created| {
        let mut it = container(id, State::Running);
        it.created = created;
        it.labels.insert("SERVICE_ID".to_owned(), "same".to_owned());
        it
    };
    let wishes = wished(vec![named("a", 2), named("b", 1)]);
    assert_eq!(wishes.services["same"].registration.container, "b");
    assert_eq!(wishes.problems.len(), 1);
    assert_eq!(wishes.problems[0].subject, "container a");
}

#[test]
fn of_two_containers_that_claim_one_id_the_younger_is_shown_as_refused() {
    let claim = |id: &str, created| {
        let mut container = container(id, State::Running);
        container.created = created;
        container.environment = vec![("SERVICE_ID".to_owned(), "same".to_owned())];
        container
    };
    let wished = wished(vec![claim("young", 2), claim("old", 1)]);
    let shown = wished.seen.iter();
    let shown: Vec<_> = shown
        .map(|it| (it.name.as_str(), it.registers.len(), it.refused.len()))
        .collect();
    assert_eq!(shown, [("old", 1, 0), ("young", 0, 1)]);
    let why = &wished.seen[1].refused[0];
    assert!(why.contains("has registered that id already"), "{why}");
    assert_eq!(wished.problems[0].message, *why);
}
