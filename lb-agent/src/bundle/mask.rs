//! What must not leave the host, taken out of what does.

use std::{collections::BTreeSet, fs, io, path::Path};

use serde_json::Value;

use crate::config::{Config, ConsulToken};

/// The secrets that this host's agent works with.
#[derive(Default)]
pub(super) struct Secrets {
    known: BTreeSet<String>,
    /// Files with others, each with why they are not known.
    unread: Vec<String>,
}

impl Secrets {
    /// Those of `config` and of the variables that every Consul tool reads.
    pub(super) fn of(config: Option<&Config>) -> Self {
        let mut secrets = Self::default();
        for name in ["CONSUL_HTTP_TOKEN", "CONSUL_HTTP_AUTH"] {
            secrets.add(&std::env::var(name).unwrap_or_default());
        }
        let Some(config) = config else {
            return secrets;
        };
        let consul = config.sources.consul.as_ref();
        match consul.and_then(|it| it.token.as_ref()) {
            Some(ConsulToken::Value(token)) => secrets.add(token.reveal()),
            Some(ConsulToken::File(path)) => secrets.add_file(path),
            None => {}
        }
        if let Some(auth) = consul.and_then(|it| it.auth.as_ref()) {
            secrets.add(auth.reveal());
        }
        let otlp = config.metrics.otlp.as_ref();
        let files = config.front.auth.values();
        let files = files.chain(&config.admin.token_file);
        if let Some(headers) = otlp.and_then(|it| it.headers_file.as_ref()) {
            secrets.add_headers(headers);
        }
        files
            .chain(&config.front.sticky_key_file)
            .for_each(|it| secrets.add_file(it));
        secrets.add_folder(&config.state_dir);
        secrets
    }

    /// Those that a file of settings leads to which is wrong as a whole, line by line.
    pub(super) fn of_wrong(file: &str, state_dir: Option<&Path>) -> Self {
        let mut secrets = Self::of(None);
        secrets.add_folder(state_dir.unwrap_or(Path::new("/var/lib/lb")));
        let mut table = "";
        for line in file.lines().map(str::trim) {
            if line.starts_with('[') {
                table = line;
            }
            let Some((key, value)) = line.split_once('=') else {
                continue;
            };
            let (key, value) = (key.trim(), value.trim().trim_matches(['"', '\'']));
            if key == "headers_file" {
                secrets.add_headers(Path::new(value));
            } else if key.ends_with("_file") || table.starts_with("[front.auth]") {
                secrets.add_file(Path::new(value));
            } else if key == "state_dir" {
                secrets.add_folder(Path::new(value));
            }
        }
        secrets
    }

    /// Files whose secrets are not known, each with why. They are whole wherever somebody told them.
    pub(super) fn unread(&self) -> &[String] {
        &self.unread
    }

    /// There are secrets in `path` that nobody here knows.
    pub(super) fn cannot_read(&mut self, path: &Path, error: &io::Error) {
        let line = format!("the secrets of {}: {error}", path.display());
        if !self.unread.contains(&line) {
            self.unread.push(line);
        }
    }

    fn add(&mut self, text: &str) {
        // Of a pair the name is none, and a line may be of a file of users.
        for line in text.lines().map(str::trim).filter(|it| !is_comment(it)) {
            let password = line.split_once(':').map_or(line, |(_, password)| password);
            self.add_words([line, password.trim()]);
        }
    }

    /// Those among header fields. What else a receiver wants to know, such as a tenant, is a word like any other.
    fn add_fields(&mut self, text: &str) {
        for line in text.lines().map(str::trim).filter(|it| !is_comment(it)) {
            let (name, value) = line.split_once(':').unwrap_or(("", line));
            let value = value.trim();
            if tells(name, value) {
                // Of `Authorization: Bearer TOKEN` the token alone is one, too.
                let last = value.rsplit(' ').next().unwrap_or(value);
                self.add_words([line, value, last]);
            }
        }
    }

