//! Each way in which a change could be lost in silence, or a comparison be caused for nothing.

use super::world::{By, Drawn, Unsealed, World, is_broken, pages};
use crate::primary::dirty::{Collected, Cursor};

/// A database whose publisher is in the middle of a generation: pages 1 to 3 are published, 4 is not.
fn in_the_middle() -> World {
    let mut world = World::new();
    world.commit(&[1, 2], By::Us, Drawn::Both);
    world.commit(&[3], By::Us, Drawn::Both);
    assert_eq!(world.publish_now(), pages(&[1, 2, 3]));
    world.commit(&[4], By::Us, Drawn::Both);
    world
}

#[test]
fn in_one_generation_the_pages_after_the_cursor_are_found() {
    let mut world = in_the_middle();
    assert_eq!(world.publish_now(), pages(&[4]));
    assert_eq!(world.publish_now(), pages(&[]));
}

/// What is beyond the end of the database and its lock page are not pages of it.
#[test]
fn pages_that_the_database_does_not_have_are_dropped() {
    let mut world = in_the_middle();
    world.commit(&[1, 1], By::Us, Drawn::Both);
    (world.index.pages[4], world.index.pages[5]) = (11, 2_097_153);
    world.cursor = Cursor::File(world.stamp());
    world.commit(&[1], By::Us, Drawn::Both);
    assert_eq!(world.publish_now(), pages(&[1, 2, 3, 4]));
}

/// The rule: the generation that follows is the one that says so, not the one with the next salts. After a
/// `TRUNCATE` any other connection draws both of them.
#[test]
fn a_successor_is_found_whatever_its_salts() {
    for drawn in [Drawn::Both, Drawn::Restart] {
        let mut world = in_the_middle();
        world.restart(By::Us, true);
        world.commit(&[7], By::Us, drawn);
        assert_eq!(world.publish_now(), pages(&[4, 7]));
        assert_eq!(world.publish_now(), pages(&[]));
    }
}

#[test]
fn generations_without_a_commit_cost_nothing() {
    let mut world = in_the_middle();
    for _ in 0..3 {
        world.restart(By::Us, true);
    }
    assert_eq!(world.publish_now(), pages(&[4]));
    world.restart(By::Us, true);
    world.roll_back(&[8, 9], By::Us, Drawn::Restart);
    world.commit(&[7], By::Us, Drawn::Both);
    assert_eq!(world.publish_now(), pages(&[7]));
}

/// A process is killed in the first transaction of a generation, and a checkpoint gives the emptied index other salts: what
/// comes next names nothing of what was before.
#[test]
fn a_generation_that_a_kill_left_without_a_commit_is_passed() {
    for truncate in [false, true] {
        let mut world = in_the_middle();
        world.restart(By::Us, truncate);
        world.roll_back(&[8, 9], By::Us, Drawn::Restart);
        world.recover();
        world.restart(By::Us, true);
        world.roll_back(&[8], By::Us, Drawn::Both);
        world.commit(&[7], By::Us, Drawn::Both);
        let found = world.publish_now();
        assert_eq!(found, pages(&[4, 7]));
        assert_eq!(world.publish_now(), pages(&[]));
    }
}

/// FATAL without the rule: an end is linked by checksum and counter of the last commit. `RESTART` writes the record, the
/// generation continues, and a process without the hooks restarts it.
#[test]
fn an_end_after_which_the_generation_went_on_is_no_link() {
    let mut world = in_the_middle();
    world.locks_marks(By::Us);
    world.commit(&[5, 6], By::Others, Drawn::Both);
    world.restart(By::Others, true);
    assert!(is_broken(&world.look()));
    world.commit(&[7], By::Us, Drawn::Both);
    assert!(is_broken(&world.publish_now()));
}

/// The same, and the generation ends with the hooks: the later record replaces the earlier.
#[test]
fn a_later_end_of_a_generation_replaces_the_earlier() {
    let mut world = in_the_middle();
    world.locks_marks(By::Us);
    world.commit(&[5, 6], By::Others, Drawn::Both);
    world.restart(By::Us, false);
    world.commit(&[7], By::Us, Drawn::Restart);
    assert_eq!(world.publish_now(), pages(&[4, 5, 6, 7]));
}

