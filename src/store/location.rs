//! Where a replica is: its provider, its place there, and all that is needed to reach it.

use std::any::Any;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use percent_encoding::percent_decode_str;

use super::bucket::Bucket;
use super::identity::ReplicaIdentity;
use super::layout::Layout;
use super::provider;
use super::replica::Replica;
use super::setting::{Settings, StoreSetting};
use super::wrap::RetryPolicy;
use crate::error::{Error, Result};
use crate::ltx::Keyring;

/// Every provider. One more is its folder and its line here.
pub static PROVIDERS: &[&Provider] = &[
    &provider::s3::PROVIDER,
    &provider::file::PROVIDER,
    &provider::gcs::PROVIDER,
    &provider::abs::PROVIDER,
    &provider::oss::PROVIDER,
    &provider::webdav::PROVIDER,
    &provider::sftp::PROVIDER,
    &provider::nats::PROVIDER,
];

/// A kind of store, and how a place in it is found.
pub struct Provider {
    /// What Litestream's configuration file calls it, as `type`.
    pub name: &'static str,
    /// The schemes of its URLs, the first one in messages.
    pub schemes: &'static [&'static str],
    /// A URL as users write it, for messages: `s3://bucket/path`.
    pub example: &'static str,
    /// The settings that it understands. The query of a replica URL may have no others.
    pub settings: &'static [StoreSetting],
    /// The environment variables that answer for a setting which nothing else gives, first match wins.
    pub environment: &'static [(&'static str, &'static [&'static str])],
    /// Where LTX files are below a replica's root.
    pub layout: Layout,
    /// Whether the `endpoint` at the top of a configuration file is for it too. In Litestream's it is not for Google's store.
    pub takes_common_endpoint: bool,
    /// Whether a failure may pass by itself, so that requests are tried again.
    pub is_remote: bool,
    /// Reads a place and its settings, and checks all of them. Makes no request and reads no environment but through
    /// the settings.
    pub locate: fn(&Source<'_>, &Settings<'_>) -> Result<Arc<dyn Site>>,
}

impl Provider {
    /// The provider of a replica at `url` or, without one, of a `kind` as Litestream's configuration file says; `None` if nobody
    /// knows it.
    pub fn of(url: Option<&str>, kind: &str) -> Option<&'static Self> {
        let scheme = url.map(|url| url.split_once(':').map_or("", |(scheme, _)| scheme));
        let fits = |provider: &&&'static Self| match scheme {
            Some(scheme) => provider.schemes.iter().any(|known| known.eq_ignore_ascii_case(scheme)),
            None => provider.name == kind,
        };
        PROVIDERS.iter().find(fits).copied()
    }
}

impl fmt::Debug for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// What gives a place in a store.
#[derive(Clone, Copy, Debug)]
pub enum Source<'a> {
    /// A replica URL.
    Url {
        /// The scheme in lower case, without its colon.
        scheme: &'a str,
        /// What follows the colon, up to the query; percent-encoded.
        rest: &'a str,
    },
    /// Only settings: the fields of a configuration file (`type`, `bucket`, `path`, …).
    Fields,
}

/// A place in one provider's store with its settings: what a provider makes of a URL or of fields.
///
/// Two equal sites are the same replica reached in the same way.
pub trait Site: SameSite + fmt::Debug + Send + Sync {
    /// The replica's URL without settings and secrets.
    fn url(&self) -> String;

    /// The path of the replica among the bucket's keys, without slashes at either end; may be empty.
    fn root(&self) -> &str;

    /// Settings beside the URL by which two sites are two replicas, or one of which each reads only its own objects, as
    /// name (in `snake_case`) and value. No secret, no credentials: they may be renewed while a database is open.
    fn identity(&self) -> Vec<(&'static str, String)>;

    /// The folder of this machine where the replica is, through links in the file system, if it is one.
    fn folder(&self) -> Option<PathBuf> {
        None
    }

    /// The bucket. No request is made, no thread started and no environment read before it is first used.
    fn open(&self, opening: &Opening<'_>) -> Arc<dyn Bucket>;
}

/// Comparison of sites, which every [`Site`] that is `Eq` has.
pub trait SameSite {
    /// The site as its own type.
    fn as_any(&self) -> &dyn Any;
    /// Whether `other` is the same site.
    fn is_same(&self, other: &dyn Site) -> bool;
}

impl<T: Site + Eq + 'static> SameSite for T {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn is_same(&self, other: &dyn Site) -> bool {
        other.as_any().downcast_ref::<T>().is_some_and(|other| self == other)
    }
}

/// What a bucket is opened for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Opening<'a> {
    /// The database file that is replicated: what a folder then gets has the owner and the permissions of that file.
    pub database: Option<&'a Path>,
}

