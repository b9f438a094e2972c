//! The file that a restore makes: a temporary one that takes the target's name at the end.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _, fchown};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::in_use::{Exclusion, keep_out, refuse_if_open};
use super::{leftovers, links};
use crate::error::{Error, ErrorKind, Result};
use crate::files::EarlySync;
use crate::page::{PageCount, PageSize, Pgno};

/// Neighbouring pages are written together up to this many bytes.
const RUN: usize = 1024 * 1024;

/// How often it is tried to replace a file that comes and goes.
const ATTEMPTS: usize = 10;

/// The permissions that SQLite asks for when it makes a database; the user's umask takes from them.
const OF_DATABASES: u32 = 0o644;

/// Files beside a database that SQLite would apply to whatever database it finds there.
const APPLIED: [&str; 2] = ["-wal", "-journal"];
/// Files beside a database that are worthless without it.
const COMPANIONS: [&str; 3] = ["-wal", "-journal", "-shm"];

/// Where a database is to be, and whether it may replace what is there.
#[derive(Clone, Debug)]
pub(super) struct Output {
    target: PathBuf,
    force: Option<Exclusion>,
}

impl Output {
    /// Looks whether the target may be written; changes nothing.
    pub(super) fn prepare(path: &Path, force: Option<Exclusion>) -> Result<Self> {
        if path.file_name().is_none() {
            return Err(Error::config(format!("'{}' does not name a file to restore to", path.display())));
        }
        let end = links::end_of(path)?;
        let there = metadata(&end)?;
        if there.as_ref().is_some_and(|m| !m.is_file()) {
            return Err(Error::new(
                ErrorKind::AlreadyExists,
                format!("cannot restore to {}: it is there and not a file", path.display()),
            ));
        }
        // A link stays: what it leads to is made, or replaced.
        let target = match there {
            Some(_) => fs::canonicalize(path).map_err(|e| Error::io(format!("{}", path.display()), e))?,
            None => end,
        };
        let output = Self { target, force };
        match &output.force {
            Some(exclusion) => refuse_if_open(&output.target, there.is_some(), exclusion)?,
            None => output.refuse_leftovers()?,
        }
        Ok(output)
    }

    /// Checks that nothing is in the way of a file that replaces none.
    fn refuse_leftovers(&self) -> Result<()> {
        if metadata(&self.target)?.is_some() {
            return Err(exists(&self.target));
        }
        for suffix in APPLIED {
            let leftover = beside(&self.target, suffix);
            if metadata(&leftover)?.is_some_and(|m| m.len() > 0) {
                return Err(Error::new(
                    ErrorKind::AlreadyExists,
                    format!(
                        "{} is left over from another database and SQLite would apply it to the restored \
                         one; move it away, or restore with {{\"force\": true}}, which removes it",
                        leftover.display()
                    ),
                ));
            }
        }
        Ok(())
    }

    /// Creates the temporary file, and the folders above it.
    pub(super) fn create(self) -> Result<Draft> {
        let folder = folder_of(&self.target);
        let mut folders = CreatedFolders::default();
        folders.create(&folder)?;
        leftovers::remove(&folder);
        let (temporary, file) = leftovers::create(&folder)?;
        let target = self.target.clone();
        let draft = Draft {
            output: self,
            folder,
            folders,
            file: Arc::new(DraftFile { path: temporary, target, file: Arc::new(file) }),
            early_sync: EarlySync::default(),
            run: Vec::new(),
            run_start: 0,
            len: 0,
        };
        // Before anything is downloaded it is known whether the owner can be kept.
        if let Some(old) = metadata(&draft.output.target)? {
            draft.adopt_owner(&old)?;
        }
        Ok(draft)
    }
}

