//! `SERVICE_CHECK_…`: the health checks that a container asks for.
//!
//! A check that cannot be made is registered all the same, critical and with the reason: an instance whose check
//! is lost by a typing mistake must not count as healthy.

use std::{collections::BTreeSet, net::SocketAddr, time::Duration};

use super::{
    duration,
    registration::{Check, CheckKind, CheckStatus},
    words::PortWords,
};
use crate::options::cut;

/// What a check is made for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Target<'t> {
    pub(super) id: &'t str,
    pub(super) name: &'t str,
    /// The identity of the host, with which the ids of its services begin.
    pub(super) host: &'t str,
    pub(super) address: SocketAddr,
    /// Where it is asked by TCP.
    pub(super) probed: SocketAddr,
    pub(super) container: &'t str,
    /// Within the container.
    pub(super) port: u16,
}

/// The checks that `words` ask for, in the order of their numbers, `CHECK_*` before `CHECK_1_*`; and what is wrong
/// with them.
pub(super) fn checks(words: &PortWords, target: Target<'_>) -> (Vec<Check>, Vec<String>) {
    let numbers: BTreeSet<u16> = words.iter().filter_map(|(key, _)| split(key)?.0).collect();
    let mut wrong = Vec::new();
    let plain = std::iter::once(None);
    let mut checks: Vec<Check> = plain
        .chain(numbers.into_iter().map(Some))
        .filter_map(|number| {
            let asked = Asked { words, number };
            asked.check(target, &mut wrong)
        })
        .collect();
    checks.extend(unknown(words, target, &mut wrong));
    (checks, wrong)
}

/// The number of the check that `key` belongs to, and its word there; `None` if it is about no check.
fn split(key: &str) -> Option<(Option<u16>, &str)> {
    let word = match key {
        "check" => return Some((None, "")),
        key => key.strip_prefix("check_")?,
    };
    let numbered = word.split_once('_').and_then(|(digits, word)| {
        // Not `01`: nobody would find its other words.
        let number: u16 = digits.parse().ok()?;
        (number.to_string() == digits).then_some((Some(number), word))
    });
    Some(numbered.unwrap_or((None, word)))
}

/// The check that stands for words that are not understood, if one of them may have been meant as a check of its own.
fn unknown(words: &PortWords, target: Target<'_>, wrong: &mut Vec<String>) -> Option<Check> {
    let is_word = |word: &str| KINDS.contains(&word) || DETAILS.contains(&word);
    let mut makes: BTreeSet<Option<u16>> = BTreeSet::new();
    let mut odd = Vec::new();
    for (key, text) in words.iter().filter(|(_, text)| !text.is_empty()) {
        match split(key) {
            Some((number, word)) if KINDS.contains(&word) => drop(makes.insert(number)),
            Some((number, word)) if !is_word(word) => odd.push((key, text, number, word)),
            _ => {}
        }
    }
    let mut lost = None;
    for (key, text, number, word) in odd {
        let key = key.to_ascii_uppercase();
        let reason = format!(
            "SERVICE_{}=`{}` is no word for a check; see the list in docs/docker.md",
            cut(&key),
            cut(text)
        );
        let is_numbered = word.starts_with(|first: char| first.is_ascii_digit());
        if makes.contains(&number) && !is_numbered {
            wrong.push(reason);
        } else {
            wrong.push(format!("{reason}; until then a check is critical"));
            lost.get_or_insert(reason);
        }
    }
    lost.map(|reason| ours(target, "check-unknown", CheckKind::Unusable(reason)))
}

/// The words of one check.
#[derive(Clone, Copy)]
struct Asked<'w> {
    words: &'w PortWords,
    number: Option<u16>,
}