/// Looks up a setting outside the replica URL.
pub trait Lookup {
    /// The value of setting `name` (in `kebab-case`) beside the URL: a parameter of the SQLite URI, an option of a
    /// function, a field of a configuration file.
    fn param(&self, name: &str) -> Option<String>;

    /// The value of the environment variable `variable`.
    fn env(&self, variable: &str) -> Option<String>;
}

/// Where a replica is, and what it is read with. Two equal locations are the same replica reached in the same way.
///
/// It is displayed as a URL without settings, so it carries no secret.
#[derive(Clone)]
pub struct Location {
    provider: &'static Provider,
    site: Arc<dyn Site>,
    keyring: Keyring,
}

impl Location {
    /// Reads a replica URL, such as `s3://bucket/path` or `file:///path`. A setting in its query wins over `around`.
    ///
    /// # Errors
    /// `Config`: unknown scheme, unknown setting, a value that does not fit.
    pub fn parse(url: &str, around: &dyn Lookup) -> Result<Self> {
        refuse_settings_without_query(url)?;
        let (place, query) = url.split_once('?').unwrap_or((url, ""));
        let scheme = place.split_once(':').map(|(scheme, _)| scheme).filter(|s| is_scheme(s));
        let Some(scheme) = scheme else { return Err(not_a_url(place)) };
        let rest = &place[scheme.len() + 1..];
        if rest.contains('#') {
            return Err(Error::config("a replica URL has no fragment; write '#' in a path as %23"));
        }
        if scheme.len() == 1 {
            return Err(Error::config(format!(
                "'{place}' is a path of Windows; write s3://bucket/path, or file:///path for a folder of this machine"
            )));
        }
        let scheme = scheme.to_ascii_lowercase();
        let provider = PROVIDERS.iter().find(|p| p.schemes.contains(&scheme.as_str()));
        let provider = provider.ok_or_else(|| unknown_scheme(&scheme))?;
        let settings = Settings::new(provider, query, around)?;
        let site = (provider.locate)(&Source::Url { scheme: &scheme, rest }, &settings)?;
        Ok(Self { provider, site, keyring: Keyring::default() })
    }

    /// Whether `text` has the form of a URL, and not of a path.
    pub fn has_scheme(text: &str) -> bool {
        text.split_once(':').is_some_and(|(scheme, _)| is_scheme(scheme))
    }

    /// What Litestream calls the kind of store, such as `s3` or `file`.
    pub const fn kind(&self) -> &'static str {
        self.provider.name
    }

    /// Reads the fields of a configuration file: `kind` is its `type`, and `fields` has `bucket`, `path` and the like
    /// under their names there.
    ///
    /// # Errors
    /// `Config`: unknown type, a field that is missing or does not fit.
    pub fn from_fields(kind: &str, fields: &dyn Lookup) -> Result<Self> {
        let provider = PROVIDERS.iter().find(|p| p.name == kind);
        let provider = provider.ok_or_else(|| {
            let names: Vec<&str> = PROVIDERS.iter().map(|p| p.name).collect();
            Error::config(format!(
                "there are no replicas of type '{kind}'; write one of {}",
                names.join(", ")
            ))
        })?;
        let settings = Settings::new(provider, "", fields)?;
        let site = (provider.locate)(&Source::Fields, &settings)?;
        Ok(Self { provider, site, keyring: Keyring::default() })
    }

    /// The same place, whose files are read with `keyring`.
    #[must_use]
    pub fn read_with(self, keyring: Keyring) -> Self {
        Self { keyring, ..self }
    }

    /// What the files here are read with.
    pub const fn keyring(&self) -> &Keyring {
        &self.keyring
    }

    /// The replica here. No request is made, no thread started and no environment read before it is first used. Failures
    /// that pass are tried again as `policy` says.
    pub fn connect_with(&self, opening: &Opening<'_>, policy: RetryPolicy) -> Arc<Replica> {
        let replica = Replica::new(self.site.open(opening), self.site.root(), self.provider.layout);
        let replica = replica.counted(self.provider.name).read_with(self.keyring.clone());
        Arc::new(if self.provider.is_remote { replica.patient(policy) } else { replica })
    }

    /// As [`Location::connect_with`], for whoever does not replicate a database there.
    pub fn connect(&self) -> Arc<Replica> {
        self.connect_with(&Opening::default(), RetryPolicy::default())
    }

    /// Whether its provider has the setting `name`, in any spelling.
    pub fn has_setting(&self, name: &str) -> bool {
        self.provider.settings.iter().any(|setting| setting.is_spelled(name))
    }

    /// Its place in the provider's store.
    pub fn site(&self) -> &dyn Site {
        &*self.site
    }

    /// What tells the replica here from others, by whatever name or link they are reached.
    pub fn whereabouts(&self) -> String {
        let folder = self.site.folder().map(|folder| folder.display().to_string());
        folder.unwrap_or_else(|| ReplicaIdentity::from(self).whereabouts())
    }
}

