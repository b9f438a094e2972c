//! What is known of the local file, beside it: what a process that opens it again may believe.
//!
//! ```text
//!   0   8  "LSHYDR02"
//!   8   4  length of the description, big-endian
//!  12   n  the description, JSON
//!        m  one bit for each page of the database: whether the file has it
//!        m  one bit for each page: whether it is of an LTX file that did not pass its checksum yet
//!        m  one bit for each page: whether it is not there, and its own checksum is
//!        8  CRC-64/GO-ISO of all before, big-endian
//! ```
//!
//! It is written after what it speaks of is on disk. A page that is in it as present may since have
//! been replaced by a later version; that one is of a later transaction than the record, so who opens
//! the file again fetches it anew.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use crc_fast::{CrcAlgorithm, checksum};
use serde::{Deserialize, Serialize};

use super::bits::Bits;
use super::parts::Parts;
use crate::store::{FileInfo, stored_url};

const MAGIC: &[u8; 8] = b"LSHYDR02";
const CRC: usize = 8;

/// The description.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    /// The replica's URL.
    #[serde(with = "stored_url")]
    pub(super) url: String,
    pub(super) page_size: u32,
    /// The size of the database in pages.
    pub(super) commit: u32,
    /// The last transaction that the pages are of.
    pub(super) txid: u64,
    /// The files that held them.
    pub(super) files: Vec<Origin>,
    /// The parts that were read of files that did not pass their checksum yet.
    pub(super) parts: Vec<(Origin, Parts)>,
}

/// The pages of a file, as the record has them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Pages {
    /// Those that the file has.
    pub(super) here: Bits,
    /// Those among them that are of an LTX file which did not pass its checksum yet.
    pub(super) unproven: Bits,
    /// Those that the file does not have any more, and whose checksums are there.
    pub(super) lost: Bits,
}

/// A file of the replica as it was listed.
#[derive(Clone, Copy, Debug, Eq, Serialize, Deserialize)]
pub(super) struct Origin {
    level: u8,
    min: u64,
    max: u64,
    size: u64,
    timestamp: i64,
}

/// Equal to the second: a file that came by its name has no finer time.
impl PartialEq for Origin {
    fn eq(&self, other: &Self) -> bool {
        let second = |origin: &Self| origin.timestamp.div_euclid(1000);
        self.is_named_as(other) && (self.size, second(self)) == (other.size, second(other))
    }
}

impl From<&FileInfo> for Origin {
    fn from(file: &FileInfo) -> Self {
        Self {
            level: file.id.level.get(),
            min: file.id.name.min().get(),
            max: file.id.name.max().get(),
            size: file.size,
            timestamp: file.timestamp.as_millis(),
        }
    }
}

impl Origin {
    /// Whether both have the same name.
    fn is_named_as(&self, other: &Self) -> bool {
        (self.level, self.min, self.max) == (other.level, other.min, other.max)
    }
}

impl Record {
    /// Whether a database of the files `now` may be the one of this record: some files are the same, and
    /// none is another of the same name.
    pub(super) fn is_of(&self, now: &[Origin]) -> bool {
        let other = |a: &Origin| now.iter().any(|b| a.is_named_as(b) && a != b);
        self.files.iter().any(|file| now.contains(file)) && !self.files.iter().any(other)
    }

    /// Writes the record for the file at `path`, in place of the one that is there.
    ///
    /// # Errors
    /// Those of the file system.
    pub(super) fn write(&self, pages: &Pages, path: &Path) -> io::Result<()> {
        let description = serde_json::to_vec(self)?;
        let bits = [&pages.here, &pages.unproven, &pages.lost].map(Bits::as_bytes).concat();
        let mut bytes = Vec::with_capacity(MAGIC.len() + 4 + description.len() + bits.len() + CRC);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&(description.len() as u32).to_be_bytes());
        bytes.extend_from_slice(&description);
        bytes.extend_from_slice(&bits);
        let crc = checksum(CrcAlgorithm::Crc64GoIso, &bytes);
        bytes.extend_from_slice(&crc.to_be_bytes());
        let (record, new) = (record_path(path), path_with(path, "-record.new"));
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        fs::rename(&new, &record)
    }

    /// The record of the file at `path`; `None` if there is none that is whole.
    pub(super) fn read(path: &Path) -> Option<(Self, Pages)> {
        let bytes = fs::read(record_path(path)).ok()?;
        let (body, crc) = bytes.split_last_chunk::<CRC>()?;
        if checksum(CrcAlgorithm::Crc64GoIso, body) != u64::from_be_bytes(*crc) {
            return None;
        }
        let (len, rest) = body.strip_prefix(MAGIC)?.split_first_chunk::<4>()?;
        let (description, bits) = rest.split_at_checked(u32::from_be_bytes(*len) as usize)?;
        let mut sets = bits.chunks((bits.len() / 3).max(1)).map(|set| Bits::from_bytes(set.to_vec()));
        let pages = Pages { here: sets.next()?, unproven: sets.next()?, lost: sets.next()? };
        Some((serde_json::from_slice(description).ok()?, pages))
    }

    /// Removes the record of the file at `path`, if there is one.
    ///
    /// # Errors
    /// Those of the file system.
    pub(super) fn remove(path: &Path) -> io::Result<()> {
        match fs::remove_file(record_path(path)) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
            _ => Ok(()),
        }
    }
}

/// What is added to the name of a hydration file for its record.
pub(super) const SUFFIX: &str = "-record";

fn record_path(path: &Path) -> PathBuf {
    path_with(path, SUFFIX)
}

pub(super) fn path_with(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::page::{PageCount, Pgno};

    fn origin(max: u64, size: u64) -> Origin {
        Origin { level: 0, min: max, max, size, timestamp: 7 }
    }

    fn record(files: Vec<Origin>) -> Record {
        Record {
            url: "s3://b/app".to_owned(),
            page_size: 4096,
            commit: 11,
            txid: 5,
            files,
            parts: Vec::new(),
        }
    }

    #[test]
    fn what_was_written_is_read_and_what_is_damaged_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("hydration.db");
        assert!(Record::read(&path).is_none());
        let mut pages = Pages::default();
        for (bits, pgno) in [(&mut pages.here, 3), (&mut pages.unproven, 10), (&mut pages.lost, 9)] {
            bits.resize(PageCount::new(11));
            bits.add(Pgno::new(pgno).unwrap());
        }
        let mut record = record(vec![origin(5, 100)]);
        record.parts.push((origin(5, 100), Parts::default()));
        record.write(&pages, &path).unwrap();
        assert_eq!(Record::read(&path).unwrap(), (record, pages));
        let good = fs::read(record_path(&path)).unwrap();
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            fs::write(record_path(&path), &bad).unwrap();
            assert!(Record::read(&path).is_none(), "byte {at}");
            fs::write(record_path(&path), &good[..at]).unwrap();
            assert!(Record::read(&path).is_none(), "cut off at {at}");
        }
        Record::remove(&path).unwrap();
        Record::remove(&path).unwrap();
        assert!(Record::read(&path).is_none());
    }

    #[test]
    fn another_database_is_told_by_its_files() {
        let record = record(vec![origin(1, 100), origin(2, 100)]);
        assert!(record.is_of(&[origin(1, 100), origin(9, 100)]));
        assert!(!record.is_of(&[origin(8, 100), origin(9, 100)]));
        assert!(!record.is_of(&[origin(1, 100), origin(2, 101)]));
    }
}