    fn add_words<'w>(&mut self, words: impl IntoIterator<Item = &'w str>) {
        let long = words.into_iter().filter(|it| it.len() >= SHORTEST);
        self.known.extend(long.map(str::to_owned));
    }

    fn add_file(&mut self, path: &Path) {
        if let Some(text) = self.read(path) {
            self.add(&text);
        }
    }

    fn add_headers(&mut self, path: &Path) {
        if let Some(text) = self.read(path) {
            self.add_fields(&text);
        }
    }

    fn read(&mut self, path: &Path) -> Option<String> {
        match fs::read(path) {
            Ok(bytes) => Some(String::from_utf8_lossy(&bytes).into_owned()),
            Err(error) => {
                self.cannot_read(path, &error);
                None
            }
        }
    }

    /// The agent's own: the admin token, the key of cookies, and what an authority gave.
    fn add_folder(&mut self, folder: &Path) {
        let entries = match fs::read_dir(folder) {
            Ok(entries) => entries,
            // No agent has ever run here.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return,
            Err(error) => return self.cannot_read(folder, &error),
        };
        for entry in entries.flatten() {
            let path = entry.path();
            let name = entry.file_name();
            let name = name.to_string_lossy();
            match path.is_dir() {
                true => self.add_folder(&path),
                false if OWN.iter().any(|it| name.contains(it)) => self.add_file(&path),
                false => {}
            }
        }
    }

    /// `text` with none of them, and without what stands behind the `?` of a path.
    pub(super) fn mask(&self, text: &str) -> String {
        let mut text = text.to_owned();
        // The longest first: one may be a part of another.
        let mut all: Vec<_> = self.known.iter().collect();
        all.sort_by_key(|it| std::cmp::Reverse(it.len()));
        for secret in all {
            if text.contains(secret.as_str()) {
                text = text.replace(secret.as_str(), HIDDEN);
            }
        }
        without_queries(&text)
    }

    /// The same for every text of `value`; what checks printed is left out, since others wrote it.
    pub(super) fn mask_json(&self, value: &mut Value) {
        match value {
            Value::String(text) => *text = self.mask(text),
            Value::Array(values) => values.iter_mut().for_each(|it| self.mask_json(it)),
            Value::Object(fields) => {
                for (name, value) in fields {
                    match name.as_str() {
                        "output" => *value = Value::from(HIDDEN),
                        _ => self.mask_json(value),
                    }
                }
            }
            _ => {}
        }
    }
}

/// Of one word it may be a secret that begins so.
fn is_comment(line: &str) -> bool {
    line.starts_with('#') && line.contains(char::is_whitespace)
}

/// Whether a header field proves who sends it: by its name, or since nobody would think of such a value.
fn tells(name: &str, value: &str) -> bool {
    let name = name.to_ascii_lowercase();
    let by_name = PROOFS.iter().any(|it| name.contains(it)) || name.is_empty();
    by_name || value.len() >= MADE_UP && value.bytes().any(|it| it.is_ascii_digit())
}

/// A question mark that something follows begins a query.
fn without_queries(text: &str) -> String {
    let mut seen = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, query)) = rest.split_once('?') {
        let end = query.find(|c: char| c.is_whitespace() || "\"'`<>)".contains(c));
        let end = end.unwrap_or(query.len());
        seen.push_str(before);
        seen.push('?');
        if end > 0 {
            seen.push_str(HIDDEN);
        }
        rest = &query[end..];
    }
    seen + rest
}

/// In the place of what is not told.
pub(super) const HIDDEN: &str = "***";
/// Shorter ones would tear words apart, and are no secrets.
const SHORTEST: usize = 6;
/// Parts of the names of header fields that prove who sends them.
const PROOFS: [&str; 8] = [
    "auth",
    "token",
    "key",
    "secret",
    "password",
    "cookie",
    "credential",
    "session",
];
/// Values of so many characters, digits among them, are made by programs.
const MADE_UP: usize = 16;
/// Parts of the names of files in the state directory that hold secrets.
const OWN: [&str; 5] = ["token", "key", "sticky", "account", ".pem"];

