//! Every command of the documents is typed into a host, in its order, and prints what the document shows.

use std::time::Duration;

use lb_testkit::{
    eventually,
    markdown::{Block, blocks, documents},
};

use super::{compare::is_as_shown, host::Host};

/// Those whose commands are not typed, each with the reason in the document.
const NOT_RUN: usize = 11;

/// What stands before a document's first block, by the name in a comment `<!-- scene: NAME -->`.
const SCENES: [(&str, &str); 5] = [
    ("two servers", include_str!("scenes/two_servers.sh")),
    ("two containers", include_str!("scenes/two_containers.sh")),
    (
        "a service without instances",
        include_str!("scenes/a_service_without_instances.sh"),
    ),
    (
        "a container on another network",
        include_str!("scenes/a_container_on_another_network.sh"),
    ),
    ("clients", include_str!("scenes/clients.sh")),
];

#[test]
fn every_command_does_what_the_document_shows() {
    let (mut typed, mut not_run, mut wrong) = (0, 0, String::new());
    for document in documents().unwrap() {
        let blocks = blocks(&document.text);
        not_run += blocks.iter().filter(|it| is_left_out(it)).count();
        let runs = |block: &Block<'_>| {
            is_typed(block) && lines(block).any(|(line, _)| !is_ours_to_build(&line))
        };
        if !blocks.iter().any(runs) {
            continue;
        }
        let mut host = Host::new();
        for block in &blocks {
            let place = format!("{}:{}", document.path.display(), block.line);
            if let Some(scene) = block.said("scene") {
                let (_, script) = SCENES.iter().find(|(name, _)| *name == scene).unwrap();
                for line in script.lines() {
                    wrong.extend(type_in(&mut host, line, None, &place).err());
                }
            }
            if is_typed(block) {
                for (line, shown) in lines(block) {
                    wrong.extend(type_in(&mut host, &line, shown.as_deref(), &place).err());
                    typed += 1;
                }
            } else if let Some(rest) = block.text.strip_prefix("# /") {
                let path = rest.lines().next().unwrap();
                host.write(&format!("/{path}"), &block.text);
            }
        }
        host.end();
    }
    assert!(wrong.is_empty(), "{wrong}");
    assert_eq!(not_run, NOT_RUN);
    assert!(typed > 0, "no document has a command");
}

fn is_typed(block: &Block<'_>) -> bool {
    matches!(block.language, "sh" | "console") && !is_left_out(block)
}

fn is_left_out(block: &Block<'_>) -> bool {
    block.said("not run").is_some()
}

/// A test does not build the program that it tests. `cargo xtask` has a test of its own for these lines.
fn is_ours_to_build(line: &str) -> bool {
    line.starts_with("cargo xtask ") || line.trim_start().starts_with('#')
}

/// The commands of a block, each with what it shows.
fn lines(block: &Block<'_>) -> impl Iterator<Item = (String, Option<String>)> {
    let text = block.text.replace("\\\n", " ");
    let mut commands: Vec<(String, Option<String>)> = Vec::new();
    for line in text.lines() {
        match (block.language, line.strip_prefix("# ")) {
            ("console", Some(command)) => commands.push((command.to_owned(), Some(String::new()))),
            ("console", None) => {
                let (_, shown) = commands.last_mut().expect("a command stands first");
                let shown = shown.get_or_insert_default();
                shown.push_str(line);
                shown.push('\n');
            }
            _ if line.trim().is_empty() => {}
            _ => commands.push((line.to_owned(), None)),
        }
    }
    commands.into_iter()
}

/// Types one line; what is wrong is told.
fn type_in(host: &mut Host, line: &str, shown: Option<&str>, place: &str) -> Result<(), String> {
    eprintln!("{place}: {line}");
    let command = line.split(" #").next().unwrap().trim();
    if is_ours_to_build(line) {
        return Ok(());
    }
    // What stays in the foreground has a terminal of its own.
    let stays = command.contains("lb-agent run")
        || command.contains("lb-agent register") && !command.contains("--dry-run");
    if stays {
        return host
            .run(command)
            .map_err(|why| format!("{place}: `{command}`: {why}\n\n"));
    }
    // Whoever reads that has ended it.
    if command.starts_with("lb-agent uninstall") {
        host.end();
    }
    // What only looks may be typed again until it is so.
    let looks = ["curl ", "lb-agent ", "for i in "];
    let looks = looks.iter().any(|it| command.starts_with(it));
    let limit = if looks { LIMIT } else { Duration::ZERO };
    let done = eventually(limit, || {
        let said = host.say(command);
        let fits = match shown {
            Some(shown) => is_as_shown(shown, &said.text),
            None => said.code == 0,
        };
        if fits { Ok(()) } else { Err(said) }
    });
    done.map_err(|late| {
        let (text, code) = (&late.last.text, late.last.code);
        format!("{place}: `{command}` ended with {code} and printed:\n{text}\n\n")
    })
}

const LIMIT: Duration = Duration::from_secs(10);
