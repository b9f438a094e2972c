//! Compressed pages of a database that several replicas get: each is compressed once, where they get the same content.
//!
//! A shipper that encodes a file leaves the blocks of its pages for the others, which take them if the content is equal
//! byte by byte. What nobody will take is not kept: a shipper whose replica cannot be reached takes nothing.

use std::collections::HashMap;
use std::io::Write;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::error::Result;
use crate::ltx::Encoder;
use crate::page::Pgno;

/// The most bytes that are kept for one database, of pages and of their blocks.
const MOST_BYTES: usize = 4 << 20;

/// The blocks that wait for the other shippers of a database.
#[derive(Debug, Default)]
pub(super) struct FrameCache(Mutex<Inner>);

/// A set of shippers: a bit for each number.
type Shippers = u64;

#[derive(Debug, Default)]
struct Inner {
    /// Those that encode files from memory.
    users: Shippers,
    blocks: HashMap<Pgno, Block>,
    bytes: usize,
    /// The number of blocks that were ever kept.
    count: Moment,
    /// The number of pages that were compressed.
    #[cfg(test)]
    compressed: u64,
}

/// A moment in the order of all that is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Moment(u64);

#[derive(Debug)]
struct Block {
    page: Box<[u8]>,
    block: Box<[u8]>,
    /// Those who may still want it.
    takers: Shippers,
    kept: Moment,
}

impl Block {
    fn bytes(&self) -> usize {
        self.page.len() + self.block.len()
    }
}

impl FrameCache {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// This moment: to be asked before a view is pinned.
    pub(super) fn now(&self) -> Moment {
        self.lock().count
    }

    /// `shipper` encodes files from memory from now on.
    pub(super) fn joins(&self, shipper: usize) {
        self.lock().users |= 1 << shipper;
    }

    /// `shipper` encoded a file of a view that was pinned after `since`: what was kept before is of no use to it.
    pub(super) fn encoded(&self, shipper: usize, since: Moment) {
        self.lock().forget(shipper, |kept| kept <= since);
    }

    /// `shipper` encodes no files from memory for now.
    pub(super) fn leaves(&self, shipper: usize) {
        let mut inner = self.lock();
        inner.users &= !(1 << shipper);
        inner.forget(shipper, |_| true);
    }

    /// Encodes the next page of a file of `shipper`, of a view that was pinned after `since`.
    ///
    /// # Errors
    /// Those of the encoder.
    pub(super) fn encode<W: Write>(
        &self,
        (shipper, since): (usize, Moment),
        encoder: &mut Encoder<W>,
        pgno: Pgno,
        page: &[u8],
    ) -> Result<()> {
        let mut inner = self.lock();
        if let Some(block) = inner.take(shipper, pgno, page) {
            return encoder.page_as(pgno, page, &block);
        }
        let others = inner.users & !(1 << shipper);
        #[cfg(test)]
        {
            inner.compressed += 1;
        }
        // What was kept meanwhile may be of a later view.
        let is_known = inner.blocks.get(&pgno).is_some_and(|block| block.kept > since);
        if others == 0 || is_known {
            drop(inner);
            return encoder.page(pgno, page);
        }
        let block: Box<[u8]> = encoder.block_of(page)?.into();
        encoder.page_as(pgno, page, &block)?;
        inner.keep(pgno, page, block, others);
        Ok(())
    }

    /// The number of pages that were compressed.
    #[cfg(test)]
    pub(super) fn compressed(&self) -> u64 {
        self.lock().compressed
    }
}

impl Inner {
    /// The block of a page with this content, if there is one, which `shipper` then has had.
    fn take(&mut self, shipper: usize, pgno: Pgno, page: &[u8]) -> Option<Box<[u8]>> {
        let kept = self.blocks.get_mut(&pgno).filter(|kept| *kept.page == *page)?;
        kept.takers &= !(1 << shipper);
        if kept.takers != 0 {
            return Some(kept.block.clone());
        }
        self.remove(pgno).map(|kept| kept.block)
    }

    fn keep(&mut self, pgno: Pgno, page: &[u8], block: Box<[u8]>, takers: Shippers) {
        self.remove(pgno);
        self.count.0 += 1;
        let block = Block { page: page.into(), block, takers, kept: self.count };
        if self.bytes + block.bytes() > MOST_BYTES {
            self.blocks.clear();
            self.bytes = 0;
        }
        self.bytes += block.bytes();
        self.blocks.insert(pgno, block);
    }

