//! A file that cannot be used: whether it is damaged, and whether others lead to the same state.

use std::slice;
use std::sync::Arc;

use super::segments::{SegmentReader, Segments};
use super::{Cancel, Progress, plan_from};
use crate::error::{Error, ErrorKind, Result};
use crate::ltx::{Decoder, Header};
use crate::replica::{Plan, RestorePoint, Source, check_name, empty};
use crate::runtime;
use crate::store::FileInfo;

/// What is to be thought of a file that could not be applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Use {
    /// It is damaged, or sealed and nothing opens it.
    Impossible,
    /// Nothing is wrong with it by itself: it came damaged, is gone, or does not fit.
    Possible,
    /// What went wrong says nothing of it, or it is not sealed where it must be: that no other file can stand for.
    Unknown,
}

/// Judges `file`, which could not be applied because of `error`, by reading it once more.
///
/// # Errors
/// Those of the store; `Interrupted`.
pub(super) fn judge(
    source: &Arc<Source>,
    file: &FileInfo,
    error: &Error,
    parallelism: usize,
    (cancel, progress): (&Cancel, &Arc<Progress>),
) -> Result<Use> {
    match error.kind() {
        _ if error.is_of_the_system() => Ok(Use::Unknown),
        ErrorKind::Corrupt | ErrorKind::Unsupported => {
            let (source, cancel) = (Arc::clone(source), cancel.clone());
            let mut segments = Segments::new(
                Arc::clone(&source),
                slice::from_ref(file),
                parallelism,
                cancel,
                Arc::clone(progress),
            )?;
            let mut reader = segments.file(file.size);
            let read = read_to_its_end(&source, file, &mut reader);
            match read.map_err(|e| reader.take_failure().unwrap_or(e)) {
                Ok(()) => Ok(Use::Possible),
                Err(e) => match e.kind() {
                    ErrorKind::Corrupt | ErrorKind::Unsupported => Ok(Use::Impossible),
                    ErrorKind::NotFound => Ok(Use::Possible),
                    _ => Err(e),
                },
            }
        }
        ErrorKind::Denied => {
            let (source, file) = (Arc::clone(source), file.clone());
            let header = runtime::block_on(async move { source.header(&file).await });
            Ok(if header.is_ok_and(|header| header.is_sealed()) { Use::Impossible } else { Use::Unknown })
        }
        _ => Ok(Use::Unknown),
    }
}

/// Verifies a file by itself.
fn read_to_its_end(source: &Source, file: &FileInfo, reader: &mut SegmentReader<'_>) -> Result<()> {
    let mut decoder = Decoder::open(reader, source.keyring())?;
    check_name(file, decoder.header())?;
    let mut page = vec![0; decoder.header().page_size.bytes()];
    while decoder.next_page(&mut page)?.is_some() {}
    decoder.finish().map(drop)
}

/// The error `e` about a file, without which there is only the plan `other`, with what can be done about it.
pub(super) fn no_way(e: Error, other: Result<Plan>) -> Error {
    let rest = match other {
        Ok(earlier) => format!(
            "the replica leads to TXID {} only: restore up to that one, or let the primary write a new snapshot",
            earlier.txid()
        ),
        // What opens it is named already.
        Err(_) if e.kind() == ErrorKind::Denied => return e,
        Err(none) if matches!(none.kind(), ErrorKind::Corrupt | ErrorKind::NotFound) => none.to_string(),
        Err(failed) => return failed,
    };
    Error::new(e.kind(), format!("{e}; without it {rest}"))
}

/// The error about a replica that shows no files.
pub(super) fn nothing_left(source: &Source) -> Error {
    if source.left_out().is_empty() {
        return empty();
    }
    Error::corrupt("nothing can be restored: let the primary write a new snapshot")
}

/// `plan`, which leads to `point`, and the header of its last file; if that file is sealed and nothing can open it, another
/// plan that leads there.
///
/// # Errors
/// `Denied` if there is none, with the file; those of the store.
pub(super) async fn openable(source: &Source, point: RestorePoint, plan: Plan) -> Result<(Plan, Header)> {
    let mut plan = plan;
    loop {
        let header = source.header(plan.last()).await?;
        let Err(e) = source.keyring().may_open(&header) else { return Ok((plan, header)) };
        let e = e.context(format_args!("{} of replica {}", plan.last().id, source.url()));
        if !header.is_sealed() {
            return Err(e);
        }
        source.leave_out(plan.last());
        match plan_from(source, point).await {
            Ok(next) if next.txid() >= plan.txid() => plan = next,
            _ => return Err(e),
        }
    }
}
