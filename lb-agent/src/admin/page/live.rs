//! The texts on the page that change by themselves: each has a key, so that the stream can send it alone.
//! Rendering and streaming take them from here, so that they never differ.

use maud::{Markup, html};

use super::{
    graph,
    number::{bytes, per_second, thousands},
};
use crate::admin::{
    compose::age,
    history::{Kind, Rings, Totals},
    report::{Backend, Component, Connects, Report, Service},
    text,
};

/// When open flows are cut, behind the state.
fn cut(backend: &Backend, now_unix: u64) -> String {
    match backend.cut_unix {
        None => String::new(),
        Some(at) if at <= now_unix => ", open flows are cut now".to_owned(),
        Some(at) => format!(
            ", open flows are cut in {}",
            text::duration(age(at, now_unix))
        ),
    }
}

/// The texts of a service, a backend or a part of the agent.
pub(in crate::admin) struct Live {
    of: String,
    texts: Vec<(&'static str, String)>,
}

impl Live {
    /// Those of the agent.
    pub(in crate::admin) fn agent(report: &Report, rings: &Rings) -> Self {
        let all = Totals::of(report, rings);
        Self {
            of: "agent".to_owned(),
            texts: vec![
                ("flow-rate", per_second(all.flows_per_second)),
                (
                    "request-rate",
                    all.requests_per_second
                        .map_or_else(|| "–".to_owned(), |it| per_second(Some(it))),
                ),
                ("active", known(all.active)),
            ],
        }
    }

    /// That of each part of the agent: its own words.
    pub(in crate::admin) fn parts(parts: &[Component]) -> impl Iterator<Item = Self> {
        parts.iter().map(|part| Self {
            of: format!("part|{}", part.name),
            texts: vec![("detail", part.detail.clone())],
        })
    }

    /// That of each source: how old its data is, which changes without a new row.
    pub(in crate::admin) fn sources(report: &Report) -> impl Iterator<Item = Self> {
        let sources = report.sources.iter();
        sources.map(|(name, source)| {
            let updated = source.updated_unix.unwrap_or(report.now_unix);
            let age = text::duration(age(report.now_unix, updated));
            Self {
                of: format!("source|{name}"),
                texts: vec![("age", age)],
            }
        })
    }

    pub(in crate::admin) fn service(service: &Service, rings: &Rings) -> Self {
        let label = &service.label;
        let line = |kind| rings.line(label, kind);
        let [flows, failures, active, requests, errors] = Kind::ALL.map(line);
        let count =
            |of: fn(&crate::admin::report::Flows) -> u64| known(service.flows.as_ref().map(of));
        let connects = service.connects.as_ref();
        let http = rings.http(label);
        let mut texts = vec![
            ("active", count(|flows| flows.active)),
            ("flows", count(|flows| flows.total)),
            ("refused", count(|flows| flows.refused)),
            ("failed", count(|flows| flows.failed)),
            ("flow-rate", per_second(rings.rate(&flows))),
            ("failure-rate", per_second(rings.rate(&failures))),
            ("p50", took(connects, |it| it.p50_microseconds)),
            ("p99", took(connects, |it| it.p99_microseconds)),
            ("flow-line", graph::path(&flows)),
            ("failure-line", graph::path(&failures)),
            ("active-line", graph::path(&active)),
            ("flow-width", graph::width(rings.rate(&flows))),
        ];
        if let Some(http) = http {
            let took = |it: Option<u64>| it.map_or_else(|| "–".to_owned(), upto);
            texts.extend([
                ("request-rate", per_second(rings.rate(&requests))),
                ("error-rate", per_second(rings.rate(&errors))),
                ("requests", thousands(http.requests)),
                ("errors", thousands(http.errors)),
                ("request-p50", took(http.p50_microseconds)),
                ("request-p99", took(http.p99_microseconds)),
                ("received", bytes(http.received)),
                ("sent", bytes(http.sent)),
                ("request-line", graph::path(&requests)),
                ("error-line", graph::path(&errors)),
            ]);
        }
        Self {
            of: label.clone(),
            texts,
        }
    }

    pub(in crate::admin) fn backend(service: &Service, backend: &Backend, rings: &Rings) -> Self {
        let line = rings.backend_line(&service.label, &backend.key);
        let connects = backend.connects.as_ref();
        let mut texts = vec![
            ("active", known(backend.active)),
            ("flows", known(connects.map(|it| it.count))),
            ("flow-rate", per_second(rings.rate(&line))),
            ("failed", known(backend.failed)),
            ("p50", took(connects, |it| it.p50_microseconds)),
            ("p99", took(connects, |it| it.p99_microseconds)),
            ("flow-line", graph::path(&line)),
            ("flow-width", graph::width(rings.rate(&line))),
        ];
        if let Some(front) = &backend.front {
            texts.extend([
                ("in-flight", thousands(front.in_flight)),
                ("requests", thousands(front.requests)),
                ("errors", thousands(front.errors)),
                ("retries", thousands(front.retries)),
                ("request-p50", measured(front.p50_microseconds)),
                ("request-p99", measured(front.p99_microseconds)),
                ("received", bytes(front.received)),
                ("sent", bytes(front.sent)),
            ]);
        }
        Self {
            of: format!("{}|{}", service.label, backend.key),
            texts,
        }
    }

    /// With when the open flows of the backend are cut.
    pub(in crate::admin) fn with_cut(mut self, backend: &Backend, now_unix: u64) -> Self {
        self.texts.push(("cut", cut(backend, now_unix)));
        self
    }

    /// One of them as a text that is kept up to date.
    pub(super) fn text(&self, name: &str) -> Markup {
        html! { span data-k={ (self.of) "|" (name) } { (self.value(name)) } }
    }

    /// One of them alone.
    pub(super) fn value(&self, name: &str) -> &str {
        let mut texts = self.texts.iter();
        let found = texts.find(|(known, _)| *known == name);
        found.map_or("–", |(_, text)| text)
    }

    /// Its key.
    pub(super) fn key(&self, name: &str) -> String {
        format!("{}|{name}", self.of)
    }

    /// Key and text of each.
    pub(in crate::admin) fn into_texts(self) -> impl Iterator<Item = (String, String)> {
        let of = self.of;
        let texts = self.texts.into_iter();
        texts.map(move |(name, text)| (format!("{of}|{name}"), text))
    }
}

pub(super) fn known(value: Option<u64>) -> String {
    value.map_or_else(|| "?".to_owned(), thousands)
}

/// A percentile of connects; `?` when not known, a dash where none was measured.
pub(super) fn took(connects: Option<&Connects>, of: impl Fn(&Connects) -> Option<u64>) -> String {
    connects.map_or_else(|| "?".to_owned(), |it| measured(of(it)))
}

fn measured(microseconds: Option<u64>) -> String {
    microseconds.map_or_else(|| "–".to_owned(), text::microseconds)
}

/// A time that is known only by its bound.
fn upto(microseconds: u64) -> String {
    format!("≤ {}", text::microseconds(microseconds))
}
