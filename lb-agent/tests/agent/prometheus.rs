//! Prometheus itself, and its promtool, beside a real agent: what the agent measures is understood, and the rules and the
//! dashboard ask for nothing else.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use lb_common::packet::Fate;
use lb_testkit::{Spawn, eventually};
use serde_json::Value;

use crate::kit::{Instance, LIMIT, World, dns, exchange, greeting, service};

/// Where the Prometheus of a test listens, in the namespace of its world.
const PROMETHEUS: ([u8; 4], u16) = ([127, 0, 0, 1], 9090);

fn program(name: &str) -> PathBuf {
    let folder = std::env::var_os("LB_PROMETHEUS");
    PathBuf::from(folder.expect("LB_PROMETHEUS: the folder of Prometheus' programs")).join(name)
}

/// A file of the project.
fn file(path: &str) -> PathBuf {
    let crate_folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    crate_folder.parent().unwrap().join(path)
}

fn text(path: &str) -> String {
    fs::read_to_string(file(path)).unwrap()
}

/// Lets promtool judge, and demands that it has nothing to say against it.
#[track_caller]
fn promtool(words: &[&str], given: &str) {
    let mut promtool = Command::new(program("promtool"))
        .args(words)
        .current_dir(file("deploy/prometheus"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = promtool.stdin.take().unwrap();
    stdin.write_all(given.as_bytes()).unwrap();
    drop(stdin);
    let output = promtool.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    assert!(output.status.success(), "promtool {words:?}: {said}");
}

#[test]
fn each_alert_is_tested_and_has_a_runbook() {
    let rules = text("deploy/prometheus/lb-agent.rules.yml");
    let tests = text("deploy/prometheus/lb-agent.rules.test.yml");
    let operations = text("docs/operations.md");
    let alerts: Vec<_> = rules.split("- alert: ").skip(1).collect();
    assert!(alerts.len() > 10, "{rules}");
    for alert in alerts {
        let name = alert.lines().next().unwrap();
        for word in ["summary: ", "description: ", "severity: "] {
            assert!(alert.contains(word), "{name} has no {word}");
        }
        let (_, runbook) = alert.split_once("runbook: docs/operations.md#").unwrap();
        let anchor = format!("<a id=\"{}\"></a>", runbook.lines().next().unwrap());
        let row = operations.lines().find(|line| line.contains(&anchor));
        let row = row.unwrap_or_else(|| panic!("{anchor} is not in docs/operations.md"));
        assert!(row.contains(name), "{row} is not of {name}");
        let fires = format!("alertname: {name}\n");
        assert!(tests.contains(&fires), "no test lets {name} come");
    }
}

/// A world with traffic, a packet path and VIPs that are announced, so that there is something of most kinds to measure.
fn busy() -> (World, Instance) {
    let world = World::new();
    let devices =
        "link add lb-card type veth peer name lb-far\nlink set lb-card up\nlink set lb-far up\n";
    world.netns.ip(devices).unwrap();
    world.configure(&format!(
        "{}[packet]\nclients = [\"lb-card\"]\n[announce]\ndevices = [\"lb-card\"]\nowner = \"always\"\n",
        world.usual()
    ));
    let instance = Instance::start(&world.netns, "a", [127, 0, 1, 1]);
    world.publish(&service("www_hello", &[&instance]));
    let mut world = world;
    world.start(&[]);
    world.await_ready();
    let vip = world.await_usable("www_hello", &["a"]);
    for _ in 0..3 {
        greeting(&world.connect(vip, 80).unwrap()).unwrap();
        assert_eq!(world.front("www.hello.localhost").unwrap().status, 200);
    }
    assert_eq!(world.front("nobody.localhost").unwrap().status, 503);
    let own = std::net::Ipv4Addr::new(198, 18, 0, 1);
    dns(&world.netns, own, "www.hello.localhost.").unwrap();
    (world, instance)
}

#[test]
fn promtool_takes_what_the_agent_answers_and_the_rules_whose_alerts_come_when_they_should() {
    // What is started without a world ends with that of another test.
    let (mut world, _instance) = busy();
    promtool(&["check", "config", "prometheus.yml"], "");
    promtool(&["check", "rules", "lb-agent.rules.yml"], "");
    promtool(&["test", "rules", "lb-agent.rules.test.yml"], "");
    let metrics = world.await_page("/metrics", |answer| {
        answer.body.contains("lb_http_requests_total{")
    });
    promtool(&["check", "metrics"], &metrics.body);
    world.finish();
}

#[test]
fn prometheus_reads_the_agent_and_knows_all_that_rules_and_dashboard_ask_for() {
    let (world, _instance) = busy();
    let folder = world.path("prometheus");
    fs::create_dir(&folder).unwrap();
    let config = text("deploy/prometheus/prometheus.yml");
    let quick = config.replace("_interval: 15s", "_interval: 1s");
    assert_ne!(config, quick);
    fs::write(folder.join("prometheus.yml"), quick).unwrap();
    fs::copy(
        file("deploy/prometheus/lb-agent.rules.yml"),
        folder.join("lb-agent.rules.yml"),
    )
    .unwrap();
    let _prometheus = Spawn::new("prometheus", program("prometheus"))
        .arg(format!("--config.file={}/prometheus.yml", folder.display()))
        .arg(format!("--storage.tsdb.path={}/data", folder.display()))
        .arg("--web.listen-address=127.0.0.1:9090")
        .netns(&world.netns)
        .log(&folder)
        .start()
        .unwrap();
    let up = eventually(3 * LIMIT, || {
        let up = query(&world, "up{job=\"lb-agent\"}")?;
        match up["data"]["result"][0]["value"][1].as_str() {
            Some("1") => Ok(()),
            _ => Err(up.to_string()),
        }
    });
    up.unwrap_or_else(|late| {
        let said = fs::read_to_string(folder.join("prometheus.log"));
        panic!("{late}\n{}", said.unwrap_or_default())
    });
    let known = query(&world, "count by (__name__) ({job=\"lb-agent\"})").unwrap();
    let known = known["data"]["result"].as_array().unwrap();
    let known: BTreeSet<_> = known
        .iter()
        .filter_map(|it| it["metric"]["__name__"].as_str())
        .collect();
    for name in [
        "lb_http_requests_total",
        "lb_packet_program_attached",
        "lb_packet_map_entries",
        "lb_packet_fates_total",
        "lb_announce_owner",
    ] {
        assert!(known.contains(name), "{name} is not in {known:?}");
    }
    let documented = documented();
    let mut asked = expressions();
    assert!(asked.len() > 40, "{asked:?}");
    for variable in ["$instance", "$service"] {
        let has = |expression: &String| expression.contains(variable);
        assert!(asked.iter().any(has), "nothing asks for {variable}");
    }
    let mut picked = BTreeSet::new();
    for expression in &mut asked {
        for (variable, value) in [
            ("$__rate_interval", "1m"),
            ("$instance", ".*"),
            ("$service", ".*"),
        ] {
            *expression = expression.replace(variable, value);
        }
        let answer = query(&world, expression).unwrap();
        assert_eq!(answer["status"], "success", "{expression}: {answer}");
        for fate in fates(expression) {
            let is_one = Fate::ALL.iter().any(|it| it.as_str() == fate);
            assert!(is_one, "{expression} asks for {fate}, which is no fate");
            picked.insert(fate.to_owned());
        }
        for name in names(expression) {
            // What this agent has nothing of may stand in the table alone.
            let is_known = known.contains(name) || documented.contains_key(family(name));
            assert!(is_known, "{expression} asks for {name}, which nobody tells");
        }
    }
    // One of a rule's, and one of the dashboard's.
    for fate in [Fate::NoHost, Fate::Answered] {
        let fate = fate.as_str();
        assert!(picked.contains(fate), "{fate} is not in {picked:?}");
    }
    world.finish();
}

/// Asks Prometheus; its own errors are answers, too.
fn query(world: &World, expression: &str) -> Result<Value, String> {
    let encoded: String = expression
        .bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => char::from(byte).to_string(),
            other => format!("%{other:02X}"),
        })
        .collect();
    // Nobody sends a client of HTTP/1.0 its answer in pieces.
    let head = format!("GET /api/v1/query?query={encoded} HTTP/1.0\r\n");
    let answer = exchange(&world.netns, PROMETHEUS.into(), &head, "");
    let answer = answer.map_err(|error| error.to_string())?;
    serde_json::from_str(&answer.body).map_err(|error| format!("{error}: {}", answer.body))
}

