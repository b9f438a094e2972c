//! Page frames.
//!
//! ```text
//!   0  pgno u32
//!   4  flags u16              bit 0: a size follows
//!   6  size u32               of the LZ4 block, only with bit 0
//!  10  LZ4 block of one page; without bit 0, at 6: an LZ4 frame of one page
//! ```
//! Six zero bytes in place of a frame end the page block. What a sealed file has in place of the LZ4 block is in
//! [`super::seal`].

use super::bytes::u32_at;
use super::lz4;
use super::source::Source;
use crate::error::{Error, ErrorKind, Result};
use crate::page::{PageSize, Pgno};

/// The size of pgno and flags.
pub(super) const FRAME_HEADER_SIZE: usize = 6;
/// The size of everything before the LZ4 block.
pub(super) const BLOCK_OFFSET: usize = FRAME_HEADER_SIZE + 4;
/// What ends the page block.
pub(super) const END_OF_PAGES: [u8; FRAME_HEADER_SIZE] = [0; FRAME_HEADER_SIZE];
/// The sizes that a frame can have, whatever the page size.
pub(crate) const FRAME_SIZES: std::ops::RangeInclusive<u64> =
    (BLOCK_OFFSET + 1) as u64..=(FRAME_HEADER_SIZE + lz4::max_frame(PageSize::MAX.bytes())) as u64;

/// The flag of a frame whose size follows.
pub(super) const HAS_SIZE: u16 = 1;

/// What precedes the LZ4 block of `pgno`, whose size is `size`.
pub(super) fn block_frame_header(pgno: Pgno, size: u32) -> [u8; BLOCK_OFFSET] {
    let mut bytes = [0; BLOCK_OFFSET];
    bytes[0..4].copy_from_slice(&pgno.get().to_be_bytes());
    bytes[4..6].copy_from_slice(&HAS_SIZE.to_be_bytes());
    bytes[6..10].copy_from_slice(&size.to_be_bytes());
    bytes
}

/// Whether the page of a frame is decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// It is.
    Page,
    /// Only where the frame ends is to be known. The buffer for its page holds anything then.
    End,
}

/// Reads one frame of a plain file into `page`, or the end of the page block as `None`. What the file checksum
/// covers goes to `hash`: all but the page as it is compressed, then the page.
pub(super) fn read_frame(
    source: &mut impl Source,
    page: &mut [u8],
    wanted: Wanted,
    mut hash: impl FnMut(&[u8]),
) -> Result<Option<Pgno>> {
    let header = source.take(FRAME_HEADER_SIZE)?;
    hash(header);
    if header == END_OF_PAGES {
        return Ok(None);
    }
    let flags = u16::from_be_bytes([header[4], header[5]]);
    let pgno = pgno_of(header)?;
    match flags {
        HAS_SIZE => read_block(source, page, wanted, &mut hash),
        0 => lz4::read_frame(source, page),
        _ => {
            let message = format!("the flags {flags:#x} are unknown; a newer version may read the file");
            Err(Error::new(ErrorKind::Unsupported, message))
        }
    }
    .map_err(|e| e.context(format_args!("LTX frame of page {pgno}")))?;
    hash(page);
    Ok(Some(pgno))
}

/// The page whose frame begins with `head`.
pub(super) fn pgno_of(head: &[u8]) -> Result<Pgno> {
    Pgno::new(u32_at(head, 0)).ok_or_else(|| Error::corrupt("LTX page frame: the page number is zero"))
}

fn read_block(
    source: &mut impl Source,
    page: &mut [u8],
    wanted: Wanted,
    hash: &mut impl FnMut(&[u8]),
) -> Result<()> {
    let size = source.take(4)?;
    hash(size);
    let size = u32_at(size, 0) as usize;
    if size > lz4::max_compressed(page.len()) {
        return Err(Error::corrupt(format!("a size of {size} bytes is more than a page can need")));
    }
    let block = source.take(size)?;
    if wanted == Wanted::Page { lz4::decompress(block, page) } else { Ok(()) }
}

/// Refuses a buffer that is not exactly one page.
pub(super) fn check_buffer(buf: &[u8], page_size: PageSize) -> Result<()> {
    if buf.len() == page_size.bytes() {
        return Ok(());
    }
    let message = format!("the LTX file has pages of {page_size} bytes, not of {}", buf.len());
    Err(Error::corrupt(message))
}
