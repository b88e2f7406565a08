//! Why a command failed, and what to do about it.

use std::{io, path::PathBuf};

use serde::Serialize;

use super::{Output, client::ClientError};
use crate::admin::text::{visible, visible_json};

/// Why a command failed: what is wrong and, behind a colon, what to do about it.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("not ready\n{0}")]
    NotReady(String),
    #[error("the agent does not know its services yet: see `lb-agent status`")]
    NotKnown,
    #[error("there is no service {0:?}: see `lb-agent services`")]
    NoService(String),
    #[error("no service answers to {0:?} at the front: see `lb-agent services`")]
    NoHost(String),
    #[error(
        "the front refuses {0:?}: services share that host, and readers disagree which of them the path means"
    )]
    Ambiguous(String),
    #[error("top draws on a terminal, and this is none: see `lb-agent services`")]
    NoTerminal,
    #[error("the agent has ended, and the trace with it")]
    Ended,
    #[error("{what} takes an address here: use one such as {example}")]
    Address {
        what: &'static str,
        example: &'static str,
    },
    #[error("cannot write {}: {source}", path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("cannot print: {0}")]
    Print(io::Error),
    #[error("the JSON cannot be read or written: {}", visible(&.0.to_string()))]
    Json(#[from] serde_json::Error),
}

/// The same for programs.
#[derive(Debug, PartialEq, Serialize)]
struct Told<'a> {
    /// What is wrong.
    error: &'a str,
    /// What to do; `null` where that is all there is to say.
    remedy: Option<&'a str>,
}

impl Failure {
    /// As `output` has it, without the end of the line.
    pub(super) fn told(&self, output: Output) -> String {
        let text = self.to_string();
        if output != Output::Json {
            return format!("lb-agent: {text}");
        }
        // Texts have no form that JSON has not.
        let json = serde_json::to_string(&parts(&text)).unwrap_or_default();
        visible_json(&json).into_owned()
    }
}

/// A remedy begins behind a colon with what to do, in our own words as in the agent's.
fn parts(text: &str) -> Told<'_> {
    let remedies = REMEDIES.iter();
    let at = remedies.filter_map(|verb| text.rfind(verb)).max();
    let (error, remedy) = match at {
        None => (text, None),
        Some(at) => (&text[..at], Some(&text[at + ": ".len()..])),
    };
    Told { error, remedy }
}

const REMEDIES: [&str; 4] = [": see ", ": start it with ", ": run ", ": use "];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_remedy_is_told_apart_from_the_error() {
        let socket = || "/run/lb/admin.sock".into();
        let cases = [
            (
                Failure::NoService("a: see b".to_owned()),
                "there is no service \"a: see b\"",
                Some("see `lb-agent services`"),
            ),
            (
                ClientError::NotThere { socket: socket() }.into(),
                "no agent answers at /run/lb/admin.sock",
                Some("start it with `lb-agent run`, or name its socket with --socket or LB_SOCKET"),
            ),
            (
                ClientError::NotAllowed { socket: socket() }.into(),
                "may not use /run/lb/admin.sock",
                Some(
                    "run this as root, as the user that the agent runs as, or as one of `[admin] allow_uids`",
                ),
            ),
            (
                Failure::Ended,
                "the agent has ended, and the trace with it",
                None,
            ),
        ];
        for (failure, error, remedy) in cases {
            assert_eq!(parts(&failure.to_string()), Told { error, remedy });
        }
    }

    #[test]
    fn json_of_a_failure_is_one_line_and_harmless() {
        let failure = Failure::NotReady("waiting for x\u{9b}2J".to_owned());
        let expect = r#"{"error":"not ready\nwaiting for x\u009b2J","remedy":null}"#;
        assert_eq!(failure.told(Output::Json), expect);
        let plain = Failure::Ended.told(Output::Csv);
        assert_eq!(
            plain,
            "lb-agent: the agent has ended, and the trace with it"
        );
    }
}
