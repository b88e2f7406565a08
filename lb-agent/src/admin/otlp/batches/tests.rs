use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use prometheus_client::registry::Registry;
use prost::Message as _;

use super::*;
use crate::admin::{
    compose::compose,
    figures::{Figure, Figures, Sample as Told},
    sample,
};

const AGENT: u64 = 1_700_000_000;
const FRONT: u64 = 1_600_000_000;

fn about() -> About {
    let at = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
    About {
        host: "h1".to_owned(),
        now: at(AGENT + 60),
        agent: at(AGENT),
        front: Some(at(FRONT)),
    }
}

fn texts() -> Texts {
    let (snapshot, stats) = (sample::snapshot(), sample::stats());
    let report = compose(sample::material(Some(&snapshot), Some(&stats)));
    let process = vec![
        Figure::counter("process_cpu_seconds", "Time.", vec![Told::plain(1.5)]),
        Figure::gauge("process_open_fds", "Open.", vec![Told::plain(9.0)]),
    ];
    let front = process.clone();
    let mut others = Registry::with_prefix("lb");
    others.register_collector(Box::new(Figures::new(|| {
        let count = |name, service| {
            let one = Told::labelled([("service", service)], 3.0);
            Figure::counter(name, "Counts \\ \"it\".", vec![one])
        };
        vec![
            count("http_requests", "a\"} 1\n"),
            count("suspicions", "b"),
            Figure::counter("http_sent_bytes", "Sent.", vec![Told::plain(7.0)]),
        ]
    })));
    Texts::encode(&report, true, process, front, &others).unwrap()
}

/// Over the wire and back.
fn received(most: usize) -> Vec<ExportMetricsServiceRequest> {
    let (texts, about) = (texts(), about());
    let mut batches = Batches::new(&texts, &about);
    batches.most = most;
    batches
        .map(|batch| {
            let bytes = batch.message(&about).encode_to_vec();
            ExportMetricsServiceRequest::decode(&*bytes).unwrap()
        })
        .collect()
}

fn metrics(messages: Vec<ExportMetricsServiceRequest>) -> Vec<Metric> {
    let resources = messages.into_iter().flat_map(|it| it.resource_metrics);
    let scopes = resources.flat_map(|it| it.scope_metrics);
    scopes.flat_map(|it| it.metrics).collect()
}

fn text(attributes: &[KeyValue]) -> Vec<(&str, &str)> {
    let told = attributes.iter().map(|it| {
        let Some(Value::StringValue(text)) = it.value.as_ref().and_then(|it| it.value.as_ref())
        else {
            panic!("{it:?}")
        };
        (it.key.as_str(), text.as_str())
    });
    told.collect()
}

#[test]
fn every_message_says_whose_it_is() {
    for message in received(10) {
        let resource = message.resource_metrics[0].resource.as_ref().unwrap();
        let told: BTreeMap<_, _> = text(&resource.attributes).into_iter().collect();
        assert_eq!(told["service.name"], "lb-agent");
        assert_eq!(told["service.version"], env!("CARGO_PKG_VERSION"));
        assert_eq!(
            (told["host.name"], told["service.instance.id"]),
            ("h1", "h1")
        );
    }
}

#[test]
fn counters_are_sums_since_whoever_counts_began_and_gauges_are_gauges() {
    let all = metrics(received(POINTS));
    let find = |name: &str| {
        let found = all.iter().find(|it| it.name == name);
        found.unwrap_or_else(|| panic!("no {name}"))
    };
    let sum = |name: &str| match &find(name).data {
        Some(Data::Sum(sum)) => {
            assert!(sum.is_monotonic, "{name}");
            assert_eq!(
                sum.aggregation_temporality(),
                AggregationTemporality::Cumulative
            );
            let point = &sum.data_points[0];
            assert_eq!(point.time_unix_nano, (AGENT + 60) * 1_000_000_000);
            (point.clone(), point.start_time_unix_nano / 1_000_000_000)
        }
        other => panic!("{name}: {other:?}"),
    };
    let (requests, since) = sum("lb_http_requests_total");
    assert_eq!(since, FRONT);
    assert_eq!(text(&requests.attributes), [("service", "a\"} 1\n")]);
    assert_eq!(
        requests.value,
        Some(number_data_point::Value::AsDouble(3.0))
    );
    assert_eq!(
        find("lb_http_requests_total").description,
        "Counts \\ \"it\"."
    );
    assert_eq!(sum("lb_suspicions_total").1, AGENT);
    assert_eq!(sum("process_cpu_seconds_total").1, AGENT);
    assert_eq!(sum("lb_front_process_cpu_seconds_total").1, FRONT);
    // The kernel's maps outlive agents: nobody knows since when.
    for name in ["lb_flows_total", "lb_backend_failures_total"] {
        assert_eq!(sum(name).1, 0, "{name}");
    }
    for (name, unit) in [
        ("process_cpu_seconds_total", "s"),
        ("lb_start_time_seconds", "s"),
        ("lb_http_sent_bytes_total", "By"),
        ("lb_flows_total", ""),
    ] {
        assert_eq!(find(name).unit, unit, "{name}");
    }
    let Some(Data::Gauge(gauge)) = &find("lb_ready").data else {
        panic!("no gauge")
    };
    assert_eq!(gauge.data_points[0].start_time_unix_nano, 0);
}

