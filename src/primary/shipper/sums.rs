//! Checksums of the pages as the replica has them: `.<file name>-litestream/pages.sums`.
//!
//! When commits could not be followed, the database is compared with them, and only what differs is
//! sent. The file is brought up to date when a file was delivered, by the publisher. It is believed only
//! if it is of the very transaction that the replica ends with, and whole: it is not synced, and a crash
//! may leave it half written.
//!
//! ```text
//!  0  magic       8 bytes  "LTXSUMS1"
//!  8  page size   u32
//! 12  pages       u32      size of the database
//! 16  txid        u64      0 while the file is being changed
//! 24  replica     u64      CRC-64 of its URL
//! 32  digest      u64      of all checksums, in any order
//! 40  zero        24 bytes
//! 64  checksums   u64 for each page, from page 1 on; 0 if not known
//! ```
//!
//! All is little-endian. The digests of earlier transactions are in `past`.

use std::fs::{self, File, OpenOptions};
use std::io::{BufReader, BufWriter, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crc_fast::CrcAlgorithm;

use crate::error::{Error, ErrorKind, Result};
use crate::files;
use crate::ltx::{Decoder, FileId, Txid};
use crate::page::{PageCount, PageSize, Pgno};
use crate::primary::random_u64;
use crate::primary::shipper::Shipper;
use crate::primary::shipper::past::{Digest, Past};
use crate::runtime;
use crate::store::{ByteRange, in_local_state};

const NAME: &str = "pages.sums";
/// How the names of new ones end, `pages.{random:016x}.new`.
const NEW: &str = "new";
const MAGIC: &[u8; 8] = b"LTXSUMS1";
const HEADER_SIZE: usize = 64;
const SUM_SIZE: usize = 8;
/// At most so many files, each of at most so many bytes, are read to bring checksums up to date.
const CATCH_UP_FILES: u64 = 16;
const CATCH_UP_BYTES: u64 = 16 * 1024 * 1024;
/// How many checksums are read or written at once.
const BATCH: usize = 8192;

/// The checksum of one page; never 0.
pub(in crate::primary) fn sum_of(page: &[u8]) -> u64 {
    crc_fast::checksum(CrcAlgorithm::Crc64Nvme, page).max(1)
}

/// Pages with their checksums, in ascending order of their numbers.
pub(in crate::primary) type PageSums = Vec<(Pgno, u64)>;

/// What one checksum adds to the digest.
fn share(pgno: u64, sum: u64) -> u64 {
    if sum == 0 {
        return 0;
    }
    (sum ^ pgno.wrapping_mul(0x9e37_79b9_7f4a_7c15)).rotate_left(29).wrapping_mul(0xd6e8_feb8_6659_fd93)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Header {
    page_size: u32,
    pages: u32,
    txid: u64,
    replica: u64,
    digest: u64,
}

impl Header {
    fn encode(&self) -> [u8; HEADER_SIZE] {
        let mut bytes = [0; HEADER_SIZE];
        bytes[..8].copy_from_slice(MAGIC);
        bytes[8..12].copy_from_slice(&self.page_size.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.pages.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.txid.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.replica.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.digest.to_le_bytes());
        bytes
    }

    fn digest(&self) -> Digest {
        Digest { page_size: self.page_size, pages: self.pages, digest: self.digest }
    }

    fn decode(bytes: &[u8; HEADER_SIZE]) -> Option<Self> {
        let long = |at: usize| [0, 1, 2, 3, 4, 5, 6, 7].map(|i: usize| bytes[at + i]);
        let word = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        (bytes.starts_with(MAGIC)).then(|| Self {
            page_size: word(8),
            pages: word(12),
            txid: u64::from_le_bytes(long(16)),
            replica: u64::from_le_bytes(long(24)),
            digest: u64::from_le_bytes(long(32)),
        })
    }
}

/// The checksums of one database and one replica.
#[derive(Clone, Debug)]
pub(in crate::primary) struct Sums {
    path: PathBuf,
    replica: u64,
    past: Past,
}

impl Sums {
    /// Those in the folder of local state, for the replica at `url`.
    pub(in crate::primary) fn new(folder: &Path, url: &str) -> Self {
        let replica = crc_fast::checksum(CrcAlgorithm::Crc64Nvme, in_local_state(url).as_bytes());
        Self { path: folder.join(NAME), replica, past: Past::new(folder, replica) }
    }

    /// Those of a database that is replicated.
    pub(in crate::primary) fn of(shipper: &Shipper) -> Self {
        Self::new(&shipper.folder, &shipper.store.url())
    }

    /// The earlier transaction after which the database had `digest`, as far back as that is remembered.
    pub(in crate::primary) fn txid_of(&self, digest: &Digest) -> Option<Txid> {
        self.past.find(digest)
    }

    /// Remembers that the database had `digest` after `txid`.
    pub(in crate::primary) fn note(&self, txid: Txid, digest: &Digest) {
        self.past.note(txid, digest);
    }

    /// Whether digests of states of this replica are remembered. That of the last one may be missing, if the process
    /// was killed right after it published it.
    pub(in crate::primary) fn remembers_digests(&self) -> bool {
        self.past.has_any()
    }

    /// The digest of the database after `txid`, if it is remembered.
    pub(in crate::primary) fn digest_of(&self, txid: Txid) -> Option<Digest> {
        self.past.digest_of(txid)
    }

    /// Forgets them: what the replica holds is not known any more.
    pub(in crate::primary) fn forget(&self) {
        self.forget_pages();
        self.past.forget();
    }

    /// Forgets them, and remembers what earlier transactions were.
    pub(in crate::primary) fn forget_pages(&self) {
        let _ = fs::remove_file(&self.path);
    }

    /// The transaction that they are of.
    pub(in crate::primary) fn txid(&self) -> Option<Txid> {
        let (_, header) = self.open(false).ok()??;
        Txid::new(header.txid)
    }

    fn open(&self, write: bool) -> Result<Option<(File, Header)>> {
        let file = match OpenOptions::new().read(true).write(write).open(&self.path) {
            Ok(file) => file,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(self.io(e)),
        };
        let mut bytes = [0; HEADER_SIZE];
        if file.read_exact_at(&mut bytes, 0).is_err() {
            return Ok(None);
        }
        let header = Header::decode(&bytes).filter(|header| header.replica == self.replica);
        Ok(header.map(|header| (file, header)))
    }

    /// Brings them from the transaction before `file` to that of `file`, which the replica holds.
    ///
    /// # Errors
    /// `Corrupt` if `file` is broken; `Io`. They are of no use then.
    pub(in crate::primary) fn apply<R: Read>(&self, mut file: Decoder<R>) -> Result<()> {
        let ltx = *file.header();
        self.change(&ltx, |change| {
            let mut page = vec![0; ltx.page_size.bytes()];
            while let Some(pgno) = file.next_page(&mut page)? {
                change.set(pgno, sum_of(&page)).map_err(|e| self.io(e))?;
            }
            file.finish().map(drop)
        })
    }

    /// As [`Sums::apply`], for a file with the header `ltx` whose pages have the checksums `sums`, in ascending order of
    /// their numbers.
    ///
    /// # Errors
    /// `Io`. They are of no use then.
    pub(in crate::primary) fn apply_sums(
        &self,
        ltx: &crate::ltx::Header,
        sums: &[(Pgno, u64)],
    ) -> Result<()> {
        self.change(ltx, |change| {
            sums.iter().try_for_each(|(pgno, sum)| change.set(*pgno, *sum)).map_err(|e| self.io(e))
        })
    }

    fn change(
        &self,
        ltx: &crate::ltx::Header,
        work: impl FnOnce(&mut Change<'_>) -> Result<()>,
    ) -> Result<()> {
        let Some((sums, mut header)) = self.open(true)? else { return Ok(()) };
        if Txid::new(header.txid).map(Txid::next) != Some(ltx.min) || header.page_size != ltx.page_size.get()
        {
            return Ok(());
        }
        header.txid = 0;
        sums.write_all_at(&header.encode(), 0).map_err(|e| self.io(e))?;
        let mut change = Change { sums: &sums, digest: header.digest, first: 0, run: Vec::new() };
        change.resize(header.pages, ltx.commit).map_err(|e| self.io(e))?;
        work(&mut change)?;
        change.flush().map_err(|e| self.io(e))?;
        header = Header { pages: ltx.commit.get(), txid: ltx.max.get(), digest: change.digest, ..header };
        sums.write_all_at(&header.encode(), 0).map_err(|e| self.io(e))?;
        self.past.note(ltx.max, &header.digest());
        Ok(())
    }

    /// Brings them to `last`, the last transaction of the replica, by what that holds. If that is much,
    /// they stay behind and are of no use.
    pub(in crate::primary) async fn catch_up(&self, shipper: &Shipper, last: Option<Txid>) {
        let Some(last) = last else { return };
        for _ in 0..CATCH_UP_FILES {
            let Some(txid) = self.txid().filter(|txid| *txid < last) else { return };
            if last.get() - txid.get() > CATCH_UP_FILES {
                return;
            }
            if let Err(e) = self.apply_from(shipper, txid.next()).await {
                tracing::debug!("{}: {e}", self.path.display());
                return;
            }
        }
    }

    async fn apply_from(&self, shipper: &Shipper, txid: Txid) -> Result<()> {
        let content = shipper.store.get(FileId::single(txid), ByteRange::All).await?;
        if content.file_size > CATCH_UP_BYTES {
            return Err(Error::new(ErrorKind::Unsupported, format!("transaction {txid} is large")));
        }
        let bytes = content.bytes().await?;
        let (sums, seals) = (self.clone(), Arc::clone(&shipper.seals));
        runtime::blocking(move || sums.apply(seals.open(&bytes[..])?)).await
    }

    /// What the replica holds at `txid`, if it is known and whole.
    pub(in crate::primary) fn base(&self, txid: Txid, page_size: PageSize) -> Option<Base> {
        let (file, header) = self.open(false).ok()??;
        if header.txid != txid.get() || header.page_size != page_size.get() {
            return None;
        }
        let mut base = Base::new(file, header.pages);
        let mut digest = 0;
        for pgno in 1..=u64::from(header.pages) {
            digest ^= share(pgno, base.read().ok()?);
        }
        if digest != header.digest {
            return None;
        }
        let (file, _) = self.open(false).ok()??;
        Some(Base::new(file, header.pages))
    }

    /// Begins checksums of a whole database. They take the place of the old ones when the database is in the replica.
    pub(in crate::primary) fn begin(&self, page_size: PageSize) -> Option<NewSums> {
        let owned = self.new_file(page_size, PageCount::new(0));
        let file = files::open(&owned.path, OpenOptions::new().write(true).truncate(true)).ok()?;
        let mut out = BufWriter::with_capacity(64 * 1024, file);
        out.write_all(&[0; HEADER_SIZE]).ok()?;
        Some(NewSums { out: Some(out), owned })
    }

    /// A file for checksums of a database of `pages` pages, which is still to be made. No two have one name: those that a later
    /// look replaces are removed after it began.
    fn new_file(&self, page_size: PageSize, pages: PageCount) -> Owned {
        let path = self.path.with_extension(format!("{:016x}.{NEW}", random_u64()));
        let (page_size, pages) = (page_size.get(), pages.get());
        let header = Header { page_size, pages, txid: 0, replica: self.replica, digest: 0 };
        Owned { path, sums: self.clone(), header, is_adopted: AtomicBool::new(false) }
    }

    /// Removes new checksums that a killed process left.
    pub(in crate::primary) fn sweep(&self) {
        let folder = self.path.parent().unwrap_or(Path::new("."));
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            let name = path.file_name().unwrap_or_default().as_encoded_bytes();
            if name.starts_with(b"pages.") && path.extension().is_some_and(|extension| extension == NEW) {
                let _ = fs::remove_file(&path);
            }
        }
    }

    /// Begins checksums of a database of `pages` pages that become known in any order.
    ///
    /// # Errors
    /// `Io`, `NoSpace`.
    pub(in crate::primary) fn begin_any_order(
        &self,
        page_size: PageSize,
        pages: PageCount,
    ) -> Result<AnyOrder> {
        let owned = self.new_file(page_size, pages);
        let file = files::open(&owned.path, OpenOptions::new().read(true).write(true).truncate(true))
            .map_err(|e| self.io(e))?;
        file.set_len(offset_of(u64::from(pages.get()) + 1)).map_err(|e| self.io(e))?;
        Ok(AnyOrder { file, owned })
    }

    fn io(&self, e: std::io::Error) -> Error {
        Error::io(format_args!("cannot use {}", self.path.display()), e)
    }
}

/// Where the checksum of a page is.
const fn offset_of(pgno: u64) -> u64 {
    (HEADER_SIZE + SUM_SIZE * (pgno as usize - 1)) as u64
}

/// A change of some checksums, in ascending order of their pages.
struct Change<'a> {
    sums: &'a File,
    digest: u64,
    /// The page of the first of `run`.
    first: u64,
    /// New checksums of pages that follow each other.
    run: Vec<u64>,
}

impl Change<'_> {
    fn resize(&mut self, from: u32, to: PageCount) -> std::io::Result<()> {
        let (from, to) = (u64::from(from), u64::from(to.get()));
        let mut old = [0; SUM_SIZE];
        for pgno in to + 1..=from {
            self.sums.read_exact_at(&mut old, offset_of(pgno))?;
            self.digest ^= share(pgno, u64::from_le_bytes(old));
        }
        // What is new is zeros, whatever was there before.
        self.sums.set_len(offset_of(to.min(from) + 1))?;
        self.sums.set_len(offset_of(to + 1))
    }

    fn set(&mut self, pgno: Pgno, sum: u64) -> std::io::Result<()> {
        let pgno = u64::from(pgno.get());
        if self.run.len() == BATCH || pgno != self.first + self.run.len() as u64 {
            self.flush()?;
            self.first = pgno;
        }
        self.run.push(sum);
        Ok(())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        if self.run.is_empty() {
            return Ok(());
        }
        let mut bytes = vec![0; self.run.len() * SUM_SIZE];
        self.sums.read_exact_at(&mut bytes, offset_of(self.first))?;
        for (i, (bytes, new)) in bytes.chunks_exact_mut(SUM_SIZE).zip(&self.run).enumerate() {
            let old = u64::from_le_bytes(bytes.try_into().expect("BUG: chunks have the size of a checksum"));
            let pgno = self.first + i as u64;
            self.digest ^= share(pgno, old) ^ share(pgno, *new);
            bytes.copy_from_slice(&new.to_le_bytes());
        }
        self.run.clear();
        self.sums.write_all_at(&bytes, offset_of(self.first))
    }
}