#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;

#[cfg(test)]
mod tests {
    use super::*;

    fn secrets(all: &[&str]) -> Secrets {
        let mut secrets = Secrets::default();
        all.iter().for_each(|it| secrets.add(it));
        secrets
    }

    #[test]
    fn what_is_known_as_a_secret_is_taken_out_of_any_text() {
        let secrets = secrets(&["hunter22", "anna:pa55word\nbob:$2y$10$hash", "abc"]);
        assert_eq!(
            secrets.mask("the token hunter22 is wrong"),
            "the token *** is wrong"
        );
        assert_eq!(secrets.mask("pa55word, anna:pa55word"), "***, ***");
        assert_eq!(secrets.mask("$2y$10$hash"), "***");
        assert_eq!(secrets.mask("abcdef"), "abcdef");
    }

    #[test]
    fn of_header_fields_those_are_secrets_that_prove_something_and_no_comment_is() {
        let mut secrets = Secrets::default();
        secrets.add_fields(
            "# for the collector\nAuthorization: Bearer s3cret1\nx-tenant: production\n\
             DD-API-KEY: s3cret2\nx-honeycomb-team: hcaik01abcdefghijkl\n",
        );
        assert_eq!(secrets.mask("sent Bearer s3cret1"), "sent ***");
        assert_eq!(secrets.mask("s3cret1 s3cret2"), "*** ***");
        assert_eq!(secrets.mask("hcaik01abcdefghijkl"), "***");
        let plain = "the collector of production: x-tenant: production";
        assert_eq!(secrets.mask(plain), plain);
        let secrets = self::secrets(&["# who may look\nanna:pa55word\n#s3cret3"]);
        assert_eq!(secrets.mask("who may look"), "who may look");
        assert_eq!(secrets.mask("pa55word #s3cret3"), "*** ***");
    }

    #[test]
    fn what_cannot_be_read_is_named_once_and_not_masked() {
        let folder = tempfile::tempdir().unwrap();
        // Not even root reads a folder as a file.
        let away = folder.path().join("away");
        fs::create_dir(&away).unwrap();
        let file = format!(
            "[metrics.otlp]\nheaders_file = \"{0}\"\n[admin]\ntoken_file = \"{0}\"\n",
            away.display()
        );
        let secrets = Secrets::of_wrong(&file, Some(&folder.path().join("none")));
        let [line] = secrets.unread() else {
            panic!("{:?}", secrets.unread());
        };
        let begin = format!("the secrets of {}: ", away.display());
        assert!(
            line.starts_with(&begin) && line.len() > begin.len(),
            "{line}"
        );
    }

    #[test]
    fn files_that_wrong_settings_lead_to_are_known_all_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = folder.path().join(name);
            fs::write(&path, text).unwrap();
            path.display().to_string()
        };
        let token = write("consul", "consul-token-1\n");
        let users = write("users", "ann:users-hash-2\n");
        let own = folder.path().join("state");
        fs::create_dir(&own).unwrap();
        fs::write(own.join("admin.token"), "admin-token-3").unwrap();
        let file = format!(
            "[sources.consul]\ntoken_file = \"{token}\"\nthis is wrong\n[front.auth]\nstaff = '{users}'\n"
        );
        let secrets = Secrets::of_wrong(&file, Some(&own));
        let text = "consul-token-1 users-hash-2 admin-token-3";
        assert_eq!(secrets.mask(text), "*** *** ***");
    }

    #[test]
    fn queries_and_the_output_of_checks_are_left_out() {
        let secrets = secrets(&[]);
        assert_eq!(
            secrets.mask("GET /a?b=c&d \"/x?y\" why? no"),
            "GET /a?*** \"/x?***\" why? no"
        );
        let mut value =
            serde_json::json!({"checks": [{"output": "secret", "name": "/a?b"}], "n": 1});
        secrets.mask_json(&mut value);
        let expect = serde_json::json!({"checks": [{"output": "***", "name": "/a?***"}], "n": 1});
        assert_eq!(value, expect);
    }
}
