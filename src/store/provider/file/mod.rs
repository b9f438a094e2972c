//! A bucket that is a folder of the local file system: a key is a path below it.
//!
//! A file's modification time is its timestamp, as in Litestream; when it was stored, its change time tells,
//! which is the file system's own and which nobody can set. A file is written under a temporary
//! name in its own folder, synced, and then given its name, so that it appears whole or not at all; a
//! temporary name is none that we or Litestream take for an LTX file.

use std::fs::{self, File, FileTimes};
use std::io::{self, ErrorKind as IoKind};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Once, PoisonError};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::{self, BoxStream, StreamExt as _};

use crate::clock::Timestamp;
use crate::error::{Error, ErrorKind, Result};
use crate::files::{self, EarlySync, Rights};
use crate::runtime::blocking;
use crate::store::clock::{StoreClock, StoreTime};
use crate::store::{
    Bucket, ByteRange, Content, Fencing, Inode, Next, ObjectInfo, Page, Place, PutOptions, Taken, Upload,
    errors,
};

mod location;

pub(in crate::store) use location::PROVIDER;

/// The pieces in which content is read.
const CHUNK: u64 = 256 << 10;
/// The pieces in which an upload is best given.
const PART: usize = 1 << 20;
/// A temporary file that nobody wrote to for so long was left by a crash.
const ABANDONED: Duration = Duration::from_secs(24 * 3600);
/// How a temporary file's name begins and ends.
const TEMPORARY: (&str, &str) = (".", ".tmp");

/// A folder of the local file system.
#[derive(Clone, Debug)]
pub(in crate::store) struct FileBucket {
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

impl FileBucket {
    /// The folder `root`, which is created with the first file.
    fn new(root: impl AsRef<Path>) -> Self {
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

    /// The folder for the database file `database`: what is in it has that file's owner and permissions, and
    /// what is there already gets them when it is first used.
    #[must_use]
    fn of_database(mut self, database: &Path) -> Self {
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
        let message = format!("{} is not the folder that it was: is its disk not mounted?", self.describe());
        Err(Error::new(ErrorKind::Unavailable, message))
    }

    fn path(&self, key: &str) -> PathBuf {
        self.root.join(key)
    }

    /// Runs `work` on a thread that may block.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Self) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let bucket = self.clone();
        blocking(move || work(&bucket)).await
    }

    fn missing_or(&self, verb: &str, key: &str, e: io::Error) -> Error {
        match e.kind() {
            IoKind::NotFound => errors::not_found(&self.describe(), key),
            _ => io_error(verb, &self.path(key), e),
        }
    }

    fn get_now(&self, key: &str, range: ByteRange, listed: Option<u64>) -> Result<Content> {
        let path = self.path(key);
        let file = File::open(&path).map_err(|e| self.missing_or("open", key, e))?;
        let size = file.metadata().map_err(|e| io_error("look at", &path, e))?.len();
        if let Some(listed) = listed {
            errors::check_size(&self.describe(), key, listed, size)?;
        }
        let within = range.within(size);
        let (start, end) = within.ok_or_else(|| errors::too_short(&self.describe(), key, range, size))?;
        Ok(Content { offset: start, file_size: size, timestamp: None, body: chunks(file, path, start, end) })
    }

    /// Adds what is in the folder at `path` below the root, and in the folders below it, if its key begins with
    /// `prefix` and sorts after `after`.
    fn list_now(&self, path: &str, prefix: &str, after: &str, found: &mut Vec<ObjectInfo>) -> Result<()> {
        let folder = self.root.join(path);
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(e) if e.kind() == IoKind::NotFound => return Ok(()),
            Err(e) => return Err(io_error("list", &folder, e)),
        };
        for entry in entries {
            let entry = entry.map_err(|e| io_error("list", &folder, e))?;
            let key = format!("{path}{}", entry.file_name().to_string_lossy());
            let is_wanted = key.starts_with(prefix) && key.as_str() > after;
            if !is_wanted && entry.file_type().is_ok_and(|kind| kind.is_file()) {
                continue;
            }
            match fs::metadata(entry.path()) {
                Ok(metadata) if metadata.is_dir() => {
                    self.list_now(&format!("{key}/"), prefix, after, found)?;
                }
                Ok(metadata) if is_wanted => found.push(info(key, &metadata)),
                // Removed since the folder was read.
                Err(e) if e.kind() != IoKind::NotFound => return Err(io_error("look at", &entry.path(), e)),
                _ => {}
            }
        }
        Ok(())
    }

    fn put_now(&self, key: &str, body: &[u8], options: &PutOptions) -> Result<()> {
        let mut temporary = Temporary::create(self, key)?;
        temporary.write_at(body, 0)?;
        temporary.publish(self, options)
    }

