//! What the newest files of a replica say of it.

use futures_util::{StreamExt, future, stream};

use crate::clock::Timestamp;
use crate::error::{Error, ErrorKind, Result};
use crate::ltx::{FileId, FrameCodec, Header, Level, Lineage, PageIndex, TailRead, Txid};
use crate::page::PageCount;
use crate::primary::dirty::PageSet;
use crate::primary::seals::{Head, Seals, read_head};
use crate::primary::shipper::misfit;
use crate::store::{ByteRange, FileInfo, Replica};

/// The number of bytes at the end of a file that are read first for its page index.
const TAIL_SIZE: u64 = 16 * 1024;
/// The number of headers that are read at the same time.
const HEADERS: usize = 32;

/// What the last file of a replica says of it.
#[derive(Clone, Copy, Debug)]
pub(in crate::primary) struct Newest {
    pub(super) id: FileId,
    pub(super) header: Header,
    /// The history that the replica is of, as far as its newest files and local state say so.
    pub(in crate::primary) lineage: Option<Lineage>,
}

impl Newest {
    /// Reads the header of the last file, `newest`, of a replica that may be of the lineage `known`.
    ///
    /// # Errors
    /// Those of the store; `Corrupt` naming the file; `Conflict` if it is sealed and `seals` are off, as nothing plain may
    /// follow it.
    pub(in crate::primary) async fn read(
        store: &Replica,
        newest: &FileInfo,
        known: Option<Lineage>,
        seals: &Seals,
    ) -> Result<Self> {
        let header = read_header(store, newest.id).await?;
        if header.is_sealed() && !seals.are_on() {
            return Err(misfit::sealed(store, newest.id));
        }
        let lineage = match header.lineage.or(known) {
            None if header.is_sealed() => None,
            None => lineage_of_older_files(store).await?,
            known => known,
        };
        Ok(Self { id: newest.id, header, lineage })
    }

    /// Whether a Litestream sidecar wrote it.
    pub(in crate::primary) const fn is_sidecars(&self) -> bool {
        self.header.is_litestreams()
    }

    /// When the last transaction was committed.
    pub(in crate::primary) const fn time(&self) -> Timestamp {
        self.header.timestamp
    }
}

/// The file of the replica with the last transaction, which is `known` or a later one if that is there.
///
/// # Errors
/// Those of the store.
pub(in crate::primary) async fn newest(store: &Replica, known: Option<Txid>) -> Result<Option<FileInfo>> {
    if let Some(known) = known {
        let newest = store.list(Level::L0, known).await?.into_iter().max_by_key(|f| f.id.name.max());
        if newest.is_some() {
            return Ok(newest);
        }
    }
    let levels = future::try_join_all(Level::all().map(|level| store.list(level, Txid::ONE))).await?;
    Ok(levels.into_iter().flatten().max_by_key(|f| f.id.name.max()))
}

/// Reads and verifies the header of a file.
///
/// # Errors
/// Those of the store; `Corrupt` naming the file.
pub(in crate::primary) async fn read_header(store: &Replica, id: FileId) -> Result<Header> {
    let content = store.get(id, ByteRange::Bounded { offset: 0, len: Header::SIZE as u64 }).await?;
    let mut bytes = Vec::with_capacity(Header::SIZE);
    let mut body = content.body;
    while let Some(chunk) = body.next().await {
        bytes.extend_from_slice(&chunk?);
    }
    let named = |e: Error| e.context(format_args!("{} {id}", store.url()));
    let fixed = bytes.first_chunk().ok_or_else(|| named(Error::corrupt("the header is cut short")))?;
    let header = Header::decode(fixed).map_err(named)?;
    if header.name() != id.name {
        return Err(named(Error::corrupt("the header does not fit the name")));
    }
    Ok(header)
}

/// The pages that a file which was published from here may have replaced in the replica: its own, and those beyond its end of
/// a database that has `size` pages now. Of a file that it was merged into those are more. `None` if it is sealed and its key is
/// not kept.
///
/// # Errors
/// Those of the store; `Corrupt` naming the file.
pub(in crate::primary) async fn replaced_by(
    store: &Replica,
    id: FileId,
    size: PageCount,
    seals: &Seals,
) -> Result<Option<PageSet>> {
    let named = |e: Error| e.context(format_args!("{} {id}", store.url()));
    let Head { header, bytes, .. } = read_head(store, id).await?;
    let codec = match header.is_sealed() {
        true => seals.codec_of(&bytes).map_err(named)?,
        false => Some(FrameCodec::plain(header.page_size)),
    };
    let Some(codec) = codec else { return Ok(None) };
    let mut len = TAIL_SIZE;
    loop {
        let content = store.get(id, ByteRange::Suffix { len }).await?;
        let file_size = content.file_size;
        let tail = content.bytes().await?;
        match PageIndex::from_tail(&tail, file_size, header.shape()).map_err(named)? {
            TailRead::Index(index) => {
                PageIndex::check_tail(&tail, &codec).map_err(named)?;
                let mut pages: PageSet = index.iter().map(|entry| entry.pgno).collect();
                pages.extend(&PageSet::between(header.commit, size));
                return Ok(Some(pages));
            }
            TailRead::NeedMore(more) => len = more,
        }
    }
}

/// The history that the newest file which carries one belongs to: a writer that knows no lineages, such as Litestream,
/// may have continued the replica since. A second lineage in it would make it unreadable.
async fn lineage_of_older_files(store: &Replica) -> Result<Option<Lineage>> {
    let levels = future::try_join_all(Level::all().map(|level| store.list(level, Txid::ONE))).await?;
    let mut files: Vec<FileInfo> = levels.into_iter().flatten().collect();
    files.sort_unstable_by_key(|file| std::cmp::Reverse(file.id.name.max()));
    let headers = files.into_iter().map(|file| read_header(store, file.id));
    let mut headers = stream::iter(headers).buffered(HEADERS);
    while let Some(header) = headers.next().await {
        match header {
            Ok(Header { lineage: Some(lineage), .. }) => return Ok(Some(lineage)),
            Ok(_) => {}
            // What is gone or damaged says nothing.
            Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::Corrupt) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(None)
}
