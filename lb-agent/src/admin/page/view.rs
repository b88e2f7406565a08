//! Which services are asked for: a search, a state and a page of the list. Pure.
//!
//! All of it is in the address, so that a filter is a link and works without scripts.

use serde::Deserialize;

use crate::admin::report::{Service, ServiceState};

/// The query of the address. What makes no sense asks for nothing.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(in crate::admin) struct Asked {
    q: String,
    state: String,
    page: String,
}

/// What is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct View {
    /// As it was typed.
    pub(super) q: String,
    pub(super) state: Option<ServiceState>,
    /// From 0 on.
    pub(super) page: usize,
}

impl From<Asked> for View {
    fn from(asked: Asked) -> Self {
        let state = ServiceState::ALL.into_iter();
        let page: usize = asked.page.parse().unwrap_or(1);
        Self {
            state: state.into_iter().find(|it| it.as_str() == asked.state),
            q: asked.q,
            page: page.saturating_sub(1),
        }
    }
}

impl View {
    /// Whether it leaves out nothing.
    pub(super) fn is_all(&self) -> bool {
        self.q.trim().is_empty() && self.state.is_none()
    }

    /// Those of `services` that are asked for, on whichever page.
    pub(super) fn of<'s>(&self, services: &'s [Service]) -> Vec<&'s Service> {
        let words: Vec<String> = self.q.split_whitespace().map(str::to_lowercase).collect();
        let asked = |service: &&Service| {
            self.state.is_none_or(|state| service.state == state)
                && words.iter().all(|word| names(service, word))
        };
        services.iter().filter(asked).collect()
    }

    /// The address of page `page`, from 0 on, of the same search.
    pub(super) fn href(&self, page: usize) -> String {
        let mut parts = Vec::new();
        if !self.q.is_empty() {
            parts.push(format!("q={}", escaped(&self.q)));
        }
        if let Some(state) = self.state {
            parts.push(format!("state={}", state.as_str()));
        }
        if page > 0 {
            parts.push(format!("page={}", page + 1));
        }
        format!("/?{}#services", parts.join("&"))
    }
}

/// Whether a text that people know the service by has this word in it.
fn names(service: &Service, word: &str) -> bool {
    let has = |text: &str| match text.is_ascii() {
        // Most names are in lower case already.
        true if text.contains(word) => true,
        _ => text.to_lowercase().contains(word),
    };
    has(&service.name)
        || has(&service.label)
        || service.hosts.iter().any(|host| has(host))
        || service.vip.is_some_and(|vip| has(&vip.to_string()))
        || service.backends.iter().any(|backend| {
            has(&backend.key.id)
                || has(&backend.key.node)
                || has(&backend.address.to_string())
                || has(backend.state.as_str())
        })
}

/// `text` as a part of an address.
pub(super) fn escaped(text: &str) -> String {
    let escape = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
            char::from(byte).to_string()
        }
        byte => format!("%{byte:02X}"),
    };
    text.bytes().map(escape).collect()
}

/// Rows of a page of the list; with no more services than that, each has its section on the first page, too.
pub(super) const ROWS: usize = 200;
