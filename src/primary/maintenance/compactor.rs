//! The compactor of a replica's history: what its background task does.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::Duration;

use crate::clock::Timestamp;
use crate::error::{Error, ErrorKind, Result};
use crate::ltx::{FileId, Level, Txid};
use crate::primary::maintenance::due::{Due, Job, Merge, Sealed};
use crate::primary::maintenance::inventory::Inventory;
use crate::primary::maintenance::merge;
use crate::primary::maintenance::packs::Packs;
use crate::primary::maintenance::plan;
use crate::primary::maintenance::schedule_cache::{self, Next};
use crate::primary::maintenance::settings::{Windows, after, window_end};
use crate::primary::maintenance::{Begin, History, News, Published, Settings};
use crate::primary::seals::{Seals, Subject, read_head};
use crate::primary::time::Time;
use crate::replica::Source;
use crate::runtime;
use crate::store::{FileInfo, Replica};
use crate::verify;

/// The wait after a first failure; it doubles up to `BACKOFF_MAX`.
const BACKOFF_MIN: Duration = Duration::from_secs(5);
const BACKOFF_MAX: Duration = Duration::from_secs(600);

/// How long no deletion is tried after one that was refused.
const REFUSED: Duration = Duration::from_secs(24 * 3600);

/// Time that went back by more was set back.
const SET_BACK: Duration = Duration::from_secs(120);

/// Does what is due.
pub(in crate::primary) struct Compactor {
    store: Arc<Replica>,
    packs: Packs,
    seals: Arc<Seals>,
    settings: Settings,
    /// At whose ends snapshots are made.
    snapshots: Windows,
    time: Arc<Time>,
    history: Arc<History>,
    /// Where local state is.
    folder: PathBuf,
    /// This process publishes, as this node.
    node_id: Option<u64>,
    /// The files of the replica; `None` while they are not known.
    files: Option<Inventory>,
    /// When there is something to do, or the replica is to be looked at.
    due: Option<Timestamp>,
    /// When all was done that was due.
    worked: Timestamp,
    /// A deletion was refused: none is tried before this.
    refused_until: Option<Timestamp>,
    backoff: Duration,
    /// Who waits for a snapshot.
    requests: Vec<Sender<Result<Txid>>>,
    /// The transactions that snapshots from the database must hold, each for who waits for one.
    awaited: Vec<(Txid, Sender<Result<Txid>>)>,
}

impl Compactor {
    /// With `pack`, large files get one.
    pub(in crate::primary) fn new(
        store: Arc<Replica>,
        (pack, seals): (bool, Arc<Seals>),
        settings: Settings,
        time: Arc<Time>,
        history: Arc<History>,
        folder: PathBuf,
    ) -> Self {
        let worked = time.now();
        let snapshots = settings.snapshot_windows(&store.url());
        Self {
            packs: Packs::new(Arc::clone(&store), pack),
            store,
            seals,
            settings,
            snapshots,
            time,
            history,
            folder,
            node_id: None,
            files: None,
            due: None,
            worked,
            refused_until: None,
            backoff: BACKOFF_MIN,
            requests: Vec::new(),
            awaited: Vec::new(),
        }
    }

    /// Takes up the news and does what is due.
    ///
    /// # Errors
    /// Those of the work, which is done again later; `Conflict`, after which nothing more is done.
    pub(in crate::primary) async fn round(&mut self) -> Result<()> {
        let (begin, mut news) = {
            let mut inner = self.history.lock();
            inner.rests = false;
            (inner.begin.take(), std::mem::take(&mut inner.news))
        };
        if let Some(begin) = begin {
            self.begin(begin);
        }
        let packs = std::mem::take(&mut news.packs);
        let requests = self.take(news);
        self.requests.extend(requests);
        self.doubt_due();
        let mut done = Ok(());
        if self.is_due() {
            done = self.work().await;
            done = self.settle(done);
        }
        let has_snapshot = packs.iter().any(|pack| pack.id.level == Level::SNAPSHOT);
        for pack in packs {
            self.packs.write(pack, self.history.stop.notified()).await;
        }
        if let Some(files) = self.files.as_ref().filter(|_| has_snapshot) {
            self.sweep_packs(files).await;
        }
        if self.seals.are_on() {
            let asked = self.ask_for_snapshots().await;
            self.settle(asked)?;
        }
        while !self.requests.is_empty() {
            let snapshot = match self.snapshot().await {
                // Who asked has a full copy made in its place.
                Err(e) if e.kind() == ErrorKind::Corrupt => {
                    self.history.take_doubt();
                    Err(e)
                }
                made => self.settle(made),
            };
            // Who asked may have given up.
            let _ = self.requests.remove(0).send(snapshot);
        }
        done
    }

