//! Header and page index of an LTX file.
//!
//! ```text
//!   0    checksum u64         of the file's identity and all that follows
//!   8    LTX header           100 bytes
//!   108  page index           its varints, as in the LTX file
//! ```
//! It is written under another name and renamed, so that it is whole or not there.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::Path;

use super::{DiskFile, checksum};
use crate::ltx::{Header, PageIndex};
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

    /// Header and page index, if they are here.
    pub(in crate::replica) fn index(&self) -> Option<(Header, PageIndex)> {
        let file = self.open(&self.folder.join(NAME)).ok()?;
        let size = file.metadata().ok()?.len();
        runtime::busy(size > LONG, || self.read_index(file))
    }

    fn read_index(&self, mut file: File) -> Option<(Header, PageIndex)> {
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).ok()?;
        let (sum, rest) = bytes.split_first_chunk::<CHECKSUM>()?;
        let header = rest.first_chunk::<{ Header::SIZE }>()?;
        if u64::from_be_bytes(*sum) != self.index_checksum(rest) {
            return None;
        }
        Some((Header::decode(header).ok()?, PageIndex::decode(&rest[Header::SIZE..]).ok()?))
    }

    /// Keeps header and page index.
    pub(in crate::replica) fn keep_index(&self, header: &Header, index: &PageIndex) {
        runtime::busy(index.len() as u64 * ENTRY > LONG, || self.write_index(header, index));
    }

    fn write_index(&self, header: &Header, index: &PageIndex) {
        let mut bytes = vec![0; CHECKSUM];
        bytes.extend_from_slice(&header.encode());
        bytes.extend_from_slice(&index.encode());
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
