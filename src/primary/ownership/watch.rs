//! Whether the database was written without our knowing: by a process that does not use the VFS.

use crate::primary::file_fingerprint::Stamp;
use crate::primary::ownership::Ownership;

/// Looks at the files now and then, while this process publishes, and wakes the shippers if they changed. Never ends.
pub(super) async fn run(owner: &Ownership) {
    let now = || [Stamp::of(&owner.db.path), Stamp::of(&owner.db.wal_path)];
    // What was written before is found by the first round.
    let mut seen = now();
    loop {
        tokio::time::sleep(owner.options.watch_interval).await;
        let before = std::mem::replace(&mut seen, now());
        if before != seen && owner.db.is_open() {
            tracing::debug!("{}: the files changed", owner.db.path.display());
            owner.shippers.iter().for_each(|shipper| shipper.signal.commit());
        }
    }
}
