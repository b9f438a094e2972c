//! How the database stands to its replica when replication begins: the decision whether it continues, is
//! brought forward, or stops before it publishes anything.
//!
//! What is in the replica is never buried unless a user says so. The decision is made of three things:
//! what the state folder claims of the database file, which file of the replica is the newest, and, where
//! the claim alone does not decide, the checksums of the database's pages as it was opened.
//!
//! | the state folder says | the replica ends there | the replica is further |
//! | --- | --- | --- |
//! | this transaction, and what capture follows | continues | exactly that transaction: brought forward |
//! | this transaction, and commits that capture did not follow | compared, what differs is sent | the same as above |
//! | it was this transaction before the machine went down | equal pages: continues | the same as above |
//! | another file was this transaction, of which it may be a copy | equal pages: continues | the same as above |
//! | nothing | equal pages: continues | |
//!
//! A replica whose files do not lead to the transaction that was published last, since files are missing or damaged, has
//! no newest state that could be buried: the database continues with a full copy, if it is that transaction or later by the
//! first three rows, and if the newest file, where there is one, is of the lineage that was published.
//!
//! A damaged file that is named after a later transaction than the database's, and all others of the replica, may have been
//! anything: it stops.
//!
//! A newest file that this database sent, and whose answer it never got, was made of it: the database continues, unless it is
//! exactly an earlier transaction by now.
//!
//! Pages that equal those of the newest transaction continue in every row. Where the machine went down, the digests
//! of earlier transactions say whether the database is one of those: then it is brought forward too. Commits that
//! capture did not follow are believed only where digests are remembered, the database is none of the earlier
//! transactions, page 1 counts no fewer changes than the replica's, and pages are in common or a `VACUUM` explains
//! that none is; and not where the WAL lost commits that were captured. Everything else stops.
//!
//! Where this database or a Litestream sidecar wrote the newest transaction, a database that differs from it continues too if
//! the WAL shows that it was that transaction, and what came after (`sidecar::survey_at`).

use std::sync::Arc;

use crate::clock::Timestamp;
use crate::error::{Error, ErrorKind, Result};
use crate::ltx::{Header, Level, Lineage, Txid};
use crate::page::{PageCount, PageSize};
use crate::primary::shipper::Shipper;
use crate::primary::shipper::holes::Hole;
use crate::primary::shipper::misfit::{
    another_history, buried, check_page_size, closed, conflict, earlier, rewound, sentence, ways_out, wiped,
};
use crate::primary::shipper::newest::Newest;
use crate::primary::shipper::sidecar;
use crate::primary::shipper::state::{Claim, Origin};
use crate::primary::shipper::sums::Sums;
use crate::primary::shipper::survey::{self, Agreement, Survey, Theirs};
use crate::primary::shipper::{blocking, long_blocking};
use crate::replica::RestorePoint;
use crate::store::Replica;

/// What is known locally.
#[derive(Clone, Debug)]
pub(in crate::primary) struct Local {
    /// What the state folder says of the database file.
    pub(in crate::primary) claim: Claim,
    /// The database was published to another replica since that transaction.
    pub(in crate::primary) is_back: bool,
    /// How the database came to be at that transaction, if not by publishing it.
    pub(in crate::primary) origin: Option<Origin>,
    /// The history that the replica was of when we published to it.
    pub(in crate::primary) lineage: Option<Lineage>,
    /// The page size, if the database has pages.
    pub(in crate::primary) page_size: Option<PageSize>,
    /// The size of the database.
    pub(in crate::primary) size: PageCount,
    /// The database had no pages when it was opened.
    pub(in crate::primary) was_empty: bool,
    /// Somebody decided to go on after whatever the replica holds.
    pub(in crate::primary) forced: bool,
    /// A full copy was to become a snapshot, and is not known to have.
    pub(in crate::primary) is_healing: bool,
    /// There are commits after what the state folder claims.
    pub(in crate::primary) has_commits: bool,
    /// The WAL lost commits that were captured.
    pub(in crate::primary) is_behind: bool,
    /// The time of the transaction of the claim, if it was published from here.
    pub(in crate::primary) time: Option<Timestamp>,
    /// The headers of files that may have landed and hold nothing that a power failure took from the database.
    pub(in crate::primary) sent: Vec<Header>,
    /// Those that hold nothing but what the WAL, or the database under it, has too.
    pub(in crate::primary) sent_in_wal: Vec<Header>,
    /// This process had the database open while another one published it.
    pub(in crate::primary) stood_by: bool,
    /// Tells our files from another writer's.
    pub(in crate::primary) node_id: u64,
}

