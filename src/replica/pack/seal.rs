//! The pack of a sealed file, LTX version 4: all in it that is not a sealed frame of the file is sealed itself.
//!
//! ```text
//! front
//!    0  magic `LSVPACKS`
//!    8  as in a plain pack, up to 72
//!   72  16 random bytes
//!   88  part 0, sealed          the list of pages, and the table of blocks
//!       tag 16
//!       frames, in that order, as they are in the LTX file: sealed
//!       checksum u64            of all before it
//! blocks, in order              block n, from 0 on, sealed as part n + 1, with its tag; one without pages has no bytes
//! ```
//! How a part is sealed is in [`PackCipher`]. The first 88 bytes are bound to each part, and the number of parts is one more
//! than that of blocks. The table has sizes and checksums of blocks as they are stored, with their tags.
//!
//! So nobody who lacks the content key of the file can make or change what a reader takes for its page index, and a pack that
//! opens proves the file's header too. Page numbers and sizes are in clear in the file's own index, and need not be secret here.

use bytes::Bytes;

use super::{HEAD, broken};
use crate::error::Result;
use crate::ltx::{FrameCodec, PackCipher, PackPart};

/// How the pack of a sealed file begins.
pub(super) const MAGIC: &[u8; 8] = b"LSVPACKS";
/// What precedes the list of pages.
pub(super) const SEALED_HEAD: usize = HEAD + PackCipher::SALT;

/// Opens the parts of one pack.
#[derive(Debug)]
pub(super) struct Opener {
    cipher: PackCipher,
    /// What the pack begins with.
    head: Bytes,
    /// The number of parts.
    count: u32,
}

impl Opener {
    /// For the pack that begins with `bytes` and has as many blocks, of the file with this `codec`.
    ///
    /// # Errors
    /// `Corrupt` if nothing opens it.
    pub(super) fn new(codec: &FrameCodec, bytes: &Bytes, blocks: usize) -> Result<Self> {
        let salt = bytes.get(HEAD..).and_then(|rest| rest.first_chunk());
        let cipher = salt.and_then(|salt| codec.pack_cipher(*salt));
        let cipher = cipher.ok_or_else(|| broken("nothing opens it"))?;
        Ok(Self { cipher, head: bytes.slice(..SEALED_HEAD), count: blocks as u32 + 1 })
    }

    /// The content of the part with this `number`, which is sealed as `bytes`.
    ///
    /// # Errors
    /// `Corrupt` if they are not that part.
    pub(super) fn open(&self, number: u32, bytes: &[u8]) -> Result<Vec<u8>> {
        let part = PackPart { head: &self.head, number, count: self.count };
        self.cipher.open(part, bytes).map_err(broken)
    }
}
