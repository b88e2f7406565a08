//! The checks that words ask for.

use super::*;

#[test]
fn every_kind_of_check_is_understood_and_the_first_kind_wins() {
    let address = "172.17.0.5:80".parse().unwrap();
    let http = |scheme: &str, method: Option<&str>| CheckKind::Http {
        url: format!("{scheme}://172.17.0.5:80/up"),
        method: method.map(str::to_owned),
    };
    let command = |arguments: &[&str]| {
        CheckKind::Command(arguments.iter().map(|it| (*it).to_owned()).collect())
    };
    let grpc = |tls, skip_verify| CheckKind::Grpc {
        address,
        tls,
        skip_verify,
    };
    for (words, kind) in [
        (
            &[("HTTP", "/up"), ("HTTP_METHOD", "HEAD")][..],
            http("http", Some("HEAD")),
        ),
        (&[("HTTP", "up"), ("TCP", "true")], http("http", None)),
        (
            &[("HTTPS", "/up"), ("HTTPS_METHOD", "GET")],
            http("https", Some("GET")),
        ),
        (
            &[("CMD", "/bin/x y")],
            command(&["check-cmd", "0123456789ab", "80", "/bin/x y"]),
        ),
        (
            &[("SCRIPT", "nc $SERVICE_IP $SERVICE_PORT")],
            command(&["/bin/sh", "-c", "nc 172.17.0.5 80"]),
        ),
        (
            &[("TTL", "1m")],
            CheckKind::Ttl(std::time::Duration::from_secs(60)),
        ),
        (
            &[("TCP", "true"), ("GRPC", "true")],
            CheckKind::Tcp(address),
        ),
        (
            &[("ALIAS", "db:5432")],
            CheckKind::Alias("host1:db:5432".to_owned()),
        ),
        (
            &[("ALIAS", "db:53:udp")],
            CheckKind::Alias("host1:db:53:udp".to_owned()),
        ),
        (
            &[("ALIAS", "elsewhere:db:5432")],
            CheckKind::Alias("elsewhere:db:5432".to_owned()),
        ),
        (&[("ALIAS", "db"), ("TCP", "1")], CheckKind::Tcp(address)),
        (
            &[("GRPC", "true"), ("TLS_SKIP_VERIFY", "1")],
            grpc(false, false),
        ),
        (
            &[
                ("GRPC", "1"),
                ("GRPC_USE_TLS", "1"),
                ("TLS_SKIP_VERIFY", "1"),
            ],
            grpc(true, true),
        ),
    ] {
        let words: Vec<_> = words
            .iter()
            .map(|(key, text)| (format!("SERVICE_CHECK_{key}"), *text))
            .collect();
        let words: Vec<_> = words.iter().map(|(key, text)| (&**key, *text)).collect();
        let registration = only(&container(&[80], &words));
        assert_eq!(registration.checks.len(), 1, "{words:?}");
        assert_eq!(registration.checks[0].kind, kind);
        assert_eq!(registration.checks[0].id, "service:host1:box:80:check");
        assert_eq!(attributes(&registration), []);
    }
}

#[test]
fn a_check_has_its_times_and_its_first_state() {
    let words = [
        ("SERVICE_CHECK_TCP", "true"),
        ("SERVICE_CHECK_INTERVAL", "1m30s"),
        ("SERVICE_CHECK_TIMEOUT", "500ms"),
        ("SERVICE_CHECK_INITIAL_STATUS", "passing"),
        ("SERVICE_CHECK_DEREGISTER_AFTER", "1h"),
    ];
    let check = only(&container(&[80], &words)).checks.remove(0);
    let seconds = std::time::Duration::from_secs_f64;
    assert_eq!(check.interval, seconds(90.0));
    assert_eq!(check.timeout, Some(seconds(0.5)));
    assert_eq!(check.initial, Some(CheckStatus::Passing));
    assert_eq!(check.deregister_after, Some(seconds(3600.0)));
    let check = only(&container(&[80], &words[..1])).checks.remove(0);
    assert_eq!((check.interval, check.timeout), (seconds(10.0), None));
}

#[test]
fn several_checks_have_numbers_and_share_the_plain_times() {
    let registration = only(&container(
        &[80],
        &[
            ("SERVICE_CHECK_TCP", "true"),
            ("SERVICE_CHECK_INTERVAL", "5s"),
            ("SERVICE_CHECK_2_HTTP", "/b"),
            ("SERVICE_CHECK_2_INTERVAL", "2s"),
            ("SERVICE_CHECK_1_HTTP", "/a"),
            // Times alone make no check.
            ("SERVICE_CHECK_3_INTERVAL", "9s"),
        ],
    ));
    let checks = registration.checks.iter();
    let seen: Vec<_> = checks.map(|it| (&*it.id, it.interval.as_secs())).collect();
    assert_eq!(
        seen,
        [
            ("service:host1:box:80:check", 5),
            ("service:host1:box:80:check-1", 5),
            ("service:host1:box:80:check-2", 2)
        ]
    );
}

