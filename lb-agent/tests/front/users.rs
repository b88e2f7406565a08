//! Lists of users on their way from files to the front's process.

use std::{fs, sync::Arc};

use lb_agent::{
    front::users,
    options::Options,
    snapshot::{ServiceName, Snapshot},
};
use lb_front::rules::Rules;
use tokio::{runtime::Runtime, sync::watch};
use tokio_util::sync::CancellationToken;

use crate::{
    agent::{Agent, Leftover},
    kit::{Backend, Client, GET, eventually},
    snapshots::snapshot,
};

/// Of `myPassword`.
const HASH: &str = "$2y$05$c4WoMPo3SXsafkva.HHa6uXQZWr7oboPiC2bT/r7q1BB8I2s0BRqC";
const ANN: &str =
    "GET / HTTP/1.1\r\nHost: web\r\nAuthorization: Basic YW5uOm15UGFzc3dvcmQ=\r\n\r\n";

/// The service `web` at `backend` with `lb_auth` of these lists, of which the one is not configured.
fn guarded(backend: &Backend, list: &str) -> Snapshot {
    let mut snapshot = snapshot(&[backend.address]);
    let name = ServiceName::whole("web");
    let mut web = snapshot.services.remove(&name).unwrap();
    Arc::make_mut(&mut web).options = Options {
        front: Some(Arc::new(Rules {
            auth: Some(list.to_owned()),
            ..Rules::default()
        })),
        ..Options::default()
    };
    snapshot.services.insert(name, web);
    snapshot
}

#[test]
fn the_front_follows_the_files_of_users_and_a_missing_one_closes_the_service() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("staff.htpasswd");
    let backend = Backend::named("a");
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let mut config = Agent::config(directory.path(), vec![]);
    let (users_in, users) = watch::channel(None);
    config.users = users;
    config.routes.auth = ["staff".to_owned()].into();
    let agent = Agent::run(config, vec![listener]);
    let runtime = Runtime::new().unwrap();
    let stop = CancellationToken::new();
    agent.publish(guarded(&backend, "staff"));
    let _leftover = Leftover(agent.pid());
    // Without a look at the files nothing is told, and nobody is let in.
    assert_eq!(Client::connect(address).send(ANN).answer().status, 503);
    let files = [("staff".to_owned(), path.clone())].into();
    let stage = runtime.spawn(users::run(files, users_in, stop.clone()));
    let ask = |request: &str| {
        let answer = Client::connect(address).send(request).answer();
        (answer.status, answer.body)
    };
    let becomes = |request: &str, status, begin: &str| {
        eventually(begin, || {
            let answer = ask(request);
            (answer.0 == status && answer.1.starts_with(begin)).then_some(())
        });
    };
    let problem = |part: &str| {
        eventually(part, || {
            let problems = agent.problems.borrow().clone();
            let found = problems.iter().find(|it| it.message.contains(part));
            found.map(|_| assert_eq!(problems.len(), 1, "{problems:?}"))
        });
    };
    becomes(ANN, 503, "no_users");
    problem("services with `lb_auth=staff` are closed");
    fs::write(&path, format!("ann:{HASH}\n")).unwrap();
    becomes(ANN, 200, "a");
    assert_eq!(ask(GET).0, 401);
    eventually("nothing is wrong", || {
        agent.problems.borrow().is_empty().then_some(())
    });
    fs::remove_file(&path).unwrap();
    becomes(ANN, 503, "no_users");
    fs::write(&path, format!("bob:{HASH}\nann:{{SHA}}x\n")).unwrap();
    becomes(ANN, 401, "unauthorized");
    problem("`ann` of line 2 cannot log in");
    fs::write(&path, format!("ann:{HASH}\n")).unwrap();
    becomes(ANN, 200, "a");
    // A list that nobody has configured is not a file.
    agent.publish(guarded(&backend, "passwd"));
    becomes(ANN, 503, "no_users");
    problem("there is no list of users `passwd`; name its file in `[front.auth]`");
    stop.cancel();
    runtime.block_on(stage).unwrap().unwrap();
    agent.stop();
}
