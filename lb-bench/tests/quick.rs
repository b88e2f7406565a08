//! The short forms of benches, from beginning to end. Needs root, and the packages of the rivals in `LB_RIVALS`.
#![expect(clippy::unwrap_used, reason = "a failed step is a failed test")]

use std::{
    process::Command,
    sync::{Mutex, PoisonError},
};

use serde_json::{Map, Value};

/// What the bench says, and the figures of its last line.
fn bench(name: &str) -> (String, Map<String, Value>) {
    /// Each would wait for the other's clients.
    static ALONE: Mutex<()> = Mutex::new(());
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let output = Command::new(env!("CARGO_BIN_EXE_lb-bench"))
        .args([name, "--quick"])
        .output()
        .unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    let complaint = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{complaint}");
    let figures = serde_json::from_str(said.lines().last().unwrap()).unwrap();
    (said, figures)
}

#[test]
fn the_fronts_last_line_has_every_figure_of_every_workload() {
    let (said, figures) = bench("front");
    let last = said.lines().last().unwrap();
    let mut names = Vec::new();
    for prefix in [
        "",
        "connect_",
        "large_body_",
        "websocket_",
        "http2_",
        "tls_",
        "tls_connect_",
    ] {
        // Of large bodies requests and bytes are the same ratio.
        let rate = match prefix {
            "large_body_" => "ratio_haproxy",
            _ => "rps_ratio_haproxy",
        };
        for name in [
            "cpu_ratio_haproxy",
            "cpu_ratio_nginx",
            "p99_ratio_haproxy",
            rate,
        ] {
            let name = format!("{prefix}{name}");
            let of = |part: &str| figures[&name][part].as_f64().unwrap();
            let (low, median, high) = (of("low"), of("median"), of("high"));
            assert!(
                0.0 < low && low <= median && median <= high,
                "{name}: {last}"
            );
            names.push(name);
        }
        for of in ["", "haproxy_", "nginx_"] {
            let name = format!("{prefix}{of}syscalls_per_request");
            let counted = figures[&name].as_f64().is_some_and(|calls| calls > 0.0);
            // Not everybody may trace.
            let uncounted = said.contains("system calls are not counted");
            assert!(counted || figures[&name].is_null() && uncounted, "{said}");
            names.push(name);
        }
    }
    for of in ["", "haproxy_", "nginx_"] {
        let name = format!("{of}idle_conn_kb");
        assert!(figures[&name].as_f64().unwrap().is_finite(), "{last}");
        names.push(name);
    }
    names.sort();
    assert!(figures.keys().eq(&names), "{last}");
}

#[test]
fn the_last_line_has_every_figure_and_no_program_runs_while_data_flows() {
    let (said, figures) = bench("socket");
    let last = said.lines().last().unwrap();
    for name in [
        "throughput_ratio",
        "rr_ratio",
        "crr_ratio",
        "bystander_ratio",
        "udp_ratio",
        "udp_unconnected_ratio",
        "ipv6_ratio",
        "rr_at_10000_services",
        "crr_at_10000_services",
        "bystander_at_10000_services",
        "throughput_over_haproxy_tcp",
        "rr_over_haproxy_tcp",
        "crr_over_haproxy_tcp",
        "ipv6_over_haproxy_tcp",
        "throughput_over_nft",
        "rr_over_nft",
        "crr_over_nft",
        "udp_over_nft",
        "udp_unconnected_over_nft",
        "ipv6_over_nft",
    ] {
        let of = |part: &str| figures[name][part].as_f64().unwrap();
        let (low, median, high) = (of("low"), of("median"), of("high"));
        assert!(
            0.0 < low && low <= median && median <= high,
            "{name}: {last}"
        );
    }
    for name in [
        "hook_ns",
        "record_ns",
        "miss_ns",
        "getpeername_ns",
        "sock_release_ns",
        "sock_ops_ns",
        "bystander_ns",
        "connect6_ns",
        "getpeername6_ns",
        "sendmsg4_ns",
        "recvmsg4_ns",
        "hook_ns_at_10000_services",
        "record_ns_at_10000_services",
        "miss_ns_at_10000_services",
        "bystander_ns_at_10000_services",
    ] {
        assert!(
            figures[name].as_f64().unwrap().is_finite(),
            "{name}: {last}"
        );
    }
    assert_eq!(figures["runs_during_transfer"], 0);
    assert_eq!(figures["runs_during_transfer_at_10000_services"], 0);
    assert_eq!(figures.len(), 37, "{last}");
}

#[test]
fn the_packet_paths_last_line_has_every_figure_of_packets_that_went_where_they_should() {
    let (said, figures) = bench("packet");
    let last = said.lines().last().unwrap();
    let intervals = [
        "tcx_rr_ratio",
        "tcx_crr_ratio",
        "tcx_throughput_ratio",
        "tcx_over_nft",
        "tcx_over_nft_rr",
        "tcx_over_nft_crr",
        "tcx_over_nft_throughput",
        "xdp_rr_ratio",
        "xdp_crr_ratio",
        "xdp_throughput_ratio",
        "xdp_over_nft",
        "xdp_over_nft_rr",
        "xdp_over_nft_crr",
        "xdp_over_nft_throughput",
        "nft_rr_ratio",
        "nft_crr_ratio",
        "nft_throughput_ratio",
        "control_rr_ratio",
        "control_crr_ratio",
        "control_throughput_ratio",
    ];
    for name in intervals {
        let of = |part: &str| figures[name][part].as_f64().unwrap();
        let (low, median, high) = (of("low"), of("median"), of("high"));
        assert!(
            0.0 < low && low <= median && median <= high,
            "{name}: {last}"
        );
    }
    let numbers = [
        "established_ns",
        "established6_ns",
        "established_tunnel_ns",
        "established_many_flows_ns",
        "primitives_ns",
        "vip_hash_ns",
        "lru_hit_ns",
        "array_ns",
        "percpu_adds_ns",
        "established_over_primitives",
        "new_ns",
        "new_tunnel_ns",
        "insert_ns",
        "new_over_insert",
        "new_tunnel_over_insert",
        "non_vip_ns",
        "maglev_build_ms",
        "publish_ms",
        "publish_p99_ms",
        "disruption",
        "disruption_of_10",
        "disruption_of_100",
    ];
    for name in numbers {
        assert!(
            figures[name].as_f64().unwrap().is_finite(),
            "{name}: {last}"
        );
    }
    // What no noise changes.
    assert!(figures["disruption"].as_f64().unwrap() <= 0.01, "{last}");
    assert_eq!(figures.len(), intervals.len() + numbers.len(), "{last}");
}
