//! What a service's [`Rules`] do to a request and its answer. Nothing is decided here that the agent could decide: rules
//! come judged, and are made ready once for each table.

mod auth;
mod canary;
mod compress;
mod cors;
mod headers;
mod https;
mod rate;
mod redirect;
mod sticky;
mod strip;

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use bytes::Bytes;
use hyper::{
    HeaderMap, Response, StatusCode,
    header::{self, HeaderValue},
    http::request::Parts,
};

use super::{
    answer::Reason,
    body::Download,
    lasting::Lasting,
    passwords::{Full, Passwords, Question},
    request::Checked,
    rules::{ProxyProtocol, Rules},
    table::{Group, Table},
};
use auth::{Auth, Who};
use canary::Override;
use cors::{Cors, Told};
use headers::Fields;
pub(super) use rate::Paces;
use rate::Rate;
use redirect::Redirect;
use sticky::Shown;
pub(super) use sticky::Sticky;
pub use sticky::StickyKey;
use strip::Strip;

pub use https::HttpsSettings;
pub(super) use https::{Https, tell_hsts};

/// The rules of a service that has any, ready to be followed.
pub(super) struct Policy {
    maintenance: Option<Notice>,
    redirect: Option<Redirect>,
    cors: Option<Cors>,
    compress: bool,
    canary: Option<Override>,
    rate: Option<Rate>,
    auth: Option<Auth>,
    sticky: Option<Sticky>,
    strip: Option<Strip>,
    request: Fields,
    response: Fields,
    proxy_protocol: Option<ProxyProtocol>,
    retries: Option<u8>,
    timeout: Option<Duration>,
    idle: Option<Duration>,
    max_body: Option<u64>,
}

/// What of a request decides about the head of its answer.
#[derive(Default)]
pub(super) struct Note {
    told: Option<Told>,
    /// Whether the client takes it compressed.
    pub(super) gzip: bool,
    pub(super) wish: Wish,
    shown: Shown,
    secure: bool,
    login: Option<Box<Login>>,
}

/// The user that a client says to be.
struct Login {
    user: HeaderValue,
    /// What must be found out before that is true.
    question: Option<Question>,
}

/// Who asks, and what there is to judge that by.
pub(super) struct Asking<'a> {
    pub(super) client: IpAddr,
    pub(super) headers: &'a HeaderMap,
    pub(super) lasting: &'a Lasting,
    pub(super) table: &'a Table,
    pub(super) passwords: &'a Passwords,
}

impl Note {
    /// The user who asks, if that is known.
    pub(super) fn user(&self) -> Option<&HeaderValue> {
        let login = self.login.as_ref()?;
        login.question.is_none().then_some(&login.user)
    }

    /// Whether a password must be looked at.
    pub(super) fn is_open(&self) -> bool {
        let login = self.login.as_ref();
        login.is_some_and(|login| login.question.is_some())
    }
}

/// Which backend the request is for, rather than that whose turn it is.
#[derive(Clone, Copy, Default)]
pub(super) struct Wish {
    pub(super) group: Option<Group>,
    /// Its index, if it has a place and did not just fail.
    pub(super) backend: Option<u32>,
}

/// An answer that a rule gives in place of a backend.
pub(super) struct Answer {
    pub(super) reason: Reason,
    pub(super) response: Response<Bytes>,
}

impl Policy {
    pub(super) fn new(rules: &Rules, sticky: Option<Sticky>) -> Self {
        Self {
            maintenance: rules.maintenance.as_ref().map(Notice::new),
            redirect: rules.redirect.as_ref().map(Redirect::new),
            cors: rules.cors.as_ref().map(Cors::new),
            compress: rules.compress,
            canary: rules.canary.as_ref().and_then(Override::new),
            rate: rules.rate.as_ref().map(Rate::new),
            auth: rules.auth.as_deref().map(Auth::new),
            sticky,
            strip: (rules.path.as_deref().filter(|_| rules.strip)).and_then(Strip::new),
            request: Fields::new(&rules.request_headers),
            response: Fields::new(&rules.response_headers),
            proxy_protocol: rules.proxy_protocol,
            retries: rules.retries,
            timeout: rules.timeout_milliseconds.map(Duration::from_millis),
            idle: rules.idle_milliseconds.map(Duration::from_millis),
            max_body: rules.max_body,
        }
    }

    /// Whether the request may go on to a backend, and what to remember of it. It is `secure` if the client speaks HTTPS to us or to
    /// a proxy that is believed.
    ///
    /// # Errors
    ///
    /// The answer that it gets if not.
    pub(super) fn before(
        &self,
        parts: &Parts,
        checked: &Checked,
        secure: bool,
    ) -> Result<Note, Box<Answer>> {
        if let Some(notice) = &self.maintenance {
            return Err(notice.answer().into());
        }
        let redirected = self.redirect.as_ref();
        if let Some(answer) =
            redirected.and_then(|redirect| redirect.answer(parts, checked, secure))
        {
            return Err(answer.into());
        }
        let cors = self.cors.as_ref();
        if let Some(answer) = cors.and_then(|cors| cors.preflight(parts)) {
            return Err(answer.into());
        }
        let headers = &parts.headers;
        let canary = self.canary.as_ref();
        let forced = canary.and_then(|canary| canary.group(headers));
        let mut note = Note {
            told: cors.map(|cors| cors.judge(headers)),
            gzip: self.compress && compress::takes_gzip(headers),
            wish: Wish {
                group: forced,
                backend: None,
            },
            shown: Shown::default(),
            secure,
            login: None,
        };
        if let Some(sticky) = &self.sticky {
            note.shown = sticky.read(headers);
            note.wish = sticky.wish(note.shown, forced);
        }
        Ok(note)
    }

