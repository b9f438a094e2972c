//! The main database of a replica: read-only, and nothing of it is local.

use std::any::Any;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use super::{hidden, pragma};
use crate::config::{self, ReplicaConfig};
use crate::error::{Error, ErrorKind, Result};
use crate::failures::{self, Attempt};
use crate::replica::{self, Core, RestorePoint, View};
use crate::sqlite::{
    BaseFile, Code, File, FileControl, IoVersion, LockLevel, OpenRequest, Opened, PragmaAnswer, ReadOutcome,
    SyncFlags, log,
};
use crate::store::Location;

/// Opens a replica, or joins those of this process that have it open. The default VFS does it `by_default`.
pub(super) fn open(request: &OpenRequest<'_>, config: ReplicaConfig, by_default: bool) -> Result<Opened> {
    refuse_shared_cache(request)?;
    let core = first_that_answers(&config).map_err(|e| hinted(e, config.hint))?;
    if let Some(hint) = config.hint.filter(|_| request.path().is_some_and(Path::exists)) {
        tracing::warn!("{} is a local file, but {hint}", request.path().unwrap_or(Path::new("")).display());
    }
    let mut view = View::new(core);
    if config.point != RestorePoint::Latest {
        view.seen().choose(config.point).map_err(|e| e.context("asof"))?;
    }
    view.check_readable()?;
    let path = request.path().map(PathBuf::from).unwrap_or_default();
    Ok(Opened::File {
        file: Box::new(ReplicaFile { view, path, by_default }),
        out_flags: request.flags().read_only(),
    })
}

/// Refuses a cache of SQLite's that connections share. It goes by the name of the database, which says nothing about a
/// replica: who opened another one, or another state, by the same name would be shown this one, and we would not be asked.
/// When that is known, SQLite's own name for the file is made.
fn refuse_shared_cache(request: &OpenRequest<'_>) -> Result<()> {
    if !request.is_for_shared_cache() {
        return Ok(());
    }
    let name = request.path().unwrap_or(Path::new("")).display();
    Err(Error::config(format!(
        "with cache=shared, SQLite would show this replica to whoever opens another one, or another state, by the name \
         {name}: say cache=private in the URI (all connections to a replica share the pages that were fetched anyway)"
    )))
}

/// Opens the first replica that answers, and has what it must have.
///
/// # Errors
/// Those of all of them, if none does, with the kind of the first one's.
fn first_that_answers(config: &ReplicaConfig) -> Result<Arc<Core>> {
    let mut refused: Vec<Error> = Vec::new();
    for target in &config.targets {
        match open_at(target, config) {
            Ok(core) => {
                refused.iter().for_each(|e| tracing::warn!("{e}; {target} is read instead"));
                return Ok(core);
            }
            Err(e) => refused.push(e),
        }
    }
    match &refused[..] {
        [] => Err(Error::config("no replica is named")),
        [one] => Err(one.clone()),
        [first, ..] => {
            let all: Vec<String> = refused.iter().map(ToString::to_string).collect();
            Err(Error::new(first.kind(), all.join("; ")))
        }
    }
}

/// Opens the replica at `target`, and waits until it has what it must have.
fn open_at(target: &Location, config: &ReplicaConfig) -> Result<Arc<Core>> {
    let deadline = Instant::now() + config.options.open_timeout;
    let core = replica::open(target, &config.options, config.point)?;
    if let Some(txid) = config.min_txid {
        let left = deadline.saturating_duration_since(Instant::now());
        core.wait_for(txid, left, || false).map_err(|e| {
            let message = format!("{e}: raise open_timeout, or see whether min_txid is of this replica");
            Error::new(e.kind(), message)
        })?;
    }
    Ok(core)
}

/// `error` of an open with `hint`, if there is one.
fn hinted(error: Error, hint: Option<&str>) -> Error {
    match hint {
        Some(hint) => Error::new(error.kind(), format!("{error} ({hint})")),
        None => error,
    }
}

/// One connection's file.
///
/// Locks keep nobody away: they only hold the state that is seen in place. Without shared memory
/// SQLite does not ask for a log.
#[derive(Debug)]
struct ReplicaFile {
    view: View,
    /// The name under which SQLite has it; there need not be such a file, and if there is it is none of
    /// ours.
    path: PathBuf,
    /// The default VFS opened it.
    by_default: bool,
}

impl ReplicaFile {
    /// Says what went wrong where the host and the operator find it, and gives SQLite a code.
    fn failed(&self, error: &Error) -> Code {
        if error.kind() == ErrorKind::Interrupted {
            return Code::INTERRUPT;
        }
        let code = match error.kind() {
            ErrorKind::Corrupt | ErrorKind::Denied | ErrorKind::Timeout => Code::from(error),
            _ => Code::IOERR_READ,
        };
        self.view.core().note_read_error(error);
        failures::record(Attempt::Read, Some(&self.path), error.to_string());
        log(code, &format!("litestream: cannot read {}: {error}", self.path.display()));
        code
    }

