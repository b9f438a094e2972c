//! The end of a large file, where its page index is.

use bytes::{Bytes, BytesMut};

use super::source::Source;
use crate::error::{Error, Result};
use crate::ltx::{PageIndex, Shape, TailRead};
use crate::store::{ByteRange, FileInfo};

/// Less than this does not make a request faster.
const SMALLEST_GUESS: u64 = 64 * 1024;
/// More than this is asked for only when it is known to be needed.
const LARGEST_GUESS: u64 = 4 * 1024 * 1024;

/// The page index of a file of this `shape`, and the end of the file that brought it. Nothing proves that of a sealed
/// file here.
///
/// # Errors
/// Those of the store; `Corrupt`; all name the file.
pub(crate) async fn read_tail(source: &Source, file: &FileInfo, shape: Shape) -> Result<(Bytes, PageIndex)> {
    let mut tail = source.read(file, ByteRange::Suffix { len: first_guess(file.size) }).await?;
    loop {
        match PageIndex::from_tail(&tail, file.size, shape).map_err(|e| named(file, e))? {
            TailRead::Index(index) => return Ok((tail, index)),
            TailRead::NeedMore(len) => tail = longer(source, file, tail, len).await?,
        }
    }
}

/// The last `len` bytes of `file`, of which `tail` has some.
pub(super) async fn longer(source: &Source, file: &FileInfo, tail: Bytes, len: u64) -> Result<Bytes> {
    let missing = len.checked_sub(tail.len() as u64).filter(|missing| *missing > 0);
    let before = missing.zip(file.size.checked_sub(len));
    let (missing, offset) =
        before.ok_or_else(|| Error::corrupt(format!("{}: its page index has no beginning", file.id)))?;
    let before = source.read(file, ByteRange::Bounded { offset, len: missing }).await?;
    Ok(join(before, &tail))
}

fn join(before: Bytes, after: &[u8]) -> Bytes {
    let mut all = BytesMut::from(before);
    all.extend_from_slice(after);
    all.freeze()
}

/// How much of the end of a large file most likely has its page index: an entry takes about 9 bytes, a
/// page of 4 KiB rarely compresses to less than 900. What came too much is the file's last pages.
pub(super) fn first_guess(size: u64) -> u64 {
    (size / 100).clamp(SMALLEST_GUESS, LARGEST_GUESS)
}

/// Says which file an error is about, unless it says so already.
pub(super) fn named(file: &FileInfo, error: Error) -> Error {
    if error.to_string().contains(&file.id.name.to_string()) { error } else { error.context(file.id) }
}
