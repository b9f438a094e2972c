//! Snapshot and WAL files become pages.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use super::backup::Backup;
use super::broken;
use super::content::Content;
use super::objects::Objects;
use crate::clock::Timestamp;
use crate::error::{Error, Result};
use crate::page::{PageCount, PageSize, Pgno};
use crate::restore::output::Draft;
use crate::restore::{Forecast, Options, Progress};
use crate::store::Replica;
use crate::wal::{Committed, End, FrameHeader, Position, Scan, WalHeader, read_header, scan};

/// How a database file begins.
const MAGIC: &[u8; 16] = b"SQLite format 3\0";
/// How much of a database's header is needed to know its page size.
const HEAD: usize = 18;
/// How much is copied at once.
const COPY: usize = 256 * 1024;

/// What was applied.
#[derive(Debug)]
pub(in crate::restore) struct Applied {
    /// The generation.
    pub(in crate::restore) generation: String,
    /// When the last object was stored.
    pub(in crate::restore) timestamp: Timestamp,
    /// The size of the database.
    pub(in crate::restore) commit: PageCount,
    /// The page size.
    pub(in crate::restore) page_size: PageSize,
    /// The number of objects.
    pub(in crate::restore) files: usize,
}

/// Writes the database that `backup` makes onto `draft`.
///
/// # Errors
/// `Corrupt` if an object is missing or damaged; `Denied` if it is encrypted and nothing of the replica's
/// keyring opens it, or not encrypted and must be; those of the store and the file system.
pub(in crate::restore) fn apply(
    store: Arc<Replica>,
    backup: Backup,
    options: &Options,
    progress: &Arc<Progress>,
    draft: &mut Draft,
) -> Result<Applied> {
    backup.check()?;
    let Forecast { files, download, .. } = backup.forecast();
    progress.planned_files(None, files, download);
    let keyring = store.keyring().clone();
    let mut objects = Objects::new(store, backup.objects(), options, progress)?;
    let mut next = || Content::open(objects.open_next()?, &keyring);
    let (page_size, mut commit) = apply_snapshot(&mut next()?, draft)?;
    progress.applied();
    for (_, wal) in &backup.wals {
        let file = draft.scratch()?;
        let mut len = 0;
        for (offset, segment) in wal {
            if *offset != len {
                return Err(broken(format!("what precedes {} is missing", segment.path)));
            }
            len += copy(&mut next()?, &file, len)?;
            progress.applied();
        }
        let (_, last) = wal.last().expect("BUG: a WAL file has pieces");
        if let Some(committed) = committed(&file, len, page_size).map_err(|e| e.context(&last.path))? {
            commit = committed.commit;
            apply_wal(&file, &committed, draft)?;
        }
    }
    draft.finish(commit, page_size)?;
    Ok(Applied { timestamp: backup.last(), commit, page_size, files, generation: backup.generation })
}

/// Copies the pages of a database file; returns their size and number.
fn apply_snapshot(content: &mut Content, draft: &mut Draft) -> Result<(PageSize, PageCount)> {
    let mut head = [0; HEAD];
    let got = content.read(&mut head)?;
    if got < HEAD || head[..16] != *MAGIC {
        return Err(broken("its snapshot is no database"));
    }
    let page_size = match u16::from_be_bytes([head[16], head[17]]) {
        1 => PageSize::MAX,
        n => PageSize::new(u32::from(n)).map_err(|e| e.context("the snapshot's header"))?,
    };
    let mut page = vec![0; page_size.bytes()];
    page[..HEAD].copy_from_slice(&head);
    let mut got = HEAD + content.read(&mut page[HEAD..])?;
    let mut count = 0;
    while got == page.len() {
        count += 1;
        let pgno = Pgno::new(count).ok_or_else(|| broken("its snapshot is too large"))?;
        draft.write(pgno, &page)?;
        got = content.read(&mut page)?;
    }
    if got > 0 {
        return Err(broken(format!("its snapshot ends within page {}", count + 1)));
    }
    Ok((page_size, PageCount::new(count)))
}

/// Appends `content` to `file`, which has `len` bytes; returns how many it added.
fn copy(content: &mut Content, file: &File, len: u64) -> Result<u64> {
    let mut buffer = vec![0; COPY];
    let mut added = 0;
    loop {
        let got = content.read(&mut buffer)?;
        if got == 0 {
            return Ok(added);
        }
        file.write_all_at(&buffer[..got], len + added).map_err(scratch_failure)?;
        added += got as u64;
    }
}

/// The committed frames of a WAL file of `len` bytes: all, as Litestream copies no others.
fn committed(file: &File, len: u64, page_size: PageSize) -> Result<Option<Committed>> {
    let header = read_header(file)?.ok_or_else(|| broken("the WAL file has no valid header"))?;
    if header.page_size != page_size {
        return Err(broken(format!(
            "the WAL file has pages of {} bytes, the database has pages of {page_size} bytes",
            header.page_size
        )));
    }
    let frames = (len - WalHeader::SIZE as u64) / FrameHeader::frame_size(page_size) as u64;
    let found = match scan(file, Position::start_of(&header), End::LastCommit)? {
        Scan::Committed(committed) => Some(committed),
        Scan::Nothing | Scan::OtherGeneration => None,
    };
    let sound = found.as_ref().map_or(0, |committed| u64::from(committed.to.frame.0));
    if sound < frames {
        return Err(broken(format!(
            "the checksums of the WAL file hold for {sound} of {frames} frames only"
        )));
    }
    Ok(found)
}

/// Writes the newest version of each page of a WAL file.
fn apply_wal(file: &File, committed: &Committed, draft: &mut Draft) -> Result<()> {
    let mut page = vec![0; committed.page_size.bytes()];
    for (pgno, frame) in &committed.pages {
        file.read_exact_at(&mut page, frame.page_offset(committed.page_size)).map_err(scratch_failure)?;
        draft.write(*pgno, &page)?;
    }
    draft.resize(committed.commit, committed.page_size)
}

fn scratch_failure(e: std::io::Error) -> Error {
    Error::io("cannot use a temporary file beside the database", e)
}
