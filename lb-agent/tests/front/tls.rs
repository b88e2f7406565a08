//! TLS across processes: certificates reach the front, and its listeners the next one.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
};

use lb_front::tls::{Certificate, Tls};
use tokio::sync::watch;

use crate::{
    agent::{Agent, Leftover, reserved, status},
    kit::{Backend, Client, GET, eventually},
    snapshots::snapshot,
    tlskit::{Stream, certificate, config, leaf, shown, try_connect},
};

fn showing(certificate: &Certificate) -> Arc<Tls> {
    let certificates = vec![certificate.clone()];
    Arc::new(Tls {
        certificates,
        ..Tls::default()
    })
}

struct Agents {
    directory: tempfile::TempDir,
    plain: SocketAddr,
    tls: SocketAddr,
    backend: Backend,
}

impl Agents {
    fn start(&self, kind: &str, certificates: Option<&watch::Sender<Arc<Tls>>>) -> Agent {
        let mut agent = Agent::config(self.directory.path(), vec![self.plain]);
        agent.kind = kind.to_owned();
        agent.listen_tls = certificates.iter().map(|_| self.tls).collect();
        agent.certificates = certificates.map(watch::Sender::subscribe);
        let agent = Agent::run(agent, vec![]);
        agent.publish(snapshot(&[self.backend.address]));
        agent
    }

    fn connect(&self) -> Client<Stream> {
        try_connect(self.tls, &config(), "web").unwrap()
    }

    fn await_shown(&self, certificate: &Certificate) {
        eventually("the certificate is shown", || {
            let client = try_connect(self.tls, &config(), "web").ok()?;
            (shown(&client) == leaf(certificate)).then_some(())
        });
    }
}

#[test]
fn a_front_with_tls_is_followed_by_another_and_nobody_is_refused_or_cut() {
    let ((_plain, plain), (_tls, tls)) = (reserved(), reserved());
    let agents = Agents {
        directory: tempfile::tempdir().unwrap(),
        plain,
        tls,
        backend: Backend::named("a"),
    };
    let all = [(); 4].map(|()| certificate(&["web"]));
    let certificates = watch::Sender::new(showing(&all[0]));
    let first = agents.start("first", Some(&certificates));
    let old = first.pid();
    let _old = Leftover(old);
    agents.await_shown(&all[0]);
    eventually("routes arrive", || {
        let answer = agents.connect().send(GET).answer();
        (answer.body == "a").then_some(())
    });
    let mut kept = agents.connect();
    assert_eq!(kept.send(GET).answer().body, "a");
    let (done, served) = (AtomicBool::new(false), AtomicUsize::new(0));
    let await_more = || {
        let so_far = served.load(Ordering::Relaxed);
        eventually("requests go on", || {
            (served.load(Ordering::Relaxed) > so_far + 10).then_some(())
        });
    };
    let (second, next) = thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                assert_eq!(agents.connect().send(GET).answer().body, "a");
                served.fetch_add(1, Ordering::Relaxed);
            }
        });
        // Other certificates, the same front.
        certificates.send_replace(showing(&all[1]));
        agents.await_shown(&all[1]);
        assert_eq!(first.pid(), old);
        await_more();
        // Another agent that would have started the same.
        first.fail();
        certificates.send_replace(showing(&all[2]));
        let same = agents.start("first", Some(&certificates));
        assert_eq!(same.pid(), old);
        agents.await_shown(&all[2]);
        assert_eq!(kept.send(GET).answer().body, "a");
        // And one that replaces it.
        same.fail();
        certificates.send_replace(showing(&all[3]));
        let second = agents.start("second", Some(&certificates));
        agents.await_shown(&all[3]);
        await_more();
        let next = second.pid();
        done.store(true, Ordering::Relaxed);
        (second, next)
    });
    let _next = Leftover(next);
    assert_ne!(next, old);
    assert_eq!(kept.send(GET).answer().body, "a");
    assert_eq!(kept.rest(), b"");
    // The last client is gone, and so is that front.
    eventually("it ends", || {
        let ended = status(old, old, "State").is_none_or(|state| state.starts_with('Z'));
        ended.then_some(())
    });
    second.fail();
    let third = agents.start("second", None);
    eventually("nobody listens", || std::net::TcpStream::connect(tls).err());
    let _third = Leftover(third.pid());
    let answer = Client::connect(plain).send(GET).answer();
    assert_eq!(answer.body, "a");
    third.stop();
}
