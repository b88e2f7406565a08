//! The words of a container: its `SERVICE_…` variables and labels, as Registrator reads them.

use std::collections::{BTreeMap, BTreeSet};

use crate::{docker::Container, options::cut};

/// All words of a container, keys in lower case and without `SERVICE_`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Words {
    general: BTreeMap<String, String>,
    by_port: BTreeMap<u16, BTreeMap<String, String>>,
    /// Whole keys for a number that is no port.
    astray: BTreeSet<String>,
}

/// The words that hold for one port.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct PortWords {
    all: BTreeMap<String, String>,
    own: BTreeSet<String>,
}

impl Words {
    /// Reads the environment, then the labels: a label overrides a variable.
    pub(super) fn of(container: &Container) -> Self {
        let environment = container.environment.iter().map(|(key, text)| (key, text));
        let mut words = Self::default();
        for (key, text) in environment.chain(&container.labels) {
            let Some(key) = key.strip_prefix(PREFIX) else {
                continue;
            };
            let key = key.to_lowercase();
            // `SERVICE_<digits>` with nothing behind is a general key of that name.
            match key.split_once('_') {
                Some((digits, key)) if is_number(digits) => {
                    if let Some(port) = port(digits) {
                        let own = words.by_port.entry(port).or_default();
                        own.insert(key.to_owned(), text.clone());
                    } else if !text.is_empty() {
                        // Number 0, `080` or 99999 is no port: the word is for nobody.
                        words.astray.insert(format!("{digits}_{key}"));
                    }
                }
                _ => {
                    words.general.insert(key, text.clone());
                }
            }
        }
        words
    }

    /// The words for `port`: its own win over the general ones.
    pub(super) fn at(&self, port: u16) -> PortWords {
        let own = self.by_port.get(&port);
        let mut all = self.general.clone();
        all.extend(own.cloned().unwrap_or_default());
        let own = own.into_iter().flat_map(BTreeMap::keys).cloned().collect();
        PortWords { all, own }
    }

    /// What is wrong with words that are for no port, in one sentence.
    pub(super) fn explain(&self) -> Option<String> {
        let first = self.astray.first()?.to_ascii_uppercase();
        let more = match self.astray.len() - 1 {
            0 => String::new(),
            more => format!(" and {more} more of its kind"),
        };
        Some(format!(
            "SERVICE_{}{more} has no effect, because its number is no port; write one from 1 to 65535, \
             without a zero before it",
            cut(&first)
        ))
    }

    /// The ports that have a name of their own.
    pub(super) fn named_ports(&self) -> impl Iterator<Item = u16> {
        let named =
            |words: &BTreeMap<String, String>| words.get("name").is_some_and(|it| !it.is_empty());
        let ports = self.by_port.iter();
        ports
            .filter(move |(_, words)| named(words))
            .map(|(port, _)| *port)
    }
}

impl PortWords {
    /// The word `key`; an empty one is none.
    pub(super) fn text(&self, key: &str) -> Option<&str> {
        let text = self.all.get(key)?;
        (!text.is_empty()).then_some(text)
    }

    /// Whether `key` was written for this very port; an empty word is none.
    pub(super) fn is_own(&self, key: &str) -> bool {
        self.own.contains(key) && self.text(key).is_some()
    }

    /// All words, by key.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.all.iter().map(|(key, text)| (&**key, &**text))
    }
}

/// The items of a comma-separated list in their order; `\,` is a comma, empty items are dropped, blanks stay.
pub fn list(text: &str) -> Vec<String> {
    let mut items = vec![String::new()];
    let mut rest = text.chars().peekable();
    while let Some(character) = rest.next() {
        match (character, items.last_mut()) {
            ('\\', Some(item)) if rest.peek() == Some(&',') => {
                item.extend(rest.next());
            }
            (',', _) => items.push(String::new()),
            (_, Some(item)) => item.push(character),
            (_, None) => {}
        }
    }
    items.retain(|item| !item.is_empty());
    items
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

fn port(digits: &str) -> Option<u16> {
    let port = digits.parse().ok().filter(|&port: &u16| port != 0)?;
    (!digits.starts_with('0')).then_some(port)
}

const PREFIX: &str = "SERVICE_";
