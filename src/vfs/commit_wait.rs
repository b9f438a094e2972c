//! Commits that wait until they are in the replicas.
//!
//! At `SQLITE_FCNTL_COMMIT_PHASETWO` a ticket is drawn, and nothing else: locks are held, and an error there would undo what
//! it can of a transaction that is committed. The wait is in the WAL hook, with no lock held. Where that does not come,
//! because the host has one of its own or resets a statement before its end, the wait is at the release of the read mark, or
//! before the connection's next transaction; then only the status and the log can say what it came to, until the hook comes.
//!
//! What is open is kept by connection and file, not in the file: with a shared cache another connection may be using that.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::config;
use crate::error::Result;
use crate::fork::PerProcess;
use crate::primary::{CommitMode, Primary, SyncReplicas, Ticket};
use crate::sqlite::{Code, FileConnection, PragmaAnswer, WalCommit};
use crate::wal::IndexHeader;

/// The connections of which commits waited, by address.
static CONNECTIONS: PerProcess<Mutex<BTreeMap<usize, Connection>>> = PerProcess::new();

fn connections() -> MutexGuard<'static, BTreeMap<usize, Connection>> {
    CONNECTIONS.get().lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whose WAL hook a connection has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Hook {
    /// It is to be found out.
    #[default]
    Unknown,
    /// Ours, which checkpoints from this number of frames on.
    Ours(u32),
    /// Perhaps the host's own, which must stay, or ours, which did not come.
    Doubtful,
}

#[derive(Default)]
struct Connection {
    hook: Hook,
    /// Its files that had a ticket.
    files: BTreeSet<usize>,
    open: Vec<Open>,
}

/// A ticket that the hook has not reported.
struct Open {
    file: usize,
    /// The hook came for it.
    is_called: bool,
    waiting: Arc<Waiting>,
}

/// A commit that waits, and what that came to.
struct Waiting {
    primary: Arc<Primary>,
    ticket: Ticket,
    synced: Arc<Synced>,
    outcome: Mutex<Option<Result<()>>>,
}

impl Waiting {
    /// Waits, unless it waited before.
    fn settle(&self, syncs: bool, interrupted: &dyn Fn() -> bool) -> Result<()> {
        let mut outcome = self.outcome.lock().unwrap_or_else(PoisonError::into_inner);
        outcome.get_or_insert_with(|| self.primary.redeem(&self.ticket, syncs, interrupted)).clone()
    }
}

/// Whether a connection syncs what it commits to one database: `PRAGMA synchronous` is not off.
#[derive(Debug, Default)]
struct Synced(AtomicU8);

impl Synced {
    const UNKNOWN: u8 = 0;
    const NEVER: u8 = 1;
    const SOMETIMES: u8 = 2;

    fn forget(&self) {
        self.0.store(Self::UNKNOWN, Ordering::Relaxed);
    }

    /// As far as it is known; where it is not, it does.
    fn is_synced(&self) -> bool {
        self.0.load(Ordering::Relaxed) != Self::NEVER
    }

    fn ask(&self, is_never_synced: impl FnOnce() -> bool) -> bool {
        if self.0.load(Ordering::Relaxed) == Self::UNKNOWN {
            let known = if is_never_synced() { Self::NEVER } else { Self::SOMETIMES };
            self.0.store(known, Ordering::Relaxed);
        }
        self.is_synced()
    }
}

/// What the library does after a commit of a connection that has its hook: SQLite holds no lock.
///
/// # Errors
/// `PROTOCOL` if a commit is not confirmed: hosts show it as an error, none of them tries the statement again, and SQLite
/// undoes nothing.
pub(super) fn after_commit(commit: &WalCommit) -> Result<(), Code> {
    let Some(due) = due(commit) else { return Ok(()) };
    let mut confirmed = Ok(());
    for Open { file, waiting, .. } in due {
        let syncs = match file == commit.file() {
            true => waiting.synced.ask(|| commit.is_never_synced()),
            false => waiting.synced.is_synced(),
        };
        if waiting.settle(syncs, &|| commit.is_interrupted()).is_err() {
            confirmed = Err(Code::PROTOCOL);
        }
    }
    confirmed
}

/// The tickets of a connection, for one of whose databases the hook came, once it came for all: an error before that would
/// keep SQLite from calling it for the others, whose checkpoints it does.
fn due(commit: &WalCommit) -> Option<Vec<Open>> {
    let mut connections = connections();
    let connection = connections.get_mut(&commit.connection())?;
    // Whatever was thought of it.
    connection.hook = Hook::Ours(commit.automatic_checkpoint());
    let open = connection.open.iter_mut().find(|open| open.file == commit.file())?;
    open.is_called = true;
    connection.open.iter().all(|open| open.is_called).then(|| std::mem::take(&mut connection.open))
}

