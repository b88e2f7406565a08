use lb_front::{FrontStats, ServiceTraffic};

use super::*;
use crate::{
    admin::sample as made,
    snapshot::{Service, ServiceName},
    stats::ServiceStats,
};

fn of(flows: Option<u64>) -> Sample {
    let mut sample = Sample::default();
    let counts = sample.services.entry("web".to_owned()).or_default();
    counts.values[Kind::Flows as usize] = flows;
    sample
}

fn rings(samples: impl IntoIterator<Item = Option<u64>>) -> Rings {
    let mut rings = Rings::default();
    for flows in samples {
        rings.add(of(flows), made::now());
    }
    rings
}

#[test]
fn a_counter_becomes_steps_and_the_first_sample_is_none() {
    let rings = rings([Some(100), Some(110), Some(110), Some(135)]);
    let line = rings.line("web", Kind::Flows);
    assert_eq!(line, [None, Some(10), Some(0), Some(25)]);
    assert_eq!(rings.rate(&line), Some(5.0));
    assert_eq!(rings.last_rate("web", Kind::Flows), Some(5.0));
    assert_eq!(rings.rate(&rings.line("none", Kind::Flows)), None);
}

#[test]
fn a_counter_that_fell_or_was_not_told_is_a_gap() {
    let rings = rings([
        Some(9),
        Some(12),
        Some(3),
        Some(4),
        None,
        Some(50),
        Some(51),
    ]);
    let line = rings.line("web", Kind::Flows);
    assert_eq!(line, [None, Some(3), None, Some(1), None, None, Some(1)]);
}

#[test]
fn the_ring_keeps_the_last_points_in_order() {
    let rings = rings((0..300u64).map(|n| Some(n * n)));
    let line = rings.line("web", Kind::Flows);
    assert_eq!(line.len(), POINTS);
    let expect: Vec<_> = (180..300u32).map(|n| Some(2 * n - 1)).collect();
    assert_eq!(line, expect);
}

#[test]
fn a_quiet_service_takes_no_ring_and_a_gone_one_nothing() {
    let mut rings = rings([Some(7), Some(7), Some(7)]);
    assert_eq!(rings.line("web", Kind::Flows), [None, Some(0), Some(0)]);
    let series = &rings.services["web"].series;
    assert!(series.iter().all(|series| series.ring.is_none()));
    rings.add(Sample::default(), made::now());
    let silent = [None, Some(0), Some(0), None];
    assert_eq!(rings.line("web", Kind::Flows), silent);
    let told = Told {
        kernel: true,
        front: true,
    };
    let none = Sample {
        told,
        ..Sample::default()
    };
    rings.add(none, made::now());
    assert!(rings.services.is_empty());
    assert_eq!(rings.last_rate("web", Kind::Flows), Some(0.0));
    assert_eq!(rings.line("web", Kind::Flows), [Some(0); 4]);
    // Who was heard and did not name it had counted nothing.
    rings.add(of(Some(5)), made::now());
    assert_eq!(rings.line("web", Kind::Flows).last(), Some(&Some(5)));
}

#[test]
fn the_rings_of_too_many_backends_are_left_out() {
    let mut rings = Rings::default();
    let sample = |services: usize, backends: usize| {
        let mut sample = Sample::default();
        for n in 0..services {
            let counts = sample.services.entry(format!("s{n}")).or_default();
            let keys = (0..backends).map(|n| (made::key("n", &format!("b{n}")), 1));
            counts.backends = keys.collect();
        }
        sample
    };
    rings.add(sample(SERVICES + 5, 3), made::now());
    assert_eq!(rings.services.len(), SERVICES);
    assert_eq!(rings.backends, BACKENDS);
    let mut fewer = sample(2, 1);
    fewer.told.kernel = true;
    rings.add(fewer, made::now());
    assert_eq!((rings.services.len(), rings.backends), (2, 2));
}

