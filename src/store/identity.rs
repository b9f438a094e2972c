//! Which replica a location is.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::Location;
use super::spelling::{escaped, in_local_state};

/// Identity of a replica: the settings by which two locations are two replicas, or one replica of which each can
/// read only its own objects, as name and value. It carries no secret, and can be stored. Credentials are no
/// part of it: they may be renewed while a database is open.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "BTreeMap<String, String>", into = "BTreeMap<String, String>")]
pub struct ReplicaIdentity(BTreeMap<String, String>);

/// The name under which the URL is found.
const REPLICA: &str = "replica";
/// The name under which the address of its server is found.
const ENDPOINT: &str = "endpoint";
const NOT_GIVEN: &str = "(not given)";

impl ReplicaIdentity {
    /// The first setting by which `self` is another replica than `other`, the URL before all others: its name,
    /// the value here, and the one there. `None` if they are the same replica.
    pub fn difference<'a>(&'a self, other: &'a Self) -> Option<(&'a str, &'a str, &'a str)> {
        let value = |of: &'a Self, name| of.0.get(name).map_or(NOT_GIVEN, String::as_str);
        let names = self.0.keys().chain(other.0.keys()).map(String::as_str);
        std::iter::once(REPLICA)
            .chain(names)
            .map(|name| (name, value(self, name), value(other, name)))
            .find(|(_, ours, theirs)| ours != theirs)
    }
}

impl ReplicaIdentity {
    /// The place of the replica, by which local state tells two replicas of one database apart: URL and endpoint, without
    /// how its objects are encrypted.
    pub fn place(&self) -> String {
        let url = in_local_state(self.url());
        match self.0.get(ENDPOINT) {
            Some(endpoint) => format!("{url}, {ENDPOINT}={endpoint}"),
            None => url,
        }
    }

    /// The place of the replica, spelled in one way however it was given: the address of a server without its scheme and
    /// the port of that, and none where it is one of AWS, whose buckets have one name space.
    pub fn whereabouts(&self) -> String {
        let url = self.url();
        let server = self.0.get(ENDPOINT).map(|endpoint| {
            let (scheme, server) = endpoint.split_once("://").unwrap_or(("https", endpoint));
            let server = server.trim_end_matches('/').to_ascii_lowercase();
            let port = if scheme.eq_ignore_ascii_case("http") { ":80" } else { ":443" };
            server.strip_suffix(port).map_or_else(|| server.clone(), str::to_owned)
        });
        match server.filter(|server| !is_of_aws(server)) {
            Some(server) => format!("{url}, {ENDPOINT}={server}"),
            None => url.to_owned(),
        }
    }

    /// The URL of the replica, without settings.
    pub fn url(&self) -> &str {
        self.0.get(REPLICA).map_or("", String::as_str)
    }
}

/// Whether a server is one that requests go to without an endpoint, or a regional or private way to it.
fn is_of_aws(server: &str) -> bool {
    let is_s3 = |label: &str| label == "s3" || label.starts_with("s3-");
    server.strip_suffix(".amazonaws.com").is_some_and(|labels| labels.split('.').any(is_s3))
}

impl From<BTreeMap<String, String>> for ReplicaIdentity {
    /// As local state has it.
    fn from(mut stored: BTreeMap<String, String>) -> Self {
        stored.entry(REPLICA.to_owned()).and_modify(|url| *url = escaped(url));
        Self(stored)
    }
}

impl From<ReplicaIdentity> for BTreeMap<String, String> {
    fn from(ReplicaIdentity(mut shown): ReplicaIdentity) -> Self {
        shown.entry(REPLICA.to_owned()).and_modify(|url| *url = in_local_state(url));
        shown
    }
}

impl fmt::Display for ReplicaIdentity {
    /// `s3://bucket/app, endpoint=http://127.0.0.1:9000`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.get(REPLICA).map_or("", String::as_str))?;
        let rest = self.0.iter().filter(|(name, _)| *name != REPLICA);
        rest.into_iter().try_for_each(|(name, value)| write!(f, ", {name}={value}"))
    }
}

