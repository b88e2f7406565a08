//! The command line against a live agent, a mute one and none.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use lb_agent::{
    admin,
    cli::{self, Ask, Exit, Options, Outage, Output, Style, Vip, Watch, Wish},
    clients::{Clients, Standing},
    order::{self, Mode, OrderOutcome},
    trace::{Decision, Told},
    vip::{Entry, How, Order},
};
use lb_common::{Be16, PROTO_TCP, Trace};
use tokio::sync::{broadcast, mpsc};

use crate::{
    agent::{Agent, ask_at, status},
    values::key,
};

#[tokio::test]
async fn the_commands_ask_the_live_agent() {
    let agent = Agent::start().await;
    let (exit, out, err) = agent.ask(Output::Table, Ask::Status).await;
    assert_eq!((exit, err.as_str()), (Exit::Degraded, ""));
    assert!(out.starts_with("!! agent"), "{out}");
    assert!(out.contains("ok dns"), "{out}");

    let name = Some("www_hello".to_owned());
    let (exit, out, _) = agent.ask(Output::Table, Ask::Services { name: None }).await;
    assert_eq!(exit, Exit::Fine);
    assert!(
        out.lines().nth(2).unwrap().starts_with("www_hello"),
        "{out}"
    );

    let (_, out, _) = agent
        .ask(Output::Json, Ask::Backends { service: name })
        .await;
    let rows: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(rows[0]["id"], "a");
    assert_eq!(rows[0]["active"], 3);

    let name = Some("nope".to_owned());
    let (exit, out, err) = agent.ask(Output::Table, Ask::Services { name }).await;
    assert_eq!((exit, out.as_str()), (Exit::Failed, ""));
    assert!(err.contains("there is no service \"nope\""), "{err}");
    agent.end().await;
}

#[tokio::test]
async fn a_trace_prints_what_is_told_and_how_much_is_missing() {
    let mut agent = Agent::start().await;
    let ask = Ask::Trace(Watch {
        service: Some("www_hello".to_owned()),
        count: Some(2),
        ..Watch::default()
    });
    let asking = ask_at(agent.socket.clone(), Output::Json, ask);
    let telling = async {
        let request = agent.traces.recv().await.unwrap();
        assert_eq!(request.service.to_string(), "www_hello");
        // Room for two: a third pushes the first one out.
        let (out, hears) = broadcast::channel(2);
        for port in 1..=3 {
            let trace = Trace {
                port: Be16::from_host(port),
                proto: PROTO_TCP,
                ..Trace::default()
            };
            let decision = Decision {
                at: SystemTime::UNIX_EPOCH,
                trace,
                view: None,
                address: None,
            };
            out.send(Told::Decision(decision)).unwrap();
        }
        request.reply.send(hears).unwrap();
        out
    };
    let ((exit, text, err), out) = tokio::join!(asking, telling);
    assert_eq!((exit, err.as_str()), (Exit::Fine, ""));
    let lines = text.lines().map(|line| serde_json::from_str(line).unwrap());
    let lines: Vec<serde_json::Value> = lines.collect();
    assert_eq!(lines.len(), 3, "{text}");
    assert_eq!(lines[0]["lost"], 1);
    assert_eq!(lines[1]["vip"], "0.0.0.0:2");
    assert_eq!(lines[2]["refused"], "unknown");
    // The command has gone: nobody is left to hear.
    out.closed().await;

    let answer = agent.get("/api/v1/trace?service=www_hello").await;
    status(&answer, 403);
    agent.end().await;
}

#[tokio::test]
async fn clients_are_listed_once_they_are_known() {
    let agent = Agent::start().await;
    let (exit, _, err) = agent.ask(Output::Table, Ask::Clients).await;
    assert_eq!(exit, Exit::Failed);
    assert!(err.contains("the Docker Engine has not told"), "{err}");
    let standing = Standing {
        container: "c0ffee".to_owned(),
        name: "web".to_owned(),
        networks: ["front".to_owned()].into(),
        addresses: [[172, 18, 0, 2].into()].into(),
        outside: true,
    };
    let by_cookie = [(4107, standing)].into();
    let known = Clients { by_cookie };
    agent.clients.send_replace(Some(Arc::new(known)));
    let (exit, out, _) = agent.ask(Output::Json, Ask::Clients).await;
    assert_eq!(exit, Exit::Fine);
    let all: serde_json::Value = serde_json::from_str(&out).unwrap();
    let expect = serde_json::json!([{"cookie": 4107, "container": "c0ffee", "name": "web",
        "networks": ["front"], "addresses": ["172.18.0.2"], "outside": true}]);
    assert_eq!(all, expect);
    let (_, out, _) = agent.ask(Output::Table, Ask::Clients).await;
    assert!(out.contains("its networks and the host"), "{out}");
    agent.end().await;
}

