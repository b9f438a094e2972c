//! Settings of stores: what a provider declares, and how its values are found.

use std::fmt;

use super::site::{Lookup, Provider};
use crate::error::{Error, Result};

/// What values a store's setting takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreKind {
    /// Any text that is not empty.
    Text,
    /// Text that is never shown.
    Secret,
    /// `true` or `false`.
    Flag,
    /// A whole number.
    Count {
        /// The least.
        min: u64,
        /// The greatest.
        max: u64,
    },
    /// A number of bytes, limits written as a user writes them.
    Size {
        /// The least.
        min: &'static str,
        /// The greatest.
        max: &'static str,
    },
    /// A duration, limits written as a user writes them.
    Duration {
        /// The least.
        min: &'static str,
        /// The greatest.
        max: &'static str,
    },
}

/// A setting of a store. Providers that share one declare it with the same constant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoreSetting {
    /// Its name, in `kebab-case` as in Litestream's configuration file. `snake_case` and `camelCase` mean the same.
    pub name: &'static str,
    /// What values it takes.
    pub kind: StoreKind,
    /// The default as a user would write it; `None` if there is no value unless one is given.
    pub default: Option<&'static str>,
    /// What it does, in one line for `docs/settings.md`.
    pub doc: &'static str,
}

impl StoreSetting {
    /// A setting without a default.
    pub const fn new(name: &'static str, kind: StoreKind, doc: &'static str) -> Self {
        Self { name, kind, default: None, doc }
    }

    /// The same with a default.
    #[must_use]
    pub const fn default(mut self, text: &'static str) -> Self {
        self.default = Some(text);
        self
    }

    /// Whether `spelling` means this setting.
    pub fn is_spelled(&self, spelling: &str) -> bool {
        plain(self.name) == plain(spelling)
    }
}

/// Address of a server.
pub(in crate::store) const ENDPOINT: StoreSetting = StoreSetting::new(
    "endpoint",
    StoreKind::Text,
    "Address of the store, where it is not the provider's own: an S3-compatible server (the path style is then the \
     default), an emulator, a private endpoint.",
);
pub(in crate::store) const REGION: StoreSetting = StoreSetting::new(
    "region",
    StoreKind::Text,
    "Region of the bucket. Without it: what AWS's own configuration says; of OSS, what the endpoint says, or `cn-hangzhou`.",
);
pub(in crate::store) const SKIP_VERIFY: StoreSetting = StoreSetting::new(
    "skip-verify",
    StoreKind::Flag,
    "Accept any TLS certificate, and any key of an SFTP server.",
);
pub(in crate::store) const PASSWORD: StoreSetting = StoreSetting::new(
    "password",
    StoreKind::Secret,
    "The password of `user` on an SFTP server, or of `username` on a NATS server, where the replica URL does not have it.",
);
pub(in crate::store) const ACCESS_KEY_ID: StoreSetting = StoreSetting::new(
    "access-key-id",
    StoreKind::Text,
    "Credentials of S3 and OSS. Without them, S3 is reached with those that AWS's own tools would find.",
);
pub(in crate::store) const SECRET_ACCESS_KEY: StoreSetting =
    StoreSetting::new("secret-access-key", StoreKind::Secret, "The secret that belongs to `access_key_id`.");
pub(in crate::store) const SESSION_TOKEN: StoreSetting =
    StoreSetting::new("session-token", StoreKind::Secret, "The token of temporary credentials.");
pub(in crate::store) const PART_SIZE: StoreSetting = StoreSetting::new(
    "part-size",
    StoreKind::Size { min: "5MiB", max: "1GiB" },
    "Size of the parts that a large snapshot is uploaded in.",
)
.default("8MiB");
/// The default of `part-size`: few requests for a large snapshot, little memory.
const DEFAULT_PART_SIZE: usize = 8 << 20;
/// S3 takes no smaller parts, but for the last.
const MIN_PART_SIZE: usize = 5 << 20;
const MAX_PART_SIZE: usize = 1 << 30;
pub(in crate::store) const CONCURRENCY: StoreSetting = StoreSetting::new(
    "concurrency",
    StoreKind::Count { min: 1, max: 1000 },
    "Taken because Litestream's URLs have it; without effect.",
);

/// A name without what differs between `snake_case`, `kebab-case` and `camelCase`.
fn plain(name: &str) -> String {
    name.chars().filter(|c| !matches!(c, '-' | '_')).map(|c| c.to_ascii_lowercase()).collect()
}

/// The settings of one location, each from the first place that gives it: the query of the replica URL, what is around
/// the URL (parameters of the SQLite URI, options of a function, fields of a configuration file), the environment.
pub struct Settings<'a> {
    provider: &'static Provider,
    query: Vec<(&'static str, String)>,
    around: &'a dyn Lookup,
}