/// The checksums of what the replica holds, read in order.
pub(in crate::primary) struct Base {
    file: BufReader<File>,
    /// How many are left.
    left: u32,
}

impl Base {
    fn new(file: File, pages: u32) -> Self {
        let mut file = BufReader::with_capacity(BATCH * SUM_SIZE, file);
        // A file that ends early reads as not known.
        let _ = file.seek_relative(HEADER_SIZE as i64);
        Self { file, left: pages }
    }

    fn read(&mut self) -> std::io::Result<u64> {
        let mut bytes = [0; SUM_SIZE];
        self.file.read_exact(&mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }

    /// How many pages are left.
    pub(in crate::primary) fn left(&self) -> u64 {
        u64::from(self.left)
    }

    /// The checksum of the next page; `None` if it is not known.
    pub(in crate::primary) fn next(&mut self) -> Option<u64> {
        self.left = self.left.checked_sub(1)?;
        self.read().ok().filter(|sum| *sum != 0)
    }
}

/// A file of new checksums; it is removed unless it is adopted.
#[derive(Debug)]
struct Owned {
    path: PathBuf,
    sums: Sums,
    header: Header,
    /// It was renamed to its place.
    is_adopted: AtomicBool,
}

impl Owned {
    fn io(&self, e: std::io::Error) -> Error {
        Error::io(format_args!("cannot use {}", self.path.display()), e)
    }