    fn remove(&mut self, pgno: Pgno) -> Option<Block> {
        let removed = self.blocks.remove(&pgno)?;
        self.bytes -= removed.bytes();
        if self.blocks.is_empty() {
            // Memory of a busy moment is not kept for ever.
            self.blocks = HashMap::new();
        }
        Some(removed)
    }

    fn forget(&mut self, shipper: usize, is_old: impl Fn(Moment) -> bool) {
        let mut freed = 0;
        self.blocks.retain(|_, kept| {
            if is_old(kept.kept) {
                kept.takers &= !(1 << shipper);
            }
            if kept.takers == 0 {
                freed += kept.bytes();
            }
            kept.takers != 0
        });
        self.bytes -= freed;
        if self.blocks.is_empty() {
            self.blocks = HashMap::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;
    use crate::ltx::{Decoder, FileName, Header, Txid};
    use crate::page::{PageCount, PageSize};

    const SIZE: usize = 4096;

    /// The pages 1 to `count`, of which each is filled with what `content` says.
    fn file(cache: &FrameCache, shipper: usize, count: u32, content: impl Fn(u32) -> u8) -> Vec<u8> {
        let since = cache.now();
        cache.joins(shipper);
        let (size, pages) = (PageSize::new(SIZE as u32).unwrap(), PageCount::new(count + 1));
        let name = FileName::single(Txid::new(7).unwrap());
        let header = Header::new(size, pages, name, Timestamp::from_millis(1));
        let mut encoder = Encoder::new(Vec::new(), header).unwrap();
        for pgno in 1..=count {
            let page = vec![content(pgno); SIZE];
            cache.encode((shipper, since), &mut encoder, Pgno::new(pgno).unwrap(), &page).unwrap();
        }
        cache.encoded(shipper, since);
        encoder.finish().unwrap().0
    }

    fn assert_is(bytes: &[u8], content: impl Fn(u32) -> u8) {
        let mut decoder = Decoder::new(bytes).unwrap();
        let mut page = vec![0; SIZE];
        while let Some(pgno) = decoder.next_page(&mut page).unwrap() {
            assert!(page.iter().all(|byte| *byte == content(pgno.get())));
        }
        decoder.finish().unwrap();
    }

    #[test]
    fn what_two_replicas_get_is_compressed_once() {
        let cache = FrameCache::default();
        (0..3).for_each(|shipper| cache.joins(shipper));
        for round in 0..4 {
            let before = cache.compressed();
            let content = |pgno: u32| pgno as u8 ^ round;
            let files = [0, 1, 2].map(|shipper| file(&cache, shipper, 50, content));
            files.iter().for_each(|bytes| assert_is(bytes, content));
            assert!(files[0] == files[1] && files[1] == files[2]);
            assert_eq!(cache.compressed() - before, 50);
            assert_eq!(cache.lock().bytes, 0, "all was taken");
        }
    }

    #[test]
    fn only_equal_content_is_taken() {
        let cache = FrameCache::default();
        (0..2).for_each(|shipper| cache.joins(shipper));
        assert_is(&file(&cache, 0, 50, |_| 1), |_| 1);
        // Half of them were written once more.
        let later = |pgno| if pgno % 2 == 0 { 1 } else { 2 };
        assert_is(&file(&cache, 1, 50, later), later);
        assert_eq!(cache.compressed(), 75);
        assert_is(&file(&cache, 0, 50, later), later);
        assert_is(&file(&cache, 1, 50, |_| 3), |_| 3);
    }

    #[test]
    fn one_that_takes_nothing_costs_nothing() {
        let cache = FrameCache::default();
        file(&cache, 0, 50, |_| 1);
        assert_eq!(cache.lock().bytes, 0);
        cache.joins(1);
        file(&cache, 0, 50, |_| 2);
        assert!(cache.lock().bytes > 0);
        cache.leaves(1);
        assert_eq!(cache.lock().bytes, 0);
        // One that lags is bounded.
        cache.joins(1);
        for round in 0..3000 {
            file(&cache, 0, 1 + round % 40, |pgno| pgno as u8 ^ round as u8);
            let inner = cache.lock();
            assert!(inner.bytes <= MOST_BYTES);
            assert_eq!(inner.bytes, inner.blocks.values().map(Block::bytes).sum::<usize>());
        }
        // What was kept before its view is forgotten when it has encoded its own.
        file(&cache, 1, 1, |_| 9);
        assert!(cache.lock().blocks.values().all(|kept| kept.takers == 1), "for the other one only");
    }
}
