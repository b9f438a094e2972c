//! WAL and WAL-index formats: bytes in, committed transactions out.
//!
//! Source: <https://www.sqlite.org/fileformat2.html>, section 4, and
//! <https://www.sqlite.org/walformat.html>. Integers of the WAL file are big-endian; the WAL index
//! is shared memory in the host's own byte order.

mod checksum;
mod frame;
mod header;
mod index;
mod regions;
mod scan;

pub use checksum::{ByteOrder, Checksum};
pub use frame::{FrameHeader, FrameNo};
pub use header::{Salts, WalHeader};
pub use index::{CheckpointInfo, IndexHeader, READ_MARKS};
pub use regions::IndexRegion;
pub use scan::{Committed, End, Position, Scan, holds, read_header, scan};

#[cfg(test)]
pub(crate) mod tests;
