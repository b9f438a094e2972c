//! How the files of one replica are sealed, and the content keys that are kept for merges to come.
//!
//! Who publishes has public keys only, and could not open what it wrote. So the content key of a file is kept as long as
//! that file waits for a merge, and forgotten when the merge is there: `keys`, in the replica's folder of local state, has a
//! slot of 96 bytes for each attempt to write a file, which is written before the first byte of the file goes anywhere,
//! and overwritten in place. Of files that are never merged, snapshots and those of the highest level, only what tells
//! them from others is noted.
//!
//! ```text
//!   0  1: a file of the replica; 2: a waiting file; 0: the slot is free
//!   1  level     2  1: there is a key     3  five zeros     8  min u64     16  max u64
//!  24  id of the file, 32     56  content key, 32     88  CRC of what precedes
//! ```
//! What is made of others is noted on the disk itself before it is sent: after a power failure it would be another
//! writer's. All else is not synced: a file whose key was lost is left out of merges.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use zeroize::Zeroizing;

use crate::error::{Error, ErrorKind, Result};
use crate::files;
use crate::ltx::{
    ContentKey, Decoder, Encoder, FileId, FileName, FrameCodec, Header, Level, Recipients, Seal, SealId, Txid,
};
use crate::primary::streaming_upload;
use crate::runtime;
use crate::store::{ByteRange, Replica, Upload};

/// The size of a slot.
const SLOT: usize = 96;
/// The size of what the CRC of a slot covers.
const COVERED: usize = 88;

/// A file that is sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::primary) enum Subject {
    /// A file of the replica.
    Replica(FileId),
    /// A file that waits, by its local numbers.
    Waiting(FileName),
}

/// Whether the content key of a file is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::primary) enum Keep {
    /// Until the file was merged.
    Key,
    /// Never: the file is not merged.
    Nothing,
}

/// Who may open the files of one replica, and the keys of those that are still to be merged.
#[derive(Debug)]
pub(in crate::primary) struct Seals {
    recipients: Recipients,
    path: PathBuf,
    /// The first level whose files are never merged.
    top: Level,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    /// By their place in the file.
    slots: Vec<Option<Slot>>,
    /// Open as soon as there is something to write.
    file: Option<Arc<File>>,
    /// The first transaction that was sealed, once it is known.
    since: Option<Txid>,
}

/// An attempt to write a file.
#[derive(Clone, Debug)]
struct Slot {
    subject: Subject,
    id: SealId,
    key: Option<ContentKey>,
}

impl Seals {
    /// Files of the replica with local state in `folder` are sealed to `recipients`, if there are any; `levels` is the number
    /// of levels that are merged.
    pub(in crate::primary) fn new(recipients: Recipients, folder: &Path, levels: usize) -> Self {
        let top = u8::try_from(levels).ok().and_then(Level::new).expect("BUG: there are at most 8 levels");
        Self { recipients, path: folder.join("keys"), top, kept: Mutex::default() }
    }

    /// Files are not sealed.
    #[cfg(test)]
    pub(in crate::primary) fn none() -> Self {
        Self::new(Recipients::default(), Path::new("/nowhere"), 0)
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether files are sealed.
    pub(in crate::primary) fn are_on(&self) -> bool {
        !self.recipients.is_empty()
    }

    /// Who may open them.
    pub(in crate::primary) fn recipients(&self) -> &Recipients {
        &self.recipients
    }

    /// The first transaction that was sealed, as far as it is known.
    pub(in crate::primary) fn since(&self) -> Option<Txid> {
        self.lock().since
    }

    /// Transaction `since` is the first that is sealed.
    pub(in crate::primary) fn are_on_since(&self, since: Txid) {
        self.lock().since = Some(since);
    }

    /// Reads the keys that an earlier publisher kept. What is left of a slot that was not written to its end goes from the file.
    ///
    /// # Errors
    /// `Io`, `NoSpace`, naming the file.
    pub(in crate::primary) fn load(&self) -> Result<()> {
        let mut kept = self.lock();
        (kept.slots, kept.file) = (Vec::new(), None);
        let mut bytes = Zeroizing::new(Vec::new());
        match File::open(&self.path).and_then(|mut file| file.read_to_end(&mut bytes)) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(e) => return Err(self.io("read", e)),
            Ok(_) => {}
        }
        kept.slots = bytes.chunks(SLOT).map(|slot| Slot::decode(slot.first_chunk()?)).collect();
        // A slot that a power failure cut short may have a key all the same.
        for (place, slot) in bytes.chunks(SLOT).enumerate() {
            if kept.slots[place].is_none() && slot.iter().any(|byte| *byte != 0) {
                self.write(&mut kept, place, &[0; SLOT])?;
            }
        }
        Ok(())
    }

