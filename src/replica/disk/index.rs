//! Header and page index of an LTX file.
//!
//! ```text
//!   0    checksum u64         of the file's identity and all that follows
//!   8    LTX header           100 bytes, as in the LTX file
//!   108  page index           its varints, as in the LTX file
//! ```
//! Of a sealed file the end from the last frame on is there in place of the varints, as in the LTX file: what opens it,
//! and proves header and page index whenever they are read.
//!
//! It is written under another name and renamed, so that it is whole or not there.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::Path;

use super::{DiskFile, checksum};
use crate::ltx::{Header, Keyring, Outline, OutlineRead, PageIndex, Shape};
use crate::runtime;

const CHECKSUM: usize = 8;
/// Reading or writing this many bytes takes milliseconds.
const LONG: u64 = 1024 * 1024;
/// What a page takes in a page index, more or less.
const ENTRY: u64 = 10;
/// The name of the entry.
pub(super) const NAME: &str = "index";

impl DiskFile {
    /// Whether there is an entry of header and page index, whatever it is worth.
    pub(in crate::replica) fn has_index(&self) -> bool {
        self.folder.join(NAME).exists()
    }

    /// Header and page index of the file, which has `file_size` bytes, if they are here and `keyring` opens them.
    pub(in crate::replica) fn outline(&self, file_size: u64, keyring: &Keyring) -> Option<Outline> {
        let file = self.open(&self.folder.join(NAME)).ok()?;
        let size = file.metadata().ok()?.len();
        runtime::busy(size > LONG, || self.read_outline(file, file_size, keyring))
    }

    fn read_outline(&self, mut file: File, file_size: u64, keyring: &Keyring) -> Option<Outline> {
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).ok()?;
        let (sum, rest) = bytes.split_first_chunk::<CHECKSUM>()?;
        let (head, tail) = rest.split_first_chunk::<{ Header::SIZE }>()?;
        if u64::from_be_bytes(*sum) != self.index_checksum(rest) {
            return None;
        }
        let header = Header::decode(head).ok()?;
        if !header.is_sealed() {
            let index = PageIndex::decode(tail, Shape::PLAIN).ok()?;
            return Outline::plain(header, index, keyring).ok();
        }
        match Outline::read(head, tail, file_size, keyring) {
            Ok(OutlineRead::Outline(outline)) => Some(*outline),
            _ => None,
        }
    }

    /// Keeps header and page index of the file, which has `file_size` bytes: `head` are its first, `tail` its last ones.
    pub(in crate::replica) fn keep_outline(
        &self,
        outline: &Outline,
        head: &[u8],
        tail: &[u8],
        file_size: u64,
    ) {
        let is_long = outline.index.len() as u64 * ENTRY > LONG;
        runtime::busy(is_long, || self.write_outline(outline, head, tail, file_size));
    }

    fn write_outline(&self, outline: &Outline, head: &[u8], tail: &[u8], file_size: u64) {
        let mut bytes = vec![0; CHECKSUM];
        bytes.extend_from_slice(&head[..Header::SIZE]);
        match outline.index.iter().last().filter(|_| outline.codec.is_sealed()) {
            Some(last) => {
                let from_last = (file_size - last.offset) as usize;
                bytes.extend_from_slice(&tail[tail.len() - from_last..]);
            }
            None => bytes.extend_from_slice(&outline.index.encode()),
        }
        let sum = self.index_checksum(&bytes[CHECKSUM..]);
        bytes[..CHECKSUM].copy_from_slice(&sum.to_be_bytes());
        if self.disk.room.make(bytes.len() as u64) {
            self.disk.note(self.replace(&self.folder.join(NAME), &bytes));
        }
    }

    fn index_checksum(&self, bytes: &[u8]) -> u64 {
        checksum(&[&self.identity.to_be_bytes(), bytes])
    }

    fn replace(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let random = getrandom::u64().map_err(|e| io::Error::other(e.to_string()))?;
        let temporary = path.with_extension(format!("{random:016x}"));
        let written = self
            .create(&temporary)
            .and_then(|mut file| file.write_all(bytes))
            .and_then(|()| fs::rename(&temporary, path));
        if written.is_err() {
            // It may not even be there; the next sweep finds what is left.
            let _ = fs::remove_file(&temporary);
        }
        written
    }
}
