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
//! | `webhooks` | events are posted to addresses of the user's |
//! | `heartbeat` | an address is asked for, as long as all is well |
//!
//! All of it begins with the first database that is opened, if a setting asks for it, and once in a process. A forked child
//! has nothing of it before it opens a database itself.

mod connection;
mod exposition;
mod heartbeat;
mod http;
mod lag_history;
mod limits;
mod listener;
mod page;
mod peers;
mod report;
mod watch;
mod webhooks;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub use heartbeat::Heartbeat;
pub use limits::Limits;
pub use webhooks::Webhook;

use self::lag_history::LagHistory;
use self::report::{Machine, Report};
use crate::clock::{Clock as _, SystemClock};
use crate::events;
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
    /// Where a heartbeat goes.
    pub heartbeat: Option<Heartbeat>,
    /// Where events go.
    pub webhooks: Vec<Webhook>,
}

impl Options {
    /// Whether anything is to be done in the background.
    fn is_active(&self) -> bool {
        self.listen.is_some() || self.heartbeat.is_some() || !self.webhooks.is_empty()
    }
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
            Some(before) if before.options.is_active() || !options.is_active() => {
                if options.listen.is_some() && before.options.listen != options.listen {
                    tracing::warn!(
                        "listen={} has no effect: an earlier open of this process decided what it shows ({})",
                        options.listen.as_deref().unwrap_or_default(),
                        before.options.listen.as_deref().unwrap_or("no listener"),
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
    if options.is_active() {
        match runtime::handle() {
            Ok(runtime) => begin(&started, &runtime),
            Err(e) => tracing::warn!("nothing is shown and nobody is told: {e}"),
        }
    }
}

fn begin(monitor: &Arc<Monitor>, runtime: &tokio::runtime::Handle) {
    let options = &monitor.options;
    if !options.webhooks.is_empty() {
        events::keep();
        runtime.spawn(webhooks::run(options.webhooks.clone()));
    }
    if options.listen.is_some() {
        runtime.spawn(listener::run(Arc::clone(monitor)));
    } else if let Some(heartbeat) = options.heartbeat.clone() {
        // With a listener, who has the port sends it, for all processes.
        let monitor = Arc::clone(monitor);
        runtime.spawn(heartbeat::run(heartbeat, move || alone(Arc::clone(&monitor))));
    }
    runtime.spawn(watch::run(Arc::clone(monitor)));
}

/// What this process knows alone.
async fn alone(monitor: Arc<Monitor>) -> Arc<Machine> {
    let report = runtime::long_blocking(move || Ok(monitor.report(true))).await;
    Arc::new(Machine::of(report.into_iter().collect()))
}

/// A connection was closed: if it had something to tell that was not told `before` it, as [`events::told`] counts, that is waited
/// for, a second at most.
pub fn closed(before: u64) {
    let has_webhooks = monitor().as_ref().is_some_and(|monitor| !monitor.options.webhooks.is_empty());
    if has_webhooks && events::told() > before {
        webhooks::wait_at_close();
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
