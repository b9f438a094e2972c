//! The files that a core reads from: their numbers, their indexes, and maps made of them.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};

use futures_util::stream::{self, BoxStream, StreamExt as _};

use super::cache::PageCache;
use super::disk::{Disk, DiskFile};
use super::hydration::local::Local;
use super::keep::Keep;
use super::load::{InBlocks, Loaded, load, load_in_blocks};
use super::map::{Frame, Index, PageMap, ReplicaFile};
use super::options::Options;
use super::pack::{self, Packs};
use super::plan::Plan;
use super::snapshot::Snapshot;
use super::source::Source;
use super::trouble::Trouble;
use super::verdict::{Verdict, VerdictCell};
use crate::error::{Error, ErrorKind, Result};
use crate::ltx::{FileId, Header, Level, Lineage};
use crate::page::PageSize;
use crate::runtime;
use crate::store::FileInfo;

/// Page indexes that are fetched at the same time.
const PARALLEL: usize = 48;
/// Going through this many pages takes about a millisecond.
const MANY_PAGES: usize = 100_000;

/// What the files before a plan say of those in it.
#[derive(Clone, Copy, Debug, Default)]
struct Before {
    page_size: Option<PageSize>,
    lineage: Option<Lineage>,
}

/// A replica, the pages of it that are in memory, and the numbers of its files.
#[derive(Debug)]
pub(super) struct Files {
    /// Where the files are.
    pub(super) source: Source,
    /// The pages that were read.
    pub(super) cache: PageCache,
    /// Why a page could not be read.
    pub(super) trouble: Trouble,
    /// Bytes that are wanted when their file is gone.
    pub(super) keep: Keep,
    packs: Packs,
    local: OnceLock<Arc<Local>>,
    /// Sealed files are refused: their pages would come into a local file as they are.
    without_sealed: bool,
    /// The page indexes of snapshots from this size on come in blocks: not where all pages are wanted anyway.
    in_blocks_from: u64,
    disk: Option<Arc<Disk>>,
    numbers: AtomicU32,
}

impl Files {
    /// The files of `source`, read as `options` say, with a cache on disk if there is one.
    pub(super) fn new(source: Source, options: &Options, disk: Option<Arc<Disk>>) -> Self {
        Self {
            source,
            cache: PageCache::new(options.cache_bytes),
            packs: Packs::new(options.pack, pack::WHOLE.min(options.in_blocks_from)),
            disk,
            trouble: Trouble::default(),
            keep: Keep::default(),
            local: OnceLock::new(),
            without_sealed: false,
            in_blocks_from: if options.hydration.is_some() { u64::MAX } else { options.in_blocks_from },
            numbers: AtomicU32::new(1),
        }
    }

    /// The same, for a local file that must not have what is sealed.
    #[must_use]
    pub(super) fn without_sealed(self) -> Self {
        Self { without_sealed: true, ..self }
    }

    /// Whether there is a disk cache.
    pub(super) fn has_disk(&self) -> bool {
        self.disk.is_some()
    }

    /// The pages that are in a local file, if there is one.
    pub(super) fn local(&self) -> Option<&Arc<Local>> {
        self.local.get()
    }

    /// From now on there is such a file.
    pub(super) fn set_local(&self, local: Arc<Local>) {
        self.local.get_or_init(|| local);
    }

    /// The state of the database that `plan` makes. Files that `known` has keep their numbers, and
    /// with them their cached pages.
    ///
    /// # Errors
    /// Those of the store; `NotFound` if a file vanished since it was listed; `Corrupt`.
    pub(super) async fn build(&self, plan: &Plan, known: &PageMap, epoch: u32) -> Result<Snapshot> {
        self.apply(PageMap::default(), Before::default(), plan, known, epoch).await
    }

    /// The state of the database after `plan`, which continues `before`.
    ///
    /// # Errors
    /// As [`Files::build`].
    pub(super) async fn extend(&self, before: &Snapshot, plan: &Plan) -> Result<Snapshot> {
        let map = before.map();
        let known = Before { page_size: Some(before.page_size), lineage: before.lineage };
        self.apply((*map).clone(), known, plan, &map, before.epoch).await
    }

    /// The state of the database after `file`, of which `loaded` is known and which continues `before`.
    ///
    /// # Errors
    /// `Corrupt`; `Conflict` if the file is of another lineage.
    pub(super) fn extend_with(&self, before: &Snapshot, file: &FileInfo, loaded: Loaded) -> Result<Snapshot> {
        let (mut map, last) = ((*before.map()).clone(), loaded.header);
        let mut known = Before { page_size: Some(before.page_size), lineage: before.lineage };
        self.take(&mut map, &mut known, &HashMap::new(), file, loaded)?;
        Ok(Snapshot::new(&last, known.lineage, before.epoch, map))
    }

