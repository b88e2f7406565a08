//! The built program against a live admin stage: what it prints is compared with files that `LB_WRITE_GOLDEN=1` writes
//! anew, and how it ends is part of the interface.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Output, Stdio},
    sync::Arc,
    time::SystemTime,
};

use lb_agent::{
    admin::events::{Happened, Kind},
    catalog::{Check, Problem, SourceHealth},
    clients::{Clients, Standing},
    order::{Mode, Order, OrderOutcome},
    snapshot::{ServiceName, Snapshot},
    vip::{Entry, How},
};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::Command,
    sync::mpsc,
};

use crate::{
    agent::Agent,
    values::{key, service, snapshot},
};

/// Names as somebody would write them who means no good.
const HOSTILE: [&str; 2] = ["=cmd|'/C calc'!A0", "a,\"b\"\u{1b}]0;owned\u{7}\u{202e}"];

fn program(socket: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lb-agent"));
    command
        .args(arguments)
        .arg("--socket")
        .arg(socket)
        .stdin(Stdio::null())
        .env_remove("LB_SOCKET")
        .kill_on_drop(true);
    command
}

async fn run(agent: &Agent, arguments: &[&str]) -> Output {
    program(&agent.socket, arguments).output().await.unwrap()
}

/// Without what is another at each run: ages, times and the host's name.
fn steady(text: &str, name: &str) -> String {
    if !name.ends_with(".json") {
        let words: Vec<_> = text.split(' ').collect();
        let steady = words.iter().enumerate().map(|(at, word)| {
            let unit = words.get(at + 1).is_some_and(|next| {
                next.starts_with('s') && !next[1..].starts_with(|c: char| c.is_alphanumeric())
            });
            // In CSV a word begins with the cells before.
            let kept = word.trim_end_matches(|c: char| c.is_ascii_digit());
            match unit && kept.len() < word.len() {
                true => format!("{kept}0"),
                false => (*word).to_owned(),
            }
        });
        return steady.collect::<Vec<_>>().join(" ");
    }
    let mut value: serde_json::Value = serde_json::from_str(text).unwrap();
    still(&mut value);
    serde_json::to_string_pretty(&value).unwrap() + "\n"
}

fn still(value: &mut serde_json::Value) {
    match value {
        serde_json::Value::Array(items) => items.iter_mut().for_each(still),
        serde_json::Value::Object(fields) => {
            for (name, value) in fields {
                match name.as_str() {
                    "host" => *value = "dock-1".into(),
                    "detail" => {
                        let text = value.as_str().unwrap();
                        *value = steady(text, "").into();
                    }
                    "unix" => *value = 0.into(),
                    name if name.ends_with("_unix") && !value.is_null() => *value = 0.into(),
                    _ => still(value),
                }
            }
        }
        _ => {}
    }
}

#[track_caller]
fn compare(name: &str, made: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cli/golden");
    let path: PathBuf = path.join(name);
    if std::env::var_os("LB_WRITE_GOLDEN").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, made).unwrap();
    }
    let kept = fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(kept, made, "{name}: LB_WRITE_GOLDEN=1 writes it");
}

fn hostile() -> Snapshot {
    let mut snapshot = snapshot();
    for name in HOSTILE {
        let mut service = service(None);
        for backend in service.backends.values_mut() {
            backend.source = SourceHealth::Critical;
            backend.checks = vec![Check {
                name: name.to_owned(),
                health: SourceHealth::Critical,
                output: format!("first\n{name}"),
            }];
        }
        let name = ServiceName::whole(name);
        snapshot.services.insert(name, service.into());
    }
    snapshot.problems = vec![
        Problem::new("service www_hello", "lb_weight is no number"),
        Problem::new(format!("service {}", HOSTILE[1]), HOSTILE[0]),
    ];
    snapshot
}

