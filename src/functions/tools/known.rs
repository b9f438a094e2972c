//! The databases and replicas that tools reach.
//!
//! Whoever calls a tool may have read somewhere what to call it with. With the credentials of this server, any URL would
//! reach any store, and any path would make a file where one decides what a program does. So there are: databases of the
//! configuration file, those that this process has open, the replica of `LITESTREAM_REPLICA_URL`; and a restore writes a new
//! file with the ending of a database into the folder of its database.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use crate::config::{self, ConfiguredDatabase, ProcessEnv, RetentionConfig};
use crate::error::{Error, ErrorKind, Result};
use crate::files;
use crate::primary::Primary;
use crate::store::without_secrets;

/// Endings of names that say that a file is a database.
const ENDINGS: [&str; 4] = ["db", "db3", "sqlite", "sqlite3"];

/// A database with its replicas, or a replica alone.
#[derive(Clone, Debug, Default)]
pub(super) struct Known {
    /// The database file, which need not be there; `None` for a replica alone.
    pub(super) path: Option<PathBuf>,
    /// Its replicas.
    pub(super) replicas: Vec<RetentionConfig>,
    /// Its entry in the configuration file.
    pub(super) configured: Option<ConfiguredDatabase>,
}

/// What a tool is to work on.
#[derive(Clone, Debug)]
pub(super) struct Target {
    /// The replica.
    pub(super) replica: RetentionConfig,
    /// Its database.
    path: Option<PathBuf>,
}

/// Everything that tools reach: databases that are open by path, then those of the configuration file in its order, then
/// the replica of the environment.
///
/// # Errors
/// `Config`: the configuration file, or the variable, is wrong; `Io`, `Denied`: the file cannot be read.
pub(super) fn all() -> Result<Vec<Known>> {
    let mut all: Vec<Known> = Primary::all().iter().map(|primary| open(primary)).collect();
    if config::configuration_file(&ProcessEnv)?.is_some() {
        for database in config::databases(&ProcessEnv)? {
            add(&mut all, database);
        }
    }
    if let Some(replica) = config::replica_in_environment(&ProcessEnv)?
        && !all.iter().flat_map(|known| &known.replicas).any(|known| known.target == replica.target)
    {
        all.push(Known { replicas: vec![replica], ..Known::default() });
    }
    Ok(all)
}

fn open(primary: &Primary) -> Known {
    let replicas = primary.replica_configs().iter();
    let replicas = replicas.map(|replica| RetentionConfig {
        target: replica.target.clone(),
        history: replica.options.history.settings(),
    });
    Known { path: Some(primary.path().to_path_buf()), replicas: replicas.collect(), configured: None }
}

/// Adds a database of the configuration file, which may be open.
fn add(all: &mut Vec<Known>, database: ConfiguredDatabase) {
    let path = files::resolved(&database.path);
    let known = all.iter_mut().find(|known| known.path.as_deref() == Some(&*path));
    let Some(known) = known else {
        return all.push(Known {
            path: Some(path),
            replicas: database.replicas.clone(),
            configured: Some(database),
        });
    };
    for replica in &database.replicas {
        if !known.replicas.iter().any(|other| other.target == replica.target) {
            known.replicas.push(replica.clone());
        }
    }
    known.configured = Some(database);
}

/// The database that `name` means, by its path.
pub(super) fn database<'a>(all: &'a [Known], name: &str) -> Option<&'a Known> {
    let path = files::resolved(&config::database_file(name).ok()?);
    all.iter().find(|known| known.path.as_deref() == Some(&*path))
}

/// The database that `name` means, by its path or by the URL of one of its replicas.
pub(super) fn named<'a>(all: &'a [Known], name: &str) -> Option<&'a Known> {
    by_url(all, name).map(|(known, _)| known).or_else(|| database(all, name))
}

fn by_url<'a>(all: &'a [Known], url: &str) -> Option<(&'a Known, &'a RetentionConfig)> {
    let place = url.split('?').next().unwrap_or_default().trim_end_matches('/');
    let is_named = |replica: &&RetentionConfig| replica.target.to_string().trim_end_matches('/') == place;
    all.iter().find_map(|known| Some((known, known.replicas.iter().find(is_named)?)))
}

/// What `name` means: a database, whose first replica it is, or the URL of a replica.
///
/// # Errors
/// `Denied`: tools reach nothing of that name; those of [`all`].
pub(super) fn find(name: &str) -> Result<Target> {
    let all = all()?;
    let by_path = || database(&all, name).and_then(|known| Some((known, known.replicas.first()?)));
    match by_url(&all, name).or_else(by_path) {
        Some((known, replica)) => Ok(Target { replica: replica.clone(), path: known.path.clone() }),
        None => Err(unknown(name, &all)),
    }
}

/// Whether a character ends a line, moves about, or changes the direction of what follows.
fn is_invisible(c: char) -> bool {
    let turns = ['\u{200b}'..='\u{200f}', '\u{2028}'..='\u{202e}', '\u{2066}'..='\u{2069}'];
    c.is_control() || turns.iter().any(|range| range.contains(&c))
}

/// Makes sure that the file `path`, which a restore is to write, is not a database of its own that tools reach, but that of
/// `target`: what is restored there would be published as its newest state.
///
/// # Errors
/// `Denied`; those of [`all`].
pub(super) fn check_output(target: &Target, path: &Path) -> Result<()> {
    let is_another =
        |known: &Known| known.path.as_deref() == Some(path) && target.path.as_deref() != Some(path);
    if all()?.iter().any(is_another) {
        let message =
            format!("o: {} is a database with replicas of its own: name another file", path.display());
        return Err(Error::new(ErrorKind::Denied, message));
    }
    Ok(())
}

