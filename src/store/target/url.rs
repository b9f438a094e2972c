//! Reading replica URLs.

use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use md5::{Digest as _, Md5};
use percent_encoding::percent_decode_str;

use super::endpoint::{self, Host};
use super::{Encryption, Lookup, S3Target, Secret, Target};
use crate::error::{Error, Result};

/// The default size of a part: few requests for a large snapshot, little memory.
const PART_SIZE: usize = 8 << 20;
/// S3 takes no smaller parts, but for the last.
const MIN_PART_SIZE: usize = 5 << 20;
/// A part is held in memory.
const MAX_PART_SIZE: usize = 1 << 30;

pub(super) fn parse(url: &str, lookup: Lookup<'_>) -> Result<Target> {
    refuse_settings_without_query(url)?;
    let (place, query) = match url.split_once('?') {
        Some((place, query)) => (place, Some(query)),
        None => (url, None),
    };
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
    match scheme.to_ascii_lowercase().as_str() {
        "file" => file(rest, query),
        "s3" => s3(rest, query, lookup),
        other => Err(Error::config(format!(
            "replica URLs of scheme '{other}' are not supported; write s3://bucket/path or file:///path"
        ))),
    }
}

/// Refuses `s3://bucket/path&endpoint=…`: what follows a path begins with `?`.
fn refuse_settings_without_query(url: &str) -> Result<()> {
    let place = url.split_once('?').map_or(url, |(place, _)| place);
    let is_setting = |part: &&str| part.split_once('=').is_some_and(|(key, _)| canonical(key).is_some());
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
    Error::config(format!(
        "'{place}' is not a replica URL; write s3://bucket/path, or file://{} for a folder",
        absolute.display()
    ))
}

/// What to write in the place of `~` or `~/…`.
fn at_home(path: &str) -> String {
    let home = std::env::var("HOME").unwrap_or_else(|_| "/home/me".to_owned());
    format!("'~' is not expanded in '{path}'; write file://{home}{}", path.trim_start_matches('~'))
}

