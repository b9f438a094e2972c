//! What can be wrong with a replica.

use crate::error::{Error, ErrorKind};
use crate::ltx::{FileId, Txid};
use crate::store::FileInfo;

/// How bad a finding is. The worse is less.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// A state that the replica should have cannot be restored, or may be wrong.
    Error,
    /// Everything can be restored, but something is not as it should be.
    Warning,
}

impl Severity {
    /// The word for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
        }
    }
}

/// What is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Problem {
    /// The replica has no files.
    Empty,
    /// A file breaks the format or fails its checksum.
    Corrupt,
    /// A file is not what its name says, or is in a level where it cannot be.
    Name,
    /// Transactions are missing.
    Gap,
    /// Files of one level hold the same transactions.
    Overlap,
    /// Files of different databases, or of different histories of one.
    Mixed,
    /// A file cannot be read; nothing is known of its content.
    Unreadable,
    /// Something that is no LTX file lies among them.
    Stray,
    /// Sealed files were verified without a key.
    Sealed,
}

impl Problem {
    /// The word for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::Corrupt => "corrupt",
            Self::Name => "name",
            Self::Gap => "gap",
            Self::Overlap => "overlap",
            Self::Mixed => "mixed",
            Self::Unreadable => "unreadable",
            Self::Stray => "stray",
            Self::Sealed => "sealed",
        }
    }
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// What it is.
    pub problem: Problem,
    /// The LTX file it is about, if it is about one.
    pub file: Option<FileId>,
    /// The path below the replica's root, of what is no LTX file.
    pub path: Option<String>,
    /// The transactions it is about: first and last.
    pub txids: Option<(Txid, Txid)>,
    /// What is wrong, and what follows from it.
    pub message: String,
}

impl Finding {
    /// An error about one file.
    pub(super) fn of(problem: Problem, file: FileId, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            problem,
            file: Some(file),
            path: None,
            txids: Some((file.name.min(), file.name.max())),
            message: message.into(),
        }
    }

    /// A warning about one file.
    pub(super) fn warning(problem: Problem, file: FileId, message: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::of(problem, file, message) }
    }

    /// What reading a file failed with.
    pub(super) fn of_file(file: &FileInfo, error: &Error) -> Self {
        let problem = match error.kind() {
            ErrorKind::Corrupt | ErrorKind::Unsupported => Problem::Corrupt,
            _ => Problem::Unreadable,
        };
        Self::of(problem, file.id, error.to_string())
    }

    /// Missing transactions `first` to `last`.
    pub(super) fn gap(severity: Severity, (first, last): (Txid, Txid), message: String) -> Self {
        Self { severity, problem: Problem::Gap, file: None, path: None, txids: Some((first, last)), message }
    }

    /// No LTX files: nothing at all, or only what Litestream 0.3 left.
    pub(super) fn empty(url: &str, is_old: bool) -> Self {
        let message = if is_old {
            format!(
                "replica {url} has no LTX files: Litestream 0.3 wrote it. Only a restore verifies it: \
                 litestream_restore with {{\"integrity_check\": \"full\"}} to a file of its own"
            )
        } else {
            format!("replica {url} is empty: nothing was replicated to it, or the URL is wrong")
        };
        Self {
            severity: Severity::Error,
            problem: Problem::Empty,
            file: None,
            path: None,
            txids: None,
            message,
        }
    }

    /// `closed` of `all` files are sealed, and were verified without a key.
    pub(super) fn unopened(closed: usize, all: usize) -> Self {
        Self {
            severity: Severity::Warning,
            problem: Problem::Sealed,
            file: None,
            path: None,
            txids: None,
            message: format!(
                "{closed} of {all} files are sealed, and no identity is given that opens them: their bytes are whole and \
                 their names follow each other, their content was not checked. Give age_identity_file for that"
            ),
        }
    }

    pub(super) fn stray(path: &str) -> Self {
        Self {
            severity: Severity::Warning,
            problem: Problem::Stray,
            file: None,
            path: Some(path.to_owned()),
            txids: None,
            message: format!("{path} is not the name of an LTX file: no restore reads it"),
        }
    }
}
