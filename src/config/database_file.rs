//! The file that a database's name means.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use std::path::PathBuf;

use percent_encoding::percent_decode_str;

use super::value;
use crate::error::{Error, Result};

/// The file that SQLite opens for `name`: a path, or a URI of the form `file:path?parameters#fragment`.
///
/// Source: <https://www.sqlite.org/uri.html>, section 3.
///
/// # Errors
/// `Config` if the name means no file: a database in memory, a path that a shell would have expanded, or a URI that
/// SQLite refuses.
pub fn database_file(name: &str) -> Result<PathBuf> {
    let Some(uri) = name.strip_prefix("file:") else {
        value::path(name)?;
        return file(name, name.as_bytes().to_vec());
    };
    let (uri, _fragment) = uri.split_once('#').unwrap_or((uri, ""));
    let (path, query) = uri.split_once('?').unwrap_or((uri, ""));
    let path =
        match path.strip_prefix("//").map(|rest| rest.find('/').map_or((rest, ""), |at| rest.split_at(at))) {
            None => path,
            Some(("" | "localhost", path)) => path,
            Some((host, _)) => {
                return Err(Error::config(format!(
                    "'{name}' names a file of the machine '{host}': write file:/path, or file:///path"
                )));
            }
        };
    for parameter in query.split('&') {
        let (key, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        if matches!((&*decode(key), &*decode(value)), (b"mode", b"memory") | (b"vfs", b"memdb")) {
            return Err(in_memory(name));
        }
    }
    file(name, decode(path))
}

/// The parameters of the URI `name`; none if it is a path.
pub fn uri_parameters(name: &str) -> Vec<(String, String)> {
    let Some(uri) = name.strip_prefix("file:") else { return Vec::new() };
    let uri = uri.split_once('#').map_or(uri, |(uri, _)| uri);
    let Some((_, query)) = uri.split_once('?') else { return Vec::new() };
    let decoded = |text: &str| String::from_utf8_lossy(&decode(text)).into_owned();
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(k, v)| (decoded(k), decoded(v)))
        .collect()
}

fn decode(text: &str) -> Vec<u8> {
    percent_decode_str(text).collect()
}

fn file(name: &str, path: Vec<u8>) -> Result<PathBuf> {
    match &*path {
        b":memory:" => Err(in_memory(name)),
        b"" => Err(Error::config(format!("'{name}' names no file: give the path of one"))),
        path if path.contains(&0) => {
            Err(Error::config(format!("'{name}' names a file with a zero byte in it")))
        }
        _ => Ok(PathBuf::from(OsString::from_vec(path))),
    }
}

fn in_memory(name: &str) -> Error {
    Error::config(format!(
        "'{name}' is a database in memory, and a restore writes a file: give the path of one (a file of that \
         very name is './:memory:')"
    ))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::error::ErrorKind;

    #[test]
    fn names_mean_the_files_that_sqlite_opens() {
        for (name, path) in [
            ("copy.db", "copy.db"),
            ("/data/a?b#c%20.db", "/data/a?b#c%20.db"),
            ("./:memory:", "./:memory:"),
            ("file:copy.db", "copy.db"),
            ("file:/data/x.db?x=1", "/data/x.db"),
            ("file:///data/x.db?mode=rwc&cache=shared#part", "/data/x.db"),
            ("file://localhost/data/x.db", "/data/x.db"),
            ("file:a%20b%3f.db?", "a b?.db"),
            ("file:x#y?mode=memory", "x"),
            ("filed.db", "filed.db"),
        ] {
            assert_eq!(database_file(name).unwrap(), Path::new(path), "{name}");
        }
    }

    #[test]
    fn what_names_no_file_is_refused() {
        for name in [
            ":memory:",
            "file::memory:",
            "file::memory:?cache=shared",
            "file:%3amemory%3a",
            "file:x.db?mode=memory",
            "file:/x.db?a=b&mode=memory&cache=shared",
            "file:/x.db?vfs=memdb",
            "file:",
            "file:?mode=rw",
            "file://",
            "file://server/share/x.db",
            "file:a%00b",
            "",
        ] {
            let refused = database_file(name).unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::Config, "{name}");
            assert!(refused.to_string().contains(name), "{refused}");
        }
    }
}