#[test]
fn a_histogram_counts_what_is_between_its_bounds() {
    let all = metrics(received(POINTS));
    let name = "lb_connect_duration_seconds";
    let connects = all.iter().find(|it| it.name == name).unwrap();
    assert_eq!(connects.unit, "s");
    let Some(Data::Histogram(histogram)) = &connects.data else {
        panic!("{connects:?}")
    };
    let hello = histogram.data_points.iter();
    let mut hello = hello.filter(|it| text(&it.attributes) == [("service", "www_hello")]);
    let point = hello.next().unwrap();
    assert!(hello.next().is_none());
    // As `metrics.rs` has it: 588 up to 64 µs, 12 more up to 512 µs.
    assert_eq!((point.count, point.sum), (600, Some(0.024)));
    assert_eq!(point.bucket_counts.len(), point.explicit_bounds.len() + 1);
    assert_eq!(point.explicit_bounds[0], 0.000_064);
    assert_eq!(&point.bucket_counts[..4], [588, 0, 0, 12]);
    assert_eq!(point.bucket_counts.iter().sum::<u64>(), 600);
}

/// Each point by its name and attributes.
fn points(all: &[Metric]) -> Vec<(String, String)> {
    let mut points = Vec::new();
    for metric in all {
        match &metric.data {
            Some(Data::Histogram(it)) => points.extend(
                it.data_points
                    .iter()
                    .map(|it| (metric.name.clone(), format!("{it:?}"))),
            ),
            Some(Data::Sum(Sum { data_points, .. }) | Data::Gauge(Gauge { data_points })) => {
                points.extend(
                    data_points
                        .iter()
                        .map(|it| (metric.name.clone(), format!("{it:?}"))),
                );
            }
            other => panic!("{other:?}"),
        }
    }
    points
}

#[test]
fn small_messages_hold_the_same_points_and_tear_no_histogram() {
    let whole = points(&metrics(received(POINTS)));
    assert!(whole.len() > 60, "{}", whole.len());
    for most in [1, 2, 7, 50] {
        let messages = received(most);
        assert!(messages.len() >= whole.len() / most);
        for message in &messages {
            let some = points(&metrics(vec![message.clone()]));
            assert!((1..=most).contains(&some.len()), "{}", some.len());
        }
        assert_eq!(points(&metrics(messages)), whole, "{most}");
    }
}

#[test]
fn nothing_is_no_message() {
    let (texts, about) = (Texts::default(), about());
    assert!(Batches::new(&texts, &about).next().is_none());
}

#[test]
fn before_1970_is_no_time() {
    assert_eq!(nanos(SystemTime::UNIX_EPOCH - Duration::from_secs(1)), 0);
}

#[test]
fn nothing_began_after_it_was_read_although_the_clock_was_set_back() {
    let now = UNIX_EPOCH + Duration::from_secs(AGENT - 3_600);
    let about = About { now, ..about() };
    for source in [
        Source::Process,
        Source::Front,
        Source::Stages,
        Source::Kernel,
    ] {
        assert!(about.start(source, "lb_x") <= nanos(now), "{source:?}");
    }
    let front = UNIX_EPOCH + Duration::from_secs(FRONT);
    let early = About {
        now: front,
        ..about
    };
    assert_eq!(early.start(Source::Front, "lb_x"), FRONT * 1_000_000_000);
}