    /// The header that a file has whose plain one is `header`.
    pub(in crate::primary) fn header(&self, header: Header) -> Header {
        self.recipients.header(header)
    }

    /// Whether the files of `level` are never merged.
    pub(in crate::primary) fn never_merges(&self, level: Level) -> bool {
        level >= self.top
    }

    /// Whether the key of a file is kept that goes to `level`. That of a published file is, at least as long as the file is
    /// on its way: its pages may have to wait in another one.
    pub(in crate::primary) fn keep_of(&self, level: Level) -> Keep {
        if self.never_merges(level) && level != Level::L0 { Keep::Nothing } else { Keep::Key }
    }

    /// Begins to write the file `subject` with `header` to `out`. Its key is noted before a byte of it is written.
    ///
    /// # Errors
    /// Those of the encoder; `Io`, `NoSpace` if the key cannot be noted.
    pub(in crate::primary) fn encoder<W: Write>(
        &self,
        out: W,
        header: Header,
        subject: Subject,
        keep: Keep,
    ) -> Result<Encoder<W>> {
        if !self.are_on() {
            return Encoder::new(out, header);
        }
        let seal = Seal::new(header, &self.recipients)?;
        let key = (keep == Keep::Key).then(|| seal.key().clone());
        self.note(Slot { subject, id: seal.id(), key })?;
        Encoder::sealed(out, seal)
    }

    /// Reads a file that was written here: a sealed one by its key. One that is not sealed is refused.
    ///
    /// # Errors
    /// `Denied` if no key that is kept opens it; those of the decoder.
    pub(in crate::primary) fn open<R: Read>(&self, reader: R) -> Result<Decoder<R>> {
        if self.are_on() { Decoder::kept(reader, |id| self.key_of(id)) } else { Decoder::new(reader) }
    }

    /// How the sealed file that begins with `head` is decoded; `None` if its key is not kept.
    ///
    /// # Errors
    /// As [`FrameCodec::kept`].
    pub(in crate::primary) fn codec_of(&self, head: &[u8]) -> Result<Option<FrameCodec>> {
        FrameCodec::kept(head, |id| self.key_of(id))
    }

    fn key_of(&self, id: &SealId) -> Option<ContentKey> {
        let kept = self.lock();
        kept.slots.iter().flatten().find(|slot| slot.id == *id).and_then(|slot| slot.key.clone())
    }

    /// Whether this machine wrote the sealed file that begins with `head` as `subject`.
    pub(in crate::primary) fn wrote(&self, subject: Subject, head: &[u8]) -> bool {
        let id = SealId::of_head(head);
        self.lock().slots.iter().flatten().any(|slot| slot.subject == subject && slot.id == id)
    }

    /// The files of the replica whose keys are kept; `None` if files are not sealed, and need no keys.
    pub(in crate::primary) fn with_keys(&self) -> Option<BTreeSet<FileId>> {
        self.are_on().then(|| self.lock().files().collect())
    }

