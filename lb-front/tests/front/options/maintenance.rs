//! `lb_maintenance`.

use lb_front::{
    Reason,
    rules::{Maintenance, Rules},
};

use super::{changed, front};
use crate::kit::{Backend, GET};

fn noticed(retry_after_seconds: Option<u64>, notice: Option<&str>) -> Rules {
    Rules {
        maintenance: Some(Maintenance {
            retry_after_seconds,
            notice: notice.map(str::to_owned),
        }),
        ..Rules::default()
    }
}

#[test]
fn a_service_under_maintenance_answers_with_its_notice_and_reaches_no_backend() {
    let backend = Backend::named("a");
    let front = front(noticed(Some(600), Some("Zur\u{fc}ck um zwei")), &backend);
    let answer = front.ask(GET);
    assert_eq!(answer.status, 503);
    assert_eq!(answer.field("retry-after"), Some("600"));
    let kind = answer.field("content-type");
    assert_eq!(kind, Some("text/plain; charset=utf-8"));
    assert_eq!(answer.body, "Zur\u{fc}ck um zwei\n");
    // Other services go on; `down` has no backend.
    let other = front.ask(GET.replace("web", "down"));
    assert_eq!(other.body, "no_backend: no healthy instance\n");
    assert_eq!(front.stats().ended(Reason::Maintenance), 1);
    assert!(backend.seen().is_empty());
}

#[test]
fn it_begins_and_ends_without_the_loss_of_a_connection() {
    let backend = Backend::named("a");
    let front = front(Rules::default(), &backend);
    let mut client = front.client();
    assert_eq!(client.send(GET).answer().body, "a");
    front.front.change(&changed(noticed(None, None), &backend));
    let answer = client.send(GET).answer();
    assert_eq!(answer.status, 503);
    assert_eq!(answer.field("retry-after"), None);
    assert_eq!(answer.body, "maintenance: the service is being worked on\n");
    front.front.change(&changed(Rules::default(), &backend));
    assert_eq!(client.send(GET).answer().body, "a");
}

#[test]
fn an_upload_that_nobody_reads_ends_the_connection_and_says_so() {
    let backend = Backend::named("a");
    let front = front(noticed(None, None), &backend);
    let upload = "POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 5\r\n\r\n";
    let answer = front.ask(upload);
    assert_eq!(answer.status, 503);
    assert_eq!(answer.field("connection"), Some("close"));
    assert!(backend.seen().is_empty());
}
