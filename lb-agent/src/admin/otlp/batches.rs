//! The metrics as messages of OTLP: our own text, taken apart line by line. Pure.
//!
//! Names are those of `/metrics`, `_total` included: receivers that translate names for Prometheus come to the same
//! ones, and the others keep them. Sums and histograms are cumulative. A start that nobody knows is not told: the kernel
//! counts on while no agent runs.

use std::{iter::Peekable, str::Lines, time::SystemTime};

use opentelemetry_proto::tonic::{
    collector::metrics::v1::ExportMetricsServiceRequest,
    common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value::Value},
    metrics::v1::{
        AggregationTemporality, Gauge, Histogram, HistogramDataPoint, Metric, NumberDataPoint,
        ResourceMetrics, ScopeMetrics, Sum, metric::Data, number_data_point,
    },
    resource::v1::Resource,
};

use super::line::{Line, Sample};
use crate::admin::metrics::{Source, Texts};

/// Points of one message: about a megabyte, less than every receiver takes.
const POINTS: usize = 8_192;

/// Whose metrics they are, and since when each source has counted.
#[derive(Clone, Debug)]
pub(super) struct About {
    pub(super) host: String,
    /// When they were read.
    pub(super) now: SystemTime,
    /// When the agent started.
    pub(super) agent: SystemTime,
    /// When the front's process did; `None` if that is not known.
    pub(super) front: Option<SystemTime>,
}

/// The messages, one after another.
pub(super) struct Batches<'t> {
    about: &'t About,
    lines: Peekable<Box<dyn Iterator<Item = (Source, &'t str)> + Send + 't>>,
    family: Family<'t>,
    /// Points of one message.
    most: usize,
}

/// What the last comments said.
#[derive(Clone, Debug, Default)]
struct Family<'t> {
    name: &'t str,
    help: &'t str,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Kind {
    Counter,
    #[default]
    Gauge,
    Histogram,
}

impl<'t> Batches<'t> {
    pub(super) fn new(texts: &'t Texts, about: &'t About) -> Self {
        let of = |(source, text): (Source, &'t str)| {
            let lines: Lines<'t> = text.lines();
            lines.map(move |line| (source, line))
        };
        let lines: Box<dyn Iterator<Item = _> + Send> = Box::new(texts.by_source().flat_map(of));
        Self {
            about,
            lines: lines.peekable(),
            family: Family::default(),
            most: POINTS,
        }
    }
}

impl Iterator for Batches<'_> {
    type Item = Batch;

    fn next(&mut self) -> Option<Batch> {
        let mut batch = Batch::default();
        while let Some(&(source, text)) = self.lines.peek() {
            match Line::read(text) {
                Some(Line::Help(name, help)) => {
                    let kind = Kind::default();
                    self.family = Family { name, help, kind };
                    batch.open = false;
                }
                Some(Line::Type(_, kind)) => {
                    self.family.kind = match kind {
                        "counter" => Kind::Counter,
                        "histogram" => Kind::Histogram,
                        _ => Kind::Gauge,
                    };
                }
                Some(Line::Sample(sample)) => {
                    let point = Point::of(sample);
                    if batch.points >= self.most && batch.begins(&self.family, &point) {
                        break;
                    }
                    let start = self.about.start(source, self.family.name);
                    batch.add(&self.family, point, start, nanos(self.about.now));
                }
                None => {}
            }
            self.lines.next();
        }
        (batch.points > 0).then_some(batch)
    }
}

impl About {
    /// Since when a metric counts, in nanoseconds since 1970; 0 where that is not known. Never later than it was read, although
    /// somebody may have set the clock.
    fn start(&self, source: Source, family: &str) -> u64 {
        let front = self.front.map_or(0, nanos);
        let start = match source {
            Source::Kernel => 0,
            Source::Front => front,
            // The agent passes on what the front counts.
            Source::Stages if family.starts_with("lb_http_") => front,
            Source::Process | Source::Stages => nanos(self.agent),
        };
        start.min(nanos(self.now))
    }

    /// What all of them are of. Receivers tell series of several hosts apart by the instance.
    fn resource(&self) -> Resource {
        let attributes = [
            ("service.name", "lb-agent"),
            ("service.version", env!("CARGO_PKG_VERSION")),
            ("service.instance.id", &self.host),
            ("host.name", &self.host),
        ];
        Resource {
            attributes: attributes
                .map(|(key, text)| attribute(key, text.to_owned()))
                .into(),
            ..Resource::default()
        }
    }
}

/// One message on its way.
#[derive(Debug, Default)]
pub(super) struct Batch {
    metrics: Vec<Metric>,
    pub(super) points: usize,
    /// Whether the next sample may be of the last metric.
    open: bool,
}