    /// Completes the `upload` of the file `id`. If a file is there already all is well, unless files are sealed and it is
    /// none that was written here.
    ///
    /// # Errors
    /// Those of the store, in which nothing is left then; `Conflict` if another writer's file is there.
    pub(in crate::primary) async fn complete(
        &self,
        store: &Replica,
        id: FileId,
        mut upload: Box<dyn Upload>,
    ) -> Result<()> {
        match upload.complete().await {
            Ok(()) => Ok(()),
            Err(e) if e.kind() == ErrorKind::AlreadyExists => {
                streaming_upload::abort(upload).await;
                self.check_ours(store, id).await
            }
            Err(e) => {
                streaming_upload::abort(upload).await;
                Err(e)
            }
        }
    }

    /// Checks that the file `id` of the replica was written here, if files are sealed.
    ///
    /// # Errors
    /// `Conflict` if it was not; those of the store.
    pub(in crate::primary) async fn check_ours(&self, store: &Replica, id: FileId) -> Result<()> {
        if !self.are_on() {
            return Ok(());
        }
        let head = read_head(store, id).await?;
        if head.header.is_sealed() && self.wrote(Subject::Replica(id), &head.bytes) {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Conflict,
            format!(
                "{} has {id}, which none of the keys that are kept here opens: another writer put it there, or changed it. \
                 Find out who writes to it; then call litestream_resume('force'), which publishes a full copy, or give \
                 another replica URL",
                store.url()
            ),
        ))
    }

    /// Forgets the keys of `subjects`, and that they were written here.
    ///
    /// # Errors
    /// `Io`, naming the file.
    pub(in crate::primary) fn forget(&self, subjects: &[Subject]) -> Result<()> {
        if subjects.is_empty() {
            return Ok(());
        }
        self.forget_if(|subject| subjects.contains(subject))
    }

    /// The file `to` is there, made of others: what its source levels have up to its last transaction is not merged again,
    /// whether it became a file or was only attempted. If nothing is made of `to` either, it is forgotten at last that it was
    /// written here.
    ///
    /// Transactions up to `published` are known to be there. A file of level 0 beyond may have been listed, and merged, before
    /// its upload was answered: who sends it again must still find that it was written here, and so were the files that it was
    /// merged into. Only their keys go.
    ///
    /// # Errors
    /// `Io`, naming the file.
    pub(in crate::primary) fn merged(&self, to: FileId, published: Option<Txid>) -> Result<()> {
        let is_behind = |id: FileId| id.name.max() <= to.name.max();
        let is_input = |id: FileId| id.level < to.level && is_behind(id);
        let is_on_its_way = |id: FileId| Some(id.name.max()) > published;
        self.forget_keys_if(|id| is_input(id) && is_on_its_way(id))?;
        self.forget_if(
            |subject| matches!(subject, Subject::Replica(id) if is_input(*id) && !is_on_its_way(*id)),
        )?;
        if self.keep_of(to.level) == Keep::Key {
            return Ok(());
        }
        let is_at_its_end = |id: FileId| id.level == to.level && is_behind(id) && !is_on_its_way(id);
        self.forget_if(|subject| matches!(subject, Subject::Replica(id) if is_at_its_end(*id)))
    }

    /// Whether files are sealed, and no key of the file `id` is kept.
    pub(in crate::primary) fn has_forgotten(&self, id: FileId) -> bool {
        self.with_keys().is_some_and(|with_keys| !with_keys.contains(&id))
    }

    /// Forgets the keys of all files of the replica up to the transaction `last`: nothing is merged of them, and whatever
    /// stands in the place of a merge is no conflict then.
    ///
    /// # Errors
    /// `Io`, naming the file.
    pub(in crate::primary) fn forget_until(&self, last: Txid) -> Result<()> {
        self.forget_if(|subject| matches!(subject, Subject::Replica(id) if id.name.max() <= last))
    }

    /// Forgets the keys of waiting files but those that `are_there`.
    ///
    /// # Errors
    /// `Io`, naming the file.
    pub(in crate::primary) fn forget_waiting(&self, are_there: &[FileName]) -> Result<()> {
        self.forget_if(|subject| matches!(subject, Subject::Waiting(name) if !are_there.contains(name)))
    }

    /// Forgets the keys of files of levels that are not merged now, up to the transaction `published`.
    ///
    /// # Errors
    /// `Io`, naming the file.
    pub(in crate::primary) fn forget_unmerged(&self, published: Option<Txid>) -> Result<()> {
        let mut kept = self.lock();
        let is_spent = |id: FileId| self.never_merges(id.level) && Some(id.name.max()) <= published;
        let is_unmerged =
            |slot: &Slot| slot.key.is_some() && matches!(slot.subject, Subject::Replica(id) if is_spent(id));
        self.clear(&mut kept, is_unmerged)
    }

    fn forget_if(&self, is_gone: impl Fn(&Subject) -> bool) -> Result<()> {
        let mut kept = self.lock();
        self.clear(&mut kept, |slot| is_gone(&slot.subject))
    }

    /// Forgets the keys of files of the replica, but not that they were written here.
    fn forget_keys_if(&self, is_spent: impl Fn(FileId) -> bool) -> Result<()> {
        let mut kept = self.lock();
        for place in 0..kept.slots.len() {
            let spent = kept.slots[place].as_mut().filter(|slot| {
                slot.key.is_some() && matches!(slot.subject, Subject::Replica(id) if is_spent(id))
            });
            let Some(slot) = spent else { continue };
            slot.key = None;
            let bytes = slot.encode();
            self.write(&mut kept, place, &bytes)?;
        }
        Ok(())
    }

    fn clear(&self, kept: &mut Kept, is_gone: impl Fn(&Slot) -> bool) -> Result<()> {
        for place in 0..kept.slots.len() {
            if !kept.slots[place].as_ref().is_some_and(&is_gone) {
                continue;
            }
            self.write(kept, place, &[0; SLOT])?;
            kept.slots[place] = None;
        }
        Ok(())
    }

    fn note(&self, slot: Slot) -> Result<()> {
        let is_made_of_others = matches!(slot.subject, Subject::Replica(id) if id.level > Level::L0);
        let mut kept = self.lock();
        let place = kept.slots.iter().position(Option::is_none).unwrap_or(kept.slots.len());
        self.write(&mut kept, place, &slot.encode())?;
        if place == kept.slots.len() {
            kept.slots.push(None);
        }
        kept.slots[place] = Some(slot);
        let file = kept.file.clone().filter(|_| is_made_of_others);
        // Commits do not wait for the disk.
        drop(kept);
        let synced = file.map_or(Ok(()), |file| runtime::sync_data(&file, &self.path));
        synced.map_err(|e| self.io("sync", e))
    }

    fn write(&self, kept: &mut Kept, place: usize, bytes: &[u8; SLOT]) -> Result<()> {
        if kept.file.is_none() {
            let opened = files::open_secret(&self.path, OpenOptions::new().write(true));
            kept.file = Some(Arc::new(opened.map_err(|e| self.io("create", e))?));
        }
        let file = kept.file.as_ref().expect("BUG: the file was opened");
        file.write_all_at(bytes, (place * SLOT) as u64).map_err(|e| self.io("write", e))
    }

    fn io(&self, verb: &str, e: std::io::Error) -> Error {
        Error::io(format_args!("cannot {verb} {}", self.path.display()), e)
    }
}

