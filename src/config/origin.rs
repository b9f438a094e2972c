//! Where the value of a setting was found.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

/// Origin of a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// This parameter of the SQLite URI.
    Uri(&'static str),
    /// This setting in the query of a replica's URL.
    Url(&'static str),
    /// This option of a SQL function.
    Option(&'static str),
    /// A line of a configuration file, and its key there.
    File(Line, Arc<str>),
    /// This environment variable.
    Env(&'static str),
    /// An earlier open of the database gave it.
    Remembered(&'static str),
    /// Nobody gave it.
    Default(&'static str),
}

/// A line of a configuration file: `/etc/litestream.yml:12`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Line {
    /// The file.
    pub(super) file: Arc<Path>,
    /// The line, from 1; 0 if it is no file.
    pub(super) line: usize,
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => self.file.display().fmt(f),
            line => write!(f, "{}:{line}", self.file.display()),
        }
    }
}

impl Origin {
    /// The place in front of a message about the value.
    pub(super) fn label(&self) -> String {
        match self {
            Self::Uri(name)
            | Self::Url(name)
            | Self::Option(name)
            | Self::Env(name)
            | Self::Remembered(name)
            | Self::Default(name) => (*name).to_owned(),
            Self::File(line, key) => format!("{line}: {key}"),
        }
    }

    /// Whether a configuration file gave the value.
    pub(super) const fn is_file(&self) -> bool {
        matches!(self, Self::File(..))
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Uri(name) => write!(f, "URI parameter {name}"),
            Self::Url(_) => f.write_str("replica URL"),
            Self::Option(name) => write!(f, "option {name}"),
            Self::File(line, _) => line.fmt(f),
            Self::Env(name) => f.write_str(name),
            Self::Remembered(_) => f.write_str("remembered"),
            Self::Default(_) => f.write_str("default"),
        }
    }
}
