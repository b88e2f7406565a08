//! What a front is told, and when.

use std::{
    io::{Read, Write},
    net::SocketAddr,
    os::unix::net::{UnixListener, UnixStream},
    path::Path,
    sync::{Arc, atomic::Ordering, mpsc},
};

use lb_agent::{
    order::Mode,
    snapshot::{Service, ServiceName, Snapshot},
};

use crate::{
    agent::{Agent, Leftover, listener},
    kit::{Backend, GET, PATIENCE, Reply, eventually},
    snapshots::snapshot,
};

fn say(agent: &mut UnixStream, message: &str) {
    let length = u32::try_from(message.len()).unwrap();
    agent.write_all(&length.to_be_bytes()).unwrap();
    agent.write_all(message.as_bytes()).unwrap();
}

#[test]
fn a_front_follows_one_change_after_the_other_and_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let backends = ["a", "b"].map(Backend::named);
    let (listener, client) = listener();
    let agent = Agent::start(directory.path(), vec![listener]);
    let follows = |count| {
        eventually("the front follows", || {
            (agent.metrics.changes.load(Ordering::Relaxed) == count).then_some(())
        });
        assert!(agent.metrics.last_duration_micros.load(Ordering::Relaxed) > 0);
    };
    agent.publish(snapshot(&[backends[0].address]));
    follows(1);
    let _leftover = Leftover(agent.pid());
    // From now on no request may meet anything else: not even the first one after that.
    assert_eq!(client().send(GET).answer().body, "a");
    agent.publish(snapshot(&[backends[1].address]));
    follows(2);
    assert_eq!(client().send(GET).answer().body, "b");
    let mut renamed = snapshot(&[backends[0].address]);
    let web = renamed.services.remove(&ServiceName::whole("web")).unwrap();
    renamed.services.insert(ServiceName::whole("shop"), web);
    agent.publish(renamed);
    follows(3);
    assert_eq!(client().send(GET).answer().status, 503);
    let shop = GET.replace("web", "shop");
    assert_eq!(client().send(shop).answer().body, "a");
    agent.stop();
}

#[test]
fn a_front_keeps_no_connection_to_an_instance_in_maintenance() {
    let directory = tempfile::tempdir().unwrap();
    let backends = ["a", "b"].map(Backend::named);
    let (listener, client) = listener();
    let agent = Agent::start(directory.path(), vec![listener]);
    let addresses = [backends[0].address, backends[1].address];
    let ordered = |mode| agent.publish(with_the_first(&addresses, mode));
    ordered(Mode::Ready);
    let mut client = client();
    let mut meet = |name: &str| {
        eventually("it is met", || {
            (client.send(GET).answer().body == name).then_some(())
        });
    };
    meet("a");
    let _leftover = Leftover(agent.pid());
    assert!(backends[0].open() > 0);
    ordered(Mode::Maintenance);
    eventually("what idles there is closed", || {
        (backends[0].open() == 0).then_some(())
    });
    for _ in 0..10 {
        meet("b");
    }
    assert_eq!(backends[0].open(), 0);
    ordered(Mode::Ready);
    meet("a");
    agent.stop();
}

#[test]
fn maintenance_ends_what_goes_through_the_front_and_a_drain_does_not() {
    let directory = tempfile::tempdir().unwrap();
    let switched = "HTTP/1.1 101 X\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n";
    let backend = Backend::start(move |_| Reply::Echo(switched.into()));
    let (listener, client) = listener();
    let agent = Agent::start(directory.path(), vec![listener]);
    let ordered = |mode, count| {
        agent.publish(with_the_first(&[backend.address], mode));
        eventually("the front follows", || {
            (agent.metrics.changes.load(Ordering::Relaxed) == count).then_some(())
        });
    };
    ordered(Mode::Ready, 1);
    let _leftover = Leftover(agent.pid());
    let mut client = client();
    client.send("GET / HTTP/1.1\r\nHost: web\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n");
    assert!(client.head().starts_with("HTTP/1.1 101 "));
    ordered(Mode::Drain, 2);
    client.send("alive");
    assert_eq!(client.bytes(5), b"alive");
    ordered(Mode::Maintenance, 3);
    assert_eq!(client.rest(), b"");
    agent.stop();
}

