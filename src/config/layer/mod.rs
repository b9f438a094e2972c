//! The layers in which settings are given, each with its origin: parameters of a URI or options of a function, the
//! query of a replica's URL, a configuration file, the environment, defaults. The first that gives a setting wins.

mod env;
pub(super) mod file;
mod uri;

use std::path::Path;
use std::sync::Arc;

use percent_encoding::percent_decode_str;

use super::catalog::{AGE_RECIPIENT, CONFIG, REPLICA, SETTINGS};
use super::origin::Origin;
use super::setting::{Declared, Kind, Scope, Setting, Value as _};
use super::{Params, value};
use crate::config::setting;
use crate::error::{Error, ErrorKind, Result};
use crate::replica::RestorePoint;
use crate::store::Lookup;
pub(super) use env::NoEnv;
pub use env::{Env, ProcessEnv};

/// How parameters that are no settings of ours are met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unknown {
    /// Another reader's, unless it looks like ours: a URI is shared with SQLite and the base VFS.
    Ignored,
    /// A mistake: nobody else reads it.
    Refused,
}

/// A value that was given to a setting, and where.
#[derive(Clone, Debug)]
pub(super) struct Assigned {
    pub(super) setting: &'static Declared,
    pub(super) text: String,
    pub(super) origin: Origin,
}

/// The text of a setting and where it was found.
#[derive(Clone, Debug)]
pub(super) struct Found {
    pub(super) text: String,
    pub(super) origin: Origin,
}

impl Found {
    fn of(value: &Assigned) -> Self {
        Self { text: value.text.clone(), origin: value.origin.clone() }
    }
}

/// Settings that were given, checked one by one: in the order of their precedence, with the environment behind them.
#[derive(Clone, Debug)]
pub(super) struct Given<'a> {
    values: Vec<Assigned>,
    env: &'a dyn Env,
}

impl Given<'static> {
    /// Nothing was given: each setting has its default.
    pub(super) fn nothing() -> Self {
        Self { values: Vec::new(), env: &NoEnv }
    }
}

impl<'a> Given<'a> {
    /// Only what is in the environment.
    pub(super) fn environment(env: &'a dyn Env) -> Self {
        Self { values: Vec::new(), env }
    }

    /// Reads the parameters of a URI, of which the settings in `scopes` are accepted. Other parameters are for other
    /// readers.
    ///
    /// # Errors
    /// `Config`: a setting that is misspelled, given twice, or has a value that it cannot have.
    pub(super) fn uri(params: &dyn Params, env: &'a dyn Env, scopes: &[Scope]) -> Result<Self> {
        Self::read(params, env, scopes, Unknown::Ignored, Origin::Uri)
    }

    /// Reads the options of a SQL function, which are the settings in `scopes`.
    ///
    /// # Errors
    /// As [`Given::uri`].
    pub(super) fn options(params: &dyn Params, env: &'a dyn Env, scopes: &[Scope]) -> Result<Self> {
        Self::read(params, env, scopes, Unknown::Refused, Origin::Option)
    }

