//! What a shipper remembers on local disk: `vfs.json` in its replica's folder of local state.
//!
//! It is replaced in one step, without a sync: after a power failure it, the waiting files and the WAL may
//! each be older than what the replica has. So nothing here is believed unless it is confirmed: the
//! position by the WAL's salts and checksums, a clean close by the database file's time, the waiting
//! files by their numbers and checksums, and all of it by the replica, which must not be further than
//! the files that were noted before they were sent. What is not believed costs a comparison of pages, and
//! replication stops if that leaves a doubt (`resume`).

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use rustix::fs::{CWD, RenameFlags};
use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::error::{Error, Result};
use crate::files;
use crate::ltx::{Header, Lineage, Recipients, Txid};
use crate::page::PageCount;
use crate::primary::dirty::{Cursor, Journal, PageSet, Position, StoredPosition};
use crate::primary::file_fingerprint::{Identity, Stamp};
use crate::store::stored_url;

/// What is remembered.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::primary) struct State {
    /// Tells our files in the replica from another writer's. Random, never 0.
    pub(in crate::primary) node_id: u64,
    /// The replica that `txid` is a transaction of.
    #[serde(with = "stored_url")]
    pub(in crate::primary) url: String,
    /// The lineage of that replica, once it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    lineage: Option<Lineage>,
    /// The last transaction known to be in the replica.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(in crate::primary) txid: Option<u64>,
    /// The time of that transaction, if it was published from here, in milliseconds since the Unix epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    time: Option<i64>,
    /// Everything up to here is in the replica, in the spool, or of the dirty pages. None: nothing is known to be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    position: Option<StoredPosition>,
    /// In a state of version 0.1.0 whose position is before a generation: the end of the generation before, which the WAL
    /// still holds if that has not begun.
    #[serde(default, skip_serializing)]
    previous: Option<StoredPosition>,
    /// Instead of a position: all that the database file held when it had this stamp and no WAL had a commit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    closed: Option<Stamp>,
    /// Pages that were changed before that and are in no file: a set as [`PageSet::encode`] writes it, in base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    dirty: Option<String>,
    /// The numbers of the first and last waiting file that belong to all this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(in crate::primary) spool: Option<(u64, u64)>,
    /// Which database file it is.
    #[serde(flatten, default, skip_serializing_if = "Option::is_none")]
    file: Option<Identity>,
    /// The database was closed, and all of it captured, when `closed` or `position` were forgotten.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    was_closed: bool,
    /// The files that may have landed in the replica as the transaction after `txid`, or that landed as `txid`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    sent: Vec<Sent>,
    /// How the database came to be at `txid`, if not by publishing it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(in crate::primary) origin: Option<Origin>,
    /// In a state of one replica at a time: the replicas before, the last one at the end. Now they are in a file of their
    /// own.
    #[serde(default, skip_serializing)]
    former: Vec<Former>,
    /// The database was published to another replica since `txid`, so that the digests of its states are of that one.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(in crate::primary) is_back: bool,
    /// A full copy is on its way that is to become a snapshot: without that, what is in the replica need not be restorable.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(in crate::primary) heals: bool,
    /// How far a copy came that the last close gave up, in percent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(in crate::primary) copy_given_up: Option<u8>,
    /// Whom the files of the replica are sealed to, if to anybody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(in crate::primary) sealed: Option<Sealed>,
    /// The boot of the machine in which the last file was published, or the first of all is to be. In a
    /// later one, what was written here since then may be lost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    boot: Option<String>,
}

/// Whom a replica is sealed to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::primary) struct Sealed {
    /// The recipients as age writes them, sorted.
    pub(in crate::primary) recipients: Vec<String>,
    /// The first transaction that was sealed.
    pub(in crate::primary) since: u64,
}

/// How a database came to be at a transaction that it did not publish itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(in crate::primary) enum Origin {
    /// It was compared with the replica, or brought forward from it.
    Compared,
    /// It was restored, to the newest state at that time.
    Restored,
    /// It was restored to an earlier time or transaction.
    Rewound,
    /// It was restored to an earlier time or transaction, which is to become the present.
    Present,
}

