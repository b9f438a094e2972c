//! Files that are put on a copy in one transaction: downloaded, and verified before the copy is touched.

use std::fs::{self, File};
use std::io::{BufReader, Write as _};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use roaring::RoaringBitmap;

use crate::error::{Error, ErrorKind, Result};
use crate::files;
use crate::ltx::{Decoder, Header, Keyring, Lineage};
use crate::page::{PageCount, PageSize, Pgno};
use crate::replica::{Known, Source, check_name};
use crate::store::{ByteRange, FileInfo};

/// Downloads at the same time.
const AT_ONCE: usize = 8;

/// Downloaded files, in the order in which they are applied.
#[derive(Debug, Default)]
pub(super) struct Batch {
    files: Vec<Staged>,
}

/// A downloaded file.
#[derive(Debug)]
struct Staged {
    info: FileInfo,
    path: PathBuf,
}

impl Drop for Staged {
    fn drop(&mut self) {
        // The next download into the folder removes it otherwise.
        let _ = fs::remove_file(&self.path);
    }
}

/// What the files of a batch come to.
#[derive(Debug)]
pub(super) struct Content {
    /// The header of the last one.
    pub(super) header: Header,
    /// The history that they belong to, as far as that is known.
    pub(super) lineage: Option<Lineage>,
    /// Their pages.
    pub(super) pages: RoaringBitmap,
    /// The least size of the database after one of them.
    pub(super) least: PageCount,
    /// The first page after all of them, if one has it.
    pub(super) first_page: Option<Vec<u8>>,
}

impl Batch {
    /// Adds `bytes`, all of the file `info`, in `folder`.
    ///
    /// # Errors
    /// Those of the file system.
    pub(super) fn add(&mut self, info: FileInfo, bytes: &Bytes, folder: &Path) -> Result<()> {
        let (staged, mut file) = Staged::create(info, folder, self.files.len())?;
        file.write_all(bytes).map_err(|e| staged.failed(e))?;
        self.files.push(staged);
        Ok(())
    }

    /// Downloads `infos` into `folder`, and adds them.
    ///
    /// # Errors
    /// Those of the store and of the file system.
    pub(super) async fn download(
        &mut self,
        source: &Source,
        infos: &[FileInfo],
        folder: &Path,
    ) -> Result<()> {
        let first = self.files.len();
        let downloads =
            infos.iter().enumerate().map(|(n, info)| Staged::download(source, info, folder, first + n));
        let files: Vec<_> = stream::iter(downloads).buffered(AT_ONCE).try_collect().await?;
        self.files.extend(files);
        Ok(())
    }

    /// Whether it has no file.
    pub(super) fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// How many files it has.
    pub(super) fn len(&self) -> usize {
        self.files.len()
    }

    /// The bytes of its files together.
    pub(super) fn bytes(&self) -> u64 {
        self.files.iter().map(|staged| staged.info.size).sum()
    }

    /// Verifies each file to its end. They are to continue what is `known`.
    ///
    /// # Errors
    /// `Corrupt`; `Conflict` if they are of another history; `Denied` if nothing opens one.
    pub(super) fn verify(&self, keyring: &Keyring, known: &Known) -> Result<Content> {
        let mut content: Option<Content> = None;
        for staged in &self.files {
            let verified = staged.verify(keyring, content.take());
            content = Some(verified.map_err(|e| e.context(staged.info.id))?);
        }
        let mut content = content.expect("BUG: a batch has at least one file");
        // What was before them is the copy: there is nothing in the replica to move away.
        if known.lineage.zip(content.lineage).is_some_and(|(ours, theirs)| ours != theirs) {
            return Err(known.another_history());
        }
        content.lineage = known.lineage.or(content.lineage);
        Ok(content)
    }

    /// Gives `file` the pages of each downloaded file, and then the size of the database after it. What is beyond `size`, that
    /// of the database after all of them, is left out: there may be no space for what is to be cut off again.
    ///
    /// # Errors
    /// Those of `file`; of the downloaded files, which were verified before.
    pub(super) fn apply(&self, keyring: &Keyring, size: PageCount, file: &mut dyn Pages) -> Result<()> {
        for staged in &self.files {
            let mut decoder = staged.decoder(keyring)?;
            let page_size = decoder.header().page_size;
            let mut page = vec![0; page_size.bytes()];
            while let Some(pgno) = decoder.next_page(&mut page)? {
                if pgno.get() <= size.get() {
                    file.page(pgno, &page, page_size)?;
                }
            }
            file.resize(decoder.header().commit, page_size)?;
        }
        Ok(())
    }

    /// The last file.
    pub(super) fn last(&self) -> &FileInfo {
        &self.files.last().expect("BUG: a batch has at least one file").info
    }
}

/// What pages are written to.
pub(super) trait Pages {
    /// Writes a page.
    ///
    /// # Errors
    /// Those of the file.
    fn page(&mut self, pgno: Pgno, page: &[u8], page_size: PageSize) -> Result<()>;

    /// Cuts off what is beyond `size`.
    ///
    /// # Errors
    /// Those of the file.
    fn resize(&mut self, size: PageCount, page_size: PageSize) -> Result<()>;
}

impl Staged {
    fn create(info: FileInfo, folder: &Path, n: usize) -> Result<(Self, File)> {
        let staged = Self { info, path: folder.join(format!("{n}.ltx")) };
        let options = fs::OpenOptions::new().write(true).truncate(true).clone();
        let file = files::open(&staged.path, &options).map_err(|e| staged.failed(e))?;
        Ok((staged, file))
    }

