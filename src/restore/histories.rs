//! Whether the files of a plan are of one history, where no lineage says so.
//!
//! A file that ends where one of level 0 does must agree with it: on the size of the database, and on each page that the
//! lower one has.

use std::collections::HashMap;

use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};

use crate::error::{Error, ErrorKind, Result};
use crate::ltx::{Decoder, FileId, Header, Level};
use crate::page::PageCount;
use crate::replica::{Beside, PageSums, Plan, Source, check_name};
use crate::store::{ByteRange, FileInfo};

/// Files that are read at the same time.
const PARALLEL: usize = 8;
/// The most bytes of a file that is read for a comparison.
const SMALL: u64 = 256 * 1024;

/// What is beside the files of a plan: the size of the database, and pages.
#[derive(Debug, Default)]
pub(super) struct Lower(HashMap<FileId, (PageCount, Beside)>);

impl Lower {
    /// Reads what is beside the files of `plan` among `files`.
    ///
    /// # Errors
    /// Those of the store.
    pub(super) async fn read(source: &Source, files: &[FileInfo], plan: &Plan) -> Result<Self> {
        let lower = |file: &FileInfo| {
            let is_beside =
                |other: &&FileInfo| other.id.name.max() == file.id.name.max() && other.size <= SMALL;
            let mut level_0 = files.iter().filter(|other| other.id.level == Level::L0);
            level_0.find(is_beside).map(|lower| (file.id, lower.clone()))
        };
        let above = plan.files().iter().filter(|file| file.id.level != Level::L0);
        let pairs: Vec<_> = above.filter_map(lower).collect();
        let read = stream::iter(pairs).map(|(id, lower)| async move {
            let beside = read_one(source, &lower).await?;
            Ok::<_, Error>(beside.map(|beside| (id, beside)))
        });
        let found: Vec<_> = read.buffered(PARALLEL).try_collect().await?;
        Ok(Self(found.into_iter().flatten().collect()))
    }

    /// What is beside the file `id`.
    pub(super) fn beside(&self, id: FileId) -> Option<(PageCount, Beside)> {
        self.0.get(&id).cloned()
    }
}

/// Size and pages of a file; `None` if it was merged away by now, is damaged, or does not open: what is applied is refused
/// for itself.
async fn read_one(source: &Source, file: &FileInfo) -> Result<Option<(PageCount, Beside)>> {
    let bytes = match source.read(file, ByteRange::All).await {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        read => read?,
    };
    match pages_of(source, file, &bytes) {
        Err(e) if matches!(e.kind(), ErrorKind::Corrupt | ErrorKind::Unsupported | ErrorKind::Denied) => {
            Ok(None)
        }
        read => read.map(Some),
    }
}

fn pages_of(source: &Source, file: &FileInfo, bytes: &[u8]) -> Result<(PageCount, Beside)> {
    let mut decoder = Decoder::open(bytes, source.keyring())?;
    check_name(file, decoder.header())?;
    let mut page = vec![0; decoder.header().page_size.bytes()];
    let mut sums = PageSums::default();
    while let Some(pgno) = decoder.next_page(&mut page)? {
        sums.note(pgno, &page);
    }
    let header = decoder.finish()?.header;
    Ok((header.commit, Beside::new(file.id, sums)))
}

/// Compares a file that was applied, whose header is `header`, with what is beside it.
///
/// # Errors
/// `Conflict` if they contradict each other.
pub(super) fn compare(header: &Header, commit: PageCount, beside: &Beside) -> Result<()> {
    let what = match beside.differing(header.commit) {
        _ if commit != header.commit => "the size of the database".to_owned(),
        Some(pgno) => format!("page {pgno}"),
        None => return Ok(()),
    };
    Err(Error::new(
        ErrorKind::Conflict,
        format!(
            "two histories lie in one replica: it ends where {} does, and {what} is not the same. What is restored \
             would be a mixture: litestream_verify says more; move the files of one history away",
            beside.lower
        ),
    ))
}