#[test]
fn requests_are_of_the_front_and_errors_are_those_without_a_good_answer() {
    let request = |class: &str, count| lb_front::TerminationCount {
        service: "web".to_owned(),
        class: class.to_owned(),
        reason: lb_front::Reason::Ok,
        count,
    };
    let mut buckets = vec![0; ServiceTraffic::BOUNDS.len() + 1];
    (buckets[1], buckets[4]) = (98, 2);
    let front = FrontStats {
        terminations: vec![request("2xx", 90), request("5xx", 8), request("none", 2)],
        traffic: vec![ServiceTraffic {
            service: "web".to_owned(),
            buckets,
            received: 3,
            sent: 5,
            ..ServiceTraffic::default()
        }],
        ..FrontStats::default()
    };
    let mut rings = Rings::default();
    rings.add(sample(&made::snapshot(), None, Some(&front)), made::now());
    let expect = Http {
        requests: 100,
        errors: 10,
        p50_microseconds: Some(2_500),
        p99_microseconds: Some(25_000),
        received: 3,
        sent: 5,
    };
    assert_eq!(rings.http("web"), Some(&expect));
}

#[test]
fn the_first_requests_of_a_service_are_a_step_and_no_gap() {
    let (stats, mut rings) = (made::stats(), Rings::default());
    let mut served = |count| {
        let requests = (count > 0).then(|| lb_front::TerminationCount {
            service: "www_hello".to_owned(),
            class: "2xx".to_owned(),
            reason: lb_front::Reason::Ok,
            count,
        });
        let front = FrontStats {
            terminations: requests.into_iter().collect(),
            ..FrontStats::default()
        };
        rings.add(
            sample(&made::snapshot(), Some(&stats), Some(&front)),
            made::now(),
        );
        rings.line("www_hello", Kind::Requests)
    };
    served(0);
    served(0);
    assert_eq!(served(7), [None, Some(0), Some(7)]);
    // Another front begins anew, and nobody knows what the last one still served.
    assert_eq!(served(0), [None, Some(0), Some(7), None]);
    assert_eq!(served(2).last(), Some(&Some(2)));
}

#[test]
fn the_last_flow_of_a_backend_is_when_its_count_last_rose() {
    let mut rings = Rings::default();
    let key = made::key("n", "a");
    let mut at = |count, seconds| {
        let mut sample = Sample::default();
        sample.told.kernel = count > 0;
        let counts = sample.services.entry("web".to_owned()).or_default();
        // Without the kernel the front may name the service all the same.
        counts.backends = (count > 0)
            .then(|| (key.clone(), count))
            .into_iter()
            .collect();
        rings.add(sample, UNIX_EPOCH + Duration::from_secs(seconds));
        rings.last_flow_unix("web", &key)
    };
    assert_eq!(at(4, 100), None);
    assert_eq!(at(5, 105), Some(105));
    assert_eq!(at(5, 110), Some(105));
    assert_eq!(at(0, 115), Some(105));
    assert_eq!(at(5, 120), Some(105));
}

#[test]
fn a_state_is_since_it_changed_and_unknown_before() {
    let mut rings = Rings::default();
    let mut snapshot = made::snapshot();
    let key = made::key("file", "a");
    let label = "www_hello";
    rings.follow(&snapshot, made::now());
    assert_eq!(rings.since_unix(label, &key), None);
    let mut service = Service::clone(&snapshot.services[&ServiceName::whole(label)]);
    let Some(backend) = service.backends.get_mut(&key) else {
        panic!("no {key}")
    };
    backend.order.mode = crate::order::Mode::Drain;
    snapshot
        .services
        .insert(ServiceName::whole(label), service.into());
    let changed = rings.follow(&snapshot, made::now());
    assert_eq!(changed, 1);
    assert_eq!(rings.since_unix(label, &key), Some(unix(made::now())));
    // The others did not change.
    let other = made::key("file", "b");
    assert_eq!(rings.since_unix(label, &other), None);
}

#[test]
fn stats_of_the_kernel_are_the_series() {
    let mut stats = made::stats();
    let mut rings = Rings::default();
    rings.add(sample(&made::snapshot(), Some(&stats), None), made::now());
    let name = ServiceName::whole("www_hello");
    let service = ServiceStats {
        flows: 1214,
        failed: 4,
        active: 8,
        ..stats.services[&name].clone()
    };
    stats.services.insert(name, service);
    rings.add(sample(&made::snapshot(), Some(&stats), None), made::now());
    let last = |kind| rings.line("www_hello", kind).last().copied().flatten();
    assert_eq!(last(Kind::Flows), Some(10));
    assert_eq!(last(Kind::Failures), Some(3));
    assert_eq!(last(Kind::Active), Some(8));
    assert_eq!(last(Kind::Requests), None);
}
