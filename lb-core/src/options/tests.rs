mod registrations;
mod texts;

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use proptest::{collection, prelude::*};

use super::{
    Access, Balance, CheckKind, Local, Options, Packet, Proto, Resolved, Rule, UDP, is_dns_name,
    parse_duration, resolve,
};
use crate::catalog::{Instance, InstanceKey, Reach, SourceHealth};

fn instance(registered: u64, tags: &[&str]) -> Arc<Instance> {
    Arc::new(Instance {
        key: InstanceKey::new("n", registered.to_string()),
        address: "10.0.0.1:80".parse().unwrap(),
        reach: Reach::default().shared(),
        local: true,
        container: None,
        tags: tags
            .iter()
            .map(|&tag| tag.to_owned())
            .collect::<BTreeSet<_>>()
            .into(),
        meta: Arc::default(),
        weight: 1,
        health: SourceHealth::Passing,
        checks: Vec::new(),
        registered,
    })
}

pub(super) fn tagged(tags: &[&str]) -> Resolved {
    resolve("s", &[instance(1, tags)])
}

#[track_caller]
pub(super) fn check(tag: &str, expect: Options) {
    let resolved = tagged(&[tag]);
    let problems: Vec<_> = resolved.problems.iter().collect();
    assert!(problems.is_empty(), "{tag}: {problems:?}");
    assert_eq!(resolved.options, expect, "{tag}");
}

#[track_caller]
pub(super) fn check_wrong(tag: &str, remedy: &str) {
    let resolved = tagged(&[tag, "lb_drain=7"]);
    let [problem] = &resolved.problems.iter().collect::<Vec<_>>()[..] else {
        panic!("{tag}: {:?}", resolved.problems);
    };
    assert_eq!(problem.subject, "service s");
    assert!(problem.message.contains(remedy), "{tag}: {problem}");
    let expect = Options {
        drain: Duration::from_secs(7),
        ..Options::default()
    };
    assert_eq!(resolved.options, expect, "{tag} broke the rest");
}

#[test]
fn every_option_takes_its_values() {
    let default = Options::default;
    check("lb_balance=least-conn", default());
    for (tag, balance) in [
        ("lb_balance=round-robin", Balance::RoundRobin),
        ("lb_balance= random ", Balance::Random),
        ("lb_balance=maglev", Balance::Maglev),
    ] {
        let options = default();
        check(tag, Options { balance, ..options });
    }
    for (tag, check_kind) in [
        ("lb_check=tcp", CheckKind::Tcp),
        ("lb_check=off", CheckKind::Off),
        ("lb_check=http /", CheckKind::Http("/".to_owned())),
        (
            "lb_check=http  /a?b=c",
            CheckKind::Http("/a?b=c".to_owned()),
        ),
    ] {
        let options = Options {
            check: check_kind,
            ..default()
        };
        check(tag, options);
    }
    for (tag, seconds) in [("lb_drain=0", 0), ("lb_drain=45", 45), ("lb_drain=2m", 120)] {
        let drain = Duration::from_secs(seconds);
        let options = default();
        check(tag, Options { drain, ..options });
    }
    let ports = BTreeSet::from([80, 443]);
    let options = default();
    check("lb_port=443, 80", Options { ports, ..options });
    let ports = BTreeSet::from([80, 443]);
    let options = default();
    check("lb_port=443:80", Options { ports, ..options });
    for (tag, local) in [
        ("lb_local=any", Local::Any),
        ("lb_local=prefer", Local::Prefer),
        ("lb_local=only", Local::Only),
        (" LB_Local = only ", Local::Only),
    ] {
        let options = default();
        check(tag, Options { local, ..options });
    }
    for (tag, packet) in [
        ("lb_packet=nat", Packet::Nat),
        ("lb_packet=tunnel", Packet::Tunnel),
        ("lb_packet=off", Packet::Off),
    ] {
        let options = default();
        check(tag, Options { packet, ..options });
    }
    for (tag, exposed) in [
        ("lb_expose", true),
        ("lb_expose=true", true),
        ("lb_expose=false", false),
    ] {
        let expose = Some(exposed);
        let options = default();
        check(tag, Options { expose, ..options });
    }
}

#[test]
fn a_client_keeps_its_backend_for_whole_seconds() {
    for (tag, seconds) in [
        ("lb_affinity=0", 0),
        ("lb_affinity=off", 0),
        ("lb_affinity=90", 90),
        ("lb_affinity=2000ms", 2),
        ("lb_affinity=24h", 86_400),
    ] {
        let affinity = Duration::from_secs(seconds);
        let options = Options::default();
        check(
            tag,
            Options {
                affinity,
                ..options
            },
        );
    }
}

#[test]
fn a_slow_start_takes_whole_seconds() {
    for (tag, seconds) in [
        ("lb_slow_start=0", 0),
        ("lb_slow_start=off", 0),
        ("lb_slow_start=2m", 120),
    ] {
        let slow_start = Duration::from_secs(seconds);
        let options = Options::default();
        check(
            tag,
            Options {
                slow_start,
                ..options
            },
        );
    }
}

