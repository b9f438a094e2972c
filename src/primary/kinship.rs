//! Whether a replica that local state knows nothing of holds this database or another one.
//!
//! A database that was restored, copied from another machine, or replicated by Litestream before goes on
//! where its replica ends. Another database must not: its history would be buried. So some pages of the
//! replica are compared with the local ones. What differs may have been changed since; that nothing at
//! all agrees is not how one database looks.

use std::sync::Arc;

use futures_util::StreamExt;

use crate::error::Result;
use crate::ltx::Decoder;
use crate::page::Pgno;
use crate::primary::anchor::ViewPages;
use crate::primary::publisher::blocking;
use crate::primary::resume;
use crate::primary::shared::Shared;
use crate::store::{ByteRange, FileInfo, Store};

/// How much of a file is looked at.
const SAMPLE_BYTES: u64 = 1024 * 1024;
/// How many of its pages.
const SAMPLE_PAGES: usize = 64;
/// A page with fewer bytes that are not zero may be the same in any database.
const DISTINCT_BYTES: usize = 64;

/// Whether a replica that local state knows nothing of holds this database; `newest` is its newest file.
///
/// # Errors
/// Those of the store; `Io`, `Busy` on the database.
pub(super) async fn holds_ours(shared: &Arc<Shared>, newest: FileInfo) -> Result<bool> {
    let store = shared.store.as_ref();
    let mut files = resume::full_files(store).await?;
    files.insert(0, newest);
    for file in files {
        let sample = sample(store, &file).await?;
        let related = blocking(shared, move |shared| {
            let Some(view) = shared.host.read_view()? else { return Ok(false) };
            is_related(&sample, &mut ViewPages::new(view, &shared.wal_path)?)
        });
        if related.await? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Some pages of a file in the replica.
type Sample = Vec<(Pgno, Vec<u8>)>;

/// Reads the first pages of a file.
///
/// # Errors
/// Those of the store; `Corrupt` if the file does not even begin as one.
async fn sample(store: &dyn Store, file: &FileInfo) -> Result<Sample> {
    let (id, len) = (file.id, file.size.min(SAMPLE_BYTES));
    let content = store.get(id, ByteRange::Bounded { offset: 0, len }).await?;
    let mut body = content.body;
    let mut bytes = Vec::new();
    while let Some(chunk) = body.next().await {
        bytes.extend_from_slice(&chunk?);
    }
    let mut decoder =
        Decoder::new(&bytes[..]).map_err(|e| e.context(format_args!("{} {id}", store.url())))?;
    let mut page = vec![0; decoder.header().page_size.bytes()];
    let mut pages = Sample::new();
    // A large file is cut off in the middle.
    while pages.len() < SAMPLE_PAGES
        && let Ok(Some(pgno)) = decoder.next_page(&mut page)
    {
        pages.push((pgno, page.clone()));
    }
    Ok(pages)
}

/// Whether the pages of `sample` look like those of the local database.
///
/// # Errors
/// `Io` on the database.
fn is_related(sample: &Sample, local: &mut ViewPages) -> Result<bool> {
    let mut all_agree = true;
    for (pgno, theirs) in sample {
        let agrees = local.commit().contains(*pgno) && local.page(*pgno)? == *theirs;
        let is_distinct = theirs.iter().filter(|byte| **byte != 0).count() >= DISTINCT_BYTES;
        // Databases that one program created begin alike.
        if agrees && is_distinct && *pgno != Pgno::ONE {
            return Ok(true);
        }
        all_agree &= agrees;
    }
    Ok(all_agree && !sample.is_empty())
}
