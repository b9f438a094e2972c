//! Paths and authorities as users write them in URLs and settings.

use std::path::PathBuf;

use percent_encoding::percent_decode_str;

use crate::error::{Error, Result};

/// What to write in the place of `~` or `~/…`.
pub(in crate::store) fn at_home(path: &str) -> String {
    let home = std::env::var("HOME").unwrap_or_else(|_| "/home/me".to_owned());
    format!("'~' is not expanded in '{path}'; write file://{home}{}", path.trim_start_matches('~'))
}

/// The path of a setting that names a file, where `~/` is the user's folder, as in Litestream's configuration file.
pub(in crate::store) fn home(path: &str) -> PathBuf {
    match (path.strip_prefix("~/"), std::env::var_os("HOME")) {
        (Some(rest), Some(home)) => PathBuf::from(home).join(rest),
        _ => PathBuf::from(path),
    }
}

/// Authority and path of what follows the scheme of a replica URL, both percent-encoded. `example` is the provider's
/// URL as users write it.
///
/// # Errors
/// `Config` if there is no authority.
pub(in crate::store) fn authority_and_path<'a>(rest: &'a str, example: &str) -> Result<(&'a str, &'a str)> {
    // Tcl makes one slash of two in the name of a database, and of what a URI has in it.
    let place = rest.strip_prefix("//").or_else(|| rest.strip_prefix('/'));
    let place = place.ok_or_else(|| Error::config(format!("write the replica URL as {example}")))?;
    Ok(place.split_once('/').unwrap_or((place, "")))
}

/// A part of a URL without its percent-encoding.
///
/// # Errors
/// `Config` if it is not UTF-8 or has a zero byte.
pub(in crate::store) fn decode(text: &str) -> Result<String> {
    let decoded = percent_decode_str(text).decode_utf8();
    let decoded = decoded.map_err(|_| Error::config("the path of the replica URL is not UTF-8"))?;
    if decoded.contains('\0') {
        return Err(Error::config("the path of the replica URL has a zero byte"));
    }
    Ok(decoded.into_owned())
}

/// The path without empty, `.` and `..` segments and without slashes at either end, as Go's `path.Clean` leaves it.
pub(in crate::store) fn clean_path(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            other => parts.push(other),
        }
    }
    parts.join("/")
}
