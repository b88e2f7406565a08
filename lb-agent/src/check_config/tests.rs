use std::{collections::BTreeMap, io, path::Path};

use clap::Parser as _;

use super::{CheckArgs, Checked};
use crate::config::Outside;

#[derive(clap::Parser)]
struct Command {
    #[command(flatten)]
    check: CheckArgs,
}

/// What `check-config` finds with these arguments, variables and files. Nothing else is there.
fn check(arguments: &[&str], variables: &[(&str, &str)], files: &[(&str, &str)]) -> Checked {
    let arguments = ["check-config"].iter().chain(arguments);
    let args = Command::try_parse_from(arguments).unwrap().check;
    let variables: BTreeMap<_, _> = variables.iter().copied().collect();
    let files: BTreeMap<_, _> = files.iter().copied().collect();
    let outside = Outside {
        variable: &|name| variables.get(name).map(|&it| it.to_owned()),
        read: &|path| {
            let text = path.to_str().and_then(|path| files.get(path));
            text.map(|&it| it.to_owned())
                .ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
        },
    };
    Checked::load_from(args, outside, &|_| true)
}

const FILE: &str = "[sources.consul]\naddress = \"c:8500\"\ntoken_file = \"/run/token\"\n";

#[test]
fn a_good_file_is_good_on_a_machine_that_is_not_its_host() {
    let checked = check(
        &["/lb.toml"],
        &[("CONSUL_NAMESPACE", "team")],
        &[("/lb.toml", FILE)],
    );
    assert_eq!(checked.mistakes, Vec::<String>::new());
    let line = checked.line();
    assert!(
        line.starts_with("/lb.toml: correct; from variables: "),
        "{line}"
    );
    assert!(
        line.contains("sources.consul.namespace by CONSUL_NAMESPACE"),
        "{line}"
    );
    assert!(line.contains("not looked at: "), "{line}");
    assert!(
        line.contains("/run/token (") && line.contains("/proc/self/mountinfo ("),
        "{line}"
    );
    assert_eq!(line.lines().count(), 1);
    let table = checked.table();
    assert!(table.contains("(/lb.toml:3)"), "{table}");
}

#[test]
fn every_mistake_is_told_with_its_place() {
    let text = "[vip]\npool = \"10.0.0.0/30\"\nquarantine = \"soon\"\n[sources.consul]\n\
                address = \"c:8500\"\n";
    let checked = check(
        &["/lb.toml"],
        &[("CONSUL_PARTITION", "a b")],
        &[("/lb.toml", text)],
    );
    let begins: Vec<_> = checked
        .mistakes
        .iter()
        .map(|it| it.split(": ").next().unwrap())
        .collect();
    assert_eq!(begins, ["/lb.toml:2", "CONSUL_PARTITION", "/lb.toml:3"]);
    assert_eq!(checked.settings, []);
    let missing = check(&["/none.toml"], &[], &[]);
    assert!(
        missing.mistakes[0].starts_with("/none.toml: cannot be read"),
        "{missing:?}"
    );
    let nothing = check(&[], &[], &[]);
    assert!(
        nothing.mistakes[0].starts_with("no discovery source is given"),
        "{nothing:?}"
    );
    assert_eq!(nothing.file, None);
}

#[test]
fn a_services_file_is_checked_to_its_options() {
    let services = "[[service]]\nname = \"www\"\n[service.options]\nlb_weight = \"heavy\"\n\
                    [[service.instance]]\nid = \"a\"\naddress = \"example\"\nport = 1\n\
                    [[service.instance]]\nid = \"b\"\naddress = \"10.0.0.1\"\nport = 1\n";
    let files = [("/s.toml", services)];
    let checked = check(&["--services", "/s.toml"], &[], &files);
    assert_eq!(checked.mistakes.len(), 2, "{checked:?}");
    assert!(
        checked.mistakes[0].contains("(line 5 of the file)"),
        "{checked:?}"
    );
    assert!(checked.mistakes[1].contains("lb_weight"), "{checked:?}");

    let wrong = check(
        &["--services", "/s.toml"],
        &[],
        &[("/s.toml", "service = 1\nx = 2\n")],
    );
    let begins: Vec<_> = wrong
        .mistakes
        .iter()
        .map(|it| it.split(": ").next().unwrap())
        .collect();
    assert_eq!(begins, ["/s.toml:1", "/s.toml:2"]);

    let missing = check(&["--services", "/s.toml"], &[], &[]);
    assert_eq!(missing.mistakes.len(), 1);
    assert!(
        missing.mistakes[0].starts_with("/s.toml: cannot be read"),
        "{missing:?}"
    );
    // One that only the file names may be on the host alone.
    let named = [("/lb.toml", "[sources.file]\npath = \"/s.toml\"\n")];
    let named = check(&["/lb.toml"], &[], &named);
    assert_eq!(named.mistakes, Vec::<String>::new());
    assert!(
        named.unread.iter().any(|it| it.starts_with("/s.toml (")),
        "{named:?}"
    );
    assert_eq!(named.file.as_deref(), Some(Path::new("/lb.toml")));
}

#[test]
fn headers_that_would_be_sent_in_clear_are_a_warning() {
    let file = |endpoint: &str| {
        format!(
            "{FILE}[metrics.otlp]\nendpoint = \"{endpoint}\"\nheaders_file = \"/etc/lb/headers\"\n"
        )
    };
    let checked = |endpoint: &str| check(&["/lb.toml"], &[], &[("/lb.toml", &*file(endpoint))]);
    let open = checked("http://c.example:4318");
    assert_eq!(open.mistakes, Vec::<String>::new());
    let line = open.line();
    assert!(
        line.contains(
            "; warning: [metrics.otlp]: what headers_file holds goes over the network in clear"
        ),
        "{line}"
    );
    for endpoint in ["https://c.example", "http://127.0.0.1:4318"] {
        assert_eq!(checked(endpoint).warnings, Vec::<String>::new());
    }
}