/// A database that is being restored. Dropped before it is published, it leaves nothing behind.
#[derive(Debug)]
pub(super) struct Draft {
    output: Output,
    folder: PathBuf,
    folders: CreatedFolders,
    file: Arc<DraftFile>,
    early_sync: EarlySync,
    /// Pages that are not yet written, and where they belong.
    run: Vec<u8>,
    run_start: u64,
    /// The size of the file, `run` included.
    len: u64,
}

/// The temporary file of a draft. Any thread may write to it.
#[derive(Debug)]
pub(super) struct DraftFile {
    path: PathBuf,
    target: PathBuf,
    file: Arc<File>,
}

impl DraftFile {
    /// Writes `bytes` at `offset`.
    ///
    /// # Errors
    /// Those of the file system.
    pub(super) fn write_at(&self, bytes: &[u8], offset: u64) -> Result<()> {
        self.file.write_all_at(bytes, offset).map_err(|e| self.cannot("write", e))
    }

    fn cannot(&self, what: &str, e: io::Error) -> Error {
        Error::io(format!("cannot {what} {} for {}", self.path.display(), self.target.display()), e)
    }
}

impl Draft {
    /// Where it is until it is published.
    pub(super) fn path(&self) -> &Path {
        &self.file.path
    }

    /// Says that the file is read before it is published.
    pub(super) fn will_be_read(&mut self) {
        self.early_sync.stay_cached();
    }

    /// A file without a name, for what is needed until the database is there.
    pub(super) fn scratch(&self) -> Result<File> {
        let (path, file) = leftovers::create(&self.folder)?;
        fs::remove_file(&path).map_err(|e| Error::io(format!("cannot remove {}", path.display()), e))?;
        Ok(file)
    }

    /// Writes a page.
    pub(super) fn write(&mut self, pgno: Pgno, page: &[u8]) -> Result<()> {
        let offset = u64::from(pgno.get() - 1) * page.len() as u64;
        if offset != self.run_start + self.run.len() as u64 || self.run.len() + page.len() > RUN {
            self.flush()?;
            self.run_start = offset;
        }
        self.run.extend_from_slice(page);
        self.len = self.len.max(offset + page.len() as u64);
        Ok(())
    }

    /// The file, to write to by position; what was written before is in it. [`Draft::wrote`] is to be told.
    pub(super) fn shared(&mut self) -> Result<Arc<DraftFile>> {
        self.flush()?;
        Ok(Arc::clone(&self.file))
    }

    /// From now on pages go to `file`.
    #[cfg(test)]
    pub(super) fn writes_to(&mut self, file: File) {
        let (path, target) = (self.file.path.clone(), self.file.target.clone());
        self.file = Arc::new(DraftFile { path, target, file: Arc::new(file) });
    }

    /// Notes that `bytes` were written to what [`Draft::shared`] gave, the last of them in front of `end`.
    pub(super) fn wrote(&mut self, bytes: usize, end: u64) {
        self.early_sync.wrote(&self.file.file, bytes);
        self.len = self.len.max(end);
    }

    /// Empties it: nothing that was written is part of what follows.
    pub(super) fn empty(&mut self) -> Result<()> {
        self.run.clear();
        self.set_len(0)
    }

    /// Cuts off what is beyond the end of the database after a file.
    pub(super) fn resize(&mut self, commit: PageCount, page_size: PageSize) -> Result<()> {
        let len = commit.bytes(page_size);
        if self.len > len {
            self.set_len(len)?;
        }
        Ok(())
    }

    /// Gives the database its size and brings it to the disk. What nobody wrote is zeros, the lock page
    /// too.
    pub(super) fn finish(&mut self, commit: PageCount, page_size: PageSize) -> Result<()> {
        self.set_len(commit.bytes(page_size))?;
        self.early_sync.finish().map_err(|e| self.file.cannot("sync", e))?;
        self.file.file.sync_all().map_err(|e| self.file.cannot("sync", e))
    }

