//! The folder of local state: its format, and the folders of replicas in it.
//!
//! Format 2 has a folder for each replica, `replicas/<id>/`. Format 1, of version 0.1.0, had the state of its one replica
//! beside the locks: the publisher takes it over. What is moved is moved into a folder with another name first, the state
//! last, so that a crash leaves the one or the other.

use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::files;
use crate::primary::shipper::ReplicaId;
use crate::primary::shipper::state::{Former, State};
use crate::primary::shipper::unfinished;

/// The file that names the format.
const FORMAT: &str = "format.json";
/// The format that this version writes, and the latest that it knows.
const VERSION: u32 = 2;
/// The replicas that the database was published to before.
const FORMER: &str = "former.json";
/// The number of former replicas that are remembered.
const MOST_FORMER: usize = 8;
/// The state of a replica.
const STATE: &str = "vfs.json";
/// What a replica has beside its state.
const OF_REPLICA: [&str; 5] = ["spool", "pages.sums", "pages.past", "history.json", "place.json"];
/// What version 0.1.0 kept of the WAL, and what else is of no use: the database has all of it.
const REMAINS: [&str; 6] = ["wal", "handover", "vfs.json.tmp", "pages.new", "pages.opened", "pages.theirs"];
/// How the names of folders end that are not complete yet.
const UNFINISHED: &str = "new";

#[derive(Serialize, Deserialize)]
struct Format {
    version: u32,
}

/// Makes sure that this version knows the format of the folder of local state, and notes it.
///
/// # Errors
/// `Unsupported` if a later version wrote it; `Io`, `Denied`, `NoSpace` on the folder.
pub(super) fn check_format(folder: &Path) -> Result<()> {
    let path = folder.join(FORMAT);
    let format = match fs::read(&path) {
        Ok(bytes) => serde_json::from_slice::<Format>(&bytes).ok(),
        Err(e) if e.kind() == ErrorKind::NotFound => None,
        Err(e) => return Err(Error::io(format_args!("cannot read {}", path.display()), e)),
    };
    match format {
        Some(Format { version: VERSION }) => Ok(()),
        Some(Format { version }) if version > VERSION => Err(Error::new(
            crate::error::ErrorKind::Unsupported,
            format!(
                "{} has format {version}, and this version of litestream_vfs knows {VERSION} at most: open the database \
                 with the version that wrote it or a later one. If there is none, remove the folder; the database is \
                 then compared with its replicas",
                folder.display()
            ),
        )),
        _ => write(&path, &Format { version: VERSION }),
    }
}

fn write(path: &Path, what: &impl Serialize) -> Result<()> {
    let bytes = serde_json::to_vec(what).expect("BUG: it is plain data");
    let temporary = path.with_extension(format!("json.{}.tmp", std::process::id()));
    let written = files::open(&temporary, OpenOptions::new().write(true).truncate(true))
        .and_then(|mut file| file.write_all(&bytes))
        .and_then(|()| fs::rename(&temporary, path));
    written.map_err(|e| Error::io(format_args!("cannot write {}", path.display()), e))
}

/// Makes the folder that of these replicas, each with its URL: what an older version left is taken over, the state of
/// replicas that are not among them goes. Only for the process that publishes.
///
/// # Errors
/// `Io`, `Denied`, `NoSpace` on the folder.
pub(super) fn prepare(folder: &Path, replicas: &[(&ReplicaId, String)]) -> Result<()> {
    let mut prepared = Prepared { folder, replicas, former: read_former(folder), last: None };
    let before = prepared.former.clone();
    let done = prepared
        .finish_moves()
        .and_then(|()| prepared.take_over_older())
        .and_then(|()| prepared.remove_others());
    done.map_err(|e| Error::io(format_args!("cannot use {}", folder.display()), e))?;
    prepared.go_back()?;
    let Prepared { former, .. } = prepared;
    if former == before { Ok(()) } else { write(&folder.join(FORMER), &former) }
}

fn read_former(folder: &Path) -> Vec<Former> {
    let bytes = fs::read(folder.join(FORMER)).unwrap_or_default();
    // Without it a replica that is named again is compared.
    serde_json::from_slice(&bytes).unwrap_or_default()
}

struct Prepared<'a> {
    folder: &'a Path,
    replicas: &'a [(&'a ReplicaId, String)],
    former: Vec<Former>,
    /// The state of a replica that the database was published to last.
    last: Option<State>,
}

