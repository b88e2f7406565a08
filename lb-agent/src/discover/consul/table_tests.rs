use super::{
    super::parse::{self, Standpoint},
    *,
};
use crate::catalog::Catalog;

fn names(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|&name| name.to_owned()).collect()
}

fn registered(registered: usize) -> Listing {
    Listing {
        registered,
        ..Listing::default()
    }
}

fn services(table: &mut Table) -> Option<Vec<String>> {
    table.complete_if_heard();
    let names = |c: Catalog| c.services.keys().map(ToString::to_string).collect();
    table.catalog().map(names)
}

fn hitch(is_final: bool) -> Hitch {
    Hitch {
        text: "no".to_owned(),
        is_final,
        is_of_rights: false,
    }
}

#[test]
fn nothing_is_said_before_the_list_and_every_service_on_it_are_known() {
    let mut table = Table::default();
    assert_eq!(services(&mut table), None);
    let tasks = table.name(names(&["a", "b"]), None);
    assert_eq!(tasks, [Task::Follow("a".into()), Task::Follow("b".into())]);
    table.list("a", registered(1), None);
    assert_eq!(services(&mut table), None);
    table.list_failed("b", hitch(false));
    assert_eq!(services(&mut table), None);
    table.list("b", registered(1), None);
    assert_eq!(services(&mut table).unwrap(), ["a", "b"]);
}

#[test]
fn an_empty_list_is_a_full_answer() {
    let mut table = Table::default();
    table.name(names(&[]), None);
    assert_eq!(table.take_catalog(), Some(Catalog::default()));
}

#[test]
fn a_new_service_does_not_make_the_rest_unknown_again() {
    let mut table = Table::default();
    table.name(names(&["a"]), None);
    table.list("a", registered(1), None);
    services(&mut table).unwrap();
    table.name(names(&["a", "b"]), None);
    assert_eq!(services(&mut table).unwrap(), ["a"]);
}

#[test]
fn a_service_leaves_only_when_the_list_and_its_own_answer_agree() {
    let mut table = Table::default();
    table.name(names(&["a"]), None);
    table.list("a", registered(2), None);
    assert_eq!(table.name(names(&[]), None), []);
    assert_eq!(services(&mut table).unwrap(), ["a"]);
    assert_eq!(
        table.list("a", registered(0), None),
        [Task::Leave("a".into())]
    );
    assert_eq!(services(&mut table).unwrap(), Vec::<String>::new());
}

#[test]
fn a_service_that_was_emptied_first_leaves_with_the_list() {
    let mut table = Table::default();
    table.name(names(&["a"]), None);
    assert_eq!(table.list("a", registered(0), None), []);
    assert_eq!(table.name(names(&[]), None), [Task::Leave("a".into())]);
    assert_eq!(table.len(), 0);
}

#[test]
fn a_service_that_can_never_be_read_holds_up_no_other_and_is_named() {
    let mut table = Table::default();
    table.name(names(&["a", "bad", "..", "a\t"]), None);
    table.list("a", registered(1), None);
    table.list_failed("bad", hitch(true));
    let catalog = table.take_catalog().unwrap();
    assert_eq!(catalog.services.len(), 1);
    let subjects: Vec<_> = catalog
        .problems
        .iter()
        .map(|p| p.subject.as_str())
        .collect();
    assert_eq!(subjects, ["service ..", "service a\t", "service bad"]);
}

#[test]
fn a_service_that_the_token_may_not_see_holds_up_no_other_but_is_no_empty_catalog() {
    let hidden = || Hitch {
        is_of_rights: true,
        ..hitch(false)
    };
    let mut table = Table::default();
    table.name(names(&["a", "b", "consul"]), None);
    table.list_failed("a", hidden());
    table.list("consul", registered(1), None);
    table.list_failed("b", hidden());
    assert_eq!(services(&mut table), None, "nothing can be seen");
    table.list("b", registered(1), None);
    assert_eq!(services(&mut table).unwrap(), ["b", "consul"]);
    assert_eq!(table.error().unwrap(), "service a: no");
    let gone = table.name(names(&["b", "consul"]), None);
    assert_eq!(gone, [Task::Leave("a".into())]);
}

#[test]
fn a_failure_keeps_what_is_known_and_is_told_until_the_next_answer() {
    let mut table = Table::default();
    table.name(names(&["a"]), None);
    table.list("a", registered(1), None);
    table.list_failed("a", hitch(false));
    assert_eq!(services(&mut table).unwrap(), ["a"]);
    assert_eq!(table.error().unwrap(), "service a: no");
    table.name_failed("cannot reach".to_owned());
    assert_eq!(table.error().unwrap(), "cannot reach");
    table.name(names(&["a"]), None);
    table.list("a", registered(1), None);
    assert_eq!(table.error(), None);
}

