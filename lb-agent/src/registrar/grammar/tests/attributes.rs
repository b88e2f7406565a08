//! Tags, weight and what goes into Meta.

use super::*;
use crate::registrar::Template;

#[test]
fn tags_keep_their_order_and_blanks_and_an_escaped_comma() {
    for (text, tags) in [
        ("b,a", vec!["b", "a"]),
        ("a,,b,", vec!["a", "b"]),
        (r"a\,b,c", vec!["a,b", "c"]),
        (r"a\b, c", vec![r"a\b", " c"]),
        (r"x\", vec![r"x\"]),
        ("a,b,a", vec!["a", "b"]),
        (
            "server_alias=x.y,lb_balance=random",
            vec!["server_alias=x.y", "lb_balance=random"],
        ),
    ] {
        assert_eq!(
            only(&container(&[80], &[("SERVICE_TAGS", text)])).tags,
            tags,
            "{text}"
        );
    }
}

#[test]
fn attributes_are_cut_to_what_consul_takes_and_one_problem_names_them() {
    let long = "ü".repeat(400);
    let mut words = vec![
        ("SERVICE_A-LONG".to_owned(), long),
        ("SERVICE_B".to_owned(), "http://x".to_owned()),
        ("SERVICE_DOTTED.KEY".to_owned(), "x".to_owned()),
        ("SERVICE_CONSUL-X".to_owned(), "x".to_owned()),
        ("SERVICE_LB-REGISTRAR".to_owned(), "other".to_owned()),
        ("SERVICE_LB_BALANCE".to_owned(), "random".to_owned()),
    ];
    words.extend((100..170).map(|n| (format!("SERVICE_A{n}"), "x".to_owned())));
    let mut it = container(&[80, 81], &[]);
    it.environment = words;
    let reading = read(&it, &internal());
    assert_eq!(reading.problems.len(), 1);
    let message = &reading.problems[0].message;
    for part in [
        "`a-long` cut",
        "`dotted.key`",
        "`consul-x`",
        "`lb-registrar`",
        "`a169`",
    ] {
        assert!(message.contains(part), "{part}: {message}");
    }
    for registration in &reading.registrations {
        let meta = &registration.meta;
        assert_eq!(meta.len(), meta::PAIRS);
        assert_eq!(meta["lb_balance"], "random");
        assert_eq!(meta[meta::REGISTRAR], "host1");
    }
}

#[test]
fn the_list_of_attributes_leaves_options_alone() {
    let listed = Settings {
        attributes: Some(BTreeSet::from(["region".to_owned()])),
        ..internal()
    };
    let it = container(
        &[80],
        &[
            ("SERVICE_REGION", "eu"),
            ("SERVICE_SECRET", "s"),
            ("SERVICE_LB_PORT", "80"),
        ],
    );
    let reading = read(&it, &listed);
    assert_eq!(
        attributes(&reading.registrations[0]),
        [("lb_port", "80"), ("region", "eu")]
    );
}

#[test]
fn a_weight_is_consuls_and_zero_is_told() {
    assert_eq!(
        only(&container(&[80], &[("SERVICE_WEIGHT", "7")])).weight,
        Some(7)
    );
    for text in ["0", "-1", "65536", "x"] {
        problem(
            &container(&[80], &[("SERVICE_WEIGHT", text)]),
            &internal(),
            "SERVICE_WEIGHT=",
        );
    }
}

#[test]
fn forced_tags_may_name_fields_of_the_container() {
    let mut it = container(&[80], &[("SERVICE_TAGS", "own"), ("ROLE", "db")]);
    it.labels
        .insert("com.example.team".to_owned(), "red".to_owned());
    let texts = [
        "plain",
        "{{.Name}}-{{ .Config.Labels.com.example.team }}",
        "{{.Config.Env.ROLE}}{{.Config.Env.NONE}}",
        "{{.Config.Env.SERVICE_TAGS}}",
    ];
    // The later one counts, for words and for templates.
    it.environment
        .push(("SERVICE_TAGS".to_owned(), "later".to_owned()));
    let settings = Settings {
        tags: texts.map(|text| text.parse().unwrap()).to_vec(),
        ..internal()
    };
    let tags = &read(&it, &settings).registrations[0].tags;
    assert_eq!(tags, &["later", "plain", "box-red", "db"]);
    for text in [
        "{{toUpper .Name}}",
        "{{.Name | html}}",
        "{{.State.Pid}}",
        "{{.Config.Labels.}}",
    ] {
        let error = text.parse::<Template>().unwrap_err().to_string();
        assert!(error.contains("is not supported; use .ID"), "{error}");
    }
    assert!("{{.Name".parse::<Template>().is_err());
}

#[test]
fn an_empty_option_is_none_and_one_that_is_too_long_is_left_out() {
    let it = container(
        &[80],
        &[("SERVICE_LB_EXPOSE", "true"), ("SERVICE_80_LB_EXPOSE", "")],
    );
    assert_eq!(attributes(&only(&it)), []);
    let path = format!("http /{}", "a".repeat(600));
    let it = container(&[80], &[("SERVICE_LB_CHECK", &path)]);
    problem(&it, &internal(), "`lb_check` left out (over 512 bytes)");
    assert_eq!(attributes(&read(&it, &internal()).registrations[0]), []);
}
