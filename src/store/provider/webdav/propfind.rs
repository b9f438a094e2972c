//! Reading: what is in a folder, and ranges of files.

use percent_encoding::percent_decode_str;
use reqwest::Method;
use serde::Deserialize;

use super::WebdavBucket;
use super::failure::Failure;
use super::session::Session;
use super::site::WebdavSite;
use crate::error::{Error, Result};
use crate::store::folders::{Entry, Kind};
use crate::store::http::answer::{self, Asked};
use crate::store::http::call::Call;
use crate::store::http::xml;
use crate::store::{ByteRange, Content, ObjectInfo, Site as _, errors};

/// A folder of a hundred thousand files is described in about 50 MB.
const MAX_LISTING: usize = 256 << 20;

/// What is asked of each file.
const WANTED: &str = "<?xml version=\"1.0\" encoding=\"utf-8\"?><D:propfind xmlns:D=\"DAV:\"><D:prop>\
                      <D:resourcetype/><D:getcontentlength/><D:getlastmodified/></D:prop></D:propfind>";

#[derive(Deserialize)]
struct Multistatus {
    #[serde(rename = "response", default)]
    responses: Vec<Response>,
}

#[derive(Deserialize)]
struct Response {
    href: String,
    #[serde(default)]
    propstat: Vec<Propstat>,
}

#[derive(Deserialize)]
struct Propstat {
    #[serde(default)]
    status: String,
    #[serde(default)]
    prop: Prop,
}

#[derive(Default, Deserialize)]
struct Prop {
    resourcetype: Option<ResourceType>,
    getcontentlength: Option<String>,
    getlastmodified: Option<String>,
}

#[derive(Deserialize)]
struct ResourceType {
    collection: Option<Empty>,
}

#[derive(Deserialize)]
struct Empty {}

/// What the server says of one path: its segments, decoded, and what is there.
struct Described {
    segments: Vec<String>,
    kind: Kind,
}

impl Described {
    /// # Errors
    /// `WrongAnswer` if the size of a file or its time is missing.
    fn of(response: Response) -> Result<Self> {
        let path = match response.href.split_once("://") {
            Some((_, rest)) => rest.split_once('/').map_or("", |(_, path)| path),
            None => &response.href,
        };
        let decoded = |segment: &str| percent_decode_str(segment).decode_utf8_lossy().into_owned();
        let segments = path.trim().split('/').filter(|segment| !segment.is_empty()).map(decoded).collect();
        let good = |status: &str| status.trim().is_empty() || status.split_whitespace().nth(1) == Some("200");
        let mut found = Prop::default();
        for Prop { resourcetype, getcontentlength, getlastmodified } in
            response.propstat.into_iter().filter(|p| good(&p.status)).map(|p| p.prop)
        {
            found.resourcetype = found.resourcetype.or(resourcetype);
            found.getcontentlength = found.getcontentlength.or(getcontentlength);
            found.getlastmodified = found.getlastmodified.or(getlastmodified);
        }
        if found.resourcetype.is_some_and(|kind| kind.collection.is_some()) {
            return Ok(Self { segments, kind: Kind::Folder });
        }
        let missing = |what: &str| {
            Error::wrong_answer(format!("the server's answer does not give the {what} of {}", response.href))
        };
        let size = found.getcontentlength.and_then(|text| text.trim().parse().ok());
        let stored = found.getlastmodified.and_then(|text| answer::date_of(text.trim()));
        let (size, stored) = (size.ok_or_else(|| missing("size"))?, stored.ok_or_else(|| missing("time"))?);
        Ok(Self { segments, kind: Kind::File { size, modified: stored } })
    }
}

