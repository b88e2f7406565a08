//! What is a name, what is a listener of ours, and of what the front is told.

use super::{
    super::follow::{longer, valid},
    *,
};

#[test]
fn an_address_is_heard_where_a_connection_to_it_ends() {
    let listeners = ["10.0.0.1:80", "0.0.0.0:81", "127.0.0.1:82"].map(|it| it.parse().unwrap());
    let config = RouteConfig {
        host_addresses: ["10.0.0.1".parse().unwrap()].into(),
        ..RouteConfig::default()
    };
    for (address, heard) in [
        ("10.0.0.1:80", true),
        ("[::ffff:10.0.0.1]:80", true),
        ("10.0.0.2:80", false),
        ("127.0.0.1:80", false),
        ("0.0.0.0:80", false),
        ("10.0.0.1:81", true),
        ("10.0.0.2:81", false),
        ("127.0.0.5:81", true),
        ("0.0.0.0:81", true),
        ("[::]:81", true),
        ("127.0.0.1:82", true),
        ("127.0.0.2:82", false),
        ("0.0.0.0:82", true),
        ("10.0.0.1:82", false),
        ("10.0.0.1:83", false),
    ] {
        let address = address.parse().unwrap();
        assert_eq!(config.is_heard(&listeners, address), heard, "{address}");
    }
}

#[test]
fn a_name_is_one_of_dns_or_has_underscores() {
    let label = "a".repeat(63);
    let longest = format!("{label}.{label}.{label}.{}", &label[..61]);
    assert_eq!(longest.len(), 253);
    for (host, expected) in [
        ("a", true),
        ("a-b_c.D9", true),
        ("", false),
        ("a..b", false),
        (".a", false),
        ("a b", false),
        ("a/b", false),
        ("ä", false),
        (&label, true),
        (&format!("{label}a"), false),
        (&longest, true),
        (&format!("{longest}a"), false),
    ] {
        assert_eq!(valid(host), expected, "{host:?}");
    }
    assert!(longer("a.b", "a") && longer("a.b.c", "a.b"));
    assert!(!longer("a", "a") && !longer("a", "a.b") && !longer("c.a", "a"));
}

/// The routes after `before` became `after`.
fn followed(before: &Snapshot, after: &Snapshot) -> Routes {
    let config = RouteConfig::default();
    let mut follower = Follower::new(config.clone());
    follower.follow(&Snapshot::default(), before, &config.host_addresses);
    follower.follow(before, after, &config.host_addresses);
    follower.into_routes()
}

#[test]
fn whatever_decides_about_names_is_noticed_when_it_changes_alone() {
    let before = snapshot([whole("a"), whole("b")]);
    let with = |change: &dyn Fn(&mut Service)| {
        let mut after = before.clone();
        let a = after.services.get_mut(&ServiceName::whole("a")).unwrap();
        change(Arc::make_mut(a));
        after
    };
    let rules = lb_front::rules::Rules {
        path: Some("/x".to_owned()),
        ..Default::default()
    };
    let rules = Some(Arc::new(rules));
    let hidden = with(&|it| it.options.expose = Some(false));
    let udp = with(&|it| it.options.proto = Proto::Udp);
    let below = with(&|it| it.options.front.clone_from(&rules));
    let named = with(&|it| _ = it.aliases.insert("other".to_owned()));
    for after in [&hidden, &udp, &below, &named] {
        let (alone, _) = Routes::new(after, &RouteConfig::default());
        assert_eq!(content(&followed(&before, after)), content(&alone));
        // And back again.
        let (alone, _) = Routes::new(&before, &RouteConfig::default());
        assert_eq!(content(&followed(after, &before)), content(&alone));
    }
    for (after, host, at, label) in [
        (&hidden, "a", "/", None),
        (&udp, "a", "/", None),
        (&below, "a", "/", None),
        (&below, "a", "/x/y", Some("a")),
        (&named, "other", "/", Some("a")),
    ] {
        let routes = followed(&before, after);
        let found = routes.find_at(host, at).map(|it| it.label.to_string());
        assert_eq!(found.as_deref(), label, "{host} {at}");
    }
}

#[test]
fn the_addresses_of_the_host_are_told_once_and_again_when_they_are_others() {
    let [one, other] = ["192.0.2.1", "192.0.2.2"].map(|it| {
        let address: IpAddr = it.parse().unwrap();
        BTreeSet::from([address])
    });
    let config = RouteConfig {
        listeners: vec!["0.0.0.0:80".parse().unwrap()],
        host_addresses: one.clone(),
        ..RouteConfig::default()
    };
    let name = ServiceName::whole("a");
    let backends = [backend("192.0.2.1:80", &[]), backend("192.0.2.2:80", &[])];
    let snapshot = snapshot([(name, service(&[], &backends))]);
    let mut follower = Follower::new(config);
    let told = follower.follow(&Snapshot::default(), &snapshot, &one);
    assert_eq!(told.host_addresses.as_ref(), Some(&one));
    let told = follower.follow(&snapshot, &snapshot, &one);
    assert_eq!((told.host_addresses, told.services), (None, Vec::new()));
    assert_eq!(follower.problems().count(), 1);
    // Another backend is at our own listener by that.
    let told = follower.follow(&snapshot, &snapshot, &other);
    assert_eq!(told.host_addresses.as_ref(), Some(&other));
    let [(_, Some(service))] = &told.services[..] else {
        panic!("{told:?}")
    };
    let left: Vec<_> = service.backends.iter().map(|it| it.address).collect();
    assert_eq!(left, ["192.0.2.1:80".parse().unwrap()]);
}

#[test]
fn a_list_of_users_that_is_not_there_is_reported_once() {
    let guarded = |list: &str| {
        let mut service = service(&[], &[backend("10.0.0.1:80", &[])]);
        let rules = lb_front::rules::Rules {
            auth: Some(list.to_owned()),
            ..Default::default()
        };
        service.options.front = Some(Arc::new(rules));
        service
    };
    let config = RouteConfig {
        auth: ["staff".to_owned()].into(),
        ..RouteConfig::default()
    };
    for (list, reported) in [("staff", 0), ("guests", 1), ("", 0)] {
        let services = [
            (ServiceName::whole("a"), guarded(list)),
            (ServiceName::part("a", "x"), guarded(list)),
        ];
        let (_, problems) = Routes::new(&snapshot(services), &config);
        assert_eq!(problems.len(), reported, "{list:?}: {problems:?}");
        for problem in problems {
            assert_eq!(problem.subject, "service a");
            assert!(problem.message.contains("no list of users `guests`"));
        }
    }
}

#[test]
fn every_name_is_listed_with_its_path_and_the_label_behind_it() {
    let config = RouteConfig {
        domains: Vec::new(),
        ..RouteConfig::default()
    };
    let services = [below("api", "/api"), whole("shop")];
    let (routes, _) = Routes::new(&snapshot(services), &config);
    let hosts: BTreeSet<_> = routes.hosts().collect();
    let expected = [
        ("api/api", "api"),
        ("shop", "shop"),
        ("shop.localhost/api", "api"),
        ("shop/api", "api"),
    ];
    let expected = expected.map(|(host, label)| (host.to_owned(), label));
    assert_eq!(hosts, BTreeSet::from(expected));
}
