//! Follows the primary: one request per interval finds what is new.
//!
//! Mostly it asks for the next file by its name ([`super::by_name`]); where that does not do, it lists. The listing begins at the last file of level 0 that is known, the anchor. As long as the anchor is
//! there as it was, what follows it is new and nothing else happened. If it is gone or another one,
//! or a transaction is missing after it, all levels are listed: compaction may have moved files up,
//! a newer snapshot may have replaced them, or the replica was reset and has another history.

use std::collections::{HashMap, HashSet};
use std::pin::pin;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::{Instant, sleep_until, timeout};

use super::by_name::{ByName, Look};
use super::core::Core;
use super::files::Files;
use super::followed::Follow;
use super::map::PageMap;
use super::options::Options;
use super::plan::{Plan, RestorePoint, empty, only_old};
use super::snapshot::Snapshot;
use super::source::{Source, Survey};
use super::status::{Polls, now};
use crate::clock::Timestamp;
use crate::error::{Error, ErrorKind, Result};
use crate::ltx::{FileId, Level, Txid};
use crate::runtime;
use crate::store::FileInfo;

/// A map that is spread over more files than this is moved to compacted ones when time permits.
const MANY_FILES: usize = 64;
/// Polls between two looks at all levels, when there is a reason for one.
const LOOK_AROUND: u32 = 120;
/// An open goes on as long as the store sends more bytes than this.
const LEAST_A_SECOND: u64 = 1024;
/// Files may vanish between being listed and being read this many times in a row.
const ATTEMPTS: usize = 3;

/// What a listing says about the state that is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    /// It is there, or what continues it.
    Onward,
    /// It is not there yet: the listing is one of before, as a cache or a mirror that lags gives it.
    Older {
        /// The last transaction that it lists.
        end: Txid,
    },
    /// The replica was reset to another history, or back.
    Reset,
}

/// Reads the first state, waiting until there is one: the latest, or the one at `point` where that cannot be read.
pub(super) async fn open(
    files: &Files,
    options: &Options,
    point: RestorePoint,
) -> Result<(Snapshot, Follow)> {
    let deadline = Instant::now() + options.open_timeout;
    let pause = options.poll_interval.clamp(Duration::from_millis(1), Duration::from_secs(1));
    loop {
        let first = first_state(files, options.poll_interval, point);
        if let Some(first) = unless_silent(&files.source, options.open_timeout, first).await? {
            return Ok(first);
        }
        let now = Instant::now();
        if now >= deadline {
            let waited = options.open_timeout.as_secs_f64();
            let nothing = only_old(files.source.store()).await.unwrap_or_else(empty);
            return Err(nothing.context(format!("{} (waited {waited} s)", files.source.url())));
        }
        sleep_until(deadline.min(now + pause)).await;
    }
}

/// What `work` comes to, unless the store says nothing, or hardly anything, for `limit` meanwhile. Without a limit each
/// request has its own.
async fn unless_silent<T>(
    source: &Source,
    limit: Duration,
    work: impl Future<Output = Result<T>>,
) -> Result<T> {
    let mut work = pin!(work);
    let enough = LEAST_A_SECOND * limit.as_secs();
    loop {
        let Some(before) = source.heard().filter(|_| !limit.is_zero()) else { return work.await };
        if let Ok(done) = timeout(limit, &mut work).await {
            return done;
        }
        if source.heard().is_some_and(|now| now - before <= enough) {
            return Err(source.last_failure().unwrap_or_else(|| {
                let (url, seconds) = (source.url(), limit.as_secs_f64());
                Error::new(
                    ErrorKind::Timeout,
                    format!(
                        "{url} did not answer within {seconds} s; check the network, or raise open_timeout"
                    ),
                )
            }));
        }
    }
}

/// The latest state; if that cannot be read, the one at `point`, and then [`Follow::outcome`] says why.
async fn first_state(
    files: &Files,
    interval: Duration,
    point: RestorePoint,
) -> Result<Option<(Snapshot, Follow)>> {
    match state_at(files, interval, RestorePoint::Latest).await {
        Err(e) if point != RestorePoint::Latest && is_about_files(&e) => {
            // What is wrong there may be in none of the files that are wanted.
            let Some(point) = as_txid(&files.source, point).await? else { return Ok(None) };
            let first = state_at(files, interval, point).await?;
            Ok(first.map(|(snapshot, follow)| (snapshot, Follow { outcome: Err(e), ..follow })))
        }
        latest => latest,
    }
}

