//! What an operator sees: metrics, a status page, a health check, alarms; and the port at which an assistant calls tools.
//! Nothing here writes to a database or a replica, or is in the way of a commit: what the tools do is not done here.
//!
//! | file | what it is |
//! | --- | --- |
//! | `report` | what one process knows, and what the processes of a machine know together |
//! | `limits` | what is still healthy |
//! | `exposition` | metrics of all that |
//! | `lag_history` | the lag of the last hour |
//! | `listener` | who has the port: the first process, and the next one when it ends |
//! | `peers` | how the processes that do not have the port report to the one that does |
//! | `http` | one request and its answer, as bytes |
//! | `connection` | what is shown at the port of the page |
//! | `mcp` | what is let through to the tools, at the port of theirs |
//! | `overview` | what the tools are told of the machine |
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
mod mcp;
mod overview;
mod page;
mod peers;
mod report;
mod watch;
mod webhooks;

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

pub use heartbeat::Heartbeat;
pub use limits::Limits;
pub use overview::Overview;
pub use webhooks::Webhook;

use self::connection::Door;
use self::lag_history::LagHistory;
use self::report::{Machine, Report};
use crate::clock::{Clock as _, SystemClock};
use crate::events;
use crate::fork::PerProcess;
use crate::mcp::Reply;
use crate::runtime;

/// What a process shows, and to whom.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// The address and port of the listener; `None` for none.
    pub listen: Option<String>,
    /// What who is not on this machine must know to see the page.
    pub listen_token: Option<String>,
    /// The address and port at which an assistant calls tools; `None` for none.
    pub mcp_addr: Option<String>,
    /// What who calls tools must know.
    pub mcp_token: Option<String>,
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
        self.listen.is_some()
            || self.mcp_addr.is_some()
            || self.heartbeat.is_some()
            || !self.webhooks.is_empty()
    }
}

/// The caller of a tool.
pub struct Caller<'a> {
    /// What the processes of the machine know.
    pub overview: &'a dyn Fn() -> Overview,
    /// Whether the answer is not wanted any more.
    pub is_stopped: &'a dyn Fn() -> bool,
}

/// What answers a message of the Model Context Protocol.
pub type Tools = fn(&Caller<'_>, &[u8]) -> Reply;

static TOOLS: OnceLock<Tools> = OnceLock::new();

/// From now on `tools` answer what comes to the port of theirs.
pub fn answer_with(tools: Tools) {
    TOOLS.get_or_init(|| tools);
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
                warn_of_other("listen", options.listen.as_deref(), before.options.listen.as_deref());
                warn_of_other("mcp_addr", options.mcp_addr.as_deref(), before.options.mcp_addr.as_deref());
                return;
            }
            before => {
                let now = || SystemClock.now().as_millis();
                let started = before.as_ref().map_or_else(now, |before| before.started);
                Arc::clone(monitor.insert(Arc::new(Monitor::new(options.clone(), started))))
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

/// Says that an address comes too late.
fn warn_of_other(setting: &str, wanted: Option<&str>, before: Option<&str>) {
    if let Some(wanted) = wanted.filter(|_| wanted != before) {
        tracing::warn!(
            "{setting}={wanted} has no effect: an earlier open of this process decided what it shows ({})",
            before.unwrap_or("no listener"),
        );
    }
}

fn begin(monitor: &Arc<Monitor>, runtime: &tokio::runtime::Handle) {
    let options = &monitor.options;
    if !options.webhooks.is_empty() {
        events::keep();
        runtime.spawn(webhooks::run(options.webhooks.clone()));
    }
    if let Some(address) = &options.mcp_addr {
        match mcp::objection(options) {
            None => drop(runtime.spawn(listener::run(Arc::clone(monitor), Door::Tools, address.clone()))),
            Some(why) => tracing::error!("mcp_addr={address}: no tools are offered there: {why}"),
        }
    }
    if let Some(address) = &options.listen {
        runtime.spawn(listener::run(Arc::clone(monitor), Door::Page, address.clone()));
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
    fn new(options: Options, started: i64) -> Self {
        Self { options, started, lags: LagHistory::default() }
    }

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
    let (machine, limits) = this_process();
    exposition::text(&machine, &limits)
}

/// What this process knows. Waits as [`metrics`] does.
pub fn overview() -> Overview {
    let (machine, limits) = this_process();
    Overview::of(&machine, &limits)
}

fn this_process() -> (Machine, Limits) {
    let monitor = monitor().clone();
    let (report, limits) = match monitor {
        Some(monitor) => (monitor.report(true), monitor.options.limits.clone()),
        None => (Report::here(SystemClock.now().as_millis(), true), Limits::default()),
    };
    (Machine::of(vec![report]), limits)
}
