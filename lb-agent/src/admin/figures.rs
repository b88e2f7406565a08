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
    /// Whether it only grows.
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

/// Whether a figure only grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It does.
    Counter,
    /// It does not.
    Gauge,
}

/// One value and its labels.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// Label names and values. Never a client, never anything unbounded.
    pub labels: Vec<(&'static str, String)>,
    /// The value.
    pub value: f64,
}

impl Sample {
    /// A value with labels.
    pub fn labelled<const N: usize>(labels: [(&'static str, &str); N], value: f64) -> Self {
        let labels = labels.map(|(name, value)| (name, value.to_owned()));
        Self {
            labels: labels.into(),
            value,
        }
    }

    /// A value without labels.
    pub fn plain(value: f64) -> Self {
        Self {
            labels: Vec::new(),
            value,
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
    };
    let mut metric = encoder.encode_descriptor(figure.name, figure.help, None, kind)?;
    for sample in &figure.samples {
        if sample.labels.is_empty() {
            value(figure.kind, sample.value, &mut metric)?;
        } else {
            let labels = Labels(&sample.labels);
            let mut one = metric.encode_family(&labels)?;
            value(figure.kind, sample.value, &mut one)?;
        }
    }
    Ok(())
}

fn value(kind: Kind, value: f64, metric: &mut MetricEncoder<'_>) -> fmt::Result {
    match kind {
        Kind::Counter => metric.encode_counter::<NoLabelSet, f64, f64>(&value, None),
        Kind::Gauge => metric.encode_gauge(&value),
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