    fn set_len(&mut self, len: u64) -> Result<()> {
        self.flush()?;
        self.file.file.set_len(len).map_err(|e| self.file.cannot("resize", e))?;
        self.len = len;
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        self.file.write_at(&self.run, self.run_start)?;
        self.early_sync.wrote(&self.file.file, self.run.len());
        self.run.clear();
        Ok(())
    }

    /// Gives the database its name.
    pub(super) fn publish(mut self) -> Result<()> {
        match self.output.force.clone() {
            Some(exclusion) => self.replace(&exclusion)?,
            None => {
                self.output.refuse_leftovers()?;
                self.appear()?;
            }
        }
        self.folders.keep()?;
        sync_folder(&self.folder)
    }

    /// Takes the target's name if nobody has it.
    fn appear(&self) -> Result<()> {
        let file = &self.file;
        let mode = usual_mode(&self.folder).map_err(|e| file.cannot("look at the permissions of", e))?;
        file.file.set_permissions(mode).map_err(|e| file.cannot("set permissions of", e))?;
        let target = &self.output.target;
        match fs::hard_link(&file.path, target) {
            // The temporary name goes when the draft is dropped.
            Ok(()) => Ok(()),
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Err(exists(target)),
            // A file system without links: a target that appears in this moment would be lost.
            Err(_) if metadata(target)?.is_none() => {
                fs::rename(&file.path, target).map_err(|e| file.cannot("rename", e))
            }
            Err(_) => Err(exists(target)),
        }
    }

    /// Takes the place of what has the target's name, and of its companions. They are moved aside
    /// first and removed at the end: SQLite must never see the new database beside the old one's log,
    /// and a crash in between must not lose the old log.
    fn replace(&self, exclusion: &Exclusion) -> Result<()> {
        let target = &self.output.target;
        for _ in 0..ATTEMPTS {
            let old = metadata(target)?;
            // From the check until the new file is there nobody opens the old one.
            let _kept_out = keep_out(target, old.is_some(), exclusion)?;
            let aside = Aside::move_companions(target, &self.folder)?;
            sync_folder(&self.folder)?;
            let named = match &old {
                Some(old) => self.take_place_of(old),
                None => self.appear(),
            };
            match named {
                Ok(()) => {
                    sync_folder(&self.folder)?;
                    return aside.remove();
                }
                Err(e) => {
                    aside.back();
                    // A file that appeared meanwhile is replaced like any other, if nobody has it open.
                    if old.is_some() || e.kind() != ErrorKind::AlreadyExists {
                        return Err(e);
                    }
                }
            }
        }
        let message = format!(
            "cannot replace {}: others make and remove what has this name; end them, and restore again",
            target.display()
        );
        Err(Error::new(ErrorKind::Busy, message))
    }

    fn take_place_of(&self, old: &fs::Metadata) -> Result<()> {
        self.adopt(old)?;
        fs::rename(&self.file.path, &self.output.target).map_err(|e| self.file.cannot("rename", e))
    }

    /// Gives the new file the owner and the permissions of the old one.
    fn adopt(&self, old: &fs::Metadata) -> Result<()> {
        self.adopt_owner(old)?;
        let file = &self.file;
        file.file.set_permissions(old.permissions()).map_err(|e| file.cannot("set permissions of", e))
    }

    fn adopt_owner(&self, old: &fs::Metadata) -> Result<()> {
        let new = self.file.file.metadata().map_err(|e| self.file.cannot("stat", e))?;
        let owner = (old.uid(), old.gid());
        if (new.uid(), new.gid()) == owner {
            return Ok(());
        }
        fchown(&*self.file.file, Some(owner.0), Some(owner.1)).map_err(|e| {
            let what = format!(
                "cannot replace {}: it belongs to user {} and group {}, and the new file could not; restore \
                 as that user or as root, or to another path",
                self.output.target.display(),
                owner.0,
                owner.1
            );
            Error::io(what, e)
        })
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        // Renamed already when it took the place of another file.
        let _ = fs::remove_file(&self.file.path);
        self.folders.remove();
    }
}

