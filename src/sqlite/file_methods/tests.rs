//! The trampolines called as SQLite calls them, on files without a base.

use std::mem::MaybeUninit;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rusqlite::ffi;

use super::super::installed::{SIZE, install, our_file};
use super::super::{BaseFile, IoVersion, PragmaAnswer, RefusedFile};
use super::*;

/// What a test file does on every call.
enum Story {
    Bytes(Vec<u8>),
    Panics,
}

struct TestFile {
    story: Story,
    version: IoVersion,
    dropped: Arc<AtomicBool>,
}

impl File for TestFile {
    fn base(&mut self) -> Option<&mut BaseFile> {
        match self.story {
            Story::Bytes(_) => None,
            Story::Panics => panic!("thrown on purpose"),
        }
    }

    fn read(&mut self, buf: &mut [u8], offset: u64) -> Result<ReadOutcome, Code> {
        let Story::Bytes(bytes) = &self.story else { panic!("thrown on purpose") };
        let from = usize::try_from(offset).expect("small").min(bytes.len());
        let len = buf.len().min(bytes.len() - from);
        buf[..len].copy_from_slice(&bytes[from..from + len]);
        Ok(ReadOutcome::of(buf, len))
    }

    fn pragma(&mut self, name: &str, arg: Option<&str>) -> PragmaAnswer {
        assert_eq!((name, arg), ("litestream_time", Some("now")));
        PragmaAnswer::Done
    }

    fn io_version(&mut self) -> IoVersion {
        self.version
    }
}

impl Drop for TestFile {
    fn drop(&mut self) {
        self.dropped.store(true, Ordering::Relaxed);
    }
}

/// Memory as SQLite would hold it.
#[repr(align(8))]
struct Place(MaybeUninit<[u8; SIZE]>);

impl Place {
    fn with(file: impl File + 'static) -> Box<Self> {
        let mut place = Box::new(Self(MaybeUninit::uninit()));
        // SAFETY: large enough, aligned, and nothing in it yet.
        unsafe { install(place.as_ptr(), Box::new(file), None) };
        place
    }

    fn as_ptr(&mut self) -> *mut sqlite3_file {
        self.0.as_mut_ptr().cast()
    }

    fn methods(&mut self) -> &'static sqlite3_io_methods {
        // SAFETY: installed, so it points to one of our tables.
        unsafe { &*(*self.as_ptr()).pMethods }
    }
}

fn file(story: Story, version: IoVersion) -> (Box<Place>, Arc<AtomicBool>) {
    let dropped = Arc::new(AtomicBool::new(false));
    (Place::with(TestFile { story, version, dropped: dropped.clone() }), dropped)
}

#[test]
fn a_table_has_what_the_version_says() {
    for (shm, fetch, number) in [(false, false, 1), (true, false, 2), (false, true, 3), (true, true, 3)] {
        let (mut place, _) = file(Story::Bytes(vec![]), IoVersion { shm, fetch });
        let methods = place.methods();
        assert_eq!(methods.iVersion, number);
        // SQLite looks at the version first.
        assert_eq!(methods.iVersion >= 2 && methods.xShmMap.is_some() && methods.xShmLock.is_some(), shm);
        assert_eq!(methods.iVersion >= 3 && methods.xFetch.is_some(), fetch);
        // A VFS in front of ours that offers more than the file has may call it.
        assert!(methods.xFetch.is_some() && (methods.xShmMap.is_some() || fetch));
        // SAFETY: an open file.
        unsafe { x_close(place.as_ptr()) };
    }
}

#[test]
fn reads_report_their_outcome() {
    let (mut place, _) = file(Story::Bytes(b"hello".to_vec()), IoVersion::BASIC);
    let mut buf = [0xff_u8; 4];
    let mut read = |offset| {
        // SAFETY: an open file and a buffer of four bytes.
        let code = unsafe { x_read(place.as_ptr(), buf.as_mut_ptr().cast(), 4, offset) };
        (code, buf)
    };
    assert_eq!(read(1), (ffi::SQLITE_OK, *b"ello"));
    assert_eq!(read(3), (ffi::SQLITE_IOERR_SHORT_READ, *b"lo\0\0"));
    assert_eq!(read(-1).0, ffi::SQLITE_IOERR_READ);
    // SAFETY: an open file.
    unsafe { x_close(place.as_ptr()) };
}

