//! Dirty pages: which pages of the database were changed since a position, as SQLite's WAL index says it.
//!
//! | file | what it is |
//! | --- | --- |
//! | `page_set` | a set of page numbers |
//! | `position` | the end of a read view, and the cursor that says what is covered |
//! | `record` | what is kept of a generation of the WAL that ends, and of one that begins |
//! | `journal` | the files that hold records |
//! | `positions` | the publisher's positions, for those who restart the WAL |
//! | `recorder` | what a committing thread does: it writes records |
//! | `walk` | the way back from a view to a cursor, along the records |
//! | `collect` | the pages that were changed between a cursor and a view |

mod collect;
mod journal;
mod page_set;
mod position;
mod positions;
mod record;
mod recorder;
#[cfg(test)]
mod tests;
mod walk;

pub(in crate::primary) use collect::{Collected, collect, cursor_at};
pub(in crate::primary) use journal::{Journal, Mark};
pub use page_set::PageSet;
pub(in crate::primary) use position::StoredPosition;
pub use position::{Cursor, Position};
pub(in crate::primary) use positions::Positions;
pub use recorder::HeldLock;
pub(in crate::primary) use recorder::Recorder;
