//! A replica in a folder: `<path>/ltx/{level}/<name>`, level in decimal.
//!
//! A file's modification time is its timestamp, as in Litestream; when it was stored, its change time tells,
//! which is the file system's own and which nobody can set. A file is written under a temporary
//! name in its own folder, synced, and then given its name, so that it appears whole or not at all; a
//! temporary name is none that we or Litestream take for an LTX file.

use std::fmt::Display;
use std::fs::{self, File, FileTimes};
use std::io::{self, ErrorKind as IoKind, Write as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Once, PoisonError};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::{self, BoxStream, StreamExt as _};

use super::clock::StoreClock;
use super::{
    ByteRange, Content, Fencing, FileInfo, Inode, Place, PutOptions, RawInfo, Store, StoreTime, Upload,
    errors,
};
use crate::clock::Timestamp;
use crate::error::{Error, ErrorKind, Result};
use crate::files::{self, Rights};
use crate::ltx::{FileId, FileName, Level, Txid};
use crate::runtime::blocking;

/// The pieces in which content is read.
const CHUNK: u64 = 256 << 10;
/// The pieces in which an upload is best given.
const PART: usize = 1 << 20;
/// A temporary file that nobody wrote to for so long was left by a crash.
const ABANDONED: Duration = Duration::from_secs(24 * 3600);
/// How a temporary file's name begins and ends.
const TEMPORARY: (&str, &str) = (".", ".tmp");

/// A replica in a folder of the local file system.
#[derive(Clone, Debug)]
pub struct FileStore {
    root: Arc<Path>,
    /// The file system has no hard links: a name cannot be taken only if it is free.
    no_links: Arc<AtomicBool>,
    /// The database that is replicated here: its owner and permissions are those of all files.
    database: Option<Arc<Path>>,
    /// Files of former times have them too.
    put_right: Arc<Once>,
    /// The file system's clock, as the times of files that were just written show it.
    clock: Arc<StoreClock>,
    /// Nothing is written to another folder than this one.
    stays_at: Arc<Mutex<Option<Inode>>>,
}

impl FileStore {
    /// The replica in the folder `root`, which is created with the first file.
    pub fn new(root: impl AsRef<Path>) -> Self {
        let put_right = Arc::new(Once::new());
        Self {
            root: root.as_ref().into(),
            no_links: Arc::default(),
            database: None,
            put_right,
            clock: Arc::default(),
            stays_at: Arc::default(),
        }
    }

    /// The replica of the database file `database`: what is in it has that file's owner and permissions, and
    /// what is there already gets them when it is first used.
    #[must_use]
    pub fn of_database(mut self, database: &Path) -> Self {
        self.database = Some(database.into());
        self
    }

    /// The owner and permissions of what is made here; `None` for those of its folder.
    fn rights(&self) -> Option<Rights> {
        let rights = Rights::of(self.database.as_deref()?).ok()?;
        // The root may be a folder of the user's that holds other things too.
        self.put_right.call_once(|| rights.put_right(&self.root.join("ltx")));
        Some(rights)
    }

    fn create_folder(&self, folder: &Path) -> io::Result<()> {
        match self.rights() {
            Some(rights) => files::create_folders_with(folder, rights),
            None => files::create_folders(folder),
        }
    }

    /// Makes sure that the folder of the replica is the one that it was: an unmounted disk leaves another one.
    fn check_place(&self) -> Result<()> {
        let Some(known) = *self.stays_at.lock().unwrap_or_else(PoisonError::into_inner) else {
            return Ok(());
        };
        if inode_of(&self.root) == Some(known) {
            return Ok(());
        }
        let message = format!("{} is not the folder that it was: is its disk not mounted?", self.url());
        Err(Error::new(ErrorKind::Unavailable, message))
    }

    fn folder(&self, level: Level) -> PathBuf {
        self.root.join(self.folder_of(level))
    }

    fn path(&self, id: FileId) -> PathBuf {
        self.folder(id.level).join(id.name.to_string())
    }

