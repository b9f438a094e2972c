//! Transaction ids, levels and file names.

use std::fmt;
use std::num::NonZeroU64;
use std::str::FromStr;

use crate::error::{Error, Result};

/// A transaction id, 1 and up, written as 16 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Txid(NonZeroU64);

impl Txid {
    /// The first transaction of every replica.
    pub const ONE: Self = Self(NonZeroU64::MIN);

    /// The transaction id `n`, or `None` for zero.
    pub const fn new(n: u64) -> Option<Self> {
        match NonZeroU64::new(n) {
            Some(n) => Some(Self(n)),
            None => None,
        }
    }

    /// The number.
    pub const fn get(self) -> u64 {
        self.0.get()
    }

    /// The transaction that follows.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for Txid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for Txid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Txid {
    type Err = Error;

    /// Reads exactly 16 lower-case hexadecimal digits.
    fn from_str(s: &str) -> Result<Self> {
        let well_formed = s.len() == 16 && s.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        let n = if well_formed { u64::from_str_radix(s, 16).ok() } else { None };
        n.and_then(Self::new).ok_or_else(|| {
            Error::config(format!("'{s}' is not a TXID; write 16 hexadecimal digits, such as {}", Self::ONE))
        })
    }
}

/// A level of the replica: 0 one file per sync, 1 to 8 compactions, 9 snapshots.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Level(u8);

impl Level {
    /// One file per sync.
    pub const L0: Self = Self(0);
    /// Full snapshots.
    pub const SNAPSHOT: Self = Self(9);

    /// Level `n`, or `None` above 9.
    pub const fn new(n: u8) -> Option<Self> {
        if n <= 9 { Some(Self(n)) } else { None }
    }

    /// The number.
    pub const fn get(self) -> u8 {
        self.0
    }

    /// All levels, 0 first.
    pub fn all() -> impl DoubleEndedIterator<Item = Self> {
        (0..=9).map(Self)
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "L{}", self.0)
    }
}

/// The transactions that a file holds, as its name says: `{min}-{max}.ltx`.
///
/// Invariant: `min <= max`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileName {
    min: Txid,
    max: Txid,
}

impl FileName {
    /// The name of a file that holds `min` to `max`, or `None` if they are the wrong way round.
    pub fn new(min: Txid, max: Txid) -> Option<Self> {
        (min <= max).then_some(Self { min, max })
    }

    /// The name of a file that holds one transaction.
    pub const fn single(txid: Txid) -> Self {
        Self { min: txid, max: txid }
    }

    /// The first transaction.
    pub const fn min(self) -> Txid {
        self.min
    }

    /// The last transaction.
    pub const fn max(self) -> Txid {
        self.max
    }

    /// Whether a file of this name is a full snapshot: it starts at transaction 1.
    pub fn is_snapshot(self) -> bool {
        self.min == Txid::ONE
    }
}

impl fmt::Display for FileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}.ltx", self.min, self.max)
    }
}

impl fmt::Debug for FileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for FileName {
    type Err = Error;

    fn from_str(s: &str) -> Result<Self> {
        let parsed = s
            .strip_suffix(".ltx")
            .and_then(|stem| stem.split_once('-'))
            .and_then(|(min, max)| Self::new(min.parse().ok()?, max.parse().ok()?));
        parsed.ok_or_else(|| Error::corrupt(format!("'{s}' is not the name of an LTX file")))
    }
}

/// A file of a replica: its level and its name. Files order by level, then by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileId {
    /// The level.
    pub level: Level,
    /// The name.
    pub name: FileName,
}

impl FileId {
    /// The file `name` of `level`.
    pub const fn new(level: Level, name: FileName) -> Self {
        Self { level, name }
    }

    /// The file of level 0 that holds `txid` alone.
    pub const fn single(txid: Txid) -> Self {
        Self::new(Level::L0, FileName::single(txid))
    }
}

impl fmt::Display for FileId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "level {} file {}", self.level, self.name)
    }
}
