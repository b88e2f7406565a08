//! `docs/http.md` is true: its examples are run as they stand, by the way that a services file takes through the agent.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    fs::{self, File},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use hyper::Response;
use lb_agent::{
    assemble::{self, Facts},
    catalog::SourceState,
    config::{self, Outside, RawConfig},
    discover::file,
    front::{pages, sticky_key, users::Lists},
    options::{
        Proto,
        table::{self, FRONT},
    },
    routes::{Follower, RouteConfig},
    snapshot::{ProbeState, Snapshot},
};
use lb_front::{Limits, Settings, routes::RoutesChange};
use lb_testkit::markdown::{Block, blocks};

use crate::{
    kit::{Answer, Backend, Reply, Seen, TestFront, eventually, golden, ok, refusing},
    kit_h2::{Call, H2Backend},
};

const TEXT: &str = include_str!("../../../docs/http.md");

/// The front with the services of one example.
struct Example {
    front: TestFront,
    /// The front of another host, for whose sake the two have a file in common. They are asked in turn.
    other: Option<TestFront>,
    asked: Cell<usize>,
    /// The access log, and what else the agent has in files.
    folder: tempfile::TempDir,
    /// The value of the last cookie, for which the text has an ellipsis; it has another for what is compressed.
    cookie: RefCell<String>,
    /// The lists of users, and the files that the text gives them.
    lists: BTreeMap<String, PathBuf>,
    /// The files of pages.
    pages: BTreeMap<pages::For, PathBuf>,
}

impl Example {
    fn new(text: &str) -> Self {
        let (front, services): (Vec<_>, Vec<_>) = tables(text)
            .into_iter()
            .partition(|table| table.starts_with("[front"));
        let front = format!(
            "cgroup = \"/\"\n[sources.file]\npath = \"/services.toml\"\n{}",
            front.concat()
        );
        let raw = RawConfig::from_toml(Path::new("lb.toml"), &front).unwrap();
        let outside = Outside {
            variable: &|_| None,
            read: &|_| Err(std::io::ErrorKind::NotFound.into()),
        };
        let front = config::resolve(&raw, outside).unwrap().front;
        let (routes, problems) = routes(&services.concat(), &front);
        assert_eq!(problems, [] as [String; 0]);
        let (lists, pages) = (front.auth.clone(), front.pages.clone());
        let folder = tempfile::tempdir().unwrap();
        let key_file = front.sticky_key_file.as_ref().map(|_| {
            let path = folder.path().join("key");
            fs::write(&path, "a secret that nobody can guess, for several hosts").unwrap();
            path
        });
        let log = File::create(folder.path().join(LOG)).unwrap();
        let start = |name: &str| {
            let key = sticky_key(key_file.as_deref(), &folder.path().join(name)).unwrap();
            let settings = Settings {
                no_route_status: front.no_route_status,
                no_backend_status: front.no_backend_status,
                forwarding: front.forwarding.clone(),
                https: front.tls.clone().map(|tls| tls.https).unwrap_or_default(),
                limits: front.limits.clone(),
                log: front.access_log.clone(),
                sticky_key: Some(key),
                ..Settings::default()
            };
            let front = TestFront::start(Limits::default(), 1);
            front.front.log().write_to(log.try_clone().unwrap());
            front.front.publish(&routes, &settings);
            front
        };
        Self {
            front: start("this"),
            other: text.contains("sticky_key_file").then(|| start("other")),
            asked: Cell::default(),
            folder,
            cookie: RefCell::default(),
            lists,
            pages,
        }
    }

    /// The file of each list of users has this text.
    fn write_users(&self, text: &str) {
        let mut lists = Lists::default();
        for (name, path) in &self.lists {
            lists.read(name, path, Ok(text.as_bytes().to_vec()));
        }
        let problems: Vec<_> = lists.problems().collect();
        assert!(problems.is_empty(), "{problems:?}");
        let change = RoutesChange {
            users: lists.since(&Lists::default()),
            ..RoutesChange::default()
        };
        self.front.front.change(&change);
    }

