//! When two values are the same: readers are woken for one that differs, and for nothing else.

use super::*;

const THEN: SystemTime = SystemTime::UNIX_EPOCH;

/// Of one service and one source, which has answered.
fn snapshot() -> Snapshot {
    let answered = Source {
        updated: Some(THEN),
        error: None,
    };
    let only = service(Local::Any, &[(1, true)]);
    Snapshot {
        number: 7,
        services: [(ServiceName::whole("www"), only.into())].into(),
        sources: [("consul".to_owned(), answered)].into(),
        ..Snapshot::default()
    }
}

fn after(change: impl FnOnce(&mut Snapshot)) -> Snapshot {
    let mut after = snapshot();
    change(&mut after);
    after
}

#[test]
fn a_snapshot_differs_by_whatever_somebody_would_act_on() {
    let another = || service(Local::Only, &[(1, true)]).into();
    let problem = || Problem::new("service www", "is wrong");
    for (what, after) in [
        ("answered", after(|it| it.answered = true)),
        ("stopgap", after(|it| it.stopgap = true)),
        ("complete", after(|it| it.complete = true)),
        (
            "service",
            after(|it| _ = it.services.insert(ServiceName::whole("www"), another())),
        ),
        ("problem", after(|it| it.problems.push(problem()))),
        ("source", after(|it| it.sources.clear())),
    ] {
        assert_ne!(snapshot(), after, "{what}");
    }
}

#[test]
fn figures_for_people_wake_nobody() {
    assert_eq!(snapshot(), after(|it| it.number = 8));
    let consul = |it: &mut Snapshot, source| _ = it.sources.insert("consul".to_owned(), source);
    let source = |updated, error: Option<&str>| Source {
        updated,
        error: error.map(str::to_owned),
    };
    let later = Some(THEN + Duration::from_secs(9));
    assert_eq!(snapshot(), after(|it| consul(it, source(later, None))));
    // Whether there ever was an answer is no figure.
    assert_ne!(snapshot(), after(|it| consul(it, source(None, None))));
    let away = source(later, Some("refused"));
    assert_ne!(snapshot(), after(|it| consul(it, away)));
}

#[test]
fn how_long_a_probe_took_is_a_figure_and_what_it_found_is_not() {
    let probe = || Backend::usable(([10, 0, 0, 1], 80).into()).probe;
    let slower = Probe {
        took: Some(Duration::from_secs(1)),
        ..probe()
    };
    assert_eq!(probe(), slower);
    for other in [
        Probe {
            state: ProbeState::Down,
            ..probe()
        },
        Probe {
            since: THEN + Duration::from_secs(1),
            ..probe()
        },
        Probe {
            error: Some("no descriptor".to_owned()),
            ..probe()
        },
    ] {
        assert_ne!(probe(), other);
    }
}
