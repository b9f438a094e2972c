//! Reads LTX files whole: their pages are in the local file then, and their checksums were compared.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};

use super::chunk::{CHECKSUM, Chunk, Chunks};
use super::local::Local;
use super::span::LARGE;
use super::{Records, bytes_of, twice};
use crate::error::{Error, ErrorKind, Result};
use crate::ltx::{PageIndex, TailRead};
use crate::replica::file_end::read_tail;
use crate::replica::files::Files;
use crate::replica::map::ReplicaFile;
use crate::replica::verdict::Verdict;
use crate::runtime;

/// Parts that are fetched at the same time.
const PARALLEL: usize = 4;
/// A file that fails its checksum is read again after this long, and after twice as long each further time, up to
/// [`LONGEST_PAUSE`].
const PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(3600);

/// The files that failed their checksums, by number.
#[derive(Debug, Default)]
pub(in crate::replica) struct Damaged {
    files: HashMap<u32, Failed>,
    /// One of them was found since that was asked last.
    is_news: bool,
}

#[derive(Debug)]
struct Failed {
    error: Error,
    pause: Duration,
    again: Instant,
}

impl Damaged {
    /// Whether the file `number` is not to be read now.
    pub(super) fn waits(&self, number: u32) -> bool {
        self.files.get(&number).is_some_and(|failed| Instant::now() < failed.again)
    }

    /// Takes up how a check of `file` went; an error that says nothing about the file is returned.
    pub(super) fn note(&mut self, file: &ReplicaFile, outcome: Result<()>) -> Result<()> {
        match outcome {
            Ok(()) => {
                self.files.remove(&file.number);
            }
            Err(error) if error.kind() == ErrorKind::Corrupt => {
                let before = self.files.get(&file.number);
                self.is_news |= before.is_none();
                let pause = before.map_or(PAUSE, |failed| (failed.pause * 2).min(LONGEST_PAUSE));
                let again = Instant::now() + pause;
                self.files.insert(file.number, Failed { error, pause, again });
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Whether a file was found to be damaged since this was asked last.
    pub(in crate::replica) fn take_news(&mut self) -> bool {
        std::mem::take(&mut self.is_news)
    }

    /// What is wrong with a file that the latest state needs.
    ///
    /// # Errors
    /// `Corrupt`, if there is such a file.
    pub(super) fn outcome(&mut self, local: &Local) -> Result<()> {
        self.files.retain(|number, _| local.needs(*number));
        self.files.values().next().map_or(Ok(()), |failed| Err(failed.error.clone()))
    }
}

/// Reads `file` whole, once more if it fails its checksum. From then on its pages are in `local` and proven, or they
/// are not served.
///
/// # Errors
/// `Corrupt`, naming the file, if it failed twice; those of the store and the file system.
pub(super) async fn check(
    files: &Arc<Files>,
    local: &Arc<Local>,
    file: &Arc<ReplicaFile>,
    records: &Records,
) -> Result<()> {
    let once = || async {
        let checked = check_once(files, local, file, records).await;
        if checked.as_ref().is_err_and(|e| e.kind() == ErrorKind::Corrupt) {
            local.forget_check(file);
        }
        checked
    };
    let outcome = twice(once).await;
    match &outcome {
        Ok(()) => {
            file.verdict.set(Verdict::Whole);
            // What was read before is in the local file now, and was checked there.
            files.cache.forget(file.number);
        }
        Err(e) if e.kind() == ErrorKind::Corrupt => {
            tracing::error!(error = %e, "a file of the replica is damaged; its pages are not served");
            file.verdict.set(Verdict::Damaged);
        }
        Err(_) => {}
    }
    outcome
}

async fn check_once(
    files: &Arc<Files>,
    local: &Arc<Local>,
    file: &Arc<ReplicaFile>,
    records: &Records,
) -> Result<()> {
    let Ends { index, checksum, whole } = read_ends(files, file).await?;
    let chunks = Chunks::new(file.clone(), index, local.parts_of(file));
    let taken = stream::iter(chunks).map(|chunk| take_in(files, local, chunk, whole.clone()));
    let taken = taken.buffer_unordered(PARALLEL);
    taken.try_for_each(|()| async { records.if_due(local).await }).await?;
    let (local, file) = (local.clone(), file.clone());
    runtime::blocking(move || local.judge(&file, checksum)).await
}

/// What must be known of a file before its parts are read.
struct Ends {
    index: PageIndex,
    /// As the trailer has it.
    checksum: u64,
    /// All of the file, if it is small.
    whole: Option<Bytes>,
}

async fn read_ends(files: &Files, file: &ReplicaFile) -> Result<Ends> {
    let size = file.info.size;
    let (tail, index, whole) = if size <= LARGE {
        let bytes = bytes_of(files, file, 0, size).await?;
        match PageIndex::from_tail(&bytes, size, file.codec.shape()).map_err(|e| e.context(file.info.id))? {
            TailRead::Index(index) => (bytes.clone(), index, Some(bytes)),
            TailRead::NeedMore(_) => {
                return Err(Error::corrupt(format!("{}: its page index has no beginning", file.info.id)));
            }
        }
    } else {
        let (tail, index) = read_tail(&files.source, &file.info, file.codec.shape()).await?;
        (tail, index, None)
    };
    PageIndex::check_tail(&tail, &file.codec).map_err(|e| e.context(file.info.id))?;
    let last = tail.last_chunk::<{ CHECKSUM as usize }>().expect("BUG: a page index is before the trailer");
    Ok(Ends { index, checksum: u64::from_be_bytes(*last), whole })
}

/// Fetches a chunk and takes its pages in. What does not decode is fetched once more.
async fn take_in(files: &Arc<Files>, local: &Arc<Local>, chunk: Chunk, whole: Option<Bytes>) -> Result<()> {
    let chunk = Arc::new(chunk);
    twice(|| async {
        let bytes = match &whole {
            Some(whole) => whole.slice(chunk.start as usize..chunk.end as usize),
            None => bytes_of(files, &chunk.file, chunk.start, chunk.end).await?,
        };
        let (local, chunk) = (local.clone(), chunk.clone());
        runtime::blocking(move || local.take_in(&chunk, &bytes)).await
    })
    .await
}
