//! The encrypted content: chunks, each sealed with its number and with whether it is the last.

use std::io::{self, BufRead, Read};

use super::{broken, derive, failure, unseal};
use crate::error::{Error, Result};

/// The content of a chunk but the last.
const CHUNK: usize = 64 * 1024;
const TAG: usize = 16;
const NONCE: usize = 16;

/// Decrypts chunk after chunk.
pub(super) struct Payload<R> {
    reader: R,
    key: [u8; 32],
    /// The number of the next chunk.
    next: u64,
    /// Whether the last chunk was read.
    ended: bool,
    /// The content of a chunk, of which `at..` was not read yet.
    plain: Vec<u8>,
    at: usize,
}

impl<R: BufRead> Payload<R> {
    /// Reads what follows the header of a file whose key is `file_key`.
    pub(super) fn open(mut reader: R, file_key: &[u8; 16]) -> Result<Self> {
        let mut nonce = [0; NONCE];
        reader.read_exact(&mut nonce).map_err(failure)?;
        let key = derive(file_key, &nonce, b"payload");
        Ok(Self { reader, key, next: 0, ended: false, plain: Vec::new(), at: 0 })
    }

    fn read_chunk(&mut self) -> Result<()> {
        let mut sealed = vec![0; CHUNK + TAG];
        let mut got = 0;
        while got < sealed.len() {
            match self.reader.read(&mut sealed[got..]) {
                Ok(0) => break,
                Ok(n) => got += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(failure(e)),
            }
        }
        sealed.truncate(got);
        let last = self.reader.fill_buf().map_err(failure)?.is_empty();
        let plain = unseal(&self.key, self.nonce(last), &mut sealed)
            .ok_or_else(|| broken("a part of it was changed or cut off"))?;
        if plain.is_empty() && self.next > 0 {
            return Err(broken("its last part is empty"));
        }
        (self.plain, self.at) = (plain.to_vec(), 0);
        (self.next, self.ended) = (self.next + 1, last);
        Ok(())
    }

    /// The number of the next chunk in 11 bytes, and 1 for the last.
    fn nonce(&self, last: bool) -> [u8; 12] {
        let mut nonce = [0; 12];
        nonce[3..11].copy_from_slice(&self.next.to_be_bytes());
        nonce[11] = u8::from(last);
        nonce
    }
}

impl<R: BufRead> Read for Payload<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.at == self.plain.len() && !self.ended {
            self.read_chunk().map_err(|e: Error| io::Error::other(e))?;
        }
        let n = buf.len().min(self.plain.len() - self.at);
        buf[..n].copy_from_slice(&self.plain[self.at..self.at + n]);
        self.at += n;
        Ok(n)
    }
}
