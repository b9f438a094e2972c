//! Where a replica is: its provider, its place there, and all that is needed to reach it.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::path::PathBuf;
use std::sync::Arc;

use super::identity::ReplicaIdentity;
use super::paths::at_home;
use super::provider::PROVIDERS;
use super::replica::Replica;
use super::setting::Settings;
use super::site::{Lookup, Opening, Provider, Site, Source};
use super::wrap::RetryPolicy;
use crate::error::{Error, Result};
use crate::ltx::Keyring;

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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::error::ErrorKind;
    use crate::store::spelling::{escaped, in_local_state};

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
        assert_eq!(folder("FILE://localhost/a%20b%3F"), "/a b%3F");
        assert_eq!(
            folder("file:some/where"),
            format!("{}/some/where", std::env::current_dir().unwrap().display())
        );
        assert!(refused("file://host/share").contains("file:///"));
        assert!(refused("file://").contains("file:///path"));
        assert!(refused("file:///a?region=x").contains("no setting 'region'"));
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

    /// Where each kind of store has a replica of this `path`, and the settings beside its URL.
    fn in_every_store(path: &str) -> Vec<(Location, impl Fn(&str) -> Option<String> + use<>)> {
        let given = [
            ("s3", vec![("bucket", "b")]),
            ("oss", vec![("bucket", "b")]),
            ("gs", vec![("bucket", "b%3F#?")]),
            ("abs", vec![("bucket", "b%"), ("account-name", "me")]),
            ("sftp", vec![("host", "h:2222"), ("user", "me")]),
            ("webdav", vec![("webdav-url", "https://h:4433/dav%2520")]),
            ("file", vec![]),
        ];
        let of = |(kind, fields): (&str, Vec<(&'static str, &'static str)>)| {
            let path = path.to_owned();
            let around = move |name: &str| match name {
                "path" => Some(path.clone()),
                name => fields.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned()),
            };
            (Location::from_fields(kind, &around).unwrap_or_else(|e| panic!("{kind}: {e}")), around)
        };
        given.into_iter().map(of).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]
        #[test]
        fn a_url_that_is_shown_leads_back(names in prop::collection::vec("[ab%?# \"'&=+~.:@,;25Féü漢\\\\\t\n-]{1,8}", 1..4)) {
            let path = format!("/x/{}", names.join("/"));
            for (location, around) in in_every_store(&path) {
                let shown = location.to_string();
                let back = Location::parse(&shown, &around);
                prop_assert_eq!(back.as_ref().map_err(ToString::to_string), Ok(&location), "{}", shown);
                // What local state has leads to the same text.
                prop_assert_eq!(escaped(&in_local_state(&shown)), shown);
            }
        }
    }

    #[test]
    fn only_what_would_be_something_else_is_escaped() {
        for (path, shown) in [
            ("/my files/été \"x\" & 'y'+~.db", "/my files/été \"x\" & 'y'+~.db"),
            ("/a%20b", "/a%2520b"),
            ("/what?/#1", "/what%3F/%231"),
        ] {
            for (location, _) in in_every_store(path) {
                assert!(location.to_string().ends_with(shown), "{location}");
            }
        }
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
