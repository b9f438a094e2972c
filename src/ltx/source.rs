//! Where the decoder takes its bytes from, and how I/O errors of callers' readers and writers appear.

use std::io::{self, Read};

use crate::error::{Error, Result};

/// Bytes that are taken from the front.
pub(super) trait Source {
    /// The next `n` bytes. `n` is at most what one page's frame can justify.
    ///
    /// # Errors
    /// `Corrupt` if the bytes end before.
    fn take(&mut self, n: usize) -> Result<&[u8]>;
}

/// Bytes in memory.
#[derive(Debug)]
pub(super) struct Slice<'a>(pub(super) &'a [u8]);

impl Source for Slice<'_> {
    fn take(&mut self, n: usize) -> Result<&[u8]> {
        let (taken, rest) =
            self.0.split_at_checked(n).ok_or_else(|| Error::corrupt("LTX page frame is truncated"))?;
        self.0 = rest;
        Ok(taken)
    }
}

/// The bytes of a reader, through a buffer of its own.
///
/// Invariant: `buf[start..end]` are the bytes that were read and not taken.
pub(super) struct Stream<R> {
    reader: R,
    buf: Vec<u8>,
    start: usize,
    end: usize,
    taken: u64,
}

impl<R: Read> Stream<R> {
    /// Small, as a merge has one for each of its inputs.
    const BUFFER: usize = 16 * 1024;

    pub(super) fn new(reader: R) -> Self {
        Self { reader, buf: vec![0; Self::BUFFER], start: 0, end: 0, taken: 0 }
    }

    /// The number of bytes that were taken.
    pub(super) fn position(&self) -> u64 {
        self.taken
    }

    /// Whether the reader has no bytes beyond those that were taken.
    pub(super) fn is_at_end(&mut self) -> Result<bool> {
        Ok(self.start == self.end && self.fill()? == 0)
    }

    /// Reads some bytes, zero at the end.
    fn fill(&mut self) -> Result<usize> {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        }
        loop {
            match self.reader.read(&mut self.buf[self.end..]) {
                Ok(n) => {
                    self.end += n;
                    return Ok(n);
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(io_error("reading an LTX file", e)),
            }
        }
    }

    /// Reads until there are `n` bytes that were not taken.
    fn await_bytes(&mut self, n: usize) -> Result<()> {
        if self.end - self.start < n {
            self.reserve(n);
        }
        while self.end - self.start < n {
            if self.fill()? == 0 {
                let size = self.taken + (self.end - self.start) as u64;
                return Err(Error::corrupt(format!("LTX file is truncated: it ends after {size} bytes")));
            }
        }
        Ok(())
    }

    /// The bytes behind the next `skipped` ones; none of them is taken.
    pub(super) fn ahead(&mut self, skipped: usize) -> Ahead<'_, R> {
        Ahead { stream: self, seen: skipped }
    }

    /// Takes the next `n` bytes, which were seen ahead, with the buffer that they are in and their place in it. What
    /// follows them continues in `buf`, which gets room for `room` bytes at least.
    pub(super) fn cut(&mut self, n: usize, mut buf: Vec<u8>, room: usize) -> (Vec<u8>, usize, usize) {
        let (start, end) = (self.start, self.start + n);
        let left = self.end - end;
        if buf.len() < room.max(left) {
            buf.resize(room.max(left), 0);
        }
        buf[..left].copy_from_slice(&self.buf[end..self.end]);
        (self.start, self.end) = (0, left);
        self.taken += n as u64;
        (std::mem::replace(&mut self.buf, buf), start, end)
    }

    /// Makes room for `n` bytes from `start` on.
    fn reserve(&mut self, n: usize) {
        if self.start + n > self.buf.len() {
            self.buf.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        if n > self.buf.len() {
            self.buf.resize(n.next_power_of_two(), 0);
        }
    }
}

impl<R: Read> Source for Stream<R> {
    fn take(&mut self, n: usize) -> Result<&[u8]> {
        self.await_bytes(n)?;
        let taken = &self.buf[self.start..self.start + n];
        self.start += n;
        self.taken += n as u64;
        Ok(taken)
    }
}

/// The bytes of a stream that are looked at before they are taken.
pub(super) struct Ahead<'a, R> {
    stream: &'a mut Stream<R>,
    seen: usize,
}

impl<R> Ahead<'_, R> {
    /// How many bytes were seen, those included that were skipped.
    pub(super) fn seen(&self) -> usize {
        self.seen
    }
}

impl<R: Read> Source for Ahead<'_, R> {
    fn take(&mut self, n: usize) -> Result<&[u8]> {
        let end = self.seen + n;
        self.stream.await_bytes(end)?;
        let start = self.stream.start + self.seen;
        self.seen = end;
        Ok(&self.stream.buf[start..start + n])
    }
}

/// An error of a caller's reader or writer; one of this crate that travelled inside comes out again.
pub(super) fn io_error(what: &str, e: io::Error) -> Error {
    match e.downcast::<Error>() {
        Ok(inner) => inner,
        Err(e) => Error::io(what, e),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    /// Gives at most `step` bytes a read, and an interruption before each.
    struct Trickle<'a> {
        bytes: &'a [u8],
        step: usize,
        interrupt: bool,
    }

    impl Read for Trickle<'_> {
        fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
            self.interrupt = !self.interrupt;
            if self.interrupt {
                return Err(io::ErrorKind::Interrupted.into());
            }
            let n = self.step.min(buf.len()).min(self.bytes.len());
            buf[..n].copy_from_slice(&self.bytes[..n]);
            self.bytes = &self.bytes[n..];
            Ok(n)
        }
    }

    #[test]
    fn a_trickle_is_taken_in_any_pieces() {
        let bytes: Vec<u8> = (0..200_000_u32).map(|i| (i >> 4) as u8).collect();
        for step in [1, 1000, 65536] {
            let mut stream = Stream::new(Trickle { bytes: &bytes, step, interrupt: false });
            let mut seen = Vec::new();
            for n in [0, 1, 100, 16_000, 70_000, 3, 16 * 1024, 0, 90_000] {
                seen.extend_from_slice(stream.take(n).unwrap());
            }
            assert_eq!(seen, bytes[..seen.len()]);
            assert_eq!(stream.position(), seen.len() as u64);
            assert!(!stream.is_at_end().unwrap());
            assert_eq!(stream.take(bytes.len()).unwrap_err().kind(), ErrorKind::Corrupt);
            let rest = bytes.len() - seen.len();
            assert_eq!(stream.take(rest).unwrap(), &bytes[seen.len()..]);
            assert!(stream.is_at_end().unwrap());
        }
    }

    #[test]
    fn an_error_of_this_crate_comes_out_as_it_went_in() {
        let inner = Error::new(ErrorKind::Denied, "no");
        assert_eq!(io_error("reading", io::Error::other(inner)).kind(), ErrorKind::Denied);
        let full = io::Error::from(io::ErrorKind::StorageFull);
        assert_eq!(io_error("writing", full).kind(), ErrorKind::NoSpace);
    }
}
