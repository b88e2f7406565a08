//! Tags of every service, which may name fields of the container: `{{.Name}}`.

use std::{fmt, str::FromStr};

use crate::docker::Container;

/// One tag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    text: String,
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Id,
    Name,
    Image,
    Label(String),
    Variable(String),
}

/// A part of a tag that is not understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// Something of Registrator's language that we lack.
    #[error(
        "`{{{{{0}}}}}` is not supported; use .ID, .Name, .Config.Image, .Config.Labels.KEY or .Config.Env.KEY"
    )]
    Unsupported(String),
    /// Brackets that do not close.
    #[error("`{{{{` has no `}}}}` behind it; close it")]
    Open,
}

impl FromStr for Template {
    type Err = TemplateError;

    fn from_str(text: &str) -> Result<Self, TemplateError> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((before, behind)) = rest.split_once("{{") {
            let (field, after) = behind.split_once("}}").ok_or(TemplateError::Open)?;
            parts.push(Part::Text(before.to_owned()));
            parts.push(part(field.trim())?);
            rest = after;
        }
        parts.push(Part::Text(rest.to_owned()));
        let text = text.to_owned();
        Ok(Self { text, parts })
    }
}

fn part(field: &str) -> Result<Part, TemplateError> {
    let unsupported = || TemplateError::Unsupported(field.to_owned());
    // A blank or a bar would be a function of Go's templates.
    let plain = !field.contains(|c: char| c.is_whitespace() || "|()\"".contains(c));
    let keyed = |prefix| {
        let key = field.strip_prefix(prefix)?;
        (!key.is_empty()).then(|| key.to_owned())
    };
    match field {
        _ if !plain => Err(unsupported()),
        ".ID" => Ok(Part::Id),
        ".Name" => Ok(Part::Name),
        ".Config.Image" => Ok(Part::Image),
        _ => keyed(".Config.Labels.")
            .map(Part::Label)
            .or_else(|| keyed(".Config.Env.").map(Part::Variable))
            .ok_or_else(unsupported),
    }
}

impl Template {
    /// The tag for `container`; a label or a variable that is not there is empty.
    pub(super) fn fill(&self, container: &Container) -> String {
        // Of variables that are there twice the last one counts, as it does for words.
        let variable = |key: &str| {
            let mut environment = container.environment.iter().rev();
            environment
                .find(|(name, _)| name == key)
                .map(|(_, text)| &**text)
        };
        let parts = self.parts.iter().map(|part| match part {
            Part::Text(text) => text,
            Part::Id => &*container.id,
            Part::Name => &container.name,
            Part::Image => &container.image,
            Part::Label(key) => container.labels.get(key).map_or("", |text| text),
            Part::Variable(key) => variable(key).unwrap_or_default(),
        });
        parts.collect()
    }
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}
