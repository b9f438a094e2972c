//! Reads the WAL index through a file that has it mapped.
//!
//! The order of accesses is that of SQLite's readers: a writer stores the entries before the header, so a reader
//! loads the header before the entries.

use crate::page::Pgno;
use crate::primary::{PageSet, WalIndex};
use crate::sqlite::{BaseFile, Code, ShmRegion};
use crate::wal::{FrameNo, IndexHeader, IndexRegion};

/// The header of the index, if it is mapped and both copies of it agree.
pub(super) fn header(file: &BaseFile) -> Option<IndexHeader> {
    let region = file.shm_region(IndexRegion::FIRST.number())?;
    let (mut first, mut second) = ([0; IndexHeader::SIZE], [0; IndexHeader::SIZE]);
    region.copy_to(0, &mut first);
    file.shm_barrier();
    region.copy_to(IndexHeader::SIZE, &mut second);
    file.shm_barrier();
    if first == second { IndexHeader::decode(&first) } else { None }
}

/// The region `number`, mapped now if it was not. `None` if it is not there.
fn map(file: &mut BaseFile, region: IndexRegion) -> Result<Option<ShmRegion<'_>>, Code> {
    if file.shm_region(region.number()).is_none() {
        file.shm_map(region.number(), IndexRegion::SIZE, false)?;
    }
    Ok(file.shm_region(region.number()))
}

/// Calls `each` with the frames after `after` up to `last` and their pages. `false` if the index does not have
/// them: it was restarted, or is broken.
///
/// # Errors
/// Those of mapping it.
pub(super) fn entries(
    file: &mut BaseFile,
    after: FrameNo,
    last: FrameNo,
    mut each: impl FnMut(FrameNo, Pgno),
) -> Result<bool, Code> {
    let mut at = after;
    while at < last {
        let of = IndexRegion::of(at.next());
        let Some(region) = map(file, of)? else { return Ok(false) };
        let end = last.min(of.last());
        while at < end {
            at = at.next();
            let Some(pgno) = Pgno::new(region.load_u32(of.offset_of(at))) else { return Ok(false) };
            each(at, pgno);
        }
    }
    Ok(true)
}

/// The pages of the frames after `after` up to `last`. `None` if the index does not have them.
///
/// # Errors
/// As for [`entries`].
pub(super) fn pages(file: &mut BaseFile, after: FrameNo, last: FrameNo) -> Result<Option<PageSet>, Code> {
    let (mut pages, mut listed) = (PageSet::default(), Vec::new());
    let complete = entries(file, after, last, |_, pgno| {
        listed.push(pgno);
        if listed.len() == PageSet::AT_ONCE {
            pages.insert_all(&mut listed);
        }
    })?;
    pages.insert_all(&mut listed);
    Ok(complete.then_some(pages))
}

/// The highest frame that holds `pgno`, none above `last`.
///
/// # Errors
/// Those of mapping the index; `CORRUPT` if a region is not there.
pub(super) fn find(file: &mut BaseFile, pgno: Pgno, last: FrameNo) -> Result<Option<FrameNo>, Code> {
    let mut region = (last > FrameNo::ZERO).then(|| IndexRegion::of(last));
    while let Some(at) = region {
        let mapped = map(file, at)?.ok_or(Code::CORRUPT)?;
        if let Some(frame) = at.find(pgno, last, |offset| mapped.load_u32(offset)) {
            return Ok(Some(frame));
        }
        region = at.before();
    }
    Ok(None)
}

/// The index as a connection of the program has it.
pub(super) struct ConnectionIndex<'a> {
    file: &'a mut BaseFile,
    header: Option<IndexHeader>,
}

impl<'a> ConnectionIndex<'a> {
    /// As it is now. For a connection that has it in shared memory: another one would create that.
    pub(super) fn now(file: &'a mut BaseFile) -> Self {
        let mapped = map(file, IndexRegion::FIRST).is_ok_and(|region| region.is_some());
        let header = if mapped { header(file) } else { None };
        Self { file, header }
    }

    /// Whether a frame is committed.
    pub(super) fn has_frames(&self) -> bool {
        self.header.is_some_and(|header| header.mx_frame > FrameNo::ZERO)
    }
}

impl WalIndex for ConnectionIndex<'_> {
    fn header(&self) -> Option<IndexHeader> {
        self.header
    }

    fn pages(&mut self, after: FrameNo, last: FrameNo) -> Option<PageSet> {
        pages(self.file, after, last).ok().flatten()
    }
}
