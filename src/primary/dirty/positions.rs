//! The publisher's positions, for those who restart the WAL: its cursors, and the ends of views that it is about to
//! publish. A committing thread looks in the WAL which checksums these frames have now, while they can still be read.

use std::fs::{File, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use crc_fast::CrcAlgorithm;

use crate::error::{Error, Result};
use crate::files;
use crate::primary::dirty::Position;
use crate::wal::{Checksum, FrameNo, Salts};

/// What the file begins with: its kind, and the version of its form.
const MAGIC: [u8; 8] = *b"LSVPOS\0\x01";
/// The size of one position.
const POSITION: usize = 24;
/// More positions than this are not kept: the last ones are left out.
const MOST: usize = 128;
/// The largest file.
const LIMIT: usize = MAGIC.len() + 4 + MOST * POSITION + 8;
/// So often a reader looks again when it meets the publisher in the middle of a write.
const LOOKS: usize = 3;

/// The file of positions. It stays in its place, and is written over as a whole; integers are big-endian.
///
/// ```text
///  0  magic       "LSVPOS", 0, version u8: 1
///  8  count       u32
/// 12  positions   count x 24 bytes: salts 2 x u32, frame u32, checksum 2 x u32, change u32
///  .  checksum    u64  CRC-64/NVME of all before
///  .  what follows is left over from more positions
/// ```
#[derive(Debug)]
pub(in crate::primary) struct Positions {
    path: PathBuf,
}

impl Positions {
    /// The positions of the database whose local state is in `state_folder`.
    pub(in crate::primary) fn new(state_folder: &Path) -> Self {
        Self { path: super::journal::folder(state_folder).join("positions") }
    }

    /// Replaces the positions. To be called before a view is released that is to become a cursor, and with fewer
    /// of them when one was given up.
    ///
    /// # Errors
    /// `Io`, `NoSpace`, `Denied`, naming the file: a position that is not there costs a comparison of all pages if
    /// the WAL is restarted before the publisher looks again.
    pub(in crate::primary) fn write(&self, positions: &[Position]) -> Result<()> {
        let bytes = encode(&positions[..positions.len().min(MOST)]);
        self.open().and_then(|file| file.write_all_at(&bytes, 0)).map_err(|e| {
            Error::io(format_args!("cannot write {}: check the folder and its disk", self.path.display()), e)
        })
    }

    fn open(&self) -> std::io::Result<File> {
        match OpenOptions::new().write(true).open(&self.path) {
            Err(e) if e.kind() == ErrorKind::NotFound => {
                files::create_folders(self.path.parent().unwrap_or(Path::new(".")))?;
                files::open(&self.path, OpenOptions::new().write(true))
            }
            other => other,
        }
    }

    /// The positions; none if they cannot be read.
    pub(in crate::primary) fn read(&self) -> Vec<Position> {
        let Ok(file) = File::open(&self.path) else { return Vec::new() };
        (0..LOOKS).find_map(|_| read_once(&file)).unwrap_or_default()
    }
}

fn encode(positions: &[Position]) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    bytes.extend((positions.len() as u32).to_be_bytes());
    for Position { salts, frame, checksum, change } in positions {
        for word in [salts.0, salts.1, frame.0, checksum.0, checksum.1, *change] {
            bytes.extend(word.to_be_bytes());
        }
    }
    bytes.extend(crc_fast::checksum(CrcAlgorithm::Crc64Nvme, &bytes).to_be_bytes());
    bytes
}

fn read_once(file: &File) -> Option<Vec<Position>> {
    let mut bytes = [0; LIMIT];
    let mut length = 0;
    while length < LIMIT {
        match file.read_at(&mut bytes[length..], length as u64).ok()? {
            0 => break,
            n => length += n,
        }
    }
    decode(&bytes[..length])
}

fn decode(bytes: &[u8]) -> Option<Vec<Position>> {
    let (count, rest) = bytes.strip_prefix(&MAGIC)?.split_first_chunk()?;
    let length = usize::try_from(u32::from_be_bytes(*count)).ok()?.checked_mul(POSITION)?;
    let (positions, rest) = rest.split_at_checked(length)?;
    let covered = &bytes[..MAGIC.len() + 4 + length];
    let is_whole =
        crc_fast::checksum(CrcAlgorithm::Crc64Nvme, covered) == u64::from_be_bytes(*rest.first_chunk()?);
    let position = |bytes: &[u8; POSITION]| {
        let word = |at: usize| u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        Position {
            salts: Salts(word(0), word(4)),
            frame: FrameNo(word(8)),
            checksum: Checksum(word(12), word(16)),
            change: word(20),
        }
    };
    is_whole.then(|| positions.as_chunks().0.iter().map(position).collect())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn position(n: u32) -> Position {
        Position { salts: Salts(n, 1), frame: FrameNo(n), checksum: Checksum(n, 2), change: n }
    }

    #[test]
    fn the_file_keeps_its_place_and_has_what_was_written_last() {
        let folder = tempfile::tempdir().unwrap();
        let database = folder.path().join("app.db");
        fs::write(&database, "").unwrap();
        fs::set_permissions(&database, fs::Permissions::from_mode(0o640)).unwrap();
        let state = files::state_folder(&database);
        let positions = Positions::new(&state);
        assert_eq!(positions.read(), []);
        positions.write(&[position(1), position(2)]).unwrap();
        let kept_open = File::open(&positions.path).unwrap();
        assert_eq!(kept_open.metadata().unwrap().permissions().mode() & 0o777, 0o640);
        for count in [3, 1, 0, 2] {
            let now: Vec<_> = (1..=count).map(position).collect();
            positions.write(&now).unwrap();
            assert_eq!(positions.read(), now);
            assert_eq!(read_once(&kept_open), Some(now));
        }
    }

    #[test]
    fn a_file_that_is_not_whole_has_no_positions() {
        let whole = encode(&[position(1), position(2)]);
        for length in 0..whole.len() {
            assert_eq!(decode(&whole[..length]), None);
        }
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 1;
            assert_eq!(decode(&bytes), None, "byte {at}");
        }
        assert_eq!(decode(&whole).unwrap().len(), 2);
    }
}
