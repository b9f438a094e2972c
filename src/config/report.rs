//! What is in force for a database, setting by setting, with the origin of each value.

use std::path::Path;
use std::sync::Arc;

use super::catalog::{
    CONFIG, RETENTION_DAILY, RETENTION_HOURLY, RETENTION_MONTHLY, RETENTION_WEEKLY, ROLE, SETTINGS,
};
use super::layer::file::Note;
use super::layer::{Found, Given};
use super::origin::Origin;
use super::resolve::{FoundReplica, Layers};
use super::setting::{Declared, Role, Scope};
use super::{Env, Params};
use crate::error::Result;
use crate::primary::{self, NamedSettings};
use crate::store::ReplicaIdentity;

/// One value that is in force, or something in the configuration file that has no effect.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InForce {
    /// The replica for which it holds; `None` for all that concerns the database.
    pub replica: Option<String>,
    /// The setting, or the key of the configuration file.
    pub setting: String,
    /// The value, without secrets; `None` if there is none.
    pub value: Option<String>,
    /// Where it was found: see [`Origin`].
    pub origin: String,
    /// What is to be said of it.
    pub note: Option<String>,
}

impl InForce {
    fn of(setting: &Declared, found: &Found) -> Self {
        Self {
            setting: setting.name.to_owned(),
            value: Some(setting.shown(&found.text)),
            origin: found.origin.to_string(),
            ..Self::default()
        }
    }
}

/// What an open of the database `path` with these parameters gets: first what concerns the database, then each replica,
/// then what has no effect in the configuration file.
///
/// # Errors
/// As [`super::resolve`].
pub fn in_force(
    path: Option<&Path>,
    params: &dyn Params,
    read_only: bool,
    env: &dyn Env,
) -> Result<Vec<InForce>> {
    let layers = Layers::collect(path, params, env)?;
    let replicas = layers.replicas(path)?;
    let (role, said) = layers.role(read_only, &replicas)?;
    let mut rows = vec![of_role(role, said)];
    let is_used = |document| layers.entries.iter().any(|entry| Arc::ptr_eq(&entry.document, document));
    rows.extend(layers.document.as_ref().map(|document| {
        let origin = layers.given.found(&CONFIG.declared).map(|found| found.origin);
        InForce {
            setting: CONFIG.declared.name.to_owned(),
            value: Some(document.file.display().to_string()),
            origin: origin.unwrap_or(Origin::Default(CONFIG.declared.name)).to_string(),
            note: (!is_used(document))
                .then(|| "it has no entry for this database, so nothing of it holds".to_owned()),
            ..InForce::default()
        }
    }));
    let scopes: &[Scope] =
        if role == Role::Primary { &[Scope::Primary] } else { &[Scope::Replica, Scope::State] };
    let nothing = NamedSettings::default();
    rows.extend(of_scopes(&layers.given, scopes, &nothing));
    let of_process = layers.document.as_ref().map_or_else(Vec::new, |document| document.process.clone());
    rows.extend(of_scopes(&layers.given.before(of_process), &[Scope::Monitor], &nothing));
    let located = layers.located(&replicas)?;
    let remembered = match path.filter(|_| role == Role::Primary) {
        Some(path) => {
            let identities = located.iter().map(|replica| ReplicaIdentity::from(&replica.location));
            primary::remembered(path, &identities.collect::<Vec<_>>())?
        }
        None => vec![nothing; located.len()],
    };
    for (replica, remembered) in located.iter().zip(&remembered) {
        rows.extend(of_replica(replica, role, remembered));
    }
    if let Some(document) = &layers.document {
        rows.extend(document.notes.iter().map(of_note));
    }
    Ok(rows)
}

fn of_role(role: Role, said: Option<Found>) -> InForce {
    let default = Found { text: String::new(), origin: Origin::Default(ROLE.declared.name) };
    let word = if role == Role::Primary { "primary" } else { "replica" };
    InForce { value: Some(word.to_owned()), ..InForce::of(&ROLE.declared, &said.unwrap_or(default)) }
}

fn of_scopes(given: &Given<'_>, scopes: &[Scope], remembered: &NamedSettings) -> Vec<InForce> {
    let settings = SETTINGS.iter().filter(|setting| scopes.contains(&setting.scope));
    let memory = of_memory(given, remembered);
    let found = |setting: &'static Declared| {
        let found = given.found(setting).filter(|found| !matches!(found.origin, Origin::Default(_)));
        let earlier = || memory.iter().find(|(name, _)| *name == setting.name);
        let remembered =
            || earlier().map(|(name, text)| Found { text: text.clone(), origin: Origin::Remembered(name) });
        found.or_else(remembered).or_else(|| given.found(setting))
    };
    settings.filter_map(|setting| found(setting).map(|found| InForce::of(setting, &found))).collect()
}

/// What holds of `remembered` for an open that is given `given`.
fn of_memory(given: &Given<'_>, remembered: &NamedSettings) -> Vec<(&'static str, String)> {
    let calendar = [&RETENTION_HOURLY, &RETENTION_DAILY, &RETENTION_WEEKLY, &RETENTION_MONTHLY];
    // Its numbers count together.
    let names_calendar = calendar.iter().any(|setting| given.is_named(setting));
    let is_of_calendar = |name: &str| calendar.iter().any(|setting| setting.declared.name == name);
    let mut memory = remembered.shown();
    memory.retain(|(name, _)| !(names_calendar && is_of_calendar(name)));
    memory
}

fn of_replica(replica: &FoundReplica<'_>, role: Role, remembered: &NamedSettings) -> Vec<InForce> {
    let url = replica.location.to_string();
    let first = InForce {
        setting: "replica".to_owned(),
        value: Some(url.clone()),
        origin: replica.origin.to_string(),
        ..InForce::default()
    };
    let scopes: &[Scope] = match role {
        Role::Primary => &[Scope::Shipper, Scope::Either, Scope::Store, Scope::Seal],
        Role::Replica => &[Scope::Either, Scope::Store, Scope::Seal],
    };
    let is_known = |row: &InForce| {
        let setting = SETTINGS.iter().find(|setting| setting.name == row.setting);
        setting
            .is_none_or(|setting| setting.scope != Scope::Store || replica.location.has_setting(setting.name))
    };
    let settings = of_scopes(&replica.given, scopes, remembered).into_iter().filter(is_known);
    let rows = std::iter::once(first).chain(settings);
    rows.map(|row| InForce { replica: Some(url.clone()), ..row }).collect()
}

fn of_note(note: &Note) -> InForce {
    InForce {
        setting: note.key.clone(),
        value: Some(note.value.clone()).filter(|value| !value.is_empty()),
        origin: note.line.to_string(),
        note: Some(note.text.clone()),
        ..InForce::default()
    }
}