impl Prepared<'_> {
    fn all(&self) -> PathBuf {
        ReplicaId::all(self.folder)
    }

    /// A kill may have come between the last move into a folder and its new name.
    fn finish_moves(&self) -> io::Result<()> {
        for path in entries(&self.all())? {
            if path.extension().is_none_or(|extension| extension != UNFINISHED) {
                continue;
            }
            if path.join(STATE).exists() {
                replace(&path, &path.with_extension(""))?;
            }
        }
        Ok(())
    }

    /// Takes over the state of version 0.1.0, which is later than what is there of its replica.
    fn take_over_older(&mut self) -> io::Result<()> {
        let path = self.folder.join(STATE);
        if !path.exists() {
            return Ok(());
        }
        let state = State::load(self.folder).map_err(io::Error::other)?;
        match self.replicas.iter().find(|(_, url)| *url == state.url) {
            Some((id, _)) => {
                let target = id.folder(self.folder);
                let unfinished = target.with_extension(UNFINISHED);
                files::create_folders(&unfinished)?;
                for name in OF_REPLICA.iter().chain([&STATE]) {
                    move_over(&self.folder.join(name), &unfinished.join(name))?;
                }
                replace(&unfinished, &target)?;
                self.remember(state.former());
            }
            None => {
                self.remember(state.clone().into_former());
                self.last = Some(state);
                remove_older(self.folder)?;
            }
        }
        REMAINS.iter().try_for_each(|name| remove(&self.folder.join(name)))
    }

    /// Removes the state of replicas that are not wanted any more. One whose server is at another address now is the same
    /// replica still.
    fn remove_others(&mut self) -> io::Result<()> {
        for path in entries(&self.all())? {
            let is_wanted = self.replicas.iter().any(|(id, _)| id.folder(self.folder) == path);
            if is_wanted {
                self.last = self.last.take().or(State::load(&path).ok());
                continue;
            }
            let state = State::load(&path).map_err(io::Error::other)?;
            let is_heir =
                |(id, url): &&(&ReplicaId, String)| *url == state.url && !id.folder(self.folder).exists();
            if let Some((id, _)) = self.replicas.iter().find(is_heir) {
                fs::rename(&path, id.folder(self.folder))?;
                continue;
            }
            if !state.url.is_empty() {
                tracing::info!("{}: {} is not replicated to any more", self.folder.display(), state.url);
            }
            if let Some(left) = unfinished::of_former(&path, &state.url) {
                tracing::warn!("{left}");
            }
            self.remember(state.clone().into_former());
            self.last = Some(state);
            fs::remove_dir_all(&path)?;
        }
        Ok(())
    }

    fn remember(&mut self, former: Vec<Former>) {
        for one in former {
            self.former.retain(|other| other.url != one.url);
            self.former.push(one);
        }
        self.former.drain(..self.former.len().saturating_sub(MOST_FORMER));
    }

    /// Replicas that the database was published to before are gone back to.
    fn go_back(&mut self) -> Result<()> {
        for (id, url) in self.replicas {
            let known = self.former.iter().position(|former| former.url == *url);
            let Some(former) = known.map(|at| self.former.remove(at)) else { continue };
            let target = id.folder(self.folder);
            if let Some(last) = self.last.as_ref().filter(|_| !target.exists()) {
                files::create_folders(&target)
                    .map_err(|e| Error::io(format_args!("cannot create {}", target.display()), e))?;
                last.back_to(&former).save(&target)?;
            }
        }
        Ok(())
    }
}

/// Removes what a version before this format left: a restore took the place of the database that it is of.
pub(in crate::primary) fn forget_older_version(folder: &Path) {
    if let Err(e) = remove_older(folder) {
        tracing::debug!("{}: {e}", folder.display());
    }
}

fn remove_older(folder: &Path) -> io::Result<()> {
    [STATE].iter().chain(&OF_REPLICA).try_for_each(|name| remove(&folder.join(name)))
}

/// What is in a folder; nothing if there is none.
fn entries(folder: &Path) -> io::Result<Vec<PathBuf>> {
    match fs::read_dir(folder) {
        Ok(entries) => entries.map(|entry| entry.map(|entry| entry.path())).collect(),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        Err(e) => Err(e),
    }
}

