//! The packet path, against the bare primitives, the direct way and nftables.

use super::{CRR, RR, THROUGHPUT, measured, ratio, row};
use crate::bench::sheet::{
    Better::Neither,
    Goal::{Beyond, Reaches},
    Over::{Direct, Nftables},
    Sheet,
    Unit::{Milliseconds, Nanoseconds, Percent, Ratio},
};

pub(super) fn packet() -> Sheet {
    let mut ratios = Vec::new();
    for (key, what, reaches) in [
        ("rr", RR, Some(0.95)),
        ("crr", CRR, Some(0.90)),
        ("throughput", THROUGHPUT, None),
    ] {
        let of = |way: &str, over: &str| match over {
            "" => format!("{way}_{key}_ratio"),
            over => format!("{way}_over_{over}_{key}"),
        };
        let tcx = ratio(&of("tcx", ""), what, "tcx", Direct);
        ratios.push(match reaches {
            Some(line) => tcx.goal(Reaches(line)),
            None => tcx,
        });
        ratios.push(ratio(&of("xdp", ""), what, "XDP on veths", Direct));
        ratios.push(ratio(&of("nft", ""), what, "nftables", Direct).better(Neither));
        ratios
            .push(ratio(&of("control", ""), what, "the direct way again", Direct).better(Neither));
        let over = ratio(&of("tcx", "nft"), what, "tcx", Nftables);
        ratios.push(match reaches {
            Some(_) => over.goal(Beyond(1.0)),
            None => over,
        });
        ratios.push(ratio(&of("xdp", "nft"), what, "XDP on veths", Nftables));
    }
    let ns = |what, key| row(what, &[key], Nanoseconds);
    let insert = "1.4 of the insert";
    let packets = vec![
        ns("look-up of a VIP in a hash map", "vip_hash_ns"),
        ns("hit in the LRU map of flows", "lru_hit_ns"),
        ns("look-up of a backend in an array", "array_ns"),
        ns("three counts for each CPU", "percpu_adds_ns"),
        ns("all of these primitives", "primitives_ns"),
        ns("established flow, full NAT, IPv4", "established_ns").at_most_of(
            "primitives_ns",
            1.6,
            0.0,
            "1.6 of the primitives",
        ),
        row(
            "the same over the primitives",
            &["established_over_primitives"],
            Ratio,
        ),
        ns("established flow, full NAT, IPv6", "established6_ns"),
        ns("established flow, in a tunnel", "established_tunnel_ns"),
        ns(
            "established flow, 200,000 of them in turn",
            "established_many_flows_ns",
        ),
        ns("one insert into a full LRU map", "insert_ns"),
        ns("new flow, in a tunnel", "new_tunnel_ns").at_most_of("insert_ns", 1.4, 0.0, insert),
        row(
            "the same over the insert",
            &["new_tunnel_over_insert"],
            Ratio,
        ),
        ns("new flow, full NAT", "new_ns").at_most_of("insert_ns", 1.4, 0.0, insert),
        row(
            "the same over the insert, full NAT",
            &["new_over_insert"],
            Ratio,
        ),
        ns("a packet for nobody of ours", "non_vip_ns").at_most(25.0),
    ];
    let changes = vec![
        row(
            "making a table for 100 backends",
            &["maglev_build_ms"],
            Milliseconds,
        )
        .at_most(3.0),
        row(
            "publishing one change among 100 services",
            &["publish_ms"],
            Milliseconds,
        )
        .at_most(1.0),
        row(
            "the same, 99th percentile",
            &["publish_p99_ms"],
            Milliseconds,
        ),
        row(
            "moved beyond its own at the loss of one of 10",
            &["disruption_of_10"],
            Percent,
        )
        .at_most(0.01),
        row("the same of 100", &["disruption_of_100"], Percent).at_most(0.01),
    ];
    Sheet {
        ratios,
        tables: vec![
            measured("one packet, net of an empty program", packets),
            measured("tables", changes),
        ],
        repeated: vec!["tcx_over_nft", "xdp_over_nft", "disruption"],
    }
}
