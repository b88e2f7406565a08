//! The short form of the bench, from beginning to end. Needs root, and the packages of the rivals in `LB_RIVALS`.

use std::process::Command;

use serde_json::Value;

#[test]
fn the_last_line_has_every_figure_and_no_program_runs_while_data_flows() {
    let output = Command::new(env!("CARGO_BIN_EXE_lb-bench"))
        .args(["socket", "--quick"])
        .output()
        .unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    let complaint = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{complaint}");
    let last = said.lines().last().unwrap();
    let figures: serde_json::Map<String, Value> = serde_json::from_str(last).unwrap();
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
