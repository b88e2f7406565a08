//! What the agent configures about the front's answers.

use serde::{Deserialize, Serialize};

use crate::{
    forward::Forwarding,
    limits::LimitSettings,
    log::LogSettings,
    policy::{HttpsSettings, StickyKey},
};

/// What the agent configures about the front's answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// Status of the answer to a name that no service has: 503, or 404 as peers do.
    pub no_route_status: u16,
    /// The same for a service without a usable backend.
    pub no_backend_status: u16,
    /// Our name in Via, by which a loop is found. Two fronts in a row need two names.
    pub via: String,
    /// What backends are told about clients, and whose word is believed.
    #[serde(default)]
    pub forwarding: Forwarding,
    /// How long and how much clients and backends are borne.
    #[serde(default)]
    pub limits: LimitSettings,
    /// The access log.
    #[serde(default)]
    pub log: LogSettings,
    /// What holds for plain HTTP as against HTTPS.
    #[serde(default)]
    pub https: HttpsSettings,
    /// What the cookies of `lb_sticky` are signed with; without it there are none.
    #[serde(default)]
    pub sticky_key: Option<StickyKey>,
}

impl Settings {
    /// The usual ones on the host called `name`: fronts of two hosts may follow each other.
    pub fn of_host(name: &str) -> Self {
        let legal = |letter: char| letter.is_ascii_alphanumeric() || "-._~".contains(letter);
        let name = name.replace(|letter| !legal(letter), "-");
        Self {
            via: format!("lb-agent-{name}"),
            ..Self::default()
        }
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            no_route_status: 503,
            no_backend_status: 503,
            via: "lb-agent".into(),
            forwarding: Forwarding::default(),
            limits: LimitSettings::default(),
            log: LogSettings::default(),
            https: HttpsSettings::default(),
            sticky_key: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::Via;

    #[test]
    fn every_host_has_a_name_for_via() {
        for (host, via) in [
            ("web-1.example", "lb-agent-web-1.example"),
            ("my_host, (x)", "lb-agent-my_host---x-"),
            ("h\u{f6}st", "lb-agent-h-st"),
            ("", "lb-agent-"),
        ] {
            let settings = Settings::of_host(host);
            assert_eq!(settings.via, via);
            assert!(Via::new(&settings.via).is_some());
        }
    }
}
