//! The front, against HAProxy and nginx.

use super::{ratio, row};
use crate::bench::sheet::{
    Better::Less,
    Goal::Reaches,
    Over::{Haproxy, Nginx},
    Ratio, Sheet, Table,
    Unit::{Kilobytes, Mean},
};

pub(super) fn front() -> Sheet {
    let (mut ratios, mut calls) = (Vec::new(), Vec::new());
    for (prefix, what) in [
        ("", "small requests"),
        ("connect_", "a connection for each request"),
        ("large_body_", "large bodies"),
        ("websocket_", "WebSocket"),
        ("http2_", "HTTP/2"),
        ("tls_", "TLS"),
        ("tls_connect_", "a TLS handshake for each"),
    ] {
        let of = |name: &str, said, over| ratio(&format!("{prefix}{name}"), what, said, over);
        let small = |ratio: Ratio, goal| match prefix {
            "" => ratio.goal(goal),
            _ => ratio,
        };
        let cpu = of("cpu_ratio_haproxy", "CPU", Haproxy).better(Less);
        let p99 = of("p99_ratio_haproxy", "p99", Haproxy).better(Less);
        ratios.extend([
            small(cpu, Reaches(1.15)),
            of("cpu_ratio_nginx", "CPU", Nginx).better(Less),
            small(p99, Reaches(1.0)),
            match prefix {
                "large_body_" => of("ratio_haproxy", "rate", Haproxy).goal(Reaches(1.0)),
                _ => of("rps_ratio_haproxy", "rate", Haproxy),
            },
        ]);
        let keys = ["", "haproxy_", "nginx_"].map(|it| format!("{prefix}{it}syscalls_per_request"));
        let counted = row(what, &keys.each_ref().map(|it| &**it), Mean);
        calls.push(match prefix {
            "" => counted.at_most_of(
                "haproxy_syscalls_per_request",
                1.0,
                1.0,
                "HAProxy's and one",
            ),
            _ => counted,
        });
    }
    let idle = ["idle_conn_kb", "haproxy_idle_conn_kb", "nginx_idle_conn_kb"];
    let proxies = |name, rows| Table {
        name,
        head: vec!["front", "HAProxy", "nginx"],
        rows,
    };
    Sheet {
        ratios,
        tables: vec![
            proxies("system calls for each request", calls),
            proxies(
                "memory",
                vec![row("an idle connection", &idle, Kilobytes).at_most(16.0)],
            ),
        ],
        repeated: Vec::new(),
    }
}