/// How the database stands to its replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::primary) enum Standing {
    /// The replica is empty.
    First,
    /// It is this transaction, the newest, and what capture finds after it.
    Followed(Txid),
    /// Its pages are those of this transaction, the newest.
    Newest(Txid),
    /// Its pages were those of this transaction, the newest, which a Litestream sidecar published, at a moment that the WAL
    /// shows: what differs is to be sent.
    AfterSidecar(Txid),
    /// The same, of a transaction that this database published.
    AfterNewest(Txid),
    /// It is this transaction, the newest, and commits that nobody followed: what differs is to be sent.
    NewestAndMore(Txid),
    /// A user decided that it comes after this transaction, whatever it holds.
    Present(Txid),
    /// It is exactly this earlier transaction, and the replica ends with a later one.
    Earlier(Txid),
    /// It is this transaction or later, and the files of the replica do not lead there any more.
    Lost(Txid),
}

impl Standing {
    /// Whether local state alone says so, of the file that is the newest by its name.
    pub(in crate::primary) const fn is_claimed(self) -> bool {
        matches!(self, Self::Followed(_) | Self::NewestAndMore(_))
    }

    /// As this, of a database of which a user said that it comes after whatever is there, also after `end`, the later name of a
    /// file that cannot be read.
    pub(in crate::primary) fn after(self, end: Txid) -> Self {
        match self {
            Self::Lost(last) => Self::Lost(last.max(end)),
            _ => Self::Present(end),
        }
    }

    /// As this, of a database of which a full copy is sent whatever the replica holds.
    pub(in crate::primary) fn copied(self) -> Self {
        match self {
            Self::Followed(last)
            | Self::Newest(last)
            | Self::AfterSidecar(last)
            | Self::AfterNewest(last)
            | Self::NewestAndMore(last) => Self::Lost(last),
            Self::First | Self::Present(_) | Self::Earlier(_) | Self::Lost(_) => self,
        }
    }
}

/// What a replica is seen to be when replication begins.
pub(in crate::primary) struct Looked {
    /// Its last file; `None` if it is empty.
    pub(in crate::primary) newest: Option<Newest>,
    /// What it lacks of what was published.
    pub(in crate::primary) hole: Option<Hole>,
    /// The last transaction that a file is named after which cannot be read, if that is later than all that is known: a user
    /// said that the database comes after it.
    pub(in crate::primary) beyond: Option<Txid>,
}

/// Finds out how the database stands to a replica, which was `looked` at.
///
/// # Errors
/// `Conflict` if to go on would bury what the replica holds; `Unavailable` if it is listed as it was before; those of the store;
/// `Io`, `NoSpace`.
pub(in crate::primary) async fn standing(
    shipper: &Arc<Shipper>,
    local: &Local,
    looked: &Looked,
) -> Result<Standing> {
    let standing = match &looked.newest {
        Some(newest) => to_newest(shipper, local, newest, looked).await?,
        None => to_nothing(shipper.store.as_ref(), local, looked)?,
    };
    Ok(looked.beyond.map_or(standing, |end| standing.after(end)))
}

