//! One replica: a bucket, the replica's root in it, and where LTX files are below.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::future;
use tokio::sync::OnceCell;

use super::bucket::{Bucket, ByteRange, Content, Fencing, Next, ObjectInfo, Place, PutOptions, Upload};
use super::clock::StoreTime;
use super::http::{LongTurn, Work};
use super::layout::{self, Layout, PACKS};
use super::part_log::PartLog;
use super::requests::Requests;
use super::wrap::{Counted, Meter, Retry, RetryPolicy};
use crate::clock::Timestamp;
use crate::error::{Error, Result};
use crate::ltx::{FileId, Keyring, Level, Txid};

/// The prefixes that a replica at a bucket's root may have. Litestream 0.5 makes `./` of a URL without a path and `/` of
/// a configuration file without one.
const ROOT_FORMS: [&str; 3] = ["", "./", "/"];

/// One replica in an object store. What it makes of names is in its [`Layout`]; all requests are its bucket's.
#[derive(Clone, Debug)]
pub struct Replica {
    bucket: Arc<dyn Bucket>,
    layout: Layout,
    root: Root,
    requests: Arc<Requests>,
    /// The name of the provider; empty if that is not known.
    kind: &'static str,
    /// What opens its files, and which it may have that are not sealed.
    keyring: Keyring,
}

/// What the keys of a replica begin with: nothing, or a path with a slash at its end.
#[derive(Clone, Debug)]
enum Root {
    At(String),
    /// The bucket's own root: which of [`ROOT_FORMS`] it is shows when it is first used.
    Bucket(Arc<OnceCell<&'static str>>),
}

impl Replica {
    /// The replica whose files are below `root`, a path without slashes at either end, which may be empty.
    pub fn new(bucket: Arc<dyn Bucket>, root: &str, layout: Layout) -> Self {
        let root = match (root, layout) {
            ("", Layout::Numbered) => Root::Bucket(Arc::default()),
            ("", Layout::Ltx) => Root::At(String::new()),
            (root, _) => Root::At(format!("{root}/")),
        };
        Self { bucket, layout, root, requests: Arc::default(), kind: "", keyring: Keyring::default() }
    }

    /// The same replica, whose files are read with `keyring`.
    #[must_use]
    pub fn read_with(&self, keyring: Keyring) -> Self {
        Self { keyring, ..self.clone() }
    }

    /// What opens its files, and which it may have that are not sealed.
    pub fn keyring(&self) -> &Keyring {
        &self.keyring
    }

    /// The same replica, whose requests are counted: in [`Replica::requests`], and in those of this process to stores
    /// of this `kind`.
    #[must_use]
    pub fn counted(&self, kind: &'static str) -> Self {
        let counted = self.wrapped(|bucket| Arc::new(Counted::new(bucket, Arc::clone(&self.requests), kind)));
        Self { kind, ..counted }
    }

    /// The name of its provider, as in a configuration file: `s3`; empty if its requests are not counted.
    pub fn kind(&self) -> &'static str {
        self.kind
    }

    /// The requests that were made so far, if they are counted.
    pub fn requests(&self) -> &Requests {
        &self.requests
    }

    /// The same replica with `wrap` around its bucket.
    #[must_use]
    pub fn wrapped(&self, wrap: impl FnOnce(Arc<dyn Bucket>) -> Arc<dyn Bucket>) -> Self {
        Self { bucket: wrap(Arc::clone(&self.bucket)), ..self.clone() }
    }

    /// The same replica, whose requests are counted and tried again as `policy` says.
    #[must_use]
    pub fn patient(&self, policy: RetryPolicy) -> Self {
        self.wrapped(|bucket| Arc::new(Retry::new(Arc::new(Meter::new(bucket)), policy)))
    }

    /// The replica's URL, for messages. Carries no secret.
    pub fn url(&self) -> String {
        self.bucket.describe()
    }

