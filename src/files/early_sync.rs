//! Brings a large file to the disk while it is still being written, so that the sync at its end has little
//! left to wait for. What is on the disk leaves the page cache but for the beginning of the file, so that a
//! restore does not take the machine's memory from everybody else; or it stays, if somebody is going to read it.

use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use crate::runtime;

/// So many bytes are worth a sync.
const WORTHWHILE: u64 = 32 * 1024 * 1024;
/// So many bytes from the beginning of a file stay in the page cache: the whole of a database that is not
/// large.
#[cfg(target_os = "linux")]
const CACHED: u64 = 128 * 1024 * 1024;

/// Syncs a file now and then on a thread of its own, which is started when there is something to do.
///
/// Dropped before [`EarlySync::finish`], the thread ends by itself.
#[derive(Debug, Default)]
pub struct EarlySync {
    /// Bytes that were written since the thread was last asked to sync.
    written: u64,
    /// Somebody is going to read the file.
    stays_cached: bool,
    thread: Option<Thread>,
}

#[derive(Debug)]
struct Thread {
    wish: SyncSender<()>,
    handle: JoinHandle<io::Result<()>>,
}

impl EarlySync {
    /// Leaves all of the file in the page cache, as it is read soon.
    pub fn stay_cached(&mut self) {
        self.stays_cached = true;
    }

    /// Notes that `bytes` were written to `file`, the same in every call.
    pub fn wrote(&mut self, file: &Arc<File>, bytes: usize) {
        self.written += bytes as u64;
        if self.written < WORTHWHILE {
            return;
        }
        self.written = 0;
        if self.thread.is_none() {
            self.thread = start(Arc::clone(file), self.stays_cached);
        }
        if let Some(thread) = &self.thread {
            // If it is busy, the wish that waits comprises these bytes. If it has failed, `finish` says so.
            let _ = thread.wish.try_send(());
        }
    }

    /// Waits for the sync that is under way.
    ///
    /// # Errors
    /// That of an earlier sync: the system may tell it only once.
    pub fn finish(&mut self) -> io::Result<()> {
        let Some(Thread { wish, handle }) = self.thread.take() else { return Ok(()) };
        drop(wish);
        handle.join().unwrap_or_else(|_| Err(io::Error::other("the thread that syncs has panicked")))
    }
}

/// Without a thread the sync at the end does it all.
fn start(file: Arc<File>, stays_cached: bool) -> Option<Thread> {
    let (wish, wishes) = sync_channel(1);
    let handle = runtime::thread("sync", move || sync_on(&file, &wishes, stays_cached)).ok()?;
    Some(Thread { wish, handle })
}

fn sync_on(file: &File, wishes: &Receiver<()>, stays_cached: bool) -> io::Result<()> {
    for () in wishes {
        file.sync_data()?;
        if !stays_cached {
            leave_cache(file);
        }
    }
    Ok(())
}

/// What is on the disk need not be in memory. A system that does not listen is as good.
#[cfg(target_os = "linux")]
fn leave_cache(file: &File) {
    let _ = rustix::fs::fadvise(file, CACHED, None, rustix::fs::Advice::DontNeed);
}

#[cfg(not(target_os = "linux"))]
fn leave_cache(_: &File) {}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn a_thread_is_only_for_large_files() {
        let file = Arc::new(tempfile::tempfile().unwrap());
        let mut early = EarlySync::default();
        early.wrote(&file, WORTHWHILE as usize - 1);
        assert!(early.thread.is_none());
        (&*file).write_all(b"content").unwrap();
        early.wrote(&file, 1);
        early.wrote(&file, WORTHWHILE as usize);
        assert!(early.thread.is_some());
        early.finish().unwrap();
        assert!(early.thread.is_none());
    }

    #[test]
    fn an_error_is_not_lost() {
        // A pipe cannot be synced.
        let (_reader, writer) = io::pipe().unwrap();
        let file = Arc::new(File::from(std::os::fd::OwnedFd::from(writer)));
        let mut early = EarlySync::default();
        for _ in 0..3 {
            early.wrote(&file, WORTHWHILE as usize);
        }
        assert_eq!(early.finish().unwrap_err().kind(), io::ErrorKind::InvalidInput);
        early.finish().unwrap();
    }
}
