//! The clock of the machine is set, back and forth, while a database is published.

use std::sync::Arc;

use super::bench::Bench;
use crate::clock::{Clock as _, ManualClock, Timestamp};
use crate::error::ErrorKind;
use crate::store::{Fault, Op};

const HOUR: i64 = 3_600_000;
const YEAR: i64 = 365 * 24 * HOUR;

fn jump(bench: &Bench, ms: i64) {
    bench.clock.jump(Timestamp::from_millis(bench.clock.now().as_millis() + ms));
}

/// The times of all transactions, and those that the store was told.
fn times(bench: &Bench) -> Vec<i64> {
    let last = *bench.txids().last().unwrap();
    (1..=last).map(|txid| bench.header(txid).timestamp.as_millis()).collect()
}

#[test]
fn no_transaction_is_earlier_than_the_one_before() {
    let mut bench = Bench::synced(5);
    let mut expected = times(&bench);
    let begun = expected[0];
    for (ms, time) in [(HOUR, begun + HOUR), (-2 * HOUR, begun + HOUR), (-30 * YEAR, begun + HOUR)] {
        jump(&bench, ms);
        bench.db.change(1);
        bench.sync();
        expected.push(time);
        assert_eq!(times(&bench), expected);
    }
    // The next process knows what was published, though its clock does not.
    bench.close();
    bench.open();
    bench.db.change(1);
    bench.sync();
    expected.push(begun + HOUR);
    assert_eq!(times(&bench), expected);
    bench.kill();
    std::fs::remove_dir_all(bench.state_folder()).unwrap();
    bench.open();
    bench.db.change(1);
    bench.sync();
    assert!(times(&bench).is_sorted());
    bench.assert_replica_is_current();
}

#[test]
fn what_the_store_knows_to_be_wrong_is_not_published() {
    for ahead in [-36 * YEAR, -HOUR, HOUR, 6 * HOUR, 36 * YEAR] {
        let mut bench = Bench::new(5);
        let truth = Arc::new(ManualClock::new(Timestamp::from_millis(40 * YEAR)));
        bench.memory.set_clock(truth.clone());
        bench.clock.jump(Timestamp::from_millis(40 * YEAR + ahead));
        bench.open();
        bench.sync();
        let notice = bench.status().notice.unwrap();
        assert!(notice.contains(if ahead > 0 { "ahead of" } else { "behind" }), "{notice}");
        bench.db.change(1);
        bench.sync();
        bench.clock.jump(Timestamp::from_millis(40 * YEAR + 1000));
        bench.db.change(1);
        bench.sync();
        assert_eq!(times(&bench), [40 * YEAR, 40 * YEAR, 40 * YEAR + 1000], "{ahead}");
        bench.assert_replica_is_current();
    }
}

#[test]
fn what_waited_on_disk_goes_out_in_order() {
    let mut bench = Bench::synced(5);
    bench.store.often(Op::Put, 1000, Fault::Refuse(ErrorKind::Unavailable));
    for ms in [HOUR, -5 * HOUR, 10 * YEAR, -11 * YEAR] {
        jump(&bench, ms);
        bench.db.change(1);
        bench.db.truncate();
    }
    bench.store.heal();
    bench.sync();
    bench.db.change(1);
    bench.sync();
    let times = times(&bench);
    assert!(times.is_sorted(), "{times:?}");
    bench.assert_replica_is_current();
}
