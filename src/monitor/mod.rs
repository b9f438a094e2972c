//! What an operator sees: metrics, a status page, a health check, alarms. Nothing here writes to a database or a replica,
//! or is in the way of a commit.
//!
//! | file | what it is |
//! | --- | --- |
//! | `report` | what one process knows, and what the processes of a machine know together |
//! | `limits` | what is still healthy |
//! | `exposition` | metrics of all that |
//! | `lag_history` | the lag of the last hour |
//! | `listener` | who has the port: the first process, and the next one when it ends |
//! | `peers` | how the processes that do not have the port report to the one that does |
//! | `connection`, `http` | one request and its answer |
//! | `page` | the page for people |
//! | `watch` | a look now and then: the lag, the disk |
//!
//! All of it begins with the first database that is opened, if a setting asks for it, and once in a process. A forked child
//! has nothing of it before it opens a database itself.

mod connection;
mod exposition;
mod http;
mod lag_history;
mod limits;
mod listener;
mod page;
mod peers;
mod report;
mod watch;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub use limits::Limits;

use self::lag_history::LagHistory;
use self::report::{Machine, Report};
use crate::clock::{Clock as _, SystemClock};
use crate::fork::PerProcess;
use crate::runtime;

/// What a process shows, and to whom.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// The address and port of the listener; `None` for none.
    pub listen: Option<String>,
    /// What who is not on this machine must know to see the page.
    pub listen_token: Option<String>,
    /// What is still healthy.
    pub limits: Limits,
}

/// The monitor of this process.
#[derive(Debug)]
struct Monitor {
    options: Options,
    /// When the process opened its first database, in milliseconds since the Unix epoch.
    started: i64,
    lags: LagHistory,
}

static MONITOR: PerProcess<Mutex<Option<Arc<Monitor>>>> = PerProcess::new();

fn monitor() -> MutexGuard<'static, Option<Arc<Monitor>>> {
    MONITOR.get().lock().unwrap_or_else(PoisonError::into_inner)
}

/// Begins to show what `options` ask for, with the first database that this process opens. A later one that asks for
/// another listener is told that there is one.
pub fn start(options: &Options) {
    let started = {
        let mut monitor = monitor();
        match &*monitor {
            Some(before) if before.options.listen.is_some() || options.listen.is_none() => {
                if options.listen.is_some() && before.options.listen != options.listen {
                    tracing::warn!(
                        "this process listens on {} already: listen={} of a later open has no effect",
                        before.options.listen.as_deref().unwrap_or_default(),
                        options.listen.as_deref().unwrap_or_default()
                    );
                }
                return;
            }
            before => {
                let now = || SystemClock.now().as_millis();
                let started = before.as_ref().map_or_else(now, |before| before.started);
                let new = Monitor { options: options.clone(), started, lags: LagHistory::default() };
                Arc::clone(monitor.insert(Arc::new(new)))
            }
        }
    };
    if options.listen.is_none() {
        return;
    }
    match runtime::handle() {
        Ok(runtime) => {
            runtime.spawn(listener::run(Arc::clone(&started)));
            runtime.spawn(watch::run(started));
        }
        Err(e) => tracing::warn!("nothing listens for requests of status: {e}"),
    }
}

impl Monitor {
    /// What this process knows. Waits for other processes, half a second for each database, if `ask_publishers`.
    fn report(&self, ask_publishers: bool) -> Report {
        let mut report = Report::here(self.started, ask_publishers);
        report.lags = self.lags.figures();
        report
    }
}

/// The metrics of this process, as Prometheus reads them. Where another process publishes a database, half a second is
/// waited for what that one says.
pub fn metrics() -> String {
    let monitor = monitor().clone();
    let (report, limits) = match monitor {
        Some(monitor) => (monitor.report(true), monitor.options.limits.clone()),
        None => (Report::here(SystemClock.now().as_millis(), true), Limits::default()),
    };
    exposition::text(&Machine::of(vec![report]), &limits)
}
