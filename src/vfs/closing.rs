//! When the close of a connection began: its databases close one after the other, and what each of them waits for ends
//! at one time.
//!
//! SQLite says nothing of a close. What of it is seen first is the exclusive lock that the last connection of a database
//! wants, which is also taken otherwise; what is seen next, of the same connection and at once, is the close of a file.

use std::cell::Cell;
use std::time::Duration;

use tokio::time::Instant;

/// What follows the close of a file within this time, on the same thread and connection, belongs to the same close.
const AT_ONCE: Duration = Duration::from_secs(1);
/// A lock that is granted within this time took nothing of the time of a close.
const UNNOTICED: Duration = Duration::from_millis(100);

/// A close of which a file was closed.
#[derive(Clone, Copy)]
struct Seen {
    connection: usize,
    began: Instant,
    /// When its last file was closed.
    last: Instant,
}

thread_local! {
    /// The close that this thread was in last.
    static SEEN: Cell<Option<Seen>> = const { Cell::new(None) };
}

/// The close of the connection of one file.
#[derive(Debug)]
pub(super) struct Closing {
    connection: usize,
    /// When the file was opened. A connection may be at the address of one that was closed before.
    opened: Instant,
    /// When it began, if it seems to be under way.
    began: Option<Instant>,
}

impl Closing {
    /// The file of a connection, which is not being closed.
    pub(super) fn of(connection: usize) -> Self {
        Self { connection, opened: Instant::now(), began: None }
    }

    /// What happens now may be a step of the close: when that began.
    pub(super) fn step(&mut self) -> Instant {
        let is_this = |seen: &Seen| {
            seen.connection == self.connection && seen.began > self.opened && seen.last.elapsed() < AT_ONCE
        };
        let before = SEEN.get().filter(is_this);
        *self.began.get_or_insert_with(|| before.map_or_else(Instant::now, |seen| seen.began))
    }

    /// The exclusive lock was granted. If it took no time it may as well be that of a connection which keeps the database for
    /// itself, and closes hours later: it is not remembered.
    pub(super) fn locked(&mut self) {
        self.began = self.began.filter(|began| began.elapsed() > UNNOTICED);
    }

    /// What happens now is no close.
    pub(super) fn goes_on(&mut self) {
        self.began = None;
    }

    /// The file is closed.
    pub(super) fn end(&mut self) {
        let began = self.step();
        SEEN.set(Some(Seen { connection: self.connection, began, last: Instant::now() }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_of_one_connection_close_together() {
        let (mut main, mut attached, mut other) = (Closing::of(1), Closing::of(1), Closing::of(2));
        let began = main.step();
        assert_eq!(main.step(), began);
        main.end();
        assert_eq!(attached.step(), began);
        assert!(other.step() > began);
    }

    #[test]
    fn a_connection_at_the_same_address_closes_by_itself() {
        let mut first = Closing::of(4);
        first.end();
        let began = first.step();
        let mut second = Closing::of(4);
        assert!(second.step() > began);
    }

    #[test]
    fn a_lock_that_is_no_step_of_a_close_counts_for_nothing() {
        let mut file = Closing::of(3);
        let locked = file.step();
        file.goes_on();
        assert!(file.step() > locked);
        let locked = file.step();
        file.locked();
        assert!(file.step() > locked, "it was granted at once");
        std::thread::sleep(2 * UNNOTICED);
        let waited = file.step();
        file.locked();
        assert_eq!(file.step(), waited);
    }
}