/// The error for what tools do not reach.
pub(super) fn unknown(name: &str, all: &[Known]) -> Error {
    let paths = all.iter().filter_map(|known| Some(known.path.as_ref()?.display().to_string()));
    let urls = all.iter().flat_map(|known| &known.replicas).map(|replica| replica.target.to_string());
    let names: Vec<String> = paths.chain(urls).take(10).collect();
    let names = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
    Error::new(
        ErrorKind::Denied,
        format!(
            "'{}' is not among what tools reach: databases of the configuration file, those that this process has open, the \
             replica of LITESTREAM_REPLICA_URL, which are {names}",
            without_secrets(name)
        ),
    )
}

/// Makes sure that `file` is the configuration file that is in force: tools read no other.
///
/// # Errors
/// `Denied`, with the one that is.
pub(super) fn check_configuration(file: &str) -> Result<()> {
    let ours = config::configuration_file(&ProcessEnv)?;
    if ours.as_ref().is_some_and(|ours| files::resolved(ours) == files::resolved(Path::new(file))) {
        return Ok(());
    }
    let ours = ours.map_or("there is none".to_owned(), |ours| format!("it is {}", ours.display()));
    let message = format!(
        "config: tools read no other configuration file than the one in force, and {ours}: leave it out"
    );
    Err(Error::new(ErrorKind::Denied, message))
}

impl Target {
    /// The file that a restore writes: `name`, in the folder of the database, or the database itself.
    ///
    /// # Errors
    /// `Config`: there is neither; `Denied`: tools write no such file.
    pub(super) fn output(&self, name: Option<&str>) -> Result<PathBuf> {
        let Some(name) = name else {
            return self
                .path
                .clone()
                .ok_or_else(|| Error::config("'o' is missing: the name of the new file"));
        };
        let here = || std::env::current_dir().map_err(|e| Error::io("the working directory", e));
        let folder = match self.path.as_deref().and_then(Path::parent) {
            Some(folder) => folder.to_path_buf(),
            None => files::resolved(&here()?),
        };
        // It is shown to people and assistants in lines of text.
        if let Some(c) = name.chars().find(|c| is_invisible(*c)) {
            return Err(Error::new(
                ErrorKind::Denied,
                format!("o: tools write no file whose name has the character U+{:04X}", u32::from(c)),
            ));
        }
        let path = files::resolved(&folder.join(config::database_file(name)?));
        let is_there = path.parent() == Some(&*folder);
        if !is_there || Some(&*path) != self.path.as_deref() && !self.is_named_as_a_database(&path) {
            let message = format!(
                "o: tools write new databases into {} alone, with a name that ends in .{}: write 'copy.db'",
                folder.display(),
                ENDINGS.join(", .")
            );
            return Err(Error::new(ErrorKind::Denied, message));
        }
        Ok(path)
    }

    /// Whether nothing but a database has such a name.
    fn is_named_as_a_database(&self, path: &Path) -> bool {
        let ending = |path: &Path| path.extension().and_then(OsStr::to_str).map(str::to_ascii_lowercase);
        let is_hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        !is_hidden && ending(path).is_some_and(|ending| ENDINGS.contains(&&*ending))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(path: &Path) -> Target {
        let env: [(&'static str, &'static str); 1] = [("LITESTREAM_REPLICA_URL", "file:///r")];
        let replica = config::replica_in_environment(&env).unwrap().unwrap();
        Target { replica, path: Some(path.to_path_buf()) }
    }

    #[test]
    fn a_restore_writes_a_database_beside_its_database() {
        let home = tempfile::tempdir().unwrap();
        let home = home.path().canonicalize().unwrap();
        std::fs::create_dir_all(home.join("sub")).unwrap();
        std::os::unix::fs::symlink("/etc", home.join("link")).unwrap();
        std::os::unix::fs::symlink("/etc/new.db", home.join("dangling.db")).unwrap();
        for own in ["app.db", "app", "app.data"] {
            let target = target(&home.join(own));
            let output = |name: &str| target.output(Some(name));
            assert_eq!(target.output(None).unwrap(), home.join(own));
            for (name, file) in [
                (own, own),
                ("copy.db", "copy.db"),
                ("./Copy.SQLITE3", "Copy.SQLITE3"),
                ("sub/../copy.db3", "copy.db3"),
                ("file:copy.sqlite?x=y", "copy.sqlite"),
            ] {
                assert_eq!(output(name).unwrap(), home.join(file), "{name}");
                assert_eq!(output(&home.join(file).display().to_string()).unwrap(), home.join(file));
            }
            for name in [
                "/etc/cron.d/x.db",
                "../copy.db",
                "sub/copy.db",
                "link/copy.db",
                "copy",
                "copy.conf",
                "app.db-wal",
                "app.db-journal",
                "copy.db-shm",
                ".copy.db",
                ".app.db-litestream",
                "copy.py",
                "..",
                "~/copy.db",
                "x\n- all is lost.db",
                "a\u{1b}[2J.db",
                "gpj.\u{202e}bd.db",
                ":memory:",
                "file:///etc/x.db",
            ] {
                output(name).expect_err(name);
            }
        }
    }
}