impl<'w> Asked<'w> {
    fn check(self, target: Target<'_>, wrong: &mut Vec<String>) -> Option<Check> {
        let kind = self.kind(target, wrong)?;
        let timeout = self.timeout(&kind, wrong);
        // Consul would remove it for our own word.
        let is_usable = !matches!(kind, CheckKind::Unusable(_));
        let deregister_after = self.time("deregister_after", wrong);
        let suffix = self.number.map(|it| format!("-{it}")).unwrap_or_default();
        let initial = self.common("initial_status").and_then(|text| {
            let status = status(text);
            if status.is_none() {
                wrong.push(format!(
                    "{}=`{}` has no effect; write passing, warning or critical",
                    self.key("initial_status"),
                    cut(text)
                ));
            }
            status
        });
        Some(Check {
            id: format!("service:{}:check{suffix}", target.id),
            name: format!("{} {}", target.name, kind.word()),
            kind,
            interval: self.time("interval", wrong).unwrap_or(INTERVAL),
            timeout,
            initial,
            deregister_after: deregister_after.filter(|_| is_usable),
        })
    }

    /// The first kind that is asked for, in Registrator's order.
    fn kind(self, target: Target<'_>, wrong: &mut Vec<String>) -> Option<CheckKind> {
        let Target {
            address, probed, ..
        } = target;
        if let Some(path) = self.own("http") {
            return Some(self.http("http", probed, path, wrong));
        }
        if let Some(path) = self.own("https") {
            return Some(self.http("https", probed, path, wrong));
        }
        if let Some(command) = self.own("cmd") {
            let short = target.container.chars().take(12).collect();
            let arguments = [CHECK_COMMAND.to_owned(), short, target.port.to_string()];
            let arguments = arguments.into_iter().chain([command.to_owned()]);
            return Some(CheckKind::Command(arguments.collect()));
        }
        if let Some(script) = self.own("script") {
            let script = script
                .replace("$SERVICE_IP", &address.ip().to_string())
                .replace("$SERVICE_PORT", &address.port().to_string());
            let arguments = ["/bin/sh", "-c", &script].map(str::to_owned);
            return Some(CheckKind::Command(arguments.to_vec()));
        }
        if let Some(text) = self.own("ttl") {
            return Some(match duration::parse(text) {
                Some(ttl) => CheckKind::Ttl(ttl),
                None => {
                    let text = cut(text);
                    let reason = format!("{}=`{text}`: {}", self.key("ttl"), duration::REMEDY);
                    wrong.push(format!("{reason}; until then its check is critical"));
                    CheckKind::Unusable(reason)
                }
            });
        }
        if self.own("tcp").is_some() {
            return Some(CheckKind::Tcp(probed));
        }
        if self.own("grpc").is_some() {
            let tls = self.own("grpc_use_tls").is_some();
            return Some(CheckKind::Grpc {
                address: probed,
                tls,
                skip_verify: tls && self.own("tls_skip_verify").is_some(),
            });
        }
        let other = alias(self.own("alias")?, target.host);
        if other != target.id {
            return Some(CheckKind::Alias(other));
        }
        let reason = format!(
            "{}: it is that service itself; name the one whose fate it shares",
            self.key("alias")
        );
        wrong.push(format!("{reason}; until then its check is critical"));
        Some(CheckKind::Unusable(reason))
    }

    /// Registrator gives no script the plain word: what was written for it must not begin to end scripts.
    fn timeout(self, kind: &CheckKind, wrong: &mut Vec<String>) -> Option<Duration> {
        if !matches!(kind, CheckKind::Command(_)) {
            return self.time("timeout", wrong);
        }
        let text = self.own("timeout")?;
        if self.number.is_some() {
            return self.parsed("timeout", text, wrong);
        }
        let is_others = |key: &str| {
            let check = split(key);
            check.is_some_and(|(number, word)| number.is_some() && KINDS.contains(&word))
        };
        if !self.words.iter().any(|(key, _)| is_others(key)) {
            wrong.push(
                "SERVICE_CHECK_TIMEOUT has no effect on a script; give that check a number, as in \
                 SERVICE_CHECK_1_SCRIPT and SERVICE_CHECK_1_TIMEOUT"
                    .to_owned(),
            );
        }
        None
    }

    fn http(
        self,
        scheme: &str,
        address: SocketAddr,
        path: &str,
        wrong: &mut Vec<String>,
    ) -> CheckKind {
        let slash = if path.starts_with('/') { "" } else { "/" };
        let key = format!("{scheme}_method");
        let method = self.own(&key).map(str::to_owned);
        let is_token = |text: &String| text.bytes().all(|byte| byte.is_ascii_alphabetic());
        if let Some(odd) = method.as_ref().filter(|method| !is_token(method)) {
            wrong.push(format!(
                "{}=`{}` has no effect; write a method such as HEAD",
                self.key(&key),
                cut(odd)
            ));
        }
        CheckKind::Http {
            // An IPv6 address is in brackets.
            url: format!("{scheme}://{address}{slash}{path}"),
            method: method.filter(is_token),
        }
    }