    /// Gives `from` the name `to`, which must be free.
    fn rename_if_absent(&self, from: &Path, to: &Path, key: &str) -> Result<()> {
        if !self.no_links.load(Ordering::Relaxed) {
            match fs::hard_link(from, to) {
                Ok(()) => {
                    // The temporary name is a second one by now; losing it late does no harm.
                    let _ = fs::remove_file(from);
                    return Ok(());
                }
                Err(e) if e.kind() == IoKind::AlreadyExists => {
                    return Err(errors::already_exists(&self.describe(), key));
                }
                Err(e) if matches!(e.kind(), IoKind::PermissionDenied | IoKind::Unsupported) => {
                    self.no_links.store(true, Ordering::Relaxed);
                }
                Err(e) => return Err(io_error("name", to, e)),
            }
        }
        if to.try_exists().map_err(|e| io_error("look at", to, e))? {
            return Err(errors::already_exists(&self.describe(), key));
        }
        fs::rename(from, to).map_err(|e| io_error("name", to, e))
    }
}

#[async_trait]
impl Bucket for FileBucket {
    fn describe(&self) -> String {
        location::url_of(&self.root)
    }

    async fn list(&self, prefix: &str, start: Option<Next>) -> Result<Page<ObjectInfo>> {
        let prefix = prefix.to_owned();
        let after = match start {
            Some(Next::After(key) | Next::Token(key)) => key,
            None => String::new(),
        };
        self.blocking(move |bucket| {
            bucket.rights();
            let folder = prefix.rfind('/').map_or("", |slash| &prefix[..=slash]);
            let mut entries = Vec::new();
            bucket.list_now(folder, &prefix, &after, &mut entries)?;
            entries.sort_unstable_by(|a, b| a.key.cmp(&b.key));
            Ok(Page { entries, next: None })
        })
        .await
    }

    fn clock(&self) -> Option<StoreTime> {
        self.clock.read(false)
    }

    async fn ask_time(&self, prefix: &str) -> Result<()> {
        let key = format!("{prefix}time");
        self.blocking(move |bucket| {
            let mut probe = Temporary::create(bucket, &key)?;
            probe.write_at(b"?", 0)?;
            probe.tell_time(bucket);
            Ok(())
        })
        .await
    }

    async fn head(&self, key: &str) -> Result<ObjectInfo> {
        let key = key.to_owned();
        self.blocking(move |bucket| {
            let metadata = fs::metadata(bucket.path(&key));
            // A folder is no object, whatever its name.
            let is_object = |metadata: fs::Metadata| match metadata.is_dir() {
                false => Ok(metadata),
                true => Err(std::io::ErrorKind::NotFound.into()),
            };
            let metadata = metadata.and_then(is_object).map_err(|e| bucket.missing_or("look at", &key, e))?;
            Ok(info(key, &metadata))
        })
        .await
    }

    async fn get(&self, key: &str, range: ByteRange, size: Option<u64>) -> Result<Content> {
        let key = key.to_owned();
        self.blocking(move |bucket| bucket.get_now(&key, range, size)).await
    }

    async fn put(&self, key: &str, body: Bytes, options: &PutOptions) -> Result<()> {
        let (key, options) = (key.to_owned(), options.clone());
        self.blocking(move |bucket| bucket.put_now(&key, &body, &options)).await
    }

    async fn upload(&self, key: &str, options: &PutOptions) -> Result<Box<dyn Upload>> {
        let (key, options) = (key.to_owned(), options.clone());
        let temporary = self
            .blocking(move |bucket| {
                let temporary = Temporary::create(bucket, &key)?;
                remove_abandoned(folder_of(&bucket.path(&key)), &temporary.file);
                Ok(temporary)
            })
            .await?;
        Ok(Box::new(FileUpload { bucket: self.clone(), options, temporary: Some(temporary), written: 0 }))
    }

    async fn delete(&self, keys: &[String]) -> Result<()> {
        let keys = keys.to_vec();
        self.blocking(move |bucket| {
            for key in keys {
                let path = bucket.path(&key);
                match fs::remove_file(&path) {
                    Err(e) if e.kind() != IoKind::NotFound => return Err(io_error("remove", &path, e)),
                    _ => {}
                }
            }
            Ok(())
        })
        .await
    }

    async fn abort_uploads(&self, prefix: &str) -> Result<usize> {
        let prefix = prefix.to_owned();
        self.blocking(move |bucket| Ok(remove_temporaries(&bucket.path(&prefix), |_| true))).await
    }

    async fn place(&self) -> Option<Place> {
        let looked = self.blocking(|bucket| {
            let parent = bucket.root.parent().and_then(inode_of);
            Ok(Place { folder: inode_of(&bucket.root), parent })
        });
        looked.await.ok()
    }

    fn stay_at(&self, place: Option<Place>) {
        *self.stays_at.lock().unwrap_or_else(PoisonError::into_inner) = place.and_then(|place| place.folder);
    }

    fn fencing(&self) -> Fencing {
        if self.no_links.load(Ordering::Relaxed) { Fencing::LookFirst } else { Fencing::Atomic }
    }
}