/// Refuses `s3://bucket/path&endpoint=…`: what follows a path begins with `?`.
fn refuse_settings_without_query(url: &str) -> Result<()> {
    let place = url.split_once('?').map_or(url, |(place, _)| place);
    let is_known = |key: &str| PROVIDERS.iter().flat_map(|p| p.settings).any(|s| s.is_spelled(key));
    let is_setting = |part: &&str| part.split_once('=').is_some_and(|(key, _)| is_known(key));
    match place.split('&').skip(1).find(is_setting).and_then(|part| part.split_once('=')) {
        Some((key, _)) => Err(Error::config(format!(
            "the replica URL has the setting '{key}' after '&' and no '?': write '?' before the first setting, as in \
             s3://bucket/path?{key}=…"
        ))),
        None => Ok(()),
    }
}

fn is_scheme(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c))
}

fn not_a_url(place: &str) -> Error {
    if place.is_empty() {
        return Error::config("the replica URL is empty; write s3://bucket/path or file:///path");
    }
    if place.starts_with('~') {
        return Error::config(at_home(place));
    }
    let absolute = std::path::absolute(place).unwrap_or_else(|_| PathBuf::from(place));
    if place.contains(['@', '?']) {
        return Error::config(format!(
            "'{}' is not a replica URL; write s3://bucket/path, or file:///path for a folder",
            without_secrets(place)
        ));
    }
    Error::config(format!(
        "'{place}' is not a replica URL; write s3://bucket/path, or file://{} for a folder",
        absolute.display()
    ))
}

/// A text that a user wrote in the place of a URL, for messages: without its query, and without what is before an `@`, which
/// may be a password.
pub fn without_secrets(text: &str) -> String {
    let place = text.split_once('?').map_or(text, |(place, _)| place);
    let Some((before, host)) = place.rsplit_once('@') else { return place.to_owned() };
    let scheme: String = before.chars().take_while(|c| *c != ':' && *c != '/').collect();
    if scheme.len() < before.len() { format!("{scheme}://…@{host}") } else { format!("…@{host}") }
}

fn unknown_scheme(scheme: &str) -> Error {
    let examples: Vec<&str> = PROVIDERS.iter().map(|p| p.example).collect();
    Error::config(format!(
        "replica URLs of scheme '{scheme}' are not supported; write one of {}",
        examples.join(", ")
    ))
}

/// What to write in the place of `~` or `~/…`.
pub(in crate::store) fn at_home(path: &str) -> String {
    let home = std::env::var("HOME").unwrap_or_else(|_| "/home/me".to_owned());
    format!("'~' is not expanded in '{path}'; write file://{home}{}", path.trim_start_matches('~'))
}

/// The path of a setting that names a file, where `~/` is the user's folder, as in Litestream's configuration file.
pub(in crate::store) fn home(path: &str) -> PathBuf {
    match (path.strip_prefix("~/"), std::env::var_os("HOME")) {
        (Some(rest), Some(home)) => PathBuf::from(home).join(rest),
        _ => PathBuf::from(path),
    }
}

/// Parameters beside the URL, without an environment.
impl<F: Fn(&str) -> Option<String>> Lookup for F {
    fn param(&self, name: &str) -> Option<String> {
        self(name)
    }

    fn env(&self, _: &str) -> Option<String> {
        None
    }
}

impl PartialEq for Location {
    fn eq(&self, other: &Self) -> bool {
        let is_same = self.provider.name == other.provider.name && self.site.is_same(&*other.site);
        is_same && self.keyring == other.keyring
    }
}

impl Eq for Location {}

impl Hash for Location {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.site.url().hash(state);
    }
}

impl fmt::Debug for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.site, f)
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.site.url())
    }
}

/// Authority and path of what follows the scheme of a replica URL, both percent-encoded. `example` is the provider's
/// URL as users write it.
///
/// # Errors
/// `Config` if there is no authority.
pub(in crate::store) fn authority_and_path<'a>(rest: &'a str, example: &str) -> Result<(&'a str, &'a str)> {
    // Tcl makes one slash of two in the name of a database, and of what a URI has in it.
    let place = rest.strip_prefix("//").or_else(|| rest.strip_prefix('/'));
    let place = place.ok_or_else(|| Error::config(format!("write the replica URL as {example}")))?;
    Ok(place.split_once('/').unwrap_or((place, "")))
}

/// A part of a URL without its percent-encoding.
///
/// # Errors
/// `Config` if it is not UTF-8 or has a zero byte.
pub(in crate::store) fn decode(text: &str) -> Result<String> {
    let decoded = percent_decode_str(text).decode_utf8();
    let decoded = decoded.map_err(|_| Error::config("the path of the replica URL is not UTF-8"))?;
    if decoded.contains('\0') {
        return Err(Error::config("the path of the replica URL has a zero byte"));
    }
    Ok(decoded.into_owned())
}

