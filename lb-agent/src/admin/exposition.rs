//! In which of the two formats of Prometheus `/metrics` is answered, and whether compressed.
//!
//! The registry writes OpenMetrics. What asks for nothing, such as `promtool check metrics` or `curl`, is given the classic
//! text format instead, which differs in three things: a counter's family has the name of its samples, there are no
//! units, and there is no end mark.

use std::io::Write as _;

use axum::{
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use flate2::{Compression, write::GzEncoder};
use tokio::task::spawn_blocking;

/// The metrics as whoever sent these `headers` wants them.
pub(super) async fn answer(headers: &HeaderMap, text: String) -> Response {
    let format = Format::wanted(headers);
    let wanted = wants_gzip(headers);
    // Ten thousand services are megabytes, whose work would hold up a thread of everybody.
    let work = spawn_blocking(move || {
        let text = format.of(text);
        match wanted.then(|| gzip(text.as_bytes())) {
            Some(Ok(packed)) => (true, packed),
            _ => (false, text.into_bytes()),
        }
    });
    let Ok((is_packed, body)) = work.await else {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    };
    let mut answer = body.into_response();
    let all = answer.headers_mut();
    if is_packed {
        let coding = HeaderValue::from_static("gzip");
        all.insert(header::CONTENT_ENCODING, coding);
    }
    let kind = HeaderValue::from_static(format.content_type());
    all.insert(header::CONTENT_TYPE, kind);
    let varies = HeaderValue::from_static("accept, accept-encoding");
    all.insert(header::VARY, varies);
    answer
}

/// At the lowest level: for text that repeats itself the others gain little and cost much.
fn gzip(text: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut out = GzEncoder::new(Vec::with_capacity(text.len() / 8), Compression::fast());
    out.write_all(text)?;
    out.finish()
}

/// Whether gzip is named and not refused (RFC 9110, section 12.5.3); what takes anything, by `*`, need not be able to
/// unpack it.
fn wants_gzip(headers: &HeaderMap) -> bool {
    let all = headers.get_all(header::ACCEPT_ENCODING).iter();
    let codings = all.filter_map(|value| value.to_str().ok());
    let mut codings = codings.flat_map(|value| value.split(','));
    codings.any(|it| quality(it, "gzip").or_else(|| quality(it, "x-gzip")) > Some(0.0))
}

/// A format of the metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    /// Prometheus' text format 0.0.4.
    Classic,
    /// OpenMetrics 1.0.
    OpenMetrics,
}

impl Format {
    /// OpenMetrics only for those who prefer it by name.
    pub(super) fn wanted(headers: &HeaderMap) -> Self {
        let accept = headers.get_all(header::ACCEPT).iter();
        let ranges = accept.filter_map(|value| value.to_str().ok());
        let ranges: Vec<_> = ranges.flat_map(|value| value.split(',')).collect();
        let quality = |name: &str| {
            let of_name = ranges.iter().filter_map(|range| quality(range, name));
            of_name.fold(0.0, f32::max)
        };
        let open = quality("application/openmetrics-text");
        if open > 0.0 && open >= quality("text/plain") {
            Self::OpenMetrics
        } else {
            Self::Classic
        }
    }

    pub(super) fn content_type(self) -> &'static str {
        match self {
            Self::Classic => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }

    /// The text of the registry, which is OpenMetrics, in this format.
    pub(super) fn of(self, text: String) -> String {
        match self {
            Self::Classic => classic(&text),
            Self::OpenMetrics => text,
        }
    }
}

/// The `q` of a media range of this name (RFC 9110, section 12.4.2); one that makes no sense counts as 0.
fn quality(range: &str, name: &str) -> Option<f32> {
    let mut parts = range.split(';').map(str::trim);
    if !parts.next()?.eq_ignore_ascii_case(name) {
        return None;
    }
    let weight = parts.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
    Some(weight.map_or(1.0, |weight| weight.parse().unwrap_or_default()))
}

fn classic(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + text.len() / 16);
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            // What it is stands in the next line.
            let kind = lines.next_if(|next| next.starts_with("# TYPE "));
            let kind = kind.and_then(|line| line.rsplit_once(' '));
            let kind = kind.map_or("untyped", |(_, kind)| kind);
            let (name, help) = help.split_once(' ').unwrap_or((help, ""));
            let suffix = match kind {
                "counter" => "_total",
                _ => "",
            };
            out += &format!("# HELP {name}{suffix} {help}\n# TYPE {name}{suffix} {kind}\n");
        } else if !line.starts_with('#') {
            out.push_str(line);
            out.push('\n');
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(accept: &[&'static str]) -> Format {
        let mut headers = HeaderMap::new();
        for value in accept {
            headers.append(header::ACCEPT, value.parse().unwrap());
        }
        Format::wanted(&headers)
    }

    #[test]
    fn openmetrics_is_for_those_who_prefer_it_by_name() {
        let prometheus = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        for open in [
            &[prometheus][..],
            &["application/openmetrics-text"],
            &["text/html", "Application/OpenMetrics-Text; version=1.0.0"],
            &["text/plain;q=0.5, application/openmetrics-text;q=0.5"],
        ] {
            assert_eq!(wanted(open), Format::OpenMetrics, "{open:?}");
        }
        for classic in [
            &[][..],
            &["*/*"],
            &["text/plain;version=0.0.4"],
            &["application/openmetrics-text;q=0"],
            &["application/openmetrics-text;q=0.5,text/plain"],
            &["application/openmetrics-text;q=soon"],
            &["application/openmetrics-textual"],
        ] {
            assert_eq!(wanted(classic), Format::Classic, "{classic:?}");
        }
    }

    #[test]
    fn gzip_is_for_those_who_name_it() {
        let wants = |accepts: &'static str| {
            let value = HeaderValue::from_static(accepts);
            wants_gzip(&HeaderMap::from_iter([(header::ACCEPT_ENCODING, value)]))
        };
        for yes in ["gzip", "deflate, gzip;q=1.0, *;q=0.5", "br, GZIP", "x-gzip"] {
            assert!(wants(yes), "{yes}");
        }
        for no in ["", "identity", "*", "gzip;q=0", "deflate, br", "gzipped"] {
            assert!(!wants(no), "{no}");
        }
        assert!(!wants_gzip(&HeaderMap::new()));
    }

    #[test]
    fn in_the_classic_format_a_counter_has_the_name_of_its_samples() {
        let text = "# HELP lb_flows Flows.\n# TYPE lb_flows counter\nlb_flows_total{a=\"# EOF\"} 1.0\n\
                    # HELP lb_x_seconds Times.\n# TYPE lb_x_seconds histogram\n# UNIT lb_x_seconds seconds\n\
                    lb_x_seconds_sum 1.0\nlb_x_seconds_count 2\n# EOF\n";
        let classic = "# HELP lb_flows_total Flows.\n# TYPE lb_flows_total counter\nlb_flows_total{a=\"# EOF\"} 1.0\n\
                       # HELP lb_x_seconds Times.\n# TYPE lb_x_seconds histogram\n\
                       lb_x_seconds_sum 1.0\nlb_x_seconds_count 2\n";
        assert_eq!(Format::Classic.of(text.to_owned()), classic);
        assert_eq!(Format::OpenMetrics.of(text.to_owned()), text);
    }
}
