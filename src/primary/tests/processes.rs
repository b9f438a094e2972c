//! Several processes have the database open. Commits of all of them arrive, in order and once, whoever
//! restarts or empties the WAL and whoever of them dies.

use std::sync::Arc;

use proptest::prelude::*;

use super::bench::Bench;
use super::sqlite::Db;
use crate::primary::{Phase, Primary};

/// A bench whose processes are the first one, which publishes at first, and `others`.
struct Processes {
    bench: Bench,
    others: Vec<Arc<Primary>>,
}

impl Drop for Processes {
    fn drop(&mut self) {
        self.others.iter().for_each(|other| other.kill());
    }
}

impl Processes {
    fn new(others: usize) -> Self {
        let bench = Bench::synced(5);
        let others = (0..others).map(|_| bench.primary().beside().unwrap()).collect();
        Self { bench, others }
    }

    /// Does `work` in one of the others, or in the first.
    fn by(&mut self, process: usize, work: impl FnOnce(&mut Db)) {
        let db = &mut self.bench.db;
        let process = process % (self.others.len() + 1);
        let Some(other) = self.others.get(process.wrapping_sub(1)) else { return work(db) };
        let first = db.primary.replace(Arc::clone(other));
        work(db);
        db.primary = first;
    }

    fn sync(&mut self, process: usize) {
        self.by(process, |db| {
            let primary = db.primary.as_ref().unwrap();
            primary.sync(super::bench::PATIENCE, &|| false).unwrap();
        });
        self.bench.assert_replica_is_current();
    }

    /// The database was copied once, at the beginning.
    fn assert_not_copied_anew(&self) {
        for primary in self.others.iter().chain([self.bench.primary()]) {
            assert_eq!(primary.status()[0].notice, None);
        }
    }

    /// The publisher dies; the first of the others takes its place when somebody asks it to.
    fn kill_publisher(&mut self) {
        let publishes = |primary: &Arc<Primary>| primary.status()[0].phase != Phase::Standby;
        let Some(heir) = self.others.pop() else { return };
        let publisher = match self.others.iter_mut().find(|other| publishes(other)) {
            Some(other) => std::mem::replace(other, heir),
            None if publishes(&heir) => heir,
            None => self.bench.db.primary.replace(heir).unwrap(),
        };
        publisher.kill();
    }
}

/// The publisher may be looking at the database just now.
fn checkpoint(db: &mut Db) {
    while !db.checkpoint() {
        std::thread::yield_now();
    }
}

#[test]
fn who_does_not_publish_says_what_the_publisher_knows() {
    let mut processes = Processes::new(2);
    for process in [1, 2, 0] {
        processes.by(process, |db| db.change(1));
        processes.sync(process);
        let theirs = processes.bench.status();
        let known = (theirs.txid, theirs.time, theirs.lag, None);
        for other in &processes.others {
            // What the publisher was told of meanwhile, it looks at in its next round.
            processes.bench.until("no lag", |_| other.lag().is_zero());
            let status = other.status().remove(0);
            assert_eq!(status.phase, Phase::Standby);
            assert_eq!((status.txid, status.time, status.lag, status.error.map(|e| e.to_string())), known);
            assert_eq!((other.txid(), other.time()), (theirs.txid, theirs.time));
        }
    }
}

#[test]
fn commits_of_all_arrive() {
    let mut processes = Processes::new(2);
    for process in [1, 2, 0, 2, 1] {
        processes.by(process, |db| db.change(1 + process as u32));
        processes.sync(process);
    }
    processes.assert_not_copied_anew();
}

#[test]
fn a_generation_that_another_process_ends_is_handed_over() {
    for sync_between in [true, false] {
        let mut processes = Processes::new(2);
        for process in [1, 2, 0, 1, 1, 2, 2, 0] {
            processes.by(process, |db| {
                db.change(1 + process as u32);
                checkpoint(db);
                db.change(4);
            });
            if sync_between {
                processes.sync(1);
            }
        }
        processes.sync(2);
        processes.assert_not_copied_anew();
    }
}

