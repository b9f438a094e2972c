//! How a primary replicates.

use std::fmt;
use std::time::Duration;

use crate::ltx::Recipients;
use crate::primary::maintenance::{self, text};
use crate::store::Location;

/// What becomes of a database that is exactly an earlier state of its replica when it is opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Rewound {
    /// It is brought forward to the newest state.
    #[default]
    Forward,
    /// It stays, and replication stops.
    Stop,
}

/// How many replicas `litestream_sync` waits for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SyncReplicas {
    /// All of them.
    #[default]
    All,
    /// At least this count, from 1 to the number of replicas.
    AtLeast(usize),
}

impl SyncReplicas {
    /// The number of replicas that are waited for, of `replicas`.
    pub(super) fn needed(self, replicas: usize) -> usize {
        match self {
            Self::All => replicas,
            Self::AtLeast(count) => count.clamp(1, replicas),
        }
    }
}

/// When a commit returns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CommitMode {
    /// When SQLite has it.
    #[default]
    Local,
    /// When it is in these replicas too.
    Replicated(SyncReplicas),
}

impl fmt::Display for CommitMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local => f.write_str("local"),
            Self::Replicated(SyncReplicas::All) => f.write_str("replicated"),
            Self::Replicated(SyncReplicas::AtLeast(count)) => write!(f, "{count}"),
        }
    }
}

/// Names of settings that were given, in a URI or the environment.
pub type Named = Vec<&'static str>;

/// Options of a database. The defaults and spellings are in `config`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// How long a close waits for what is not yet in the replicas, if it is the last one. Each connection has its own.
    pub close_timeout: Duration,
    /// How often the publisher looks whether the database was written without its knowing.
    pub watch_interval: Duration,
    /// How many replicas `litestream_sync` waits for.
    pub sync_replicas: SyncReplicas,
    /// Which of these were given. A later connection may give no others.
    pub named: Named,
}

/// One replica of a database, and how it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicaConfig {
    /// Where it is.
    pub target: Location,
    /// How it is kept.
    pub options: ReplicaOptions,
}

/// Options of one replica. The defaults and spellings are in `config`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicaOptions {
    /// Under load at most one file is written to level 0 in this time.
    pub sync_interval: Duration,
    /// What waits on local disk is at most this, in bytes, and the last file.
    pub spool_limit: u64,
    /// How often the replica is verified, if it changed; zero for never.
    pub verify_interval: Duration,
    /// What becomes of a database that is an earlier state of its replica.
    pub rewound: Rewound,
    /// Whether a replica that lost files is healed by a full copy of the database, or replication stops.
    pub auto_recover: bool,
    /// Whether packs are written for readers.
    pub pack: bool,
    /// Whom its files are sealed to, if to anybody.
    pub recipients: Recipients,
    /// How much history the replica keeps.
    pub history: maintenance::HistoryOptions,
    /// Which of these were given, those of the history aside. A later connection may give no others.
    pub named: Named,
}

/// The first setting of `named` that has another value in `theirs` than in `ours`: its name, and both values.
fn difference<const N: usize>(
    named: &Named,
    ours: [(&'static str, String); N],
    theirs: [(&'static str, String); N],
) -> Option<(&'static str, String, String)> {
    let mut both = ours.into_iter().zip(theirs).map(|((name, ours), (_, theirs))| (name, ours, theirs));
    both.find(|(name, ours, theirs)| named.contains(name) && ours != theirs)
}

impl Options {
    /// The first setting that was given here and is another in `open`: its name, the value here, and the one there.
    pub(super) fn difference(&self, open: &Self) -> Option<(&'static str, String, String)> {
        difference(&self.named, self.shown(), open.shown())
    }

    fn shown(&self) -> [(&'static str, String); 2] {
        let sync_replicas = match self.sync_replicas {
            SyncReplicas::All => "all".to_owned(),
            SyncReplicas::AtLeast(count) => count.to_string(),
        };
        [("watch_interval", text(self.watch_interval)), ("sync_replicas", sync_replicas)]
    }
}

impl ReplicaOptions {
    /// The first setting that was given here and is another in `open`: its name, the value here, and the one there.
    pub(super) fn difference(&self, open: &Self) -> Option<(&'static str, String, String)> {
        difference(&self.named, self.shown(), open.shown())
    }

    fn shown(&self) -> [(&'static str, String); 8] {
        let recipients = || self.recipients.texts().join(" ");
        let rewound = match self.rewound {
            Rewound::Forward => "forward",
            Rewound::Stop => "stop",
        };
        [
            ("sync_interval", text(self.sync_interval)),
            ("spool_limit", format!("{} bytes", self.spool_limit)),
            ("verify_interval", text(self.verify_interval)),
            ("rewound", rewound.to_owned()),
            ("auto_recover", self.auto_recover.to_string()),
            ("age_recipient", recipients()),
            ("age_recipients_file", recipients()),
            ("pack", if self.pack { "on" } else { "off" }.to_owned()),
        ]
    }
}