/// A file that was about to be sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Sent {
    /// Its header, in hexadecimal digits.
    header: String,
    /// Up to where in the WAL it holds what was committed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    position: Option<StoredPosition>,
}

impl Sent {
    /// Whether the WAL has all that the file holds, or the database under it has.
    fn is_in(&self, wal: &Path) -> bool {
        self.position.is_some_and(|position| wal_has(wal, position.into()))
    }
}

/// A replica that the database was published to before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::primary) struct Former {
    #[serde(with = "stored_url")]
    pub(in crate::primary) url: String,
    /// The last transaction that was known to be there.
    txid: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    lineage: Option<Lineage>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sealed: Option<Sealed>,
}

/// What the state folder says of the database file as it is now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::primary) enum Claim {
    /// Nothing.
    Nothing,
    /// It is this transaction, and the commits that capture finds after that.
    Followed(Txid),
    /// It is this transaction, and commits that nobody followed.
    Unfollowed(Txid),
    /// It was this transaction, and the machine went down since, which may have cost commits.
    BeforeCrash(Txid),
    /// Another file was this transaction: this one may be a copy of it, or anything else.
    OfAnotherFile(Txid),
}

impl Claim {
    /// The transaction that it is about.
    pub(in crate::primary) const fn txid(self) -> Option<Txid> {
        match self {
            Self::Nothing => None,
            Self::Followed(txid)
            | Self::Unfollowed(txid)
            | Self::BeforeCrash(txid)
            | Self::OfAnotherFile(txid) => Some(txid),
        }
    }

    /// Whether it is about this very file.
    pub(in crate::primary) const fn is_of_this_file(self) -> bool {
        matches!(self, Self::Followed(_) | Self::Unfollowed(_) | Self::BeforeCrash(_))
    }
}

