//! Makes the document. A new path is a line of [`operations`]; what it answers is described by its types. Half of the file is
//! that table, which is why it is as long as it is.

use std::{collections::BTreeSet, fs, path::Path};

use schemars::{JsonSchema, SchemaGenerator, generate::SchemaSettings};
use serde::Serialize as _;
use serde_json::{Map, Serializer, Value, json, ser::PrettyFormatter};

use super::{OPENAPI, OPENAPI_PATH};
use crate::{
    admin::{
        configuration::{CONFIGURATION_PATH, Configuration},
        events::{EVENTS_PATH, EventList, MOST, USUAL},
        explain::{EXPLAIN_PATH, Told},
        history::{HISTORY_PATH, Past},
        packets::{self, FLUSH_PATH, FlushOrder, Flushed, PACKET_EXPLAIN_PATH, PACKET_TRACE_PATH},
        page::wrong::{WRONG_PATH, Wrong},
        registered::{REGISTRAR_PATH, Registrations},
        report::{
            API, CLIENTS_PATH, FLOWS_PATH, FlowList, LOG_PATH, PIN_PATH, PinOrder, RELEASE_PATH,
            Refused, ReleaseOrder, Report, SESSION_PATH, SNAPSHOT_PATH, STATE_PATH, STATUS_PATH,
            SessionAnswer, SessionOrder, StateAnswer, StateOrder, Status, VIPS_PATH,
        },
        router,
        stream::STREAM_PATH,
        trace::{Line, TRACE_PATH},
    },
    clients::Client,
    last_lines,
    vip::Entry,
};

/// What is for a browser: the page, and what it loads.
const OF_THE_PAGE: [&str; 11] = [
    "/",
    "/service/{*name}",
    "/vips",
    "/flows",
    "/registrar",
    "/events",
    "/configuration",
    "/assets/page.css",
    "/assets/page.js",
    "/assets/actions.js",
    "/assets/icon.svg",
];

#[test]
fn the_documented_api_is_that_of_the_code() {
    let made = written(&document());
    if std::env::var_os("LB_WRITE_DOCS").is_some() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/openapi.json");
        fs::write(file, &made).unwrap();
        return;
    }
    // Not both of them in full.
    let first = made.lines().zip(OPENAPI.lines()).find(|(a, b)| a != b);
    assert!(
        made == OPENAPI,
        "run `cargo xtask docs`: {first:?} differ first"
    );
}

#[test]
fn every_path_is_of_the_page_or_in_the_document_and_nothing_else_is() {
    let known: BTreeSet<&str> = router::paths().paths.into_iter().collect();
    let documented = document()["paths"].as_object().unwrap().clone();
    let documented: BTreeSet<&str> = documented.keys().map(String::as_str).collect();
    let of_the_page = BTreeSet::from(OF_THE_PAGE);
    assert!(documented.is_disjoint(&of_the_page));
    let all: BTreeSet<&str> = documented.union(&of_the_page).copied().collect();
    assert_eq!(known, all);
}

