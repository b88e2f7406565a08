//! `lb_canary`: a request may say itself which group it is for.

use hyper::{
    HeaderMap,
    header::{HeaderName, HeaderValue},
};

use crate::{rules, table::Group};

pub(super) struct Override(HeaderName);

impl Override {
    /// `None` if nothing can be said.
    pub(super) fn new(rule: &rules::Canary) -> Option<Self> {
        let field = rule.field.as_ref()?;
        Some(Self(HeaderName::try_from(field).ok()?))
    }

    /// What the request says, if it says it once.
    pub(super) fn group(&self, headers: &HeaderMap) -> Option<Group> {
        let mut values = headers.get_all(&self.0).iter();
        let value = values.next().filter(|_| values.next().is_none());
        let is = |word: &str| {
            let value = value.map(HeaderValue::as_bytes);
            value.is_some_and(|value| value.eq_ignore_ascii_case(word.as_bytes()))
        };
        match (is("always"), is("never")) {
            (true, _) => Some(Group::Canary),
            (_, true) => Some(Group::Rest),
            _ => None,
        }
    }
}