/// The first instance at `addresses` with this order.
fn with_the_first(addresses: &[SocketAddr], mode: Mode) -> Snapshot {
    let mut snapshot = snapshot(addresses);
    let web = ServiceName::whole("web");
    let mut service = Service::clone(&snapshot.services[&web]);
    let (_, first) = service.backends.iter_mut().next().unwrap();
    first.order.mode = mode;
    snapshot.services.insert(web, service.into());
    snapshot
}

/// A front that writes down which orders it gets, and says that it follows them. It begins when it is `ready`.
fn listening_front(
    path: &Path,
    ready: impl FnOnce(&UnixListener) + Send + 'static,
) -> mpsc::Receiver<String> {
    let control = UnixListener::bind(path).unwrap();
    let (order, orders) = mpsc::channel();
    std::thread::spawn(move || {
        ready(&control);
        let (mut agent, _) = control.accept().unwrap();
        let mut receive = {
            let mut agent = agent.try_clone().unwrap();
            move || {
                let mut length = [0; 4];
                agent.read_exact(&mut length).ok()?;
                let mut body = vec![0; u32::from_be_bytes(length) as usize];
                agent.read_exact(&mut body).ok()?;
                Some(String::from_utf8(body).unwrap())
            }
        };
        let hello = receive().unwrap();
        let version = hello.chars().filter(char::is_ascii_digit);
        let version: String = version.collect();
        let answer = format!("{{\"version\":{version},\"pid\":0,\"has_routes\":true}}");
        say(&mut agent, &answer);
        while let Some(message) = receive() {
            // Where its log goes and which pages there are, which is no matter here, and has no answer.
            if message == "{\"log\":{\"file\":false}}" || message.starts_with("{\"pages\"") {
                continue;
            }
            let ends = message == "\"drain\"";
            order.send(message).unwrap();
            if ends {
                return; // The end of the connection tells that all is done.
            }
            say(&mut agent, "\"follows\"");
        }
    });
    orders
}

#[test]
fn routes_that_have_not_changed_are_not_sent_again() {
    let directory = tempfile::tempdir().unwrap();
    let orders = listening_front(&directory.path().join("front.sock"), |_| {});
    let agent = Agent::start(directory.path(), vec![]);
    let [one, other] = [1, 2].map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
    let next = || orders.recv_timeout(PATIENCE).unwrap();
    agent.publish(snapshot(&[one]));
    let first = next();
    assert!(
        first.starts_with("{\"routes\"") && first.contains("127.0.0.1:1\""),
        "{first}"
    );
    // Another name that cannot be used: a problem to show, and the routes that there are.
    let mut same = snapshot(&[one]);
    for (name, service) in &snapshot(&[one]).services {
        let mut service = service.clone();
        Arc::make_mut(&mut service)
            .aliases
            .insert("not a name".to_owned());
        same.services.insert(name.clone(), service);
    }
    agent.publish(same);
    eventually("the snapshot was looked at", || {
        (!agent.problems.borrow().is_empty()).then_some(())
    });
    agent.publish(snapshot(&[other]));
    let second = next();
    assert!(
        second.starts_with("{\"change\"") && second.contains("127.0.0.1:2\""),
        "{second}"
    );
    // The service `down` and all the names stay as they are.
    assert!(
        !second.contains("down") && !second.contains("alias"),
        "{second}"
    );
    agent.stop();
    assert_eq!(next(), "\"drain\"");
    assert!(orders.recv().is_err());
}

#[test]
fn a_front_that_is_slow_to_say_hello_gets_no_second_one_beside_it() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("front.sock");
    let (wake, awake) = mpsc::channel::<()>();
    let orders = listening_front(&path, move |control| {
        drop(control.accept().unwrap());
        awake.recv().unwrap();
    });
    let agent = Agent::start(directory.path(), vec![]);
    eventually("its silence is told", || {
        let problems = agent.problems.borrow();
        let told = problems.iter().any(|it| it.message.contains("hello"));
        told.then_some(())
    });
    agent.publish(snapshot(&[]));
    wake.send(()).unwrap();
    let first = orders.recv_timeout(PATIENCE).unwrap();
    assert!(first.starts_with("{\"routes\""), "{first}");
    eventually("all is well", || {
        agent.problems.borrow().is_empty().then_some(())
    });
    agent.stop();
}
