//! Where an SFTP replica is: `sftp://user@host/path`.

use std::path::PathBuf;
use std::sync::Arc;

use russh::keys::PublicKey;
use url::{Host, Url};

use super::SftpBucket;
use crate::error::{Error, Result};
use crate::store::paths::{clean_path, decode, home};
use crate::store::setting::{self, Secret, Settings, StoreKind, StoreSetting};
use crate::store::spelling::escaped;
use crate::store::{Bucket, Layout, Opening, Provider, Site, Source};

/// Folders of SSH servers.
pub(in crate::store) static PROVIDER: Provider = Provider {
    name: "sftp",
    schemes: &["sftp"],
    example: "sftp://user@host/path",
    settings: &[
        USER,
        setting::PASSWORD,
        KEY_PATH,
        KEY_PASSPHRASE,
        HOST_KEY,
        setting::SKIP_VERIFY,
        CONCURRENT_WRITES,
    ],
    environment: &[
        ("user", &["LITESTREAM_SFTP_USER"]),
        ("password", &["LITESTREAM_SFTP_PASSWORD"]),
        ("key-passphrase", &["LITESTREAM_SFTP_KEY_PASSPHRASE"]),
    ],
    layout: Layout::Ltx,
    takes_common_endpoint: false,
    is_remote: true,
    locate,
};

const USER: StoreSetting = StoreSetting::new(
    "user",
    StoreKind::Text,
    "Who logs in to the SFTP server, where the replica URL does not have it.",
);
const KEY_PATH: StoreSetting = StoreSetting::new(
    "key-path",
    StoreKind::Text,
    "The file of the private key to log in with. Without it: `password`, else the keys of the SSH agent.",
);
const KEY_PASSPHRASE: StoreSetting = StoreSetting::new(
    "key-passphrase",
    StoreKind::Secret,
    "What opens the key in `key_path` if it is encrypted.",
);
const HOST_KEY: StoreSetting = StoreSetting::new(
    "host-key",
    StoreKind::Text,
    "The SFTP server's public key, as in `ssh-ed25519 AAAA…`. Without it: what `known_hosts` says of the server.",
);
const CONCURRENT_WRITES: StoreSetting = StoreSetting::new(
    "concurrent-writes",
    StoreKind::Flag,
    "Whether several pieces of a file are on their way to an SFTP server at the same time.",
)
.default("true");

const PORT: u16 = 22;

/// Where an SFTP replica is, and how one logs in there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SftpSite {
    /// A name or an address; one of IPv6 without brackets.
    pub(super) host: String,
    pub(super) port: u16,
    /// Without slashes at either end; may be empty.
    pub(super) path: String,
    /// The path begins where one is after logging in, not at the server's root.
    pub(super) from_home: bool,
    pub(super) user: String,
    pub(super) password: Option<Secret>,
    pub(super) key_path: Option<PathBuf>,
    pub(super) key_passphrase: Option<Secret>,
    /// The only key that the server may show.
    pub(super) host_key: Option<PublicKey>,
    /// It may show any.
    pub(super) skip_verify: bool,
    pub(super) concurrent_writes: bool,
}

impl SftpSite {
    /// `host:port`, for messages.
    pub(super) fn server(&self) -> String {
        match self.host.contains(':') {
            true => format!("[{}]:{}", self.host, self.port),
            false => format!("{}:{}", self.host, self.port),
        }
    }

    /// The path of `key` on the server.
    pub(super) fn path_of(&self, key: &str) -> String {
        match (self.from_home, key) {
            (false, key) => format!("/{key}"),
            (true, "") => ".".to_owned(),
            (true, key) => key.to_owned(),
        }
    }
}

impl Site for SftpSite {
    fn url(&self) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        let port = if self.port == PORT { String::new() } else { format!(":{}", self.port) };
        let home = if self.from_home { "/~" } else { "" };
        let slash = if self.path.is_empty() { "" } else { "/" };
        format!("sftp://{host}{port}{home}{slash}{}", escaped(&self.path))
    }

    fn root(&self) -> &str {
        &self.path
    }

    fn identity(&self) -> Vec<(&'static str, String)> {
        if self.from_home { vec![("user", self.user.clone())] } else { Vec::new() }
    }

    fn open(&self, _: &Opening<'_>) -> Arc<dyn Bucket> {
        Arc::new(SftpBucket::new(self.clone()))
    }
}

/// Host, port and path as a URL or a configuration file says them.
struct Place {
    host: String,
    port: u16,
    path: String,
    from_home: bool,
    user: Option<String>,
    password: Option<String>,
}

fn locate(source: &Source<'_>, settings: &Settings<'_>) -> Result<Arc<dyn Site>> {
    let place = match source {
        Source::Url { rest, .. } => of_url(rest)?,
        Source::Fields => of_fields(settings)?,
    };
    let user = place.user.or_else(|| settings.get("user"));
    let user = user.ok_or_else(|| {
        Error::config(format!(
            "nobody is named who logs in to {}; write sftp://user@host/path, or give the setting user",
            place.host
        ))
    })?;
    let host_key = settings.get("host-key").map(|text| host_key(&text)).transpose()?;
    Ok(Arc::new(SftpSite {
        host: place.host,
        port: place.port,
        path: place.path,
        from_home: place.from_home,
        user,
        password: place.password.map(Secret::new).or_else(|| settings.secret("password")),
        key_path: settings.get("key-path").map(|path| home(&path)),
        key_passphrase: settings.secret("key-passphrase"),
        host_key,
        skip_verify: settings.flag("skip-verify")?.unwrap_or(false),
        concurrent_writes: settings.flag("concurrent-writes")?.unwrap_or(true),
    }))
}

