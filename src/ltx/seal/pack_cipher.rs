//! Keys of packs: the pack of a sealed file is sealed under the file's content key too.

use std::fmt;

use aws_lc_rs::aead::{Aad, LessSafeKey, NONCE_LEN, Nonce};

use super::content_key::ContentKey;
use super::hpke::{TAG, expand, unbound};
use crate::error::{Error, Result};

/// The random bytes of a pack.
type Salt = [u8; PackCipher::SALT];

/// What seals and opens the parts of the pack of one sealed file.
///
/// ```text
///   key              HKDF-Expand with SHA-256 of the content key, info `litestream-vfs-pack` and the pack's 16 random bytes
///   nonce            the number of the part, 12 bytes
///   additional data  what the pack begins with, number of the part u32, number of parts u32, SHA-256 of the file's header
/// ```
/// A key is used for one pack, whose parts have numbers of their own: no nonce comes twice under it.
pub struct PackCipher {
    salt: Salt,
    key: LessSafeKey,
    /// SHA-256 of the file's header as it is stored.
    header: [u8; 32],
}

/// Which part of a pack is sealed or opened.
#[derive(Clone, Copy, Debug)]
pub struct PackPart<'a> {
    /// What the pack begins with.
    pub head: &'a [u8],
    /// The number of the part.
    pub number: u32,
    /// The number of parts.
    pub count: u32,
}

impl PackCipher {
    /// The size of a pack's random bytes.
    pub const SALT: usize = 16;
    /// What a sealed part has beside its bytes.
    pub const OVERHEAD: usize = TAG;

    pub(super) fn new(content_key: &ContentKey, header: [u8; 32], salt: Salt) -> Self {
        let key = unbound(&expand(content_key.bytes(), &[b"litestream-vfs-pack", &salt]));
        Self { salt, key, header }
    }

    /// The random bytes of the pack.
    pub const fn salt(&self) -> &[u8; Self::SALT] {
        &self.salt
    }

    /// Seals `bytes`, the content of `part`: in place, with a tag behind it.
    pub fn seal(&self, part: PackPart<'_>, bytes: &mut Vec<u8>) {
        let bound = Aad::from(self.bound(part));
        let sealed = self.key.seal_in_place_append_tag(nonce(part), bound, bytes);
        sealed.expect("BUG: a part of a pack is short enough to be sealed");
    }

    /// The content of `part`, which is sealed as `bytes`.
    ///
    /// # Errors
    /// `Corrupt` if they were not sealed as that part of the pack of this file.
    pub fn open(&self, part: PackPart<'_>, bytes: &[u8]) -> Result<Vec<u8>> {
        let forged = || Error::corrupt("it was not sealed as this part of the pack of this file");
        let (sealed, tag) = bytes.split_last_chunk::<TAG>().ok_or_else(forged)?;
        let mut opened = vec![0; sealed.len()];
        let bound = Aad::from(self.bound(part));
        self.key.open_separate_gather(nonce(part), bound, sealed, tag, &mut opened).map_err(|_| forged())?;
        Ok(opened)
    }

    fn bound(&self, part: PackPart<'_>) -> Vec<u8> {
        [part.head, &part.number.to_be_bytes(), &part.count.to_be_bytes(), &self.header].concat()
    }
}

fn nonce(part: PackPart<'_>) -> Nonce {
    let mut nonce = [0; NONCE_LEN];
    nonce[NONCE_LEN - 4..].copy_from_slice(&part.number.to_be_bytes());
    Nonce::assume_unique_for_key(nonce)
}

impl fmt::Debug for PackCipher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PackCipher")
    }
}

#[cfg(test)]
mod tests {
    use zeroize::Zeroizing;

    use super::*;

    const PART: PackPart<'_> = PackPart { head: b"head", number: 3, count: 9 };

    fn cipher(key: u8, header: u8, salt: u8) -> PackCipher {
        PackCipher::new(&ContentKey::of(Zeroizing::new([key; 32])), [header; 32], [salt; 16])
    }

    #[test]
    fn a_part_opens_as_just_that_part_of_that_pack_of_that_file() {
        let mut sealed = b"content".to_vec();
        cipher(1, 2, 3).seal(PART, &mut sealed);
        assert_eq!(sealed.len(), 7 + PackCipher::OVERHEAD);
        assert_eq!(cipher(1, 2, 3).open(PART, &sealed).unwrap(), b"content");
        for (what, cipher, part) in [
            ("another content key", cipher(9, 2, 3), PART),
            ("another header", cipher(1, 9, 3), PART),
            ("another pack", cipher(1, 2, 9), PART),
            ("another head", cipher(1, 2, 3), PackPart { head: b"Head", ..PART }),
            ("another number", cipher(1, 2, 3), PackPart { number: 4, ..PART }),
            ("another count", cipher(1, 2, 3), PackPart { count: 8, ..PART }),
        ] {
            assert!(cipher.open(part, &sealed).is_err(), "{what}");
        }
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert!(cipher(1, 2, 3).open(PART, &changed).is_err(), "byte {at}");
            assert!(cipher(1, 2, 3).open(PART, &sealed[..at]).is_err(), "cut to {at}");
        }
    }

    #[test]
    fn parts_are_sealed_under_nonces_of_their_own() {
        let sealed = |number| {
            let mut bytes = vec![0; 32];
            cipher(1, 2, 3).seal(PackPart { number, ..PART }, &mut bytes);
            bytes[..32].to_vec()
        };
        assert_ne!(sealed(0), sealed(1));
        assert_ne!(sealed(0), sealed(256));
    }
}
