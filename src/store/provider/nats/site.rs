//! Where a NATS replica is: `nats://host:port/BUCKET`, an object store of JetStream, all of it.

use std::path::PathBuf;
use std::sync::Arc;

use url::Url;

use super::NatsBucket;
use super::object::Names;
use crate::error::{Error, Result};
use crate::store::paths::{decode, home};
use crate::store::setting::{self, Secret, Settings, StoreKind, StoreSetting};
use crate::store::{Bucket, Layout, Opening, Provider, Site, Source};

/// Object stores of NATS servers.
pub(in crate::store) static PROVIDER: Provider = Provider {
    name: "nats",
    schemes: &["nats"],
    example: "nats://host:port/bucket",
    settings: &[USERNAME, setting::PASSWORD, TOKEN, CREDS, NKEY, JWT, SEED, TLS, CLIENT_CERT, CLIENT_KEY],
    environment: &[],
    layout: Layout::Ltx,
    takes_common_endpoint: false,
    is_remote: true,
    locate,
};

const USERNAME: StoreSetting = StoreSetting::new(
    "username",
    StoreKind::Text,
    "Who logs in to the NATS server, where the replica URL does not have it.",
);
const TOKEN: StoreSetting =
    StoreSetting::new("token", StoreKind::Secret, "The token that a NATS server takes.");
const CREDS: StoreSetting =
    StoreSetting::new("creds", StoreKind::Text, "The file of credentials (JWT and seed) of a user of NATS.");
const NKEY: StoreSetting = StoreSetting::new("nkey", StoreKind::Secret, "The seed of a user of NATS, `SU…`.");
const JWT: StoreSetting = StoreSetting::new("jwt", StoreKind::Secret, "The JWT of a user of NATS.");
const SEED: StoreSetting = StoreSetting::new("seed", StoreKind::Secret, "The seed that belongs to `jwt`.");
const TLS: StoreSetting = StoreSetting::new(
    "tls",
    StoreKind::Flag,
    "Speak to the NATS server by TLS only. It may demand that itself.",
);
const CLIENT_CERT: StoreSetting = StoreSetting::new(
    "client-cert",
    StoreKind::Text,
    "The file of the certificate that the NATS server is shown, in PEM.",
);
const CLIENT_KEY: StoreSetting =
    StoreSetting::new("client-key", StoreKind::Text, "The file of its key, in PEM.");

const PORT: u16 = 4222;

/// Where a NATS replica is, and how one logs in there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct NatsSite {
    /// `nats://host:port`.
    pub(super) server: String,
    pub(super) names: Names,
    pub(super) login: Login,
    pub(super) tls: bool,
    /// Instead of the system's.
    pub(super) root_cas: Vec<PathBuf>,
    pub(super) client_cert: Option<(PathBuf, PathBuf)>,
}

/// How one logs in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Login {
    Nobody,
    User(String, Secret),
    Token(Secret),
    Nkey(Secret),
    Jwt(Secret, Secret),
    Creds(PathBuf),
}

impl Login {
    /// What a user who is not let in corrects, for messages.
    pub(super) fn remedy(&self) -> &'static str {
        match self {
            Self::Nobody => {
                "without a login; set creds, jwt and seed, nkey, username and password, or token, or show it a client-cert"
            }
            Self::User(..) => "with the password; check username and password",
            Self::Token(_) => "with the token; check token",
            Self::Nkey(_) => "with the seed; check nkey",
            Self::Jwt(..) => "with the JWT; check jwt and seed",
            Self::Creds(_) => "with the credentials; check creds",
        }
    }
}

impl Site for NatsSite {
    fn url(&self) -> String {
        format!("{}/{}", self.server, self.names.bucket)
    }

    fn root(&self) -> &str {
        ""
    }

    fn identity(&self) -> Vec<(&'static str, String)> {
        Vec::new()
    }

    fn open(&self, _: &Opening<'_>) -> Arc<dyn Bucket> {
        Arc::new(NatsBucket::new(self.clone()))
    }
}

