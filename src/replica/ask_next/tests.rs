//! What following by name costs, and what it must not miss.

use std::sync::Arc;
use std::time::Duration;

use crate::error::ErrorKind;
use crate::ltx::Lineage;
use crate::replica::by_name::{LONGEST, Look};
use crate::replica::tests::fixtures::{History, id};
use crate::replica::{Core, Options, View};
use crate::runtime;
use crate::store::{Fault, Faults, Op};

/// A replica that is followed, and the requests that it gets.
struct Followed {
    history: History,
    store: Faults,
    core: Arc<Core>,
}

impl Followed {
    /// One whose files say who wrote them, as this library's do.
    fn ours() -> Self {
        Self::of(Lineage::new(0xa), 7)
    }

    /// One whose files do not, as Litestream's.
    fn theirs() -> Self {
        Self::of(None, 0)
    }

    fn of(lineage: Option<Lineage>, writer: u64) -> Self {
        let mut history = History::new(512, 21);
        (history.lineage, history.writer) = (lineage, writer);
        history.commit(30, &[]);
        history.put(9, 1, 1);
        history.grow(6);
        let store = Faults::new(&history.store(), 1);
        let options = Options {
            poll_interval: Duration::from_secs(3600),
            open_timeout: Duration::ZERO,
            ..Options::default()
        };
        let core = Core::with_store(store.replica(), &options).unwrap();
        Self { history, store, core }
    }

    /// A poll as they are made in the background; the gets and listings that it takes.
    fn poll(&self) -> (u64, u64) {
        let before = self.asked();
        let core = self.core.clone();
        runtime::block_on(async move { core.poll(Look::Cheaply).await }).unwrap();
        let after = self.asked();
        (after.0 - before.0, after.1 - before.1)
    }

    fn asked(&self) -> (u64, u64) {
        (self.store.count(Op::Get), self.store.count(Op::List))
    }

    /// The time for a listing comes.
    fn pass(&self) {
        let mut follow = self.core.follow.try_lock().unwrap();
        follow.by_name.ages(LONGEST);
        follow.around -= LONGEST;
    }

    fn works(&self) -> bool {
        self.core.follow.try_lock().unwrap().by_name.works()
    }

    fn assert_sees(&self, history: &History, txid: u64) {
        let mut view = View::new(self.core.clone());
        assert_eq!(view.snapshot().txid.get(), txid);
        let mut page = vec![0; 512];
        for (n, stored) in history.image(txid).chunks(512).enumerate().skip(1) {
            view.read(&mut page, n as u64 * 512).unwrap();
            assert!(page == stored, "page {} at TXID {txid}", n + 1);
        }
    }
}

#[test]
fn nothing_new_costs_no_listing_and_news_come_with_the_answer() {
    let mut followed = Followed::ours();
    for _ in 0..5 {
        assert_eq!(followed.poll(), (1, 0));
    }
    for last in 7..20 {
        followed.history.grow(last);
        assert_eq!(followed.poll(), (2, 0), "the file, and whether there is another one");
        followed.assert_sees(&followed.history, last);
    }
    followed.pass();
    let (_, listings) = followed.poll();
    assert!(listings > 0, "a listing now and then");
    assert_eq!(followed.poll(), (1, 0));
    assert!(followed.core.status().notice.is_none());
}

#[test]
fn many_new_files_are_found_by_one_listing() {
    let mut followed = Followed::ours();
    followed.history.grow(40);
    let (_, listings) = followed.poll();
    assert_eq!(listings, 1);
    followed.assert_sees(&followed.history, 40);
}

#[test]
fn a_file_that_does_not_say_who_wrote_it_is_confirmed_by_a_listing() {
    let mut followed = Followed::theirs();
    assert_eq!(followed.poll(), (1, 0));
    followed.history.grow(7);
    let (_, listings) = followed.poll();
    assert_eq!(listings, 1);
    followed.assert_sees(&followed.history, 7);
    assert!(followed.works());
}

#[test]
fn another_writer_is_confirmed_by_a_listing() {
    let mut followed = Followed::ours();
    followed.history.writer = 8;
    followed.history.grow(7);
    let (_, listings) = followed.poll();
    assert_eq!(listings, 1);
    followed.history.grow(8);
    assert_eq!(followed.poll(), (2, 0), "the one that goes on");
    followed.assert_sees(&followed.history, 8);
}

#[test]
fn a_file_that_was_merged_away_is_found_in_time_and_then_nothing_is_trusted_to_stay() {
    let mut followed = Followed::ours();
    assert_eq!(followed.poll(), (1, 0));
    followed.history.grow(9);
    followed.history.put(1, 2, 8);
    followed.history.retire(0, 1, 8);
    assert_eq!(followed.poll(), (1, 0));
    followed.assert_sees(&followed.history, 6);
    followed.pass();
    followed.poll();
    followed.assert_sees(&followed.history, 9);
    assert!(!followed.works());
    followed.history.grow(12);
    followed.history.put(1, 9, 11);
    followed.history.retire(0, 1, 11);
    followed.poll();
    followed.assert_sees(&followed.history, 12);
}

#[test]
fn without_any_file_of_level_0_the_other_levels_are_looked_at_in_time() {
    let mut followed = Followed::ours();
    for round in 1..4 {
        let first = followed.history.last() + 1;
        followed.history.grow(first + 3);
        followed.history.put(1, if round == 1 { 2 } else { first }, first + 3);
        followed.history.retire(0, 1, first + 3);
        followed.pass();
        followed.poll();
        followed.assert_sees(&followed.history, first + 3);
    }
}