/// All operations.
fn operations(all: &mut Operations) {
    let text = |what: &str| json!({ "text/plain": { "schema": { "type": "string", "description": what } } });
    all.probe("/healthz", "Whether the process answers.")
        .answers(200, "It does.", text("`ok`"));
    all.probe("/ready", "Whether the agent is ready.")
        .answers(200, "It is.", text("`ready`"))
        .answers(503, "It is not.", text("What it waits for, a line each."));
    let metrics = json!({
        "text/plain": { "schema": { "type": "string" } },
        "application/openmetrics-text": { "schema": { "type": "string" } },
    });
    all.get(
        "/metrics",
        "The metrics, as OpenMetrics for those who ask for it.",
    )
    .answers(200, "All of them.", metrics);

    all.get(OPENAPI_PATH, "This document.").answers(
        200,
        "OpenAPI 3.1.",
        json!({ "application/json": { "schema": { "type": "object" } } }),
    );
    all.get(SNAPSHOT_PATH, "Everything there is to see at one moment.")
        .tells::<Report>(200, "All of it.");
    all.get(
        STATUS_PATH,
        "How the agent is, without the services themselves.",
    )
    .tells::<Status>(200, "What `lb-agent status` prints.");
    all.get(WRONG_PATH, "What is wrong, and what to do.")
        .tells::<Vec<Wrong>>(200, "The worst first; empty if nothing is wrong.");
    all.get(HISTORY_PATH, "The last minutes: the graphs of the page as numbers.")
        .query("services", false, "Labels of services, parted by line breaks, at most 200; without it the first 200 services.")
        .tells::<Past>(200, "Counts of each step, with at most 2000 backends in all.");
    all.get(EVENTS_PATH, "What happened of late.")
        .query(
            "after",
            false,
            "Only events after this number; without it the newest.",
        )
        .query(
            "limit",
            false,
            &format!("How many at most; {USUAL} without it, and never more than {MOST}."),
        )
        .tells::<EventList>(200, "The oldest first.");
    all.get(CLIENTS_PATH, "The containers of this host as clients.")
        .tells::<Vec<Client>>(200, "By name.")
        .refuses(403, "The page is published there.")
        .refuses(503, "The Docker Engine has not told its containers yet.");
    all.get(
        REGISTRAR_PATH,
        "The containers of this host, and what is registered for each.",
    )
    .tells::<Registrations>(200, "By name.")
    .refuses(403, "The page is published there.")
    .refuses(404, "This agent registers nothing.");
    all.get(
        CONFIGURATION_PATH,
        "The configuration that holds, without secrets.",
    )
    .tells::<Configuration>(200, "Each key with its value and where that comes from.")
    .refuses(403, "The page is published there.");
    all.get(
        EXPLAIN_PATH,
        "What a connect of one client to one service would do, and why.",
    )
    .query(
        "client",
        true,
        "`host`, the name or id of a container, or, on the unix socket, the number of a process.",
    )
    .query(
        "service",
        true,
        "Its name, its label, or its address with or without a port.",
    )
    .tells::<Told>(200, "Every backend, and what becomes of it.")
    .refuses(403, "A process is told on the unix socket only, and where the page is published nobody but `host`.")
    .refuses(404, "There is no such client, service or port.")
    .refuses(409, "The service has no virtual address yet.")
    .refuses(503, "Services, containers or the data plane are not known.");
    let lines = json!({ "application/x-ndjson": { "schema": all.schema::<Line>() } });
    all.get(
        TRACE_PATH,
        "Each decision for a service as it is taken; on the unix socket only.",
    )
    .query("service", true, "Its name, its label or its address.")
    .answers(
        200,
        "A line for each decision, until who asks goes away.",
        lines,
    )
    .refuses(403, "It was not asked for on the unix socket.")
    .refuses(404, "There is no such service.")
    .refuses(
        503,
        "Services are not known, or the data plane does not answer.",
    );
    all.get(FLOWS_PATH, "The open flows, the newest first, with client and process. On the unix socket; elsewhere for who shows the token or a session at the address that the page listens on.")
        .query("service", false, "Only those of this service and its parts.")
        .query("client", false, "Only those of this client: an address, the number or name of a process, or the id of a container.")
        .tells::<FlowList>(200, "Those that were found.")
        .refuses(403, "Neither is shown, or the page is published there.")
        .refuses(404, "There is no such service.")
        .refuses(503, "They cannot be listed.");
    all.get(
        PACKET_EXPLAIN_PATH,
        "Where a packet would go on the packet path.",
    )
    .query("client", true, "Its source: address and port.")
    .query("vip", true, "The VIP and port that it is for.")
    .query("protocol", false, "`tcp` or `udp`; `tcp` without it.")
    .tells::<packets::Way>(
        200,
        "From a client's device or by XDP, and at a card behind that.",
    )
    .refuses(404, "Nobody has the address.")
    .refuses(409, "There is no packet path, or it does not run.")
    .refuses(503, "Services are not known, or the maps cannot be read.");
    let packets = json!({ "application/x-ndjson": { "schema": all.schema::<packets::Line>() } });
    all.get(
        PACKET_TRACE_PATH,
        "Packets of the packet path as they come; on the unix socket only.",
    )
    .query("service", false, "All packets of this one.")
    .query(
        "sample",
        false,
        "One of so many of all that concern VIPs; all of them with neither.",
    )
    .answers(
        200,
        "A line for each packet, until who asks goes away.",
        packets,
    )
    .refuses(403, "It was not asked for on the unix socket.")
    .refuses(404, "There is no such service.")
    .refuses(409, "There is no packet path, or it does not run.")
    .refuses(503, "Services are not known, or the stage does not answer.");
    all.change::<FlushOrder>(
        FLUSH_PATH,
        "Forgets flows of the packet path: the next packet of each is one of no flow.",
    )
    .tells::<Flushed>(200, "They are forgotten.")
    .refuses(404, "There is no such service.")
    .refuses(409, "There is no packet path, or it does not run.")
    .refuses(503, "Services are not known, or the stage does not answer: then the order may still be carried out.");
    all.get(
        LOG_PATH,
        "The last lines of the log; on the unix socket only.",
    )
    .tells::<last_lines::Kept>(200, "The oldest first.")
    .refuses(403, "It was not asked for on the unix socket.");
    let events = json!({ "text/event-stream": { "schema": { "type": "string", "description":
        "`hello`, `texts` (an object of texts by their keys in the page), `resync` (rows are new: ask again), `alive`, and `over` when the session that was shown has ended." } } });
    all.get(STREAM_PATH, "What changes on the page, as server-sent events, as long as the session lasts that was shown.")
        .query("services", false, "Labels of services whose texts are told, parted by line breaks, at most 200.")
        .query("seen", false, "What the page says that it shows, its `data-seen`: if that is not so any more, `resync` is told at once.")
        .answers(200, "Until who asks goes away.", events)
        .refuses(503, "32 are open already.");
    all.get(VIPS_PATH, "The virtual addresses that are given or kept.")
        .tells::<Vec<Entry>>(200, "By address.")
        .refuses(503, "The stage that owns them does not answer.");
    all.change::<PinOrder>(
        PIN_PATH,
        "Gives a service this address from now on, on every host.",
    )
    .tells::<Vec<Entry>>(200, "The addresses concerned.")
    .refuses(
        503,
        "The stage that owns them does not answer; the order may still be carried out.",
    );
    all.change::<ReleaseOrder>(RELEASE_PATH, "Ends a pin, a record or a quarantine.")
        .tells::<Vec<Entry>>(200, "The addresses concerned.")
        .refuses(
            503,
            "The stage that owns them does not answer; the order may still be carried out.",
        );
    all.change::<StateOrder>(STATE_PATH, "Takes instances out, or puts them back.")
        .tells::<StateAnswer>(200, "It is in force.")
        .tells::<StateAnswer>(202, "It is ordered, and not in force everywhere yet.")
        .refuses(
            503,
            "The stage that owns it does not answer; the order may still be carried out.",
        );

    all.get(
        SESSION_PATH,
        "Who asks, and what that allows. Needs nothing.",
    )
    .tells::<SessionAnswer>(200, "That.");
    all.change::<SessionOrder>(SESSION_PATH, "Opens a session, which stands for the token.")
        .tells::<SessionAnswer>(200, "Its key; the cookie is set.");
    all.delete(SESSION_PATH, "Ends the session that is shown.")
        .tells::<SessionAnswer>(200, "What is allowed without it.");
}

