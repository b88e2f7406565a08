//! `trace`: each decision, as it comes.

use std::io::Write;

use lb_common::{HOST_VIEW, INTERNAL_VIEW, OUTSIDE_VIEW};

use super::{
    Answer, Output, PATIENCE, Watch,
    client::Client,
    flows::is_backend,
    follow::{self, Form},
    table::csv_line,
};
use crate::admin::{
    text::visible,
    trace::{Decided, Line},
};

/// Prints the decisions that are wished for, as many as are wanted.
pub(super) async fn follow(
    client: &Client,
    watch: &Watch,
    output: Output,
    out: &mut dyn Write,
) -> Answer {
    let service = watch.service.as_deref().unwrap_or_default();
    let lines = client.trace(service, PATIENCE).await?;
    let wished = |said: &Line| Ok(wished(said, watch));
    let exit = follow::lines(lines, &FORM, watch, output, out, wished).await?;
    Ok((String::new(), exit))
}

/// What is missing is told to everybody: it may have been theirs.
fn wished(line: &Line, watch: &Watch) -> bool {
    let Line::Decision(it) = line else {
        return true;
    };
    let client = watch.client.as_deref().is_none_or(|client| {
        let pid = it.pid.map(|pid| pid.to_string());
        it.container.as_deref() == Some(client)
            || pid.as_deref() == Some(client)
            || it.command.as_deref() == Some(client)
            || client == "host" && it.view == Some(HOST_VIEW)
    });
    let backend = watch
        .backend
        .as_deref()
        .is_none_or(|backend| is_backend(backend, it.backend.as_deref(), it.address));
    client && backend && (it.refused.is_some() || !watch.drops)
}

/// A line for each decision.
pub(super) const FORM: Form<Line> = Form {
    head: HEAD,
    csv_head: &CSV_HEAD,
    row,
    csv,
    counts: |line| matches!(line, Line::Decision(_)),
};

const HEAD: &str = "TIME              PID  COMMAND          CONTAINER         VIEW        VIP                    PROTO  DECISION\n";

const CSV_HEAD: [&str; 11] = [
    "TIME",
    "PID",
    "COMMAND",
    "CONTAINER",
    "VIEW",
    "VIP",
    "PROTO",
    "BACKEND",
    "ADDRESS",
    "REFUSED",
    "LOST",
];

fn csv(line: &Line) -> String {
    let cells: [String; CSV_HEAD.len()] = match line {
        Line::Lost { lost } => std::array::from_fn(|column| match CSV_HEAD[column] {
            "LOST" => lost.to_string(),
            _ => String::new(),
        }),
        Line::Decision(it) => {
            let text = |text: &Option<String>| text.clone().unwrap_or_default();
            [
                time(it.at_unix_milliseconds),
                it.pid.map(|pid| pid.to_string()).unwrap_or_default(),
                text(&it.command),
                text(&it.container),
                view(it.view),
                it.vip.to_string(),
                it.protocol.clone(),
                text(&it.backend),
                it.address.map(|it| it.to_string()).unwrap_or_default(),
                text(&it.refused),
                String::new(),
            ]
        }
    };
    csv_line(cells.iter().map(String::as_str))
}

fn row(line: &Line) -> String {
    let decided = match line {
        Line::Lost { lost } => {
            return format!("{lost} decisions are missing here: they came too fast\n");
        }
        Line::Decision(decided) => decided,
    };
    let text = |text: &Option<String>, unknown: &str| {
        let text = text.as_deref().map(|it| visible(it).into_owned());
        text.unwrap_or_else(|| unknown.to_owned())
    };
    let pid = decided
        .pid
        .map_or_else(|| "?".to_owned(), |it| it.to_string());
    format!(
        "{:12}  {pid:>7}  {:15}  {:16}  {:10}  {:21}  {:5}  {}\n",
        time(decided.at_unix_milliseconds),
        text(&decided.command, "?"),
        text(&decided.container, "-"),
        view(decided.view),
        decided.vip.to_string(),
        visible(&decided.protocol),
        decision(decided),
    )
}