/// The beginning of a file of a replica.
pub(in crate::primary) struct Head {
    /// Its header.
    pub(in crate::primary) header: Header,
    /// All that the file has before its first frame.
    pub(in crate::primary) bytes: Bytes,
    /// The size of the whole file in bytes.
    pub(in crate::primary) file_size: u64,
}

/// The beginning of the file `id`.
///
/// # Errors
/// Those of the store; `Corrupt` naming the file.
pub(in crate::primary) async fn read_head(store: &Replica, id: FileId) -> Result<Head> {
    let named = |e: Error| e.context(format_args!("{} {id}", store.url()));
    let cut = || named(Error::corrupt("the header is cut short"));
    let beginning = async |len: usize| {
        let content = store.get(id, ByteRange::Bounded { offset: 0, len: len as u64 }).await?;
        Ok::<_, Error>((content.file_size, content.bytes().await?))
    };
    let (file_size, mut bytes) = beginning(Header::SIZE).await?;
    let header = Header::decode(bytes.first_chunk().ok_or_else(cut)?).map_err(named)?;
    if header.name() != id.name {
        return Err(named(Error::corrupt("the header does not fit the name")));
    }
    let size = FrameCodec::head_size(&header);
    if size > Header::SIZE {
        let first = std::mem::replace(&mut bytes, beginning(size).await?.1);
        if !bytes.starts_with(&first) {
            return Err(named(Error::new(ErrorKind::Unavailable, "it changed while it was read")));
        }
    }
    if bytes.len() < size {
        return Err(cut());
    }
    Ok(Head { header, bytes: bytes.slice(..size), file_size })
}

