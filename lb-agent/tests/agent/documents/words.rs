//! What the documents call by name is in the code: commands, flags, variables, options, metrics, messages, tests.

use std::{collections::BTreeSet, fs, path::Path};

use clap::{CommandFactory as _, Parser as _};
use lb_agent::{cli::Cli, config, options::table};
use lb_testkit::markdown::{Document, blocks, code, documents, workspace};

use super::sources::sources;

/// Flags of other programs.
const OF_OTHERS: [&str; 2] = ["container-label", "expose"];

#[test]
fn every_command_of_ours_is_one() {
    let (mut parsed, mut wrong) = (0, Vec::new());
    for document in documents().unwrap() {
        for (line, command) in commands(&document) {
            parsed += 1;
            if let Err(error) = Cli::try_parse_from(config::with_long_flags(words(&command))) {
                use clap::error::ErrorKind::{DisplayHelp, DisplayVersion};
                if !matches!(error.kind(), DisplayHelp | DisplayVersion) && !is_name(&command) {
                    let why = error.to_string();
                    let why = why.lines().next().unwrap();
                    wrong.push(format!(
                        "{}:{line}: {command}: {why}",
                        document.path.display()
                    ));
                }
            }
        }
    }
    assert!(parsed > 50, "{parsed}");
    assert_eq!(wrong, [""; 0]);
}

/// Whether it names a command and says no more.
fn is_name(command: &str) -> bool {
    let mut known = Cli::command();
    command.split(' ').skip(1).all(|word| {
        let inner = known.find_subcommand(word).cloned();
        inner.map(|inner| known = inner).is_some()
    })
}

/// Those in back quotes, and those in blocks whether they are run or not.
fn commands(document: &Document) -> Vec<(usize, String)> {
    let mut all = Vec::new();
    for (line, word) in code(&document.text) {
        if word.starts_with("lb-agent ") {
            all.push((line, word.to_owned()));
        }
    }
    for block in blocks(&document.text) {
        if matches!(block.language, "sh" | "console") {
            for line in block.text.lines() {
                let line = line.strip_prefix("# ").unwrap_or(line);
                let at = line.find("lb-agent ").filter(|at| {
                    // Variables may stand before it.
                    let before = line[..*at].split_whitespace();
                    before
                        .clone()
                        .all(|word| word.contains('=') && !word.starts_with('-'))
                });
                if let Some(at) = at {
                    let line = line[at..].split(" #").next().unwrap();
                    let line = line.split(" | ").next().unwrap();
                    all.push((block.line, line.trim().to_owned()));
                }
            }
        }
    }
    all
}

/// Of a notation such as `drain SERVICE[/BACKEND] [--undo]` one that it stands for.
fn words(command: &str) -> Vec<std::ffi::OsString> {
    let mut plain = String::new();
    let mut depth = 0;
    for letter in command.replace("\\|", "|").chars() {
        match letter {
            '[' => depth += 1,
            ']' => depth -= 1,
            _ if depth == 0 => plain.push(letter),
            _ => {}
        }
    }
    let words = plain.split_whitespace().map(|word| {
        let word = word.trim_matches('\'').split('|').next().unwrap();
        match word {
            "ADDRESS" => "198.18.0.80",
            "N" => "3",
            "SHELL" => "bash",
            word => word,
        }
    });
    words.map(Into::into).collect()
}

#[test]
fn every_flag_is_one() {
    let mut known: BTreeSet<String> = OF_OTHERS.iter().map(|it| (*it).to_owned()).collect();
    gather(&Cli::command(), &mut known);
    let elsewhere = sources();
    let mut wrong = BTreeSet::new();
    for document in documents().unwrap() {
        for (line, word) in code(&document.text) {
            // What follows the name of another program is its own matter.
            let other = word.split(' ').next().unwrap();
            if !other.starts_with("--")
                && !other.starts_with("lb-agent")
                && !other.starts_with("cargo")
            {
                continue;
            }
            for flag in word
                .split([' ', '[', ']', '=', ',', ':'])
                .filter(|it| it.starts_with("--") && *it != "--")
            {
                let name = flag.trim_start_matches('-');
                let field = name.replace('-', "_");
                // xtask's are in its source; what ours are is known exactly.
                let of_xtask = elsewhere
                    .xtask
                    .contains(&format!("    pub(crate) {field}: "))
                    || elsewhere.xtask.contains(&format!("    {field}: "));
                if !known.contains(name) && !of_xtask {
                    wrong.insert(format!("{}:{line}: {flag}", document.path.display()));
                }
            }
        }
    }
    assert_eq!(wrong, BTreeSet::new());
}

