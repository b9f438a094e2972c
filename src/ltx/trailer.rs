//! The trailer of an LTX file.

use super::Header;
use super::bytes::u64_at;
use super::checksum::CHECKSUM_FLAG;
use crate::error::{Error, Result};

/// The trailer of an LTX file.
///
/// ```text
///   0  post-apply checksum u64       8  file checksum u64
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trailer {
    /// The checksum of the database after the file was applied; zero if the header says that none
    /// is kept.
    pub post_apply_checksum: u64,
    /// The checksum of the file, over its uncompressed pages.
    pub file_checksum: u64,
}

impl Trailer {
    /// The size in bytes.
    pub const SIZE: usize = 16;

    /// The rules between trailer and header.
    ///
    /// # Errors
    /// `Corrupt`, naming the rule that is broken.
    pub fn validate(&self, header: &Header) -> Result<()> {
        let post = self.post_apply_checksum;
        if header.has_database_checksums() && post & CHECKSUM_FLAG == 0 {
            return Err(Error::corrupt("LTX trailer: the post-apply checksum is missing or malformed"));
        }
        if !header.has_database_checksums() && post != 0 {
            return Err(Error::corrupt("LTX trailer: a post-apply checksum is set where none may be"));
        }
        if self.file_checksum & CHECKSUM_FLAG == 0 {
            return Err(Error::corrupt("LTX trailer: the file checksum is missing or malformed"));
        }
        Ok(())
    }

    /// The bytes of the trailer.
    pub fn encode(&self) -> [u8; Self::SIZE] {
        let mut bytes = [0; Self::SIZE];
        bytes[0..8].copy_from_slice(&self.post_apply_checksum.to_be_bytes());
        bytes[8..16].copy_from_slice(&self.file_checksum.to_be_bytes());
        bytes
    }

    /// Reads the trailer of a file whose header is `header`, and validates it.
    ///
    /// # Errors
    /// `Corrupt`.
    pub fn decode(bytes: &[u8; Self::SIZE], header: &Header) -> Result<Self> {
        let trailer = Self { post_apply_checksum: u64_at(bytes, 0), file_checksum: u64_at(bytes, 8) };
        trailer.validate(header)?;
        Ok(trailer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;
    use crate::ltx::{FileName, HeaderFlags, Txid};
    use crate::page::{PageCount, PageSize};

    #[test]
    fn checksums_are_there_exactly_where_they_must_be() {
        let name = FileName::single(Txid::ONE);
        let plain = Header::new(PageSize::MIN, PageCount::new(1), name, Timestamp::from_millis(0));
        let tracked = Header { flags: HeaderFlags::NONE, ..plain };
        let (set, unset) = (CHECKSUM_FLAG | 5, 5);
        for (header, post, file, good) in [
            (&plain, 0, set, true),
            (&plain, 0, unset, false),
            (&plain, set, set, false),
            (&tracked, set, set, true),
            (&tracked, unset, set, false),
            (&tracked, 0, set, false),
            (&tracked, set, unset, false),
        ] {
            let trailer = Trailer { post_apply_checksum: post, file_checksum: file };
            assert_eq!(trailer.validate(header).is_ok(), good, "{post:x} {file:x}");
            assert_eq!(Trailer::decode(&trailer.encode(), header).ok(), good.then_some(trailer));
        }
    }
}
