//! A configuration file as it is read: each key is understood here, checked, and put where it holds.

mod entries;
mod process;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::super::super::catalog::{
    AGE_IDENTITY, AGE_RECIPIENT, CLOSE_TIMEOUT, LEVELS, LISTEN, RETENTION, RETENTION_DAILY, RETENTION_HOURLY,
    RETENTION_MONTHLY, RETENTION_WEEKLY, SETTINGS, SNAPSHOT_AT, SNAPSHOT_INTERVAL, SNAPSHOT_RETENTION,
};
use super::super::super::origin::{Line, Origin};
use super::super::super::setting::{Declared, Kind, Scope, plain};
use super::super::super::value;
use super::super::{Assigned, Env};
use super::entry::{Entry, Field, ReplicaEntry, Section};
use super::expand::expand;
use super::yaml::{self, Content, Member, Node};
use super::{Document, Note, keys};
use crate::error::{Error, Result};
use crate::store;
use entries::EntryParts;

/// Settings that may stand anywhere in the file.
const ANYWHERE: &[Scope] = &[Scope::Primary, Scope::Shipper, Scope::Either, Scope::Replica, Scope::Seal];

/// Reads the text of the configuration file `path`.
///
/// # Errors
/// `Config`, with file and line in front.
pub(super) fn read(path: &Path, text: &str, env: &dyn Env) -> Result<Document> {
    let mut reader =
        Reader { file: path.into(), source: Source::File, notes: Vec::new(), process: Vec::new() };
    let (text, missing) = expand(text, env);
    for variable in missing {
        let text = "this variable of the environment is not set: it counts as empty";
        reader.note(variable.line, &format!("${}", variable.name), "", text, false);
    }
    let root = yaml::parse(&text).map_err(|broken| reader.error(broken.0, broken.1))?;
    let members = reader.mapping("the file", root)?.unwrap_or_default();
    let mut global = Section::default();
    let mut dbs = None;
    let mut webhooks = Vec::new();
    for member in members {
        match member.key.as_str() {
            "dbs" => dbs = Some(member.value),
            "webhooks" => webhooks = reader.webhooks(member)?,
            _ => reader.global(&mut global, member)?,
        }
    }
    let mut entries: Vec<Entry> = Vec::new();
    for node in dbs.map_or(Ok(Vec::new()), |node| reader.sequence("dbs", node))? {
        let entry = reader.entry(node)?;
        reader.refuse_twin(&entries, &entry)?;
        entries.push(entry);
    }
    let Reader { file, notes, process, .. } = reader;
    Ok(Document { webhooks, ..Document::new(file, global, entries, process, notes) })
}

/// Reads the entry that a program gives for the database `path`: a JSON object, which is YAML too.
///
/// # Errors
/// `Config`.
pub(super) fn configured(path: &Path, settings: &str) -> Result<Document> {
    let file = Path::new("litestream_configure").into();
    let mut reader = Reader { file, source: Source::Program, notes: Vec::new(), process: Vec::new() };
    let root = yaml::parse(settings).map_err(|_| reader.error(0, "the settings are not a JSON object"))?;
    let members = reader.mapping("the settings", root)?.unwrap_or_default();
    let mut parts = EntryParts::default();
    for member in members {
        if matches!(member.key.as_str(), "path" | "dir" | "pattern" | "recursive" | "meta-dir") {
            let message = format!("{}: the database is the first argument", member.key);
            return Err(reader.error(0, message));
        }
        reader.entry_key(&mut parts, member)?;
    }
    parts.path = Some((0, path.display().to_string()));
    let entry = reader.made(0, parts)?;
    let Reader { file, notes, process, .. } = reader;
    if let Some(note) = notes.iter().find(|note| note.is_warning) {
        return Err(Error::config(note.text.clone()));
    }
    Ok(Document::new(file, Section::default(), vec![entry], process, notes))
}

/// Where settings come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    /// A file, which has lines.
    File,
    /// The program: a replica may be only its URL, and there need be none.
    Program,
}

struct Reader {
    file: Arc<Path>,
    source: Source,
    notes: Vec<Note>,
    process: Vec<Assigned>,
}

impl Reader {
    fn line(&self, line: usize) -> Line {
        Line { file: Arc::clone(&self.file), line: if self.source == Source::File { line } else { 0 } }
    }