#[tokio::test]
async fn flows_that_nobody_can_list_and_services_that_nobody_has_are_told() {
    let agent = Agent::start().await;
    let service = |name: &str| {
        let service = Some(name.to_owned());
        Ask::Flows(Wish {
            service,
            ..Wish::default()
        })
    };
    let (exit, out, err) = agent.ask(Output::Table, service("no such&one")).await;
    assert_eq!((exit, out.as_str()), (Exit::Failed, ""));
    let expect = "lb-agent: there is no service \"no such&one\": see `lb-agent services`\n";
    assert_eq!(err, expect);
    let (exit, _, err) = agent.ask(Output::Table, service("www_hello")).await;
    assert_eq!(exit, Exit::Failed);
    assert!(
        err.contains("the kernel does not list the sockets"),
        "{err}"
    );
    // Over TCP processes are the business of who has the token, and of nobody through a published page.
    let line = "GET /api/v1/flows HTTP/1.1";
    let headers = format!("Authorization: Bearer {}\r\n", agent.token);
    let host = agent.host();
    for (host, headers, expect) in [
        (host.as_str(), "", 403),
        ("lb.example", headers.as_str(), 403),
        (host.as_str(), headers.as_str(), 503),
    ] {
        status(&agent.send(line, host, headers, "").await, expect);
    }
    agent.end().await;
}

#[tokio::test]
async fn the_health_check_is_silent_on_success_only() {
    let agent = Agent::start().await;
    let (exit, out, err) = agent.ask(Output::Table, Ask::Healthcheck).await;
    assert_eq!((exit, out.as_str()), (Exit::Failed, ""));
    let expect = "lb-agent: not ready\nwaiting for listeners\nwaiting for maps\n";
    assert_eq!(err, expect);
    agent.readiness.set("maps");
    agent.readiness.set("listeners");
    let (exit, out, err) = agent.ask(Output::Table, Ask::Healthcheck).await;
    assert_eq!((exit, out + &err), (Exit::Fine, String::new()));
    agent.end().await;
}

#[tokio::test]
async fn an_agent_that_hangs_fails_the_health_check_within_two_seconds() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("admin.sock");
    // Connects are taken by the kernel, and nobody ever answers.
    let _mute = admin::bind_socket(&socket, false).unwrap();
    tokio::time::pause();
    let start = tokio::time::Instant::now();
    let (exit, _, err) = ask_at(socket, Output::Table, Ask::Healthcheck).await;
    assert_eq!(exit, Exit::Failed);
    assert!(err.contains("did not answer within 2 s"), "{err}");
    let passed = start.elapsed();
    assert!(passed < Duration::from_millis(2100), "{passed:?}");
}

#[tokio::test]
async fn an_agent_that_is_not_there_is_named_with_the_remedy() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("admin.sock");
    let asked = || ask_at(socket.clone(), Output::Table, Ask::Status);
    let missing = asked().await;
    drop(admin::bind_socket(&socket, false).unwrap());
    let dead = asked().await;
    for (exit, out, err) in [missing, dead] {
        assert_eq!((exit, out.as_str()), (Exit::Failed, ""));
        assert!(err.contains(socket.to_str().unwrap()), "{err}");
        assert!(err.contains("lb-agent run"), "{err}");
        assert!(err.contains("--socket"), "{err}");
    }
}

#[tokio::test]
async fn orders_by_command_go_there_and_come_back() {
    let mut agent = Agent::start().await;
    let mut orders = std::mem::replace(&mut agent.orders, mpsc::channel(1).1);
    let stage = async {
        let request = orders.recv().await.unwrap();
        assert_eq!(request.service, "www_hello");
        assert_eq!(request.backend.as_deref(), Some("file/a"));
        assert_eq!((request.mode, request.deadline), (Mode::Drain, None));
        let outcome = OrderOutcome {
            matched: vec![key("a")],
            order: order::Order::new(Mode::Drain, None, SystemTime::now()),
            snapshot: 1,
        };
        request.reply.send(Ok(outcome)).unwrap();
        let request = orders.recv().await.unwrap();
        let deadline = Some(Duration::from_secs(90));
        assert_eq!(
            (request.mode, request.deadline),
            (Mode::Maintenance, deadline)
        );
        let outcome = OrderOutcome {
            matched: vec![key("a")],
            order: order::Order::new(Mode::Maintenance, deadline, SystemTime::UNIX_EPOCH),
            snapshot: 1,
        };
        request.reply.send(Ok(outcome)).unwrap();
        let request = orders.recv().await.unwrap();
        assert_eq!((request.mode, request.deadline), (Mode::Ready, None));
        assert_eq!(request.backend, None);
        let why = "there is no service db\x1b[2J".to_owned();
        request.reply.send(Err(why)).unwrap();
    };
    let there = async {
        let outage = |target: &str| Outage {
            target: target.to_owned(),
            deadline: None,
            undo: false,
            wait: false,
        };
        let order = Ask::Drain(outage("www_hello/file/a"));
        let (exit, out, _) = agent.ask(Output::Table, order).await;
        assert_eq!(exit, Exit::Fine);
        assert!(out.starts_with("www_hello  file/a  draining"), "{out}");
        let order = Ask::Maintenance(Outage {
            deadline: Some(Duration::from_secs(90)),
            ..outage("www_hello/a")
        });
        let (exit, out, _) = agent.ask(Output::Json, order).await;
        let told: serde_json::Value = serde_json::from_str(&out).unwrap();
        assert_eq!((exit, &told["mode"]), (Exit::Fine, &"maintenance".into()));
        assert_eq!(told["cut_unix"], 90);
        let order = Ask::Drain(Outage {
            undo: true,
            ..outage("db")
        });
        let (exit, out, err) = agent.ask(Output::Table, order).await;
        assert_eq!((exit, out.as_str()), (Exit::Failed, ""));
        assert_eq!(err, "lb-agent: there is no service db\\u{1b}[2J\n");
    };
    tokio::join!(stage, there);
    agent.end().await;
}