fn instance(id: u8, weight: u16) -> Arc<Instance> {
    let body = format!(
        r#"[{{"Node":{{"Node":"n","Address":"10.0.0.1"}},
             "Service":{{"ID":"{id}","Port":1,"Weights":{{"Passing":{weight}}}}}}}]"#
    );
    let standpoint = Standpoint::default();
    let mut listing = parse::listing("s", body.as_bytes(), &standpoint).unwrap();
    listing.instances.remove(0)
}

fn listing(instances: &[(u8, u16)]) -> Listing {
    let mut instances: Vec<_> = instances.iter().map(|&(id, it)| instance(id, it)).collect();
    instances.sort_by(|a, b| a.key.cmp(&b.key));
    instances.dedup_by(|a, b| a.key == b.key);
    Listing {
        registered: instances.len(),
        instances,
        ..Listing::default()
    }
}

#[test]
fn an_answer_that_says_the_same_changes_nothing() {
    let mut table = Table::default();
    table.name(names(&["a"]), None);
    table.list("a", listing(&[(1, 1), (2, 1)]), None);
    assert!(table.take_catalog().is_some());
    table.list("a", listing(&[(2, 1), (1, 1)]), None);
    table.name(names(&["a"]), None);
    assert_eq!(table.take_catalog(), None);
}

#[test]
fn what_stays_the_same_keeps_its_allocation() {
    let mut table = Table::default();
    table.name(names(&["a", "b"]), None);
    table.list("a", listing(&[(1, 1), (2, 1)]), None);
    table.list("b", listing(&[(3, 1)]), None);
    let before = table.take_catalog().unwrap();
    table.list("a", listing(&[(0, 1), (1, 1), (2, 5)]), None);
    let after = table.take_catalog().unwrap();
    assert!(Arc::ptr_eq(&before.services["b"], &after.services["b"]));
    let (before, after) = (&before.services["a"], &after.services["a"]);
    assert!(Arc::ptr_eq(&before[0], &after[1]));
    assert_eq!((after.len(), after[2].weight), (3, 5));
}

#[test]
fn what_was_kept_is_shown_only_when_consul_does_not_answer_and_makes_way_for_its_answer() {
    let kept = || {
        let shown: Services = [("a", 1), ("gone", 2)]
            .into_iter()
            .map(|(name, id)| (Arc::from(name), Arc::from([instance(id, 1)])))
            .collect();
        Table::resuming(shown)
    };
    let mut table = kept();
    assert_eq!(services(&mut table), None);
    table.name_failed("cannot reach".to_owned());
    table.resume();
    assert_eq!(services(&mut table).unwrap(), ["a", "gone"]);
    let error = table.error().unwrap();
    assert!(error.starts_with("cannot reach; what was known"), "{error}");
    let before = table.take_catalog().unwrap();
    table.name(names(&["a", "b"]), None);
    assert!(table.error().is_some());
    assert_eq!(services(&mut table).unwrap(), ["a", "gone"]);
    table.list("b", listing(&[(3, 1)]), None);
    table.list("a", listing(&[(1, 1)]), None);
    assert_eq!(services(&mut table).unwrap(), ["a", "b", "gone"]);
    let tasks = table.list("gone", registered(0), None);
    assert_eq!(tasks, [Task::Leave("gone".into())]);
    let after = table.take_catalog().unwrap();
    assert_eq!(services(&mut table).unwrap(), ["a", "b"]);
    assert!(Arc::ptr_eq(&before.services["a"], &after.services["a"]));
    assert_eq!(table.error(), None);

    // An answer that cannot be read takes nothing away.
    let mut table = kept();
    let tasks = table.name(names(&["a"]), None);
    let follow = ["gone", "a"].map(|it| Task::Follow(it.into()));
    assert_eq!(tasks, follow);
    table.list_failed("a", hitch(true));
    table.list_failed("gone", hitch(true));
    assert_eq!(services(&mut table).unwrap(), ["a", "gone"]);
    table.name(names(&["a"]), None);
    assert_eq!(services(&mut table).unwrap(), ["a", "gone"]);
}

fn at_host(id: u8, host: &str) -> Named {
    Named {
        host: host.into(),
        instance: instance(id, 1),
    }
}

fn addresses(table: &mut Table, service: &str) -> Vec<String> {
    table.complete_if_heard();
    let catalog = table.catalog().unwrap();
    let instances = catalog.services[service].iter();
    instances.map(|it| it.address.ip().to_string()).collect()
}

