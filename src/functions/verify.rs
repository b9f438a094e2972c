//! `litestream_verify(url [, options])`: what is wrong with a replica.

use rusqlite::Connection;
use rusqlite::types::Value;

use super::ltx::url_and_options;
use super::permission::permit;
use crate::clock::{Clock as _, SystemClock};
use crate::config::{self, ProcessEnv, VerifyConfig};
use crate::error::Result;
use crate::runtime::run;
use crate::sqlite::{self, Row, Safety, Table};
use crate::verify::{self, Finding, Options};

/// A row for each thing that is wrong, the worst first; none if all is well.
pub(super) struct VerifyTable;

impl Table for VerifyTable {
    const NAME: &'static str = "litestream_verify";
    const COLUMNS: &'static [&'static str] = &[
        "severity TEXT",
        "problem TEXT",
        "level INTEGER",
        "name TEXT",
        "min_txid TEXT",
        "max_txid TEXT",
        "message TEXT",
    ];
    const ARGUMENTS: &'static [&'static str] = &["url", "options"];
    const SAFETY: Safety = Safety::DirectOnly;

    fn rows(conn: &Connection, arguments: &[Value]) -> Result<Vec<Row>> {
        permit(conn)?;
        let (url, options) = url_and_options(arguments, Self::NAME)?;
        config::start_logging(&ProcessEnv);
        let config = config::verify(url, options, &ProcessEnv)?;
        findings(config, &|| sqlite::is_interrupted(conn))
    }
}

/// The rows of a verification.
///
/// # Errors
/// Those of [`verify::verify`]; `Interrupted`.
pub(super) fn findings(config: VerifyConfig, interrupted: &dyn Fn() -> bool) -> Result<Vec<Row>> {
    let store = config.target.connect();
    let outcome = run(interrupted, move |stop| {
        let thinned = config.history.thins(SystemClock.now());
        let options = Options { quick: config.quick, thinned, stop, ..Options::default() };
        verify::verify(store, &options)
    })?;
    Ok(outcome.findings.into_iter().map(row).collect())
}

fn row(finding: Finding) -> Row {
    let (min, max) = finding.txids.unzip();
    let text = |value: Option<String>| value.map_or(Value::Null, Value::Text);
    vec![
        Value::Text(finding.severity.name().to_owned()),
        Value::Text(finding.problem.name().to_owned()),
        finding.file.map_or(Value::Null, |file| Value::Integer(file.level.get().into())),
        text(finding.file.map(|file| file.name.to_string()).or(finding.path)),
        text(min.map(|txid| txid.to_string())),
        text(max.map(|txid| txid.to_string())),
        Value::Text(finding.message),
    ]
}
