use super::*;
use crate::replica::tests::fixtures::{History, id, txid};
use crate::runtime;
use crate::store::MemoryStore;

/// A replica of `last` transactions in level 0, whose files say their lineage and writer if they are `ours`.
fn history(last: u64, ours: bool) -> History {
    let mut history = History::new(512, 5);
    if ours {
        (history.lineage, history.writer) = (Lineage::new(7), 9);
    }
    history.grow(last);
    history
}

/// What was copied of `history` up to `last`, by the file of that name.
fn known(history: &History, last: u64) -> Known {
    let tail = tail(history);
    let (file, header) = runtime::block_on(async move { tail.anchor(txid(last)).await }).unwrap().unwrap();
    Known { txid: txid(last), lineage: header.lineage, anchor: Some(file) }
}

fn tail(history: &History) -> Tail {
    let mut tail = Tail::new(Arc::new(Source::new(history.store())), Duration::from_secs(1));
    tail.resume(history.writer);
    tail
}

fn look(tail: Tail, known: &Known) -> (Tail, Result<News>) {
    let (mut tail, known) = (tail, known.clone());
    runtime::block_on(async move {
        let news = tail.look(&known).await;
        Ok((tail, news))
    })
    .unwrap()
}

/// What is new, in short.
fn news(history: &History, known: &Known) -> String {
    short(&look(tail(history), known).1)
}

fn short(news: &Result<News>) -> String {
    let names = |plan: &Plan| {
        plan.files()
            .iter()
            .map(|f| format!("{}/{}-{}", f.id.level.get(), f.id.name.min().get(), f.id.name.max().get()))
            .collect::<Vec<_>>()
            .join(" ")
    };
    match news {
        Ok(News::Nothing { anchor: None }) => "nothing".to_owned(),
        Ok(News::Nothing { anchor: Some(file) }) => format!("nothing, {}", file.id.level.get()),
        Ok(News::Next(file, _)) => format!("next {}", file.id.name.max().get()),
        Ok(News::More(plan)) => format!("more {}", names(plan)),
        Ok(News::Anew(plan)) => format!("anew {}", names(plan)),
        Ok(News::Older { end }) => format!("older {}", end.get()),
        Err(e) => format!("{:?}", e.kind()),
    }
}

#[test]
fn what_continues_is_listed_once_and_then_asked_for_by_its_name() {
    let mut history = history(3, true);
    let at = known(&history, 3);
    let (tail, first) = look(tail(&history), &at);
    assert_eq!(short(&first), "nothing");
    let before = tail.source.requests();
    let (tail, second) = look(tail, &at);
    assert_eq!((short(&second).as_str(), tail.source.requests() - before), ("nothing", 1));
    history.grow(4);
    let (tail, third) = look(tail, &at);
    assert_eq!(short(&third), "next 4");
    // One of another writer is left to a listing, and to the checks of who applies it.
    history.writer = 10;
    history.put(0, 4, 4);
    assert_eq!(short(&look(tail, &at).1), "more 0/4-4");
    history.grow(6);
    assert_eq!(news(&history, &at), "more 0/4-4 0/5-5 0/6-6");
}

#[test]
fn files_that_were_merged_continue_and_what_is_gone_is_copied_anew() {
    let history = history(8, true);
    let at = known(&history, 3);
    history.put(1, 3, 6);
    history.retire(0, 1, 6);
    assert_eq!(news(&history, &at), "more 1/3-6 0/7-7 0/8-8");
    history.put(9, 1, 7);
    history.retire(1, 1, 6);
    assert_eq!(news(&history, &at), "anew 9/1-7 0/8-8");
    history.put(9, 1, 8);
    history.retire(0, 1, 8);
    assert_eq!(news(&history, &at), "anew 9/1-8");
    // Nothing leads further than the copy.
    let at = known(&history, 8);
    assert_eq!(news(&history, &at), "nothing");
}

#[test]
fn without_a_lineage_only_a_file_that_was_known_says_that_it_is_the_same_history() {
    let mut history = history(4, false);
    let at = known(&history, 4);
    history.put(1, 2, 4);
    assert_eq!(news(&history, &at), "nothing, 1");
    let higher = Known {
        anchor: look(tail(&history), &at).1.ok().and_then(|news| match news {
            News::Nothing { anchor } => anchor,
            _ => None,
        }),
        ..at.clone()
    };
    history.retire(0, 1, 4);
    history.put(9, 1, 4);
    history.grow(5);
    assert_eq!(news(&history, &higher), "more 0/5-5");
    assert_eq!(news(&history, &at), "anew 9/1-4 0/5-5");
}

#[test]
fn another_history_is_never_taken_for_what_continues() {
    for ours in [true, false] {
        let history = history(6, ours);
        let at = known(&history, 6);
        // A file that is known is another one now.
        let mut other = history.back_to(4);
        other.store = MemoryStore::new();
        other.lineage = ours.then(|| Lineage::new(8)).flatten();
        other.put(9, 1, 4);
        assert_eq!(news(&other, &at), if ours { "Conflict" } else { "older 4" });
        (5..=6).for_each(|txid| {
            other.commit(40, &[1, 2, 3]);
            other.put(0, txid, txid);
        });
        assert_eq!(news(&other, &at), "Conflict", "lineage: {ours}");
    }
}

#[test]
fn a_listing_of_before_is_no_other_history() {
    let history = history(6, true);
    let at = known(&history, 6);
    let before = history.back_to(6).with_store(&MemoryStore::new());
    for txid in 1..=4 {
        before.put(0, txid, txid);
    }
    assert_eq!(news(&before, &at), "older 4");
    history.delete(&(1..=6).map(|n| id(0, n, n)).collect::<Vec<_>>());
    assert_eq!(news(&history, &at), "NotFound");
}
