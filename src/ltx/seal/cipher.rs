//! The content key of one file at work.

use std::fmt;

use aws_lc_rs::aead::{Aad, LessSafeKey, NONCE_LEN, Nonce};
use aws_lc_rs::digest::{SHA256, digest};

use super::content_key::ContentKey;
use super::hpke::{TAG, expand, unbound};
use super::pack_cipher::PackCipher;
use super::random;
use crate::error::{Error, Result};
use crate::ltx::Header;
use crate::ltx::frame::FRAME_HEADER_SIZE;

/// The size of the nonce before a sealed LZ4 block.
pub(in crate::ltx) const NONCE: usize = NONCE_LEN;
/// What a sealed LZ4 block has beside its bytes: nonce and tag.
pub(in crate::ltx) const OVERHEAD: usize = NONCE + TAG;
/// The nonce of the index tag: a content key has one index.
const INDEX_NONCE: [u8; NONCE_LEN] = *b"ltx-idx-auth";
/// What a frame is sealed with beside its content: the hash of the header, the page number, the head of the frame.
const BOUND: usize = 32 + 4 + FRAME_HEADER_SIZE;

/// What seals and opens the frames of one file, and proves its page index.
pub(in crate::ltx) struct Cipher {
    content_key: ContentKey,
    pages: LessSafeKey,
    index: LessSafeKey,
    /// SHA-256 of the header as it is stored.
    header: [u8; 32],
}

impl Cipher {
    /// The cipher of the file with this content key, whose header is stored as `header`.
    pub(in crate::ltx) fn new(content_key: &ContentKey, header: &[u8; Header::SIZE]) -> Self {
        Self {
            pages: unbound(&expand(content_key.bytes(), &[b"ltx-page-key"])),
            index: unbound(&expand(content_key.bytes(), &[b"ltx-index-key"])),
            content_key: content_key.clone(),
            header: digest(&SHA256, header).as_ref().try_into().expect("BUG: SHA-256 has 32 bytes"),
        }
    }

    /// Opens the LZ4 block that `sealed` is, of the frame that begins with `head`.
    ///
    /// # Errors
    /// `Corrupt` if it was not sealed as that frame of this file.
    pub(in crate::ltx) fn open(&self, head: &[u8; FRAME_HEADER_SIZE], sealed: &[u8]) -> Result<Vec<u8>> {
        let parts = sealed.split_first_chunk::<NONCE_LEN>();
        let parts = parts.and_then(|(nonce, rest)| Some((nonce, rest.split_last_chunk::<TAG>()?)));
        let (nonce, (ciphertext, tag)) = parts.ok_or_else(forged)?;
        let mut block = vec![0; ciphertext.len()];
        let nonce = Nonce::assume_unique_for_key(*nonce);
        self.pages
            .open_separate_gather(nonce, Aad::from(self.bound(head)), ciphertext, tag, &mut block)
            .map_err(|_| forged())?;
        Ok(block)
    }

    /// Seals `body` in place, which is room for a nonce, the LZ4 block, and room for a tag, of the frame that begins with
    /// `head`. The nonce comes from the operating system.
    ///
    /// # Errors
    /// `Io` if the system gives no random numbers.
    pub(in crate::ltx) fn seal(&self, head: &[u8; FRAME_HEADER_SIZE], body: &mut [u8]) -> Result<()> {
        let (nonce, rest) = body.split_at_mut(NONCE);
        let (block, tag) = rest.split_at_mut(rest.len() - TAG);
        let fresh = random::<NONCE>()?;
        nonce.copy_from_slice(&*fresh);
        let sealed = self.pages.seal_in_place_separate_tag(
            Nonce::assume_unique_for_key(*fresh),
            Aad::from(self.bound(head)),
            block,
        );
        tag.copy_from_slice(sealed.expect("BUG: a page is short enough to be sealed").as_ref());
        Ok(())
    }

    /// The tag that proves `index`, the page index with its size field, to be the one of this file.
    pub(in crate::ltx) fn index_tag(&self, index: &[u8]) -> [u8; TAG] {
        let nonce = Nonce::assume_unique_for_key(INDEX_NONCE);
        let tag = self.index.seal_in_place_separate_tag(nonce, Aad::from(index), &mut []);
        let tag = tag.expect("BUG: a page index is short enough to be proven");
        tag.as_ref().try_into().expect("BUG: a tag has its size")
    }

    fn bound(&self, head: &[u8; FRAME_HEADER_SIZE]) -> [u8; BOUND] {
        let mut bound = [0; BOUND];
        bound[..32].copy_from_slice(&self.header);
        bound[32..36].copy_from_slice(&head[..4]);
        bound[36..].copy_from_slice(head);
        bound
    }

    /// The cipher of the pack of this file that has these random bytes.
    pub(in crate::ltx) fn pack(&self, salt: [u8; PackCipher::SALT]) -> PackCipher {
        PackCipher::new(&self.content_key, self.header, salt)
    }

    /// The cipher of a new pack of this file.
    ///
    /// # Errors
    /// `Io` if the system gives no random numbers.
    pub(in crate::ltx) fn new_pack(&self) -> Result<PackCipher> {
        Ok(self.pack(*random()?))
    }

    /// Checks that `index`, the page index with its size field, is the one of this file.
    ///
    /// # Errors
    /// `Corrupt` if `tag` does not prove it.
    pub(in crate::ltx) fn check_index(&self, index: &[u8], tag: &[u8; TAG]) -> Result<()> {
        let nonce = Nonce::assume_unique_for_key(INDEX_NONCE);
        let proven = self.index.open_separate_gather(nonce, Aad::from(index), &[], tag, &mut []);
        proven.map_err(|_| Error::corrupt("LTX page index: it is not the one that was sealed with this file"))
    }
}

fn forged() -> Error {
    Error::corrupt(
        "it was not sealed as this page of this file: it was changed, or put in the place of another",
    )
}

impl fmt::Debug for Cipher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Cipher")
    }
}
