//! The heartbeat: an address is asked for now and then, as long as all databases are replicated, as Litestream does it. Who
//! watches the address notices when that ends, also with the process or the machine.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::report::Machine;
use crate::primary::{Phase, ReplicaFigures};
use crate::store::{Notification, host_of, notify};

/// Where the heartbeat goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heartbeat {
    /// The address, which may be a secret.
    pub url: String,
    /// How often.
    pub interval: Duration,
}

/// How often it is looked whether a heartbeat is due.
const LOOK: Duration = Duration::from_secs(15);
/// How long it may take.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Sends heartbeats, until the task is ended. `machine` says how all databases stand.
pub(super) async fn run<F: Future<Output = Arc<Machine>>>(heartbeat: Heartbeat, machine: impl Fn() -> F) {
    let (mut last, mut is_told): (Option<Instant>, bool) = (None, false);
    let every = LOOK.min(heartbeat.interval);
    loop {
        tokio::time::sleep(every).await;
        let is_due = last.is_none_or(|last| last.elapsed() >= heartbeat.interval);
        if !is_due || !is_well(&*machine().await, heartbeat.interval) {
            continue;
        }
        let asked = Notification { url: heartbeat.url.clone(), body: None, headers: Vec::new() };
        match notify(&asked, TIMEOUT).await {
            Ok(()) => (last, is_told) = (Some(Instant::now()), false),
            Err(e) if !std::mem::replace(&mut is_told, true) => {
                tracing::warn!("the heartbeat to {} fails: {e}; it is tried again", host_of(&heartbeat.url));
            }
            Err(_) => {}
        }
    }
}

/// Whether every replica of every database had all commits within `interval`. Without a database nothing is well.
fn is_well(machine: &Machine, interval: Duration) -> bool {
    let synced = |replica: &ReplicaFigures| {
        let is_at_work = ![Phase::Starting, Phase::Stopped].map(Phase::name).contains(&&*replica.state);
        let failed_before = |since: i64| machine.at - since >= interval.as_millis() as i64;
        is_at_work
            && u128::from(replica.lag) < interval.as_millis()
            && !replica.failing_since.is_some_and(failed_before)
    };
    let mut replicas = machine.databases.iter().flat_map(|database| &database.replicas);
    !machine.databases.is_empty() && replicas.all(synced)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::primary::DatabaseFigures;

    #[test]
    fn one_replica_that_is_late_is_enough_to_be_silent() {
        let interval = Duration::from_secs(60);
        let machine = |change: fn(&mut ReplicaFigures)| {
            let good = ReplicaFigures { state: "idle".to_owned(), ..ReplicaFigures::default() };
            let mut other = good.clone();
            change(&mut other);
            let database = DatabaseFigures { replicas: vec![good, other], ..DatabaseFigures::default() };
            Machine { at: 1_000_000, databases: vec![database], ..Machine::default() }
        };
        let is_well = |change: fn(&mut ReplicaFigures)| is_well(&machine(change), interval);
        assert!(is_well(|_| ()));
        assert!(is_well(|replica| replica.lag = 59_999));
        assert!(!is_well(|replica| replica.lag = 60_000));
        assert!(!is_well(|replica| replica.state = "stopped".to_owned()));
        assert!(!is_well(|replica| replica.state = "starting".to_owned()));
        assert!(is_well(|replica| replica.failing_since = Some(940_001)));
        assert!(!is_well(|replica| replica.failing_since = Some(940_000)));
        assert!(!super::is_well(&Machine::default(), interval));
    }
}