/// As [`standing`], to a replica whose last file is `newest`.
async fn to_newest(
    shipper: &Arc<Shipper>,
    local: &Local,
    newest: &Newest,
    looked: &Looked,
) -> Result<Standing> {
    let hole = looked.hole.as_ref();
    let store = shipper.store.as_ref();
    let header = &newest.header;
    let last = header.max;
    if local.was_empty && !local.forced {
        return Err(buried(store, last));
    }
    check_page_size(store, header, local.page_size)?;
    let is_another_history = Lineage::with(local.lineage, header).is_err();
    let is_last = looked.beyond.is_none() && local.claim.txid() == Some(last);
    let lost = local.lost_after(newest);
    if let (Some(txid), Some(_), false, false) = (lost, hole, local.forced, is_another_history) {
        return to_incomplete(shipper, local.claim, txid).await;
    }
    match local.claim {
        _ if local.forced => Ok(lost.map_or(Standing::Present(last), Standing::Lost)),
        _ if is_another_history => Err(another_history(store, local.lineage, header)),
        // Said of the file that was restored, and of no other one.
        Claim::Followed(_) | Claim::Unfollowed(_) if local.origin == Some(Origin::Present) && !is_last => {
            Ok(Standing::Present(last))
        }
        // The answer of its upload did not reach the process that was killed. Where nobody followed the WAL since, the database may
        // be an older file by now.
        Claim::Followed(_) if local.has_sent(newest) => Ok(Standing::Followed(last)),
        Claim::Nothing if local.has_sent(newest) => Ok(Standing::NewestAndMore(last)),
        _ if is_one_of(&local.sent_in_wal, newest) => Ok(Standing::NewestAndMore(last)),
        _ if local.has_sent(newest) => {
            Question::new(shipper, header).await?.check_not_earlier().await?;
            Ok(Standing::NewestAndMore(last))
        }
        Claim::Nothing => Question::new(shipper, header).await?.is_it_the_newest().await,
        claim if claim.txid() > Some(last) => {
            let txid = claim.txid().unwrap_or(last);
            Err(ends_before(store, hole, &format!("ends at {last}"), txid))
        }
        Claim::Followed(_) if is_last => Ok(Standing::Followed(last)),
        claim if local.is_after_older_version(claim, header) => Ok(local.and_more(last)),
        Claim::Unfollowed(_) if is_last => Question::new(shipper, header).await?.has_it_more(local).await,
        Claim::BeforeCrash(_) if is_last => Question::new(shipper, header).await?.has_it_lost_any().await,
        Claim::OfAnotherFile(_) if is_last => Question::new(shipper, header).await?.is_it_the_newest().await,
        _ if local.origin == Some(Origin::Rewound) => Err(rewound(store, local.claim.txid(), last)),
        Claim::Followed(txid) if local.has_commits => {
            Question::new(shipper, header).await?.is_it_the_newest_after(txid).await
        }
        Claim::Followed(txid) => Question::new(shipper, header).await?.is_it_still(txid, local.origin).await,
        Claim::Unfollowed(txid) | Claim::OfAnotherFile(txid) => {
            Question::new(shipper, header).await?.is_it_still(txid, None).await
        }
        Claim::BeforeCrash(txid) => Question::new(shipper, header).await?.has_it_lost_any_after(txid).await,
    }
}

/// The error of a replica to which `txid` was published, and which, as it is listed, `ends` before that.
fn ends_before(store: &Replica, hole: Option<&Hole>, ends: &str, txid: Txid) -> Error {
    match hole {
        Some(_) => wiped(store, &format!("it {ends}, but {txid} was published to it")),
        None => Error::new(
            ErrorKind::Unavailable,
            format!(
                "{} {ends} by its list of files, but what comes next is there: a cache or a mirror may list what was there before. \
                 Replication begins as soon as {txid} is listed",
                store.url()
            ),
        ),
    }
}

/// How the database stands to a replica that is empty, or is listed as empty.
fn to_nothing(store: &Replica, local: &Local, looked: &Looked) -> Result<Standing> {
    let hole = looked.hole.as_ref();
    match local.claim.txid() {
        None => Ok(Standing::First),
        Some(txid) if hole.is_none() && !local.forced => Err(ends_before(store, hole, "is empty", txid)),
        Some(_) if local.is_restored() => Ok(Standing::First),
        Some(txid) if local.forced || local.claim.is_of_this_file() => Ok(Standing::Lost(txid)),
        Some(txid) => Err(ends_before(store, hole, "is empty", txid)),
    }
}

