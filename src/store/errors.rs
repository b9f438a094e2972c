//! The errors that every store words alike. Objects are named by their keys.

use super::bucket::ByteRange;
use crate::error::{Error, ErrorKind, Result};

pub(in crate::store) fn not_found(url: &str, key: &str) -> Error {
    Error::new(ErrorKind::NotFound, format!("replica {url} has no {key}"))
}

pub(in crate::store) fn already_exists(url: &str, key: &str) -> Error {
    Error::new(ErrorKind::AlreadyExists, format!("replica {url} has {key} already"))
}

pub(in crate::store) fn too_short(url: &str, key: &str, range: ByteRange, size: u64) -> Error {
    let wanted = match range {
        ByteRange::All => "all of it".to_owned(),
        ByteRange::Bounded { offset, len } => format!("bytes {offset} to {}", offset.saturating_add(len)),
        ByteRange::Prefix { len } => format!("its first {len} bytes"),
        ByteRange::Suffix { len } => format!("its last {len} bytes"),
    };
    Error::wrong_answer(format!(
        "{key} of replica {url} has {size} bytes, and {wanted} were asked for; it was cut off or replaced, or \
         something between the store and this machine answers in its place"
    ))
}

/// Checks the size of an object, as the answer to a request for it has it, against the listing's.
///
/// # Errors
/// `WrongAnswer` if they differ.
pub(in crate::store) fn check_size(url: &str, key: &str, listed: u64, found: u64) -> Result<()> {
    if listed == found {
        return Ok(());
    }
    Err(Error::wrong_answer(format!(
        "{key} of replica {url} has {listed} bytes by the listing, and an answer of {found} bytes came: it was \
         replaced, or something between the store and this machine answers in its place"
    )))
}
