//! What must be known of a file before pages are read from it: its header, its page index, and what opens it.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::try_join;

use super::blocks::Blocks;
use super::disk::DiskFile;
use super::file_end::{first_guess, longer, named};
use super::map::Index;
use super::pack::{self, Asked, FilePack};
use super::source::{Source, check_name, header_of};
use crate::error::{Error, Result};
use crate::ltx::{
    Decoder, FrameCodec, Header, IndexEntry, Keyring, Outline, OutlineRead, PageIndex, Trailer,
};
use crate::store::{ByteRange, FileInfo};

/// A file of up to this many bytes comes whole, and its checksum is verified. Of larger files only
/// what is asked for comes: plain LTX has no checksum of a single page, so that a damaged page is noticed
/// only if it does not decompress to one page.
pub(super) const WHOLE: u64 = pack::WHOLE;
/// Pages of one file that came along are kept until they take this many bytes.
const KEEP: usize = 2 * 1024 * 1024;
/// What comes with the header of a snapshot: the schema, and the roots of what was created first. Costs
/// hardly more than the round trip.
const HEAD: u64 = 32 * 1024;
/// What a file ends with behind its page index, whoever may open it.
const ENDING: u64 = 8 * 1024;

/// Pages of a file by the offset of their frame.
type LoadedPages = Vec<(u64, Arc<[u8]>)>;

/// Header, page index and codec of a file, and pages that came along.
#[derive(Debug)]
pub(super) struct Loaded {
    /// The header; it fits the name.
    pub(super) header: Header,
    /// The page index.
    pub(super) index: Index,
    /// How frames become pages.
    pub(super) codec: FrameCodec,
    /// Pages by the offset of their frame. Those of a small file passed its checksum.
    pub(super) pages: LoadedPages,
    /// The file, if it came whole.
    pub(super) whole: Option<Bytes>,
    /// The checksum that its trailer has, if that was read and not all of the file.
    pub(super) checksum: Option<u64>,
    /// Pages that come beside it.
    pub(super) pack: Option<FilePack>,
}

impl Loaded {
    fn new(outline: Outline, pages: LoadedPages) -> Self {
        let Outline { header, index, codec } = outline;
        let index = Index::Whole(index);
        Self { header, index, codec, pages, whole: None, checksum: None, pack: None }
    }
}

/// What comes of reading a file without its page index.
pub(super) enum InBlocks {
    /// The page index comes in blocks.
    Loaded(Box<Loaded>),
    /// It does not, or something is not as it should be, of which [`load`] says what; and the pack, if there is one.
    Not(Option<FilePack>),
}

/// Reads what must be known of the snapshot `file`, whose pack `asked` was asked for, without its page index, if that pack
/// has it in blocks.
///
/// # Errors
/// Those of the store.
pub(super) async fn load_in_blocks(source: &Source, file: &FileInfo, asked: Asked) -> Result<InBlocks> {
    let ending = source.read(file, ByteRange::Suffix { len: ENDING });
    let head = source.read(file, ByteRange::Bounded { offset: 0, len: Header::SIZE as u64 });
    let (head, tail) = try_join(head, ending).await?;
    let Ok(header) = header_of(file, &head) else { return Ok(InBlocks::Not(None)) };
    // Of a sealed file, what opens of the pack proves the header.
    let Ok(codec) = Outline::codec(&header, &head, &tail, source.keyring()) else {
        return Ok(InBlocks::Not(None));
    };
    let Some(trailer) = tail.last_chunk().and_then(|bytes| Trailer::decode(bytes, &header).ok()) else {
        return Ok(InBlocks::Not(None));
    };
    let pack = asked.whenever_it_comes(trailer.file_checksum, &codec).await;
    let end = PageIndex::end_of_frames(&tail, file.size, header.shape()).ok().flatten();
    let fits = pack.index().is_some_and(|index| Some(index.end()) == end);
    let Some(blocks) = Blocks::new(file, codec.clone(), pack.clone()).filter(|_| fits) else {
        return Ok(InBlocks::Not(Some(pack)));
    };
    Ok(InBlocks::Loaded(Box::new(Loaded {
        header,
        index: Index::Blocks(Arc::new(blocks)),
        codec,
        pages: Vec::new(),
        whole: None,
        checksum: Some(trailer.file_checksum),
        pack: Some(pack),
    })))
}