impl State {
    /// Reads the state in `folder`, or begins a new one with a random node id.
    ///
    /// # Errors
    /// `Io`. A state that cannot be understood is treated as none: the database is compared with the replica.
    pub(in crate::primary) fn load(folder: &Path) -> Result<Self> {
        let path = file(folder);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Self::new()),
            Err(e) => return Err(Error::io(format_args!("cannot read {}", path.display()), e)),
        };
        match serde_json::from_slice::<Self>(&bytes) {
            Ok(state) if state.node_id != 0 => Ok(state),
            _ => Ok(Self::new()),
        }
    }

    /// The state in `folder`, if there is one that can be understood.
    pub(in crate::primary) fn read(folder: &Path) -> Option<Self> {
        serde_json::from_slice(&fs::read(file(folder)).ok()?).ok()
    }

    fn new() -> Self {
        Self { node_id: crate::primary::random_u64().max(1), boot: boot(), ..Self::default() }
    }

    /// The state of a replica that the database was never published to.
    pub(in crate::primary) fn of_new_replica(url: &str) -> Self {
        Self { url: url.to_owned(), ..Self::new() }
    }

    /// The state on the way back to the replica `former`, which the database was published to before it was published
    /// only to others, of which this is one.
    pub(in crate::primary) fn back_to(&self, former: &Former) -> Self {
        Self {
            node_id: self.node_id,
            url: former.url.clone(),
            txid: Some(former.txid),
            lineage: former.lineage,
            sealed: former.sealed.clone(),
            file: self.file,
            was_closed: self.was_closed || self.closed.is_some(),
            boot: self.boot.clone(),
            is_back: true,
            ..Self::default()
        }
    }

    /// The replicas before this one, in a state of one replica at a time.
    pub(in crate::primary) fn former(&self) -> Vec<Former> {
        self.former.clone()
    }

    /// The replicas that are remembered when this one is given up: those before it, and itself.
    pub(in crate::primary) fn into_former(self) -> Vec<Former> {
        let Self { mut former, url, txid, lineage, sealed, .. } = self;
        former.extend(txid.map(|txid| Former { url, txid, lineage, sealed }));
        former
    }

    /// The state of a database that was just restored from `url` and is at `txid`: its file, which has `pages`.
    pub(in crate::primary) fn restored(
        url: &str,
        txid: Txid,
        lineage: Option<Lineage>,
        origin: Origin,
        (database, pages): (&Path, PageCount),
    ) -> Self {
        let mut state = Self { url: url.to_owned(), txid: Some(txid.get()), lineage, ..Self::new() };
        // A write by another program must be seen at the next open.
        let sealed = Journal::new(&files::state_folder(database)).seal_restored(database, pages);
        state.set_cursor(sealed.map(Cursor::File), &PageSet::default(), Identity::of(database));
        state.origin = Some(origin);
        state
    }

    /// Whether the replica may be sealed to `recipients`, and to nobody else: it is, or nothing says whom it is sealed to.
    pub(in crate::primary) fn is_sealed_to(&self, recipients: &Recipients) -> bool {
        self.sealed.as_ref().is_none_or(|sealed| sealed.recipients == recipients.texts())
    }

    /// Says that it is about `file`, if it is not yet about any.
    pub(in crate::primary) fn set_file(&mut self, file: Option<Identity>) {
        self.file = self.file.or(file);
    }

    /// Whether it is about `file`.
    pub(in crate::primary) fn is_of(&self, file: Option<Identity>) -> bool {
        matches!((self.file, file), (Some(ours), Some(file)) if ours.is(&file))
    }

    /// Another writer than the one whose state was copied.
    pub(in crate::primary) fn renew_node_id(&mut self) {
        self.node_id = crate::primary::random_u64().max(1);
        self.sent.clear();
    }

    /// What it says of the database file `file`; `is_followed`: the pages that were changed since are known.
    pub(in crate::primary) fn claim(&self, url: &str, file: Option<Identity>, is_followed: bool) -> Claim {
        // What is written before a WAL is emptied is on the disk before.
        let nothing_lost = self.is_of_this_boot() || self.was_closed || self.closed.is_some();
        match self.txid(url) {
            None => Claim::Nothing,
            Some(txid) if is_followed => Claim::Followed(txid),
            Some(txid) if !self.is_of(file) => Claim::OfAnotherFile(txid),
            Some(txid) if nothing_lost => Claim::Unfollowed(txid),
            Some(txid) => Claim::BeforeCrash(txid),
        }
    }

    /// A file with `header` is about to be sent, which holds all up to `cursor`.
    pub(in crate::primary) fn sends(&mut self, header: &Header, cursor: Cursor) {
        let position = match cursor {
            Cursor::At(position) => Some(position.into()),
            Cursor::File(_) => None,
        };
        let header = header.encode().iter().map(|byte| format!("{byte:02x}")).collect();
        let sent = Sent { header, position };
        if !self.sent.contains(&sent) {
            self.sent.push(sent);
        }
    }

    /// The files that `other` was about to send may have landed, too.
    pub(in crate::primary) fn takes_sent_of(&mut self, other: Self) {
        for sent in other.sent {
            if !self.sent.contains(&sent) {
                self.sent.push(sent);
            }
        }
    }

    /// The headers of files that may have landed, of which no power failure can have taken anything from the database.
    pub(in crate::primary) fn sent(&self, wal: &Path, file: Option<Identity>) -> Vec<Header> {
        let is_kept = |sent: &&Sent| self.is_of_this_boot() || sent.is_in(wal);
        if !self.is_of(file) {
            return Vec::new();
        }
        self.sent.iter().filter(is_kept).filter_map(|sent| decode_header(&sent.header)).collect()
    }

    /// The headers of files that hold nothing but what the WAL has too, or the database under it.
    pub(in crate::primary) fn sent_in(&self, wal: &Path) -> Vec<Header> {
        let sent = self.sent.iter().filter(|sent| sent.is_in(wal));
        sent.filter_map(|sent| decode_header(&sent.header)).collect()
    }

    /// Remembers that everything up to `cursor` is in the replica or waits, but for the content of the pages `dirty`,
    /// of the database file `file`.
    pub(in crate::primary) fn set_cursor(
        &mut self,
        cursor: Option<Cursor>,
        dirty: &PageSet,
        file: Option<Identity>,
    ) {
        (self.was_closed, self.previous) = (false, None);
        self.file = file;
        self.dirty = (!dirty.is_empty()).then(|| BASE64.encode(dirty.encode()));
        (self.position, self.closed) = match cursor {
            Some(Cursor::At(position)) => (Some(position.into()), None),
            Some(Cursor::File(stamp)) => (None, Some(stamp)),
            None => (None, None),
        };
    }

    /// Nothing is known to be in the replica or to wait.
    pub(in crate::primary) fn forget_cursor(&mut self) {
        self.was_closed |= self.closed.is_some();
        (self.position, self.previous, self.closed, self.dirty, self.spool) = (None, None, None, None, None);
    }

    /// Up to where all is in the replica or waits, and the pages that are in no file, if this was written in this
    /// boot of the machine about the file that is at `database` now. After a power failure what the WAL held may be lost,
    /// and what was written here too: then pages must be compared.
    pub(in crate::primary) fn cursor(&self, database: &Path) -> Option<(Cursor, PageSet)> {
        if !self.is_of(Identity::of(database)) || !self.is_of_this_boot() {
            return None;
        }
        let mut wal = database.as_os_str().to_owned();
        wal.push("-wal");
        let is_kept = |position: &StoredPosition| wal_has(Path::new(&wal), (*position).into());
        let position = self.previous.filter(is_kept).or(self.position);
        let position = position.map(|position| Cursor::At(position.into()));
        let cursor = position.or_else(|| self.closed.map(Cursor::File))?;
        let dirty = match &self.dirty {
            Some(digits) => PageSet::decode(&BASE64.decode(digits).ok()?).ok()?,
            None => PageSet::default(),
        };
        Some((cursor, dirty))
    }

    /// Whether the machine runs since the last file was published: then nothing is lost that was written
    /// here.
    pub(in crate::primary) fn is_of_this_boot(&self) -> bool {
        self.boot.is_some() && self.boot == boot()
    }

    /// `txid`, which was committed at `time`, is in the replica, and was made of what is here now.
    pub(in crate::primary) fn published(&mut self, txid: Txid, time: Timestamp) {
        self.found(txid);
        self.origin = None;
        self.time = Some(time.as_millis());
    }

    /// The time of the last transaction in the replica, if it was published from here.
    pub(in crate::primary) fn time(&self) -> Option<Timestamp> {
        self.time.map(Timestamp::from_millis)
    }

    /// `txid` is in the replica and here, whoever published it. A file that was to come next may have landed all the same.
    pub(in crate::primary) fn found(&mut self, txid: Txid) {
        let nothing_lost = self.is_of_this_boot();
        let is_next =
            |sent: &Sent| decode_header(&sent.header).is_some_and(|header| header.max == txid.next());
        self.sent.retain(|sent| nothing_lost && is_next(sent));
        (self.txid, self.time) = (Some(txid.get()), None);
        self.boot = boot();
        self.is_back = false;
    }

    /// `txid` is in the replica from an earlier life; not all of it is known to be here.
    pub(in crate::primary) fn skip_to(&mut self, txid: Txid) {
        (self.txid, self.time) = (Some(txid.get()), None);
    }

    /// `txid` is in the replica, and was made of what was here. Its header stays noted: where nobody can follow the WAL any
    /// longer, that alone says that the database has all of it.
    pub(in crate::primary) fn landed(&mut self, txid: Txid) {
        self.skip_to(txid);
        self.origin = None;
    }

    /// The lineage of the replica at `url`, as far as it is known.
    pub(in crate::primary) fn lineage(&self, url: &str) -> Option<Lineage> {
        if self.url == url { self.lineage } else { None }
    }

    /// The replica is of the lineage `found`; or it is empty, or its files carry none, and a new lineage begins with our
    /// next file.
    pub(in crate::primary) fn continue_lineage(&mut self, is_empty: bool, found: Option<Lineage>) {
        // One that was published to a replica which is empty now has ended.
        let known = if is_empty { self.lineage.filter(|_| self.txid.is_none()) } else { found };
        self.lineage = known.or_else(|| Lineage::new(crate::primary::random_u64().max(1)));
    }

    /// The last transaction known to be in the replica at `url`.
    pub(in crate::primary) fn txid(&self, url: &str) -> Option<Txid> {
        if self.url == url { self.txid.and_then(Txid::new) } else { None }
    }

    /// Writes the state to `folder`.
    ///
    /// # Errors
    /// `Io`, `NoSpace`, `Denied`, naming the file.
    pub(in crate::primary) fn save(&self, folder: &Path) -> Result<()> {
        let bytes = serde_json::to_vec(self).expect("BUG: the state is plain data");
        let path = file(folder);
        let temporary = path.with_extension("json.tmp");
        let written = match write(&temporary, &bytes) {
            // The folder was removed. Without a state the next open could not tell which commits
            // come after those of the replica.
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                files::create_folders(folder).and_then(|()| write(&temporary, &bytes))
            }
            written => written,
        };
        written
            .and_then(|()| put_in_place(&temporary, &path))
            .map_err(|e| Error::io(format_args!("cannot write {}", path.display()), e))
    }

    /// As [`State::save`], but in a folder that was removed no file is made.
    ///
    /// # Errors
    /// `Io`, `NotFound` if the files were removed.
    pub(in crate::primary) fn save_over(&self, folder: &Path) -> Result<()> {
        let bytes = serde_json::to_vec(self).expect("BUG: the state is plain data");
        let path = file(folder);
        let temporary = path.with_extension("json.tmp");
        let written = match OpenOptions::new().write(true).open(&temporary) {
            // A file system that cannot exchange two names has only one of them.
            Err(e) if e.kind() == io::ErrorKind::NotFound && path.exists() => write(&temporary, &bytes),
            opened => opened.and_then(|file| write_all(file, &bytes)),
        };
        written
            .and_then(|()| put_in_place(&temporary, &path))
            .map_err(|e| Error::io(format_args!("cannot write {}", path.display()), e))
    }
}

