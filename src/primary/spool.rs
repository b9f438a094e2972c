//! Local LTX files that wait for the replica: `.<file name>-litestream/spool/{sequence:016x}.ltx`.
//!
//! The transaction of a waiting file is not known before it goes out, so its header carries local
//! sequence numbers in its place: one, or those of the files that were merged into it. The last of them
//! names the file. They are contiguous and begin at 2, because a file that begins at 1 is a full
//! snapshot.
//!
//! Nothing here is synced. The state names the files that belong to it: a file that it does not name is
//! removed at the next open, and one that is missing or broken makes the state worthless.

use std::fs::{self, File, OpenOptions};
use std::io::{BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::{Error, Result};
use crate::files;
use crate::ltx::{Decoder, Encoder, FileName, Header, Merger, Summary, Txid};
use crate::primary::commits::CommitSeq;
use crate::primary::dirty::PageSet;

const FIRST: u64 = 2;

/// How much is written at once. More would be memory of its own from the system for each file
/// (`sqlite::memory`).
const WRITE_BYTES: usize = 64 * 1024;

/// A waiting file.
#[derive(Clone, Debug)]
pub(super) struct Segment {
    path: PathBuf,
    pub(super) header: Header,
    pub(super) size: u64,
    /// The last commit in it.
    pub(super) covers: CommitSeq,
    /// Its pages.
    pub(super) pages: PageSet,
}

impl Segment {
    /// Opens the file for a merge.
    pub(super) fn open(&self) -> Result<Decoder<BufReader<File>>> {
        let file = File::open(&self.path).map_err(|e| self.io("read", e))?;
        Decoder::new(BufReader::with_capacity(64 * 1024, file)).map_err(|e| e.context(self.path.display()))
    }

    fn io(&self, verb: &str, e: std::io::Error) -> Error {
        Error::io(format_args!("cannot {verb} {}", self.path.display()), e)
    }
}

/// The waiting files, oldest first.
#[derive(Debug)]
pub(super) struct Spool {
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
    pub(super) fn open(state_folder: &Path, named: Option<(u64, u64)>) -> Result<(Self, bool)> {
        let folder = state_folder.join("spool");
        files::create_folders(&folder)
            .map_err(|e| Error::io(format_args!("cannot create {}", folder.display()), e))?;
        let mut spool = Self { folder, segments: Vec::new(), next: FIRST };
        spool.read_folder(named)?;
        let complete = spool.range(0) == named;
        if !complete {
            spool.clear()?;
        }
        Ok((spool, complete))
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
            match Self::inspect(&path, seq) {
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
    fn inspect(path: &Path, seq: Txid) -> Result<Segment> {
        let file = File::open(path).map_err(|e| Error::io(path.display(), e))?;
        let mut decoder = Decoder::new(BufReader::new(file))?;
        let header = *decoder.header();
        let mut pages = PageSet::default();
        let mut page = vec![0; header.page_size.bytes()];
        while let Some(pgno) = decoder.next_page(&mut page)? {
            pages.insert(pgno);
        }
        let summary = decoder.finish()?;
        if header.max != seq {
            return Err(Error::corrupt("it holds another sequence number"));
        }
        let (path, covers) = (path.to_path_buf(), CommitSeq::default());
        Ok(Segment { path, header, size: summary.size, covers, pages })
    }

    /// The first and last sequence number of all files but the oldest `skip`.
    pub(super) fn range(&self, skip: usize) -> Option<(u64, u64)> {
        let rest = self.segments.get(skip..)?;
        Some((rest.first()?.header.min.get(), rest.last()?.header.max.get()))
    }

    /// The waiting files, oldest first.
    pub(super) fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// The number of bytes that wait.
    pub(super) fn bytes(&self) -> u64 {
        self.segments.iter().map(|s| s.size).sum()
    }

    /// Writes a further file: `header` has all but the sequence number, `fill` gives the content of `pages`, and
    /// `covers` is the last commit in it. The file appears whole or not at all.
    ///
    /// # Errors
    /// `Io`, `NoSpace`, `Denied`, naming the file; those of `fill`.
    pub(super) fn write(
        &mut self,
        header: Header,
        covers: CommitSeq,
        pages: &PageSet,
        fill: impl FnOnce(&mut Encoder<BufWriter<File>>) -> Result<()>,
    ) -> Result<()> {
        let seq = Txid::new(self.next).expect("BUG: sequence numbers begin at 2");
        let header = single(header, seq);
        let path = self.folder.join(format!("{seq}.ltx"));
        let size = write_ltx(&path, header, fill)?;
        self.segments.push(Segment { path, header, size, covers, pages: pages.clone() });
        self.next += 1;
        Ok(())
    }

    /// The merge of some files that follow each other, from the one at index `from` on.
    pub(super) fn merge_of(&self, from: usize, files: usize) -> Merge {
        Merge { inputs: self.segments[from..from + files].to_vec(), scratch: self.scratch() }
    }

    /// Puts the result of a merge in the place of its inputs. Nothing happens if they are gone.
    ///
    /// # Errors
    /// `Io`; the files stay as they are then.
    pub(super) fn replace(&mut self, merge: &Merge, merged: Segment) -> Result<()> {
        let first = merge.inputs[0].header;
        let Some(from) = self.segments.iter().position(|s| s.header == first) else { return Ok(()) };
        let to = from + merge.inputs.len();
        // It takes the place of the newest before the older ones go, oldest first: a crash at any point
        // leaves files that follow each other and end in the same state.
        fs::rename(merge.scratch.path(), &merged.path).map_err(|e| self.io(e))?;
        let old: Vec<Segment> = self.segments.splice(from..to, [merged]).collect();
        old[..old.len() - 1].iter().try_for_each(|segment| remove(&segment.path))
    }

    /// Removes the oldest `n` files: they are in the replica.
    pub(super) fn remove_oldest(&mut self, n: usize) -> Result<()> {
        for segment in self.segments.drain(..n) {
            remove(&segment.path)?;
        }
        Ok(())
    }

    /// Removes all files: a full copy takes their place.
    pub(super) fn clear(&mut self) -> Result<()> {
        self.remove_oldest(self.segments.len())
    }

    /// A name for a file that does not outlive this process.
    pub(super) fn scratch(&self) -> Scratch {
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
pub(super) struct Scratch(PathBuf);

impl Scratch {
    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    /// Writes the newest of every page of `inputs`, oldest first, as a file with `header`; returns its
    /// size.
    ///
    /// # Errors
    /// Those of [`merge_as`]; `Io`, `NoSpace` naming the file.
    pub(super) fn merge(&self, inputs: &[Segment], header: Header) -> Result<u64> {
        let inputs = inputs.iter().map(Segment::open).collect::<Result<Vec<_>>>()?;
        let (out, summary) = merge_as(inputs, create(&self.0)?, header)?;
        out.into_inner()
            .map_err(|e| Error::io(format_args!("cannot write {}", self.0.display()), e.into_error()))?;
        Ok(summary.size)
    }
}

impl Scratch {
    /// Opens the file.
    ///
    /// # Errors
    /// `Io`; `Corrupt` if it is not an LTX file.
    pub(super) fn open(&self) -> Result<Decoder<BufReader<File>>> {
        let file = File::open(&self.0)
            .map_err(|e| Error::io(format_args!("cannot read {}", self.0.display()), e))?;
        Decoder::new(BufReader::with_capacity(64 * 1024, file))
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
pub(super) struct Merge {
    inputs: Vec<Segment>,
    scratch: Scratch,
}

impl Merge {
    /// Writes the merged file.
    ///
    /// # Errors
    /// `Corrupt` if an input is broken; `Io`, `NoSpace`.
    pub(super) fn run(&self) -> Result<Segment> {
        let [first, .., last] = &self.inputs[..] else { panic!("BUG: a merge has several inputs") };
        let header = Header { min: first.header.min, ..last.header };
        let size = self.scratch.merge(&self.inputs, header)?;
        let mut pages = PageSet::default();
        self.inputs.iter().for_each(|input| pages.extend(&input.pages));
        Ok(Segment { header, size, pages, ..last.clone() })
    }
}

/// The name that a file of sequence number or transaction `txid` has in its header.
pub(super) fn single(header: Header, txid: Txid) -> Header {
    let name = FileName::single(txid);
    Header { min: name.min(), max: name.max(), ..header }
}

/// Writes the newest of every page of `inputs`, oldest first, as a file with `header`, whose
/// transactions need not be those of the inputs.
///
/// # Errors
/// `Corrupt` if an input is broken; what reading and writing say.
pub(super) fn merge_as<R: Read, W: Write>(
    inputs: Vec<Decoder<R>>,
    out: W,
    header: Header,
) -> Result<(W, Summary)> {
    let mut merger = Merger::new(inputs)?;
    let mut encoder = Encoder::new(out, header)?;
    while let Some((pgno, page)) = merger.next_page()? {
        encoder.page(pgno, page)?;
    }
    merger.finish()?;
    encoder.finish()
}

/// Writes an LTX file to `path` by a temporary file and a rename; returns its size.
pub(super) fn write_ltx(
    path: &Path,
    header: Header,
    fill: impl FnOnce(&mut Encoder<BufWriter<File>>) -> Result<()>,
) -> Result<u64> {
    let temporary = path.with_extension("tmp");
    let write = || {
        // A view is pinned meanwhile: compression is left to the merge in the background.
        let mut encoder = Encoder::stored(create(&temporary)?, header)?;
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