/// Reads what must be known of `file`: from `disk`, or with one request, or two at the same time if the
/// file is large.
///
/// # Errors
/// Those of the store, `NotFound` if the file was replaced, `Corrupt`, `Denied` if nothing opens it; all name the file.
pub(super) async fn load(source: &Source, disk: Option<&DiskFile>, file: &FileInfo) -> Result<Loaded> {
    if let Some(outline) = disk.and_then(|disk| disk.outline(file.size, source.keyring())) {
        return Ok(Loaded::new(outline, Vec::new()));
    }
    if file.size <= WHOLE {
        return whole(disk, file, source.read(file, ByteRange::All).await?, source.keyring());
    }
    let guess = ByteRange::Suffix { len: first_guess(file.size) };
    let (head, tail) = try_join(read_head(source, file), source.read(file, guess)).await?;
    header_of(file, &head)?;
    let (outline, tail) = read_outline(source, file, &head, tail).await?;
    let mut pages = Vec::new();
    for (start, bytes) in [(0, &head), (file.size - tail.len() as u64, &tail)] {
        let found = pages_within(&outline, start, bytes);
        if let Some(disk) = disk {
            disk.keep(found.iter().map(|(entry, _)| *entry).collect(), start, bytes);
        }
        let most = KEEP / outline.header.page_size.bytes();
        pages.extend(found.into_iter().take(most).map(|(entry, page)| (entry.offset, page)));
    }
    if let Some(disk) = disk {
        disk.keep_outline(&outline, &head, &tail, file.size);
    }
    let checksum = checksum(&outline, &tail);
    Ok(Loaded { checksum, ..Loaded::new(outline, pages) })
}

/// The outline of a large file, whose first bytes are `head` and whose last ones `tail`, with as much before those as it
/// takes.
async fn read_outline(
    source: &Source,
    file: &FileInfo,
    head: &[u8],
    mut tail: Bytes,
) -> Result<(Outline, Bytes)> {
    loop {
        let read = Outline::read(head, &tail, file.size, source.keyring());
        match read.map_err(|e| named(file, e))? {
            OutlineRead::Outline(outline) => return Ok((*outline, tail)),
            OutlineRead::NeedMore(len) => tail = longer(source, file, tail, len).await?,
        }
    }
}

/// What must be known of `file`, which came whole as `bytes`. Keeps them on `disk` too.
///
/// # Errors
/// `Corrupt`, `Denied`, with the file's name.
pub(super) fn whole(
    disk: Option<&DiskFile>,
    file: &FileInfo,
    bytes: Bytes,
    keyring: &Keyring,
) -> Result<Loaded> {
    let (outline, pages) = verify_whole(file, &bytes, keyring).map_err(|e| named(file, e))?;
    if let Some(disk) = disk {
        disk.keep_outline(&outline, &bytes, &bytes, file.size);
    }
    if let Some(disk) = disk {
        disk.keep(outline.index.iter().collect(), 0, &bytes);
    }
    Ok(Loaded { whole: Some(bytes), ..Loaded::new(outline, pages) })
}

/// The header of a large file, and of a snapshot some pages.
async fn read_head(source: &Source, file: &FileInfo) -> Result<Bytes> {
    let len = if file.id.name.is_snapshot() { HEAD } else { Header::SIZE as u64 };
    source.read(file, ByteRange::Bounded { offset: 0, len }).await
}

/// The pages whose frames are in `bytes`, which begin at `start` of the file. One that does not decode is
/// left to who wants it.
fn pages_within(outline: &Outline, start: u64, bytes: &[u8]) -> Vec<(IndexEntry, Arc<[u8]>)> {
    let Outline { header, index, codec } = outline;
    let end = start + bytes.len() as u64;
    let within = index.iter().filter(|entry| start <= entry.offset && entry.offset + entry.size <= end);
    let page = |entry: IndexEntry| {
        let frame = (entry.offset - start) as usize;
        let mut page = vec![0; header.page_size.bytes()];
        let found = codec.decode(&bytes[frame..frame + entry.size as usize], &mut page);
        (found.ok()? == entry.pgno).then(|| (entry, Arc::from(page)))
    };
    within.filter_map(page).collect()
}

fn verify_whole(file: &FileInfo, bytes: &[u8], keyring: &Keyring) -> Result<(Outline, LoadedPages)> {
    let header = header_of(file, bytes)?;
    let OutlineRead::Outline(outline) = Outline::read(bytes, bytes, file.size, keyring)? else {
        return Err(Error::corrupt("its page index claims to be larger than the file"));
    };
    let mut decoder = Decoder::open(bytes, keyring)?;
    check_name(file, decoder.header())?;
    let mut page = vec![0; header.page_size.bytes()];
    let mut pages = Vec::new();
    let mut entries = outline.index.iter();
    while let Some(pgno) = decoder.next_page(&mut page)? {
        let entry = entries.next().filter(|entry| entry.pgno == pgno);
        let entry = entry.ok_or_else(|| Error::corrupt(format!("page {pgno} is not in its page index")))?;
        if pages.len() * page.len() < KEEP {
            pages.push((entry.offset, Arc::from(page.as_slice())));
        }
    }
    decoder.finish()?;
    drop(entries);
    Ok((*outline, pages))
}

/// The checksum of the file that ends with `tail`, if its trailer may be one.
fn checksum(outline: &Outline, tail: &[u8]) -> Option<u64> {
    Trailer::decode(tail.last_chunk()?, &outline.header).ok().map(|trailer| trailer.file_checksum)
}
