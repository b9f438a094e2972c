//! Where the WAL index has the page of each frame, and how a page's frame is found.

use crate::page::Pgno;
use crate::wal::frame::FrameNo;

/// The number of frames whose pages region 0 lists.
const ENTRIES_OF_FIRST: u32 = 4062;
/// The number of frames whose pages each later region lists.
const ENTRIES: u32 = 4096;
/// The number of hash slots of a region, a power of two.
const SLOTS: usize = 8192;

/// A region of the WAL index: the unit in which it is mapped, with the pages of some thousand frames.
///
/// ```text
/// region 0                                    later regions
///     0  headers and locks   136 bytes            0  pages of frames   4096 x u32
///   136  pages of frames     4062 x u32       16384  hash slots        8192 x u16
/// 16384  hash slots          8192 x u16
/// ```
///
/// Region 0 lists the frames 1 to 4062, region 1 the next 4096, and so on. A slot holds the place of an entry in
/// its region, from 1, or 0 if it is free. A page's entries are in the slots from `pgno * 383 mod 8192` on up to
/// the first free one, in the order of their frames. All is in the host's byte order.
///
/// What lies behind the last committed frame is left over from transactions that were rolled back, or from an
/// earlier generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IndexRegion(u32);

impl IndexRegion {
    /// The size of a region in bytes.
    pub const SIZE: u32 = 32 * 1024;
    /// The region with the headers.
    pub const FIRST: Self = Self(0);
    /// Where the hash slots are.
    const SLOTS_OFFSET: usize = 4 * ENTRIES as usize;

    /// The region that lists `frame`. Not for frame 0.
    pub const fn of(frame: FrameNo) -> Self {
        if frame.0 <= ENTRIES_OF_FIRST {
            Self::FIRST
        } else {
            Self((frame.0 - ENTRIES_OF_FIRST - 1) / ENTRIES + 1)
        }
    }

    /// Its number, as `xShmMap` counts.
    pub const fn number(self) -> u32 {
        self.0
    }

    /// The region before it.
    pub const fn before(self) -> Option<Self> {
        if self.0 == 0 { None } else { Some(Self(self.0 - 1)) }
    }

    /// The last frame of the regions before it.
    const fn base(self) -> u32 {
        if self.0 == 0 { 0 } else { ENTRIES_OF_FIRST + (self.0 - 1) * ENTRIES }
    }

    /// The last frame that it lists.
    pub const fn last(self) -> FrameNo {
        FrameNo(ENTRIES_OF_FIRST + self.0 * ENTRIES)
    }

    /// Where in the region the page number of `frame` is, which it lists.
    pub const fn offset_of(self, frame: FrameNo) -> usize {
        self.entry((frame.0 - self.base()) as usize)
    }

    /// Where the entry in `place` is, from 1.
    const fn entry(self, place: usize) -> usize {
        let first = if self.0 == 0 { 4 * (ENTRIES - ENTRIES_OF_FIRST) as usize } else { 0 };
        first + 4 * (place - 1)
    }

    const fn entries(self) -> usize {
        if self.0 == 0 { ENTRIES_OF_FIRST as usize } else { ENTRIES as usize }
    }

    /// The highest frame of this region that holds `pgno`, none above `last`. `word` reads the region at a
    /// multiple of four.
    pub fn find(self, pgno: Pgno, last: FrameNo, word: impl Fn(usize) -> u32) -> Option<FrameNo> {
        let mut found = None;
        let start = pgno.get().wrapping_mul(383) as usize % SLOTS;
        for probe in 0..SLOTS {
            let place = usize::from(slot((start + probe) % SLOTS, &word));
            if place == 0 {
                break;
            }
            let frame = FrameNo(self.base() + place as u32);
            let holds = place <= self.entries() && frame <= last && word(self.entry(place)) == pgno.get();
            if holds {
                found = found.max(Some(frame));
            }
        }
        found
    }
}

/// The hash slot `number`.
fn slot(number: usize, word: impl Fn(usize) -> u32) -> u16 {
    let [a, b, c, d] = word(IndexRegion::SLOTS_OFFSET + number / 2 * 4).to_ne_bytes();
    u16::from_ne_bytes(if number.is_multiple_of(2) { [a, b] } else { [c, d] })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A WAL index that is written as SQLite's `walIndexAppend` does.
    struct Index(Vec<Vec<u32>>);

    impl Index {
        fn append(&mut self, frame: u32, pgno: u32) {
            let region = IndexRegion::of(FrameNo(frame));
            let number = region.number() as usize;
            self.0.resize(self.0.len().max(number + 1), vec![0; IndexRegion::SIZE as usize / 4]);
            let words = &mut self.0[number];
            words[region.offset_of(FrameNo(frame)) / 4] = pgno;
            let mut at = (pgno as usize * 383) & (SLOTS - 1);
            while slot(at, |offset| words[offset / 4]) != 0 {
                at = (at + 1) & (SLOTS - 1);
            }
            let word = &mut words[(IndexRegion::SLOTS_OFFSET + at / 2 * 4) / 4];
            let mut bytes = word.to_ne_bytes();
            let place = u16::try_from(frame - region.base()).unwrap();
            bytes[at % 2 * 2..][..2].copy_from_slice(&place.to_ne_bytes());
            *word = u32::from_ne_bytes(bytes);
        }

        fn find(&self, pgno: u32, last: u32) -> Option<u32> {
            let mut region = Some(IndexRegion::of(FrameNo(last)));
            while let Some(at) = region {
                let words = &self.0[at.number() as usize];
                let found = at.find(Pgno::new(pgno).unwrap(), FrameNo(last), |offset| words[offset / 4]);
                if found.is_some() {
                    return found.map(|frame| frame.0);
                }
                region = at.before();
            }
            None
        }
    }

    #[test]
    fn the_regions_begin_where_sqlite_has_them() {
        for (frame, region, offset) in
            [(1, 0, 136), (4062, 0, 16380), (4063, 1, 0), (8158, 1, 16380), (8159, 2, 0)]
        {
            let of = IndexRegion::of(FrameNo(frame));
            assert_eq!((of.number(), of.offset_of(FrameNo(frame))), (region, offset), "frame {frame}");
        }
        assert_eq!(IndexRegion(1).last(), FrameNo(8158));
    }

    #[test]
    fn the_highest_frame_of_a_page_is_found() {
        let mut index = Index(Vec::new());
        let mut pages = Vec::new();
        let mut random = 7_u32;
        for frame in 1..=13_000 {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let pgno = random % 900 + 1;
            index.append(frame, pgno);
            pages.push(pgno);
        }
        for last in [1, 2, 4061, 4062, 4063, 8158, 8159, 12_999, 13_000] {
            for pgno in (1..=901).step_by(7) {
                let expected = (1..=last).rev().find(|frame| pages[*frame as usize - 1] == pgno);
                assert_eq!(index.find(pgno, last), expected, "page {pgno} up to frame {last}");
            }
        }
    }

    #[test]
    fn a_full_table_of_other_pages_ends() {
        let words = vec![u32::from_ne_bytes([1, 0, 1, 0]); IndexRegion::SIZE as usize / 4];
        assert_eq!(IndexRegion(1).find(Pgno::ONE, FrameNo(9000), |offset| words[offset / 4]), None);
    }
}
