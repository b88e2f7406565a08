//! The options that the front alone acts on: which there are, what each takes, and the rules they become.

mod auth;
mod canary;
mod cors;
mod headers;
mod path;
pub(super) mod proxy_protocol;
mod rate;
pub mod redirect;
mod sticky;

use std::{sync::Arc, time::Duration};

use lb_front::rules::{Canary, Cors, Maintenance, ProxyProtocol, Rate, Redirect, Rules};

pub use auth::is_list;
use headers::Side;
pub(super) use headers::canonical;

use super::{
    Options, Setting, Wrong,
    table::{Entry, Read},
    value::{LONGEST, parse_duration, parse_size},
};

/// One usable option of the front.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum FrontSetting {
    Canary(Canary),
    Auth(Option<String>),
    Compress(bool),
    Maintenance(Option<Maintenance>),
    Redirect(Option<Redirect>),
    Header(Side, String, Option<String>),
    Path(Option<String>),
    ProxyProtocol(Option<ProxyProtocol>),
    Sticky(Option<String>),
    Strip(bool),
    Cors(Option<Cors>),
    Rate(Option<Rate>),
    Retries(u8),
    Timeout(Duration),
    Idle(Duration),
    MaxBody(u64),
}

impl FrontSetting {
    pub(super) fn apply(self, options: &mut Options) {
        let rules = Arc::make_mut(options.front.get_or_insert_default());
        match self {
            Self::Canary(canary) => rules.canary = Some(canary),
            Self::Auth(list) => rules.auth = list,
            Self::Compress(compress) => rules.compress = compress,
            Self::Maintenance(maintenance) => rules.maintenance = maintenance,
            Self::Redirect(redirect) => rules.redirect = redirect,
            Self::Path(path) => rules.path = path,
            Self::ProxyProtocol(how) => rules.proxy_protocol = how,
            Self::Sticky(name) => rules.sticky = name,
            Self::Strip(strip) => rules.strip = strip,
            Self::Cors(cors) => rules.cors = cors,
            Self::Rate(rate) => rules.rate = rate,
            Self::Retries(retries) => rules.retries = Some(retries),
            Self::Timeout(time) => {
                rules.timeout_milliseconds = u64::try_from(time.as_millis()).ok();
            }
            Self::Idle(time) => {
                rules.idle_milliseconds = u64::try_from(time.as_millis()).ok();
            }
            Self::MaxBody(bytes) => rules.max_body = Some(bytes),
            Self::Header(side, name, value) => {
                let fields = match side {
                    Side::Request => &mut rules.request_headers,
                    Side::Response => &mut rules.response_headers,
                };
                fields.insert(name, value);
            }
        }
        // Whoever says `off` everywhere asks for nothing.
        if *rules == Rules::default() {
            options.front = None;
        }
    }
}

/// All of them, those that act first.
pub const FRONT: &[Entry] = &[
    Entry {
        name: "lb_auth",
        values: "the name of a list of users in `[front.auth]`; `off`",
        default: "`off`",
        does: "the front asks for the name and the password of one of these users",
        since: "0.1.0",
        read: Read::Value(auth::auth),
    },
    Entry {
        name: "lb_canary",
        values: "a percentage from 0 to 100, such as `5` or `0.25`; behind it `header:<field>` if requests may choose",
        default: "none",
        does: "all instances that state it get this share of the front's requests together, and the others the rest",
        since: "0.1.0",
        read: Read::Value(canary::canary),
    },
    Entry {
        name: "lb_compress",
        values: "`true`, `false`; the bare tag means `true`",
        default: "`false`",
        does: "the front compresses texts with gzip for clients that take it",
        since: "0.1.0",
        read: Read::Value(compress),
    },
    Entry {
        name: "lb_cors",
        values: "`*`, or origins such as `https://www.example`, separated by commas or blanks, with or without `credentials`; `off`",
        default: "`off`: the instances' own matter",
        does: "the front tells browsers that pages of these origins may read the service's answers, and answers preflight requests",
        since: "0.1.0",
        read: Read::Value(cors::cors),
    },
    Entry {
        name: "lb_header_*",
        values: "`lb_header_request_<field>`, `lb_header_response_<field>`: a value; `-` removes the field",
        default: "none",
        does: "the front sets or removes a field of requests to the instances, or of their answers. `_` in the field's name is read as `-`",
        since: "0.1.0",
        read: Read::Member(headers::FAMILY, headers::header),
    },
    Entry {
        name: "lb_idle",
        values: "seconds, or a number with `ms`, `s`, `m` or `h`; at most a day",
        default: "`[front.limits]`: `body_idle` within an answer, else 60 seconds; `tunnel_idle` after an upgrade and for gRPC, else an hour",
        does: "how long an answer may rest between two of its pieces, and both sides after an upgrade; then the front ends it",
        since: "0.1.0",
        read: Read::Value(idle),
    },
    Entry {
        name: "lb_maintenance",
        values: "`true` or a time after which to ask again, each with or without a notice behind it; `false`. The bare tag means `true`",
        default: "`false`",
        does: "the front answers with 503 and the notice",
        since: "0.1.0",
        read: Read::Value(maintenance),
    },
    Entry {
        name: "lb_max_body",
        values: "bytes, or a number with `KiB`, `MiB` or `GiB`; `off`",
        default: "`[front.limits] max_body`: `off`",
        does: "how long the body of a request may be; a longer one is answered with 413",
        since: "0.1.0",
        read: Read::Value(max_body),
    },
    Entry {
        name: "lb_path",
        values: "the beginning of a path, such as `/api`; `/` for all of them",
        default: "`/`",
        does: "the service has only these paths of its host names on the front, and other services may have others",
        since: "0.1.0",
        read: Read::Value(path::path),
    },
    Entry {
        name: "lb_proxy_protocol",
        values: "`v1`, `v2`, `off`",
        default: "`off`",
        does: "the front tells instances by the PROXY protocol which client a connection is for; an HTTP probe says that it is the agent's own. Not with `lb_proto=h2c`",
        since: "0.1.0",
        read: Read::Value(proxy_protocol::proxy_protocol),
    },
    Entry {
        name: "lb_rate",
        values: "requests per second, or a number with `/s`, `/m` or `/h`; behind it `burst` and a number if need be; `off`",
        default: "`off`; the burst is what comes in a second",
        does: "how often each client may ask the front for the service; further requests are answered with 429",
        since: "0.1.0",
        read: Read::Value(rate::rate),
    },
    Entry {
        name: "lb_redirect",
        values: "`https`, `https:<port>`, or `http://` or `https://` with a host and perhaps a port and a path; before it 301, 302, 307 or 308; `off`",
        default: "`off`; 307",
        does: "the front sends clients to the same URL by HTTPS, to the same path there, or to that very URL if it has a path. A request that is there already goes on",
        since: "0.1.0",
        read: Read::Value(redirect::redirect),
    },
    Entry {
        name: "lb_retries",
        values: "0 to 5",
        default: "`2`",
        does: "on how many more instances the front tries a request that cannot have had an effect yet",
        since: "0.1.0",
        read: Read::Value(retries),
    },
    Entry {
        name: "lb_sticky",
        values: "`true`, `false`, or the name of the cookie; the bare tag means `true`",
        default: "`false`; `lb_sticky`",
        does: "the front keeps a client at its instance by a cookie",
        since: "0.1.0",
        read: Read::Value(sticky::sticky),
    },
    Entry {
        name: "lb_strip",
        values: "`true`, `false`; the bare tag means `true`",
        default: "`false`",
        does: "the front takes the path of `lb_path` off requests before it sends them on",
        since: "0.1.0",
        read: Read::Value(strip),
    },
    Entry {
        name: "lb_timeout",
        values: "seconds, or a number with `ms`, `s`, `m` or `h`; at most a day",
        default: "`[front.limits] response`, else 60 seconds",
        does: "how long an instance may take from the end of a request to the head of its answer; then the front answers with 504",
        since: "0.1.0",
        read: Read::Value(timeout),
    },
];

