//! Files of ours in folders of users: who may use them, and locks on them.
//!
//! | file | what it is |
//! | --- | --- |
//! | `rights` | owner and permissions: what belongs to a database has those of the database |
//! | `place` | where the local state of a database is |
//! | `make` | files and folders are made with the right owner and permissions from the beginning |
//! | `early_sync` | a large file is brought to the disk while it is written |
//! | `record_lock` | locks between processes |
//! | `database_lock` | the locks that processes have on a database |
//! | `open_lock` | whether a database is open as a primary anywhere, and keeping it closed |

mod database_lock;
mod early_sync;
mod make;
mod open_lock;
mod place;
mod record_lock;
mod rights;

pub use database_lock::DatabaseLock;
pub use early_sync::EarlySync;
pub use make::{
    as_in_folder, create_folders, create_folders_with, create_private_folders, open, open_secret, write,
};
pub use open_lock::{OpenLock, ReplaceLock};
pub use place::{free_space, place_state, resolved, state_folder};
pub use record_lock::{Kind, RecordLock};
pub use rights::Rights;
