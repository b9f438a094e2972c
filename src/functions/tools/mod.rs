//! The tools of an assistant: those of Litestream's server, with their names and arguments, and three more. Each is another
//! way to what a SQL function does.
//!
//! | file | what it is |
//! | --- | --- |
//! | `known` | the databases and replicas that tools reach, and where a restore may write |
//! | `look` | what asks no store |
//! | `replica` | what reads a replica |
//! | `change` | what writes: a restore, and the local state forgotten |
//! | `words` | how a database stands, in words |
//!
//! An assistant does what it reads somewhere, so tools reach less than SQL: no replica and no database but those that this
//! server has, and no file but a new one beside a database.

mod change;
mod known;
mod look;
mod replica;
mod words;

use std::sync::atomic::{AtomicUsize, Ordering};

use rusqlite::types::Value;

use super::permission::permit;
use crate::config::{self, ProcessEnv};
use crate::error::{Error, ErrorKind, Result};
use crate::fork::PerProcess;
use crate::mcp::{self, Argument, Arguments, Effect, Kind, Output, Reply, Tool};
use crate::monitor::{self, Caller};
use crate::sqlite::{self, Call};

/// Calls that are answered at the same time.
const MOST_CALLS: usize = 4;

static CALLS: PerProcess<AtomicUsize> = PerProcess::new();

