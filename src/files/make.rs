//! Files and folders that have the right owner and permissions from the beginning: nobody else can open
//! them even for a moment.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

use super::place::database_of;
use super::rights::Rights;

/// Opens the file at `path` as `options` say, which do not say to create it. If it is not there, it is
/// made, with the owner and the permissions of the folder that it is in.
///
/// # Errors
/// Those of the file system.
pub fn open(path: &Path, options: &OpenOptions) -> io::Result<File> {
    loop {
        match options.open(path) {
            Err(e) if e.kind() == ErrorKind::NotFound => {}
            other => return other,
        }
        match options.clone().create_new(true).mode(0o600).open(path) {
            Ok(file) => {
                Rights::of(folder_of(path))?.give(&file);
                return Ok(file);
            }
            // Another one made it in between.
            Err(e) if e.kind() == ErrorKind::AlreadyExists => {}
            Err(e) => return Err(e),
        }
    }
}

/// As [`open`], of a file that nobody but owner and group may read.
///
/// # Errors
/// Those of the file system.
pub fn open_secret(path: &Path, options: &OpenOptions) -> io::Result<File> {
    let file = open(path, options)?;
    Rights::of(folder_of(path))?.without_others().give(&file);
    Ok(file)
}

/// Writes a whole file, which is made as [`open`] does.
///
/// # Errors
/// Those of the file system.
pub fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    open(path, OpenOptions::new().write(true).truncate(true))?.write_all(bytes)
}

/// Makes `folder` and the folders above it that are missing. A folder of local state gets the owner of
/// its database and the permissions that belong to those of the database, any other those of the folder
/// that it is in.
///
/// # Errors
/// Those of the file system.
pub fn create_folders(folder: &Path) -> io::Result<()> {
    create_missing(folder, &|folder| match database_of(folder).map(|database| Rights::of(&database)) {
        Some(Ok(rights)) => Ok(rights),
        _ => Rights::of(folder_of(folder)),
    })
}

/// Makes `folder` and the folders above it that are missing, for this user alone; but a folder of local state
/// as [`create_folders`] does, if its database is there.
///
/// # Errors
/// Those of the file system.
pub fn create_private_folders(folder: &Path) -> io::Result<()> {
    match database_of(folder).filter(|database| database.exists()) {
        Some(_) => create_folders(folder),
        None => DirBuilder::new().recursive(true).mode(0o700).create(folder),
    }
}

/// Makes `folder` and the folders above it that are missing, all for those who have `rights`.
///
/// # Errors
/// Those of the file system.
pub fn create_folders_with(folder: &Path, rights: Rights) -> io::Result<()> {
    create_missing(folder, &|_| Ok(rights))
}

fn create_missing(folder: &Path, rights: &dyn Fn(&Path) -> io::Result<Rights>) -> io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    create_missing(folder_of(folder), rights)?;
    match DirBuilder::new().mode(0o700).create(folder) {
        Ok(()) => {
            rights(folder)?.give_at(folder);
            File::open(folder_of(folder))?.sync_all()
        }
        Err(e) if e.kind() == ErrorKind::AlreadyExists && folder.is_dir() => Ok(()),
        Err(e) => Err(e),
    }
}

/// Gives what was made at `path`, such as a socket, the owner and the permissions of its folder.
pub fn as_in_folder(path: &Path) {
    if let Ok(rights) = Rights::of(folder_of(path)) {
        rights.give_at(path);
    }
}

fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::files::state_folder;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn what_belongs_to_a_database_is_made_with_its_permissions() {
        for (of_database, of_folder) in [(0o600, 0o700), (0o640, 0o750), (0o666, 0o777)] {
            let folder = tempfile::tempdir().unwrap();
            let database = folder.path().join("app.db");
            fs::write(&database, "").unwrap();
            fs::set_permissions(&database, Permissions::from_mode(of_database)).unwrap();
            let spool = state_folder(&database).join("spool");
            create_folders(&spool).unwrap();
            write(&spool.join("2.ltx"), b"content").unwrap();
            write(&spool.join("2.ltx"), b"new").unwrap();
            assert_eq!([mode(&spool), mode(spool.parent().unwrap())], [of_folder; 2]);
            assert_eq!(mode(&spool.join("2.ltx")), of_database);
            assert_eq!(fs::read(spool.join("2.ltx")).unwrap(), b"new");
        }
    }
}
