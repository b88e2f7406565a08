//! Balanced flows, against the direct way, HAProxy and nftables.

use super::{CRR, RR, THROUGHPUT, measured, ratio, row};
use crate::bench::sheet::{
    Goal::{Beyond, Reaches},
    Over::{Direct, Haproxy, Nftables},
    Sheet, Table,
    Unit::{Count, Nanoseconds},
};

const CRR6: &str = "connect+request+close, IPv6";
const UDP: &str = "UDP, connected";
const UDP_UNCONNECTED: &str = "UDP, unconnected";
const RECORD: &str = "1.3 of the record's";

pub(super) fn socket() -> Sheet {
    let mut ratios = Vec::new();
    let many = [
        ("throughput", THROUGHPUT, true),
        ("rr", RR, true),
        ("crr", CRR, true),
        ("ipv6", CRR6, true),
        ("udp", UDP, false),
        ("udp_unconnected", UDP_UNCONNECTED, false),
    ];
    for (key, what, proxied) in many {
        let direct = ratio(&format!("{key}_ratio"), what, "", Direct);
        ratios.push(match key {
            "rr" => direct.goal(Reaches(1.0)),
            "crr" => direct.goal(Reaches(0.97)),
            _ => direct,
        });
        if proxied {
            let haproxy = ratio(&format!("{key}_over_haproxy_tcp"), what, "", Haproxy);
            ratios.push(haproxy.goal(Beyond(1.0)));
        }
        let nftables = ratio(&format!("{key}_over_nft"), what, "", Nftables);
        ratios.push(nftables.goal(Beyond(1.0)));
    }
    ratios.extend([
        ratio("bystander_ratio", "bystander", "", Direct),
        ratio(
            "rr_at_10000_services",
            "request/response among 10,000 services",
            "",
            Direct,
        )
        .goal(Reaches(1.0)),
        ratio(
            "crr_at_10000_services",
            "connect+request+close among 10,000 services",
            "",
            Direct,
        )
        .goal(Reaches(0.97)),
        ratio(
            "bystander_at_10000_services",
            "bystander among 10,000 services",
            "",
            Direct,
        ),
    ]);
    let others = [
        ("`getpeername4` of a VIP's client", "getpeername_ns"),
        ("`sock_release` of a VIP's client", "sock_release_ns"),
        ("`sock_ops`, each run of a VIP's client", "sock_ops_ns"),
        ("`connect6` to an IPv6 VIP", "connect6_ns"),
        ("`getpeername6` of its client", "getpeername6_ns"),
        ("`sendmsg4`, a datagram to a VIP", "sendmsg4_ns"),
        ("`recvmsg4`, its answer", "recvmsg4_ns"),
    ];
    let others = others.map(|(what, key)| row(what, &[key], Nanoseconds));
    Sheet {
        ratios,
        tables: vec![
            programs(
                ["programs, net of an empty one", "`connect4` to a VIP"],
                "",
                "record_ns",
            ),
            programs(
                [
                    "the same among 10,000 services",
                    "`connect4` to a VIP among 10,000",
                ],
                "_at_10000_services",
                "record_ns_at_10000_services",
            ),
            measured("more of them", others.into()),
        ],
        repeated: Vec::new(),
    }
}

/// What programs cost, with the names of the table and of its first row: of the keys that end so, of which one is that of the
/// record's program.
fn programs([name, connect]: [&'static str; 2], end: &str, record: &'static str) -> Table {
    let one = |what, key: &str, unit| row(what, &[&format!("{key}{end}")], unit);
    let rows = vec![
        one(connect, "hook_ns", Nanoseconds).at_most_of(record, 1.3, 0.0, RECORD),
        row(
            "a program that only makes the record",
            &[record],
            Nanoseconds,
        ),
        one("`connect4` outside the pool", "miss_ns", Nanoseconds).at_most(20.0),
        one(
            "all hooks of a bystander's connection, both ends",
            "bystander_ns",
            Nanoseconds,
        )
        .at_most(300.0),
        one(
            "runs of any program while 1 GiB flows",
            "runs_during_transfer",
            Count,
        )
        .at_most(0.0),
    ];
    measured(name, rows)
}