/// How the database, of which `claim` says that it is `txid` or later, stands to a replica that does not lead there.
async fn to_incomplete(shipper: &Arc<Shipper>, claim: Claim, txid: Txid) -> Result<Standing> {
    // What nobody followed since may be an older file that took its place: older than the claim. A copy that landed after it
    // holds the same.
    if !matches!(claim, Claim::Followed(_))
        && let Some(before) = Question::before(shipper, claim.txid().unwrap_or(txid)).await?.earlier()
    {
        let why =
            "files are missing from the replica or damaged, so that the newest state cannot be restored";
        return Err(earlier(shipper.store.as_ref(), before, txid, why));
    }
    Ok(Standing::Lost(txid))
}

impl Local {
    /// The transaction that the database is, or that it comes after, if the replica, which ends with the file of
    /// `newest`, cannot hold another one or a later one.
    fn lost_after(&self, newest: &Newest) -> Option<Txid> {
        let header = &newest.header;
        // A sealed file says nothing of lineages.
        let is_ours = match header.lineage {
            None if header.is_sealed() => header.node_id == self.node_id,
            lineage => self.lineage.is_some() && self.lineage == lineage,
        };
        let claimed = self.claim.txid().filter(|_| self.claim.is_of_this_file())?;
        let is_last = claimed == header.max || self.has_sent(newest);
        (is_last || (claimed > header.max && is_ours)).then(|| claimed.max(header.max))
    }

    /// Whether the last file, `newest`, is one that may have landed, or one that it was merged into before its answer came.
    fn has_sent(&self, newest: &Newest) -> bool {
        is_one_of(&self.sent, newest)
    }

    /// It is `last`, and what came after that.
    const fn and_more(&self, last: Txid) -> Standing {
        match self.claim {
            Claim::Followed(_) => Standing::Followed(last),
            _ => Standing::NewestAndMore(last),
        }
    }

    /// Whether a process of version 0.1.0 published the database up to the file with the header `newest`, while this one had
    /// it open. That version kept no record of what the WAL held, and did not note a file before it was sent.
    fn is_after_older_version(&self, claim: Claim, newest: &Header) -> bool {
        let Some(txid) =
            claim.txid().filter(|_| self.stood_by && self.lineage.is_none() && newest.lineage.is_none())
        else {
            return false;
        };
        let is_noted = txid == newest.max || (txid.next() == newest.max && newest.node_id == self.node_id);
        is_noted && matches!(claim, Claim::Followed(_) | Claim::Unfollowed(_))
    }

    /// Whether the database was restored, and never published since.
    fn is_restored(&self) -> bool {
        matches!(self.origin, Some(Origin::Restored | Origin::Rewound | Origin::Present))
    }
}

/// Whether `newest` is one of the files with the headers `sent`, or one that such a file was merged into.
fn is_one_of(sent: &[Header], newest: &Newest) -> bool {
    sent.iter().any(|sent| *sent == newest.header || ends_with(newest, sent))
}

/// Whether `newest` was merged of files of which the one with the header `last` is the last; that may be its only one.
fn ends_with(newest: &Newest, last: &Header) -> bool {
    let merged = &newest.header;
    newest.id.level > Level::L0
        && merged.min <= last.min
        && (merged.max, merged.timestamp, merged.node_id) == (last.max, last.timestamp, last.node_id)
        && (merged.page_size, merged.commit, merged.lineage) == (last.page_size, last.commit, last.lineage)
}

/// A question that the pages of the database answer.
struct Question<'a> {
    shipper: &'a Arc<Shipper>,
    survey: Arc<Survey>,
    /// The last transaction of the replica.
    last: Txid,
    writer: Writer,
    /// Why the replica cannot be compared with: it is sealed, and there is no identity.
    closed: Option<Error>,
}