    fn error(&self, line: usize, message: impl std::fmt::Display) -> Error {
        match self.source {
            Source::File => Error::config(format!("{}: {message}", self.line(line))),
            // The function that the program calls names itself.
            Source::Program => Error::config(message.to_string()),
        }
    }

    fn note(&mut self, line: usize, key: &str, value: &str, text: impl Into<String>, is_warning: bool) {
        let line = self.line(line);
        self.notes.push(Note {
            line,
            key: key.to_owned(),
            value: value.to_owned(),
            text: text.into(),
            is_warning,
        });
    }

    fn global(&mut self, section: &mut Section, member: Member) -> Result<()> {
        match member.key.as_str() {
            "levels" => self.levels(section, member),
            "logging" => self.logging(member),
            "addr" => self.monitor(&LISTEN.declared, member),
            key if setting(key, &[Scope::Monitor]).is_some() => {
                let declared = setting(key, &[Scope::Monitor]).expect("BUG: it was there");
                self.monitor(declared, member)
            }
            "shutdown-sync-timeout" => self.assign(&CLOSE_TIMEOUT.declared, section, member),
            key if keys::NOT_INHERITED.contains(&key) => {
                let why =
                    "at the top of the file it reaches no replica, as in Litestream: write it at the replica";
                self.nothing(&member, why);
                Ok(())
            }
            _ => self.shared(section, member, keys::GLOBAL, "the file"),
        }
    }

    /// A key that may stand at the top, in an entry of `dbs` or in a replica: settings, and the fields of a replica
    /// where it is a default for all of them.
    fn shared(
        &mut self,
        section: &mut Section,
        member: Member,
        without_effect: &[(&str, &str)],
        place: &str,
    ) -> Result<()> {
        match member.key.as_str() {
            "snapshot" => return self.snapshot(section, member),
            "retention" => return self.retention(section, member),
            "age" => return self.age(section, member),
            _ => {}
        }
        if let Some(setting) = setting(&member.key, ANYWHERE) {
            return self.assign(setting, section, member);
        }
        let is_replicas = place != "an entry of dbs";
        if is_replicas && self.field(section, &member)? {
            return Ok(());
        }
        let mut nothing = without_effect.iter().chain(if is_replicas { keys::REPLICA } else { &[] });
        match nothing.find(|(key, _)| *key == member.key) {
            Some((_, why)) => self.nothing(&member, why),
            None if asks_for_encryption(&member.key) => return Err(self.misspelt(&member, place)),
            None => self.unknown(&member, without_effect, place),
        }
        Ok(())
    }

    /// An unknown key that asks for encryption, which is never left out with a warning.
    fn misspelt(&self, member: &Member, place: &str) -> Error {
        let message = format!(
            "unknown key '{}' in {place}, and it asks for encryption: write 'age: {{recipients: [age1…]}}', or remove it",
            member.key
        );
        self.error(member.line, message)
    }

    fn nothing(&mut self, member: &Member, why: &str) {
        let value = shown(member);
        self.note(member.line, &member.key, &value, format!("no effect here: {why}"), false);
    }

    fn unknown(&mut self, member: &Member, without_effect: &[(&str, &str)], place: &str) {
        let settings = SETTINGS.iter().filter(|s| ANYWHERE.contains(&s.scope) || s.scope == Scope::Store);
        let settings = settings.map(|s| s.name.replace('_', "-"));
        let sections = ["snapshot", "retention", "replica", "levels", "logging", "path", "dbs", "url", "dir"];
        let others = sections.iter().chain(keys::FIELDS).map(|key| (*key).to_owned());
        let others = others.chain(without_effect.iter().map(|(key, _)| (*key).to_owned()));
        let distance = |name: &String| strsim::osa_distance(&plain(&member.key), &plain(name));
        let nearest = settings.chain(others).min_by_key(distance).expect("BUG: no keys at all");
        let meant = if nearest == member.key {
            "; it belongs to a replica or to the top of the file".to_owned()
        } else if distance(&nearest) <= 1 + member.key.len() / 4 {
            format!("; did you mean '{nearest}'?")
        } else {
            String::new()
        };
        let text = format!("unknown key '{}' in {place}: it has no effect{meant}", member.key);
        // What it holds is not known, so it is not shown.
        self.note(member.line, &member.key, "", text, true);
    }