/// The transaction that a connection writes.
#[derive(Clone, Copy, Debug)]
struct Writing {
    replicas: SyncReplicas,
    /// The index header at its begin.
    before: Option<IndexHeader>,
    /// It is committed, and something changed.
    is_changed: bool,
}

/// How the commits of one connection to one database wait.
pub(super) struct CommitWait {
    primary: Arc<Primary>,
    file: usize,
    mode: CommitMode,
    timeout: Duration,
    connection: Option<FileConnection>,
    writing: Option<Writing>,
    synced: Arc<Synced>,
    /// The last PRAGMA that was seen switched automatic checkpoints off.
    never_checkpoints: bool,
    /// A ticket may be open.
    has_ticket: bool,
    /// Another connection may share the cache, and SQLite may call its hook instead.
    shares_cache: bool,
}

impl CommitWait {
    /// That of a file at the address `file`.
    pub(super) fn new(primary: Arc<Primary>, file: usize, mode: CommitMode, timeout: Duration) -> Self {
        Self {
            primary,
            file,
            mode,
            timeout,
            connection: None,
            writing: None,
            synced: Arc::default(),
            never_checkpoints: false,
            has_ticket: false,
            shares_cache: false,
        }
    }

    /// The same, of a connection that shares its cache if `shares`.
    pub(super) const fn sharing_cache(mut self, shares: bool) -> Self {
        self.shares_cache = shares;
        self
    }

    /// The file belongs to this connection.
    pub(super) fn belongs_to(&mut self, connection: FileConnection) {
        self.connection = Some(connection);
    }

    /// Whether the next transaction waits.
    pub(super) const fn waits(&self) -> bool {
        matches!(self.mode, CommitMode::Replicated(_))
    }

    /// The connection begins to write, with this index header. Only if [`CommitWait::waits`].
    pub(super) fn begins(&mut self, before: Option<IndexHeader>) {
        if let CommitMode::Replicated(replicas) = self.mode {
            self.writing = Some(Writing { replicas, before, is_changed: false });
        }
    }

    /// Whether the transaction that is being written waits.
    pub(super) const fn is_writing(&self) -> bool {
        self.writing.is_some()
    }

    /// The connection has written, and the index has this header.
    pub(super) fn ends(&mut self, after: Option<IndexHeader>) {
        let commit = |header: IndexHeader| (header.frame_checksum, header.change);
        if let Some(writing) = &mut self.writing {
            // Of what cannot be read the worse is assumed.
            let is_same = after.is_some() && after.map(commit) == writing.before.map(commit);
            writing.is_changed = !is_same;
        }
    }

    /// A transaction is committed. `alone`: without locks on the index, and then whether something changed.
    pub(super) fn committed(&mut self, alone: Option<bool>) {
        let writing = self.writing.take();
        let replicas = match (alone, self.mode) {
            (Some(true), CommitMode::Replicated(replicas)) => Some(replicas),
            (Some(_), _) => None,
            (None, _) => writing.filter(|writing| writing.is_changed).map(|writing| writing.replicas),
        };
        if let Some(replicas) = replicas {
            let hook = self.draw(replicas);
            // Its locks stay anyway, and no read mark is released.
            if alone.is_some() && hook == Hook::Doubtful {
                self.wait_without_hook();
            }
        }
    }

    /// A transaction is committed, and its locks are released, where no WAL is.
    pub(super) fn committed_without_wal(&self) {
        if let CommitMode::Replicated(replicas) = self.mode {
            self.primary.noticed_commit();
            let ticket = self.primary.draw_ticket(replicas, self.timeout);
            let interrupted = || self.connection.as_ref().is_some_and(FileConnection::is_interrupted);
            // No hook comes for it: what it came to is in the status.
            let _ = self.primary.redeem(&ticket, false, &interrupted);
        }
    }

