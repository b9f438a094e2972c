//! What concerns other processes, and the one who runs them.

use std::sync::atomic::Ordering;

use bytes::Bytes;

use super::holes::{Asked, Look};
use super::{Capture, Phase, Shipper};
use crate::clock::Timestamp;
use crate::error::{Error, ErrorKind, Result};
use crate::events;
use crate::ltx::FileId;
use crate::store::FileInfo;

impl Shipper {
    /// Another process publishes the database.
    pub(in crate::primary) fn stand_by(&self) {
        self.db.stands_by();
        self.set_phase(Phase::Standby);
    }

    /// Replication that stopped begins anew, with a full copy; `force` says that what is in the replica
    /// is to be taken as it is. Where it did not stop, the replica is looked at, with `force` at its content too.
    ///
    /// # Errors
    /// `Busy` if another process publishes; `Interrupted` after the last close.
    pub(in crate::primary) fn go_on(&self, force: bool) -> Result<()> {
        if self.progress().phase != Phase::Stopped {
            self.with_capture(|_| ())?;
            let look = if force { Look::Content } else { Look::Names };
            self.ask_look(Asked { look, by_user: force });
            return Ok(());
        }
        self.forget_survey();
        self.holes.forget();
        if self.history.forget_damaged() && !force {
            // They may have been put right.
            self.holes.ask(Asked { look: Look::Content, by_user: false });
        }
        self.with_capture(|capture| capture.begin_again(force))??;
        self.change(|p| {
            p.phase = Phase::Starting;
            p.resumed = false;
            p.stopped_by = p.error.take();
        });
        self.ends(&events::REPLICATION_STOPPED);
        let how = if force { "replication begins again, by force" } else { "replication begins again" };
        self.happened(&events::REPLICATION_RESUMED, how);
        self.signal.hurry();
        Ok(())
    }

    /// Asks the publisher for a look at the replica.
    pub(in crate::primary) fn ask_look(&self, asked: Asked) {
        self.holes.ask(asked);
        self.signal.hurry();
    }

    /// The files of the replica may not lead to the newest state: the publisher is to look.
    pub(in crate::primary) fn doubt_replica(&self) {
        self.ask_look(Asked { look: Look::Names, by_user: false });
    }

    /// Replication does not go on by force after all, unless it did already: who said so was told that it
    /// failed. It is what it was before.
    pub(in crate::primary) fn withdraw_force(&self) {
        self.holes.withdraw();
        match self.with_capture(Capture::withdraw_force) {
            Ok(Ok(true)) => {}
            Ok(Err(e)) => tracing::warn!("{}: {e}", self.name()),
            Ok(Ok(false)) | Err(_) => return,
        }
        let before = self.progress().stopped_by.take();
        let unknown = || Error::new(ErrorKind::Conflict, "replication was stopped");
        self.stop(before.unwrap_or_else(unknown));
        // Only for a round that is under way now.
        self.withdrawn.notify_waiters();
    }

    /// What ended replication, if it ended.
    pub(in crate::primary) fn stopped(&self) -> Option<Error> {
        let progress = self.progress();
        progress.error.clone().filter(|_| progress.phase == Phase::Stopped)
    }

    /// Says so, once, if the clock of this machine is wrong.
    pub(in crate::primary) fn look_at_clock(&self) {
        if let Some(complaint) = self.time.complaint() {
            tracing::warn!(db = %self.db.path.display(), "{}: {complaint}", self.db.path.display());
            self.notice(complaint);
        }
    }

    /// The history of the replica is kept from the first file on that this process publishes.
    pub(in crate::primary) fn keep_history_from_first_file(&self) {
        self.history_waits.store(true, Ordering::Relaxed);
    }

    /// This process published the file `id` of `size` bytes just now, whose last commit was made at `committed`; `bytes` are its
    /// content if that is in memory.
    pub(in crate::primary) fn keep_history_of(
        &self,
        id: FileId,
        size: u64,
        committed: Timestamp,
        bytes: Option<Bytes>,
    ) {
        if self.history_waits.swap(false, Ordering::Relaxed)
            && let Ok(node_id) = self.with_capture(|capture| capture.node_id())
        {
            self.history.begin(self.progress_txid(), node_id);
        }
        let file = FileInfo { id, size, timestamp: self.time.now() };
        self.history.published(file, committed, bytes);
    }

    /// Something was found that the status and the log are to tell of.
    pub(in crate::primary) fn notice(&self, notice: String) {
        if self.shows(notice.clone()) {
            tracing::info!(db = %self.db.path.display(), "{}: {notice}", self.db.path.display());
        }
    }

    /// Something that the log has is to be in the status too; whether it was not there last.
    pub(super) fn shows(&self, notice: String) -> bool {
        let now = self.db.clock.now();
        let mut progress = self.progress();
        let is_new = progress.notice.as_ref().is_none_or(|(_, last)| *last != notice);
        progress.notice = Some((now, notice));
        is_new
    }
}
