//! Where a WebDAV replica is: `webdav://host/path` over HTTP, `webdavs://host/path` over HTTPS.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::Arc;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use url::Url;

use super::WebdavBucket;
use crate::error::{Error, Result};
use crate::files;
use crate::store::paths::{clean_path, decode};
use crate::store::setting::{self, Secret, Settings, StoreKind, StoreSetting};
use crate::store::spelling::escaped;
use crate::store::{Bucket, Layout, Opening, Provider, Site, Source};

/// Shares of WebDAV servers.
pub(in crate::store) static PROVIDER: Provider = Provider {
    name: "webdav",
    schemes: &["webdavs", "webdav"],
    example: "webdavs://host/path",
    settings: &[USERNAME, PASSWORD, setting::SKIP_VERIFY],
    environment: &[
        ("webdav-username", &["LITESTREAM_WEBDAV_USERNAME"]),
        ("webdav-password", &["LITESTREAM_WEBDAV_PASSWORD"]),
    ],
    layout: Layout::Ltx,
    takes_common_endpoint: true,
    is_remote: true,
    locate,
};

const USERNAME: StoreSetting =
    StoreSetting::new("webdav-username", StoreKind::Text, "Who logs in to the WebDAV server.");
const PASSWORD: StoreSetting = StoreSetting::new(
    "webdav-password",
    StoreKind::Secret,
    "The password for that. Sent as the server asks for it: Digest if it knows that, else Basic.",
);

