//! A real receiver of OTLP: what it holds of a real agent is what a scrape of that agent shows.

use std::{
    collections::BTreeMap, fs, net::SocketAddr, os::unix::fs::PermissionsExt as _, path::PathBuf,
};

use lb_testkit::{Process, Spawn, eventually};
use serde_json::Value;

use crate::kit::Instance;
use crate::kit::{LIMIT, World, exchange, greeting, service};

/// Where VictoriaMetrics listens, in the namespace of its world: for questions, and for the agent, by TLS.
const RECEIVER: &str = "127.0.0.1:8428";
const BY_TLS: &str = "127.0.0.1:8429";

/// Whoever it answers has to show this.
const PROOF: &str = "Authorization: Basic YWdlbnQ6czNjcmV0LXdvcmQ=";

fn start(world: &World) -> Process {
    let program = std::env::var_os("LB_VICTORIA_METRICS");
    let program = program.expect("LB_VICTORIA_METRICS: the path of victoria-metrics");
    let folder = world.path("victoria-metrics");
    fs::create_dir(&folder).unwrap();
    let own = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let [certificate, key] = [
        ("certificate", own.cert.pem()),
        ("key", own.signing_key.serialize_pem()),
    ]
    .map(|(name, text)| {
        fs::write(world.path(name), text).unwrap();
        world.path(name)
    });
    Spawn::new("victoria-metrics", PathBuf::from(program))
        .arg(format!("-httpListenAddr={RECEIVER},{BY_TLS}"))
        .arg("-tls=false,true")
        .arg(format!("-tlsCertFile=,{}", certificate.display()))
        .arg(format!("-tlsKeyFile=,{}", key.display()))
        .args(["-httpAuth.username=agent", "-httpAuth.password=s3cret-word"])
        .arg(format!("-storageDataPath={}/data", folder.display()))
        .arg("-memory.allowedBytes=64MiB")
        // As Prometheus names what comes by OTLP.
        .arg("-opentelemetry.usePrometheusNaming")
        .netns(&world.netns)
        .log(&folder)
        .start()
        .unwrap()
}

fn get(world: &World, path: &str) -> Result<String, String> {
    let address: SocketAddr = RECEIVER.parse().unwrap();
    // Nobody sends a client of HTTP/1.0 its answer in pieces.
    let head = format!("GET {path} HTTP/1.0\r\n{PROOF}\r\n");
    let answer = exchange(&world.netns, address, &head, "");
    let answer = answer.map_err(|error| error.to_string())?;
    match answer.status {
        200 => Ok(answer.body),
        status => Err(format!("{status}: {}", answer.body)),
    }
}

/// A series by its name and labels, bounds as numbers: each side writes them in its own way.
type Series = (String, BTreeMap<String, String>);

/// The newest value of each series that the receiver holds, without the labels that say whose it is.
fn held(world: &World) -> Result<BTreeMap<Series, f64>, String> {
    get(world, "/internal/force_flush")?;
    let all = get(world, "/api/v1/export?match%5B%5D=%7B__name__!%3D%22%22%7D")?;
    let mut held = BTreeMap::new();
    for line in all.lines() {
        let line: Value = serde_json::from_str(line).map_err(|error| format!("{error}: {line}"))?;
        let labels = line["metric"].as_object().ok_or("no labels")?;
        let text = |name: &str| labels.get(name).and_then(Value::as_str);
        assert_eq!(
            [text("service_name"), text("service_version")],
            [Some("lb-agent"), Some(env!("CARGO_PKG_VERSION"))],
            "{line}"
        );
        assert!(text("host_name").is_some(), "{line}");
        assert_eq!(text("host_name"), text("service_instance_id"), "{line}");
        let name = text("__name__").ok_or("no name")?.to_owned();
        let told = labels.iter().filter(|(label, _)| {
            let of_all = ["service_", "host_"].iter().any(|it| label.starts_with(it));
            *label != "__name__" && !of_all && *label != "job"
        });
        let told = told.map(|(label, text)| (label.clone(), text.as_str().unwrap_or("")));
        let told = told.map(|(label, text)| bound(label, text)).collect();
        let value = line["values"].as_array().and_then(|it| it.last()?.as_f64());
        held.insert(
            (name, told),
            value.ok_or_else(|| format!("no value: {line}"))?,
        );
    }
    Ok(held)
}

fn bound(label: String, text: &str) -> (String, String) {
    match label.as_str() {
        "le" => {
            let bound: f64 = text.parse().unwrap();
            (label, bound.to_string())
        }
        _ => (label, text.to_owned()),
    }
}