    fn time(self, key: &str, wrong: &mut Vec<String>) -> Option<Duration> {
        self.parsed(key, self.common(key)?, wrong)
    }

    fn parsed(self, key: &str, text: &str, wrong: &mut Vec<String>) -> Option<Duration> {
        let time = duration::parse(text);
        if time.is_none() {
            wrong.push(format!(
                "{}=`{}` has no effect: {}",
                self.key(key),
                cut(text),
                duration::REMEDY
            ));
        }
        time
    }

    /// A word of this check.
    fn own(self, key: &str) -> Option<&'w str> {
        match self.number {
            None => self.words.text(&format!("check_{key}")),
            Some(number) => self.words.text(&format!("check_{number}_{key}")),
        }
    }

    /// A word of this check, else that of all.
    fn common(self, key: &str) -> Option<&'w str> {
        let all = || self.words.text(&format!("check_{key}"));
        self.own(key).or_else(all)
    }

    /// The key as somebody would write it.
    fn key(self, key: &str) -> String {
        let number = self.number.map(|it| format!("{it}_")).unwrap_or_default();
        format!("SERVICE_CHECK_{number}{}", key.to_ascii_uppercase())
    }
}

impl CheckKind {
    fn word(&self) -> &'static str {
        match self {
            Self::Http { .. } => "HTTP check",
            Self::Command(_) => "command check",
            Self::Ttl(_) => "TTL check",
            Self::Tcp(_) => "TCP check",
            Self::Grpc { .. } => "gRPC check",
            Self::Alias(_) => "alias check",
            Self::Docker => "HEALTHCHECK of its container",
            Self::Heartbeat(_) => "registrar",
            Self::Unusable(_) => "check that cannot be made",
        }
    }
}

/// The id of the service that `text` means: `db:5432` is that port of this host's container `db`.
fn alias(text: &str, host: &str) -> String {
    let of_port = text.strip_suffix(":udp").unwrap_or(text).split_once(':');
    let is_ours = of_port.is_some_and(|(name, port)| {
        let digits = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
        !name.is_empty() && digits
    });
    match is_ours {
        true => format!("{host}:{text}"),
        false => text.to_owned(),
    }
}

/// The check that passes on the HEALTHCHECK of the container.
pub(super) fn docker(target: Target<'_>) -> Check {
    ours(target, "docker", CheckKind::Docker)
}

/// The check that says whether the registrar lives.
pub(super) fn heartbeat(target: Target<'_>, ttl: Duration) -> Check {
    ours(target, "registrar", CheckKind::Heartbeat(ttl))
}

fn ours(target: Target<'_>, suffix: &str, kind: CheckKind) -> Check {
    Check {
        id: format!("service:{}:{suffix}", target.id),
        name: format!("{} {}", target.name, kind.word()),
        kind,
        interval: INTERVAL,
        timeout: None,
        initial: None,
        deregister_after: None,
    }
}

fn status(text: &str) -> Option<CheckStatus> {
    match text {
        "passing" => Some(CheckStatus::Passing),
        "warning" => Some(CheckStatus::Warning),
        "critical" => Some(CheckStatus::Critical),
        _ => None,
    }
}

/// Words that make a check.
const KINDS: [&str; 8] = [
    "http", "https", "cmd", "script", "ttl", "tcp", "grpc", "alias",
];
/// Words that say more about one.
const DETAILS: [&str; 8] = [
    "http_method",
    "https_method",
    "grpc_use_tls",
    "tls_skip_verify",
    "interval",
    "timeout",
    "initial_status",
    "deregister_after",
];
/// Registrator's default.
const INTERVAL: Duration = Duration::from_secs(10);
/// The program that Registrator's images of Consul have for `CHECK_CMD`.
const CHECK_COMMAND: &str = "check-cmd";
