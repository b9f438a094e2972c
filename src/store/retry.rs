//! Trying again what failed for now.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::{self, BoxStream, StreamExt as _};
use tokio::time::Instant;

use super::{ByteRange, Content, Fencing, FileInfo, Listing, PutOptions, RawInfo, Store, StoreTime, Upload};
use crate::error::{Error, ErrorKind, Result};
use crate::ltx::{FileId, Level, Txid};

/// How often and how long to try again what failed for now ([`Error::is_transient`]). What a wrong answer or a
/// refusal came of is tried once more.
///
/// The pause before the n-th repetition is random between nothing and `base_delay` times 2 to the n,
/// so that many clients of one store that fell over do not return in step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Attempts in all, 1 or more.
    pub max_attempts: u32,
    /// The longest first pause.
    pub base_delay: Duration,
    /// The longest pause.
    pub max_delay: Duration,
    /// No attempt begins later than this after the first one.
    pub max_elapsed: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            max_attempts: 8,
            base_delay: Duration::from_millis(100),
            max_delay: Duration::from_secs(5),
            max_elapsed: Duration::from_secs(30),
        }
    }
}

/// A store that tries again what failed for now, and goes on with an interrupted download from where
/// it stopped.
///
/// A repeated `put` or `complete` with `if_absent` may find what its own earlier attempt stored, whose
/// answer was lost. It says `AlreadyExists` then: only the caller can tell whose file that is.
#[derive(Clone, Debug)]
pub struct Retry {
    inner: Arc<dyn Store>,
    policy: Arc<RetryPolicy>,
}

impl Retry {
    /// `inner`, with patience.
    pub fn new(inner: Arc<dyn Store>, policy: RetryPolicy) -> Self {
        Self { inner, policy: Arc::new(policy) }
    }

    async fn download(&self, what: What, range: ByteRange) -> Result<Content> {
        let mut backoff = Backoff::new(&self.policy);
        loop {
            match what.get(&*self.inner, range).await {
                Err(e) => backoff.pause(e).await?,
                Ok(content) => return Ok(Download::resumable(self, what, range, content)),
            }
        }
    }
}

/// What is downloaded.
#[derive(Clone, Debug)]
enum What {
    File(FileId),
    /// A file whose size is known.
    Listed(FileInfo),
    Raw(Arc<str>),
}

impl What {
    async fn get(&self, store: &dyn Store, range: ByteRange) -> Result<Content> {
        match self {
            Self::File(id) => store.get(*id, range).await,
            Self::Listed(file) => store.get_listed(file, range).await,
            Self::Raw(path) => store.get_raw(path, range).await,
        }
    }
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(id) => fmt::Display::fmt(id, f),
            Self::Listed(file) => fmt::Display::fmt(&file.id, f),
            Self::Raw(path) => fmt::Display::fmt(path, f),
        }
    }
}

#[async_trait]
impl Store for Retry {
    fn url(&self) -> String {
        self.inner.url()
    }

    async fn list(&self, level: Level, from: Txid) -> Result<Vec<FileInfo>> {
        let mut backoff = Backoff::new(&self.policy);
        loop {
            match self.inner.list(level, from).await {
                Err(e) => backoff.pause(e).await?,
                listed => return listed,
            }
        }
    }

    async fn list_at_once(&self) -> Result<Listing> {
        let mut backoff = Backoff::new(&self.policy);
        loop {
            match self.inner.list_at_once().await {
                Err(e) => backoff.pause(e).await?,
                listed => return listed,
            }
        }
    }

    async fn list_stored(&self, level: Level, from: Txid) -> Result<Vec<FileInfo>> {
        let mut backoff = Backoff::new(&self.policy);
        loop {
            match self.inner.list_stored(level, from).await {
                Err(e) => backoff.pause(e).await?,
                listed => return listed,
            }
        }
    }

    fn clock(&self) -> Option<StoreTime> {
        self.inner.clock()
    }

    async fn ask_time(&self) -> Result<()> {
        let mut backoff = Backoff::new(&self.policy);
        loop {
            match self.inner.ask_time().await {
                Err(e) => backoff.pause(e).await?,
                told => return told,
            }
        }
    }

    async fn head(&self, id: FileId) -> Result<FileInfo> {
        let mut backoff = Backoff::new(&self.policy);
        loop {
            match self.inner.head(id).await {
                Err(e) => backoff.pause(e).await?,
                found => return found,
            }
        }
    }