    /// Takes the next file, of which `loaded` is known, into `map`.
    fn take(
        &self,
        map: &mut PageMap,
        before: &mut Before,
        known: &HashMap<FileId, Arc<ReplicaFile>>,
        info: &FileInfo,
        loaded: Loaded,
    ) -> Result<()> {
        if self.without_sealed && loaded.codec.is_sealed() {
            return Err(self.named(not_hydrated(info)));
        }
        check_page_size(info, &loaded.header, &mut before.page_size)?;
        before.lineage = Lineage::with(before.lineage, &loaded.header).map_err(|e| self.named(e))?;
        let file = self.number(info, known, &loaded);
        self.keep_pages(&file, &loaded);
        runtime::busy(is_long(&loaded), || map.apply(&file, loaded.header.commit, &loaded.index))
    }

    async fn apply(
        &self,
        mut map: PageMap,
        mut before: Before,
        plan: &Plan,
        known: &PageMap,
        epoch: u32,
    ) -> Result<Snapshot> {
        let known = by_id(known);
        let mut loads = self.load_all(plan.files().to_vec());
        let mut last: Option<Header> = None;
        while let Some(next) = loads.next().await {
            let (info, loaded) = next?;
            last = Some(loaded.header);
            self.take(&mut map, &mut before, &known, &info, loaded)?;
        }
        let last = last.expect("BUG: a plan has at least one file");
        Ok(Snapshot::new(&last, before.lineage, epoch, map))
    }

    /// The map of `snapshot` with `files`, which end no later than it, in place of those that were merged
    /// into them. A snapshot whose index may come in blocks takes the place of none: its index would have to be read for it.
    ///
    /// # Errors
    /// Those of the store; `NotFound` if the files are of another history; `Corrupt`.
    pub(super) async fn absorb(&self, snapshot: &Snapshot, files: &[FileInfo]) -> Result<PageMap> {
        let mut map = (*snapshot.map()).clone();
        let known = by_id(&map);
        let is_new = |file: &&FileInfo| {
            known.get(&file.id).is_none_or(|known| known.info != **file) && !self.may_come_in_blocks(file)
        };
        let mut loads = self.load_all(files.iter().filter(is_new).cloned().collect());
        while let Some(next) = loads.next().await {
            let (info, loaded) = next?;
            check_page_size(&info, &loaded.header, &mut Some(snapshot.page_size))?;
            check_history(snapshot, &info, &loaded.header)?;
            Lineage::with(snapshot.lineage, &loaded.header).map_err(|e| self.named(e))?;
            let file = self.number(&info, &known, &loaded);
            if let Index::Whole(index) = &loaded.index {
                runtime::busy(is_long(&loaded), || map.absorb(&file, index))?;
            }
        }
        Ok(map)
    }

    fn named(&self, error: Error) -> Error {
        error.context(format_args!("replica {}", self.source.url()))
    }

