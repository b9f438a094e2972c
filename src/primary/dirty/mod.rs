//! Dirty pages: which pages of the database were changed since a position, as SQLite's WAL index says it.
//!
//! | file | what it is |
//! | --- | --- |
//! | `position` | the end of a read view, and the cursor that says what is covered |
//! | `record` | what is kept of a generation of the WAL that ends, and of one that begins |
//! | `journal` | the files that hold records |
//! | `positions` | the publisher's positions, for those who restart the WAL |
//! | `cursors` | the cursors of all shippers, behind which records go |
//! | `recorder` | what a committing thread does: it writes records |
//! | `walk` | the way back from a view to a cursor, along the records |
//! | `collect` | the pages that were changed between a cursor and a view |

mod collect;
mod cursors;
mod journal;
mod position;
mod positions;
mod record;
mod recorder;
#[cfg(test)]
mod tests;
mod walk;

pub(in crate::primary) use crate::primary::page_set::PageSet;
pub(in crate::primary) use collect::{Collected, collect, cursor_at};
pub(in crate::primary) use cursors::Cursors;
pub(in crate::primary) use journal::{Journal, Mark};
pub(in crate::primary) use position::StoredPosition;
pub use position::{Cursor, Position};
use positions::Positions;
pub use recorder::HeldLock;
pub(in crate::primary) use recorder::Recorder;
