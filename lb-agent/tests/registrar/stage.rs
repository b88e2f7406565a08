//! The registrar against a real Consul, with containers that the test makes up.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use crate::support::{BOUND, Consul, MASTER};
use lb_agent::{
    discover::consul::{self, Token},
    docker::{Container, Endpoint, Engine, Health, NetworkMode, Port, Protocol, State},
    registrar::{self, Addressing, Config, Metrics, Outputs, Settings, Status},
};
use reqwest::header::{HeaderName, HeaderValue};
use serde_json::{Value, json};
use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

/// A Consul, and a registrar that believes what the test says of the engine.
struct World {
    consul: Consul,
    http: reqwest::Client,
    engine: watch::Sender<Engine>,
    status: watch::Receiver<Status>,
    stop: CancellationToken,
    token: Option<Token>,
    stage: JoinHandle<Result<(), registrar::Error>>,
}

fn config() -> Config {
    Config {
        settings: Settings {
            addressing: Addressing::Internal,
            ..Settings::new("")
        },
        resync: Duration::from_millis(200),
        ..Config::default()
    }
}

fn container(name: &str, words: &[(&str, &str)]) -> Container {
    let endpoint = Endpoint {
        ipv4: Some([127, 0, 0, 9].into()),
        ipv6: None,
    };
    let word = |(key, text): &(&str, &str)| ((*key).to_owned(), (*text).to_owned());
    Container {
        id: format!("{name:0<64}"),
        name: name.to_owned(),
        image: "team/web:1".to_owned(),
        created: 1,
        environment: words.iter().map(word).collect(),
        labels: BTreeMap::new(),
        exposed: BTreeSet::from([Port {
            number: 80,
            protocol: Protocol::Tcp,
        }]),
        published: Vec::new(),
        network: NetworkMode::Networks,
        networks: BTreeMap::from([("bridge".to_owned(), endpoint)]),
        state: State::Running,
        process: None,
        health: None,
    }
}

impl World {
    async fn new(config: Config) -> Self {
        Self::at(Consul::start().await, config, None).await
    }

    async fn at(consul: Consul, config: Config, token: Option<Token>) -> Self {
        let (engine, _) = watch::channel(Engine::default());
        let (_, status) = watch::channel(Status::default());
        let mut world = Self {
            consul,
            http: http(),
            engine,
            status,
            stop: CancellationToken::new(),
            stage: tokio::spawn(async { Ok(()) }),
            token,
        };
        world.start(config);
        world
    }

    /// Starts a registrar.
    fn start(&mut self, config: Config) {
        let address = self.consul.address().parse().unwrap();
        let consul = consul::Config {
            token: self.token.clone(),
            ..consul::Config::new(address)
        };
        let (out, status) = watch::channel(Status::default());
        self.status = status;
        self.stop = CancellationToken::new();
        self.stage = tokio::spawn(registrar::run(
            config,
            consul,
            self.engine.subscribe(),
            Outputs {
                status: out,
                ..Outputs::default()
            },
            Metrics::default(),
            self.stop.clone(),
        ));
    }

    async fn end(&mut self) {
        self.stop.cancel();
        timeout(BOUND, &mut self.stage)
            .await
            .unwrap()
            .unwrap()
            .unwrap();
    }

    /// Says that the engine has exactly these containers.
    fn has(&self, containers: &[Container]) {
        let containers = containers
            .iter()
            .map(|it| (it.id.clone(), Arc::new(it.clone())));
        self.engine.send_replace(Engine {
            name: Some("lb-test".to_owned()),
            containers: Some(Arc::new(containers.collect())),
            ..Engine::default()
        });
    }

    async fn read(&self, path: &str) -> Value {
        let url = format!("http://{}/v1/{path}", self.consul.address());
        self.http
            .get(url)
            .send()
            .await
            .unwrap()
            .json()
            .await
            .unwrap()
    }

    async fn ids(&self) -> Vec<String> {
        let services = self.read("agent/services").await;
        services.as_object().unwrap().keys().cloned().collect()
    }

    /// The status of a check, and its output or notes.
    async fn check(&self, id: &str) -> Option<(String, String)> {
        let checks = self.read("agent/checks").await;
        let check = checks.get(id)?;
        let text = |key: &str| check[key].as_str().unwrap_or_default().to_owned();
        Some((text("Status"), text("Output") + &text("Notes")))
    }

