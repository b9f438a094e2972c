//! SQL functions: parse arguments, call a room, format the answer.
//!
//! | function | what it does | where it may be used |
//! | --- | --- | --- |
//! | `litestream_version()` | this library's version | anywhere |
//! | `litestream_restore(url, path [, options])` | writes a database file from a replica | statements of the application |
//! | `litestream_follow(url, path [, options])` | a database file follows a replica | statements of the application |
//! | `litestream_unfollow(path)` | ends that | statements of the application |
//! | `litestream_sync([timeout])` | waits until all commits are in the replicas | statements of the application |
//! | `litestream_wait(txid [, timeout])` | waits until a transaction is in the replicas, or until a replica shows it | statements of the application |
//! | `litestream_resume([mode [, replica]])` | replication that stopped looks again, or continues by force | statements of the application |
//! | `litestream_reset(path)` | forgets the local state of a database that nobody has open | statements of the application |
//! | `litestream_snapshot([replica])` | makes a snapshot of all commits | statements of the application |
//! | `litestream_txid()`, `litestream_time()`, `litestream_lag()` | where this database stands | anywhere |
//! | `litestream_set_time(t [, schema])` | which state of a replica is read | statements of the application |
//! | `litestream_status()`, `litestream_status` | all that is known, as JSON and as a table | also trusted schemas |
//! | `litestream_metrics()` | what this process counts, as Prometheus reads it | statements of the application |
//! | `litestream_databases` | table of all that this process has open | statements of the application |
//! | `litestream_verify(url [, options])` | table of what is wrong with a replica | statements of the application |
//! | `litestream_ltx(url [, options])` | table of the files of a replica | statements of the application |
//! | `litestream_history(url [, options])` | table of the points that can be restored | statements of the application |
//! | `litestream_restore_plan(url [, options])` | table of the files that a restore takes | statements of the application |
//! | `litestream_retention_plan(url [, options])` | table of the files that retention keeps and deletes, and why | statements of the application |
//! | `litestream_config([name])` | table of the settings in force, and where each comes from | statements of the application |
//! | `litestream_configured` | table of the databases of the configuration file | statements of the application |
//! | `litestream_default_vfs(on)` | makes the library the default VFS, or not any more | statements of the application |
//! | `litestream_configure(path, settings)` | gives a database its entry for this process | statements of the application |
//! | `litestream_keygen()`, `litestream_recipient(hex)` | a new pair of keys, and a public key as age writes it | statements of the application |
//! | `litestream_mcp(message)` | answers a message of an assistant | statements of the application |
//! | `litestream_restores` | table of the restores of this process | statements of the application |
//!
//! What writes files, takes a URL or shows what other connections have open asks [`permission`] first, on each
//! connection.

mod config;
mod configure;
mod configured;
mod database;
mod follow;
mod history;
mod ltx;
mod metrics;
mod object;
mod permission;
mod plan;
mod position;
mod reset;
mod restore;
mod restores;
mod resume;
mod retention;
mod seal;
mod snapshot;
mod status;
mod sync;
mod time;
mod tools;
mod verify;
mod wait;

use rusqlite::Connection;
use rusqlite::types::Value;

pub use self::tools::answer as answer_message;
use crate::error::Result;
use crate::sqlite::{Call, Safety, create_function, create_table_function};

/// Makes all SQL functions callable on `conn`.
///
/// # Errors
/// Those of SQLite's registration.
pub fn register(conn: &Connection) -> rusqlite::Result<()> {
    create_function(conn, "litestream_version", 0, Safety::Innocuous, version)?;
    for arguments in [2, 3] {
        create_function(conn, "litestream_restore", arguments, Safety::DirectOnly, restore::restore)?;
    }
    for arguments in [2, 3] {
        create_function(conn, "litestream_follow", arguments, Safety::DirectOnly, follow::follow)?;
    }
    create_function(conn, "litestream_unfollow", 1, Safety::DirectOnly, follow::unfollow)?;
    for arguments in [0, 1] {
        create_function(conn, "litestream_sync", arguments, Safety::DirectOnly, sync::sync)?;
    }
    for arguments in [1, 2] {
        create_function(conn, "litestream_wait", arguments, Safety::DirectOnly, wait::wait)?;
    }
    for arguments in [0, 1, 2] {
        create_function(conn, "litestream_resume", arguments, Safety::DirectOnly, resume::resume)?;
    }
    create_function(conn, "litestream_reset", 1, Safety::DirectOnly, reset::reset)?;
    for arguments in [0, 1] {
        create_function(conn, "litestream_snapshot", arguments, Safety::DirectOnly, snapshot::snapshot)?;
    }
    create_function(conn, "litestream_default_vfs", 1, Safety::DirectOnly, configure::default_vfs)?;
    create_function(conn, "litestream_configure", 2, Safety::DirectOnly, configure::configure)?;
    create_function(conn, "litestream_keygen", 0, Safety::DirectOnly, seal::keygen)?;
    create_function(conn, "litestream_recipient", 1, Safety::DirectOnly, seal::recipient)?;
    create_function(conn, "litestream_txid", 0, Safety::Innocuous, position::txid)?;
    create_function(conn, "litestream_time", 0, Safety::Innocuous, position::time)?;
    create_function(conn, "litestream_lag", 0, Safety::Innocuous, position::lag)?;
    for arguments in [1, 2] {
        create_function(conn, "litestream_set_time", arguments, Safety::DirectOnly, time::set_time)?;
    }
    create_function(conn, "litestream_status", 0, Safety::TrustedSchema, status::status)?;
    create_function(conn, "litestream_metrics", 0, Safety::DirectOnly, metrics::metrics)?;
    create_function(conn, "litestream_mcp", 1, Safety::DirectOnly, tools::mcp)?;
    create_table_function::<status::StatusTable>(conn)?;
    create_table_function::<status::DatabasesTable>(conn)?;
    create_table_function::<verify::VerifyTable>(conn)?;
    create_table_function::<ltx::LtxTable>(conn)?;
    create_table_function::<history::HistoryTable>(conn)?;
    create_table_function::<plan::PlanTable>(conn)?;
    create_table_function::<retention::RetentionTable>(conn)?;
    create_table_function::<config::ConfigTable>(conn)?;
    create_table_function::<configured::ConfiguredTable>(conn)?;
    create_table_function::<restores::RestoresTable>(conn)
}

fn version(_: &Call<'_>) -> Result<Value> {
    Ok(Value::Text(env!("CARGO_PKG_VERSION").to_owned()))
}
