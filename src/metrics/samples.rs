//! Values of metrics at one moment, and the text in which Prometheus reads them.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::catalog::{METRICS, Metric};
use super::count::{BUCKETS, HistogramValue};

/// The type of the text, for the header `Content-Type`.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Values of metrics by the labels that they have. A value that comes twice is counted once, as the last one.
#[derive(Debug, Default)]
pub struct Samples {
    plain: BTreeMap<&'static str, BTreeMap<Vec<String>, f64>>,
    histograms: BTreeMap<&'static str, BTreeMap<Vec<String>, HistogramValue>>,
}

impl Samples {
    /// `metric` has this value for these labels, in the order in which the catalog has them.
    pub fn set(&mut self, metric: &'static Metric, labels: &[&str], value: impl Into<f64>) {
        let labels = owned(metric, labels);
        self.plain.entry(metric.name).or_default().insert(labels, value.into());
    }

    /// The same, of a value that may not be known: then there is no sample.
    pub fn set_known(&mut self, metric: &'static Metric, labels: &[&str], value: Option<impl Into<f64>>) {
        if let Some(value) = value {
            self.set(metric, labels, value);
        }
    }

    /// A whole number: beyond 2^53 the nearest one that Prometheus can hold.
    pub fn count(&mut self, metric: &'static Metric, labels: &[&str], value: u64) {
        self.set(metric, labels, value as f64);
    }

    /// `metric` is a histogram, which holds this for these labels.
    pub fn histogram(&mut self, metric: &'static Metric, labels: &[&str], value: HistogramValue) {
        let labels = owned(metric, labels);
        self.histograms.entry(metric.name).or_default().insert(labels, value);
    }

    /// The text of all of them, in the order of the catalog: the exposition format 0.0.4.
    pub fn text(&self) -> String {
        let mut out = String::new();
        for metric in METRICS {
            let (plain, histograms) = (self.plain.get(metric.name), self.histograms.get(metric.name));
            if plain.is_none() && histograms.is_none() {
                continue;
            }
            put(&mut out, format_args!("# HELP {} {}\n", metric.name, escaped_help(metric.help)));
            put(&mut out, format_args!("# TYPE {} {}\n", metric.name, metric.kind.word()));
            for (labels, value) in plain.into_iter().flatten() {
                let labels = label_set(metric, labels, None);
                put(&mut out, format_args!("{}{labels} {}\n", metric.name, number(*value)));
            }
            for (labels, value) in histograms.into_iter().flatten() {
                histogram_text(&mut out, metric, labels, value);
            }
        }
        out
    }
}

fn put(out: &mut String, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text).expect("BUG: writing to a string failed");
}

fn owned(metric: &Metric, labels: &[&str]) -> Vec<String> {
    assert_eq!(labels.len(), metric.labels.len(), "BUG: labels of {}", metric.name);
    labels.iter().map(|label| (*label).to_owned()).collect()
}

fn histogram_text(out: &mut String, metric: &Metric, labels: &[String], value: &HistogramValue) {
    let mut so_far = 0;
    let limits = BUCKETS.iter().map(|limit| number(*limit)).chain(["+Inf".to_owned()]);
    for (count, limit) in value.counts.iter().zip(limits) {
        so_far += count;
        let labels = label_set(metric, labels, Some(&limit));
        put(out, format_args!("{}_bucket{labels} {so_far}\n", metric.name));
    }
    let labels = label_set(metric, labels, None);
    put(out, format_args!("{}_sum{labels} {}\n", metric.name, number(value.sum)));
    put(out, format_args!("{}_count{labels} {so_far}\n", metric.name));
}

/// `{db="/data/app.db",replica="s3"}`, or nothing.
fn label_set(metric: &Metric, values: &[String], limit: Option<&str>) -> String {
    let pairs = metric.labels.iter().copied().zip(values.iter().map(String::as_str));
    let pairs = pairs.chain(limit.map(|limit| ("le", limit)));
    let pairs: Vec<String> = pairs.map(|(name, value)| format!("{name}=\"{}\"", escaped(value))).collect();
    if pairs.is_empty() { String::new() } else { format!("{{{}}}", pairs.join(",")) }
}

/// The text of a label's value: what would end it, or the line, is escaped.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

fn escaped_help(text: &str) -> String {
    text.replace('\\', "\\\\").replace('\n', "\\n")
}

fn number(value: f64) -> String {
    if value.is_infinite() {
        return if value > 0.0 { "+Inf".to_owned() } else { "-Inf".to_owned() };
    }
    // A whole number without its exponent, as people read it.
    if value.fract() == 0.0 && value.abs() < 1e15 { format!("{value:.0}") } else { format!("{value}") }
}

#[cfg(test)]
mod tests {
    use super::super::catalog::{DB_SIZE, INFO, REPLICA_OPERATION_SECONDS};
    use super::*;

    #[test]
    fn the_text_has_help_type_and_samples() {
        let mut samples = Samples::default();
        samples.set(&DB_SIZE, &["/data/b.db"], 4096.0);
        samples.count(&DB_SIZE, &["/data/a\"\n\\.db"], 1 << 40);
        samples.set(&INFO, &["1.2.3"], 1.0);
        let text = samples.text();
        let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with("# HELP")).collect();
        assert_eq!(
            lines,
            [
                "# TYPE litestream_vfs_info gauge",
                "litestream_vfs_info{version=\"1.2.3\"} 1",
                "# TYPE litestream_db_size gauge",
                "litestream_db_size{db=\"/data/a\\\"\\n\\\\.db\"} 1099511627776",
                "litestream_db_size{db=\"/data/b.db\"} 4096",
            ]
        );
    }

    #[test]
    fn buckets_are_cumulative() {
        let mut samples = Samples::default();
        let mut counts = vec![0; BUCKETS.len() + 1];
        (counts[0], counts[2], counts[11]) = (2, 3, 1);
        let value = HistogramValue { counts, sum: 12.5 };
        samples.histogram(&REPLICA_OPERATION_SECONDS, &["s3", "PUT"], value);
        let text = samples.text();
        let of =
            |rest: &str| text.contains(&format!("litestream_replica_operation_duration_seconds{rest}\n"));
        assert!(of("_bucket{replica_type=\"s3\",operation=\"PUT\",le=\"0.005\"} 2"), "{text}");
        assert!(of("_bucket{replica_type=\"s3\",operation=\"PUT\",le=\"0.01\"} 2"), "{text}");
        assert!(of("_bucket{replica_type=\"s3\",operation=\"PUT\",le=\"10\"} 5"), "{text}");
        assert!(of("_bucket{replica_type=\"s3\",operation=\"PUT\",le=\"+Inf\"} 6"), "{text}");
        assert!(of("_sum{replica_type=\"s3\",operation=\"PUT\"} 12.5"), "{text}");
        assert!(of("_count{replica_type=\"s3\",operation=\"PUT\"} 6"), "{text}");
    }
}
