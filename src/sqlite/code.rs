//! SQLite's result codes as a type that is never `SQLITE_OK`.

use std::ffi::c_int;
use std::fmt;
use std::num::NonZero;

use rusqlite::ffi;

use crate::error::{Error, ErrorKind};

/// A result code of SQLite that says failure, primary or extended.
///
/// Source: <https://www.sqlite.org/rescode.html>.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Code(NonZero<c_int>);

macro_rules! codes {
    ($($name:ident = $value:ident;)*) => {
        impl Code {
            $(
                #[doc = concat!("`", stringify!($value), "`.")]
                pub const $name: Self = Self::known(ffi::$value);
            )*
        }

        /// The name of a code that has a constant here.
        fn name_of(code: Code) -> Option<&'static str> {
            match code {
                $(Code::$name => Some(stringify!($value)),)*
                _ => None,
            }
        }
    };
}

codes! {
    ERROR = SQLITE_ERROR;
    PERM = SQLITE_PERM;
    BUSY = SQLITE_BUSY;
    LOCKED = SQLITE_LOCKED;
    NOMEM = SQLITE_NOMEM;
    READONLY = SQLITE_READONLY;
    INTERRUPT = SQLITE_INTERRUPT;
    IOERR = SQLITE_IOERR;
    CORRUPT = SQLITE_CORRUPT;
    NOTFOUND = SQLITE_NOTFOUND;
    FULL = SQLITE_FULL;
    CANTOPEN = SQLITE_CANTOPEN;
    PROTOCOL = SQLITE_PROTOCOL;
    MISUSE = SQLITE_MISUSE;
    NOTADB = SQLITE_NOTADB;
    BUSY_SNAPSHOT = SQLITE_BUSY_SNAPSHOT;
    READONLY_CANTINIT = SQLITE_READONLY_CANTINIT;
    IOERR_READ = SQLITE_IOERR_READ;
    IOERR_SHORT_READ = SQLITE_IOERR_SHORT_READ;
    IOERR_WRITE = SQLITE_IOERR_WRITE;
    IOERR_FSYNC = SQLITE_IOERR_FSYNC;
    IOERR_TRUNCATE = SQLITE_IOERR_TRUNCATE;
    IOERR_FSTAT = SQLITE_IOERR_FSTAT;
    IOERR_UNLOCK = SQLITE_IOERR_UNLOCK;
    IOERR_RDLOCK = SQLITE_IOERR_RDLOCK;
    IOERR_DELETE = SQLITE_IOERR_DELETE;
    IOERR_DELETE_NOENT = SQLITE_IOERR_DELETE_NOENT;
    IOERR_NOMEM = SQLITE_IOERR_NOMEM;
    IOERR_ACCESS = SQLITE_IOERR_ACCESS;
    IOERR_CHECKRESERVEDLOCK = SQLITE_IOERR_CHECKRESERVEDLOCK;
    IOERR_LOCK = SQLITE_IOERR_LOCK;
    IOERR_CLOSE = SQLITE_IOERR_CLOSE;
    IOERR_SHMOPEN = SQLITE_IOERR_SHMOPEN;
    IOERR_SHMLOCK = SQLITE_IOERR_SHMLOCK;
    IOERR_SHMMAP = SQLITE_IOERR_SHMMAP;
    IOERR_MMAP = SQLITE_IOERR_MMAP;
    IOERR_AUTH = SQLITE_IOERR_AUTH;
    IOERR_DATA = SQLITE_IOERR_DATA;
}

impl Code {
    const fn known(code: c_int) -> Self {
        match NonZero::new(code) {
            Some(code) => Self(code),
            None => panic!("BUG: SQLITE_OK is not a failure"),
        }
    }

    /// The failure that `code` says, or `None` for `SQLITE_OK`.
    pub const fn new(code: c_int) -> Option<Self> {
        match NonZero::new(code) {
            Some(code) => Some(Self(code)),
            None => None,
        }
    }

    /// `Ok` for `SQLITE_OK`, else the failure.
    ///
    /// # Errors
    /// The code itself.
    pub const fn check(code: c_int) -> Result<(), Self> {
        match Self::new(code) {
            Some(code) => Err(code),
            None => Ok(()),
        }
    }

    /// The number.
    pub const fn get(self) -> c_int {
        self.0.get()
    }

    /// The primary code: the lowest eight bits.
    pub const fn primary(self) -> c_int {
        self.get() & 0xff
    }
}

/// Extended codes of SQLite's own end far below these.
const FIRST_OF_FUNCTIONS: c_int = 0x80;