/// Companions of a database that were renamed: old name, new name.
#[derive(Debug, Default)]
struct Aside(Vec<(PathBuf, PathBuf)>);

impl Aside {
    fn move_companions(target: &Path, folder: &Path) -> Result<Self> {
        let mut aside = Self::default();
        for suffix in COMPANIONS {
            let from = beside(target, suffix);
            let to = folder.join(format!(".litestream-replaced-{}{suffix}", unpredictable()?));
            match fs::rename(&from, &to) {
                Ok(()) => aside.0.push((from, to)),
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => {
                    aside.back();
                    return Err(Error::io(format!("cannot move {} away", from.display()), e));
                }
            }
        }
        Ok(aside)
    }

    /// Undoes it.
    fn back(self) {
        for (from, to) in self.0 {
            let _ = fs::rename(to, from);
        }
    }

    fn remove(self) -> Result<()> {
        for (_, to) in self.0 {
            fs::remove_file(&to).map_err(|e| Error::io(format!("cannot remove {}", to.display()), e))?;
        }
        Ok(())
    }
}

/// The folders that were created for a file, outermost first.
#[derive(Debug, Default)]
struct CreatedFolders(Vec<PathBuf>);

impl CreatedFolders {
    fn create(&mut self, folder: &Path) -> Result<()> {
        let missing: Vec<&Path> =
            folder.ancestors().take_while(|f| !f.as_os_str().is_empty() && !f.exists()).collect();
        for folder in missing.into_iter().rev() {
            match fs::create_dir(folder) {
                Ok(()) => self.0.push(folder.to_owned()),
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
                Err(e) => {
                    self.remove();
                    return Err(Error::io(format!("cannot create folder {}", folder.display()), e));
                }
            }
        }
        Ok(())
    }

    /// Brings their names to the disk and forgets them.
    fn keep(&mut self) -> Result<()> {
        for folder in self.0.drain(..) {
            sync_folder(&folder_of(&folder))?;
        }
        Ok(())
    }

    /// Removes those that are empty.
    fn remove(&mut self) {
        for folder in self.0.drain(..).rev() {
            let _ = fs::remove_dir(folder);
        }
    }
}

/// What is at `path`, links followed; `None` if nothing is.
fn metadata(path: &Path) -> Result<Option<fs::Metadata>> {
    match fs::metadata(path) {
        Ok(metadata) => Ok(Some(metadata)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Error::io(format!("cannot look at {}", path.display()), e)),
    }
}

/// The name of a companion of a database.
pub(super) fn beside(database: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(database);
    name.push(suffix);
    name.into()
}

fn folder_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
        _ => PathBuf::from("."),
    }
}

/// The permissions that a new database gets in `folder`.
fn usual_mode(folder: &Path) -> io::Result<fs::Permissions> {
    let path = leftovers::new_name(folder).map_err(|e| io::Error::other(e.to_string()))?;
    // Only a file that is made shows what the umask leaves, without a change to it.
    let probe = OpenOptions::new().write(true).create_new(true).mode(OF_DATABASES).open(&path)?;
    let mode = probe.metadata().map(|meta| meta.permissions());
    fs::remove_file(&path)?;
    mode
}

fn sync_folder(folder: &Path) -> Result<()> {
    let sync = || File::open(folder)?.sync_all();
    sync().map_err(|e| Error::io(format!("cannot sync folder {}", folder.display()), e))
}

/// A part of a file name that nobody can guess.
pub(super) fn unpredictable() -> Result<String> {
    let n = getrandom::u64()
        .map_err(|e| Error::new(ErrorKind::Io, format!("the system gives no random numbers: {e}")))?;
    Ok(format!("{n:016x}"))
}

fn exists(target: &Path) -> Error {
    Error::new(
        ErrorKind::AlreadyExists,
        format!(
            "{} exists; choose another path, or restore with {{\"force\": true}} to replace it",
            target.display()
        ),
    )
}
