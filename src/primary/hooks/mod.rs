//! What a committing thread meets first: that there is a commit is noted, and who is to publish it is woken.
//!
//! | file | what it is |
//! | --- | --- |
//! | `host` | what the write flow needs of SQLite |
//! | `commits` | the commits that were noted, and the wake-up of whoever publishes them |

mod commits;
mod host;

pub(in crate::primary) use commits::{CommitSeq, Commits, Noted, Signal};
pub use host::{Host, Measures, PinnedView, WalIndex};
