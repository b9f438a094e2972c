//! A main database that SQLite opens, until it is known who opens it.
//!
//! `xOpen` cannot tell a program's `sqlite3_open` from `ATTACH` and `VACUUM INTO`. They differ twice. The
//! latter two come with the VFS of the connection also where their name does not ask for it: then they mean
//! a plain file. And they are SQL: whoever may run SQL may not therefore reach any store.
//!
//! SQLite says whose the file is right after `xOpen`, when it has read the header. So nothing happens before
//! that: no file is created, no thread is started, and no request is made.

use std::path::PathBuf;

use super::{UriParams, hidden, primary, replica};
use crate::config::{self, Config, Params as _, ProcessEnv};
use crate::error::{Error, ErrorKind, Result};
use crate::monitor;
use crate::sqlite::{
    self, Access, BaseFile, Code, File, FileConnection, HeldRequest, IoVersion, LockLevel, OpenFlags,
    OpenRequest, Opened, Opener, ReadOutcome, RefusedFile,
};

/// Who wants a database to be ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    /// The name itself, which SQL may have written.
    Name,
    /// The configuration of whoever runs the program.
    Configuration,
    /// Nobody, unless the program opened it: it has the VFS of its connection.
    Nobody,
}

/// Answers the open of a main database with the VFS `litestream`.
pub(super) fn open(request: &OpenRequest<'_>) -> Opened {
    let wanted = wanted(request);
    let is_asked_for = config::is_asked_for(&UriParams(request.parameters()));
    waiting(request, wanted, if is_asked_for { Asked::Name } else { Asked::Nobody })
}

/// Answers the open of a main database with the default VFS: a plain one unless the configuration names it.
pub(super) fn open_configured(request: &OpenRequest<'_>) -> Opened {
    match configured(request) {
        Ok(None) => Opened::PassThrough,
        Ok(Some(config)) => waiting(request, Ok(config), Asked::Configuration),
        Err(e) => waiting(request, Err(e), Asked::Configuration),
    }
}

fn waiting(request: &OpenRequest<'_>, wanted: Result<Config>, asked: Asked) -> Opened {
    let base = match &wanted {
        Ok(Config::Replica(_)) if asked != Asked::Nobody => None,
        _ => existing(request),
    };
    let out_flags = match (&wanted, &base) {
        (Ok(Config::Replica(_)), _) if asked != Asked::Nobody => request.flags().read_only(),
        (_, Some((_, out_flags))) => *out_flags,
        (_, None) => request.flags(),
    };
    let base = base.map(|(base, _)| base);
    let file = Waiting { request: request.hold(), wanted: Some(wanted), asked, base };
    Opened::File { file: Box::new(file), out_flags }
}

/// What the open gets if it is for us.
fn wanted(request: &OpenRequest<'_>) -> Result<Config> {
    sqlite::check_threads()?;
    let params = UriParams(request.parameters());
    config::start_logging_with(&params, &ProcessEnv);
    config::resolve(request.path(), &params, request.flags().is_readonly(), &ProcessEnv)
}

/// What the configuration has for the open, if anything.
fn configured(request: &OpenRequest<'_>) -> Result<Option<Config>> {
    let Some(path) = request.path() else { return Ok(None) };
    let params = UriParams(request.parameters());
    let config = config::resolve_configured(path, &params, request.flags().is_readonly(), &ProcessEnv)?;
    if config.is_some() {
        sqlite::check_threads()?;
        config::start_logging(&ProcessEnv);
    }
    Ok(config)
}

/// The local file, if it is there.
fn existing(request: &OpenRequest<'_>) -> Option<(BaseFile, OpenFlags)> {
    let is_there = request.base().access(request.path()?, Access::Exists);
    is_there.unwrap_or(false).then(|| request.open_base().ok())?
}

/// The file of an open that is not decided.
struct Waiting {
    request: HeldRequest,
    /// Taken when it is decided.
    wanted: Option<Result<Config>>,
    asked: Asked,
    /// The local file, of which SQLite reads the header.
    base: Option<BaseFile>,
}

