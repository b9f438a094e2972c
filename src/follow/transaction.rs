//! A transaction on the file of a copy, as SQLite makes one in rollback mode: the pages as they were go into a journal, which
//! is on the disk before a page is written, and whose removal is the commit. If it fails before that, on a full disk perhaps,
//! the journal is played back at once: readers that may not write could not do it, and space is needed. Whatever else ends
//! it, the next reader plays the journal back.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::Path;

use super::batch::{Batch, Content, Pages};
use super::copy::Held;
use super::journal::{Finished, Journal};
use super::page_one;
use super::state::Stamp;
use crate::error::{Error, ErrorKind, Result};
use crate::files::Rights;
use crate::ltx::Keyring;
use crate::page::{PageCount, PageSize, Pgno};
use crate::replica;
use crate::runtime;

/// A transaction that is ready: its journal is on the disk, under another name.
#[derive(Debug)]
pub(super) struct Transaction<'a> {
    batch: &'a Batch,
    content: &'a Content,
    /// The first page after it.
    first_page: Vec<u8>,
    draft: Draft<'a>,
}

/// A journal under a name by which no reader takes it for one. It is gone when it is not needed, as space may be.
#[derive(Debug)]
struct Draft<'a>(&'a Path);

impl Drop for Draft<'_> {
    fn drop(&mut self) {
        // It has the journal's name already, or the next one takes its place.
        let _ = fs::remove_file(self.0);
    }
}

impl<'a> Transaction<'a> {
    /// Makes ready what puts `batch`, of which `content` was found, on the copy that is `held` and has pages of `page_size`
    /// bytes. The journal is written to `draft`.
    ///
    /// # Errors
    /// `Unsupported` if readers could not be told of it; those of the file system.
    pub(super) fn prepare(
        held: &mut Held<'_>,
        page_size: PageSize,
        batch: &'a Batch,
        content: &'a Content,
        draft: &'a Path,
    ) -> Result<Self> {
        let mut before = vec![0; page_size.bytes()];
        held.read(&mut before, 0)?;
        let mut first_page = content.first_page.clone().unwrap_or_else(|| before.clone());
        let change_counter = another(page_one::change_counter(&before))?;
        page_one::of_copy(&mut first_page, content.header.commit, change_counter)?;
        let is_another =
            content.first_page.is_some() && is_another_schema(held, &before, &first_page, content)?;
        page_one::count_schemas(&mut first_page, &before, is_another);
        let draft = Draft(draft);
        journal(held, page_size, content, draft.0)?;
        Ok(Self { batch, content, first_page, draft })
    }

    /// What the file will be.
    pub(super) fn stamp(&self) -> Stamp {
        Stamp::of(self.content.header.commit.bytes(self.content.header.page_size), &self.first_page)
    }

    /// Does it, while `held` keeps everybody else out, or leaves the file as it was.
    ///
    /// # Errors
    /// Those of the file system. If they are in the way of undoing it too, which is said, the next who takes a lock on the
    /// file does it.
    pub(super) fn commit(self, held: &mut Held<'_>, keyring: &Keyring) -> Result<()> {
        let journal = held.journal();
        let failed =
            |what: &str, e: io::Error| Error::io(format_args!("cannot {what} {}", journal.display()), e);
        fs::rename(self.draft.0, &journal).map_err(|e| failed("write", e))?;
        let written = self
            .write(held, keyring, &journal)
            .and_then(|()| fs::remove_file(&journal).map_err(|e| failed("remove", e)));
        if let Err(e) = written {
            return Err(match undo(held, &journal) {
                Ok(()) => e,
                Err(undo) => Error::new(e.kind(), format!("{e}; and that could not be undone yet: {undo}")),
            });
        }
        // Without it a power failure may bring the journal back.
        sync_folder(folder_of(&journal)).map_err(|e| failed("sync the folder of", e))
    }

    /// Writes the pages, as soon as the `journal` is on the disk under its name.
    fn write(&self, held: &mut Held<'_>, keyring: &Keyring, journal: &Path) -> Result<()> {
        sync_folder(folder_of(journal))
            .map_err(|e| Error::io(format_args!("cannot sync the folder of {}", journal.display()), e))?;
        let (commit, page_size) = (self.content.header.commit, self.content.header.page_size);
        let size = held.size()?;
        self.batch.apply(keyring, commit, &mut Body { held, size })?;
        held.write(&self.first_page, 0)?;
        held.resize(commit.bytes(page_size))?;
        held.sync()
    }
}

/// Whether `content`, whose first page is `after`, may change the schema of the copy that is `held` and begins with the page
/// `before`.
fn is_another_schema(held: &mut Held<'_>, before: &[u8], after: &[u8], content: &Content) -> Result<bool> {
    let mut is_another = page_one::tells_another_schema(after, before);
    let read = |pgno: Pgno| {
        let mut page = vec![0; before.len()];
        held.read(&mut page, u64::from(pgno.get() - 1) * before.len() as u64).map(|()| page)
    };
    replica::schema_pages(before, read, |pgno, _| {
        is_another |= pgno != Pgno::ONE && content.pages.contains(pgno.get());
    })?;
    Ok(is_another)
}

