//! Generations of the WAL that SQLite restarted before they were captured, in
//! `.<file name>-litestream/wal/`.
//!
//! The committing thread copies the frames as they are, inside the kernel, and goes on; capture reads
//! and verifies them later. A kept file is the WAL itself: its header, and the frames that were still
//! needed at their own offsets. What stands between and behind is left over from earlier use of the file,
//! which is cheaper than a new one. The name, which the file gets when it is complete, tells the rest:
//!
//! ```text
//! {salts}-{last committed frame}-{salts and checksum of the header that follows}.wal    all in hex
//! ```
//!
//! Nothing is synced: a file that the machine's end left torn does not continue the checksum chain.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::files;
use crate::wal::{Checksum, FrameNo, Position, Salts, WalHeader};

/// The folder of kept files below that of local state.
pub(super) fn folder(state_folder: &Path) -> PathBuf {
    state_folder.join("wal")
}

/// What the name of a kept file tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Kept {
    /// The generation.
    pub(super) salts: Salts,
    /// Its last committed frame.
    pub(super) last: FrameNo,
    /// Where the commits go on.
    pub(super) next: Position,
}

impl Kept {
    /// The file in `folder`.
    pub(super) fn path(&self, folder: &Path) -> PathBuf {
        let Self { salts, last, next } = self;
        folder.join(format!(
            "{:08x}{:08x}-{:08x}-{:08x}{:08x}{:08x}{:08x}.wal",
            salts.0, salts.1, last.0, next.salts.0, next.salts.1, next.checksum.0, next.checksum.1
        ))
    }

    fn parse(name: &str) -> Option<Self> {
        let (salts, rest) = name.strip_suffix(".wal")?.split_once('-')?;
        let (last, next) = rest.split_once('-')?;
        let word = |hex: &str, n: usize| u32::from_str_radix(hex.get(n * 8..n * 8 + 8)?, 16).ok();
        let next = Position {
            salts: Salts(word(next, 0)?, word(next, 1)?),
            frame: FrameNo::ZERO,
            checksum: Checksum(word(next, 2)?, word(next, 3)?),
        };
        Some(Self { salts: Salts(word(salts, 0)?, word(salts, 1)?), last: FrameNo(word(last, 0)?), next })
    }

    /// The kept generation with `salts` in `folder`, if there is one.
    pub(super) fn find(folder: &Path, salts: Salts) -> Option<Self> {
        let names = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.file_name());
        let mut kept = names.filter_map(|name| Self::parse(name.to_str()?));
        kept.find(|kept| kept.salts == salts)
    }

    /// Opens the file in `folder`, to be read as the WAL was.
    ///
    /// # Errors
    /// `NotFound`, `Io`, naming the file.
    pub(super) fn open(&self, folder: &Path) -> Result<File> {
        let path = self.path(folder);
        File::open(&path).map_err(|e| Error::io(format_args!("cannot read {}", path.display()), e))
    }
}

/// Copies the header of `wal` and its `frames` into the file `path`.
///
/// # Errors
/// `Io`, `NoSpace`, `Denied`, naming the file. Nothing is left of it then.
pub(super) fn copy_frames(
    path: &Path,
    wal: &File,
    header: &WalHeader,
    frames: RangeInclusive<FrameNo>,
) -> Result<()> {
    let copy_all = || {
        let mut out = files::open(path, OpenOptions::new().write(true))?;
        let start = FrameNo(frames.start().0.saturating_sub(1)).end_offset(header.page_size);
        let end = frames.end().end_offset(header.page_size);
        copy(wal, &mut out, 0, WalHeader::SIZE as u64)?;
        copy(wal, &mut out, start, end.saturating_sub(start))
    };
    copy_all().map_err(|e: io::Error| {
        // What a full disk could not take must not keep it full.
        let _ = fs::remove_file(path);
        Error::io(format_args!("cannot write {}", path.display()), e)
    })
}

/// Gives a complete file its name.
///
/// # Errors
/// `Io`, naming the file.
pub(super) fn rename(file: &Path, path: &Path) -> Result<()> {
    fs::rename(file, path).map_err(|e| Error::io(format_args!("cannot write {}", path.display()), e))
}

/// Copies `len` bytes to the same place; the standard library leaves that to the kernel.
fn copy(mut from: &File, to: &mut File, start: u64, len: u64) -> io::Result<()> {
    from.seek(SeekFrom::Start(start))?;
    to.seek(SeekFrom::Start(start))?;
    match io::copy(&mut from.take(len), to)? {
        copied if copied == len => Ok(()),
        _ => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

/// Removes all that was kept, and what is to be used again, as far as `is_meant`.
pub(super) fn remove_all(folder: &Path, is_meant: impl Fn(&Path) -> bool) {
    let paths = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    paths.filter(|path| is_meant(path)).for_each(|path| remove(&path));
}

/// Removes a file.
pub(super) fn remove(path: &Path) {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => {
            tracing::warn!("cannot remove {}: {e}", path.display());
        }
        _ => {}
    }
}