    /// The checksums become those of the replica, which has the database as `txid`. May be done again, after what follows failed.
    fn adopt(&self, file: &File, txid: Txid) -> Result<()> {
        let header = Header { txid: txid.get(), ..self.header };
        file.write_all_at(&header.encode(), 0).map_err(|e| self.io(e))?;
        if !self.is_adopted.load(Ordering::Relaxed) {
            fs::rename(&self.path, &self.sums.path).map_err(|e| self.io(e))?;
            self.is_adopted.store(true, Ordering::Relaxed);
        }
        self.sums.past.note(txid, &header.digest());
        Ok(())
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        if !*self.is_adopted.get_mut() {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Checksums of a whole database, page by page in order.
#[derive(Debug)]
pub(in crate::primary) struct NewSums {
    /// `None` once writing failed: a database without checksums is only slower to repair.
    out: Option<BufWriter<File>>,
    owned: Owned,
}

impl NewSums {
    /// Adds the checksum of the next page; 0 for one that is not sent.
    pub(in crate::primary) fn push(&mut self, sum: u64) {
        let header = &mut self.owned.header;
        header.pages += 1;
        header.digest ^= share(u64::from(header.pages), sum);
        if self.out.as_mut().is_some_and(|out| out.write_all(&sum.to_le_bytes()).is_err()) {
            self.out = None;
        }
    }

    /// All pages were added.
    ///
    /// # Errors
    /// `Io`, `NoSpace`.
    pub(in crate::primary) fn finish(mut self) -> Result<Known> {
        let failed = || {
            let message = format!("{} could not be written", self.owned.path.display());
            Error::new(ErrorKind::Io, message)
        };
        let out = self.out.take().ok_or_else(failed)?;
        drop(out.into_inner().map_err(|e| self.owned.io(e.into_error()))?);
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).open(&self.owned.path).map_err(|e| self.owned.io(e))?;
        Ok(Known { file, owned: self.owned })
    }
}

/// Checksums of a whole database, page by page in any order.
#[derive(Debug)]
pub(in crate::primary) struct AnyOrder {
    file: File,
    owned: Owned,
}

impl AnyOrder {
    /// Sets the checksums of pages that follow each other, from `first` on, which had none.
    ///
    /// # Errors
    /// `Io`, `NoSpace`.
    pub(in crate::primary) fn set(&mut self, first: Pgno, run: &[u64]) -> Result<()> {
        let first = u64::from(first.get());
        let mut bytes = Vec::with_capacity(run.len() * SUM_SIZE);
        for (pgno, sum) in (first..).zip(run) {
            self.owned.header.digest ^= share(pgno, *sum);
            bytes.extend_from_slice(&sum.to_le_bytes());
        }
        self.file.write_all_at(&bytes, offset_of(first)).map_err(|e| self.owned.io(e))
    }

    /// All pages have their checksums.
    pub(in crate::primary) fn finish(self) -> Known {
        Known { file: self.file, owned: self.owned }
    }
}

/// Checksums of a whole database.
#[derive(Debug)]
pub(in crate::primary) struct Known {
    file: File,
    owned: Owned,
}

impl Known {
    /// The digest of all of them.
    pub(in crate::primary) fn digest(&self) -> Digest {
        self.owned.header.digest()
    }

    /// The checksums of `count` pages from `first` on; pages beyond the end have none.
    ///
    /// # Errors
    /// `Io`.
    pub(in crate::primary) fn read(&self, first: Pgno, count: usize) -> Result<Vec<u64>> {
        let left = (self.owned.header.pages + 1).saturating_sub(first.get()) as usize;
        let mut bytes = vec![0; count.min(left) * SUM_SIZE];
        self.file
            .read_exact_at(&mut bytes, offset_of(u64::from(first.get())))
            .map_err(|e| self.owned.io(e))?;
        let sum = |bytes: &[u8]| {
            u64::from_le_bytes(bytes.try_into().expect("BUG: chunks have the size of a checksum"))
        };
        Ok(bytes.chunks_exact(SUM_SIZE).map(sum).collect())
    }

    /// The database is in the replica as `txid`.
    ///
    /// # Errors
    /// `Io`, `NoSpace`.
    pub(in crate::primary) fn adopt(&self, txid: Txid) -> Result<()> {
        self.owned.adopt(&self.file, txid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let names =
            fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<_> = names.collect();
        names.sort();
        names
    }

    #[test]
    fn new_sums_that_a_later_look_replaces_take_nothing_with_them() {
        let folder = tempfile::tempdir().unwrap();
        let database = folder.path().join("app.db");
        fs::write(&database, "").unwrap();
        let state = files::state_folder(&database);
        files::create_folders(&state).unwrap();
        let sums = Sums::new(&state, "memory:one");
        let look = |sum| {
            let mut new = sums.begin(PageSize::MIN).unwrap();
            new.push(sum);
            new.finish().unwrap()
        };
        let first = look(1);
        let second = look(2);
        assert_eq!(first.read(Pgno::ONE, 1).unwrap(), [1]);
        drop(first);
        second.adopt(Txid::ONE).unwrap();
        // What comes after it failed, and is tried again.
        second.adopt(Txid::ONE).unwrap();
        drop(second);
        assert_eq!(sums.base(Txid::ONE, PageSize::MIN).unwrap().next(), Some(2));
        // As after kill -9.
        std::mem::forget(look(3));
        assert_eq!(names(&state).len(), 3);
        sums.sweep();
        assert_eq!(names(&state), ["pages.past", "pages.sums"]);
    }
}
