//! A TOML document, read key by key so that all its mistakes are told at once, each with its line.
//!
//! serde stops at the first mistake; the person who edits a file wants all of them. This module knows the
//! shape of TOML only, never what a key means.

use std::fmt;

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

/// One thing that is wrong with a document.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mistake {
    /// Counted from 1.
    pub line: usize,
    /// What is wrong there and what to do.
    pub message: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.message)
    }
}

/// A value and the line where it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Lined<T> {
    pub(crate) line: usize,
    pub(crate) value: T,
}

/// Gathers what is wrong while the tables of one document are read.
pub(crate) struct Reader {
    /// Offsets of the line ends, rising.
    line_ends: Vec<usize>,
    mistakes: Vec<Mistake>,
}

impl Reader {
    /// Opens `text` at its root.
    ///
    /// # Errors
    ///
    /// All mistakes of syntax. Nothing is said about keys then: half of them would be consequences.
    pub(crate) fn open(text: &str) -> Result<(Self, Table<'_>), Vec<Mistake>> {
        let mut reader = Self {
            line_ends: text.match_indices('\n').map(|(at, _)| at).collect(),
            mistakes: Vec::new(),
        };
        let (root, errors) = DeTable::parse_recoverable(text);
        if errors.is_empty() {
            let root = Table {
                name: "the file".to_owned(),
                line: 1,
                entries: root.into_inner(),
                known: Vec::new(),
            };
            return Ok((reader, root));
        }
        for error in errors {
            let line = reader.line(error.span().map_or(0, |span| span.start));
            reader.report(line, format!("not TOML: {}", error.message()));
        }
        Err(reader.finish())
    }

    /// Notes a mistake.
    pub(crate) fn report(&mut self, line: usize, message: impl Into<String>) {
        self.mistakes.push(Mistake {
            line,
            message: message.into(),
        });
    }

    /// Everything that is wrong, in the order of the lines.
    pub(crate) fn finish(mut self) -> Vec<Mistake> {
        self.mistakes.sort();
        self.mistakes.dedup();
        self.mistakes
    }

    fn line(&self, offset: usize) -> usize {
        1 + self.line_ends.partition_point(|&end| end < offset)
    }

    fn expected(&mut self, line: usize, key: &str, wanted: &str, found: &DeValue<'_>) {
        let found = found.type_str();
        self.report(line, format!("`{key}` must be {wanted}, not a {found}"));
    }
}

/// A table of which each key is taken once; what is left in the end was not known.
pub(crate) struct Table<'t> {
    /// As people write it, such as `[vip]`.
    name: String,
    /// Where it begins.
    pub(crate) line: usize,
    entries: DeTable<'t>,
    known: Vec<&'static str>,
}

impl<'t> Table<'t> {
    /// Whether the key is there, and was not taken yet.
    pub(crate) fn has(&self, key: &str) -> bool {
        self.entries.contains_key(key)
    }

    /// A string, if the key is there.
    pub(crate) fn string(
        &mut self,
        reader: &mut Reader,
        key: &'static str,
    ) -> Option<Lined<String>> {
        self.take_as(reader, key, "a string", |value| {
            value.as_str().map(str::to_owned)
        })
    }

    /// A whole number, if the key is there.
    pub(crate) fn integer(&mut self, reader: &mut Reader, key: &'static str) -> Option<Lined<i64>> {
        self.take_as(reader, key, "a whole number", integer)
    }

    /// `true` or `false`, if the key is there.
    pub(crate) fn boolean(
        &mut self,
        reader: &mut Reader,
        key: &'static str,
    ) -> Option<Lined<bool>> {
        self.take_as(reader, key, "true or false", DeValue::as_bool)
    }

    /// A list of strings, if the key is there.
    pub(crate) fn strings(
        &mut self,
        reader: &mut Reader,
        key: &'static str,
    ) -> Option<Lined<Vec<String>>> {
        self.take_as(reader, key, "a list of strings", |value| {
            let items = value.as_array()?.iter();
            items
                .map(|item| item.get_ref().as_str().map(str::to_owned))
                .collect()
        })
    }

    /// A list of whole numbers, if the key is there.
    pub(crate) fn integers(
        &mut self,
        reader: &mut Reader,
        key: &'static str,
    ) -> Option<Lined<Vec<i64>>> {
        self.take_as(reader, key, "a list of whole numbers", |value| {
            let items = value.as_array()?.iter();
            items.map(|item| integer(item.get_ref())).collect()
        })
    }

    /// A string, or a list of strings, if the key is there.
    pub(crate) fn one_or_more(
        &mut self,
        reader: &mut Reader,
        key: &'static str,
    ) -> Option<Lined<Vec<String>>> {
        self.take_as(reader, key, "a string or a list of strings", |value| {
            if let Some(text) = value.as_str() {
                return Some(vec![text.to_owned()]);
            }
            let items = value.as_array()?.iter();
            items
                .map(|item| item.get_ref().as_str().map(str::to_owned))
                .collect()
        })
    }