    /// Nothing is kept until the next beginning, if the history ended.
    pub(in crate::primary) fn look_whether_ended(&mut self) {
        if self.history.lock().ended {
            self.node_id = None;
        }
    }

    /// Answers who waits for a snapshot that none will be made.
    pub(in crate::primary) fn answer_all(&mut self, error: &Error) {
        let awaited = self.awaited.drain(..).map(|(_, request)| request);
        for request in self.requests.drain(..).chain(awaited) {
            let _ = request.send(Err(error.clone()));
        }
    }

    /// Has snapshots made from the database for all who wait for one, and answers those for whom one is there.
    async fn ask_for_snapshots(&mut self) -> Result<()> {
        if !self.requests.is_empty() {
            self.files = None;
        }
        if self.requests.is_empty() && self.awaited.is_empty() {
            return Ok(());
        }
        let files = match self.look().await {
            Ok(files) => files,
            Err(e) => {
                self.answer_all(&e);
                return Err(e);
            }
        };
        let last = files.last().max(self.history.lock().last).unwrap_or(Txid::ONE);
        self.awaited.extend(self.requests.drain(..).map(|request| (last, request)));
        let there = files.snapshots().pop().map(|file| file.id.name.max());
        self.files = Some(files);
        for (_, request) in self.awaited.extract_if(.., |(wanted, _)| there >= Some(*wanted)) {
            // Who asked may have given up.
            let _ =
                request.send(there.ok_or_else(|| Error::new(ErrorKind::NotFound, "the replica is empty")));
        }
        self.want_snapshot();
        Ok(())
    }

    /// Has the publisher hold a view, if a snapshot is to be made from the database.
    fn want_snapshot(&self) {
        let is_due = self.files.as_ref().is_some_and(|files| {
            let sealed = self.sealed();
            self.decisions(files, sealed.as_ref()).wants_snapshot(self.time.now())
        });
        self.history.lock().wants_snapshot = is_due || !self.awaited.is_empty();
    }

    /// The snapshot from the database could not be made: it is tried again later.
    pub(in crate::primary) fn snapshot_failed(&mut self, error: Error) {
        self.answer_all(&error);
        self.history.lock().wants_snapshot = false;
        let _ = self.settle::<()>(Err(error));
    }

    fn sealed(&self) -> Option<Sealed> {
        let with_keys = self.seals.with_keys()?;
        Some(Sealed { with_keys, since: self.seals.since() })
    }

    fn begin(&mut self, begin: Begin) {
        self.node_id = Some(begin.node_id);
        (self.refused_until, self.backoff) = (None, BACKOFF_MIN);
        self.files = begin.is_empty.then(Inventory::default);
        if begin.is_empty {
            self.due = None;
            return;
        }
        self.due = match (schedule_cache::read(&self.folder, &self.store.url()), self.settings.levels.first())
        {
            (_, None) | (Some(Next::Never), _) => None,
            (Some(Next::At(time)), _) => Some(time),
            (None, _) => Some(self.time.now()),
        };
    }

