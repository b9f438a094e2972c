//! All of it in any order: what is found has every page that was changed, or says that it is not known.

use proptest::prelude::*;

use super::world::{By, Drawn, Unsealed, World, is_broken};
use crate::primary::dirty::Collected;

/// Something that happens: what, to which pages, and how.
type Event = (u8, [u8; 3], u8);

fn events(longest: usize) -> impl Strategy<Value = Vec<Event>> {
    prop::collection::vec((0..24_u8, any::<[u8; 3]>(), any::<u8>()), 1..longest)
}

const fn by(how: u8) -> By {
    match how % 8 {
        0 => By::Others,
        1 => By::UsInVain,
        _ => By::Us,
    }
}

const fn drawn(how: u8) -> Drawn {
    if how & 16 == 0 { Drawn::Both } else { Drawn::Restart }
}

fn happens(world: &mut World, (what, pages, how): Event, by: By) {
    let pages = pages.map(|page| u32::from(page % 12) + 1);
    let pages = &pages[..=usize::from(how >> 6) % 3];
    match what {
        0..=5 => world.commit(pages, by, drawn(how)),
        6 => world.roll_back(pages, by, drawn(how)),
        7 => world.checkpoint(Some(usize::from(how % 6))),
        8..=9 => world.locks_marks(by),
        10..=12 => world.restart(by, how & 32 == 0),
        13..=14 => world.close(by, false),
        15 => world.delete_records(),
        16..=18 => _ = world.publish_now(),
        19 => _ = world.publish(),
        20 => world.answered(how & 16 == 0),
        21 => alone(world, pages, how),
        _ => {}
    }
}

/// A connection has the database for itself for a while.
fn alone(world: &mut World, pages: &[u32], how: u8) {
    world.remember(By::UsAlone);
    for step in 0..how % 8 {
        match (how >> 4).wrapping_add(step) % 4 {
            0 => world.commit(pages, By::UsAlone, drawn(how)),
            1 => world.restart(By::UsAlone, how & 8 == 0),
            2 => world.roll_back(pages, By::UsAlone, drawn(how)),
            _ => {
                // Only the committing thread can look.
                world.commit(pages, By::UsAlone, drawn(how));
                let _ = world.publish_now();
            }
        }
    }
    world.recorder.gives_file_up(&mut world.index.clone());
}

/// What only misfortune brings.
fn misfortune(world: &mut World, (what, pages, how): Event) {
    match what {
        22 if how % 4 == 0 => world.lose_records(),
        22 if how % 4 == 1 => {
            world.checkpoint(None);
            if !world.recovery_corrupts() {
                world.close(by(how), true);
            }
        }
        22 => {
            let unsealed =
                [Unsealed::All, Unsealed::Spilled, Unsealed::ButTheLast][usize::from(how >> 4) % 3];
            world.commit_unsealed(&pages.map(|page| u32::from(page % 12) + 1)[..2], by(how), unsealed);
        }
        23 if !world.recovery_corrupts() => world.recover(),
        _ => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig::default())]

    #[test]
    fn no_changed_page_is_missed(events in events(60)) {
        let mut world = World::new();
        for event in events {
            happens(&mut world, event, by(event.2));
            misfortune(&mut world, event);
            world.look();
        }
    }

    /// Where all have the hooks and nothing is lost, no comparison is needed.
    #[test]
    fn among_ourselves_no_link_breaks(events in events(60)) {
        let mut world = World::new();
        for event in events {
            happens(&mut world, event, By::Us);
            let found = world.look();
            prop_assert!(!is_broken(&found), "{found:?} after {event:?}");
            prop_assert_ne!(found, Collected::ViewChanged);
        }
    }
}
