//! Pages on their way from files to the front's process.

use std::fs;

use lb_agent::front::pages::{self, For};
use tokio::sync::watch;

use crate::{
    agent::{Agent, Leftover},
    kit::{Backend, Client, GET, eventually},
    snapshots::snapshot,
};

const DOWN: &str = "GET / HTTP/1.1\r\nHost: down\r\n\r\n";

#[test]
fn the_front_follows_the_files_of_pages_and_has_its_own_line_without_one() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("down.html");
    fs::write(&path, "<p>soon</p>").unwrap();
    let backend = Backend::named("a");
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let mut config = Agent::config(directory.path(), vec![]);
    let (pages_in, pages) = watch::channel(None);
    let (problems_in, problems) = watch::channel(Vec::new());
    config.pages = pages;
    let agent = Agent::run(config, vec![listener]);
    agent.publish(snapshot(&[backend.address]));
    let _leftover = Leftover(agent.pid());
    let files = [(For::NoBackend, path.clone())].into();
    let run = pages::run(files, pages_in, problems_in, agent.end.stop.clone());
    let stage = agent.runtime.spawn(run);
    let becomes = |kind: &str, body: &str| {
        eventually(body, || {
            let answer = Client::connect(address).send(DOWN).answer();
            assert_eq!(answer.status, 503);
            let kind_is = answer.field("content-type").unwrap().starts_with(kind);
            (kind_is && answer.body == body).then_some(())
        });
    };
    becomes("text/html", "<p>soon</p>");
    fs::write(&path, "<p>later</p>").unwrap();
    becomes("text/html", "<p>later</p>");
    fs::remove_file(&path).unwrap();
    becomes("text/plain", "no_backend: no healthy instance\n");
    assert_eq!(problems.borrow().len(), 1);
    fs::write(&path, "<p>now</p>").unwrap();
    becomes("text/html", "<p>now</p>");
    assert!(problems.borrow().is_empty());
    // Of no concern to who is served.
    assert_eq!(Client::connect(address).send(GET).answer().body, "a");
    agent.end.stop.cancel();
    agent.runtime.block_on(stage).unwrap().unwrap();
    agent.stop();
}
