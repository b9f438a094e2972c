//! What reads a replica.

use serde_json::{Map, Value, json};

use super::known::{self, Target};
use crate::config::{self, ProcessEnv, RestoreConfig, VerifyConfig};
use crate::error::Result;
use crate::functions::history::{HistoryTable, Points};
use crate::functions::ltx::{self, LtxTable, file_row};
use crate::functions::object::objects;
use crate::functions::plan::{self, PlanTable};
use crate::functions::verify::{self, VerifyTable};
use crate::mcp::{Arguments, Output};
use crate::monitor::Caller;
use crate::sqlite::{Columns, Row, Table};

/// Files and points that are listed if nobody says how many.
const FILES: u64 = 100;
const POINTS: u64 = 50;

/// The replica that `path` means.
pub(super) fn target(arguments: &Arguments) -> Result<Target> {
    known::find(arguments.text("path").unwrap_or_default())
}

/// The restore that is asked for.
pub(super) fn restore_config(target: &Target, arguments: &Arguments) -> Result<RestoreConfig> {
    let mut options = Map::new();
    for name in ["txid", "timestamp", "integrity_check"] {
        options.extend(arguments.text(name).map(|text| (name.to_owned(), json!(text))));
    }
    for name in ["if_db_not_exists", "if_replica_exists"] {
        options.insert(name.to_owned(), json!(arguments.flag(name)));
    }
    options.extend(arguments.number("parallelism").map(|number| ("parallelism".to_owned(), json!(number))));
    let options = Value::Object(options).to_string();
    config::restore_from(target.replica.target.clone(), &options, &ProcessEnv)
}

/// Rows of `T` under the name `name`, and the replica that they are of.
fn listed<T: Table>(target: &Target, name: &str, rows: Vec<Row>) -> Map<String, Value> {
    let replica = ("replica".to_owned(), json!(target.replica.target.to_string()));
    let rows = (name.to_owned(), json!(objects(T::COLUMNS, rows)));
    [replica, rows].into_iter().collect()
}

/// `litestream_ltx`
pub(super) fn ltx(caller: &Caller<'_>, arguments: &Arguments) -> Result<Output> {
    let target = target(arguments)?;
    let mut files = ltx::list(target.replica.target.connect(), caller.is_stopped)?;
    if let Some(level) = arguments.number("level") {
        files.retain(|file| u64::from(file.id.level.get()) == level);
    }
    let (count, bytes) = (files.len(), files.iter().map(|file| file.size).sum::<u64>());
    // The latest are those that are asked about most.
    files.sort_by_key(|file| std::cmp::Reverse(file.timestamp));
    files.truncate(arguments.number("limit").unwrap_or(FILES) as usize);
    let mut data = listed::<LtxTable>(&target, "files", files.iter().map(file_row).collect());
    data.extend([("count".to_owned(), json!(count)), ("bytes".to_owned(), json!(bytes))]);
    Ok(Output::of(Value::Object(data)))
}

/// `litestream_history`
pub(super) fn history(caller: &Caller<'_>, arguments: &Arguments) -> Result<Output> {
    let target = target(arguments)?;
    let mut points = Points::list(target.replica.target.connect(), Columns::ALL, caller.is_stopped)?;
    let count = points.left();
    let mut rows = Vec::new();
    while rows.len() < arguments.number("limit").unwrap_or(POINTS) as usize {
        let Some(row) = points.next_row(caller.is_stopped)? else { break };
        rows.push(row);
    }
    let mut data = listed::<HistoryTable>(&target, "points", rows);
    data.insert("count".to_owned(), json!(count));
    Ok(Output::of(Value::Object(data)))
}

/// `litestream_restore_plan`
pub(super) fn plan(caller: &Caller<'_>, arguments: &Arguments) -> Result<Output> {
    let target = target(arguments)?;
    let config = restore_config(&target, arguments)?;
    let rows = plan::steps(config.target.connect(), config.point, caller.is_stopped)?;
    Ok(Output::of(Value::Object(listed::<PlanTable>(&target, "files", rows))))
}

/// `litestream_verify`
pub(super) fn verify(caller: &Caller<'_>, arguments: &Arguments) -> Result<Output> {
    let target = target(arguments)?;
    let config = VerifyConfig {
        target: target.replica.target.clone(),
        quick: arguments.flag("quick"),
        history: target.replica.history.clone(),
    };
    let quick = config.quick;
    let mut data = listed::<VerifyTable>(&target, "findings", verify::findings(config, caller.is_stopped)?);
    let findings = data["findings"].as_array().map_or(&[][..], Vec::as_slice);
    let restores = !findings.iter().any(|finding| finding["severity"] == "error");
    data.extend([("quick".to_owned(), json!(quick)), ("restores".to_owned(), json!(restores))]);
    Ok(Output::of(Value::Object(data)))
}
