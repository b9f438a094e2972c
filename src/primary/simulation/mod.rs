//! A simulation of a primary with two replicas: connections of three processes that commit, roll back, checkpoint, restart
//! the WAL, close and die at any step; stores that refuse, lose answers, and do late what a dead process asked for; kills
//! wherever the shippers wait; power failures that lose what was not synced. All of it, time included, comes from one
//! seed.
//!
//! What must hold: each transaction of each replica is a state that was once committed, made of the one before, and stays
//! what it is; what a sync confirmed is part of it from then on; in the end both replicas are the database. Replication
//! stops by itself only after the database lost commits: by a power failure, or by a recovery of SQLite 3.40.
//!
//! | file | what it is |
//! | --- | --- |
//! | `disk` | files of which a power failure loses what was not synced |
//! | `sqlite` | a model of SQLite's WAL, its index, locks and connections |
//! | `host` | the database as the library reads it |
//! | `store` | a bucket behind a network |
//! | `run` | one run, and what is checked |
//!
//! `scripts/simulate.py` runs many seeds.

mod disk;
mod host;
mod run;
mod sqlite;
mod store;

use std::env;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

/// The number of seeds that are run with all other tests.
const SEEDS: u64 = 25;

/// The number in an environment variable.
fn number(name: &str) -> Option<u64> {
    env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
}

/// Runs `SIMULATION_SEEDS` seeds from `SIMULATION_SEED` on.
#[test]
fn every_seed_ends_in_what_was_committed() {
    let first = number("SIMULATION_SEED").unwrap_or(0);
    let count = number("SIMULATION_SEEDS").unwrap_or(SEEDS);
    for seed in first..first + count {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| run::run(seed))) {
            eprintln!("seed {seed} fails; scripts/simulate.py --seed {seed} runs it again");
            resume_unwind(panic);
        }
    }
}

#[test]
fn a_seed_replays() {
    for seed in 0..2 {
        assert_eq!(run::run(seed), run::run(seed), "seed {seed}");
    }
}