#[tokio::test]
async fn orders_about_vips_go_there_and_come_back() {
    let mut agent = Agent::start().await;
    let mut vips = std::mem::replace(&mut agent.vips, mpsc::channel(1).1);
    let address = "198.18.0.80".parse().unwrap();
    let entry = Entry {
        address,
        service: Some("www_hello\x1b[2J".to_owned()),
        how: How::Pin,
        in_use: true,
        since_unix: Some(0),
        until_unix: None,
    };
    let stage = async {
        let request = vips.recv().await.unwrap();
        assert_eq!(request.order, Order::List);
        request.reply.send(Ok(vec![entry.clone()])).unwrap();
        let request = vips.recv().await.unwrap();
        let service = "www_hello".to_owned();
        assert_eq!(request.order, Order::Pin { service, address });
        request.reply.send(Ok(vec![entry.clone()])).unwrap();
        let request = vips.recv().await.unwrap();
        let target = "www_hello".to_owned();
        assert_eq!(request.order, Order::Release { target });
        request.reply.send(Ok(vec![entry.clone()])).unwrap();
        let request = vips.recv().await.unwrap();
        let why = "198.18.0.80 is in use by service x\x1b[2J".to_owned();
        request.reply.send(Err(why)).unwrap();
    };
    let there = async {
        let (exit, out, err) = agent.ask(Output::Json, Ask::Vip(Vip::List)).await;
        assert_eq!((exit, &*err), (Exit::Fine, ""));
        let listed: Vec<Entry> = serde_json::from_str(&out).unwrap();
        assert_eq!(listed, std::slice::from_ref(&entry));
        let service = "www_hello".to_owned();
        let pin = Ask::Vip(Vip::Pin { service, address });
        let (exit, out, _) = agent.ask(Output::Table, pin).await;
        assert_eq!(exit, Exit::Fine);
        let line = out.lines().nth(1).unwrap();
        assert!(
            line.starts_with("198.18.0.80  www_hello\\u{1b}[2J"),
            "{out}"
        );
        let release = || {
            let target = "www_hello".to_owned();
            Ask::Vip(Vip::Release { target })
        };
        let (exit, out, _) = agent.ask(Output::Table, release()).await;
        assert_eq!(exit, Exit::Fine);
        assert_eq!(out, "198.18.0.80  www_hello\\u{1b}[2J  pin released\n");
        let (exit, out, err) = agent.ask(Output::Table, release()).await;
        assert_eq!((exit, &*out), (Exit::Failed, ""));
        assert_eq!(
            err,
            "lb-agent: 198.18.0.80 is in use by service x\\u{1b}[2J\n"
        );
    };
    tokio::join!(stage, there);
    // Changes over TCP need what the drain needs.
    let body = r#"{"service":"a","address":"198.18.0.80"}"#;
    let line = "POST /api/v1/vips/pin HTTP/1.1";
    let json = "Content-Type: application/json\r\n";
    let answer = agent.send(line, &agent.host(), json, body).await;
    status(&answer, 403);
    agent.end().await;
}

#[tokio::test]
async fn a_reader_that_has_seen_enough_is_success() {
    struct Gone;
    impl std::io::Write for Gone {
        fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
            Err(std::io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let agent = Agent::start().await;
    let options = Options {
        socket: Some(agent.socket.clone()),
        output: Output::Table,
    };
    let mut err = Vec::new();
    let exit = cli::perform(&options, &Ask::Status, Style::Plain, &mut Gone, &mut err).await;
    assert_eq!((exit, err), (Exit::Fine, Vec::new()));
    agent.end().await;
}