#[test]
fn who_asks_for_news_gets_what_was_merged_away_at_once() {
    let mut followed = Followed::ours();
    followed.history.grow(9);
    followed.history.put(1, 2, 9);
    followed.history.retire(0, 1, 9);
    followed.core.poll_now().unwrap();
    followed.assert_sees(&followed.history, 9);
    // That no file was missed before speaks for asking by name.
    assert!(followed.works());
}

#[test]
fn a_replica_that_was_paused_lists_first() {
    let mut followed = Followed::ours();
    assert_eq!(followed.poll(), (1, 0));
    followed.history.grow(300);
    followed.history.put(1, 2, 299);
    followed.history.retire(0, 1, 299);
    followed.pass();
    followed.poll();
    followed.assert_sees(&followed.history, 300);
}

#[test]
fn a_store_that_denies_what_is_not_there_is_listed() {
    let mut followed = Followed::ours();
    followed.store.next(Op::Get, Fault::Refuse(ErrorKind::Denied));
    assert_eq!(followed.poll(), (1, 1));
    assert!(!followed.works());
    assert_eq!(followed.poll(), (0, 1));
    followed.history.grow(8);
    followed.poll();
    followed.assert_sees(&followed.history, 8);
}

#[test]
fn a_failure_that_passes_is_one_of_the_poll() {
    let mut followed = Followed::ours();
    followed.history.grow(7);
    followed.store.next(Op::Get, Fault::Refuse(ErrorKind::Unavailable));
    let core = followed.core.clone();
    let failed = runtime::block_on(async move { core.poll(Look::Cheaply).await }).unwrap_err();
    assert_eq!(failed.kind(), ErrorKind::Unavailable);
    assert!(followed.core.status().last_error.is_some());
    let (_, listings) = followed.poll();
    assert_eq!(listings, 1, "after a failure a listing tells");
    followed.assert_sees(&followed.history, 7);
    assert!(followed.core.status().last_error.is_none());
}

#[test]
fn an_answer_that_breaks_off_or_is_damaged_is_not_believed() {
    let mut followed = Followed::ours();
    followed.history.grow(7);
    followed.store.next(Op::Get, Fault::Truncate(40));
    let core = followed.core.clone();
    let _ = runtime::block_on(async move { core.poll(Look::Cheaply).await });
    followed.poll();
    followed.assert_sees(&followed.history, 7);
    let mut damaged = followed.history.clone();
    damaged.grow(8);
    let mut bytes = damaged.encode(8, 8).to_vec();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    damaged.put_bytes(id(0, 8, 8), bytes.into(), 8);
    let core = followed.core.clone();
    runtime::block_on(async move { core.poll(Look::Cheaply).await }).unwrap_err();
    followed.assert_sees(&followed.history, 7);
    damaged.put(0, 8, 8);
    followed.poll();
    followed.assert_sees(&damaged, 8);
}

/// Another database at the same URL, of which the file that is asked for next is another one too.
fn reset(followed: &Followed, lineage: Option<Lineage>, writer: u64, last: u64) -> History {
    let ids: Vec<_> = followed.history.store.files().into_iter().map(|(id, _)| id).collect();
    followed.history.delete(&ids);
    let mut other = History::new(512, 77).with_store(&followed.history.store);
    (other.lineage, other.writer) = (lineage, writer);
    other.commit(25, &[]);
    other.put(9, 1, 1);
    other.grow(last);
    other
}

#[test]
fn a_replica_that_was_reset_is_never_mixed_with_what_it_was() {
    for last in [3, 6, 7, 8, 30] {
        for (followed, lineage, writer) in [
            (Followed::ours(), Lineage::new(0xb), 9),
            (Followed::ours(), Lineage::new(0xb), 7),
            (Followed::ours(), None, 0),
            (Followed::theirs(), None, 0),
            (Followed::theirs(), Lineage::new(0xb), 9),
        ] {
            let other = reset(&followed, lineage, writer, last);
            let counter = followed.core.snapshot().change_counter();
            followed.poll();
            let now = followed.core.snapshot().txid.get();
            if now == 6 && last <= 6 {
                // Nothing tells yet that it was reset.
                followed.pass();
                followed.poll();
            }
            followed.assert_sees(&other, last);
            assert_ne!(followed.core.snapshot().change_counter(), counter);
        }
    }
}

#[test]
fn what_went_back_in_time_and_on_by_itself_is_found_by_the_next_listing() {
    for last in [7, 8] {
        let followed = Followed::ours();
        // The machine and the bucket are restored together; the same writer goes on, under the same numbers.
        followed.history.retire(0, 4, 6);
        let mut other = followed.history.back_to(3);
        other.grow(last);
        followed.poll();
        followed.pass();
        followed.poll();
        followed.assert_sees(&other, last);
        assert!(followed.core.status().notice.is_some());
    }
}

#[test]
fn that_nothing_comes_next_is_no_news_of_a_replica_that_could_not_be_read() {
    let followed = Followed::ours();
    let other = reset(&followed, Lineage::new(0xb), 9, 3);
    let mut damaged = other.encode(1, 1).to_vec();
    let middle = damaged.len() / 2;
    damaged[middle] ^= 1;
    other.put_bytes(id(9, 1, 1), damaged.into(), 1);
    followed.pass();
    for _ in 0..3 {
        let core = followed.core.clone();
        runtime::block_on(async move { core.poll(Look::Cheaply).await }).unwrap_err();
        assert!(followed.core.status().last_error.is_some());
    }
    other.put(9, 1, 1);
    followed.poll();
    followed.assert_sees(&other, 3);
}