    /// Where the files of `level` are below the replica's root.
    pub fn folder_of(&self, level: Level) -> String {
        self.layout.folder(level)
    }

    /// What all keys of the replica begin with.
    async fn prefix(&self) -> Result<&str> {
        match &self.root {
            Root::At(prefix) => Ok(prefix),
            Root::Bucket(form) => self.form(form, false).await,
        }
    }

    /// As [`Replica::prefix`], of a replica that will have files: its form is decided even if it has none now.
    async fn prefix_to_write(&self) -> Result<&str> {
        match &self.root {
            Root::At(prefix) => Ok(prefix),
            Root::Bucket(form) => self.form(form, true).await,
        }
    }

    /// The form of the bucket's root, remembered once it is decided.
    async fn form(&self, known: &OnceCell<&'static str>, decide: bool) -> Result<&str> {
        if let Some(form) = known.get() {
            return Ok(form);
        }
        match self.find_form().await? {
            // Whoever writes the first file meanwhile may use another form.
            None if !decide => Ok(ROOT_FORMS[0]),
            found => {
                let form = found.unwrap_or(ROOT_FORMS[0]);
                Ok(known.get_or_init(async || form).await)
            }
        }
    }

    /// The form of the bucket's root that has files; the one with the newest ones if several have.
    async fn find_form(&self) -> Result<Option<&'static str>> {
        let mut used = Vec::new();
        for form in ROOT_FORMS {
            let first = self.bucket.list(&format!("{form}{}", self.layout.prefix_of_all()), None).await?;
            if first.entries.iter().any(|object| self.file(form, object, |o| o.timestamp).is_some()) {
                used.push(form);
            }
        }
        if used.len() < 2 {
            return Ok(used.pop());
        }
        let mut newest = Vec::new();
        for form in used {
            newest.push((self.newest_below(form).await?, form));
        }
        let best = newest.into_iter().max_by_key(|(txid, _)| *txid).map(|(_, form)| form);
        tracing::warn!(
            replica = self.url(),
            form = best,
            "the bucket's root has several replicas, by several forms of its name; the one with the newest transaction \
             is used"
        );
        Ok(best)
    }

    /// The last transaction of the files whose keys begin with `form`, on any level.
    async fn newest_below(&self, form: &str) -> Result<Option<Txid>> {
        let prefix = format!("{form}{}", self.layout.prefix_of_all());
        let objects = self.all(&prefix, None).await?;
        let files = objects.iter().filter_map(|object| self.layout.file(object.key.strip_prefix(form)?));
        Ok(files.map(|id| id.name.max()).max())
    }

    /// All objects whose keys begin with `prefix`, page by page.
    async fn all(&self, prefix: &str, mut start: Option<Next>) -> Result<Vec<ObjectInfo>> {
        let mut objects = Vec::new();
        loop {
            let page = self.bucket.list(prefix, start).await?;
            objects.extend(page.entries);
            start = page.next;
            if start.is_none() {
                return Ok(objects);
            }
        }
    }

    async fn key(&self, id: FileId) -> Result<String> {
        Ok(format!("{}{}", self.prefix().await?, self.layout.path(id)))
    }

    async fn key_to_write(&self, id: FileId) -> Result<String> {
        Ok(format!("{}{}", self.prefix_to_write().await?, self.layout.path(id)))
    }

    /// The file that an object is, if it is one, with the time that `time` takes from it.
    fn file(
        &self,
        prefix: &str,
        object: &ObjectInfo,
        time: fn(&ObjectInfo) -> Timestamp,
    ) -> Option<FileInfo> {
        let id = self.layout.file(object.key.strip_prefix(prefix)?)?;
        Some(FileInfo { id, size: object.size, timestamp: time(object) })
    }

    async fn list_with(
        &self,
        level: Level,
        from: Txid,
        time: fn(&ObjectInfo) -> Timestamp,
    ) -> Result<Vec<FileInfo>> {
        let prefix = self.prefix().await?;
        let folder = format!("{prefix}{}/", self.layout.folder(level));
        let start =
            (from > Txid::ONE).then(|| Next::After(format!("{prefix}{}", self.layout.before(level, from))));
        let objects = self.all(&folder, start).await?;
        // Stores differ in what they do with the start of a listing.
        let wanted = |file: &FileInfo| file.id.level == level && file.id.name.min() >= from;
        Ok(in_order(objects.iter().filter_map(|o| self.file(prefix, o, time)).filter(wanted).collect()))
    }

    /// The files of `level` whose first transaction is `from` or later, in order of name.
    ///
    /// Objects whose names are not those of LTX files are left out. A replica that does not exist is
    /// an empty one, a bucket that does not exist is an error.
    pub async fn list(&self, level: Level, from: Txid) -> Result<Vec<FileInfo>> {
        self.list_with(level, from, |object| object.timestamp).await
    }

    /// As [`Replica::list`], but the time of each file is when it was stored, by the store's own clock.
    pub async fn list_stored(&self, level: Level, from: Txid) -> Result<Vec<FileInfo>> {
        self.list_with(level, from, |object| object.stored).await
    }

    /// The files of as many levels, from level 0 upwards, as one answer holds. From a store that cannot list
    /// several levels at once, none.
    pub async fn list_at_once(&self) -> Result<Listing> {
        let nothing = Listing { files: Vec::new(), rest: Some((Level::L0, Txid::ONE)) };
        if !self.bucket.lists_any_prefix() {
            return Ok(nothing);
        }
        let prefix = self.prefix().await?;
        let page = self.bucket.list(&format!("{prefix}{}", self.layout.prefix_of_all()), None).await?;
        if page.next.is_some() && !page.entries.is_sorted_by(|a, b| a.key < b.key) {
            // What is missing may be on any level.
            return Ok(nothing);
        }
        let files = page.entries.iter().filter_map(|o| self.file(prefix, o, |object| object.timestamp));
        let mut files = in_order(files.collect());
        if page.next.is_none() {
            return Ok(Listing { files, rest: None });
        }
        // Pages are in the order of the keys, which is that of levels and names. Of files that begin at
        // one transaction the page may have only some.
        let last = files.last().map_or((Level::L0, Txid::ONE), |file| (file.id.level, file.id.name.min()));
        files.retain(|file| (file.id.level, file.id.name.min()) < last);
        Ok(Listing { files, rest: Some(last) })
    }

    /// Whether asking for a file that may not be there costs less than a listing, as [`Bucket::misses_cheaply`].
    pub fn misses_cheaply(&self) -> bool {
        self.bucket.misses_cheaply()
    }

    /// Metadata of one file.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn head(&self, id: FileId) -> Result<FileInfo> {
        let object = self.bucket.head(&self.key(id).await?).await?;
        Ok(FileInfo { id, size: object.size, timestamp: object.timestamp })
    }

    /// The bytes of `range` of one file.
    ///
    /// # Errors
    /// `NotFound`; `WrongAnswer` if the file ends before a bounded range does, or something else came.
    pub async fn get(&self, id: FileId, range: ByteRange) -> Result<Content> {
        self.bucket.get(&self.key(id).await?, range, None).await
    }

    /// As [`Replica::get`], of a file whose size a listing gave: an answer from a file of another size is
    /// `WrongAnswer`. Serves stores that do not give the size with the content.
    pub async fn get_listed(&self, file: &FileInfo, range: ByteRange) -> Result<Content> {
        self.bucket.get(&self.key(file.id).await?, range, Some(file.size)).await
    }

    /// Writes a small file in a single request. The file appears whole or not at all.
    ///
    /// # Errors
    /// `AlreadyExists` if `options.if_absent` and the file is there. A store that cannot make the
    /// condition atomic looks first, and says so by [`Replica::fencing`].
    pub async fn put(&self, id: FileId, body: Bytes, options: PutOptions) -> Result<()> {
        self.bucket.put(&self.key_to_write(id).await?, body, &options).await
    }

    /// Begins to write a file of any size in parts. Nothing is visible before
    /// [`Upload::complete`].
    pub async fn upload(&self, id: FileId, options: PutOptions) -> Result<Box<dyn Upload>> {
        self.bucket.upload(&self.key_to_write(id).await?, &options).await
    }

    /// As [`Replica::upload`], which takes up what an earlier attempt left, as [`Bucket::resume_upload`].
    pub async fn resume_upload(
        &self,
        id: FileId,
        options: PutOptions,
        log: Arc<PartLog>,
    ) -> Result<Box<dyn Upload>> {
        self.bucket.resume_upload(&self.key_to_write(id).await?, &options, log).await
    }

    /// Gives up the upload that `log` names, if it names one.
    pub async fn give_up_upload(&self, log: &Arc<PartLog>) -> Result<()> {
        let Some(begun) = log.begun() else { return Ok(()) };
        let options = PutOptions { timestamp: begun.last(), if_absent: true };
        self.bucket.resume_upload(begun.name().0, &options, Arc::clone(log)).await?.abort().await?;
        log.forget();
        Ok(())
    }

    /// Deletes files, and what is beside them: their packs. Those that are not there are no error.
    pub async fn delete(&self, ids: &[FileId]) -> Result<()> {
        let packs = ids.iter().filter(|id| layout::may_have_pack(**id)).map(|id| layout::path_of_pack(*id));
        self.delete_at(ids.iter().map(|id| self.layout.path(*id)).chain(packs)).await
    }

    /// Deletes the packs of files. Those that are not there are no error.
    pub async fn delete_packs(&self, ids: &[FileId]) -> Result<()> {
        self.delete_at(ids.iter().map(|id| layout::path_of_pack(*id))).await
    }

    async fn delete_at(&self, paths: impl Iterator<Item = String> + Send) -> Result<()> {
        let prefix = self.prefix().await?;
        let keys: Vec<String> = paths.map(|path| format!("{prefix}{path}")).collect();
        if keys.is_empty() { Ok(()) } else { self.bucket.delete(&keys).await }
    }

    /// Writes the pack of the file `id`, in place of one that is there.
    pub async fn put_pack(&self, id: FileId, body: Bytes, timestamp: Timestamp) -> Result<()> {
        let key = format!("{}{}", self.prefix_to_write().await?, layout::path_of_pack(id));
        self.bucket.put(&key, body, &PutOptions { timestamp, if_absent: false }).await
    }

    /// The bytes of `range` of the pack of the file `id`.
    ///
    /// # Errors
    /// As [`Replica::get`].
    pub async fn get_pack(&self, id: FileId, range: ByteRange) -> Result<Content> {
        self.get_raw(&layout::path_of_pack(id), range).await
    }

    /// The files that have a pack, as the packs' names say. The files themselves may be gone.
    pub async fn packs(&self) -> Result<Vec<FileId>> {
        let objects = self.list_raw(PACKS).await?;
        Ok(objects.iter().filter_map(|object| layout::file_of_pack(&object.path)).collect())
    }

    /// Whatever is in `folder` below the replica's root and in the folders below it, in order of path:
    /// LTX files or not. A folder that does not exist is an empty one.
    pub async fn list_raw(&self, folder: &str) -> Result<Vec<RawInfo>> {
        let prefix = self.prefix().await?;
        let objects = self.all(&format!("{prefix}{folder}/"), None).await?;
        let raw = objects.into_iter().filter_map(|object| {
            let path = object.key.strip_prefix(prefix)?.to_owned();
            Some(RawInfo { path, size: object.size, timestamp: object.timestamp })
        });
        Ok(raw_in_order(raw.collect()))
    }

    /// The bytes of `range` of whatever is at `path` below the replica's root.
    ///
    /// # Errors
    /// As [`Replica::get`].
    pub async fn get_raw(&self, path: &str, range: ByteRange) -> Result<Content> {
        self.bucket.get(&format!("{}{path}", self.prefix().await?), range, None).await
    }

    /// How much came so far, as [`Bucket::heard`] counts it.
    pub fn heard(&self) -> Option<u64> {
        self.bucket.heard()
    }

    /// Why the last attempt to read failed, if none has succeeded since.
    pub fn last_failure(&self) -> Option<Error> {
        self.bucket.last_failure()
    }

    /// The store's own clock, as far as its answers have shown it.
    pub fn clock(&self) -> Option<StoreTime> {
        self.bucket.clock()
    }

    /// Makes the store give its time, for [`Replica::clock`]. One without a clock does nothing.
    pub async fn ask_time(&self) -> Result<()> {
        let folder = self.layout.folder(Level::L0);
        self.bucket.ask_time(&format!("{}{folder}/", self.prefix().await?)).await
    }

    /// Waits for a turn of such `work`, as [`Bucket::turn`].
    pub async fn turn(&self, work: Work) -> Option<LongTurn> {
        self.bucket.turn(work).await
    }

    /// Where the replica is on this machine, if it is in a folder.
    pub async fn place(&self) -> Option<Place> {
        self.bucket.place().await
    }

    /// From now on nothing is written unless the folder of the replica is that of `place`; with `None` it may be any,
    /// and is made if there is none.
    pub fn stay_at(&self, place: Option<Place>) {
        self.bucket.stay_at(place);
    }

    /// Gives up all uploads of files that were begun and neither completed nor aborted, as [`Bucket::abort_uploads`]; returns
    /// their number.
    pub async fn abort_uploads(&self) -> Result<usize> {
        let prefix = self.prefix().await?;
        let folders = Level::all().map(|level| format!("{prefix}{}/", self.layout.folder(level)));
        let aborted = folders.map(|folder| async move { self.bucket.abort_uploads(&folder).await });
        Ok(future::try_join_all(aborted).await?.into_iter().sum())
    }

    /// How well `if_absent` is kept, as far as it has shown by now.
    pub fn fencing(&self) -> Fencing {
        self.bucket.fencing()
    }

    /// Finds out whether `if_absent` is kept, as [`Bucket::prove_fencing`].
    pub async fn prove_fencing(&self, id: FileId, body: Bytes, options: PutOptions) -> Result<()> {
        self.bucket.prove_fencing(&self.key(id).await?, body, &options).await
    }
}

