//! An hour and more of commits. At any moment what is there restores, to the right content; the files
//! are as many as the levels imply; and what is left at last is what the settings promise.

use std::time::Duration;

use super::world::{MINUTE, World, settings};
use crate::primary::maintenance::settings::window_start;
use crate::primary::maintenance::{Settings, SnapshotAt};

/// Commits for `seconds`, at times that `world` chooses; all is checked again and again, at each third
/// end of a window.
fn commit_for(world: &mut World, seconds: u64) {
    let mut quiet = 0;
    for second in 1..=seconds {
        world.pass(Duration::from_secs(1));
        if quiet > 0 {
            quiet -= 1;
        } else if world.random(3) > 0 {
            world.commit();
            if world.random(100) == 0 {
                quiet = world.random(600);
            }
        }
        world.round();
        if second % 90 == 29 {
            world.assert_restores();
            world.assert_tidy();
        }
    }
}

#[test]
fn an_hour_of_history() {
    let mut world = World::new(1, settings());
    commit_for(&mut world, 3700);
    assert!(!world.files(3).is_empty() && world.files(9).len() >= 2, "all levels were used");
    assert!(*world.points().first().unwrap() > 1, "nothing was deleted");
    world.run_down();
    world.assert_restores();
    world.assert_tidy();
    // One file of each level stays, and a snapshot of the last state.
    assert_eq!(world.files(0).len(), 1);
    assert_eq!(world.files(9).len(), 1);
    assert_eq!(world.files(9)[0].id.name.max().get(), world.last());
}

#[test]
fn levels_that_are_used_no_more_are_left_to_retention() {
    let levels = vec![MINUTE / 2, MINUTE * 2, MINUTE * 5];
    let brief =
        Settings { levels, snapshot_interval: MINUTE * 5, snapshot_retention: MINUTE * 5, ..settings() };
    let mut world = World::new(8, brief);
    commit_for(&mut world, 700);
    assert!(!world.files(2).is_empty() && !world.files(3).is_empty());
    world.settings.levels.truncate(1);
    world.restart();
    commit_for(&mut world, 1300);
    let base = world.files(9)[0].id.name.max();
    for level in [2, 3] {
        assert!(world.files(level).iter().all(|file| file.id.name.max() >= base), "level {level}");
    }
    world.run_down();
    assert!(world.files(2).is_empty() && world.files(3).is_empty());
    world.assert_restores();
}

#[test]
fn a_replica_without_retention_keeps_everything() {
    let mut world = World::new(2, Settings { retention: false, ..settings() });
    commit_for(&mut world, 1500);
    world.run_down();
    world.assert_restores();
    assert_eq!(world.files(0).len() as u64, world.last());
    assert_eq!(world.points().len() as u64, world.last());
    assert_eq!(world.store.count(crate::store::Op::Delete), 0);
}

#[test]
fn a_day_of_litestreams_defaults() {
    let day = MINUTE * 60 * 24;
    let mut world = World::new(3, Settings { snapshot_interval: day, snapshot_retention: day, ..settings() });
    for _ in 0..400 {
        let pause = world.random(1800);
        world.pass(Duration::from_secs(pause));
        world.commit();
        world.round();
    }
    world.assert_restores();
    world.run_down();
    world.assert_restores();
    world.assert_tidy();
    assert_eq!(world.files(9).len(), 1);
}

#[test]
fn snapshots_are_made_at_their_time_of_day_and_no_other() {
    let day = MINUTE * 60 * 24;
    let at = SnapshotAt::Minute(3 * 60);
    let brief =
        Settings { snapshot_interval: day, snapshot_at: at, snapshot_retention: day * 9, ..settings() };
    let mut world = World::new(12, brief);
    let mut made = Vec::new();
    for minute in 0..4 * 24 * 60 {
        world.pass(MINUTE);
        if minute % 20 == 0 {
            world.commit();
        }
        world.round();
        let snapshots = world.files(9);
        if snapshots.len() > made.len() {
            let last = snapshots.last().unwrap().id.name.max().get();
            let now = world.now();
            made.push((now.as_millis() - window_start(now, day).as_millis()) / 60_000);
            assert!(world.states[&last].0 < now && last + 1 >= world.last(), "it holds all up to then");
        }
        if minute % 500 == 0 {
            // Another process keeps to the same time.
            world.restart();
        }
    }
    assert_eq!(made.len(), 4);
    assert!(made.iter().all(|minute| (180..=210).contains(minute) && *minute == made[0]), "{made:?}");
}
