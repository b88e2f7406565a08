//! The table of options: what there is, what each takes and does. The parser, `lb-agent options` and
//! `docs/options.md` are made of it, so that they cannot disagree.

use serde::Serialize;

pub use super::front::FRONT;
use super::{Setting, Wrong, value};

/// One option, or a family of them whose name ends in `*`.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Entry {
    /// Its name in tags, meta and the services file.
    pub name: &'static str,
    /// The values it takes, as Markdown.
    pub values: &'static str,
    /// What holds when nobody states it, as Markdown.
    pub default: &'static str,
    /// What it does, as Markdown.
    pub does: &'static str,
    /// The first version that has it.
    pub since: &'static str,
    /// Reads its value.
    #[serde(skip)]
    pub(super) read: Read,
}

/// From the text of a value to what it means.
#[derive(Clone, Copy, Debug)]
pub(super) enum Read {
    Value(fn(&str) -> Result<Setting, Wrong>),
    /// Of a family with this beginning: it reads what follows in the name, too.
    Member(&'static str, fn(&str, &str) -> Result<Setting, Wrong>),
}

impl Entry {
    fn names(&self, name: &str) -> bool {
        self.name
            .strip_suffix('*')
            .map_or(self.name == name, |family| name.starts_with(family))
    }
}

/// The option that `name` means.
pub(super) fn find(name: &str) -> Option<&'static Entry> {
    all().find(|entry| entry.names(name))
}

/// All options.
pub fn all() -> impl Iterator<Item = &'static Entry> {
    OPTIONS.iter().chain(FRONT)
}

/// Those that do not concern the front alone.
const OPTIONS: &[Entry] = &[
    Entry {
        name: "lb_balance",
        values: "`least-conn`, `round-robin`, `random`, `maglev`",
        default: "`least-conn`",
        does: "how the kernel chooses a backend for a connect to the VIP; with `maglev`, by its network namespace, so that each client stays at one. The front always takes turns",
        since: "0.1.0",
        read: Read::Value(value::balance),
    },
    Entry {
        name: "lb_check",
        values: "`tcp`, `http <path>`, `off`",
        default: "`tcp`; `off` with `lb_proto=udp`",
        does: "how the agent probes each instance: a connect; a GET that must answer 2xx or 3xx, over HTTP/2 with `lb_proto=h2c`; not at all",
        since: "0.1.0",
        read: Read::Value(value::check),
    },
    Entry {
        name: "lb_drain",
        values: "seconds, or a number with `ms`, `s`, `m` or `h`; at most a day",
        default: "`30`",
        does: "how long the established flows of a backend that was drained, removed, or put in maintenance in its source may go on before they are cut; 0 cuts them at once. An operator's maintenance does not wait for it",
        since: "0.1.0",
        read: Read::Value(value::drain),
    },
    Entry {
        name: "lb_expose",
        values: "`true`, `false`; the bare tag means `true`",
        default: "by `[front] expose`",
        does: "whether the front routes to the service and its parts",
        since: "0.1.0",
        read: Read::Value(value::expose),
    },
    Entry {
        name: "lb_local",
        values: "`any`, `prefer`, `only`",
        default: "`any`",
        does: "which instances take new flows: all alike; those of this host with 16 times their weight; those of this host alone",
        since: "0.1.0",
        read: Read::Value(value::local),
    },
    Entry {
        name: "lb_packet",
        values: "`nat`, `tunnel`, `off`",
        default: "`nat`",
        does: "how the [packet path](packet-path.md) reaches instances on other hosts, where there is one: from this host's own address; in a tunnel to their host, whose agent does the rest; not at all",
        since: "0.1.0",
        read: Read::Value(value::packet),
    },
    Entry {
        name: "lb_port",
        values: "ports from 1 to 65535, separated by commas or colons",
        default: "every port",
        does: "the ports that the VIP answers on",
        since: "0.1.0",
        read: Read::Value(value::ports),
    },
    Entry {
        name: "lb_proto",
        values: "`tcp`, `udp`, `http`, `h2c`",
        default: "`tcp`; instances with the tag `udp` are UDP",
        does: "what the instances speak; see [UDP](#udp). With `udp` the VIP answers UDP instead of TCP, the front does not route to the service, and the agent does not probe it unless `lb_check` says so. With `h2c` the front speaks HTTP/2 to the instances, which [gRPC](http.md#lb_protoh2c-http2-and-grpc) needs",
        since: "0.1.0",
        read: Read::Value(value::proto),
    },
    Entry {
        name: "lb_slow_start",
        values: "whole seconds, or a number with `s`, `m` or `h`; at most a day; `0` or `off` for none",
        default: "`off`",
        does: "how long an instance that becomes usable takes to get its whole share, from a tenth in ten steps",
        since: "0.1.0",
        read: Read::Value(value::slow_start),
    },
    Entry {
        name: "lb_weight",
        values: "0 to 65535",
        default: "the registration's weight, else 1",
        does: "the share of the instance that states it; replaces the registration's. 0 takes no new flow",
        since: "0.1.0",
        read: Read::Value(value::weight),
    },
    Entry {
        name: "lb_affinity",
        values: "whole seconds, or a number with `s`, `m` or `h`; at most a day; `0` or `off` for none",
        default: "`off`",
        does: "a client keeps its backend until so long after its last flow",
        since: "0.1.0",
        read: Read::Value(value::affinity),
    },
    Entry {
        name: "lb_allow",
        values: "addresses, CIDR networks, `host`, `network:<Docker network>`, separated by commas or blanks",
        default: "everybody",
        does: "which clients are let in; all others are kept out. See [who is let in](#who-is-let-in), on VIPs and on the front",
        since: "0.1.0",
        read: Read::Value(value::allow),
    },
    Entry {
        name: "lb_deny",
        values: "as for `lb_allow`",
        default: "nobody",
        does: "which clients are kept out; wins over `lb_allow`",
        since: "0.1.0",
        read: Read::Value(value::deny),
    },
];

/// All options, as the table of `docs/options.md`.
pub fn markdown() -> String {
    let mut text =
        String::from("| option | values | default | does | since |\n|---|---|---|---|---|\n");
    for entry in all() {
        let Entry {
            name,
            values,
            default,
            does,
            since,
            ..
        } = entry;
        text.push_str(&format!(
            "| `{name}` | {values} | {default} | {does} | {since} |\n"
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use lb_testkit::markdown::has_what_is_made;

    use super::*;

    #[test]
    fn names_are_unique_and_begin_alike() {
        let mut names: Vec<_> = all().map(|entry| entry.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all().count());
        for entry in all() {
            assert!(entry.name.starts_with("lb_"), "{}", entry.name);
        }
    }

    #[test]
    fn a_family_is_found_by_its_members_and_other_names_exactly() {
        let found = |name| find(name).map(|entry| entry.name);
        assert_eq!(found("lb_header_x"), Some("lb_header_*"));
        assert_eq!(found("lb_port"), Some("lb_port"));
        assert_eq!(found("lb_ports"), None);
        assert_eq!(found("lb_"), None);
    }

    #[test]
    fn the_documented_options_are_those_of_the_code() {
        let source = "lb-core/src/options/table.rs";
        let is_so = has_what_is_made("docs/options.md", source, &markdown()).unwrap();
        assert!(is_so, "run `cargo xtask docs`");
    }
}