    fn read(
        params: &dyn Params,
        env: &'a dyn Env,
        scopes: &[Scope],
        unknown: Unknown,
        origin: fn(&'static str) -> Origin,
    ) -> Result<Self> {
        let mut given = Self::environment(env);
        let accepted: Vec<_> = SETTINGS.iter().filter(|s| scopes.contains(&s.scope)).collect();
        for (key, text) in params.pairs() {
            match accepted.iter().find(|s| s.is_spelled(&key)) {
                Some(setting) => given.add(setting, text, origin(setting.name))?,
                None => uri::refuse_misspelling(&key, &accepted, unknown)?,
            }
        }
        Ok(given)
    }

    fn add(&mut self, setting: &'static Declared, text: String, origin: Origin) -> Result<()> {
        // Only replicas and recipients may be several.
        let is_several = [REPLICA.declared.name, AGE_RECIPIENT.declared.name].contains(&setting.name);
        if !is_several && self.values.iter().any(|given| given.setting.name == setting.name) {
            return Err(Error::config(format!("'{}' is given twice", setting.name)));
        }
        setting.check(&text).map_err(|e| e.context(origin.label()))?;
        self.values.push(Assigned { setting, text, origin });
        Ok(())
    }

    /// These settings, and before them those in `scopes` that the URL of a replica carries for itself; and that URL
    /// without them.
    ///
    /// # Errors
    /// `Config`: a setting that is given twice, or has a value that it cannot have.
    pub(super) fn of_replica(&self, url: &str, scopes: &[Scope]) -> Result<(Self, String)> {
        let Some((place, query)) = url.split_once('?') else { return Ok((self.clone(), url.to_owned())) };
        let mut own = Self::environment(self.env);
        let mut rest = Vec::new();
        for pair in query.split('&') {
            let (key, text) = pair.split_once('=').unwrap_or((pair, ""));
            let decoded = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
            let key = decoded(key);
            match SETTINGS.iter().find(|s| scopes.contains(&s.scope) && s.is_spelled(&key)) {
                Some(setting) => own.add(setting, decoded(text), Origin::Url(setting.name))?,
                None => rest.push(pair),
            }
        }
        own.values.extend_from_slice(&self.values);
        let url = if rest.is_empty() { place.to_owned() } else { format!("{place}?{}", rest.join("&")) };
        Ok((own, url))
    }

    /// These settings, and behind them `values`.
    pub(super) fn before(&self, values: impl IntoIterator<Item = Assigned>) -> Self {
        let mut all = self.clone();
        all.values.extend(values);
        all
    }

    /// The settings whose values are in the query of a replica's URL that a configuration file gives, less what is given
    /// here: there a field wins over the URL.
    pub(super) fn without_given(&self, url: &str) -> String {
        let Some((place, query)) = url.split_once('?') else { return url.to_owned() };
        let is_given = |pair: &&str| {
            let key = pair.split_once('=').map_or(*pair, |(key, _)| key);
            SETTINGS
                .iter()
                .any(|s| s.scope == Scope::Store && s.is_spelled(key) && self.assigned(s).is_some())
        };
        let rest: Vec<&str> = query.split('&').filter(|pair| !is_given(pair)).collect();
        if rest.is_empty() { place.to_owned() } else { format!("{place}?{}", rest.join("&")) }
    }

    /// The configuration file that holds here: the one that is named, or `/etc/litestream.yml` if there is one.
    ///
    /// # Errors
    /// Those of the file, if it is there or named.
    pub(super) fn document(&self) -> Result<Option<Arc<file::Document>>> {
        const USUAL: &str = "/etc/litestream.yml";
        match self.given(&CONFIG.declared) {
            Some(found) if found.text == "off" => Ok(None),
            Some(found) => {
                let named = |e: Error| e.context(found.origin.label());
                let path = value::path(&found.text).map_err(named)?;
                let path = std::path::absolute(&path).map_err(|e| named(Error::io(path.display(), e)))?;
                file::document(&path, self.env).map(Some).map_err(|e| match e.kind() {
                    ErrorKind::Config => e,
                    // It is not there, or cannot be read: what named it is to be corrected.
                    _ => Error::config(named(e).to_string()),
                })
            }
            None => match file::document(Path::new(USUAL), self.env) {
                Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
                document => document.map(Some),
            },
        }
    }

    /// Every value of a parameter.
    pub(super) fn params<T>(&self, setting: &Setting<T>) -> Vec<Found> {
        self.values
            .iter()
            .filter(|given| given.setting.name == setting.declared.name)
            .map(Found::of)
            .collect()
    }

    /// The settings in `scopes` that were given, in any layer, by name.
    pub(super) fn named_in(&self, scopes: &[Scope]) -> Vec<&'static str> {
        let settings = SETTINGS.iter().filter(|s| scopes.contains(&s.scope) && self.given(s).is_some());
        settings.map(|s| s.name).collect()
    }

    /// Whether there are no parameters of ours.
    pub(super) fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// The value that was given as a parameter or in a file.
    pub(super) fn param<T>(&self, setting: &Setting<T>) -> Option<Found> {
        self.assigned(&setting.declared)
    }

    pub(super) fn assigned(&self, setting: &Declared) -> Option<Found> {
        self.values.iter().find(|given| given.setting.name == setting.name).map(Found::of)
    }

    /// The value that is in the environment.
    pub(super) fn env<T>(&self, setting: &Setting<T>) -> Option<Found> {
        self.in_environment(&setting.declared)
    }

    fn in_environment(&self, setting: &Declared) -> Option<Found> {
        let mut variables = setting.env.iter();
        variables.find_map(|&name| self.env.var(name).map(|text| Found { text, origin: Origin::Env(name) }))
    }

    /// The value that was given, in any layer.
    fn given(&self, setting: &Declared) -> Option<Found> {
        self.assigned(setting).or_else(|| self.in_environment(setting))
    }