fn file(rest: &str, query: Option<&str>) -> Result<Target> {
    if query.is_some_and(|q| !q.is_empty()) {
        return Err(Error::config("a file:// replica has no settings; write a '?' in its path as %3F"));
    }
    let path = match rest.strip_prefix("//") {
        Some(authority) if authority.starts_with("localhost/") => &authority["localhost".len()..],
        Some(authority) if authority.is_empty() || authority.starts_with('/') => authority,
        Some(home) if home == "~" || home.starts_with("~/") => return Err(Error::config(at_home(home))),
        Some(host) => {
            return Err(Error::config(format!(
                "'file://{host}' names a host; write file:///{host} for an absolute path, or file:{host} for a \
                 relative one"
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
    Ok(Target::File { path: lexically_clean(&path) })
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

fn decode(text: &str) -> Result<String> {
    let decoded = percent_decode_str(text).decode_utf8();
    let decoded = decoded.map_err(|_| Error::config("the path of the replica URL is not UTF-8"))?;
    if decoded.contains('\0') {
        return Err(Error::config("the path of the replica URL has a zero byte"));
    }
    Ok(decoded.into_owned())
}

fn s3(rest: &str, query: Option<&str>, lookup: Lookup<'_>) -> Result<Target> {
    let settings = Settings::new(query.unwrap_or_default(), lookup)?;
    let (host, path) = place(rest)?;
    if host.bucket.is_empty() {
        return Err(Error::config(
            "the replica URL names no bucket; write s3://bucket/path, and a server of your own as the \
             setting endpoint=http://host:port",
        ));
    }
    let given = if host.names_provider { settings.in_query("endpoint") } else { settings.get("endpoint") };
    let given = given.map(|e| endpoint::normalize(&e)).transpose()?;
    let wanted = given.is_some() || host.path_style;
    let endpoint = given.or(host.endpoint);
    let wanted = wanted || endpoint.as_deref().is_some_and(endpoint::wants_path_style);
    let tigris = endpoint.as_deref().is_some_and(endpoint::is_tigris);
    if endpoint.is_some() && host.bucket.starts_with("arn:") {
        return Err(Error::config(
            "an access point is reached without an endpoint; remove the setting endpoint",
        ));
    }
    // Litestream's URLs have these; their values must be right even though nothing depends on them.
    settings.bool("sign-payload")?;
    settings.number("concurrency")?;
    let (access_key_id, secret_access_key, session_token) = settings.credentials()?;
    Ok(Target::S3(S3Target {
        bucket: host.bucket,
        path,
        region: settings.get("region").or(host.region),
        path_style: settings.bool("force-path-style")?.unwrap_or(wanted),
        skip_verify: settings.bool("skip-verify")?.unwrap_or(false),
        access_key_id,
        secret_access_key,
        session_token,
        storage_class: settings.get("storage-class"),
        encryption: settings.encryption(endpoint.as_deref())?,
        part_size: settings.part_size()?,
        content_md5: settings.bool("require-content-md5")?.unwrap_or(!tigris),
        endpoint,
    }))
}

/// Host and path of what follows `s3:`.
fn place(rest: &str) -> Result<(Host, String)> {
    // Tcl makes one slash of two in the name of a database, and of what a URI has in it.
    let place = rest
        .strip_prefix("//")
        .or_else(|| rest.strip_prefix('/'))
        .ok_or_else(|| Error::config("an S3 replica URL begins with s3://; write s3://bucket/path"))?;
    if place.len() >= 4 && place.is_char_boundary(4) && place[..4].eq_ignore_ascii_case("arn:") {
        return access_point(place);
    }
    let (authority, path) = place.split_once('/').unwrap_or((place, ""));
    if authority.contains('@') {
        return Err(Error::config(
            "credentials do not belong before the bucket; use the settings access-key-id and \
             secret-access-key, or the environment",
        ));
    }
    Ok((Host::parse(&decode(authority)?), clean_path(&decode(path)?)))
}

/// `arn:aws:s3:{region}:{account}:accesspoint/{name}[/{path}]`
fn access_point(place: &str) -> Result<(Host, String)> {
    const MARKER: &str = ":accesspoint/";
    let bad = || {
        Error::config(format!(
            "'{place}' is not the ARN of an access point; write \
             s3://arn:aws:s3:region:account:accesspoint/name/path"
        ))
    };
    let (prefix, rest) = place.split_once(MARKER).ok_or_else(bad)?;
    let (name, path) = rest.split_once('/').unwrap_or((rest, ""));
    let fields: Vec<&str> = prefix.split(':').collect();
    let [_, _, "s3", region, account] = fields[..] else { return Err(bad()) };
    if region.is_empty() || account.is_empty() || name.is_empty() {
        return Err(bad());
    }
    let host = Host {
        bucket: format!("arn:{}{MARKER}{name}", &prefix[4..]),
        region: Some(region.to_owned()),
        names_provider: true,
        ..Host::default()
    };
    Ok((host, clean_path(&decode(path)?)))
}

/// The path without empty, `.` and `..` segments, as Go's `path.Clean` leaves it.
fn clean_path(path: &str) -> String {
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

/// The settings of the URL's query, and those around it.
struct Settings<'a> {
    query: Vec<(&'static str, String)>,
    lookup: Lookup<'a>,
}

impl<'a> Settings<'a> {
    fn new(query: &str, lookup: Lookup<'a>) -> Result<Self> {
        let mut found: Vec<(&'static str, String)> = Vec::new();
        for (key, value) in ::url::form_urlencoded::parse(query.as_bytes()) {
            let name = canonical(&key).ok_or_else(|| unknown(&key))?;
            if found.iter().any(|(known, _)| *known == name) {
                return Err(Error::config(format!("the replica URL gives the setting '{name}' twice")));
            }
            found.push((name, value.into_owned()));
        }
        Ok(Self { query: found, lookup })
    }

    fn in_query(&self, name: &str) -> Option<String> {
        self.query.iter().find(|(known, _)| *known == name).map(|(_, v)| v.clone()).filter(|v| !v.is_empty())
    }

    fn get(&self, name: &str) -> Option<String> {
        debug_assert!(canonical(name) == Some(name), "BUG: {name} is not a setting");
        self.in_query(name).or_else(|| (self.lookup)(name).filter(|v| !v.is_empty()))
    }

    fn bool(&self, name: &str) -> Result<Option<bool>> {
        let Some(value) = self.get(name) else { return Ok(None) };
        match value.to_ascii_lowercase().as_str() {
            "true" | "1" | "t" | "yes" => Ok(Some(true)),
            "false" | "0" | "f" | "no" => Ok(Some(false)),
            _ => Err(Error::config(format!("the setting '{name}' is '{value}'; write true or false"))),
        }
    }

    fn number(&self, name: &str) -> Result<Option<usize>> {
        let Some(value) = self.get(name) else { return Ok(None) };
        let parsed = value.parse();
        parsed.map(Some).map_err(|_| {
            Error::config(format!("the setting '{name}' is '{value}'; write a whole number, without a unit"))
        })
    }

    fn part_size(&self) -> Result<usize> {
        let Some(bytes) = self.number("part-size")? else { return Ok(PART_SIZE) };
        if !(MIN_PART_SIZE..=MAX_PART_SIZE).contains(&bytes) {
            return Err(Error::config(format!(
                "the setting 'part-size' is {bytes}; write {MIN_PART_SIZE} to {MAX_PART_SIZE} bytes"
            )));
        }
        Ok(bytes)
    }

    /// Credentials belong together: all are from the query, or none.
    fn credentials(&self) -> Result<(Option<String>, Option<Secret>, Option<Secret>)> {
        const NAMES: [&str; 3] = ["access-key-id", "secret-access-key", "session-token"];
        let in_query = NAMES.iter().any(|name| self.in_query(name).is_some());
        let [id, secret, token] =
            NAMES.map(|name| if in_query { self.in_query(name) } else { self.get(name) });
        match (&id, &secret) {
            (Some(_), None) => Err(half("access-key-id", "secret-access-key")),
            (None, Some(_)) => Err(half("secret-access-key", "access-key-id")),
            (None, None) if token.is_some() => Err(half("session-token", "access-key-id")),
            _ => Ok((id, secret.map(Secret::new), token.map(Secret::new))),
        }
    }

    fn encryption(&self, endpoint: Option<&str>) -> Result<Encryption> {
        if let Some(algorithm) = self.get("sse-customer-algorithm")
            && algorithm != "AES256"
        {
            return Err(Error::config(format!(
                "the setting 'sse-customer-algorithm' is '{algorithm}'; write AES256"
            )));
        }
        let (kms, customer) = (self.get("sse-kms-key-id"), self.get("sse-customer-key"));
        match (kms, customer) {
            (None, None) => Ok(Encryption::Bucket),
            (Some(key_id), None) => Ok(Encryption::Kms { key_id }),
            (None, Some(key)) => self.customer_key(key, endpoint),
            (Some(_), Some(_)) => Err(Error::config(
                "the settings sse-kms-key-id and sse-customer-key exclude each other; give one",
            )),
        }
    }

    fn customer_key(&self, key: String, endpoint: Option<&str>) -> Result<Encryption> {
        let bytes = BASE64.decode(&key).ok().filter(|bytes| bytes.len() == 32).ok_or_else(|| {
            Error::config("the setting 'sse-customer-key' is not a key; write 32 bytes in base64")
        })?;
        if endpoint.and_then(|e| e.strip_prefix("http://")).is_some_and(|e| !endpoint::is_local(e)) {
            return Err(Error::config("the setting 'sse-customer-key' needs an https endpoint"));
        }
        let key_md5 = self.get("sse-customer-key-md5").unwrap_or_else(|| BASE64.encode(Md5::digest(&bytes)));
        Ok(Encryption::Customer { key: Secret::new(key), key_md5 })
    }
}

fn canonical(key: &str) -> Option<&'static str> {
    Target::SETTINGS.iter().find(|row| row.contains(&key)).map(|row| row[0])
}

fn unknown(key: &str) -> Error {
    let known: Vec<&str> = Target::SETTINGS.iter().map(|row| row[0]).collect();
    Error::config(format!(
        "the replica URL has an unknown setting '{key}'; the settings are {}",
        known.join(", ")
    ))
}

fn half(given: &str, missing: &str) -> Error {
    Error::config(format!("the setting '{given}' is given without '{missing}'; give both or neither"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    fn none(_: &str) -> Option<String> {
        None
    }

    fn s3_target(url: &str) -> S3Target {
        match Target::parse(url, &none) {
            Ok(Target::S3(s3)) => s3,
            other => panic!("{url}: {other:?}"),
        }
    }

    fn refused(url: &str) -> String {
        let e = Target::parse(url, &none).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Config, "{url}: {e}");
        e.to_string()
    }

    fn folder(url: &str) -> PathBuf {
        match Target::parse(url, &none) {
            Ok(Target::File { path }) => path,
            other => panic!("{url}: {other:?}"),
        }
    }

    #[test]
    fn file_urls_name_folders() {
        assert_eq!(folder("file:///var/replica"), PathBuf::from("/var/replica"));
        assert_eq!(folder("file:/var//x/./y/../replica/"), PathBuf::from("/var/x/replica"));
        assert_eq!(folder("FILE://localhost/a%20b%3F"), PathBuf::from("/a b?"));
        assert_eq!(folder("file:some/where"), std::env::current_dir().unwrap().join("some/where"));
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
        assert_eq!(s3_target("s3://b/this&that").path, "this&that");
        assert_eq!(folder("file:///a&b=c"), PathBuf::from("/a&b=c"));
    }

    #[test]
    fn one_slash_is_as_good_as_two() {
        assert_eq!(
            s3_target("s3:/bucket/path?endpoint=http:/127.0.0.1:9"),
            s3_target("s3://bucket/path?endpoint=http://127.0.0.1:9")
        );
        assert!(refused("").contains("s3://bucket/path"));
    }

    #[test]
    fn an_unknown_scheme_or_setting_names_the_known_ones() {
        assert!(refused("gs://bucket/path").contains("s3://bucket/path"));
        assert!(refused("s3:bucket/path").contains("s3://bucket/path"));
        let message = refused("s3://bucket/path?regoin=eu&secret-access-key=hunter2");
        assert!(message.contains("'regoin'") && message.contains("region"), "{message}");
        assert!(!message.contains("hunter2"));
    }

    #[test]
    fn a_bucket_and_a_path_are_enough() {
        let s3 = s3_target("s3://bucket//a/./b/../c%20d/");
        assert_eq!((s3.bucket.as_str(), s3.path.as_str()), ("bucket", "a/c d"));
        assert_eq!((s3.endpoint, s3.region, s3.path_style), (None, None, false));
        assert_eq!((s3.part_size, s3.content_md5, s3.encryption), (PART_SIZE, true, Encryption::Bucket));
        assert_eq!(s3_target("s3://bucket").path, "");
        assert_eq!(Target::parse("S3://bucket/p", &none).unwrap().to_string(), "s3://bucket/p");
    }

    #[test]
    fn both_spellings_of_a_setting_mean_the_same() {
        let kebab =
            s3_target("s3://b/p?endpoint=h.example&force-path-style=no&skip-verify=1&storage-class=GLACIER");
        let camel = s3_target(
            "s3://b/p?endpoint=h.example&forcePathStyle=false&skipVerify=true&storageClass=GLACIER",
        );
        assert_eq!(kebab, camel);
        assert_eq!((kebab.path_style, kebab.skip_verify), (false, true));
        assert_eq!(kebab.endpoint.as_deref(), Some("https://h.example"));
    }

    #[test]
    fn a_custom_endpoint_makes_path_style_the_default() {
        assert!(s3_target("s3://b/p?endpoint=http://127.0.0.1:9000").path_style);
        assert!(s3_target("s3://b.localhost:9000/p").path_style);
        assert!(!s3_target("s3://b.fra1.digitaloceanspaces.com/p").path_style);
        assert!(!s3_target("s3://b/p?endpoint=https://t3.storage.dev").content_md5);
    }

    #[test]
    fn the_query_wins_over_what_is_around_it() {
        let around = |name: &str| match name {
            "region" => Some("around".to_owned()),
            "endpoint" => Some("http://around:1".to_owned()),
            _ => None,
        };
        let Ok(Target::S3(s3)) = Target::parse("s3://b/p?region=query", &around) else { panic!() };
        assert_eq!(s3.region.as_deref(), Some("query"));
        assert_eq!(s3.endpoint.as_deref(), Some("http://around:1"));
        let Ok(Target::S3(s3)) = Target::parse("s3://b.localhost:9000/p", &around) else { panic!() };
        assert_eq!(s3.endpoint.as_deref(), Some("http://localhost:9000"));
    }

    #[test]
    fn credentials_come_as_a_set() {
        let around = |name: &str| {
            ["access-key-id", "secret-access-key", "session-token"]
                .contains(&name)
                .then(|| format!("around {name}"))
        };
        let url = "s3://b/p?access-key-id=id&secretAccessKey=hunter2";
        let Ok(Target::S3(s3)) = Target::parse(url, &around) else { panic!() };
        assert_eq!(s3.access_key_id.as_deref(), Some("id"));
        assert_eq!(s3.secret_access_key, Some(Secret::new("hunter2")));
        assert_eq!(s3.session_token, None);
        assert!(!format!("{s3:?} {s3}").contains("hunter2"));
        assert!(refused("s3://b/p?access-key-id=id").contains("secret-access-key"));
        assert!(refused("s3://b/p?session-token=t").contains("access-key-id"));
        assert!(!refused("s3://id:hunter2@b/p").contains("hunter2"));
    }

    #[test]
    fn access_points_are_buckets() {
        let s3 = s3_target("s3://arn:aws:s3:eu-west-1:123456789012:accesspoint/db/some/path");
        assert_eq!(s3.bucket, "arn:aws:s3:eu-west-1:123456789012:accesspoint/db");
        assert_eq!((s3.path.as_str(), s3.region.as_deref()), ("some/path", Some("eu-west-1")));
        refused("s3://arn:aws:s3:::accesspoint/db");
        refused("s3://arn:aws:s3:eu-west-1:1:bucket/db");
        refused("s3://arn:aws:s3:eu-west-1:1:accesspoint/db?endpoint=http://x");
    }

    #[test]
    fn encryption_settings_are_checked() {
        let key = BASE64.encode([7; 32]);
        let s3 = s3_target(&format!("s3://b/p?sse-customer-key={}", key.replace('+', "%2B")));
        let Encryption::Customer { key_md5, .. } = s3.encryption else { panic!() };
        assert_eq!(key_md5, BASE64.encode(Md5::digest([7; 32])));
        let kms = s3_target("s3://b/p?sseKmsKeyId=alias/k").encryption;
        assert_eq!(kms, Encryption::Kms { key_id: "alias/k".into() });
        refused(&format!("s3://b/p?sse-customer-key={key}&sse-kms-key-id=k"));
        refused(&format!("s3://b/p?sse-customer-key={key}&sse-customer-algorithm=DES"));
        refused(&format!("s3://b/p?sse-customer-key={key}&endpoint=http://example.com"));
        s3_target(&format!("s3://b/p?sse-customer-key={key}&endpoint=http://127.0.0.1:9000"));
        refused("s3://b/p?sse-customer-key=c2hvcnQ=");
    }

    #[test]
    fn values_that_do_not_fit_are_refused() {
        refused("s3:///path");
        refused("s3://localhost:9000/bucket");
        refused("s3://b/p?skip-verify=perhaps");
        refused("s3://b/p?part-size=1024");
        refused("s3://b/p?part-size=8MB");
        refused("s3://b/p?region=a&region=b");
        refused("s3://b/p#fragment");
    }
}