/// Moves a file or folder, if it is there.
fn move_over(from: &Path, to: &Path) -> io::Result<()> {
    if from.is_dir() {
        remove(to)?;
    }
    match fs::rename(from, to) {
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Gives the folder `from` the name of `to`, which it takes the place of.
fn replace(from: &Path, to: &Path) -> io::Result<()> {
    remove(to)?;
    fs::rename(from, to)
}

/// Removes a file or folder, if it is there.
fn remove(path: &Path) -> io::Result<()> {
    let removed = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    match removed {
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ltx::Txid;
    use crate::store::{Location, ReplicaIdentity};

    fn id(url: &str) -> ReplicaId {
        ReplicaId::of(&ReplicaIdentity::from(&Location::parse(url, &|_: &str| None).unwrap()))
    }

    /// A folder of local state of which [`prepare`] is told that the database has these replicas.
    fn prepare_for(folder: &Path, urls: &[&str]) {
        let ids: Vec<ReplicaId> = urls.iter().map(|url| id(url)).collect();
        let urls = urls.iter().map(|url| url.split('?').next().unwrap().to_owned());
        prepare(folder, &ids.iter().zip(urls).collect::<Vec<_>>()).unwrap();
    }

    /// A state as version 0.1.0 leaves it.
    fn older(folder: &Path, url: &str, txid: u64) {
        fs::create_dir_all(folder.join("spool")).unwrap();
        fs::write(folder.join("spool/0000000000000002.ltx"), "waits").unwrap();
        fs::write(folder.join("pages.sums"), "sums").unwrap();
        fs::write(folder.join(STATE), format!(r#"{{"node_id":7,"url":"{url}","txid":{txid}}}"#)).unwrap();
    }

    fn state_of(folder: &Path, url: &str) -> State {
        State::load(&id(url).folder(folder)).unwrap()
    }

    #[test]
    fn the_state_of_an_older_version_goes_to_the_replica_that_it_is_of() {
        let home = tempfile::tempdir().unwrap();
        let folder = home.path();
        older(folder, "file:///a", 5);
        prepare_for(folder, &["file:///b", "file:///a"]);
        assert_eq!(state_of(folder, "file:///a").txid, Some(5));
        assert!(id("file:///a").folder(folder).join("spool/0000000000000002.ltx").exists());
        assert!(!folder.join(STATE).exists() && !folder.join("spool").exists());
        assert!(!id("file:///b").folder(folder).exists());
        // The older version ran once more: what it left is later.
        older(folder, "file:///a", 9);
        prepare_for(folder, &["file:///b", "file:///a"]);
        assert_eq!(state_of(folder, "file:///a").txid, Some(9));
    }

    #[test]
    fn a_url_with_escapes_is_that_of_the_state_that_was_written_without() {
        let home = tempfile::tempdir().unwrap();
        let folder = home.path();
        let (before, shown) = ("file:///a%20b", "file:///a%2520b");
        older(folder, before, 5);
        prepare_for(folder, &[shown, "file:///a%20b"]);
        assert_eq!(state_of(folder, shown).txid(shown), Txid::new(5));
        assert!(!id("file:///a%20b").folder(folder).exists());
        // It is written as it was.
        let file = id(shown).folder(folder).join(STATE);
        State::load(file.parent().unwrap()).unwrap().save(file.parent().unwrap()).unwrap();
        let written: serde_json::Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
        assert_eq!(written["url"], before);
    }

    #[test]
    fn a_kill_at_any_point_of_the_move_loses_nothing() {
        for moved in 0..=OF_REPLICA.len() + 1 {
            let home = tempfile::tempdir().unwrap();
            let folder = home.path();
            older(folder, "file:///a", 5);
            let unfinished = id("file:///a").folder(folder).with_extension(UNFINISHED);
            fs::create_dir_all(&unfinished).unwrap();
            for name in OF_REPLICA.iter().chain([&STATE]).take(moved) {
                move_over(&folder.join(name), &unfinished.join(name)).unwrap();
            }
            prepare_for(folder, &["file:///a"]);
            assert_eq!(state_of(folder, "file:///a").txid, Some(5), "{moved}");
            let replica = id("file:///a").folder(folder);
            assert!(replica.join("spool/0000000000000002.ltx").exists(), "{moved}");
            assert!(replica.join("pages.sums").exists() && !unfinished.exists(), "{moved}");
        }
    }

    #[test]
    fn a_replica_that_is_removed_is_remembered_and_can_be_gone_back_to() {
        let home = tempfile::tempdir().unwrap();
        let folder = home.path();
        older(folder, "file:///a", 5);
        prepare_for(folder, &["file:///a"]);
        prepare_for(folder, &["file:///b"]);
        assert!(!id("file:///a").folder(folder).exists());
        fs::create_dir_all(id("file:///b").folder(folder)).unwrap();
        fs::write(id("file:///b").folder(folder).join(STATE), r#"{"node_id":8,"url":"file:///b","txid":2}"#)
            .unwrap();
        prepare_for(folder, &["file:///b", "file:///a"]);
        let back = state_of(folder, "file:///a");
        assert!(back.txid == Some(5) && back.is_back);
        assert_eq!(state_of(folder, "file:///b").txid, Some(2));
    }

    #[test]
    fn a_server_with_another_address_has_the_same_replica() {
        let home = tempfile::tempdir().unwrap();
        let folder = home.path();
        let (old, new) = ("s3://bucket/app?endpoint=http://a:1", "s3://bucket/app?endpoint=http://b:1");
        older(folder, "s3://bucket/app", 5);
        prepare_for(folder, &[old]);
        prepare_for(folder, &[new]);
        assert_eq!(state_of(folder, new).txid, Some(5));
        assert!(!id(old).folder(folder).exists());
        // Two servers with a bucket of one name are two replicas.
        prepare_for(folder, &[old, new]);
        assert_eq!((state_of(folder, new).txid, state_of(folder, old).txid), (Some(5), None));
    }

    #[test]
    fn a_later_format_is_refused() {
        let home = tempfile::tempdir().unwrap();
        check_format(home.path()).unwrap();
        check_format(home.path()).unwrap();
        fs::write(home.path().join(FORMAT), r#"{"version":3,"more":true}"#).unwrap();
        let error = check_format(home.path()).unwrap_err();
        assert_eq!(error.kind(), crate::error::ErrorKind::Unsupported);
        assert!(error.to_string().contains("format 3"), "{error}");
    }
}