/// Who wrote the last transaction of a replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Writer {
    /// A Litestream sidecar, of this database or another.
    Sidecar,
    /// This database, or a copy that has its state folder too.
    This,
    /// Another primary; or nobody has looked.
    Other,
}

impl<'a> Question<'a> {
    /// About a replica whose last file has the header `newest`.
    async fn new(shipper: &'a Arc<Shipper>, newest: &Header) -> Result<Self> {
        let question = Self::before(shipper, newest.max).await?;
        let ours = shipper.with_capture(|capture| capture.node_id())?;
        let writer = match newest.node_id {
            _ if newest.is_litestreams() => Writer::Sidecar,
            id if id == ours => Writer::This,
            _ => Writer::Other,
        };
        let store = shipper.store.as_ref();
        let is_closed = newest.is_sealed() && store.keyring().identities().is_empty();
        Ok(Self { writer, closed: is_closed.then(|| closed(store, newest.max)), ..question })
    }

    /// About what we published up to `last`.
    async fn before(shipper: &'a Arc<Shipper>, last: Txid) -> Result<Self> {
        let survey = shipper.survey().await?;
        Ok(Self { shipper, survey, last, writer: Writer::Other, closed: None })
    }

    /// Whether the database was the newest transaction, and the WAL has what came after.
    async fn was_the_newest(&self) -> Result<bool> {
        if self.writer == Writer::Other {
            return Ok(false);
        }
        let Some(then) = sidecar::survey_at(self.shipper, self.last).await? else { return Ok(false) };
        let theirs = self.compare_survey(&then, RestorePoint::Latest, true).await?;
        let equal = theirs.filter(|theirs| theirs.txid == self.last && theirs.agreement.is_equal());
        let Some(known) = equal.and_then(|theirs| theirs.known) else { return Ok(false) };
        let last = self.last;
        blocking(self.shipper, move |_| known.adopt(last)).await?;
        Ok(true)
    }

    /// How the database stands that was the newest transaction.
    const fn after_newest(&self) -> Standing {
        match self.writer {
            Writer::Sidecar => Standing::AfterSidecar(self.last),
            Writer::This | Writer::Other => Standing::AfterNewest(self.last),
        }
    }

    /// The database is of no known transaction, unless it is the newest.
    async fn is_it_the_newest(&self) -> Result<Standing> {
        match self.compare_with_newest(true).await? {
            (txid, agreement) if agreement.is_equal() => Ok(Standing::Newest(txid)),
            _ if self.was_the_newest().await? => Ok(self.after_newest()),
            (txid, _) => Err(self.another(txid)),
        }
    }

    /// The database was the newest transaction, and may have lost commits.
    async fn has_it_lost_any(&self) -> Result<Standing> {
        match self.only_earlier().await? {
            Some(earlier) => Ok(Standing::Earlier(earlier)),
            None => self.is_it_the_newest().await,
        }
    }

    /// Checks that the database, which was the newest transaction and may have been written since, is not exactly an earlier one.
    async fn check_not_earlier(&self) -> Result<()> {
        let Some(txid) = self.only_earlier().await? else { return Ok(()) };
        let why = "it was the newest before, so that either an older file took its place, or a program \
                   without litestream wrote back what it was";
        Err(earlier(self.shipper.store.as_ref(), txid, self.last, why))
    }

    /// The database was the newest transaction, and somebody may have written it since.
    async fn has_it_more(&self, local: &Local) -> Result<Standing> {
        self.check_not_earlier().await?;
        if local.is_behind {
            return self.is_it_the_newest().await;
        }
        // Version 0.1.0 remembered no digests. Without them an older file is not told from one that was written since.
        let sums = Sums::of(self.shipper);
        sums.catch_up(self.shipper, Some(self.last)).await;
        if !local.is_back && !sums.remembers_digests() {
            return self.is_it_the_newest().await;
        }
        match self.compare_with_newest(false).await? {
            (txid, agreement) if agreement.is_equal() => Ok(Standing::Newest(txid)),
            (txid, agreement) if self.is_continuation(agreement).await? => Ok(Standing::NewestAndMore(txid)),
            (txid, _) => Err(self.another(txid)),
        }
    }