/// Writes over the file, which is made if it is not there. To cut a file to nothing first, or to replace
/// one by a new one, makes some file systems (ext4) write it to the disk at once, and SQLite's next sync
/// waits for that.
fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    write_all(files::open(path, OpenOptions::new().write(true))?, bytes)
}

fn write_all(mut file: fs::File, bytes: &[u8]) -> io::Result<()> {
    file.write_all(bytes)?;
    file.set_len(bytes.len() as u64)
}

/// Gives `temporary` the name `path`, in one step, and the other way round if there is such a file.
fn put_in_place(temporary: &Path, path: &Path) -> io::Result<()> {
    match rustix::fs::renameat_with(CWD, temporary, CWD, path, RenameFlags::EXCHANGE) {
        Ok(()) => Ok(()),
        // There is none yet, or the file system cannot do that.
        Err(_) => fs::rename(temporary, path),
    }
}

fn file(folder: &Path) -> PathBuf {
    folder.join("vfs.json")
}

/// What tells one boot of the machine from another; `None` where the system does not say.
fn boot() -> Option<String> {
    #[cfg(test)]
    if let Some(simulation) = crate::runtime::simulated::current() {
        return Some(simulation.boot());
    }
    let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(id.trim().to_owned())
}

/// A header that is written in hexadecimal digits.
fn decode_header(digits: &str) -> Option<Header> {
    let byte = |at: usize| u8::from_str_radix(digits.get(at..at + 2)?, 16).ok();
    let bytes: Option<Vec<u8>> = (0..digits.len()).step_by(2).map(byte).collect();
    Header::decode(bytes?.first_chunk()?).ok()
}

/// Whether the WAL file holds the frame that `position` speaks of.
fn wal_has(wal: &Path, position: Position) -> bool {
    let Position { salts, frame, checksum, .. } = position;
    let position = crate::wal::Position { salts, frame, checksum };
    fs::File::open(wal).is_ok_and(|file| crate::wal::holds(&file, position).unwrap_or(false))
}
