//! Metrics: what is counted, under which names it is shown, and the text in which Prometheus reads it.
//!
//! | file | what it is |
//! | --- | --- |
//! | `count` | counters and histograms: one relaxed addition where something happens, and no lock |
//! | `catalog` | every metric, with its type, its labels and what it means |
//! | `samples` | values of metrics at one moment, and their text |
//!
//! A room counts what happens in it; [`crate::monitor`] brings all of it together for a scrape.

mod catalog;
mod count;
mod samples;

pub use catalog::*;
pub use count::{BUCKETS, Counter, Histogram, HistogramValue, Seconds};
pub use samples::{CONTENT_TYPE, Samples};
