//! What a token must be allowed, as the documentation says it: its policies are the ones used here.

use std::{sync::Arc, time::Duration};

use lb_agent::{
    admin::Events,
    announce::{self, Announcing, Status},
    catalog::SourceState,
    discover::consul::{Config, Token},
    vip::Pools,
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{sync::watch, task::JoinHandle, time::timeout};
use tokio_util::sync::CancellationToken;

use crate::{
    kit::{LETTERS, SOON, Source, Vip, config, ids},
    support::{BOUND, Consul},
};

const DOCUMENT: &str = include_str!("../../../docs/consul.md");

/// The policy that the document shows under this name.
fn documented(name: &str) -> &'static str {
    let begin = format!("```hcl\n# {name}\n");
    let (_, rest) = DOCUMENT.split_once(&begin).unwrap();
    rest.split_once("```").unwrap().0
}

/// A token with this policy and no other.
async fn token(consul: &Consul, rules: &str) -> String {
    let count = consul.get("acl/policies").await.as_array().unwrap().len();
    let name = format!("policy-{count}");
    let policy = json!({"Name": name, "Rules": rules});
    consul.put("acl/policy", policy).await;
    let token = json!({"Policies": [{"Name": name}]});
    let token = consul.put("acl/token", token).await;
    token["SecretID"].as_str().unwrap().to_owned()
}

async fn allowed(consul: &Consul, rules: &str) -> Config {
    Config {
        token: Some(Token::Value(token(consul, rules).await)),
        ..config(&consul.address())
    }
}

#[tokio::test]
async fn the_documented_reader_sees_services_come_and_go() {
    let consul = Consul::start_guarded().await;
    consul.register("a", "a1", 1).await;
    let mut source = Source::start(allowed(&consul, documented("lb-reader.hcl")).await);
    source
        .catalog(BOUND, |catalog| ids(catalog, "a") == ["a1"])
        .await;
    source.until(SOON, |state| state.error.is_none()).await;
    // The last one goes, and is believed to be gone.
    consul.deregister("a1").await;
    let catalog = source
        .catalog(BOUND, |catalog| !catalog.services.contains_key("a"))
        .await;
    assert_eq!(catalog.problems, []);
    source.end().await;
}

#[tokio::test]
async fn who_may_not_see_nodes_or_services_is_told_the_policy() {
    let consul = Consul::start_guarded().await;
    consul.register("a", "a1", 1).await;
    for weak in [
        "service_prefix \"\" { policy = \"read\" }",
        "node_prefix \"\" { policy = \"read\" }",
        "agent_prefix \"\" { policy = \"read\" }",
    ] {
        let mut source = Source::start(allowed(&consul, weak).await);
        let told = |state: &SourceState| {
            let error = state.error.as_ref();
            error.is_some_and(|it| it.contains("service_prefix \"\" and node_prefix \"\" read"))
        };
        let state = source.until(BOUND, told).await;
        assert!(state.catalog.is_none(), "unknown is never empty: {weak}");
        source.end().await;
    }
}

#[tokio::test]
async fn a_token_that_loses_its_rights_takes_nothing_away() {
    let consul = Consul::start_guarded().await;
    consul.register("a", "a1", 1).await;
    let rules = documented("lb-reader.hcl");
    let mut source = Source::start(allowed(&consul, rules).await);
    source
        .catalog(BOUND, |catalog| ids(catalog, "a") == ["a1"])
        .await;
    let policies = consul.get("acl/policies").await;
    let ours = |it: &&Value| it["Name"].as_str().unwrap().starts_with("policy-");
    let ours = policies.as_array().unwrap().iter().find(ours).unwrap();
    let (id, name) = (ours["ID"].as_str().unwrap(), &ours["Name"]);
    let none = json!({"ID": id, "Name": name, "Rules": ""});
    consul.put(&format!("acl/policy/{id}"), none).await;
    // Something happens that wakes the watches.
    consul.register("a", "a2", 2).await;
    let state = source.until(2 * BOUND, |state| state.error.is_some()).await;
    assert!(!ids(&state.catalog.unwrap(), "a").is_empty());
    let back = json!({"ID": id, "Name": name, "Rules": rules});
    consul.put(&format!("acl/policy/{id}"), back).await;
    source
        .catalog(2 * BOUND, |catalog| ids(catalog, "a") == ["a1", "a2"])
        .await;
    source.end().await;
}

