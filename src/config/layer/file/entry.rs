//! What a configuration file has for one database.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use super::super::super::origin::Line;
use super::super::Assigned;
use super::pattern;

/// A field by which a replica is found, which is no setting elsewhere.
#[derive(Clone, Debug)]
pub(in crate::config) struct Field {
    pub(in crate::config) name: Arc<str>,
    pub(in crate::config) text: String,
    pub(in crate::config) line: Line,
}

/// What one section of the file says.
#[derive(Clone, Debug, Default)]
pub(in crate::config) struct Section {
    pub(in crate::config) values: Vec<Assigned>,
    pub(in crate::config) fields: Vec<Field>,
}

/// One entry of `dbs`.
#[derive(Clone, Debug)]
pub(in crate::config) struct Entry {
    pub(in crate::config) line: Line,
    pub(super) place: Place,
    pub(super) state: Option<StatePlace>,
    pub(in crate::config) section: Section,
    pub(in crate::config) replicas: Vec<ReplicaEntry>,
}

/// One replica of an entry.
#[derive(Clone, Debug)]
pub(in crate::config) struct ReplicaEntry {
    pub(in crate::config) line: Line,
    pub(in crate::config) kind: Option<Field>,
    pub(in crate::config) url: Option<Field>,
    pub(in crate::config) section: Section,
}

/// Which databases an entry is for.
#[derive(Clone, Debug)]
pub(super) enum Place {
    File {
        path: PathBuf,
        /// The path without links, if the file was there when the configuration was read.
        real: Option<PathBuf>,
    },
    Folder {
        dir: PathBuf,
        pattern: String,
        recursive: bool,
    },
}

/// Where the folder of local state is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum StatePlace {
    /// `meta-path`.
    Path(PathBuf),
    /// `meta-dir`.
    Dir(PathBuf),
}

/// How well an entry fits a database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fit {
    /// It names the file.
    File,
    /// It names its folder, in which the database is here.
    Folder(PathBuf),
}

impl Entry {
    /// How the entry fits the database `path`, whose path without links is `real`.
    pub(super) fn fits(&self, path: &Path, real: &Path) -> Option<Fit> {
        match &self.place {
            Place::File { path: own, real: own_real } => {
                // A link on the way may lead elsewhere by now. Only files of one name, or a link, can be one file.
                let may_move = own_real.as_ref() != Some(own);
                let is_it = own == path
                    || own == real
                    || may_move
                        && (own.file_name() == real.file_name() || own.is_symlink())
                        && resolved(own) == real;
                is_it.then_some(Fit::File)
            }
            Place::Folder { dir, pattern, recursive } => {
                let inner = path.strip_prefix(dir).ok().map(Path::to_path_buf);
                let inner = inner.or_else(|| real.strip_prefix(resolved(dir)).ok().map(Path::to_path_buf))?;
                let fits = is_database_in(&inner, *recursive)
                    && pattern::fits(pattern, inner.file_name()?.to_str()?).unwrap_or(false);
                fits.then_some(Fit::Folder(inner))
            }
        }
    }

    /// The databases that the entry is for: the file that it names, or those that are in its folder now, in order.
    ///
    /// # Errors
    /// Those of reading the folder.
    pub(super) fn databases(&self) -> io::Result<Vec<PathBuf>> {
        match &self.place {
            Place::File { path, .. } => Ok(vec![path.clone()]),
            Place::Folder { dir, recursive, .. } => {
                let mut found = Vec::new();
                files_in(dir, *recursive, &mut found)?;
                found.retain(|path| self.fits(path, path).is_some() && is_database(path));
                found.sort();
                Ok(found)
            }
        }
    }

    /// The folder of local state, if the entry moves it; `inner` is the path in its `dir`.
    pub(super) fn state_folder(&self, fit: &Fit) -> Option<PathBuf> {
        match (self.state.as_ref()?, fit) {
            (StatePlace::Path(path), Fit::File) => Some(path.clone()),
            (StatePlace::Path(path), Fit::Folder(inner)) => {
                Some(crate::files::state_folder(&path.join(inner)))
            }
            (StatePlace::Dir(dir), Fit::Folder(inner)) => {
                let mut name = dir.join(inner).into_os_string();
                name.push("-litestream");
                Some(name.into())
            }
            (StatePlace::Dir(_), Fit::File) => None,
        }
    }
}

