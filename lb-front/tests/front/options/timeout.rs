//! `lb_timeout`.

use std::{
    sync::{Arc, Mutex, mpsc},
    time::Duration,
};

use lb_front::{Limits, Reason, Settings, rules::Rules};

use super::ruled;
use crate::kit::{Backend, GET, PATIENCE, Reply, TestFront, eventually, ok};

fn within(time: Duration) -> Rules {
    Rules {
        timeout_milliseconds: Some(u64::try_from(time.as_millis()).unwrap()),
        ..Rules::default()
    }
}

const BRIEF: Duration = Duration::from_millis(50);

#[test]
fn a_backend_that_takes_longer_than_its_service_says_is_504() {
    let backend = Backend::start(|_| Reply::Stall(Vec::new()));
    let front = super::front(within(BRIEF), &backend);
    let answer = front.ask(GET);
    assert_eq!(answer.status, 504);
    assert_eq!(
        answer.body,
        "response_timeout: the instance did not answer\n"
    );
    assert_eq!(front.stats().ended(Reason::ResponseTimeout), 1);
    // It may have had an effect: nobody is asked again.
    assert_eq!(backend.seen().len(), 1);
}

#[test]
fn a_service_may_give_its_backends_more_time_than_the_front() {
    let (release, released) = mpsc::channel::<()>();
    let released = Mutex::new(released);
    let patient = Backend::start(move |_| {
        released.lock().unwrap().recv_timeout(PATIENCE).unwrap();
        Reply::Keep(ok("late"))
    });
    let silent = Backend::start(|_| Reply::Stall(Vec::new()));
    let limits = Limits {
        response_head: BRIEF,
        ..Limits::default()
    };
    let front = TestFront::start(limits, 1);
    // `down` gets a backend, and asks for nothing.
    let mut routes = ruled(within(PATIENCE * 6), &patient);
    let web = routes.services[0].1.clone().unwrap();
    let down = Arc::make_mut(routes.services[1].1.as_mut().unwrap());
    down.backends.clone_from(&web.backends);
    down.backends[0].address = silent.address;
    front.front.publish(&routes, &Settings::default());
    let mut client = front.client();
    client.send(GET);
    eventually("the backend has the request", || {
        (!patient.seen().is_empty()).then_some(())
    });
    // By then the front's own time is over for both.
    assert_eq!(front.ask(GET.replace("web", "down")).status, 504);
    release.send(()).unwrap();
    assert_eq!(client.answer().body, "late");
}
