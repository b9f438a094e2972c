//! A database file for ourselves: whether any program has it open, and keeping it closed.

use std::fs::File;
use std::path::Path;
use std::time::{Duration, Instant};

use super::{BaseFile, BaseVfs, Code, LockLevel, OpenFlags};
use crate::error::{Error, ErrorKind, Result};
use crate::fork;

/// How long a reader in rollback mode, which holds no lock between two transactions, is waited for.
const PATIENCE: Duration = Duration::from_millis(200);
/// The time from one try to the next.
const TRY_AGAIN: Duration = Duration::from_millis(10);

/// Nobody else has a database file open, as far as the system tells, and who opens it while this lives
/// waits.
#[derive(Debug)]
pub struct SoleUse {
    _hold: Hold,
}

#[derive(Debug)]
enum Hold {
    /// The system says that nobody else has the file open, idle connections without a lock included, and
    /// delays further opens.
    #[cfg(target_os = "linux")]
    Lease { _lease: lease::Lease },
    /// SQLite's EXCLUSIVE lock. Nobody else holds any: every connection does that has read in WAL mode, and
    /// those in rollback mode within a transaction.
    Lock { _locked: Locked },
}

/// Takes the database file at `path` for ourselves, or says that another has it open: a process of
/// whatever container, or this one.
///
/// # Errors
/// `Busy`; `Io` if it cannot be told.
pub fn sole_use(path: &Path) -> Result<SoleUse> {
    let _section = fork::section();
    #[cfg(target_os = "linux")]
    match lease::take(path) {
        lease::Taken::Ours(lease) => return Ok(SoleUse { _hold: Hold::Lease { _lease: lease } }),
        lease::Taken::InUse => return Err(in_use(path)),
        lease::Taken::Unknown => {}
    }
    Locked::take(path).map(|locked| SoleUse { _hold: Hold::Lock { _locked: locked } })
}

fn in_use(path: &Path) -> Error {
    Error::new(ErrorKind::Busy, format!("{} is open in {}", path.display(), user(path)))
}

/// Who has the file open, as far as this process can see it.
fn user(path: &Path) -> String {
    if is_open_here(path) {
        return "this process".to_owned();
    }
    let holder = std::fs::read_dir("/proc").into_iter().flatten().flatten().find_map(|entry| {
        let pid = entry.file_name().to_str()?.parse::<u32>().ok()?;
        (opened(&entry.path().join("fd"), path) > 0).then_some(pid)
    });
    holder.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"))
}

/// Whether a descriptor of this process leads to the file; true if that cannot be told.
fn is_open_here(path: &Path) -> bool {
    let own = Path::new(OWN);
    !own.is_dir() || opened(own, path) > 0
}

/// The descriptors of this process.
const OWN: &str = "/proc/self/fd";

/// How many of the descriptors in a folder of `/proc` lead to the file.
fn opened(descriptors: &Path, path: &Path) -> usize {
    let Some(file) = identity(path) else { return 0 };
    let entries = std::fs::read_dir(descriptors).into_iter().flatten().flatten();
    entries.filter(|entry| identity(&entry.path()) == Some(file)).count()
}

/// Device and inode of a file. No server is asked: a descriptor may lead to one that is silent.
#[cfg(target_os = "linux")]
fn identity(path: &Path) -> Option<(u32, u32, u64)> {
    use rustix::fs::{AtFlags, CWD, StatxFlags, statx};

    let found = statx(CWD, path, AtFlags::STATX_DONT_SYNC, StatxFlags::INO).ok()?;
    Some((found.stx_dev_major, found.stx_dev_minor, found.stx_ino))
}

#[cfg(not(target_os = "linux"))]
fn identity(path: &Path) -> Option<(u64, u64)> {
    use std::os::unix::fs::MetadataExt as _;

    std::fs::metadata(path).ok().map(|meta| (meta.dev(), meta.ino()))
}

/// A file with SQLite's EXCLUSIVE lock.
#[derive(Debug)]
struct Locked(BaseFile);

impl Locked {
    fn take(path: &Path) -> Result<Self> {
        let cannot = |code: Code| {
            Error::new(ErrorKind::Io, format!("it cannot be told whether {} is open: {code}", path.display()))
        };
        let base = BaseVfs::host_default()
            .ok_or_else(|| Error::new(ErrorKind::Unsupported, "this SQLite has no default VFS"))?;
        let (file, out_flags) = base.open_database(path, &[], OpenFlags::READWRITE).map_err(cannot)?;
        if out_flags.is_readonly() {
            let message = format!(
                "{} cannot be written by this user: restore as its owner or as root, or to another path",
                path.display()
            );
            return Err(Error::new(ErrorKind::Denied, message));
        }
        let mut locked = Self(file);
        let deadline = Instant::now() + PATIENCE;
        loop {
            match locked.0.lock(LockLevel::Shared).and_then(|()| locked.0.lock(LockLevel::Exclusive)) {
                Ok(()) => return Ok(locked),
                Err(code) if code.primary() != Code::BUSY.primary() => return Err(cannot(code)),
                Err(_) if Instant::now() >= deadline => return Err(in_use(path)),
                Err(_) => {
                    // Whoever waits for the lock that was had so far goes on.
                    locked.0.unlock(LockLevel::None).map_err(cannot)?;
                    std::thread::sleep(TRY_AGAIN);
                }
            }
        }
    }
}