fn host_key(text: &str) -> Result<PublicKey> {
    PublicKey::from_openssh(text.trim()).map_err(|e| {
        Error::config(format!("the setting 'host-key' is not a public key ({e}); write ssh-ed25519 AAAA…"))
    })
}

/// What follows `sftp:`.
fn of_url(rest: &str) -> Result<Place> {
    // Tcl makes one slash of two in the name of a database, and of what a URI has in it.
    let place = rest.trim_start_matches('/');
    let url = Url::parse(&format!("sftp://{place}")).ok().filter(|url| url.has_host() && rest != place);
    let url = url.ok_or_else(|| {
        Error::config("the replica URL names no SFTP server; write sftp://user@host:port/path")
    })?;
    let path = decode(url.path())?;
    let (path, from_home) = match path.strip_prefix("/~") {
        Some(path) if path.is_empty() || path.starts_with('/') => (path, true),
        _ => (path.as_str(), false),
    };
    Ok(Place {
        host: name_of(&url),
        port: url.port().unwrap_or(PORT),
        path: clean_path(path),
        from_home,
        user: Some(decode(url.username())?).filter(|user| !user.is_empty()),
        password: url.password().map(decode).transpose()?,
    })
}

fn name_of(url: &Url) -> String {
    match url.host() {
        Some(Host::Ipv6(address)) => address.to_string(),
        _ => url.host_str().unwrap_or_default().to_owned(),
    }
}

/// `host` (with a port), `path` and the like of a configuration file.
fn of_fields(settings: &Settings<'_>) -> Result<Place> {
    let host = settings.field("host").ok_or_else(|| {
        Error::config(
            "a replica of type sftp needs its server; give the setting host, or url: sftp://user@host/path",
        )
    })?;
    let url = Url::parse(&format!("sftp://{host}")).ok().filter(Url::has_host);
    let url = url.ok_or_else(|| Error::config("the setting 'host' is not host:port"))?;
    let path = settings.field("path").unwrap_or_default();
    Ok(Place {
        host: name_of(&url),
        port: url.port().unwrap_or(PORT),
        path: clean_path(&path),
        from_home: !path.starts_with('/'),
        user: None,
        password: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;
    use crate::store::Location;

    fn site(url: &str) -> SftpSite {
        let location = Location::parse(url, &|_: &str| None).unwrap_or_else(|e| panic!("{url}: {e}"));
        location.site().as_any().downcast_ref::<SftpSite>().unwrap().clone()
    }

    #[test]
    fn a_url_names_server_user_and_an_absolute_path() {
        let plain = site("sftp://me:p%40ss@host//a%20b/c/");
        assert_eq!((plain.server().as_str(), plain.user.as_str()), ("host:22", "me"));
        assert_eq!(
            (plain.url().as_str(), plain.path_of("a b/c/x").as_str()),
            ("sftp://host/a b/c", "/a b/c/x")
        );
        assert_eq!(plain.password.as_ref().unwrap().reveal(), "p@ss");
        assert!(!format!("{plain:?}").contains("p@ss"));
        let six = site("sftp://me@[::1]:2222/~/app");
        assert_eq!((six.server().as_str(), six.url().as_str()), ("[::1]:2222", "sftp://[::1]:2222/~/app"));
        assert_eq!((six.path_of("app/x").as_str(), six.path_of("").as_str()), ("app/x", "."));
        assert_eq!(six.identity(), [("user", "me".to_owned())]);
    }

    #[test]
    fn fields_have_paths_that_may_begin_at_home() {
        let with = |path: &'static str| {
            let fields = move |name: &str| match name {
                "host" => Some("host:2222".to_owned()),
                "user" => Some("me".to_owned()),
                "path" => Some(path.to_owned()),
                _ => None,
            };
            Location::from_fields("sftp", &fields).unwrap()
        };
        assert_eq!(with("/app"), Location::parse("sftp://me@host:2222/app", &|_: &str| None).unwrap());
        assert_eq!(with("app"), Location::parse("sftp://me@host:2222/~/app", &|_: &str| None).unwrap());
    }

    #[test]
    fn what_names_no_server_or_user_or_key_is_refused() {
        for (url, words) in [
            ("sftp:host", "sftp://user@host"),
            ("sftp://", "sftp://user@host"),
            ("sftp://host/path", "setting user"),
            ("sftp://u:hunter2@host/path?host-key=nonsense", "host-key"),
        ] {
            let e = Location::parse(url, &|_: &str| None).unwrap_err();
            assert!(e.kind() == ErrorKind::Config && e.to_string().contains(words), "{url}: {e}");
            assert!(!e.to_string().contains("hunter2"), "{e}");
        }
    }
}
