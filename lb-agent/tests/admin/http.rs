//! What browsers, scrapers and forgers get.

use std::{collections::BTreeMap, time::SystemTime};

use lb_agent::{
    admin::{self, Config, Inputs, Published},
    order::{Mode, Order, OrderOutcome},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::mpsc,
};
use tokio_util::sync::CancellationToken;

use crate::{
    agent::{Agent, no_sockets, status},
    values::key,
};

#[tokio::test]
async fn the_page_shows_the_services_and_escapes_them() {
    let agent = Agent::start().await;
    let page = agent.get("/").await;
    status(&page, 200);
    assert!(page.contains("id=\"www_hello_backend\""));
    assert!(page.contains("198.18.12.7"));
    assert!(page.contains("&lt;script&gt;alert(1)&lt;/script&gt;"));
    assert!(!page.contains("<script>alert"));
    agent.end().await;
}

#[tokio::test]
async fn every_answer_carries_the_headers() {
    let agent = Agent::start().await;
    let host = agent.host();
    for answer in [
        agent.get("/").await,
        agent.get("/assets/page.css").await,
        agent.get("/nothing").await,
        agent.send("GET / HTTP/1.1", "evil.example", "", "").await,
        agent.send("PUT / HTTP/1.1", &host, "", "").await,
    ] {
        let lower = answer.to_ascii_lowercase();
        for header in [
            "content-security-policy: default-src 'none'; script-src 'self';",
            "x-content-type-options: nosniff",
            "referrer-policy: no-referrer",
            "cache-control: no-store",
            "cross-origin-resource-policy: same-origin",
        ] {
            assert!(lower.contains(header), "no {header} in {answer}");
        }
        assert!(!lower.contains("access-control-"), "{answer}");
    }
    agent.end().await;
}

#[tokio::test]
async fn the_assets_of_the_page_are_served_from_here() {
    let agent = Agent::start().await;
    let page = agent.get("/").await;
    let links = page
        .split(['"', '\''])
        .filter(|s| s.starts_with("/assets/"));
    let links: Vec<_> = links.collect();
    assert_eq!(links.len(), 4, "{links:?}");
    for link in links {
        let asset = agent.get(link).await;
        status(&asset, 200);
        let kinds = ["content-type: text/", "content-type: image/svg+xml"];
        assert!(kinds.iter().any(|kind| asset.contains(kind)), "{asset}");
    }
    agent.end().await;
}

#[tokio::test]
async fn a_foreign_host_is_misdirected() {
    let agent = Agent::start().await;
    for host in ["evil.example", "127.0.0.1.nip.io", "10.0.0.1:9180"] {
        status(&agent.send("GET / HTTP/1.1", host, "", "").await, 421);
    }
    status(
        &agent.send("GET / HTTP/1.1", "localhost", "", "").await,
        200,
    );
    let two = agent
        .send("GET / HTTP/1.1", "localhost\r\nHost: localhost", "", "")
        .await;
    status(&two, 400);
    let absolute = agent
        .send("GET http://evil.example/ HTTP/1.1", "localhost", "", "")
        .await;
    status(&absolute, 421);
    agent.end().await;
}

#[tokio::test]
async fn under_a_published_name_reading_needs_the_token_and_changes_are_refused_in_words() {
    let mut agent = Agent::start().await;
    let bearer = format!("Authorization: Bearer {}\r\n", agent.token);
    let read = async |path: &str, headers: &str| {
        let line = format!("GET {path} HTTP/1.1");
        agent.send(&line, "lb.example", headers, "").await
    };
    for path in ["/", "/metrics", "/api/v1/snapshot", "/nothing"] {
        status(&read(path, "").await, 401);
    }
    for path in ["/", "/metrics", "/api/v1/snapshot"] {
        status(&read(path, &bearer).await, 200);
    }
    status(&read("/healthz", "").await, 200);
    let wrong = "Authorization: Bearer 0000000000000000\r\n";
    status(&read("/", wrong).await, 401);

    let line = "POST /api/v1/instances/state HTTP/1.1";
    let headers = format!("Content-Type: application/json\r\nX-LB-Action: 1\r\n{bearer}");
    let body = r#"{"service":"www_hello","mode":"drain"}"#;
    let answer = agent.send(line, "lb.example", &headers, body).await;
    status(&answer, 403);
    assert!(answer.contains("run `lb-agent` on the host"), "{answer}");
    assert!(agent.orders.try_recv().is_err());
    agent.end().await;
}

#[tokio::test]
async fn a_get_changes_nothing() {
    let mut agent = Agent::start().await;
    status(&agent.get("/api/v1/instances/state").await, 405);
    let asked = "/api/v1/instances/state?service=www_hello&mode=drain";
    status(&agent.get(asked).await, 405);
    assert!(agent.orders.try_recv().is_err());
    agent.end().await;
}

