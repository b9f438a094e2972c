//! The entries of `dbs`.

use std::path::PathBuf;

use super::{Reader, Source, clean, value_in_file};
use crate::config::catalog::{RESTORE, ROLE};
use crate::config::layer::file::entry::{Entry, Place, ReplicaEntry, Section, StatePlace, resolved};
use crate::config::layer::file::yaml::{Member, Node};
use crate::config::layer::file::{keys, pattern};
use crate::config::setting::Kind;
use crate::config::value;
use crate::error::Result;

/// What an entry of `dbs` has, with lines.
#[derive(Default)]
pub(super) struct EntryParts {
    pub(super) path: Option<(usize, String)>,
    dir: Option<(usize, String)>,
    pattern: Option<(usize, String)>,
    meta_path: Option<(usize, String)>,
    meta_dir: Option<(usize, String)>,
    recursive: bool,
    section: Section,
    replicas: Vec<ReplicaEntry>,
    replicas_at: Option<usize>,
}

impl Reader {
    pub(super) fn entry(&mut self, node: Node) -> Result<Entry> {
        let line = node.line;
        let members = self.mapping("an entry of dbs", node)?;
        let members = members
            .ok_or_else(|| self.error(line, "this entry of dbs is empty: give it a path and a replica"))?;
        let mut parts = EntryParts::default();
        for member in members {
            self.entry_key(&mut parts, member)?;
        }
        self.made(line, parts)
    }

    pub(super) fn made(&self, line: usize, mut parts: EntryParts) -> Result<Entry> {
        let place = self.place(line, &mut parts)?;
        let state = match (parts.meta_path.take(), parts.meta_dir.take(), &place) {
            (Some(_), Some((at, _)), _) => {
                return Err(self.error(at, "meta-dir and meta-path are both given: keep one"));
            }
            (_, Some((at, _)), Place::File { .. }) => {
                return Err(self.error(at, "meta-dir belongs to 'dir'; for a 'path' write meta-path"));
            }
            (Some((at, text)), None, _) => Some(StatePlace::Path(self.path(at, "meta-path", &text)?)),
            (None, Some((at, text)), _) => Some(StatePlace::Dir(self.path(at, "meta-dir", &text)?)),
            (None, None, _) => None,
        };
        if parts.replicas.is_empty() && self.source == Source::File {
            let remedy =
                "this entry of dbs has no replica: write 'replica:' and below it 'url: s3://bucket/path'";
            return Err(self.error(line, remedy));
        }
        Ok(Entry { line: self.line(line), place, state, section: parts.section, replicas: parts.replicas })
    }

    pub(super) fn entry_key(&mut self, parts: &mut EntryParts, member: Member) -> Result<()> {
        let line = member.line;
        match member.key.as_str() {
            "path" => parts.path = self.scalar(&member)?.map(|text| (line, text)),
            "dir" => parts.dir = self.scalar(&member)?.map(|text| (line, text)),
            "pattern" => parts.pattern = self.scalar(&member)?.map(|text| (line, text)),
            "meta-path" => parts.meta_path = self.scalar(&member)?.map(|text| (line, text)),
            "meta-dir" => parts.meta_dir = self.scalar(&member)?.map(|text| (line, text)),
            "recursive" => {
                let text = self.scalar(&member)?.unwrap_or_default();
                let read = value_in_file(Kind::Flag, &text).and_then(|text| value::flag(&text));
                parts.recursive = read.map_err(|e| self.error(line, format!("recursive: {e}")))?;
            }
            "restore-if-db-not-exists" => {
                let Some(text) = self.scalar(&member)? else { return Ok(()) };
                let read = value_in_file(Kind::Flag, &text).and_then(|text| value::flag(&text));
                let on = read.map_err(|e| self.error(line, format!("{}: {e}", member.key)))?;
                let word = if on { "missing" } else { "off" };
                self.set(&RESTORE.declared, &mut parts.section, &member.key, line, word.to_owned())?;
            }
            "role" => self.assign(&ROLE.declared, &mut parts.section, member)?,
            "replica" | "replicas" => {
                if let Some(other) = parts.replicas_at {
                    let message = format!(
                        "'replica' and 'replicas' are both given, the first in line {other}: keep one"
                    );
                    return Err(self.error(line, message));
                }
                parts.replicas_at = Some(line);
                let is_list = member.key == "replicas";
                let nodes =
                    if is_list { self.sequence("replicas", member.value)? } else { vec![member.value] };
                parts.replicas = nodes.into_iter().map(|node| self.replica(node)).collect::<Result<_>>()?;
            }
            _ => self.shared(&mut parts.section, member, keys::DATABASE, "an entry of dbs")?,
        }
        Ok(())
    }

    fn place(&self, line: usize, parts: &mut EntryParts) -> Result<Place> {
        match (parts.path.take(), parts.dir.take()) {
            (Some(_), Some((at, _))) => Err(self.error(at, "'path' and 'dir' are both given: keep one")),
            (None, None) => Err(self.error(
                line,
                "this entry of dbs has neither 'path' nor 'dir': give the path of the database",
            )),
            (Some((at, text)), None) => {
                if let Some((at, _)) = &parts.pattern {
                    return Err(self.error(*at, "'pattern' belongs to 'dir', not to 'path'"));
                }
                let path = self.path(at, "path", &text)?;
                let real = path.exists().then(|| resolved(&path));
                Ok(Place::File { path, real })
            }
            (None, Some((at, text))) => {
                let dir = self.path(at, "dir", &text)?;
                let (at, pattern) = parts.pattern.take().ok_or_else(|| {
                    self.error(at, "'dir' needs a 'pattern' of the databases in it, such as \"*.db\"")
                })?;
                if !pattern::is_pattern(&pattern) {
                    return Err(self.error(
                        at,
                        format!("pattern: '{pattern}' has a [ without its end, or ends with \\"),
                    ));
                }
                Ok(Place::Folder { dir, pattern, recursive: parts.recursive })
            }
        }
    }

    /// An absolute path, as Litestream reads one: without `sqlite://`, with `~`.
    fn path(&self, line: usize, key: &str, text: &str) -> Result<PathBuf> {
        let bare =
            ["sqlite://", "sqlite3://"].iter().find_map(|prefix| text.strip_prefix(prefix)).unwrap_or(text);
        let home = || {
            std::env::var("HOME").map_err(|_| {
                self.error(line, format!("{key}: '~' in '{text}' needs HOME in the environment"))
            })
        };
        let path = match bare.strip_prefix('~') {
            Some("") => home()?,
            Some(rest) if rest.starts_with('/') => home()? + rest,
            _ => bare.to_owned(),
        };
        let absolute = std::path::absolute(&path);
        absolute
            .map(|path| clean(&path))
            .map_err(|e| self.error(line, format!("{key}: '{text}' is no path: {e}")))
    }

    pub(super) fn refuse_twin(&self, entries: &[Entry], entry: &Entry) -> Result<()> {
        let Place::File { path, real } = &entry.place else { return Ok(()) };
        for other in entries {
            let Place::File { path: other_path, real: other_real } = &other.place else { continue };
            let is_same = other_path == path || (real.is_some() && real == other_real);
            let (what, remedy) = if is_same {
                let what = format!("{} has an entry already", path.display());
                (what, "keep one, with all its replicas under 'replicas'")
            } else if entry.state.is_some() && entry.state == other.state {
                ("meta-path is that of another database already".to_owned(), "give each one its own")
            } else {
                continue;
            };
            let message = format!("{what}, in line {}: {remedy}", other.line.line);
            return Err(self.error(entry.line.line, message));
        }
        Ok(())
    }
}
