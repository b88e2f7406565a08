mod place;

use serde_json::{Value, json};

use super::*;

/// An answer with one entry: the usual one, with `change` made to it.
#[track_caller]
fn parsed(change: impl FnOnce(&mut Value)) -> Listing {
    let mut entry = json!({
        "Node": {"Node": "n1", "Address": "10.0.0.1", "TaggedAddresses": {"lan": "10.0.0.1"}},
        "Service": {
            "Kind": "", "ID": "www-1", "Service": "www", "Tags": ["b", "a"], "Meta": null,
            "Address": "10.0.0.9", "Port": 80, "Weights": {"Passing": 3, "Warning": 2},
            "TaggedAddresses": {}, "EnableTagOverride": false, "CreateIndex": 17, "ModifyIndex": 20
        },
        "Checks": [
            {"CheckID": "serfHealth", "Name": "Serf", "Status": "passing", "Output": "alive"},
            {"CheckID": "service:www-1", "Name": "http", "Status": "passing", "Output": "200"}
        ]
    });
    change(&mut entry);
    read("www", &json!([entry]).to_string())
}

#[track_caller]
fn read(service: &str, body: &str) -> Listing {
    listing(service, body.as_bytes(), &Standpoint::default()).unwrap()
}

#[track_caller]
fn one(change: impl FnOnce(&mut Value)) -> Arc<Instance> {
    let listing = parsed(change);
    assert_eq!(listing.problems, []);
    let [instance] = &*listing.instances else {
        panic!("{:?}", listing.instances)
    };
    instance.clone()
}

#[track_caller]
fn left_out(change: impl FnOnce(&mut Value)) -> String {
    let listing = parsed(change);
    assert_eq!((listing.instances.len(), listing.registered), (0, 1));
    let [problem] = <[_; 1]>::try_from(listing.problems).unwrap();
    problem.to_string()
}

#[test]
fn an_entry_becomes_an_instance() {
    let instance = one(|_| ());
    assert_eq!(instance.key.to_string(), "n1/www-1");
    assert_eq!(instance.address, "10.0.0.9:80".parse().unwrap());
    assert_eq!(
        *instance.tags,
        BTreeSet::from(["a".to_owned(), "b".to_owned()])
    );
    assert_eq!(instance.weight, 3);
    assert_eq!(instance.health, SourceHealth::Passing);
    assert_eq!(instance.checks.len(), 2);
    assert_eq!(instance.registered, 17);
}

#[test]
fn no_entries_and_no_services_are_answers_too() {
    assert_eq!(read("www", "[]"), Listing::default());
    assert_eq!(names(b"{}").unwrap(), BTreeSet::new());
}

#[test]
fn the_order_of_an_answer_means_nothing() {
    let entry = |id: &str| {
        json!({"Node": {"Node": "n", "Address": "10.0.0.1"},
               "Service": {"ID": id, "Port": 1, "Tags": ["x", id]}})
    };
    let a = json!([entry("a"), entry("b")]).to_string();
    let b = json!([entry("b"), entry("a")]).to_string();
    assert_eq!(read("s", &a), read("s", &b));
}

#[test]
fn an_instance_is_local_by_its_node_or_by_who_registered_it() {
    let entry = json!([{
        "Node": {"Node": "n1", "Address": "10.0.0.1"},
        "Service": {"ID": "a", "Port": 1, "Meta": {"lb-registrar": "host-1"}}
    }])
    .to_string();
    let here = |node: Option<&str>, host: Option<&str>| {
        let standpoint = Standpoint {
            node: node.map(str::to_owned),
            host: host.map(str::to_owned),
            ..Standpoint::default()
        };
        listing("s", entry.as_bytes(), &standpoint)
            .unwrap()
            .instances[0]
            .local
    };
    assert!(here(Some("n1"), None));
    assert!(here(Some("n2"), Some("host-1")));
    assert!(!here(Some("n2"), Some("host-2")));
    assert!(!here(None, None));
}

#[test]
fn a_warning_takes_no_new_flow_unless_it_is_included_with_its_weight() {
    let entry = json!([{
        "Node": {"Node": "n1", "Address": "10.0.0.1"},
        "Service": {"ID": "a", "Port": 1, "Weights": {"Passing": 10, "Warning": 3}},
        "Checks": [{"CheckID": "c", "Status": "warning", "ServiceID": "a"}]
    }])
    .to_string();
    for (warning, health) in [
        (Warning::Exclude, SourceHealth::Warning),
        (Warning::Include, SourceHealth::Passing),
    ] {
        let standpoint = Standpoint {
            warning,
            ..Standpoint::default()
        };
        let listing = listing("s", entry.as_bytes(), &standpoint).unwrap();
        let instance = &listing.instances[0];
        assert_eq!((instance.health, instance.weight), (health, 3));
        assert_eq!(instance.checks[0].health, SourceHealth::Warning);
        assert!(!listing.unchecked);
    }
}

#[test]
fn the_worst_check_decides() {
    for (status, health) in [
        ("passing", SourceHealth::Passing),
        ("warning", SourceHealth::Warning),
        ("critical", SourceHealth::Critical),
        ("sideways", SourceHealth::Critical),
    ] {
        let instance = one(|entry| entry["Checks"][1]["Status"] = json!(status));
        assert_eq!(instance.health, health, "{status}");
    }
    assert_eq!(
        one(|entry| entry["Checks"] = json!(null)).health,
        SourceHealth::Passing
    );
}