/// Plays the `journal` back, while `held` keeps everybody else out.
///
/// # Errors
/// Those of the file system; then the journal stays, and is played back once more.
fn undo(held: &mut Held<'_>, journal: &Path) -> Result<()> {
    let failed = |what: &str, e: io::Error| Error::io(format_args!("cannot {what} {}", journal.display()), e);
    let mut before = Finished::open(journal).map_err(|e| failed("read", e))?;
    let page_size = before.page_size();
    // First: what was cut off may take space that what was added has.
    held.resize(before.size().bytes(page_size))?;
    let mut page = vec![0; page_size.bytes()];
    while let Some(pgno) = before.next_page(&mut page).map_err(|e| failed("read", e))? {
        held.write(&page, page_size.offset_of(pgno))?;
    }
    held.sync()?;
    fs::remove_file(journal).map_err(|e| failed("remove", e))?;
    sync_folder(folder_of(journal)).map_err(|e| failed("sync the folder of", e))
}

/// The file but for its first page, which is written last.
struct Body<'a, 'b> {
    held: &'a mut Held<'b>,
    /// Its size in bytes.
    size: u64,
}

impl Pages for Body<'_, '_> {
    fn page(&mut self, pgno: Pgno, page: &[u8], page_size: PageSize) -> Result<()> {
        let offset = page_size.offset_of(pgno);
        self.size = self.size.max(offset + page.len() as u64);
        if pgno == Pgno::ONE { Ok(()) } else { self.held.write(page, offset) }
    }

    fn resize(&mut self, size: PageCount, page_size: PageSize) -> Result<()> {
        let bytes = size.bytes(page_size);
        if self.size > bytes {
            self.held.resize(bytes)?;
            self.size = bytes;
        }
        Ok(())
    }
}

/// Writes the journal to `draft`: all pages as they are that will be another or gone.
fn journal(held: &mut Held<'_>, page_size: PageSize, content: &Content, draft: &Path) -> Result<()> {
    let size = held.size()?;
    let pages = u32::try_from(size / u64::from(page_size.get()))
        .map_err(|_| Error::corrupt("the copy is too large"))?;
    let failed = |e: io::Error| Error::io(format_args!("cannot write {}", draft.display()), e);
    let nonce = random()?;
    let mut journal = create(draft, held)
        .and_then(|file| Journal::begin(file, page_size, PageCount::new(pages), nonce))
        .map_err(failed)?;
    let mut page = vec![0; page_size.bytes()];
    for pgno in replaced(page_size, PageCount::new(pages), content) {
        held.read(&mut page, page_size.offset_of(pgno))?;
        journal.page(pgno, &page).map_err(failed)?;
    }
    journal.finish().map_err(failed)
}

/// The pages of a copy of `size` pages that will be another or gone, in order: the first in any case.
fn replaced(page_size: PageSize, size: PageCount, content: &Content) -> impl Iterator<Item = Pgno> {
    let (size, least) = (size.get(), content.least.get());
    let within = content.pages.iter().filter(move |pgno| *pgno > 1 && *pgno <= least.min(size));
    let beyond = (least + 1).max(2)..=size;
    let all = (1..=size.min(1)).chain(within).chain(beyond);
    all.filter_map(Pgno::new).filter(move |pgno| *pgno != page_size.lock_page())
}

/// An empty file at `path`, which whoever may write the copy may use.
fn create(path: &Path, held: &Held<'_>) -> io::Result<File> {
    let file = crate::files::open(path, OpenOptions::new().write(true).truncate(true))?;
    Rights::of(held.path())?.give(&file);
    Ok(file)
}

/// A change counter that is neither the one before nor the one that another program would write after that.
fn another(before: u32) -> Result<u32> {
    loop {
        let new = random()?;
        if new.wrapping_sub(before) > 1 {
            return Ok(new);
        }
    }
}

fn random() -> Result<u32> {
    let random = runtime::random_u64()
        .map_err(|e| Error::new(ErrorKind::Io, format!("the system gives no random numbers: {e}")))?;
    Ok(random as u32)
}

/// Brings the names in a folder to the disk.
pub(super) fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

pub(super) fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

#[cfg(test)]
mod tests {
    use roaring::RoaringBitmap;

    use super::*;
    use crate::clock::Timestamp;
    use crate::ltx::{FileName, Header, Txid};

    /// What goes into the journal of a copy of `size` pages of `page_size` bytes, when `pages` come and the size becomes at
    /// least `least` on the way.
    fn journaled(page_size: u32, size: u32, least: u32, pages: &[u32]) -> Vec<u32> {
        let page_size = PageSize::new(page_size).unwrap();
        let name = FileName::single(Txid::ONE);
        let header = Header::new(page_size, PageCount::new(least), name, Timestamp::from_millis(0));
        let pages = pages.iter().copied().collect::<RoaringBitmap>();
        let content =
            Content { header, lineage: None, pages, least: PageCount::new(least), first_page: None };
        replaced(page_size, PageCount::new(size), &content).map(Pgno::get).collect()
    }

    #[test]
    fn a_journal_has_each_page_that_will_be_another_or_gone() {
        assert_eq!(journaled(512, 5, 9, &[3, 5, 7, 9]), [1, 3, 5]);
        assert_eq!(journaled(512, 5, 5, &[1]), [1]);
        assert_eq!(journaled(512, 9, 3, &[2]), [1, 2, 4, 5, 6, 7, 8, 9]);
        // It shrank, and grew over what was there.
        assert_eq!(journaled(512, 6, 4, &[5, 6, 7]), [1, 5, 6]);
        assert_eq!(journaled(512, 3, 1, &[]), [1, 2, 3]);
        // The lock page is none: SQLite stops where a journal has it.
        assert_eq!(journaled(65536, 16386, 16383, &[16385]), [1, 16384, 16386]);
    }

    #[test]
    fn a_change_counter_is_none_that_another_program_would_write() {
        for before in [0, 7, u32::MAX - 1, u32::MAX] {
            let new = another(before).unwrap();
            assert!(new != before && new != before.wrapping_add(1));
        }
    }
}
