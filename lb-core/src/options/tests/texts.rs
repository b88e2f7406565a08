//! What a text is: a domain, a DNS name, a duration.

use super::*;

#[test]
fn domain_tags_are_dns_names_that_mean_nothing_else() {
    let resolved = tagged(&[
        "hello",
        "world.dev",
        "udp",
        "sticky_session",
        "public_ipaddress=1.2.3.4",
        "server_name=x",
        "version=1",
        "under_score",
        "-a",
        "",
        "a..b",
        "ünicode",
    ]);
    let tags: Vec<&str> = resolved.domain_tags.iter().map(String::as_str).collect();
    assert_eq!(tags, ["hello", "world.dev"]);
    assert_eq!(resolved.problems, BTreeSet::new());
}

#[test]
fn dns_names_have_bounded_labels() {
    let long = "a".repeat(63);
    assert!(is_dns_name(&long));
    assert!(!is_dns_name(&format!("{long}a")));
    assert!(!is_dns_name(&[&*long; 4].join(".")));
    assert!(!is_dns_name("a."));
}

#[test]
fn durations_have_units() {
    for (text, milliseconds) in [
        ("2", Some(2_000)),
        ("100ms", Some(100)),
        ("3s", Some(3_000)),
        ("1m", Some(60_000)),
        ("1h", Some(3_600_000)),
        ("", None),
        ("s", None),
        ("1d", None),
        ("-1", None),
        ("1.5s", None),
        ("99999999999999999999", None),
        ("18446744073709551615h", None),
    ] {
        let expect = milliseconds.map(Duration::from_millis);
        assert_eq!(parse_duration(text), expect, "{text}");
    }
}