fn gather(command: &clap::Command, known: &mut BTreeSet<String>) {
    known.extend(
        command
            .get_arguments()
            .filter_map(|it| it.get_long().map(str::to_owned)),
    );
    known.extend(["help", "version"].map(str::to_owned));
    for command in command.get_subcommands() {
        gather(command, known);
    }
}

#[test]
fn every_variable_option_and_metric_is_in_the_code() {
    let (mut found, mut wrong) = (0, BTreeSet::new());
    for document in documents().unwrap() {
        let blocks = blocks(&document.text);
        let shown = blocks.iter().map(|block| &*block.text);
        let named = code(&document.text).into_iter().map(|(_, word)| word);
        for word in shown.chain(named).flat_map(names) {
            let known = if word.starts_with("LB_") {
                sources().all.contains(&format!("\"{word}\"")) || sources().files.contains(word)
            } else if word.starts_with("SERVICE_") {
                let Some((_, option)) = word.split_once("_LB_") else {
                    continue;
                };
                let option = format!("lb_{}", option.to_lowercase());
                is_option(&option)
            } else if word.starts_with("lb_") {
                is_option_or_metric(word)
            } else {
                continue;
            };
            found += 1;
            if !known {
                wrong.insert(format!("{}: {word}", document.path.display()));
            }
        }
    }
    assert!(found > 300, "{found}");
    assert_eq!(wrong, BTreeSet::new());
}

/// Words of letters, digits and `_` that have at least one `_` within.
fn names(text: &str) -> impl Iterator<Item = &str> {
    let is_letter = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
    text.split(move |letter| !is_letter(letter)).filter(|word| {
        let inner = word.trim_matches('_');
        inner.contains('_') && inner.len() == word.len()
    })
}

/// A family of options ends in `*`.
fn is_option(word: &str) -> bool {
    table::all().any(|option| match option.name.strip_suffix('*') {
        Some(family) => word.starts_with(family),
        None => word == option.name,
    })
}

fn is_option_or_metric(word: &str) -> bool {
    // Crates of ours, in filters of the log.
    let is_crate = workspace().join(word.replace('_', "-")).is_dir();
    if is_crate || is_option(word) {
        return true;
    }
    // Those of the front's process are named like the agent's own.
    let bare = word.trim_start_matches("lb_").trim_start_matches("front_");
    let units = [
        "",
        "_total",
        "_seconds",
        "_bytes",
        "_bytes_total",
        "_seconds_total",
        "_info",
    ];
    let mut names = units.iter().filter_map(|unit| bare.strip_suffix(unit));
    names.any(|name| {
        let written = [format!("\"{name}\""), format!("\"lb_{name}\"")];
        written.iter().any(|it| sources().all.contains(it))
    })
}

#[test]
fn every_test_that_is_named_is_there() {
    let mut found = 0;
    let documents = documents().unwrap();
    let names_tests = ["docs/security.md", "docs/faq.md"].map(Path::new);
    for document in documents
        .iter()
        .filter(|it| names_tests.contains(&&*it.path))
    {
        for (line, word) in code(&document.text) {
            let is_name = word
                .bytes()
                .all(|it| it.is_ascii_lowercase() || it.is_ascii_digit() || it == b'_');
            if is_name && word.matches('_').count() > 4 && !word.starts_with("lb_") {
                let there = sources().all.contains(&format!("fn {word}("));
                assert!(there, "{}:{line}: {word}", document.path.display());
                found += 1;
            }
        }
    }
    assert!(found > 30, "{found}");
}

