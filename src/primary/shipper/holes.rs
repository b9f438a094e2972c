//! Holes: transactions that were published and that the files of the replica do not lead to any more, because
//! files are missing or damaged. The publisher heals them in `publisher::heal`, by a full copy of the database.

use std::fmt::Write as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::clock::Timestamp;
use crate::error::{Error, ErrorKind, Result};
use crate::ltx::{FileId, Header, Level, Txid};
use crate::primary::maintenance;
use crate::primary::shipper::Shipper;
use crate::primary::shipper::long_blocking;
use crate::primary::shipper::misfit::{self, wiped};
use crate::primary::shipper::newest;
use crate::primary::shipper::send;
use crate::replica::{Plan, RestorePoint, Source};
use crate::store::{FileInfo, Listing, Replica};
use crate::verify;

/// While commits are published, the files are listed once in this time.
const LIST_EVERY: Duration = Duration::from_secs(3600);
/// Count of damaged files that a message names at most.
const NAMED: usize = 3;

/// A hole: why a full copy is to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::primary) enum Hole {
    /// What is wrong with the replica, in words that follow its URL.
    Found(String),
    /// Nothing that is known: a user said that the database is the present, whatever the replica holds. What that is need not
    /// be sound.
    Asked(By),
}

/// How a user said so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::primary) enum By {
    /// `litestream_resume('force')`.
    Force,
    /// `litestream_restore` with `"rewind": true`.
    Rewind,
    /// He, or whoever found a hole, said so to a process that did not get to the end.
    Before,
}

/// How the replica is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::primary) enum Look {
    /// Its files are listed.
    Names,
    /// The files that lead to the newest state are read too.
    Content,
    /// Not at all: it is known to need a full copy.
    Copy,
}

/// A look that the publisher is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::primary) struct Asked {
    pub(in crate::primary) look: Look,
    /// A user asked, so that a hole is healed whatever `auto_recover` says.
    pub(in crate::primary) by_user: bool,
}

/// How often a look was asked for: what is asked for while another one is under way is not answered by that.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::primary) struct Asks(u64);

/// The holes of one replica, as its publisher knows them.
#[derive(Debug, Default)]
pub(in crate::primary) struct Holes {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    asked: Option<Asked>,
    /// Count of the times that a look was asked for.
    asks: Asks,
    state: State,
    /// The last full copy that healed a hole.
    healed: Option<Txid>,
    /// When the files were listed last, by the steady clock.
    listed: Option<Timestamp>,
}

/// How far a hole is healed.
#[derive(Debug, Default)]
enum State {
    /// None is known.
    #[default]
    Whole,
    /// The full copy is to be sent.
    Found(Hole),
    /// The full copy is in the replica as this transaction of level 0. It is to become a snapshot, from which
    /// alone a restore can begin.
    Copied(Hole, Txid),
}

impl Hole {
    fn new(files: &[FileInfo], damaged: &[FileId], reached: Option<Txid>, last: Txid) -> Self {
        let first = reached.map_or(Txid::ONE, Txid::next);
        let next = files.iter().map(|file| file.id.name.min()).filter(|min| *min > first).min();
        let mut found = match (next, reached) {
            _ if files.is_empty() && damaged.is_empty() => {
                format!("it is empty, but {last} was published to it")
            }
            (Some(next), _) => {
                let end = Txid::new(next.get() - 1).unwrap_or(first);
                format!("its files do not lead from {first} to {end}, but {last} was published to it")
            }
            (None, Some(reached)) => format!("it ends at {reached}, but {last} was published to it"),
            (None, None) => format!("no file leads to {last}, which was published to it"),
        };
        if !damaged.is_empty() {
            let _ = write!(found, "; damaged: {}", named(damaged));
        }
        Self::Found(found)
    }

