//! The document of the API holds: a live agent is asked for every path, method and status that it names, and each answer is
//! as it says, without a field more.

mod orders;
mod reads;
mod told;

use std::{collections::BTreeSet, time::Duration};

use serde_json::Value;

use self::{
    orders::{changes, crowded, flush, nothing_known, packets, sessions, streams},
    reads::{reads, whatever_is_asked},
};
use crate::{
    agent::{Agent, Around, status},
    values::{figures, snapshot, sockets},
};

const RULES: &str = "Content-Type: application/json\r\nX-LB-Action: 1\r\n";

/// Path, method and status.
type Case = (String, String, u16);

/// The document, and what of it was seen to hold.
struct Api {
    document: Value,
    seen: BTreeSet<Case>,
}

impl Api {
    async fn of(agent: &Agent) -> Self {
        let answer = agent.get("/api/v1/openapi.json").await;
        Self {
            document: serde_json::from_str(body(&answer)).unwrap(),
            seen: BTreeSet::new(),
        }
    }

    fn operations(&self) -> Vec<(String, String)> {
        let paths = self.document["paths"].as_object().unwrap();
        let all = paths.iter().flat_map(|(path, methods)| {
            let methods = methods.as_object().unwrap().keys();
            methods.map(|method| (path.clone(), method.clone()))
        });
        all.collect()
    }

    fn documented(&self) -> BTreeSet<Case> {
        let operations = self.operations().into_iter();
        let all = operations.flat_map(|(path, method)| {
            let answers = self.document["paths"][&path][&method]["responses"].as_object();
            let answers: Vec<u16> = answers
                .unwrap()
                .keys()
                .map(|it| it.parse().unwrap())
                .collect();
            answers
                .into_iter()
                .map(move |status| (path.clone(), method.clone(), status))
        });
        all.collect()
    }

    /// Compares an answer with what is said of this path, method and status.
    #[track_caller]
    fn holds(&mut self, path: &str, method: &str, expect: u16, answer: &str) {
        status(answer, expect);
        let mut said = &self.document["paths"][path][method]["responses"][expect.to_string()];
        if let Some(place) = said["$ref"].as_str() {
            said = self.document.pointer(&place[1..]).unwrap();
        }
        assert!(said.is_object(), "{method} {path} does not say {expect}");
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let kind = head
            .lines()
            .find_map(|it| it.strip_prefix("content-type: "));
        let kind = kind.unwrap().split(';').next().unwrap();
        let schema = &said["content"][kind]["schema"];
        assert!(schema.is_object(), "{method} {path} says nothing of {kind}");
        let value = match kind {
            "application/json" => serde_json::from_str(body).unwrap(),
            // Of one chunk.
            "application/x-ndjson" => {
                let line = body.lines().find(|it| it.starts_with('{')).unwrap();
                serde_json::from_str(line).unwrap()
            }
            _ => Value::from(body),
        };
        let wrong = self.wrong(schema, &value);
        assert!(
            wrong.is_empty(),
            "{method} {path} {expect}: {wrong:#?} in {value:#}"
        );
        self.seen
            .insert((path.to_owned(), method.to_owned(), expect));
    }

    /// What of `value` is not as the schema says.
    fn wrong(&self, schema: &Value, value: &Value) -> Vec<String> {
        let mut whole = schema.clone();
        whole["components"] = self.document["components"].clone();
        strict(&mut whole);
        let validator = jsonschema::draft202012::new(&whole).unwrap();
        let errors = validator.iter_errors(value);
        errors
            .map(|it| format!("{}: {it}", it.instance_path()))
            .collect()
    }
}

/// Fields may be added to the API: so the document allows others. Here there must be none that it does not name.
fn strict(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            fields.values_mut().for_each(strict);
            if fields.contains_key("properties") && fields.contains_key("type") {
                fields.entry("additionalProperties").or_insert(false.into());
            }
        }
        Value::Array(all) => all.iter_mut().for_each(strict),
        _ => {}
    }
}

#[track_caller]
fn body(answer: &str) -> &str {
    status(answer, 200);
    answer.split_once("\r\n\r\n").unwrap().1
}

fn bearer(agent: &Agent) -> String {
    format!("Authorization: Bearer {}\r\n", agent.token)
}

/// The answer to who shows the token where the page is published.
async fn published(agent: &Agent, path: &str) -> String {
    let line = format!("GET {path} HTTP/1.1");
    agent.send(&line, "lb.example", &bearer(agent), "").await
}

async fn start(registers: bool) -> Agent {
    let around = Around {
        sockets: sockets(),
        registers,
        packets: registers,
        otlp: None,
    };
    let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    Agent::start_among(around, tcp, snapshot(), Duration::from_millis(50), figures).await
}

#[tokio::test]
async fn every_documented_answer_is_given_and_is_as_documented() {
    let mut agent = start(true).await;
    let mut api = Api::of(&agent).await;
    whatever_is_asked(&mut api, &agent).await;
    reads(&mut api, &mut agent).await;
    changes(&mut api, &mut agent).await;
    // The wrong tokens that are shown here make those that crowd wait for seconds.
    sessions(&mut api, &agent).await;
    streams(&mut api, &agent).await;
    packets(&mut api, &mut agent).await;
    nothing_known(&mut api, &agent).await;
    crowded(&mut api, &agent).await;
    agent.end().await;
    let none = start(false).await;
    let path = "/api/v1/registrar";
    api.holds(path, "get", 404, &none.get(path).await);
    let path = "/api/v1/packet/explain";
    let asked = format!("{path}?client=192.0.2.9:40000&vip=198.18.12.7:80");
    api.holds(path, "get", 409, &none.get(&asked).await);
    let path = "/api/v1/packet/trace";
    api.holds(path, "get", 409, &none.get_there(path).await);
    let path = "/api/v1/packet/flush";
    api.holds(path, "post", 409, &flush(&none, "{}").await);
    none.end().await;
    let missing: Vec<_> = api.documented().difference(&api.seen).cloned().collect();
    assert!(missing.is_empty(), "documented and not seen: {missing:?}");
}

#[tokio::test]
async fn a_field_that_is_not_documented_and_one_that_is_missing_are_noticed() {
    let agent = Agent::start().await;
    let api = Api::of(&agent).await;
    let path = &api.document["paths"]["/api/v1/snapshot"]["get"];
    let schema = &path["responses"]["200"]["content"]["application/json"]["schema"];
    let good: Value = serde_json::from_str(body(&agent.get("/api/v1/snapshot").await)).unwrap();
    assert_eq!(api.wrong(schema, &good), [""; 0]);
    for place in ["", "/services/0", "/services/0/backends/0", "/sources/file"] {
        let mut more = good.clone();
        more.pointer_mut(place).unwrap()["undocumented"] = 1.into();
        assert_eq!(api.wrong(schema, &more).len(), 1, "{place}");
        let mut less = good.clone();
        let fields = less.pointer_mut(place).unwrap().as_object_mut().unwrap();
        let first = fields.keys().next().unwrap().clone();
        fields.remove(&first);
        assert_eq!(api.wrong(schema, &less).len(), 1, "{place} without {first}");
    }
    agent.end().await;
}

/// For what happens by itself.
const SOON: Duration = Duration::from_secs(20);