    /// Runs `work` on a thread that may block.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Self) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let store = self.clone();
        blocking(move || work(&store)).await
    }

    fn open(&self, path: &Path, name: impl Display) -> Result<File> {
        File::open(path).map_err(|e| match e.kind() {
            IoKind::NotFound => errors::not_found(&self.url(), name),
            _ => io_error("open", path, e),
        })
    }

    /// The files of a level with the times that `time` takes from each.
    fn list_now(
        &self,
        level: Level,
        from: Txid,
        time: fn(&fs::Metadata) -> Timestamp,
    ) -> Result<Vec<FileInfo>> {
        let folder = self.folder(level);
        self.rights();
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(e) if e.kind() == IoKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(io_error("list", &folder, e)),
        };
        let mut files = Vec::new();
        for entry in entries {
            let entry = entry.map_err(|e| io_error("list", &folder, e))?;
            let name = entry.file_name().to_str().and_then(|name| name.parse::<FileName>().ok());
            let Some(name) = name.filter(|name| FileName::min(*name) >= from) else { continue };
            match fs::metadata(entry.path()) {
                Ok(metadata) if metadata.is_file() => {
                    let (id, size) = (FileId::new(level, name), metadata.len());
                    files.push(FileInfo { id, size, timestamp: time(&metadata) });
                }
                // Removed since the folder was read, or not a file.
                Ok(_) => {}
                Err(e) if e.kind() == IoKind::NotFound => {}
                Err(e) => return Err(io_error("look at", &entry.path(), e)),
            }
        }
        files.sort_unstable_by_key(|file| file.id);
        Ok(files)
    }

    /// The content of the file at `path`, which is called `name` in messages.
    fn get_now(&self, path: PathBuf, name: impl Display, range: ByteRange) -> Result<Content> {
        let file = self.open(&path, &name)?;
        let size = file.metadata().map_err(|e| io_error("look at", &path, e))?.len();
        let (start, end) =
            range.within(size).ok_or_else(|| errors::too_short(&self.url(), name, range, size))?;
        Ok(Content { offset: start, file_size: size, body: chunks(file, path, start, end) })
    }

    /// Adds what is in `folder`, whose path below the root is `path`, and in the folders below it.
    fn list_raw_now(&self, folder: &Path, path: &str, found: &mut Vec<RawInfo>) -> Result<()> {
        let entries = match fs::read_dir(folder) {
            Ok(entries) => entries,
            Err(e) if e.kind() == IoKind::NotFound => return Ok(()),
            Err(e) => return Err(io_error("list", folder, e)),
        };
        for entry in entries {
            let entry = entry.map_err(|e| io_error("list", folder, e))?;
            let path = format!("{path}/{}", entry.file_name().to_string_lossy());
            match fs::metadata(entry.path()) {
                Ok(metadata) if metadata.is_dir() => self.list_raw_now(&entry.path(), &path, found)?,
                Ok(metadata) => {
                    let timestamp = modified(&metadata);
                    found.push(RawInfo { path, size: metadata.len(), timestamp });
                }
                // Removed since the folder was read.
                Err(e) if e.kind() == IoKind::NotFound => {}
                Err(e) => return Err(io_error("look at", &entry.path(), e)),
            }
        }
        Ok(())
    }

    fn put_now(&self, id: FileId, body: &[u8], options: &PutOptions) -> Result<()> {
        let mut temporary = Temporary::create(self, id)?;
        temporary.write_at(body, 0)?;
        temporary.publish(self, options)
    }

    /// Gives `from` the name `to`, which must be free.
    fn rename_if_absent(&self, from: &Path, to: &Path, id: FileId) -> Result<()> {
        if !self.no_links.load(Ordering::Relaxed) {
            match fs::hard_link(from, to) {
                Ok(()) => {
                    // The temporary name is a second one by now; losing it late does no harm.
                    let _ = fs::remove_file(from);
                    return Ok(());
                }
                Err(e) if e.kind() == IoKind::AlreadyExists => {
                    return Err(errors::already_exists(&self.url(), id));
                }
                Err(e) if matches!(e.kind(), IoKind::PermissionDenied | IoKind::Unsupported) => {
                    self.no_links.store(true, Ordering::Relaxed);
                }
                Err(e) => return Err(io_error("name", to, e)),
            }
        }
        if to.try_exists().map_err(|e| io_error("look at", to, e))? {
            return Err(errors::already_exists(&self.url(), id));
        }
        fs::rename(from, to).map_err(|e| io_error("name", to, e))
    }
}

#[async_trait]
impl Store for FileStore {
    fn url(&self) -> String {
        format!("file://{}", self.root.display())
    }

    async fn list(&self, level: Level, from: Txid) -> Result<Vec<FileInfo>> {
        self.blocking(move |store| store.list_now(level, from, modified)).await
    }

    async fn list_stored(&self, level: Level, from: Txid) -> Result<Vec<FileInfo>> {
        self.blocking(move |store| store.list_now(level, from, changed)).await
    }

    fn clock(&self) -> Option<StoreTime> {
        self.clock.read(false)
    }

    async fn ask_time(&self) -> Result<()> {
        self.blocking(|store| {
            let mut probe = Temporary::create(store, FileId::new(Level::L0, FileName::single(Txid::ONE)))?;
            probe.write_at(b"?", 0)?;
            probe.tell_time(store);
            Ok(())
        })
        .await
    }

    async fn head(&self, id: FileId) -> Result<FileInfo> {
        self.blocking(move |store| {
            let path = store.path(id);
            let metadata = fs::metadata(&path).map_err(|e| match e.kind() {
                IoKind::NotFound => errors::not_found(&store.url(), id),
                _ => io_error("look at", &path, e),
            })?;
            Ok(info(id, &metadata))
        })
        .await
    }