    /// The file of each page has this text.
    fn write_pages(&self, text: &str) {
        let mut sheaf = pages::Sheaf::default();
        for (what, path) in &self.pages {
            sheaf.read(*what, path, Ok(text.as_bytes().to_vec()));
        }
        assert_eq!(sheaf.problems().count(), 0);
        self.front.front.show(sheaf.pages());
    }

    /// The access log, once it has as many lines as `text`.
    fn logged(&self, text: &str) -> String {
        eventually("the lines are there", || {
            let log = fs::read_to_string(self.folder.path().join(LOG)).unwrap();
            (log.lines().count() >= text.lines().count()).then_some(log)
        })
    }

    /// The answer to a request of the text, whose lines end as text does.
    fn ask(&self, request: &str) -> Answer {
        let (request, body) = request.split_once("\n\n").unwrap_or((request, ""));
        let [request, body] = [request, body].map(|text| text.replace('\n', "\r\n"));
        let request = request.replace(ELLIPSIS, &self.cookie.borrow());
        // So that an answer without a length ends.
        let last = "Connection: close";
        let turn = self.asked.replace(self.asked.get() + 1);
        let front = match &self.other {
            Some(other) if turn % 2 == 1 => other,
            _ => &self.front,
        };
        let mut answer = front.ask(format!("{request}\r\n{last}\r\n\r\n{body}"));
        let cookie = answer.field("set-cookie");
        let value = cookie.and_then(|it| Some(it.split(';').next()?.split_once('=')?.1.to_owned()));
        if let Some(value) = value {
            answer.head = answer.head.replace(&value, ELLIPSIS);
            *self.cookie.borrow_mut() = value;
        }
        answer
    }
}

const ELLIPSIS: &str = "\u{2026}";

const LOG: &str = "access.log";

/// The tables of a TOML text, each with its heading.
fn tables(text: &str) -> Vec<String> {
    let mut tables: Vec<String> = Vec::new();
    for line in text.lines() {
        if line.starts_with('[') || tables.is_empty() {
            tables.push(String::new());
        }
        let table = tables.last_mut().unwrap();
        table.push_str(line);
        table.push('\n');
    }
    tables
}

/// The routes to `services`, whose instances are real ones in place of those in the text; and all problems.
fn routes(services: &str, front: &config::Front) -> (RoutesChange, Vec<String>) {
    let catalog = file::parse(services).unwrap();
    let state = SourceState {
        catalog: Some(Arc::new(catalog)),
        ..SourceState::default()
    };
    let facts = Facts {
        vips: Arc::default(),
        verdicts: Arc::default(),
        orders: Arc::default(),
        departed: Arc::default(),
        ramps: Arc::default(),
        problems: Vec::new(),
        since: SystemTime::UNIX_EPOCH,
    };
    let sources = BTreeMap::from([("file".to_owned(), state)]);
    let mut snapshot = assemble::assemble(&sources, &facts);
    let mut instances = BTreeMap::new();
    let all: Vec<_> = snapshot
        .services
        .iter()
        .map(|(name, it)| (name.clone(), it.clone()))
        .collect();
    for (name, mut service) in all {
        let service_speaks = service.options.proto;
        for (key, backend) in &mut Arc::make_mut(&mut service).backends {
            let id = key.id.to_string();
            let h2c = service_speaks == Proto::H2c;
            let instance = instances
                .entry(backend.address)
                .or_insert_with(|| match h2c {
                    _ if id == "gone" => refusing(),
                    true => H2Backend::start(move |call| speak(id.clone(), call)).address,
                    false => Backend::start(move |seen| reply(&told(&id, "", seen))).address,
                });
            backend.address = *instance;
            backend.probe.state = ProbeState::Up;
        }
        snapshot.services.insert(name, service);
    }
    let config = RouteConfig {
        domains: front.domains.clone(),
        expose: front.expose,
        auth: front.auth.keys().cloned().collect(),
        ..RouteConfig::default()
    };
    let mut follower = Follower::new(config);
    let change = follower.follow(&Snapshot::default(), &snapshot, &[].into());
    let problems = snapshot.problems.iter().chain(follower.problems());
    (change, problems.map(ToString::to_string).collect())
}

