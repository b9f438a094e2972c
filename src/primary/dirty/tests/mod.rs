//! Records and walks, against a naive model of SQLite's WAL, its index, and the processes that use them.
//!
//! | file | its story |
//! | --- | --- |
//! | `world` | the model |
//! | `stories` | each way in which a change could be lost in silence |
//! | `exclusive` | a connection that keeps the database for itself |
//! | `walks` | records as they cannot be, or hardly |
//! | `files` | records in files |
//! | `random` | all of it in any order |

mod exclusive;
mod files;
mod random;
mod stories;
mod walks;
mod world;
