//! Follows the primary: one listing per interval finds what is new.
//!
//! The listing begins at the last file of level 0 that is known, the anchor. As long as the anchor is
//! there as it was, what follows it is new and nothing else happened. If it is gone or another one,
//! or a transaction is missing after it, all levels are listed: compaction may have moved files up,
//! a newer snapshot may have replaced them, or the replica was reset and has another history.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::core::{Core, Options};
use super::files::Files;
use super::map::PageMap;
use super::plan::{Plan, RestorePoint, empty};
use super::snapshot::Snapshot;
use super::source::Survey;
use crate::clock::{Clock as _, SystemClock, Timestamp};
use crate::error::{ErrorKind, Result};
use crate::ltx::{FileId, Level, Txid};
use crate::runtime;
use crate::store::FileInfo;

/// A map that is spread over more files than this is moved to compacted ones when time permits.
const MANY_FILES: usize = 64;
/// Polls between two looks at all levels, when there is a reason for one.
const LOOK_AROUND: u32 = 120;
/// Files may vanish between being listed and being read this many times in a row.
const ATTEMPTS: usize = 3;

/// What the follower remembers between polls.
#[derive(Debug)]
pub(super) struct Follow {
    /// The last file of level 0 that is not beyond the current state, as it was listed.
    anchor: Option<FileInfo>,
    /// Polls since all levels were listed.
    polls: u32,
    /// What the last poll came to.
    outcome: Result<()>,
}

pub(super) fn now() -> Timestamp {
    SystemClock.now()
}

/// Reads the first state, waiting until there is one.
pub(super) async fn open(files: &Files, options: &Options) -> Result<(Snapshot, Follow)> {
    let deadline = Instant::now() + options.open_timeout;
    let pause = options.poll_interval.clamp(Duration::from_millis(1), Duration::from_secs(1));
    loop {
        if let Some(first) = first_state(files).await? {
            return Ok(first);
        }
        let now = Instant::now();
        if now >= deadline {
            let waited = options.open_timeout.as_secs_f64();
            return Err(empty().context(format!("{} (waited {waited} s)", files.source.url())));
        }
        sleep_until(deadline.min(now + pause)).await;
    }
}

async fn first_state(files: &Files) -> Result<Option<(Snapshot, Follow)>> {
    let mut attempt = 1;
    loop {
        let Some(survey) = files.source.survey(RestorePoint::Latest).await? else { return Ok(None) };
        match files.build(&survey.plan, &PageMap::default(), 0).await {
            Ok(snapshot) => {
                let follow =
                    Follow { anchor: anchor(&survey.files, snapshot.txid), polls: 0, outcome: Ok(()) };
                return Ok(Some((snapshot, follow)));
            }
            Err(e) if e.kind() == ErrorKind::NotFound && attempt < ATTEMPTS => attempt += 1,
            Err(e) => return Err(e),
        }
    }
}

/// The last file of level 0 that is not beyond `txid`.
fn anchor(files: &[FileInfo], txid: Txid) -> Option<FileInfo> {
    let level0 = files.iter().filter(|f| f.id.level == Level::L0 && f.id.name.max() <= txid);
    level0.max_by_key(|f| f.id.name).cloned()
}

impl Core {
    /// Looks for new transactions, and remembers how that went. A poll that another began after this
    /// one was asked for serves both.
    pub(super) async fn poll(&self) -> Result<()> {
        let asked = self.poller.begun();
        let mut follow = self.follow.lock().await;
        if self.poller.begun() > asked {
            return follow.outcome.clone();
        }
        self.poller.note_begin();
        let outcome = self.advance(&mut follow).await;
        follow.outcome = outcome.clone();
        self.note_poll(&outcome);
        outcome
    }

    fn note_poll(&self, outcome: &Result<()>) {
        let mut polls = self.polls();
        match outcome {
            Ok(()) => {
                self.poller.note_success();
                polls.last_success = now();
                polls.last_error = None;
            }
            Err(e) => {
                tracing::warn!(replica = self.files.source.url(), error = %e, "poll failed");
                polls.last_error = Some(e.to_string());
            }
        }
    }

    async fn advance(&self, follow: &mut Follow) -> Result<()> {
        follow.polls = follow.polls.saturating_add(1);
        let snapshot = self.snapshot();
        let from = follow.anchor.as_ref().map_or(snapshot.txid.next(), |anchor| anchor.id.name.min());
        let listed = self.files.source.list(Level::L0, from).await?;
        if !self.needs_look_around(follow, &snapshot, &listed) {
            match self.continued_and_kept(&snapshot, &listed).await {
                Ok(None) => return Ok(()),
                Ok(Some(next)) => {
                    follow.anchor = anchor(&listed, next.txid);
                    runtime::busy(true, || self.publish(next));
                    return Ok(());
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
        let due = follow.polls >= LOOK_AROUND;
        let known = match &follow.anchor {
            Some(anchor) => {
                listed.contains(anchor) && !(due && snapshot.map().files().nth(MANY_FILES).is_some())
            }
            None => listed.is_empty() && !due,
        };
        !known || self.suspect.swap(false, Ordering::Relaxed)
    }

    /// Lists all levels and goes on from what it finds.
    async fn look_around(&self, follow: &mut Follow) -> Result<()> {
        let mut attempt = 1;
        loop {
            let files = self.files.source.list_all_upwards().await?;
            let plan = Plan::new(&files, RestorePoint::Latest)?;
            let survey = Survey { files, plan };
            match self.catch_up(follow, &survey).await {
                Ok(next) => {
                    let kept = self.files.keep_large(&next.map()).await;
                    if kept.is_err() && attempt < ATTEMPTS {
                        attempt += 1;
                        continue;
                    }
                    // At worst those who read this state are told to begin again.
                    follow.anchor = anchor(&survey.files, next.txid);
                    follow.polls = 0;
                    runtime::busy(true, || self.publish(next));
                    return Ok(());
                }
                Err(e) if e.kind() == ErrorKind::NotFound && attempt < ATTEMPTS => attempt += 1,
                Err(e) => return Err(e),
            }
        }
    }

    /// The latest state, made from the current one as far as that is of the same history.
    async fn catch_up(&self, follow: &Follow, survey: &Survey) -> Result<Snapshot> {
        let snapshot = self.snapshot();
        let map = snapshot.map();
        if was_reset(follow, &snapshot, survey) {
            tracing::warn!(replica = self.files.source.url(), "the replica was reset; reading it anew");
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

/// Whether what is in the replica is not what `snapshot` was read from: it ends earlier, a file is
/// another one, or no file is the same.
fn was_reset(follow: &Follow, snapshot: &Snapshot, survey: &Survey) -> bool {
    let listed: HashMap<FileId, &FileInfo> = survey.files.iter().map(|file| (file.id, file)).collect();
    let map = snapshot.map();
    let mut known = map.files().map(|file| &file.info).chain(&follow.anchor).peekable();
    let mut same = known.peek().is_none();
    for file in known {
        match listed.get(&file.id) {
            Some(now) if *now != file => return true,
            Some(_) => same = true,
            None => {}
        }
    }
    !same || survey.plan.txid() < snapshot.txid
}