/// What is written as it is in a path: what RFC 3986 calls unreserved.
const PATH: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Where a WebDAV replica is, and who reads and writes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct WebdavSite {
    /// Scheme, host and port, without a slash at its end.
    pub(super) server: String,
    /// The path on the server, without slashes at either end; may be empty.
    pub(super) path: String,
    pub(super) user: Option<User>,
    /// Accept any TLS certificate.
    pub(super) skip_verify: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct User {
    pub(super) name: String,
    pub(super) password: Secret,
}

impl WebdavSite {
    /// The path of `key` in a request, encoded.
    pub(super) fn path_of(key: &str) -> String {
        let mut path = String::new();
        for segment in key.split('/') {
            let written = write!(path, "/{}", utf8_percent_encode(segment, PATH));
            written.expect("BUG: writing to a string does not fail");
        }
        path
    }
}

impl Site for WebdavSite {
    fn url(&self) -> String {
        let server = self.server.replacen("http", "webdav", 1);
        if self.path.is_empty() { server } else { format!("{server}/{}", escaped(&self.path)) }
    }

    fn root(&self) -> &str {
        &self.path
    }

    fn identity(&self) -> Vec<(&'static str, String)> {
        Vec::new()
    }

    fn open(&self, opening: &Opening<'_>) -> Arc<dyn Bucket> {
        let staging = opening.database.map_or_else(std::env::temp_dir, files::state_folder);
        Arc::new(WebdavBucket::new(self.clone(), staging))
    }
}

/// Where an upload of several parts is kept until its size is known.
pub(super) type Staging = PathBuf;

fn locate(source: &Source<'_>, settings: &Settings<'_>) -> Result<Arc<dyn Site>> {
    let (url, path) = match source {
        Source::Url { scheme, rest } => (from_url(scheme, rest)?, String::new()),
        Source::Fields => {
            let field = settings.field("webdav-url").ok_or_else(|| {
                Error::config(
                    "a replica of type webdav needs its server; give the setting webdav-url: https://host/folder, \
                     or url: webdavs://host/path",
                )
            })?;
            (server(&field)?, settings.field("path").unwrap_or_default())
        }
    };
    let user = user(&url, settings)?;
    let below = decode(url.path())?;
    let host = url.host_str().unwrap_or_default();
    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
    Ok(Arc::new(WebdavSite {
        server: format!("{}://{host}{port}", url.scheme()),
        path: clean_path(&format!("{below}/{path}")),
        user,
        skip_verify: settings.flag("skip-verify")?.unwrap_or(false),
    }))
}

/// The server's address that a replica URL of `scheme` says.
fn from_url(scheme: &str, rest: &str) -> Result<Url> {
    // Tcl makes one slash of two in the name of a database, and of what a URI has in it.
    let place = rest.strip_prefix("//").or_else(|| rest.strip_prefix('/')).unwrap_or_default();
    if place.is_empty() || place.starts_with('/') {
        return Err(Error::config(format!("the replica URL names no server; write {scheme}://host/path")));
    }
    server(&format!("{}://{place}", scheme.replacen("webdav", "http", 1)))
}

/// An address of HTTP or HTTPS.
fn server(address: &str) -> Result<Url> {
    let bad = |why: &str| {
        Error::config(format!(
            "the WebDAV server's address is not one: {why}; write https://host:port/folder"
        ))
    };
    let url = Url::parse(address.trim()).map_err(|e| bad(&e.to_string()))?;
    match url.scheme() {
        "http" | "https" if url.has_host() && url.query().is_none() && url.fragment().is_none() => Ok(url),
        "http" | "https" => Err(bad("it has a query or no host")),
        _ => Err(bad("its scheme is neither http nor https")),
    }
}

/// Name and password: in the URL before the host, or as settings, both from the same place.
fn user(url: &Url, settings: &Settings<'_>) -> Result<Option<User>> {
    let [name, password] = settings.together(["webdav-username", "webdav-password"]);
    let (name, password) = match (url.username(), url.password()) {
        ("", None) => (name, password),
        (name, given) => {
            let given = given.map(decode).transpose()?;
            // A password need not be in the URL that has the name.
            (Some(decode(name)?), given.or(password))
        }
    };
    match (name, password) {
        (None, None) => Ok(None),
        (Some(name), password) if !name.is_empty() => {
            Ok(Some(User { name, password: Secret::new(password.unwrap_or_default()) }))
        }
        _ => Err(Error::config(
            "the setting 'webdav-password' is given without 'webdav-username'; give both or neither",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;
    use crate::store::Location;

    fn site(url: &str) -> WebdavSite {
        let location = Location::parse(url, &|_: &str| None).unwrap_or_else(|e| panic!("{url}: {e}"));
        location.site().as_any().downcast_ref::<WebdavSite>().unwrap().clone()
    }

    #[test]
    fn a_url_names_server_path_and_user() {
        let plain = site("webdav://host:8080//a%20b/./c/");
        assert_eq!((plain.server.as_str(), plain.path.as_str()), ("http://host:8080", "a b/c"));
        assert_eq!((plain.url(), plain.user), ("webdav://host:8080/a b/c".to_owned(), None));
        let secure = site("webdavs://me:p%40ss@host/dav");
        assert_eq!((secure.server.as_str(), secure.url().as_str()), ("https://host", "webdavs://host/dav"));
        let user = secure.user.clone().unwrap();
        assert_eq!((user.name.as_str(), user.password.reveal()), ("me", "p@ss"));
        assert!(!format!("{secure:?}").contains("p@ss"));
        let around = |name: &str| match name {
            "webdav-username" => Some("you".to_owned()),
            "webdav-password" => Some("hidden".to_owned()),
            _ => None,
        };
        let settings = Location::parse("webdav://host/x", &around).unwrap();
        let user = settings.site().as_any().downcast_ref::<WebdavSite>().unwrap().user.clone().unwrap();
        assert_eq!((user.name.as_str(), user.password.reveal()), ("you", "hidden"));
        assert_eq!(site("webdav://host").path, "");
    }

    #[test]
    fn fields_make_the_same_place_as_a_url() {
        let fields = |name: &str| match name {
            "webdav-url" => Some("https://host:444/remote.php/dav".to_owned()),
            "path" => Some("/app".to_owned()),
            _ => None,
        };
        let made = Location::from_fields("webdav", &fields).unwrap();
        assert_eq!(made.to_string(), "webdavs://host:444/remote.php/dav/app");
        assert_eq!(made, Location::parse("webdavs://host:444/remote.php/dav/app", &|_: &str| None).unwrap());
    }

    #[test]
    fn what_names_no_server_is_refused_without_repeating_secrets() {
        for url in [
            "webdav:///path",
            "webdavs://",
            "webdav://u:hunter2@",
            "webdav:host",
            "webdav://h?webdav-password=hunter2",
        ] {
            let e = Location::parse(url, &|_: &str| None).unwrap_err();
            assert_eq!(e.kind(), ErrorKind::Config, "{url}: {e}");
            assert!(!e.to_string().contains("hunter2"), "{e}");
        }
        let e = Location::from_fields("webdav", &|_: &str| None).unwrap_err();
        assert!(e.to_string().contains("webdav-url"), "{e}");
    }
}
