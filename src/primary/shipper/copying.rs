//! How far the copy of a database came.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::page::{PageCount, Pgno};
use crate::primary::shipper::Shipper;

/// How far the copy that is under way came, or the last one that did not get to its end.
#[derive(Debug, Default)]
pub(in crate::primary) struct Copying {
    /// The pages of the database; 0 while nothing is copied.
    pages: AtomicU32,
    /// The last page that was encoded.
    encoded: AtomicU32,
    encoded_bytes: AtomicU64,
    stored_bytes: AtomicU64,
}

impl Copying {
    /// A copy of a database with this many `pages` begins.
    pub(super) fn begins(&self, pages: PageCount) {
        self.encoded.store(0, Ordering::Relaxed);
        self.encoded_bytes.store(0, Ordering::Relaxed);
        self.stored_bytes.store(0, Ordering::Relaxed);
        self.pages.store(pages.get(), Ordering::Relaxed);
    }

    /// All of it is in the replica.
    pub(super) fn ends(&self) {
        self.pages.store(0, Ordering::Relaxed);
    }

    pub(super) fn encodes(&self, pgno: Pgno) {
        self.encoded.store(pgno.get(), Ordering::Relaxed);
    }

    /// The store has `bytes` more of it.
    pub(super) fn has(&self, bytes: usize) {
        self.stored_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// How much of the database the store has, in percent; `None` while nothing is copied.
    pub(in crate::primary) fn percent(&self) -> Option<u8> {
        let pages = self.pages.load(Ordering::Relaxed);
        let (encoded, stored) =
            (self.encoded_bytes.load(Ordering::Relaxed), self.stored_bytes.load(Ordering::Relaxed));
        if pages == 0 {
            return None;
        }
        let of_encoded = stored as f64 / encoded.max(stored).max(1) as f64;
        let share = of_encoded * f64::from(self.encoded.load(Ordering::Relaxed)) / f64::from(pages);
        Some((share * 100.0).clamp(0.0, 100.0) as u8)
    }
}

/// Counts what is encoded.
pub(super) struct Counted<W> {
    pub(super) out: W,
    pub(super) copying: Arc<Copying>,
}

impl<W: Write> Write for Counted<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.copying.encoded_bytes.fetch_add(written as u64, Ordering::Relaxed);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// What to do about a copy that a process does not live long enough for.
const REMEDY: &str = "keep the database open until it is there, as SELECT litestream_sync(3600) does, or give a longer \
                      close_timeout";

impl Shipper {
    /// The last close ends a copy that is under way, of which the next open says so. What to tell of it.
    pub(in crate::primary) fn gives_copy_up(&self) -> Option<String> {
        let percent = self.copying.percent()?;
        let _ = self.with_capture(|capture| capture.gives_copy_up(percent));
        Some(match self.kept_of_copy() {
            Some(kept) => format!(
                "the copy of the database, which came to {percent} %, is not finished: the {} that arrived are kept for a \
                 week, and the next open sends the rest: {REMEDY}",
                mebibytes(kept)
            ),
            None => format!(
                "the copy of the database, which came to {percent} %, is given up and begins again at the next open: {REMEDY}"
            ),
        })
    }

    /// Tells, as a new copy begins, of the one before that did not come to its end.
    pub(super) fn tell_of_copy_before(&self) {
        let given_up = self.with_capture(|capture| capture.copy_given_up()).ok().flatten();
        let before = match given_up {
            Some(percent) => {
                format!("the last copy of the database had come to {percent} % when it was closed")
            }
            None => "the last copy of the database broke off".to_owned(),
        };
        match (self.kept_of_copy(), given_up) {
            (Some(kept), _) => self.notice(format!(
                "{before}: the {} that arrived are kept, and what is missing is sent now: {REMEDY}",
                mebibytes(kept)
            )),
            (None, Some(_)) => {
                self.notice(format!("{before}, and was given up; another one has begun: {REMEDY}"));
            }
            (None, None) => {}
        }
    }
}

/// A number of bytes in words.
fn mebibytes(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_as_far_as_the_store_has_it() {
        let copying = Arc::new(Copying::default());
        assert_eq!(copying.percent(), None);
        copying.begins(PageCount::new(200));
        assert_eq!(copying.percent(), Some(0));
        copying.encodes(Pgno::new(100).unwrap());
        let mut out = Counted { out: Vec::new(), copying: Arc::clone(&copying) };
        out.write_all(&[0; 1000]).unwrap();
        assert_eq!(copying.percent(), Some(0), "it is in memory");
        copying.has(500);
        assert_eq!(copying.percent(), Some(25));
        copying.has(500);
        assert_eq!(copying.percent(), Some(50));
        copying.ends();
        assert_eq!(copying.percent(), None);
    }
}