impl Waiting {
    /// What the open becomes.
    fn decide(&mut self, opener: &Opener) -> Result<Box<dyn File>> {
        if opener.attaching && self.asked == Asked::Nobody {
            return self.plain();
        }
        let wanted = self.wanted.take().expect("BUG: decided twice");
        if opener.attaching && self.asked == Asked::Name {
            let permitted = permit(&opener.connection);
            // What is in a file that SQL names is told to nobody who may not read it.
            if self.names_a_file() {
                permitted.clone()?;
            }
            wanted.as_ref().map_err(Clone::clone)?;
            permitted?;
        }
        let wanted = wanted?;
        self.base = None;
        let request = self.request.get();
        let shown = config::monitor_options(&UriParams(request.parameters()), &ProcessEnv)?;
        let opened = match wanted {
            Config::Primary(config) => primary::open(&request, config, opener)?,
            Config::Replica(config) => replica::open(&request, config, self.asked == Asked::Configuration)?,
        };
        monitor::start(&shown);
        match opened {
            Opened::File { file, .. } => Ok(file),
            Opened::PassThrough => unreachable!("BUG: a role without a file"),
        }
    }

    /// Whether the name gives a configuration file.
    fn names_a_file(&self) -> bool {
        UriParams(self.request.get().parameters())
            .pairs()
            .iter()
            .any(|(key, _)| key.eq_ignore_ascii_case("config"))
    }

    fn plain(&mut self) -> Result<Box<dyn File>> {
        let base = match self.base.take() {
            Some(base) => base,
            None => self.request.get().open_base().map_err(|code| self.cannot_open(code))?.0,
        };
        Ok(Box::new(PlainFile(base)))
    }

    fn cannot_open(&self, code: Code) -> Error {
        Error::new(ErrorKind::NotFound, format!("cannot open {}: {code}", self.path().display()))
    }

    fn path(&self) -> PathBuf {
        self.request.get().path().map(PathBuf::from).unwrap_or_default()
    }
}

/// Permits `ATTACH` of what asks for us.
fn permit(connection: &FileConnection) -> Result<()> {
    config::permit_sql(&ProcessEnv, || {
        let asked = connection.look(sqlite::may_reach_out);
        asked.unwrap_or_else(|e| Err(Error::new(ErrorKind::Denied, e.to_string())))
    })
    .map_err(|e| e.context("ATTACH of a database with a replica"))
}

impl File for Waiting {
    fn base(&mut self) -> Option<&mut BaseFile> {
        self.base.as_mut()
    }

    /// The header; that of an empty file if there is none.
    fn read(&mut self, buf: &mut [u8], offset: u64) -> Result<ReadOutcome, Code> {
        match &mut self.base {
            Some(base) => base.read(buf, offset),
            None => Ok(ReadOutcome::of(buf, 0)),
        }
    }

    /// Without locks SQLite asks for the size before it says whose the file is, and never again.
    fn file_size(&mut self) -> Result<u64, Code> {
        match (&self.wanted, &mut self.base) {
            (Some(Err(_)), _) if self.asked != Asked::Nobody => Ok(RefusedFile::SIZE),
            (_, Some(base)) => base.file_size(),
            (_, None) => Ok(0),
        }
    }

    /// SQLite locks no file before it said whose it is.
    fn lock(&mut self, _: LockLevel) -> Result<(), Code> {
        Err(Code::CANTOPEN)
    }

    /// A VFS in front of ours may ask only once: it is to offer what the file will have that this one becomes.
    fn io_version(&mut self) -> IoVersion {
        match (&self.wanted, &self.base) {
            (_, Some(base)) => base.io_version(),
            (Some(Ok(Config::Replica(_))), None) => IoVersion::BASIC,
            (_, None) => IoVersion { shm: true, fetch: true },
        }
    }

    fn settle(&mut self, opener: &Opener) -> Option<Box<dyn File>> {
        let decided = self.decide(opener);
        Some(
            decided
                .unwrap_or_else(|e| Box::new(RefusedFile::new(self.path(), Code::from(&e), e.to_string()))),
        )
    }
}

/// A plain database that is attached to one of ours.
struct PlainFile(BaseFile);

impl File for PlainFile {
    fn base(&mut self) -> Option<&mut BaseFile> {
        Some(&mut self.0)
    }

    fn lock(&mut self, level: LockLevel) -> Result<(), Code> {
        hidden::locking_other();
        self.0.lock(level)
    }
}
