//! Writing that never waits: what cannot be taken at once is left out.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FileType, Mode, OFlags, RawMode, fstat};
use rustix::io::Errno;
use rustix::net::{SendFlags, send};

use crate::signals;

/// A write of so many bytes to a pipe that can be written to does not wait (`PIPE_BUF`).
const AT_ONCE: usize = 4096;

/// Where lines go.
#[derive(Debug)]
pub(super) enum Out {
    /// Whatever the host has as standard error at the time of the write.
    Stderr,
    /// A file that was opened by [`open`], and its path.
    File(File, PathBuf),
}

/// Opens a log file, which is made if it is not there. A FIFO is opened whether it is read or not: what is
/// written waits in it for a reader.
///
/// # Errors
/// Those of the file system.
fn open(path: &Path) -> io::Result<File> {
    let mut options = File::options();
    options.append(true).create(true).custom_flags(OFlags::NONBLOCK.bits().cast_signed());
    match options.open(path) {
        Err(e) if Errno::from_io_error(&e) == Some(Errno::NXIO) => options.read(true).open(path),
        other => other,
    }
}

impl Out {
    /// The log file `path`.
    ///
    /// # Errors
    /// What to tell of a file that cannot be opened.
    pub(super) fn file(path: PathBuf) -> Result<Self, String> {
        match open(&path) {
            Ok(file) => Ok(Self::File(file, path)),
            Err(e) => Err(format!(
                "cannot open the log file {}: {e}; events are written here. LITESTREAM_LOG_FILE names it",
                path.display()
            )),
        }
    }

    /// What to tell of a write that failed with `error`; `None` if a later one may succeed, or if there is
    /// nowhere to tell it.
    pub(super) fn complaint(&self, error: Errno) -> Option<String> {
        match self {
            Self::File(_, path) if error != Errno::AGAIN => Some(format!(
                "cannot write to the log file {}: {error}; lines are missing there",
                path.display()
            )),
            _ => None,
        }
    }

    /// Writes what can be written at once; returns how many bytes that are.
    ///
    /// # Errors
    /// Those of the system, if nothing was written; `AGAIN` if nothing can be without waiting.
    pub(super) fn write(&self, bytes: &[u8]) -> rustix::io::Result<usize> {
        // The reader of a pipe may have gone: that must not end the host.
        let _blocked = signals::block_broken_pipes();
        match self {
            Self::Stderr => write_to_shared(io::stderr().as_fd(), bytes),
            Self::File(file, _) => write_all(bytes, |rest| rustix::io::write(file, rest)),
        }
    }
}

/// Writes to a file that others have opened, and that may wait for them: its own mode stays as it is.
fn write_to_shared(to: BorrowedFd<'_>, bytes: &[u8]) -> rustix::io::Result<usize> {
    match FileType::from_raw_mode(fstat(to)?.st_mode as RawMode) {
        FileType::Socket => write_all(bytes, |rest| send(to, rest, SendFlags::DONTWAIT)),
        FileType::Fifo | FileType::CharacterDevice => match opened_again(to) {
            Ok(own) => write_all(bytes, |rest| rustix::io::write(&own, rest)),
            // Nobody has the other end of the pipe.
            Err(Errno::NXIO) => Ok(0),
            // It belongs to another user, or there is no `/proc`.
            Err(_) => write_all(bytes, |rest| write_if_ready(to, rest)),
        },
        _ => write_all(bytes, |rest| rustix::io::write(to, rest)),
    }
}

/// The same pipe or terminal, with a mode of our own: writes to it do not wait.
fn opened_again(of: BorrowedFd<'_>) -> rustix::io::Result<std::os::fd::OwnedFd> {
    let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    rustix::fs::open(format!("/proc/self/fd/{}", of.as_raw_fd()), flags, Mode::empty())
}

fn write_if_ready(to: BorrowedFd<'_>, bytes: &[u8]) -> rustix::io::Result<usize> {
    let mut ready = [PollFd::from_borrowed_fd(to, PollFlags::OUT)];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    if poll(&mut ready, Some(&now))? == 0 {
        return Err(Errno::AGAIN);
    }
    rustix::io::write(to, &bytes[..bytes.len().min(AT_ONCE)])
}

/// Writes with `write` until all is written, or no more can be.
fn write_all(bytes: &[u8], write: impl Fn(&[u8]) -> rustix::io::Result<usize>) -> rustix::io::Result<usize> {
    let mut done = 0;
    while done < bytes.len() {
        match write(&bytes[done..]) {
            Ok(0) => break,
            Ok(n) => done += n,
            Err(Errno::INTR) => {}
            Err(e) if done == 0 => return Err(e),
            Err(_) => break,
        }
    }
    Ok(done)
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::os::unix::net::UnixStream;

    use super::*;

    /// Writes until nothing more can be written.
    fn fill(to: BorrowedFd<'_>) {
        let line = [b'x'; 1000];
        while write_to_shared(to, &line).unwrap_or(0) == line.len() {}
    }

    #[test]
    fn a_full_pipe_or_socket_takes_no_more_and_keeps_its_mode() {
        let (mut reader, writer) = io::pipe().unwrap();
        let (mut peer, socket) = UnixStream::pair().unwrap();
        for to in [writer.as_fd(), socket.as_fd()] {
            fill(to);
            assert_eq!(write_to_shared(to, &[b'x'; 5000]).unwrap_or(0), 0);
            assert!(!rustix::fs::fcntl_getfl(to).unwrap().contains(OFlags::NONBLOCK));
        }
        let mut bytes = [0; 60_000];
        reader.read_exact(&mut bytes).unwrap();
        peer.read_exact(&mut bytes).unwrap();
        assert_eq!(write_to_shared(writer.as_fd(), b"again"), Ok(5));
        assert_eq!(write_to_shared(socket.as_fd(), b"again"), Ok(5));
    }

    #[test]
    fn what_cannot_be_opened_again_is_written_to_when_it_is_ready() {
        let (_reader, writer) = io::pipe().unwrap();
        assert_eq!(write_if_ready(writer.as_fd(), b"a line"), Ok(6));
        fill(writer.as_fd());
        assert_eq!(write_if_ready(writer.as_fd(), b"a line"), Err(Errno::AGAIN));
    }

    #[test]
    fn a_fifo_keeps_what_is_written_for_a_reader_that_comes_later() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("fifo");
        rustix::fs::mkfifoat(rustix::fs::CWD, &path, Mode::RUSR | Mode::WUSR).unwrap();
        let out = Out::file(path.clone()).unwrap();
        assert_eq!(out.write(b"first\n"), Ok(6));
        let mut reader = File::open(&path).unwrap();
        let mut bytes = [0; 6];
        reader.read_exact(&mut bytes).unwrap();
        assert_eq!(&bytes, b"first\n");
        while out.write(&[b'x'; 1000]) == Ok(1000) {}
    }
}
