//! A look now and then at what no event tells of by itself: a lag that grows, a disk that fills.

use std::path::Path;
use std::sync::Arc;

use super::report::Report;
use super::{Monitor, lag_history};
use crate::events::{self, DISK_LOW, Event, LAG_HIGH, Subject};
use crate::runtime;

/// Looks until the process ends.
pub(super) async fn run(monitor: Arc<Monitor>) {
    loop {
        let looking = Arc::clone(&monitor);
        let looked = runtime::blocking(move || {
            look(&looking);
            Ok(())
        });
        if let Err(e) = looked.await {
            tracing::debug!("{e}");
        }
        tokio::time::sleep(lag_history::EVERY).await;
    }
}

fn look(monitor: &Monitor) {
    let report = monitor.report(false);
    monitor.lags.sample(&report);
    alarm(monitor, &report);
}

/// Begins and ends the alarms of databases that this process publishes.
fn alarm(monitor: &Monitor, report: &Report) {
    let limits = &monitor.options.limits;
    for database in report.databases.iter().filter(|database| database.publishes) {
        let db = Path::new(&database.path);
        let free = database.disk_free.unwrap_or_default() >> 20;
        let text = || format!("its disk has {free} MiB left, and disk_reserve is {}", limits.disk_reserve);
        raise(&DISK_LOW, Subject { db, replica: "" }, limits.is_full(database), text);
        for replica in &database.replicas {
            let text = || {
                format!(
                    "a commit has waited for {} to get to {}, and max_lag is {}",
                    super::limits::time(replica.lag),
                    replica.url,
                    super::limits::time(limits.max_lag.as_millis() as u64)
                )
            };
            raise(&LAG_HIGH, Subject { db, replica: &replica.url }, limits.is_late(replica), text);
        }
    }
}

fn raise(event: &'static Event, subject: Subject<'_>, lasts: bool, text: impl FnOnce() -> String) {
    if lasts {
        events::begins(event, subject, &text());
    } else {
        events::ends(event, subject);
    }
}
