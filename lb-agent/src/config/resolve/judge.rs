//! What gathers everything that is wrong.

use std::{ops::RangeInclusive, path::PathBuf};

use crate::config::{Error, Given, Outside};

/// Turns texts into values and gathers what is wrong. After a mistake the default stands in, so that the rest
/// is judged too.
pub(in crate::config) struct Judge<'o> {
    pub(super) mistakes: Vec<String>,
    pub(in crate::config) outside: Outside<'o>,
}

/// What a text means, or what to write instead.
pub(in crate::config) type Read<T> = fn(&str) -> Result<T, String>;

impl<'o> Judge<'o> {
    pub(in crate::config) fn new(outside: Outside<'o>, mistakes: Vec<String>) -> Self {
        Self { mistakes, outside }
    }

    /// `value`, if nothing is wrong.
    pub(in crate::config) fn finish<T>(self, value: T) -> Result<T, Error> {
        let mistakes = self.mistakes;
        match mistakes.is_empty() {
            true => Ok(value),
            false => Err(Error { mistakes }),
        }
    }

    pub(in crate::config) fn text<T>(
        &mut self,
        given: &Option<Given<String>>,
        default: T,
        read: Read<T>,
    ) -> T {
        let Some(given) = given else {
            return default;
        };
        read(given.value.trim()).unwrap_or_else(|remedy| {
            // It may be an address with a password in it.
            let text = match given.value.contains("://") {
                true => crate::discover::consul::Address::redacted(&given.value),
                false => given.value.clone(),
            };
            self.wrong(given, &format!("`{text}`: {remedy}"));
            default
        })
    }

    pub(in crate::config) fn list<T>(
        &mut self,
        given: &Option<Given<Vec<String>>>,
        default: Vec<T>,
        read: Read<T>,
    ) -> Vec<T> {
        let Some(given) = given else {
            return default;
        };
        let mut values = Vec::new();
        for text in &given.value {
            match read(text.trim()) {
                Ok(value) => values.push(value),
                Err(remedy) => {
                    // It may be the address of a Consul, with a password in it.
                    let text = crate::discover::consul::Address::redacted(text);
                    self.wrong(given, &format!("`{text}`: {remedy}"));
                }
            }
        }
        values
    }

    pub(in crate::config) fn number<T: TryFrom<i64> + Copy>(
        &mut self,
        given: &Option<Given<i64>>,
        default: T,
        range: RangeInclusive<i64>,
    ) -> T {
        let Some(given) = given else {
            return default;
        };
        let value = Some(given.value).filter(|value| range.contains(value));
        match value.and_then(|value| T::try_from(value).ok()) {
            Some(value) => value,
            None => {
                let (from, to) = (range.start(), range.end());
                let value = given.value;
                self.wrong(
                    given,
                    &format!("{value}: write a number from {from} to {to}"),
                );
                default
            }
        }
    }

    pub(in crate::config) fn path(
        &mut self,
        given: &Option<Given<String>>,
        default: &str,
    ) -> PathBuf {
        match given {
            None => PathBuf::from(default),
            Some(given) => {
                if given.value.is_empty() {
                    self.wrong(given, "the path is empty; write one or leave the key out");
                }
                PathBuf::from(&given.value)
            }
        }
    }

    pub(in crate::config) fn wrong<T>(&mut self, given: &Given<T>, message: &str) {
        self.mistakes.push(format!("{}: {message}", given.origin));
    }
}
