//! Requests fail and processes die at any moment of merges, snapshots and deletions. The replica
//! restores at every moment, and in the end it is as tidy as if nothing had happened.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use super::world::{World, run, settings};
use crate::error::ErrorKind;
use crate::store::{Fault, Faults, Op};

const OPS: [Op; 7] = [Op::List, Op::Get, Op::Upload, Op::Part, Op::Complete, Op::Abort, Op::Delete];

/// Work that is dropped, as if the process were killed: when it was polled so often, or while it
/// waits for an answer that never comes.
struct Killed<F> {
    work: Pin<Box<F>>,
    polls: u64,
    store: Faults,
    /// The requests that were never answered, before the work began.
    hung: u64,
}

impl<F: Future> Killed<F> {
    fn after(polls: u64, store: &Faults, work: F) -> Self {
        Self { work: Box::pin(work), polls, store: store.clone(), hung: store.hung() }
    }
}

impl<F: Future> Future for Killed<F> {
    type Output = Option<F::Output>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if self.polls == 0 {
            return Poll::Ready(None);
        }
        self.polls -= 1;
        match self.work.as_mut().poll(context) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            Poll::Pending if self.store.hung() > self.hung => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    }
}

/// A round that is killed at some moment, or while it waits for some answer. Whether it was: rounds
/// can be over before.
pub(super) fn kill_somewhere(world: &mut World) -> bool {
    world.store.heal();
    let mut polls = u64::MAX;
    if world.random(2) == 0 {
        polls = world.random(12);
    } else {
        let op = [Op::Get, Op::Upload, Op::Complete, Op::Delete][world.random(4) as usize];
        for _ in 0..world.random(2) {
            world.store.next(op, Fault::Delay(Duration::ZERO));
        }
        world.store.next(op, Fault::Hang);
    }
    let killed = run(Killed::after(polls, &world.store.clone(), world.compactor.round())).is_none();
    world.store.heal();
    killed
}

fn fail_some_request(world: &mut World) {
    let op = OPS[world.random(OPS.len() as u64) as usize];
    let kind = [ErrorKind::Unavailable, ErrorKind::NotFound, ErrorKind::Timeout][world.random(3) as usize];
    let fault = match world.random(3) {
        0 => Fault::Refuse(kind),
        1 => Fault::LoseAnswer(kind),
        _ => Fault::Truncate(world.random(3000)),
    };
    for _ in 0..world.random(2) {
        // Some that go well, and then it.
        world.store.next(op, Fault::Delay(Duration::ZERO));
    }
    world.store.next(op, fault);
}

#[test]
fn three_hundred_interruptions() {
    for seed in 1..=6 {
        let mut world = World::new(seed, settings());
        let (mut failures, mut kills) = (0, 0);
        for _ in 0..50 {
            for _ in 0..world.random(20) + 1 {
                let pause = world.random(20_000);
                world.pass(Duration::from_millis(pause));
                world.commit();
                if world.random(3) == 0 {
                    let _ = world.try_round();
                }
            }
            let pause = world.random(300);
            world.pass(Duration::from_secs(pause));
            if world.random(2) == 0 {
                fail_some_request(&mut world);
                failures += u64::from(world.try_round().is_err());
            } else {
                kills += u64::from(kill_somewhere(&mut world));
                world.restart();
            }
            world.assert_restores();
        }
        assert!(failures > 3 && kills > 3, "{failures} failures, {kills} kills");
        world.store.heal();
        world.restart();
        world.run_down();
        world.assert_restores();
        world.assert_tidy();
        assert_eq!((world.files(0).len(), world.files(9).len()), (1, 1));
    }
}