    /// Gives `setting` the value of `member`.
    fn assign(&mut self, setting: &'static Declared, section: &mut Section, member: Member) -> Result<()> {
        let Some(text) = self.scalar(&member)? else {
            // A variable that is not set, most likely.
            return if setting.scope == Scope::Seal {
                let message = "is empty, and encryption that is asked for is not left out: remove it, or give it a value";
                Err(self.error(member.line, format!("{} {message}", member.key)))
            } else {
                Ok(())
            };
        };
        let text = value_in_file(setting.kind, &text);
        let text = text.map_err(|e| self.error(member.line, format!("{}: {e}", member.key)))?;
        let text = self.limited(setting, &member, text);
        self.set(setting, section, &member.key, member.line, text)
    }

    /// Parts that are smaller than stores take are as small as they may be, as in Litestream. What a file of the sidecar has
    /// wait longer than anything waits here is as long as it may be.
    fn limited(&mut self, setting: &'static Declared, member: &Member, text: String) -> String {
        let (limit, why) = match setting.kind {
            Kind::Size { min, .. } if setting.scope == Scope::Store && value::is_smaller(&text, min) => {
                (min, "stores take no less")
            }
            Kind::Duration { max, .. } if self.source == Source::File && value::is_longer(&text, max) => {
                (max, "nothing waits longer")
            }
            _ => return text,
        };
        self.note(member.line, &member.key, &text, format!("{limit} is used: {why}"), false);
        limit.to_owned()
    }

    fn set(
        &self,
        setting: &'static Declared,
        section: &mut Section,
        key: &str,
        line: usize,
        text: String,
    ) -> Result<()> {
        setting.check(&text).map_err(|e| self.error(line, format!("{key}: {e}")))?;
        if let Some(other) = section.values.iter().find(|other| other.setting.name == setting.name) {
            let message = format!("{key} is given in {} already: keep one", other.origin);
            return Err(self.error(line, message));
        }
        section.values.push(Assigned { setting, text, origin: Origin::File(self.line(line), key.into()) });
        Ok(())
    }

    /// Whether `member` is a field of a replica, which is then taken.
    fn field(&mut self, section: &mut Section, member: &Member) -> Result<bool> {
        if let Some(setting) = setting(&member.key, &[Scope::Store]) {
            self.assign(setting, section, member.clone())?;
            return Ok(true);
        }
        if !keys::FIELDS.contains(&member.key.as_str()) {
            return Ok(false);
        }
        let text = match &member.value.content {
            Content::Sequence(items) => {
                let items =
                    items.iter().map(|item| self.text(&member.key, item)).collect::<Result<Vec<_>>>()?;
                Some(items.into_iter().flatten().collect::<Vec<_>>().join(","))
            }
            _ => self.scalar(member)?,
        };
        section.fields.extend(text.map(|text| self.field_of(&member.key, member.line, text)));
        Ok(true)
    }

    fn field_of(&self, name: &str, line: usize, text: String) -> Field {
        Field { name: name.into(), text, line: self.line(line) }
    }

    fn snapshot(&mut self, section: &mut Section, member: Member) -> Result<()> {
        for inner in self.section(member)? {
            match inner.key.as_str() {
                "interval" => self.assign(&SNAPSHOT_INTERVAL.declared, section, inner)?,
                "retention" => self.assign(&SNAPSHOT_RETENTION.declared, section, inner)?,
                "at" => self.assign(&SNAPSHOT_AT.declared, section, inner)?,
                _ => self.unknown(&inner, &[("interval", ""), ("retention", ""), ("at", "")], "snapshot"),
            }
        }
        Ok(())
    }

    /// `retention: {enabled: false}`, `retention: {hourly: 24, daily: 7}`, and `retention: 24h` of Litestream 0.3.
    fn retention(&mut self, section: &mut Section, member: Member) -> Result<()> {
        if let Content::Scalar(text) = &member.value.content {
            let is_flag = value::flag(text).is_ok() && text.parse::<f64>().is_err();
            let setting = if is_flag { &RETENTION.declared } else { &SNAPSHOT_RETENTION.declared };
            return self.assign(setting, section, member);
        }
        for inner in self.section(member)? {
            match inner.key.as_str() {
                "enabled" => self.assign(&RETENTION.declared, section, inner)?,
                "hourly" => self.assign(&RETENTION_HOURLY.declared, section, inner)?,
                "daily" => self.assign(&RETENTION_DAILY.declared, section, inner)?,
                "weekly" => self.assign(&RETENTION_WEEKLY.declared, section, inner)?,
                "monthly" => self.assign(&RETENTION_MONTHLY.declared, section, inner)?,
                _ => {
                    let known = ["enabled", "hourly", "daily", "weekly", "monthly"].map(|key| (key, ""));
                    self.unknown(&inner, &known, "retention");
                }
            }
        }
        Ok(())
    }