    /// Whether the database, of which `agreement` says how much is as it was, can have been written since by SQLite
    /// alone. What `VACUUM` writes has no page in common with what was.
    async fn is_continuation(&self, agreement: Agreement) -> Result<bool> {
        if let Some(closed) = &self.closed {
            return Err(closed.clone());
        }
        let survey = Arc::clone(&self.survey);
        long_blocking(self.shipper, move |shipper| {
            let Some(theirs) = survey::first_page(shipper)? else { return Ok(agreement.is_related()) };
            let follows = survey.is_not_before(&theirs);
            Ok(follows && (agreement.is_related() || survey.is_vacuumed(&theirs)))
        })
        .await
    }

    /// The database was `txid`, and the replica is further; it may have lost commits.
    async fn has_it_lost_any_after(&self, txid: Txid) -> Result<Standing> {
        match self.only_earlier().await? {
            Some(earlier) => Ok(Standing::Earlier(earlier)),
            None => self.is_it_still(txid, None).await,
        }
    }

    /// The database was `txid`, and the replica is further. `origin` says how it came to be that, if nobody
    /// changed it since.
    async fn is_it_still(&self, txid: Txid, origin: Option<Origin>) -> Result<Standing> {
        if self.is_exactly(txid, origin).await? {
            return Ok(Standing::Earlier(txid));
        }
        self.is_it_the_newest_after(txid).await
    }

    /// The database was `txid` and has commits after it, which may be those of the replica.
    async fn is_it_the_newest_after(&self, txid: Txid) -> Result<Standing> {
        match self.compare_with_newest(true).await? {
            (newest, agreement) if agreement.is_equal() => Ok(Standing::Newest(newest)),
            _ if self.was_the_newest().await? => Ok(self.after_newest()),
            _ => Err(self.ahead(txid)),
        }
    }

    /// The earlier transaction that the database is exactly, if that is remembered.
    fn earlier(&self) -> Option<Txid> {
        let known = Sums::of(self.shipper).txid_of(&self.survey.known.digest());
        known.filter(|txid| *txid < self.last)
    }

    /// The same, unless the database is the newest transaction too. A file that is sent again, because the answer of its
    /// upload was lost, holds what the one before it does; and the digest of the newest is missing if the process was killed
    /// right after it published that.
    async fn only_earlier(&self) -> Result<Option<Txid>> {
        let Some(earlier) = self.earlier() else { return Ok(None) };
        if Sums::of(self.shipper).digest_of(self.last).is_some() {
            return Ok(Some(earlier));
        }
        let (newest, agreement) = self.compare_with_newest(true).await?;
        let is_newest = newest == self.last && agreement.is_equal();
        Ok(if is_newest { None } else { Some(earlier) })
    }

    async fn is_exactly(&self, txid: Txid, origin: Option<Origin>) -> Result<bool> {
        if let Some((_, agreement)) = self.survey.base.filter(|(base, _)| *base == txid) {
            return Ok(agreement.is_equal());
        }
        if let Some(digest) = Sums::of(self.shipper).digest_of(txid) {
            return Ok(digest == self.survey.known.digest());
        }
        let theirs = self.compare(RestorePoint::Txid(txid), true).await?;
        if let Some(theirs) = theirs.filter(|theirs| theirs.txid == txid) {
            return Ok(theirs.agreement.is_equal());
        }
        // The files that end with it were merged. What a restore wrote and nobody changed is that.
        Ok(origin == Some(Origin::Restored) && self.compare_with_newest(false).await?.1.is_related())
    }

