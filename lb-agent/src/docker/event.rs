//! The events of the engine, cut down to what says that something happened to a container, or to the networks.

use std::{collections::BTreeMap, str::FromStr};

use nix::sys::signal::Signal;
use serde::Deserialize;

/// What an event tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Told {
    /// Something happened to a container.
    Container(Event),
    /// A network was made or removed.
    Networks,
}

/// Something happened to a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Event {
    /// The container's full id.
    pub(super) container: String,
    /// When, in nanoseconds since 1970 by the engine's clock; 0 if it does not say.
    pub(super) time: u64,
    /// What.
    pub(super) action: Action,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// It was sent this signal.
    Kill(i32),
    /// It ended with this code.
    Die(i64),
    /// It was removed.
    Destroy,
    /// It left the network of this name.
    Disconnect(String),
    /// Anything else: it is worth a look.
    Other,
}

/// The actions that are asked for. Those of commands in a container, which a HEALTHCHECK runs all the time, are not.
pub(super) const ACTIONS: [&str; 14] = [
    "create",
    "start",
    "restart",
    "kill",
    "stop",
    "die",
    "pause",
    "unpause",
    "rename",
    "update",
    "health_status",
    "destroy",
    "connect",
    "disconnect",
];

/// Reads one event; `None` if it is about something else.
///
/// # Errors
/// When the text is no event at all.
pub(super) fn parse(text: &[u8]) -> Result<Option<Told>, serde_json::Error> {
    let raw: Raw = serde_json::from_slice(text)?;
    let mut attributes = raw.actor.attributes.unwrap_or_default();
    let mut attribute = |name: &str| attributes.remove(name);
    let (container, action) = match (raw.kind.as_str(), raw.action.as_str()) {
        ("container", "kill") => {
            let signal = attribute("signal").and_then(|text| signal(&text));
            (raw.actor.id, signal.map_or(Action::Other, Action::Kill))
        }
        ("container", "die") => {
            let code = attribute("exitCode").and_then(|code| code.parse().ok());
            (raw.actor.id, Action::Die(code.unwrap_or_default()))
        }
        ("container", "destroy") => (raw.actor.id, Action::Destroy),
        ("container", _) => (raw.actor.id, Action::Other),
        ("network", "create" | "destroy") => return Ok(Some(Told::Networks)),
        ("network", "disconnect") => {
            let name = attribute("name");
            let action = name.map_or(Action::Other, Action::Disconnect);
            (attribute("container").unwrap_or_default(), action)
        }
        ("network", _) => (attribute("container").unwrap_or_default(), Action::Other),
        _ => return Ok(None),
    };
    let event = Event {
        container,
        time: raw.time,
        action,
    };
    Ok((!event.container.is_empty()).then_some(Told::Container(event)))
}

/// The number of a signal, given as a number or by name: `15`, `SIGTERM`, `TERM`, `RTMIN+3`.
pub(super) fn signal(text: &str) -> Option<i32> {
    if let Ok(number) = text.parse() {
        return (1..=64).contains(&number).then_some(number);
    }
    let name = text.to_ascii_uppercase();
    let name = name.strip_prefix("SIG").unwrap_or(&name);
    if let Some(offset) = name.strip_prefix("RTMIN") {
        // glibc keeps the first two for itself.
        let offset: i32 = offset
            .strip_prefix('+')
            .map_or(Some(0), |n| n.parse().ok())?;
        return (0..=30).contains(&offset).then_some(34 + offset);
    }
    let signal = Signal::from_str(&format!("SIG{name}"));
    signal.ok().map(|signal| signal as i32)
}

#[derive(Deserialize)]
struct Raw {
    #[serde(rename = "Type", default)]
    kind: String,
    #[serde(rename = "Action", default)]
    action: String,
    #[serde(rename = "Actor", default)]
    actor: Actor,
    #[serde(rename = "timeNano", default)]
    time: u64,
}

#[derive(Default, Deserialize)]
struct Actor {
    #[serde(rename = "ID", default)]
    id: String,
    #[serde(rename = "Attributes")]
    attributes: Option<BTreeMap<String, String>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Option<(String, Action)> {
        let Told::Container(event) = parse(text.as_bytes()).unwrap()? else {
            panic!("{text}");
        };
        assert_eq!(event.time, 7);
        Some((event.container, event.action))
    }

    #[test]
    fn what_happened_to_a_container_is_read() {
        let container = |action: &str, attributes: &str| {
            read(&format!(
                r#"{{"Type":"container","Action":"{action}","Actor":{{"ID":"c","Attributes":{attributes}}},"timeNano":7}}"#
            ))
        };
        let of = |action| Some(("c".to_owned(), action));
        assert_eq!(
            container("kill", r#"{"signal":"15"}"#),
            of(Action::Kill(15))
        );
        assert_eq!(
            container("kill", r#"{"signal":"SIGQUIT"}"#),
            of(Action::Kill(3))
        );
        assert_eq!(
            container("die", r#"{"exitCode":"137"}"#),
            of(Action::Die(137))
        );
        assert_eq!(container("destroy", "null"), of(Action::Destroy));
        assert_eq!(container("health_status: healthy", "{}"), of(Action::Other));
        assert_eq!(container("something-new", "{}"), of(Action::Other));
    }

    #[test]
    fn a_network_names_the_container_that_left_it() {
        let text = r#"{"Type":"network","Action":"disconnect","timeNano":7,
            "Actor":{"ID":"n","Attributes":{"container":"c","name":"front","type":"bridge"}}}"#;
        let left = Action::Disconnect("front".to_owned());
        assert_eq!(read(text), Some(("c".to_owned(), left)));
        let other = r#"{"Type":"network","Action":"update","Actor":{"ID":"n"},"timeNano":7}"#;
        assert_eq!(read(other), None);
        assert_eq!(
            read(r#"{"Type":"image","Action":"pull","timeNano":7}"#),
            None
        );
    }

    #[test]
    fn networks_come_and_go() {
        for action in ["create", "destroy"] {
            let text = format!(r#"{{"Type":"network","Action":"{action}","Actor":{{"ID":"n"}}}}"#);
            let told = parse(text.as_bytes()).unwrap();
            assert_eq!(told, Some(Told::Networks), "{action}");
        }
    }

    #[test]
    fn signals_have_numbers_and_names() {
        for (text, number) in [
            ("9", Some(9)),
            ("TERM", Some(15)),
            ("SIGTERM", Some(15)),
            ("sigusr1", Some(10)),
            ("RTMIN+3", Some(37)),
            ("SIGRTMIN", Some(34)),
            ("0", None),
            ("SIGNONSENSE", None),
            ("", None),
        ] {
            assert_eq!(signal(text), number, "{text}");
        }
    }
}
