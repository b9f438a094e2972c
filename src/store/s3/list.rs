//! Listing: ListObjectsV2, page by page.

use reqwest::Method;
use serde::Deserialize;

use super::session::{Request, Session};
use super::{S3Store, xml};
use crate::clock::Timestamp;
use crate::error::{Error, Result};
use crate::ltx::{FileId, FileName, Level, Txid};
use crate::store::{FileInfo, Listing, RawInfo};

/// A page has at most 1000 entries of about 500 bytes.
const MAX_PAGE: usize = 16 << 20;

#[derive(Deserialize)]
pub(super) struct Page {
    #[serde(rename = "IsTruncated", default)]
    is_truncated: bool,
    #[serde(rename = "NextContinuationToken")]
    next: Option<String>,
    #[serde(rename = "Contents", default)]
    contents: Vec<Object>,
}

#[derive(Deserialize)]
struct Object {
    #[serde(rename = "Key")]
    key: String,
    #[serde(rename = "Size")]
    size: u64,
    #[serde(rename = "LastModified")]
    last_modified: String,
}

impl Object {
    fn stored(&self) -> Result<Timestamp> {
        let unclear = |_| Error::wrong_answer(format!("the store lists '{}' without a time", self.key));
        self.last_modified.parse().map_err(unclear)
    }
}

impl Page {
    /// Size and time of the object at `key`.
    pub(super) fn find(&self, key: &str) -> Result<Option<(u64, Timestamp)>> {
        let found = self.contents.iter().find(|object| object.key == key);
        found.map(|object| Ok((object.size, object.stored()?))).transpose()
    }
}

/// Where the next page begins.
pub(super) enum Start {
    After(String),
    Token(String),
}

impl S3Store {
    pub(super) async fn list_files(&self, level: Level, from: Txid) -> Result<Vec<FileInfo>> {
        let prefix = self.prefix(level);
        // Names begin with their first transaction, so this text sorts before all that are wanted.
        let start = (from > Txid::ONE).then(|| Start::After(format!("{prefix}{from}")));
        let mut files = self
            .list_objects(&format!("list level {level}"), &prefix, start, |object| {
                file(object, level, &prefix)
            })
            .await?;
        files.retain(|file| file.id.name.min() >= from);
        // Stores differ in what they do with `start-after`, and some in order.
        files.sort_unstable_by_key(|file| file.id);
        files.dedup_by_key(|file| file.id);
        Ok(files)
    }

    pub(super) async fn list_below(&self, folder: &str) -> Result<Vec<RawInfo>> {
        let (root, prefix) = (self.below(""), self.below(&format!("{folder}/")));
        let mut found = self
            .list_objects(&format!("list '{prefix}'"), &prefix, None, |object| raw(object, &root))
            .await?;
        found.sort_unstable_by(|a, b| a.path.cmp(&b.path));
        found.dedup_by(|a, b| a.path == b.path);
        Ok(found)
    }

    /// What `read` makes of each object whose key begins with `prefix`.
    async fn list_objects<T>(
        &self,
        what: &str,
        prefix: &str,
        mut start: Option<Start>,
        read: impl Fn(&Object) -> Result<Option<T>>,
    ) -> Result<Vec<T>> {
        let session = self.session().await?;
        let mut found = Vec::new();
        loop {
            let page = self.page(&session, what, prefix, start.as_ref()).await?;
            for object in &page.contents {
                found.extend(read(object)?);
            }
            start = match next(page, start.as_ref()) {
                Some(next) => Some(next?),
                None => return Ok(found),
            };
        }
    }

    /// The first page of a listing of all levels.
    pub(super) async fn list_first_objects(&self) -> Result<Listing> {
        let session = self.session().await?;
        let page = self.page(&session, "list all levels", &self.prefix_of_all(), None).await?;
        let mut files = Vec::new();
        for object in &page.contents {
            for level in Level::all() {
                files.extend(file(object, level, &self.prefix(level))?);
            }
        }
        files.sort_unstable_by_key(|file| file.id);
        files.dedup_by_key(|file| file.id);
        if !page.is_truncated {
            return Ok(Listing { files, rest: None });
        }
        // Pages are in the order of the keys, which is that of levels and names. Of files that begin at
        // one transaction the page may have only some.
        let last = files.last().map_or((Level::L0, Txid::ONE), |file| (file.id.level, file.id.name.min()));
        files.retain(|file| (file.id.level, file.id.name.min()) < last);
        Ok(Listing { files, rest: Some(last) })
    }

    /// A page of the objects whose keys begin with `prefix`.
    pub(super) async fn page(
        &self,
        session: &Session,
        what: &str,
        prefix: &str,
        start: Option<&Start>,
    ) -> Result<Page> {
        let mut request = Request::bucket(Method::GET).query("list-type", "2").query("prefix", prefix);
        request = match start {
            Some(Start::After(key)) => request.query("start-after", key),
            Some(Start::Token(token)) => request.query("continuation-token", token),
            None => request,
        };
        // Signed in the order of the names.
        request.query.sort_unstable();
        let response = session.send(&request).await.map_err(|failure| session.explain(failure, what))?;
        let body = session.http.read_all(response, MAX_PAGE).await;
        let page = body.and_then(|body| xml::document(&body, "ListBucketResult"));
        let place = session.http.endpoint();
        page.map_err(|e| e.context(format_args!("cannot {what} of {} at {place}", self.target())))
    }
}

/// The file that an object is, if it is one.
fn file(object: &Object, level: Level, prefix: &str) -> Result<Option<FileInfo>> {
    let name = object.key.strip_prefix(prefix).and_then(|name| name.parse::<FileName>().ok());
    let Some(name) = name else { return Ok(None) };
    let timestamp = object.stored()?;
    Ok(Some(FileInfo { id: FileId::new(level, name), size: object.size, timestamp }))
}

/// An object that may be anything. Some tools mark folders with objects whose keys end with a slash.
fn raw(object: &Object, root: &str) -> Result<Option<RawInfo>> {
    match object.key.strip_prefix(root) {
        Some(path) if !path.ends_with('/') => {
            Ok(Some(RawInfo { path: path.to_owned(), size: object.size, timestamp: object.stored()? }))
        }
        _ => Ok(None),
    }
}

/// Where the page after `page` begins, if there is one.
fn next(page: Page, start: Option<&Start>) -> Option<Result<Start>> {
    if !page.is_truncated {
        return None;
    }
    let next = match (page.next.filter(|token| !token.is_empty()), page.contents.into_iter().next_back()) {
        (Some(token), _) => Start::Token(token),
        (None, Some(last)) => Start::After(last.key),
        (None, None) => {
            return Some(Err(Error::wrong_answer("the store's listing goes on without saying where")));
        }
    };
    let repeats = match (&next, start) {
        (Start::Token(next), Some(Start::Token(this))) => next == this,
        (Start::After(next), Some(Start::After(this))) => next <= this,
        _ => false,
    };
    Some(if repeats { Err(Error::wrong_answer("the store's listing goes in circles")) } else { Ok(next) })
}