/// An agent that knows containers and says whose the addresses are.
async fn agent() -> Agent {
    let mut agent = Agent::start().await;
    agent.snapshots.send_replace(Some(Arc::new(hostile())));
    let standing = Standing {
        container: "c0ffee0123456789".to_owned(),
        name: HOSTILE[1].to_owned(),
        networks: ["front".to_owned()].into(),
        addresses: [[172, 18, 0, 2].into()].into(),
        outside: true,
    };
    let by_cookie = [(4107, standing)].into();
    agent
        .clients
        .send_replace(Some(Arc::new(Clients { by_cookie })));
    let text = |text: &str| Some(text.to_owned());
    agent.events.add(Happened {
        kind: Kind::Backend,
        subject: format!("instance n/a of service {}", HOSTILE[1]),
        from: text("usable"),
        to: text("l4_down"),
        cause: text(HOSTILE[0]),
        actor: None,
    });
    agent.events.add(Happened {
        kind: Kind::Change,
        subject: "service www_hello".to_owned(),
        from: text("a usable"),
        to: text("a draining"),
        cause: None,
        actor: text("uid 0"),
    });
    let mut vips = std::mem::replace(&mut agent.vips, mpsc::channel(1).1);
    tokio::spawn(async move {
        while let Some(request) = vips.recv().await {
            let entry = |last, service: &str, how| Entry {
                address: [198, 18, 12, last].into(),
                service: Some(service.to_owned()),
                how,
                in_use: true,
                since_unix: None,
                until_unix: None,
            };
            let entries = vec![
                entry(7, "www_hello", How::Hash),
                entry(8, HOSTILE[0], How::Pin),
            ];
            let _ = request.reply.send(Ok(entries));
        }
    });
    agent
}

#[tokio::test]
async fn what_is_printed_is_kept() {
    let agent = agent().await;
    let lists: [(&str, &[&str], i32); 7] = [
        ("status", &["status"], 3),
        ("services", &["services"], 0),
        ("backends", &["backends"], 0),
        ("clients", &["clients"], 0),
        ("events", &["events"], 0),
        ("vips", &["vip", "list"], 0),
        ("service", &["services", "www_hello"], 0),
    ];
    for (name, arguments, exit) in lists {
        for (output, ending) in [
            ("table", ".txt"),
            ("wide", ".wide.txt"),
            ("json", ".json"),
            ("csv", ".csv"),
        ] {
            let arguments = [arguments, &["-o", output]].concat();
            let done = run(&agent, &arguments).await;
            let name = format!("{name}{ending}");
            let err = String::from_utf8(done.stderr).unwrap();
            assert_eq!(
                (done.status.code(), err.as_str()),
                (Some(exit), ""),
                "{name}"
            );
            let text = String::from_utf8(done.stdout).unwrap();
            let obeyed = |c: char| c.is_control() && !matches!(c, '\n' | '\r') || c == '\u{202e}';
            assert!(!text.contains(obeyed), "{name}: {text:?}");
            compare(&name, &steady(&text, &name));
        }
    }
    agent.end().await;
}

#[tokio::test]
async fn failures_say_what_to_do_and_end_as_documented() {
    let agent = agent().await;
    let cases: [(&str, &[&str], i32); 8] = [
        ("no-service", &["services", "nope\u{1b}"], 1),
        ("no-service.json", &["services", "nope", "-o", "json"], 1),
        ("no-flows.json", &["flows", "nope", "-o", "json"], 1),
        (
            "no-host.json",
            &["explain", "--host", "nope.localhost", "-o", "json"],
            1,
        ),
        ("not-ready", &["healthcheck"], 1),
        ("no-terminal", &["top"], 2),
        ("no-rows", &["uninstall", "-o", "csv"], 2),
        ("no-such-format", &["services", "-o", "xml"], 2),
    ];
    let mut all = String::new();
    for (name, arguments, exit) in cases {
        let done = run(&agent, arguments).await;
        assert_eq!(done.status.code(), Some(exit), "{name}");
        assert_eq!(done.stdout, b"", "{name}");
        let err = String::from_utf8(done.stderr).unwrap();
        if name.ends_with(".json") {
            let told: serde_json::Value = serde_json::from_str(&err).unwrap();
            assert!(
                told["error"].is_string() && told["remedy"].is_string(),
                "{err}"
            );
        }
        all += &format!("# {name}, exit {exit}\n{err}");
    }
    agent.end().await;
    let nobody = Path::new("/nonexistent/admin.sock");
    for output in ["table", "json"] {
        let done = program(nobody, &["status", "-o", output]);
        let done = { done }.output().await.unwrap();
        assert_eq!(done.status.code(), Some(1));
        let err = String::from_utf8(done.stderr).unwrap();
        all += &format!("# no agent, exit 1\n{err}");
    }
    compare("failures.txt", &all);
}

#[tokio::test]
async fn a_reader_that_goes_away_early_is_no_failure() {
    let agent = agent().await;
    let script = "\"$0\" \"$@\" | head -1; echo ${PIPESTATUS[0]}";
    let done = Command::new("bash")
        .args(["-c", script, env!("CARGO_BIN_EXE_lb-agent")])
        .args(["options", "-o", "json", "--socket"])
        .arg(&agent.socket)
        .output()
        .await
        .unwrap();
    let text = String::from_utf8(done.stdout).unwrap();
    assert_eq!((text.as_str(), done.stderr), ("[\n0\n", Vec::new()));
    agent.end().await;
}

