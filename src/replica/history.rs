//! The points that a replica can be restored to.
//!
//! A listing tells which there are; what a point changed and when is in the header and the page index
//! of its file, which are read only when somebody wants to know. Both are in clear, and no key is needed; of a sealed
//! file nothing proves them here.

use std::cmp::Reverse;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures_util::future::{OptionFuture, try_join};
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};

use super::plan::{empty, only_old};
use super::source::{Source, header_of};
use crate::clock::Timestamp;
use crate::error::{Error, ErrorKind, Result};
use crate::ltx::{Header, Level, PageIndex, Shape, TailRead};
use crate::store::{ByteRange, FileInfo, Replica};

/// A file of up to this many bytes comes whole, in one request.
const WHOLE: u64 = 16 * 1024;
/// Most page indexes of level 0 fit into this.
const TAIL: u64 = 16 * 1024;
/// Files that are read at the same time.
const PARALLEL: usize = 16;

/// What is to be found out of a point beside its file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// When it was committed.
    pub time: bool,
    /// How many pages it changed.
    pub pages: bool,
}

/// A point that a replica can be restored to: the last transaction of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HistoryPoint {
    /// The file that leads to it; the one that holds least besides, if there are several.
    pub file: FileInfo,
    /// When it was committed, if that was wanted.
    pub time: Option<Timestamp>,
    /// The number of pages in the file, if that was wanted.
    pub pages: Option<u64>,
}

/// The files that lead to the points which `store` can restore, one for each, the latest first.
///
/// # Errors
/// Those of the store; `NotFound` if the replica is empty.
pub async fn points(store: Arc<Replica>) -> Result<Vec<FileInfo>> {
    let files = Source::new(Arc::clone(&store)).list_all_upwards().await?;
    if files.is_empty() {
        return Err(only_old(&store).await.unwrap_or_else(empty));
    }
    Ok(restorable(&files))
}

/// As [`points`], from a listing.
///
/// `files` are those of all levels in any order. A point can be restored if a file ends there and
/// begins no later than right after an earlier point that can be restored.
fn restorable(files: &[FileInfo]) -> Vec<FileInfo> {
    let usable = |file: &&FileInfo| file.id.level != Level::SNAPSHOT || file.id.name.is_snapshot();
    let mut files: Vec<&FileInfo> = files.iter().filter(usable).collect();
    files.sort_unstable_by_key(|f| (f.id.name.max(), f.id.name.min(), f.id.level));
    let mut points = Vec::new();
    let mut reached = 0;
    for same in files.chunk_by(|a, b| a.id.name.max() == b.id.name.max()) {
        let reachable = |file: &&&FileInfo| file.id.name.min().get() <= reached + 1;
        // The one that holds least, and of several the one on the lowest level.
        let best = same.iter().filter(reachable).max_by_key(|f| (f.id.name.min(), Reverse(f.id.level)));
        if let Some(best) = best {
            points.push((*best).clone());
            reached = best.id.name.max().get();
        }
    }
    points.reverse();
    points
}

/// Finds out what is wanted of the points of `files`, in their order. A file that is no longer there
/// is left out.
///
/// # Errors
/// Those of the store; `Corrupt`.
pub async fn describe(store: Arc<Replica>, files: &[FileInfo], wanted: Wanted) -> Result<Vec<HistoryPoint>> {
    describe_from(&Source::new(store), files, wanted).await
}

/// Whether each of `files` is sealed, in their order; `None` of one that is gone or damaged.
///
/// # Errors
/// Those of the store.
pub async fn sealed(store: Arc<Replica>, files: &[FileInfo]) -> Result<Vec<Option<bool>>> {
    let source = &Source::new(store);
    let one = |file: FileInfo| async move {
        match source.header(&file).await {
            Ok(header) => Ok(Some(header.is_sealed())),
            Err(e)
                if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::Corrupt | ErrorKind::Unsupported) =>
            {
                Ok(None)
            }
            Err(e) => Err(e),
        }
    };
    stream::iter(files.to_vec()).map(one).buffered(PARALLEL).try_collect().await
}

async fn describe_from(source: &Source, files: &[FileInfo], wanted: Wanted) -> Result<Vec<HistoryPoint>> {
    let one = |file: FileInfo| async move {
        match describe_one(source, &file, wanted).await {
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
            described => described.map(Some),
        }
    };
    let points: Vec<_> = stream::iter(files.to_vec()).map(one).buffered(PARALLEL).try_collect().await?;
    Ok(points.into_iter().flatten().collect())
}

async fn describe_one(source: &Source, file: &FileInfo, wanted: Wanted) -> Result<HistoryPoint> {
    let (header, pages) = match wanted {
        Wanted { time: true, pages: true } if file.size <= WHOLE => {
            let bytes = source.read(file, ByteRange::All).await?;
            let header = header_of(file, &bytes)?;
            let TailRead::Index(index) = index_in(file, &bytes, header.shape())? else {
                return Err(endless(file));
            };
            (Some(header), Some(index))
        }
        _ => {
            // The header says how the end is built.
            let header = OptionFuture::from((wanted.time || wanted.pages).then(|| source.header(file)));
            let suffix = ByteRange::Suffix { len: TAIL };
            let tail = OptionFuture::from(wanted.pages.then(|| source.read(file, suffix)));
            let (header, tail) =
                try_join(async { header.await.transpose() }, async { tail.await.transpose() }).await?;
            let shape = header.as_ref().map_or(Shape::PLAIN, Header::shape);
            let index = OptionFuture::from(tail.map(|tail| read_index(source, file, shape, tail)));
            (header.filter(|_| wanted.time), index.await.transpose()?)
        }
    };
    let time = header.map(|header| header.timestamp);
    Ok(HistoryPoint { file: file.clone(), time, pages: pages.map(|index| index.len() as u64) })
}

