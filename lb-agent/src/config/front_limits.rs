//! `[front.limits]`: how long and how much the front bears of clients and backends.

use std::{ops::RangeInclusive, time::Duration};

use lb_front::LimitSettings;

use super::{Given, RawConfig, resolve::Judge};
use crate::options::{parse_duration, parse_size};

pub(super) fn resolve(raw: &RawConfig, judge: &mut Judge<'_>) -> LimitSettings {
    LimitSettings {
        first_byte: judge.text(&raw.http_limits_first_byte, None, short),
        head: judge.text(&raw.http_limits_head, None, short),
        keep_alive: judge.text(&raw.http_limits_keep_alive, None, long),
        body_idle: judge.text(&raw.http_limits_body_idle, None, long),
        write_stall: judge.text(&raw.http_limits_write_stall, None, long),
        tunnel_idle: judge.text(&raw.http_limits_tunnel_idle, None, long),
        request: judge.text(&raw.http_limits_request, None, long_or_off),
        connect: judge.text(&raw.http_limits_connect, None, moment),
        response: judge.text(&raw.http_limits_response, None, long),
        queue_time: judge.text(&raw.http_limits_queue_time, None, moment),
        queue: number(judge, &raw.http_limits_queue, 0..=1_000_000),
        connections: number(judge, &raw.http_limits_connections, 64..=10_000_000),
        connections_per_client: number(
            judge,
            &raw.http_limits_connections_per_client,
            2..=1_000_000,
        ),
        backend_connections: number(judge, &raw.http_limits_backend_connections, ANY),
        streams: number(judge, &raw.http_limits_streams, 1..=1000),
        max_body: judge.text(&raw.http_limits_max_body, None, size),
    }
}

const ANY: RangeInclusive<i64> = 1..=1_000_000;

fn number<T: TryFrom<i64> + Copy + Default>(
    judge: &mut Judge<'_>,
    given: &Option<Given<i64>>,
    range: RangeInclusive<i64>,
) -> Option<T> {
    given
        .as_ref()
        .map(|_| judge.number(given, T::default(), range))
}

/// For what a client sends at once.
fn short(text: &str) -> Result<Option<Duration>, String> {
    let bounds = Duration::from_secs(1)..=Duration::from_secs(600);
    time(text, bounds, "write a time from 1s to 10m, such as 10s")
}

/// For what may rest.
fn long(text: &str) -> Result<Option<Duration>, String> {
    let bounds = Duration::from_secs(1)..=Duration::from_secs(24 * 60 * 60);
    time(text, bounds, "write a time from 1s to 24h, such as 60s")
}

/// For what is only a step on the way.
fn moment(text: &str) -> Result<Option<Duration>, String> {
    let bounds = Duration::from_millis(100)..=Duration::from_secs(60);
    time(text, bounds, "write a time from 100ms to 1m, such as 3s")
}

fn long_or_off(text: &str) -> Result<Option<Duration>, String> {
    match text {
        "off" => Ok(None),
        _ => long(text).map_err(|_| "write a time from 1s to 24h, such as 5m, or off".to_owned()),
    }
}

fn size(text: &str) -> Result<Option<u64>, String> {
    match (text, parse_size(text)) {
        ("off", _) => Ok(None),
        (_, Some(bytes)) => Ok(Some(bytes)),
        _ => Err("write bytes, such as 512KiB, 10MiB or 1GiB, or off".to_owned()),
    }
}

fn time(
    text: &str,
    bounds: RangeInclusive<Duration>,
    remedy: &str,
) -> Result<Option<Duration>, String> {
    let time = parse_duration(text).filter(|time| bounds.contains(time));
    time.map(Some).ok_or_else(|| remedy.to_owned())
}
