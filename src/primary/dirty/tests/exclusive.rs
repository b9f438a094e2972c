//! A connection that keeps the database for itself (`locking_mode=EXCLUSIVE`) after it had used the WAL as others do:
//! it restarts the WAL without any lock that could be noticed.

use super::world::{By, Drawn, World, is_broken, pages};
use crate::primary::dirty::journal::end_of;

/// Pages 1 and 2 are published, 3 is not.
fn in_the_middle() -> World {
    let mut world = World::new();
    world.commit(&[1, 2], By::Us, Drawn::Both);
    let _ = world.publish_now();
    world.commit(&[3], By::Us, Drawn::Both);
    world
}

/// The same, and nothing is published: the way back leads past the generation, whose frames nobody asks for.
fn long_behind() -> World {
    let mut world = World::new();
    world.commit(&[1, 2], By::Us, Drawn::Both);
    world.commit(&[3], By::Us, Drawn::Both);
    world
}

#[test]
fn its_restarts_are_recorded_with_the_header_that_follows() {
    let mut world = in_the_middle();
    world.remember(By::UsAlone);
    world.restart(By::UsAlone, false);
    world.commit(&[4], By::UsAlone, Drawn::Restart);
    assert_eq!(world.look(), pages(&[3, 4]));
    world.restart(By::UsAlone, false);
    world.commit(&[5], By::UsAlone, Drawn::Restart);
    assert_eq!(world.publish_now(), pages(&[3, 4, 5]));
}

#[test]
fn a_wal_that_it_cuts_to_nothing_is_recorded() {
    let mut world = in_the_middle();
    world.remember(By::UsAlone);
    world.restart(By::UsAlone, true);
    assert_eq!(world.look(), pages(&[3]));
}

#[test]
fn what_it_left_empty_is_recorded_when_it_gives_the_file_up() {
    let mut world = in_the_middle();
    world.remember(By::UsAlone);
    world.restart(By::UsAlone, false);
    world.recorder.gives_file_up(&mut world.index.clone());
    world.roll_back(&[9, 9], By::Others, Drawn::Restart);
    assert_eq!(world.look(), pages(&[3]));
}

/// FATAL without the rule: nothing is recorded of an index from before the lock. Another connection restarted the WAL,
/// and overwrote the page numbers by a transaction that it rolled back: the header does not tell.
#[test]
fn an_index_from_before_the_lock_is_not_recorded() {
    let mut world = long_behind();
    world.remember(By::UsAlone);
    // The lock was given up and granted again in between.
    world.restart(By::Others, false);
    world.roll_back(&[9, 9, 9], By::Others, Drawn::Restart);
    world.remember(By::UsAlone);
    world.commit(&[4], By::UsAlone, Drawn::Restart);
    assert!(is_broken(&world.look()));
}

/// FATAL without the rule: what was remembered under the lock counts only under the lock.
#[test]
fn what_was_remembered_ends_with_the_lock() {
    for gives_up in [true, false] {
        let mut world = long_behind();
        world.remember(By::UsAlone);
        if gives_up {
            world.recorder.gives_file_up(&mut world.index.clone());
        }
        world.restart(By::Others, false);
        world.roll_back(&[9, 9, 9], By::Others, Drawn::Restart);
        let by = if gives_up { By::UsAlone } else { By::Us };
        world.commit(&[4], by, Drawn::Restart);
        assert!(is_broken(&world.look()), "gives up: {gives_up}");
    }
}

/// FATAL without the rule: a generation is recorded once. The connection's own transaction spills and is rolled back,
/// and the header of the WAL is written a second time; the first record was lost.
#[test]
fn a_generation_is_recorded_once() {
    let mut world = long_behind();
    world.remember(By::UsAlone);
    world.restart(By::UsAlone, false);
    world.roll_back(&[9, 9, 9], By::UsAlone, Drawn::Restart);
    let ends = |world: &World| world.records().iter().filter_map(end_of).count();
    assert_eq!(ends(&world), 1);
    world.lose_records();
    world.commit(&[4], By::UsAlone, Drawn::Restart);
    assert_eq!(ends(&world), 0);
    assert!(is_broken(&world.look()));
}
