//! What tools are told of the processes of a machine.

use serde_json::{Value, json};

use super::limits::Limits;
use super::report::Machine;
use crate::primary::DatabaseFigures;

/// What the processes of this machine know together that share a port, or what one of them knows.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Overview {
    /// Databases that are open, by path.
    pub databases: Vec<DatabaseFigures>,
    /// The processes, replicas that are read, alarms and failures, as the status page has them.
    pub rest: Value,
    /// What is wrong, each in a line without a URL; nothing if all is well.
    pub unhealthy: Vec<String>,
    /// The space that a disk is to have left, in bytes.
    pub disk_reserve: u64,
}

impl Overview {
    pub(super) fn of(machine: &Machine, limits: &Limits) -> Self {
        Self {
            databases: machine.databases.clone(),
            rest: json!({
                "processes": machine.processes,
                "readers": machine.readers,
                "alarms": machine.occurrences,
                "failures": machine.failures,
            }),
            unhealthy: limits.unhealthy(machine),
            disk_reserve: limits.disk_reserve,
        }
    }
}
