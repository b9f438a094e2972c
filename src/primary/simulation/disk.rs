//! Files of which a power failure loses what was not synced.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use super::ledger::{Ledger, is_keys};
use crate::runtime::simulated::Simulation;

/// The clock that the file system takes its times from.
const TICK_MS: u64 = 10;

/// A change of a file that is not on the disk itself yet.
#[derive(Clone, Debug)]
enum Change {
    Write(usize, Vec<u8>),
    Cut(usize),
    Remove,
}

impl Change {
    fn apply(&self, to: &mut Option<Vec<u8>>) {
        match self {
            Self::Remove => *to = None,
            Self::Cut(len) => to.get_or_insert_default().resize(*len, 0),
            Self::Write(at, bytes) => {
                let to = to.get_or_insert_default();
                if to.len() < at + bytes.len() {
                    to.resize(at + bytes.len(), 0);
                }
                to[*at..at + bytes.len()].copy_from_slice(bytes);
            }
        }
    }
}

/// A file of SQLite's, in memory, and where the library finds it.
#[derive(Debug)]
pub(super) struct Disk {
    pub(super) path: PathBuf,
    now: Option<Vec<u8>>,
    durable: Option<Vec<u8>>,
    pending: Vec<Change>,
    /// Nobody waits for the disk, as with `synchronous=OFF`.
    pub(super) is_lazy: bool,
}

impl Disk {
    pub(super) fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), now: None, durable: None, pending: Vec::new(), is_lazy: false }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        self.now.as_deref().unwrap_or_default()
    }

    /// `len` bytes at `at`, zeros where the file ends before.
    pub(super) fn read(&self, at: usize, len: usize) -> Vec<u8> {
        let bytes = self.bytes();
        let mut read =
            bytes.get(at.min(bytes.len())..(at + len).min(bytes.len())).unwrap_or_default().to_vec();
        read.resize(len, 0);
        read
    }

    fn change(&mut self, simulation: &Simulation, change: Change) {
        change.apply(&mut self.now);
        match &change {
            Change::Remove => _ = fs::remove_file(&self.path),
            Change::Cut(len) => self.open().set_len(*len as u64).unwrap(),
            Change::Write(at, bytes) => self.open().write_all_at(bytes, *at as u64).unwrap(),
        }
        self.pending.push(change);
        self.touch(simulation);
    }

    fn open(&self) -> File {
        OpenOptions::new().create(true).truncate(false).write(true).open(&self.path).unwrap()
    }

    /// Gives the file the time that it has by the clock of the simulation.
    fn touch(&self, simulation: &Simulation) {
        if self.now.is_some() {
            let millis = simulation.time_of_day().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64;
            let time = UNIX_EPOCH + Duration::from_millis(millis / TICK_MS * TICK_MS);
            self.open().set_modified(time).unwrap();
        }
    }

    pub(super) fn write(&mut self, simulation: &Simulation, at: usize, bytes: &[u8]) {
        self.change(simulation, Change::Write(at, bytes.to_vec()));
    }

    pub(super) fn cut(&mut self, simulation: &Simulation, len: usize) {
        self.change(simulation, Change::Cut(len));
    }

    pub(super) fn remove(&mut self, simulation: &Simulation) {
        self.change(simulation, Change::Remove);
    }

    pub(super) fn sync(&mut self) {
        if self.is_lazy {
            return;
        }
        self.pending.clear();
        self.durable.clone_from(&self.now);
    }

    /// The machine goes down: of what was not synced any part may be there, and any write torn. Some file systems keep
    /// the time of the last write although its content is lost.
    pub(super) fn fail(&mut self, simulation: &Simulation) {
        let time = fs::metadata(&self.path).and_then(|meta| meta.modified()).ok();
        let mut left = self.durable.clone();
        // Often enough all of it is there up to some moment.
        let in_order = simulation.below(2) == 0;
        for mut change in std::mem::take(&mut self.pending) {
            match simulation.below(4) {
                0 if in_order => break,
                0 => continue,
                1 => {
                    if let Change::Write(_, bytes) = &mut change {
                        bytes.truncate(simulation.below(bytes.len() as u64) as usize);
                    }
                }
                _ => {}
            }
            change.apply(&mut left);
        }
        self.now = left;
        match &self.now {
            Some(bytes) => {
                self.open().set_len(0).unwrap();
                self.open().write_all_at(bytes, 0).unwrap();
            }
            None => _ = fs::remove_file(&self.path),
        }
        self.durable.clone_from(&self.now);
        match time.filter(|_| self.now.is_some() && simulation.below(2) == 0) {
            Some(time) => self.open().set_modified(time).unwrap(),
            None => self.touch(simulation),
        }
    }
}

/// The folder of local state, of which the settings are synced, and keys where something depends on it: after a power failure
/// any other file may be what it was earlier, torn, or missing.
#[derive(Debug)]
pub(super) struct StateFolder {
    path: PathBuf,
    /// What each file held, the last one at the end; of one that was synced, since then.
    versions: BTreeMap<PathBuf, Vec<Vec<u8>>>,
    /// The files that were synced.
    synced: BTreeSet<PathBuf>,
}

/// More versions of a file are not remembered.
const VERSIONS: usize = 5;

impl StateFolder {
    pub(super) fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), versions: BTreeMap::new(), synced: BTreeSet::new() }
    }

    /// Looks at all files, and shows them to `ledger`.
    pub(super) fn look(&mut self, simulation: &Simulation, ledger: &mut Ledger) {
        for (path, held) in simulation.take_synced() {
            self.versions.insert(path.clone(), vec![held]);
            self.synced.insert(path);
        }
        let mut folders = vec![self.path.clone()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
                let Ok(kind) = entry.file_type() else { continue };
                if kind.is_dir() {
                    folders.push(entry.path());
                } else if kind.is_file()
                    && let Ok(bytes) = fs::read(entry.path())
                {
                    let versions = self.versions.entry(entry.path()).or_default();
                    if versions.last() != Some(&bytes) {
                        ledger.found(&entry.path(), &bytes);
                        versions.push(bytes);
                    }
                    if versions.len() > VERSIONS {
                        versions.remove(0);
                    }
                }
            }
        }
    }

    /// What is in the files of kept keys.
    pub(super) fn keys(&self) -> impl Iterator<Item = &[u8]> {
        let there = self.versions.iter().filter(|(path, _)| is_keys(path) && path.exists());
        there.filter_map(|(_, versions)| Some(versions.last()?.as_slice()))
    }

    /// The machine goes down.
    pub(super) fn fail(&mut self, simulation: &Simulation, ledger: &mut Ledger) {
        self.look(simulation, ledger);
        // Often all of it was written long before.
        if simulation.below(3) == 0 {
            return;
        }
        for (path, versions) in &mut self.versions {
            if path.ends_with("settings.json") {
                continue;
            }
            let any = simulation.below(versions.len() as u64) as usize;
            let found = match simulation.below(8) {
                0..5 if self.synced.contains(path) => Some(versions[any].clone()),
                0 => None,
                1 => {
                    let mut torn = versions[any].clone();
                    torn.truncate(simulation.below(1 + torn.len() as u64) as usize);
                    Some(torn)
                }
                2..5 => Some(versions[any].clone()),
                _ if path.exists() => versions.last().cloned(),
                _ => continue,
            };
            match found {
                Some(bytes) => fs::write(path, bytes).unwrap(),
                None => _ = fs::remove_file(path),
            }
        }
    }
}