#[tokio::test]
async fn the_documented_rights_to_keys_are_enough_to_share_vips() {
    let consul = Consul::start_guarded().await;
    let rules = [documented("lb-reader.hcl"), documented("lb-vips.hcl")].concat();
    let config = allowed(&consul, &rules).await;
    let (mut one, mut two) = (Vip::start_as(config.clone()), Vip::start_as(config));
    one.want(LETTERS);
    let first = one.all(LETTERS.len()).await;
    // The first has recorded what collides, and the second keeps to it.
    one.settled().await;
    two.want(LETTERS.into_iter().rev());
    two.agrees(&first).await;
    two.settled().await;
    one.end().await;
    two.end().await;
}

#[tokio::test]
async fn the_documented_registrar_may_register_check_drain_and_deregister() {
    let consul = Consul::start_guarded().await;
    let token = token(&consul, documented("lb-registrar.hcl")).await;
    let may = |path: &'static str, body: Value| consul.put_as(&token, path, body);
    let service = json!({"Name": "a", "ID": "a1", "Port": 1,
                         "Check": {"CheckID": "a1:ttl", "TTL": "10m"}});
    may(
        "agent/service/register?replace-existing-checks=true",
        service,
    )
    .await;
    may("agent/check/update/a1:ttl", json!({"Status": "passing"})).await;
    may("agent/service/maintenance/a1?enable=true", json!(null)).await;
    may("agent/service/deregister/a1", json!(null)).await;
}

/// What `lb-agent doctor` finds wrong with this Consul for this token: the checks, and what they say.
async fn doctor(consul: &Consul, token: &str) -> Vec<[String; 2]> {
    let output = tokio::process::Command::new(env!("CARGO_BIN_EXE_lb-agent"))
        .args(["doctor", "-o", "json", "--docker", "off", "--consul"])
        .arg(consul.address())
        .args(["--socket", "/none.sock"])
        .env("CONSUL_HTTP_TOKEN", token)
        .output();
    let output = output.await.unwrap();
    let all: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    let of_consul = |it: &&Value| it["check"].as_str().unwrap().starts_with("consul");
    let text = |it: &Value, key| it[key].as_str().unwrap().to_owned();
    let told = all.iter().filter(of_consul);
    let told = told.filter(|it| ["error", "warning"].contains(&it["mark"].as_str().unwrap()));
    told.map(|it| ["check", "finding"].map(|key| text(it, key)))
        .collect()
}

#[tokio::test]
async fn the_doctor_names_the_rights_that_a_token_lacks() {
    let consul = Consul::start_guarded().await;
    let rules = ["lb-reader.hcl", "lb-vips.hcl"].map(documented).concat();
    let enough = token(&consul, &rules).await;
    assert_eq!(doctor(&consul, &enough).await, Vec::<[String; 2]>::new());
    for (rules, lacks) in [
        (
            "node_prefix \"\" { policy = \"read\" }",
            "service_prefix \"\" read",
        ),
        (
            "service_prefix \"\" { policy = \"read\" }",
            "node_prefix \"\" read",
        ),
        (
            "service_prefix \"\" { policy = \"read\" }",
            "key_prefix \"lb-agent/\" write",
        ),
    ] {
        let weak = token(&consul, rules).await;
        let found = doctor(&consul, &weak).await;
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0][0], "consul token");
        assert!(found[0][1].contains(lacks), "{found:?}");
    }
    let nobodys = "00000000-1111-2222-3333-444444444444";
    let found = doctor(&consul, nobodys).await;
    assert!(found[0][1].contains("does not know the token"), "{found:?}");
    assert_eq!(found.len(), 1, "{found:?}");
}