impl Kept {
    fn files(&self) -> impl Iterator<Item = FileId> + '_ {
        self.slots.iter().flatten().filter(|slot| slot.key.is_some()).filter_map(|slot| match slot.subject {
            Subject::Replica(id) => Some(id),
            Subject::Waiting(_) => None,
        })
    }
}

impl Slot {
    fn encode(&self) -> Zeroizing<[u8; SLOT]> {
        let mut bytes = Zeroizing::new([0; SLOT]);
        let (kind, level, name) = match self.subject {
            Subject::Replica(id) => (1, id.level.get(), id.name),
            Subject::Waiting(name) => (2, 0, name),
        };
        (bytes[0], bytes[1], bytes[2]) = (kind, level, u8::from(self.key.is_some()));
        bytes[8..16].copy_from_slice(&name.min().get().to_be_bytes());
        bytes[16..24].copy_from_slice(&name.max().get().to_be_bytes());
        bytes[24..56].copy_from_slice(self.id.bytes());
        if let Some(key) = &self.key {
            bytes[56..COVERED].copy_from_slice(key.bytes());
        }
        let crc = crc_of(&bytes[..COVERED]);
        bytes[COVERED..].copy_from_slice(&crc.to_be_bytes());
        bytes
    }

    /// The slot that `bytes` are, unless it is free or was not written to its end.
    fn decode(bytes: &[u8; SLOT]) -> Option<Self> {
        let number = |at: usize| Some(u64::from_be_bytes(*bytes.get(at..at + 8)?.first_chunk()?));
        if bytes[0] == 0 || number(COVERED)? != crc_of(&bytes[..COVERED]) {
            return None;
        }
        let name = FileName::new(Txid::new(number(8)?)?, Txid::new(number(16)?)?)?;
        let subject = match bytes[0] {
            1 => Subject::Replica(FileId::new(Level::new(bytes[1])?, name)),
            2 => Subject::Waiting(name),
            _ => return None,
        };
        let mut key = Zeroizing::new([0; 32]);
        key.copy_from_slice(&bytes[56..COVERED]);
        let key = (bytes[2] == 1).then(|| ContentKey::of(key));
        Some(Self { subject, id: SealId::of(*bytes[24..].first_chunk()?), key })
    }
}

