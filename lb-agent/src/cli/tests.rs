//! Golden outputs. The exchange with a live agent is in `tests/admin.rs`.

mod hostile;
mod lists;
mod orders;

use std::{net::Ipv4Addr, path::PathBuf, time::Duration};

use clap::{CommandFactory as _, Parser, Subcommand};

use self::lists::{container_list, flow_list, vip_list};
use super::{backends::backends, order::ordered, services::choose, *};
use crate::{
    admin::{
        compose::compose,
        report::{Flow, FlowList, Mark, PacketFlow, StateAnswer},
        sample,
    },
    catalog::Problem,
    clients::{Client, Standing},
    order::Mode,
    vip::{Entry, How},
};

fn sample_report() -> Report {
    let (snapshot, stats) = (sample::snapshot(), sample::stats());
    compose(sample::material(Some(&snapshot), Some(&stats)))
}

fn status(report: &Report, output: Output, style: Style) -> Answer {
    status::print(&report.into(), output, style)
}

fn services(report: &Report, output: Output, name: Option<&str>) -> Answer {
    services::print(report, &[], output, name)
}

fn text(answer: Answer) -> String {
    answer.unwrap().0
}

#[test]
fn the_definition_is_sound_and_every_command_has_an_example() {
    let mut command = Cli::command();
    command.clone().debug_assert();
    // What is hidden is not for people.
    for sub in command.get_subcommands_mut().filter(|it| !it.is_hide_set()) {
        let help = sub.render_long_help().to_string();
        assert!(help.contains("Example"), "{help}");
    }
}

#[test]
fn options_may_stand_behind_the_command() {
    let cli = Cli::parse_from([
        "lb-agent", "backends", "db", "-o", "json", "--socket", "/tmp/x",
    ]);
    assert_eq!(cli.options.output, Output::Json);
    assert_eq!(cli.options.socket, Some(PathBuf::from("/tmp/x")));
    let Command::Ask(ask) = cli.command else {
        panic!("not a question to a running agent")
    };
    let service = Some("db".to_owned());
    assert_eq!(ask, Ask::Backends { service });
}

#[test]
fn arguments_that_exclude_each_other_are_refused() {
    let parse = |line: &str| Cli::try_parse_from(line.split(' '));
    let taken = [
        "lb-agent explain host www",
        "lb-agent explain --host www.localhost/a",
        "lb-agent flows www --count-by command",
        "lb-agent flows --service www --client 10.0.0.1",
        "lb-agent drain www/a --wait",
        "lb-agent maintenance www/a --deadline 30s --wait",
        "lb-agent services -o wide",
    ];
    for line in taken {
        assert!(parse(line).is_ok(), "{line}");
    }
    let refused = [
        "lb-agent explain host",
        "lb-agent explain host www --host www.localhost",
        "lb-agent explain",
        "lb-agent flows www --service www",
        "lb-agent flows --count-by age",
        "lb-agent drain www --wait --undo",
        "lb-agent maintenance www --deadline 5s --undo",
        "lb-agent completions tcsh",
    ];
    for line in refused {
        assert!(parse(line).is_err(), "{line}");
    }
}

#[test]
fn a_command_with_a_socket_of_its_own_may_stand_beside_these() {
    #[derive(Debug, Parser)]
    struct Both {
        #[command(flatten)]
        options: Options,
        #[command(subcommand)]
        command: Side,
    }
    #[derive(Debug, Subcommand)]
    enum Side {
        Run {
            #[arg(long, env = "LB_SOCKET")]
            socket: Option<PathBuf>,
        },
        #[command(flatten)]
        Ask(Ask),
    }
    let run = |arguments: &[&str]| {
        let both = Both::try_parse_from(arguments).unwrap();
        match both.command {
            Side::Run { socket } => socket,
            Side::Ask(ask) => panic!("{ask:?} with {:?}", both.options),
        }
    };
    Both::command().debug_assert();
    let path = Some(PathBuf::from("/x"));
    assert_eq!(run(&["lb-agent", "run", "--socket", "/x"]), path);
    assert_eq!(run(&["lb-agent", "--socket", "/x", "run"]), path);
    // Else the socket of the configuration file would never be heard.
    assert_eq!(run(&["lb-agent", "run"]), None);
}