#[test]
fn a_host_name_is_resolved_and_keeps_its_last_good_meaning() {
    let mut table = Table::default();
    table.name(names(&["a"]), None);
    let by_host = Listing {
        registered: 2,
        named: vec![at_host(2, "web.example")],
        ..listing(&[(1, 1)])
    };
    let tasks = table.list("a", by_host.clone(), None);
    assert_eq!(tasks, [Task::Resolve("web.example".into())]);
    assert_eq!(services(&mut table), None, "the first answer is awaited");
    table.resolved("web.example", Ok("10.0.0.7".parse().unwrap()));
    assert_eq!(addresses(&mut table, "a"), ["10.0.0.1", "10.0.0.7"]);
    assert_eq!(table.list("a", by_host, None), []);
    table.take_catalog();
    table.resolved("web.example", Err("no answer".to_owned()));
    assert_eq!(addresses(&mut table, "a"), ["10.0.0.1", "10.0.0.7"]);
    let problems = table.take_catalog().unwrap().problems;
    assert!(
        problems[0].message.contains("10.0.0.7, is used"),
        "{problems:?}"
    );
    table.resolved("web.example", Ok("10.0.0.8".parse().unwrap()));
    assert_eq!(addresses(&mut table, "a"), ["10.0.0.1", "10.0.0.8"]);
    let tasks = table.list("a", listing(&[(1, 1)]), None);
    assert_eq!(tasks, [Task::Forget("web.example".into())]);
    assert_eq!(addresses(&mut table, "a"), ["10.0.0.1"]);
}

#[test]
fn a_host_name_without_an_answer_holds_up_the_others_for_a_time_only() {
    let mut table = Table::default();
    table.name(names(&["a"]), None);
    assert!(!table.waits_for_hosts());
    let by_host = Listing {
        registered: 2,
        named: vec![at_host(2, "web.example")],
        ..listing(&[(1, 1)])
    };
    table.list("a", by_host, None);
    assert!(table.waits_for_hosts());
    table.wait_for_hosts_no_more();
    assert_eq!(addresses(&mut table, "a"), ["10.0.0.1"]);
    assert!(!table.waits_for_hosts());
    table.resolved("web.example", Ok("10.0.0.7".parse().unwrap()));
    assert_eq!(addresses(&mut table, "a"), ["10.0.0.1", "10.0.0.7"]);
}

#[test]
fn a_host_name_that_means_nothing_usable_is_named_and_holds_up_nobody() {
    for answer in [
        Err("no such host".to_owned()),
        Ok("169.254.169.254".parse().unwrap()),
    ] {
        let mut table = Table::default();
        table.name(names(&["a"]), None);
        let by_host = Listing {
            registered: 2,
            named: vec![at_host(2, "web.example")],
            ..listing(&[(1, 1)])
        };
        table.list("a", by_host, None);
        table.resolved("web.example", answer);
        let catalog = table.take_catalog().unwrap();
        assert_eq!(catalog.services["a"].len(), 1);
        assert_eq!(catalog.problems[0].subject, "instance n/2");
    }
}

use proptest::prelude::*;

/// What a service says: its instances, or that it cannot be read.
fn answer() -> impl Strategy<Value = Option<Vec<(u8, u16)>>> {
    prop::option::weighted(0.9, prop::collection::vec((0u8..5, 1u16..4), 0..5))
}

proptest! {
    #[test]
    fn any_sequence_of_answers_ends_in_the_same_table_as_the_last_ones_alone(
        answers in prop::collection::vec((0usize..4, answer()), 0..40),
        lists in prop::collection::vec((0usize..40, prop::collection::btree_set(0usize..4, 0..4)), 0..5),
        last in prop::collection::vec(prop::collection::vec((0u8..5, 1u16..4), 1..5), 4),
    ) {
        const NAMES: [&str; 4] = ["a", "b", "c", "d"];
        let mut table = Table::default();
        table.name(names(&NAMES), None);
        for (n, (service, answer)) in answers.into_iter().enumerate() {
            for (_, list) in lists.iter().filter(|(at, _)| *at == n) {
                table.name(list.iter().map(|&it| NAMES[it].to_owned()).collect(), None);
            }
            match answer {
                Some(instances) => table.list(NAMES[service], listing(&instances), None),
                None => table.list_failed(NAMES[service], hitch(false)),
            };
            table.take_catalog();
        }
        let mut alone = Table::default();
        for table in [&mut table, &mut alone] {
            table.name(names(&NAMES), None);
            for (service, instances) in NAMES.into_iter().zip(&last) {
                table.list(service, listing(instances), None);
            }
            table.complete_if_heard();
        }
        prop_assert_eq!(table.catalog(), alone.catalog());
        prop_assert_eq!(table.error(), None);
    }
}
