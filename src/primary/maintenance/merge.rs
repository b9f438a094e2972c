//! Several files of a replica become one, as a stream: what is in memory is taken from there, the rest
//! comes from the store.

use std::io::{self, Read};
use std::pin::Pin;
use std::sync::Arc;

use bytes::{Buf as _, Bytes, BytesMut};
use futures_util::stream::{self, BoxStream, StreamExt as _, TryStreamExt as _};
use tokio::runtime::Handle;

use crate::clock::Timestamp;
use crate::error::{Error, Result};
use crate::ltx::{FileId, Header, Lineage, merge};
use crate::primary::maintenance::due::{Merge, SMALL};
use crate::primary::seals::{Seals, Subject};
use crate::primary::streaming_upload::{self, PartWriter};
use crate::replica::{PackBuilder, Packed};
use crate::runtime;
use crate::store::{ByteRange, FileInfo, PutOptions, Replica, Work};

/// Files that are asked for at the same time.
const PARALLEL: usize = 8;

/// A merge of no more bytes than this keeps its turn to the end.
const QUICK: u64 = 1 << 20;

/// Writes the file that `work` is about; returns what is there then, and when its last transaction was committed.
///
/// `kept` gives what is in memory, `node_id` becomes that of the new file, of which a pack is made with `pack` if it is one
/// that gets one. As soon as `stop` ends, the work is given up. If a file of that name is there, an earlier attempt has done it. Where
/// `seals` are on, the keys of the inputs are to be forgotten then ([`Seals::merged`]).
///
/// # Errors
/// Those of the store; `Corrupt` naming the file; `Conflict` if the files are of two lineages, or another writer's is there;
/// `Denied` if no key that is kept opens an input; `Interrupted`. Nothing has changed then, unless it was the last answer
/// that got lost.
pub(super) async fn run(
    store: &Arc<Replica>,
    work: &Merge,
    kept: impl Fn(FileId) -> Option<Bytes>,
    (node_id, seals): (u64, &Arc<Seals>),
    pack: bool,
    stop: impl Future<Output = ()>,
) -> Result<(FileInfo, Timestamp, Option<Packed>)> {
    let mut stop = std::pin::pin!(stop);
    // What many databases merge at the same moment would otherwise all be in memory, with as many connections.
    let turn = until(stop.as_mut(), work.to, async { Ok(store.turn(Work::Merge).await) }).await?;
    let inputs: Vec<_> =
        work.inputs.iter().map(|file| open(Arc::clone(store), file.id, kept(file.id))).collect();
    let opened: Vec<Opened> =
        until(stop.as_mut(), work.to, stream::iter(inputs).buffered(PARALLEL).try_collect()).await?;
    // Who waits for the next one does not wait for much.
    let _turn = turn.filter(|_| work.inputs.iter().map(|file| file.size).sum::<u64>() <= QUICK);
    let last = opened.last().expect("BUG: a merge has inputs").header;
    // Where times run backwards, a state is not older than those that it comes after.
    let time = opened.iter().map(|file| file.header.timestamp).max().unwrap_or(last.timestamp);
    let lineage = opened.iter().try_fold(None, |known, file| Lineage::with(known, &file.header))?;
    let plain = Header::new(last.page_size, last.commit, work.to.name, time);
    let header = seals.header(Header { node_id, lineage, ..plain });
    let to = work.to;
    let (subject, keep, by) = (Subject::Replica(work.to), seals.keep_of(work.to.level), Arc::clone(seals));
    let encode = move |out: PartWriter| {
        let inputs = opened.into_iter().map(|file| by.open(file.bytes)).collect::<Result<_>>()?;
        let encoder = by.encoder(out, header, subject, keep)?;
        let mut pack = if pack { PackBuilder::new(to, &encoder)? } else { None };
        let watch = |page: &[u8], entry, frame: &[u8]| {
            if let Some(pack) = &mut pack {
                pack.page(page, entry, frame);
            }
        };
        let (out, summary) = merge(inputs, encoder, watch)?;
        Ok((out, (summary.size, pack.and_then(|pack| pack.finish(&summary)))))
    };
    let options = PutOptions { timestamp: header.timestamp, if_absent: true };
    let (upload, (size, pack)) = streaming_upload::upload(store, work.to, options, encode, stop).await?;
    seals.complete(store, work.to, upload).await?;
    Ok((FileInfo { id: work.to, size, timestamp: work.timestamp() }, time, pack))
}

/// What `step` answers, a step on the way to the file `id`.
///
/// # Errors
/// Those of `step`; `Interrupted` if `stop` ends before it.
async fn until<T>(
    stop: Pin<&mut impl Future<Output = ()>>,
    id: FileId,
    step: impl Future<Output = Result<T>>,
) -> Result<T> {
    tokio::select! {
        biased;
        done = step => done,
        () = stop => Err(streaming_upload::given_up(id)),
    }
}

/// A file to be read.
pub(super) struct Opened {
    pub(super) header: Header,
    pub(super) bytes: Bytewise,
}

/// Opens a file of the replica, or what is `kept` of it.
///
/// # Errors
/// Those of the store; `Corrupt` naming the file.
pub(super) async fn open(store: Arc<Replica>, id: FileId, kept: Option<Bytes>) -> Result<Opened> {
    let named = |e: Error| e.context(format_args!("{} {id}", store.url()));
    let bytes = match kept {
        Some(bytes) => Bytewise { next: bytes, rest: stream::empty().boxed(), runtime: Handle::current() },
        None => {
            let content = store.get(id, ByteRange::All).await?;
            let wanted = if content.file_size <= SMALL { content.file_size as usize } else { Header::SIZE };
            let mut bytes = Bytewise { next: Bytes::new(), rest: content.body, runtime: Handle::current() };
            bytes.ahead(wanted).await?;
            bytes
        }
    };
    let fixed = bytes.next.first_chunk();
    let fixed = fixed.ok_or_else(|| named(Error::corrupt("the header is cut short")))?;
    let header = Header::decode(fixed).map_err(named)?;
    if header.name() != id.name {
        return Err(named(Error::corrupt("the header does not fit the name")));
    }
    Ok(Opened { header, bytes })
}

/// A body as a reader, for a thread that may wait.
pub(super) struct Bytewise {
    /// What comes next.
    next: Bytes,
    /// What follows.
    rest: BoxStream<'static, Result<Bytes>>,
    runtime: Handle,
}

impl Bytewise {
    /// Fetches the next `wanted` bytes, if there are so many.
    async fn ahead(&mut self, wanted: usize) -> Result<()> {
        let mut ahead = BytesMut::from(std::mem::take(&mut self.next));
        while ahead.len() < wanted {
            let Some(chunk) = self.rest.next().await.transpose()? else { break };
            ahead.extend_from_slice(&chunk);
        }
        self.next = ahead.freeze();
        Ok(())
    }
}

impl Read for Bytewise {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        while self.next.is_empty() {
            match runtime::wait_on(&self.runtime, self.rest.next()) {
                None => return Ok(0),
                Some(Ok(chunk)) => self.next = chunk,
                Some(Err(e)) => return Err(io::Error::other(e)),
            }
        }
        let n = buf.len().min(self.next.len());
        self.next.copy_to_slice(&mut buf[..n]);
        Ok(n)
    }
}
