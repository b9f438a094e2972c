//! The content of an object: decrypted if it is encrypted, and decompressed.

use std::io::{self, BufReader, Read};

use lz4_flex::frame::FrameDecoder;

use super::age;
use super::broken;
use super::objects::Download;
use crate::error::{Error, ErrorKind, Result};
use crate::ltx::{Keyring, Plain};

/// Reads an object's content.
pub(super) struct Content {
    path: String,
    frames: FrameDecoder<Watched<Box<dyn Read>>>,
    ended: bool,
}

impl Content {
    /// The content of `download`.
    ///
    /// # Errors
    /// `Denied` if it is encrypted and nothing of `keyring` opens it, or if it is not and must be; `Corrupt`; those of
    /// the store.
    pub(super) fn open(mut download: Download, keyring: &Keyring) -> Result<Self> {
        let path = download.object.path.clone();
        let mut begin = vec![0; age::MAGIC.len()];
        let got = read_full(&mut download, &mut begin).map_err(|e| failure(&path, e))?;
        begin.truncate(got);
        let encrypted = begin == age::MAGIC;
        let whole = io::Cursor::new(begin).chain(download);
        let plain: Box<dyn Read> = if encrypted {
            let buffered = BufReader::with_capacity(64 * 1024, whole);
            Box::new(age::Plaintext::open(buffered, keyring.identities()).map_err(|e| e.context(&path))?)
        } else if keyring.plain() != Plain::Any {
            return Err(not_encrypted(&path));
        } else {
            Box::new(whole)
        };
        let frames = FrameDecoder::new(Watched { inner: plain, ended: false });
        Ok(Self { path, frames, ended: false })
    }

    /// Fills `buf` as far as there is content; returns how many bytes there were.
    ///
    /// # Errors
    /// `Corrupt`, naming the object; those of the store.
    pub(super) fn read(&mut self, buf: &mut [u8]) -> Result<usize> {
        let mut done = 0;
        while done < buf.len() && !self.ended {
            match self.frames.read(&mut buf[done..]) {
                Ok(0) => self.end()?,
                Ok(n) => done += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(failure(&self.path, e)),
            }
        }
        Ok(done)
    }

    /// At the end of a frame, which must be the end of the object. The decoder takes an object that was
    /// cut off between two blocks for one that ends there; but then it has met the object's end already.
    fn end(&mut self) -> Result<()> {
        if self.frames.get_ref().ended {
            return Err(broken(format!("{} is truncated", self.path)));
        }
        let mut next = [0];
        match self.frames.get_mut().read(&mut next) {
            Ok(0) => self.ended = true,
            Ok(_) => return Err(broken(format!("bytes follow the end of {}", self.path))),
            Err(e) => return Err(failure(&self.path, e)),
        }
        Ok(())
    }
}

/// Objects of Litestream 0.3 have no TXID up to which they might be taken.
fn not_encrypted(path: &str) -> Error {
    let message = format!(
        "{path} is not encrypted, and this replica is read as one that is: give require_encryption=0 if it never was; if \
         it was, somebody put it there"
    );
    Error::new(ErrorKind::Denied, message)
}

/// A reader that knows whether its end was met.
struct Watched<R> {
    inner: R,
    ended: bool,
}

impl<R: Read> Read for Watched<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buf)?;
        self.ended |= n == 0 && !buf.is_empty();
        Ok(n)
    }
}

/// Reads until `buf` is full or there is no more; returns how many bytes there were.
pub(super) fn read_full(reader: &mut impl Read, buf: &mut [u8]) -> io::Result<usize> {
    let mut done = 0;
    while done < buf.len() {
        match reader.read(&mut buf[done..]) {
            Ok(0) => break,
            Ok(n) => done += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(done)
}

/// What reading failed with: an error of this crate comes out as it went in, others are about the bytes.
fn failure(path: &str, e: io::Error) -> Error {
    match e.downcast::<Error>() {
        Ok(inner) if inner.kind() == ErrorKind::Corrupt => inner.context(path),
        Ok(inner) => inner,
        Err(e) => broken(format!("{path} cannot be read: {e}")),
    }
}