/// Whether an error says something of the files of a replica, and not only of the way to them.
fn is_about_files(error: &Error) -> bool {
    let kinds = [
        ErrorKind::Corrupt,
        ErrorKind::NotFound,
        ErrorKind::Denied,
        ErrorKind::Conflict,
        ErrorKind::Unsupported,
    ];
    kinds.contains(&error.kind())
}

/// `point` as a transaction, because a survey for a time gives files other times than those that polls see; `None` if the
/// replica is empty.
async fn as_txid(source: &Source, point: RestorePoint) -> Result<Option<RestorePoint>> {
    match point {
        RestorePoint::Timestamp(_) => {
            let survey = source.survey(point).await?;
            Ok(survey.map(|survey| RestorePoint::Txid(survey.plan.txid())))
        }
        point => Ok(Some(point)),
    }
}

async fn state_at(
    files: &Files,
    interval: Duration,
    point: RestorePoint,
) -> Result<Option<(Snapshot, Follow)>> {
    let mut attempt = 1;
    loop {
        let Some(survey) = files.source.survey(point).await? else { return Ok(None) };
        match files.build(&survey.plan, &PageMap::default(), 0).await {
            Ok(snapshot) => {
                let follow = Follow {
                    anchor: anchor(&survey.files, snapshot.txid),
                    newest: newest(&survey.files),
                    polls: 0,
                    around: Instant::now(),
                    by_name: ByName::new(files.source.misses_cheaply(), interval),
                    looked: Look::Thoroughly,
                    outcome: Ok(()),
                };
                return Ok(Some((snapshot, follow)));
            }
            Err(e) if e.kind() == ErrorKind::NotFound && attempt < ATTEMPTS => attempt += 1,
            Err(e) => return Err(e),
        }
    }
}

/// When the newest of `files` was stored.
fn newest(files: &[FileInfo]) -> Timestamp {
    files.iter().map(|file| file.timestamp).max().unwrap_or(Timestamp::from_millis(i64::MIN))
}

/// The last file of level 0 that is not beyond `txid`.
fn anchor(files: &[FileInfo], txid: Txid) -> Option<FileInfo> {
    let level0 = files.iter().filter(|f| f.id.level == Level::L0 && f.id.name.max() <= txid);
    level0.max_by_key(|f| f.id.name).cloned()
}

impl Core {
    /// Looks for new transactions, and remembers how that went. A poll that another began after this
    /// one was asked for serves both, if it looked as thoroughly.
    pub(super) async fn poll(&self, look: Look) -> Result<()> {
        let asked = self.poller.begun();
        let mut follow = self.follow.lock().await;
        if self.poller.begun() > asked && (look == Look::Cheaply || follow.looked == Look::Thoroughly) {
            return follow.outcome.clone();
        }
        self.poller.note_begin();
        let told = self.advance(&mut follow, look).await;
        self.note_poll(&told);
        follow.outcome = told.map(|_| ());
        follow.outcome.clone()
    }

    fn note_poll(&self, told: &Result<Told>) {
        let mut polls = self.polls();
        match told {
            Ok(Told::Older { end }) => {
                self.poller.note_success();
                self.note_answer(&mut polls);
                self.note_older(&mut polls, *end);
            }
            Ok(_) => {
                self.poller.note_success();
                polls.last_success = now();
                self.note_answer(&mut polls);
                (polls.older, polls.no_latest) = (None, None);
            }
            Err(e) => {
                // Once, until a poll succeeds: status has the latest reason.
                if polls.last_error.replace(e.to_string()).is_none() {
                    tracing::warn!(replica = self.files.source.url(), error = %e, "poll failed");
                }
            }
        }
    }

    /// The replica answered what is new.
    fn note_answer(&self, polls: &mut Polls) {
        if polls.last_error.take().is_some() {
            tracing::warn!(replica = self.files.source.url(), "polls succeed again");
        }
    }