fn locate(source: &Source<'_>, settings: &Settings<'_>) -> Result<Arc<dyn Site>> {
    let Source::Url { rest, .. } = source else {
        return Err(Error::config(
            "a replica of type nats needs its server; give url: nats://host:port/bucket",
        ));
    };
    // Tcl makes one slash of two in the name of a database, and of what a URI has in it.
    let place = rest.trim_start_matches('/');
    let url =
        Url::parse(&format!("nats://{place}")).ok().filter(|url| url.has_host() && rest.len() > place.len());
    let url = url.ok_or_else(|| {
        Error::config("the replica URL names no NATS server; write nats://host:port/bucket")
    })?;
    let bucket = decode(url.path().trim_matches('/'))?;
    if bucket.is_empty() || !bucket.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_') {
        return Err(Error::config(
            "the path of a nats URL is the name of an object store, of letters, digits, - and _: write \
             nats://host:port/bucket",
        ));
    }
    let host = url.host_str().unwrap_or_default();
    let client_cert = match (settings.get("client-cert"), settings.get("client-key")) {
        (None, None) => None,
        (Some(certificate), Some(key)) => Some((home(&certificate), home(&key))),
        _ => return Err(Error::config("client-cert and client-key belong together: give both or neither")),
    };
    let root_cas = settings.field("root-cas").unwrap_or_default();
    Ok(Arc::new(NatsSite {
        server: format!("nats://{host}:{}", url.port().unwrap_or(PORT)),
        names: Names { bucket },
        login: login(&url, settings)?,
        tls: settings.flag("tls")?.unwrap_or(false),
        root_cas: root_cas.split(',').filter(|path| !path.is_empty()).map(home).collect(),
        client_cert,
    }))
}

/// The first of what Litestream looks for; a name in the URL before all.
fn login(url: &Url, settings: &Settings<'_>) -> Result<Login> {
    if !url.username().is_empty() {
        let password = url.password().map(decode).transpose()?.map(Secret::new);
        let password = password.or_else(|| settings.secret("password"));
        return Ok(Login::User(decode(url.username())?, password.unwrap_or_else(|| Secret::new(""))));
    }
    let [jwt, seed] = settings.together(["jwt", "seed"]);
    let [name, password] = settings.together(["username", "password"]);
    if jwt.is_some() != seed.is_some() {
        return Err(Error::config("jwt and seed belong together: give both or neither"));
    }
    Ok(
        match (jwt.zip(seed), settings.get("creds"), settings.secret("nkey"), name, settings.secret("token"))
        {
            (Some((jwt, seed)), ..) => Login::Jwt(Secret::new(jwt), Secret::new(seed)),
            (_, Some(path), ..) => Login::Creds(home(&path)),
            (_, _, Some(seed), ..) => Login::Nkey(seed),
            (_, _, _, Some(name), _) => Login::User(name, Secret::new(password.unwrap_or_default())),
            (.., Some(token)) => Login::Token(token),
            _ => Login::Nobody,
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;
    use crate::store::Location;

    fn site(url: &str) -> NatsSite {
        let location = Location::parse(url, &|_: &str| None).unwrap_or_else(|e| panic!("{url}: {e}"));
        location.site().as_any().downcast_ref::<NatsSite>().unwrap().clone()
    }

    #[test]
    fn a_url_names_server_user_and_bucket() {
        let plain = site("nats://me:p%40ss@host/my_bucket");
        assert_eq!(
            (plain.server.as_str(), plain.url().as_str()),
            ("nats://host:4222", "nats://host:4222/my_bucket")
        );
        assert_eq!(plain.login, Login::User("me".to_owned(), Secret::new("p@ss")));
        assert!(!format!("{plain:?}").contains("p@ss"));
        assert_eq!(site("nats://[::1]:42/b?token=x").login, Login::Token(Secret::new("x")));
        assert_eq!(site("nats://h/b?creds=/c&token=x").login, Login::Creds("/c".into()));
        assert_eq!(site("nats://h/b").login, Login::Nobody);
    }

    #[test]
    fn what_names_no_server_or_bucket_is_refused() {
        for url in [
            "nats:host",
            "nats://",
            "nats://u:hunter2@host",
            "nats://host/a/b",
            "nats://h/b?jwt=hunter2",
            "nats://h/b?client-cert=/c",
        ] {
            let e = Location::parse(url, &|_: &str| None).unwrap_err();
            assert!(e.kind() == ErrorKind::Config && !e.to_string().contains("hunter2"), "{url}: {e}");
        }
    }
}
