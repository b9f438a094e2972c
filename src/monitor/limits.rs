//! What is still healthy, and what is wrong beyond that.

use std::time::Duration;

use super::report::Machine;
use crate::primary::{DatabaseFigures, Phase, ReplicaFigures};

/// From where on an operator is to be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// How long a commit may wait for a replica, and how old what is read of one may be.
    pub max_lag: Duration,
    /// The space that a disk must have left, in bytes.
    pub disk_reserve: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { max_lag: Duration::from_secs(300), disk_reserve: 256 << 20 }
    }
}

impl Limits {
    /// What is wrong, each in a line that names the database and the replica, without its URL: first what waits for a user.
    pub(super) fn unhealthy(&self, machine: &Machine) -> Vec<String> {
        let (mut stopped, mut wrong) = (Vec::new(), Vec::new());
        for database in &machine.databases {
            if self.is_full(database) {
                wrong.push(format!("{}: its disk is nearly full", database.path));
            }
            for replica in &database.replicas {
                if let Some(why) = self.wrong_with(replica) {
                    let lines = if is_stopped(replica) { &mut stopped } else { &mut wrong };
                    lines.push(format!("{} to {}: {why}", database.path, replica.name));
                }
            }
        }
        for reader in &machine.readers {
            if reader.lag > millis(self.max_lag) && reader.error.is_some() {
                wrong.push(format!("{}: what is read of it is {} old", reader.name, time(reader.lag)));
            }
        }
        stopped.extend(wrong);
        stopped
    }

    /// Whether the disk of a database has too little space.
    pub(super) fn is_full(&self, database: &DatabaseFigures) -> bool {
        database.disk_free.is_some_and(|free| free < self.disk_reserve)
    }

    /// Whether a commit waits for too long.
    pub(super) fn is_late(&self, replica: &ReplicaFigures) -> bool {
        replica.lag > millis(self.max_lag)
    }

    fn wrong_with(&self, replica: &ReplicaFigures) -> Option<String> {
        if is_stopped(replica) {
            return Some("replication is stopped".to_owned());
        }
        if self.is_late(replica) {
            return Some(format!("a commit has waited for {}", time(replica.lag)));
        }
        if replica.has_hole {
            return Some("the replica lost files, and is not healed".to_owned());
        }
        if replica.verification_error.is_some() {
            return Some("the last verification found that it cannot be restored".to_owned());
        }
        None
    }
}

fn is_stopped(replica: &ReplicaFigures) -> bool {
    replica.state == Phase::Stopped.name()
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// `5 m 3 s`
pub(super) fn time(millis: u64) -> String {
    match millis / 1000 {
        seconds @ 0..60 => format!("{seconds} s"),
        seconds @ 60..3600 => format!("{} m {} s", seconds / 60, seconds % 60),
        seconds => format!("{} h {} m", seconds / 3600, seconds / 60 % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(change: impl FnOnce(&mut DatabaseFigures)) -> Machine {
        let replica = ReplicaFigures {
            name: "s3".to_owned(),
            url: "s3://secret-bucket".to_owned(),
            state: "idle".to_owned(),
            ..ReplicaFigures::default()
        };
        let mut database = DatabaseFigures {
            path: "/a.db".to_owned(),
            replicas: vec![replica],
            ..DatabaseFigures::default()
        };
        change(&mut database);
        Machine { databases: vec![database], ..Machine::default() }
    }

    #[test]
    fn what_is_wrong_is_said_without_a_url() {
        let limits = Limits::default();
        let wrong = |change: fn(&mut DatabaseFigures)| limits.unhealthy(&machine(change));
        assert_eq!(wrong(|_| ()), [""; 0]);
        assert_eq!(wrong(|db| db.replicas[0].state = "retrying".to_owned()), [""; 0]);
        assert_eq!(
            wrong(|db| db.replicas[0].state = "stopped".to_owned()),
            ["/a.db to s3: replication is stopped"]
        );
        assert_eq!(
            wrong(|db| db.replicas[0].lag = 303_000),
            ["/a.db to s3: a commit has waited for 5 m 3 s"]
        );
        assert_eq!(wrong(|db| db.disk_free = Some(1)), ["/a.db: its disk is nearly full"]);
        assert_eq!(wrong(|db| db.replicas[0].has_hole = true).len(), 1);
        assert_eq!(wrong(|db| db.replicas[0].verification_error = Some("x".to_owned())).len(), 1);
    }

    #[test]
    fn what_waits_for_a_user_is_said_first() {
        let mut machine = machine(|db| db.replicas[0].lag = 303_000);
        let mut stopped = machine.databases[0].clone();
        "/b.db".clone_into(&mut stopped.path);
        Phase::Stopped.name().clone_into(&mut stopped.replicas[0].state);
        machine.databases.push(stopped);
        let wrong = Limits::default().unhealthy(&machine);
        let expected =
            ["/b.db to s3: replication is stopped", "/a.db to s3: a commit has waited for 5 m 3 s"];
        assert_eq!(wrong, expected);
    }
}