    fn levels(&mut self, section: &mut Section, member: Member) -> Result<()> {
        let (key, line) = (member.key.clone(), member.line);
        let mut intervals = Vec::new();
        for level in self.sequence("levels", member.value)? {
            let at = level.line;
            let mut interval = None;
            for inner in self.mapping("a level", level)?.unwrap_or_default() {
                match inner.key.as_str() {
                    "interval" => interval = self.scalar(&inner)?,
                    _ => self.unknown(&inner, &[("interval", "")], "a level"),
                }
            }
            let interval = interval
                .ok_or_else(|| self.error(at, "this level has no interval: write '- interval: 30s'"))?;
            intervals.push(self.go_duration(at, "interval", &interval)?);
        }
        if intervals.is_empty() {
            Ok(())
        } else {
            self.set(&LEVELS.declared, section, &key, line, intervals.join(","))
        }
    }

    fn go_duration(&self, line: usize, key: &str, text: &str) -> Result<String> {
        let kind = Kind::Duration { min: "1s", max: "8760h" };
        value_in_file(kind, text).map_err(|e| self.error(line, format!("{key}: {e}")))
    }

    /// `age: {identities: […], recipients: […]}`. A list of recipients without any is a mistake: encryption that was asked
    /// for is never left out in silence.
    fn age(&mut self, section: &mut Section, member: Member) -> Result<()> {
        if matches!(member.value.content, Content::Null) {
            return Err(self.error(member.line, "age is empty: remove it, or write who may open the replica"));
        }
        for inner in self.section(member)? {
            let (setting, separator) = match inner.key.as_str() {
                "identities" => (&AGE_IDENTITY.declared, "\n"),
                "recipients" => (&AGE_RECIPIENT.declared, ","),
                _ => return Err(self.misspelt(&inner, "age")),
            };
            let items = self.sequence(&inner.key, inner.value.clone())?;
            let texts = items.iter().map(|item| self.text(&inner.key, item)).collect::<Result<Vec<_>>>()?;
            let text = texts.into_iter().flatten().collect::<Vec<_>>().join(separator);
            if !text.is_empty() {
                self.set(setting, section, &format!("age.{}", inner.key), inner.line, text)?;
            } else if inner.key == "recipients" {
                return Err(self.error(
                    inner.line,
                    "age.recipients is an empty list, which seals to nobody: remove it, or write who may open the replica",
                ));
            }
        }
        Ok(())
    }

    fn replica(&mut self, node: Node) -> Result<ReplicaEntry> {
        let line = node.line;
        if let (Content::Scalar(text), Source::Program) = (&node.content, self.source) {
            if !text.contains(':') {
                return Err(
                    self.error(line, format!("'{text}' is no URL of a replica: write 's3://bucket/path'"))
                );
            }
            let url = Some(self.field_of("url", line, text.clone()));
            return Ok(ReplicaEntry { line: self.line(line), kind: None, url, section: Section::default() });
        }
        if let Content::Scalar(text) = &node.content {
            let message = format!(
                "'{0}' must be a key of the replica: write 'url: {0}' on a line of its own below",
                store::without_secrets(text)
            );
            return Err(self.error(line, message));
        }
        let members = self.mapping("a replica", node)?;
        let members = members
            .ok_or_else(|| self.error(line, "this replica is empty: write 'url: s3://bucket/path' below"))?;
        let mut replica =
            ReplicaEntry { line: self.line(line), kind: None, url: None, section: Section::default() };
        for member in members {
            let at = member.line;
            let text = |reader: &mut Self| {
                Ok(reader.scalar(&member)?.map(|text| reader.field_of(&member.key, at, text)))
            };
            match member.key.as_str() {
                "url" => replica.url = text(self)?,
                "type" => replica.kind = text(self)?,
                "path" => replica.section.fields.extend(text(self)?),
                _ => self.shared(&mut replica.section, member, keys::REPLICA, "a replica")?,
            }
        }
        self.check_place(&replica)?;
        Ok(replica)
    }

