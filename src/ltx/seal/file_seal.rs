//! How a file is sealed that is about to be written.

use std::fmt;

use super::cipher::Cipher;
use super::content_key::{ContentKey, SealId};
use super::hpke;
use super::recipient::Recipients;
use crate::error::{Error, Result};
use crate::ltx::{Header, HeaderFlags};

/// The seal of one file: its header, a content key that no other file has, and that key sealed to each recipient.
///
/// It is used for one file ([`crate::ltx::Encoder::sealed`] takes it), since the page index of a second one under the same
/// key would give away how indexes are proven.
pub struct Seal {
    header: Header,
    /// The header as it is stored, and what each recipient has.
    head: Vec<u8>,
    key: ContentKey,
    cipher: Cipher,
}

impl Seal {
    /// A new seal for a file with `header`, to `recipients`, of which there is one at least.
    ///
    /// # Errors
    /// `Corrupt` if the header is not valid; `Io` if the system gives no random numbers.
    pub fn new(header: Header, recipients: &Recipients) -> Result<Self> {
        let header = recipients.header(header);
        header.validate()?;
        if !header.is_sealed() {
            return Err(Error::corrupt("nobody could open a file that is sealed to nobody"));
        }
        let key = ContentKey::generate()?;
        let bytes = header.encode();
        let mut head = bytes.to_vec();
        for recipient in recipients.iter() {
            head.extend_from_slice(&hpke::seal(recipient.bytes(), &key)?);
        }
        let cipher = Cipher::new(&key, &bytes);
        Ok(Self { header, head, key, cipher })
    }

    /// The header of the file.
    pub const fn header(&self) -> &Header {
        &self.header
    }

    /// What tells the file from any other.
    pub fn id(&self) -> SealId {
        SealId::of_head(&self.head)
    }

    /// The content key.
    pub const fn key(&self) -> &ContentKey {
        &self.key
    }

    /// What the file begins with, and what seals the rest.
    pub(in crate::ltx) fn into_parts(self) -> (Header, Vec<u8>, Cipher) {
        (self.header, self.head, self.cipher)
    }
}

impl fmt::Debug for Seal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Seal").field("header", &self.header).finish_non_exhaustive()
    }
}

impl Recipients {
    /// The header that a file has whose plain one is `header`: of a sealed file, unless there are no recipients.
    #[must_use]
    pub fn header(&self, header: Header) -> Header {
        if self.is_empty() {
            return header;
        }
        let flags = header.flags.with(HeaderFlags::SEALED);
        Header { flags, recipients: self.count(), lineage: None, ..header }
    }
}