#[test]
fn status_tells_errors_first() {
    let report = sample_report();
    let (text, exit) = status(&report, Output::Table, Style::Plain).unwrap();
    assert_eq!(exit, Exit::Degraded);
    let expect = "\
!! services       4 services; without a usable backend: db
!  source consul  data is 3 min 12 s old: no leader; serving the last good table
!  service db     has no VIP: the pool 198.18.0.0/30 is full; widen it
ok agent          0.1.0 ready, up 1 h 0 min
ok data plane     2 hooks; fullest map BACKENDS at 12 %
ok source file    answered 5 s ago
";
    assert_eq!(text, expect);
}

#[test]
fn status_is_fine_when_every_line_is() {
    let mut report = sample_report();
    report.problems.clear();
    report.components.retain(|line| line.mark == Mark::Ok);
    let (_, exit) = status(&report, Output::Table, Style::Plain).unwrap();
    assert_eq!(exit, Exit::Fine);
}

#[test]
fn services_are_a_table() {
    let text = text(services(&sample_report(), Output::Table, None));
    let expect = "\
SERVICE        STATE     VIP          PORTS  USABLE  ACTIVE  FLOWS  REFUSED  FAILED  REQUESTS  5XX %     P99
db             refused   none         5432      0/1       0      0        0       0         -      -       -
www            ok        198.18.0.9   any       1/1       0      0        0       0         -      -       -
www.world.dev  ok        198.18.0.9   any       1/1       0      0        0       0         -      -       -
www_hello      degraded  198.18.12.7  any       1/3       6   1204        3       1         -      -  384 µs
";
    assert_eq!(text, expect);
}

#[test]
fn a_service_is_shown_with_its_backends() {
    let mut report = sample_report();
    report
        .problems
        .push(Problem::new("instance file/b", "lb_weight is no number"));
    let hello = &mut report.services.as_mut().unwrap()[3];
    hello.options.insert("drain".to_owned(), 90.into());
    let pin = Entry {
        address: Ipv4Addr::new(198, 18, 12, 7),
        how: How::Pin,
        since_unix: Some(report.now_unix - 60),
        ..vip_list().remove(0)
    };
    let text = text(services::print(
        &report,
        &[pin],
        Output::Table,
        Some("www_hello"),
    ));
    let expect = "\
! what source consul says is 3 min 12 s old: no leader
www_hello  degraded
  vip      198.18.12.7 and fd62:6c62:76:1::c07 by pin since 1 min 0 s, ports any
  balance  least-conn, check http /
  option   drain = 90
  route    http://www.hello.localhost/
  route    www.hello
  flows    1204, 6 active, 1 failed, 3 refused (no-backend 2, denied 1)
  problem  instance file/b: lb_weight is no number

SERVICE    ID    NODE  ADDRESS         SHARE  PROBE  SINCE  SOURCE   STATE     ACTIVE  FAILED  WHY
www_hello  a     file  10.0.0.1:80  100.00 %  up     41 s   passing  usable         4       0
www_hello  b     file  10.0.0.2:80    0.00 %  down   41 s   passing  l4_down        0       0  connection refused
www_hello  c     file  10.0.0.3:80    0.00 %  up     41 s   passing  draining       0       0
www_hello  gone  file                                                leaving        2          no longer registered
";
    assert_eq!(text, expect);
}

#[test]
fn slow_start_shows_beside_the_weight() {
    let mut report = sample_report();
    report.services.as_mut().unwrap()[3].backends[0].ramp = 55;
    let text = text(backends(&report, Output::Wide, Some("www_hello")));
    assert!(text.contains("  1 at 55 %  100.00 %  up"), "{text}");
}