    /// Says that the replica shows less than was seen. What is known is as old as the last poll that showed it.
    fn note_older(&self, polls: &mut Polls, end: Txid) {
        let snapshot = self.snapshot();
        let notice = format!(
            "the replica lists nothing after TXID {end}, and TXID {} was seen before: a cache or a mirror lags, or \
             files were removed; the newest state that was seen stays",
            snapshot.txid
        );
        if polls.older.as_ref() != Some(&notice) {
            tracing::warn!(replica = self.files.source.url(), "{notice}");
            polls.older = Some(notice);
        }
    }

    /// Says that what is read from now on is another history, or an earlier state.
    fn note_reset(&self, snapshot: &Snapshot, end: Txid) {
        let notice = format!(
            "the replica no longer holds the state at TXID {}, which was read; reading the one at TXID {end} that it \
             holds now",
            snapshot.txid
        );
        tracing::warn!(replica = self.files.source.url(), "{notice}");
        self.polls().reset = Some(notice);
    }

    /// Whether what is known is not known to be doubtful: by a reader that found files gone, or a listing of before.
    pub(super) fn shows_no_doubt(&self) -> bool {
        !self.suspect.load(Ordering::Relaxed) && self.polls().older.is_none()
    }

    /// Goes on to what is new, and returns what the replica told.
    async fn advance(&self, follow: &mut Follow, look: Look) -> Result<Told> {
        follow.polls = follow.polls.saturating_add(1);
        follow.looked = Look::Cheaply;
        // After a failure, that there is no next file says nothing.
        if look == Look::Cheaply && follow.outcome.is_ok() && self.advance_by_name(follow).await? {
            return Ok(Told::Onward);
        }
        follow.looked = Look::Thoroughly;
        let told = self.advance_by_listing(follow).await;
        self.forget_unused(follow);
        told
    }

    /// Forgets files that came by their names and that no state has any more.
    fn forget_unused(&self, follow: &Follow) {
        let mut used: HashSet<FileId> = follow.anchor.iter().map(|anchor| anchor.id).collect();
        for snapshot in self.older().into_iter().chain([self.snapshot()]) {
            used.extend(snapshot.map().files().map(|file| file.info.id));
        }
        self.files.source.forget_unless(&used);
    }