#[test]
fn every_message_of_operations_is_one_of_the_code() {
    let text = fs::read_to_string(workspace().join("docs/operations.md")).unwrap();
    let mut wrong = Vec::new();
    for heading in ["## Logs", "## Messages at the start"] {
        let section = &text[text.find(&format!("\n{heading}\n")).unwrap() + 1..];
        let section = &section[..section[3..]
            .find("\n## ")
            .map_or(section.len(), |at| at + 3)];
        let rows: Vec<_> = section
            .lines()
            .filter(|line| line.starts_with("| `"))
            .collect();
        assert!(rows.len() > 10, "{heading}: {}", rows.len());
        for row in rows {
            let cell = row.split(" | ").next().unwrap();
            for (_, message) in code(cell)
                .into_iter()
                .filter(|(_, it)| !it.starts_with("lb-agent "))
            {
                let parts = message
                    .split('…')
                    .map(str::trim)
                    .filter(|part| part.len() > 3);
                wrong.extend(parts.filter(|part| !is_message(part)).map(str::to_owned));
            }
        }
    }
    assert_eq!(wrong, [""; 0]);
}

/// Also one of whose words a value takes the place.
fn is_message(part: &str) -> bool {
    let words: Vec<&str> = part.split(' ').collect();
    let with_value = |at: usize| {
        let (before, after) = (words[..at].join(" "), words[at + 1..].join(" "));
        format!("{before} … {after}").trim().to_owned()
    };
    let mut templates = (0..words.len()).map(with_value);
    sources().all.contains(part) || templates.any(|it| sources().templates.contains(&it))
}

#[test]
fn every_block_is_of_a_kind_that_somebody_reads() {
    for document in documents().unwrap() {
        let name = document.path.file_name().unwrap().to_str().unwrap();
        for block in blocks(&document.text) {
            let place = format!("{}:{}", document.path.display(), block.line);
            match block.language {
                // Typed into a host by `run`.
                "sh" | "console" => {}
                // A drawing, what a program prints, the file of another one.
                "text" | "mermaid" => {}
                "toml" => read_toml(&block.text, &place),
                // The tests of rights give them to a real Consul.
                "hcl" => {
                    let rules = block
                        .text
                        .lines()
                        .next()
                        .and_then(|it| it.strip_prefix("# "));
                    let rules = rules.unwrap_or_else(|| panic!("{place}: no name"));
                    assert!(
                        sources().all.contains(rules),
                        "{place}: nobody tries {rules}"
                    );
                }
                // Compose reads them in `compose.rs`.
                "yaml" => {}
                // `tests/front/documents.rs` asks and answers.
                "http" | "log" | "html" => assert_eq!(name, "http.md", "{place}"),
                language => panic!("{place}: nobody reads `{language}`"),
            }
        }
    }
}

/// Services are read as such, all else as the configuration that it is a part of.
fn read_toml(text: &str, place: &str) {
    // One with both is an example of http.md, which are run.
    if text.contains("[[service]]") {
        if !text.contains("[front") {
            let catalog = lb_agent::discover::file::parse(text);
            assert!(catalog.is_ok(), "{place}: {:?}", catalog.err());
        }
        return;
    }
    let usual = match text.contains("[sources.") {
        true => String::new(),
        false => "[sources.file]\npath = \"/services.toml\"\n".to_owned(),
    };
    let text = format!("cgroup = \"/\"\n{text}\n{usual}");
    let raw = config::RawConfig::from_toml(Path::new(place), &text)
        .unwrap_or_else(|it| panic!("{it:#?}"));
    let outside = config::Outside {
        variable: &|_| None,
        read: &|_| Ok("a secret that is long enough\n".to_owned()),
    };
    let resolved = config::resolve(&raw, outside);
    assert!(resolved.is_ok(), "{:?}", resolved.err());
}
