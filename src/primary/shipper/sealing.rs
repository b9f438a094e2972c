//! Whether a replica may be sealed to those whom it is to be sealed to, decided when replication begins.
//!
//! | local state says | no recipients are set | the same | others |
//! | --- | --- | --- | --- |
//! | nothing | plain, unless the newest file is sealed | begins with the next file | |
//! | it is sealed | stops | continues | stops, until a user forces it |

use super::Shipper;
use super::misfit;
use super::newest::Newest;
use super::resume::Local;
use super::state::{Sealed, State};
use crate::error::Result;
use crate::ltx::Txid;

impl Shipper {
    /// The first transaction that is sealed, and to whom, shortened, as local state has it; `None` if the replica is not
    /// sealed, or nothing was published since recipients were set.
    pub(in crate::primary) fn sealed_since(&self) -> Option<(Txid, String)> {
        let state = self.seals.are_on().then(|| State::read(&self.folder))?;
        let sealed = state?.sealed?;
        Some((Txid::new(sealed.since)?, misfit::shortened(&sealed.recipients)))
    }
}

/// How the sealing of a replica continues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sealing {
    /// It is not sealed.
    Off,
    /// It is sealed to the same recipients since this transaction.
    Same(Txid),
    /// It is sealed from the next file on.
    Begins,
    /// It is sealed to others from the next file on, and to anybody since this transaction.
    Changes(Txid),
}

impl Sealing {
    /// How it continues by what local state says; `forced`: a user decided that it changes.
    ///
    /// # Errors
    /// `Conflict` if nothing may be published for the recipients that are set, or without any.
    pub(super) fn of(shipper: &Shipper, forced: bool) -> Result<Self> {
        let ours = shipper.seals.recipients();
        let Some(sealed) = shipper.with_capture(|capture| capture.sealed_to())? else {
            return Ok(if ours.is_empty() { Self::Off } else { Self::Begins });
        };
        let since = Txid::new(sealed.since).unwrap_or(Txid::ONE);
        match sealed.recipients == ours.texts() {
            true => Ok(Self::Same(since)),
            false if forced && !ours.is_empty() => Ok(Self::Changes(since)),
            false => Err(misfit::other_recipients(shipper.store.as_ref(), ours, &sealed.recipients)),
        }
    }

    /// Whether nothing changes.
    pub(super) const fn is_settled(self) -> bool {
        matches!(self, Self::Off | Self::Same(_))
    }

    /// Refuses a replica that was sealed and whose newest file, `newest`, is not.
    ///
    /// # Errors
    /// `Conflict`.
    pub(super) fn check(self, shipper: &Shipper, local: &Local, newest: Option<&Newest>) -> Result<()> {
        let (Self::Same(since) | Self::Changes(since), Some(newest)) = (self, newest) else { return Ok(()) };
        let header = &newest.header;
        if header.is_sealed() || header.max < since || local.forced {
            return Ok(());
        }
        Err(misfit::unsealed(shipper.store.as_ref(), header, since))
    }

    /// Nothing changes: what was known holds.
    pub(super) fn goes_on(self, shipper: &Shipper) {
        if let Self::Same(since) = self {
            shipper.seals.are_on_since(since);
        }
    }

    /// Gives up, before anything sealed follows, what was begun to be sent before and never ended: it is not sealed. What the
    /// store refuses to give up is told.
    pub(super) async fn give_up_plain_uploads(self, shipper: &Shipper) {
        if self != Self::Begins {
            return;
        }
        let url = shipper.store.url();
        match shipper.store.abort_uploads().await {
            Ok(0) => {}
            Ok(count) => {
                tracing::info!("{url}: {count} unfinished uploads from before encryption were removed")
            }
            Err(e) => tracing::warn!(
                "{url}: whether there are unfinished uploads from before encryption is not known, and they are not \
                 removed: {e}. Have the store remove them"
            ),
        }
    }

    /// Notes, before anything is published after `last`, whom that is sealed to; `is_sealed`: the newest file is sealed, which
    /// local state did not say.
    ///
    /// # Errors
    /// `Busy` if another process publishes.
    pub(super) fn begin(self, shipper: &Shipper, last: Option<Txid>, is_sealed: bool) -> Result<()> {
        let next = last.map_or(Txid::ONE, Txid::next);
        let since = match self {
            Self::Off => return Ok(()),
            Self::Same(since) => since,
            Self::Begins if is_sealed => Txid::ONE,
            // What recipients who came later can open begins with their snapshot.
            Self::Begins | Self::Changes(_) => next,
        };
        shipper.seals.are_on_since(since);
        if self.is_settled() {
            return Ok(());
        }
        let recipients = shipper.seals.recipients().texts();
        let first = match self {
            Self::Changes(first) => first,
            Self::Begins | Self::Off | Self::Same(_) => since,
        };
        let sealed = Sealed { recipients: recipients.clone(), since: first.get() };
        shipper.with_capture(|capture| capture.seals_to(sealed))?;
        let (url, recipients) = (shipper.store.url(), misfit::shortened(&recipients));
        shipper.notice(match (self, last) {
            (Self::Begins, Some(last)) if !is_sealed => format!(
                "{url} is encrypted from {next} on, for {recipients}; readers of older states need plain_until={last}"
            ),
            (Self::Begins, _) => format!("{url} is encrypted, for {recipients}"),
            _ => format!("{url} is encrypted from {next} on for {recipients}"),
        });
        Ok(())
    }
}
