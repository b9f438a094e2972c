//! A naive model: one database, its WAL, the index, processes with and without the hooks, and a publisher. The content
//! of a page is a number that no other page has.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;

use tempfile::TempDir;

use crate::error::Result;
use crate::page::{PageCount, PageSize, Pgno};
use crate::primary::dirty::record::Record;
use crate::primary::dirty::{Collected, Cursor, HeldLock, Mark, PageSet, Recorder, collect, cursor_at};
use crate::primary::file_fingerprint::Stamp;
use crate::primary::{PinnedView, WalIndex};
use crate::wal::tests::fixtures::Writer;
use crate::wal::{ByteOrder, Checksum, FrameHeader, FrameNo, IndexHeader, Salts};

/// The content of a database: page number to content.
pub(super) type Content = BTreeMap<u32, u64>;

/// Who does something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum By {
    /// A process with the hooks.
    Us,
    /// A process with the hooks, in which no record can be written.
    UsInVain,
    /// A process without the hooks.
    Others,
    /// A process with the hooks whose connection has the database for itself.
    UsAlone,
}

/// The salts of a new generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Drawn {
    /// Both random: by a connection that never restarted the WAL.
    Both,
    /// Those that the restart left in the index.
    Restart,
}

/// What SQLite 3.40 leaves of a transaction after a `ROLLBACK TO` of frames that it meant to seal at the commit. It then takes
/// the checksum to go on from out of the frame before those, as that stands in the file now: never that of the commit
/// before, which would seal all of the transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unsealed {
    /// No frame is sealed, and that frame is one of them: the index has no checksum.
    All,
    /// No frame is sealed, and that frame is one that was rolled back: the index has its checksum, which no commit has.
    Spilled,
    /// The last frame is sealed, as if the file began before it.
    ButTheLast,
}

#[derive(Clone, Copy, Debug)]
struct Frame {
    page: u32,
    content: u64,
    checksum: Checksum,
    salts: Salts,
    is_commit: bool,
}

/// The index and what it says of pages, as a connection has it mapped.
#[derive(Clone)]
pub(super) struct Index {
    pub(super) header: IndexHeader,
    /// The page of each frame; those behind the last committed one are garbage.
    pub(super) pages: Vec<u32>,
}

impl WalIndex for Index {
    fn header(&self) -> Option<IndexHeader> {
        Some(self.header)
    }

    fn pages(&mut self, after: FrameNo, last: FrameNo) -> Option<PageSet> {
        let pages = self.pages.get(after.0 as usize..last.0 as usize)?;
        Some(pages.iter().filter_map(|page| Pgno::new(*page)).collect())
    }
}

pub(super) struct View {
    pub(super) index: Index,
    frames: Vec<Frame>,
    pub(super) content: Content,
    /// Whether the WAL was restarted under mark 0.
    pub(super) is_changed: bool,
}

impl PinnedView for View {
    fn page_size(&self) -> PageSize {
        PageSize::MIN
    }

    fn commit(&self) -> PageCount {
        PageCount::new(self.content.keys().last().copied().unwrap_or(0))
    }

    fn header(&self) -> IndexHeader {
        self.index.header
    }

    fn pages_after(&mut self, after: FrameNo) -> Result<Option<PageSet>> {
        let last = self.index.header.mx_frame;
        Ok((!self.is_changed).then(|| self.index.pages(after, last).expect("frames of the view")))
    }

    fn frame(&mut self, frame: FrameNo) -> Result<Option<FrameHeader>> {
        Ok(self.frames.get(frame.0 as usize - 1).filter(|_| !self.is_changed).map(|frame| FrameHeader {
            pgno: Pgno::new(frame.page),
            commit: None,
            salts: frame.salts,
            checksum: frame.checksum,
        }))
    }

    fn read_pages(&mut self, _: Pgno, _: &mut [u8]) -> Result<()> {
        unreachable!("nobody reads pages to learn which were changed")
    }

    fn rewind(&mut self, _: FrameNo) -> Result<bool> {
        unreachable!("nobody reads pages to learn which were changed")
    }
}

/// A view that is being published.
struct InFlight {
    cursor: Cursor,
    content: Content,
    mark: Mark,
}

pub(super) struct World {
    folder: TempDir,
    pub(super) recorder: Recorder,
    pub(super) index: Index,
    /// The frames of the WAL file, and the salts of its header; `None` without a file, or with an empty one.
    wal: Option<(Salts, Vec<Frame>)>,
    backfilled: usize,
    /// So many frames that are in the WAL file are in the database file too.
    copied: usize,
    file: Content,
    stamp: u64,
    /// Counts whatever must differ.
    count: u64,
    pub(super) cursor: Cursor,
    replica: Content,
    mark: Mark,
    in_flight: Option<InFlight>,
}