/// The same of one that speaks HTTP/2.
async fn speak(id: String, mut call: Call) {
    let request = &call.request;
    let mut head = format!("{} {} HTTP/2\r\n", request.method(), request.uri().path());
    for (name, value) in request.headers() {
        head.push_str(&format!("{name}: {}\r\n", value.to_str().unwrap()));
    }
    let seen = Seen {
        connection: 0,
        head,
        body: Vec::new(),
    };
    let text = told(&id, " HTTP/2", &seen);
    let known = Response::builder().header("content-length", text.len());
    let known = known.body(()).unwrap();
    let mut body = call.answer.send_response(known, false).unwrap();
    body.send_data(text.into(), true).unwrap();
}

/// What an instance answers, as the document says.
fn told(id: &str, version: &str, seen: &Seen) -> String {
    // Before the first request of a connection.
    let mut head = &*seen.head;
    let told = head
        .strip_prefix("PROXY ")
        .and_then(|it| it.split_once("\r\n"));
    if let Some((_, rest)) = told {
        head = rest;
    }
    let mut lines = head.lines();
    let mut words = lines.next().unwrap_or_default().split(' ');
    let (method, path) = (words.next().unwrap(), words.next().unwrap());
    let mut text = format!("{id}: {method} {path}{version}\n");
    if let Some((line, _)) = told {
        let words: Vec<_> = line.split(' ').take(3).collect();
        text.push_str(&format!("PROXY {}\n", words.join(" ")));
    }
    let mut fields: Vec<_> = lines.map(str::to_ascii_lowercase).collect();
    fields.retain(|field| {
        let begins = |with: &[&str]| with.iter().any(|it| field.starts_with(it));
        match path {
            "/fields" => begins(&["x-", "x_", "forwarded:"]),
            _ => begins(&["x-", "x_"]) && !begins(&["x-forwarded-", "x-request-id"]),
        }
    });
    fields.sort();
    for field in fields {
        text.push_str(&field);
        text.push('\n');
    }
    text
}

/// The same as HTTP/1.1, in its own time or never.
fn reply(text: &str) -> Reply {
    if text.contains(" /never") {
        return Reply::Stall(Vec::new());
    }
    if !text.contains(" /events") {
        return Reply::Keep(answer(text));
    }
    let mut begun = ok(&text.repeat(2));
    let rest = begun.split_off(begun.len() - text.len());
    Reply::Rest(begun, Duration::from_millis(1500), rest)
}

/// The same as HTTP/1.1.
fn answer(text: &str) -> Vec<u8> {
    if text.contains(" /long") {
        let text = text.repeat(200);
        let head = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length:";
        return format!("{head} {}\r\n\r\n{text}", text.len()).into();
    }
    ok(text)
}

/// The answer as the document writes one.
fn written(answer: &Answer) -> String {
    const LEFT_OUT: [&str; 4] = ["date", "content-type", "content-length", "connection"];
    let mut lines = answer.head.lines().filter(|line| !line.is_empty());
    let mut text = lines.next().unwrap().to_owned();
    let mut fields: Vec<_> = lines
        .map(|line| line.split_once(": ").unwrap())
        .map(|(name, value)| (name.to_ascii_lowercase(), value))
        .filter(|(name, _)| !LEFT_OUT.contains(&&**name))
        .collect();
    fields.sort();
    for (name, value) in fields {
        text.push_str(&format!("\n{name}: {value}"));
    }
    if answer.field("content-encoding").is_some() {
        text.push_str(&format!("\n\n{ELLIPSIS}"));
    } else if !answer.body.is_empty() {
        text.push_str(&format!("\n\n{}", answer.body.trim_end()));
    }
    text
}

