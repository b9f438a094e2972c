//! Whether the database was written without our knowing: by a process that does not use the VFS.

use std::sync::{Mutex, PoisonError};

use crate::primary::shared::Shared;
use crate::primary::stamp::Stamp;

/// What the files looked like when the publisher last looked at the database.
#[derive(Default)]
pub(super) struct Watch(Mutex<[Option<Stamp>; 2]>);

impl Watch {
    /// Remembers what the files look like now; whether that changed.
    fn look(&self, shared: &Shared) -> bool {
        let now = [Stamp::of(&shared.path), Stamp::of(&shared.wal_path)];
        let seen = std::mem::replace(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner), now);
        seen != now
    }
}

impl Shared {
    /// The publisher looks at what is committed now.
    pub(super) fn looks(&self) {
        self.watch.look(self);
    }
}

/// Sleeps until there is something to do; looks at the files now and then.
pub(super) async fn idle(shared: &Shared) {
    loop {
        tokio::select! {
            _ = shared.signal.next() => return,
            () = tokio::time::sleep(shared.options.watch_interval) => {
                if shared.watch.look(shared) {
                    tracing::debug!("{}: the files changed", shared.path.display());
                    return;
                }
            }
        }
    }
}