#[tokio::test]
async fn a_change_needs_everything_that_a_form_cannot_send() {
    let mut agent = Agent::start().await;
    let bearer = format!("Authorization: Bearer {}\r\n", agent.token);
    let json = "Content-Type: application/json\r\n";
    let action = "X-LB-Action: 1\r\n";
    let form = "Content-Type: application/x-www-form-urlencoded\r\n";
    let origin = "Origin: http://evil.example\r\n";
    let site = "Sec-Fetch-Site: cross-site\r\n";
    let wrong = "Authorization: Bearer 0000000000000000\r\n";
    for (headers, expect) in [
        (format!("{action}{bearer}"), 415),
        (format!("{form}{action}{bearer}"), 415),
        (format!("{json}{bearer}"), 403),
        (format!("{json}{action}{bearer}{origin}"), 403),
        (format!("{json}{action}{bearer}{site}"), 403),
        (format!("{json}{action}"), 401),
        (format!("{json}{action}{wrong}"), 401),
    ] {
        status(&agent.post_order(&headers).await, expect);
    }
    assert!(agent.orders.try_recv().is_err());
    let metrics = agent.get("/metrics").await;
    assert!(metrics.contains("lb_admin_refusals_total 7"), "{metrics}");
    agent.end().await;
}

#[tokio::test]
async fn a_drain_with_the_token_reaches_the_stage_that_owns_it() {
    let mut agent = Agent::start().await;
    let headers = format!(
        "Content-Type: application/json\r\nX-LB-Action: 1\r\nAuthorization: Bearer {}\r\nOrigin: http://{}\r\n",
        agent.token, agent.address
    );
    let mut orders = std::mem::replace(&mut agent.orders, mpsc::channel(1).1);
    let stage = async {
        let request = orders.recv().await.unwrap();
        assert_eq!(request.service, "www_hello");
        assert_eq!(request.backend.as_deref(), Some("a"));
        assert_eq!((request.mode, request.deadline), (Mode::Drain, None));
        let outcome = OrderOutcome {
            matched: vec![key("a")],
            order: Order::new(Mode::Drain, None, SystemTime::now()),
            snapshot: 2,
        };
        request.reply.send(Ok(outcome)).unwrap();
        agent.in_maps.send_replace(Some(2));
    };
    let (answer, ()) = tokio::join!(agent.post_order(&headers), stage);
    status(&answer, 200);
    assert!(
        answer.contains(r#""mode":"drain","cut_unix":null"#),
        "{answer}"
    );
    assert!(answer.contains(r#""not_yet_in":[]"#), "{answer}");
    let metrics = agent.get("/metrics").await;
    let line = r#"lb_admin_actions_total{action="drain",result="ok"} 1"#;
    assert!(metrics.contains(line), "{metrics}");
    agent.end().await;
}

#[tokio::test]
async fn a_body_that_is_no_order_is_refused_in_words() {
    let agent = Agent::start().await;
    let headers = format!(
        "Content-Type: application/json\r\nX-LB-Action: 1\r\nAuthorization: Bearer {}\r\n",
        agent.token
    );
    let huge = format!("{{\"service\":\"{}\"}}", "x".repeat(20_000));
    for (body, expect) in [
        ("{", 400),
        ("[]", 422),
        (r#"{"service":"a"}"#, 422),
        (r#"{"service":"a","mode":"off"}"#, 422),
        (r#"{"service":"a","mode":"drain","deadline":3}"#, 422),
        (
            r#"{"service":"a","mode":"drain","deadline_seconds":-1}"#,
            422,
        ),
        (
            r#"{"service":"a","mode":"drain","deadline_seconds":86401}"#,
            422,
        ),
        (
            r#"{"service":"a","mode":"ready","deadline_seconds":1}"#,
            422,
        ),
        (huge.as_str(), 413),
    ] {
        let line = "POST /api/v1/instances/state HTTP/1.1";
        let answer = agent.send(line, &agent.host(), &headers, body).await;
        status(&answer, expect);
        assert!(answer.contains(r#"{"error":""#), "{answer}");
    }
    agent.end().await;
}

#[tokio::test]
async fn it_is_ready_when_every_condition_is_met_and_says_what_is_missing() {
    let agent = Agent::start().await;
    agent.readiness.set("listeners");
    let answer = agent.get("/ready").await;
    status(&answer, 503);
    assert!(answer.ends_with("\r\n\r\nwaiting for maps\n"), "{answer}");
    agent.readiness.set("maps");
    status(&agent.get("/ready").await, 200);
    agent.readiness.stop();
    let answer = agent.get("/ready").await;
    status(&answer, 503);
    assert!(answer.ends_with("stopping\n"), "{answer}");
    status(&agent.get("/healthz").await, 200);
    agent.end().await;
}

#[tokio::test]
async fn every_line_of_the_metrics_is_well_formed_and_names_no_client() {
    let agent = Agent::start().await;
    let open = "Accept: application/openmetrics-text;version=1.0.0,text/plain;q=0.5\r\n";
    for (accept, kind) in [
        (open, "application/openmetrics-text; version=1.0.0"),
        ("", "text/plain; version=0.0.4"),
    ] {
        let answer = agent
            .send("GET /metrics HTTP/1.1", &agent.host(), accept, "")
            .await;
        status(&answer, 200);
        assert!(answer.contains(kind), "{answer}");
        let (_, body) = answer.split_once("\r\n\r\n").unwrap();
        let is_open = !accept.is_empty();
        well_formed(body, is_open);
        for line in [
            "lb_ready 0.0",
            "lb_flows_total{service=\"www_hello\",path=\"socket\"} 12.0",
            "lb_dns_queries_total{type=\"A\",rcode=\"NOERROR\"} 7.0",
        ] {
            assert!(body.lines().any(|l| l == line), "no {line} in\n{body}");
        }
        assert_eq!(body.ends_with("# EOF\n"), is_open);
    }
    agent.end().await;
}

#[track_caller]
fn well_formed(body: &str, is_open: bool) {
    let mut families = BTreeMap::<&str, &str>::new();
    for line in body.lines() {
        if let Some(rest) = line.strip_prefix("# ") {
            match rest.split_once(' ') {
                None => assert_eq!(rest, "EOF"),
                Some(("HELP", rest)) => {
                    let (_, help) = rest.split_once(' ').unwrap();
                    assert!(help.ends_with('.'), "{line}");
                }
                Some(("TYPE", rest)) => {
                    let (name, kind) = rest.split_once(' ').unwrap();
                    assert_eq!(families.insert(name, kind), None, "{name} twice");
                }
                Some(_) => panic!("{line}"),
            }
            continue;
        }
        let (series, value) = line.rsplit_once(' ').unwrap();
        value.parse::<f64>().unwrap_or_else(|_| panic!("{line}"));
        let name = series.split('{').next().unwrap();
        // Only OpenMetrics has a counter's family without the suffix of its samples.
        let suffixes: &[&str] = match is_open {
            true => &["_total", "_bucket", "_sum", "_count"],
            false => &["_bucket", "_sum", "_count"],
        };
        let family = suffixes.iter().find_map(|it| name.strip_suffix(it));
        let family = family.unwrap_or(name);
        assert!(families.contains_key(family), "{line} has no TYPE");
        let legal = |c: char| c.is_ascii_alphanumeric() || c == '_';
        assert!(name.chars().all(legal), "{line}");
        for label in ["client=", "peer=", "host=", "address="] {
            assert!(!series.contains(label), "{line}");
        }
    }
}

#[tokio::test]
async fn the_api_gives_null_for_what_is_not_known() {
    let agent = Agent::start().await;
    let parse = |answer: String| -> serde_json::Value {
        status(&answer, 200);
        serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap()
    };
    let known = parse(agent.get("/api/v1/snapshot").await);
    assert_eq!(known["api"], 1);
    assert_eq!(known["services"].as_array().unwrap().len(), 2);
    agent.snapshots.send_replace(None);
    let unknown = parse(agent.get("/api/v1/snapshot").await);
    assert!(unknown["services"].is_null());
    assert!(agent.get("/").await.contains("not known yet"));
    agent.end().await;
}

#[tokio::test]
async fn beyond_loopback_a_token_of_the_operator_s_own_is_needed() {
    let dir = tempfile::tempdir().unwrap();
    let tcp = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
    let unix = admin::bind_socket(&dir.path().join("admin.sock"), false).unwrap();
    let inputs = Inputs::unconnected(no_sockets());
    let config = Config {
        state_dir: dir.path().to_owned(),
        token_file: None,
        step: admin::STEP,
        names: Vec::new(),
        published: Published::default(),
        per_backend: false,
        otlp: None,
        allow_uids: Default::default(),
    };
    let stop = CancellationToken::new();
    let ended = admin::run(config, unix, vec![tcp], inputs, stop).await;
    let error = ended.unwrap_err().to_string();
    assert!(error.contains("0.0.0.0:"), "{error}");
    assert!(error.contains("[admin] token_file"), "{error}");
}

#[tokio::test]
async fn a_request_in_flight_is_answered_when_the_agent_stops() {
    let agent = Agent::start().await;
    let mut stream = TcpStream::connect(agent.address).await.unwrap();
    let head = format!("GET /healthz HTTP/1.1\r\nHost: {}\r\n", agent.address);
    stream.write_all(head.as_bytes()).await.unwrap();
    // One byte back and forth on a second connection: the first one is accepted by then.
    status(&agent.get("/healthz").await, 200);
    agent.stop.cancel();
    stream.write_all(b"\r\n").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    status(&answer, 200);
    agent.end().await;
}
