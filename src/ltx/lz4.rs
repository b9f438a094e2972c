//! LZ4 blocks, and the LZ4 frames of older writers.

use lz4_flex::block::{self, CompressTable};
use twox_hash::XxHash32;

use super::source::Source;
use crate::error::{Error, Result};
use crate::page::PageSize;

/// The most bytes that a block of `len` bytes takes compressed.
/// Source: `LZ4_COMPRESSBOUND` of the reference implementation.
pub(super) const fn max_compressed(len: usize) -> usize {
    len + len / 255 + 16
}

/// The most bytes that an LZ4 frame of one page takes: header, blocks, end mark, checksum. The blocks
/// of one page are one; this leaves room for a few.
pub(super) const fn max_frame(len: usize) -> usize {
    19 + max_compressed(len) + 8 * 8 + 8
}

/// Compresses pages, one after another, without allocating.
pub(super) struct Compressor {
    table: CompressTable,
    max_output: usize,
}

impl Compressor {
    pub(super) fn new(page_size: PageSize) -> Self {
        let max_output = block::get_maximum_output_size(page_size.bytes());
        Self { table: CompressTable::default(), max_output }
    }

    /// The room that [`Compressor::compress`] needs for its output.
    pub(super) fn max_output(&self) -> usize {
        self.max_output
    }

    /// Compresses `page` to the front of `out` and returns how many bytes it took.
    pub(super) fn compress(&mut self, page: &[u8], out: &mut [u8]) -> usize {
        block::compress_into_with_table(page, out, &mut self.table)
            .expect("BUG: the output has the size that the compressor asks for")
    }
}

/// Writes `page` to the front of `out` as a block of literals only, and returns how many bytes it took:
/// a valid block that costs no more than a copy.
///
/// ```text
/// 0  token 0xf0: 15 literals and more, no match
/// 1  the rest of the number of literals: bytes of 255, then one below
/// .  the literals
/// ```
/// Source: <https://github.com/lz4/lz4/blob/dev/doc/lz4_Block_format.md>.
pub(super) fn store(page: &[u8], out: &mut [u8]) -> usize {
    let rest = page.len().checked_sub(15).expect("BUG: a page has at least 512 bytes");
    let full = rest / 255;
    out[0] = 0xf0;
    out[1..=full].fill(255);
    out[full + 1] = (rest % 255) as u8;
    let start = full + 2;
    out[start..start + page.len()].copy_from_slice(page);
    start + page.len()
}

/// Decompresses a block that holds exactly `page`.
pub(super) fn decompress(compressed: &[u8], page: &mut [u8]) -> Result<()> {
    match block::decompress_into(compressed, page) {
        Ok(n) if n == page.len() => Ok(()),
        Ok(n) => Err(broken(format!("it holds {n} bytes instead of {}", page.len()))),
        Err(e) => Err(broken(e)),
    }
}

/// Reads an LZ4 frame that holds exactly `page`.
///
/// ```text
///  0  magic 0x184D2204 u32                    blocks: size u32 (bit 31: stored), data [, checksum u32]
///  4  FLG: version 01, B.Indep, B.Checksum,   end mark: u32 zero
///          C.Size, C.Checksum, 0, DictID      [content checksum u32]
///  5  BD   6  [content size u64]  HC u8
/// ```
/// Integers are little-endian, checksums are xxHash32.
/// Source: <https://github.com/lz4/lz4/blob/dev/doc/lz4_Frame_format.md>.
pub(super) fn read_frame(source: &mut impl Source, page: &mut [u8]) -> Result<()> {
    let flags = read_frame_header(source, page.len())?;
    let mut filled = 0;
    loop {
        let word = take_u32(source)?;
        if word == 0 {
            break;
        }
        filled += read_frame_block(source, flags, word, page, filled)?;
    }
    if filled != page.len() {
        return Err(broken(format!("the frame holds {filled} bytes instead of {}", page.len())));
    }
    if flags & CONTENT_CHECKSUM != 0 && take_u32(source)? != XxHash32::oneshot(0, page) {
        return Err(broken("the frame's content fails its checksum"));
    }
    Ok(())
}

const FRAME_MAGIC: [u8; 4] = 0x184D_2204_u32.to_le_bytes();
const VERSION_MASK: u8 = 0b1100_0000;
const VERSION: u8 = 0b0100_0000;
const BLOCK_CHECKSUM: u8 = 1 << 4;
const CONTENT_SIZE: u8 = 1 << 3;
const CONTENT_CHECKSUM: u8 = 1 << 2;
const RESERVED_OR_DICTIONARY: u8 = 0b11;
const STORED: u32 = 1 << 31;

/// Reads magic and descriptor, and returns FLG.
fn read_frame_header(source: &mut impl Source, page_len: usize) -> Result<u8> {
    let fixed: [u8; 6] = source.take(6)?.try_into().expect("BUG: six bytes were taken");
    if fixed[..4] != FRAME_MAGIC {
        return Err(broken("the frame has no magic number"));
    }
    let flags = fixed[4];
    if flags & VERSION_MASK != VERSION || flags & RESERVED_OR_DICTIONARY != 0 {
        return Err(broken("the frame is of an unknown version or needs a dictionary"));
    }
    let mut descriptor = [0; 10];
    descriptor[..2].copy_from_slice(&fixed[4..]);
    let mut len = 2;
    if flags & CONTENT_SIZE != 0 {
        descriptor[2..].copy_from_slice(source.take(8)?);
        len = 10;
        if descriptor[2..] != (page_len as u64).to_le_bytes() {
            return Err(broken("the frame's content size is not the page size"));
        }
    }
    if source.take(1)?[0] != (XxHash32::oneshot(0, &descriptor[..len]) >> 8) as u8 {
        return Err(broken("the frame's header fails its checksum"));
    }
    Ok(flags)
}

/// Reads the block that `word` announces to `page[filled..]`, and returns its size there.
fn read_frame_block(
    source: &mut impl Source,
    flags: u8,
    word: u32,
    page: &mut [u8],
    filled: usize,
) -> Result<usize> {
    let size = (word & !STORED) as usize;
    let (before, room) = page.split_at_mut(filled);
    if size > max_compressed(room.len()) {
        return Err(broken(format!("a block of {size} bytes is more than a page can need")));
    }
    let data = source.take(size)?;
    let checksum = (flags & BLOCK_CHECKSUM != 0).then(|| XxHash32::oneshot(0, data));
    let n = if word & STORED == 0 {
        block::decompress_into_with_dict(data, room, before).map_err(broken)?
    } else {
        room.get_mut(..size).ok_or_else(|| broken("a stored block exceeds the page"))?.copy_from_slice(data);
        size
    };
    if n == 0 {
        return Err(broken("a block is empty"));
    }
    match checksum {
        Some(checksum) if take_u32(source)? != checksum => Err(broken("a block fails its checksum")),
        _ => Ok(n),
    }
}

fn take_u32(source: &mut impl Source) -> Result<u32> {
    let bytes = source.take(4)?;
    Ok(u32::from_le_bytes(bytes.try_into().expect("BUG: four bytes were taken")))
}

fn broken(what: impl std::fmt::Display) -> Error {
    Error::corrupt(format!("LZ4 data of a page: {what}"))
}