    /// What must be known of each file, in order.
    fn load_all(&self, files: Vec<FileInfo>) -> BoxStream<'_, Result<(FileInfo, Loaded)>> {
        let load = move |file: FileInfo| async move {
            let loaded = self.load(&file).await?;
            Ok((file, loaded))
        };
        stream::iter(files).map(load).buffered(PARALLEL).boxed()
    }

    /// Whether the page index of `file` is read in blocks where its pack has it so.
    fn may_come_in_blocks(&self, file: &FileInfo) -> bool {
        file.id.name.is_snapshot() && file.size >= self.in_blocks_from
    }

    async fn load(&self, file: &FileInfo) -> Result<Loaded> {
        let disk = self.on_disk(file);
        // What the pack has is on the disk too, if the page index is.
        let is_new = disk.as_ref().is_none_or(|disk| !disk.has_index());
        let mut asked = is_new.then(|| self.packs.ask(&self.source, file)).flatten();
        let mut pack = None;
        if let Some(asked) = asked.take_if(|_| self.may_come_in_blocks(file)) {
            match load_in_blocks(&self.source, file, asked).await? {
                InBlocks::Loaded(loaded) => return Ok(*loaded),
                InBlocks::Not(without) => pack = without,
            }
        }
        let mut loaded = match load(&self.source, disk.as_ref(), file).await {
            // Damaged in the store, or only on its way?
            Err(e) if e.kind() == ErrorKind::Corrupt => {
                load(&self.source, disk.as_ref(), file).await.map_err(damaged)?
            }
            loaded => loaded?,
        };
        if let (Some(asked), Some(checksum)) = (asked, loaded.checksum) {
            pack = Some(asked.of(checksum, &loaded.codec).await);
        }
        if let Some(pack) = pack {
            if let Some(disk) = &disk {
                runtime::busy(true, || {
                    pack.each(|(entry, frame)| disk.keep(vec![entry], entry.offset, frame))
                });
            }
            loaded.pack = Some(pack);
        }
        Ok(loaded)
    }

    /// The file of that listing with its number: that of `known` if it is the same file.
    fn number(
        &self,
        info: &FileInfo,
        known: &HashMap<FileId, Arc<ReplicaFile>>,
        loaded: &Loaded,
    ) -> Arc<ReplicaFile> {
        match known.get(&info.id) {
            Some(file) if file.info == *info => file.clone(),
            _ => Arc::new(ReplicaFile {
                number: self.numbers.fetch_add(1, Ordering::Relaxed),
                info: info.clone(),
                codec: loaded.codec.clone(),
                kept: loaded
                    .whole
                    .clone()
                    .and_then(|bytes| self.keep.keep(bytes))
                    .map_or_else(OnceLock::new, OnceLock::from),
                disk: self.on_disk(info),
                pack: loaded.pack.clone(),
                verdict: VerdictCell::new(match loaded.whole {
                    Some(_) => Verdict::Whole,
                    None => Verdict::Open,
                }),
            }),
        }
    }

    pub(super) fn on_disk(&self, info: &FileInfo) -> Option<DiskFile> {
        self.disk.as_ref().map(|disk| disk.file(info))
    }

    fn keep_pages(&self, file: &ReplicaFile, loaded: &Loaded) {
        for (offset, page) in &loaded.pages {
            let frame = Frame { file: file.number, size: 0, offset: *offset };
            self.cache.insert(frame.into(), page.clone());
        }
    }
}

/// The error `e` about a file that is damaged in the store, with what can be done about it.
fn damaged(e: Error) -> Error {
    if e.kind() != ErrorKind::Corrupt {
        return e;
    }
    Error::corrupt(format!(
        "{e}. Move that file away if others lead to the same state, restore with litestream_restore, which goes around it then, or \
         let the primary write a new snapshot"
    ))
}

fn not_hydrated(file: &FileInfo) -> Error {
    Error::config(format!(
        "{} is sealed, and the file of a hydration would hold its pages unencrypted: write hydrate=plain if it may, or read \
         without hydrate (cache_dir keeps files sealed)",
        file.id
    ))
}

/// Whether going through the page index takes more than a moment.
fn is_long(loaded: &Loaded) -> bool {
    loaded.index.len() > MANY_PAGES
}

fn by_id(map: &PageMap) -> HashMap<FileId, Arc<ReplicaFile>> {
    map.files().map(|file| (file.info.id, file.clone())).collect()
}

/// Checks that a file's pages are as large as those before it.
fn check_page_size(file: &FileInfo, header: &Header, expected: &mut Option<PageSize>) -> Result<()> {
    let expected = *expected.get_or_insert(header.page_size);
    if header.page_size == expected {
        return Ok(());
    }
    Err(Error::corrupt(format!(
        "{} has pages of {} bytes, the files before it have pages of {expected} bytes: \
         two databases were replicated to one URL",
        file.id, header.page_size
    )))
}

/// Checks that a file which ends where `snapshot` ends is of the same history: compaction keeps the
/// time of the last commit. A snapshot file has the time at which it was made.
fn check_history(snapshot: &Snapshot, file: &FileInfo, header: &Header) -> Result<()> {
    let comparable = file.id.level != Level::SNAPSHOT && header.max == snapshot.txid;
    if comparable && header.timestamp > snapshot.timestamp {
        return Err(gone(snapshot, &"the replica has another history now"));
    }
    Ok(())
}

pub(super) fn gone(snapshot: &Snapshot, why: &dyn std::fmt::Display) -> Error {
    Error::new(
        ErrorKind::NotFound,
        format!(
            "the state at TXID {}, which this transaction reads, is no longer in the replica: end the transaction and \
             begin it again; if the state was chosen (asof, litestream_set_time), choose a later time, or \
             litestream_set_time('latest') ({why})",
            snapshot.txid
        ),
    )
}