    async fn download(source: &Source, info: &FileInfo, folder: &Path, n: usize) -> Result<Self> {
        let (staged, mut file) = Self::create(info.clone(), folder, n)?;
        let mut written = Ok(());
        let take = |bytes: &[u8]| {
            if written.is_ok() {
                written = file.write_all(bytes);
            }
            bytes.len()
        };
        source.read_in_parts(info, ByteRange::All, take).await?;
        written.map_err(|e| staged.failed(e))?;
        Ok(staged)
    }

    fn verify(&self, keyring: &Keyring, before: Option<Content>) -> Result<Content> {
        let mut decoder = self.decoder(keyring)?;
        let header = *decoder.header();
        check_name(&self.info, &header)?;
        let mut content = before.unwrap_or_else(|| Content {
            header,
            lineage: None,
            pages: RoaringBitmap::new(),
            least: header.commit,
            first_page: None,
        });
        if content.header.page_size != header.page_size {
            return Err(Error::corrupt("it has pages of another size than the files before it"));
        }
        content.lineage = Lineage::with(content.lineage, &header)?;
        let mut page = vec![0; header.page_size.bytes()];
        while let Some(pgno) = decoder.next_page(&mut page)? {
            content.pages.insert(pgno.get());
            if pgno == Pgno::ONE {
                content.first_page = Some(page.clone());
            }
        }
        content.header = decoder.finish()?.header;
        content.least = content.least.min(header.commit);
        Ok(content)
    }

    fn decoder(&self, keyring: &Keyring) -> Result<Decoder<BufReader<File>>> {
        let file = File::open(&self.path).map_err(|e| self.failed(e))?;
        Decoder::open(BufReader::with_capacity(1 << 18, file), keyring)
    }

    fn failed(&self, e: std::io::Error) -> Error {
        match Error::io(format_args!("cannot keep a download in {}", self.path.display()), e) {
            // Whoever asked the store would take it for a file that is not there.
            e if e.kind() == ErrorKind::NotFound => Error::new(ErrorKind::Io, e.to_string()),
            e => e,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;
    use crate::ltx::{Encoder, FileId, FileName, Level, Txid};

    const SIZE: PageSize = PageSize::MIN;

    /// The bytes of the file of transaction `txid`, of `lineage`, after which the database has as many `pages`: each but the
    /// first is filled with the number of the transaction.
    fn file(txid: u64, lineage: Option<u64>, pages: u32) -> (FileInfo, Bytes) {
        let name = FileName::single(Txid::new(txid).unwrap());
        let header = Header::new(SIZE, PageCount::new(pages), name, Timestamp::from_millis(0));
        let header = Header { lineage: lineage.and_then(Lineage::new), ..header };
        let mut encoder = Encoder::new(Vec::new(), header).unwrap();
        for pgno in 2..=pages {
            encoder.page(Pgno::new(pgno).unwrap(), &vec![txid as u8; SIZE.bytes()]).unwrap();
        }
        let (bytes, _) = encoder.finish().unwrap();
        let id = FileId { level: Level::L0, name };
        (FileInfo { id, size: bytes.len() as u64, timestamp: header.timestamp }, bytes.into())
    }

    fn batch(folder: &Path, files: impl IntoIterator<Item = (FileInfo, Bytes)>) -> Batch {
        let mut batch = Batch::default();
        for (info, bytes) in files {
            batch.add(info, &bytes, folder).unwrap();
        }
        batch
    }

    #[derive(Default)]
    struct Written(Vec<u32>);

    impl Pages for Written {
        fn page(&mut self, pgno: Pgno, _: &[u8], _: PageSize) -> Result<()> {
            self.0.push(pgno.get());
            Ok(())
        }

        fn resize(&mut self, _: PageCount, _: PageSize) -> Result<()> {
            Ok(())
        }
    }

    #[test]
    fn what_is_cut_off_again_is_not_written() {
        let folder = tempfile::tempdir().unwrap();
        let mut written = Written::default();
        let batch = batch(folder.path(), [file(2, None, 4), file(3, None, 9), file(4, None, 3)]);
        batch.apply(&Keyring::default(), PageCount::new(3), &mut written).unwrap();
        assert_eq!(written.0, [2, 3, 2, 3, 2, 3]);
    }

    /// What is said of files of these lineages that come to a copy at TXID 1 of `lineage`.
    fn verified(lineage: Option<u64>, files: &[Option<u64>]) -> Result<Option<Lineage>> {
        let folder = tempfile::tempdir().unwrap();
        let known = Known { txid: Txid::ONE, lineage: lineage.and_then(Lineage::new), anchor: None };
        let files = (2..).zip(files).map(|(txid, lineage)| file(txid, *lineage, 2));
        let content = batch(folder.path(), files).verify(&Keyring::default(), &known)?;
        Ok(content.lineage)
    }

    #[test]
    fn another_history_is_that_of_the_replica_and_two_are_in_it_only_if_its_files_differ() {
        for (known, files) in [
            (Some(7), [None, None]),
            (Some(7), [None, Some(7)]),
            (None, [None, Some(7)]),
            (None, [Some(7), None]),
        ] {
            assert_eq!(verified(known, &files).unwrap(), Lineage::new(7));
        }
        assert_eq!(verified(None, &[None]).unwrap(), None);
        for files in [&[Some(8)][..], &[Some(8), Some(8)], &[None, Some(8)]] {
            let error = verified(Some(7), files).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Conflict);
            let error = error.to_string();
            assert!(
                error.contains("the replica was reset") && error.contains("move the copy away"),
                "{error}"
            );
        }
        let error = verified(Some(7), &[Some(7), Some(8)]).unwrap_err().to_string();
        assert!(error.contains("two histories lie in one replica"), "{error}");
    }
}