    /// Takes up what was published; returns who waits for a snapshot.
    fn take(&mut self, news: News) -> Vec<Sender<Result<Txid>>> {
        let questions = news.questions;
        let since = self.seals.since();
        let begins_sealed = news.published.iter().any(|new| Some(new.file.id.name.max()) == since);
        if !news.published.is_empty() || news.unknown {
            self.history.lock().is_remembered = false;
            schedule_cache::remove(&self.folder);
        }
        if news.unknown {
            self.files = None;
        }
        if let Some(files) = &mut self.files {
            let earliest = |new: &Published| self.settings.earliest(new.file.timestamp, self.snapshots);
            let earliest = news.published.iter().map(earliest).min();
            news.published.into_iter().for_each(|new| files.publish(new));
            // Under load this is not asked anew for each file.
            if self.due.is_none_or(|due| earliest.is_some_and(|earliest| earliest < due)) {
                self.due = self.next();
            }
        } else if let Some(tick) = self.settings.levels.first()
            && (news.unknown || !news.published.is_empty())
            && self.backoff == BACKOFF_MIN
        {
            let time = news.published.first().map_or_else(|| self.time.now(), |new| new.file.timestamp);
            let end = window_end(time, *tick);
            self.due = Some(self.due.map_or(end, |due| due.min(end)));
        }
        if begins_sealed && !self.settings.levels.is_empty() {
            // What is sealed is to begin with a snapshot at once.
            self.due = Some(self.time.now());
        }
        if let Some(files) = &self.files {
            for question in questions {
                // Who asked may have given up.
                let _ = question.send(files.all());
            }
        }
        news.requests
    }

    /// What is due later than anything can be, or was known before time went back, was reckoned by a clock that
    /// has been set since: the replica is to be looked at anew.
    fn doubt_due(&mut self) {
        let now = self.time.now();
        let is_far = self.due.is_some_and(|due| due > after(now, self.settings.longest()));
        if is_far || after(now, SET_BACK) < self.worked {
            (self.files, self.due, self.worked) = (None, self.due.and(Some(now)), now);
        }
    }

    fn is_due(&self) -> bool {
        self.works() && self.due.is_some_and(|due| due <= self.time.now())
    }

    /// Whether the history is this process's to keep now.
    fn works(&self) -> bool {
        let mut inner = self.history.lock();
        inner.waits_for_end_of_pause = inner.is_paused;
        self.node_id.is_some() && !inner.is_paused
    }

    fn next(&self) -> Option<Timestamp> {
        let files = self.files.as_ref()?;
        // What was published while work went on may have become due before that was done.
        let since = files.unworked().map_or(self.worked, |time| time.min(self.worked));
        self.decisions(files, self.sealed().as_ref()).next(since)
    }