#[test]
fn others_may_restart_what_was_covered() {
    let mut world = in_the_middle();
    let _ = world.publish_now();
    world.restart(By::Others, true);
    world.restart(By::Others, true);
    assert_eq!(world.look(), pages(&[]));
    world.commit(&[7], By::Us, Drawn::Both);
    assert_eq!(world.publish_now(), pages(&[7]));
}

#[test]
fn what_others_began_and_ended_is_a_hole() {
    let mut world = in_the_middle();
    world.restart(By::Us, true);
    world.commit(&[5], By::Others, Drawn::Both);
    assert!(is_broken(&world.look()));
    world.restart(By::Others, true);
    world.commit(&[6], By::Us, Drawn::Both);
    assert!(is_broken(&world.look()));
}

#[test]
fn a_record_that_could_not_be_written_is_a_hole() {
    let mut world = in_the_middle();
    world.restart(By::UsInVain, false);
    world.commit(&[5], By::Us, Drawn::Restart);
    assert!(is_broken(&world.look()));
    let mut world = in_the_middle();
    world.restart(By::Us, false);
    world.commit(&[5], By::UsInVain, Drawn::Restart);
    assert!(is_broken(&world.look()));
}

/// FATAL without the rule: the frame of the cursor is looked at in the WAL. A recovery drops frames that SQLite did not
/// seal, and the same generation continues beyond the cursor.
#[test]
fn a_recovery_that_lost_what_was_published_is_noticed() {
    let mut world = in_the_middle();
    world.commit_unsealed(&[5], By::Us, Unsealed::All);
    world.commit(&[6], By::Us, Drawn::Both);
    let _ = world.publish_now();
    world.recover();
    assert!(is_broken(&world.look()), "the WAL is shorter than it was");
    world.commit(&[7, 8, 9], By::Us, Drawn::Restart);
    assert!(is_broken(&world.look()));
}

/// A process dies as it closes, the generation comes back, and goes on with a commit that SQLite did not seal; then a process
/// without the hooks restarts the WAL. The end that was recorded at the close is no link.
#[test]
fn an_end_is_no_link_when_the_generation_went_on_unsealed() {
    for unsealed in [Unsealed::All, Unsealed::Spilled, Unsealed::ButTheLast] {
        let mut world = World::new();
        world.commit(&[1], By::Us, Drawn::Both);
        world.close(By::Us, true);
        world.commit_unsealed(&[2, 3], By::Us, unsealed);
        world.restart(By::Others, true);
        assert!(is_broken(&world.look()), "{unsealed:?}");
        world.commit(&[4], By::Us, Drawn::Restart);
        assert!(is_broken(&world.look()), "{unsealed:?}");
    }
}

#[test]
fn a_cursor_at_a_frame_without_checksum_is_not_believed() {
    let mut world = in_the_middle();
    world.commit_unsealed(&[5], By::Us, Unsealed::All);
    let _ = world.publish_now();
    assert!(is_broken(&world.look()));
}

/// FATAL without the rule: an end lists the checksums of the publisher's frames, and is no link without the cursor's.
/// The same loss by a recovery, and the generation is restarted before the publisher looks.
#[test]
fn a_loss_before_a_restart_is_noticed() {
    let mut world = in_the_middle();
    world.commit_unsealed(&[5], By::Us, Unsealed::All);
    world.commit(&[6], By::Us, Drawn::Both);
    let _ = world.publish_now();
    world.recover();
    world.commit(&[7, 8, 9], By::Us, Drawn::Restart);
    world.restart(By::Us, false);
    world.commit(&[2], By::Us, Drawn::Restart);
    assert!(is_broken(&world.look()));
}

/// A view that is being published when the WAL is restarted is a cursor right after, and the one before may stay it.
#[test]
fn positions_in_flight_are_listed_as_well() {
    for has_landed in [true, false] {
        let mut world = in_the_middle();
        let _ = world.publish();
        world.commit(&[5], By::Us, Drawn::Both);
        world.restart(By::Us, false);
        world.answered(has_landed);
        assert_eq!(world.publish_now(), pages(&[4, 5]));
    }
}

/// A recovery counts the commits from 0 again, which costs nothing.
#[test]
fn a_recovery_that_lost_nothing_costs_nothing() {
    let mut world = in_the_middle();
    world.recover();
    assert_eq!(world.look(), pages(&[4]));
    world.commit(&[5], By::Us, Drawn::Restart);
    world.restart(By::Us, true);
    world.commit(&[6], By::Us, Drawn::Both);
    assert_eq!(world.publish_now(), pages(&[4, 5, 6]));
}