#[test]
fn maintenance_of_node_or_service_outweighs_everything_and_gives_its_reason() {
    for id in ["_node_maintenance", "_service_maintenance:www-1"] {
        let instance = one(|entry| {
            entry["Checks"][0] = json!({"CheckID": id, "Name": "maint", "Status": "critical",
                                        "Notes": "new disk", "Output": ""});
        });
        assert_eq!(instance.health, SourceHealth::Maintenance);
        let check = instance
            .checks
            .iter()
            .find(|check| check.name == "maint")
            .unwrap();
        assert_eq!(check.output, "new disk");
    }
}

#[test]
fn a_check_without_output_gives_its_notes() {
    let told = |output: Value| {
        let instance = one(|entry| {
            entry["Checks"][0] = json!({"CheckID": "c", "Name": "app", "Status": "critical",
                                        "Notes": "no such check", "Output": output});
        });
        let check = instance.checks.iter().find(|check| check.name == "app");
        check.unwrap().output.clone()
    };
    assert_eq!(told(json!("refused")), "refused");
    for nothing in [json!(""), json!(null)] {
        assert_eq!(told(nothing), "no such check");
    }
}

#[test]
fn the_weight_is_the_one_for_the_current_health() {
    let warning = one(|entry| entry["Checks"][1]["Status"] = json!("warning"));
    assert_eq!(warning.weight, 2);
    assert_eq!(
        one(|entry| entry["Service"]["Weights"] = json!(null)).weight,
        1
    );
    let huge = one(|entry| entry["Service"]["Weights"]["Passing"] = json!(1_i64 << 40));
    assert_eq!(huge.weight, u16::MAX);
    let negative = one(|entry| entry["Service"]["Weights"]["Passing"] = json!(-4));
    assert_eq!(negative.weight, 0);
}

#[test]
fn a_virtual_address_set_by_the_user_is_passed_on() {
    let instance = one(|entry| {
        entry["Service"]["TaggedAddresses"] =
            json!({"virtual": {"Address": "198.18.3.4", "Port": 0}});
    });
    assert_eq!(instance.meta[VIRTUAL_ADDRESS], "198.18.3.4");
    let listing = parsed(|entry| {
        entry["Service"]["TaggedAddresses"] = json!({"virtual": {"Address": "nowhere", "Port": 0}});
    });
    assert_eq!((listing.instances.len(), listing.problems.len()), (1, 1));
    assert!(!listing.instances[0].meta.contains_key(VIRTUAL_ADDRESS));
}

#[test]
fn kinds_of_the_mesh_are_not_exposed_even_unknown_ones() {
    for kind in [
        "connect-proxy",
        "mesh-gateway",
        "api-gateway",
        "from-the-future",
    ] {
        let listing = parsed(|entry| entry["Service"]["Kind"] = json!(kind));
        // Yet the answer is not an empty one, and checks are compared as for any other.
        let nothing_of_ours = Listing {
            entries: 1,
            checks: listing.checks.clone(),
            ..Listing::default()
        };
        assert_eq!(listing, nothing_of_ours, "{kind}");
    }
}

#[test]
fn an_entry_of_another_service_is_left_out_and_named() {
    let entry = |name: &str| {
        json!({"Node": {"Node": "n", "Address": "10.0.0.1"},
               "Service": {"ID": name, "Service": name, "Port": 1}})
    };
    let body = json!([entry("www"), entry("WWW"), entry("web")]).to_string();
    let listing = read("www", &body);
    assert_eq!((listing.instances.len(), listing.registered), (2, 3));
    assert!(listing.problems[0].message.contains("`web`"));
}

#[test]
fn an_unreadable_entry_costs_no_other() {
    let good =
        json!({"Node": {"Node": "n", "Address": "10.0.0.1"}, "Service": {"ID": "a", "Port": 1}});
    let body = json!([{"Node": 5}, good]).to_string();
    let listing = read("www", &body);
    assert_eq!(
        (
            listing.instances.len(),
            listing.problems.len(),
            listing.registered
        ),
        (1, 1, 2)
    );
}

#[test]
fn long_output_is_cut_between_characters() {
    let instance =
        one(|entry| entry["Checks"][1]["Output"] = json!("é".repeat(CHECK_OUTPUT_LIMIT)));
    let output = &instance
        .checks
        .iter()
        .find(|check| check.name == "http")
        .unwrap()
        .output;
    assert_eq!(output.len(), CHECK_OUTPUT_LIMIT);
}

#[test]
fn a_name_that_cannot_be_a_host_name_is_reported() {
    for name in ["www", "www_hello", "serviceA.v1", "a-b", "0"] {
        assert_eq!(name_problem(name), None, "{name}");
    }
    for name in [
        "",
        "a b",
        "a/b",
        "-a",
        "a-",
        "a..b",
        "_a",
        "ü",
        &"a".repeat(64),
    ] {
        assert!(name_problem(name).is_some(), "{name}");
    }
}

proptest::proptest! {
    #[test]
    fn no_bytes_make_it_panic(body in ".*") {
        let _ = listing("s", body.as_bytes(), &Standpoint::default());
        let _ = names(body.as_bytes());
    }

    #[test]
    fn no_values_make_it_panic(address in ".{0,20}", port: i64, passing: i64, status in ".{0,9}", id in ".{0,30}") {
        parsed(|entry| {
            entry["Service"]["Address"] = json!(address);
            entry["Service"]["Port"] = json!(port);
            entry["Service"]["Weights"]["Passing"] = json!(passing);
            entry["Checks"][0] = json!({"CheckID": id, "Status": status});
        });
    }
}