/// The same of an answer in the text.
fn expected(block: &str) -> String {
    let (head, body) = match block.split_once("\n\n") {
        Some((head, body)) => (head, Some(body)),
        None => (block, None),
    };
    let mut lines = head.lines();
    let mut text = lines.next().unwrap().to_owned();
    let mut fields: Vec<_> = lines
        .map(|line| line.split_once(": ").unwrap())
        .map(|(name, value)| (name.to_ascii_lowercase(), value))
        .collect();
    fields.sort();
    for (name, value) in fields {
        text.push_str(&format!("\n{name}: {value}"));
    }
    if let Some(body) = body {
        text.push_str(&format!("\n\n{body}"));
    }
    text
}

#[test]
fn every_example_of_the_document_is_answered_as_it_says() {
    let mut example = None;
    let mut asked: Option<&Block<'_>> = None;
    let mut compared = 0;
    let blocks = blocks(TEXT);
    for block in &blocks {
        let line = block.line;
        match block.language {
            "toml" => example = Some(Example::new(&block.text)),
            "http" if block.text.starts_with("HTTP/") => {
                let request = asked
                    .take()
                    .unwrap_or_else(|| panic!("line {line}: no request"));
                let example = example.as_ref().expect("services stand before requests");
                let answer = written(&example.ask(&request.text));
                assert_eq!(answer, expected(&block.text), "line {line}");
                compared += 1;
            }
            "http" => {
                assert!(
                    asked.is_none(),
                    "line {line}: the request before has no answer"
                );
                asked = Some(block);
            }
            "text" => {
                let example = example.as_ref().expect("services stand before users");
                example.write_users(&block.text);
            }
            "log" => {
                let example = example.as_ref().expect("services stand before lines");
                let lines = |text: &str| text.lines().map(golden).collect::<Vec<_>>();
                let logged = example.logged(&block.text);
                assert_eq!(lines(&logged), lines(&block.text), "line {line}");
            }
            "html" => {
                let example = example.as_ref().expect("services stand before pages");
                example.write_pages(&block.text);
            }
            language => panic!("line {line}: nobody runs `{language}`"),
        }
    }
    assert!(asked.is_none(), "the last request has no answer");
    assert!(compared > 0, "there is no example");
}

#[test]
fn every_option_and_every_key_of_the_front_is_in_the_document() {
    for option in FRONT {
        let mut headings = TEXT.match_indices("\n### ").map(|(at, _)| &TEXT[at + 1..]);
        let name = format!("`{}`", option.name);
        let section = headings.find(|it| it.lines().next().unwrap().contains(&name));
        let section =
            section.unwrap_or_else(|| panic!("docs/http.md has no section for {}", option.name));
        let section = &section[..section.find("\n##").unwrap_or(section.len())];
        let family = option.name.trim_end_matches('*');
        let shown = blocks(section);
        assert!(
            shown
                .iter()
                .any(|block| block.language == "toml" && block.text.contains(family)),
            "docs/http.md has no example of {}",
            option.name
        );
    }
    // What holds for VIPs as well.
    for name in ["lb_expose", "lb_weight"] {
        assert!(table::all().any(|option| option.name == name), "{name}");
        assert!(
            blocks(TEXT)
                .iter()
                .any(|block| block.language == "toml" && block.text.contains(name)),
            "docs/http.md has no example of {name}"
        );
    }
    // The fields are the keys.
    let raw = format!("{:?}", RawConfig::default());
    let fields = raw
        .split([' ', ',', '{'])
        .filter_map(|word| word.strip_suffix(':'));
    let keys: Vec<_> = fields
        .filter_map(|field| {
            let mut tables = ["front_", "tls_", "http_limits_"].into_iter();
            tables.find_map(|table| field.strip_prefix(table))
        })
        .collect();
    assert!(keys.contains(&"expose"), "{raw}");
    for key in keys {
        assert!(
            TEXT.lines().any(|line| {
                let keys = line
                    .strip_prefix("| ")
                    .and_then(|line| line.split(" |").next());
                keys.is_some_and(|keys| keys.split(", ").any(|it| it == format!("`{key}`")))
            }),
            "docs/http.md says nothing of `[front] {key}`"
        );
    }
}
