use super::*;
use crate::{
    admin::{compose::compose, sample},
    snapshot::ServiceName,
};

fn text_of(report: &Report) -> String {
    let process = vec![Figure::counter("process_x", "X.", vec![Sample::plain(1.5)])];
    let front = process.clone();
    let others = Registry::with_prefix("lb");
    let texts = Texts::encode(report, false, process, front, &others).unwrap();
    texts.whole()
}

#[track_caller]
fn has(text: &str, line: &str) {
    assert!(text.lines().any(|l| l == line), "no `{line}` in\n{text}");
}

#[test]
fn a_service_that_is_called_like_a_part_has_series_of_its_own() {
    let (mut snapshot, stats) = (sample::snapshot(), sample::stats());
    let www = snapshot.services[&ServiceName::whole("www")].clone();
    let twin = ServiceName::whole("world.dev_www");
    snapshot.services.insert(twin, www);
    let text = text_of(&compose(sample::material(Some(&snapshot), Some(&stats))));
    for label in ["world.dev_www", "_world.dev_www"] {
        let series = format!("lb_service_backends{{service=\"{label}\",state=\"usable\"}}");
        has(&text, &format!("{series} 1.0"));
    }
    let samples = text.lines().filter(|line| !line.starts_with('#'));
    let series: Vec<_> = samples
        .filter_map(|line| Some(line.rsplit_once(' ')?.0))
        .collect();
    let distinct: BTreeSet<_> = series.iter().collect();
    assert_eq!(distinct.len(), series.len(), "{text}");
}

#[test]
fn the_report_is_told_as_metrics() {
    let (snapshot, stats) = (sample::snapshot(), sample::stats());
    let text = text_of(&compose(sample::material(Some(&snapshot), Some(&stats))));
    has(&text, "lb_ready 1.0");
    has(&text, "lb_services{state=\"refused\"} 1.0");
    has(&text, "lb_backends{state=\"usable\"} 2.0");
    has(&text, "lb_backends{state=\"l4_down\"} 1.0");
    has(
        &text,
        "lb_service_backends{service=\"world.dev_www\",state=\"usable\"} 1.0",
    );
    has(
        &text,
        "lb_flows_total{service=\"www_hello\",path=\"socket\"} 1204.0",
    );
    has(
        &text,
        "lb_refused_flows_total{service=\"www_hello\",reason=\"no-backend\"} 2.0",
    );
    has(
        &text,
        "lb_refused_flows_total{service=\"www_hello\",reason=\"denied\"} 1.0",
    );
    has(&text, "lb_refused_flows_total{reason=\"unknown\"} 17.0");
    let connects = "lb_connect_duration_seconds";
    let hello = "service=\"www_hello\"";
    for (bound, count) in [
        ("0.000064", 588),
        ("0.000256", 588),
        ("0.000512", 600),
        ("+Inf", 600),
    ] {
        let line = format!("{connects}_bucket{{le=\"{bound}\",{hello}}} {count}");
        has(&text, &line);
    }
    has(&text, &format!("{connects}_sum{{{hello}}} 0.024"));
    has(&text, &format!("{connects}_count{{{hello}}} 600"));
    has(&text, "lb_views 0.0");
    has(
        &text,
        "lb_backend_connect_failures_total{service=\"www_hello\"} 1.0",
    );
    has(&text, "lb_map_capacity{map=\"BACKENDS\"} 16384.0");
    has(&text, "lb_program_attached{hook=\"connect4\"} 1.0");
    has(&text, "lb_source_up{source=\"consul\"} 0.0");
    has(&text, "lb_source_data_age_seconds{source=\"consul\"} 192.0");
    has(&text, "lb_config_refused_entries{kind=\"service\"} 1.0");
    has(&text, "process_x_total 1.5");
    has(&text, "lb_front_process_x_total 1.5");
    assert!(text.ends_with("# EOF\n"));
}

#[test]
fn an_instance_whose_container_ends_is_counted_as_every_other() {
    let mut snapshot = sample::snapshot();
    let hello = snapshot.services.get_mut(&ServiceName::whole("www_hello"));
    let hello = std::sync::Arc::make_mut(hello.unwrap());
    hello.backends.values_mut().for_each(|it| it.leaving = true);
    let count = hello.backends.len();
    let text = text_of(&compose(sample::material(Some(&snapshot), None)));
    has(
        &text,
        &format!("lb_backends{{state=\"leaving\"}} {count}.0"),
    );
    let labels = "service=\"www_hello\",state=\"leaving\"";
    has(&text, &format!("lb_service_backends{{{labels}}} {count}.0"));
}

#[test]
fn ten_thousand_services_have_as_many_series_each_as_one_has() {
    let (snapshot, stats) = (sample::snapshot(), sample::stats());
    let mut report = compose(sample::material(Some(&snapshot), Some(&stats)));
    let services = report.services.as_mut().unwrap();
    let one = services.iter().find(|it| it.label == "www_hello");
    let one = one.unwrap().clone();
    let named = |number| Service {
        label: format!("service-{number}"),
        ..one.clone()
    };
    *services = (0..10_000).map(named).collect();
    let text = text_of(&report);
    let series = || text.lines().filter(|line| !line.starts_with('#'));
    let of_one = series()
        .filter(|line| line.contains("\"service-7\""))
        .count();
    let (all, bytes) = (series().count(), text.len());
    println!("10,000 services: {all} series, {of_one} for each, {bytes} bytes");
    assert!(of_one <= 30, "{of_one}");
    assert!(all <= 10_000 * of_one + 100, "{all}");
}

#[test]
fn what_is_not_known_has_no_sample() {
    let text = text_of(&compose(sample::material(None, None)));
    for name in ["lb_services", "lb_flows", "lb_map_entries", "lb_program"] {
        assert!(!text.contains(name), "{name} in\n{text}");
    }
}

#[test]
fn a_hostile_service_name_stays_inside_its_label() {
    let mut report = compose(sample::material(Some(&sample::snapshot()), None));
    let services = report.services.as_mut().unwrap();
    services[0].label = "a\"} 1\nlb_ready 0\\".to_owned();
    let text = text_of(&report);
    has(&text, "lb_ready 1.0");
    assert!(!text.lines().any(|line| line.starts_with("lb_ready 0")));
}

#[test]
fn a_subject_of_an_unknown_kind_is_other() {
    assert_eq!(kind("service x"), "service");
    assert_eq!(kind("10.1.2.3 whatever"), "other");
    assert_eq!(kind(""), "other");
}
