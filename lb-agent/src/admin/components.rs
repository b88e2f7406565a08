//! The lines of `status` that follow from the report itself. Pure.

use super::{
    compose::age,
    report::{Component, DataPlane, Mark, Report, Service, ServiceState, Source},
    text,
};

/// One line for each part of the agent that the report speaks of.
pub(super) fn of(report: &Report) -> Vec<Component> {
    let sources = report.sources.iter();
    let mut lines = vec![agent(report), data_plane(report.data_plane.as_ref())];
    lines.extend(sources.map(|(name, it)| source(name, it, report.now_unix)));
    lines.push(services(report.services.as_deref()));
    lines
}

fn agent(report: &Report) -> Component {
    let uptime = text::duration(age(report.now_unix, report.started_unix));
    if report.ready {
        let detail = format!("{} ready, up {uptime}", report.version);
        Component::new("agent", Mark::Ok, detail)
    } else {
        let reasons = report.waiting_for.join(", ");
        let detail = format!("{} not ready: {reasons}; up {uptime}", report.version);
        Component::new("agent", Mark::Error, detail)
    }
}

fn data_plane(data_plane: Option<&DataPlane>) -> Component {
    const NAME: &str = "data plane";
    let Some(data_plane) = data_plane else {
        return Component::new(NAME, Mark::Unknown, "did not answer");
    };
    let programs = &data_plane.programs;
    let loose: Vec<_> = programs
        .iter()
        .filter(|(_, attached)| !**attached)
        .map(|(hook, _)| hook.as_str())
        .collect();
    if !loose.is_empty() {
        let detail = format!(
            "not attached: {}; new connects on this host are not balanced",
            loose.join(", ")
        );
        return Component::new(NAME, Mark::Error, detail);
    }
    let mut hooks = match programs.len() {
        0 => return Component::new(NAME, Mark::Error, "no hook is attached"),
        n => text::count(n, "hook"),
    };
    if data_plane.clients > 0 {
        let clients = text::count(data_plane.clients, "client");
        hooks.push_str(&format!(
            ", {clients} in {}",
            text::count(data_plane.views, "view")
        ));
    }
    let fullest = data_plane.maps.iter().max_by_key(|(_, map)| map.percent());
    match fullest {
        None => Component::new(NAME, Mark::Ok, hooks),
        Some((name, map)) => {
            let percent = map.percent();
            let full = percent >= FULL_PERCENT;
            let mark = if full { Mark::Warning } else { Mark::Ok };
            let detail = format!("{hooks}; fullest map {name} at {percent} %");
            Component::new(NAME, mark, detail)
        }
    }
}

fn source(name: &str, source: &Source, now_unix: u64) -> Component {
    let age = source
        .updated_unix
        .map(|updated| text::duration(age(now_unix, updated)));
    let (mark, detail) = match (age, &source.error) {
        (Some(age), None) => (Mark::Ok, format!("answered {age} ago")),
        (Some(age), Some(error)) => {
            let detail = format!("data is {age} old: {error}; serving the last good table");
            (Mark::Warning, detail)
        }
        (None, Some(error)) => (Mark::Error, format!("has never answered: {error}")),
        (None, None) => (Mark::Unknown, "has not answered yet".to_owned()),
    };
    Component::new(format!("source {name}"), mark, detail)
}

fn services(services: Option<&[Service]>) -> Component {
    const NAME: &str = "services";
    let Some(services) = services else {
        return Component::new(NAME, Mark::Unknown, "not known yet: no source has answered");
    };
    let within = |state| {
        let names = services
            .iter()
            .filter(move |service| service.state == state);
        names
            .map(|service| service.name.as_str())
            .collect::<Vec<_>>()
    };
    let all = text::count(services.len(), "service");
    let refused = within(ServiceState::Refused);
    let degraded = within(ServiceState::Degraded);
    if !refused.is_empty() {
        let detail = format!("{all}; without a usable backend: {}", some(&refused));
        Component::new(NAME, Mark::Error, detail)
    } else if !degraded.is_empty() {
        let detail = format!("{all}; with failing backends: {}", some(&degraded));
        Component::new(NAME, Mark::Warning, detail)
    } else {
        let usable: usize = services.iter().map(|service| service.usable).sum();
        let detail = format!("{all}, {}", text::count(usable, "usable backend"));
        Component::new(NAME, Mark::Ok, detail)
    }
}

/// The line about backends that were taken out, whose flows are cut after their time; `limits` is why some are not.
pub(super) fn drains(report: &Report, limits: Option<String>) -> Component {
    let cuts: Vec<String> = report
        .cuts
        .iter()
        .map(|cut| {
            let flows = match cut.active {
                None => "flows".to_owned(),
                Some(1) => "1 flow".to_owned(),
                Some(n) => format!("{n} flows"),
            };
            let left = text::duration(age(cut.at_unix, report.now_unix));
            let key = cut.key.as_ref().map(ToString::to_string);
            let address = || cut.address.map(|address| address.to_string());
            let who = key.or_else(address).unwrap_or_default();
            format!("{} {who} has {flows}, cut in {left}", cut.service)
        })
        .collect();
    let cuts: Vec<&str> = cuts.iter().map(String::as_str).collect();
    let mut detail = match cuts.is_empty() {
        true => "no backend waits for its flows to end".to_owned(),
        false => some(&cuts),
    };
    if let Some(limits) = limits {
        detail.push_str(&format!(
            "; flows that the agent cannot see end by themselves: {limits}"
        ));
    }
    Component::new("drains", Mark::Ok, detail)
}

