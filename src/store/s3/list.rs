//! Listing: ListObjectsV2, page by page.

use reqwest::Method;
use serde::Deserialize;

use super::session::{Request, Session};
use super::{S3Store, xml};
use crate::clock::Timestamp;
use crate::error::{Error, Result};
use crate::ltx::{FileId, FileName, Level, Txid};
use crate::store::{FileInfo, Listing};

/// A page has at most 1000 entries of about 500 bytes.
const MAX_PAGE: usize = 16 << 20;

#[derive(Deserialize)]
struct Page {
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

/// Where the next page begins.
enum Start {
    After(String),
    Token(String),
}

impl S3Store {
    pub(super) async fn list_objects(&self, level: Level, from: Txid) -> Result<Vec<FileInfo>> {
        let session = self.session().await?;
        let prefix = self.prefix(level);
        let mut files = Vec::new();
        // Names begin with their first transaction, so this text sorts before all that are wanted.
        let mut start = (from > Txid::ONE).then(|| Start::After(format!("{prefix}{from}")));
        loop {
            let what = format!("list level {level}");
            let page = self.page(&session, &what, &prefix, start.as_ref()).await?;
            for object in &page.contents {
                files.extend(file(object, level, &prefix)?.filter(|file| file.id.name.min() >= from));
            }
            start = match next(page, start.as_ref()) {
                Some(next) => Some(next?),
                None => break,
            };
        }
        // Stores differ in what they do with `start-after`, and some in order.
        files.sort_unstable_by_key(|file| file.id);
        files.dedup_by_key(|file| file.id);
        Ok(files)
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

    async fn page(&self, session: &Session, what: &str, prefix: &str, start: Option<&Start>) -> Result<Page> {
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
        page.map_err(|e| e.context(format_args!("cannot {what} of {}", self.target())))
    }
}

/// The file that an object is, if it is one.
fn file(object: &Object, level: Level, prefix: &str) -> Result<Option<FileInfo>> {
    let name = object.key.strip_prefix(prefix).and_then(|name| name.parse::<FileName>().ok());
    let Some(name) = name else { return Ok(None) };
    let timestamp: Timestamp = object
        .last_modified
        .parse()
        .map_err(|_| Error::corrupt(format!("the store lists '{}' without a time", object.key)))?;
    Ok(Some(FileInfo { id: FileId::new(level, name), size: object.size, timestamp }))
}

/// Where the page after `page` begins, if there is one.
fn next(page: Page, start: Option<&Start>) -> Option<Result<Start>> {
    if !page.is_truncated {
        return None;
    }
    let next = match (page.next.filter(|token| !token.is_empty()), page.contents.into_iter().next_back()) {
        (Some(token), _) => Start::Token(token),
        (None, Some(last)) => Start::After(last.key),
        (None, None) => return Some(Err(Error::corrupt("the store's listing goes on without saying where"))),
    };
    let repeats = match (&next, start) {
        (Start::Token(next), Some(Start::Token(this))) => next == this,
        (Start::After(next), Some(Start::After(this))) => next <= this,
        _ => false,
    };
    Some(if repeats { Err(Error::corrupt("the store's listing goes in circles")) } else { Ok(next) })
}
