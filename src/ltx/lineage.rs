//! The history that a file belongs to.

use std::fmt;
use std::num::NonZeroU64;

use serde::{Deserialize, Serialize};

use super::Header;
use crate::error::{Error, ErrorKind, Result};

/// The lineage of a replica: a random number that is born with its first full copy and that all its files carry,
/// whoever continues it. Files of two lineages never make a database together.
///
/// Files of Litestream and of version 0.1.0 carry none, and may continue or be continued by files that do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Lineage(NonZeroU64);

impl Lineage {
    /// The lineage with this number; `None` if that is 0, which stands for no lineage.
    pub fn new(number: u64) -> Option<Self> {
        NonZeroU64::new(number).map(Self)
    }

    /// The number.
    pub const fn get(self) -> u64 {
        self.0.get()
    }

    /// The lineage of files of which some carry `known`, when `header` is of another one.
    ///
    /// # Errors
    /// `Conflict` if both are known and differ.
    pub fn with(known: Option<Self>, header: &Header) -> Result<Option<Self>> {
        match (known, header.lineage) {
            (Some(before), Some(this)) if before != this => Err(two_histories(before, this, header)),
            (before, this) => Ok(before.or(this)),
        }
    }
}

impl fmt::Display for Lineage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

fn two_histories(before: Lineage, this: Lineage, header: &Header) -> Error {
    let before_it = header.min.get() - 1;
    Error::new(
        ErrorKind::Conflict,
        format!(
            "two histories lie in one replica: {} is of lineage {this}, the files before it are of lineage {before}. \
             What both make was never a state of either: move the files of one away (litestream_verify names them), \
             or restore TXID {before_it:016x}, to which lineage {before} leads alone",
            header.name()
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;
    use crate::ltx::{FileName, Txid};
    use crate::page::{PageCount, PageSize};

    #[test]
    fn only_two_that_are_known_contradict_each_other() {
        let name = FileName::single(Txid::new(7).unwrap());
        let plain = Header::new(PageSize::MIN, PageCount::new(1), name, Timestamp::from_millis(0));
        let (a, b) = (Lineage::new(1), Lineage::new(0xb));
        assert_eq!(Lineage::new(0), None);
        for (known, carried, expected) in [(None, None, None), (None, a, a), (a, None, a), (b, b, b)] {
            let header = Header { lineage: carried, ..plain };
            assert_eq!(Lineage::with(known, &header).unwrap(), expected);
        }
        let error = Lineage::with(a, &Header { lineage: b, ..plain }).unwrap_err().to_string();
        for words in
            ["lineage 0000000000000001", "lineage 000000000000000b", "TXID 0000000000000006", "0007.ltx"]
        {
            assert!(error.contains(words), "{error}");
        }
    }
}