#[test]
fn a_generation_that_was_kept_may_follow_some_that_were_handed_over() {
    let mut processes = Processes::new(2);
    // The publisher follows to the start of a generation without seeing any commit.
    processes.by(1, Db::roll_back);
    processes.sync(0);
    processes.bench.primary().clone().without_capture(|| {
        for process in [1, 2, 0] {
            processes.by(process, |db| {
                db.change(1);
                checkpoint(db);
                db.change(2);
            });
        }
    });
    processes.sync(0);
    processes.assert_not_copied_anew();
}

#[test]
fn a_wal_that_another_process_empties_is_handed_over() {
    let mut processes = Processes::new(1);
    for page in 1..4 {
        processes.by(1, |db| {
            db.change(page);
            while !db.truncate() {}
        });
        processes.sync(0);
        processes.by(1, |db| db.change(page));
        processes.sync(0);
    }
}

#[test]
fn a_wal_that_is_used_and_emptied_without_a_commit_is_followed_to_its_end() {
    let mut processes = Processes::new(1);
    processes.by(1, |db| {
        db.change(1);
        while !db.truncate() {}
    });
    processes.sync(0);
    // Nothing is written to the database: its stamp stays what it is.
    processes.bench.primary().clone().without_capture(|| {
        processes.by(1, |db| {
            db.roll_back();
            while !db.truncate() {}
        });
    });
    processes.sync(0);
    processes.by(1, |db| db.change(2));
    processes.sync(0);
}

#[test]
fn another_process_takes_over_with_what_was_kept_and_handed_over() {
    let mut processes = Processes::new(2);
    for process in [1, 0, 2, 0] {
        processes.by(process, |db| {
            db.change(2);
            checkpoint(db);
            db.change(3);
        });
    }
    processes.kill_publisher();
    processes.by(1, |db| {
        db.change(1);
        checkpoint(db);
        db.change(4);
    });
    processes.sync(0);
    processes.assert_not_copied_anew();
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Change(usize, u32),
    RollBack(usize),
    Checkpoint(usize),
    Truncate(usize),
    Sync(usize),
    Kill,
    Foreign(u32),
}

#[test]
fn a_generation_of_a_stranger_that_one_of_us_ends_is_noticed() {
    use Step::{Change, Checkpoint, Foreign, Sync, Truncate};
    run(&[Change(0, 1), Checkpoint(0), Change(1, 1), Checkpoint(0), Foreign(1), Truncate(1), Sync(0)]);
}

#[test]
fn commits_of_a_stranger_that_died_at_a_restart_of_the_wal_are_noticed() {
    let mut processes = Processes::new(0);
    processes.by(0, |db| db.change(1));
    processes.sync(0);
    processes.bench.db.without_shim(|db| {
        db.change(2);
        checkpoint(db);
        db.reset_index();
    });
    processes.sync(0);
}

fn step() -> impl Strategy<Value = Step> {
    let process = 0_usize..3;
    prop_oneof![
        10 => (process.clone(), 1_u32..5).prop_map(|(process, page)| Step::Change(process, page)),
        2 => process.clone().prop_map(Step::RollBack),
        5 => process.clone().prop_map(Step::Checkpoint),
        2 => process.clone().prop_map(Step::Truncate),
        3 => process.prop_map(Step::Sync),
        1 => Just(Step::Kill),
        1 => (1_u32..5).prop_map(Step::Foreign),
    ]
}

fn run(steps: &[Step]) {
    let mut processes = Processes::new(2);
    let mut may_be_copied = false;
    for step in steps {
        match *step {
            Step::Change(process, page) => processes.by(process, |db| db.change(page)),
            Step::RollBack(process) => processes.by(process, Db::roll_back),
            Step::Checkpoint(process) => processes.by(process, |db| _ = db.checkpoint()),
            Step::Truncate(process) => {
                // Stamps of files are too coarse for what happens within a millisecond.
                may_be_copied = true;
                processes.by(process, |db| _ = db.truncate());
            }
            Step::Sync(process) => processes.sync(process),
            Step::Kill => processes.kill_publisher(),
            Step::Foreign(page) => {
                may_be_copied = true;
                processes.bench.db.without_shim(|db| db.change(page));
            }
        }
    }
    processes.by(0, |db| db.change(1));
    processes.sync(0);
    if !may_be_copied {
        processes.assert_not_copied_anew();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_replica_follows_whoever_does_what(steps in prop::collection::vec(step(), 1..40)) {
        run(&steps);
    }
}