    /// Damaged files after the snapshot of `begins`, if there are any. It is no hole for this library, which goes around them;
    /// Litestream does not.
    fn around(shipper: &Shipper, begins: Option<Txid>) -> Option<Self> {
        let mut damaged: Vec<FileId> = shipper.history.damaged().into_iter().collect();
        damaged.retain(|id| Some(id.name.max()) > begins);
        let found = || format!("files that lead to its newest state are damaged: {}", named(&damaged));
        (!damaged.is_empty()).then(|| Self::Found(found()))
    }

    /// A hole of which no more is known.
    pub(in crate::primary) fn unknown() -> Self {
        Self::Found("its files do not lead to the newest state".to_owned())
    }

    /// The error of a hole that is not to be healed by itself.
    pub(in crate::primary) fn conflict(&self, store: &Replica) -> Error {
        wiped(store, self.found())
    }

    /// What was found.
    pub(in crate::primary) fn found(&self) -> &str {
        match self {
            Self::Found(found) => found,
            Self::Asked(By::Force) => "as litestream_resume('force') asks for",
            Self::Asked(By::Rewind) => "as it was restored to be the present",
            Self::Asked(By::Before) => "as one that was begun before is not known to have become a snapshot",
        }
    }
}

/// The first of `damaged`, for a message.
fn named(damaged: &[FileId]) -> String {
    damaged.iter().take(NAMED).map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

impl Holes {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks for a look at the replica, or for more of one that was asked for.
    pub(in crate::primary) fn ask(&self, asked: Asked) {
        let mut inner = self.lock();
        let before = inner.asked.unwrap_or(asked);
        inner.asks.0 += 1;
        inner.asked =
            Some(Asked { look: before.look.max(asked.look), by_user: before.by_user || asked.by_user });
    }

    /// Who asked as a user was told that it failed.
    pub(in crate::primary) fn withdraw(&self) {
        if let Some(asked) = &mut self.lock().asked {
            asked.by_user = false;
        }
    }

    /// The look that is asked for, if there is one, and by which `asks`.
    pub(in crate::primary) fn asked(&self) -> (Option<Asked>, Asks) {
        let inner = self.lock();
        (inner.asked, inner.asks)
    }

    /// The files were listed at `now`.
    pub(in crate::primary) fn listed(&self, now: Timestamp) {
        self.lock().listed = Some(now);
    }

    /// The files were listed last when those of `other` were.
    pub(super) fn listed_with(&self, other: &Self) {
        let listed = other.lock().listed;
        self.lock().listed = listed;
    }

    /// The look that was asked for by `asks` was taken at `now`.
    pub(in crate::primary) fn looked(&self, asks: Asks, now: Timestamp) {
        let mut inner = self.lock();
        inner.listed = Some(now);
        if inner.asks == asks {
            inner.asked = None;
        }
    }

    /// Whether the files were not listed for so long that they are when the next file is published.
    pub(in crate::primary) fn is_look_due(&self, now: Timestamp) -> bool {
        let Some(listed) = self.lock().listed else { return true };
        now.as_millis() - listed.as_millis() >= LIST_EVERY.as_millis() as i64
    }

    /// A hole was found: a full copy is to be sent.
    pub(in crate::primary) fn found(&self, hole: Hole) {
        self.lock().state = State::Found(hole);
    }

    /// A full copy of the database is in the replica as `txid`; whether a hole waits for it.
    pub(in crate::primary) fn copied(&self, txid: Txid) {
        let mut inner = self.lock();
        inner.state = match std::mem::take(&mut inner.state) {
            State::Found(hole) | State::Copied(hole, _) => State::Copied(hole, txid),
            State::Whole => State::Whole,
        };
    }

    /// Whether a full copy is to be sent.
    pub(in crate::primary) fn wants_copy(&self) -> bool {
        matches!(self.lock().state, State::Found(_))
    }

    /// The full copy that is to become a snapshot, and the hole that it heals.
    pub(in crate::primary) fn copy(&self) -> Option<(Hole, Txid)> {
        match &self.lock().state {
            State::Copied(hole, txid) => Some((hole.clone(), *txid)),
            _ => None,
        }
    }

    /// The full copy `txid` is a snapshot: later states build on it.
    pub(in crate::primary) fn healed(&self, txid: Txid) {
        let mut inner = self.lock();
        (inner.state, inner.healed) = (State::Whole, Some(txid));
    }

    /// The last full copy that healed a hole.
    pub(in crate::primary) fn last_healed(&self) -> Option<Txid> {
        self.lock().healed
    }

    /// Nothing is asked for and nothing is known: replication begins again, or ended.
    pub(in crate::primary) fn forget(&self) {
        let mut inner = self.lock();
        (inner.asked, inner.state) = (None, State::Whole);
    }

    /// Whether what is published can be restored, as far as that is known.
    pub(in crate::primary) fn is_settled(&self) -> bool {
        let inner = self.lock();
        inner.asked.is_none() && matches!(inner.state, State::Whole)
    }

    /// The error of a hole that is being healed.
    pub(in crate::primary) fn error(&self, store: &Replica) -> Option<Error> {
        match &self.lock().state {
            State::Whole | State::Found(Hole::Asked(_)) | State::Copied(Hole::Asked(_), _) => None,
            State::Found(hole) | State::Copied(hole, _) => Some(Error::corrupt(format!(
                "{} lost transactions: {}. A full copy of the database is on its way to it",
                store.url(),
                hole.found()
            ))),
        }
    }
}

/// The files of the replica, as far as they are needed to see whether they lead to `claimed` and to the newest of them,
/// but for those that are known to be damaged.
///
/// # Errors
/// Those of the store.
pub(in crate::primary) async fn list(shipper: &Shipper, claimed: Option<Txid>) -> Result<Vec<FileInfo>> {
    let Listing { files, rest } = shipper.store.list_at_once().await?;
    if rest.is_none() {
        return Ok(sound(shipper, files));
    }
    // Of more files than one answer holds, those after the last snapshot are enough, if they are whole.
    if !files.is_empty() {
        let recent = sound(shipper, list_since_snapshot(shipper.store.as_ref()).await?);
        let newest = recent.iter().map(|file| file.id.name.max()).max();
        if maintenance::leads_to(&recent) >= newest.max(claimed) {
            return Ok(recent);
        }
    }
    let all = Source::new(Arc::clone(&shipper.store)).list_all_upwards().await?;
    Ok(sound(shipper, all))
}

async fn list_since_snapshot(store: &Replica) -> Result<Vec<FileInfo>> {
    let mut files = store.list(Level::SNAPSHOT, Txid::ONE).await?;
    let from = files.iter().map(|file| file.id.name.max()).max().map_or(Txid::ONE, Txid::next);
    let levels = Level::all().filter(|level| *level != Level::SNAPSHOT);
    // Upwards: what is merged meanwhile is then seen once at least.
    for level in levels {
        files.extend(store.list(level, from).await?);
    }
    Ok(files)
}

/// Those of `files` that are not known to be damaged, and not so short that they must be.
fn sound(shipper: &Shipper, mut files: Vec<FileInfo>) -> Vec<FileInfo> {
    let is_cut_off = |file: &&FileInfo| file.size < Header::SIZE as u64;
    shipper.history.note_damaged(files.iter().filter(is_cut_off).map(|file| file.id));
    let damaged = shipper.history.damaged();
    files.retain(|file| !damaged.contains(&file.id));
    files
}

/// The hole of a replica that has `files` and to which `last` was published, if it has one.
///
/// # Errors
/// Those of the store.
pub(in crate::primary) async fn find(
    shipper: &Shipper,
    files: &[FileInfo],
    last: Txid,
) -> Result<Option<Hole>> {
    let reached = maintenance::leads_to(files);
    if reached >= Some(last) {
        return Ok(None);
    }
    let damaged: Vec<FileId> = shipper.history.damaged().into_iter().collect();
    let first = FileId::single(reached.map_or(Txid::ONE, Txid::next));
    // A cache or a mirror may list what was there before.
    let is_old = !damaged.contains(&first) && is_there(shipper.store.as_ref(), first).await?;
    if is_old {
        tracing::debug!("{}: {first} is there and not listed", shipper.store.url());
        return Ok(None);
    }
    Ok(Some(Hole::new(files, &damaged, reached, last)))
}

/// Whether `file`, whose header is wrong, is so indeed; then it counts as missing.
///
/// # Errors
/// Those of the store.
pub(in crate::primary) async fn is_damaged(shipper: &Arc<Shipper>, file: &FileInfo) -> Result<bool> {
    let file = file.clone();
    let damaged = long_blocking(shipper, move |shipper| {
        verify::damaged(&Arc::new(Source::new(Arc::clone(&shipper.store))), &[file])
    });
    let damaged = damaged.await?;
    let is_damaged = !damaged.is_empty();
    shipper.history.note_damaged(damaged);
    Ok(is_damaged)
}

/// The last damaged file, if it is named after a later transaction than `last`.
pub(in crate::primary) fn damaged_beyond(shipper: &Shipper, last: Option<Txid>) -> Option<FileId> {
    let damaged = shipper.history.damaged().into_iter().max_by_key(|id| id.name.max());
    damaged.filter(|id| Some(id.name.max()) > last)
}

/// Looks whether one of `files`, or of those that are known to be damaged, is named after a later transaction than `last`, the
/// last that was published, and cannot be read, or is another writer's.
///
/// # Errors
/// `Conflict` if there is one; those of the store.
pub(in crate::primary) async fn check_end(
    shipper: &Arc<Shipper>,
    files: &[FileInfo],
    last: Txid,
) -> Result<()> {
    let ours = shipper.with_capture(|capture| capture.node_id())?;
    for file in files.iter().filter(|file| file.id.name.max() > last) {
        match newest::read_header(shipper.store.as_ref(), file.id).await {
            Err(e) if e.kind() == ErrorKind::Corrupt => drop(is_damaged(shipper, file).await?),
            Err(e) if e.kind() != ErrorKind::NotFound => return Err(e),
            Ok(header) if header.node_id != ours => return Err(send::another_writers(shipper, &header)),
            _ => {}
        }
    }
    match damaged_beyond(shipper, Some(last)) {
        Some(beyond) => Err(misfit::ends_damaged(shipper.store.as_ref(), beyond, Some(last))),
        None => Ok(()),
    }
}

async fn is_there(store: &Replica, id: FileId) -> Result<bool> {
    match store.head(id).await {
        Ok(_) => Ok(true),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(false),
        Err(e) => Err(e),
    }
}

/// As [`find`], after the files are listed and, if that is asked for, those that lead to the newest state are read. Where a
/// user asked, damage is a hole also if other files lead around it.
///
/// # Errors
/// `Conflict` if a file with a later name is damaged, or another writer's; those of the store.
pub(in crate::primary) async fn look(
    shipper: &Arc<Shipper>,
    asked: Asked,
    last: Txid,
) -> Result<Option<Hole>> {
    loop {
        let files = list(shipper, Some(last)).await?;
        check_end(shipper, &files, last).await?;
        let hole = find(shipper, &files, last).await?;
        if hole.is_some() || asked.look < Look::Content {
            return Ok(hole);
        }
        let Ok(plan) = Plan::new(&files, RestorePoint::Latest) else { return Ok(None) };
        let begins = plan.files().first().filter(|file| file.id.level == Level::SNAPSHOT);
        let begins = begins.map(|file| file.id.name.max());
        let damaged = long_blocking(shipper, move |shipper| {
            let source = Arc::new(Source::new(Arc::clone(&shipper.store)));
            verify::damaged(&source, plan.files())
        });
        let damaged = damaged.await?;
        if damaged.is_empty() {
            return Ok(if asked.by_user { Hole::around(shipper, begins) } else { None });
        }
        shipper.history.note_damaged(damaged);
    }
}