/// What is in the folder whose last name is `folder`, by an answer that describes the folder too. A server behind another
/// may not know the path by which it was asked, so only names count.
///
/// # Errors
/// `WrongAnswer` if it is another document, or none that describes the folder.
pub(super) fn entries(body: &[u8], folder: &str) -> Result<Vec<Entry>> {
    let Multistatus { responses } = xml::document(body, "multistatus")?;
    let all: Vec<Described> = responses.into_iter().map(Described::of).collect::<Result<_>>()?;
    if all.is_empty() {
        return Err(Error::wrong_answer("the server's list has not even the folder itself"));
    }
    let least = all.iter().map(|described| described.segments.len()).min().unwrap_or_default();
    let is_itself = |described: &Described| {
        let last = described.segments.last().map_or("", String::as_str);
        described.kind == Kind::Folder && described.segments.len() == least && (least == 0 || last == folder)
    };
    let others = all.into_iter().filter(|described| !is_itself(described));
    Ok(others.filter_map(|mut d| Some(Entry { name: d.segments.pop()?, kind: d.kind })).collect())
}

impl WebdavBucket {
    /// What is in the folder at `path`, without slashes at either end; nothing if it is not there.
    pub(super) async fn entries_of(&self, path: &str) -> Result<Vec<Entry>> {
        let session = self.session().await?;
        let what = format!("list '{path}'");
        let call = propfind(path, "1", true).expects(404);
        let response = session.send(&call, self.way).await.map_err(|failure| self.explain(failure, &what))?;
        if response.status() == 404 {
            return Ok(Vec::new());
        }
        let body = session.http.read_all(response, MAX_LISTING).await;
        let name = path.rsplit('/').next().unwrap_or("");
        body.and_then(|body| entries(&body, name)).map_err(|e| self.explain(e.into(), &what))
    }

    /// Size and time of a file.
    pub(super) async fn describe_file(&self, key: &str) -> Result<ObjectInfo> {
        let session = self.session().await?;
        let what = format!("read {key}");
        let response = session.send(&propfind(key, "0", false), self.way).await;
        let response = response.map_err(|failure| self.read_error(failure, key))?;
        let body = session.http.read_all(response, MAX_LISTING).await;
        let found = body.and_then(|body| {
            let Multistatus { responses } = xml::document(&body, "multistatus")?;
            responses.into_iter().next().map(Described::of).transpose()
        });
        match found.map_err(|e| self.explain(e.into(), &what))?.map(|described| described.kind) {
            Some(Kind::File { size, modified }) => {
                Ok(ObjectInfo { key: key.to_owned(), size, timestamp: modified, stored: modified })
            }
            _ => Err(errors::not_found(&self.site().url(), key)),
        }
    }

    /// The bytes of `range` of a file.
    pub(super) async fn get_file(&self, key: &str, range: ByteRange, size: Option<u64>) -> Result<Content> {
        let session = self.session().await?;
        let mut call = Call::new(Method::GET, WebdavSite::path_of(key)).reads();
        if let Some(range) = answer::range_header(range) {
            call = call.header("range", range);
        }
        let url = self.site().url();
        let response = match session.send(&call, self.way).await {
            Ok(response) => response,
            Err(Failure::Refused(refusal)) if refusal.status == 416 => {
                return self.no_bytes(key, range, refusal.size).await;
            }
            Err(failure) => return Err(self.read_error(failure, key)),
        };
        if response.status() == 206 && response.content_length() == Some(0) {
            // Some answer so for an empty file, and name no bytes.
            return self.no_bytes(key, range, None).await;
        }
        answer::content(&session.http, response, Asked { url: &url, key, size }, range)
    }

    /// What there is of `range` where the server has nothing of it: no bytes of an empty file.
    async fn no_bytes(&self, key: &str, range: ByteRange, size: Option<u64>) -> Result<Content> {
        let size = match size {
            Some(size) => size,
            None => self.describe_file(key).await?.size,
        };
        match range {
            ByteRange::Prefix { .. } | ByteRange::Suffix { .. } if size == 0 => Ok(answer::empty()),
            _ => Err(errors::too_short(&self.site().url(), key, range, size)),
        }
    }

    fn read_error(&self, failure: Failure, key: &str) -> Error {
        match failure {
            Failure::Refused(refusal) if refusal.status == 404 => errors::not_found(&self.site().url(), key),
            other => self.explain(other, &format!("read {key}")),
        }
    }

