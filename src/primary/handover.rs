//! What a process that does not publish leaves for the one that does.
//!
//! Any process may be the one whose write makes the WAL lose what it holds. One that does not publish
//! cannot know how much of it was captured; it leaves the end of that generation of the WAL, and what
//! came after it, in `.<file name>-litestream/handover/`:
//!
//! | file | what it says |
//! | --- | --- |
//! | `{generation}.end` | where the generation ended, as JSON |
//! | `{generation}.ltx` | its pages, from some frame on |
//! | `{point}.next` | what came after a generation, or after the WAL was emptied, as JSON |
//!
//! A generation is named by its salts, an emptied WAL by the stamp that the database file had then.
//! Each file is written while SQLite's locks keep everybody else from writing the WAL, and appears
//! whole or not at all. The publisher follows them from where it is, and believes that a generation was
//! left only when the WAL itself or a further step bears it out: a process may die between leaving
//! word and doing it.

use std::fs::{self, File};
use std::io::{BufReader, ErrorKind as IoKind};
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::error::{Error, Result};
use crate::files;
use crate::ltx::{Decoder, FileName, Header, Txid};
use crate::primary::pending::Pending;
use crate::primary::spool::write_ltx;
use crate::primary::stamp::Stamp;
use crate::primary::state::StoredPosition;
use crate::wal::{Committed, End, Position, Salts, Scan, WalHeader, scan};

/// Where one generation of the WAL ends and another may follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Point {
    /// The end of the generation with these salts.
    End(Salts),
    /// The WAL was emptied when the database file had this stamp.
    Emptied(Stamp),
}

impl Point {
    fn name(&self) -> String {
        match self {
            Self::End(salts) => generation(*salts),
            Self::Emptied(stamp) => format!("emptied-{}", stamp.name()),
        }
    }
}

/// What came after a point.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Next {
    /// A generation that starts here.
    Begun(StoredPosition),
    /// The WAL was emptied.
    Emptied(Stamp),
    /// Several things that the stamp does not tell apart.
    Unclear,
}

/// Where a generation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Ended {
    /// The pages are those of all frames after this one.
    pub(super) from: u32,
    /// The last committed frame.
    pub(super) to: StoredPosition,
    /// The index said so. Otherwise it is what the WAL file looked like.
    pub(super) is_certain: bool,
}

/// The folder.
#[derive(Clone, Debug)]
pub(super) struct Handover {
    folder: PathBuf,
    /// More than so many bytes are not left.
    limit: u64,
}

impl Handover {
    pub(super) fn new(state_folder: &Path, limit: u64) -> Self {
        Self { folder: state_folder.join("handover"), limit }
    }

    /// Leaves the end of the generation that `wal` holds. `noted` is up to where it is committed, and
    /// `known` how much of it was captured at least.
    ///
    /// # Errors
    /// `Corrupt` if the WAL does not hold what is committed; `NoSpace` beyond the limit; `Io`.
    pub(super) fn leave_end(
        &self,
        wal: &File,
        header: &WalHeader,
        noted: Option<End>,
        known: Option<Position>,
        time: Timestamp,
    ) -> Result<()> {
        let (end, is_certain) = match noted {
            Some(End::Index(index)) if index.salts == header.salts => (End::Index(index), true),
            // The index was reset already: by one of us, who left word, or by somebody else.
            Some(End::Index(_)) if self.ended(header.salts)?.is_some() => return Ok(()),
            Some(End::Index(_)) => (End::LastCommit, false),
            Some(End::LastCommit) | None => (End::LastCommit, true),
        };
        let start = Position::start_of(header);
        let from = known.filter(|known| known.salts == header.salts).unwrap_or(start);
        let found = match scan(wal, from, end)? {
            Scan::OtherGeneration if from != start => scan(wal, start, end)?,
            found => found,
        };
        match found {
            Scan::Nothing => self.write_end(header.salts, from, from, is_certain),
            Scan::Committed(committed) => {
                self.write_pages(wal, &committed, time)?;
                self.write_end(header.salts, committed.from, committed.to, is_certain)
            }
            Scan::OtherGeneration => Err(Error::corrupt("the WAL does not hold what its index says")),
        }
    }

    fn write_pages(&self, wal: &File, committed: &Committed, time: Timestamp) -> Result<()> {
        files::create_folders(&self.folder).map_err(|e| self.io(e))?;
        if self.bytes() > self.limit {
            let message = format!("more than spool_limit waits in {}", self.folder.display());
            return Err(Error::new(crate::error::ErrorKind::NoSpace, message));
        }
        let header = header_of(committed, time, 0);
        let path = self.folder.join(format!("{}.ltx", generation(committed.to.salts)));
        write_ltx(&path, header, |encoder| Pending::default().encode_under(committed, wal, encoder)).map(drop)
    }