fn index_of_nothing() -> Index {
    let header = IndexHeader {
        change: 0,
        page_size: Some(PageSize::MIN),
        mx_frame: FrameNo::ZERO,
        page_count: PageCount::ZERO,
        frame_checksum: Checksum::default(),
        salts: Salts::default(),
    };
    Index { header, pages: Vec::new() }
}

/// Mixes numbers so that what differs stays different.
fn mix(a: u64, b: u64) -> u64 {
    let mixed = (a ^ b.wrapping_mul(0x9e37_79b9_7f4a_7c15)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    mixed ^ (mixed >> 29)
}

const fn halves(n: u64) -> (u32, u32) {
    ((n >> 32) as u32, n as u32 | 1)
}

impl World {
    /// A database of ten pages without a WAL, which the replica has.
    pub(super) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file: Content = (1..=10).map(|page| (page, u64::from(page))).collect();
        let recorder = Recorder::new(&folder.path().join("state"), &folder.path().join("app.db-wal"));
        let mut world = Self {
            recorder,
            index: index_of_nothing(),
            wal: None,
            backfilled: 0,
            copied: 0,
            replica: file.clone(),
            file,
            stamp: 1,
            count: 100,
            cursor: Cursor::File(Stamp::from_words([0; 5])),
            mark: Mark::default(),
            in_flight: None,
            folder,
        };
        world.cursor = Cursor::File(world.stamp());
        world
    }

    fn wal_path(&self) -> PathBuf {
        self.folder.path().join("app.db-wal")
    }

    pub(super) fn generations(&self) -> PathBuf {
        self.folder.path().join("state/generations")
    }

    fn next(&mut self) -> u64 {
        self.count += 1;
        mix(self.count, 7)
    }

    /// The stamp of the database file, as if each was sealed.
    pub(super) fn stamp(&self) -> Stamp {
        Stamp::from_words([1, 1, 5120, self.stamp, 0])
    }

    fn hooks(&self, by: By, hook: impl FnOnce(&Recorder)) {
        match by {
            By::Others => {}
            By::Us | By::UsAlone => hook(&self.recorder),
            By::UsInVain => {
                std::fs::write(self.folder.path().join("no folder"), "").unwrap();
                let nowhere = self.folder.path().join("no folder/state");
                hook(&Recorder::new(&nowhere, &self.wal_path()));
            }
        }
    }

    pub(super) fn has_frames(&self) -> bool {
        self.index.header.mx_frame > FrameNo::ZERO
    }

    /// Writes the frames of a transaction. Returns the checksum of the last.
    fn append(
        &mut self,
        pages: &[u32],
        by: By,
        drawn: Drawn,
        is_commit: bool,
        unsealed: Option<Unsealed>,
    ) -> Checksum {
        if !self.has_frames() {
            self.begin(by, drawn);
        }
        let (salts, mut frames) = self.wal.take().expect("a WAL");
        frames.truncate(self.index.header.mx_frame.0 as usize);
        if !self.has_frames() {
            // SQLite empties the page numbers when it adds the first frame.
            self.index.pages.clear();
        }
        self.index.pages.truncate(self.index.header.mx_frame.0 as usize);
        let mut chain = if self.has_frames() {
            let Checksum(a, b) = self.index.header.frame_checksum;
            u64::from(a) << 32 | u64::from(b)
        } else {
            mix(u64::from(salts.0) << 32 | u64::from(salts.1), 3)
        };
        for (at, page) in pages.iter().enumerate() {
            let content = self.next();
            let mut frame = Frame {
                page: *page,
                content,
                checksum: Checksum::default(),
                salts: Salts(0, 0),
                is_commit: false,
            };
            let is_last = at + 1 == pages.len();
            if unsealed.is_none_or(|unsealed| unsealed == Unsealed::ButTheLast && is_last) {
                if unsealed.is_some() {
                    chain = 0;
                }
                let (a, b) = halves(mix(chain, content));
                chain = u64::from(a) << 32 | u64::from(b);
                (frame.checksum, frame.salts) = (Checksum(a, b), salts);
            }
            frame.is_commit = is_commit && is_last;
            frames.push(frame);
            self.index.pages.push(*page);
        }
        self.wal = Some((salts, frames));
        self.write_wal();
        match unsealed {
            Some(Unsealed::All) => return Checksum::default(),
            Some(Unsealed::Spilled) => chain = self.next() | 1,
            Some(Unsealed::ButTheLast) | None => {}
        }
        let (a, b) = (chain >> 32, chain & 0xffff_ffff);
        Checksum(a as u32, b as u32)
    }

    /// Writes the header of the WAL.
    fn begin(&mut self, by: By, drawn: Drawn) {
        let left = self.index.header.salts;
        let salts = match drawn {
            Drawn::Restart if left != Salts::default() => left,
            _ => {
                let (a, b) = halves(self.next());
                Salts(a, b)
            }
        };
        let header = Writer::new(ByteOrder::Little, PageSize::MIN, salts).bytes;
        let (mut index, stamp) = (self.index.clone(), self.stamp());
        let lock = if by == By::UsAlone { HeldLock::File } else { HeldLock::Write };
        self.hooks(by, |recorder| recorder.generation_begins(&header, &mut index, Some(stamp), lock));
        self.wal = Some((salts, Vec::new()));
        self.copied = 0;
    }

    /// What a look into the WAL file finds.
    fn write_wal(&self) {
        let file = File::create(self.wal_path()).unwrap();
        let Some((_, frames)) = &self.wal else { return };
        for (at, frame) in frames.iter().enumerate() {
            let mut bytes = Vec::new();
            for word in [frame.page, 0, frame.salts.0, frame.salts.1, frame.checksum.0, frame.checksum.1] {
                bytes.extend(word.to_be_bytes());
            }
            let at = FrameNo(at as u32).end_offset(PageSize::MIN);
            file.write_all_at(&bytes, at).unwrap();
        }
    }

    /// A transaction. Others see it.
    pub(super) fn commit(&mut self, pages: &[u32], by: By, drawn: Drawn) {
        self.commit_as(pages, by, drawn, None);
    }

    /// A transaction with frames that SQLite 3.40 left without salts and checksums.
    pub(super) fn commit_unsealed(&mut self, pages: &[u32], by: By, unsealed: Unsealed) {
        self.commit_as(pages, by, Drawn::Both, Some(unsealed));
    }

    fn commit_as(&mut self, pages: &[u32], by: By, drawn: Drawn, unsealed: Option<Unsealed>) {
        let checksum = self.append(pages, by, drawn, true, unsealed);
        let (salts, frames) = self.wal.as_ref().expect("a WAL");
        let header = &mut self.index.header;
        (header.salts, header.mx_frame, header.frame_checksum) =
            (*salts, FrameNo(frames.len() as u32), checksum);
        header.change += 1;
        self.remember(by);
    }

    /// A connection that has the database for itself was granted that, or committed.
    pub(super) fn remember(&self, by: By) {
        if by == By::UsAlone {
            self.recorder.remembers(&self.index.header);
        }
    }

    /// A transaction that spills into the WAL and is rolled back.
    pub(super) fn roll_back(&mut self, pages: &[u32], by: By, drawn: Drawn) {
        self.append(pages, by, drawn, false, None);
    }

    /// Copies the first `frames` frames to the database file, or all.
    pub(super) fn checkpoint(&mut self, frames: Option<usize>) {
        let Some((_, all)) = &self.wal else { return };
        let last = self.index.header.mx_frame.0 as usize;
        let frames = frames.unwrap_or(last).min(last);
        if frames > self.backfilled {
            self.file.extend(all[self.backfilled..frames].iter().map(|frame| (frame.page, frame.content)));
            self.backfilled = frames;
            self.copied = self.copied.max(frames);
            self.stamp += 1;
        }
    }

    /// The locks that precede a restart of the WAL.
    pub(super) fn locks_marks(&mut self, by: By) {
        self.checkpoint(None);
        let mut index = self.index.clone();
        if by != By::UsAlone {
            let stamp = self.stamp();
            self.hooks(by, |recorder| {
                let closed = recorder.leaves_no_trace(&index.header).then_some(stamp);
                recorder.generation_ends(&mut index, closed);
            });
        }
    }

    /// Restarts the WAL; with `truncate` its file is cut to nothing.
    pub(super) fn restart(&mut self, by: By, truncate: bool) {
        self.locks_marks(by);
        if self.index.header.salts == Salts::default() {
            return;
        }
        let (second, _) = halves(self.next());
        let header = &mut self.index.header;
        header.salts = Salts(header.salts.0.wrapping_add(1), second);
        header.mx_frame = FrameNo::ZERO;
        self.backfilled = 0;
        if truncate {
            if by == By::UsAlone {
                self.recorder.generation_is_cut(&mut self.index.clone());
            }
            self.wal = None;
            self.copied = 0;
            self.write_wal();
        }
    }

    /// The last connection closes. If it `dies`, it does so right before it deletes the WAL.
    pub(super) fn close(&mut self, by: By, dies: bool) {
        self.checkpoint(None);
        let (mut index, stamp) = (self.index.clone(), self.stamp());
        let closed = (index.header.salts != Salts::default()).then_some(stamp);
        self.hooks(by, |recorder| recorder.generation_ends(&mut index, closed));
        if dies {
            self.recover();
        } else {
            self.wal = None;
            self.copied = 0;
            self.recover();
        }
    }

    /// How many frames a recovery would take.
    pub(super) fn recoverable(&self) -> usize {
        let Some((salts, frames)) = &self.wal else { return 0 };
        let sound = frames.iter().take_while(|frame| frame.salts == *salts).count();
        frames[..sound].iter().rposition(|frame| frame.is_commit).map_or(0, |at| at + 1)
    }

    /// Whether a recovery would lose frames that are in the database file: SQLite itself loses data then.
    pub(super) fn recovery_corrupts(&self) -> bool {
        self.recoverable() < self.copied
    }

    /// All processes end, and the next makes a new index.
    pub(super) fn recover(&mut self) {
        let recoverable = self.recoverable();
        self.index = index_of_nothing();
        self.backfilled = 0;
        let Some((salts, frames)) = &mut self.wal else { return };
        frames.truncate(recoverable);
        self.index.header.salts = *salts;
        self.index.header.mx_frame = FrameNo(recoverable as u32);
        self.index.header.frame_checksum = frames.last().map(|frame| frame.checksum).unwrap_or_default();
        self.index.pages = frames.iter().map(|frame| frame.page).collect();
        self.write_wal();
    }

    /// The records are gone.
    pub(super) fn lose_records(&self) {
        let _ = std::fs::remove_dir_all(self.generations());
    }

    pub(super) fn records(&self) -> Vec<Record> {
        self.recorder.journal().records().unwrap()
    }

    pub(super) fn view(&self) -> View {
        let mut content = self.file.clone();
        let frames: Vec<Frame> = self.wal.iter().flat_map(|(_, frames)| frames).copied().collect();
        let last = self.index.header.mx_frame.0 as usize;
        content.extend(frames[..last.min(frames.len())].iter().map(|frame| (frame.page, frame.content)));
        View { index: self.index.clone(), frames, content, is_changed: false }
    }

    /// What a publisher finds now. Panics if a page that was changed is not found.
    pub(super) fn look(&self) -> Collected {
        let mut view = self.view();
        let found = collect(&mut view, &self.cursor, self.recorder.journal(), Some(self.stamp())).unwrap();
        if let Collected::Pages(pages) = &found {
            let changed =
                view.content.iter().filter(|(page, content)| self.replica.get(page) != Some(content));
            let missed: Vec<_> = changed
                .map(|(page, _)| *page)
                .filter(|page| !pages.contains(Pgno::new(*page).unwrap()))
                .collect();
            assert_eq!(missed, [0; 0], "pages that were changed and not found");
        }
        found
    }

    /// The publisher pins a view, and begins to publish it. Returns what it found.
    pub(super) fn publish(&mut self) -> Collected {
        let mark = self.recorder.journal().mark();
        let found = self.look();
        let cursor =
            cursor_at(&self.index.header, self.recorder.journal(), Some(self.stamp())).unwrap().unwrap();
        self.in_flight = Some(InFlight { cursor, content: self.view().content, mark });
        self.note();
        found
    }

    /// What was being published is in the replica, or not.
    pub(super) fn answered(&mut self, has_landed: bool) {
        let Some(sent) = self.in_flight.take() else { return };
        if has_landed {
            (self.cursor, self.replica, self.mark) = (sent.cursor, sent.content, sent.mark);
        }
        self.note();
    }

    /// Publishes what is there now, successfully.
    pub(super) fn publish_now(&mut self) -> Collected {
        let found = self.publish();
        self.answered(true);
        found
    }

    /// Deletes records that nobody needs.
    pub(super) fn delete_records(&self) {
        self.recorder.journal().delete_behind(&self.mark, &[self.cursor]);
    }

    fn note(&self) {
        let cursors = [Some(self.cursor), self.in_flight.as_ref().map(|sent| sent.cursor)];
        let positions = cursors.into_iter().flatten().filter_map(|cursor| match cursor {
            Cursor::At(position) => Some(position),
            Cursor::File(_) => None,
        });
        self.recorder.positions().write(&positions.collect::<Vec<_>>()).unwrap();
    }
}

/// The pages with these numbers.
pub(super) fn pages(numbers: &[u32]) -> Collected {
    Collected::Pages(numbers.iter().filter_map(|number| Pgno::new(*number)).collect())
}

/// Whether what was changed is not known.
pub(super) const fn is_broken(found: &Collected) -> bool {
    matches!(found, Collected::Broken(_) | Collected::Lost(_))
}
