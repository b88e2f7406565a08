//! What is registered, and under which names and ids.

use super::*;

#[test]
fn a_container_that_says_nothing_is_named_after_its_image() {
    let registration = only(&container(&[80], &[]));
    assert_eq!(registration.name, "web");
    assert_eq!(registration.id, "host1:box:80");
    assert_eq!(registration.address.to_string(), "172.17.0.5:80");
    assert_eq!(registration.container, ID);
    assert_eq!((registration.tags.len(), registration.weight), (0, None));
    for (image, name) in [
        ("web", "web"),
        ("web@sha256:00ff", "web"),
        ("registry:5000/team/web:1.2@sha256:00ff", "web"),
        ("registry:5000/web", "web"),
    ] {
        assert_eq!(default_name(image), name, "{image}");
    }
}

#[test]
fn a_label_overrides_a_variable_and_a_ports_own_word_a_general_one() {
    let mut it = container(
        &[80],
        &[("SERVICE_NAME", "env"), ("SERVICE_80_REGION", "own")],
    );
    it.labels
        .insert("SERVICE_NAME".to_owned(), "label".to_owned());
    it.labels
        .insert("SERVICE_REGION".to_owned(), "general".to_owned());
    let registration = only(&it);
    assert_eq!(registration.name, "label");
    assert_eq!(attributes(&registration), [("region", "own")]);
    it.labels
        .insert("SERVICE_80_NAME".to_owned(), "own".to_owned());
    assert_eq!(only(&it).name, "own");
}

#[test]
fn only_the_prefix_minds_its_case_and_an_empty_word_is_none() {
    let registration = only(&container(
        &[80],
        &[
            ("SERVICE_NaMe", "n"),
            ("service_tags", "a"),
            ("Service_ID", "x"),
            ("SERVICE_ID", ""),
        ],
    ));
    assert_eq!(
        (&*registration.name, &*registration.id),
        ("n", "host1:box:80")
    );
    assert_eq!(registration.tags.len(), 0);
}

#[test]
fn digits_with_nothing_behind_are_an_attribute_and_what_is_no_port_is_told() {
    let plain = only(&container(
        &[80],
        &[("SERVICE_123", "x"), ("SERVICE_99999_NAME", "")],
    ));
    assert_eq!(attributes(&plain), [("123", "x")]);
    assert_eq!(plain.name, "web");
    for (words, part) in [
        (&["99999_NAME"][..], "SERVICE_99999_NAME has no effect"),
        (&["080_NAME"], "SERVICE_080_NAME has no effect"),
        (&["0_TAGS"], "write one from 1 to 65535"),
        (
            &["65536_CHECK_TCP", "70000_NAME", "0_NAME"],
            "SERVICE_0_NAME and 2 more of its kind",
        ),
    ] {
        let words: Vec<_> = words.iter().map(|it| format!("SERVICE_{it}")).collect();
        let words: Vec<_> = words.iter().map(|key| (&**key, "n")).collect();
        let it = container(&[80], &words);
        problem(&it, &internal(), part);
        names(&it, &internal(), &["web"]);
    }
}

#[test]
fn udp_ports_have_a_tag_and_an_id_of_their_own() {
    let mut it = container(&[], &[("SERVICE_53_NAME", "dns"), ("SERVICE_TAGS", "a")]);
    it.exposed = BTreeSet::from([tcp(53), udp(53)]);
    let reading = read(&it, &internal());
    let seen = reading.registrations.iter();
    let seen: Vec<_> = seen
        .map(|it| (&*it.name, &*it.id, it.tags.join(" ")))
        .collect();
    assert_eq!(
        seen,
        [
            ("dns", "host1:box:53", "a".to_owned()),
            ("dns", "host1:box:53:udp", "a udp".to_owned())
        ]
    );
}

#[test]
fn names_of_several_ports_end_in_the_port_unless_they_are_its_own() {
    names(
        &container(&[80, 81], &[]),
        &internal(),
        &["web-80", "web-81"],
    );
    let general = container(
        &[80, 81],
        &[("SERVICE_NAME", "n"), ("SERVICE_81_NAME", "own")],
    );
    names(&general, &internal(), &["n-80", "own"]);
    // Counted before anything is ignored.
    let ignored = container(&[80, 81], &[("SERVICE_80_IGNORE", "false")]);
    names(&ignored, &internal(), &["web-81"]);
    // The demo's proxy.
    let proxy = container(
        &[80, 8080],
        &[
            ("SERVICE_80_IGNORE", "true"),
            ("SERVICE_8080_NAME", "proxy-admin_infra"),
        ],
    );
    names(&proxy, &internal(), &["proxy-admin_infra"]);
}

