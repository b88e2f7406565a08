use std::collections::BTreeMap;

use super::{
    listeners::{ALIVE, BEHIND, HELLO, OVER},
    tick::{EVERYBODY, Tick, piece},
    *,
};
use crate::{
    admin::{compose::compose, history::Rings, sample, session::End},
    snapshot::{Service, ServiceName, Snapshot},
};

fn told(last: &mut Last, snapshot: Snapshot, seen: &[&str]) -> Tick {
    let stats = sample::stats();
    let report = compose(sample::material(Some(&snapshot), Some(&stats)));
    let texts = texts(&report, &labels(&seen.join("\n")), &Rings::default());
    last.tick(&report, Some(Arc::new(snapshot)), texts)
}

fn said(tick: &Tick, seen: &[&str], complete: bool) -> String {
    let bytes = tick.bytes(&labels(&seen.join("\n")), EVERYBODY, complete, false);
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn the_first_time_all_is_told_and_then_only_what_changed() {
    let mut last = Last::default();
    let seen = ["www_hello", "db"];
    let snapshot = sample::snapshot();
    let tick = told(&mut last, snapshot.clone(), &seen);
    let all = said(&tick, &["db"], false);
    let json = all.strip_prefix("event: texts\ndata: ").unwrap();
    let json: BTreeMap<String, String> = serde_json::from_str(json.trim_end()).unwrap();
    assert_eq!(json["db|active"], "0");
    assert!(json.contains_key("part|services|detail"));
    assert!(!json.keys().any(|key| key.starts_with("www_hello|")));
    let tick = told(&mut last, snapshot.clone(), &seen);
    assert_eq!(said(&tick, &["db"], true), "");
    assert!(said(&tick, &["www_hello"], false).contains("\"www_hello|active\":\"6\""));
}

#[test]
fn whose_rows_changed_is_told_to_who_sees_them() {
    let mut last = Last::default();
    let seen = ["www", "world.dev_www", "www_hello"];
    let before = sample::snapshot();
    told(&mut last, before.clone(), &seen);
    let mut after = before;
    let name = ServiceName::whole("www");
    let mut www = Service::clone(&after.services[&name]);
    // Another weight: rows differ, and nothing that every page shows.
    for backend in www.backends.values_mut() {
        backend.weight = 7;
    }
    after.services.insert(name, www.into());
    let tick = told(&mut last, after, &seen);
    assert!(said(&tick, &["www"], true).contains("event: resync"));
    assert!(!said(&tick, &["www_hello"], true).contains("event: resync"));
}

#[test]
fn a_new_service_and_a_problem_are_told_to_everybody() {
    let mut last = Last::default();
    let mut snapshot = sample::snapshot();
    told(&mut last, snapshot.clone(), &[]);
    let one = snapshot.services[&ServiceName::whole("www")].clone();
    snapshot.services.insert(ServiceName::whole("new"), one);
    let tick = told(&mut last, snapshot.clone(), &[]);
    assert!(said(&tick, &[], true).contains("event: resync"));
    snapshot.problems.clear();
    let tick = told(&mut last, snapshot.clone(), &[]);
    assert!(said(&tick, &[], true).contains("event: resync"));
    let tick = told(&mut last, snapshot, &[]);
    assert!(!said(&tick, &[], true).contains("event: resync"));
}

#[tokio::test(start_paused = true)]
async fn what_changed_before_the_first_moment_is_told_with_it() {
    let snapshot = sample::snapshot();
    let stats = sample::stats();
    let shown = seen(&compose(sample::material(Some(&snapshot), Some(&stats))));
    let mut next = snapshot.clone();
    next.number += 1;
    let mut problems = snapshot.clone();
    problems.problems.clear();
    for (snapshot, differs) in [(snapshot, false), (next, true), (problems, true)] {
        let streams = Arc::new(Streams::new(CancellationToken::new()));
        let shows = Some(shown.clone());
        let mut one = streams.enter(labels("db"), shows, None).unwrap();
        one.next().await;
        let mut last = Last::default();
        for expect in [differs, false] {
            let mut tick = told(&mut last, snapshot.clone(), &["db"]);
            // Something to tell at the second moment, too.
            tick.texts.entry("db".to_owned()).or_default().changed = piece("a", "b");
            streams.ticks.send(Arc::new(tick)).unwrap();
            let bytes = one.next().await.unwrap();
            let text = String::from_utf8(bytes.to_vec()).unwrap();
            assert!(text.contains("event: texts"), "{text}");
            assert_eq!(text.contains("event: resync"), expect, "{text}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_ends_with_its_session_however_much_there_is_to_tell() {
    let streams = Arc::new(Streams::new(CancellationToken::new()));
    let ended = CancellationToken::new();
    let until = std::time::Instant::now() + Duration::from_secs(3600);
    let session = |ended: &CancellationToken| End {
        ended: ended.clone(),
        until,
    };
    let mut signed_out = streams
        .enter(labels(""), None, Some(session(&ended)))
        .unwrap();
    let mut expired = streams
        .enter(labels(""), None, Some(session(&CancellationToken::new())))
        .unwrap();
    for one in [&mut signed_out, &mut expired] {
        assert_eq!(one.next().await.as_deref(), Some(HELLO));
    }
    let mut last = Last::default();
    let tick = told(&mut last, sample::snapshot(), &[]);
    streams.ticks.send(Arc::new(tick)).unwrap();
    ended.cancel();
    assert_eq!(signed_out.next().await.as_deref(), Some(OVER));
    assert_eq!(signed_out.next().await, None);
    let mut said = Vec::new();
    while let Some(bytes) = expired.next().await {
        said.push(bytes);
    }
    assert!(said.len() > 200, "{}", said.len());
    assert_eq!(said.last().map(|it| &**it), Some(OVER));
}

#[test]
fn where_the_page_is_published_the_words_of_parts_name_nothing_that_was_configured() {
    let snapshot = sample::snapshot();
    let mut material = sample::material(Some(&snapshot), None);
    let endpoint = "pushed 7 points to http://10.0.0.9/v1/metrics 3 s ago";
    let line = crate::admin::Component::new("otlp", crate::admin::Mark::Ok, endpoint);
    material.components.push(line);
    let report = compose(material);
    let texts = texts(&report, &BTreeSet::new(), &Rings::default());
    let tick = Last::default().tick(&report, None, texts);
    // An empty line asks for nothing that others are told.
    let asked = labels("\n\n");
    let said = |everybody| tick.bytes(&asked, everybody, false, false);
    let said = |everybody| String::from_utf8(said(everybody).to_vec()).unwrap();
    assert!(said(EVERYBODY).contains("10.0.0.9"), "{}", said(EVERYBODY));
    assert!(!said(ABROAD).contains("10.0.0.9"), "{}", said(ABROAD));
    assert!(said(ABROAD).contains("part|otlp|detail"));
}

#[test]
fn a_text_cannot_break_out_of_its_event() {
    let piece = piece("a\nb|x", "evil\n\nevent: resync\"");
    assert!(!piece.contains('\n'), "{piece}");
}

#[tokio::test]
async fn listeners_are_bounded_and_end_at_the_stop() {
    let stop = CancellationToken::new();
    let streams = Arc::new(Streams::new(stop.clone()));
    let enter = || streams.enter(BTreeSet::new(), None, None);
    let mut all: Vec<_> = (0..LISTENERS).map_while(|_| enter()).collect();
    assert_eq!(all.len(), LISTENERS);
    assert!(enter().is_none());
    drop(all.pop());
    let mut one = enter().unwrap();
    assert_eq!(one.next().await.as_deref(), Some(HELLO));
    stop.cancel();
    assert_eq!(one.next().await, None);
}

#[tokio::test(start_paused = true)]
async fn a_silent_stream_says_so_and_a_slow_reader_is_given_everything_again() {
    let streams = Arc::new(Streams::new(CancellationToken::new()));
    let mut one = streams.enter(labels("db"), None, None).unwrap();
    one.next().await;
    assert_eq!(one.next().await.as_deref(), Some(ALIVE));
    let mut last = Last::default();
    let snapshot = sample::snapshot();
    let mut send = || {
        let tick = told(&mut last, snapshot.clone(), &["db"]);
        streams.ticks.send(Arc::new(tick)).unwrap();
    };
    send();
    one.next().await.unwrap();
    // From here on nothing changes: there is something to tell to who missed a moment only.
    (0..=BEHIND).for_each(|_| send());
    let bytes = one.next().await.unwrap();
    let text = String::from_utf8(bytes.to_vec()).unwrap();
    assert!(text.contains("\"db|active\""), "{text}");
}
