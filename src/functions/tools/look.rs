//! What asks no store.

use serde_json::{Value, json};

use super::known::{self, Known};
use super::words;
use crate::config::{self, ProcessEnv};
use crate::error::Result;
use crate::functions::configured::{self, ConfiguredTable};
use crate::functions::object::objects;
use crate::functions::restores::{self, RestoresTable};
use crate::mcp::{Arguments, Output};
use crate::monitor::Caller;
use crate::restore;
use crate::sqlite::Table as _;

/// `litestream_version`
pub(super) fn version(_: &Caller<'_>, _: &Arguments) -> Result<Output> {
    Ok(Output::of(json!({ "name": "litestream_vfs", "version": env!("CARGO_PKG_VERSION") })))
}

/// `litestream_info`
pub(super) fn info(caller: &Caller<'_>, _: &Arguments) -> Result<Output> {
    let overview = (caller.overview)();
    let known = known::all()?;
    let file = config::configuration_file(&ProcessEnv)?;
    Ok(Output::of(json!({
        "version": env!("CARGO_PKG_VERSION"),
        "config": file.map(|file| file.display().to_string()),
        "databases": known.iter().filter(|known| known.path.is_some()).count(),
        "open": overview.databases.len(),
        "replicas": known.iter().map(|known| known.replicas.len()).sum::<usize>(),
        "healthy": overview.unhealthy.is_empty(),
        "unhealthy": overview.unhealthy,
        "processes": overview.rest["processes"],
    })))
}

/// `litestream_databases`
pub(super) fn databases(caller: &Caller<'_>, _: &Arguments) -> Result<Output> {
    let overview = (caller.overview)();
    let known = known::all()?;
    let is_open = |path: &str| overview.databases.iter().any(|open| open.path == path);
    let mut databases: Vec<Value> = known.iter().map(|known| {
        let path = known.path.as_ref().map(|path| path.display().to_string());
        let kinds = known.replicas.iter().map(|replica| replica.target.kind());
        let urls = known.replicas.iter().map(|replica| replica.target.to_string());
        json!({
            "path": path,
            "open": path.as_deref().is_some_and(is_open),
            "configured": known.configured.is_some(),
            "replicas": urls.zip(kinds).map(|(url, kind)| json!({ "url": url, "type": kind })).collect::<Vec<_>>(),
        })
    }).collect();
    // Those that only other processes have open are shown, and reached by no tool.
    let of_others =
        overview.databases.iter().filter(|open| !known.iter().any(|known| is_at(known, &open.path)));
    databases.extend(of_others.map(|open| {
        let urls = open.replicas.iter().map(|replica| json!({ "url": replica.url }));
        json!({ "path": open.path, "open": true, "configured": false, "replicas": urls.collect::<Vec<_>>() })
    }));
    Ok(Output::of(json!({ "databases": databases })))
}

fn is_at(known: &Known, path: &str) -> bool {
    known.path.as_ref().is_some_and(|known| known.display().to_string() == path)
}

/// `litestream_status`
pub(super) fn status(caller: &Caller<'_>, arguments: &Arguments) -> Result<Output> {
    let mut overview = (caller.overview)();
    let mut known = known::all()?;
    if let Some(name) = arguments.text("path") {
        let path = known::named(&known, name).and_then(|known| known.path.clone());
        let path = path.map_or_else(|| name.to_owned(), |path| path.display().to_string());
        overview.databases.retain(|open| open.path == path);
        known.retain(|known| is_at(known, &path));
        if overview.databases.is_empty() && known.is_empty() {
            return Err(known::unknown(name, &known::all()?));
        }
        let is_of_it =
            |line: &String| line.strip_prefix(&path).is_some_and(|rest| rest.starts_with([' ', ':']));
        overview.unhealthy.retain(is_of_it);
    }
    let is_open = |known: &&Known| overview.databases.iter().any(|open| is_at(known, &open.path));
    let closed: Vec<Value> = known
        .iter()
        .filter(|known| !is_open(known))
        .filter_map(|known| known.configured.as_ref())
        .flat_map(|database| objects(ConfiguredTable::COLUMNS, configured::rows(database)))
        .collect();
    let restores = objects(RestoresTable::COLUMNS, restore::restores().into_iter().map(restores::row));
    let text = words::status(&overview, &closed, &restores);
    let data = json!({
        "healthy": overview.unhealthy.is_empty(),
        "unhealthy": overview.unhealthy,
        "open": overview.databases.iter().map(words::figures).collect::<Vec<_>>(),
        "closed": closed,
        "restores": restores,
        "readers": overview.rest["readers"],
        "alarms": overview.rest["alarms"],
        "failures": overview.rest["failures"],
    });
    Ok(Output { text: Some(text), data })
}
