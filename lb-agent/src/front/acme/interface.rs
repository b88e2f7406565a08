//! What is asked for, what comes of it, and why not.

use std::{io, path::PathBuf};

use lb_front::tls::Certificate;
use tokio::sync::watch;

use crate::catalog::Problem;

/// Which certificates, and from whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acme {
    /// The URL of the authority's directory.
    pub directory: String,
    /// Whom to trust as the authority; the system's authorities if absent.
    pub ca_file: Option<PathBuf>,
    /// Where the authority writes to, such as `mailto:admin@example.org`.
    pub contact: Vec<String>,
    /// The names.
    pub names: Vec<String>,
    /// Where account and certificates outlive the agent.
    pub folder: PathBuf,
}

/// What the authority has given, and what it wants to see.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Issued {
    /// The certificates, in the order of the names.
    pub certificates: Vec<Certificate>,
    /// For the handshakes by which it looks.
    pub proofs: Vec<(String, Certificate)>,
    /// Grows with each change.
    pub number: u64,
}

/// What the stage is told and tells.
#[derive(Debug, Default)]
pub struct AcmeChannels {
    /// What the front is to show.
    pub issued: watch::Sender<Issued>,
    /// [`Issued::number`] of what it does show.
    pub shown: watch::Sender<u64>,
    /// Names without a certificate, or with an old one.
    pub problems: watch::Sender<Vec<Problem>>,
}

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum AcmeError {
    /// The authority refuses, or is not reached.
    #[error("the authority: {0}")]
    Authority(#[from] instant_acme::Error),
    /// It cannot be asked in the first place.
    #[error("{0}")]
    Client(String),
    /// It has looked, and was not convinced.
    #[error("the authority did not accept the proof: {0}")]
    Unproven(String),
    /// It offers no way of ours.
    #[error("the authority does not offer tls-alpn-01 for this name")]
    NoChallenge,
    /// No front shows the proof.
    #[error("the front does not show the proof")]
    NotShown,
    /// It takes too long.
    #[error("the authority did not issue it in time")]
    Late,
    /// What came, or what we made, is no certificate.
    #[error("{0}")]
    Certificate(String),
    /// The folder cannot be used.
    #[error("{}: {source}", path.display())]
    Folder {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}
