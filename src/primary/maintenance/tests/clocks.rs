//! Clocks are wrong, and are set: what is kept, merged and deleted is what it would be with right ones.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::world::{MINUTE, World, settings};
use crate::clock::{Clock as _, ManualClock, Timestamp};
use crate::ltx::FileId;
use crate::primary::maintenance::Calendar;
use crate::primary::maintenance::inventory::Inventory;
use crate::primary::maintenance::schedule_cache::{self, Next};

const HOUR: i64 = 3_600_000;
const YEAR: i64 = 365 * 24 * HOUR;
const JUMPS: [i64; 8] = [-HOUR, -26 * YEAR, -36 * YEAR, 5 * 60_000, HOUR, 6 * HOUR, 10 * YEAR, 36 * YEAR];

/// A world whose store has a clock of its own, which is right.
struct Clocks {
    world: World,
    truth: Arc<ManualClock>,
    /// How far the other clock is ahead.
    ahead: i64,
}

impl Clocks {
    fn new(seed: u64) -> Self {
        let world = World::new(seed, settings());
        let truth = Arc::new(ManualClock::new(world.now()));
        world.memory.set_clock(truth.clone());
        Self { world, truth, ahead: 0 }
    }

    fn set_ahead(&mut self, ms: i64) {
        self.ahead = ms;
        self.world.clock.jump(Timestamp::from_millis(self.truth.now().as_millis() + ms));
    }

    fn pass(&mut self, time: Duration) {
        let now = self.truth.now().as_millis() + time.as_millis() as i64;
        self.truth.set(Timestamp::from_millis(now));
        self.world.clock.jump(Timestamp::from_millis(now + self.ahead));
    }

    /// Commits for some minutes; processes end in order now and then.
    fn work(&mut self, minutes: u64, closes: bool) {
        for second in 0..minutes * 12 {
            self.pass(Duration::from_secs(5));
            self.world.commit();
            if closes && second % 7 == 0 {
                self.world.close();
            } else {
                self.world.round();
            }
        }
    }

    fn ids(&self) -> BTreeSet<FileId> {
        self.world.all_files().into_iter().map(|file| file.id).collect()
    }
}

#[test]
fn whatever_the_clock_shows_the_files_are_those_of_a_right_one() {
    for closes in [false, true] {
        let run = |jump: i64| {
            let mut clocks = Clocks::new(4);
            for ahead in [0, jump, 0] {
                clocks.set_ahead(ahead);
                clocks.work(20, closes);
            }
            clocks.ids()
        };
        let right = run(0);
        for jump in JUMPS {
            assert!(run(jump) == right, "{jump} {closes}");
        }
    }
}

/// A replica whose files were stored with the times of a clock that was `jump` ahead for one of them.
fn with_one_wrong(jump: i64) -> World {
    let mut world = World::new(5, settings());
    for n in 0..60 {
        world.pass(MINUTE / 2);
        let right = world.now();
        if n == 40 {
            world.clock.jump(Timestamp::from_millis(right.as_millis() + jump));
        }
        world.commit();
        world.clock.jump(right);
        if n != 40 && n < 45 {
            world.round();
        }
    }
    world
}

#[test]
fn what_a_wrong_clock_left_makes_nothing_old_and_holds_nothing_back() {
    let points = |jump: i64| {
        let mut world = with_one_wrong(jump);
        // Processes that list the replica find it like that.
        for _ in 0..10 {
            world.restart();
            world.round();
            world.pass(MINUTE / 2);
            world.commit();
        }
        world.restart();
        world.pass(MINUTE * 6);
        world.round();
        assert!(world.points().contains(&world.last()) && world.restore(world.last()).is_some());
        (world.points().len(), world.files(1).last().unwrap().id.name.max().get(), world.last())
    };
    let (right, merged, last) = points(0);
    assert_eq!(merged, last);
    for jump in JUMPS {
        let (there, merged, _) = points(jump);
        // What follows a time that is a little ahead counts as stored then, and is merged with it.
        assert!(there >= right - 5, "{jump}: {there} points instead of {right}");
        assert_eq!(merged, last, "{jump}: merging stopped");
    }
}

#[test]
fn a_clock_that_is_the_stores_as_well_deletes_nothing_by_a_jump() {
    for jump in [HOUR, 6 * HOUR, 10 * YEAR, 36 * YEAR] {
        let mut world = World::new(9, settings());
        let work = |world: &mut World, rounds: u64| {
            for _ in 0..rounds {
                world.pass(MINUTE / 2);
                world.commit();
                world.round();
            }
        };
        work(&mut world, 80);
        let before: BTreeSet<_> = world.files(9).into_iter().map(|file| file.id).collect();
        let right = world.now();
        world.clock.jump(Timestamp::from_millis(right.as_millis() + jump));
        work(&mut world, 10);
        assert!(before.is_subset(&world.files(9).into_iter().map(|file| file.id).collect()), "{jump}");
        world.clock.jump(Timestamp::from_millis(right.as_millis() + 10 * 30_000));
        let merged = world.files(1).last().unwrap().id;
        work(&mut world, 5);
        assert!(world.files(1).last().unwrap().id.name.max() > merged.name.max(), "{jump}: merging stopped");
        work(&mut world, 150);
        assert!(!before.is_subset(&world.files(9).into_iter().map(|file| file.id).collect()), "{jump}");
        assert!(world.restore(world.last()).is_some());
    }
}

#[test]
fn a_due_time_of_another_clock_is_not_waited_for() {
    let mut world = World::new(6, settings());
    for _ in 0..5 {
        world.commit();
    }
    let right = world.now();
    // The last process saw a clock of 2036.
    world.close();
    world.clock.jump(Timestamp::from_millis(right.as_millis() + 10 * YEAR));
    world.pass(MINUTE);
    let folder = world.folder();
    schedule_cache::write(&folder, &world.store.url(), Some(Next::At(world.now())));
    world.clock.jump(right);
    world.pass(MINUTE);
    world.restart();
    world.round();
    assert_eq!(world.files(1).len(), 1);
}

#[test]
fn times_that_cannot_be_true_are_corrected() {
    let times = |jumps: &[i64]| {
        let mut world = World::new(7, settings());
        let began = world.now().as_millis();
        for jump in jumps {
            world.pass(MINUTE);
            let right = world.now();
            world.clock.jump(Timestamp::from_millis(right.as_millis() + jump));
            world.commit();
            world.clock.jump(right);
        }
        let listed =
            super::world::run(Inventory::list(&world.memory, world.now(), Calendar::default())).unwrap();
        let minutes = |time: Timestamp| (time.as_millis() - began) / 60_000;
        listed.increments().iter().map(|file| minutes(file.timestamp)).collect::<Vec<_>>()
    };
    assert_eq!(times(&[0, 0, 0]), [1, 2, 3]);
    assert_eq!(times(&[0, -YEAR, 0]), [1, 1, 3]);
    assert_eq!(times(&[0, YEAR, 0]), [1, 3, 3]);
    assert_eq!(times(&[0, YEAR, YEAR]), [1, 3, 3]);
    assert_eq!(times(&[0, YEAR, -YEAR, 0]), [1, 1, 1, 4]);
}
