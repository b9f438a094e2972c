//! What comes after a state that is kept outside of this room: a copy of the database that follows the replica.
//!
//! As [`super::follow`] does for readers of pages, mostly the next file is asked for by its name, and a listing from time to
//! time finds what was merged away. What a listing shows of another history ends it all: a copy is never put on files that
//! may not continue it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::by_name::{ByName, next};
use super::load::WHOLE;
use super::plan::{Plan, RestorePoint};
use super::source::{Named, Source};
use crate::error::{Error, ErrorKind, Result};
use crate::ltx::{Header, Level, Lineage, Txid};
use crate::store::FileInfo;

/// The state that is to be continued.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Known {
    /// Its last transaction.
    pub(crate) txid: Txid,
    /// The history that it belongs to, as far as that is known.
    pub(crate) lineage: Option<Lineage>,
    /// The file that brought it, as it was listed.
    pub(crate) anchor: Option<FileInfo>,
}

impl Known {
    /// The replica holds another history than this state's.
    pub(crate) fn another_history(&self) -> Error {
        Error::new(
            ErrorKind::Conflict,
            format!(
                "the replica was reset: it holds another history than the one whose TXID {} was copied; move the copy away \
                 and call litestream_follow again, which copies the replica anew",
                self.txid
            ),
        )
    }
}

/// What is new.
#[derive(Debug)]
pub(crate) enum News {
    /// Nothing.
    Nothing {
        /// A file that leads to the state as the known one does, and stays longer.
        anchor: Option<FileInfo>,
    },
    /// A file that continues the state, and its bytes.
    Next(FileInfo, Bytes),
    /// Files that continue the state.
    More(Plan),
    /// Files that make a later state from nothing: what lies between is not there any more, or cannot be told from another
    /// history.
    Anew(Plan),
    /// The replica shows less than the state: a cache or a mirror lags, or files were removed.
    Older {
        /// The last transaction that it shows.
        end: Txid,
    },
}

/// Looks for what continues a state.
#[derive(Debug)]
pub(crate) struct Tail {
    source: Arc<Source>,
    /// When the next file may be asked for by its name; `None` before the first listing.
    by_name: Option<ByName>,
    interval: Duration,
    /// Who wrote the last file, if that is known; zero if not.
    writer: u64,
}

impl Tail {
    /// Looks into `source` every `interval`.
    pub(crate) fn new(source: Arc<Source>, interval: Duration) -> Self {
        Self { source, by_name: None, interval, writer: 0 }
    }

    /// The file before was written by `writer`; zero if that is not known.
    pub(crate) fn resume(&mut self, writer: u64) {
        self.writer = writer;
    }

    /// The state became that after a file with `header`.
    pub(crate) fn note(&mut self, header: &Header) {
        self.writer = header.node_id;
    }

    /// The next look lists: a file that was announced is not there, or is damaged.
    pub(crate) fn doubt(&mut self) {
        self.by_name = None;
    }

    /// The file that leads to `txid`, as it is listed now, and its header.
    ///
    /// # Errors
    /// Those of the store; `Corrupt`.
    pub(crate) async fn anchor(&self, txid: Txid) -> Result<Option<(FileInfo, Header)>> {
        let files = self.source.list_all_upwards().await?;
        let Some(file) = files.into_iter().find(|file| file.id.name.max() == txid) else { return Ok(None) };
        let header = self.source.header(&file).await?;
        Ok(Some((file, header)))
    }

    /// What is new after `known`.
    ///
    /// # Errors
    /// `Conflict` if the replica holds another history than `known` by now; those of the store; `Corrupt` if files are
    /// missing.
    pub(crate) async fn look(&mut self, known: &Known) -> Result<News> {
        if let Some(news) = self.ask(known).await? {
            return Ok(news);
        }
        if let Some(news) = self.look_at_level_0(known).await? {
            return Ok(news);
        }
        let files = self.source.list_all_upwards().await?;
        self.by_name
            .get_or_insert_with(|| ByName::new(self.source.misses_cheaply(), self.interval))
            .note_listing(&files, known.txid);
        self.listed(known, &files).await
    }

