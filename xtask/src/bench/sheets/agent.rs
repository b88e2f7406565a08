//! The agent as a whole: how soon a change arrives, what clients notice of a failure, and what it takes to look.

use super::{measured, row};
use crate::bench::sheet::{
    Sheet,
    Unit::{Count, Megabytes, Milliseconds, Seconds},
};

pub(super) fn discovery() -> Sheet {
    let ms = |what, key| row(what, &[key], Milliseconds);
    Sheet {
        ratios: Vec::new(),
        tables: vec![measured(
            "discovery",
            vec![
                ms("Consul's answer to the map, median", "answer_to_map_p50_ms").at_most(5.0),
                ms("the same, 99th percentile", "answer_to_map_p99_ms").at_most(25.0),
                ms(
                    "a change to the map, 99th percentile",
                    "register_to_map_p99_ms",
                ),
                ms(
                    "Consul's answer to the front, median",
                    "answer_to_front_p50_ms",
                ),
                ms(
                    "the same to the front, 99th percentile",
                    "answer_to_front_p99_ms",
                ),
                ms(
                    "a change to the front, 99th percentile",
                    "register_to_front_p99_ms",
                ),
                ms(
                    "a change to the map over plain HTTP, 99th percentile",
                    "plain_http_p99_ms",
                )
                .at_most(2000.0),
                ms("the same with 60 services", "plain_http_few_p99_ms").at_most_of(
                    "register_to_map_p99_ms",
                    1.0,
                    0.0,
                    "as over HTTPS",
                ),
                ms(
                    "the kill of a container to the map, 99th percentile",
                    "kill_p99_ms",
                )
                .at_most(100.0),
                row(
                    "Consul's services are in the map after",
                    &["consul_load_s"],
                    Seconds,
                ),
                row(
                    "a file of 10,000 services is in the map after",
                    &["full_load_s"],
                    Seconds,
                )
                .at_most(3.0),
                ms("one change of it, median", "one_change_ms").at_most(10.0),
                ms("the same change, 99th percentile", "one_change_p99_ms"),
                row("memory of the agent after that", &["rss_mb"], Megabytes).at_most(250.0),
            ],
        )],
        repeated: Vec::new(),
    }
}

pub(super) fn failover() -> Sheet {
    let count = |what, key| row(what, &[key], Count);
    Sheet {
        ratios: Vec::new(),
        tables: vec![measured(
            "flows",
            vec![
                count("failed after a backend was killed", "refused_failed").at_most_of(
                    "refused_in_flight",
                    1.0,
                    0.0,
                    "those in flight",
                ),
                count("in flight at the first refusal", "refused_in_flight"),
                row(
                    "a silent backend is suspected after",
                    &["blackhole_suspicion_ms"],
                    Milliseconds,
                ),
                count("failed at a silent backend", "blackhole_failed"),
                count(
                    "of these begun after the suspicion",
                    "blackhole_new_flows_after_suspicion",
                )
                .at_most(0.0),
                count("begun to a drained backend", "drained_new_flows").at_most(0.0),
                count("failed during the drain", "drained_failed").at_most(0.0),
                count("flows in all", "flows"),
            ],
        )],
        repeated: Vec::new(),
    }
}

pub(super) fn seeing() -> Sheet {
    let ms = |what, key| row(what, &[key], Milliseconds);
    Sheet {
        ratios: Vec::new(),
        tables: vec![measured(
            "looking",
            vec![
                ms(
                    "`lb-agent status` among 1,000 services, median",
                    "status_ms",
                )
                .at_most(50.0),
                ms("the same command, 99th percentile", "status_p99_ms"),
                ms("the page among 1,000 services, median", "page_ms").at_most(200.0),
                ms("the same page, 99th percentile", "page_p99_ms"),
                ms("a scrape among 1,000 services, median", "metrics_ms"),
                ms("the same scrape, 99th percentile", "metrics_p99_ms"),
                ms(
                    "`lb-agent status` among 10,000, median",
                    "status_at_10000_ms",
                ),
                ms("the page among 10,000, median", "page_at_10000_ms"),
                ms(
                    "a search on the page among 10,000, median",
                    "search_at_10000_ms",
                ),
            ],
        )],
        repeated: Vec::new(),
    }
}
