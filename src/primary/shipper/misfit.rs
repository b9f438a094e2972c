//! The errors of a database that does not fit its replica: each says what is where, and the ways out.

use crate::error::{Error, ErrorKind, Result};
use crate::ltx::{FileId, Header, Lineage, Recipients, Txid};
use crate::page::PageSize;
use crate::store::Replica;

/// What an operator can do who knows better.
const FORCE: &str = "call litestream_resume('force') to publish the local database after it";

/// Refuses a replica whose last file is `header` if its database has another page size than the `local` one.
///
/// # Errors
/// `Conflict`.
pub(super) fn check_page_size(store: &Replica, header: &Header, local: Option<PageSize>) -> Result<()> {
    let Some(page_size) = local.filter(|page_size| *page_size != header.page_size) else { return Ok(()) };
    Err(Error::new(
        ErrorKind::Conflict,
        format!(
            "{} holds a database of page size {}, the local one has {page_size}: give another replica URL",
            store.url(),
            header.page_size
        ),
    ))
}

/// The error of a replica that goes on with another lineage than `ours`.
pub(super) fn another_history(store: &Replica, ours: Option<Lineage>, newest: &Header) -> Error {
    let lineage = |lineage: Option<Lineage>| lineage.map(|lineage| lineage.to_string()).unwrap_or_default();
    let (url, last) = (store.url(), newest.max);
    let (ours, theirs) = (lineage(ours), lineage(newest.lineage));
    conflict(format!(
        "{url} holds another history, up to {last}: its newest file is of lineage {theirs}, we published lineage \
         {ours}. Files of another replica were copied over it, or it was begun again: bring its content back \
         and call litestream_resume(), or give another replica URL, or {FORCE}"
    ))
}

/// The two ways out for one who has the wrong database.
pub(super) fn ways_out(url: &str) -> String {
    format!(
        "close the database and restore it (select litestream_restore('{}', path, '{{\"force\": true}}')), \
         or, if the local one is right, {FORCE}",
        url.replace('\'', "''")
    )
}

/// The error that stops replication until somebody decides.
pub(super) fn conflict(message: String) -> Error {
    Error::new(ErrorKind::Conflict, message)
}

/// The error of a database that was restored to an earlier transaction.
pub(super) fn rewound(store: &Replica, txid: Option<Txid>, last: Txid) -> Error {
    let url = store.url();
    let at = txid.map_or_else(|| "an earlier state".to_owned(), |txid| txid.to_string());
    conflict(format!(
        "this database was restored to {at} of {url}, which ends at {last}: {FORCE}, which makes it the \
         present (a restore with {{\"rewind\": true}} says so beforehand); or restore the latest state"
    ))
}

/// The error of a database that is an earlier transaction and must not, or cannot now, be brought forward.
pub(super) fn earlier(store: &Replica, txid: Txid, last: Txid, why: &str) -> Error {
    let url = store.url();
    conflict(format!(
        "this database is {txid}, an earlier state of {url}, which ends at {last}, and is not brought forward: \
         {why}. {}",
        sentence(&ways_out(&url))
    ))
}

/// `text` with a capital letter at its beginning.
pub(super) fn sentence(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

/// The error of a primary without recipients whose replica is sealed: `file` is its newest file.
pub(super) fn sealed(store: &Replica, file: FileId) -> Error {
    conflict(format!(
        "{} is encrypted: {file} is sealed, and nothing plain is published to it. Set age_recipient (or \
         age_recipients_file, or age.recipients in litestream.yml) to those who may open it, or give another replica URL",
        store.url()
    ))
}

/// The error of a primary that would publish for `ours` what is sealed to `theirs`.
pub(super) fn other_recipients(store: &Replica, ours: &Recipients, theirs: &[String]) -> Error {
    let (url, theirs) = (store.url(), shortened(theirs));
    if ours.is_empty() {
        return conflict(format!(
            "{url} is encrypted, for {theirs}, and no recipient is set: nothing is published to it. Set age_recipient (or \
             age_recipients_file, or age.recipients in litestream.yml), or give another replica URL to publish unencrypted"
        ));
    }
    conflict(format!(
        "{url} is encrypted for {theirs}, and age_recipient says {}: nothing is published to it. Set the recipients that it \
         had, or call litestream_resume('force') to encrypt a full copy, and what follows, for the new ones",
        shortened(&ours.texts())
    ))
}

/// Recipients as a status shows them.
pub(in crate::primary) fn shortened(recipients: &[String]) -> String {
    let short = |text: &String| format!("{}...", text.get(..12).unwrap_or(text));
    recipients.iter().map(short).collect::<Vec<_>>().join(", ")
}

/// The error of a replica that is sealed since `since`, and whose newest file, `header`, is not.
pub(super) fn unsealed(store: &Replica, header: &Header, since: Txid) -> Error {
    conflict(format!(
        "{} is encrypted since {since}, but {} is not: somebody else wrote it. Find out who; then call \
         litestream_resume('force') to publish the local database after it, or give another replica URL",
        store.url(),
        header.name()
    ))
}

/// The error of a sealed replica, up to `last`, that local state says too little of, and that cannot be read.
pub(super) fn closed(store: &Replica, last: Txid) -> Error {
    conflict(format!(
        "{} is encrypted, up to {last}, so that it cannot be compared with this database, and local state does not say \
         which of both is newer. Give an identity that opens it for this open alone (age_identity_file); or, if the local \
         database is right, {FORCE}",
        store.url()
    ))
}

/// The error of a replica whose last file by its name, `damaged`, cannot be read, and comes after all that is known: `last`.
pub(super) fn ends_damaged(store: &Replica, damaged: FileId, last: Option<Txid>) -> Error {
    let known = last.map_or_else(
        || "nothing before it is known".to_owned(),
        |last| format!("the last transaction that is known is {last}"),
    );
    conflict(format!(
        "{} ends with {damaged}, which is damaged or has a name that is not its own, and {known}: nothing says what it was. \
         Find out who wrote it; then bring its content back or remove it, and call litestream_resume(); or, if the local \
         database is right, {FORCE}",
        store.url()
    ))
}

/// The error of a new database whose replica holds one already.
pub(super) fn buried(store: &Replica, last: Txid) -> Error {
    let url = store.url();
    conflict(format!(
        "{url} holds a database up to {last}, but the local one is new and empty: {}; or give another replica URL",
        ways_out(&url)
    ))
}

/// The error of a replica that lost what was published to it; `found` is what is left.
pub(super) fn wiped(store: &Replica, found: &str) -> Error {
    conflict(format!(
        "{} lost transactions: {found}. Bring its content back and call litestream_resume(), or \
         give another replica URL, or {FORCE}, as auto_recover=true does by itself",
        store.url()
    ))
}
