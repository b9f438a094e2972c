//! One who waits in another process until all that is committed is in the replicas.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use crate::ltx::Txid;
use crate::primary::ownership::control_socket::{self, Answer};
use crate::primary::shipper::{Asker, Outcome, ReplicaId};

/// A mailbox to which each shipper answers. Version 0.1.0, which knows one replica, gets its answer when all are done.
pub(super) struct Mailbox {
    /// The folder of local state.
    folder: PathBuf,
    name: String,
    /// By shipper: its replica, and the transaction with which that ended when all was there.
    replicas: Mutex<Vec<(ReplicaId, Option<Txid>)>>,
}

impl Mailbox {
    /// The mailbox `name` in `folder`, to which the shippers of `replicas` answer.
    pub(super) fn new(folder: PathBuf, name: String, replicas: impl Iterator<Item = ReplicaId>) -> Self {
        Self { folder, name, replicas: Mutex::new(replicas.map(|id| (id, None)).collect()) }
    }

    fn send(&self, answer: &Answer) -> bool {
        control_socket::answer(&self.folder, &self.name, answer)
    }
}

impl Asker for Mailbox {
    fn name(&self) -> &str {
        &self.name
    }

    fn tell(&self, shipper: usize, outcome: &Outcome) -> bool {
        let mut replicas = self.replicas.lock().unwrap_or_else(PoisonError::into_inner);
        let (id, done) = &mut replicas[shipper];
        if let Outcome::Done(txid) = outcome {
            *done = Some(*txid);
        }
        let is_heard = self.send(&Answer::Of(id.as_str().to_owned(), Box::new(Answer::from(outcome))));
        let is_all = replicas.iter().all(|(_, done)| done.is_some());
        match outcome {
            Outcome::Done(_) if !is_all => {}
            Outcome::Done(_) => {
                let first = replicas.first().and_then(|(_, done)| *done);
                self.send(&Answer::Done(first.map_or(0, Txid::get)));
            }
            other => {
                self.send(&Answer::from(other));
            }
        }
        is_heard
    }
}

impl From<&Outcome> for Answer {
    fn from(outcome: &Outcome) -> Self {
        match outcome {
            Outcome::Done(txid) => Self::Done(txid.get()),
            Outcome::Stopped(why) => Self::Stopped(why.clone()),
            Outcome::Empty(why) => Self::Empty(why.clone()),
            Outcome::Failing(why) => Self::Failing(why.clone()),
        }
    }
}
