//! The lag of each replica over the last hour, for the page.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::report::{LagFigures, Report};

/// The time between two samples.
pub(super) const EVERY: Duration = Duration::from_secs(15);
/// An hour.
const SAMPLES: usize = 240;
/// Replicas that have a history, at most.
const MOST: usize = 1000;

#[derive(Debug, Default)]
pub(super) struct LagHistory(Mutex<BTreeMap<(String, String), Lags>>);

#[derive(Debug, Default)]
struct Lags {
    last: i64,
    samples: VecDeque<u32>,
}

impl LagHistory {
    /// Takes a sample of all that the process of `report` publishes. What it does not publish any more is forgotten.
    pub(super) fn sample(&self, report: &Report) {
        let mut lags = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let published = report.databases.iter().filter(|database| database.publishes);
        let replicas =
            published.flat_map(|database| database.replicas.iter().map(|replica| (&database.path, replica)));
        for (db, replica) in replicas {
            let key = (db.clone(), replica.name.clone());
            if lags.len() >= MOST && !lags.contains_key(&key) {
                continue;
            }
            let lags = lags.entry(key).or_default();
            lags.last = report.at;
            if lags.samples.len() == SAMPLES {
                lags.samples.pop_front();
            }
            lags.samples.push_back(u32::try_from(replica.lag).unwrap_or(u32::MAX));
        }
        lags.retain(|_, lags| lags.last == report.at);
    }

    pub(super) fn figures(&self) -> Vec<LagFigures> {
        let lags = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let figures = lags.iter().map(|((db, replica), lags)| LagFigures {
            db: db.clone(),
            replica: replica.clone(),
            last: lags.last,
            every: EVERY.as_millis() as u64,
            samples: lags.samples.iter().copied().collect(),
        });
        figures.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::primary::{DatabaseFigures, ReplicaFigures};

    fn report(at: i64, publishes: bool, lag: u64) -> Report {
        let replica = ReplicaFigures { name: "s3".to_owned(), lag, ..ReplicaFigures::default() };
        let database = DatabaseFigures {
            path: "/a.db".to_owned(),
            publishes,
            replicas: vec![replica],
            ..DatabaseFigures::default()
        };
        Report { at, databases: vec![database], ..Report::default() }
    }

    #[test]
    fn an_hour_is_kept_of_what_the_process_publishes() {
        let history = LagHistory::default();
        for n in 0..SAMPLES as i64 + 5 {
            history.sample(&report(n, true, n as u64));
        }
        let [lags] = &history.figures()[..] else { panic!("one replica") };
        assert_eq!((lags.samples.len(), lags.samples[0], lags.last), (SAMPLES, 5, SAMPLES as i64 + 4));
        history.sample(&report(1_000, false, 7));
        assert_eq!(history.figures(), []);
    }
}