    /// The table `[key]`, if it is there.
    pub(crate) fn table(&mut self, reader: &mut Reader, key: &'static str) -> Option<Self> {
        let (line, value) = self.take(reader, key)?;
        match value {
            DeValue::Table(entries) => Some(self.inner(format!("[{key}]"), line, entries)),
            other => {
                reader.expected(line, key, &format!("a table, [{key}]"), &other);
                None
            }
        }
    }

    /// The tables `[[key]]`; none when the key is not there.
    pub(crate) fn tables(&mut self, reader: &mut Reader, key: &'static str) -> Vec<Self> {
        let Some((line, value)) = self.take(reader, key) else {
            return Vec::new();
        };
        let items = match value {
            DeValue::Array(items) => items,
            other => {
                reader.expected(line, key, &format!("a list of tables, [[{key}]]"), &other);
                return Vec::new();
            }
        };
        let mut tables = Vec::new();
        for item in items {
            let line = reader.line(item.span().start);
            match item.into_inner() {
                DeValue::Table(entries) => {
                    tables.push(self.inner(format!("[[{key}]]"), line, entries));
                }
                other => reader.expected(line, key, &format!("made of tables, [[{key}]]"), &other),
            }
        }
        tables
    }

    /// Every key of a table whose keys are free, with its value as text.
    pub(crate) fn texts(self, reader: &mut Reader) -> Vec<(String, Lined<String>)> {
        let mut texts = Vec::new();
        for (key, value) in self.entries {
            let line = reader.line(key.span().start);
            let key = key.into_inner().into_owned();
            let text = match value.get_ref() {
                DeValue::String(text) => Some(text.to_string()),
                DeValue::Boolean(flag) => Some(flag.to_string()),
                other => integer(other).map(|number| number.to_string()),
            };
            match text {
                Some(value) => texts.push((key, Lined { line, value })),
                None => {
                    let wanted = "a string, a whole number, true or false";
                    reader.expected(line, &key, wanted, value.get_ref());
                }
            }
        }
        texts
    }

    /// Reports the keys that nobody asked for.
    pub(crate) fn finish(self, reader: &mut Reader) {
        for key in self.entries.keys() {
            let line = reader.line(key.span().start);
            let (name, key) = (&self.name, key.get_ref());
            let known = self.known.join(", ");
            reader.report(
                line,
                format!("{name} has no key `{key}`; it knows: {known}"),
            );
        }
    }

    fn take_as<T>(
        &mut self,
        reader: &mut Reader,
        key: &'static str,
        wanted: &str,
        convert: impl FnOnce(&DeValue<'t>) -> Option<T>,
    ) -> Option<Lined<T>> {
        let (line, value) = self.take(reader, key)?;
        let converted = convert(&value);
        if converted.is_none() {
            reader.expected(line, key, wanted, &value);
        }
        converted.map(|value| Lined { line, value })
    }

    fn take(&mut self, reader: &Reader, key: &'static str) -> Option<(usize, DeValue<'t>)> {
        self.known.push(key);
        let (_, value): (_, Spanned<DeValue<'t>>) = self.entries.remove_entry(key)?;
        Some((reader.line(value.span().start), value.into_inner()))
    }

    fn inner(&self, name: String, line: usize, entries: DeTable<'t>) -> Self {
        Self {
            name,
            line,
            entries,
            known: Vec::new(),
        }
    }
}

fn integer(value: &DeValue<'_>) -> Option<i64> {
    let number = value.as_integer()?;
    i64::from_str_radix(number.as_str(), number.radix()).ok()
}

#[cfg(test)]
mod tests {
    use super::{Mistake, Reader};

    fn read(text: &str) -> Vec<Mistake> {
        let (mut reader, mut root) = match Reader::open(text) {
            Ok(opened) => opened,
            Err(mistakes) => return mistakes,
        };
        let _ = root.string(&mut reader, "name");
        let _ = root.integer(&mut reader, "port");
        for mut item in root.tables(&mut reader, "item") {
            let _ = item.strings(&mut reader, "tags");
            if let Some(options) = item.table(&mut reader, "options") {
                let _ = options.texts(&mut reader);
            }
            item.finish(&mut reader);
        }
        root.finish(&mut reader);
        reader.finish()
    }

    #[test]
    fn every_mistake_is_told_with_its_line() {
        let mistakes = read(
            "name = 3\nport = \"80\"\nprot = 1\n\n[[item]]\ntags = [1]\n[item.options]\nlist = []\n[[item]]\nlabel = 1\n",
        );
        let lines: Vec<usize> = mistakes.iter().map(|mistake| mistake.line).collect();
        assert_eq!(lines, [1, 2, 3, 6, 8, 10], "{mistakes:#?}");
        assert!(mistakes[2].message.contains("it knows: name, port, item"));
    }

    #[test]
    fn mistakes_of_syntax_hide_those_of_meaning() {
        let mistakes = read("name = \nport = \nwrong = 1\n");
        let lines: Vec<usize> = mistakes.iter().map(|mistake| mistake.line).collect();
        assert_eq!(lines, [1, 2], "{mistakes:#?}");
    }

    #[test]
    fn a_correct_document_has_no_mistakes() {
        assert_eq!(
            read("name = \"a\"\nport = 0x50\n[[item]]\ntags = [\"a\"]\noptions.drain = 30\n"),
            []
        );
    }
}