    /// `PRAGMA litestream_poll`: looks for new transactions now, and answers the last that there is. A
    /// transaction that is open still sees what it saw.
    fn poll(&self, arg: Option<&str>) -> PragmaAnswer {
        if arg.is_some() {
            return PragmaAnswer::Error("litestream_poll takes no value".to_owned());
        }
        match self.view.core().poll_unless(|| self.view.is_interrupted()) {
            Ok(()) => PragmaAnswer::Value(self.view.core().snapshot().txid.to_string()),
            Err(e) => failed_pragma("litestream_poll", &e),
        }
    }

    /// In percent, as Litestream's extension tells it; 0 without hydration.
    fn hydration_progress(&self) -> String {
        let hydration = self.view.core().status().hydration;
        let per_mille = hydration.map_or(0, |hydration| hydration.per_mille);
        format!("{}.{}", per_mille / 10, per_mille % 10)
    }

    /// The path of the local file; empty without hydration.
    fn hydration_file(&self) -> String {
        let hydration = self.view.core().status().hydration;
        hydration.map_or_else(String::new, |hydration| hydration.path.display().to_string())
    }

    /// `PRAGMA litestream_time = …`.
    fn set_time(&self, text: &str) -> PragmaAnswer {
        let choose = |point| self.view.seen().choose_unless(point, || self.view.is_interrupted());
        match config::point(text).and_then(choose) {
            Ok(()) => PragmaAnswer::Value(self.view.snapshot().timestamp.to_string()),
            Err(e) => failed_pragma("litestream_time", &e),
        }
    }

    /// The age of what is read, in seconds as Litestream's extension tells it.
    fn lag(&self) -> u64 {
        self.view.seen().age().as_secs()
    }
}

fn failed_pragma(name: &str, error: &Error) -> PragmaAnswer {
    match error.kind() {
        ErrorKind::Interrupted => PragmaAnswer::Interrupted,
        _ => PragmaAnswer::Error(format!("{name}: {error}")),
    }
}

impl File for ReplicaFile {
    fn base(&mut self) -> Option<&mut BaseFile> {
        None
    }

    fn read(&mut self, buf: &mut [u8], offset: u64) -> Result<ReadOutcome, Code> {
        match self.view.read(buf, offset) {
            Ok(there) => Ok(ReadOutcome::of(buf, there)),
            Err(e) => Err(self.failed(&e)),
        }
    }

    fn write(&mut self, _data: &[u8], _offset: u64) -> Result<(), Code> {
        Err(Code::READONLY)
    }

    fn truncate(&mut self, _size: u64) -> Result<(), Code> {
        Err(Code::READONLY)
    }

    fn sync(&mut self, _flags: SyncFlags) -> Result<(), Code> {
        Ok(())
    }

    fn file_size(&mut self) -> Result<u64, Code> {
        Ok(self.view.bytes())
    }

    fn lock(&mut self, level: LockLevel) -> Result<(), Code> {
        hidden::locking_replica(&self.path, self.by_default);
        if level >= LockLevel::Reserved {
            return Err(Code::READONLY);
        }
        if level >= LockLevel::Shared {
            self.view.pin();
        }
        Ok(())
    }

    fn unlock(&mut self, level: LockLevel) -> Result<(), Code> {
        if level == LockLevel::None {
            hidden::locking_other();
            self.view.unpin();
        }
        Ok(())
    }

    fn check_reserved_lock(&mut self) -> Result<bool, Code> {
        Ok(false)
    }

    fn pragma(&mut self, name: &str, arg: Option<&str>) -> PragmaAnswer {
        let name = name.to_ascii_lowercase();
        if name == "litestream_poll" {
            return self.poll(arg);
        }
        let snapshot = self.view.snapshot();
        let value = match name.as_str() {
            "litestream_txid" => snapshot.txid.to_string(),
            "litestream_lag" => self.lag().to_string(),
            "litestream_time" => snapshot.timestamp.to_string(),
            "litestream_hydration_progress" => self.hydration_progress(),
            "litestream_hydration_file" => self.hydration_file(),
            _ => return pragma::unknown(&name),
        };
        match arg {
            None => PragmaAnswer::Value(value),
            Some(text) if name == "litestream_time" => self.set_time(text),
            Some(_) => PragmaAnswer::Error(format!("{name} cannot be set")),
        }
    }

    fn file_control(&mut self, control: FileControl<'_>) -> Result<(), Code> {
        if let Some(connection) = control.connection() {
            self.view.ask_for_interrupts(move || connection.is_interrupted());
        }
        Err(Code::NOTFOUND)
    }

    fn io_version(&mut self) -> IoVersion {
        IoVersion::BASIC
    }

    fn has_late_header(&self) -> bool {
        true
    }

    fn role(&self) -> Option<Arc<dyn Any + Send + Sync>> {
        Some(self.view.seen().clone())
    }
}
