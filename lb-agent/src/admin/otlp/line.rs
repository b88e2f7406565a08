//! Lines of our own OpenMetrics text, taken apart. Pure.

/// A line that says something.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Line<'t> {
    /// What the family that follows says, as it was registered.
    Help(&'t str, &'t str),
    /// What its samples are.
    Type(&'t str, &'t str),
    Sample(Sample<'t>),
}

/// One value.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Sample<'t> {
    /// With its suffix.
    pub(super) name: &'t str,
    pub(super) labels: Vec<(&'t str, String)>,
    pub(super) value: &'t str,
}

impl<'t> Line<'t> {
    /// `None` for units, which the names say, for the end, and for what is no line of ours.
    pub(super) fn read(line: &'t str) -> Option<Self> {
        let Some(comment) = line.strip_prefix("# ") else {
            return Sample::read(line).map(Self::Sample);
        };
        let (word, rest) = comment.split_once(' ')?;
        let (name, said) = rest.split_once(' ')?;
        match word {
            "HELP" => Some(Self::Help(name, said)),
            "TYPE" => Some(Self::Type(name, said)),
            _ => None,
        }
    }
}

impl<'t> Sample<'t> {
    fn read(line: &'t str) -> Option<Self> {
        let end = line.find(['{', ' '])?;
        let (name, mut rest) = line.split_at(end);
        let mut labels = Vec::new();
        if let Some(inside) = rest.strip_prefix('{') {
            rest = inside;
            while !rest.starts_with('}') {
                let (label, behind) = rest.split_once("=\"")?;
                let end = end_of_text(behind)?;
                labels.push((label, unescaped(&behind[..end])));
                rest = &behind[end + 1..];
                rest = rest.strip_prefix(',').unwrap_or(rest);
            }
            rest = &rest[1..];
        }
        // What follows the value, a time or an exemplar, we do not write.
        let value = rest.strip_prefix(' ')?.split(' ').next()?;
        Some(Self {
            name,
            labels,
            value,
        })
    }
}

/// Where the quote is that ends a text.
fn end_of_text(text: &str) -> Option<usize> {
    let mut escaped = false;
    text.bytes().position(|byte| {
        let ends = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        ends
    })
}

fn unescaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some('n') => out.push('\n'),
                other => out.extend(other),
            },
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::admin::figures::{Figure, Figures, Sample as Told};

    #[test]
    fn a_line_is_help_or_type_or_a_sample() {
        assert_eq!(
            Line::read("# HELP lb_x A \\n line."),
            Some(Line::Help("lb_x", "A \\n line."))
        );
        assert_eq!(
            Line::read("# TYPE lb_x counter"),
            Some(Line::Type("lb_x", "counter"))
        );
        let plain = Sample {
            name: "lb_x",
            labels: Vec::new(),
            value: "7.5",
        };
        assert_eq!(Line::read("lb_x 7.5"), Some(Line::Sample(plain)));
        for other in ["", "# EOF", "# UNIT lb_x seconds", "lb_x", "lb_x{a=\"b 1"] {
            assert_eq!(Line::read(other), None, "{other}");
        }
    }

    proptest! {
        #[test]
        fn what_the_registry_writes_is_read_back(value in "\\PC*|[\"\\\\\n},= ]*", number in any::<u32>()) {
            let sample = Told::labelled([("one", &*value), ("other", "b")], number.into());
            let figure = Figure::gauge("x", "Says \\ something.", vec![sample]);
            let mut registry = prometheus_client::registry::Registry::with_prefix("lb");
            registry.register_collector(Box::new(Figures::new(move || vec![figure.clone()])));
            let mut text = String::new();
            prometheus_client::encoding::text::encode_registry(&mut text, &registry).unwrap();
            let lines: Vec<_> = text.lines().filter_map(Line::read).collect();
            prop_assert_eq!(lines.len(), 3, "{}", text);
            prop_assert_eq!(&lines[0], &Line::Help("lb_x", "Says \\ something."));
            let Line::Sample(sample) = &lines[2] else {
                panic!("{text}")
            };
            prop_assert_eq!(&sample.labels, &[("one", value), ("other", "b".to_owned())]);
            prop_assert_eq!(sample.value.parse(), Ok(f64::from(number)));
        }
    }
}