/// A file as a listing shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileInfo {
    /// Which file.
    pub id: FileId,
    /// Its size in bytes.
    pub size: u64,
    /// When its content was committed, if the store told it (`litestream-timestamp`), else when it
    /// was stored. A listing usually knows only the latter.
    pub timestamp: Timestamp,
}

/// `files` in the order of levels and names, each once.
fn in_order(mut files: Vec<FileInfo>) -> Vec<FileInfo> {
    files.sort_unstable_by_key(|file| file.id);
    files.dedup_by_key(|file| file.id);
    files
}

/// Objects in the order of their paths, each once.
fn raw_in_order(mut objects: Vec<RawInfo>) -> Vec<RawInfo> {
    objects.sort_unstable_by(|a, b| a.path.cmp(&b.path));
    objects.dedup_by(|a, b| a.path == b.path);
    objects
}

/// The beginning of what is in a replica, level by level from 0 on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listing {
    /// The files, by level and name.
    pub files: Vec<FileInfo>,
    /// Where the files begin that are missing: from a transaction of a level on, and all of the levels
    /// above it. `None` if these are all.
    pub rest: Option<(Level, Txid)>,
}

/// An object whose name means nothing to the store, as a listing shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawInfo {
    /// Its path below the replica's root, with slashes and none in front.
    pub path: String,
    /// Its size in bytes.
    pub size: u64,
    /// When it was stored.
    pub timestamp: Timestamp,
}
