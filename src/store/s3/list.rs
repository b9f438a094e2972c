//! Listing: ListObjectsV2, page by page.

use reqwest::Method;
use serde::Deserialize;

use super::session::Request;
use super::{S3Store, SessionRef, xml};
use crate::clock::Timestamp;
use crate::error::{Error, Result};
use crate::ltx::{FileId, FileName, Level, Txid};
use crate::store::{self, FileInfo, Listing, Next, RawInfo, in_order, raw_in_order};

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
    /// Whether the keys rise, as those of most stores do.
    fn is_in_order(&self) -> bool {
        self.contents.is_sorted_by(|a, b| a.key < b.key)
    }

    /// Size and time of the object at `key`.
    pub(super) fn find(&self, key: &str) -> Result<Option<(u64, Timestamp)>> {
        let found = self.contents.iter().find(|object| object.key == key);
        found.map(|object| Ok((object.size, object.stored()?))).transpose()
    }
}

impl S3Store {
    pub(super) async fn list_files(&self, level: Level, from: Txid) -> Result<Vec<FileInfo>> {
        let (mut files, mut next) = (Vec::new(), None);
        loop {
            let page = self.page_of_files(level, from, next).await?;
            files.extend(page.entries);
            next = page.next;
            if next.is_none() {
                return Ok(in_order(files));
            }
        }
    }

    /// A page of the files of a level.
    pub(super) async fn page_of_files(
        &self,
        level: Level,
        from: Txid,
        next: Option<Next>,
    ) -> Result<store::Page<FileInfo>> {
        let prefix = self.prefix(level);
        // Names begin with their first transaction, so this text sorts before all that are wanted.
        let first = (from > Txid::ONE).then(|| Next::After(format!("{prefix}{from}")));
        let read = |object: &Object| file(object, level, &prefix);
        let what = format!("list level {level}");
        let mut page = self.page_of(&what, &prefix, next.or(first), read).await?;
        // Stores differ in what they do with `start-after`.
        page.entries.retain(|file| file.id.name.min() >= from);
        Ok(page)
    }

    pub(super) async fn list_below(&self, folder: &str) -> Result<Vec<RawInfo>> {
        let (mut found, mut next) = (Vec::new(), None);
        loop {
            let page = self.page_below(folder, next).await?;
            found.extend(page.entries);
            next = page.next;
            if next.is_none() {
                return Ok(raw_in_order(found));
            }
        }
    }

    /// A page of what is in a folder.
    pub(super) async fn page_below(&self, folder: &str, next: Option<Next>) -> Result<store::Page<RawInfo>> {
        let (root, prefix) = (self.below(""), self.below(&format!("{folder}/")));
        self.page_of(&format!("list '{prefix}'"), &prefix, next, |object| raw(object, &root)).await
    }

    /// What `read` makes of the objects of a page whose keys begin with `prefix`.
    async fn page_of<T>(
        &self,
        what: &str,
        prefix: &str,
        start: Option<Next>,
        read: impl Fn(&Object) -> Result<Option<T>>,
    ) -> Result<store::Page<T>> {
        let session = self.session().await?;
        let page = self.page(&session, what, prefix, start.as_ref()).await?;
        let mut entries = Vec::new();
        for object in &page.contents {
            entries.extend(read(object)?);
        }
        Ok(store::Page { entries, next: next(page, start.as_ref()).transpose()? })
    }

    /// The first page of a listing of all levels.
    pub(super) async fn list_first_objects(&self) -> Result<Listing> {
        let session = self.session().await?;
        let page = self.page(&session, "list all levels", &self.prefix_of_all(), None).await?;
        if page.is_truncated && !page.is_in_order() {
            // What is missing may be on any level.
            return Ok(Listing { files: Vec::new(), rest: Some((Level::L0, Txid::ONE)) });
        }
        let mut files = Vec::new();
        for object in &page.contents {
            for level in Level::all() {
                files.extend(file(object, level, &self.prefix(level))?);
            }
        }
        let mut files = in_order(files);
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
        session: &SessionRef,
        what: &str,
        prefix: &str,
        start: Option<&Next>,
    ) -> Result<Page> {
        let mut request = Request::bucket(Method::GET).query("list-type", "2").query("prefix", prefix);
        request = match start {
            Some(Next::After(key)) => request.query("start-after", key),
            Some(Next::Token(token)) => request.query("continuation-token", token),
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
fn next(page: Page, start: Option<&Next>) -> Option<Result<Next>> {
    if !page.is_truncated {
        return None;
    }
    let in_order = page.is_in_order();
    let next = match (page.next.filter(|token| !token.is_empty()), page.contents.into_iter().next_back()) {
        (Some(token), _) => Next::Token(token),
        (None, Some(last)) if in_order => Next::After(last.key),
        (None, Some(_)) => {
            let why = "the store's listing is not in the order of the keys and goes on without saying where";
            return Some(Err(Error::wrong_answer(why)));
        }
        (None, None) => {
            return Some(Err(Error::wrong_answer("the store's listing goes on without saying where")));
        }
    };
    let repeats = match (&next, start) {
        (Next::Token(next), Some(Next::Token(this))) => next == this,
        (Next::After(next), Some(Next::After(this))) => next <= this,
        _ => false,
    };
    Some(if repeats { Err(Error::wrong_answer("the store's listing goes in circles")) } else { Ok(next) })
}
