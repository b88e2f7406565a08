//! What is told otherwise where the page is published, with the token or not: no client, no process, no configuration, and
//! nobody who changed something. Pure.

use std::{fmt, sync::Arc};

use super::{
    events::{Event, EventList, Happened, Kind},
    report::{Component, Mark, Report},
};

/// What is not told there at all.
#[derive(Clone, Copy, Debug)]
pub(super) struct Withheld {
    /// A sentence's subject and its verb.
    what: &'static str,
    /// Why it is not.
    names: &'static str,
    /// What tells it.
    command: &'static str,
}

impl fmt::Display for Withheld {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            what,
            names,
            command,
        } = self;
        write!(
            f,
            "{what} not shown through a published page, for {names}: use the address that the page listens on, such as \
             127.0.0.1:9180, or `{command}` on the host"
        )
    }
}

/// Of the configuration.
pub(super) const CONFIGURATION: Withheld = Withheld {
    what: "the configuration is",
    names: "it names files and addresses of the host",
    command: "lb-agent check-config",
};
/// Of the clients.
pub(super) const CLIENTS: Withheld = Withheld {
    what: "the clients are",
    names: "they are the containers of the host",
    command: "lb-agent clients",
};
/// Of what is registered for containers.
pub(super) const REGISTRATIONS: Withheld = Withheld {
    what: "what is registered for containers is",
    names: "it names containers and addresses of the host",
    command: "lb-agent register --dry-run",
};
/// Of what a client that is not the host would reach.
pub(super) const EXPLANATION: Withheld = Withheld {
    what: "what a container or a process would reach is",
    names: "it tells of clients",
    command: "lb-agent explain",
};

/// The report for who reads it there.
pub(super) fn report(mut report: Report) -> Report {
    report.components = components(&report.components);
    report
}

/// The parts of the agent, without what was configured for them and their words about it.
pub(super) fn components(all: &[Component]) -> Vec<Component> {
    all.iter().map(component).collect()
}

fn component(line: &Component) -> Component {
    let Component { name, mark, detail } = line;
    let detail = match (name.as_str(), mark) {
        // Where it pushes to is told even when all is well.
        (OTLP, Mark::Ok) => "pushes the metrics".to_owned(),
        (OTLP | "docker" | "registrar", Mark::Error | Mark::Warning | Mark::Unknown) => {
            "not all is well: `lb-agent status` on the host says why".to_owned()
        }
        _ => detail.clone(),
    };
    Component::new(name.clone(), *mark, detail)
}

/// The events: of a change neither who made it nor from where, which its cause says.
pub(super) fn events(mut list: EventList) -> EventList {
    for event in &mut list.events {
        if event.what.kind != Kind::Change {
            continue;
        }
        let what = Happened {
            cause: None,
            actor: None,
            ..event.what.clone()
        };
        *event = Arc::new(Event { what, ..**event });
    }
    list
}

/// The part that pushes the metrics.
const OTLP: &str = "otlp";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::events::Events;

    #[test]
    fn the_lines_of_parts_name_nothing_that_was_configured() {
        let secret = "cannot push to http://10.0.0.9/v1/metrics: cannot read /etc/lb/headers";
        for (name, mark) in [
            ("otlp", Mark::Ok),
            ("otlp", Mark::Warning),
            ("docker", Mark::Warning),
            ("registrar", Mark::Error),
        ] {
            let told = &components(&[Component::new(name, mark, secret)])[0];
            assert_eq!((told.name.as_str(), told.mark), (name, mark));
            assert!(!told.detail.contains('/'), "{told:?}");
        }
        let plain = Component::new("docker", Mark::Ok, "2 containers");
        assert_eq!(components(std::slice::from_ref(&plain)), [plain]);
    }

    #[test]
    fn a_change_is_told_without_who_made_it_and_everything_else_as_it_is() {
        let all = Events::default();
        for kind in [Kind::Change, Kind::Backend] {
            all.add(Happened {
                kind,
                subject: "instance n/a of service www".to_owned(),
                from: Some("usable".to_owned()),
                to: Some("draining".to_owned()),
                cause: Some("drain from 192.0.2.7".to_owned()),
                actor: Some("session 3".to_owned()),
            });
        }
        let told = events(all.read(None, 2));
        let [change, other] = &told.events[..] else {
            panic!("{told:?}")
        };
        assert_eq!((&change.what.cause, &change.what.actor), (&None, &None));
        assert_eq!(change.what.to.as_deref(), Some("draining"));
        assert_eq!((change.number, other.number), (1, 2));
        assert_eq!(other, &all.read(None, 1).events[0]);
    }
}