impl Batch {
    /// Around it what all of them have in common.
    pub(super) fn message(self, about: &About) -> ExportMetricsServiceRequest {
        let scope = InstrumentationScope {
            name: "lb-agent".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            ..InstrumentationScope::default()
        };
        let scope = ScopeMetrics {
            scope: Some(scope),
            metrics: self.metrics,
            ..ScopeMetrics::default()
        };
        ExportMetricsServiceRequest {
            resource_metrics: vec![ResourceMetrics {
                resource: Some(about.resource()),
                scope_metrics: vec![scope],
                ..ResourceMetrics::default()
            }],
        }
    }

    /// Whether this is a point of its own, and not one more line of the last histogram.
    fn begins(&self, family: &Family<'_>, point: &Point<'_>) -> bool {
        let last = self.metrics.last().filter(|_| self.open);
        let Some(Data::Histogram(histogram)) = last.and_then(|it| it.data.as_ref()) else {
            return true;
        };
        let last = histogram.data_points.last();
        family.kind != Kind::Histogram || last.is_none_or(|it| it.attributes != point.attributes)
    }

    fn add(&mut self, family: &Family<'_>, point: Point<'_>, start: u64, now: u64) {
        let begins = self.begins(family, &point);
        if begins {
            self.points += 1;
        }
        if !self.open {
            self.metrics.push(family.metric());
            self.open = true;
        }
        let data = self.metrics.last_mut().and_then(|it| it.data.as_mut());
        match data {
            Some(Data::Gauge(gauge)) => gauge.data_points.push(point.number(0, now)),
            Some(Data::Sum(sum)) => sum.data_points.push(point.number(start, now)),
            Some(Data::Histogram(histogram)) => {
                let points = &mut histogram.data_points;
                if begins {
                    points.push(HistogramDataPoint {
                        attributes: point.attributes.clone(),
                        start_time_unix_nano: start,
                        time_unix_nano: now,
                        ..HistogramDataPoint::default()
                    });
                }
                if let Some(last) = points.last_mut() {
                    point.into_histogram(last);
                }
            }
            _ => {}
        }
    }
}

impl Family<'_> {
    fn metric(&self) -> Metric {
        let cumulative = AggregationTemporality::Cumulative.into();
        let (suffix, data) = match self.kind {
            Kind::Counter => (
                "_total",
                Data::Sum(Sum {
                    aggregation_temporality: cumulative,
                    is_monotonic: true,
                    ..Sum::default()
                }),
            ),
            Kind::Gauge => ("", Data::Gauge(Gauge::default())),
            Kind::Histogram => (
                "",
                Data::Histogram(Histogram {
                    aggregation_temporality: cumulative,
                    ..Histogram::default()
                }),
            ),
        };
        // The unit codes of UCUM. What has none has an empty one: `1` would be taken for a ratio.
        let unit = match self.name.rsplit('_').next() {
            Some("seconds") => "s",
            Some("bytes") => "By",
            _ => "",
        };
        Metric {
            name: format!("{}{suffix}", self.name),
            description: self.help.to_owned(),
            unit: unit.to_owned(),
            data: Some(data),
            ..Metric::default()
        }
    }
}

/// A sample whose bound, if it is of a bucket, is no label.
struct Point<'t> {
    name: &'t str,
    attributes: Vec<KeyValue>,
    bound: Option<f64>,
    value: &'t str,
}

impl<'t> Point<'t> {
    fn of(sample: Sample<'t>) -> Self {
        let mut bound = None;
        let mut attributes = Vec::with_capacity(sample.labels.len());
        for (label, text) in sample.labels {
            match label {
                "le" => bound = text.parse().ok(),
                label => attributes.push(attribute(label, text)),
            }
        }
        Self {
            name: sample.name,
            attributes,
            bound,
            value: sample.value,
        }
    }

    fn number(self, start: u64, now: u64) -> NumberDataPoint {
        // A metric is written as whole numbers or as others, always.
        let value = match self.value.parse() {
            Ok(whole) => number_data_point::Value::AsInt(whole),
            Err(_) => number_data_point::Value::AsDouble(self.value.parse().unwrap_or(f64::NAN)),
        };
        NumberDataPoint {
            attributes: self.attributes,
            start_time_unix_nano: start,
            time_unix_nano: now,
            value: Some(value),
            ..NumberDataPoint::default()
        }
    }

    /// Adds what this line says. The text counts what is up to a bound, OTLP what is between two.
    fn into_histogram(self, point: &mut HistogramDataPoint) {
        let count = || self.value.parse().unwrap_or(0);
        match self.bound {
            Some(bound) => {
                let below: u64 = point.bucket_counts.iter().sum();
                point
                    .bucket_counts
                    .push(u64::saturating_sub(count(), below));
                if bound.is_finite() {
                    point.explicit_bounds.push(bound);
                }
            }
            None if self.name.ends_with("_sum") => point.sum = self.value.parse().ok(),
            None if self.name.ends_with("_count") => point.count = count(),
            None => {}
        }
    }
}

fn attribute(key: &str, text: String) -> KeyValue {
    let value = Some(Value::StringValue(text));
    KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue { value }),
        ..KeyValue::default()
    }
}

fn nanos(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH);
    let since = since.unwrap_or_default().as_nanos();
    u64::try_from(since).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
