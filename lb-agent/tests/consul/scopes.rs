//! Namespaces and partitions: asked of a Consul that knows them, refused otherwise.

use lb_agent::{
    catalog::{Catalog, SourceState},
    discover::consul::{Config, Token},
};

use crate::{
    fake::{Answer, Fake},
    kit::{Source, config, ids},
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
async fn nothing_is_local_in_another_datacenter_whatever_its_node_and_host_are_called() {
    for (datacenter, host, local) in [
        (None, None, true),
        (Some("DC1"), None, true),
        (Some("dc2"), None, false),
        (Some("dc2"), Some("h"), false),
    ] {
        let fake = Fake::start().await;
        let mut source = Source::start(Config {
            datacenter: datacenter.map(str::to_owned),
            host: host.map(str::to_owned),
            ..config(&fake.address())
        });
        let known = |catalog: &Catalog| ids(catalog, "a") == ["a1"];
        let catalog = source.catalog(BOUND, known).await;
        assert_eq!(catalog.services["a"][0].local, local, "{datacenter:?}");
        for (_, query) in fake.asked() {
            let asked = query.split('&').find_map(|it| it.strip_prefix("dc="));
            assert_eq!(asked, datacenter, "{query}");
        }
        source.end().await;
    }
}

/// A source that has seen the one instance of `a` in a namespace of a Consul of this version.
async fn in_a_namespace(fake: &Fake, version: &'static str, token: Option<&str>) -> Source {
    fake.upgrade(version);
    let mut source = Source::start(Config {
        namespace: Some("team".to_owned()),
        token: token.map(|token| Token::Value(token.to_owned())),
        ..config(&fake.address())
    });
    source
        .catalog(BOUND, |catalog| ids(catalog, "a") == ["a1"])
        .await;
    source
}

#[tokio::test]
async fn the_last_instance_in_a_namespace_goes_where_consul_would_say_that_it_hides_it() {
    let fake = Fake::start().await;
    let mut source = in_a_namespace(&fake, "1.11.0+ent", Some("known")).await;
    fake.say(Answer::Empty);
    let catalog = source
        .catalog(BOUND, |catalog| ids(catalog, "a").is_empty())
        .await;
    assert_eq!(ids(&catalog, "b"), ["b1"]);
    source.end().await;
}

#[tokio::test]
async fn the_last_instance_in_a_namespace_stays_where_consul_would_not_say_that_it_hides_it() {
    for (version, token) in [("1.10.9+ent", Some("known")), ("1.11.0+ent", None)] {
        let fake = Fake::start().await;
        let mut source = in_a_namespace(&fake, version, token).await;
        fake.say(Answer::Empty);
        let state = source.until(BOUND, |state| state.error.is_some()).await;
        assert_eq!(ids(&state.catalog.unwrap(), "a"), ["a1"], "{version}");
        let error = state.error.unwrap();
        assert!(error.contains("use Consul 1.11 or later"), "{error}");
        source.end().await;
    }
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
