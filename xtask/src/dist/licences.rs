//! The licences of everything that is in the program, as text: whoever is given the program is to be given them, too.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use serde::Deserialize;
use serde_json::Value;

use crate::{
    shell::{cargo, output},
    workspace,
};

/// How the names of such files begin, in capitals.
const NAMES: [&str; 6] = [
    "LICENSE",
    "LICENCE",
    "COPYING",
    "COPYRIGHT",
    "NOTICE",
    "UNLICENSE",
];

/// Writes down those of the components that `sbom` requires.
///
/// # Errors
/// When cargo does not tell where a crate's source is, or it cannot be read.
pub(super) fn text(sbom: &Value) -> Result<String> {
    let folders = folders()?;
    let mut texts: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut list = String::new();
    let listed = sbom["components"]
        .as_array()
        .context("the list has no components")?;
    for component in listed.iter().filter(|it| it["scope"] == "required") {
        let (name, version) = (word(component, "name"), word(component, "version"));
        let title = format!("{name} {version}");
        list.push_str(&format!("{title}: {}\n", licence(component)));
        let Some(folder) = folders.get(&(name, version)) else {
            continue;
        };
        for file in licences_in(folder)? {
            let text =
                fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
            let text = String::from_utf8_lossy(&text);
            texts
                .entry(text.trim().to_owned())
                .or_default()
                .insert(title.clone());
        }
    }
    let own =
        fs::read_to_string(workspace().join("LICENSE-MIT")).context("cannot read LICENSE-MIT")?;
    Ok(compose(&own, &list, &texts))
}

fn compose(own: &str, list: &str, texts: &BTreeMap<String, BTreeSet<String>>) -> String {
    let mut whole = format!(
        "lb-agent is licensed under the Apache License 2.0 or, at your choice, this one:\n\n{own}\n\
         What is in the program, and under which licences:\n\n\
         The GNU C Library and libgcc are linked in. Debian's source packages of the versions below hold their source, and\n\
         `cargo xtask dist` links the program anew with other versions of them.\n\n{list}"
    );
    // In the order of who they are of, which changes less than the texts.
    let mut texts: Vec<_> = texts.iter().map(|(text, of)| (of, text)).collect();
    texts.sort();
    for (of, text) in texts {
        let of: Vec<_> = of.iter().map(String::as_str).collect();
        whole.push_str(&format!(
            "\n{}\n{}\n\n{text}\n",
            "=".repeat(78),
            of.join(", ")
        ));
    }
    whole
}

fn word(component: &Value, field: &str) -> String {
    component[field].as_str().unwrap_or_default().to_owned()
}

/// An expression, or names of licences.
fn licence(component: &Value) -> String {
    let licences = component["licenses"].as_array().into_iter().flatten();
    let words = licences.filter_map(|it| {
        let named = it.pointer("/license/id").or(it.pointer("/license/name"));
        it["expression"].as_str().or(named.and_then(Value::as_str))
    });
    words.collect::<Vec<_>>().join(", ")
}

/// The files of a crate that are about licences, sorted: some crates hold libraries of others, in folders.
fn licences_in(folder: &Path) -> Result<Vec<PathBuf>> {
    let (mut files, mut folders) = (Vec::new(), vec![folder.to_owned()]);
    while let Some(folder) = folders.pop() {
        let entries =
            fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))?;
        for entry in entries {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default();
            let name = name.to_string_lossy().to_uppercase();
            let is_source = path.extension().is_some_and(|it| it == "rs");
            if path.is_dir() {
                folders.push(path);
            } else if !is_source && NAMES.iter().any(|it| name.starts_with(it)) {
                files.push(path);
            }
        }
    }
    files.sort();
    Ok(files)
}

/// Where the source of each crate is, by name and version.
fn folders() -> Result<BTreeMap<(String, String), PathBuf>> {
    #[derive(Deserialize)]
    struct Metadata {
        packages: Vec<Package>,
    }
    #[derive(Deserialize)]
    struct Package {
        name: String,
        version: String,
        manifest_path: PathBuf,
    }
    let platform = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let mut metadata = cargo();
    metadata.args(["metadata", "--quiet", "--locked", "--format-version", "1"]);
    metadata.args(["--filter-platform", &platform]);
    let told: Metadata = serde_json::from_str(&output(&mut metadata)?)
        .context("cargo metadata does not print what it should")?;
    let packages = told.packages.into_iter().map(|it| {
        let folder = it
            .manifest_path
            .parent()
            .unwrap_or(&it.manifest_path)
            .to_owned();
        ((it.name, it.version), folder)
    });
    Ok(packages.collect())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_in_the_program_has_its_licence_and_what_only_builds_it_has_not() {
        let ((name, version), _) = folders()
            .unwrap()
            .into_iter()
            .find(|((name, _), _)| name == "aya")
            .expect("the agent needs aya");
        let sbom = json!({ "components": [
            { "name": name, "version": version, "scope": "required", "licenses": [{ "expression": "MIT OR Apache-2.0" }] },
            { "name": "serde_derive", "version": "1.0.0", "scope": "excluded" },
            { "name": "glibc", "version": "2.36", "scope": "required", "licenses": [{ "license": { "id": "LGPL-2.1-or-later" } }] },
        ]});
        let text = text(&sbom).unwrap();
        assert!(
            text.contains(&format!("\naya {version}: MIT OR Apache-2.0\n")),
            "{text}"
        );
        assert!(text.contains("\nglibc 2.36: LGPL-2.1-or-later\n"), "{text}");
        assert!(text.contains("Permission is hereby granted"), "{text}");
        assert!(!text.contains("serde_derive"), "{text}");
    }

    #[test]
    fn a_text_that_several_have_is_there_once_with_their_names() {
        let of = ["a 1", "b 2"].map(str::to_owned);
        let texts = BTreeMap::from([("Do what you like.".to_owned(), BTreeSet::from(of))]);
        let whole = compose("Ours.", "a 1: X\n", &texts);
        assert_eq!(whole.matches("Do what you like.").count(), 1);
        assert!(whole.contains("\na 1, b 2\n"), "{whole}");
    }
}
