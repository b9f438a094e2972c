//! Waiting for a replica.

use std::ops::Range;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::progress::Progress;
use super::{Phase, Shipper};
use crate::error::{Error, ErrorKind, Result};
use crate::ltx::Txid;
use crate::primary::hooks::CommitSeq;

/// A thread that waits until commits are in the replica of one shipper: one of them, or all that were noted before.
pub(in crate::primary) struct Waiter<'a> {
    pub(in crate::primary) shipper: &'a Shipper,
    /// The round in which the wait began.
    asked: u64,
    /// The last commit that is waited for.
    goal: Option<CommitSeq>,
    /// The shipper hurries while it lives.
    hurries: bool,
}

impl<'a> Waiter<'a> {
    /// Waits from now on for `shipper`, which hurries.
    pub(in crate::primary) fn new(shipper: &'a Shipper) -> Self {
        let asked = shipper.progress().round;
        shipper.waiting.fetch_add(1, Ordering::SeqCst);
        shipper.signal.hurry();
        Self { shipper, asked, goal: None, hurries: true }
    }

    /// Waits for the commit `seq`, for which `shipper` was told to hurry.
    pub(in crate::primary) fn of_commit(shipper: &'a Shipper, seq: CommitSeq) -> Self {
        let asked = shipper.progress().round;
        Self { shipper, asked, goal: Some(seq), hurries: false }
    }