impl Code {
    /// The code of a SQL function that fails because of `error`.
    ///
    /// It is an extended one of `SQLITE_ERROR`, which `docs/sql.md` lists: what else says what is wrong would also have SQLite
    /// do something. After `SQLITE_IOERR` and `SQLITE_FULL` it rolls the transaction of the connection back, and
    /// programs take `SQLITE_CORRUPT` for damage to the database that they have open.
    pub fn of_function(error: &Error) -> Self {
        let number = match error.kind() {
            ErrorKind::Interrupted => return Self::INTERRUPT,
            ErrorKind::NotFound | ErrorKind::Denied if error.is_of_the_system() => 15,
            ErrorKind::Config => 1,
            ErrorKind::NotFound => 2,
            ErrorKind::AlreadyExists => 3,
            ErrorKind::Denied => 4,
            ErrorKind::Unavailable => 5,
            ErrorKind::Timeout => 6,
            ErrorKind::WrongAnswer => 7,
            ErrorKind::Corrupt => 8,
            ErrorKind::NotADatabase => 9,
            ErrorKind::Conflict => 10,
            ErrorKind::Unsupported => 11,
            ErrorKind::ReadOnly => 12,
            ErrorKind::Busy => 13,
            ErrorKind::NoSpace => 14,
            ErrorKind::Io => 15,
            ErrorKind::NoBucket => 16,
        };
        Self::known(ffi::SQLITE_ERROR | (FIRST_OF_FUNCTIONS + number) << 8)
    }
}

impl From<ErrorKind> for Code {
    fn from(kind: ErrorKind) -> Self {
        match kind {
            ErrorKind::Config
            | ErrorKind::NotFound
            | ErrorKind::NoBucket
            | ErrorKind::AlreadyExists
            | ErrorKind::Unsupported => Self::CANTOPEN,
            ErrorKind::Denied => Self::PERM,
            ErrorKind::Unavailable
            | ErrorKind::Timeout
            | ErrorKind::WrongAnswer
            | ErrorKind::Conflict
            | ErrorKind::Io => Self::IOERR,
            ErrorKind::Corrupt => Self::CORRUPT,
            ErrorKind::NotADatabase => Self::NOTADB,
            ErrorKind::ReadOnly => Self::READONLY,
            ErrorKind::Busy => Self::BUSY,
            ErrorKind::NoSpace => Self::FULL,
            ErrorKind::Interrupted => Self::INTERRUPT,
        }
    }
}

impl From<&Error> for Code {
    fn from(error: &Error) -> Self {
        error.kind().into()
    }
}

impl From<Error> for Code {
    fn from(error: Error) -> Self {
        Self::from(&error)
    }
}

impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match name_of(*self) {
            Some(name) => f.write_str(name),
            None => write!(f, "SQLite result code {}", self.get()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ok_is_not_a_failure() {
        assert_eq!(Code::check(ffi::SQLITE_OK), Ok(()));
        assert_eq!(Code::new(0), None);
        assert_eq!(Code::check(ffi::SQLITE_BUSY), Err(Code::BUSY));
    }

    #[test]
    fn a_result_is_as_small_as_the_code() {
        assert_eq!(size_of::<Result<(), Code>>(), size_of::<c_int>());
    }

    #[test]
    fn names_itself() {
        assert_eq!(Code::IOERR_SHMLOCK.to_string(), "SQLITE_IOERR_SHMLOCK");
        assert_eq!(Code::new(9999).map(|c| c.to_string()).as_deref(), Some("SQLite result code 9999"));
        assert_eq!(Code::IOERR_SHMLOCK.primary(), Code::IOERR.get());
    }

    #[test]
    fn kinds_that_a_busy_handler_would_retry_are_only_busy() {
        for kind in [
            ErrorKind::Unavailable,
            ErrorKind::Timeout,
            ErrorKind::WrongAnswer,
            ErrorKind::Conflict,
            ErrorKind::Io,
        ] {
            assert_eq!(Code::from(kind), Code::IOERR, "{kind:?}");
        }
        assert_eq!(Code::from(&Error::new(ErrorKind::Busy, "x")), Code::BUSY);
    }

    #[test]
    fn a_failed_function_says_what_is_wrong_and_stays_a_plain_error() {
        let of = |kind| Code::of_function(&Error::new(kind, "x"));
        assert_eq!(of(ErrorKind::Config).get(), 33_025);
        assert_eq!(of(ErrorKind::NotFound).get(), 33_281);
        assert_eq!(of(ErrorKind::Corrupt).get(), 34_817);
        assert_eq!(of(ErrorKind::NoBucket).get(), 36_865);
        assert_eq!(of(ErrorKind::Corrupt).primary(), Code::ERROR.get());
        assert_eq!(of(ErrorKind::Interrupted), Code::INTERRUPT);
    }

    #[test]
    fn a_file_of_this_machine_is_not_taken_for_the_store() {
        for kind in [std::io::ErrorKind::NotFound, std::io::ErrorKind::PermissionDenied] {
            let local = Error::io("cannot write x.db", std::io::Error::from(kind)).context("x");
            assert_eq!(Code::of_function(&local), Code::of_function(&Error::new(ErrorKind::Io, "x")));
        }
    }
}