    /// The first of `settings` that was given: one in the environment only if no other layer has any.
    pub(super) fn first_of(&self, settings: &[&'static Declared]) -> Option<(&'static Declared, Found)> {
        let named = |given: &&Assigned| settings.iter().any(|setting| setting.name == given.setting.name);
        let first = self.values.iter().find(named).map(|given| (given.setting, Found::of(given)));
        let in_environment =
            || settings.iter().find_map(|setting| Some((*setting, self.in_environment(setting)?)));
        first.or_else(in_environment)
    }

    /// All texts of `setting`, which may be given several times, in the layer that has precedence.
    pub(super) fn all_of(&self, setting: &'static Declared) -> Vec<String> {
        let of_setting = |given: &&Assigned| given.setting.name == setting.name;
        let Some(first) = self.values.iter().find(of_setting) else {
            return self.in_environment(setting).map(|found| found.text).into_iter().collect();
        };
        let layer = std::mem::discriminant(&first.origin);
        let is_there = |given: &&Assigned| std::mem::discriminant(&given.origin) == layer;
        let all = self.values.iter().filter(of_setting).filter(is_there).map(|given| given.text.clone());
        if first.origin.is_file() { vec![first.text.clone()] } else { all.collect() }
    }

    /// Whether two of `settings` are given in one layer that has no order, as parameters or in the environment.
    pub(super) fn is_twice(&self, settings: &[&'static Declared]) -> bool {
        let mut layers = Vec::new();
        for setting in settings {
            let values = self
                .values
                .iter()
                .filter(|given| given.setting.name == setting.name && !given.origin.is_file());
            layers.extend(values.map(|given| std::mem::discriminant(&given.origin)));
        }
        let is_environment =
            || settings.iter().filter(|setting| self.in_environment(setting).is_some()).count() > 1;
        match layers.split_first() {
            Some((first, rest)) => rest.contains(first),
            None => {
                self.values.iter().all(|given| !settings.iter().any(|s| s.name == given.setting.name))
                    && is_environment()
            }
        }
    }

    /// The variable of one of `settings` that is set to nothing, if there is one.
    pub(super) fn empty_variable(&self, settings: &[&'static Declared]) -> Option<Found> {
        let mut variables = settings.iter().flat_map(|setting| setting.env);
        let name = variables.find(|name| self.env.is_empty(name))?;
        Some(Found { text: String::new(), origin: Origin::Env(name) })
    }

    /// Whether `setting` was given, in any layer.
    pub(super) fn is_named<T>(&self, setting: &Setting<T>) -> bool {
        self.given(&setting.declared).is_some()
    }

    /// The text of `setting` that has precedence, or `None` if it has none, not even a default.
    pub(super) fn found(&self, setting: &Declared) -> Option<Found> {
        let default = |text: &&str| Found { text: (*text).to_owned(), origin: Origin::Default(setting.name) };
        self.given(setting).or_else(|| setting.default.as_ref().map(default))
    }

    /// The value of `setting` that has precedence.
    ///
    /// # Errors
    /// `Config` if a variable of the environment, which nobody checked before, has none of its values.
    pub(super) fn get<T: setting::Value>(&self, setting: &Setting<T>) -> Result<T> {
        match self.found(&setting.declared) {
            Some(found) => setting.read(&found.text).map_err(|e| e.context(found.origin.label())),
            None => Ok(T::absent()),
        }
    }

    /// The value of `setting` if it was given, in any layer.
    ///
    /// # Errors
    /// As [`Given::get`].
    pub(super) fn named<T: setting::Value>(&self, setting: &Setting<T>) -> Result<Option<T>> {
        if self.is_named(setting) { self.get(setting).map(Some) } else { Ok(None) }
    }

    /// The state that one of `settings` chooses; the latest if none is given.
    pub(super) fn state(&self, settings: &[&Setting<Option<RestorePoint>>]) -> Result<RestorePoint> {
        let mut given = settings.iter().filter_map(|s| self.param(s).map(|found| (*s, found)));
        let Some((setting, found)) = given.next() else { return Ok(RestorePoint::Latest) };
        if let Some((_, other)) = given.next() {
            let message =
                format!("'{}' and '{}' are both given; keep one", found.origin.label(), other.origin.label());
            return Err(Error::config(message));
        }
        let point = setting.read(&found.text).map_err(|e| e.context(found.origin.label()))?;
        Ok(point.unwrap_or(RestorePoint::Latest))
    }
}

/// Settings that belong together: a secret of one place does not complete an id of another.
const CREDENTIALS: [&str; 3] = ["access_key_id", "secret_access_key", "session_token"];

/// How a store looks for its settings: `true` or `false`, sizes in bytes.
impl Lookup for Given<'_> {
    fn param(&self, name: &str) -> Option<String> {
        let setting = SETTINGS.iter().find(|s| s.scope == Scope::Store && s.is_spelled(name))?;
        // Credentials are all from the URI, or all from a file.
        let together = |given: &Assigned| CREDENTIALS.contains(&given.setting.name);
        let first = self.values.iter().find(|given| together(given)).map(|given| given.origin.is_file());
        let found = self.assigned(setting)?;
        let is_mixed = CREDENTIALS.contains(&setting.name) && first != Some(found.origin.is_file());
        (!is_mixed).then(|| for_store(setting, found.text))
    }

    fn env(&self, variable: &str) -> Option<String> {
        self.env.var(variable)
    }
}

/// A value as a store reads it. What is wrong, the store refuses with a message of its own.
fn for_store(setting: &Declared, text: String) -> String {
    let read = match setting.kind {
        Kind::Flag => value::flag(&text).map(|flag| flag.to_string()),
        Kind::Size { .. } => u64::read(&setting.kind, &text).map(|size| size.to_string()),
        _ => return text,
    };
    read.unwrap_or(text)
}
