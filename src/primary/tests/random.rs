//! Commits, checkpoints, outages, closes, kills, power failures and writers without the shim, in any
//! order. Every transaction of the replica is a state that was once committed, and the last one is what
//! the database holds in the end. What a sync confirmed is part of it, whatever the disk lost: else
//! replication has stopped before it published anything.

use std::fs;
use std::time::Duration;

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

use super::bench::{Bench, PATIENCE};
use super::sqlite::digest;
use crate::error::ErrorKind;
use crate::store::{Fault, Op};

#[derive(Clone, Copy, Debug)]
enum Step {
    Change(u32),
    /// Commits two pages; the database then has so many.
    Resize(u32, u32),
    RollBack,
    Checkpoint,
    Truncate,
    Sync,
    /// The store refuses what is written.
    Outage,
    Heal,
    LoseAnswer,
    /// The next request takes a while, so that things happen meanwhile.
    Slow,
    Pause,
    Close,
    Kill,
    /// So many commits are lost, and the state or the spool is older than it was.
    PowerFailure {
        lost: usize,
        old_state: bool,
        no_spool: bool,
    },
    /// A process without the shim commits, and perhaps truncates or closes.
    Foreign(u32, u8),
}

/// A page that nothing changes, as most pages of a database are: by it the database is known again after a
/// stranger wrote it.
const STAYS: u32 = 2;

fn step() -> impl Strategy<Value = Step> {
    let page = prop_oneof![Just(1), STAYS + 1..8];
    let size = STAYS..8;
    prop_oneof![
        12 => page.clone().prop_map(Step::Change),
        3 => (page.clone(), size).prop_map(|(page, size)| Step::Resize(page, size)),
        1 => Just(Step::RollBack),
        4 => Just(Step::Checkpoint),
        4 => Just(Step::Truncate),
        4 => Just(Step::Sync),
        2 => Just(Step::Outage),
        2 => Just(Step::Heal),
        1 => Just(Step::LoseAnswer),
        1 => Just(Step::Slow),
        2 => Just(Step::Pause),
        2 => Just(Step::Close),
        2 => Just(Step::Kill),
        1 => (0_usize..4, any::<bool>(), any::<bool>())
            .prop_map(|(lost, old_state, no_spool)| Step::PowerFailure { lost, old_state, no_spool }),
        1 => (page, 0_u8..4).prop_map(|(page, end)| Step::Foreign(page, end)),
    ]
}

struct Run {
    bench: Bench,
    /// The state file as it was some steps ago.
    old_state: Option<Vec<u8>>,
    /// The state of the database that a sync confirmed last.
    confirmed: Option<u64>,
    power_failed: bool,
}

impl Run {
    fn new() -> Self {
        let mut bench = Bench::new(3);
        bench.database.close_timeout = Duration::from_millis(20);
        Self { bench, old_state: None, confirmed: None, power_failed: false }
    }

    fn take(&mut self, step: Step) {
        let bench = &mut self.bench;
        let opens = !matches!(step, Step::Foreign(..) | Step::Close | Step::Kill | Step::PowerFailure { .. });
        if opens && bench.db.primary.is_none() {
            bench.open();
        }
        let size = bench.db.pages.len() as u32;
        let in_size = |page: u32, size| if page <= size { page } else { 1 };
        match step {
            Step::Change(page) => bench.db.commit(&[in_size(page, size)], size),
            Step::Resize(page, size) => bench.db.commit(&[1, in_size(page, size)], size),
            Step::RollBack => bench.db.roll_back(),
            Step::Checkpoint => {
                bench.db.checkpoint();
            }
            Step::Truncate => {
                bench.db.truncate();
            }
            Step::Sync => {
                if bench.primary().sync(Duration::from_millis(30), &|| false).is_ok() {
                    self.old_state = fs::read(bench.local("vfs.json")).ok();
                    self.confirmed = Some(digest(&bench.db.pages));
                }
            }
            Step::Outage => {
                for op in [Op::Put, Op::Upload] {
                    bench.store.often(op, 1000, Fault::Refuse(ErrorKind::Unavailable));
                }
            }
            Step::Heal => bench.store.heal(),
            Step::LoseAnswer => bench.store.next(Op::Put, Fault::LoseAnswer(ErrorKind::Unavailable)),
            Step::Slow => bench.store.next(Op::Put, Fault::Delay(Duration::from_millis(10))),
            Step::Pause => std::thread::sleep(Duration::from_millis(3)),
            Step::Close if bench.db.primary.is_some() => bench.close(),
            Step::Kill => bench.kill(),
            Step::Close => {}
            Step::PowerFailure { lost, old_state, no_spool } => self.fail_power(lost, old_state, no_spool),
            Step::Foreign(page, end) => bench.db.without_shim(|db| {
                db.commit(&[in_size(page, size)], size);
                match end {
                    0 => {}
                    1 => drop(db.truncate()),
                    2 => drop(db.checkpoint()),
                    // Only the last one that has it open deletes the WAL.
                    _ => {}
                }
            }),
        }
    }

