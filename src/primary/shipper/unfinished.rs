//! A copy whose upload broke off: what the store has of it serves the next attempt.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::Shipper;
use crate::primary::file_fingerprint::Identity;
use crate::store::PartLog;

/// The log of the upload, in the folder of the replica.
const NAME: &str = "upload.parts";
/// For how long what arrived is kept: it costs money, and many buckets have a rule that removes it about then.
const KEPT_FOR: Duration = Duration::from_secs(7 * 24 * 3600);

impl Shipper {
    /// The log of the upload of a copy; `None` of a replica that is sealed, where no two attempts have a byte in common.
    pub(super) fn part_log(&self) -> Option<Arc<PartLog>> {
        (!self.seals.are_on()).then(|| Arc::new(self.open_log()))
    }

    /// How many bytes arrived of a copy that broke off; `None` if nothing of it is kept.
    pub(super) fn kept_of_copy(&self) -> Option<u64> {
        let begun = self.part_log()?.begun()?;
        Some(begun.bytes()).filter(|bytes| *bytes > 0)
    }

    /// Gives up what arrived of a copy, which is of no use any more. What the store refuses to remove is told.
    pub(super) async fn give_up_unfinished(&self) {
        let log = Arc::new(self.open_log());
        if let Err(e) = self.store.give_up_upload(&log).await {
            tracing::warn!("{}: what arrived of a copy is not removed: {e}", self.name());
        }
    }

    /// As [`Shipper::give_up_unfinished`], if it is older than it may be, or the replica is sealed.
    pub(super) async fn give_up_stale(&self) {
        let Some(begun) = self.open_log().begun() else { return };
        let age = self.db.clock.now().as_millis().saturating_sub(begun.last().as_millis());
        if age > KEPT_FOR.as_millis() as i64 || self.seals.are_on() {
            self.give_up_unfinished().await;
        }
    }

    fn open_log(&self) -> PartLog {
        let subject = Identity::of(&self.db.path).map(|file| file.to_string()).unwrap_or_default();
        PartLog::open(self.folder.join(NAME), subject, self.db.clock.now())
    }
}

/// What to say of an upload that stays in the store, because the local state in `folder` of the replica at `url` goes.
pub(in crate::primary) fn of_former(folder: &Path, url: &str) -> Option<String> {
    let begun = PartLog::left(&folder.join(NAME))?;
    let (key, id) = begun.name();
    Some(format!(
        "an upload of {key} to {url} was not finished, and what arrived of it stays there and costs money: have the store \
         remove it, whose upload id is {id}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stays_in_the_store_of_a_former_replica_is_named() {
        let folder = tempfile::TempDir::new().unwrap();
        assert_eq!(of_former(folder.path(), "s3://b/p"), None);
        let name = r#"{"key":"p/0000/a.ltx","id":"up 1","part_size":5,"settings":"","subject":"","begun":7}"#;
        std::fs::write(folder.path().join(NAME), name).unwrap();
        let text = of_former(folder.path(), "s3://b/p").unwrap();
        for part in ["p/0000/a.ltx", "s3://b/p", "id is up 1", "have the store remove it"] {
            assert!(text.contains(part), "{text}");
        }
    }
}
