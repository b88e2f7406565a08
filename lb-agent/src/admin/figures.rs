//! Figures: metrics as plain values, read afresh at each scrape.
//!
//! A stage that keeps a number anyway tells it here instead of keeping a second copy of it in a metric.

use std::fmt;

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, LabelSetEncoder, MetricEncoder, NoLabelSet},
    metrics::MetricType,
};

/// One metric with all its samples.
#[derive(Clone, Debug, PartialEq)]
pub struct Figure {
    /// Its name, without the registry's prefix and, for a counter, without `_total`.
    pub name: &'static str,
    /// What it says, as a sentence.
    pub help: &'static str,
    /// What its samples are.
    pub kind: Kind,
    /// Its samples; with none, the metric is left out.
    pub samples: Vec<Sample>,
}

impl Figure {
    /// A counter: only grows while the agent lives.
    pub fn counter(name: &'static str, help: &'static str, samples: Vec<Sample>) -> Self {
        let kind = Kind::Counter;
        Self {
            name,
            help,
            kind,
            samples,
        }
    }

    /// A histogram, of samples with buckets.
    pub fn histogram(name: &'static str, help: &'static str, samples: Vec<Sample>) -> Self {
        let kind = Kind::Histogram;
        Self {
            name,
            help,
            kind,
            samples,
        }
    }

    /// A gauge: the state of the moment.
    pub fn gauge(name: &'static str, help: &'static str, samples: Vec<Sample>) -> Self {
        let kind = Kind::Gauge;
        Self {
            name,
            help,
            kind,
            samples,
        }
    }
}

/// What the samples of a figure are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// They only grow.
    Counter,
    /// The state of the moment.
    Gauge,
    /// Sums, each with the counts in [`Sample::buckets`].
    Histogram,
}

/// One value and its labels.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// Label names and values. Never a client, never anything unbounded.
    pub labels: Vec<(&'static str, String)>,
    /// The value; a histogram's sum.
    pub value: f64,
    /// Of a histogram: for each bucket its upper bound and how many lie in it and in none before.
    pub buckets: Vec<(f64, u64)>,
}

impl Sample {
    /// The same with buckets, the last of which has no bound (`f64::INFINITY`).
    pub fn in_buckets(self, buckets: Vec<(f64, u64)>) -> Self {
        Self { buckets, ..self }
    }

    /// A value with labels.
    pub fn labelled<const N: usize>(labels: [(&'static str, &str); N], value: f64) -> Self {
        let labels = labels.map(|(name, value)| (name, value.to_owned()));
        Self {
            labels: labels.into(),
            value,
            buckets: Vec::new(),
        }
    }

    /// A value without labels.
    pub fn plain(value: f64) -> Self {
        Self {
            labels: Vec::new(),
            value,
            buckets: Vec::new(),
        }
    }
}

/// Figures that are read at each scrape; to be registered as a collector.
pub struct Figures<F>(F);

impl<F> Figures<F>
where
    F: Fn() -> Vec<Figure> + Send + Sync + 'static,
{
    /// Reads the figures by calling `read`.
    pub fn new(read: F) -> Self {
        Self(read)
    }
}

impl<F> fmt::Debug for Figures<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Figures")
    }
}

impl<F> Collector for Figures<F>
where
    F: Fn() -> Vec<Figure> + Send + Sync + 'static,
{
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        for figure in (self.0)() {
            if !figure.samples.is_empty() {
                encode(&figure, &mut encoder)?;
            }
        }
        Ok(())
    }
}

fn encode(figure: &Figure, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let kind = match figure.kind {
        Kind::Counter => MetricType::Counter,
        Kind::Gauge => MetricType::Gauge,
        Kind::Histogram => MetricType::Histogram,
    };
    let mut metric = encoder.encode_descriptor(figure.name, figure.help, None, kind)?;
    for sample in &figure.samples {
        if sample.labels.is_empty() {
            value(figure.kind, sample, &mut metric)?;
        } else {
            let labels = Labels(&sample.labels);
            let mut one = metric.encode_family(&labels)?;
            value(figure.kind, sample, &mut one)?;
        }
    }
    Ok(())
}

fn value(kind: Kind, sample: &Sample, metric: &mut MetricEncoder<'_>) -> fmt::Result {
    match kind {
        Kind::Counter => metric.encode_counter::<NoLabelSet, f64, f64>(&sample.value, None),
        Kind::Gauge => metric.encode_gauge(&sample.value),
        Kind::Histogram => {
            let buckets = &sample.buckets;
            let count = buckets.iter().map(|(_, many)| many).sum();
            metric.encode_histogram::<NoLabelSet>(sample.value, count, buckets, None)
        }
    }
}

#[derive(Debug)]
struct Labels<'a>(&'a [(&'static str, String)]);

impl EncodeLabelSet for Labels<'_> {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> fmt::Result {
        use prometheus_client::encoding::EncodeLabel as _;
        for (name, value) in self.0 {
            (*name, value.as_str()).encode(encoder.encode_label())?;
        }
        Ok(())
    }
}
