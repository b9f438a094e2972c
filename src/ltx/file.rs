//! What holds for a file as a whole, whether it is written or read.

use super::{Header, Trailer};
use crate::error::{Error, Result};
use crate::page::Pgno;

/// What is known of a file that was written, or read to its end and verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Its header.
    pub header: Header,
    /// Its trailer.
    pub trailer: Trailer,
    /// Its size in bytes.
    pub size: u64,
    /// The number of its pages.
    pub pages: u64,
}

/// The rules of which pages a file may have: ascending, within the database, never the lock page,
/// and in a snapshot all of them.
#[derive(Clone, Debug, Default)]
pub(super) struct PageSequence {
    last: Option<Pgno>,
    count: u64,
}

impl PageSequence {
    /// Adds the next page.
    pub(super) fn push(&mut self, header: &Header, pgno: Pgno) -> Result<()> {
        if Some(pgno) <= self.last {
            return Err(Error::corrupt(format!("page {pgno} does not follow the LTX file's page before it")));
        }
        if !header.commit.contains(pgno) {
            let commit = header.commit;
            return Err(Error::corrupt(format!("page {pgno} is beyond the database's {commit} pages")));
        }
        if pgno == header.page_size.lock_page() {
            return Err(Error::corrupt(format!("page {pgno} is the lock page, which no LTX file has")));
        }
        self.last = Some(pgno);
        self.count += 1;
        Ok(())
    }

    /// Ends the file and returns the number of its pages.
    pub(super) fn finish(&self, header: &Header) -> Result<u64> {
        let commit = header.commit;
        let without_lock_page =
            u64::from(commit.get()) - u64::from(commit.contains(header.page_size.lock_page()));
        if header.is_snapshot() && self.count != without_lock_page {
            let message = format!("the snapshot has {} pages instead of {without_lock_page}", self.count);
            return Err(Error::corrupt(message));
        }
        Ok(self.count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;
    use crate::ltx::{FileName, Txid};
    use crate::page::{PageCount, PageSize};

    #[test]
    fn a_snapshot_beyond_the_lock_page_is_complete_without_it() {
        let size = PageSize::MAX;
        let lock = size.lock_page().get();
        for commit in [lock - 1, lock, lock + 1] {
            let name = FileName::single(Txid::ONE);
            let header = Header::new(size, PageCount::new(commit), name, Timestamp::from_millis(0));
            let mut pages = PageSequence::default();
            for pgno in (1..=commit).filter_map(Pgno::new).filter(|pgno| *pgno != size.lock_page()) {
                assert!(pages.finish(&header).is_err(), "before page {pgno} of {commit}");
                pages.push(&header, pgno).unwrap();
            }
            assert_eq!(pages.finish(&header).unwrap(), u64::from(commit - u32::from(commit >= lock)));
        }
    }
}
