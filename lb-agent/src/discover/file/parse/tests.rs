use proptest::prelude::*;

use super::{Catalog, parse};
use crate::catalog::SourceHealth;

#[track_caller]
fn good(text: &str) -> Catalog {
    parse(text).unwrap()
}

#[track_caller]
fn wrong(text: &str, expect: &[(usize, &str)]) {
    let error = parse(text).unwrap_err();
    let lines: Vec<usize> = error.mistakes.iter().map(|mistake| mistake.line).collect();
    let expected: Vec<usize> = expect.iter().map(|(line, _)| *line).collect();
    assert_eq!(lines, expected, "{error}");
    for (mistake, (_, part)) in error.mistakes.iter().zip(expect) {
        assert!(mistake.message.contains(part), "{mistake} lacks {part}");
    }
}

/// A service `db` with this one instance beside a good one.
#[track_caller]
fn left_out(instance: &str, subject: &str, part: &str) {
    let catalog = good(&format!(
        "[[service]]\nname = \"db\"\ninstance = [\n{{ id = \"good\", address = \"10.0.0.1\", port = 1 }},\n{instance}]\n"
    ));
    assert_eq!(catalog.services["db"].len(), 1);
    assert_eq!(&*catalog.services["db"][0].key.id, "good");
    let [problem] = &catalog.problems[..] else {
        panic!("{:?}", catalog.problems);
    };
    assert_eq!(problem.subject, subject);
    assert!(problem.message.contains(part), "{problem} lacks {part}");
    assert!(problem.message.contains("line 5"), "{problem}");
}

#[test]
fn a_whole_file_is_a_catalog() {
    let catalog = good(
        r#"
        [[service]]
        name = "www_hello"
        tags = ["lb_balance=random"]
        [service.options]
        lb_check = "http /"
        lb_drain = 45
        [[service.instance]]
        id = "a"
        address = "10.0.0.1"
        port = 80
        [[service.instance]]
        id = "b"
        address = "fd00::1"
        port = 8080
        weight = 0
        tags = ["blue"]
        health = "maintenance"

        [[service]]
        name = "empty"
        "#,
    );
    assert_eq!(catalog.problems, []);
    assert_eq!(*catalog.services["empty"], []);
    let [a, b] = &catalog.services["www_hello"][..] else {
        panic!("{catalog:?}");
    };
    assert_eq!(a.key.to_string(), "file/a");
    assert_eq!(a.address.to_string(), "10.0.0.1:80");
    assert_eq!((a.weight, a.health), (1, SourceHealth::Passing));
    assert_eq!(a.meta["lb_check"], "http /");
    assert_eq!(a.meta["lb_drain"], "45");
    assert!(a.tags.contains("lb_balance=random") && !a.tags.contains("blue"));
    assert_eq!(b.address.to_string(), "[fd00::1]:8080");
    assert_eq!((b.weight, b.health), (0, SourceHealth::Maintenance));
    assert!(b.tags.contains("lb_balance=random") && b.tags.contains("blue"));
    assert!(b.registered > a.registered);
}

#[test]
fn no_service_must_be_said() {
    assert_eq!(good("service = []"), Catalog::default());
    assert_eq!(good("# None today.\n"), Catalog::default());
    wrong("", &[(1, "the file is empty")]);
    wrong(" \n\n", &[(1, "the file is empty")]);
}

#[test]
fn a_mistake_in_every_line_makes_no_endless_text() {
    let text = "[[service]]\nname = \"web\"\nport = 80\n".repeat(1_000);
    let error = parse(&text).unwrap_err();
    assert_eq!(error.mistakes.len(), 1_000);
    let said = error.to_string();
    assert!(said.starts_with("line 3: [[service]] has no key"), "{said}");
    let rest = "; and 992 more, which `lb-agent check-config` tells";
    assert!(said.ends_with(rest) && said.len() < 2_000, "{said}");
}

#[test]
fn all_mistakes_of_form_are_told_at_once() {
    wrong(
        "[[service]]\nnmae = \"x\"\n[[service.instance]]\nid = 1\nport = \"80\"\n\n[[services]]\nname = \"y\"\n",
        &[
            (1, "needs a `name`"),
            (2, "no key `nmae`; it knows: name, tags"),
            (3, "needs an `id`"),
            (4, "`id` must be a string"),
            (5, "`port` must be a whole number"),
            (7, "no key `services`; it knows: service"),
        ],
    );
    wrong("[[service]\nname = 1\n", &[(1, "not TOML")]);
    wrong("service = 1", &[(1, "a list of tables, [[service]]")]);
}

#[test]
fn an_entry_that_cannot_be_used_is_left_out_and_told() {
    let subject = "instance file/x";
    left_out(
        r#"{ id = "x", address = "db.example.org", port = 1 }"#,
        subject,
        "`db.example.org` is not an IP address",
    );
    left_out(r#"{ id = "x", port = 1 }"#, subject, "no `address`");
    left_out(
        r#"{ id = "x", address = "0.0.0.0", port = 1 }"#,
        subject,
        "0.0.0.0 cannot be a server's address",
    );
    left_out(
        r#"{ id = "x", address = "10.0.0.2" }"#,
        subject,
        "no `port`",
    );
    for port in ["0", "65536", "-1"] {
        left_out(
            &format!(r#"{{ id = "x", address = "10.0.0.2", port = {port} }}"#),
            subject,
            "from 1 to 65535",
        );
    }
    left_out(
        r#"{ id = "x", address = "10.0.0.2", port = 1, weight = 65536 }"#,
        subject,
        "weight 65536",
    );
    left_out(
        r#"{ id = "x", address = "10.0.0.2", port = 1, health = "ill" }"#,
        subject,
        "passing or maintenance",
    );
    left_out(
        r#"{ id = "good", address = "10.0.0.2", port = 1 }"#,
        "instance file/good",
        "taken by an earlier instance",
    );
}

#[test]
fn a_name_that_is_no_host_name_is_served_and_told() {
    let catalog = good("[[service]]\nname = \"my service\"\n");
    assert!(catalog.services.contains_key("my service"));
    assert!(catalog.problems[0].message.contains("by its VIP only"));
}

#[test]
fn a_service_declared_twice_keeps_the_first_declaration() {
    let catalog = good(
        "[[service]]\nname = \"a\"\n[[service]]\nname = \"a\"\ninstance = [{ id = \"x\", address = \"10.0.0.1\", port = 1 }]\n",
    );
    assert_eq!(*catalog.services["a"], []);
    assert!(catalog.problems[0].message.contains("declared twice"));
}

proptest! {
    #[test]
    fn no_text_panics(text in ".{0,200}") {
        let _ = parse(&text);
    }

    #[test]
    fn no_document_panics(
        name in ".{0,10}", id in ".{0,4}", address in ".{0,12}", port: i64, weight: i64, health in ".{0,4}",
    ) {
        let quoted = |text: &str| toml::Value::from(text).to_string();
        let text = format!(
            "[[service]]\nname = {}\ninstance = [{{ id = {}, address = {}, port = {port}, weight = {weight}, health = {} }}]",
            quoted(&name), quoted(&id), quoted(&address), quoted(&health),
        );
        prop_assert!(parse(&text).is_ok());
    }
}
