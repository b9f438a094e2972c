//! The key of one sealed file, and what tells that file from all others.

use std::fmt;

use aws_lc_rs::digest::{Context, SHA256};
use zeroize::Zeroizing;

use super::hpke::ENTRY;
use super::random;
use crate::error::Result;
use crate::ltx::Header;

/// The key that all of one sealed file hangs on. It wipes itself when it is dropped, and is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct ContentKey(Zeroizing<[u8; 32]>);

impl ContentKey {
    /// A new one from the operating system.
    ///
    /// # Errors
    /// `Io` if the system gives no random numbers.
    pub(super) fn generate() -> Result<Self> {
        random().map(Self)
    }

    /// The key with these bytes.
    pub const fn of(bytes: Zeroizing<[u8; 32]>) -> Self {
        Self(bytes)
    }

    /// The bytes of the key.
    pub fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for ContentKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

/// What tells a sealed file from any other: SHA-256 of its header and of what it has for its recipients, as they are
/// stored. No two seals are the same, even of the same pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SealId([u8; 32]);

impl SealId {
    /// The id with these bytes.
    pub const fn of(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The bytes of the id.
    pub const fn bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The id of the file that begins with `head`: the header, and what it has for its recipients.
    pub fn of_head(head: &[u8]) -> Self {
        SealHasher::new(head).finish()
    }
}

/// Computes the id of a file that is read from its beginning.
pub(in crate::ltx) struct SealHasher(Context);

impl SealHasher {
    /// Begins with the header as it is stored.
    pub(in crate::ltx) fn new(header: &[u8]) -> Self {
        let mut context = Context::new(&SHA256);
        context.update(header);
        Self(context)
    }

    /// Adds what the next recipient has.
    pub(in crate::ltx) fn entry(&mut self, entry: &[u8; ENTRY]) {
        self.0.update(entry);
    }

    /// The id.
    pub(in crate::ltx) fn finish(self) -> SealId {
        SealId(self.0.finish().as_ref().try_into().expect("BUG: SHA-256 has 32 bytes"))
    }
}

/// The size of what an id is made of, in a file with this `header`.
pub(in crate::ltx) const fn head_size(header: &Header) -> usize {
    Header::SIZE + header.shape().recipients()
}