#[tokio::test]
async fn an_interrupted_trace_ends_with_130() {
    let mut agent = agent().await;
    let mut command = program(&agent.socket, &["trace", "www_hello", "--drops"]);
    let mut trace = command.stdout(Stdio::piped()).spawn().unwrap();
    let request = agent.traces.recv().await.unwrap();
    let (_told, hears) = tokio::sync::broadcast::channel(1);
    request.reply.send(hears).unwrap();
    // Behind its head it listens for signals.
    let mut lines = BufReader::new(trace.stdout.take().unwrap()).lines();
    let head = lines.next_line().await.unwrap().unwrap();
    assert!(head.starts_with("TIME "), "{head}");
    let pid = i32::try_from(trace.id().unwrap()).unwrap();
    let interrupt = nix::sys::signal::Signal::SIGINT;
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), interrupt).unwrap();
    assert_eq!(trace.wait().await.unwrap().code(), Some(130));
    agent.end().await;
}

#[tokio::test]
async fn a_drain_waits_until_its_last_flow_has_ended() {
    let mut agent = agent().await;
    let mut orders = std::mem::replace(&mut agent.orders, mpsc::channel(1).1);
    let mut command = program(&agent.socket, &["drain", "www_hello/a", "--wait"]);
    let mut drain = command
        .stderr(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let request = orders.recv().await.unwrap();
    let outcome = OrderOutcome {
        matched: vec![key("a")],
        order: Order::new(Mode::Drain, None, SystemTime::now()),
        snapshot: 1,
    };
    request.reply.send(Ok(outcome)).unwrap();
    let mut lines = BufReader::new(drain.stderr.take().unwrap()).lines();
    assert_eq!(lines.next_line().await.unwrap().unwrap(), "3 flows left");
    // The backend goes, and nothing of it is left.
    let mut snapshot = hostile();
    snapshot.services.remove(&ServiceName::whole("www_hello"));
    agent.snapshots.send_replace(Some(Arc::new(snapshot)));
    assert_eq!(drain.wait().await.unwrap().code(), Some(0));
    agent.end().await;
}

#[tokio::test]
async fn bash_completes_commands_and_man_pages_are_written() {
    let program = env!("CARGO_BIN_EXE_lb-agent");
    let script = "source <(\"$0\" completions bash); COMP_WORDS=(lb-agent vip rel); COMP_CWORD=2\n\
                  by=$(complete -p lb-agent); by=${by#*-F }; ${by%% *} lb-agent rel vip\n\
                  echo \"${COMPREPLY[@]}\"";
    let done = Command::new("bash")
        .args(["-c", script, program])
        .output()
        .await
        .unwrap();
    assert_eq!(String::from_utf8(done.stderr).unwrap(), "");
    assert_eq!(String::from_utf8(done.stdout).unwrap(), "release\n");
    for shell in ["bash", "zsh", "fish"] {
        let done = Command::new(program)
            .args(["completions", shell])
            .output()
            .await
            .unwrap();
        let text = String::from_utf8(done.stdout).unwrap();
        assert!(
            done.status.success() && text.contains("healthcheck"),
            "{shell}"
        );
        assert!(
            !text.contains("--log-json"),
            "what is hidden is offered: {shell}"
        );
    }
    let dir = tempfile::tempdir().unwrap();
    let done = Command::new(program)
        .arg("man")
        .arg(dir.path())
        .output()
        .await
        .unwrap();
    assert!(done.status.success());
    let pages = fs::read_dir(dir.path()).unwrap();
    let mut pages: Vec<_> = pages
        .map(|page| page.unwrap().file_name().into_string().unwrap())
        .collect();
    pages.sort();
    for page in ["lb-agent.1", "lb-agent-run.1", "lb-agent-vip-pin.1"] {
        assert!(pages.iter().any(|it| it == page), "{pages:?}");
    }
    assert!(
        !pages.iter().any(|it| it == "lb-agent-front.1"),
        "{pages:?}"
    );
    let one = Command::new(program).arg("man").output().await.unwrap();
    let text = String::from_utf8(one.stdout).unwrap();
    assert!(text.contains(".TH lb-agent 1"), "{text}");
    let kept = fs::read_to_string(dir.path().join("lb-agent.1")).unwrap();
    assert_eq!(text, kept);
}
