//! Local LTX files that wait for the replica: `.<file name>-litestream/replicas/<id>/spool/`,
//! `{sequence:016x}.ltx`.
//!
//! The transaction of a waiting file is not known before it goes out, so its header carries local
//! sequence numbers in its place: one, or those of the files that were merged into it. The last of them
//! names the file. They are contiguous and begin at 2, because a file that begins at 1 is a full
//! snapshot.
//!
//! The files of a sealed replica are sealed too, each under a key of its own that is kept as long as it waits.
//!
//! Nothing here is synced. The state names the files that belong to it: a file that it does not name is
//! removed at the next open, and one that is missing or broken makes the state worthless.

use std::fs::{self, File, OpenOptions};
use std::io::{BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::{Error, ErrorKind, Result};
use crate::files;
use crate::ltx::{Decoder, Encoder, FileName, Header, Merger, Summary, Txid};
use crate::primary::dirty::PageSet;
use crate::primary::hooks::CommitSeq;
use crate::primary::seals::{Keep, Seals, Subject};

const FIRST: u64 = 2;

/// How much is written at once. More would be memory of its own from the system for each file
/// (`sqlite::memory`).
const WRITE_BYTES: usize = 64 * 1024;

/// A waiting file.
#[derive(Clone, Debug)]
pub(in crate::primary) struct Segment {
    path: PathBuf,
    pub(in crate::primary) header: Header,
    pub(in crate::primary) size: u64,
    /// The last commit in it.
    pub(in crate::primary) covers: CommitSeq,
    /// Its pages.
    pub(in crate::primary) pages: PageSet,
}

impl Segment {
    /// Opens the file for a merge.
    pub(in crate::primary) fn open(&self, seals: &Seals) -> Result<Decoder<BufReader<File>>> {
        let file = File::open(&self.path).map_err(|e| self.io("read", e))?;
        let file = BufReader::with_capacity(64 * 1024, file);
        // One that waited when encryption was turned on is sealed when it goes.
        let opened = if self.header.is_sealed() { seals.open(file) } else { Decoder::new(file) };
        opened.map_err(|e| not_opened(e).context(self.path.display()))
    }

    fn io(&self, verb: &str, e: std::io::Error) -> Error {
        Error::io(format_args!("cannot {verb} {}", self.path.display()), e)
    }
}

/// A waiting file whose key is lost is as good as a broken one.
fn not_opened(e: Error) -> Error {
    if e.kind() == ErrorKind::Denied { Error::corrupt(e.to_string()) } else { e }
}

/// The waiting files, oldest first.
#[derive(Debug)]
pub(in crate::primary) struct Spool {
    seals: Arc<Seals>,
    folder: PathBuf,
    segments: Vec<Segment>,
    next: u64,
}

impl Spool {
    /// The spool below `state_folder`, with the files that an earlier process left in it and that its
    /// state names, by their first and last sequence number. All others are removed. If one of those
    /// named is missing or broken, all are, and the second value is false.
    ///
    /// # Errors
    /// `Io`.
    pub(in crate::primary) fn open(
        state_folder: &Path,
        named: Option<(u64, u64)>,
        seals: &Arc<Seals>,
    ) -> Result<(Self, bool)> {
        let folder = state_folder.join("spool");
        files::create_folders(&folder)
            .map_err(|e| Error::io(format_args!("cannot create {}", folder.display()), e))?;
        let mut spool = Self { seals: Arc::clone(seals), folder, segments: Vec::new(), next: FIRST };
        spool.read_folder(named)?;
        let complete = spool.range(0) == named;
        if !complete {
            spool.clear()?;
        }
        let there: Vec<FileName> = spool.segments.iter().map(|segment| segment.header.name()).collect();
        seals.forget_waiting(&there)?;
        Ok((spool, complete))
    }

    /// A spool of which nothing is read, and nothing is removed.
    pub(in crate::primary) fn untouched(state_folder: &Path, seals: &Arc<Seals>) -> Self {
        let folder = state_folder.join("spool");
        Self { seals: Arc::clone(seals), folder, segments: Vec::new(), next: FIRST }
    }

    /// How its files are sealed.
    pub(in crate::primary) fn seals(&self) -> &Seals {
        &self.seals
    }

    fn read_folder(&mut self, named: Option<(u64, u64)>) -> Result<()> {
        let entries = fs::read_dir(&self.folder).map_err(|e| self.io(e))?;
        let mut sequence = Vec::new();
        for entry in entries {
            let name = entry.map_err(|e| self.io(e))?.file_name();
            let seq = name.to_str().and_then(|n| n.strip_suffix(".ltx")).and_then(|n| n.parse::<Txid>().ok());
            match seq.filter(|seq| named.is_some_and(|(first, last)| (first..=last).contains(&seq.get()))) {
                Some(seq) => sequence.push(seq),
                None => remove(&self.folder.join(name))?,
            }
        }
        sequence.sort_unstable();
        for seq in sequence {
            let path = self.folder.join(format!("{seq}.ltx"));
            match Self::inspect(&path, seq, &self.seals) {
                Ok(segment) => self.found(segment)?,
                Err(e) => {
                    tracing::warn!("{}: {e}", path.display());
                    remove(&path)?;
                }
            }
        }
        self.next = self.segments.last().map_or(FIRST, |last| last.header.max.get() + 1);
        Ok(())
    }

    /// Adds a file that an earlier process left, unless there is a gap before it. One that is a merge
    /// takes the place of its inputs.
    fn found(&mut self, segment: Segment) -> Result<()> {
        while let Some(input) = self.segments.pop_if(|last| last.header.min >= segment.header.min) {
            remove(&input.path)?;
        }
        if self.segments.last().is_none_or(|last| last.header.max.next() == segment.header.min) {
            self.segments.push(segment);
            Ok(())
        } else {
            remove(&segment.path)
        }
    }

    /// Reads a whole file, which verifies it.
    fn inspect(path: &Path, seq: Txid, seals: &Seals) -> Result<Segment> {
        let header = read_header(path).map_err(|e| Error::io(path.display(), e))?;
        let header = Header::decode(&header)?;
        let unread = Segment {
            path: path.to_path_buf(),
            header,
            size: 0,
            covers: CommitSeq::default(),
            pages: PageSet::default(),
        };
        let mut decoder = unread.open(seals)?;
        let mut pages = PageSet::default();
        let mut page = vec![0; header.page_size.bytes()];
        while let Some(pgno) = decoder.next_page(&mut page)? {
            pages.insert(pgno);
        }
        let summary = decoder.finish()?;
        if header.max != seq {
            return Err(Error::corrupt("it holds another sequence number"));
        }
        Ok(Segment { size: summary.size, pages, ..unread })
    }

    /// The first and last sequence number of all files but the oldest `skip`.
    pub(in crate::primary) fn range(&self, skip: usize) -> Option<(u64, u64)> {
        let rest = self.segments.get(skip..)?;
        Some((rest.first()?.header.min.get(), rest.last()?.header.max.get()))
    }

    /// The waiting files, oldest first.
    pub(in crate::primary) fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// The number of bytes that wait.
    pub(in crate::primary) fn bytes(&self) -> u64 {
        self.segments.iter().map(|s| s.size).sum()
    }

    /// Writes a further file: `header` has all but the sequence number, `fill` gives the content of `pages`, and
    /// `covers` is the last commit in it. The file appears whole or not at all.
    ///
    /// # Errors
    /// `Io`, `NoSpace`, `Denied`, naming the file; those of `fill`.
    pub(in crate::primary) fn write(
        &mut self,
        header: Header,
        covers: CommitSeq,
        pages: &PageSet,
        fill: impl FnOnce(&mut Encoder<BufWriter<File>>) -> Result<()>,
    ) -> Result<()> {
        let seq = Txid::new(self.next).expect("BUG: sequence numbers begin at 2");
        let header = self.seals.header(single(header, seq));
        let path = self.folder.join(format!("{seq}.ltx"));
        let size = write_ltx(&path, header, &self.seals, fill)?;
        self.segments.push(Segment { path, header, size, covers, pages: pages.clone() });
        self.next += 1;
        Ok(())
    }

    /// The merge of two files that follow each other, if there are more than `most` from the one at index `from` on: of those
    /// that hold the least for their age, so that what waits becomes coarser the older it is.
    pub(in crate::primary) fn merge_beyond(&self, from: usize, most: usize) -> Option<Merge> {
        let files = self.segments.get(from..).filter(|files| files.len() > most.max(1))?;
        let newest = files.last()?.header.max.get();
        // The numbers in a file count the files that were merged into it.
        let coarseness = |pair: &[Segment]| {
            let held = pair[1].header.max.get() - pair[0].header.min.get() + 1;
            let age = newest - pair[1].header.max.get() + 1;
            held as f64 / age as f64
        };
        let pair = files.windows(2).min_by(|a, b| coarseness(a).total_cmp(&coarseness(b)))?;
        Some(Merge { inputs: pair.to_vec(), scratch: self.scratch(), seals: Arc::clone(&self.seals) })
    }

    /// Puts the result of a merge in the place of its inputs. Nothing happens if they are gone.
    ///
    /// # Errors
    /// `Io`; the files stay as they are then.
    pub(in crate::primary) fn replace(&mut self, merge: &Merge, merged: Segment) -> Result<()> {
        let first = merge.inputs[0].header;
        let Some(from) = self.segments.iter().position(|s| s.header == first) else { return Ok(()) };
        let to = from + merge.inputs.len();
        // It takes the place of the newest before the older ones go, oldest first: a crash at any point
        // leaves files that follow each other and end in the same state.
        fs::rename(merge.scratch.path(), &merged.path).map_err(|e| self.io(e))?;
        let old: Vec<Segment> = self.segments.splice(from..to, [merged]).collect();
        old[..old.len() - 1].iter().try_for_each(|segment| remove(&segment.path))?;
        self.forget(&old)
    }

    /// Removes the oldest `n` files: they are in the replica.
    pub(in crate::primary) fn remove_oldest(&mut self, n: usize) -> Result<()> {
        let gone: Vec<Segment> = self.segments.drain(..n).collect();
        gone.iter().try_for_each(|segment| remove(&segment.path))?;
        self.forget(&gone)
    }

    /// Forgets the keys of `gone`.
    fn forget(&self, gone: &[Segment]) -> Result<()> {
        let subjects = gone.iter().map(|segment| Subject::Waiting(segment.header.name()));
        self.seals.forget(&subjects.collect::<Vec<_>>())
    }

    /// Removes all files: a full copy takes their place.
    pub(in crate::primary) fn clear(&mut self) -> Result<()> {
        self.remove_oldest(self.segments.len())
    }

    /// A name for a file that does not outlive this process.
    fn scratch(&self) -> Scratch {
        // Work of a publisher that was just ended may still be using its own.
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        Scratch(self.folder.join(format!("{}-{count}.tmp", std::process::id())))
    }

    fn io(&self, e: std::io::Error) -> Error {
        Error::io(format_args!("cannot use {}", self.folder.display()), e)
    }
}

/// A file that is removed when nobody uses it any more.
#[derive(Debug)]
struct Scratch(PathBuf);

impl Scratch {
    fn path(&self) -> &Path {
        &self.0
    }

    /// Writes the newest of every page of `inputs`, oldest first, as a file with `header`; returns its
    /// size.
    ///
    /// # Errors
    /// Those of [`merge_as`]; `Io`, `NoSpace` naming the file.
    fn merge(&self, inputs: &[Segment], header: Header, seals: &Seals) -> Result<u64> {
        let inputs = inputs.iter().map(|input| input.open(seals)).collect::<Result<Vec<_>>>()?;
        let encoder = seals.encoder(create(&self.0)?, header, Subject::Waiting(header.name()), Keep::Key)?;
        let (out, summary) = merge_as(inputs, encoder)?;
        out.into_inner()
            .map_err(|e| Error::io(format_args!("cannot write {}", self.0.display()), e.into_error()))?;
        Ok(summary.size)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // It may have been renamed, or never written.
        let _ = fs::remove_file(&self.0);
    }
}

/// A merge of waiting files, which needs no lock while it runs.
#[derive(Debug)]
pub(in crate::primary) struct Merge {
    inputs: Vec<Segment>,
    scratch: Scratch,
    seals: Arc<Seals>,
}

impl Merge {
    /// Writes the merged file.
    ///
    /// # Errors
    /// `Corrupt` if an input is broken; `Io`, `NoSpace`.
    pub(in crate::primary) fn run(&self) -> Result<Segment> {
        let [first, .., last] = &self.inputs[..] else { panic!("BUG: a merge has several inputs") };
        let header = self.seals.header(Header { min: first.header.min, ..last.header });
        let size = self.scratch.merge(&self.inputs, header, &self.seals)?;
        let mut pages = PageSet::default();
        self.inputs.iter().for_each(|input| pages.extend(&input.pages));
        Ok(Segment { header, size, pages, ..last.clone() })
    }
}

/// The name that a file of sequence number or transaction `txid` has in its header.
pub(in crate::primary) fn single(header: Header, txid: Txid) -> Header {
    let name = FileName::single(txid);
    Header { min: name.min(), max: name.max(), ..header }
}

/// The first bytes of the file at `path`.
fn read_header(path: &Path) -> std::io::Result<[u8; Header::SIZE]> {
    let mut bytes = [0; Header::SIZE];
    File::open(path)?.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// Writes the newest of every page of `inputs`, oldest first, as one file by `encoder`, in whose header the transactions
/// need not be those of the inputs.
///
/// # Errors
/// `Corrupt` if an input is broken; what reading and writing say.
fn merge_as<R: Read, W: Write>(inputs: Vec<Decoder<R>>, mut encoder: Encoder<W>) -> Result<(W, Summary)> {
    let mut merger = Merger::new(inputs)?;
    while let Some((pgno, page)) = merger.next_page()? {
        encoder.page(pgno, page)?;
    }
    merger.finish()?;
    encoder.finish()
}

/// Writes an LTX file to `path` by a temporary file and a rename; returns its size.
pub(in crate::primary) fn write_ltx(
    path: &Path,
    header: Header,
    seals: &Seals,
    fill: impl FnOnce(&mut Encoder<BufWriter<File>>) -> Result<()>,
) -> Result<u64> {
    let temporary = path.with_extension("tmp");
    let write = || {
        // A view is pinned meanwhile: compression is left to the merge in the background.
        let subject = Subject::Waiting(header.name());
        let mut encoder = seals.encoder(create(&temporary)?, header, subject, Keep::Key)?.stored();
        fill(&mut encoder)?;
        let (out, summary) = encoder.finish()?;
        out.into_inner()
            .map_err(std::io::IntoInnerError::into_error)
            .and_then(|_| fs::rename(&temporary, path))
            .map_err(|e| Error::io(format_args!("cannot write {}", path.display()), e))?;
        Ok(summary.size)
    };
    let written = write();
    if written.is_err() {
        // What a full disk could not take must not keep it full.
        let _ = fs::remove_file(&temporary);
    }
    written
}

fn create(path: &Path) -> Result<BufWriter<File>> {
    let file = files::open(path, OpenOptions::new().write(true).truncate(true))
        .map_err(|e| Error::io(format_args!("cannot create {}", path.display()), e))?;
    Ok(BufWriter::with_capacity(WRITE_BYTES, file))
}

fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::io(format_args!("cannot remove {}", path.display()), e))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;
    use crate::page::{PageCount, PageSize, Pgno};

    const SIZE: u32 = 512;

    /// Writes a file at `second`, which has page 1 and one more.
    fn write(spool: &mut Spool, second: i64) {
        let (size, count) = (PageSize::new(SIZE).unwrap(), PageCount::new(10));
        let time = Timestamp::from_millis(second * 1000);
        let header = Header::new(size, count, FileName::single(Txid::ONE), time);
        let mut pages = PageSet::default();
        let other = Pgno::new(2 + second as u32 % 5).unwrap();
        [Pgno::ONE, other].into_iter().for_each(|pgno| pages.insert(pgno));
        let content = vec![second as u8; SIZE as usize];
        let fill = |encoder: &mut Encoder<BufWriter<File>>| {
            encoder.page(Pgno::ONE, &content)?;
            encoder.page(other, &content)
        };
        spool.write(header, CommitSeq(second as u64), &pages, fill).unwrap();
    }

    fn tidy(spool: &mut Spool, from: usize, most: usize) {
        while let Some(merge) = spool.merge_beyond(from, most) {
            let merged = merge.run().unwrap();
            spool.replace(&merge, merged).unwrap();
        }
    }

    #[test]
    fn what_waits_becomes_coarser_the_older_it_is() {
        const MOST: usize = 64;
        let home = tempfile::tempdir().unwrap();
        let (mut spool, _) = Spool::open(home.path(), None, &Arc::new(Seals::none())).unwrap();
        for second in 1..=1000 {
            write(&mut spool, second);
            tidy(&mut spool, 0, MOST);
            assert!(spool.segments().len() <= MOST);
        }
        let ends: Vec<i64> = spool.segments().iter().map(|s| s.header.timestamp.as_millis() / 1000).collect();
        assert_eq!(ends.last(), Some(&1000));
        assert_eq!(
            ends[ends.len() - 10..],
            (991..=1000).collect::<Vec<_>>(),
            "the last ones are as they were made"
        );
        for (at, second) in ends.iter().enumerate() {
            // What a point in time within the outage is off by, for how long it is ago.
            let before = if at == 0 { 0 } else { ends[at - 1] };
            let (off, age) = (second - before, 1000 - before);
            assert!(off <= 1 + age / 5, "from {before} to {second} of {ends:?}");
        }
        // Each is a file that the next process finds again, with the newest content of each of its pages.
        let named = spool.range(0);
        let (again, complete) = Spool::open(home.path(), named, &Arc::new(Seals::none())).unwrap();
        assert!(complete);
        let shown = |spool: &Spool| spool.segments().iter().map(|s| s.header).collect::<Vec<_>>();
        assert_eq!(shown(&again), shown(&spool));
        for segment in again.segments() {
            let mut page = vec![0; SIZE as usize];
            assert_eq!(segment.open(&Seals::none()).unwrap().next_page(&mut page).unwrap(), Some(Pgno::ONE));
            assert_eq!(page[0], (segment.header.timestamp.as_millis() / 1000) as u8);
        }
    }

    #[test]
    fn what_is_on_its_way_stays_as_it_is() {
        let home = tempfile::tempdir().unwrap();
        let (mut spool, _) = Spool::open(home.path(), None, &Arc::new(Seals::none())).unwrap();
        (1..=20).for_each(|second| write(&mut spool, second));
        let before: Vec<Header> = spool.segments()[..5].iter().map(|s| s.header).collect();
        tidy(&mut spool, 5, 3);
        let after: Vec<Header> = spool.segments().iter().map(|s| s.header).collect();
        assert_eq!((after.len(), &after[..5]), (8, &before[..]));
    }
}
