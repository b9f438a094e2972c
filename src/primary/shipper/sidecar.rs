//! A Litestream sidecar published the database: while this library did not, or while it does.
//!
//! Its files have no node id. They hold nothing that says which database file they come from, so whether the local
//! one comes after them is for the pages to say. They say it in two ways:
//!
//! - The database is the newest transaction, page by page (`resume`).
//! - It was that, at a moment which the WAL still shows, and the WAL has what came after: where the sidecar's newest
//!   file ends, if the WAL is of the generation that this file names; else before the first frame.
//!
//! In both, every page of the newest transaction was compared. A page whose content of that moment is not there any
//! more, as a checkpoint wrote a later one over it, does not count as equal: the same pages may be those of an older
//! copy that went its own way.

use std::sync::Arc;

use super::{Shipper, blocking};
use crate::error::{Error, ErrorKind, Result};
use crate::ltx::{FileId, Header, Txid};
use crate::page::PageSize;
use crate::primary::shipper::baseline::ViewPages;
use crate::primary::shipper::newest::read_header;
use crate::primary::shipper::survey::Survey;
use crate::wal::{FrameHeader, FrameNo, IndexHeader, Salts, WalHeader};

/// Why a database is compared that continues after a sidecar.
pub(super) const CONTINUED: &str = "a Litestream sidecar published it, and commits came after that";

/// Says that replication continues after `last`, which a sidecar wrote.
pub(super) fn tell(shipper: &Shipper, last: Txid) {
    let url = shipper.store.url();
    shipper.notice(format!(
        "a Litestream sidecar published up to {last} of {url}, which this database holds: replication continues after \
         it. From now on the sidecar must not run on this database"
    ));
}

/// The error of a replica where a sidecar wrote `txid`, which was to be ours.
pub(super) fn runs_beside(shipper: &Shipper, txid: Txid) -> Error {
    let (url, database) = (shipper.store.url(), shipper.db.path.display());
    Error::new(
        ErrorKind::Conflict,
        format!(
            "a Litestream sidecar seems to run: it wrote transaction {txid} to {url}, and replication of {database} \
             stopped. A database has either the sidecar or this library: stop the sidecar and call \
             litestream_resume(), or give this one another replica URL; if this one is the right one, call \
             litestream_resume('force') to publish it after that"
        ),
    )
}

/// The database as it was where the newest file of the replica ends, which is `last`; `None` if that cannot be told any more,
/// or the database has no commits after it.
///
/// # Errors
/// Those of the store and of the view; `Io`, `NoSpace` of the folder of local state.
pub(super) async fn survey_at(shipper: &Arc<Shipper>, last: Txid) -> Result<Option<Arc<Survey>>> {
    // Only a file of level 0 says where in the WAL it ends.
    let header = match read_header(shipper.store.as_ref(), FileId::single(last)).await {
        Ok(header) => Some(header),
        Err(e) if e.kind() == ErrorKind::NotFound => None,
        Err(e) => return Err(e),
    };
    blocking(shipper, move |shipper| {
        let Some(mut view) = shipper.db.pin()? else { return Ok(None) };
        let Some(end) = end_of(header.as_ref(), &view.header(), view.page_size()) else { return Ok(None) };
        if !view.rewind(end)? {
            return Ok(None);
        }
        Survey::of(shipper, ViewPages::new(view)).map(|survey| Some(Arc::new(survey)))
    })
    .await
}

/// After which frame of the WAL whose index has the header `index` the database may have been what the file with
/// `header` made it; `None` if after none.
fn end_of(header: Option<&Header>, index: &IndexHeader, page_size: PageSize) -> Option<FrameNo> {
    if index.mx_frame == FrameNo::ZERO {
        return None;
    }
    let of_this_generation = header.filter(|header| Salts(header.salt1, header.salt2) == index.salts);
    let Some(header) = of_this_generation else { return Some(FrameNo::ZERO) };
    let end = header.wal_offset.checked_add(header.wal_size)?;
    let frames = u64::try_from(end).ok()?.checked_sub(WalHeader::SIZE as u64)?;
    let size = FrameHeader::frame_size(page_size) as u64;
    let frame = FrameNo(u32::try_from(frames / size).ok()?);
    (frames % size == 0 && frame <= index.mx_frame).then_some(frame)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;
    use crate::ltx::FileName;
    use crate::page::PageCount;

    const PAGE: PageSize = PageSize::MIN;

    fn header(offset: i64, size: i64) -> Header {
        let name = FileName::single(Txid::ONE);
        let mut header = Header::new(PAGE, PageCount::new(3), name, Timestamp::from_millis(1));
        (header.wal_offset, header.wal_size, header.salt1, header.salt2) = (offset, size, 7, 8);
        header
    }

    fn index(frames: u32, salts: Salts) -> IndexHeader {
        IndexHeader { mx_frame: FrameNo(frames), salts, ..IndexHeader::EMPTY }
    }

    #[test]
    fn where_a_file_of_litestream_ends() {
        let same = index(5, Salts(7, 8));
        let end = |offset, size| end_of(Some(&header(offset, size)), &same, PAGE);
        // A frame has 536 bytes, after the 32 of the header.
        assert_eq!(end(32, 2 * 536), Some(FrameNo(2)));
        assert_eq!(end(32 + 3 * 536, 2 * 536), Some(FrameNo(5)));
        assert_eq!(end(32, 0), Some(FrameNo::ZERO), "a snapshot before the first frame");
        assert_eq!(end(32, 6 * 536), None, "the WAL ends before that");
        assert_eq!(end(32, 535), None, "no frame ends there");
        for (offset, size) in [(0, 0), (-1, 5), (i64::MAX, 1), (i64::MIN, 0), (32, i64::MAX - 32)] {
            assert_eq!(end(offset, size), None, "{offset} {size}");
        }
    }

    #[test]
    fn a_later_generation_begins_where_the_file_may_end() {
        let file = header(32, 536);
        assert_eq!(end_of(Some(&file), &index(5, Salts(8, 9)), PAGE), Some(FrameNo::ZERO));
        assert_eq!(end_of(None, &index(5, Salts(7, 8)), PAGE), Some(FrameNo::ZERO));
        assert_eq!(end_of(Some(&file), &index(0, Salts(8, 9)), PAGE), None, "there is nothing after it");
    }
}