/// A line for each value, and little more: it is part of the program.
fn written(document: &Value) -> String {
    let mut text = Vec::new();
    let narrow = PrettyFormatter::with_indent(b" ");
    document
        .serialize(&mut Serializer::with_formatter(&mut text, narrow))
        .unwrap();
    text.push(b'\n');
    String::from_utf8(text).unwrap()
}

fn document() -> Value {
    let mut all = Operations::new();
    operations(&mut all);
    let refused = json!({ "application/json": { "schema": all.schema::<Refused>() } });
    let of_all = OF_ALL.into_iter().map(|(status, about)| {
        let said = json!({ "description": about, "content": refused });
        (status.to_owned(), said)
    });
    let of_all: Map<String, Value> = of_all.collect();
    let mut schemas = all.out.take_definitions(true);
    schemas.extend(all.into.take_definitions(true));
    let bearer = json!({ "type": "http", "scheme": "bearer", "description": "The token in `<state_dir>/admin.token`, or in `[admin] token_file`." });
    let basic =
        json!({ "type": "http", "scheme": "basic", "description": "The token as the password." });
    let session = json!({ "type": "apiKey", "in": "cookie", "name": "lb_session", "description": "A session; a change needs its key in `X-LB-Session` as well." });
    json!({
        "openapi": "3.1.1",
        "info": {
            "title": "lb-agent",
            "version": API.to_string(),
            "description": ABOUT,
            "license": { "name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0" },
        },
        "servers": [{ "url": "http://127.0.0.1:9180" }],
        "security": [{}, { "token": [] }, { "password": [] }, { "session": [] }],
        "paths": all.paths,
        "components": {
            "schemas": schemas,
            "responses": of_all,
            "securitySchemes": { "token": bearer, "password": basic, "session": session },
        },
    })
}

const ABOUT: &str = "Everything that the page, the command line and the metrics show, and the changes that an operator makes. \
    Fields may be added; none changes its meaning without another number of the API. `null` means not known, never none. \
    Over loopback reading needs nothing, but for flows; the log, traces and processes are told on the unix socket only. Changes \
    over TCP, and reading elsewhere, need the token or a session. A user of the host who is neither root nor the agent's own, \
    nor one of `[admin] allow_uids`, gets 403 on the unix socket. Another path is 404, another method 405, and a request that is not \
    sent within ten seconds 408: these three have no JSON.";

