//! Namespaces and partitions, which a real Consul has in another edition only.

use lb_agent::{
    discover::consul,
    docker::{Container, Engine, Health, State},
    registrar::{self, Metrics, Outputs, Status},
};
use tokio::{sync::watch, task::JoinHandle, time::timeout};
use tokio_util::sync::CancellationToken;

use crate::{
    fake::Fake,
    kit::{config, container, engine, poll},
    support::BOUND,
};

/// A registrar with a namespace and a partition.
struct Scoped {
    engine: watch::Sender<Engine>,
    status: watch::Receiver<Status>,
    stop: CancellationToken,
    stage: JoinHandle<Result<(), registrar::Error>>,
}

impl Scoped {
    fn start(fake: &Fake, containers: &[Container]) -> Self {
        let consul = consul::Config {
            namespace: Some("team".to_owned()),
            partition: Some("part".to_owned()),
            ..consul::Config::new(fake.address().parse().unwrap())
        };
        let (engine, engines) = watch::channel(engine(containers));
        let (out, status) = watch::channel(Status::default());
        let outputs = Outputs {
            status: out,
            ..Outputs::default()
        };
        let stop = CancellationToken::new();
        let stage = registrar::run(
            config(),
            consul,
            engines,
            outputs,
            Metrics::default(),
            stop.clone(),
            CancellationToken::new(),
        );
        Self {
            engine,
            status,
            stop,
            stage: tokio::spawn(stage),
        }
    }

    async fn end(self) {
        self.stop.cancel();
        let ended = timeout(BOUND, self.stage).await.unwrap();
        ended.unwrap().unwrap();
    }
}

fn healthy() -> Container {
    let mut one = container("one", &[("SERVICE_ID", "one")]);
    one.health = Some(Health::Healthy);
    one
}

#[tokio::test]
async fn whatever_the_registrar_asks_is_about_its_namespace_and_partition() {
    let fake = Fake::start().await;
    fake.upgrade("1.16.0+ent");
    let mut one = healthy();
    let registrar = Scoped::start(&fake, std::slice::from_ref(&one));
    let is = async |check: &str, status: &str| {
        let found =
            poll(async || (fake.agent.check(check).as_deref() == Some(status)).then_some(()));
        assert!(found.await.is_some(), "{check}: {:?}", fake.agent.asked());
    };
    is("service:one:docker", "passing").await;
    one.health = Some(Health::Unhealthy("bad".to_owned()));
    registrar
        .engine
        .send_replace(engine(std::slice::from_ref(&one)));
    is("service:one:docker", "critical").await;
    one.state = State::Paused;
    registrar.engine.send_replace(engine(&[one]));
    is("_service_maintenance:one", "critical").await;
    registrar.engine.send_replace(engine(&[]));
    let gone = poll(async || fake.agent.ids().is_empty().then_some(()));
    assert!(gone.await.is_some(), "{:?}", fake.agent.asked());
    registrar.end().await;

    let asked = fake.agent.asked();
    for request in [
        "GET /v1/agent/services",
        "GET /v1/agent/checks",
        "PUT /v1/agent/service/register",
        "PUT /v1/agent/check/update/",
        "PUT /v1/agent/service/maintenance/one",
        "PUT /v1/agent/service/deregister/one",
    ] {
        assert!(asked.iter().any(|it| it.starts_with(request)), "{request}");
    }
    for request in asked {
        assert!(request.contains("ns=team&partition=part"), "{request}");
    }
}

#[tokio::test]
async fn nothing_is_registered_in_the_wrong_place_with_a_consul_that_knows_no_namespaces() {
    let fake = Fake::start().await;
    let mut registrar = Scoped::start(&fake, &[healthy()]);
    let told = registrar.status.wait_for(|status| status.error.is_some());
    let error = timeout(BOUND, told).await.unwrap().unwrap().error.clone();
    let error = error.unwrap();
    assert!(error.contains("knows no partitions"), "{error}");
    assert_eq!(fake.agent.asked(), [""; 0]);
    fake.upgrade("1.16.0+ent");
    let registered = poll(async || (fake.agent.ids() == ["one"]).then_some(()));
    assert!(
        registered.await.is_some(),
        "{:?}",
        registrar.status.borrow()
    );
    registrar.end().await;
}
