//! Local LTX files that wait for the replica: `.<file name>-litestream/spool/{sequence:016x}.ltx`.
//!
//! The transaction of a waiting file is not known before it goes out, so its header carries a local
//! sequence number in its place. Sequence numbers are contiguous and begin at 2, because a file that
//! begins at 1 is a full snapshot.

use std::fs::{self, File};
use std::io::{BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::ltx::{Decoder, Encoder, FileName, Header, Merger, Summary, Txid};

const FIRST: u64 = 2;

/// A waiting file.
#[derive(Clone, Debug)]
pub(super) struct Segment {
    seq: Txid,
    path: PathBuf,
    pub(super) header: Header,
    pub(super) size: u64,
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
    /// The spool below `state_folder`, with the files that an earlier process left in it. A file that
    /// is not whole ends the list: it was being written when the process died, and the commits in it
    /// are still in the WAL.
    ///
    /// # Errors
    /// `Io`.
    pub(super) fn open(state_folder: &Path) -> Result<Self> {
        let folder = state_folder.join("spool");
        fs::create_dir_all(&folder)
            .map_err(|e| Error::io(format_args!("cannot create {}", folder.display()), e))?;
        let mut spool = Self { folder, segments: Vec::new(), next: FIRST };
        spool.read_folder()?;
        Ok(spool)
    }

    fn read_folder(&mut self) -> Result<()> {
        let entries = fs::read_dir(&self.folder).map_err(|e| self.io(e))?;
        let mut names = Vec::new();
        for entry in entries {
            let name = entry.map_err(|e| self.io(e))?.file_name();
            match name.to_str().and_then(|n| n.strip_suffix(".ltx")).and_then(|n| n.parse::<Txid>().ok()) {
                Some(seq) => names.push(seq),
                None => remove(&self.folder.join(name))?,
            }
        }
        names.sort_unstable();
        for seq in names {
            let path = self.folder.join(format!("{seq}.ltx"));
            let follows = self.segments.last().is_none_or(|last| last.seq.next() == seq);
            match Self::inspect(&path, seq) {
                Ok(segment) if follows => self.segments.push(segment),
                _ => remove(&path)?,
            }
        }
        self.next = self.segments.last().map_or(FIRST, |last| last.seq.get() + 1);
        Ok(())
    }

    /// Reads a whole file, which verifies it.
    fn inspect(path: &Path, seq: Txid) -> Result<Segment> {
        let file = File::open(path).map_err(|e| Error::io(path.display(), e))?;
        let decoder = Decoder::new(BufReader::new(file))?;
        let header = *decoder.header();
        let summary = decoder.finish()?;
        if header.max != seq {
            return Err(Error::corrupt(format!("{} holds another sequence number", path.display())));
        }
        Ok(Segment { seq, path: path.to_path_buf(), header, size: summary.size })
    }

    /// The waiting files, oldest first.
    pub(super) fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// The number of bytes that wait.
    pub(super) fn bytes(&self) -> u64 {
        self.segments.iter().map(|s| s.size).sum()
    }

    /// Writes a further file: `header` tells all but the sequence number, `fill` gives the pages.
    /// The file appears whole or not at all.
    ///
    /// # Errors
    /// `Io`, `NoSpace`, `Denied`, naming the file; those of `fill`.
    pub(super) fn write(
        &mut self,
        header: Header,
        fill: impl FnOnce(&mut Encoder<BufWriter<File>>) -> Result<()>,
    ) -> Result<()> {
        let seq = Txid::new(self.next).expect("BUG: sequence numbers begin at 2");
        let header = Header { min: seq, max: seq, ..header };
        let path = self.folder.join(format!("{seq}.ltx"));
        let size = write_ltx(&path, header, fill)?;
        self.segments.push(Segment { seq, path, header, size });
        self.next += 1;
        Ok(())
    }

    /// Replaces the oldest `n` files by one that holds their pages.
    ///
    /// # Errors
    /// As [`Spool::write`]; the files stay as they are then.
    pub(super) fn merge_oldest(&mut self, n: usize) -> Result<()> {
        let old: Vec<Segment> = self.segments[..n].to_vec();
        let Some(last) = old.last() else { return Ok(()) };
        let inputs = old.iter().map(Segment::open).collect::<Result<Vec<_>>>()?;
        let temporary = self.scratch("merge");
        let (out, summary) = merge_as(inputs, create(&temporary)?, last.header)?;
        drop(out.into_inner().map_err(|e| self.io(e.into_error()))?);
        // The merged file takes the place of the newest before the older ones go, oldest first: a
        // crash at any point leaves a contiguous run that ends in the same state.
        fs::rename(&temporary, &last.path).map_err(|e| self.io(e))?;
        for segment in &old[..n - 1] {
            remove(&segment.path)?;
        }
        self.segments.splice(..n, [Segment { size: summary.size, ..last.clone() }]);
        Ok(())
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

    /// A path in the spool's folder for a file that does not outlive this process.
    pub(super) fn scratch(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.tmp"))
    }

    fn io(&self, e: std::io::Error) -> Error {
        Error::io(format_args!("cannot use {}", self.folder.display()), e)
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
    // A committing thread may be waiting: compression is left to the merge in the background.
    let mut encoder = Encoder::stored(create(&temporary)?, header)?;
    fill(&mut encoder)?;
    let (out, summary) = encoder.finish()?;
    out.into_inner()
        .map_err(std::io::IntoInnerError::into_error)
        .and_then(|_| fs::rename(&temporary, path))
        .map_err(|e| Error::io(format_args!("cannot write {}", path.display()), e))?;
    Ok(summary.size)
}

fn create(path: &Path) -> Result<BufWriter<File>> {
    let file =
        File::create(path).map_err(|e| Error::io(format_args!("cannot create {}", path.display()), e))?;
    Ok(BufWriter::with_capacity(256 * 1024, file))
}

fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::io(format_args!("cannot remove {}", path.display()), e))
        }
        _ => Ok(()),
    }
}
