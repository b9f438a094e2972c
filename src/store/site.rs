//! What a provider is, and what it makes of a URL or of fields: a place in its store.

use std::any::Any;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::bucket::Bucket;
use super::layout::Layout;
use super::setting::{Settings, StoreSetting};
use crate::error::Result;

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

/// Parameters beside the URL, without an environment.
impl<F: Fn(&str) -> Option<String>> Lookup for F {
    fn param(&self, name: &str) -> Option<String> {
        self(name)
    }

    fn env(&self, _: &str) -> Option<String> {
        None
    }
}
