//! Decryption of age files, version 1, with X25519 identities: those that Litestream 0.3 knows.
//!
//! ```text
//! age-encryption.org/v1
//! -> X25519 {ephemeral key, base64}        a stanza for each recipient; other kinds are skipped
//! {file key, encrypted, base64}
//! --- {HMAC of all before it, base64}
//! {nonce, 16 bytes}{chunks of 64 KiB and a tag of 16 bytes each, the last one shorter}
//! ```
//! Source: <https://age-encryption.org/v1> (C2SP). The primitives are those that TLS uses here.

mod header;
mod payload;
#[cfg(test)]
mod tests;

use std::io::{self, BufRead, Read};

use aws_lc_rs::aead::{self, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Salt};

use crate::error::{Error, ErrorKind, Result};
use crate::ltx::Identities;
use payload::Payload;

/// How an encrypted file begins.
pub(super) const MAGIC: &[u8] = b"age-encryption.org/v1\n";

/// The content of an encrypted file.
pub(super) struct Plaintext<R>(Payload<R>);

impl<R: BufRead> Plaintext<R> {
    /// Opens a file that begins with [`MAGIC`].
    ///
    /// # Errors
    /// `Denied` if none of `identities` opens it; `Corrupt`; what reading says.
    pub(super) fn open(mut reader: R, identities: &Identities) -> Result<Self> {
        let header = header::read(&mut reader)?;
        if identities.is_empty() {
            return Err(Error::new(
                ErrorKind::Denied,
                "it is encrypted with age; give age_identity_file, or age_identity",
            ));
        }
        let file_key = header.open(identities)?;
        Ok(Self(Payload::open(reader, &file_key)?))
    }
}

impl<R: BufRead> Read for Plaintext<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.0.read(buf)
    }
}

/// A key of 32 bytes derived from `secret`.
fn derive(secret: &[u8], salt: &[u8], purpose: &[u8]) -> [u8; 32] {
    struct Length;
    impl KeyType for Length {
        fn len(&self) -> usize {
            32
        }
    }
    let mut key = [0; 32];
    Salt::new(HKDF_SHA256, salt)
        .extract(secret)
        .expand(&[purpose], Length)
        .and_then(|okm| okm.fill(&mut key))
        .expect("BUG: 32 bytes can be derived");
    key
}

/// Decrypts `sealed` in place; `None` if it was not sealed with this key and nonce.
fn unseal<'a>(key: &[u8; 32], nonce: [u8; 12], sealed: &'a mut [u8]) -> Option<&'a [u8]> {
    let key = UnboundKey::new(&aead::CHACHA20_POLY1305, key).expect("BUG: the key has the right size");
    let nonce = Nonce::assume_unique_for_key(nonce);
    LessSafeKey::new(key).open_in_place(nonce, Aad::empty(), sealed).ok().map(|plain| &*plain)
}

fn broken(what: &str) -> Error {
    Error::corrupt(format!("its encryption is damaged: {what}"))
}

/// What reading failed with; an error of this crate comes out as it went in.
fn failure(e: io::Error) -> Error {
    match e.downcast::<Error>() {
        Ok(inner) => inner,
        Err(e) => broken(&e.to_string()),
    }
}