#[test]
fn the_lists_of_clients_are_sets_of_rules() {
    let rules = || {
        vec![
            Rule::Net("10.0.0.0/8".parse().unwrap()),
            Rule::Host,
            Rule::Network("front".to_owned()),
        ]
    };
    let allow = Access {
        allow: rules(),
        ..Access::default()
    };
    let deny = Access {
        deny: rules(),
        ..Access::default()
    };
    for (tag, access) in [
        ("lb_allow=10.0.0.0/8,host,network:front", &allow),
        ("lb_allow=host network:front 10.0.0.0/8 host", &allow),
        ("lb_deny=host, network:front, 10.0.0.0/8", &deny),
    ] {
        let access = access.clone();
        let options = Options::default();
        check(tag, Options { access, ..options });
    }
}

#[test]
fn a_wrong_rule_lets_nobody_in_who_was_not_named() {
    for (tag, allow, deny) in [
        ("lb_allow=host,hosts", &["host"][..], &[][..]),
        ("lb_allow=hosts", &["nobody"], &[]),
        // As a tool writes it of a variable that is not set.
        ("lb_allow=", &["nobody"], &[]),
        ("lb_deny=host,hosts", &[], &["host"]),
    ] {
        let resolved = tagged(&[tag]);
        let [problem] = &resolved.problems.iter().collect::<Vec<_>>()[..] else {
            panic!("{tag}: {:?}", resolved.problems);
        };
        let message = &problem.message;
        assert!(message.contains("only as far as it is right"), "{message}");
        let texts = |rules: &[Rule]| rules.iter().map(Rule::to_string).collect::<Vec<_>>();
        assert_eq!(texts(&resolved.options.access.allow), allow, "{tag}");
        assert_eq!(texts(&resolved.options.access.deny), deny, "{tag}");
    }
}

#[test]
fn a_udp_service_is_not_probed_unless_it_says_so() {
    for (tags, proto, kind) in [
        (&["lb_proto=tcp"][..], Proto::Tcp, CheckKind::Tcp),
        (&["lb_proto=http"], Proto::Http, CheckKind::Tcp),
        (&["lb_proto=h2c"], Proto::H2c, CheckKind::Tcp),
        (
            &["lb_proto=h2c", "lb_check=http /a"],
            Proto::H2c,
            CheckKind::Http2("/a".to_owned()),
        ),
        (
            &["lb_proto=http", "lb_check=http /a"],
            Proto::Http,
            CheckKind::Http("/a".to_owned()),
        ),
        (&["lb_proto=udp"], Proto::Udp, CheckKind::Off),
        (
            &["lb_proto=udp", "lb_check=tcp"],
            Proto::Udp,
            CheckKind::Tcp,
        ),
        (&["udp"], Proto::Udp, CheckKind::Off),
        // What is stated counts more than the mark.
        (&["udp", "lb_proto=tcp"], Proto::Tcp, CheckKind::Tcp),
    ] {
        let resolved = tagged(tags);
        assert_eq!(resolved.problems, BTreeSet::new(), "{tags:?}");
        let options = &resolved.options;
        assert_eq!((options.proto, &options.check), (proto, &kind), "{tags:?}");
    }
}

#[test]
fn the_mark_of_some_instances_makes_them_udp_beside_the_others() {
    let both = |tags: [&[&str]; 2]| {
        let resolved = resolve("dns", &[instance(1, tags[0]), instance(2, tags[1])]);
        assert_eq!(resolved.problems, BTreeSet::new(), "{tags:?}");
        resolved.options
    };
    let tag = BTreeSet::from([UDP.to_owned()]);
    for tags in [
        [&[][..], &["udp"][..]],
        [&["lb_proto=http"], &["udp", "lb_proto=http"]],
    ] {
        let options = both(tags);
        assert_eq!(options.speaks(), (true, true), "{tags:?}");
        assert_eq!(
            (options.is_udp(&tag), options.is_udp(&BTreeSet::new())),
            (true, false)
        );
        let asked = (options.check_of(&tag), options.check_of(&BTreeSet::new()));
        assert_eq!(asked, (&CheckKind::Off, &CheckKind::Tcp));
    }
    // These are said of all of them.
    for (proto, speaks) in [
        ("lb_proto=tcp", (true, false)),
        ("lb_proto=udp", (false, true)),
    ] {
        let options = both([&[proto], &["udp", proto]]);
        assert_eq!((options.speaks(), options.udp_by_tag), (speaks, false));
    }
    // Without the mark HTTP has no UDP port beside it.
    for proto in ["lb_proto=http", "lb_proto=h2c"] {
        assert_eq!(both([&[proto], &[]]).speaks(), (true, false), "{proto}");
    }
    let resolved = resolve("dns", &[instance(1, &["udp"]), instance(2, &["udp"])]);
    assert_eq!(resolved.options.proto, Proto::Udp);
    assert_eq!(resolve("dns", &[]).options.proto, Proto::Tcp);
}

