//! Bytes that are still wanted when the file in the replica they came from is gone: in memory up to a
//! limit, beyond that in unnamed temporary files, which end with the last of their bytes.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

use crate::error::Result;
use crate::ltx::{Decoder, Keyring};

/// What is kept in memory.
const MEMORY: usize = 4 * 1024 * 1024;
/// What an entry in memory takes beyond its bytes.
const ENTRY: usize = 64;
/// A temporary file of this size gets no more.
const SEGMENT: u64 = 16 * 1024 * 1024;

/// Keeps bytes.
#[derive(Debug, Default)]
pub(super) struct Keep {
    memory: Arc<AtomicUsize>,
    segment: Mutex<Option<Segment>>,
}

#[derive(Debug)]
struct Segment {
    file: Arc<File>,
    used: u64,
}

/// Bytes that are kept for as long as this lives.
#[derive(Debug)]
pub(super) struct Kept(Place);

#[derive(Debug)]
enum Place {
    Memory(Bytes, #[expect(dead_code, reason = "gives the memory back when it is dropped")] Share),
    Disk { file: Arc<File>, start: u64, len: usize },
}

/// A part of the memory.
#[derive(Debug)]
struct Share {
    memory: Arc<AtomicUsize>,
    bytes: usize,
}

impl Drop for Share {
    fn drop(&mut self) {
        self.memory.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl Keep {
    /// Keeps `bytes`; `None` if there is neither memory nor a temporary file for them.
    pub(super) fn keep(&self, bytes: Bytes) -> Option<Kept> {
        match self.share(bytes.len() + ENTRY) {
            Some(share) => Some(Kept(Place::Memory(bytes, share))),
            None => self
                .write(&bytes)
                .inspect_err(|e| tracing::debug!(error = %e, "cannot keep bytes of a replica"))
                .ok(),
        }
    }

    #[cfg(test)]
    fn memory(&self) -> usize {
        self.memory.load(Ordering::Relaxed)
    }

    fn share(&self, bytes: usize) -> Option<Share> {
        let add = |used: usize| used.checked_add(bytes).filter(|sum| *sum <= MEMORY);
        self.memory.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add).ok()?;
        Some(Share { memory: self.memory.clone(), bytes })
    }

    fn write(&self, bytes: &[u8]) -> io::Result<Kept> {
        let mut draft = self.draft(bytes.len())?;
        draft.write(bytes)?;
        Ok(draft.finish())
    }

    /// A place for `len` bytes that come in parts and are not to be in memory.
    ///
    /// # Errors
    /// Those of the temporary file.
    pub(super) fn draft(&self, len: usize) -> io::Result<Draft> {
        let mut segment = self.segment.lock().unwrap_or_else(PoisonError::into_inner);
        let mut current = match segment.take() {
            // Nobody else has it: all that was in it is gone.
            Some(only) if Arc::strong_count(&only.file) == 1 => Segment { used: 0, ..only },
            Some(current) if current.used < SEGMENT => current,
            _ => Segment { file: Arc::new(unnamed()?), used: 0 },
        };
        let start = current.used;
        current.used += len as u64;
        let file = current.file.clone();
        *segment = Some(current);
        Ok(Draft { file, start, written: 0, len })
    }
}

/// Bytes that are being written.
#[derive(Debug)]
pub(super) struct Draft {
    file: Arc<File>,
    start: u64,
    written: usize,
    len: usize,
}

impl Draft {
    /// Adds the next bytes.
    ///
    /// # Errors
    /// Those of the temporary file, and if they are more than were announced.
    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if bytes.len() > self.len - self.written {
            return Err(io::Error::other("more bytes than were announced"));
        }
        self.file.write_all_at(bytes, self.start + self.written as u64)?;
        self.written += bytes.len();
        Ok(())
    }

    /// Whether all bytes are there.
    pub(super) fn is_whole(&self) -> bool {
        self.written == self.len
    }

    /// All of them.
    pub(super) fn finish(self) -> Kept {
        Kept(Place::Disk { file: self.file, start: self.start, len: self.len })
    }
}

impl Kept {
    /// `len` of the bytes, from `start` on.
    ///
    /// # Errors
    /// Those of the temporary file.
    ///
    /// # Panics
    /// If there are not so many.
    pub(super) fn read(&self, start: u64, len: usize) -> io::Result<Bytes> {
        match &self.0 {
            Place::Memory(bytes, _) => Ok(bytes.slice(start as usize..start as usize + len)),
            Place::Disk { file, start: from, len: all } => {
                assert!(start as usize + len <= *all, "BUG: more bytes than were kept");
                let mut bytes = vec![0; len];
                file.read_exact_at(&mut bytes, from + start)?;
                Ok(bytes.into())
            }
        }
    }

    /// Reads all of it as an LTX file of `size` bytes, and compares its checksums.
    ///
    /// # Errors
    /// `Corrupt`; `Denied` if `keyring` does not open it; those of the temporary file.
    pub(super) fn verify(&self, size: u64, keyring: &Keyring) -> Result<()> {
        Decoder::open(KeptReader { kept: self, start: 0, size }, keyring)?.finish().map(drop)
    }
}

/// Reads kept bytes from the beginning to the end.
struct KeptReader<'a> {
    kept: &'a Kept,
    start: u64,
    size: u64,
}

impl io::Read for KeptReader<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let len = (self.size - self.start).min(buf.len() as u64) as usize;
        buf[..len].copy_from_slice(&self.kept.read(self.start, len)?);
        self.start += len as u64;
        Ok(len)
    }
}

/// A file that has no name and is gone when it is closed.
fn unnamed() -> io::Result<File> {
    let number = getrandom::u64().map_err(io::Error::other)?;
    let path = std::env::temp_dir().join(format!(".litestream-{number:016x}"));
    let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path)?;
    std::fs::remove_file(&path)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_bounded_and_given_back_and_the_rest_is_on_disk() {
        let keep = Keep::default();
        let part = |n: u8| Bytes::from(vec![n; 1024 * 1024]);
        let kept: Vec<Kept> = (0..40).map(|n| keep.keep(part(n)).unwrap()).collect();
        assert!(keep.memory() <= MEMORY);
        let on_disk = |kept: &[Kept]| kept.iter().filter(|k| matches!(k.0, Place::Disk { .. })).count();
        assert_eq!(on_disk(&kept), 37);
        for (n, kept) in kept.iter().enumerate() {
            assert_eq!(kept.read(0, 1024 * 1024).unwrap(), part(n as u8));
            assert_eq!(kept.read(1000, 24).unwrap(), part(n as u8)[1000..1024]);
        }
        drop(kept);
        assert_eq!(keep.memory(), 0);
        let again: Vec<Kept> = (0..5).map(|n| keep.keep(part(n)).unwrap()).collect();
        assert_eq!(on_disk(&again), 2);
        // The last temporary file was empty again and is used from its beginning.
        assert_eq!(keep.segment.lock().unwrap().as_ref().unwrap().used, 2 * 1024 * 1024);
        assert_eq!(again[4].read(5, 7).unwrap(), part(4)[5..12]);
    }
}