/// Which folder `path` is, if it is there.
fn inode_of(path: &Path) -> Option<Inode> {
    let metadata = fs::metadata(path).ok().filter(fs::Metadata::is_dir)?;
    Some(Inode { device: metadata.dev(), inode: metadata.ino() })
}

/// The folder that a file is in.
fn folder_of(path: &Path) -> &Path {
    path.parent().unwrap_or(path)
}

/// A file that has no name of its own yet. It is removed when this is dropped.
struct Temporary {
    file: Arc<File>,
    early_sync: EarlySync,
    path: PathBuf,
    key: String,
}

impl Temporary {
    fn create(bucket: &FileBucket, key: &str) -> Result<Self> {
        bucket.check_place()?;
        let to = bucket.path(key);
        let folder = folder_of(&to);
        let path = folder.join(temporary_name(key)?);
        bucket.rights();
        // Its name is new, so it is made, with the owner and permissions of its folder.
        let create = || files::open(&path, File::options().write(true));
        let file = match create() {
            Err(e) if e.kind() == IoKind::NotFound => {
                bucket.create_folder(folder).map_err(|e| io_error("create", folder, e))?;
                create()
            }
            other => other,
        };
        let file = file.map_err(|e| io_error("create", &path, e))?;
        let mut early_sync = EarlySync::default();
        // What is stored is soon merged, or read by a replica.
        early_sync.stay_cached();
        Ok(Self { file: Arc::new(file), early_sync, path, key: key.to_owned() })
    }

    fn write_at(&mut self, bytes: &[u8], offset: u64) -> Result<()> {
        self.file.write_all_at(bytes, offset).map_err(|e| io_error("write", &self.path, e))?;
        self.early_sync.wrote(&self.file, bytes.len());
        Ok(())
    }

    /// The file was just written: its time is that of the file system's clock.
    fn tell_time(&self, bucket: &FileBucket) {
        if let Ok(metadata) = self.file.metadata() {
            bucket.clock.told(modified(&metadata));
        }
    }

    /// Makes the content durable and gives it its name.
    fn publish(&mut self, bucket: &FileBucket, options: &PutOptions) -> Result<()> {
        self.tell_time(bucket);
        let times = FileTimes::new().set_modified(system_time(options.timestamp));
        // An error of an earlier sync may not come again.
        self.early_sync
            .finish()
            .and_then(|()| self.file.set_times(times))
            .and_then(|()| self.file.sync_all())
            .map_err(|e| io_error("write", &self.path, e))?;
        let to = bucket.path(&self.key);
        if options.if_absent {
            bucket.rename_if_absent(&self.path, &to, &self.key)?;
        } else {
            fs::rename(&self.path, &to).map_err(|e| io_error("name", &to, e))?;
        }
        sync_folder(folder_of(&to)).map_err(|e| io_error("sync the folder of", &to, e))
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // After `publish` the name is gone already.
        let _ = fs::remove_file(&self.path);
    }
}

struct FileUpload {
    bucket: FileBucket,
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

    async fn part(&mut self, part: Bytes) -> Result<Taken> {
        let (offset, len) = (self.written, part.len() as u64);
        self.with(move |temporary| temporary.write_at(&part, offset)).await?;
        self.written += len;
        Ok(Taken::Sent)
    }

    async fn complete(&mut self) -> Result<()> {
        let (bucket, options) = (self.bucket.clone(), self.options.clone());
        self.with(move |temporary| temporary.publish(&bucket, &options)).await?;
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

fn info(key: String, metadata: &fs::Metadata) -> ObjectInfo {
    ObjectInfo { key, size: metadata.len(), timestamp: modified(metadata), stored: changed(metadata) }
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

fn temporary_name(key: &str) -> Result<String> {
    let name = key.rsplit('/').next().unwrap_or(key);
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
    let Ok(now) = fresh.metadata().and_then(|metadata| metadata.modified()) else { return };
    remove_temporaries(folder, |entry| {
        let age = entry.metadata().and_then(|m| m.modified()).ok().and_then(|at| now.duration_since(at).ok());
        age.is_some_and(|age| age > ABANDONED)
    });
}

/// Removes the files in `folder` that have no names of their own and are `abandoned`, as far as that is possible; returns
/// how many there were.
fn remove_temporaries(folder: &Path, abandoned: impl Fn(&fs::DirEntry) -> bool) -> usize {
    let Ok(entries) = fs::read_dir(folder) else { return 0 };
    let is_ours = |entry: &fs::DirEntry| {
        let name = entry.file_name();
        name.to_str().is_some_and(|n| n.starts_with(TEMPORARY.0) && n.ends_with(TEMPORARY.1))
    };
    let ours = entries.flatten().filter(|entry| is_ours(entry) && abandoned(entry));
    ours.filter(|entry| fs::remove_file(entry.path()).is_ok()).count()
}