/// A kill between the restart and the first commit: the generation before comes back, and continues.
#[test]
fn a_generation_that_comes_back_is_followed() {
    let mut world = in_the_middle();
    world.restart(By::Us, false);
    let _ = world.publish_now();
    world.delete_records();
    world.recover();
    world.commit(&[5], By::Us, Drawn::Restart);
    assert_eq!(world.look(), pages(&[5]));
    world.restart(By::Us, false);
    world.commit(&[6], By::Us, Drawn::Restart);
    assert_eq!(world.look(), pages(&[5, 6]));
}

/// A kill between the header of a generation and its first commit: a recovery knows no commit before.
#[test]
fn a_generation_that_never_had_a_commit_is_passed() {
    let mut world = in_the_middle();
    world.restart(By::Us, false);
    world.roll_back(&[8], By::Us, Drawn::Restart);
    world.recover();
    assert_eq!(world.look(), pages(&[4]));
    world.commit(&[5], By::Us, Drawn::Restart);
    assert_eq!(world.look(), pages(&[4, 5]));
}

#[test]
fn after_a_close_the_stamp_of_the_file_is_the_link() {
    let mut world = in_the_middle();
    world.close(By::Us, false);
    assert_eq!(world.look(), pages(&[4]));
    // Opened and closed without a commit.
    world.close(By::Us, false);
    world.commit(&[5], By::Us, Drawn::Both);
    world.restart(By::Us, true);
    world.close(By::Us, false);
    world.commit(&[6], By::Us, Drawn::Both);
    assert_eq!(world.look(), pages(&[4, 5, 6]));
}

#[test]
fn a_close_after_which_nothing_was_missing_costs_nothing() {
    let mut world = in_the_middle();
    let _ = world.publish_now();
    world.close(By::Us, false);
    assert_eq!(world.look(), pages(&[]));
    world.commit(&[6], By::Us, Drawn::Both);
    assert_eq!(world.look(), pages(&[6]));
}

/// FATAL without the rule: a close is linked by the stamp of the database file. Others use the database in between.
#[test]
fn a_file_that_others_changed_after_a_close_is_noticed() {
    let mut world = in_the_middle();
    world.close(By::Us, false);
    world.commit(&[5], By::Others, Drawn::Both);
    world.close(By::Others, false);
    assert!(is_broken(&world.look()));
    world.commit(&[6], By::Us, Drawn::Both);
    assert!(is_broken(&world.look()));
}

/// A close that dies before it deletes the WAL leaves a generation that continues.
#[test]
fn a_close_that_was_not_finished_is_no_end() {
    let mut world = in_the_middle();
    world.close(By::Us, true);
    world.commit(&[5], By::Others, Drawn::Restart);
    assert_eq!(world.look(), pages(&[4, 5]));
    world.close(By::Others, false);
    world.commit(&[6], By::Us, Drawn::Both);
    assert!(is_broken(&world.look()));
}

/// FATAL without the rule: a view without frames of the WAL looks at the header again after the page numbers.
#[test]
fn a_wal_that_was_restarted_meanwhile_asks_for_another_view() {
    let mut world = in_the_middle();
    for cursor in [world.cursor, Cursor::File(world.stamp())] {
        let mut view = world.view();
        view.is_changed = true;
        let found =
            crate::primary::dirty::collect(&mut view, &cursor, world.recorder.journal(), None).unwrap();
        assert_eq!(found, Collected::ViewChanged);
    }
    world.lose_records();
    assert_eq!(world.publish_now(), pages(&[4]));
}

/// Version 0.1.0 did not store the change counter: such a cursor is found by its frame alone.
#[test]
fn a_cursor_without_a_change_counter_is_found_by_its_frame() {
    let forget = |cursor| match cursor {
        Cursor::At(mut position) => {
            position.change = u32::MAX;
            Cursor::At(position)
        }
        file @ Cursor::File(_) => file,
    };
    let mut world = in_the_middle();
    world.cursor = forget(world.cursor);
    assert_eq!(world.look(), pages(&[4]));
    world.restart(By::Us, true);
    assert_eq!(world.look(), pages(&[4]));
    let mut world = in_the_middle();
    let _ = world.publish_now();
    world.cursor = forget(world.cursor);
    world.restart(By::Others, true);
    assert!(is_broken(&world.look()));
}
