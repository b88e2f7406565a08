//! How clients are balanced by their packets, and what people see of that.

use std::{fs, thread};

use lb_testkit::eventually;

use super::{Place, goes_on};
use crate::kit::{LIMIT, World, connect, greeting};

#[test]
fn a_client_that_no_hook_sees_is_balanced_by_its_packets_and_seen() {
    let place = Place::new();
    let world = &place.world;
    let (to_a, to_b) = (place.flow_to("a"), place.flow_to("b"));
    goes_on(&to_a, "a");
    goes_on(&to_b, "b");
    // Nobody has this port.
    connect(&place.client, place.vip, 81).unwrap_err();

    let status = world.ask(&["status"]);
    assert!(status.out.contains("1 device of clients: "), "{status:?}");
    let listed = world.ask(&["flows", "www_hello", "-o", "json"]).json();
    let packets = listed["packets"].as_array().unwrap();
    let way = |backend: &str| {
        let mut all = packets.iter();
        let flow = all.find(|it| it["backend"] == backend && it["state"] == "established");
        flow.unwrap_or_else(|| panic!("{listed:#}"))["way"].clone()
    };
    assert_eq!(
        [way("file/a"), way("file/b")],
        ["destination", "destination"]
    );
    let from = to_a.local_addr().unwrap().to_string();
    let vip = format!("{}:80", place.vip);
    let explained = world.ask(&["explain", &from, &vip]);
    assert!(
        explained.out.contains("file/a at 10.78.2.2")
            && explained.out.contains("as the packets before it"),
        "{explained:?}"
    );
    let metrics = || world.page("/metrics").unwrap().body;
    let counted = eventually(LIMIT, || {
        let metrics = metrics();
        let flows = metrics
            .lines()
            .find_map(|it| it.strip_prefix("lb_packet_flows_total{service=\"www_hello\"} "))
            .and_then(|it| it.parse::<f64>().ok());
        match flows {
            Some(flows) if flows >= 2.0 => Ok(()),
            _ => Err(metrics),
        }
    });
    counted.unwrap_or_else(|late| panic!("{late}"));
    assert!(metrics().contains("lb_packet_program_attached{device=\"lb-client\",role=\"client\""));

    // What is forgotten in the midst is one of no flow, and TCP is told.
    let flushed = world.ask(&["flows", "--flush", "--client", "10.78.1.2"]);
    assert!(flushed.out.contains("flows are forgotten"), "{flushed:?}");
    let listed = world.ask(&["flows", "-o", "json"]).json();
    assert_eq!(
        listed["packets"].as_array().map(Vec::len),
        Some(0),
        "{listed:#}"
    );
    place.world.finish();
}

#[test]
fn packets_are_followed_and_written_to_a_file() {
    let place = Place::new();
    let file = place.world.path("www.pcap");
    let file_name = file.display().to_string();
    let arguments = [
        "trace",
        "--packets",
        "www_hello",
        "--count",
        "6",
        "--pcap",
        &file_name,
        "-o",
        "json",
    ];
    let traced = thread::scope(|scope| {
        let tracing = scope.spawn(|| place.world.ask(&arguments));
        // From when on packets are told is not known here, so there are some until enough were.
        let enough = eventually(LIMIT, || {
            let flow = connect(&place.client, place.vip, 80).map_err(|error| error.to_string())?;
            greeting(&flow).map_err(|error| error.to_string())?;
            match tracing.is_finished() {
                true => Ok(()),
                false => Err("not enough packets are told".to_owned()),
            }
        });
        enough.unwrap_or_else(|late| panic!("{late}\n{}", place.world.said()));
        tracing.join().unwrap()
    });
    assert_eq!(traced.code, Some(0), "{traced:?}");
    let packets: Vec<serde_json::Value> = traced
        .out
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(packets.len(), 6, "{traced:?}");
    let is_sent = |it: &&serde_json::Value| it["destination"] == place.vip.to_string();
    let sent = packets.iter().find(is_sent).unwrap();
    assert_eq!(
        (
            &sent["device"],
            &sent["protocol"],
            &sent["destination_port"]
        ),
        (&"lb-client".into(), &"tcp".into(), &80.into())
    );
    // The magic number of files with nanoseconds.
    let written = fs::read(file).unwrap();
    assert_eq!(written[..4], 0xa1b2_3c4d_u32.to_le_bytes());
    assert!(written.len() > 24 + 6 * (16 + 54));
    place.world.finish();
}

/// The number in the metric of this name and these labels.
fn metric(world: &World, name: &str) -> Option<f64> {
    let page = world.page("/metrics").ok()?.body;
    let line = page.lines().find_map(|it| it.strip_prefix(name));
    line?.trim().parse().ok()
}

#[test]
fn flows_that_a_table_leads_elsewhere_or_that_end_are_counted_and_told() {
    let place = Place::new();
    let world = &place.world;
    let (to_a, to_b) = (place.flow_to("a"), place.flow_to("b"));
    let await_metric = |name: &str, value: f64| {
        let reached = eventually(LIMIT, || match metric(world, name) {
            Some(it) if it == value => Ok(()),
            it => Err(format!("{name}: {it:?}, not {value}")),
        });
        reached.unwrap_or_else(|late| panic!("{late}\n{}", world.said()));
    };
    let elsewhere = "lb_packet_elsewhere_flows{service=\"www_hello\"}";
    await_metric("lb_packet_ended_flows_total", 0.0);
    let drain = world.ask(&["drain", "www_hello/a", "--deadline", "60s"]);
    assert_eq!(drain.code, Some(0), "{drain:?}");
    await_metric(elsewhere, 1.0);
    let said = world.said();
    let line = said.lines().find(|it| it.contains("the table changed"));
    let line = line.unwrap_or_else(|| panic!("{said}"));
    assert!(
        line.contains("elsewhere=1") && line.contains("flows=2"),
        "{line}"
    );
    let status = world.ask(&["status"]).out;
    let word = "open flows where the table leads no more: 1";
    assert!(status.contains(word), "{status}");
    goes_on(&to_a, "a");
    let undone = world.ask(&["drain", "www_hello/a", "--undo"]);
    assert_eq!(undone.code, Some(0), "{undone:?}");
    // Those that stray are counted again after a while, and at each change.
    await_metric(elsewhere, 0.0);

    place.publish(&[1]);
    await_metric("lb_packet_ended_flows_total", 1.0);
    let said = world.said();
    assert!(
        said.contains("flows ended: their backend is gone"),
        "{said}"
    );
    greeting(&to_a).unwrap_err();
    goes_on(&to_b, "b");
    place.world.finish();
}