    async fn advance_by_listing(&self, follow: &mut Follow) -> Result<Told> {
        let snapshot = self.snapshot();
        let from = follow.anchor.as_ref().map_or(snapshot.txid.next(), |anchor| anchor.id.name.min());
        let listed = self.files.source.list(Level::L0, from).await?;
        follow.newest = follow.newest.max(newest(&listed));
        if !self.needs_look_around(follow, &snapshot, &listed) {
            match self.continued_and_kept(&snapshot, &listed).await {
                Ok(None) => {
                    follow.by_name.note_listing(&listed, snapshot.txid);
                    return Ok(Told::Onward);
                }
                Ok(Some(next)) => {
                    follow.by_name.note_listing(&listed, snapshot.txid);
                    follow.anchor = anchor(&listed, next.txid);
                    runtime::busy(true, || self.publish(next));
                    return Ok(Told::Onward);
                }
                Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::Corrupt) => {}
                Err(e) => return Err(e),
            }
        }
        self.look_around(follow).await
    }

    /// The state after those of `listed` that continue `snapshot`.
    async fn continued(&self, snapshot: &Snapshot, listed: &[FileInfo]) -> Result<Option<Snapshot>> {
        match Plan::after(listed, RestorePoint::Latest, snapshot.txid)? {
            Some(plan) => self.files.extend(snapshot, &plan).await.map(Some),
            None => Ok(None),
        }
    }

    /// Like [`Core::continued`]; whoever reads that state does not lose it when its files are merged.
    async fn continued_and_kept(&self, snapshot: &Snapshot, listed: &[FileInfo]) -> Result<Option<Snapshot>> {
        let next = self.continued(snapshot, listed).await?;
        if let Some(next) = &next {
            self.files.keep_large(&next.map()).await?;
        }
        Ok(next)
    }

    /// Whether the listing of level 0 does not tell enough.
    fn needs_look_around(&self, follow: &Follow, snapshot: &Snapshot, listed: &[FileInfo]) -> bool {
        if self.lacks_latest() {
            // What follows an earlier state may be on any level.
            return true;
        }
        let due = follow.polls >= LOOK_AROUND;
        let known = match &follow.anchor {
            Some(anchor) => {
                listed.contains(anchor) && !(due && snapshot.map().files().nth(MANY_FILES).is_some())
            }
            None => listed.is_empty() && !due && follow.around.elapsed() < follow.by_name.every(),
        };
        !known || self.suspect.load(Ordering::Relaxed)
    }

    /// Lists all levels and goes on from what it finds.
    async fn look_around(&self, follow: &mut Follow) -> Result<Told> {
        // A reader could not find files of the state: then a listing without them is right.
        let doubted = self.suspect.swap(false, Ordering::Relaxed);
        let mut attempt = 1;
        loop {
            let files = self.files.source.list_all_upwards().await?;
            let plan = Plan::new(&files, RestorePoint::Latest)?;
            follow.by_name.note_listing(&files, self.snapshot().txid);
            let survey = Survey { files, plan };
            let told = match told(follow, &self.snapshot(), &survey) {
                Told::Older { .. } if doubted => Told::Reset,
                Told::Older { end } => return Ok(Told::Older { end }),
                told => told,
            };
            match self.catch_up(told, &survey).await {
                Ok(next) => {
                    let kept = self.files.keep_large(&next.map()).await;
                    if kept.is_err() && attempt < ATTEMPTS {
                        attempt += 1;
                        continue;
                    }
                    // At worst those who read this state are told to begin again.
                    follow.anchor = anchor(&survey.files, next.txid);
                    follow.newest = match told {
                        Told::Reset => newest(&survey.files),
                        _ => follow.newest.max(newest(&survey.files)),
                    };
                    (follow.polls, follow.around) = (0, Instant::now());
                    runtime::busy(true, || self.publish(next));
                    return Ok(told);
                }
                Err(e) if e.kind() == ErrorKind::NotFound && attempt < ATTEMPTS => attempt += 1,
                Err(e) => return Err(e),
            }
        }
    }

    /// The latest state, made from the current one as far as that is of the same history.
    async fn catch_up(&self, told: Told, survey: &Survey) -> Result<Snapshot> {
        let snapshot = self.snapshot();
        let map = snapshot.map();
        if told == Told::Reset {
            self.note_reset(&snapshot, survey.plan.txid());
            return self.files.build(&survey.plan, &map, snapshot.epoch.wrapping_add(1)).await;
        }
        let next = match self.continued(&snapshot, &survey.files).await {
            Ok(Some(next)) => next,
            Ok(None) => snapshot.same(),
            Err(e) if e.kind() == ErrorKind::Corrupt => {
                self.files.build(&survey.plan, &map, snapshot.epoch).await?
            }
            Err(e) => return Err(e),
        };
        if next.txid < survey.plan.txid() {
            return self.files.build(&survey.plan, &map, snapshot.epoch).await;
        }
        let moved = self.files.absorb(&next, survey.plan.files()).await?;
        if moved.files().any(|file| !survey.files.contains(&file.info)) {
            return self.files.build(&survey.plan, &moved, snapshot.epoch).await;
        }
        let before = next.map();
        next.moved(moved);
        // Transactions that read older states wait for the replica meanwhile: not a matter of moments.
        runtime::busy(true, || self.spread(&before, &next.map()));
        Ok(next)
    }
}

/// Whether what is listed is what `snapshot` was read from. It is another history if a known file is another one now,
/// or no file is the same. A listing that ends earlier is one of before, unless it has what was stored later.
fn told(follow: &Follow, snapshot: &Snapshot, survey: &Survey) -> Told {
    let listed: HashMap<FileId, &FileInfo> = survey.files.iter().map(|file| (file.id, file)).collect();
    let map = snapshot.map();
    let mut known = map.files().map(|file| &file.info).chain(&follow.anchor).peekable();
    let mut same = known.peek().is_none();
    for file in known {
        match listed.get(&file.id) {
            Some(now) if *now != file => return Told::Reset,
            Some(_) => same = true,
            None => {}
        }
    }
    let end = survey.plan.txid();
    if end < snapshot.txid && newest(&survey.files) <= follow.newest {
        Told::Older { end }
    } else if !same || end < snapshot.txid {
        Told::Reset
    } else {
        Told::Onward
    }
}