/// Every expression of the rules and of the dashboard.
fn expressions() -> Vec<String> {
    let mut all = Vec::new();
    let rules = text("deploy/prometheus/lb-agent.rules.yml");
    for rule in rules.split("expr: ").skip(1) {
        let mut lines = rule.lines();
        let first = lines.next().unwrap();
        all.push(match first {
            "|" => {
                let deeper = lines.take_while(|line| line.starts_with("          "));
                deeper.map(str::trim).collect::<Vec<_>>().join(" ")
            }
            first => first.to_owned(),
        });
    }
    let dashboard: Value = serde_json::from_str(&text("deploy/grafana/lb-agent.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    for target in panels
        .iter()
        .filter_map(|it| it["targets"].as_array())
        .flatten()
    {
        let source = &target["datasource"]["uid"];
        assert_eq!(source, "${datasource}", "{target}");
        all.push(target["expr"].as_str().unwrap().to_owned());
    }
    all
}

/// The names of our metrics in an expression.
fn names(expression: &str) -> impl Iterator<Item = &str> {
    let words = expression.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.filter(|word| word.starts_with("lb_") || word.starts_with("process_"))
}

/// The fates of packets that an expression picks.
fn fates(expression: &str) -> impl Iterator<Item = &str> {
    let picks = expression.split("fate").skip(1);
    let lists = picks.filter_map(|it| {
        let list = it.trim_start().strip_prefix(['=', '!'])?;
        let list = list.trim_start_matches(['=', '~']);
        list.trim_start().strip_prefix('"')
    });
    lists.flat_map(|it| it.split('"').next().unwrap_or_default().split('|'))
}

#[test]
fn the_fates_of_an_expression_are_found_however_it_is_written() {
    for (expression, expect) in [
        (
            "rate(lb_packet_fates_total{fate=\"flood\"}[5m])",
            &["flood"][..],
        ),
        (
            "sum by (fate) (a{x=\"y\", fate !~ \"full|local\"})",
            &["full", "local"],
        ),
        (
            "a{fate = \"no-host\"} + b{ fate=~ \"resize\" }",
            &["no-host", "resize"],
        ),
        ("sum by (fate) (lb_packet_fates_total)", &[]),
    ] {
        assert_eq!(
            fates(expression).collect::<Vec<_>>(),
            expect,
            "{expression}"
        );
    }
}

/// The metric that a sample is of.
fn family(name: &str) -> &str {
    let suffixes = ["_bucket", "_sum", "_count"];
    let of = suffixes.iter().find_map(|suffix| name.strip_suffix(suffix));
    of.unwrap_or(name)
}

/// The metrics of docs/operations.md, each with its labels.
fn documented() -> BTreeMap<String, BTreeSet<String>> {
    let operations = text("docs/operations.md");
    let (_, table) = operations.split_once("\n## Metrics\n").unwrap();
    let table = table.split("\n## ").next().unwrap();
    let mut all = BTreeMap::new();
    for row in table.lines().filter_map(|line| line.strip_prefix("| `")) {
        let (metrics, _) = row.split_once(" | ").unwrap();
        let metrics = format!("`{metrics}");
        // `a`, `b` [x, y], `c` [z]: labels are those of all names since the ones before.
        let mut waiting = Vec::new();
        for piece in metrics.split('`') {
            if let Some(labels) = piece.trim().strip_prefix('[') {
                let labels = labels.split(']').next().unwrap();
                let labels: BTreeSet<_> = labels.split(", ").map(str::to_owned).collect();
                for name in waiting.drain(..) {
                    all.insert(name, labels.clone());
                }
            } else if piece.starts_with("lb_") || piece.starts_with("process_") {
                waiting.push(piece.to_owned());
            }
        }
        all.extend(waiting.into_iter().map(|name| (name, BTreeSet::new())));
    }
    all
}

#[test]
fn the_table_of_metrics_names_what_there_is_with_its_labels_and_nothing_else() {
    let (mut world, _instance) = busy();
    let metrics = world.await_page("/metrics", |answer| {
        answer.body.contains("lb_http_requests_total{")
    });
    let documented = documented();
    let mut seen = BTreeSet::new();
    for line in metrics.body.lines().filter(|line| !line.starts_with('#')) {
        let (series, _) = line.rsplit_once(' ').unwrap();
        let (name, labels) = series.split_once('{').unwrap_or((series, ""));
        let metric = family(name);
        let of = documented.get(metric);
        let of = of.unwrap_or_else(|| panic!("{metric} is not in docs/operations.md"));
        let labels = labels.split("\",").filter_map(|it| it.split_once("=\""));
        for (label, _) in labels.filter(|(label, _)| *label != "le") {
            assert!(of.contains(label), "{metric} has an undocumented {label}");
        }
        seen.insert(metric.to_owned());
    }
    // What this agent has nothing of is at least written somewhere.
    let sources = sources(&file("lb-agent/src"));
    for name in documented.keys().filter(|name| !seen.contains(*name)) {
        let short = name.strip_suffix("_total").unwrap_or(name);
        let short = short.strip_prefix("lb_").unwrap_or(short);
        let is_there = [short, &format!("lb_{short}")].iter().any(|it| {
            let literal = format!("\"{it}\"");
            sources.contains(&literal)
        });
        assert!(
            is_there,
            "{name} is in docs/operations.md, but nowhere else"
        );
    }
    world.finish();
}

/// All sources below a folder, in one.
fn sources(folder: &Path) -> String {
    let entries = fs::read_dir(folder).unwrap().map(Result::unwrap);
    let texts = entries.map(|entry| match entry.file_type().unwrap().is_dir() {
        true => sources(&entry.path()),
        false => fs::read_to_string(entry.path()).unwrap_or_default(),
    });
    texts.collect()
}