/// The page index of a file of this `shape`, whose last bytes are `tail`.
async fn read_index(source: &Source, file: &FileInfo, shape: Shape, mut tail: Bytes) -> Result<PageIndex> {
    while let TailRead::NeedMore(len) = index_in(file, &tail, shape)? {
        let missing = len.saturating_sub(tail.len() as u64);
        let offset = file.size.checked_sub(len).filter(|_| missing > 0).ok_or_else(|| endless(file))?;
        let before = source.read(file, ByteRange::Bounded { offset, len: missing }).await?;
        tail = join(before, &tail);
    }
    match index_in(file, &tail, shape)? {
        TailRead::Index(index) => Ok(index),
        TailRead::NeedMore(_) => Err(endless(file)),
    }
}

fn index_in(file: &FileInfo, tail: &[u8], shape: Shape) -> Result<TailRead> {
    PageIndex::from_tail(tail, file.size, shape).map_err(|e| e.context(file.id))
}

fn join(before: Bytes, after: &[u8]) -> Bytes {
    let mut all = BytesMut::from(before);
    all.extend_from_slice(after);
    all.freeze()
}

fn endless(file: &FileInfo) -> Error {
    Error::corrupt(format!("{}: its page index claims to be larger than the file", file.id))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ltx::Txid;
    use crate::replica::tests::fixtures::{History, id, txid};
    use crate::replica::{Plan, RestorePoint};
    use crate::runtime;

    fn files(list: &[(u8, u64, u64)]) -> Vec<FileInfo> {
        let file = |&(level, min, max)| FileInfo {
            id: id(level, min, max),
            size: 100,
            timestamp: Timestamp::from_millis(0),
        };
        list.iter().map(file).collect()
    }

    fn points(list: &[(u8, u64, u64)]) -> Vec<(u8, u64, u64)> {
        let shape = |f: &FileInfo| (f.id.level.get(), f.id.name.min().get(), f.id.name.max().get());
        restorable(&files(list)).iter().map(shape).collect()
    }

    #[test]
    fn each_point_is_listed_once_with_its_smallest_file() {
        let list = [(0, 1, 1), (0, 2, 2), (0, 3, 4), (1, 1, 4), (9, 1, 4), (2, 1, 4), (0, 5, 5)];
        assert_eq!(points(&list), [(0, 5, 5), (0, 3, 4), (0, 2, 2), (0, 1, 1)]);
        assert_eq!(points(&[(2, 1, 4), (1, 1, 4)]), [(1, 1, 4)]);
        assert_eq!(points(&[]), []);
    }

    #[test]
    fn behind_a_gap_nothing_is_restorable_until_the_next_snapshot() {
        let list = [(0, 1, 1), (0, 3, 3), (0, 4, 4), (9, 1, 5), (0, 6, 6)];
        assert_eq!(points(&list), [(0, 6, 6), (9, 1, 5), (0, 1, 1)]);
        assert_eq!(points(&[(0, 2, 2), (9, 2, 2)]), []);
    }

    proptest! {
        /// The oracle is the plan itself.
        #[test]
        fn what_is_listed_is_what_can_be_planned(
            list in prop::collection::vec((0u8..=9, 1u64..20, 0u64..8), 0..25),
        ) {
            let list: Vec<_> = list.into_iter().map(|(level, min, len)| (level, min, min + len)).collect();
            let mut expected: Vec<u64> = (1..30)
                .filter(|n| Plan::new(&files(&list), RestorePoint::Txid(txid(*n))).is_ok_and(|p| p.txid() == txid(*n)))
                .collect();
            expected.reverse();
            let found: Vec<u64> = points(&list).into_iter().map(|(_, _, max)| max).collect();
            prop_assert_eq!(found, expected);
        }
    }

    #[test]
    fn time_and_pages_come_from_the_files() {
        let mut history = History::new(4096, 1);
        history.commit(3000, &[]);
        history.put(9, 1, 1);
        history.commit(3000, &[1, 7, 2000]);
        history.put(0, 2, 2);
        let store = history.store();
        let describe = |wanted| {
            let store = store.clone();
            runtime::block_on(async move {
                let source = Source::new(store);
                let files = restorable(&source.list_all().await?);
                Ok((describe_from(&source, &files, wanted).await?, source.requests()))
            })
            .unwrap()
        };
        let (points, requests) = describe(Wanted { time: true, pages: true });
        let seen: Vec<_> = points.iter().map(|p| (p.file.id.name.max(), p.time, p.pages)).collect();
        let time = |n| Some(history.time(n));
        assert_eq!(seen, [(txid(2), time(2), Some(3)), (txid(1), time(1), Some(3000))]);
        // A listing of each level, one for the small file, header and two of the end of the large one.
        assert_eq!(requests, 10 + 1 + 3);
        let (points, requests) = describe(Wanted::default());
        assert_eq!((points.len(), requests), (2, 10));
        assert_eq!(points[0].time, None);
        assert_eq!(Txid::new(2), Some(points[0].file.id.name.max()));
    }
}
