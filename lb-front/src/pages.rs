//! Pages of the operator's in place of lines of the front's own. The agent reads them; which there are outlasts every change
//! of routes, and the agent that sent them.

use bytes::Bytes;
use hyper::{
    Response,
    header::{CONTENT_TYPE, HeaderValue},
};
use serde::{Deserialize, Serialize};

use super::{answer::Reason, exchange::Exchange};

/// All pages.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Pages {
    /// For a name that no service has.
    pub no_route: Option<Page>,
    /// For a service without a usable backend.
    pub no_backend: Option<Page>,
    /// For a service under maintenance that has no notice of its own.
    pub maintenance: Option<Page>,
}

/// One page.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page {
    /// Whether it is HTML; else it is plain text.
    pub html: bool,
    /// What is in it.
    pub text: String,
}

impl Page {
    /// Bytes of a page.
    pub const LIMIT: usize = 64 * 1024;
}

/// The same, ready to be sent.
#[derive(Debug, Default)]
pub(super) struct Ready {
    no_route: Option<Sheet>,
    no_backend: Option<Sheet>,
    maintenance: Option<Sheet>,
}

#[derive(Debug)]
struct Sheet {
    kind: HeaderValue,
    text: Bytes,
}

impl Ready {
    pub(super) fn new(pages: &Pages) -> Self {
        let ready = |page: &Option<Page>| {
            let page = page.as_ref()?;
            Some(Sheet {
                kind: HeaderValue::from_static(match page.html {
                    true => "text/html; charset=utf-8",
                    false => "text/plain; charset=utf-8",
                }),
                text: page.text.clone().into(),
            })
        };
        Self {
            no_route: ready(&pages.no_route),
            no_backend: ready(&pages.no_backend),
            maintenance: ready(&pages.maintenance),
        }
    }

    /// `answer`, which is given for `reason`, with the page for that if there is one. A call of gRPC has no use for it.
    pub(super) fn dress(
        &self,
        mut answer: Response<Bytes>,
        reason: Reason,
        exchange: &Exchange,
    ) -> Response<Bytes> {
        let sheet = match reason {
            Reason::NoRoute => &self.no_route,
            Reason::NoBackend => &self.no_backend,
            Reason::Maintenance => &self.maintenance,
            _ => &None,
        };
        if let Some(sheet) = sheet.as_ref().filter(|_| !exchange.is_call()) {
            answer
                .headers_mut()
                .insert(CONTENT_TYPE, sheet.kind.clone());
            *answer.body_mut() = sheet.text.clone();
        }
        answer
    }
}