/// The path without empty, `.` and `..` segments and without slashes at either end, as Go's `path.Clean` leaves it.
pub(in crate::store) fn clean_path(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            other => parts.push(other),
        }
    }
    parts.join("/")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    fn none(_: &str) -> Option<String> {
        None
    }

    fn url(text: &str) -> String {
        Location::parse(text, &none).unwrap_or_else(|e| panic!("{text}: {e}")).to_string()
    }

    fn folder(text: &str) -> String {
        url(text).strip_prefix("file://").unwrap().to_owned()
    }

    fn refused(text: &str) -> String {
        let e = Location::parse(text, &none).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Config, "{text}: {e}");
        e.to_string()
    }

    #[test]
    fn file_urls_name_folders() {
        assert_eq!(folder("file:///var/replica"), "/var/replica");
        assert_eq!(folder("file:/var//x/./y/../replica/"), "/var/x/replica");
        assert_eq!(folder("FILE://localhost/a%20b%3F"), "/a b?");
        assert_eq!(
            folder("file:some/where"),
            format!("{}/some/where", std::env::current_dir().unwrap().display())
        );
        assert!(refused("file://host/share").contains("file:///"));
        assert!(refused("file://").contains("file:///path"));
        assert!(refused("file:///a?region=x").contains("no settings"));
    }

    #[test]
    fn a_plain_path_is_refused_with_the_url_to_write() {
        assert!(refused("/var/replica").contains("file:///var/replica"));
        assert!(refused("replica").contains("file:///"));
        assert!(refused("C").contains("file://"));
        assert!(refused(r"C:\backups\app").contains("path of Windows"));
        for home in ["~/backups", "file:~/backups", "file://~/backups"] {
            assert!(
                refused(home).contains("'~' is not expanded") && refused(home).ends_with("/backups"),
                "{home}"
            );
        }
    }

    #[test]
    fn settings_begin_with_a_question_mark() {
        assert!(refused("s3://b/p&endpoint=http://x").contains("write '?' before the first setting"));
        assert!(refused("file:///r&regoin=x&region=y").contains("'region'"));
        assert_eq!(url("s3://b/this&that"), "s3://b/this&that");
        assert_eq!(folder("file:///a&b=c"), "/a&b=c");
    }

    #[test]
    fn an_unknown_scheme_or_setting_names_the_known_ones() {
        assert!(refused("ftp://bucket/path").contains("s3://bucket/path"));
        assert!(refused("s3:bucket/path").contains("s3://bucket/path"));
        let message = refused("s3://bucket/path?regoin=eu&secret-access-key=hunter2");
        assert!(message.contains("'regoin'") && message.contains("region"), "{message}");
        assert!(!message.contains("hunter2"));
    }

    #[test]
    fn fields_make_the_same_location_as_a_url() {
        let fields = |pairs: &'static [(&str, &str)]| {
            move |name: &str| pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
        };
        for (kind, given, url) in [
            (
                "s3",
                fields(&[("bucket", "b"), ("path", "/a//b/"), ("region", "eu-west-1")]),
                "s3://b/a/b?region=eu-west-1",
            ),
            ("file", fields(&[("path", "/var/x/../replica")]), "file:///var/replica"),
            ("gs", fields(&[("bucket", "b"), ("path", "/a//b/")]), "gs://b/a/b"),
            ("abs", fields(&[("account-name", "me"), ("bucket", "c"), ("path", "p")]), "azure://me@c/p"),
            (
                "oss",
                fields(&[("bucket", "b"), ("path", "p"), ("region", "cn-beijing")]),
                "oss://b.oss-cn-beijing.aliyuncs.com/p",
            ),
        ] {
            let made = Location::from_fields(kind, &given).unwrap();
            assert_eq!(made, Location::parse(url, &none).unwrap());
        }
        let missing = Location::from_fields("s3", &none).unwrap_err().to_string();
        assert!(missing.contains("bucket"), "{missing}");
        assert!(Location::from_fields("tape", &none).unwrap_err().to_string().contains("'tape'"));
    }

    #[test]
    fn no_scheme_and_no_setting_has_two_meanings() {
        for (i, a) in PROVIDERS.iter().enumerate() {
            for b in &PROVIDERS[..i] {
                assert!(a.name != b.name && a.schemes.iter().all(|scheme| !b.schemes.contains(scheme)));
                for setting in a.settings {
                    let theirs = b.settings.iter().find(|s| s.is_spelled(setting.name));
                    assert!(theirs.is_none_or(|theirs| theirs == setting), "{}", setting.name);
                }
            }
        }
    }
}
