//! What a request may take, and how often.

use super::*;

#[test]
fn retries_are_a_few() {
    for (text, retries) in [("0", 0), ("5", 5)] {
        let rules = Rules {
            retries: Some(retries),
            ..Rules::default()
        };
        ruled(&format!("lb_retries={text}"), rules);
    }
    for wrong in ["", "6", "-1", "300", "two", "1.5"] {
        check_wrong(&format!("lb_retries={wrong}"), "from 0 to 5");
    }
}

#[test]
fn a_body_has_a_size() {
    for (text, bytes) in [
        ("0", 0),
        ("65536", 65_536),
        ("512KiB", 512 * 1024),
        ("10MiB", 10 * 1024 * 1024),
        ("2GiB", 2 * 1024 * 1024 * 1024),
        ("off", u64::MAX),
    ] {
        let rules = Rules {
            max_body: Some(bytes),
            ..Rules::default()
        };
        ruled(&format!("lb_max_body={text}"), rules);
    }
    for wrong in ["", "-1", "10M", "10 MiB", "MiB", "99999999999GiB", "none"] {
        check_wrong(&format!("lb_max_body={wrong}"), "10MiB");
    }
}

#[test]
fn a_silence_is_a_time() {
    for (text, milliseconds) in [("1h", 3_600_000), ("500ms", 500)] {
        let rules = Rules {
            idle_milliseconds: Some(milliseconds),
            ..Rules::default()
        };
        ruled(&format!("lb_idle={text}"), rules);
    }
    for wrong in ["0", "25h", "off"] {
        check_wrong(&format!("lb_idle={wrong}"), "at most a day");
    }
}

#[test]
fn a_timeout_is_a_time() {
    for (text, milliseconds) in [("5", 5_000), ("500ms", 500), ("24h", 86_400_000)] {
        let rules = Rules {
            timeout_milliseconds: Some(milliseconds),
            ..Rules::default()
        };
        ruled(&format!("lb_timeout={text}"), rules);
    }
    for wrong in ["", "0", "0ms", "25h", "-1", "off", "5 s"] {
        check_wrong(&format!("lb_timeout={wrong}"), "at most a day");
    }
}

#[test]
fn a_rate_is_a_number_of_requests_in_a_time_and_a_burst() {
    let rate = |requests, seconds, burst| Rules {
        rate: Some(Rate {
            requests,
            seconds,
            burst,
        }),
        ..Rules::default()
    };
    ruled("lb_rate=off", Rules::default());
    for (text, rules) in [
        ("10", rate(10, 1, 10)),
        ("10/s", rate(10, 1, 10)),
        ("600/m", rate(600, 60, 10)),
        ("601/m", rate(601, 60, 11)),
        ("5/h", rate(5, 3600, 1)),
        ("10/s burst 20", rate(10, 1, 20)),
        ("1  burst  1", rate(1, 1, 1)),
        ("1000000 burst 1000000", rate(1_000_000, 1, 1_000_000)),
    ] {
        ruled(&format!("lb_rate={text}"), rules);
    }
    for wrong in [
        "",
        "0",
        "0/m",
        "-1",
        "1.5",
        "1000001",
        "10/d",
        "10/",
        "/s",
        "10 / s",
        "10 burst",
        "10 burst 0",
        "10 20",
        "10 burst 5 6",
        "burst 5",
        "10 brust 5",
    ] {
        check_wrong(&format!("lb_rate={wrong}"), "from 1 to 1000000");
    }
}
