//! `docs/http.md` is true: its examples are run as they stand, by the way that a services file takes through the agent.

#[path = "documents/example.rs"]
mod example;
#[path = "documents/instances.rs"]
mod instances;
#[path = "documents/written.rs"]
mod written;

use lb_agent::{
    config::RawConfig,
    options::table::{self, FRONT},
};
use lb_testkit::markdown::{Block, blocks};

use self::{
    example::Example,
    written::{expected, written},
};
use crate::kit::golden;

const TEXT: &str = include_str!("../../../docs/http.md");

#[test]
fn every_example_of_the_document_is_answered_as_it_says() {
    let mut example = None;
    let mut asked: Option<&Block<'_>> = None;
    let mut compared = 0;
    let blocks = blocks(TEXT);
    for block in &blocks {
        let line = block.line;
        match block.language {
            "toml" => example = Some(Example::new(&block.text)),
            "http" if block.text.starts_with("HTTP/") => {
                let request = asked
                    .take()
                    .unwrap_or_else(|| panic!("line {line}: no request"));
                let example = example.as_ref().expect("services stand before requests");
                let answer = written(&example.ask(&request.text));
                assert_eq!(answer, expected(&block.text), "line {line}");
                compared += 1;
            }
            "http" => {
                assert!(
                    asked.is_none(),
                    "line {line}: the request before has no answer"
                );
                asked = Some(block);
            }
            "text" => {
                let example = example.as_ref().expect("services stand before users");
                example.write_users(&block.text);
            }
            "log" => {
                let example = example.as_ref().expect("services stand before lines");
                let lines = |text: &str| text.lines().map(golden).collect::<Vec<_>>();
                let logged = example.logged(&block.text);
                assert_eq!(lines(&logged), lines(&block.text), "line {line}");
            }
            "html" => {
                let example = example.as_ref().expect("services stand before pages");
                example.write_pages(&block.text);
            }
            language => panic!("line {line}: nobody runs `{language}`"),
        }
    }
    assert!(asked.is_none(), "the last request has no answer");
    assert!(compared > 0, "there is no example");
}

#[test]
fn every_option_and_every_key_of_the_front_is_in_the_document() {
    for option in FRONT {
        let mut headings = TEXT.match_indices("\n### ").map(|(at, _)| &TEXT[at + 1..]);
        let name = format!("`{}`", option.name);
        let section = headings.find(|it| it.lines().next().unwrap().contains(&name));
        let section =
            section.unwrap_or_else(|| panic!("docs/http.md has no section for {}", option.name));
        let section = &section[..section.find("\n##").unwrap_or(section.len())];
        let family = option.name.trim_end_matches('*');
        let shown = blocks(section);
        assert!(
            shown
                .iter()
                .any(|block| block.language == "toml" && block.text.contains(family)),
            "docs/http.md has no example of {}",
            option.name
        );
    }
    // What holds for VIPs as well.
    for name in ["lb_expose", "lb_weight"] {
        assert!(table::all().any(|option| option.name == name), "{name}");
        assert!(
            blocks(TEXT)
                .iter()
                .any(|block| block.language == "toml" && block.text.contains(name)),
            "docs/http.md has no example of {name}"
        );
    }
    // The fields are the keys.
    let raw = format!("{:?}", RawConfig::default());
    let fields = raw
        .split([' ', ',', '{'])
        .filter_map(|word| word.strip_suffix(':'));
    let keys: Vec<_> = fields
        .filter_map(|field| {
            let mut tables = ["front_", "tls_", "http_limits_"].into_iter();
            tables.find_map(|table| field.strip_prefix(table))
        })
        .collect();
    assert!(keys.contains(&"expose"), "{raw}");
    for key in keys {
        assert!(
            TEXT.lines().any(|line| {
                let keys = line
                    .strip_prefix("| ")
                    .and_then(|line| line.split(" |").next());
                keys.is_some_and(|keys| keys.split(", ").any(|it| it == format!("`{key}`")))
            }),
            "docs/http.md says nothing of `[front] {key}`"
        );
    }
}