impl Drop for Locked {
    fn drop(&mut self) {
        let _section = fork::section();
        // What cannot be released goes with the file.
        let _ = self.0.unlock(LockLevel::None);
        let _ = self.0.close();
    }
}

/// Leases of files: the system grants one only while nobody else has the file open.
#[cfg(target_os = "linux")]
mod lease {
    use std::fs::OpenOptions;
    use std::io::ErrorKind;
    use std::os::fd::AsRawFd as _;
    use std::os::unix::fs::OpenOptionsExt as _;

    use super::*;

    /// Sets the signal of a lease, and `libc` has no name for it.
    const F_SETSIG: libc::c_int = 10;
    /// Sets who gets that signal.
    const F_SETOWN_EX: libc::c_int = 15;
    /// That it is a thread.
    const F_OWNER_TID: libc::c_int = 0;

    /// `struct f_owner_ex`.
    #[repr(C)]
    struct Owner {
        kind: libc::c_int,
        pid: libc::pid_t,
    }

    /// A file of which this is the only descriptor on the machine. Closed while the lease is held, it
    /// releases no lock of this process: nobody in it has the file open either.
    #[derive(Debug)]
    pub(super) struct Lease {
        _file: File,
    }

    pub(super) enum Taken {
        Ours(Lease),
        InUse,
        /// The file system, or who we are, does not let us ask.
        Unknown,
    }

    pub(super) fn take(path: &Path) -> Taken {
        // To open and close it would release the locks of this process.
        if is_open_here(path) {
            return Taken::InUse;
        }
        let file = match open(path) {
            Ok(file) => file,
            Err(e) if e.kind() == ErrorKind::WouldBlock => return Taken::InUse,
            Err(_) => return Taken::Unknown,
        };
        match set(&file) {
            Ok(()) => Taken::Ours(Lease { _file: file }),
            Err(e) => {
                keep_if_opened_here(file, path);
                let tells = e.kind() == ErrorKind::WouldBlock && tells_in(path);
                if tells { Taken::InUse } else { Taken::Unknown }
            }
        }
    }

    fn open(path: &Path) -> std::io::Result<File> {
        OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)
    }

    /// Another thread may have opened the file in the meantime. Then the descriptor stays open, because to
    /// close it would release that one's locks.
    fn keep_if_opened_here(file: File, path: &Path) {
        if opened(Path::new(OWN), path) > 1 {
            std::mem::forget(file);
        }
    }

    /// Whether a refused lease in the folder of `path` says that a file is open: some network file systems
    /// refuse all.
    fn tells_in(path: &Path) -> bool {
        let Ok(random) = getrandom::u64() else { return false };
        let probe = path.with_file_name(format!(".litestream-probe-{random:016x}"));
        let created = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&probe);
        let tells = created.is_ok_and(|file| set(&file).is_ok());
        let _ = std::fs::remove_file(&probe);
        tells
    }

    /// Takes the lease. Who opens the file then makes the system send a signal: one that is ignored unless
    /// somebody handles it, and only to this thread.
    fn set(file: &File) -> std::io::Result<()> {
        let fd = file.as_raw_fd();
        // SAFETY: no arguments.
        let tid = unsafe { libc::gettid() };
        let owner = Owner { kind: F_OWNER_TID, pid: tid };
        // SAFETY: the descriptor is open, and the owner is laid out as the system's.
        check(unsafe { libc::fcntl(fd, F_SETOWN_EX, &raw const owner) })?;
        // SAFETY: the descriptor is open.
        check(unsafe { libc::fcntl(fd, F_SETSIG, libc::SIGURG) })?;
        // SAFETY: the descriptor is open.
        check(unsafe { libc::fcntl(fd, libc::F_SETLEASE, libc::F_WRLCK) })
    }

    fn check(answer: libc::c_int) -> std::io::Result<()> {
        if answer == -1 { Err(std::io::Error::last_os_error()) } else { Ok(()) }
    }
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    #[test]
    fn a_file_is_ours_while_nobody_has_it_open_and_who_opens_it_waits() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("app.db");
        std::fs::write(&path, "content").unwrap();
        if matches!(lease::take(&path), lease::Taken::Unknown) {
            eprintln!("skipped: there are no leases in {}", folder.path().display());
            return;
        }
        let open = File::open(&path).unwrap();
        let refused = sole_use(&path).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Busy);
        assert!(refused.to_string().contains("this process"), "{refused}");
        drop(open);
        let ours = sole_use(&path).unwrap();
        let (opened, is_open) = channel();
        let opening = std::thread::spawn({
            let path = path.clone();
            move || opened.send(File::open(path).map(drop)).unwrap()
        });
        assert!(is_open.recv_timeout(Duration::from_millis(50)).is_err());
        drop(ours);
        is_open.recv().unwrap().unwrap();
        opening.join().unwrap();
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
