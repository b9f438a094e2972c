//! Whether the files of a plan are of one history, as far as a few headers say.
//!
//! All headers of the plan are compared while it is applied. What is looked at here shows a mixture of files that carry
//! no lineage: two files that end with the same transaction and disagree on the database then.

use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};

use crate::error::{Error, ErrorKind, Result};
use crate::ltx::{FileId, Header, Level, Lineage};
use crate::replica::{Plan, Source};
use crate::store::FileInfo;

/// Headers that are asked for at the same time.
const PARALLEL: usize = 8;

/// Refuses `plan` if one of its files contradicts a file of level 0 among `files` that ends where it does.
///
/// # Errors
/// `Conflict`; those of the store.
pub(super) async fn refuse_two(source: &Source, files: &[FileInfo], plan: &Plan) -> Result<()> {
    let lowest = |file: &FileInfo| {
        let is_beside = |other: &&FileInfo| other.id.name.max() == file.id.name.max() && other.id != file.id;
        let lower = files.iter().filter(|other| other.id.level == Level::L0).find(is_beside)?;
        Some((lower.clone(), file.clone()))
    };
    let pairs: Vec<_> =
        plan.files().iter().filter(|file| file.id.level != Level::L0).filter_map(lowest).collect();
    let compared = stream::iter(pairs).map(|(lower, file)| compare(source, lower, file));
    compared.buffered(PARALLEL).try_collect().await
}

async fn compare(source: &Source, lower: FileInfo, file: FileInfo) -> Result<()> {
    let (a, b) = match (source.header(&lower).await, source.header(&file).await) {
        (Ok(a), Ok(b)) => (a, b),
        // Merged away by now, or damaged: whoever applies it meets that.
        (Err(e), _) | (_, Err(e)) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::Corrupt) => {
            return Ok(());
        }
        (Err(e), _) | (_, Err(e)) => return Err(e),
    };
    Lineage::with(a.lineage, &b)?;
    if a.commit == b.commit { Ok(()) } else { Err(contradiction((lower.id, &a), (file.id, &b))) }
}

fn contradiction((lower, a): (FileId, &Header), (file, b): (FileId, &Header)) -> Error {
    Error::new(
        ErrorKind::Conflict,
        format!(
            "two histories lie in one replica: {file} and {lower} end with the same transaction, and the database has \
             {} pages then in one and {} in the other. What is restored would be a mixture: litestream_verify says \
             more; move the files of one history away",
            b.commit, a.commit
        ),
    )
}