    fn decisions<'a>(&'a self, inventory: &'a Inventory, sealed: Option<&'a Sealed>) -> Due<'a> {
        let may_delete = self.refused_until.is_none_or(|until| until <= self.time.now());
        Due { inventory, settings: &self.settings, snapshots: self.snapshots, may_delete, sealed }
    }

    /// Does all that is due now. Without success the files are not known any more.
    async fn work(&mut self) -> Result<()> {
        let mut files = self.look().await?;
        let mut is_confirmed = false;
        loop {
            self.time.ascertain().await?;
            let (now, certain) = (self.time.now(), self.time.certain());
            let sealed = self.sealed();
            if let Some(id) = self.decisions(&files, sealed.as_ref()).unknown(certain) {
                self.learn(&mut files, id).await?;
                continue;
            }
            match self.decisions(&files, sealed.as_ref()).job(now, certain) {
                Some(Job::Merge(work)) => match self.merge(&mut files, &work).await {
                    Err(e) if e.kind() == ErrorKind::NotFound && !is_confirmed => {
                        is_confirmed = true;
                        self.confirm(&mut files).await?;
                    }
                    merged => merged?,
                },
                // Before the last files go that lead to a state, those that lead to it instead are looked for.
                Some(Job::Delete(_)) if !is_confirmed => {
                    is_confirmed = true;
                    self.confirm(&mut files).await?;
                }
                Some(Job::Delete(ids)) if self.is_whole(&files) => self.delete(&mut files, &ids).await?,
                _ => {
                    files.forget_times();
                    files.note_worked();
                    (self.files, self.worked) = (Some(files), now);
                    self.want_snapshot();
                    return Ok(());
                }
            }
        }
    }

    /// The files of the replica, listed if they are not known.
    async fn look(&mut self) -> Result<Inventory> {
        let mut files = match self.files.take() {
            Some(files) => files,
            None => {
                self.time.ascertain().await?;
                let mut files =
                    Inventory::list(self.store.as_ref(), self.time.now(), self.settings.calendar).await?;
                self.absorb(&mut files)?;
                self.doubt_unless_whole(&files);
                self.forget_keys(&files).await?;
                files
            }
        };
        files.exclude(&self.history.damaged());
        Ok(files)
    }

    /// Forgets the keys of files that were merged when an earlier process ended before it could forget them, and of levels
    /// that are not merged any more. What stands there for them must have been written here: then nothing more is made of
    /// them.
    ///
    /// # Errors
    /// `Conflict` if another writer's file stands there; those of the store; `Io` on the file of keys.
    async fn forget_keys(&self, files: &Inventory) -> Result<()> {
        let Some(with_keys) = self.seals.with_keys() else { return Ok(()) };
        let published = self.history.lock().last;
        self.seals.forget_unmerged(published)?;
        let covering = |id: FileId| {
            let to = Level::new(id.level.get() + 1).filter(|to| *to != Level::SNAPSHOT)?;
            let covers =
                |file: &&FileInfo| file.id.name.min() <= id.name.min() && id.name.max() <= file.id.name.max();
            files.level(to).find(covers).map(|file| file.id)
        };
        // One may be made of several, and is known to be ours until it is said of it that it is there.
        let merged: BTreeSet<FileId> = with_keys.into_iter().filter_map(covering).collect();
        for id in merged {
            self.seals.check_ours(&self.store, id).await.inspect_err(|e| self.note_conflict(e))?;
            self.seals.merged(id, published)?;
        }
        Ok(())
    }

    fn note_conflict(&self, error: &Error) {
        if error.kind() == ErrorKind::Conflict {
            self.history.lock().conflict = Some(error.clone());
        }
    }

    /// Finds out when the last transaction of a file was committed. One that is gone or damaged counts as missing.
    async fn learn(&self, files: &mut Inventory, id: FileId) -> Result<()> {
        match plan::committed(&self.store, files, id).await {
            Err(e) if e.kind() == ErrorKind::NotFound => files.remove(&[id]),
            Err(e) if matches!(e.kind(), ErrorKind::Corrupt | ErrorKind::Unsupported) => {
                self.history.note_damaged([id]);
                files.exclude(&self.history.damaged());
            }
            committed => files.learn(id.name.max(), committed?),
        }
        self.doubt_unless_whole(files);
        Ok(())
    }

    /// Makes sure that all files are there.
    async fn confirm(&self, files: &mut Inventory) -> Result<()> {
        let before = files.ids();
        let listed = Source::new(Arc::clone(&self.store)).list_all_upwards().await?;
        let gone: Vec<FileId> =
            before.into_iter().filter(|id| !listed.iter().any(|file| file.id == *id)).collect();
        if !gone.is_empty() {
            tracing::warn!("{}: {} files are gone, {} the first", self.store.url(), gone.len(), gone[0]);
            self.history.figures.broken.one();
        }
        files.remove(&gone);
        self.absorb(files)?;
        self.doubt_unless_whole(files);
        Ok(())
    }

    /// Whether the files lead to all that was published and is not news still.
    fn is_whole(&self, files: &Inventory) -> bool {
        let inner = self.history.lock();
        let news = inner.news.published.iter().filter(|new| new.file.id.level == Level::L0);
        let last = match news.map(|new| new.file.id.name.min()).min() {
            Some(first) => Txid::new(first.get() - 1),
            None => inner.last,
        };
        files.leads_to() >= last
    }

    fn doubt_unless_whole(&self, files: &Inventory) {
        if !self.is_whole(files) {
            self.history.lock().is_doubtful = true;
        }
    }

    /// Adds what was published meanwhile.
    fn absorb(&self, files: &mut Inventory) -> Result<()> {
        let mut inner = self.history.lock();
        if inner.news.unknown {
            return Err(Error::new(ErrorKind::Unavailable, "the replica has changed and is looked at again"));
        }
        inner.news.published.drain(..).for_each(|new| files.publish(new));
        Ok(())
    }

    /// Merges files. Those that turn out to be damaged count as missing from then on; the merge is another one then.
    async fn merge(&self, files: &mut Inventory, work: &Merge) -> Result<()> {
        let merged = self.try_merge(files, work).await;
        if merged.as_ref().is_err_and(|e| e.kind() == ErrorKind::Denied) && self.leave_out(work).await? {
            return Ok(());
        }
        let damaged = match &merged {
            Err(e) if matches!(e.kind(), ErrorKind::Corrupt | ErrorKind::Unsupported) => {
                damaged(&self.store, work.inputs.clone()).await?
            }
            _ => return merged,
        };
        if damaged.is_empty() {
            return merged;
        }
        self.history.figures.broken.one();
        self.history.note_damaged(damaged);
        files.exclude(&self.history.damaged());
        self.doubt_unless_whole(files);
        Ok(())
    }

    /// Finds the inputs of `work` that none of the keys opens, which are left out of merges then; whether there are any.
    async fn leave_out(&self, work: &Merge) -> Result<bool> {
        let mut left_out = Vec::new();
        for file in work.inputs.iter().filter(|_| self.seals.are_on()) {
            let head = read_head(&self.store, file.id).await?;
            if !head.header.is_sealed() || self.seals.codec_of(&head.bytes)?.is_none() {
                tracing::warn!("{}: none of the keys that are kept opens {}", self.store.url(), file.id);
                left_out.push(Subject::Replica(file.id));
            }
        }
        self.seals.forget(&left_out)?;
        Ok(!left_out.is_empty())
    }

    async fn try_merge(&self, files: &mut Inventory, work: &Merge) -> Result<()> {
        let level = work.to.level;
        if work.inputs[0].id.level == Level::L0 {
            self.check_alone(files).await?;
        }
        let kept = |id: FileId| self.history.lock().recent.get(id);
        let node_id = self.node_id.unwrap_or_default();
        let stop = self.history.stop.notified();
        let begun = tokio::time::Instant::now();
        let (written, committed, pack) =
            merge::run(&self.store, work, kept, (node_id, &self.seals), self.packs.are_on(), stop)
                .await
                .inspect_err(|e| self.note_conflict(e))?;
        let published = self.history.lock().last;
        self.seals.merged(written.id, published)?;
        tracing::info!("{}: {} holds {} files", self.store.url(), written.id, work.inputs.len());
        if level == Level::SNAPSHOT {
            self.history.figures.snapshots.note(begun.elapsed());
        } else {
            self.history.lock().recent.forget(written.id.name.max());
        }
        files.publish(Published { file: written, committed });
        if let Some(pack) = pack {
            self.packs.write(pack, self.history.stop.notified()).await;
            if level == Level::SNAPSHOT {
                self.sweep_packs(files).await;
            }
        }
        Ok(())
    }

    /// Removes the packs of files that are not among `files`, if files are deleted here.
    async fn sweep_packs(&self, files: &Inventory) {
        if self.settings.retention && self.refused_until.is_none() {
            self.packs.sweep(files).await;
        }
    }

    /// Makes sure that nobody else publishes: once our files of level 0 are merged and deleted, their
    /// names no longer keep another writer from the same transactions.
    async fn check_alone(&self, files: &mut Inventory) -> Result<()> {
        let Some(last) = files.last() else { return Ok(()) };
        let later = self.store.list(Level::L0, last.next()).await?;
        self.absorb(files)?;
        let known = files.last().unwrap_or(last);
        // The next one may be ours, on its way.
        let Some(foreign) = later.iter().find(|file| file.id.name.max() > known.next()) else {
            return Ok(());
        };
        let header = Source::new(Arc::clone(&self.store)).header(foreign).await;
        let writer = if header.is_ok_and(|header| header.is_litestreams()) {
            "A Litestream sidecar seems to run: stop it and call litestream_resume()"
        } else {
            "Another primary writes to it: stop one of the two"
        };
        let error = Error::new(
            ErrorKind::Conflict,
            format!(
                "{} has {}, but we published up to {known}. {writer}, or give another replica URL",
                self.store.url(),
                foreign.id
            ),
        );
        self.history.lock().conflict = Some(error.clone());
        Err(error)
    }

    /// Deletes files. A store that refuses some, since they are locked or the credentials do not allow it, is told of once,
    /// and asked again with the first work that is due a day later.
    async fn delete(&mut self, files: &mut Inventory, ids: &[FileId]) -> Result<()> {
        match self.store.delete(ids).await {
            Err(e) if e.kind() == ErrorKind::Denied => {
                let e = e.context("old files cannot be deleted; allow it, or open with retention=off");
                if self.refused_until.is_none() {
                    tracing::warn!("{e}");
                }
                self.history.lock().refusal = Some(e);
                self.refused_until = Some(after(self.time.now(), REFUSED));
                let listed = Source::new(Arc::clone(&self.store)).list_all_upwards().await?;
                let is_gone = |id: &&FileId| !listed.iter().any(|file| file.id == **id);
                files.remove(&ids.iter().filter(is_gone).copied().collect::<Vec<_>>());
                Ok(())
            }
            Err(e) => Err(e),
            Ok(()) => {
                tracing::info!("{}: {} old files were deleted", self.store.url(), ids.len());
                self.refused_until = None;
                files.remove(ids);
                self.seals.forget(&ids.iter().copied().map(Subject::Replica).collect::<Vec<_>>())
            }
        }
    }

    /// Makes a snapshot of all that was published, or makes sure that the one that is there is sound.
    ///
    /// # Errors
    /// `Corrupt` if the files do not lead there, or the snapshot is damaged.
    async fn snapshot(&mut self) -> Result<Txid> {
        self.files = None;
        let mut files = self.look().await?;
        let last = files.last().max(self.history.lock().last);
        let last = last.ok_or_else(|| Error::new(ErrorKind::NotFound, "the replica is empty"))?;
        let there = files.snapshots().pop().filter(|file| file.id.name.max() == last).cloned();
        self.history.note_damaged(damaged(&self.store, there.into_iter().collect()).await?);
        files.exclude(&self.history.damaged());
        // Where files are missing, a snapshot of what is before them is of no use.
        while self.is_whole(&files)
            && let Some(work) = self.decisions(&files, None).snapshot_now()
        {
            self.merge(&mut files, &work).await?;
        }
        let there = files.snapshots().pop().map(|file| file.id.name.max());
        self.files = Some(files);
        if there == Some(last) {
            return Ok(last);
        }
        Err(Error::corrupt(format!(
            "{} lacks files that lead to transaction {last}: there is no snapshot of it",
            self.store.url()
        )))
    }

    /// Notes how work ended, and when there will be some again.
    fn settle<T>(&mut self, done: Result<T>) -> Result<T> {
        match &done {
            Ok(_) => {
                self.backoff = BACKOFF_MIN;
                if self.files.is_some() {
                    self.due = self.next();
                    self.history.lock().error = None;
                }
            }
            Err(e) => {
                self.due = Some(after(self.time.now(), self.backoff));
                self.backoff = (self.backoff * 2).min(BACKOFF_MAX);
                if e.kind() != ErrorKind::Interrupted {
                    self.history.lock().error = Some(e.clone());
                }
            }
        }
        done
    }

    /// Tells whoever waits that there is nothing to do now, and when there will be.
    pub(super) fn tell(&self) {
        if let Some(files) = &self.files {
            self.history.figures.keep(files.kept(self.time.now(), self.settings.l0_retention));
        }
        let mut inner = self.history.lock();
        inner.rests = true;
        let next = Some(self.due.map_or(Next::Never, Next::At));
        inner.is_remembered &= inner.next == next;
        inner.next = next;
        self.history.resting.notify_all();
    }

    /// Waits for news, or until something is due.
    pub(in crate::primary) async fn rest(&self) {
        self.tell();
        let news = self.history.news.notified();
        match self.due.filter(|_| self.works()) {
            None => news.await,
            Some(due) => {
                let wait = due.as_millis() - self.time.now().as_millis();
                let wait = Duration::from_millis(wait.max(1) as u64);
                // A timer that runs out is as good as news.
                let _ = tokio::time::timeout(wait, news).await;
            }
        }
    }

    /// When there is something to do, or the replica is to be looked at.
    #[cfg(test)]
    pub(super) fn due(&self) -> Option<Timestamp> {
        self.due
    }
}

/// Those of `files` that are damaged. They are read to their ends.
async fn damaged(store: &Arc<Replica>, files: Vec<FileInfo>) -> Result<Vec<FileId>> {
    let mut listed = Vec::new();
    for file in files {
        // The size of one that was replaced is another than it was.
        match store.head(file.id).await {
            Ok(now) => listed.push(now),
            Err(e) if e.kind() == ErrorKind::NotFound => {}
            Err(e) => return Err(e),
        }
    }
    let source = Arc::new(Source::new(Arc::clone(store)));
    runtime::long_blocking(move || verify::damaged(&source, &listed)).await
}
