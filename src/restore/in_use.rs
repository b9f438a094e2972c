//! Whether a database is open somewhere.
//!
//! Asking with a lock of our own is not possible: to close the descriptor that takes it would drop
//! the locks of every connection that this process has to the database (POSIX). Linux lists all locks
//! instead, and every connection in WAL mode holds one as long as it is open. Elsewhere, and for idle
//! connections in other journal modes, an open database is not noticed: they go on with the file that
//! was replaced.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use super::output::beside;
use crate::error::{Error, ErrorKind, Result};

/// Refuses if somebody holds a lock on the database or its shared memory.
///
/// # Errors
/// `Busy`.
pub(super) fn in_use(database: &Path) -> Result<()> {
    let Ok(locks) = fs::read_to_string("/proc/locks") else { return Ok(()) };
    for path in [database.to_owned(), beside(database, "-shm")] {
        let Ok(file) = fs::metadata(&path) else { continue };
        if let Some(pid) = holder(&locks, file.dev(), file.ino()) {
            return Err(Error::new(
                ErrorKind::Busy,
                format!(
                    "cannot replace {}: process {pid} has it open; close its connections first",
                    database.display()
                ),
            ));
        }
    }
    Ok(())
}

/// The process that holds a lock on a file.
///
/// ```text
/// 1: POSIX  ADVISORY  WRITE 708 08:01:1234 1073741824 1073741824
///    kind, mandatory, access, pid, major:minor:inode, first byte, last byte
/// ```
/// Device numbers are hexadecimal; a waiting request has `->` behind the number.
fn holder(locks: &str, dev: u64, inode: u64) -> Option<&str> {
    let major = ((dev >> 32) & 0xffff_f000) | ((dev >> 8) & 0xfff);
    let minor = ((dev >> 12) & 0xffff_ff00) | (dev & 0xff);
    let file = format!("{major:02x}:{minor:02x}:{inode}");
    locks.lines().find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().filter(|field| *field != "->").collect();
        (fields.get(5) == Some(&file.as_str())).then(|| fields[4])
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locks_are_found_by_device_and_inode() {
        let locks = "1: POSIX  ADVISORY  READ 708 08:01:1234 128 128\n\
                     1: -> POSIX  ADVISORY  WRITE 709 fd:10:77 0 EOF\n";
        assert_eq!(holder(locks, 0x801, 1234), Some("708"));
        assert_eq!(holder(locks, 0xfd10, 77), Some("709"));
        assert_eq!(holder(locks, 0x801, 77), None);
    }
}