/// The first few names, and how many more there are.
fn some(names: &[&str]) -> String {
    let shown = names.len().min(NAMES_SHOWN);
    let mut text = names[..shown].join(", ");
    if names.len() > shown {
        text.push_str(&format!(" and {} more", names.len() - shown));
    }
    text
}

/// Names in one line.
const NAMES_SHOWN: usize = 5;

/// From here on a map wants attention.
const FULL_PERCENT: u64 = 90;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::{
        compose::compose,
        report::{Cut, MapFill},
        sample,
    };

    #[track_caller]
    fn check(name: &str, lines: &[Component], mark: Mark, detail: &str) {
        let line = lines.iter().find(|line| line.name == name).unwrap();
        assert_eq!((line.mark, line.detail.as_str()), (mark, detail));
    }

    #[test]
    fn each_part_has_its_line() {
        let (snapshot, stats) = (sample::snapshot(), sample::stats());
        let lines = of(&compose(sample::material(Some(&snapshot), Some(&stats))));
        check("agent", &lines, Mark::Ok, "0.1.0 ready, up 1 h 0 min");
        check(
            "data plane",
            &lines,
            Mark::Ok,
            "2 hooks; fullest map BACKENDS at 12 %",
        );
        check(
            "source consul",
            &lines,
            Mark::Warning,
            "data is 3 min 12 s old: no leader; serving the last good table",
        );
        check("source file", &lines, Mark::Ok, "answered 5 s ago");
        check(
            "services",
            &lines,
            Mark::Error,
            "4 services; without a usable backend: db",
        );
    }

    #[test]
    fn silence_is_unknown() {
        let lines = of(&compose(sample::material(None, None)));
        check("data plane", &lines, Mark::Unknown, "did not answer");
        check(
            "services",
            &lines,
            Mark::Unknown,
            "not known yet: no source has answered",
        );
    }

    #[test]
    fn the_clients_that_are_told_apart_are_counted_with_their_views() {
        let mut plane = sample_plane();
        (plane.clients, plane.views) = (3, 1);
        let line = data_plane(Some(&plane));
        assert_eq!(line.detail, "1 hook, 3 clients in 1 view");
    }

    #[test]
    fn a_loose_hook_is_an_error_that_names_it() {
        let mut plane = sample_plane();
        plane.programs.insert("connect4".to_owned(), false);
        let line = data_plane(Some(&plane));
        assert_eq!(line.mark, Mark::Error);
        assert!(line.detail.contains("connect4"), "{}", line.detail);
    }

    #[test]
    fn a_map_that_is_nearly_full_is_a_warning() {
        let mut plane = sample_plane();
        let fill = MapFill {
            entries: 95,
            capacity: 100,
        };
        plane.maps.insert("SERVICES".to_owned(), fill);
        assert_eq!(data_plane(Some(&plane)).mark, Mark::Warning);
    }

    #[test]
    fn a_long_list_of_names_is_cut() {
        let names: Vec<_> = (0..9).map(|n| format!("s{n}")).collect();
        let names: Vec<_> = names.iter().map(String::as_str).collect();
        assert_eq!(some(&names), "s0, s1, s2, s3, s4 and 4 more");
    }

    #[test]
    fn a_drain_is_shown_with_its_flows_and_its_end() {
        let (snapshot, stats) = (sample::snapshot(), sample::stats());
        let mut report = compose(sample::material(Some(&snapshot), Some(&stats)));
        let line = drains(&report, None);
        assert_eq!(line.detail, "no backend waits for its flows to end");
        for (id, active) in [("c", Some(1)), ("d", Some(4)), ("e", None)] {
            report.cuts.push(Cut {
                service: "www_hello".to_owned(),
                key: Some(sample::key("file", id)),
                address: None,
                at_unix: report.now_unix + 12,
                active,
            });
        }
        report.cuts.push(Cut {
            key: None,
            address: Some(([10, 0, 0, 9], 80).into()),
            ..report.cuts[2].clone()
        });
        let line = drains(&report, Some("no right".to_owned()));
        let expect = "www_hello file/c has 1 flow, cut in 12 s, www_hello file/d has 4 flows, cut in 12 s, \
             www_hello file/e has flows, cut in 12 s, www_hello 10.0.0.9:80 has flows, cut in 12 s; flows that the agent cannot see end by themselves: no right";
        assert_eq!((line.mark, line.detail.as_str()), (Mark::Ok, expect));
    }

    fn sample_plane() -> DataPlane {
        DataPlane {
            programs: [("sock_ops".to_owned(), true)].into(),
            maps: Default::default(),
            unknown: 0,
            clients: 0,
            views: 0,
        }
    }
}