#[test]
fn every_panic_becomes_the_code_of_its_callback() {
    let (mut place, dropped) = file(Story::Panics, IoVersion { shm: true, fetch: true });
    let at = place.as_ptr();
    let (mut buf, mut size, mut int, mut pointer) = ([0_u8; 4], 0_i64, 0, std::ptr::null_mut());
    // SAFETY: an open file, and arguments as SQLite would give them.
    unsafe {
        assert_eq!(x_read(at, buf.as_mut_ptr().cast(), 4, 0), ffi::SQLITE_IOERR_READ);
        assert_eq!(x_write(at, buf.as_ptr().cast(), 4, 0), ffi::SQLITE_IOERR_WRITE);
        assert_eq!(x_truncate(at, 0), ffi::SQLITE_IOERR_TRUNCATE);
        assert_eq!(x_sync(at, ffi::SQLITE_SYNC_NORMAL), ffi::SQLITE_IOERR_FSYNC);
        assert_eq!(x_file_size(at, &raw mut size), ffi::SQLITE_IOERR_FSTAT);
        assert_eq!(x_lock(at, 1), ffi::SQLITE_IOERR_LOCK);
        assert_eq!(x_unlock(at, 0), ffi::SQLITE_IOERR_UNLOCK);
        assert_eq!(x_check_reserved_lock(at, &raw mut int), ffi::SQLITE_IOERR_CHECKRESERVEDLOCK);
        assert_eq!(x_file_control(at, ffi::SQLITE_FCNTL_SYNC, std::ptr::null_mut()), ffi::SQLITE_IOERR);
        assert_eq!(x_sector_size(at), 0);
        assert_eq!(x_device_characteristics(at), 0);
        assert_eq!(x_shm_map(at, 0, 32768, 1, &raw mut pointer), ffi::SQLITE_IOERR_SHMMAP);
        assert_eq!(x_shm_lock(at, 0, 1, ffi::SQLITE_SHM_LOCK), ffi::SQLITE_IOERR_SHMLOCK);
        x_shm_barrier(at);
        assert_eq!(x_shm_unmap(at, 0), ffi::SQLITE_IOERR_SHMMAP);
        assert_eq!(x_fetch(at, 0, 4, &raw mut pointer), ffi::SQLITE_IOERR_MMAP);
        assert_eq!(x_unfetch(at, 0, std::ptr::null_mut()), ffi::SQLITE_IOERR_MMAP);
        assert_eq!(x_close(at), ffi::SQLITE_IOERR_CLOSE);
    }
    assert!(pointer.is_null());
    assert!(dropped.load(Ordering::Relaxed), "closing drops the file, whatever it says");
}

#[test]
fn a_file_without_a_base_knows_no_file_controls_and_cannot_be_written() {
    let (mut place, _) = file(Story::Bytes(vec![]), IoVersion::BASIC);
    // SAFETY: an open file, and arguments as SQLite would give them.
    unsafe {
        let at = place.as_ptr();
        assert_eq!(x_file_control(at, ffi::SQLITE_FCNTL_SYNC, std::ptr::null_mut()), ffi::SQLITE_NOTFOUND);
        assert_eq!(x_write(at, [0_u8].as_ptr().cast(), 1, 0), ffi::SQLITE_READONLY);
        assert_eq!(x_close(at), ffi::SQLITE_OK);
    }
}

/// Connections that join a shared cache: the file may be in use by another thread then.
#[test]
fn a_file_is_told_once_to_which_connection_it_belongs() {
    let (mut place, _) = file(Story::Panics, IoVersion::BASIC);
    let mut told = || {
        // SAFETY: an open file; of a connection that is null nothing is asked.
        unsafe { x_file_control(place.as_ptr(), ffi::SQLITE_FCNTL_PDB, std::ptr::null_mut()) }
    };
    assert_eq!(told(), ffi::SQLITE_IOERR, "it panics");
    assert_eq!(told(), ffi::SQLITE_OK, "it is left alone");
    // SAFETY: an open file of which no method is running.
    unsafe { x_close(place.as_ptr()) };
}

#[test]
fn a_pragma_that_is_done_gives_no_row() {
    let (mut place, _) = file(Story::Bytes(vec![]), IoVersion::BASIC);
    let mut strings = [std::ptr::null(), c"litestream_time".as_ptr(), c"now".as_ptr()];
    // SAFETY: an open file, and arguments as SQLite would give them.
    unsafe {
        let answer = x_file_control(place.as_ptr(), ffi::SQLITE_FCNTL_PRAGMA, strings.as_mut_ptr().cast());
        assert_eq!(answer, ffi::SQLITE_NOTFOUND);
        assert_eq!(x_close(place.as_ptr()), ffi::SQLITE_OK);
    }
    assert!(strings[0].is_null());
}

#[test]
fn only_our_files_are_ours() {
    let foreign = sqlite3_io_methods { iVersion: 1, ..BASIC };
    let mut other = sqlite3_file { pMethods: &raw const foreign };
    let mut refused = Place::with(RefusedFile::new("x.db", Code::CANTOPEN, "why"));
    // SAFETY: null, closed, foreign, and open files of which no method is running.
    unsafe {
        assert!(our_file(std::ptr::null_mut()).is_none());
        assert!(our_file(&raw mut other).is_none());
        let error = our_file(refused.as_ptr()).expect("ours").open_error();
        assert_eq!(error, Some((Code::CANTOPEN, "why")));
        assert_eq!(x_lock(refused.as_ptr(), ffi::SQLITE_LOCK_SHARED), ffi::SQLITE_CANTOPEN);
        assert_eq!(x_close(refused.as_ptr()), ffi::SQLITE_OK);
        assert!(our_file(refused.as_ptr()).is_none(), "closed");
    }
}