    async fn get(&self, id: FileId, range: ByteRange) -> Result<Content> {
        self.blocking(move |store| store.get_now(store.path(id), id, range)).await
    }

    async fn put(&self, id: FileId, body: Bytes, options: PutOptions) -> Result<()> {
        self.blocking(move |store| store.put_now(id, &body, &options)).await
    }

    async fn upload(&self, id: FileId, options: PutOptions) -> Result<Box<dyn Upload>> {
        let temporary = self
            .blocking(move |store| {
                let temporary = Temporary::create(store, id)?;
                remove_abandoned(&store.folder(id.level), &temporary.file);
                Ok(temporary)
            })
            .await?;
        Ok(Box::new(FileUpload { store: self.clone(), options, temporary: Some(temporary), written: 0 }))
    }

    async fn delete(&self, ids: &[FileId]) -> Result<()> {
        let ids = ids.to_vec();
        self.blocking(move |store| {
            for id in ids {
                let path = store.path(id);
                match fs::remove_file(&path) {
                    Err(e) if e.kind() != IoKind::NotFound => return Err(io_error("remove", &path, e)),
                    _ => {}
                }
            }
            Ok(())
        })
        .await
    }

    async fn place(&self) -> Option<Place> {
        let looked = self.blocking(|store| {
            let parent = store.root.parent().and_then(inode_of);
            Ok(Place { folder: inode_of(&store.root), parent })
        });
        looked.await.ok()
    }

    fn stay_at(&self, place: Option<Place>) {
        *self.stays_at.lock().unwrap_or_else(PoisonError::into_inner) = place.and_then(|place| place.folder);
    }

    fn fencing(&self) -> Fencing {
        if self.no_links.load(Ordering::Relaxed) { Fencing::LookFirst } else { Fencing::Atomic }
    }

    fn folder_of(&self, level: Level) -> String {
        format!("ltx/{level}")
    }

    async fn list_raw(&self, folder: &str) -> Result<Vec<RawInfo>> {
        let folder = folder.to_owned();
        self.blocking(move |store| {
            let mut found = Vec::new();
            store.list_raw_now(&store.root.join(&folder), &folder, &mut found)?;
            found.sort_unstable_by(|a, b| a.path.cmp(&b.path));
            Ok(found)
        })
        .await
    }

    async fn get_raw(&self, path: &str, range: ByteRange) -> Result<Content> {
        let path = path.to_owned();
        self.blocking(move |store| store.get_now(store.root.join(&path), path, range)).await
    }
}

/// Which folder `path` is, if it is there.
fn inode_of(path: &Path) -> Option<Inode> {
    let metadata = fs::metadata(path).ok().filter(fs::Metadata::is_dir)?;
    Some(Inode { device: metadata.dev(), inode: metadata.ino() })
}

/// A file that has no name of its own yet. It is removed when this is dropped.
struct Temporary {
    file: File,
    path: PathBuf,
    id: FileId,
}

impl Temporary {
    fn create(store: &FileStore, id: FileId) -> Result<Self> {
        store.check_place()?;
        let folder = store.folder(id.level);
        let path = folder.join(temporary_name(id.name)?);
        store.rights();
        // Its name is new, so it is made, with the owner and permissions of its folder.
        let create = || files::open(&path, File::options().write(true));
        let file = match create() {
            Err(e) if e.kind() == IoKind::NotFound => {
                store.create_folder(&folder).map_err(|e| io_error("create", &folder, e))?;
                create()
            }
            other => other,
        };
        let file = file.map_err(|e| io_error("create", &path, e))?;
        Ok(Self { file, path, id })
    }

    fn write_at(&mut self, bytes: &[u8], offset: u64) -> Result<()> {
        self.file.write_all_at(bytes, offset).map_err(|e| io_error("write", &self.path, e))
    }

    /// The file was just written: its time is that of the file system's clock.
    fn tell_time(&self, store: &FileStore) {
        if let Ok(metadata) = self.file.metadata() {
            store.clock.told(modified(&metadata));
        }
    }

    /// Makes the content durable and gives it its name.
    fn publish(&mut self, store: &FileStore, options: &PutOptions) -> Result<()> {
        self.tell_time(store);
        let times = FileTimes::new().set_modified(system_time(options.timestamp));
        self.file
            .flush()
            .and_then(|()| self.file.set_times(times))
            .and_then(|()| self.file.sync_all())
            .map_err(|e| io_error("write", &self.path, e))?;
        let to = store.path(self.id);
        if options.if_absent {
            store.rename_if_absent(&self.path, &to, self.id)?;
        } else {
            fs::rename(&self.path, &to).map_err(|e| io_error("name", &to, e))?;
        }
        sync_folder(&store.folder(self.id.level)).map_err(|e| io_error("sync the folder of", &to, e))
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // After `publish` the name is gone already.
        let _ = fs::remove_file(&self.path);
    }
}