    async fn get(&self, id: FileId, range: ByteRange) -> Result<Content> {
        self.download(What::File(id), range).await
    }

    async fn get_listed(&self, file: &FileInfo, range: ByteRange) -> Result<Content> {
        self.download(What::Listed(file.clone()), range).await
    }

    async fn put(&self, id: FileId, body: Bytes, options: PutOptions) -> Result<()> {
        let mut backoff = Backoff::new(&self.policy);
        loop {
            match self.inner.put(id, body.clone(), options.clone()).await {
                Err(e) => backoff.pause(e).await?,
                stored => return stored,
            }
        }
    }

    async fn upload(&self, id: FileId, options: PutOptions) -> Result<Box<dyn Upload>> {
        let mut backoff = Backoff::new(&self.policy);
        loop {
            match self.inner.upload(id, options.clone()).await {
                Err(e) => backoff.pause(e).await?,
                Ok(inner) => return Ok(Box::new(RetryUpload { inner, policy: Arc::clone(&self.policy) })),
            }
        }
    }

    async fn delete(&self, ids: &[FileId]) -> Result<()> {
        let mut backoff = Backoff::new(&self.policy);
        loop {
            match self.inner.delete(ids).await {
                Err(e) => backoff.pause(e).await?,
                done => return done,
            }
        }
    }

    fn fencing(&self) -> Fencing {
        self.inner.fencing()
    }

    async fn prove_fencing(&self, id: FileId, body: Bytes, options: PutOptions) -> Result<()> {
        self.inner.prove_fencing(id, body, options).await
    }

    fn folder_of(&self, level: Level) -> String {
        self.inner.folder_of(level)
    }

    async fn list_raw(&self, folder: &str) -> Result<Vec<RawInfo>> {
        let mut backoff = Backoff::new(&self.policy);
        loop {
            match self.inner.list_raw(folder).await {
                Err(e) => backoff.pause(e).await?,
                listed => return listed,
            }
        }
    }

    async fn get_raw(&self, path: &str, range: ByteRange) -> Result<Content> {
        self.download(What::Raw(path.into()), range).await
    }
}

struct RetryUpload {
    inner: Box<dyn Upload>,
    policy: Arc<RetryPolicy>,
}

#[async_trait]
impl Upload for RetryUpload {
    fn part_size(&self) -> usize {
        self.inner.part_size()
    }

    async fn part(&mut self, part: Bytes) -> Result<()> {
        let mut backoff = Backoff::new(&self.policy);
        loop {
            match self.inner.part(part.clone()).await {
                Err(e) => backoff.pause(e).await?,
                done => return done,
            }
        }
    }

    async fn complete(&mut self) -> Result<()> {
        let mut backoff = Backoff::new(&self.policy);
        loop {
            match self.inner.complete().await {
                Err(e) => backoff.pause(e).await?,
                done => return done,
            }
        }
    }

    async fn abort(&mut self) -> Result<()> {
        let mut backoff = Backoff::new(&self.policy);
        loop {
            match self.inner.abort().await {
                Err(e) => backoff.pause(e).await?,
                done => return done,
            }
        }
    }
}

/// What is still to come of a file.
struct Download {
    store: Retry,
    what: What,
    file_size: u64,
    /// The bytes `at..end` are still to come.
    at: u64,
    end: u64,
    body: BoxStream<'static, Result<Bytes>>,
}

impl Download {
    fn resumable(store: &Retry, what: What, range: ByteRange, content: Content) -> Content {
        let (offset, file_size) = (content.offset, content.file_size);
        let end = range.within(file_size).map_or(file_size, |(_, end)| end);
        let download = Self { store: store.clone(), what, file_size, at: offset, end, body: content.body };
        let body = stream::try_unfold(download, |mut download| async move {
            Ok(download.next().await?.map(|chunk| (chunk, download)))
        });
        Content { offset, file_size, body: body.boxed() }
    }

    async fn next(&mut self) -> Result<Option<Bytes>> {
        let policy = Arc::clone(&self.store.policy);
        let mut backoff = Backoff::new(&policy);
        while self.at < self.end {
            let failure = match self.body.next().await {
                Some(Ok(chunk)) => {
                    self.at += chunk.len() as u64;
                    return Ok(Some(chunk));
                }
                Some(Err(e)) => e,
                None => Error::new(ErrorKind::Unavailable, format!("{} ended early", self.what)),
            };
            backoff.pause(failure).await?;
            self.reopen(&mut backoff).await?;
        }
        Ok(None)
    }