fn compress(text: &str) -> Result<Setting, Wrong> {
    flag(text, FrontSetting::Compress)
}

fn maintenance(text: &str) -> Result<Setting, Wrong> {
    let remedy = "write `true`, `false`, or a time such as `10m`, at most a day; behind `true` or the time a notice of at most \
                  400 bytes if you like";
    let (state, notice) = match text.split_once(char::is_whitespace) {
        Some((state, notice)) => (state, Some(notice.trim())),
        None => (text, None),
    };
    if notice.is_some_and(|it| it.len() > NOTICE_LIMIT || it.contains(char::is_control)) {
        return Err(remedy.into());
    }
    let whole = |time: &Duration| *time <= LONGEST && time.subsec_nanos() == 0;
    let retry_after_seconds = match (state, notice) {
        ("false", None) => return Ok(FrontSetting::Maintenance(None).into()),
        ("true", _) => None,
        _ => match parse_duration(state).filter(whole) {
            Some(time) => Some(time.as_secs()),
            None => return Err(remedy.into()),
        },
    };
    let maintenance = Maintenance {
        retry_after_seconds,
        notice: notice.map(str::to_owned),
    };
    Ok(FrontSetting::Maintenance(Some(maintenance)).into())
}

fn retries(text: &str) -> Result<Setting, Wrong> {
    match text.parse() {
        Ok(count) if count <= Rules::MOST_RETRIES => Ok(FrontSetting::Retries(count).into()),
        _ => Err("write a whole number from 0 to 5".into()),
    }
}

fn timeout(text: &str) -> Result<Setting, Wrong> {
    time(text, FrontSetting::Timeout)
}

fn idle(text: &str) -> Result<Setting, Wrong> {
    time(text, FrontSetting::Idle)
}

fn time(text: &str, setting: fn(Duration) -> FrontSetting) -> Result<Setting, Wrong> {
    parse_duration(text)
        .filter(|time| !time.is_zero() && *time <= LONGEST)
        .map(|time| setting(time).into())
        .ok_or_else(|| {
            "write seconds, such as `5` or `500ms`, more than 0 and at most a day".into()
        })
}

fn max_body(text: &str) -> Result<Setting, Wrong> {
    let bytes = match text {
        "off" => Some(u64::MAX),
        _ => parse_size(text),
    };
    bytes
        .map(|bytes| FrontSetting::MaxBody(bytes).into())
        .ok_or_else(|| "write bytes, such as `65536`, `512KiB`, `10MiB` or `1GiB`, or `off`".into())
}

fn strip(text: &str) -> Result<Setting, Wrong> {
    flag(text, FrontSetting::Strip)
}

fn flag(text: &str, setting: fn(bool) -> FrontSetting) -> Result<Setting, Wrong> {
    match text {
        "true" => Ok(setting(true).into()),
        "false" => Ok(setting(false).into()),
        _ => Err("write true or false".into()),
    }
}

/// What has no effect for want of another option, as the text of a problem.
pub(super) fn useless(options: &Options) -> Option<&'static str> {
    let rules = options.front.as_ref()?;
    (rules.strip && rules.path.is_none())
        .then_some("`lb_strip=true` has no effect: there is no `lb_path` to take off; state both")
}

impl From<FrontSetting> for Setting {
    fn from(setting: FrontSetting) -> Self {
        Self::Front(setting)
    }
}

/// Bytes of a notice: a line or two.
const NOTICE_LIMIT: usize = 400;

#[cfg(test)]
mod tests;
