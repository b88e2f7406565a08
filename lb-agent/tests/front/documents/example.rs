//! One example: the front with its services, asked as the text asks.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    fs::{self, File},
    path::{Path, PathBuf},
};

use lb_agent::{
    config::{self, Outside, RawConfig},
    front::{pages, sticky_key, users::Lists},
};
use lb_front::{Limits, Settings, routes::RoutesChange};

use super::instances::routes;
use crate::kit::{Answer, TestFront, eventually};

/// The front with the services of one example.
pub(super) struct Example {
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
    pub(super) fn new(text: &str) -> Self {
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
    pub(super) fn write_users(&self, text: &str) {
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
    pub(super) fn write_pages(&self, text: &str) {
        let mut sheaf = pages::Sheaf::default();
        for (what, path) in &self.pages {
            sheaf.read(*what, path, Ok(text.as_bytes().to_vec()));
        }
        assert_eq!(sheaf.problems().count(), 0);
        self.front.front.show(sheaf.pages());
    }

    /// The access log, once it has as many lines as `text`.
    pub(super) fn logged(&self, text: &str) -> String {
        eventually("the lines are there", || {
            let log = fs::read_to_string(self.folder.path().join(LOG)).unwrap();
            (log.lines().count() >= text.lines().count()).then_some(log)
        })
    }

    /// The answer to a request of the text, whose lines end as text does.
    pub(super) fn ask(&self, request: &str) -> Answer {
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

pub(super) const ELLIPSIS: &str = "\u{2026}";

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