    async fn reopen(&mut self, backoff: &mut Backoff<'_>) -> Result<()> {
        let range = ByteRange::Bounded { offset: self.at, len: self.end - self.at };
        loop {
            match self.what.get(&*self.store.inner, range).await {
                Err(e) => backoff.pause(e).await?,
                Ok(content) if content.file_size == self.file_size && content.offset == self.at => {
                    self.body = content.body;
                    return Ok(());
                }
                Ok(_) => {
                    return Err(Error::wrong_answer(format!(
                        "{} of replica {} was replaced while it was read",
                        self.what,
                        self.store.url()
                    )));
                }
            }
        }
    }
}

/// Whether a failure that usually stays deserves one more try: one answer of a gateway or of a server that is just
/// being changed decides nothing, and credentials may have been renewed.
fn may_be_a_slip(failure: &Error) -> bool {
    matches!(failure.kind(), ErrorKind::WrongAnswer | ErrorKind::Denied | ErrorKind::Config)
}

/// Pauses between attempts, until they are used up.
struct Backoff<'a> {
    policy: &'a RetryPolicy,
    attempts: u32,
    /// What does not pass by itself was tried once more.
    asked_twice: bool,
    started: Instant,
}

impl<'a> Backoff<'a> {
    fn new(policy: &'a RetryPolicy) -> Self {
        Self { policy, attempts: 0, asked_twice: false, started: Instant::now() }
    }

    /// Waits before the next attempt.
    ///
    /// # Errors
    /// `failure` itself, if it does not pass or enough was tried.
    async fn pause(&mut self, failure: Error) -> Result<()> {
        self.attempts += 1;
        let allowed = failure.is_transient() || (may_be_a_slip(&failure) && !self.asked_twice);
        if !allowed || self.attempts >= self.policy.max_attempts {
            return Err(failure);
        }
        self.asked_twice |= !failure.is_transient();
        let delay = self.jittered();
        if self.started.elapsed() + delay > self.policy.max_elapsed {
            return Err(failure);
        }
        tracing::debug!(error = %failure, attempt = self.attempts, ?delay, "trying again");
        tokio::time::sleep(delay).await;
        Ok(())
    }