    /// A replica is where its URL says, or where its fields say.
    fn check_place(&self, replica: &ReplicaEntry) -> Result<()> {
        let fields = &replica.section.fields;
        if let Some(path) = fields.iter().find(|field| &*field.name == "path" && field.text.contains("://")) {
            return Err(self.error(
                path.line.line,
                format!("'{}' is a URL: write 'url' instead of 'path'", store::without_secrets(&path.text)),
            ));
        }
        let beside = fields.iter().find(|field| keys::BESIDE_NO_URL.contains(&&*field.name));
        match (&replica.url, beside) {
            (Some(_), Some(field)) => {
                let message = format!(
                    "'url' and '{}' are both given, and both say where the replica is: keep one",
                    field.name
                );
                Err(self.error(field.line.line, message))
            }
            _ => Ok(()),
        }
    }

    fn section(&self, member: Member) -> Result<Vec<Member>> {
        let key = member.key;
        self.mapping(&format!("'{key}'"), member.value).map(Option::unwrap_or_default)
    }

    /// The members of a mapping; `None` if there is nothing.
    fn mapping(&self, what: &str, node: Node) -> Result<Option<Vec<Member>>> {
        match node.content {
            Content::Mapping(members) => Ok(Some(members)),
            Content::Null => Ok(None),
            other => {
                Err(self
                    .error(node.line, format!("{what} has keys with values, and this is {}", other.name())))
            }
        }
    }

    fn sequence(&self, key: &str, node: Node) -> Result<Vec<Node>> {
        match node.content {
            Content::Sequence(items) => Ok(items),
            Content::Null => Ok(Vec::new()),
            other => {
                let message =
                    format!("'{key}' is a list, each item behind a dash, and this is {}", other.name());
                Err(self.error(node.line, message))
            }
        }
    }

    /// The text of a value; `None` if there is nothing.
    fn scalar(&self, member: &Member) -> Result<Option<String>> {
        self.text(&member.key, &member.value)
    }

    fn text(&self, key: &str, node: &Node) -> Result<Option<String>> {
        match &node.content {
            Content::Scalar(text) => Ok(Some(text.clone()).filter(|text| !text.is_empty())),
            Content::Null => Ok(None),
            other => {
                Err(self.error(node.line, format!("'{key}' has one value, and this is {}", other.name())))
            }
        }
    }
}

/// The setting of `scopes` that `key` names.
fn setting(key: &str, scopes: &[Scope]) -> Option<&'static Declared> {
    SETTINGS.iter().find(|s| scopes.contains(&s.scope) && s.is_spelled(key))
}

/// A value of the file in the spelling of this library: there a number without a unit, YAML's other words for true and
/// false, and sizes without their B have another meaning, or none.
fn value_in_file(kind: Kind, text: &str) -> Result<String> {
    match kind {
        Kind::Flag => Ok(match text {
            "y" | "Y" => "true".to_owned(),
            "n" | "N" => "false".to_owned(),
            _ => text.to_owned(),
        }),
        Kind::Duration { .. } if text.parse::<f64>().is_ok_and(|number| number != 0.0) => {
            Err(Error::config(format!(
                "'{text}' has no unit, and Litestream takes it for nanoseconds: write {text}s for seconds"
            )))
        }
        Kind::Duration { .. } if text == "0" => Ok("0s".to_owned()),
        Kind::Size { .. } => {
            let unit = text.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.').trim();
            let is_short = matches!(
                unit.to_ascii_lowercase().as_str(),
                "k" | "m" | "g" | "t" | "ki" | "mi" | "gi" | "ti"
            );
            Ok(if is_short { format!("{text}B") } else { text.to_owned() })
        }
        _ => Ok(text.to_owned()),
    }
}

/// The value of a known key as it may be shown: what holds several is not, nor what may hold a secret.
fn shown(member: &Member) -> String {
    match &member.value.content {
        Content::Scalar(text) if !keys::may_hold_a_secret(&member.key) => text.clone(),
        _ => String::new(),
    }
}

/// The path without `.` and `..`.
fn clean(path: &Path) -> PathBuf {
    let mut clean = PathBuf::new();
    for part in path.components() {
        match part {
            std::path::Component::ParentDir => drop(clean.pop()),
            std::path::Component::CurDir => {}
            other => clean.push(other),
        }
    }
    clean
}

/// Whether a key, as it is or misspelt, is one of those that have a replica encrypted.
fn asks_for_encryption(key: &str) -> bool {
    let key = plain(key);
    key == "age" || ["recipient", "encrypt", "ageidentit"].iter().any(|part| key.contains(part))
}
