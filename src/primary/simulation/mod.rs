//! A simulation of a primary with two replicas: connections of three processes that commit, roll back, checkpoint, restart
//! the WAL, close and die at any step; stores that refuse, lose answers, and do late what a dead process asked for; kills
//! wherever the shippers wait; power failures that lose what was not synced. All of it, time included, comes from one
//! seed.
//!
//! What must hold: each transaction of each replica is a state that was once committed, made of the one before, and stays
//! what it is; what a sync confirmed is part of it from then on; in the end both replicas are the database. Replication
//! stops by itself only after the database lost commits: by a power failure, or by a recovery of SQLite 3.40.
//!
//! In one run of [`SEALED`] the replicas are encrypted, and merged. There nothing readable leaves the process but in the
//! database; each content key belongs to one file, and each nonce to one page; keys are kept of files only that wait for a
//! merge; and what the publisher has no key for is made good by a snapshot. Keys and nonces come from the operating system:
//! no decision depends on them, so that such a run replays as well.
//!
//! | file | what it is |
//! | --- | --- |
//! | `disk` | files of which a power failure loses what was not synced |
//! | `sqlite` | a model of SQLite's WAL, its index, locks and connections |
//! | `host` | the database as the library reads it |
//! | `store` | a bucket behind a network |
//! | `ledger` | what every content key was used for, and what can be read without one |
//! | `run` | one run, and what is checked |
//!
//! `scripts/simulate.py` runs many seeds.

mod disk;
mod host;
mod ledger;
mod run;
mod sqlite;
mod store;

use std::env;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Mutex};

use ledger::Ledger;

/// The number of seeds that are run with all other tests.
const SEEDS: u64 = 25;
/// The number of seeds of which one is of encrypted replicas.
const SEALED: u64 = 3;
/// The number of encrypted files in which no key is used twice, with all other tests.
const FILES: u64 = 1000;

/// The number in an environment variable.
fn number(name: &str) -> Option<u64> {
    env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
}

/// Whether the replicas of a run are encrypted.
const fn is_sealed(seed: u64) -> bool {
    seed % SEALED == SEALED - 1
}

/// Runs a seed, and tells which one failed.
fn run_one(seed: u64, ledger: &Arc<Mutex<Ledger>>) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| run::run(seed, ledger))) {
        eprintln!("seed {seed} fails; scripts/simulate.py --seed {seed} runs it again");
        resume_unwind(panic);
    }
}

/// Runs `SIMULATION_SEEDS` seeds from `SIMULATION_SEED` on.
#[test]
fn every_seed_ends_in_what_was_committed() {
    let first = number("SIMULATION_SEED").unwrap_or(0);
    let count = number("SIMULATION_SEEDS").unwrap_or(SEEDS);
    let ledger = Arc::new(Mutex::new(Ledger::new()));
    (first..first + count).for_each(|seed| run_one(seed, &ledger));
}

/// Runs seeds of encrypted replicas from `SIMULATION_SEED` on, until they have sealed `SIMULATION_FILES` files.
#[test]
fn no_content_key_and_no_nonce_is_used_twice() {
    let first = number("SIMULATION_SEED").unwrap_or(SEEDS);
    let count = number("SIMULATION_FILES").unwrap_or(FILES);
    let ledger = Arc::new(Mutex::new(Ledger::new()));
    let files = || {
        let mut ledger = ledger.lock().unwrap();
        ledger.end();
        ledger.files() as u64
    };
    (first..)
        .filter(|seed| is_sealed(*seed))
        .take_while(|_| files() < count)
        .for_each(|seed| run_one(seed, &ledger));
    println!("{} files", files());
}

#[test]
fn a_seed_replays() {
    let run = |seed| run::run(seed, &Arc::new(Mutex::new(Ledger::new())));
    for seed in 0..SEALED {
        assert_eq!(run(seed), run(seed), "seed {seed}");
    }
}
