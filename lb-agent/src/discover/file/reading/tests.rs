use std::sync::Arc;

use proptest::prelude::*;

use super::*;

/// Reads `texts` one after the other, and says of each what reading it alone says.
#[track_caller]
fn check(texts: &[String]) {
    let mut reading = Reading::default();
    for text in texts {
        let read = reading.read(text.clone().into());
        assert_eq!(read, parse(text).map(Arc::new), "{text}");
    }
}

fn service(name: &str, ids: &[u8]) -> String {
    let instance = |id: &u8| {
        format!("[[service.instance]]\nid = \"{id}\"\naddress = \"10.0.0.{id}\"\nport = 1\n")
    };
    let instances: String = ids.iter().map(instance).collect();
    format!("[[service]]\nname = \"{name}\"\n{instances}\n")
}

#[test]
fn a_change_in_one_service_leaves_the_others_their_allocation() {
    let mut reading = Reading::default();
    let (a, b, c) = (
        service("a", &[1]),
        service("b", &[1, 2]),
        service("c", &[3]),
    );
    let first = reading.read(format!("# Ours.\n{a}{b}{c}").into()).unwrap();
    let changed = b.replace("10.0.0.2", "10.0.0.9");
    let text = format!("# Ours.\n# Two lines\n{a}{changed}{c}");
    let second = reading.read(text.clone().into()).unwrap();
    assert_eq!(Ok(&*second), parse(&text).as_ref());
    for name in ["a", "c"] {
        let (before, now) = (&first.services[name], &second.services[name]);
        assert!(Arc::ptr_eq(before, now), "{name}");
    }
    let (before, now) = (&first.services["b"], &second.services["b"]);
    assert!(Arc::ptr_eq(&before[0], &now[0]));
    assert_eq!(now[1].address.to_string(), "10.0.0.9:1");
}

#[test]
fn only_what_changed_is_read_again() {
    let mut reading = Reading::default();
    let services = |port: &str| {
        let names = ["a", "b", "c", "d", "e"].map(|name| service(name, &[1]));
        names.concat().replacen("port = 1", port, 3)
    };
    reading.read(services("port = 1").into()).unwrap();
    let text = services("port = 1").replacen("\"c\"", "\"cc\"", 1);
    let changed = reading.changed(text.as_bytes()).unwrap();
    assert_eq!(
        (changed.head, changed.blocks.len(), changed.tail),
        (2, 1, 2)
    );
}

#[test]
fn a_text_of_the_same_services_is_the_same_catalog() {
    let mut reading = Reading::default();
    let (a, b) = (service("a", &[1]), service("b", &[2]));
    let first = reading.read(format!("{a}{b}").into()).unwrap();
    let second = reading.read(format!("{a}# More.\n{b}").into()).unwrap();
    assert!(Arc::ptr_eq(&first, &second));
}

#[test]
fn what_is_not_utf8_is_told_with_its_line() {
    let mut reading = Reading::default();
    let a = service("a", &[1]);
    let first = reading.read(a.clone().into()).unwrap();
    let mut text = a.clone().into_bytes();
    text.extend(b"# caf\xe9\n");
    let lines = a.lines().count();
    let wrong = reading.read(text).unwrap_err();
    assert_eq!(wrong.mistakes.len(), 1);
    assert_eq!(wrong.mistakes[0].line, lines + 1);
    assert!(Arc::ptr_eq(&first, &reading.read(a.into()).unwrap()));
}

#[test]
fn lines_stay_right_when_something_is_written_above() {
    let bad = service("b", &[1]).replace("10.0.0.1", "nowhere");
    let a = service("a", &[1]);
    check(&[
        format!("{a}{bad}{bad}"),
        format!("# One more.\n{a}{bad}{bad}"),
        format!("{a}{a}{bad}{bad}"),
        bad.clone(),
    ]);
}

#[test]
fn a_cut_within_a_string_or_a_list_is_none() {
    let text = "[[service]]\nname = \"\"\"a\n[[service]]\nname = 1\n\"\"\"\n";
    let a = service("a", &[1]);
    check(&[
        format!("{a}{text}"),
        format!("service = [{{ name = \"x\" }}]\n{a}"),
        "service = []\n".to_owned(),
        format!("{a}service = 1\n"),
        format!("{a}[[service\n"),
        format!("[[service]] # a\n{}", &a[12..]),
        format!("{a}[[ service ]]\nname = \"z\"\n{a}"),
        String::new(),
        "\n \n".to_owned(),
    ]);
}

fn texts() -> impl Strategy<Value = Vec<String>> {
    let piece = prop_oneof![
        8 => ("[a-e]", prop::collection::vec(1..6u8, 0..4)).prop_map(|(name, ids)| service(&name, &ids)),
        1 => Just("# [[service]]\n".to_owned()),
        1 => Just("[[service]]\nname = \"my service\"\ninstance = [{ id = \"x\", address = \"?\", port = 1 }]\n".to_owned()),
        1 => Just("tags = [\"x\",\n\"y\"]\n".to_owned()),
        1 => Just("[[service]]\nname = '''\n[[service]]\nname = \"q\"\n'''\n".to_owned()),
        1 => Just("service = []\n".to_owned()),
        1 => Just("[service.options]\nlb_check = \"off\"\n".to_owned()),
        1 => Just("[[service]]".to_owned()),
        1 => Just("]]\n".to_owned()),
    ];
    let text = prop::collection::vec(piece, 0..8);
    prop::collection::vec(text.prop_map(|pieces| pieces.concat()), 1..6)
}

/// An edit: where, how much is cut out, and what is put there.
fn edit() -> impl Strategy<Value = (usize, usize, String)> {
    let put = prop_oneof![
        Just(String::new()),
        Just("\n".to_owned()),
        Just("[[service]]\nname = \"n\"\n".to_owned()),
        "[\\[\\]\n\"a-c=#]{0,4}",
    ];
    (0..400usize, 0..40usize, put)
}

proptest! {
    #[test]
    fn reading_what_changed_says_what_reading_all_says(
        texts in texts(), edits in prop::collection::vec(edit(), 0..8),
    ) {
        let mut all = texts;
        for (at, length, put) in edits {
            let mut text = all.last().cloned().unwrap_or_default();
            let at = at.min(text.len());
            let end = (at + length).min(text.len());
            text.replace_range(at..end, &put);
            all.push(text);
        }
        check(&all);
    }
}