#[test]
fn ignoring_covers_both_protocols_and_says_why() {
    let mut it = container(&[], &[("SERVICE_8301_IGNORE", "1")]);
    it.exposed = BTreeSet::from([tcp(8301), udp(8301), tcp(8500)]);
    names(&it, &internal(), &["web-8500"]);
    let reading = read(&it, &internal());
    assert_eq!(reading.left_out.len(), 2);
    assert!(reading.left_out[0].contains("port 8301/tcp: SERVICE_IGNORE"));
    names(
        &container(&[80], &[("SERVICE_IGNORE", "x")]),
        &internal(),
        &[],
    );
}

#[test]
fn in_explicit_mode_only_named_ports_count() {
    let explicit = Settings {
        explicit: true,
        ..internal()
    };
    names(&container(&[80], &[]), &explicit, &[]);
    names(
        &container(&[80, 81], &[("SERVICE_81_NAME", "n")]),
        &explicit,
        &["n"],
    );
}

#[test]
fn a_named_port_needs_no_expose_and_no_port_at_all_is_told() {
    names(
        &container(&[], &[("SERVICE_8080_NAME", "api")]),
        &internal(),
        &["api"],
    );
    let reading = read(&container(&[], &[("SERVICE_NAME", "api")]), &internal());
    assert!(
        reading.left_out[0].contains("no port is exposed"),
        "{reading:?}"
    );
}

#[test]
fn an_id_is_taken_as_it_is_unless_consul_could_not_remove_it() {
    assert_eq!(
        only(&container(&[80], &[("SERVICE_ID", "a/b c")])).id,
        "a/b c"
    );
    for id in ["..", "a//b", "/x", "a/../b", "a\nb"] {
        problem(
            &container(&[80], &[("SERVICE_ID", id)]),
            &internal(),
            "SERVICE_ID",
        );
    }
    problem(
        &container(&[80, 81], &[("SERVICE_ID", "x")]),
        &internal(),
        "port 81/tcp is not registered: another port of it has the id x; write SERVICE_81_ID",
    );
}

#[test]
fn a_port_that_is_only_named_makes_no_group_and_an_empty_own_name_is_none() {
    let stray = container(
        &[80],
        &[("SERVICE_NAME", "www"), ("SERVICE_8080_NAME", "x")],
    );
    names(&stray, &internal(), &["www", "x"]);
    let empty = container(
        &[80, 81],
        &[("SERVICE_80_NAME", ""), ("SERVICE_81_NAME", "")],
    );
    names(&empty, &internal(), &["web-80", "web-81"]);
}

#[test]
fn a_name_that_consul_cannot_be_asked_about_is_refused() {
    for name in ["..", "a//b", "a/../b", "a\nb", "a\0b", "/"] {
        let it = container(&[80], &[("SERVICE_NAME", name)]);
        problem(&it, &internal(), "write a SERVICE_NAME");
        assert_eq!(read(&it, &internal()).registrations, []);
    }
    for image in ["", "registry/", "sha256:00ffaa"] {
        let mut it = container(&[80, 81], &[]);
        it.image = image.to_owned();
        problem(&it, &internal(), "its image has no name");
        assert_eq!(read(&it, &internal()).registrations, []);
    }
}

#[test]
fn a_container_whose_name_makes_no_id_is_told() {
    let mut it = container(&[80], &[]);
    for name in ["a\nb", "a//b", &"x".repeat(600)] {
        it.name = name.to_owned();
        let reading = read(&it, &internal());
        assert_eq!(reading.registrations, []);
        let message = &reading.problems[0].message;
        assert!(message.contains("write a SERVICE_ID"), "{message}");
    }
    it.environment
        .push(("SERVICE_ID".to_owned(), "own".to_owned()));
    assert_eq!(read(&it, &internal()).registrations[0].id, "own");
}