    /// What the wait comes to, if that is known.
    ///
    /// # Errors
    /// `Conflict` if replication stopped; `NotFound` if the database is empty.
    pub(in crate::primary) fn outcome(&mut self) -> Option<Result<Txid>> {
        let shipper = self.shipper;
        let progress = shipper.progress();
        if progress.resumed && self.goal.is_none() {
            // Not before: what an earlier process left in the WAL is noted by the first look.
            self.goal = Some(shipper.db.commits.last().seq);
        }
        match (progress.phase, progress.txid) {
            (Phase::Stopped, _) => progress.error.clone().map(Err),
            // A round that began before may have found what is not so any more.
            (Phase::Empty, _) if progress.nothing_here <= self.asked => None,
            (Phase::Empty, _) => Some(Err(shipper.db.empty())),
            (Phase::Standby | Phase::Starting | Phase::Copying, _) => None,
            // What cannot be restored is not in the replica.
            _ if !shipper.holes.is_settled() => None,
            (_, Some(txid)) if self.goal.is_some_and(|goal| progress.acked >= goal) => Some(Ok(txid)),
            _ => None,
        }
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        if self.hurries {
            self.shipper.waiting.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

impl Shipper {
    /// What the last close of the process has to wait for, if that is known by now: nothing if all is there, and nothing
    /// of a store that failed last.
    ///
    /// # Errors
    /// `Timeout` at once if the last attempt failed.
    pub(in crate::primary) fn outcome_at_close(&self) -> Option<Result<()>> {
        let progress = self.progress();
        let is_idle = progress.phase == Phase::Idle && self.holes.is_settled();
        // No store fails where a database is locked for a moment, or where the close before cut off what was under way.
        let store_fails = progress
            .error
            .as_ref()
            .is_some_and(|e| !matches!(e.kind(), ErrorKind::Busy | ErrorKind::Interrupted))
            && !self.answers_again(&progress);
        match progress.phase {
            _ if is_idle && progress.acked >= self.db.commits.last().seq => Some(Ok(())),
            Phase::Stopped => None,
            // Whether or not the next attempt is under way.
            _ if store_fails => Some(Err(timed_out(&[self.lacking(&progress)], Duration::ZERO))),
            _ => None,
        }
    }

    /// Whether the database may have something that the replica has not: not only what was shown to this process counts.
    pub(in crate::primary) fn may_lack(&self) -> bool {
        let has_something = self.with_capture(|capture| capture.has_something(&self.db));
        !matches!(has_something, Ok(Ok(false)))
    }

    /// Whether nothing is on its way, as far as it was looked.
    pub(in crate::primary) fn is_idle(&self) -> bool {
        self.progress().phase == Phase::Idle
    }

    /// The replica, and why not everything is there.
    pub(in crate::primary) fn lacks(&self) -> Lacking {
        self.lacking(&self.progress())
    }

    fn lacking(&self, progress: &Progress) -> Lacking {
        let (phase, error) = self.shown(progress);
        let cause = match error {
            Some(error) => format!(": {error}"),
            None => match self.copying.percent().filter(|_| phase == Phase::Copying) {
                Some(percent) => format!("; it is still copying, and came to {percent} %"),
                None if phase == Phase::Idle => "; the last commits were not looked at yet".to_owned(),
                None => format!("; it is still {}", phase.name()),
            },
        };
        Lacking { url: self.store.url(), cause }
    }
}

/// A replica in which not everything is, and why.
pub(in crate::primary) struct Lacking {
    url: String,
    cause: String,
}

/// The error of a wait of `timeout` in which not everything got to the replicas `lacking`.
pub(in crate::primary) fn timed_out(lacking: &[Lacking], timeout: Duration) -> Error {
    let after = after(timeout);
    let each = |lacking: &Lacking| format!("not everything is in {}{after}{}", lacking.url, lacking.cause);
    Error::new(ErrorKind::Timeout, lacking.iter().map(each).collect::<Vec<_>>().join("; "))
}

/// ` after 3s`; nothing where there was no time to wait.
pub(in crate::primary) fn after(timeout: Duration) -> String {
    // What is left of a time is a fraction that says nothing.
    let step = if timeout < Duration::from_millis(100) { 1.0 } else { 100.0 };
    let millis = (timeout.as_secs_f64() * 1000.0 / step).round() * step;
    if millis == 0.0 { String::new() } else { format!(" after {:?}", Duration::from_millis(millis as u64)) }
}

/// Goal of a wait: which replicas are waited for, and how many of them are enough.
#[derive(Clone, Debug)]
pub(in crate::primary) struct Goal {
    replicas: Range<usize>,
    enough: usize,
}

impl Goal {
    /// This number of the replicas is `enough`.
    pub(in crate::primary) const fn any(replicas: usize, enough: usize) -> Self {
        Self { replicas: 0..replicas, enough }
    }

    /// The replica of this shipper.
    pub(in crate::primary) const fn one(shipper: usize) -> Self {
        Self { replicas: shipper..shipper + 1, enough: 1 }
    }

    /// The shippers of the replicas.
    pub(in crate::primary) fn replicas(&self) -> Range<usize> {
        self.replicas.clone()
    }

    /// What a wait comes to with these outcomes by shipper, if that is known: the last transaction of the first replica,
    /// or nothing if the goal was reached without it.
    ///
    /// # Errors
    /// The first one of a replica, if the goal cannot be reached.
    pub(in crate::primary) fn verdict(
        &self,
        outcomes: &[Option<Result<Txid>>],
    ) -> Option<Result<Option<Txid>>> {
        let outcomes = outcomes.get(self.replicas())?;
        let done = outcomes.iter().filter(|outcome| matches!(outcome, Some(Ok(_)))).count();
        if done >= self.enough {
            return Some(Ok(outcomes.first().and_then(|first| first.clone()?.ok())));
        }
        let failed: Vec<&Error> =
            outcomes.iter().filter_map(|outcome| outcome.as_ref()?.as_ref().err()).collect();
        let may_be_reached = outcomes.len() - failed.len() >= self.enough;
        failed.first().filter(|_| !may_be_reached).map(|error| Err((*error).clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_replicas_are_waited_for_as_are_asked_for() {
        let done = |txid| Some(Ok(Txid::new(txid).unwrap()));
        let stopped = || Some(Err(Error::new(ErrorKind::Conflict, "stopped")));
        let shown = |outcomes: &[Option<Result<Txid>>], goal: Goal| {
            goal.verdict(outcomes)
                .map(|verdict| verdict.map(|txid| txid.map(Txid::get)).map_err(|e| e.kind()))
        };
        let conflict = Some(Err(ErrorKind::Conflict));
        for (outcomes, all, any, second) in [
            (vec![None, None], None, None, None),
            (vec![done(7), None], None, Some(Ok(Some(7))), None),
            (vec![None, done(9)], None, Some(Ok(None)), Some(Ok(Some(9)))),
            (vec![done(7), done(9)], Some(Ok(Some(7))), Some(Ok(Some(7))), Some(Ok(Some(9)))),
            (vec![stopped(), None], conflict, None, None),
            (vec![None, stopped()], conflict, None, conflict),
            (vec![stopped(), done(9)], conflict, Some(Ok(None)), Some(Ok(Some(9)))),
            (vec![stopped(), stopped()], conflict, conflict, conflict),
        ] {
            assert_eq!(shown(&outcomes, Goal::any(2, 2)), all, "{outcomes:?}");
            assert_eq!(shown(&outcomes, Goal::any(2, 1)), any, "{outcomes:?}");
            assert_eq!(shown(&outcomes, Goal::one(1)), second, "{outcomes:?}");
        }
    }
}