    /// How the database compares with the newest state, and which that is.
    async fn compare_with_newest(&self, for_equality: bool) -> Result<(Txid, Agreement)> {
        if let Some((txid, agreement)) = self.survey.base
            && txid == self.last
            && !(agreement.differing == 0 && agreement.first_differs)
        {
            return Ok((txid, agreement));
        }
        let gone = || Error::new(ErrorKind::Unavailable, "the replica changed while it was looked at");
        let theirs = self.compare(RestorePoint::Latest, for_equality).await?.ok_or_else(gone)?;
        if let Some(known) = theirs.known {
            let txid = theirs.txid;
            blocking(self.shipper, move |_| known.adopt(txid)).await?;
        }
        Ok((theirs.txid, theirs.agreement))
    }

    async fn compare(&self, point: RestorePoint, for_equality: bool) -> Result<Option<Theirs>> {
        self.compare_survey(&self.survey, point, for_equality).await
    }

    async fn compare_survey(
        &self,
        survey: &Arc<Survey>,
        point: RestorePoint,
        for_equality: bool,
    ) -> Result<Option<Theirs>> {
        if let Some(closed) = &self.closed {
            return Err(closed.clone());
        }
        let survey = Arc::clone(survey);
        let compared = long_blocking(self.shipper, move |shipper| {
            survey::compare(shipper, &survey, point, for_equality)
        });
        compared.await.map_err(|e| self.incomparable(e))
    }

    /// The error of a database that is not known to be a state of its replica, which ends at `last`.
    fn another(&self, last: Txid) -> Error {
        let (url, writer) = (self.shipper.store.url(), self.writer());
        conflict(format!(
            "{url} holds another database, or another state of this one, up to {last}: the pages of the local one \
             differ, and nothing says that they come after it. {writer}Give another replica URL; or {}",
            ways_out(&url)
        ))
    }

    /// The error of a database that was `txid`, and has changes that the replica has not.
    fn ahead(&self, txid: Txid) -> Error {
        let (url, last) = (self.shipper.store.url(), self.last);
        let writer = match self.writer() {
            "" => "If another primary writes to it, stop one of the two",
            sidecar => sidecar.trim_end_matches(". "),
        };
        conflict(format!(
            "{url} is ahead of this database: it ends at {last}, this is {txid} with changes of its own. {writer}, or \
             give another replica URL; or {}",
            ways_out(&url)
        ))
    }

    /// Who wrote the newest transaction, if that is known, and what to do about it.
    fn writer(&self) -> &'static str {
        if self.writer == Writer::Sidecar {
            "A Litestream sidecar seems to run, or ran: stop it and call litestream_resume(). "
        } else {
            ""
        }
    }

    /// What the replica lost or has damaged cannot be compared, however often that is tried.
    fn incomparable(&self, error: Error) -> Error {
        if error.kind() != ErrorKind::Corrupt {
            return error;
        }
        let url = self.shipper.store.url();
        conflict(format!(
            "{url} cannot be compared with this database, so that nothing says which of both is newer: {error}. \
             {}",
            sentence(&ways_out(&url))
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ltx::{FileId, FileName};

    #[test]
    fn a_merged_file_ends_with_its_last_one_and_with_no_other() {
        let txid = |n| Txid::new(n).unwrap();
        let header = |min, max| {
            let name = FileName::new(txid(min), txid(max)).unwrap();
            let new = Header::new(PageSize::MIN, PageCount::new(5), name, Timestamp::from_millis(7));
            Header { node_id: 11, ..new }
        };
        let at = |level, header: Header| {
            let id = FileId { level: Level::new(level).unwrap(), name: header.name() };
            Newest { id, header, lineage: None }
        };
        let last = Header { wal_offset: 32, wal_size: 536, ..header(4, 4) };
        let merged = header(1, 4);
        for newest in [at(1, merged), at(1, header(4, 4)), at(9, merged)] {
            assert!(ends_with(&newest, &last), "{newest:?}");
        }
        for other in [
            at(0, header(4, 4)),
            at(1, header(1, 3)),
            at(1, Header { node_id: 12, ..merged }),
            at(1, Header { timestamp: Timestamp::from_millis(8), ..merged }),
            at(1, Header { commit: PageCount::new(6), ..merged }),
        ] {
            assert!(!ends_with(&other, &last), "{other:?}");
        }
    }
}