/// The same of a scrape.
fn scraped(text: &str) -> BTreeMap<Series, f64> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let one = |line: &str| {
        let (series, value) = line.rsplit_once(' ').unwrap();
        let (name, labels) = series.split_once('{').unwrap_or((series, ""));
        let labels = labels.trim_end_matches('}').split("\",");
        let labels = labels.filter_map(|it| it.split_once("=\""));
        let labels =
            labels.map(|(label, text)| bound(label.to_owned(), text.trim_end_matches('"')));
        ((name.to_owned(), labels.collect()), value.parse().unwrap())
    };
    lines.map(one).collect()
}

/// What goes on while nobody does anything.
fn moves(name: &str) -> bool {
    let begins = [
        "process_",
        "lb_front_process_",
        "lb_otlp_",
        "lb_source_data_age",
        "lb_probe",
        "lb_reconcile",
        "lb_http_client_connections",
    ];
    begins.iter().any(|it| name.starts_with(it))
}

#[test]
fn a_real_receiver_holds_what_a_scrape_shows() {
    let mut world = World::new();
    let mut receiver = start(&world);
    let a = Instance::start(&world.netns, "a", [127, 0, 1, 1]);
    world.publish(&service("www_hello", &[&a]));
    let headers = world.path("headers");
    fs::write(&headers, format!("{PROOF}\n")).unwrap();
    fs::set_permissions(&headers, fs::Permissions::from_mode(0o600)).unwrap();
    let usual = world.usual();
    let [headers, ca] = ["headers", "certificate"].map(|it| world.path(it));
    let [headers, ca] = [&headers, &ca].map(|it| it.display());
    world.configure(&format!(
        "{usual}[metrics]\nper_backend = true\n[metrics.otlp]\n\
         endpoint = \"https://{BY_TLS}/opentelemetry/v1/metrics\"\ninterval = \"300ms\"\n\
         headers_file = \"{headers}\"\nca_file = \"{ca}\"\n"
    ));
    world.start(&[]);
    world.await_ready();
    let vip = world.await_usable("www_hello", &["a"]);
    for _ in 0..3 {
        greeting(&world.connect(vip, 80).unwrap()).unwrap();
        assert_eq!(world.front("www.hello.localhost").unwrap().status, 200);
    }
    let same = eventually(3 * LIMIT, || {
        let scraped = scraped(&world.page("/metrics").map_err(|it| it.to_string())?.body);
        let flows = scraped
            .iter()
            .find(|((name, _), _)| name == "lb_backend_flows_total");
        if flows.is_none_or(|(_, flows)| *flows < 3.0) {
            return Err("the flows are not counted yet".to_owned());
        }
        let held = held(&world)?;
        for (series, value) in &scraped {
            match held.get(series) {
                None => return Err(format!("the receiver lacks {series:?}")),
                Some(_) if moves(&series.0) => {}
                Some(other) if other == value => {}
                Some(other) => {
                    return Err(format!("{series:?} is {value}, the receiver has {other}"));
                }
            }
        }
        let strange = held.keys().find(|series| !scraped.contains_key(series));
        match strange {
            Some(series) => Err(format!("only the receiver has {series:?}")),
            None => Ok(scraped.len()),
        }
    });
    let series = same.unwrap_or_else(|late| {
        let said = fs::read_to_string(world.path("victoria-metrics/victoria-metrics.log"));
        panic!("{late}\n{}\n{}", said.unwrap_or_default(), world.said())
    });
    assert!(series > 100, "{series}");

    // While it is away nobody else notices, and one line says so.
    receiver.kill().unwrap();
    let told = |word: &str| world.said().matches(word).count();
    let away = eventually(LIMIT, || match told("metrics cannot be pushed") {
        1 => Ok(()),
        many => Err(format!("{many} lines")),
    });
    away.unwrap();
    greeting(&world.connect(vip, 80).unwrap()).unwrap();
    let failures = eventually(LIMIT, || {
        let page = world.page("/metrics").map_err(|it| it.to_string())?;
        let scraped = scraped(&page.body);
        let failed = [("result".to_owned(), "failed".to_owned())].into();
        match scraped.get(&("lb_otlp_pushes_total".to_owned(), failed)) {
            Some(failed) if *failed >= 3.0 => Ok(()),
            other => Err(format!("{other:?} failures")),
        }
    });
    failures.unwrap();
    assert_eq!(told("metrics cannot be pushed"), 1, "{}", world.said());
    world.finish();
}
