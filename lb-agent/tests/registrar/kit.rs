//! A registrar against a real Consul, with containers that the test makes up.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use crate::support::{BOUND, Consul, MASTER};
use lb_agent::{
    discover::consul::{self, Token},
    docker::{Container, Endpoint, Engine, NetworkMode, Port, Protocol, State},
    registrar::{self, Addressing, Config, Metrics, Outputs, Settings, Status},
};
use reqwest::header::{HeaderName, HeaderValue};
use serde_json::Value;
use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

/// A Consul, and a registrar that believes what the test says of the engine.
pub(crate) struct World {
    pub(crate) consul: Consul,
    http: reqwest::Client,
    pub(crate) engine: watch::Sender<Engine>,
    pub(crate) status: watch::Receiver<Status>,
    pub(crate) stop: CancellationToken,
    keep: CancellationToken,
    pub(crate) token: Option<Token>,
    stage: JoinHandle<Result<(), registrar::Error>>,
}

pub(crate) fn config() -> Config {
    Config {
        settings: Settings {
            addressing: Addressing::Internal,
            ..Settings::new("")
        },
        resync: Duration::from_millis(200),
        ..Config::default()
    }
}

pub(crate) fn container(name: &str, words: &[(&str, &str)]) -> Container {
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
        runtime: String::new(),
    }
}

/// An engine that has exactly these containers.
pub(crate) fn engine(containers: &[Container]) -> Engine {
    let containers = containers.iter();
    let containers = containers.map(|it| (it.id.clone(), Arc::new(it.clone())));
    Engine {
        name: Some("lb-test".to_owned()),
        containers: Some(Arc::new(containers.collect())),
        ..Engine::default()
    }
}

impl World {
    pub(crate) async fn new(config: Config) -> Self {
        Self::at(Consul::start().await, config, None).await
    }

    pub(crate) async fn at(consul: Consul, config: Config, token: Option<Token>) -> Self {
        let (engine, _) = watch::channel(Engine::default());
        let (_, status) = watch::channel(Status::default());
        let mut world = Self {
            consul,
            http: http(),
            engine,
            status,
            stop: CancellationToken::new(),
            keep: CancellationToken::new(),
            stage: tokio::spawn(async { Ok(()) }),
            token,
        };
        world.start(config);
        world
    }

    /// Starts a registrar.
    pub(crate) fn start(&mut self, config: Config) {
        let address = self.consul.address().parse().unwrap();
        let consul = consul::Config {
            token: self.token.clone(),
            ..consul::Config::new(address)
        };
        let (out, status) = watch::channel(Status::default());
        self.status = status;
        self.stop = CancellationToken::new();
        self.keep = CancellationToken::new();
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
            self.keep.clone(),
        ));
    }

    /// Ends it for another one that follows.
    pub(crate) async fn hand_over(&mut self) {
        self.keep.cancel();
        self.end().await;
    }

    pub(crate) async fn end(&mut self) {
        self.stop.cancel();
        timeout(BOUND, &mut self.stage)
            .await
            .unwrap()
            .unwrap()
            .unwrap();
    }

    /// Says that the engine has exactly these containers.
    pub(crate) fn has(&self, containers: &[Container]) {
        self.engine.send_replace(engine(containers));
    }

    pub(crate) async fn read(&self, path: &str) -> Value {
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

    pub(crate) async fn ids(&self) -> Vec<String> {
        let services = self.read("agent/services").await;
        services.as_object().unwrap().keys().cloned().collect()
    }

    /// The status of a check, and its output or notes.
    pub(crate) async fn check(&self, id: &str) -> Option<(String, String)> {
        let checks = self.read("agent/checks").await;
        let check = checks.get(id)?;
        let text = |key: &str| check[key].as_str().unwrap_or_default().to_owned();
        Some((text("Status"), text("Output") + &text("Notes")))
    }

    pub(crate) async fn maintenance(&self, id: &str) -> Option<String> {
        let check = self.check(&format!("_service_maintenance:{id}")).await;
        check.map(|(_, reason)| reason)
    }

    /// When the catalog last changed this service.
    pub(crate) async fn modified(&self, service: &str) -> Value {
        let entries = self.read(&format!("catalog/service/{service}")).await;
        entries[0]["ModifyIndex"].clone()
    }

    #[track_caller]
    pub(crate) fn until_ids(&self, expect: &[&str]) -> impl Future<Output = ()> {
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
    pub(crate) fn until_status(
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
    pub(crate) async fn settle(&self) {
        for _ in 0..2 {
            let last = self.status.borrow().synced;
            let newer = async || (self.status.borrow().synced != last).then_some(());
            poll(newer).await.unwrap();
        }
    }
}

/// A client that may do everything.
pub(crate) fn http() -> reqwest::Client {
    let header = HeaderName::from_static("x-consul-token");
    let token = (header, HeaderValue::from_static(MASTER));
    let builder = reqwest::Client::builder().no_proxy();
    builder
        .default_headers([token].into_iter().collect())
        .build()
        .unwrap()
}

/// What `look` finds within the bound.
pub(crate) async fn poll<T>(look: impl AsyncFn() -> Option<T>) -> Option<T> {
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