impl From<&Location> for ReplicaIdentity {
    fn from(location: &Location) -> Self {
        let settings = location.site().identity().into_iter().map(|(name, value)| (name.to_owned(), value));
        Self(settings.chain([(REPLICA.to_owned(), location.to_string())]).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(url: &str) -> ReplicaIdentity {
        ReplicaIdentity::from(&Location::parse(url, &|_: &str| None).unwrap())
    }

    #[test]
    fn a_replica_is_where_it_is_and_what_opens_it() {
        let ours = "s3://bucket/app?endpoint=http://a:9000";
        for (theirs, difference) in [
            (ours, None),
            ("s3://bucket/app?endpoint=http://a:9000&access-key-id=A&secret-access-key=B", None),
            ("s3://bucket/app?endpoint=http://a:9000&region=eu-west-1&part-size=67108864", None),
            (
                "s3://bucket/other?endpoint=http://b",
                Some(("replica", "s3://bucket/app", "s3://bucket/other")),
            ),
            ("file:///app", Some(("replica", "s3://bucket/app", "file:///app"))),
            ("s3://bucket/app?endpoint=http://b:9000", Some(("endpoint", "http://a:9000", "http://b:9000"))),
            ("s3://bucket/app", Some(("endpoint", "http://a:9000", NOT_GIVEN))),
            (
                "s3://bucket/app?endpoint=http://a:9000&sse-kms-key-id=k",
                Some(("sse_kms_key_id", NOT_GIVEN, "k")),
            ),
        ] {
            assert_eq!(identity(ours).difference(&identity(theirs)), difference, "{theirs}");
        }
    }

    #[test]
    fn one_place_has_one_spelling() {
        for (a, b) in [
            ("s3://b/app", "s3://b/app?endpoint=https://s3.amazonaws.com"),
            ("s3://b/app", "s3://b/app?endpoint=https://s3.eu-west-1.amazonaws.com/&region=eu-west-1"),
            ("s3://b/app", "s3://b/app/?endpoint=https://s3-us-west-2.amazonaws.com"),
            ("s3://b/app", "s3://b/app?endpoint=https://s3.dualstack.us-east-1.amazonaws.com"),
            ("s3://b/app?endpoint=http://A:80", "s3://b/app?part-size=16777216&endpoint=http://a/"),
            ("s3://b/app?endpoint=https://a:443", "s3://b/app?endpoint=https://a"),
        ] {
            assert_eq!(identity(a).whereabouts(), identity(b).whereabouts(), "{a} {b}");
        }
        for (a, b) in [
            ("s3://b/app", "s3://b/other"),
            ("s3://b/app", "s3://b/app?endpoint=https://s3.cn-north-1.amazonaws.com.cn"),
            ("s3://b/app", "s3://b/app?endpoint=http://127.0.0.1:9000"),
            ("s3://b/app?endpoint=http://a:9000", "s3://b/app?endpoint=http://a:9001"),
        ] {
            assert_ne!(identity(a).whereabouts(), identity(b).whereabouts(), "{a} {b}");
        }
    }

    #[test]
    fn local_state_has_the_url_as_all_versions_wrote_it() {
        for (url, stored) in [
            ("file:///a%20b%3F", "file:///a b?"),
            ("file:///a%2520b", "file:///a%20b"),
            ("s3://b/100%25%23", "s3://b/100%#"),
        ] {
            let ours = identity(url);
            assert_eq!(ours.place(), stored);
            let json = serde_json::json!({ "replica": stored });
            assert_eq!(serde_json::to_value(&ours).unwrap(), json);
            assert_eq!(serde_json::from_value::<ReplicaIdentity>(json).unwrap(), ours);
        }
    }

    #[test]
    fn it_carries_no_secret() {
        let key = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";
        let url = format!(
            "s3://bucket/app?endpoint=https://a:9000&access-key-id=A&secret-access-key=hidden&sse-customer-key={}",
            key.replace('=', "%3D")
        );
        let identity = identity(&url);
        let texts = [identity.to_string(), serde_json::to_string(&identity).unwrap()];
        assert!(texts.iter().all(|text| !text.contains("hidden") && !text.contains(key)), "{texts:?}");
        assert!(texts[0].starts_with("s3://bucket/app, endpoint=https://a:9000, sse_customer_key_md5="));
    }
}
