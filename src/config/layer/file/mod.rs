//! The layer of the configuration file, `litestream.yml`, as Litestream has it.
//!
//! | file | what it is |
//! | --- | --- |
//! | `yaml` | the text as a tree that knows its lines |
//! | `expand` | `$VAR` in the text |
//! | `read` | the tree as entries: each key understood and checked |
//! | `keys` | keys of Litestream's that are no settings of this library |
//! | `entry` | what the file has for one database, and which databases that are |
//! | `pattern` | patterns of file names |
//! | `configured` | entries that a program gave, not a file |
//! | `cache` | a file is read once, and again when it changed |

mod cache;
mod configured;
mod entry;
mod expand;
mod keys;
mod pattern;
mod read;
#[cfg(test)]
mod tests;
mod yaml;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::super::origin::Line;
use super::{Assigned, Env};
use crate::error::{Error, Result};
use crate::monitor::Webhook;
pub(in crate::config) use cache::document;
pub(in crate::config) use configured::configured;
pub use configured::{configure, forget};
use entry::Fit;
pub(in crate::config) use entry::ReplicaEntry;
use entry::{Entry, Section, resolved};

/// A configuration file that was read.
#[derive(Debug)]
pub(in crate::config) struct Document {
    pub(in crate::config) file: Arc<Path>,
    /// What holds for all databases.
    pub(in crate::config) global: Section,
    entries: Vec<Entry>,
    /// What holds for the process.
    pub(in crate::config) process: Vec<Assigned>,
    /// Where events go.
    pub(in crate::config) webhooks: Vec<Webhook>,
    /// What has no effect, in the order of lines.
    pub(in crate::config) notes: Vec<Note>,
    /// Warnings were given.
    told: AtomicBool,
}

/// Something in the file that has no effect.
#[derive(Clone, Debug)]
pub(in crate::config) struct Note {
    pub(in crate::config) line: Line,
    pub(in crate::config) key: String,
    pub(in crate::config) value: String,
    pub(in crate::config) text: String,
    /// The key is one that nobody knows.
    pub(in crate::config) is_warning: bool,
}

/// The entry of a database.
#[derive(Clone, Debug)]
pub(in crate::config) struct Matched {
    pub(in crate::config) document: Arc<Document>,
    entry: usize,
    fit: Fit,
}

impl Document {
    fn new(
        file: Arc<Path>,
        global: Section,
        entries: Vec<Entry>,
        process: Vec<Assigned>,
        mut notes: Vec<Note>,
    ) -> Self {
        notes.sort_by_key(|note| note.line.line);
        Self { file, global, entries, process, webhooks: Vec::new(), notes, told: AtomicBool::new(false) }
    }

    /// Warns of unknown keys, the first time.
    pub(in crate::config) fn warn(&self) {
        if !self.told.swap(true, Ordering::Relaxed) {
            for note in self.notes.iter().filter(|note| note.is_warning) {
                tracing::warn!("{}: {}", note.line, note.text);
            }
        }
    }
}

/// The entry of `document` for the database `path`: one that names the file, else the first that names its folder.
pub(in crate::config) fn find(document: &Arc<Document>, path: &Path) -> Option<Matched> {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
    let real = resolved(&path);
    let mut folder = None;
    for (entry, candidate) in document.entries.iter().enumerate() {
        match candidate.fits(&path, &real) {
            Some(fit @ Fit::File) => return Some(Matched { document: Arc::clone(document), entry, fit }),
            Some(fit) if folder.is_none() => folder = Some((entry, fit)),
            _ => {}
        }
    }
    folder.map(|(entry, fit)| Matched { document: Arc::clone(document), entry, fit })
}

impl Matched {
    pub(in crate::config) fn entry(&self) -> &Entry {
        &self.document.entries[self.entry]
    }

    /// The folder of local state, if the entry moves it.
    pub(in crate::config) fn state_folder(&self) -> Option<PathBuf> {
        self.entry().state_folder(&self.fit)
    }

    /// The path of the database in the entry's `dir`, by which its replicas are told from those of others there.
    fn inner(&self) -> Option<String> {
        match &self.fit {
            Fit::File => None,
            Fit::Folder(inner) => Some(inner.to_string_lossy().into_owned()),
        }
    }

    /// What holds for the database, its own settings before those of the file.
    pub(in crate::config) fn values(&self) -> Vec<Assigned> {
        [&self.entry().section, &self.document.global]
            .iter()
            .flat_map(|section| section.values.clone())
            .collect()
    }

    /// The URL of the replica, if it has one.
    pub(in crate::config) fn url_of(&self, replica: &ReplicaEntry) -> Option<String> {
        use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
        const IN_PATH: &AsciiSet = &CONTROLS.add(b' ').add(b'?').add(b'#').add(b'%').add(b'&');

        let url = &replica.url.as_ref()?.text;
        let Some(inner) = self.inner() else { return Some(url.clone()) };
        let (place, query) =
            url.split_once('?').map_or((url.as_str(), None), |(place, query)| (place, Some(query)));
        let place = format!("{}/{}", place.trim_end_matches('/'), utf8_percent_encode(&inner, IN_PATH));
        Some(query.map_or(place.clone(), |query| format!("{place}?{query}")))
    }

    /// The value of the replica's field `name`, its own before that of the file.
    pub(in crate::config) fn field_of(&self, replica: &ReplicaEntry, name: &str) -> Option<String> {
        let mut fields = replica.section.fields.iter().chain(&self.document.global.fields);
        let own = fields.find(|field| &*field.name == name).map(|field| field.text.clone());
        match (name, self.inner()) {
            ("path", Some(inner)) => Some(match own {
                Some(path) => format!("{}/{inner}", path.trim_end_matches('/')),
                None => inner,
            }),
            _ => own,
        }
    }
}

/// The databases of `document`: files that entries name, and what is in folders that they name now.
///
/// # Errors
/// Those of reading such a folder, with the line that names it.
pub(in crate::config) fn databases(document: &Document) -> Result<Vec<PathBuf>> {
    let mut found: Vec<PathBuf> = Vec::new();
    for entry in &document.entries {
        let of_entry = entry.databases().map_err(|e| Error::io(&entry.line, e))?;
        found.extend(of_entry.into_iter().filter(|path| !found.contains(path)).collect::<Vec<_>>());
    }
    Ok(found)
}

/// Reads the configuration file at `path`.
///
/// # Errors
/// Those of the file system; `Config` with file and line.
fn read_file(path: &Path, env: &dyn Env) -> Result<Document> {
    let bytes = std::fs::read(path).map_err(|e| {
        crate::error::Error::io(format_args!("cannot read the configuration {}", path.display()), e)
    })?;
    let text = String::from_utf8(bytes).map_err(|_| {
        crate::error::Error::config(format!("{} is not UTF-8: write it in that encoding", path.display()))
    })?;
    read::read(path, &text, env)
}
