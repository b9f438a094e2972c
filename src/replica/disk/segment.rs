//! The frames of an LTX file, as many of them as were read.
//!
//! A segment is a sparse file with 4 MiB of the LTX file: each frame is where it is in the LTX file,
//! and as it is there, but for its first six bytes. They hold page number and flags, which are known or
//! one bit; here they hold the checksum.
//!
//! ```text
//!   0  47 bits checksum, 1 bit flag: a size follows
//!   6  the rest of the frame
//! ```
//! A frame that begins in a segment ends in it, beyond the 4 MiB if need be. What was never written is
//! zeros or beyond the end, and fails the checksum like any other damage.

use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;

use super::{DiskFile, checksum};
use crate::ltx::{FrameCodec, IndexEntry};

/// How much of an LTX file is in a segment: what is removed at once when room is needed.
pub(super) const SEGMENT: u64 = 4 * 1024 * 1024;
/// The bytes of a frame that give way to the checksum: page number and flags.
const REPLACED: usize = 6;

impl DiskFile {
    /// Reads the page whose frame is at `entry` into `buf`; false if it is not here, or damaged.
    pub(in crate::replica) fn read(&self, entry: IndexEntry, codec: &FrameCodec, buf: &mut [u8]) -> bool {
        let mut frame = vec![0; entry.size as usize];
        let there =
            self.open(&self.segment(entry)).and_then(|file| file.read_exact_at(&mut frame, within(entry)));
        there.is_ok()
            && unseal(self.identity, entry, &mut frame)
            && codec.decode(&frame, buf).is_ok_and(|pgno| pgno == entry.pgno)
    }

    /// Keeps the frames at `entries`, which are in `bytes`, the part of the LTX file from `start` on.
    /// They must have been decoded: what is damaged would only be fetched again.
    pub(in crate::replica) fn keep(&self, mut entries: Vec<IndexEntry>, start: u64, bytes: &[u8]) {
        entries.sort_unstable_by_key(|entry| entry.offset);
        let together = |a: &IndexEntry, b: &IndexEntry| {
            a.offset + a.size == b.offset && a.offset / SEGMENT == b.offset / SEGMENT
        };
        for run in entries.chunk_by(together) {
            self.disk.note(self.write_run(run, start, bytes));
        }
    }

    /// Writes frames that lie side by side.
    fn write_run(&self, run: &[IndexEntry], start: u64, bytes: &[u8]) -> io::Result<()> {
        let (Some(first), Some(last)) = (run.first(), run.last()) else { return Ok(()) };
        let (begin, end) = (first.offset - start, last.offset + last.size - start);
        let mut sealed = bytes[begin as usize..end as usize].to_vec();
        let mut rest = sealed.as_mut_slice();
        for entry in run {
            let (frame, after) = rest.split_at_mut(entry.size as usize);
            seal(self.identity, *entry, frame);
            rest = after;
        }
        if !self.disk.room.make(sealed.len() as u64) {
            return Ok(());
        }
        self.create(&self.segment(*first))?.write_all_at(&sealed, within(*first))
    }

    fn segment(&self, entry: IndexEntry) -> PathBuf {
        self.folder.join(format!("{:x}", entry.offset / SEGMENT))
    }
}

fn within(entry: IndexEntry) -> u64 {
    entry.offset % SEGMENT
}

/// Puts a checksum into a frame.
fn seal(identity: u64, entry: IndexEntry, frame: &mut [u8]) {
    let flag = u64::from(frame[REPLACED - 1] & 1);
    let word = frame_checksum(identity, entry, flag, frame) << 1 | flag;
    frame[..REPLACED].copy_from_slice(&word.to_be_bytes()[2..]);
}

/// Restores a frame; false if it is not what was sealed.
fn unseal(identity: u64, entry: IndexEntry, frame: &mut [u8]) -> bool {
    let mut word = [0; 8];
    word[2..].copy_from_slice(&frame[..REPLACED]);
    let word = u64::from_be_bytes(word);
    let (sum, flag) = (word >> 1, word & 1);
    frame[..4].copy_from_slice(&entry.pgno.get().to_be_bytes());
    frame[4..REPLACED].copy_from_slice(&[0, flag as u8]);
    sum == frame_checksum(identity, entry, flag, frame)
}

/// 47 bits of the checksum of a frame, of which it is, and of where it is.
fn frame_checksum(identity: u64, entry: IndexEntry, flag: u64, frame: &[u8]) -> u64 {
    let place = [identity, u64::from(entry.pgno.get()), entry.offset, entry.size, flag];
    checksum(&[place.map(u64::to_be_bytes).as_flattened(), &frame[REPLACED..]]) >> 17
}