impl<'a> Settings<'a> {
    /// Reads the query of a replica URL of `provider`.
    ///
    /// # Errors
    /// `Config`: a setting that the provider does not have, or one that is given twice.
    pub fn new(provider: &'static Provider, query: &str, around: &'a dyn Lookup) -> Result<Self> {
        let mut found: Vec<(&'static str, String)> = Vec::new();
        for (key, value) in ::url::form_urlencoded::parse(query.as_bytes()) {
            let setting = provider.settings.iter().find(|s| s.is_spelled(&key));
            let name = setting.ok_or_else(|| unknown(provider, &key))?.name;
            if found.iter().any(|(known, _)| *known == name) {
                return Err(Error::config(format!("the replica URL gives the setting '{name}' twice")));
            }
            found.push((name, value.into_owned()));
        }
        Ok(Self { provider, query: found, around })
    }

    /// The value of `name` in the URL's query; `None` if it is not there or empty.
    pub fn in_query(&self, name: &str) -> Option<String> {
        let found = self.query.iter().find(|(known, _)| *known == name);
        found.map(|(_, value)| value.clone()).filter(|value| !value.is_empty())
    }

    /// The field `name` of a configuration file, such as `bucket` or `path`: what a URL would say.
    pub fn field(&self, name: &str) -> Option<String> {
        self.around(name)
    }

    /// The value of `name` around the URL, without the environment.
    fn around(&self, name: &str) -> Option<String> {
        self.around.param(name).filter(|value| !value.is_empty())
    }

    /// The value of `name` in the environment variables that the provider has for it, the first that is set.
    pub fn in_environment(&self, name: &str) -> Option<String> {
        let (_, variables) = self.provider.environment.iter().find(|(known, _)| *known == name)?;
        variables.iter().find_map(|variable| self.around.env(variable)).filter(|value| !value.is_empty())
    }

    /// The value of setting `name` that has precedence.
    pub fn get(&self, name: &str) -> Option<String> {
        debug_assert!(
            self.provider.settings.iter().any(|s| s.name == name),
            "BUG: {name} is no setting of {}",
            self.provider.name
        );
        self.in_query(name).or_else(|| self.around(name)).or_else(|| self.in_environment(name))
    }

    /// As [`Settings::get`], for a text that is never shown.
    pub fn secret(&self, name: &str) -> Option<Secret> {
        self.get(name).map(Secret::new)
    }

    /// A setting that is true or false.
    ///
    /// # Errors
    /// `Config` if it is neither.
    pub fn flag(&self, name: &str) -> Result<Option<bool>> {
        let Some(value) = self.get(name) else { return Ok(None) };
        match value.to_ascii_lowercase().as_str() {
            "true" | "1" | "t" | "yes" => Ok(Some(true)),
            "false" | "0" | "f" | "no" => Ok(Some(false)),
            _ => Err(Error::config(format!("the setting '{name}' is '{value}'; write true or false"))),
        }
    }

    /// A setting that is a whole number; a size in bytes.
    ///
    /// # Errors
    /// `Config` if it is none.
    pub fn number(&self, name: &str) -> Result<Option<usize>> {
        let Some(value) = self.get(name) else { return Ok(None) };
        let parsed = value.parse();
        parsed.map(Some).map_err(|_| {
            Error::config(format!("the setting '{name}' is '{value}'; write a whole number, without a unit"))
        })
    }

    /// The setting `part-size`: bytes of a part, which is held in memory.
    ///
    /// # Errors
    /// `Config` if it is not within its limits.
    pub(in crate::store) fn part_size(&self) -> Result<usize> {
        let Some(bytes) = self.number("part-size")? else { return Ok(DEFAULT_PART_SIZE) };
        if !(MIN_PART_SIZE..=MAX_PART_SIZE).contains(&bytes) {
            return Err(Error::config(format!(
                "the setting 'part-size' is {bytes}; write {MIN_PART_SIZE} to {MAX_PART_SIZE} bytes"
            )));
        }
        Ok(bytes)
    }

    /// Settings that belong together, such as the halves of credentials: all are from the same place, the first one
    /// that gives any of them.
    pub fn together<const N: usize>(&self, names: [&str; N]) -> [Option<String>; N] {
        for from in [Self::in_query, Self::around, Self::in_environment] {
            let found = names.map(|name| from(self, name));
            if found.iter().any(Option::is_some) {
                return found;
            }
        }
        names.map(|_| None)
    }
}

fn unknown(provider: &Provider, key: &str) -> Error {
    let known: Vec<&str> = provider.settings.iter().map(|s| s.name).collect();
    if known.is_empty() {
        return Error::config(format!(
            "a replica URL such as {} has no setting '{key}'; write a '?' in its path as %3F",
            provider.example
        ));
    }
    Error::config(format!(
        "the replica URL has an unknown setting '{key}'; the settings are {}",
        known.join(", ")
    ))
}

/// A text that is never printed.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Secret(String);

impl Secret {
    /// Guards `text`.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text, for signing.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}