struct FileUpload {
    store: FileStore,
    options: PutOptions,
    /// `None` once the upload has ended, or when the task that held it was cancelled.
    temporary: Option<Temporary>,
    written: u64,
}

impl FileUpload {
    /// Runs `work` on the temporary file, and keeps the file only if the upload goes on.
    async fn with<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&mut Temporary) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let Some(mut temporary) = self.temporary.take() else {
            return Err(Error::new(ErrorKind::Interrupted, "the upload has ended already"));
        };
        let (temporary, result) = blocking(move || {
            let result = work(&mut temporary);
            Ok((temporary, result))
        })
        .await?;
        self.temporary = Some(temporary);
        result
    }
}

#[async_trait]
impl Upload for FileUpload {
    fn part_size(&self) -> usize {
        PART
    }

    async fn part(&mut self, part: Bytes) -> Result<()> {
        let (offset, len) = (self.written, part.len() as u64);
        self.with(move |temporary| temporary.write_at(&part, offset)).await?;
        self.written += len;
        Ok(())
    }

    async fn complete(&mut self) -> Result<()> {
        let (store, options) = (self.store.clone(), self.options.clone());
        self.with(move |temporary| temporary.publish(&store, &options)).await?;
        self.temporary = None;
        Ok(())
    }

    async fn abort(&mut self) -> Result<()> {
        let temporary = self.temporary.take();
        blocking(move || {
            drop(temporary);
            Ok(())
        })
        .await
    }
}

/// The bytes `start..end` of `file`.
fn chunks(file: File, path: PathBuf, start: u64, end: u64) -> BoxStream<'static, Result<Bytes>> {
    let state = (Arc::new(file), Arc::new(path), start);
    stream::try_unfold(state, move |(file, path, at)| async move {
        if at == end {
            return Ok(None);
        }
        let (from, to) = (Arc::clone(&file), Arc::clone(&path));
        let chunk = blocking(move || {
            let mut buffer = vec![0; CHUNK.min(end - at) as usize];
            from.read_exact_at(&mut buffer, at).map_err(|e| io_error("read", &to, e))?;
            Ok(Bytes::from(buffer))
        })
        .await?;
        let at = at + chunk.len() as u64;
        Ok(Some((chunk, (file, path, at))))
    })
    .boxed()
}

fn io_error(verb: &str, path: &Path, e: io::Error) -> Error {
    Error::io(format_args!("cannot {verb} '{}'", path.display()), e)
}

fn info(id: FileId, metadata: &fs::Metadata) -> FileInfo {
    FileInfo { id, size: metadata.len(), timestamp: modified(metadata) }
}

fn modified(metadata: &fs::Metadata) -> Timestamp {
    let modified = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
    let millis = match modified.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(after) => after.as_millis() as i64,
        Err(before) => -(before.duration().as_nanos().div_ceil(1_000_000) as i64),
    };
    Timestamp::from_millis(millis)
}

fn changed(metadata: &fs::Metadata) -> Timestamp {
    Timestamp::from_millis(metadata.ctime() * 1000 + metadata.ctime_nsec() / 1_000_000)
}

fn system_time(timestamp: Timestamp) -> SystemTime {
    let distance = Duration::from_millis(timestamp.as_millis().unsigned_abs());
    if timestamp.as_millis() < 0 {
        SystemTime::UNIX_EPOCH - distance
    } else {
        SystemTime::UNIX_EPOCH + distance
    }
}

fn temporary_name(name: FileName) -> Result<String> {
    let mut random = [0; 8];
    getrandom::fill(&mut random)
        .map_err(|e| Error::new(ErrorKind::Io, format!("the system gives no random bytes: {e}")))?;
    Ok(format!("{}{name}.{:016x}{}", TEMPORARY.0, u64::from_le_bytes(random), TEMPORARY.1))
}

/// Makes the names in `folder` durable.
fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Removes what crashed uploads left in `folder`, as far as that is possible: what is old by the clock that
/// `fresh`, which was just made, has its time from.
fn remove_abandoned(folder: &Path, fresh: &File) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    let Ok(now) = fresh.metadata().and_then(|metadata| metadata.modified()) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let ours = name.to_str().is_some_and(|n| n.starts_with(TEMPORARY.0) && n.ends_with(TEMPORARY.1));
        let age = entry.metadata().and_then(|m| m.modified()).ok().and_then(|at| now.duration_since(at).ok());
        if ours && age.is_some_and(|age| age > ABANDONED) {
            let _ = fs::remove_file(entry.path());
        }
    }
}