    fn jittered(&self) -> Duration {
        let doublings = (self.attempts - 1).min(20);
        let ceiling = self.policy.base_delay.saturating_mul(1 << doublings).min(self.policy.max_delay);
        let mut random = [0; 4];
        // Without random bytes the pause is the longest one, which is right as well.
        let share = match getrandom::fill(&mut random) {
            Ok(()) => f64::from(u32::from_le_bytes(random)) / f64::from(u32::MAX),
            Err(_) => 1.0,
        };
        ceiling.mul_f64(share)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;
    use crate::ltx::FileName;
    use crate::runtime::block_on;
    use crate::store::{Fault, Faults, MemoryStore, Op};

    fn id(txid: u64) -> FileId {
        FileId::new(Level::L0, FileName::single(Txid::new(txid).unwrap()))
    }

    fn options() -> PutOptions {
        PutOptions { timestamp: Timestamp::from_millis(1), if_absent: true }
    }

    fn patient(attempts: u32) -> RetryPolicy {
        RetryPolicy {
            max_attempts: attempts,
            base_delay: Duration::from_millis(1),
            max_delay: Duration::from_millis(2),
            max_elapsed: Duration::from_secs(60),
        }
    }

    fn stack(attempts: u32) -> (Faults, Retry) {
        let faults = Faults::new(Arc::new(MemoryStore::new()), 1);
        (faults.clone(), Retry::new(Arc::new(faults), patient(attempts)))
    }

    #[test]
    fn what_fails_for_now_is_tried_again_and_what_fails_for_good_is_not() {
        let (faults, store) = stack(4);
        block_on(async move {
            for _ in 0..3 {
                faults.next(Op::Put, Fault::Refuse(ErrorKind::Unavailable));
            }
            store.put(id(1), Bytes::from_static(b"x"), options()).await?;
            assert_eq!(faults.count(Op::Put), 4);
            faults.next(Op::Put, Fault::Refuse(ErrorKind::NoSpace));
            let e = store.put(id(2), Bytes::new(), options()).await.unwrap_err();
            assert_eq!((e.kind(), faults.count(Op::Put)), (ErrorKind::NoSpace, 5));
            // One refusal or wrong answer may be a slip, two are none.
            for kind in [ErrorKind::Denied, ErrorKind::WrongAnswer] {
                let before = faults.count(Op::Head);
                faults.next(Op::Head, Fault::Refuse(kind));
                store.head(id(1)).await?;
                faults.next(Op::Head, Fault::Refuse(kind));
                faults.next(Op::Head, Fault::Refuse(kind));
                let e = store.head(id(1)).await.unwrap_err();
                assert_eq!((e.kind(), faults.count(Op::Head) - before), (kind, 4));
            }
            Ok(())
        })
        .unwrap();
    }

    #[test]
    fn attempts_are_bounded_in_number_and_in_time() {
        let (faults, store) = stack(3);
        block_on(async move {
            faults.often(Op::Head, 1000, Fault::Refuse(ErrorKind::Timeout));
            assert_eq!(store.head(id(1)).await.unwrap_err().kind(), ErrorKind::Timeout);
            assert_eq!(faults.count(Op::Head), 3);
            let policy = RetryPolicy { max_elapsed: Duration::ZERO, ..RetryPolicy::default() };
            let hasty = Retry::new(Arc::new(faults.clone()), policy);
            assert_eq!(hasty.head(id(1)).await.unwrap_err().kind(), ErrorKind::Timeout);
            assert_eq!(faults.count(Op::Head), 4);
            Ok(())
        })
        .unwrap();
    }

    #[test]
    fn a_put_whose_answer_was_lost_finds_itself() {
        let (faults, store) = stack(4);
        block_on(async move {
            faults.next(Op::Put, Fault::LoseAnswer(ErrorKind::Timeout));
            let e = store.put(id(1), Bytes::from_static(b"mine"), options()).await.unwrap_err();
            assert_eq!(e.kind(), ErrorKind::AlreadyExists);
            assert_eq!(&store.get(id(1), ByteRange::All).await?.bytes().await?[..], b"mine");
            Ok(())
        })
        .unwrap();
    }

    #[test]
    fn an_interrupted_download_goes_on_where_it_stopped() {
        let (faults, store) = stack(4);
        let body: Bytes = (0..10_000u32).flat_map(u32::to_le_bytes).collect();
        block_on(async move {
            store.put(id(1), body.clone(), options()).await?;
            for range in [
                ByteRange::All,
                ByteRange::Bounded { offset: 7, len: 20_001 },
                ByteRange::Suffix { len: 30_003 },
            ] {
                for cut in [0, 1, 999, 1000, 5000] {
                    faults.next(Op::Get, Fault::Truncate(cut));
                    faults.next(Op::Get, Fault::Refuse(ErrorKind::Unavailable));
                    faults.next(Op::Get, Fault::Truncate(cut + 1));
                    let content = store.get(id(1), range).await?;
                    let (start, end) = range.within(content.file_size).unwrap();
                    assert_eq!(
                        content.bytes().await?,
                        body.slice(start as usize..end as usize),
                        "{range:?} {cut}"
                    );
                }
            }
            Ok(())
        })
        .unwrap();
    }

    #[test]
    fn a_download_that_never_advances_gives_up() {
        let (faults, store) = stack(3);
        block_on(async move {
            store.put(id(1), Bytes::from(vec![1; 5000]), options()).await?;
            faults.often(Op::Get, 1000, Fault::Truncate(0));
            let content = store.get(id(1), ByteRange::All).await?;
            assert_eq!(content.bytes().await.unwrap_err().kind(), ErrorKind::Unavailable);
            Ok(())
        })
        .unwrap();
    }

    #[test]
    fn a_file_that_changes_size_under_a_download_is_noticed() {
        let memory = MemoryStore::new();
        let faults = Faults::new(Arc::new(memory.clone()), 1);
        let store = Retry::new(Arc::new(faults.clone()), patient(3));
        block_on(async move {
            store.put(id(1), Bytes::from(vec![1; 5000]), options()).await?;
            faults.next(Op::Get, Fault::Truncate(1500));
            let content = store.get(id(1), ByteRange::All).await?;
            memory.tamper(id(1), |body| body.resize(6000, 2));
            assert_eq!(content.bytes().await.unwrap_err().kind(), ErrorKind::WrongAnswer);
            Ok(())
        })
        .unwrap();
    }
}