    /// A request with a short answer, which has the time.
    pub(super) async fn ask(&self, session: &Session, path: &str) -> Result<()> {
        let asked = session.send(&propfind(path, "0", true).expects(404), self.way).await;
        asked.map(drop).map_err(|failure| self.explain(failure, "ask for the time"))
    }
}

/// Asks for what is at `path`; `depth` 1 is a folder's content too.
fn propfind(path: &str, depth: &'static str, is_folder: bool) -> Call {
    let method = Method::from_bytes(b"PROPFIND").expect("BUG: a method of letters");
    let mut path = WebdavSite::path_of(path);
    if is_folder && !path.ends_with('/') {
        // Some servers send who asks without it to another address.
        path.push('/');
    }
    Call::new(method, path)
        .header("depth", depth)
        .header("content-type", "application/xml; charset=utf-8")
        .body(WANTED.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    const APACHE: &str = r#"<?xml version="1.0" encoding="utf-8"?>
<D:multistatus xmlns:D="DAV:" xmlns:ns0="DAV:">
<D:response xmlns:lp1="DAV:" xmlns:lp2="http://apache.org/dav/props/">
<D:href>/dav/a%20b/ltx/0/</D:href>
<D:propstat><D:prop><lp1:resourcetype><D:collection/></lp1:resourcetype>
<lp1:getlastmodified>Sat, 28 Nov 2026 09:00:00 GMT</lp1:getlastmodified></D:prop>
<D:status>HTTP/1.1 200 OK</D:status></D:propstat>
<D:propstat><D:prop><ns0:getcontentlength/></D:prop><D:status>HTTP/1.1 404 Not Found</D:status></D:propstat>
</D:response>
<D:response xmlns:lp1="DAV:">
<D:href>http://host/dav/a%20b/ltx/0/x+%26y.ltx</D:href>
<D:propstat><D:prop><lp1:resourcetype/><lp1:getcontentlength>77</lp1:getcontentlength>
<lp1:getlastmodified>Sat, 28 Nov 2026 09:00:01 GMT</lp1:getlastmodified></D:prop>
<D:status>HTTP/1.1 200 OK</D:status></D:propstat></D:response>
<D:response><D:href>/dav/a%20b/ltx/0/0/</D:href><D:propstat><D:prop><D:resourcetype><D:collection/></D:resourcetype>
</D:prop><D:status>HTTP/1.1 200 OK</D:status></D:propstat></D:response>
</D:multistatus>"#;

    #[test]
    fn a_folder_holds_what_is_described_beside_it() {
        let modified = answer::date_of("Sat, 28 Nov 2026 09:00:01 GMT").unwrap();
        let file = Entry { name: "x+&y.ltx".to_owned(), kind: Kind::File { size: 77, modified } };
        let folder = Entry { name: "0".to_owned(), kind: Kind::Folder };
        assert_eq!(entries(APACHE.as_bytes(), "0").unwrap(), [file, folder]);
    }

    #[test]
    fn what_is_no_listing_is_an_error() {
        let no_size = "<multistatus xmlns=\"DAV:\"><response><href>/x</href></response></multistatus>";
        // As Go's server answers that fails after it began to.
        let broken_off = "<D:multistatus xmlns:D=\"DAV:\"><D:response><D:href>/x/</D:href><D:propstat><D:prop>\
             <D:resourcetype><D:collection/></D:resourcetype></D:prop><D:status>HTTP/1.1 200 OK</D:status></D:propstat>\
             </D:response></D:multistatus>Internal Server Error";
        for (body, expected) in [
            ("<html></html>", "it is 'html'"),
            ("", "it is empty"),
            (no_size, "size of /x"),
            (broken_off, "'Internal Server Error' follows its end"),
            ("<D:multistatus xmlns:D=\"DAV:\"></D:multistatus>", "not even the folder itself"),
        ] {
            let e = entries(body.as_bytes(), "").unwrap_err();
            assert!(
                e.kind() == crate::error::ErrorKind::WrongAnswer && e.to_string().contains(expected),
                "{e}"
            );
        }
    }
}