    /// Asks for the next file by its name. `None`: a listing must tell.
    async fn ask(&mut self, known: &Known) -> Result<Option<News>> {
        let (Some(by_name), Some(lineage)) = (&mut self.by_name, known.lineage) else { return Ok(None) };
        if !by_name.may_ask() || self.writer == 0 {
            return Ok(None);
        }
        match self.source.get_by_name(next(known.txid), WHOLE).await {
            Ok(Named::Missing) => {
                by_name.note_missing();
                Ok(Some(News::Nothing { anchor: None }))
            }
            Ok(Named::Whole(file, bytes)) => {
                let header = bytes.first_chunk().and_then(|bytes| Header::decode(bytes).ok());
                let is_ours = |header: &Header| {
                    header.lineage == Some(lineage)
                        && header.node_id == self.writer
                        && header.name() == file.id.name
                };
                Ok(header.filter(is_ours).map(|_| News::Next(file, bytes)))
            }
            Ok(Named::Unclear) => Ok(None),
            Err(e) if e.is_transient() => Err(e),
            Err(e) => {
                // Without the right to list a bucket, some stores deny what is not there.
                if e.kind() == ErrorKind::Denied {
                    by_name.note_denied();
                }
                Ok(None)
            }
        }
    }

    /// What level 0 says, if the file that brought the state is there, and all levels were listed lately. `None`: it does not
    /// tell.
    async fn look_at_level_0(&mut self, known: &Known) -> Result<Option<News>> {
        let lately = self.by_name.as_ref().is_some_and(ByName::is_recent);
        let Some(anchor) = known.anchor.as_ref().filter(|anchor| lately && anchor.id.level == Level::L0)
        else {
            return Ok(None);
        };
        let files = self.source.list(Level::L0, anchor.id.name.min()).await?;
        if !files.iter().any(|file| file.id == anchor.id && is_same(anchor, file)) {
            return Ok(None);
        }
        match Plan::after(&files, RestorePoint::Latest, known.txid) {
            Ok(Some(plan)) => Ok(Some(News::More(plan))),
            Ok(None) => Ok(Some(News::Nothing { anchor: None })),
            Err(_) => Ok(None),
        }
    }

    /// What all `files` of the replica say.
    async fn listed(&self, known: &Known, files: &[FileInfo]) -> Result<News> {
        let Some(newest) = files.iter().max_by_key(|file| file.id.name.max()) else {
            return Err(super::plan::empty());
        };
        let anchor = known.anchor.as_ref();
        let there = anchor.and_then(|anchor| files.iter().find(|file| file.id == anchor.id));
        if anchor.zip(there).is_some_and(|(anchor, there)| !is_same(anchor, there)) {
            return Err(known.another_history());
        }
        let end = newest.id.name.max();
        if end <= known.txid {
            let lineage = self.source.header(newest).await?.lineage;
            return match (known.lineage, lineage) {
                (Some(ours), Some(theirs)) if ours != theirs => Err(known.another_history()),
                _ if end == known.txid => {
                    Ok(News::Nothing { anchor: there.and_then(|there| stays_longer(there, files)) })
                }
                _ => Ok(News::Older { end }),
            };
        }
        // No file says which history it is of, and the one that was known is gone.
        if known.lineage.is_none() && there.is_none() {
            return Plan::new(files, RestorePoint::Latest).map(News::Anew);
        }
        let gap = match Plan::after(files, RestorePoint::Latest, known.txid) {
            Ok(Some(plan)) => return Ok(News::More(plan)),
            Ok(None) => None,
            Err(e) if e.kind() == ErrorKind::Corrupt => Some(e),
            Err(e) => return Err(e),
        };
        // What lies between was removed: retention is past it.
        match (Plan::new(files, RestorePoint::Latest), gap) {
            (Ok(plan), _) if plan.txid() > known.txid => Ok(News::Anew(plan)),
            (_, Some(gap)) => Err(gap),
            (_, None) => Ok(News::Nothing { anchor: None }),
        }
    }
}

/// The file of the highest level that leads to the same transaction as `file`.
fn stays_longer(file: &FileInfo, files: &[FileInfo]) -> Option<FileInfo> {
    let leads_there =
        |other: &&FileInfo| other.id.name.max() == file.id.name.max() && other.id.level > file.id.level;
    files.iter().filter(leads_there).max_by_key(|other| other.id.level).cloned()
}

/// Whether a file is the one that was known: its time may have been told to the second only.
fn is_same(known: &FileInfo, listed: &FileInfo) -> bool {
    let apart = known.timestamp.as_millis().abs_diff(listed.timestamp.as_millis());
    known.size == listed.size && apart < 1000
}

#[cfg(test)]
mod tests;
