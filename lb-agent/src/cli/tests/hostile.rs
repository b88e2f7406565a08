//! Whatever others write into a name: it reaches no terminal, leaves no cell and is no formula.

use proptest::prelude::*;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::*;
use crate::admin::{
    explain::Told,
    packets::{Line as PacketLine, Way},
    report,
    text::obeyed,
    trace::{Decided, Line},
};

/// What everything that is printed is made of.
struct Spoiled {
    report: Report,
    flows: FlowList,
    clients: Vec<Client>,
    vips: Vec<Entry>,
    told: Told,
    lines: Vec<Line>,
    packets: Vec<PacketLine>,
    way: Way,
    ordered: StateAnswer,
}

/// All texts in `value` that may be any text, in the order in which they are met.
fn texts<'v>(value: &'v mut Value, out: &mut Vec<&'v mut String>) {
    match value {
        Value::String(text) => out.push(text),
        Value::Array(items) => items.iter_mut().for_each(|it| texts(it, out)),
        Value::Object(fields) => fields.values_mut().for_each(|it| texts(it, out)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// `value` with `text` wherever that is possible.
fn spoil<T: Serialize + DeserializeOwned>(value: &T, text: &str) -> T {
    let mut spoiled = serde_json::to_value(value).unwrap();
    let mut all = Vec::new();
    texts(&mut spoiled, &mut all);
    let count = all.len();
    let mut some = false;
    for place in 0..count {
        let mut tried = spoiled.clone();
        let mut all = Vec::new();
        texts(&mut tried, &mut all);
        *all[place] = text.to_owned();
        // An address or a word of ours cannot be any text.
        if serde_json::from_value::<T>(tried.clone()).is_ok() {
            (spoiled, some) = (tried, true);
        }
    }
    assert!(some, "nothing of it is a text");
    serde_json::from_value(spoiled).unwrap()
}

impl Spoiled {
    fn with(text: &str) -> Self {
        let granted = Line::Decision(Box::new(trace::tests::granted()));
        let refused = Decided {
            refused: Some("denied".to_owned()),
            ..trace::tests::granted()
        };
        let refused = Line::Decision(Box::new(refused));
        let mut report = sample_report();
        for service in report.services.iter_mut().flatten() {
            for backend in &mut service.backends {
                backend.probe.error = Some("refused".to_owned());
            }
        }
        let answer = StateAnswer {
            service: "www_hello".to_owned(),
            matched: vec![sample::key("file", "a")],
            mode: Mode::Drain,
            cut_unix: None,
            not_yet_in: vec!["the maps".to_owned()],
        };
        Self {
            report: spoil(&report, text),
            flows: spoil(&flow_list(), text),
            clients: spoil(&container_list(), text),
            vips: spoil(&vip_list(), text),
            told: spoil(&explain::tests::told(), text),
            lines: [granted, refused]
                .iter()
                .map(|it| spoil(it, text))
                .collect(),
            packets: vec![spoil(
                &PacketLine::Packet(packets::tests::traced().into()),
                text,
            )],
            way: spoil(&packets::tests::way(), text),
            ordered: spoil(&answer, text),
        }
    }

    /// Everything that is printed as `output`.
    fn printed(&self, output: Output) -> Vec<String> {
        let report = &self.report;
        let mut all = vec![
            text(status(report, output, Style::Plain)),
            text(services(report, output, None)),
            text(backends(report, output, None)),
            flows::print(&self.flows, output).unwrap(),
            clients::rows(&self.clients)
                .print(output, &self.clients)
                .unwrap(),
            vip::rows(&self.vips, 1000)
                .print(output, &self.vips)
                .unwrap(),
            explain::print(&self.told, output).unwrap(),
            packets::print_way(&self.way, output).unwrap(),
            text(ordered(&self.ordered, None, output)),
        ];
        let name = &report.services.as_ref().unwrap()[0].name;
        all.push(text(services(report, output, Some(name))));
        all.extend(
            self.lines
                .iter()
                .map(|it| trace::FORM.line(it, output).unwrap()),
        );
        all.extend(
            self.packets
                .iter()
                .map(|it| packets::FORM.line(it, output).unwrap()),
        );
        all
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn no_text_of_others_reaches_a_terminal(text in "[-=+@]?[\\PC\u{1b}\u{9b}\u{7}\r\n\t\u{202e}\u{feff},\"]{1,12}") {
        let spoiled = Spoiled::with(&text);
        for output in [Output::Table, Output::Wide, Output::Json, Output::Csv] {
            for printed in spoiled.printed(output) {
                let printed = match output {
                    Output::Csv => printed.replace("\r\n", "\n"),
                    _ => printed,
                };
                prop_assert!(
                    !printed.chars().any(|c| c != '\n' && obeyed(c)),
                    "{output:?}: {printed:?}"
                );
            }
        }
    }
}

#[test]
fn a_text_is_found_wherever_there_is_one() {
    let spoiled = Spoiled::with("\u{1b}x");
    let all = spoiled.printed(Output::Json);
    assert!(all.iter().all(|it| it.contains("\\u001bx")), "{all:?}");
    let table = spoiled.printed(Output::Wide);
    assert!(table.iter().all(|it| it.contains("\\u{1b}x")), "{table:?}");
}

/// A seed of each kind of answer, as they lie in `fuzz/corpus`: `LB_WRITE_GOLDEN=1` writes them anew.
#[test]
fn seeds_are_answers_of_each_kind() {
    let answer = StateAnswer {
        service: "www_hello".to_owned(),
        matched: vec![sample::key("file", "a")],
        mode: Mode::Drain,
        cut_unix: Some(1_700_000_000),
        not_yet_in: vec!["the maps".to_owned()],
    };
    let report = sample_report();
    let lines = [
        Line::Decision(Box::new(trace::tests::granted())),
        Line::Lost { lost: 7 },
    ];
    let packet = PacketLine::Packet(packets::tests::traced().into());
    let one = |value: Result<String, serde_json::Error>| value.unwrap();
    let seeds = [
        ("report", one(serde_json::to_string(&report))),
        (
            "status",
            one(serde_json::to_string(&report::Status::from(&report))),
        ),
        ("flows", one(serde_json::to_string(&flow_list()))),
        ("clients", one(serde_json::to_string(&container_list()))),
        ("vips", one(serde_json::to_string(&vip_list()))),
        (
            "explain",
            one(serde_json::to_string(&explain::tests::told())),
        ),
        ("trace", one(serde_json::to_string(&lines[0]))),
        ("lost", one(serde_json::to_string(&lines[1]))),
        ("packets", one(serde_json::to_string(&packet))),
        ("way", one(serde_json::to_string(&packets::tests::way()))),
        ("ordered", one(serde_json::to_string(&answer))),
    ];
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/cli_answers");
    for (name, json) in seeds {
        let kind = if name == "lost" { "trace" } else { name };
        let mut seeds = vec![(name.to_owned(), format!("{kind}\n{json}"))];
        if name == "report" {
            let twice = format!("top\n{json}\n{json}");
            seeds.push(("top".to_owned(), twice));
        }
        for (name, text) in seeds {
            let path = folder.join(&name);
            if std::env::var_os("LB_WRITE_GOLDEN").is_some() {
                std::fs::write(&path, &text).unwrap();
            }
            assert_eq!(std::fs::read_to_string(&path).unwrap(), text, "{name}");
            // Each is understood, or it would be of no use.
            for printed in fuzz::printed(text.split('\n').next().unwrap(), json.as_bytes()) {
                assert!(!printed.contains("cannot talk"), "{name}: {printed}");
            }
        }
    }
}