/// What every operation of a kind may answer, by status.
const OF_ALL: [(&str, &str); 8] = [
    (
        "400",
        "The Host is not valid, or the query or the body makes no sense.",
    ),
    ("401", "The token is missing or wrong."),
    (
        "403",
        "`X-LB-Action` is missing, another site's page asks, or the page is published there.",
    ),
    ("413", "The body has more than 16 KiB."),
    ("415", "The `Content-Type` is not `application/json`."),
    ("421", "The Host is not served here."),
    ("422", "The body is no order, or one that cannot be obeyed."),
    ("429", "Too many wrong tokens were shown of late."),
];

/// The operations, as they are added.
struct Operations {
    paths: Map<String, Value>,
    /// Of what is answered.
    out: SchemaGenerator,
    /// Of what is sent.
    into: SchemaGenerator,
    /// The path and method that was added last.
    last: (String, &'static str),
}

impl Operations {
    fn new() -> Self {
        let settings = || {
            let mut settings = SchemaSettings::draft2020_12();
            settings.definitions_path = "/components/schemas".into();
            settings
        };
        Self {
            paths: Map::new(),
            out: settings().for_serialize().into_generator(),
            into: settings().for_deserialize().into_generator(),
            last: (String::new(), ""),
        }
    }

    fn schema<T: JsonSchema>(&mut self) -> Value {
        self.out.subschema_for::<T>().to_value()
    }

    fn add(&mut self, path: &str, method: &'static str, about: &str) -> &mut Self {
        let operation = json!({ "summary": about, "responses": {} });
        let methods = self.paths.entry(path).or_insert_with(|| json!({}));
        methods[method] = operation;
        self.last = (path.to_owned(), method);
        self.refuses_as_all("400")
            .refuses_as_all("421")
            .refuses_as_all("429")
    }

    /// What answers without a token.
    fn probe(&mut self, path: &str, about: &str) -> &mut Self {
        self.add(path, "get", about)
    }

    fn get(&mut self, path: &str, about: &str) -> &mut Self {
        self.add(path, "get", about).refuses_as_all("401")
    }

    fn changing(&mut self, path: &str, method: &'static str, about: &str) -> &mut Self {
        self.add(path, method, about)
            .header("X-LB-Action", "Always `1`.")
            .refuses_as_all("401")
            .refuses_as_all("403")
            .refuses_as_all("415")
    }

    fn delete(&mut self, path: &str, about: &str) -> &mut Self {
        self.changing(path, "delete", about)
    }

    fn change<T: JsonSchema>(&mut self, path: &str, about: &str) -> &mut Self {
        let order = self.into.subschema_for::<T>().to_value();
        self.changing(path, "post", about)
            .refuses_as_all("413")
            .refuses_as_all("422");
        let content = json!({ "application/json": { "schema": order } });
        self.operation()["requestBody"] = json!({ "required": true, "content": content });
        self
    }

    fn operation(&mut self) -> &mut Value {
        let (path, method) = &self.last;
        &mut self.paths[path][method]
    }

    fn parameter(&mut self, place: &str, name: &str, required: bool, about: &str) -> &mut Self {
        let parameter = json!({ "name": name, "in": place, "required": required, "description": about,
            "schema": { "type": "string" } });
        let parameters = &mut self.operation()["parameters"];
        match parameters.as_array_mut() {
            Some(parameters) => parameters.push(parameter),
            None => *parameters = json!([parameter]),
        }
        self
    }

    fn query(&mut self, name: &str, required: bool, about: &str) -> &mut Self {
        self.parameter("query", name, required, about)
    }

    fn header(&mut self, name: &str, about: &str) -> &mut Self {
        self.parameter("header", name, true, about)
    }

    fn answers(&mut self, status: u16, about: &str, content: Value) -> &mut Self {
        self.operation()["responses"][status.to_string()] =
            json!({ "description": about, "content": content });
        self
    }

    fn tells<T: JsonSchema>(&mut self, status: u16, about: &str) -> &mut Self {
        let schema = self.schema::<T>();
        self.answers(
            status,
            about,
            json!({ "application/json": { "schema": schema } }),
        )
    }

    /// As every operation of its kind does: what is said of it stands once.
    fn refuses_as_all(&mut self, status: &str) -> &mut Self {
        let said = json!({ "$ref": format!("#/components/responses/{status}") });
        self.operation()["responses"][status] = said;
        self
    }

    fn refuses(&mut self, status: u16, about: &str) -> &mut Self {
        self.tells::<Refused>(status, about)
    }
}