#[test]
fn a_check_that_cannot_be_made_is_critical_and_wrong_times_are_told() {
    let it = container(&[80], &[("SERVICE_CHECK_TTL", "10")]);
    problem(&it, &internal(), "SERVICE_CHECK_TTL=`10`: write a time");
    let kind = &read(&it, &internal()).registrations[0].checks[0].kind;
    assert!(matches!(kind, CheckKind::Unusable(why) if why.contains("=`10`")));
    for (key, text) in [
        ("INTERVAL", "10"),
        ("INITIAL_STATUS", "up"),
        ("HTTP_METHOD", "A B"),
    ] {
        let key = format!("SERVICE_CHECK_{key}");
        let it = container(&[80], &[("SERVICE_CHECK_HTTP", "/"), (&key, text)]);
        problem(&it, &internal(), "has no effect");
        assert_eq!(read(&it, &internal()).registrations[0].checks.len(), 1);
    }
}

#[test]
fn a_healthcheck_and_the_heartbeat_are_checks_too() {
    let mut it = container(&[80], &[("SERVICE_CHECK_TCP", "1")]);
    it.health = Some(Health::Starting);
    let ttl = std::time::Duration::from_secs(30);
    let settings = Settings {
        ttl: Some(ttl),
        ..internal()
    };
    let registration = read(&it, &settings).registrations.remove(0);
    let kinds = registration.checks.iter().map(|it| &it.kind);
    let kinds: Vec<_> = kinds.skip(1).collect();
    assert_eq!(kinds, [&CheckKind::Docker, &CheckKind::Heartbeat(ttl)]);
    // The verdict is no part of the registration.
    it.health = Some(Health::Healthy);
    assert_eq!(read(&it, &settings).registrations[0], registration);
}

#[test]
fn other_checks_make_another_mark() {
    let mark = |words: &[_]| only(&container(&[80], words)).meta[meta::CHECKS].clone();
    let tcp = mark(&[("SERVICE_CHECK_TCP", "1")]);
    assert_eq!(tcp, mark(&[("SERVICE_CHECK_TCP", "true")]));
    assert_ne!(tcp, mark(&[]));
    assert_ne!(
        tcp,
        mark(&[("SERVICE_CHECK_TCP", "1"), ("SERVICE_CHECK_INTERVAL", "1s")])
    );
}

#[test]
fn a_word_that_may_have_been_meant_as_a_check_is_critical() {
    for (words, critical) in [
        (&[("SERVICE_CHECK_HTPP", "/")][..], true),
        (&[("SERVICE_CHECK_01_HTTP", "/")], true),
        (&[("SERVICE_CHECK_70000_HTTP", "/")], true),
        (&[("SERVICE_CHECK", "http")], true),
        (
            &[("SERVICE_CHECK_TCP", "1"), ("SERVICE_CHECK_2_HTPP", "/")],
            true,
        ),
        (
            &[
                ("SERVICE_CHECK_TCP", "1"),
                ("SERVICE_CHECK_INTERVALL", "1s"),
            ],
            false,
        ),
    ] {
        let it = container(&[80], words);
        problem(&it, &internal(), "is no word for a check");
        let checks = &read(&it, &internal()).registrations[0].checks;
        let is_lost = |check: &Check| matches!(check.kind, CheckKind::Unusable(_));
        assert_eq!(checks.iter().any(is_lost), critical, "{words:?}");
    }
    let empty = container(&[80], &[("SERVICE_CHECK_HTPP", "")]);
    assert_eq!(only(&empty).checks, []);
}

#[test]
fn nothing_is_an_alias_of_itself() {
    for other in ["box:80", "host1:box:80"] {
        let it = container(&[80], &[("SERVICE_CHECK_1_ALIAS", other)]);
        problem(
            &it,
            &internal(),
            "SERVICE_CHECK_1_ALIAS: it is that service itself",
        );
        let kind = &read(&it, &internal()).registrations[0].checks[0].kind;
        assert!(matches!(kind, CheckKind::Unusable(_)), "{kind:?}");
    }
}

#[test]
fn a_script_has_the_timeout_of_its_number_and_not_the_plain_one() {
    let second = Some(std::time::Duration::from_secs(1));
    let timeouts = |it: &Container| {
        let checks = only(it).checks;
        checks.iter().map(|it| it.timeout).collect::<Vec<_>>()
    };
    for kind in ["SCRIPT", "CMD"] {
        let plain = format!("SERVICE_CHECK_{kind}");
        let timeout = ("SERVICE_CHECK_TIMEOUT", "1s");
        let it = container(&[80], &[(&plain, "true"), timeout]);
        problem(
            &it,
            &internal(),
            "SERVICE_CHECK_TIMEOUT has no effect on a script",
        );
        assert_eq!(
            read(&it, &internal()).registrations[0].checks[0].timeout,
            None
        );
        // It is meant for the other one.
        let other = ("SERVICE_CHECK_1_TCP", "1");
        let it = container(&[80], &[(&plain, "true"), timeout, other]);
        assert_eq!(timeouts(&it), [None, second]);
        let numbered = format!("SERVICE_CHECK_1_{kind}");
        let own = ("SERVICE_CHECK_1_TIMEOUT", "1s");
        assert_eq!(
            timeouts(&container(&[80], &[(&numbered, "true"), own])),
            [second]
        );
        let tcp = ("SERVICE_CHECK_TCP", "1");
        let it = container(&[80], &[(&numbered, "true"), timeout, tcp]);
        assert_eq!(timeouts(&it), [second, None]);
    }
}