fn decision(decided: &Decided) -> String {
    if let Some(reason) = &decided.refused {
        return format!("refused: {}", visible(reason));
    }
    let gone = || "gone".to_owned();
    let backend = decided.backend.as_deref();
    let backend = backend.map_or_else(gone, |it| visible(it).into_owned());
    let address = decided.address.map_or_else(gone, |it| it.to_string());
    format!("{backend} at {address}")
}

fn view(view: Option<u32>) -> String {
    match view {
        Some(HOST_VIEW) => "host".to_owned(),
        Some(OUTSIDE_VIEW) => "outside".to_owned(),
        Some(INTERNAL_VIEW) => "internal".to_owned(),
        Some(own) => own.to_string(),
        None => "gone".to_owned(),
    }
}

/// The time of day, in UTC.
pub(super) fn time(milliseconds: u64) -> String {
    let (seconds, milliseconds) = (milliseconds / 1000, milliseconds % 1000);
    let (hours, minutes) = (seconds / 3600 % 24, seconds / 60 % 60);
    format!(
        "{hours:02}:{minutes:02}:{:02}.{milliseconds:03}",
        seconds % 60
    )
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::cli) fn granted() -> Decided {
        Decided {
            at_unix_milliseconds: 1_700_000_000_042,
            service: "www_hello".to_owned(),
            pid: Some(4711),
            command: Some("cu\u{1b}rl".to_owned()),
            container: Some("web".to_owned()),
            cookie: 4107,
            view: Some(OUTSIDE_VIEW),
            vip: "198.18.12.7:80".parse().unwrap(),
            protocol: "tcp".to_owned(),
            backend: Some("file/a".to_owned()),
            address: Some("10.0.0.1:8080".parse().unwrap()),
            refused: None,
        }
    }

    #[test]
    fn each_decision_is_a_line_below_the_head() {
        let granted = granted();
        let refused = Decided {
            pid: None,
            command: None,
            container: None,
            view: Some(HOST_VIEW),
            backend: None,
            address: None,
            refused: Some("no-path".to_owned()),
            ..granted.clone()
        };
        let lines = [
            Line::Decision(granted.into()),
            Line::Lost { lost: 5 },
            Line::Decision(refused.into()),
        ];
        let text: String = lines.iter().map(row).collect();
        let expect = "\
TIME              PID  COMMAND          CONTAINER         VIEW        VIP                    PROTO  DECISION
22:13:20.042     4711  cu\\u{1b}rl       web               outside     198.18.12.7:80         tcp    file/a at 10.0.0.1:8080
5 decisions are missing here: they came too fast
22:13:20.042        ?  ?                -                 host        198.18.12.7:80         tcp    refused: no-path
";
        assert_eq!(HEAD.to_owned() + &text, expect);
    }

    #[test]
    fn decisions_are_told_apart_by_client_backend_and_verdict() {
        let line = |it: Decided| Line::Decision(Box::new(it));
        let by = |client: Option<&str>, backend: Option<&str>, drops| {
            let watch = Watch {
                service: Some("www_hello".to_owned()),
                client: client.map(str::to_owned),
                backend: backend.map(str::to_owned),
                drops,
                ..Watch::default()
            };
            let refused = Decided {
                refused: Some("denied".to_owned()),
                view: Some(HOST_VIEW),
                container: None,
                backend: None,
                address: None,
                ..granted()
            };
            assert!(wished(&Line::Lost { lost: 1 }, &watch));
            [granted(), refused].map(|it| wished(&line(it), &watch))
        };
        assert_eq!(by(None, None, false), [true, true]);
        assert_eq!(by(None, None, true), [false, true]);
        assert_eq!(by(Some("web"), None, false), [true, false]);
        assert_eq!(by(Some("host"), None, false), [false, true]);
        assert_eq!(by(Some("4711"), None, false), [true, true]);
        assert_eq!(by(None, Some("a"), false), [true, false]);
        assert_eq!(by(None, Some("b"), false), [false, false]);
    }
}
