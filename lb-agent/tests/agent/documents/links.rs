//! What the documents lead to is there.

use std::{collections::BTreeMap, fs, path::Path};

use lb_testkit::markdown::{self, anchors, documents, links, workspace};

/// Of a picture, so that a page of the repository comes at once.
const LARGEST_PICTURE: u64 = 300_000;

#[test]
fn every_link_and_every_anchor_is_there() {
    let documents = documents().unwrap();
    let known: BTreeMap<_, _> = documents
        .iter()
        .map(|it| (workspace().join(&it.path), anchors(&it.text)))
        .collect();
    let (mut followed, mut wrong) = (0, Vec::new());
    for document in &documents {
        let folder = workspace().join(&document.path);
        for (line, target) in links(&document.text) {
            if target.starts_with("https://") || target.starts_with("http://") {
                continue;
            }
            followed += 1;
            let (path, anchor) = target.split_once('#').unwrap_or((target, ""));
            let there = match path {
                "" => Ok(folder.clone()),
                path => folder.parent().unwrap().join(path).canonicalize(),
            };
            let is_there = there.is_ok_and(|file| {
                anchor.is_empty() || known.get(&file).is_some_and(|it| it.contains(anchor))
            });
            if !is_there {
                wrong.push(format!("{}:{line}: {target}", document.path.display()));
            }
        }
    }
    assert!(followed > 0);
    assert_eq!(wrong, [""; 0]);
}

#[test]
fn every_document_of_the_folder_is_in_its_index() {
    let index = fs::read_to_string(workspace().join("docs/README.md")).unwrap();
    for document in documents().unwrap() {
        if let Ok(name) = document.path.strip_prefix("docs") {
            let link = format!("]({}", name.display());
            let listed = name == "README.md" || index.contains(&link);
            assert!(listed, "docs/README.md does not name {}", name.display());
        }
    }
}

#[test]
fn every_picture_is_small_and_shown() {
    let shown: Vec<String> = documents().unwrap().into_iter().map(|it| it.text).collect();
    let pictures = fs::read_dir(workspace().join("docs/images")).unwrap();
    for picture in pictures.map(Result::unwrap) {
        let name = picture.file_name().into_string().unwrap();
        let size = picture.metadata().unwrap().len();
        assert!(size < LARGEST_PICTURE, "{name} has {size} bytes");
        assert!(
            shown
                .iter()
                .any(|it| it.contains(&format!("images/{name}"))),
            "{name}"
        );
    }
}

/// The tables of the code map name files by what stands below the folder of their crate, or of the first file of
/// their row.
#[test]
fn every_file_of_the_code_map_is_there() {
    let text = fs::read_to_string(workspace().join("ARCHITECTURE.md")).unwrap();
    let map = &text[text.find("\n## Code map").unwrap()..];
    let map = &map[..map[1..].find("\n## ").unwrap_or(map.len() - 1)];
    let (mut found, mut wrong) = (0, Vec::new());
    for row in map.lines().filter(|line| line.starts_with("| `")) {
        let cell = row.split(" | ").next().unwrap();
        let names = markdown::code(cell)
            .into_iter()
            .flat_map(|(_, it)| alternatives(it));
        let mut first: Option<String> = None;
        for name in names {
            let crates = [
                "lb-agent/src",
                "lb-core/src",
                "lb-front/src",
                "lb-ebpf/src/bin/socket",
                "lb-ebpf/src/bin/packet",
                "lb-packet/src",
                "lb-packet",
                "",
            ];
            let folders = crates.map(|folder| workspace().join(folder));
            let beside = first.as_deref().and_then(|it| Path::new(it).parent());
            let beside = beside.map(|it| folders[0].join(it));
            let there = folders
                .iter()
                .chain(&beside)
                .any(|it| it.join(&name).exists());
            match there {
                true => found += 1,
                false => wrong.push(name.clone()),
            }
            first.get_or_insert(name);
        }
    }
    assert!(found > 100, "{found}");
    assert_eq!(wrong, [""; 0]);
}

/// `a/{b,c}.rs` is two of them.
fn alternatives(name: &str) -> Vec<String> {
    match name
        .split_once('{')
        .and_then(|(a, rest)| Some((a, rest.split_once('}')?)))
    {
        None => vec![name.to_owned()],
        Some((before, (inner, after))) => {
            let parts = inner.split(',');
            parts.map(|part| format!("{before}{part}{after}")).collect()
        }
    }
}
