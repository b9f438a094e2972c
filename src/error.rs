//! One error type for all rooms. It knows nothing of SQLite's codes; `sqlite` maps kinds to them.

use std::borrow::Cow;
use std::fmt;

/// What went wrong, named by what the user can do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A setting, URL or argument is malformed or missing: correct it.
    Config,
    /// The object, file or point in time does not exist.
    NotFound,
    /// The bucket, container or object store that a replica would be in does not exist: create it, or correct the URL.
    NoBucket,
    /// It exists already and the operation refuses to replace it.
    AlreadyExists,
    /// Credentials are missing, wrong, or not allowed to do this.
    Denied,
    /// The store cannot be reached or is failing for now; trying again may succeed.
    Unavailable,
    /// A time limit passed before the work was done.
    Timeout,
    /// A server, or something between, answered something else than was asked for, such as a web page or
    /// another part of a file: look at proxies and gateways. Says nothing about what is stored.
    WrongAnswer,
    /// Bytes that came whole fail their checksum or break their format.
    Corrupt,
    /// A local file is not a SQLite database.
    NotADatabase,
    /// Somebody else wrote what only we may write.
    Conflict,
    /// The store, host or file does not support what is asked.
    Unsupported,
    /// Writing on something that is read-only.
    ReadOnly,
    /// Another connection holds the lock that is needed.
    Busy,
    /// No space is left on the device, or a quota is exhausted.
    NoSpace,
    /// Any other failure of the operating system on a local file.
    Io,
    /// The operation was interrupted or its owner was closed.
    Interrupted,
}

/// A message for the user that names the thing and the remedy, its kind, and what caused it.
///
/// Invariant: neither the message nor a source's text carries a secret.
#[derive(Debug)]
pub struct Error {
    kind: ErrorKind,
    message: Cow<'static, str>,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// The result of everything in this crate that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error of `kind` that says `message`.
    pub fn new(kind: ErrorKind, message: impl Into<Cow<'static, str>>) -> Self {
        Self { kind, message: message.into(), source: None }
    }

    /// The same error, with what caused it attached.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// The same error, with `context` and a colon in front of its message.
    #[must_use]
    pub fn context(mut self, context: impl fmt::Display) -> Self {
        self.message = format!("{context}: {}", self.message).into();
        self
    }

    /// An operating-system error on a local file; `what` names the operation and the path.
    pub fn io(what: impl fmt::Display, source: std::io::Error) -> Self {
        let kind = match source.kind() {
            std::io::ErrorKind::NotFound => ErrorKind::NotFound,
            std::io::ErrorKind::AlreadyExists => ErrorKind::AlreadyExists,
            std::io::ErrorKind::PermissionDenied => ErrorKind::Denied,
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => ErrorKind::NoSpace,
            std::io::ErrorKind::ReadOnlyFilesystem => ErrorKind::ReadOnly,
            _ => ErrorKind::Io,
        };
        let remedy = match source.raw_os_error() {
            Some(libc::EMFILE | libc::ENFILE) => "; raise the limit of open files (ulimit -n)",
            _ => "",
        };
        Self { kind, message: format!("{what}: {source}{remedy}").into(), source: Some(Box::new(source)) }
    }

    /// Bytes that break their format or fail their checksum.
    pub fn corrupt(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorKind::Corrupt, message)
    }

    /// An answer to something else than was asked for.
    pub fn wrong_answer(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorKind::WrongAnswer, message)
    }

    /// A malformed or missing setting.
    pub fn config(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorKind::Config, message)
    }

    /// What the user can do about it.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// Whether the operating system said so of a file.
    pub fn is_of_the_system(&self) -> bool {
        self.source.as_ref().is_some_and(|source| source.is::<std::io::Error>())
    }

    /// Whether the same call may succeed later without anybody's help.
    pub fn is_transient(&self) -> bool {
        matches!(self.kind, ErrorKind::Unavailable | ErrorKind::Timeout)
    }
}

impl Clone for Error {
    /// A copy without the source, whose text the message already has where it matters.
    fn clone(&self) -> Self {
        Self { kind: self.kind, message: self.message.clone(), source: None }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|e| e as _)
    }
}
