//! The file checksum from checksums of parts, which may be read in any order.

use crc_fast::{CrcAlgorithm, checksum_combine};

use super::FrameCodec;
use super::checksum::{CHECKSUM_FLAG, Hasher};
use crate::error::Result;
use crate::page::Pgno;

/// What a part of a file adds to the file checksum.
///
/// The checksum of a file is that of all its parts, in their order, without the last 8 bytes, which hold it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartChecksum {
    /// The CRC of the part, the pages of a plain file uncompressed.
    pub crc: u64,
    /// The size of the part in bytes, the pages of a plain file uncompressed.
    pub len: u64,
}

impl PartChecksum {
    /// The checksum of nothing.
    pub const EMPTY: Self = Self { crc: 0, len: 0 };

    /// The checksum of this part and of `next`, which follows it.
    #[must_use]
    pub fn then(self, next: Self) -> Self {
        let crc = checksum_combine(CrcAlgorithm::Crc64GoIso, self.crc, next.crc, next.len);
        Self { crc, len: self.len + next.len }
    }

    /// The checksum that the trailer of the file has, if this is all of the file.
    pub fn of_file(self) -> u64 {
        CHECKSUM_FLAG | self.crc
    }
}

/// Computes the checksum of a part, which is read from its beginning to its end.
#[derive(Debug)]
pub struct PartHasher {
    hasher: Hasher,
    len: u64,
}

impl Default for PartHasher {
    fn default() -> Self {
        Self { hasher: Hasher::new(), len: 0 }
    }
}

impl PartHasher {
    /// Adds bytes that belong to no frame: of the header, the end of the page block, the page index, the
    /// post-apply checksum.
    pub fn update(&mut self, bytes: &[u8]) {
        self.hasher.update(bytes);
        self.len += bytes.len() as u64;
    }

    /// Adds the frame `bytes`, decodes it into `buf` by `codec` and returns which page it is.
    ///
    /// # Errors
    /// As [`FrameCodec::decode`].
    pub fn frame(&mut self, bytes: &[u8], codec: &FrameCodec, buf: &mut [u8]) -> Result<Pgno> {
        codec.decode_hashed(bytes, buf, |hashed| self.update(hashed))
    }

    /// The checksum of what was added.
    pub fn finish(self) -> PartChecksum {
        PartChecksum { crc: self.hasher.crc(), len: self.len }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;
    use crate::ltx::{Encoder, FileName, Header, IndexEntry, PageIndex, Shape, TailRead, Trailer, Txid};
    use crate::page::{PageCount, PageSize};

    /// A file of 40 pages, the checksum in its trailer, and its page index.
    fn file() -> (Vec<u8>, u64, PageIndex) {
        let size = PageSize::new(512).unwrap();
        let header =
            Header::new(size, PageCount::new(40), FileName::single(Txid::ONE), Timestamp::from_millis(7));
        let mut encoder = Encoder::new(Vec::new(), header).unwrap();
        let mut random = 1_u32;
        // Nothing repeats, so that each byte of a block is one of the page.
        let mut byte = || {
            random ^= random << 13;
            random ^= random >> 17;
            random ^= random << 5;
            random as u8
        };
        for n in 1..=40_u32 {
            let page: Vec<u8> = (0..512).map(|_| byte()).collect();
            encoder.page(Pgno::new(n).unwrap(), &page).unwrap();
        }
        let (bytes, summary) = encoder.finish().unwrap();
        let TailRead::Index(index) = PageIndex::from_tail(&bytes, bytes.len() as u64, Shape::PLAIN).unwrap()
        else {
            panic!("the whole file has its index")
        };
        (bytes, summary.trailer.file_checksum, index)
    }

    /// The checksums of header, of `frames` frames at a time, and of the rest.
    fn parts(bytes: &[u8], index: &PageIndex, frames: usize) -> Result<Vec<PartChecksum>> {
        let of = |bytes: &[u8]| {
            let mut hasher = PartHasher::default();
            hasher.update(bytes);
            hasher.finish()
        };
        let entries: Vec<_> = index.iter().collect();
        let mut parts = vec![of(&bytes[..Header::SIZE])];
        let codec = FrameCodec::plain(PageSize::new(512)?);
        let mut page = vec![0; 512];
        for run in entries.chunks(frames) {
            let mut hasher = PartHasher::default();
            for entry in run {
                let frame = &bytes[entry.offset as usize..(entry.offset + entry.size) as usize];
                hasher.frame(frame, &codec, &mut page)?;
            }
            parts.push(hasher.finish());
        }
        let last = entries.last().unwrap();
        let end = bytes.len() - Trailer::SIZE / 2;
        parts.push(of(&bytes[(last.offset + last.size) as usize..end]));
        Ok(parts)
    }

    #[test]
    fn nothing_adds_nothing() {
        let mut hasher = PartHasher::default();
        assert_eq!(PartHasher::default().finish(), PartChecksum::EMPTY);
        hasher.update(b"something");
        let part = hasher.finish();
        assert_eq!((PartChecksum::EMPTY.then(part), part.then(PartChecksum::EMPTY)), (part, part));
    }

    #[test]
    fn parts_make_the_checksum_of_the_file_however_they_are_joined() {
        let (bytes, checksum, index) = file();
        for frames in [1, 3, 7, 40] {
            let parts = parts(&bytes, &index, frames).unwrap();
            let forwards = parts.iter().copied().reduce(PartChecksum::then).unwrap();
            let backwards = parts.iter().rev().copied().reduce(|all, part| part.then(all)).unwrap();
            assert_eq!((forwards.of_file(), backwards), (checksum, forwards), "{frames} frames at a time");
        }
    }

    /// The pages, as far as they decode.
    fn pages(bytes: &[u8], index: &PageIndex) -> Vec<Option<Vec<u8>>> {
        let decode = |entry: IndexEntry| {
            let mut page = vec![0; 512];
            let frame = &bytes[entry.offset as usize..(entry.offset + entry.size) as usize];
            let codec = FrameCodec::plain(PageSize::new(512).unwrap());
            codec.decode(frame, &mut page).is_ok().then_some(page)
        };
        index.iter().map(decode).collect()
    }

    #[test]
    fn a_byte_that_is_another_shows_wherever_it_is() {
        let (good, checksum, index) = file();
        let good_pages = pages(&good, &index);
        let mut without_effect = 0;
        for at in 0..good.len() - Trailer::SIZE / 2 {
            let mut bytes = good.clone();
            bytes[at] ^= 1;
            let parts =
                parts(&bytes, &index, 5).map(|parts| parts.into_iter().reduce(PartChecksum::then).unwrap());
            if parts.is_ok_and(|whole| whole.of_file() == checksum) {
                // LZ4 has a few bits that no page depends on.
                assert!(pages(&bytes, &index) == good_pages, "byte {at}");
                without_effect += 1;
            }
        }
        assert!(without_effect <= 2 * 40, "{without_effect}");
    }
}
