//! Owner and permissions.

use std::io;
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use rustix::fs::{Dir, FileType, Gid, Mode, OFlags, RawMode, Stat, Uid, fchmod, fstat, openat};
use rustix::io::Errno;

/// Read and write permissions of owner, group and others.
const READ_WRITE: u32 = 0o666;
/// How names begin, in the folder of local state, of what belongs to the user alone who made it.
const PRIVATE: &[u8] = b"hydration";
/// The name, in the folder of local state of a replica, of what others never read: the keys of sealed files.
const SECRET: &[u8] = b"keys";

/// How a folder is opened to be read; a link to one is not.
const FOLDER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
/// How anything but a link is opened to change its rights. Such a descriptor only names a place: to close
/// it releases no lock.
#[cfg(target_os = "linux")]
const PLACE: OFlags = OFlags::PATH.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
#[cfg(not(target_os = "linux"))]
const PLACE: OFlags = OFlags::RDONLY.union(OFlags::NONBLOCK).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Who may read and write a file, and what is made beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rights {
    uid: u32,
    gid: u32,
    /// Permissions to read and write. The owner's are always among them.
    mode: u32,
}

impl Rights {
    /// Those of the file or folder at `path`.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn of(path: &Path) -> io::Result<Self> {
        let meta = std::fs::metadata(path)?;
        Ok(Self { uid: meta.uid(), gid: meta.gid(), mode: (meta.mode() & READ_WRITE) | 0o600 })
    }

    /// The same for owner and group, and nothing for others.
    pub(super) const fn without_others(self) -> Self {
        Self { mode: self.mode & 0o660, ..self }
    }

    /// Puts right what is in `folder`, and the folder itself, as far as this process may. Links are left
    /// alone, and so are files with several names: they may lead to what is not ours.
    pub fn put_right(&self, folder: &Path) {
        if let Ok(folder) = rustix::fs::open(folder, FOLDER, Mode::empty()) {
            self.put_folder_right(&folder);
        }
    }

    fn put_folder_right(&self, folder: &OwnedFd) {
        let Ok(entries) = Dir::read_from(folder) else { return };
        for entry in entries.flatten() {
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") || name.to_bytes().starts_with(PRIVATE) {
                continue;
            }
            match openat(folder, name, FOLDER, Mode::empty()) {
                Ok(below) => self.put_folder_right(&below),
                Err(_) => {
                    let rights = if name.to_bytes() == SECRET { self.without_others() } else { *self };
                    if let Ok(one) = openat(folder, name, PLACE, Mode::empty()) {
                        rights.give(&one);
                    }
                }
            }
        }
        self.give(folder);
    }

    /// Gives them to the one thing at `path`, which may be a socket.
    pub(super) fn give_at(&self, path: &Path) {
        if let Ok(one) = rustix::fs::open(path, PLACE, Mode::empty()) {
            self.give(&one);
        }
    }

    /// Gives them to what is open, as far as this process may: only root gives a file to another user. A
    /// group that the file cannot get is given no more than all others.
    pub fn give(&self, to: impl AsFd) {
        let to = to.as_fd();
        let Ok(stat) = fstat(to) else { return };
        let folder = match FileType::from_raw_mode(stat.st_mode as RawMode) {
            FileType::Directory => true,
            FileType::RegularFile | FileType::Socket if stat.st_nlink == 1 => false,
            _ => return,
        };
        let group_is_right = self.give_owner(to, &stat);
        let mode = self.mode(folder, group_is_right);
        if Mode::from_raw_mode(stat.st_mode as RawMode) != mode {
            // A file system may know nothing of permissions.
            let _ = set_mode(to, mode);
        }
    }

    /// Whether the group is the right one then.
    fn give_owner(&self, to: impl AsFd + Copy, stat: &Stat) -> bool {
        let uid = (stat.st_uid != self.uid).then(|| Uid::from_raw(self.uid));
        let gid = (stat.st_gid != self.gid).then(|| Gid::from_raw(self.gid));
        if uid.is_none() && gid.is_none() {
            return true;
        }
        let given = set_owner(to, uid, gid).is_ok();
        given || gid.is_none() || set_owner(to, None, gid).is_ok()
    }

    fn mode(&self, folder: bool, group_is_right: bool) -> Mode {
        let others = self.mode & 0o006;
        let group = if group_is_right { self.mode & 0o060 } else { self.mode & 0o060 & (others << 3) };
        let mode = (self.mode & 0o600) | group | others;
        // Whoever may read a folder may enter it.
        let enter = if folder { (mode & 0o444) >> 2 } else { 0 };
        Mode::from_raw_mode((mode | enter) as RawMode)
    }
}