    async fn maintenance(&self, id: &str) -> Option<String> {
        let check = self.check(&format!("_service_maintenance:{id}")).await;
        check.map(|(_, reason)| reason)
    }

    /// When the catalog last changed this service.
    async fn modified(&self, service: &str) -> Value {
        let entries = self.read(&format!("catalog/service/{service}")).await;
        entries[0]["ModifyIndex"].clone()
    }

    #[track_caller]
    fn until_ids(&self, expect: &[&str]) -> impl Future<Output = ()> {
        let caller = std::panic::Location::caller();
        async move {
            let seen = poll(async || Some(self.ids().await).filter(|it| it == expect)).await;
            if seen.is_none() {
                panic!(
                    "{caller}: {:?}, {:?}",
                    self.ids().await,
                    self.status.borrow()
                );
            }
        }
    }

    #[track_caller]
    fn until_status(
        &mut self,
        mut told: impl FnMut(&Status) -> bool,
    ) -> impl Future<Output = Status> {
        let caller = std::panic::Location::caller();
        async move {
            let found = timeout(BOUND, self.status.wait_for(|it| told(it))).await;
            let found = found.map(|status| status.unwrap().clone());
            found.unwrap_or_else(|_| panic!("{caller}: still {:#?}", *self.status.borrow()))
        }
    }

    /// Waits until the registrar has looked at Consul twice more: what it would do by then, it has done.
    async fn settle(&self) {
        for _ in 0..2 {
            let last = self.status.borrow().synced;
            let newer = async || (self.status.borrow().synced != last).then_some(());
            poll(newer).await.unwrap();
        }
    }
}

/// A client that may do everything.
fn http() -> reqwest::Client {
    let header = HeaderName::from_static("x-consul-token");
    let token = (header, HeaderValue::from_static(MASTER));
    let builder = reqwest::Client::builder().no_proxy();
    builder
        .default_headers([token].into_iter().collect())
        .build()
        .unwrap()
}

