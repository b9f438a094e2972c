//! Where a replica in a folder is: `file:///path`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::FileBucket;
use crate::error::{Error, Result};
use crate::files;
use crate::store::paths::{at_home, decode, home};
use crate::store::spelling::escaped;
use crate::store::{Bucket, Layout, Opening, Provider, Settings, Site, Source, without_secrets};

/// Folders of the local file system.
pub(in crate::store) static PROVIDER: Provider = Provider {
    name: "file",
    schemes: &["file"],
    example: "file:///path",
    settings: &[],
    environment: &[],
    layout: Layout::Ltx,
    takes_common_endpoint: true,
    is_remote: false,
    locate,
};

/// The folder of a replica, absolute.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Folder(PathBuf);

impl Site for Folder {
    fn url(&self) -> String {
        url_of(&self.0)
    }

    /// The bucket is the replica's folder.
    fn root(&self) -> &str {
        ""
    }

    fn identity(&self) -> Vec<(&'static str, String)> {
        Vec::new()
    }

    fn folder(&self) -> Option<PathBuf> {
        Some(files::resolved(&self.0))
    }

    fn open(&self, opening: &Opening<'_>) -> Arc<dyn Bucket> {
        let bucket = FileBucket::new(&self.0);
        Arc::new(match opening.database {
            Some(database) => bucket.of_database(database),
            None => bucket,
        })
    }
}

/// The URL of a folder.
pub(super) fn url_of(folder: &Path) -> String {
    format!("file://{}", escaped(&folder.to_string_lossy()))
}

fn locate(source: &Source<'_>, settings: &Settings<'_>) -> Result<Arc<dyn Site>> {
    let path = match source {
        Source::Url { rest, .. } => folder(rest)?,
        Source::Fields => {
            let path = settings.field("path").ok_or_else(|| {
                Error::config(
                    "a replica of type file needs its folder; give the setting path, or url: file:///path",
                )
            })?;
            let path =
                std::path::absolute(home(&path)).map_err(|e| Error::config(format!("path '{path}': {e}")))?;
            lexically_clean(&path)
        }
    };
    Ok(Arc::new(Folder(path)))
}

fn folder(rest: &str) -> Result<PathBuf> {
    let path = match rest.strip_prefix("//") {
        Some(authority) if authority.starts_with("localhost/") => &authority["localhost".len()..],
        Some(authority) if authority.is_empty() || authority.starts_with('/') => authority,
        Some(home) if home == "~" || home.starts_with("~/") => return Err(Error::config(at_home(home))),
        Some(host) => {
            let shown = without_secrets(&format!("file://{host}"));
            let path = host.rsplit_once('@').map_or(host, |(_, path)| path);
            return Err(Error::config(format!(
                "'{shown}' names a host; write file:///{path} for an absolute path, or file:{path} for a relative one"
            )));
        }
        None if rest == "~" || rest.starts_with("~/") => return Err(Error::config(at_home(rest))),
        None => rest,
    };
    let path = decode(path)?;
    if path.is_empty() {
        return Err(Error::config("the replica URL names no folder; write file:///path"));
    }
    let path = std::path::absolute(&path)
        .map_err(|e| Error::config(format!("'{path}' cannot be made an absolute path: {e}")))?;
    Ok(lexically_clean(&path))
}

/// The path without `.` and `..`, so that equal folders are equal targets.
fn lexically_clean(path: &Path) -> PathBuf {
    let mut clean = PathBuf::new();
    for part in path.components() {
        match part {
            std::path::Component::ParentDir => {
                clean.pop();
            }
            std::path::Component::CurDir => {}
            other => clean.push(other),
        }
    }
    clean
}

#[cfg(test)]
mod tests {
    use crate::store::Location;

    #[test]
    fn what_may_be_a_password_is_not_repeated() {
        for (url, shown) in [
            ("file://nas/backups/app", "'file://nas/backups/app'"),
            ("file://me:hunter2@nas/backups/app", "'file://…@nas/backups/app'"),
            ("file://me:hunter2/@nas/app", "'file://…@nas/app'"),
        ] {
            let e = Location::parse(url, &|_: &str| None).unwrap_err().to_string();
            assert!(e.contains(shown) && e.contains("file:///nas/") && !e.contains("hunter2"), "{e}");
        }
    }
}