/// Collects the files of `dir`, and of the folders in it if `recursive`.
fn files_in(dir: &Path, recursive: bool, found: &mut Vec<PathBuf>) -> io::Result<()> {
    for item in fs::read_dir(dir)? {
        let item = item?;
        match item.file_type()? {
            kind if !kind.is_dir() => found.push(item.path()),
            _ if recursive => files_in(&item.path(), recursive, found)?,
            _ => {}
        }
    }
    Ok(())
}

/// Whether the file is a database by its first bytes, as Litestream tells them from what else is in a folder.
fn is_database(path: &Path) -> bool {
    const MAGIC: &[u8; 16] = b"SQLite format 3\0";
    let mut first = [0; MAGIC.len()];
    File::open(path).and_then(|mut file| file.read_exact(&mut first)).is_ok() && first == *MAGIC
}

/// Whether a database may be at `inner` in a folder, and not what belongs to another one.
fn is_database_in(inner: &Path, recursive: bool) -> bool {
    let is_state = |name: &OsStr| {
        let name = name.to_string_lossy();
        name.starts_with('.') && name.ends_with("-litestream")
    };
    let mut folders = inner.parent().into_iter().flat_map(Path::components).peekable();
    if !recursive && folders.peek().is_some() {
        return false;
    }
    folders.all(|part| matches!(part, Component::Normal(name) if !is_state(name)))
}

/// The path without links, also if the file, or a folder above it, is not there yet.
pub(in crate::config) fn resolved(path: &Path) -> PathBuf {
    if let Ok(real) = std::fs::canonicalize(path) {
        return real;
    }
    match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) => resolved(parent).join(name),
        _ => path.to_path_buf(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(place: Place, state: Option<StatePlace>) -> Entry {
        let line = Line { file: Path::new("/c.yml").into(), line: 1 };
        Entry { line, place, state, section: Section::default(), replicas: Vec::new() }
    }

    fn folder(recursive: bool, state: Option<StatePlace>) -> Entry {
        entry(Place::Folder { dir: "/d".into(), pattern: "*.db".to_owned(), recursive }, state)
    }

    #[test]
    fn databases_in_a_folder_fit_its_pattern() {
        let fit = |entry: &Entry, path: &str| match entry.fits(Path::new(path), Path::new(path)) {
            Some(Fit::Folder(inner)) => Some(inner.display().to_string()),
            Some(Fit::File) => panic!("a file"),
            None => None,
        };
        assert_eq!(fit(&folder(false, None), "/d/a.db"), Some("a.db".to_owned()));
        for path in ["/d/a.sqlite", "/d/x/a.db", "/e/a.db", "/d", "/d/.db-wal"] {
            assert_eq!(fit(&folder(false, None), path), None, "{path}");
        }
        assert_eq!(fit(&folder(true, None), "/d/x/y/a.db"), Some("x/y/a.db".to_owned()));
        assert_eq!(fit(&folder(true, None), "/d/.a.db-litestream/hydration.db"), None);
    }

    #[test]
    fn local_state_is_where_litestream_would_have_it() {
        let of = |entry: &Entry, path: &str| {
            let fit = entry.fits(Path::new(path), Path::new(path)).unwrap();
            entry.state_folder(&fit).map(|folder| folder.display().to_string())
        };
        assert_eq!(of(&folder(true, None), "/d/x/a.db"), None);
        assert_eq!(
            of(&folder(true, Some(StatePlace::Path("/m".into()))), "/d/x/a.db").unwrap(),
            "/m/x/.a.db-litestream"
        );
        assert_eq!(
            of(&folder(true, Some(StatePlace::Dir("/m".into()))), "/d/x/a.db").unwrap(),
            "/m/x/a.db-litestream"
        );
        let file =
            entry(Place::File { path: "/d/a.db".into(), real: None }, Some(StatePlace::Path("/m".into())));
        assert_eq!(of(&file, "/d/a.db").unwrap(), "/m");
    }

    #[test]
    fn a_link_is_the_file_that_it_means() {
        let dir = tempfile::tempdir().unwrap();
        let (file, link) = (dir.path().join("a.db"), dir.path().join("link.db"));
        let fits = |own: &Path, path: &Path, was_there: bool| {
            let real = was_there.then(|| resolved(own));
            entry(Place::File { path: own.to_owned(), real }, None).fits(path, &resolved(path)).is_some()
        };
        assert!(fits(&file, &file, false), "a file that is not there yet");
        std::os::unix::fs::symlink(&file, &link).unwrap();
        std::fs::write(&file, "").unwrap();
        for was_there in [true, false] {
            assert!(fits(&link, &file, was_there) && fits(&file, &link, was_there));
        }
        assert!(!fits(&file, &dir.path().join("b.db"), true));
    }
}
