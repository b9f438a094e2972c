//! Processes that live for a second: each publishes something, none is there when anything falls due.

use std::time::Duration;

use super::world::{World, settings};
use crate::store::Op;

#[test]
fn levels_and_snapshots_are_made_by_processes_that_live_for_a_second() {
    let mut world = World::new(1, settings());
    for _ in 0..600 {
        let pause = world.random(20);
        world.pass(Duration::from_secs(pause));
        world.commit();
        world.close();
    }
    world.assert_restores();
    // What is over was merged: one more process finishes the last windows.
    world.pass(Duration::from_secs(3600));
    world.round();
    world.assert_restores();
    world.assert_tidy();
    assert_eq!((world.files(3).len(), world.files(9).len()), (1, 1));
}

#[test]
fn a_process_looks_at_the_replica_only_when_something_is_due() {
    let mut world = World::new(2, settings());
    world.commit();
    world.close();
    for _ in 0..5 {
        world.pass(Duration::from_secs(1));
        world.commit();
        world.close();
    }
    assert_eq!(world.store.total(), 0);
    world.pass(Duration::from_secs(40));
    world.close();
    let lists = world.store.count(Op::List);
    assert!(lists > 0 && world.files(1).len() == 1);
    world.close();
    assert_eq!(world.store.count(Op::List), lists, "nothing is due: nothing is asked");
}

#[test]
fn without_an_orderly_end_the_next_process_looks() {
    let mut world = World::new(3, settings());
    for _ in 0..10 {
        world.commit();
        world.pass(Duration::from_secs(40));
        // Killed before it did anything.
        world.restart();
    }
    world.round();
    assert_eq!(world.files(1).len(), 1);
    world.assert_restores();
}
