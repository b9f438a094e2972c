//! The text before the encrypted content.

use std::io::{BufRead, Read as _};

use aws_lc_rs::agreement::{UnparsedPublicKey, X25519, agree};
use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;

use super::{MAGIC, broken, derive, failure, unseal};
use crate::error::{Error, ErrorKind, Result};
use crate::ltx::{Identities, Identity};

/// What a key is derived for.
const PURPOSE: &[u8] = b"age-encryption.org/v1/X25519";
/// More is no header.
const LARGEST: u64 = 64 * 1024;
/// A full line of a stanza's body; a shorter one ends it.
const FULL_LINE: usize = 64;

/// What the header says.
pub(super) struct Header {
    /// Ephemeral key and sealed file key, for each X25519 recipient.
    stanzas: Vec<([u8; 32], [u8; 32])>,
    /// What the MAC covers.
    covered: Vec<u8>,
    mac: [u8; 32],
}

/// Reads a header, up to and with its last line.
pub(super) fn read(reader: &mut impl BufRead) -> Result<Header> {
    let mut lines = Lines { reader, read: Vec::new() };
    if lines.next()?.as_bytes() != &MAGIC[..MAGIC.len() - 1] {
        return Err(broken("it is of another version"));
    }
    let mut stanzas = Vec::new();
    loop {
        let line = lines.next()?;
        if let Some(mac) = line.strip_prefix("---") {
            let mac = mac.strip_prefix(' ').and_then(decode).ok_or_else(|| broken("it has no MAC"))?;
            let covered = lines.read[..lines.read.len() - line.len() - 1 + 3].to_vec();
            return Ok(Header { stanzas, covered, mac });
        }
        let arguments = line.strip_prefix("-> ").ok_or_else(|| broken("a stanza has no beginning"))?;
        let body = body(&mut lines)?;
        if let Some(ephemeral) = arguments.strip_prefix("X25519 ") {
            let stanza = decode(ephemeral).zip(decode(&body));
            stanzas.push(stanza.ok_or_else(|| broken("a stanza is malformed"))?);
        }
    }
}

/// The lines of a stanza's body, joined.
fn body(lines: &mut Lines<'_, impl BufRead>) -> Result<String> {
    let mut body = String::new();
    loop {
        let line = lines.next()?;
        body.push_str(&line);
        if line.len() < FULL_LINE {
            return Ok(body);
        }
    }
}

impl Header {
    /// The file key, opened with one of `identities`.
    ///
    /// # Errors
    /// `Denied` if none fits; `Corrupt` if the header was changed.
    pub(super) fn open(&self, identities: &Identities) -> Result<[u8; 16]> {
        let opened = |(ephemeral, sealed): &([u8; 32], [u8; 32])| {
            identities.find_map(|identity| unwrap(identity, ephemeral, sealed))
        };
        let key = self.stanzas.iter().find_map(opened);
        let key = key.ok_or_else(|| {
            Error::new(ErrorKind::Denied, "it is encrypted with age, and not for any of the identities given")
        })?;
        let mac = hmac::Key::new(hmac::HMAC_SHA256, &derive(&key, &[], b"header"));
        hmac::verify(&mac, &self.covered, &self.mac).map_err(|_| broken("the header was changed"))?;
        Ok(key)
    }
}

/// The file key that was sealed to `identity`.
fn unwrap(identity: &Identity, ephemeral: &[u8; 32], sealed: &[u8; 32]) -> Option<[u8; 16]> {
    let salt = [ephemeral.as_slice(), &identity.public].concat();
    let theirs = UnparsedPublicKey::new(&X25519, ephemeral.as_slice());
    let key = agree(&identity.secret, theirs, (), |shared| Ok(derive(shared, &salt, PURPOSE))).ok()?;
    let mut sealed = *sealed;
    unseal(&key, [0; 12], &mut sealed)?.try_into().ok()
}

/// 32 bytes in base64.
fn decode(text: &str) -> Option<[u8; 32]> {
    STANDARD_NO_PAD.decode(text).ok()?.try_into().ok()
}

/// The lines of a header, and all that was read.
struct Lines<'a, R> {
    reader: &'a mut R,
    read: Vec<u8>,
}

impl<R: BufRead> Lines<'_, R> {
    /// The next line without its end.
    fn next(&mut self) -> Result<String> {
        let from = self.read.len();
        let left = LARGEST.saturating_sub(from as u64);
        self.reader.by_ref().take(left).read_until(b'\n', &mut self.read).map_err(failure)?;
        let line = self.read[from..].strip_suffix(b"\n").ok_or_else(|| broken("the header has no end"))?;
        String::from_utf8(line.to_vec()).map_err(|_| broken("the header is no text"))
    }
}
