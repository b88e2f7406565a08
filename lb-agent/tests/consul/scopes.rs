//! Namespaces and partitions: asked of a Consul that knows them, refused otherwise.

use lb_agent::{catalog::SourceState, discover::consul::Config};

use crate::{
    fake::Fake,
    source::{Source, config, ids},
    support::{BOUND, Consul},
};

#[tokio::test]
async fn a_scope_is_told_as_unknown_until_consul_is_upgraded() {
    let fake = Fake::start().await;
    let mut source = Source::start(Config {
        namespace: Some("team".to_owned()),
        partition: Some("part".to_owned()),
        ..config(&fake.address())
    });
    let state = source.until(BOUND, |state| state.error.is_some()).await;
    assert!(state.catalog.is_none(), "unknown is never empty");
    let error = state.error.unwrap();
    assert!(
        error.contains("is version 1.8.7 and knows no partitions"),
        "{error}"
    );
    assert!(error.contains("remove `partition`"), "{error}");
    assert_eq!(fake.asked(), [], "nothing was asked about the wrong place");

    // Old enough to know namespaces alone.
    fake.upgrade("1.9.0+ent");
    let told = |state: &SourceState| state.error.as_ref().is_some_and(|it| it.contains("1.9.0"));
    source.until(BOUND, told).await;
    assert_eq!(fake.asked(), []);

    fake.upgrade("1.16.0+ent");
    source
        .catalog(BOUND, |catalog| ids(catalog, "a") == ["a1"])
        .await;
    source.until(BOUND, |state| state.error.is_none()).await;
    for (_, query) in fake.asked() {
        assert!(query.contains("ns=team&partition=part"), "{query}");
    }
    source.end().await;
}

#[tokio::test]
async fn without_a_scope_none_is_sent() {
    let fake = Fake::start().await;
    let mut source = Source::start(config(&fake.address()));
    source
        .catalog(BOUND, |catalog| ids(catalog, "a") == ["a1"])
        .await;
    let asked = fake.asked();
    assert!(!asked.is_empty());
    for (_, query) in asked {
        assert!(
            !query.contains("ns=") && !query.contains("partition="),
            "{query}"
        );
    }
    source.end().await;
}

#[tokio::test]
async fn a_real_consul_without_namespaces_is_named_with_its_version() {
    let consul = Consul::start().await;
    let mut source = Source::start(Config {
        namespace: Some("team".to_owned()),
        ..config(&consul.address())
    });
    let state = source.until(BOUND, |state| state.error.is_some()).await;
    assert!(state.catalog.is_none(), "unknown is never empty");
    let error = state.error.unwrap();
    assert!(
        error.contains("is version 1.8.7 and knows no namespaces"),
        "{error}"
    );
    source.end().await;
}
