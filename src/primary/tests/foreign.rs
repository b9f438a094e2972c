//! A process without the shim writes the database while ours has it open. Whatever it does to the WAL,
//! its commits get to the replica with our next one, at worst by a full copy.

use super::bench::Bench;
use super::sqlite::Db;

type Deed = (&'static str, fn(&mut Bench));
type Foreign = (&'static str, fn(&mut Db));

/// What we did last.
const BEFORE: [Deed; 6] = [
    ("nothing", |bench| bench.open()),
    ("looked at the replica", |bench| {
        bench.open();
        bench.sync();
    }),
    ("committed", |bench| {
        bench.open();
        bench.db.change(1);
        bench.sync();
    }),
    ("truncated", |bench| {
        bench.open();
        bench.db.change(1);
        bench.db.truncate();
        bench.sync();
    }),
    ("truncated right now", |bench| {
        bench.open();
        bench.db.change(1);
        bench.db.truncate();
    }),
    ("rolled back the first of a generation", |bench| {
        bench.open();
        bench.db.change(1);
        bench.db.checkpoint();
        bench.db.roll_back();
        bench.sync();
    }),
];

/// What they did.
const FOREIGN: [Foreign; 8] = [
    ("committed", |db| db.change(2)),
    ("committed and truncated", |db| {
        db.change(2);
        db.truncate();
    }),
    ("committed, truncated, committed", |db| {
        db.change(2);
        db.truncate();
        db.change(3);
    }),
    ("committed and restarted", |db| {
        db.change(2);
        db.checkpoint();
        db.change(3);
    }),
    ("committed and rolled back a restart", |db| {
        db.change(2);
        db.checkpoint();
        db.roll_back();
    }),
    ("committed and closed as the last", |db| {
        db.change(2);
        db.close_last();
    }),
    ("closed as the last, and another one too", |db| {
        db.close_last();
        db.change(2);
        db.close_last();
    }),
    ("committed twice, each in a generation of its own", |db| {
        db.change(2);
        db.checkpoint();
        db.change(3);
        db.checkpoint();
        db.change(4);
        db.checkpoint();
    }),
];

#[test]
fn its_commits_are_not_left_out() {
    for (ours, before) in BEFORE {
        for (theirs, deed) in FOREIGN {
            for starts_with_wal in [false, true] {
                let mut bench = Bench::synced(5);
                if starts_with_wal {
                    bench.db.change(5);
                    bench.sync();
                    bench.kill();
                } else {
                    bench.close();
                }
                before(&mut bench);
                bench.db.without_shim(deed);
                bench.db.change(1);
                bench.sync();
                let (_, replica) = bench.replay();
                assert!(replica == bench.db.pages, "we {ours}, they {theirs}: a gap");
                bench.assert_replica_is_current();
            }
        }
    }
}