#[cfg(target_os = "linux")]
fn set_owner(of: impl AsFd, uid: Option<Uid>, gid: Option<Gid>) -> rustix::io::Result<()> {
    rustix::fs::chownat(of, c"", uid, gid, rustix::fs::AtFlags::EMPTY_PATH)
}

#[cfg(not(target_os = "linux"))]
fn set_owner(of: impl AsFd, uid: Option<Uid>, gid: Option<Gid>) -> rustix::io::Result<()> {
    rustix::fs::fchown(of, uid, gid)
}

fn set_mode(of: impl AsFd + Copy, mode: Mode) -> rustix::io::Result<()> {
    match fchmod(of, mode) {
        // A descriptor that only names a place.
        Err(Errno::BADF) => rustix::fs::chmod(format!("/proc/self/fd/{}", of.as_fd().as_raw_fd()), mode),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{PermissionsExt as _, symlink};
    use std::os::unix::net::UnixDatagram;

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::symlink_metadata(path).unwrap().mode() & 0o777
    }

    fn with_mode(path: &Path, mode: u32) {
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn others_never_read_keys() {
        let home = tempfile::tempdir().unwrap();
        let (database, state) = (home.path().join("app.db"), home.path().join("state"));
        fs::write(&database, "").unwrap();
        fs::create_dir(&state).unwrap();
        fs::set_permissions(&database, Permissions::from_mode(0o666)).unwrap();
        fs::set_permissions(&state, Permissions::from_mode(0o777)).unwrap();
        let keys = state.join("keys");
        crate::files::open_secret(&keys, fs::OpenOptions::new().write(true)).unwrap();
        fs::write(state.join("other"), "").unwrap();
        let mode = |name: &str| fs::metadata(state.join(name)).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode("keys"), 0o660);
        Rights::of(&database).unwrap().put_right(&state);
        assert_eq!((mode("keys"), mode("other")), (0o660, 0o666));
    }

    #[test]
    fn all_below_a_folder_gets_the_rights_and_folders_may_be_entered() {
        let folder = tempfile::tempdir().unwrap();
        let (state, database) = (folder.path().join("state"), folder.path().join("app.db"));
        fs::create_dir_all(state.join("spool")).unwrap();
        let files = [state.join("vfs.json"), state.join("spool/2.ltx")];
        files.iter().for_each(|file| fs::write(file, "x").unwrap());
        let _socket = UnixDatagram::bind(state.join("vfs.sock")).unwrap();
        fs::write(&database, "").unwrap();
        for (of_database, of_folder) in [(0o600, 0o700), (0o640, 0o750), (0o664, 0o775), (0o444, 0o755)] {
            with_mode(&database, of_database);
            Rights::of(&database).unwrap().put_right(&state);
            let of_file = of_database | 0o600;
            assert_eq!(files.each_ref().map(|file| mode(file)), [of_file, of_file]);
            assert_eq!(mode(&state.join("vfs.sock")), of_file);
            assert_eq!([mode(&state), mode(&state.join("spool"))], [of_folder, of_folder]);
        }
    }

    #[test]
    fn what_may_not_be_ours_stays_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let (state, database) = (folder.path().join("state"), folder.path().join("app.db"));
        let (file, twice) = (folder.path().join("linked to"), folder.path().join("of two names"));
        fs::create_dir(&state).unwrap();
        for path in [&database, &file, &twice, &state.join("hydration.db")] {
            fs::write(path, "").unwrap();
            with_mode(path, 0o644);
        }
        with_mode(&database, 0o600);
        symlink(&file, state.join("link")).unwrap();
        symlink(folder.path(), state.join("folder link")).unwrap();
        fs::hard_link(&twice, state.join("hard link")).unwrap();
        Rights::of(&database).unwrap().put_right(&state);
        assert_eq!([&file, &twice, &state.join("hydration.db")].map(|path| mode(path)), [0o644; 3]);
    }

    #[test]
    fn a_group_that_could_not_be_given_gets_what_others_have() {
        let rights = |mode| Rights { uid: 1, gid: 1, mode };
        assert_eq!(rights(0o660).mode(false, false).as_raw_mode(), 0o600);
        assert_eq!(rights(0o664).mode(false, false).as_raw_mode(), 0o644);
        assert_eq!(rights(0o664).mode(true, true).as_raw_mode(), 0o775);
    }
}
