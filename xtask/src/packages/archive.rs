//! The archives that this machine takes its packages from, read from the files of apt.

use std::{fs, path::Path};

use anyhow::Result;

/// One archive that the machine trusts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Archive {
    pub(super) uri: String,
    /// Path of the keyring its index must be signed with.
    pub(super) keyring: String,
}

/// Where Debian keeps its keys; holds those of older releases too.
const DEBIAN_KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// The archives that `etc`/sources.list and `etc`/sources.list.d name, each once.
pub(super) fn archives_of_this_machine(etc: &Path) -> Result<Vec<Archive>> {
    let mut files = vec![etc.join("sources.list")];
    if let Ok(entries) = fs::read_dir(etc.join("sources.list.d")) {
        let mut parts: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
        parts.sort();
        files.extend(parts);
    }
    let mut archives = Vec::new();
    for file in files {
        let parse = match file.extension().and_then(|extension| extension.to_str()) {
            Some("list") => one_line_archives,
            Some("sources") => deb822_archives,
            _ => continue,
        };
        // sources.list is often absent.
        let Ok(text) = fs::read_to_string(&file) else {
            continue;
        };
        for archive in parse(&text) {
            if !archives.contains(&archive) {
                archives.push(archive);
            }
        }
    }
    Ok(archives)
}

/// `deb [signed-by=KEYRING] URI SUITE COMPONENT…` (sources.list(5)).
fn one_line_archives(text: &str) -> Vec<Archive> {
    text.lines()
        .filter_map(|line| {
            let line = line.trim().strip_prefix("deb ")?.trim_start();
            let (options, rest) = match line.strip_prefix('[') {
                Some(bracketed) => bracketed.split_once(']')?,
                None => ("", line),
            };
            let mut words = rest.split_whitespace();
            let (uri, suite) = (words.next()?, words.next()?);
            let keyring = options
                .split_whitespace()
                .find_map(|option| option.strip_prefix("signed-by="));
            archive(uri, suite, words, keyring)
        })
        .collect()
}

/// Stanzas of `Key: value` lines, in which a line that begins with a space continues the one above.
fn deb822_archives(text: &str) -> Vec<Archive> {
    let mut archives = Vec::new();
    let text: Vec<_> = text.lines().filter(|line| !line.starts_with('#')).collect();
    for stanza in text.split(|line| line.trim().is_empty()) {
        let field = |name: &str| {
            let at = stanza.iter().position(|line| {
                line.split_once(':')
                    .is_some_and(|(key, _)| key.eq_ignore_ascii_case(name))
            })?;
            let mut value = stanza[at].split_once(':')?.1.to_owned();
            for more in stanza[at + 1..]
                .iter()
                .take_while(|l| l.starts_with([' ', '\t']))
            {
                value.push(' ');
                value.push_str(more.trim());
            }
            Some(value)
        };
        let binary =
            field("Types").is_some_and(|types| types.split_whitespace().any(|t| t == "deb"));
        let off = field("Enabled").is_some_and(|on| on.trim().eq_ignore_ascii_case("no"));
        if !binary || off {
            continue;
        }
        let (Some(uris), Some(suites)) = (field("URIs"), field("Suites")) else {
            continue;
        };
        let components = field("Components").unwrap_or_default();
        let keyring = field("Signed-By");
        for uri in uris.split_whitespace() {
            archives.extend(suites.split_whitespace().find_map(|suite| {
                archive(
                    uri,
                    suite,
                    components.split_whitespace(),
                    keyring.as_deref(),
                )
            }));
        }
    }
    archives
}

/// The archive at `uri` if it can be one that holds whole Debian releases.
fn archive<'a>(
    uri: &str,
    suite: &str,
    mut components: impl Iterator<Item = &'a str>,
    keyring: Option<&str>,
) -> Option<Archive> {
    let whole = components.any(|component| component == "main")
        && !suite.ends_with('/')
        && !suite.contains("-security")
        && !suite.contains("/updates")
        && !uri.starts_with("cdrom:");
    // A key may also stand in the file itself, or be named by fingerprint; Debian's own is in its keyring.
    let keyring = keyring
        .map(str::trim)
        .filter(|path| path.starts_with('/') && !path.contains(char::is_whitespace))
        .unwrap_or(DEBIAN_KEYRING);
    whole.then(|| Archive {
        uri: uri.to_owned(),
        keyring: keyring.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn debian(uri: &str) -> Archive {
        Archive {
            uri: uri.to_owned(),
            keyring: DEBIAN_KEYRING.to_owned(),
        }
    }

    #[test]
    fn a_one_line_source_names_archive_and_keyring() {
        let text = "# deb http://off.example/ bookworm main\n\
                    deb http://a.example/debian bookworm main contrib\n\
                    deb-src http://src.example/debian bookworm main\n\
                    deb [arch=amd64 signed-by=/k.gpg] http://b.example/d stable main\n\
                    deb http://a.example/sec bookworm-security main\n\
                    deb http://flat.example ./\n";
        let other = Archive {
            uri: "http://b.example/d".to_owned(),
            keyring: "/k.gpg".to_owned(),
        };
        assert_eq!(
            one_line_archives(text),
            [debian("http://a.example/debian"), other]
        );
    }

    #[test]
    fn a_deb822_source_names_each_uri_once_and_skips_what_is_off() {
        let text = "# a comment\nTypes: deb deb-src\nURIs: http://a.example/debian\n http://b.example/debian\n\
                    # another\nSuites: bookworm bookworm-updates\nComponents: main\n\
                    Signed-By:\n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n\n\
                    Types: deb\nURIs: http://off.example\nSuites: x\nComponents: main\nEnabled: no\n\n\
                    Types: deb\nURIs: http://sec.example\nSuites: bookworm-security\nComponents: main\n";
        assert_eq!(
            deb822_archives(text),
            [
                debian("http://a.example/debian"),
                debian("http://b.example/debian")
            ]
        );
    }

    #[test]
    fn a_machine_without_sources_has_no_archive() {
        let empty = Path::new("/nonexistent-etc-apt");
        assert_eq!(archives_of_this_machine(empty).unwrap(), []);
    }
}
