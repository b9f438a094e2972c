//! What stores that have folders do alike: listing folder by folder, and names of files that are not complete.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::{BoxFuture, TryFutureExt as _};
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};

use super::ObjectInfo;
use crate::clock::Timestamp;
use crate::error::{Error, ErrorKind, Result};

/// How the name of a file begins and ends that is not complete. Neither we nor Litestream take it for an LTX file.
const TEMPORARY: (&str, &str) = (".", ".tmp");
/// The number of folders that are looked into at the same time.
const FOLDERS: usize = 8;
/// A temporary file of this age was left by a crash.
const ABANDONED: Duration = Duration::from_secs(24 * 3600);

/// A file or a folder in a folder.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) kind: Kind,
}

/// What an entry is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Folder,
    File {
        /// In bytes.
        size: u64,
        /// When it was last written, as far as the store knows.
        modified: Timestamp,
    },
}

/// The files whose keys begin with `prefix`, in the order of keys. `entries_of` gives what is in the folder at a path
/// without slashes at either end. Any number of folders may lie below: some of one depth are looked into at the same time.
pub(super) async fn files_below<'a>(
    prefix: &str,
    entries_of: impl Fn(String) -> BoxFuture<'a, Result<Vec<Entry>>> + Send,
) -> Result<Vec<ObjectInfo>> {
    let mut folders = vec![folder_of(prefix).to_owned()];
    let mut found = Vec::new();
    while !folders.is_empty() {
        let ask = |folder: String| entries_of(folder.clone()).map_ok(|entries| (folder, entries));
        let asked: Vec<_> = folders.drain(..).map(ask).collect();
        let mut answers = stream::iter(asked).buffer_unordered(FOLDERS);
        while let Some((folder, entries)) = answers.try_next().await? {
            for Entry { name, kind } in entries {
                let key = join(&folder, &name);
                match kind {
                    Kind::Folder if key.starts_with(prefix) || prefix.starts_with(&format!("{key}/")) => {
                        folders.push(key);
                    }
                    Kind::File { size, modified } if key.starts_with(prefix) && !is_temporary(&name) => {
                        found.push(ObjectInfo { key, size, timestamp: modified, stored: modified });
                    }
                    _ => {}
                }
            }
        }
    }
    found.sort_unstable_by(|a, b| a.key.cmp(&b.key));
    Ok(found)
}

/// The path of `name` in `folder`, which may be the root.
pub(super) fn join(folder: &str, name: &str) -> String {
    if folder.is_empty() { name.to_owned() } else { format!("{folder}/{name}") }
}

/// The folder that `key` is in, without a slash at its end.
pub(super) fn folder_of(key: &str) -> &str {
    key.rsplit_once('/').map_or("", |(folder, _)| folder)
}

/// A name that nobody has, in the folder of `key`.
///
/// # Errors
/// `Io` if the system has no random numbers.
pub(super) fn temporary_key(key: &str) -> Result<String> {
    let random = getrandom::u64();
    let random = random.map_err(|e| Error::new(ErrorKind::Io, format!("no random numbers: {e}")))?;
    let name = key.rsplit('/').next().unwrap_or(key);
    Ok(join(folder_of(key), &format!("{}{name}.{random:016x}{}", TEMPORARY.0, TEMPORARY.1)))
}

/// Whether `name`, without its folder, is that of a file that is not complete.
fn is_temporary(name: &str) -> bool {
    name.starts_with(TEMPORARY.0) && name.ends_with(TEMPORARY.1)
}

/// The names of those of `entries` that a crash left, when it is `now` by the store's clock.
pub(super) fn abandoned(entries: Vec<Entry>, now: Timestamp) -> impl Iterator<Item = String> {
    entries.into_iter().filter_map(move |entry| {
        let Kind::File { modified, .. } = entry.kind else { return None };
        let age = now.as_millis().saturating_sub(modified.as_millis());
        (is_temporary(&entry.name) && age > ABANDONED.as_millis() as i64).then_some(entry.name)
    })
}

/// The folders that were freed of what crashes left.
#[derive(Default)]
pub(super) struct Swept(Mutex<HashSet<String>>);

impl Swept {
    /// Whether `folder` is named for the first time.
    pub(super) fn first_time(&self, folder: &str) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(folder.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;
    use crate::runtime::block_on;

    fn file(name: &str) -> Entry {
        Entry { name: name.to_owned(), kind: Kind::File { size: 1, modified: Timestamp::from_millis(0) } }
    }

    fn folder(name: &str) -> Entry {
        Entry { name: name.to_owned(), kind: Kind::Folder }
    }

    #[test]
    fn what_begins_with_a_prefix_is_found_and_no_other_folder_is_looked_into() {
        let tree = |path: String| {
            let entries = match path.as_str() {
                "" => vec![folder("app"), folder("apple"), folder("other"), file("app.ltx")],
                "app" => vec![folder("0"), folder("1")],
                "app/0" => vec![file("b"), file(".c.tmp"), file("a")],
                "app/1" => vec![file("d")],
                "apple" => vec![file("x")],
                other => panic!("{other} is of no interest"),
            };
            async { Ok(entries) }.boxed()
        };
        let keys = |prefix: &'static str| -> Vec<String> {
            let found = block_on(async move { files_below(prefix, tree).await }).unwrap();
            found.into_iter().map(|file| file.key).collect()
        };
        assert_eq!(keys("app/"), ["app/0/a", "app/0/b", "app/1/d"]);
        assert_eq!(keys("app/0/b"), ["app/0/b"]);
        assert_eq!(keys("app"), ["app.ltx", "app/0/a", "app/0/b", "app/1/d", "apple/x"]);
    }

    #[test]
    fn a_temporary_name_is_in_the_same_folder_and_is_no_other_files() {
        for (key, start) in [("a/b.ltx", "a/.b.ltx."), ("b.ltx", ".b.ltx.")] {
            let name = temporary_key(key).unwrap();
            assert!(name.starts_with(start) && name.ends_with(".tmp"), "{name}");
            assert!(is_temporary(name.rsplit('/').next().unwrap()));
        }
        let old = Timestamp::from_millis(0);
        let day = |millis| abandoned(vec![file(".a.tmp"), file("b"), folder(".c.tmp")], millis).count();
        assert_eq!((day(old), day(Timestamp::from_millis(86_400_001))), (0, 1));
    }
}