#[test]
fn what_the_front_says_of_backends_is_shown() {
    let (snapshot, stats, front) = (sample::snapshot(), sample::stats(), sample::front());
    let mut material = sample::material(Some(&snapshot), Some(&stats));
    material.front = Some(&front);
    let report = compose(material);
    let table = text(backends(&report, Output::Wide, Some("www")));
    let why = "9        4  ejected by 2 workers of the front for 25 s: connect_refused\n";
    assert!(table.ends_with(why), "{table}");
    let table = text(backends(&report, Output::Wide, Some("www_hello")));
    assert!(table.contains("384 µs            0        2\n"), "{table}");
    let json = text(backends(&report, Output::Json, Some("www")));
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(
        json[0]["front"],
        serde_json::json!({
            "in_flight": 1, "connections": 3, "failures": 9, "retries": 4,
            "requests": 40, "errors": 4, "received": 1000, "sent": 9000,
            "p50_microseconds": 666, "p99_microseconds": 5000,
            "ejected": { "workers": 2, "until_unix": 1_700_000_025, "why": "connect_refused" },
        })
    );
}

#[test]
fn a_failing_check_gives_its_first_line_and_all_of_it_where_there_is_room() {
    let all = |output| text(backends(&sample_report(), output, Some("db")));
    let table = all(Output::Table);
    assert!(table.contains("critical"), "{table}");
    assert!(table.contains("db alive: no answer\n"), "{table}");
    for output in [Output::Wide, Output::Csv] {
        let text = all(output);
        assert!(text.contains("no answer\\nfrom pg_isready"), "{text}");
    }
}

#[test]
fn a_name_means_the_exact_service_before_its_parts() {
    let report = sample_report();
    let names = |name| {
        let chosen = choose(&report, Some(name)).unwrap();
        chosen.iter().map(|s| s.name.clone()).collect::<Vec<_>>()
    };
    assert_eq!(names("www"), ["www"]);
    assert_eq!(names("www.world.dev"), ["www.world.dev"]);
    assert_eq!(names("world.dev_www"), ["www.world.dev"]);
    let error = choose(&report, Some("nope\x1b[2J")).unwrap_err();
    let error = error.to_string();
    assert!(error.contains("lb-agent services"), "{error}");
    assert!(!error.contains('\x1b'), "{error}");
}

#[test]
fn what_is_not_known_is_said() {
    let report = compose(sample::material(None, None));
    let error = services(&report, Output::Table, None).unwrap_err();
    assert!(error.to_string().contains("does not know"), "{error}");
}

#[test]
fn colour_marks_only_when_asked_for() {
    assert_eq!(Style::Plain.mark(Mark::Error), "!!");
    assert_eq!(Style::Colour.mark(Mark::Error), "\x1b[31m!!\x1b[0m");
}

#[test]
fn json_names_are_kept() {
    let report = sample_report();
    let value = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
    let rows = value(&text(backends(&report, Output::Json, Some("www_hello"))));
    let row = &rows[1];
    assert_eq!(row["service"], "www_hello");
    assert_eq!(row["id"], "b");
    assert_eq!(row["node"], "file");
    assert_eq!(row["address"], "10.0.0.2:80");
    assert_eq!(row["probe"]["state"], "down");
    assert_eq!(row["source"]["state"], "passing");
    assert_eq!(row["state"], "l4_down");
    assert_eq!(row["active"], 0);
    let services = value(&text(services(&report, Output::Json, None)));
    assert_eq!(services[3]["vip"], "198.18.12.7");
    assert_eq!(services[3]["vip6"], "fd62:6c62:76:1::c07");
    assert_eq!(services[0]["vip"], serde_json::Value::Null);
    let status = value(&text(status(&report, Output::Json, Style::Plain)));
    assert_eq!(status["ok"], false);
    assert_eq!(status["components"][0]["mark"], "ok");
    let counts = serde_json::json!({ "ok": 2, "degraded": 1, "refused": 1 });
    assert_eq!(status["services"], counts);
}