    /// Whether the client may ask for something now: what is left after [`Self::before`], by order of cost.
    ///
    /// # Errors
    ///
    /// The answer that it gets if not.
    pub(super) fn admit(&self, asking: &Asking<'_>, mut note: Note) -> Result<Note, Box<Answer>> {
        let Asking {
            client, headers, ..
        } = *asking;
        if let Some(rate) = &self.rate {
            let paces = asking.lasting.paces.get_or_init(Paces::default);
            if let Some(answer) = rate.refuse(paces, client) {
                return Err(self.told(answer, note));
            }
        }
        if let Some(auth) = &self.auth {
            let users = asking.table.users(auth.list());
            let (user, question) = match auth.who(users, asking.passwords, headers, client) {
                Ok(Who::User(user)) => (user, None),
                Ok(Who::Perhaps(user, question)) => (user, Some(question)),
                Err(answer) => return Err(self.told(answer, note)),
            };
            note.login = Some(Login { user, question }.into());
        }
        Ok(note)
    }

    /// Has a password looked at, where [`Note::is_open`].
    ///
    /// # Errors
    ///
    /// The answer to a client that gave a wrong one.
    pub(super) async fn ask(
        &self,
        passwords: &Passwords,
        note: &mut Note,
    ) -> Result<(), Box<Answer>> {
        let login = note.login.as_mut();
        let question = login.and_then(|login| login.question.take());
        let (Some(auth), Some(question)) = (&self.auth, question) else {
            return Ok(());
        };
        let answer = match passwords.ask(question).await {
            Ok(true) => return Ok(()),
            Ok(false) => auth.refusal(),
            Err(Full) => auth::full(),
        };
        Err(self.told(answer, std::mem::take(note)))
    }

    /// An answer of ours to a page that may read those of the service.
    fn told(&self, answer: impl Into<Box<Answer>>, note: Note) -> Box<Answer> {
        let mut answer = answer.into();
        if let (Some(cors), Some(told)) = (&self.cors, note.told) {
            cors.tell(answer.response.headers_mut(), told);
        }
        answer
    }

    /// How backends are told which client a connection is for.
    pub(super) fn proxy_protocol(&self) -> Option<ProxyProtocol> {
        self.proxy_protocol
    }

    /// Whether it is under maintenance and says no more of that.
    pub(super) fn has_no_notice(&self) -> bool {
        self.maintenance.as_ref().is_some_and(|notice| notice.usual)
    }

    /// On how many more backends a request may be tried, if the service says so.
    pub(super) fn retries(&self) -> Option<usize> {
        self.retries.map(usize::from)
    }

    /// How long a backend may take to begin its answer, if the service says so.
    pub(super) fn timeout(&self) -> Option<Duration> {
        self.timeout
    }

    /// How many bytes a request's body may have, if the service says so.
    pub(super) fn max_body(&self) -> Option<u64> {
        self.max_body
    }

    /// How long an answer or a tunnel may be silent, if the service says so.
    pub(super) fn idle(&self) -> Option<Duration> {
        self.idle
    }

    /// Changes the head that a backend gets, after everything that the front itself says there.
    pub(super) fn on_request(&self, parts: &mut Parts, note: &Note) {
        if self.auth.is_some() {
            Auth::apply(&mut parts.headers, note.user());
        }
        if let Some(strip) = &self.strip {
            strip.apply(parts);
        }
        if let Some(sticky) = &self.sticky {
            sticky.take(&mut parts.headers);
        }
        self.request.apply_alone(&mut parts.headers);
    }

    /// Changes an answer of `backend` to a request with the fields `asked`, once it is fit for the client.
    pub(super) fn on_answer(
        &self,
        response: &mut Response<Download>,
        asked: &HeaderMap,
        note: Note,
        backend: Option<SocketAddr>,
    ) {
        let gzip = note.gzip;
        self.on_switch(response.headers_mut(), note, backend);
        if self.compress {
            compress::apply(response, gzip, asked);
        }
    }

    /// The same where the answer is that both sides leave HTTP.
    pub(super) fn on_switch(
        &self,
        headers: &mut HeaderMap,
        note: Note,
        backend: Option<SocketAddr>,
    ) {
        if let (Some(cors), Some(told)) = (&self.cors, note.told) {
            cors.tell(headers, told);
        }
        self.response.apply(headers);
        if let Some(sticky) = &self.sticky {
            sticky.tell(headers, note.shown, backend, note.secure);
        }
    }
}

/// What a service under maintenance answers.
struct Notice {
    text: Bytes,
    /// Whether it is nobody's own.
    usual: bool,
    retry_after: Option<HeaderValue>,
}

impl Notice {
    fn new(maintenance: &super::rules::Maintenance) -> Self {
        let notice = maintenance.notice.as_deref();
        let text = notice.unwrap_or("maintenance: the service is being worked on");
        Self {
            text: format!("{text}\n").into(),
            usual: notice.is_none(),
            retry_after: maintenance.retry_after_seconds.map(HeaderValue::from),
        }
    }

    fn answer(&self) -> Answer {
        let mut response = text(StatusCode::SERVICE_UNAVAILABLE, self.text.clone());
        if let Some(seconds) = &self.retry_after {
            let headers = response.headers_mut();
            headers.insert(header::RETRY_AFTER, seconds.clone());
        }
        Answer {
            reason: Reason::Maintenance,
            response,
        }
    }
}

fn text(status: StatusCode, text: Bytes) -> Response<Bytes> {
    let mut response = Response::new(text);
    *response.status_mut() = status;
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    response
}
