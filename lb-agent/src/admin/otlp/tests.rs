use axum::http::StatusCode;

use super::*;

fn pusher(interval: u64) -> Pusher {
    let config = Config {
        endpoint: Url::parse("http://c.example:4318/v1/metrics").unwrap(),
        interval: Duration::from_secs(interval),
        timeout: Duration::from_secs(1),
        headers_file: None,
        ca_file: None,
        compress: true,
    };
    Pusher::new(config).unwrap()
}

fn line(pusher: &Pusher) -> (Mark, String) {
    let line = pusher.line()();
    assert_eq!(line.name, "otlp");
    (line.mark, line.detail)
}

#[test]
fn a_push_that_failed_is_tried_again_soon_unless_the_receiver_says_otherwise() {
    let pusher = pusher(60);
    let wait = |failure: Failure| {
        let mut backoff = Backoff::up_to(LONGEST);
        pusher.pause(&failure, &mut backoff).as_secs_f64()
    };
    let away = || Failure::Unreachable("refused".to_owned());
    assert!(wait(away()) < 1.0);
    let busy = StatusCode::SERVICE_UNAVAILABLE;
    // Who has too much to do and does not say for how long is not asked sooner than usual.
    assert_eq!(wait(Failure::Busy(busy, None)), 60.0);
    let in_seconds = |seconds| Some(Duration::from_secs(seconds));
    assert_eq!(wait(Failure::Busy(busy, in_seconds(7))), 7.0);
    // Whatever it says, it is asked again today.
    assert_eq!(wait(Failure::Busy(busy, in_seconds(86_400))), 300.0);
    // The same again would be refused again.
    assert_eq!(wait(Failure::Refused(StatusCode::UNAUTHORIZED)), 60.0);
    let partly = Failure::Partly(StatusCode::BAD_REQUEST, 1, 3);
    assert_eq!(wait(partly), 60.0);
    let mut backoff = Backoff::up_to(LONGEST);
    let waits: Vec<_> = (0..20)
        .map(|_| pusher.pause(&away(), &mut backoff))
        .collect();
    assert!(waits.iter().all(|wait| *wait <= LONGEST));
    assert!(waits[19] >= LONGEST / 2);
}

#[test]
fn how_it_goes_is_a_line_and_two_figures() {
    let pusher = pusher(60);
    let (mark, detail) = line(&pusher);
    assert_eq!(mark, Mark::Ok);
    assert_eq!(
        detail,
        "has not pushed yet to http://c.example:4318/v1/metrics"
    );

    pusher.tell(Err(Failure::Refused(StatusCode::FORBIDDEN)));
    let (mark, detail) = line(&pusher);
    assert_eq!(mark, Mark::Warning);
    assert_eq!(
        detail,
        "cannot push to http://c.example:4318/v1/metrics since 0 s: it answered 403 Forbidden; correct what \
         headers_file holds"
    );

    let taken = Taken {
        points: 1,
        ..Taken::default()
    };
    pusher.tell(Ok(taken.clone()));
    let (mark, detail) = line(&pusher);
    assert_eq!(mark, Mark::Ok);
    assert_eq!(
        detail,
        "pushed 1 point to http://c.example:4318/v1/metrics 0 s ago"
    );

    let some = Taken {
        rejected: 3,
        why: Some("too old".to_owned()),
        ..taken
    };
    pusher.tell(Ok(some));
    let (mark, detail) = line(&pusher);
    assert_eq!(mark, Mark::Warning);
    assert!(detail.ends_with("ago, 3 not taken: too old"), "{detail}");

    let figures = figures(&lock(&pusher.told));
    let values = |figure: &Figure| figure.samples.iter().map(|it| it.value).collect::<Vec<_>>();
    assert_eq!(values(&figures[0]), [2.0, 1.0]);
    assert_eq!(values(&figures[1]), [3.0]);
}

#[test]
fn it_is_told_since_when_it_fails() {
    let pusher = pusher(60);
    pusher.tell(Err(Failure::Unreachable("a".to_owned())));
    let since = lock(&pusher.told).last.as_ref().unwrap().since;
    pusher.tell(Err(Failure::Unreachable("b".to_owned())));
    let told = lock(&pusher.told);
    let last = told.last.as_ref().unwrap();
    assert_eq!(last.since, since);
    assert_eq!(last.outcome, Err("b".to_owned()));
}

#[test]
fn files_of_tls_that_cannot_be_used_are_told_at_the_start() {
    let config = Config {
        endpoint: Url::parse("https://c.example/v1/metrics").unwrap(),
        ca_file: Some("/nowhere/ca.pem".into()),
        ..pusher(1).config
    };
    let error = Pusher::new(config).err().unwrap();
    assert!(error.contains("/nowhere/ca.pem"), "{error}");
}

#[test]
fn headers_that_leave_the_host_in_clear_are_told() {
    let with = |endpoint: &str, headers_file: Option<&str>| Config {
        endpoint: Url::parse(endpoint).unwrap(),
        headers_file: headers_file.map(Into::into),
        ..pusher(60).config
    };
    let (open, file) = ("http://c.example:4318/v1/metrics", Some("/headers"));
    let pusher = Pusher::new(with(open, file)).unwrap();
    let (mark, detail) = line(&pusher);
    assert_eq!(mark, Mark::Warning);
    assert!(detail.ends_with("use an https:// endpoint"), "{detail}");
    for (endpoint, file) in [
        (open, None),
        ("https://c.example/v1/metrics", file),
        ("http://127.0.0.9:4318/", file),
        ("http://[::1]:4318/", file),
        ("http://localhost:4318/", file),
    ] {
        assert_eq!(with(endpoint, file).warning(), None, "{endpoint}");
    }
    for endpoint in [
        "http://10.0.0.1/",
        "http://[fd00::1]/",
        "http://localhost.example/",
    ] {
        assert!(with(endpoint, file).warning().is_some(), "{endpoint}");
    }
}

#[test]
fn a_front_counts_since_one_moment_whatever_becomes_of_the_clock() {
    let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
    let mut fronts = Fronts::default();
    assert_eq!(fronts.since(Some((7, at(1_000)))), Some(at(1_000)));
    // The clock was set, and with it the time of the boot.
    assert_eq!(fronts.since(Some((7, at(4_600)))), Some(at(1_000)));
    assert_eq!(fronts.since(None), None);
    assert_eq!(fronts.since(Some((7, at(900)))), Some(at(1_000)));
    assert_eq!(fronts.since(Some((8, at(5_000)))), Some(at(5_000)));
}