    /// Draws a ticket for the commit that was just noted.
    fn draw(&mut self, replicas: SyncReplicas) -> Hook {
        let ticket = self.primary.draw_ticket(replicas, self.timeout);
        let Some(connection) = &self.connection else { return Hook::Doubtful };
        let address = connection.address();
        let mut hook = {
            let mut connections = connections();
            let entry = connections.entry(address).or_default();
            // Then the hook did not come for that one.
            let missed = entry.open.iter().any(|open| open.file == self.file);
            entry.open.retain(|open| open.file != self.file);
            if missed { Hook::Unknown } else { entry.hook }
        };
        // The host is asked while nothing of ours is locked.
        if !matches!(hook, Hook::Ours(_)) {
            hook = self.install(connection);
        }
        let waiting = Waiting {
            primary: Arc::clone(&self.primary),
            ticket,
            synced: Arc::clone(&self.synced),
            outcome: Mutex::default(),
        };
        let mut connections = connections();
        let entry = connections.entry(address).or_default();
        entry.hook = hook;
        entry.files.insert(self.file);
        entry.open.push(Open { file: self.file, is_called: false, waiting: Arc::new(waiting) });
        self.has_ticket = true;
        hook
    }

    /// Installs our hook in the place of SQLite's own, and of none that the host may have installed.
    fn install(&self, connection: &FileConnection) -> Hook {
        if self.shares_cache {
            return Hook::Doubtful;
        }
        match connection.automatic_checkpoint() {
            0 if !self.never_checkpoints => Hook::Doubtful,
            frames => {
                connection.take_wal_hook(frames);
                Hook::Ours(frames)
            }
        }
    }

    /// The read mark of the connection was released: where the hook may not come, the wait is here.
    pub(super) fn released(&mut self) {
        if self.has_ticket && self.hook() == Some(Hook::Doubtful) {
            self.wait_without_hook();
        }
    }

    /// A transaction is about to begin: what was committed before it and has not waited does so now.
    pub(super) fn next_begins(&mut self) {
        if self.has_ticket {
            self.wait_without_hook();
        }
    }

    fn hook(&self) -> Option<Hook> {
        let address = self.connection.as_ref()?.address();
        connections().get(&address).map(|entry| entry.hook)
    }

    /// Waits; the hook reports it when it comes.
    fn wait_without_hook(&mut self) {
        let Some(connection) = &self.connection else { return };
        let open = {
            let connections = connections();
            let entry = connections.get(&connection.address());
            let open = entry.and_then(|entry| entry.open.iter().find(|open| open.file == self.file));
            open.map(|open| Arc::clone(&open.waiting))
        };
        match open {
            // What it came to is in the status.
            Some(waiting) => {
                let _ = waiting.settle(self.synced.is_synced(), &|| connection.is_interrupted());
            }
            None => self.has_ticket = false,
        }
    }

    /// `PRAGMA litestream_commit`.
    pub(super) fn pragma(&mut self, arg: Option<&str>) -> PragmaAnswer {
        if let Some(text) = arg {
            match config::commit_mode(text, self.primary.replicas()) {
                Ok(mode) => self.mode = mode,
                Err(e) => return PragmaAnswer::Error(format!("litestream_commit: {e}")),
            }
        }
        PragmaAnswer::Value(self.mode.to_string())
    }

    /// SQLite is about to obey `PRAGMA wal_autocheckpoint`, which installs its own hook, or reads that.
    pub(super) fn automatic_checkpoint(&mut self, arg: Option<&str>) {
        let Some(connection) = &self.connection else { return };
        let before = {
            let mut connections = connections();
            let entry = connections.get_mut(&connection.address());
            entry.map(|entry| std::mem::take(&mut entry.hook)).unwrap_or_default()
        };
        match (arg, before) {
            (Some(text), _) => self.never_checkpoints = leading_number(text) <= 0,
            // It would find ours, and answer 0.
            (None, Hook::Ours(frames)) => {
                connection.give_wal_hook_back(frames);
                self.never_checkpoints = frames == 0;
            }
            (None, _) => {}
        }
    }

    /// SQLite is about to obey `PRAGMA synchronous`.
    pub(super) fn synchronous(&self) {
        self.synced.forget();
    }

    /// The file is closed.
    pub(super) fn end(&mut self) {
        let file = self.file;
        connections().retain(|_, entry| {
            entry.open.retain(|open| open.file != file);
            entry.files.remove(&file);
            !entry.files.is_empty()
        });
    }
}

/// The number that SQLite reads in `text`; 0 if there is none.
fn leading_number(text: &str) -> i64 {
    let digits = text.trim_start_matches(['-', '+']);
    let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
    let number: i64 = digits[..end].parse().unwrap_or(0);
    if text.starts_with('-') { -number } else { number }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_as_sqlite_reads_them() {
        for (text, number) in
            [("1000", 1000), ("0", 0), ("-5", -5), ("+7", 7), ("12x", 12), ("off", 0), ("", 0)]
        {
            assert_eq!(leading_number(text), number, "{text}");
        }
    }
}