/// The stage that stands for election, on no device.
struct Candidate {
    announcing: watch::Receiver<Announcing>,
    status: watch::Receiver<Status>,
    stop: CancellationToken,
    task: JoinHandle<Result<(), announce::Error>>,
    _snapshots: watch::Sender<Option<Arc<lb_agent::snapshot::Snapshot>>>,
    _folder: TempDir,
}

impl Candidate {
    fn start(consul: Config, ttl: Duration) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (snapshots, of_snapshots) = watch::channel(None);
        let (announcing_in, announcing) = watch::channel(Announcing::default());
        let (status_in, status) = watch::channel(Status::default());
        let config = announce::Config {
            ttl,
            ..announce::Config::default()
        };
        let place = announce::Place {
            devices: announce::Devices::default(),
            pools: Pools::default(),
            consul: Some(consul),
            state_dir: folder.path().to_owned(),
            keep: CancellationToken::new(),
        };
        let channels = announce::Channels {
            snapshots: of_snapshots,
            announcing: announcing_in,
            status: status_in,
            problems: watch::Sender::default(),
            events: Events::default(),
        };
        let stop = CancellationToken::new();
        let run = announce::run(config, place, channels, Arc::default(), stop.clone());
        Self {
            announcing,
            status,
            stop,
            task: tokio::spawn(run),
            _snapshots: snapshots,
            _folder: folder,
        }
    }

    async fn becomes_owner(&mut self) {
        let owner = self.announcing.wait_for(|it| it.mine);
        timeout(BOUND, owner).await.unwrap().unwrap();
    }

    async fn trouble(&mut self) -> String {
        let told = self.status.wait_for(|it| it.election.is_some());
        let told = timeout(BOUND, told).await.unwrap().unwrap();
        told.election.clone().unwrap()
    }

    async fn end(self) {
        self.stop.cancel();
        self.task.await.unwrap().unwrap();
    }
}

const TTL: Duration = Duration::from_secs(10);

#[tokio::test]
async fn the_documented_right_of_announcing_elects_and_less_is_told_with_what_lacks() {
    let consul = Consul::start_guarded().await;
    let reader = allowed(&consul, documented("lb-reader.hcl")).await;
    let mut refused = Candidate::start(reader, TTL);
    let told = refused.trouble().await;
    assert!(told.contains("give the token session_prefix"), "{told}");
    refused.end().await;
    let rules = allowed(&consul, documented("lb-announce.hcl")).await;
    let mut owner = Candidate::start(rules.clone(), TTL);
    owner.becomes_owner().await;
    assert_eq!(owner.status.borrow().election, None);
    // Another one waits, sees who it is, and has it at once when that ends.
    let mut other = Candidate::start(rules, TTL);
    let seen = other.announcing.wait_for(|it| it.owner.is_some());
    assert!(!timeout(BOUND, seen).await.unwrap().unwrap().mine);
    owner.end().await;
    let soon = other.becomes_owner();
    timeout(TTL / 2, soon).await.unwrap();
    other.end().await;
    let key = consul.get("kv/lb-agent/announce/owner").await;
    assert_eq!(key[0]["Session"], Value::Null, "{key}");
    let sessions = consul.get("session/list").await;
    assert_eq!(sessions, json!([]));
}

#[tokio::test]
async fn a_time_to_live_that_consul_does_not_take_is_told_with_what_to_do() {
    let consul = Consul::start().await;
    let mut candidate = Candidate::start(config(&consul.address()), Duration::from_secs(1));
    let told = candidate.trouble().await;
    assert!(told.contains("raise `ttl` in [announce]"), "{told}");
    candidate.end().await;
}