/// A tool, and what does it.
struct Offered {
    tool: Tool,
    call: fn(&Caller<'_>, &Arguments) -> Result<Output>,
}

const PATH: Argument = Argument {
    name: "path",
    kind: Kind::Text,
    is_required: true,
    description: "A database, or the URL of a replica, as litestream_databases lists them.",
};
const CONFIG: Argument = Argument {
    name: "config",
    kind: Kind::Text,
    is_required: false,
    description: "The configuration file. There is only the one that is in force, which litestream_info names.",
};
const TXID: Argument = Argument {
    name: "txid",
    kind: Kind::Text,
    is_required: false,
    description: "The state after this transaction: 16 hexadecimal digits, as litestream_history lists them.",
};
const TIMESTAMP: Argument = Argument {
    name: "timestamp",
    kind: Kind::Text,
    is_required: false,
    description: "The last state at or before this time: RFC 3339, or as in '5 minutes ago'.",
};

const fn optional(name: &'static str, kind: Kind, description: &'static str) -> Argument {
    Argument { name, kind, is_required: false, description }
}

static TOOLS: [Offered; 10] = [
    Offered {
        tool: Tool {
            name: "litestream_info",
            title: "About this server",
            description: "Version, configuration file, processes, and how many databases and replicas there are; whether \
                          all is well.",
            arguments: &[CONFIG],
            effect: Effect::Reads,
        },
        call: look::info,
    },
    Offered {
        tool: Tool {
            name: "litestream_databases",
            title: "Databases and their replicas",
            description: "Lists databases, those of the configuration file and those that are open, with the URLs of \
                          their replicas.",
            arguments: &[CONFIG],
            effect: Effect::Reads,
        },
        call: look::databases,
    },
    Offered {
        tool: Tool {
            name: "litestream_status",
            title: "How replication stands",
            description: "Says in words how each database stands to each of its replicas: what is published, what waits, \
                          what is wrong and since when. Asks no store.",
            arguments: &[optional("path", Kind::Text, "Only this database."), CONFIG],
            effect: Effect::Reads,
        },
        call: look::status,
    },
    Offered {
        tool: Tool {
            name: "litestream_version",
            title: "Version",
            description: "The version of litestream_vfs.",
            arguments: &[],
            effect: Effect::Reads,
        },
        call: look::version,
    },
    Offered {
        tool: Tool {
            name: "litestream_ltx",
            title: "Files of a replica",
            description: "Lists the LTX files of a replica: level, transactions, size and time of each.",
            arguments: &[
                PATH,
                optional(
                    "level",
                    Kind::Number { min: 0, max: 9 },
                    "Only files of this level; 9 are snapshots.",
                ),
                optional(
                    "limit",
                    Kind::Number { min: 1, max: 1000 },
                    "How many at most, the latest. Default: 100.",
                ),
                CONFIG,
            ],
            effect: Effect::Reads,
        },
        call: replica::ltx,
    },
    Offered {
        tool: Tool {
            name: "litestream_history",
            title: "Restore points",
            description: "Lists the points that a replica can be restored to, the latest first: transaction, time, pages \
                          that changed.",
            arguments: &[
                PATH,
                optional("limit", Kind::Number { min: 1, max: 1000 }, "How many at most. Default: 50."),
                CONFIG,
            ],
            effect: Effect::Reads,
        },
        call: replica::history,
    },
    Offered {
        tool: Tool {
            name: "litestream_restore_plan",
            title: "What a restore would take",
            description: "Lists the files that a restore would download, in order. Downloads none.",
            arguments: &[PATH, TXID, TIMESTAMP, CONFIG],
            effect: Effect::Reads,
        },
        call: replica::plan,
    },
    Offered {
        tool: Tool {
            name: "litestream_verify",
            title: "Verify a replica",
            description: "Reads a replica to prove that it restores: every file and checksum, no gap, one history. This may \
                          take long and downloads everything, unless it is quick.",
            arguments: &[
                PATH,
                optional("quick", Kind::Flag, "Only list the files and check their page indexes."),
                CONFIG,
            ],
            effect: Effect::Reads,
        },
        call: replica::verify,
    },
    Offered {
        tool: Tool {
            name: "litestream_restore",
            title: "Restore into a new file",
            description: "Writes a new database file from a replica, beside the database, and checks every checksum. An \
                          existing file is never replaced.",
            arguments: &[
                PATH,
                optional(
                    "o",
                    Kind::Text,
                    "The new file, in the folder of the database, such as 'copy.db'. Default: the database itself, if \
                     its file is not there.",
                ),
                CONFIG,
                TXID,
                TIMESTAMP,
                optional(
                    "parallelism",
                    Kind::Number { min: 1, max: 64 },
                    "Downloads at the same time. Default: 8.",
                ),
                optional(
                    "if_db_not_exists",
                    Kind::Flag,
                    "That the file exists is no error; it stays as it is.",
                ),
                optional("if_replica_exists", Kind::Flag, "That the replica is empty is no error."),
                optional(
                    "integrity_check",
                    Kind::OneOf(&["none", "quick", "full"]),
                    "What SQLite checks before the file gets its name. Default: none.",
                ),
            ],
            effect: Effect::Adds,
        },
        call: change::restore,
    },
    Offered {
        tool: Tool {
            name: "litestream_reset",
            title: "Forget the local state",
            description: "Forgets the local state of a database of the configuration file that nobody has open, so that the \
                          next open compares it with its replicas. Points in time within files that were not sent yet are \
                          lost; the database itself is not touched.",
            arguments: &[
                Argument {
                    name: "path",
                    kind: Kind::Text,
                    is_required: true,
                    description: "The database, as litestream_databases lists it.",
                },
                CONFIG,
            ],
            effect: Effect::Destroys,
        },
        call: change::reset,
    },
];

/// `litestream_mcp(message)`: the answer to a message of an assistant; NULL if it wants none.
///
/// # Errors
/// `Denied` where SQL may not write files; `Config` if the message is not text.
pub(super) fn mcp(call: &Call<'_>) -> Result<Value> {
    permit(call.connection())?;
    let message = call
        .arg::<String>(0)?
        .ok_or_else(|| Error::config("litestream_mcp(message): the message is NULL"))?;
    let caller =
        Caller { overview: &monitor::overview, is_stopped: &|| sqlite::is_interrupted(call.connection()) };
    Ok(match answer(&caller, message.as_bytes()) {
        Reply::Nothing => Value::Null,
        Reply::Message(answer) | Reply::NoMessage(answer) => Value::Text(answer),
    })
}

/// Answers a message of an assistant.
pub fn answer(caller: &Caller<'_>, message: &[u8]) -> Reply {
    let tools: Vec<&Tool> = TOOLS.iter().map(|offered| &offered.tool).collect();
    mcp::reply(&tools, message, &|tool, arguments| call(caller, tool, arguments), caller.is_stopped)
}

fn call(caller: &Caller<'_>, tool: &Tool, arguments: &Arguments) -> Result<Output> {
    let offered = TOOLS.iter().find(|offered| offered.tool.name == tool.name).expect("BUG: an unknown tool");
    let _place = Place::take()?;
    // The port was asked for; that SQL reaches no store holds for it too.
    config::permit_sql(&ProcessEnv, || Ok(()))?;
    config::start_logging(&ProcessEnv);
    if let Some(file) = arguments.text("config") {
        known::check_configuration(file)?;
    }
    (offered.call)(caller, arguments)
}

/// One of the calls that are answered.
struct Place;

impl Place {
    /// Takes one.
    ///
    /// # Errors
    /// `Busy`: there are as many as there may be.
    fn take() -> Result<Self> {
        if CALLS.get().fetch_add(1, Ordering::Relaxed) >= MOST_CALLS {
            drop(Self);
            let message =
                format!("{MOST_CALLS} calls are under way in this process: try again when one has ended");
            return Err(Error::new(ErrorKind::Busy, message));
        }
        Ok(Self)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        CALLS.get().fetch_sub(1, Ordering::Relaxed);
    }
}
