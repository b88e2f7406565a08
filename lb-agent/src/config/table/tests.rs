use std::{collections::BTreeSet, path::Path};

use clap::CommandFactory as _;
use lb_testkit::markdown::has_what_is_made;

use super::*;
use crate::{
    cli::Cli,
    config::{Config, Outside, RawConfig, resolve},
};

fn settings() -> impl Iterator<Item = (&'static str, &'static Setting)> {
    let sections = SECTIONS.iter();
    sections.flat_map(|it| it.settings.iter().map(|setting| (it.table, setting)))
}

fn read(text: &str) -> Config {
    let raw = RawConfig::from_toml(Path::new("lb.toml"), text);
    let outside = Outside {
        variable: &|_| None,
        read: &|path| match path.ends_with("mountinfo") {
            true => Ok("1 0 0:1 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n".to_owned()),
            false => Err(std::io::ErrorKind::NotFound.into()),
        },
    };
    resolve(&raw.unwrap_or_else(|it| panic!("{it:#?}\n{text}")), outside).unwrap()
}

/// A file with what its tables need to be there at all, and with `more` in each of them.
fn file(more: impl Fn(&'static Section) -> String) -> String {
    let needed = |table: &str| match table {
        "sources.file" => "path = \"/services.toml\"\n",
        "front.tls" => "folder = \"/certificates\"\n",
        "front.tls.acme" => {
            "directory = \"https://acme.example/\"\nnames = [\"www.example\"]\naccept_terms = true\n"
        }
        "metrics.otlp" => "endpoint = \"http://c.example:4318\"\n",
        _ => "",
    };
    let sections = SECTIONS.iter().map(|section| {
        let table = section.table;
        let head = match table {
            "" => String::new(),
            table => format!("[{table}]\n"),
        };
        format!("{head}{}{}", needed(table), more(section))
    });
    sections.collect()
}

/// The reader names the keys that it asked for when it meets one that it did not.
#[test]
fn the_keys_are_those_that_the_file_is_read_for() {
    let strange = |_: &Section| "no_such_key = 1\n".to_owned();
    // Any key is a list of users there.
    let text = file(strange).replace("[front.auth]\nno_such_key = 1\n", "[front.auth]\n");
    let text = text.replace("[front.pages]\nno_such_key = 1\n", "[front.pages]\n");
    let mistakes = RawConfig::from_toml(Path::new("lb.toml"), &text).unwrap_err();
    let mut asked = 0;
    for mistake in mistakes {
        let (place, known) = mistake.split_once("it knows: ").unwrap();
        let line: usize = place.split(':').nth(1).unwrap().parse().unwrap();
        let above: Vec<_> = text.lines().take(line).collect();
        let head = above.iter().rev().find_map(|it| it.strip_prefix('['));
        let table = head.map_or("", |it| it.trim_end_matches(']'));
        if table == "sources" {
            continue;
        }
        asked += 1;
        let is_table = |key: &str| {
            let inner = format!("{table}.{key}");
            let inner = inner.trim_start_matches('.');
            let below = format!("{inner}.");
            SECTIONS
                .iter()
                .any(|it| it.table == inner || it.table.starts_with(&below))
        };
        let known: BTreeSet<_> = known.split(", ").filter(|key| !is_table(key)).collect();
        if table == "registrar" {
            let document = include_str!("../../../../docs/docker.md");
            for key in known {
                assert!(
                    document.contains(&format!("`{key}`")),
                    "docs/docker.md has no {key}"
                );
            }
            continue;
        }
        let told = settings().filter(|(of, it)| *of == table && !it.key.is_empty());
        let told: BTreeSet<_> = told.map(|(_, it)| it.key).collect();
        assert_eq!(known, told, "[{table}]");
    }
    // Those whose keys are free are no mistakes.
    assert_eq!(asked, SECTIONS.len() - 2);
}

#[test]
fn the_flags_and_their_variables_are_those_of_the_command() {
    let command = Cli::command();
    let run = command.find_subcommand("run").unwrap();
    let of_run: BTreeSet<_> = run
        .get_arguments()
        .filter_map(|argument| {
            let name = argument.get_long()?;
            let value = argument.get_value_names().filter(|_| name != "registrar");
            let value = value.map(|it| format!(" {}", it[0])).unwrap_or_default();
            let variable = argument.get_env()?.to_str()?.to_owned();
            Some((format!("--{name}{value}"), variable))
        })
        .collect();
    let told =
        settings().filter_map(|(_, it)| Some((it.flag?.to_owned(), it.variables[0].to_owned())));
    assert_eq!(told.collect::<BTreeSet<_>>(), of_run);
}

#[test]
fn the_variables_of_other_tools_are_those_that_are_read() {
    let asked = std::cell::RefCell::new(BTreeSet::new());
    let _ = RawConfig::from_consul_variables(&|name| {
        asked.borrow_mut().insert(name.to_owned());
        None
    });
    let all = settings().flat_map(|(_, it)| it.variables);
    let of_others = all
        .filter(|it| !it.starts_with("LB_"))
        .map(|it| (*it).to_owned());
    assert_eq!(of_others.collect::<BTreeSet<_>>(), asked.into_inner());
}

#[test]
fn what_is_said_to_hold_without_a_word_is_what_holds() {
    let bare = read(&file(|_| String::new()));
    let typed = |section: &'static Section| {
        let lines = section.settings.iter().filter_map(|it| match it.default {
            Value(value) => Some(format!("{} = {value}\n", it.key)),
            Words(_) => None,
        });
        lines.collect()
    };
    let mut typed = read(&file(typed));
    // The front itself knows what it bears where nothing is typed.
    let said = std::mem::replace(&mut typed.front.limits, bare.front.limits.clone());
    let own = lb_front::Limits::default();
    let times = [
        (said.first_byte, own.first_byte),
        (said.head, own.head),
        (said.keep_alive, own.keep_alive),
        (said.body_idle, own.body_idle),
        (said.write_stall, own.write_stall),
        (said.response, own.response_head),
        (said.tunnel_idle, own.tunnel_idle),
        (said.connect, own.connect),
        (said.queue_time, own.queue),
    ];
    for (said, own) in times {
        assert_eq!(said, Some(own));
    }
    assert_eq!(said.request, own.request);
    assert_eq!(said.max_body.unwrap_or(u64::MAX), own.max_body);
    assert_eq!(said.streams, Some(own.streams));
    let counts = [
        (said.queue, own.queued),
        (said.backend_connections, own.backend_connections),
    ];
    for (said, own) in counts {
        assert_eq!(said, Some(own));
    }
    assert_eq!(typed, bare);
}

#[test]
fn the_documented_settings_are_those_of_the_code() {
    let source = "lb-agent/src/config/table.rs";
    let is_so = has_what_is_made("docs/configuration.md", source, &markdown()).unwrap();
    assert!(is_so, "run `cargo xtask docs`");
}