/// What `look` finds within the bound.
async fn poll<T>(look: impl AsyncFn() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + BOUND;
    loop {
        if let Some(found) = look().await {
            return Some(found);
        }
        if Instant::now() > deadline {
            return None;
        }
        sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn containers_are_registered_with_everything_they_say_and_go_with_their_end() {
    let mut world = World::new(config()).await;
    let words = [
        ("SERVICE_NAME", "www_hello"),
        ("SERVICE_TAGS", "b,a"),
        ("SERVICE_REGION", "eu"),
        ("SERVICE_WEIGHT", "5"),
        ("SERVICE_CHECK_TCP", "1"),
        ("SERVICE_CHECK_1_HTTP", "/up"),
        ("SERVICE_CHECK_1_HTTP_METHOD", "HEAD"),
        ("SERVICE_CHECK_1_TIMEOUT", "1s"),
        ("SERVICE_CHECK_1_DEREGISTER_AFTER", "2h"),
        ("SERVICE_CHECK_2_GRPC", "1"),
        ("SERVICE_CHECK_2_GRPC_USE_TLS", "1"),
        ("SERVICE_CHECK_2_TLS_SKIP_VERIFY", "1"),
        ("SERVICE_CHECK_3_TTL", "10m"),
        ("SERVICE_CHECK_3_INITIAL_STATUS", "passing"),
    ];
    world.has(&[container("one", &words), container("two", &[])]);
    world.until_ids(&["lb-test:one:80", "lb-test:two:80"]).await;
    let services = world.read("agent/services").await;
    let one = &services["lb-test:one:80"];
    assert_eq!(one["Service"], "www_hello");
    assert_eq!(one["Tags"], json!(["b", "a"]));
    assert_eq!(
        (&one["Address"], &one["Port"]),
        (&json!("127.0.0.9"), &json!(80))
    );
    assert_eq!(one["Weights"], json!({"Passing": 5, "Warning": 1}));
    assert_eq!(one["Meta"]["region"], "eu");
    assert_eq!(one["Meta"]["lb-registrar"], "lb-test");
    assert_eq!(one["Meta"]["lb-networks"], "bridge=127.0.0.9:80");
    assert_eq!(one["Meta"]["lb-container"], format!("{:0<64}", "one"));
    let checks = world.read("agent/checks").await;
    let of_one = checks.as_object().unwrap().values();
    assert_eq!(
        of_one
            .filter(|it| it["ServiceID"] == "lb-test:one:80")
            .count(),
        4
    );
    assert_eq!(
        world
            .check("service:lb-test:one:80:check-3")
            .await
            .unwrap()
            .0,
        "passing"
    );
    let status = world.until_status(|status| status.synced.is_some()).await;
    assert_eq!(
        (status.host.as_deref(), status.services),
        (Some("lb-test"), 2)
    );
    assert_eq!(status.problems, []);

    world.has(&[container("two", &[])]);
    world.until_ids(&["lb-test:two:80"]).await;
    // A container that starts and dies between two looks leaves nothing.
    world.has(&[container("two", &[]), container("brief", &[])]);
    world.has(&[container("two", &[])]);
    world.settle().await;
    assert_eq!(world.ids().await, ["lb-test:two:80"]);
    world.end().await;
    // Our own end takes nothing along.
    assert_eq!(world.ids().await, ["lb-test:two:80"]);
}

#[tokio::test]
async fn nothing_unchanged_is_registered_again() {
    let mut world = World::new(config()).await;
    let words = [("SERVICE_CHECK_TTL", "10m"), ("SERVICE_TAGS", "x,y")];
    world.has(&[container("one", &words)]);
    world.until_ids(&["lb-test:one:80"]).await;
    let in_catalog = async || Some(world.modified("web").await).filter(|it| !it.is_null());
    let index = poll(in_catalog).await.unwrap();
    world.settle().await;
    world.end().await;
    world.start(config());
    world.until_status(|status| status.synced.is_some()).await;
    world.settle().await;
    assert_eq!(world.modified("web").await, index);
    world.end().await;
}

#[tokio::test]
async fn an_engine_that_has_not_answered_removes_nothing() {
    let mut world = World::new(config()).await;
    world.has(&[container("one", &[])]);
    world.until_ids(&["lb-test:one:80"]).await;
    world.end().await;
    world.engine.send_replace(Engine::default());
    world.start(config());
    // Several times the pause between two looks.
    sleep(Duration::from_millis(700)).await;
    assert_eq!(world.ids().await, ["lb-test:one:80"]);
    world.end().await;
}

#[tokio::test]
async fn a_stop_drains_and_a_pause_is_maintenance_until_its_end() {
    let mut world = World::new(config()).await;
    let id = "lb-test:one:80";
    let mut one = container("one", &[]);
    world.has(std::slice::from_ref(&one));
    world.until_ids(&[id]).await;
    for (state, part) in [
        (State::Paused, Some("paused")),
        (State::Running, None),
        (State::Ending, Some("ending")),
    ] {
        one.state = state;
        world.has(std::slice::from_ref(&one));
        let as_told = async || {
            let reason = world.maintenance(id).await;
            let fits = match (&reason, part) {
                (Some(reason), Some(part)) => reason.contains(part),
                (None, None) => true,
                _ => false,
            };
            fits.then_some(())
        };
        poll(as_told).await.unwrap();
    }
    // A registration would end it: what changes in the last moments is left alone.
    one.labels
        .insert("SERVICE_TAGS".to_owned(), "new".to_owned());
    world.has(std::slice::from_ref(&one));
    world.settle().await;
    assert!(world.maintenance(id).await.unwrap().contains("ending"));
    one.state = State::Exited(0);
    world.has(&[one]);
    world.until_ids(&[]).await;
    world.end().await;
}

#[tokio::test]
async fn a_drain_that_takes_too_long_ends_the_registration() {
    let config = Config {
        drain: Duration::from_millis(500),
        ..config()
    };
    let mut world = World::new(config).await;
    let mut one = container("one", &[]);
    world.has(std::slice::from_ref(&one));
    world.until_ids(&["lb-test:one:80"]).await;
    one.state = State::Ending;
    world.has(&[one]);
    world.until_ids(&[]).await;
    world.end().await;
}

#[tokio::test]
async fn an_operators_maintenance_outlives_a_registration_a_pause_and_us() {
    let mut world = World::new(config()).await;
    let id = "lb-test:one:80";
    let mut one = container("one", &[]);
    world.has(std::slice::from_ref(&one));
    world.until_ids(&[id]).await;
    let path = format!("agent/service/maintenance/{id}?enable=true&reason=disk");
    world.consul.put(&path, Value::Null).await;
    one.labels
        .insert("SERVICE_TAGS".to_owned(), "new".to_owned());
    world.has(std::slice::from_ref(&one));
    let tagged = async || {
        let services = world.read("agent/services").await;
        (services[id]["Tags"] == json!(["new"])).then_some(())
    };
    poll(tagged).await.unwrap();
    let kept = async || (world.maintenance(id).await.as_deref() == Some("disk")).then_some(());
    poll(kept).await.unwrap();
    for state in [State::Paused, State::Running] {
        one.state = state;
        world.has(std::slice::from_ref(&one));
        world.settle().await;
        assert_eq!(world.maintenance(id).await.as_deref(), Some("disk"));
    }
    world.end().await;
}

#[tokio::test]
async fn a_healthcheck_is_passed_on() {
    let mut world = World::new(config()).await;
    let check = "service:lb-test:one:80:docker";
    let mut one = container("one", &[]);
    for (health, status, part) in [
        (Health::Starting, "critical", "starting"),
        (Health::Healthy, "passing", "healthy"),
        (Health::Unhealthy("exit 7".to_owned()), "critical", "exit 7"),
        (Health::Healthy, "passing", "healthy"),
    ] {
        one.health = Some(health);
        world.has(std::slice::from_ref(&one));
        let seen = async || {
            let (now, output) = world.check(check).await?;
            (now == status && output.contains(part)).then_some(())
        };
        assert!(
            poll(seen).await.is_some(),
            "{status}: {:?}",
            world.check(check).await
        );
    }
    world.end().await;
}

#[tokio::test]
async fn a_heartbeat_is_renewed_and_fails_with_us() {
    let mut config = config();
    config.settings.ttl = Some(Duration::from_secs(1));
    let mut world = World::new(config).await;
    world.has(&[container("one", &[])]);
    let check = "service:lb-test:one:80:registrar";
    let status = async || Some(world.check(check).await?.0);
    let passing = async || status().await.filter(|it| it == "passing");
    poll(passing).await.unwrap();
    // Twice its time.
    let end = Instant::now() + Duration::from_secs(2);
    while Instant::now() < end {
        assert_eq!(status().await.as_deref(), Some("passing"));
        sleep(Duration::from_millis(50)).await;
    }
    world.stop.cancel();
    let critical = async || status().await.filter(|it| it == "critical");
    poll(critical).await.unwrap();
    world.end().await;
}

#[tokio::test]
async fn a_rename_or_another_network_registers_again() {
    let mut world = World::new(config()).await;
    let mut one = container("one", &[]);
    world.has(std::slice::from_ref(&one));
    world.until_ids(&["lb-test:one:80"]).await;
    one.name = "other".to_owned();
    world.has(std::slice::from_ref(&one));
    world.until_ids(&["lb-test:other:80"]).await;
    let endpoint = Endpoint {
        ipv4: Some([127, 0, 0, 10].into()),
        ipv6: None,
    };
    one.networks = BTreeMap::from([("second".to_owned(), endpoint)]);
    world.has(&[one]);
    let moved = async || {
        let services = world.read("agent/services").await;
        (services["lb-test:other:80"]["Address"] == "127.0.0.10").then_some(())
    };
    poll(moved).await.unwrap();
    world.end().await;
}

#[tokio::test]
async fn a_consul_that_lost_everything_gets_it_back() {
    let mut world = World::new(config()).await;
    let mut one = container("one", &[]);
    one.state = State::Paused;
    world.has(&[one, container("two", &[])]);
    let both = ["lb-test:one:80", "lb-test:two:80"];
    world.until_ids(&both).await;
    world.consul.kill();
    let status = world.until_status(|status| status.error.is_some()).await;
    assert!(status.error.unwrap().contains("cannot reach Consul"));
    world.consul.wipe().await;
    world.until_ids(&both).await;
    let paused = async || world.maintenance(both[0]).await;
    poll(paused).await.unwrap();
    world.until_status(|status| status.error.is_none()).await;
    world.end().await;
}

#[tokio::test]
async fn dangling_services_are_swept_at_the_start_and_those_of_others_never() {
    let mut world = World::new(config()).await;
    let register = async |id: &str, host: &str| {
        let body = json!({"Name": "x", "ID": id, "Meta": {"lb-registrar": host}});
        world.consul.put("agent/service/register", body).await;
    };
    register("lb-test:gone:80", "lb-test").await;
    register("custom", "lb-test").await;
    register("elsewhere:gone:80", "elsewhere").await;
    world.consul.register("plain", "lb-test:old:80", 1).await;
    world.has(&[container("one", &[])]);
    world
        .until_ids(&["elsewhere:gone:80", "lb-test:old:80", "lb-test:one:80"])
        .await;
    // And later ones too.
    register("custom", "lb-test").await;
    world
        .until_ids(&["elsewhere:gone:80", "lb-test:old:80", "lb-test:one:80"])
        .await;
    world.end().await;
    world.start(Config {
        adopt: BTreeSet::from(["lb-test".to_owned()]),
        deregister_on_exit: true,
        ..config()
    });
    world
        .until_ids(&["elsewhere:gone:80", "lb-test:one:80"])
        .await;
    world.end().await;
    assert_eq!(world.ids().await, ["elsewhere:gone:80"]);
}

#[tokio::test]
async fn an_id_that_somebody_else_has_is_told() {
    let mut world = World::new(config()).await;
    world.consul.register("plain", "lb-test:one:80", 1).await;
    world.has(&[container("one", &[]), container("two", &[])]);
    let status = world
        .until_status(|status| !status.problems.is_empty())
        .await;
    assert!(
        status.problems[0]
            .message
            .contains("Consul has that id already")
    );
    world.until_ids(&["lb-test:one:80", "lb-test:two:80"]).await;
    assert_eq!(
        world.read("agent/services").await["lb-test:one:80"]["Service"],
        "plain"
    );
    world.end().await;
}

#[tokio::test]
async fn a_script_that_consul_refuses_is_a_critical_check_that_says_why() {
    let mut world = World::new(config()).await;
    world.has(&[container(
        "one",
        &[
            ("SERVICE_CHECK_SCRIPT", "true"),
            ("SERVICE_CHECK_1_TTL", "x"),
        ],
    )]);
    world.until_ids(&["lb-test:one:80"]).await;
    let seen = async || {
        let (status, text) = world.check("service:lb-test:one:80:check").await?;
        (status == "critical" && text.contains("does not run this check")).then_some(())
    };
    poll(seen).await.unwrap();
    let unusable = async || {
        let (status, text) = world.check("service:lb-test:one:80:check-1").await?;
        (status == "critical" && text.contains("SERVICE_CHECK_1_TTL=`x`")).then_some(())
    };
    poll(unusable).await.unwrap();
    // It is not tried again and again.
    let in_catalog = async || Some(world.modified("web").await).filter(|it| !it.is_null());
    let index = poll(in_catalog).await.unwrap();
    world.settle().await;
    assert_eq!(world.modified("web").await, index);
    world.end().await;
}

#[tokio::test]
async fn another_hosts_agent_is_told_and_a_registration_at_the_limits_is_taken() {
    let config = Config {
        host: Some("elsewhere".to_owned()),
        ..config()
    };
    let mut world = World::new(config).await;
    let mut one = container("one", &[("SERVICE_ID", "a/b c")]);
    let long = "ü".repeat(600);
    one.environment
        .extend((0..100).map(|n| (format!("SERVICE_KEY{n}"), long.clone())));
    world.has(&[one]);
    world.until_ids(&["a/b c"]).await;
    let status = world
        .until_status(|status| status.problems.len() == 2)
        .await;
    let told = |part: &str| status.problems.iter().any(|it| it.message.contains(part));
    assert!(
        told("belongs to node lb-test, and this host is elsewhere"),
        "{:?}",
        status.problems
    );
    assert!(told("Consul would refuse its metadata"));
    world.has(&[]);
    world.until_ids(&[]).await;
    world.end().await;
}

#[tokio::test]
async fn what_somebody_removes_comes_back() {
    let mut world = World::new(config()).await;
    world.has(&[container("one", &[])]);
    world.until_ids(&["lb-test:one:80"]).await;
    world.consul.deregister("lb-test:one:80").await;
    world.until_ids(&["lb-test:one:80"]).await;
    world.end().await;
}

#[tokio::test]
async fn a_token_without_the_right_is_told_with_the_remedy_and_one_that_has_it_serves() {
    let mut world = World::at(Consul::start_guarded().await, config(), None).await;
    world.has(&[container("one", &[])]);
    let status = world
        .until_status(|status| !status.problems.is_empty())
        .await;
    let message = &status.problems[0].message;
    assert!(message.contains("service_prefix \"\" write"), "{message}");
    assert_eq!(world.ids().await, Vec::<String>::new());
    world.end().await;
    world.token = Some(Token::Value(MASTER.to_owned()));
    world.start(config());
    world.until_ids(&["lb-test:one:80"]).await;
    world.end().await;
}