    fn fail_power(&mut self, lost: usize, old_state: bool, no_spool: bool) {
        self.power_failed = true;
        let bench = &mut self.bench;
        bench.kill();
        bench.db.fail_power(lost);
        let path = bench.local("vfs.json");
        if let Some(state) = self.old_state.take().filter(|_| old_state) {
            fs::write(&path, state).unwrap();
        }
        if let Ok(state) = fs::read_to_string(&path) {
            let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
            fs::write(&path, state.replace(boot.trim(), "the boot before")).unwrap();
        }
        if no_spool {
            for file in fs::read_dir(bench.local("spool")).into_iter().flatten() {
                fs::write(file.unwrap().path(), b"").unwrap();
            }
        }
    }

    fn end(mut self) -> End {
        self.bench.store.heal();
        self.take(Step::Change(1));
        let end = match self.bench.try_sync() {
            Err(e) if e.kind() == ErrorKind::Conflict && self.power_failed => {
                self.assert_nothing_is_buried();
                // What was left behind stays, and the decision holds.
                let left = self.bench.txids();
                self.bench.primary().resume(crate::primary::Asked::All, true, PATIENCE, &|| false).unwrap();
                assert!(self.bench.txids().starts_with(&left));
                End::Stopped
            }
            synced => {
                synced.unwrap();
                assert!(self.bench.snapshots().is_empty(), "a hole was healed where there is none");
                self.assert_nothing_is_buried();
                End::WentOn
            }
        };
        self.bench.assert_replica_is_current();
        self.bench.until("an empty spool", |bench| bench.spooled().is_empty());
        end
    }

    /// The last state of the replica was made of what was confirmed.
    fn assert_nothing_is_buried(&self) {
        let (states, _) = self.bench.replay();
        let (Some(last), Some(confirmed)) = (states.last(), self.confirmed) else { return };
        assert!(self.bench.db.descends(*last, confirmed), "what was confirmed is buried");
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    WentOn,
    Stopped,
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn any_order_of_events_ends_in_what_is_committed(steps in prop::collection::vec(step(), 1..60)) {
        let mut run = Run::new();
        for step in steps {
            run.take(step);
        }
        run.end();
    }
}

/// What happens before and after a power failure.
fn quiet_step() -> impl Strategy<Value = Step> {
    let page = 1_u32..8;
    prop_oneof![
        8 => page.clone().prop_map(Step::Change),
        1 => (page.clone(), page.clone()).prop_map(|(page, size)| Step::Resize(page, size)),
        1 => Just(Step::Checkpoint),
        1 => Just(Step::Truncate),
        6 => Just(Step::Sync),
        1 => Just(Step::Close),
        1 => Just(Step::Kill),
    ]
}

#[test]
fn two_hundred_power_failures_bury_nothing() {
    let failure = (0_usize..4, any::<bool>(), any::<bool>());
    let steps = |count| prop::collection::vec(quiet_step(), count);
    let cases = (steps(1..16), failure, steps(0..4));
    let mut runner = TestRunner::deterministic();
    let mut went_on = 0;
    for _ in 0..200 {
        let (before, (lost, old_state, no_spool), after) = cases.new_tree(&mut runner).unwrap().current();
        let mut run = Run::new();
        before.into_iter().for_each(|step| run.take(step));
        run.take(Step::PowerFailure { lost, old_state, no_spool });
        after.into_iter().for_each(|step| run.take(step));
        went_on += u32::from(run.end() == End::WentOn);
    }
    println!("{went_on} of 200 went on");
    assert!(went_on >= 100, "only {went_on} of 200 went on by themselves");
}