#[test]
fn a_udp_service_cannot_be_exposed() {
    let resolved = tagged(&["lb_proto=udp", "lb_expose"]);
    let problem = resolved.problems.first().unwrap().to_string();
    assert!(
        problem.contains("`lb_expose=true` has no effect"),
        "{problem}"
    );
    let quiet = tagged(&["lb_proto=udp", "lb_expose=false"]);
    assert_eq!(quiet.problems, BTreeSet::new());
}

#[test]
fn a_wrong_option_is_reported_with_its_remedy_and_breaks_nothing() {
    check_wrong(
        "lb_balance=fair",
        "least-conn, round-robin, random or maglev",
    );
    check_wrong("lb_balance", "least-conn, round-robin, random or maglev");
    check_wrong("lb_check=http", "such as `http /`");
    check_wrong("lb_check=http index.html", "such as `http /`");
    check_wrong("lb_check=http /a b", "such as `http /`");
    check_wrong("lb_check=http /\r\nX:1", "such as `http /`");
    check_wrong("lb_port=80,", "from 1 to 65535");
    check_wrong("lb_port=0", "from 1 to 65535");
    check_wrong("lb_port=65536", "from 1 to 65535");
    check_wrong("lb_weight=-1", "from 0 to 65535");
    check_wrong("lb_expose=yes", "true or false");
    // As a tool writes it of a variable that is not set.
    check_wrong("lb_expose=", "true or false");
    check_wrong("lb_local=yes", "any, prefer or only");
    check_wrong(
        "LB_BALANCE=fair",
        "least-conn, round-robin, random or maglev",
    );
    check_wrong("lb_", "there is no such option");
    check_wrong("server_alias=a.example:8080", "without a port");
    check_wrong("server_alias=", "not a host name");
    check_wrong("lb_affinity=1500ms", "write whole seconds");
    check_wrong("lb_affinity=25h", "at most a day");
    check_wrong("lb_affinity=", "or `off`");
    check_wrong("lb_slow_start=on", "write whole seconds");
    check_wrong("lb_slow_start=1500ms", "write whole seconds");
    check_wrong("lb_deny=hosts", "in place of `hosts`");
    check_wrong("lb_deny", "write addresses");
    check_wrong("lb_proto=quic", "tcp, udp, http or h2c");
    check_wrong("lb_ballance=random", "did you mean lb_balance?");
    check_wrong("lb_max-body=1", "did you mean lb_max_body?");
    check_wrong("lb_colour=red", "there is no such option; docs/");
    check_wrong("server_alias=a b", "not a host name");
}

#[test]
fn a_drain_longer_than_a_day_is_refused() {
    let resolved = tagged(&["lb_drain=25h"]);
    assert_eq!(resolved.problems.len(), 1);
    assert_eq!(resolved.options, Options::default());
}

#[test]
fn messages_do_not_repeat_a_foreign_text_at_length() {
    let long = "ü".repeat(10_000);
    let tags = [
        format!("lb_balance={long}"),
        format!("lb_{long}=1"),
        format!("server_alias={long}"),
    ];
    let resolved = tagged(&tags.each_ref().map(String::as_str));
    assert_eq!(resolved.problems.len(), 3);
    for problem in resolved.problems {
        assert!(problem.message.len() < 500, "{problem}");
    }
}

proptest! {
    #[test]
    fn no_tag_or_meta_panics(
        tags in collection::btree_set("(lb_[a-z]{0,8}|server_alias(es)?|)?=?.{0,12}", 0..8),
        meta in collection::btree_map("lb_(balance|check|port|drain|weight|allow|deny|proto|affinity)", ".{0,12}", 0..4),
    ) {
        let one = Arc::new(Instance { tags: tags.into(), meta: meta.into(), ..(*instance(1, &[])).clone() });
        let resolved = resolve("s", &[one]);
        prop_assert!(resolved.aliases.iter().all(|alias| !alias.is_empty()));
    }
}

#[test]
fn a_tag_with_a_blank_and_an_alias_of_digits_are_told() {
    for (tag, part) in [
        (" infra", "tag ` infra` makes no part"),
        (
            "server_aliases=a.example:8080",
            "alias `8080` has no effect",
        ),
        ("server_alias=192.0.2.1", "alias `192.0.2.1` has no effect"),
    ] {
        let resolved = tagged(&[tag]);
        let problems: Vec<_> = resolved.problems.iter().collect();
        assert_eq!(problems.len(), 1, "{tag}: {problems:?}");
        assert!(problems[0].message.contains(part), "{}", problems[0]);
        assert_eq!(resolved.domain_tags.len(), 0);
    }
    // Reserved, and no name.
    assert_eq!(tagged(&["a b", " "]).problems.len(), 0);
}
