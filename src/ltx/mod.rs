//! The LTX codec, format version 3, and version 4 of sealed files: bytes in, bytes out.
//!
//! ```text
//!   header          100 bytes                                     [`Header`]
//!   page block      one frame a page, ascending; six zero bytes   [`FrameCodec`]
//!   page index      where each frame is                           [`PageIndex`]
//!   trailer         16 bytes                                      [`Trailer`]
//! ```
//! The file checksum in the trailer is the CRC-64/GO-ISO, with bit 63 set, of the header; of every
//! frame its page number, flags and size, then its page *uncompressed*; of the six zero bytes; of the
//! page index with its size; and of the post-apply checksum. Sealed files, version 4, are in [`seal`].
//!
//! [`Encoder`] and [`Decoder`] stream; [`merge`] makes one file of several. All fail with `Corrupt`
//! on bytes that break the format, and never allocate more than a page and its frame for them.
//!
//! Source: `github.com/superfly/ltx` (Go) v0.5.2, which Litestream 0.5.17 uses. Writers up to v0.5.1
//! compressed pages as LZ4 frames, which are read and never written.

mod bytes;
mod checksum;
mod codec;
mod decoder;
mod encoder;
mod file;
mod frame;
mod frames;
mod header;
mod index;
mod lineage;
mod lz4;
mod merge;
mod name;
mod outline;
mod part;
mod seal;
mod shape;
mod source;
#[cfg(test)]
mod tests;
mod trailer;
pub(crate) mod varint;

pub use codec::FrameCodec;
pub use decoder::Decoder;
pub use encoder::Encoder;
pub use file::Summary;
pub(crate) use frame::FRAME_SIZES;
pub use frames::{FramePages, Frames, FramesSum};
pub use header::{Header, HeaderFlags};
pub use index::{IndexEntry, PageIndex, TailRead};
pub use lineage::Lineage;
pub use merge::{Merger, merge};
pub use name::{FileId, FileName, Level, Txid};
pub use outline::{Outline, OutlineRead};
pub use part::{PartChecksum, PartHasher};
#[cfg(test)]
pub(crate) use seal::sealing;
pub use seal::{
    ContentKey, Identities, Identity, Keyring, PackCipher, PackPart, Plain, Recipient, Recipients, Seal,
    SealId, keygen,
};
pub use shape::Shape;
pub use trailer::Trailer;