fn crc_of(bytes: &[u8]) -> u64 {
    crc_fast::checksum(crc_fast::CrcAlgorithm::Crc64GoIso, bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;
    use crate::page::{PageCount, PageSize, Pgno};

    const RECIPIENT: &str = "age1mr4vlx62swszp35e5ltsjyl2pj95yw6ufdef2l469llv6u7v9fpsmk7rgt";

    fn seals(folder: &Path) -> Seals {
        let seals = Seals::new(Recipients::parse(RECIPIENT).unwrap(), folder, 3);
        seals.load().unwrap();
        seals
    }

    fn id(level: u8, txid: u64) -> FileId {
        FileId::new(Level::new(level).unwrap(), FileName::single(Txid::new(txid).unwrap()))
    }

    fn write(seals: &Seals, id: FileId) -> Vec<u8> {
        let header =
            Header::new(PageSize::MIN, PageCount::new(1), id.name, Timestamp::from_millis(1_700_000_000_000));
        let subject = Subject::Replica(id);
        let mut encoder = seals.encoder(Vec::new(), header, subject, seals.keep_of(id.level)).unwrap();
        encoder.page(Pgno::ONE, &[7; 512]).unwrap();
        encoder.finish().unwrap().0
    }

    #[test]
    fn a_file_opens_until_its_key_is_forgotten_and_the_file_of_keys_has_nothing_of_it_then() {
        let home = tempfile::tempdir().unwrap();
        let ours = seals(home.path());
        let files = [id(0, 2), id(0, 3), id(1, 4)].map(|id| (id, write(&ours, id)));
        let again = seals(home.path());
        let with_keys = again.with_keys().unwrap();
        assert_eq!(with_keys.into_iter().collect::<Vec<_>>(), [id(0, 2), id(0, 3), id(1, 4)]);
        for (_, bytes) in &files {
            assert!(again.open(&bytes[..]).unwrap().finish().is_ok());
        }
        let key = again.lock().slots[1].as_ref().unwrap().key.clone().unwrap();
        let on_disk = || std::fs::read(home.path().join("keys")).unwrap();
        assert!(on_disk().windows(32).any(|bytes| bytes == key.bytes()));
        again.forget(&[Subject::Replica(id(0, 3))]).unwrap();
        assert!(!on_disk().windows(32).any(|bytes| bytes == key.bytes()));
        assert_eq!(again.open(&files[1].1[..]).unwrap_err().kind(), crate::error::ErrorKind::Denied);
        assert!(again.open(&files[2].1[..]).is_ok());
        // The place is used again.
        let before = on_disk().len();
        write(&again, id(0, 5));
        assert_eq!(on_disk().len(), before);
    }

    #[test]
    fn keys_of_what_is_never_merged_are_never_kept() {
        let home = tempfile::tempdir().unwrap();
        let seals = seals(home.path());
        for id in [id(3, 2), id(9, 1)] {
            let bytes = write(&seals, id);
            assert!(seals.wrote(Subject::Replica(id), &bytes[..Header::SIZE + 80]));
            assert!(!seals.wrote(Subject::Replica(id), &write(&seals, id)[..Header::SIZE + 79]));
            assert!(seals.open(&bytes[..]).is_err());
        }
        assert!(seals.with_keys().unwrap().is_empty());
    }

    #[test]
    fn a_file_that_is_merged_before_its_upload_is_answered_stays_ours() {
        let home = tempfile::tempdir().unwrap();
        let seals = seals(home.path());
        let (published, on_its_way, merge, next) = (id(0, 2), id(0, 3), id(1, 3), id(2, 3));
        let heads = [published, on_its_way, merge].map(|id| write(&seals, id)[..Header::SIZE + 80].to_vec());
        let key = seals.lock().slots[1].as_ref().unwrap().key.clone().unwrap();
        seals.merged(merge, Some(published.name.max())).unwrap();
        assert!(
            !std::fs::read(home.path().join("keys")).unwrap().windows(32).any(|bytes| bytes == key.bytes())
        );
        for seals in [&seals, &self::seals(home.path())] {
            assert_eq!(seals.with_keys().unwrap().into_iter().collect::<Vec<_>>(), [merge]);
            assert!(!seals.wrote(Subject::Replica(published), &heads[0]));
            assert!(seals.wrote(Subject::Replica(on_its_way), &heads[1]));
        }
        // What it was merged into, too, once something is made of that.
        seals.merged(next, Some(published.name.max())).unwrap();
        assert!(seals.with_keys().unwrap().is_empty());
        assert!(seals.wrote(Subject::Replica(merge), &heads[2]));
        seals.merged(next, Some(on_its_way.name.max())).unwrap();
        assert!(!seals.wrote(Subject::Replica(on_its_way), &heads[1]));
        assert!(!seals.wrote(Subject::Replica(merge), &heads[2]));
    }

    #[test]
    fn a_merge_ends_what_was_attempted_below_it_and_at_last_itself() {
        let home = tempfile::tempdir().unwrap();
        let seals = seals(home.path());
        let range = |level: u8, min: u64, max: u64| {
            let name = FileName::new(Txid::new(min).unwrap(), Txid::new(max).unwrap());
            FileId::new(Level::new(level).unwrap(), name.unwrap())
        };
        // The last of level 2 never became a file; nor did the first of level 3.
        let below = [range(2, 2, 3), range(2, 4, 5), range(2, 2, 5)];
        let (never, to, later) = (range(3, 2, 3), range(3, 2, 5), range(2, 6, 7));
        let heads = [never, to].map(|id| write(&seals, id)[..Header::SIZE + 80].to_vec());
        below.iter().chain([&later]).for_each(|id| drop(write(&seals, *id)));
        seals.merged(to, Some(to.name.max())).unwrap();
        assert_eq!(seals.with_keys().unwrap().into_iter().collect::<Vec<_>>(), [later]);
        for (id, head) in [never, to].into_iter().zip(heads) {
            assert!(!seals.wrote(Subject::Replica(id), &head), "{id}");
        }
        // Of a level that is merged the keys stay, and go by force.
        seals.merged(range(2, 2, 9), None).unwrap();
        assert_eq!(seals.with_keys().unwrap().len(), 1);
        seals.forget_until(Txid::new(6).unwrap()).unwrap();
        assert_eq!(seals.with_keys().unwrap().len(), 1);
        seals.forget_until(Txid::new(7).unwrap()).unwrap();
        assert!(seals.with_keys().unwrap().is_empty());
    }

    #[test]
    fn a_slot_that_was_not_written_to_its_end_is_free_and_nothing_of_its_key_stays() {
        let home = tempfile::tempdir().unwrap();
        let ours = seals(home.path());
        let files = [id(0, 2), id(0, 3)];
        files.iter().for_each(|id| drop(write(&ours, *id)));
        let path = home.path().join("keys");
        let whole = std::fs::read(&path).unwrap();
        // The disk has a key and not the beginning of its slot, or the file ends within the last one.
        let without_beginning = [&[0], &whole[1..]].concat();
        for (torn, left) in [(0, &without_beginning[..]), (1, &whole[..2 * SLOT - 3])] {
            std::fs::write(&path, left).unwrap();
            let with_keys = seals(home.path()).with_keys().unwrap();
            assert_eq!(with_keys.into_iter().collect::<Vec<_>>(), [files[1 - torn]]);
            let mut wiped = whole.clone();
            wiped[torn * SLOT..][..SLOT].fill(0);
            assert_eq!(std::fs::read(&path).unwrap(), wiped);
        }
    }

    #[test]
    fn no_two_files_have_a_key_in_common_even_of_the_same_pages() {
        let home = tempfile::tempdir().unwrap();
        let seals = seals(home.path());
        for _ in 0..200 {
            write(&seals, id(0, 2));
        }
        let keys: BTreeSet<[u8; 32]> =
            seals.lock().slots.iter().flatten().map(|slot| *slot.key.as_ref().unwrap().bytes()).collect();
        assert_eq!(keys.len(), 200);
        // One forget takes all attempts.
        seals.forget(&[Subject::Replica(id(0, 2))]).unwrap();
        assert!(seals.with_keys().unwrap().is_empty());
    }
}