    fn write_end(&self, salts: Salts, from: Position, to: Position, is_certain: bool) -> Result<()> {
        let ended = Ended { from: from.frame.0, to: to.into(), is_certain };
        self.write(&format!("{}.end", generation(salts)), &ended)
    }

    /// Leaves word of what comes after `point`.
    ///
    /// # Errors
    /// `Io`, `NoSpace`.
    pub(super) fn leave_next(&self, point: Point, next: Next) -> Result<()> {
        let next = match (point, self.next(point)?) {
            // The stamp did not change although the WAL was used: it does not tell the two apart.
            (Point::Emptied(_), Some(Next::Begun(_) | Next::Unclear)) => Next::Unclear,
            _ => next,
        };
        self.write(&format!("{}.next", point.name()), &next)
    }

    /// Where the generation ended, if somebody left word.
    ///
    /// # Errors
    /// `Io`.
    pub(super) fn ended(&self, salts: Salts) -> Result<Option<Ended>> {
        self.read(&format!("{}.end", generation(salts)))
    }

    /// The pages of the generation.
    ///
    /// # Errors
    /// `NotFound`, `Corrupt`, `Io`.
    pub(super) fn pages(&self, salts: Salts) -> Result<Decoder<BufReader<File>>> {
        let path = self.folder.join(format!("{}.ltx", generation(salts)));
        let file = File::open(&path).map_err(|e| Error::io(path.display(), e))?;
        Decoder::new(BufReader::new(file)).map_err(|e| e.context(path.display()))
    }

    /// What came after `point`, if somebody left word.
    ///
    /// # Errors
    /// `Io`.
    pub(super) fn next(&self, point: Point) -> Result<Option<Next>> {
        self.read(&format!("{}.next", point.name()))
    }

    /// Whether what follows `position` was left, so that the WAL need not hold it any more.
    pub(super) fn covers(&self, position: Position) -> bool {
        self.ended(position.salts)
            .ok()
            .flatten()
            .is_some_and(|ended| (ended.from..=Position::from(ended.to).frame.0).contains(&position.frame.0))
    }

    /// Whether word was left of what came after the WAL was emptied.
    pub(super) fn goes_on(&self, emptied: Stamp) -> bool {
        self.next(Point::Emptied(emptied)).is_ok_and(|next| next.is_some())
    }

    /// All that is there, by name.
    pub(super) fn names(&self) -> Vec<PathBuf> {
        let Ok(entries) = fs::read_dir(&self.folder) else { return Vec::new() };
        entries.flatten().map(|entry| entry.path()).collect()
    }

    /// Removes what was followed from `point`, and files that are of no use any more.
    pub(super) fn followed(&self, point: Point) {
        let mut names = vec![format!("{}.next", point.name())];
        if let Point::End(salts) = point {
            names.extend(["end", "ltx"].map(|kind| format!("{}.{kind}", generation(salts))));
        }
        remove(names.into_iter().map(|name| self.folder.join(name)));
    }

    fn bytes(&self) -> u64 {
        let sizes = self.names().into_iter().filter_map(|path| fs::metadata(path).ok());
        sizes.map(|meta| meta.len()).sum()
    }

    fn write(&self, name: &str, value: &impl Serialize) -> Result<()> {
        let bytes = serde_json::to_vec(value).expect("BUG: what is left is plain data");
        let path = self.folder.join(name);
        let temporary = path.with_extension("tmp");
        files::create_folders(&self.folder)
            .and_then(|()| files::write(&temporary, &bytes))
            .and_then(|()| fs::rename(&temporary, &path))
            .map_err(|e| Error::io(format_args!("cannot write {}", path.display()), e))
    }

    fn read<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>> {
        match fs::read(self.folder.join(name)) {
            Ok(bytes) => Ok(serde_json::from_slice(&bytes).ok()),
            Err(e) if e.kind() == IoKind::NotFound => Ok(None),
            Err(e) => Err(self.io(e)),
        }
    }

    fn io(&self, e: std::io::Error) -> Error {
        Error::io(format_args!("cannot use {}", self.folder.display()), e)
    }
}

/// Removes files that nothing needs; what stays is only in the way.
pub(super) fn remove(paths: impl IntoIterator<Item = PathBuf>) {
    for path in paths {
        let _ = fs::remove_file(path);
    }
}

/// The header of a file with the pages of `committed`, whose transaction is not known yet.
pub(super) fn header_of(committed: &Committed, time: Timestamp, node_id: u64) -> Header {
    let name = FileName::single(Txid::ONE.next());
    let mut header = Header::new(committed.page_size, committed.commit, name, time);
    header.wal_offset = committed.from.frame.end_offset(committed.page_size) as i64;
    header.wal_size = committed.to.frame.end_offset(committed.page_size) as i64 - header.wal_offset;
    (header.salt1, header.salt2) = (committed.to.salts.0, committed.to.salts.1);
    header.node_id = node_id;
    header
}

fn generation(salts: Salts) -> String {
    format!("{:08x}{:08x}", salts.0, salts.1)
}
