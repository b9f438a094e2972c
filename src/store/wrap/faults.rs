//! A store that fails on command, for tests.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Deref;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::{self, StreamExt as _};

use crate::error::{Error, ErrorKind, Result};
use crate::store::clock::StoreTime;
use crate::store::{
    Bucket, ByteRange, Content, Fencing, LongTurn, Next, ObjectInfo, Page, PartLog, Place, PutOptions,
    Replica, Taken, Upload, Work,
};

/// A kind of request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs, reason = "each is the method of Bucket or Upload of the same name")]
pub enum Op {
    List,
    Head,
    Get,
    Put,
    Upload,
    Part,
    Complete,
    Abort,
    Delete,
}

/// What happens to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It fails and never reaches the store.
    Refuse(ErrorKind),
    /// The store does it, but the answer is an error.
    LoseAnswer(ErrorKind),
    /// It is done after so long.
    Delay(Duration),
    /// The code that does it panics.
    Panic,
    /// It never reaches the store and is never answered: whoever waits for it is killed while it does.
    Hang,
    /// The content of a `get` breaks off with `Unavailable` after so many bytes. Other requests are
    /// done as they are.
    Truncate(u64),
    /// The same after so long a silence.
    Stall {
        /// So many bytes come.
        after: u64,
        /// Then nothing for so long.
        silence: Duration,
    },
}

/// A replica whose bucket fails on command and counts its requests, for tests. Clones share both.
#[derive(Clone, Debug)]
pub struct Faults {
    replica: Arc<Replica>,
    state: Arc<Mutex<State>>,
}

impl Deref for Faults {
    type Target = Replica;

    fn deref(&self) -> &Replica {
        &self.replica
    }
}

#[derive(Clone, Debug)]
struct FaultyBucket {
    inner: Arc<dyn Bucket>,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    queued: BTreeMap<Op, VecDeque<Fault>>,
    often: BTreeMap<Op, (u32, Fault)>,
    counts: BTreeMap<Op, u64>,
    hung: u64,
    random: u64,
}

impl State {
    /// The next pseudo-random number. Source: Vigna's SplitMix64, public domain.
    fn random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn draw(&mut self, op: Op) -> Option<Fault> {
        *self.counts.entry(op).or_default() += 1;
        if let Some(fault) = self.queued.get_mut(&op).and_then(VecDeque::pop_front) {
            return Some(fault);
        }
        let (per_mille, fault) = *self.often.get(&op)?;
        (self.random() % 1000 < u64::from(per_mille)).then_some(fault)
    }
}

impl Faults {
    /// `inner`, without faults at first. The same `seed` and order of requests give the same faults.
    pub fn new(inner: &Replica, seed: u64) -> Self {
        let state = Arc::new(Mutex::new(State { random: seed, ..State::default() }));
        let faulty =
            |inner| -> Arc<dyn Bucket> { Arc::new(FaultyBucket { inner, state: Arc::clone(&state) }) };
        Self { replica: Arc::new(inner.wrapped(faulty)), state }
    }

    /// The replica that fails.
    pub fn replica(&self) -> Arc<Replica> {
        Arc::clone(&self.replica)
    }

    /// Lets `fault` happen to the next request of kind `op` that has none queued already.
    pub fn next(&self, op: Op, fault: Fault) {
        self.lock().queued.entry(op).or_default().push_back(fault);
    }

    /// Lets `fault` happen to `per_mille` of a thousand requests of kind `op`.
    pub fn often(&self, op: Op, per_mille: u32, fault: Fault) {
        self.lock().often.insert(op, (per_mille, fault));
    }

    /// Ends all faults.
    pub fn heal(&self) {
        let mut state = self.lock();
        state.queued.clear();
        state.often.clear();
    }

    /// The number of requests of kind `op` so far, those that failed included.
    pub fn count(&self, op: Op) -> u64 {
        self.lock().counts.get(&op).copied().unwrap_or(0)
    }

    /// The number of requests so far.
    pub fn total(&self) -> u64 {
        self.lock().counts.values().sum()
    }

    /// The number of requests so far that are never answered.
    pub fn hung(&self) -> u64 {
        self.lock().hung
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl FaultyBucket {
    fn draw(&self, op: Op) -> Option<Fault> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let fault = state.draw(op);
        state.hung += u64::from(matches!(fault, Some(Fault::Hang)));
        fault
    }

    /// What is to happen to a request of kind `op`: its fault, once a refusal or delay is over.
    async fn begin(&self, op: Op) -> Result<Option<Fault>> {
        match self.draw(op) {
            Some(Fault::Refuse(kind)) => Err(injected(op, kind)),
            Some(Fault::Panic) => panic!("injected panic of {op:?}, expected in a test"),
            Some(Fault::Delay(time)) => {
                tokio::time::sleep(time).await;
                Ok(None)
            }
            Some(Fault::Hang) => std::future::pending().await,
            other => Ok(other),
        }
    }
}

fn injected(op: Op, kind: ErrorKind) -> Error {
    Error::new(kind, format!("injected failure of {op:?}"))
}

/// The answer, unless it gets lost.
fn end<T>(op: Op, fault: Option<Fault>, answer: Result<T>) -> Result<T> {
    match fault {
        Some(Fault::LoseAnswer(kind)) => Err(injected(op, kind)),
        _ => answer,
    }
}

/// The answer of a `get`, unless it gets lost, or as much of it as arrives.
fn got(fault: Option<Fault>, answer: Result<Content>) -> Result<Content> {
    let content = end(Op::Get, fault, answer)?;
    Ok(match fault {
        Some(Fault::Truncate(keep)) => truncated(content, keep, Duration::ZERO),
        Some(Fault::Stall { after, silence }) => truncated(content, after, silence),
        _ => content,
    })
}

fn truncated(content: Content, keep: u64, silence: Duration) -> Content {
    let mut left = keep;
    let body = content.body.map(move |chunk| {
        let mut chunk = chunk?;
        if left == 0 {
            return Err(injected(Op::Get, ErrorKind::Unavailable));
        }
        chunk.truncate(usize::try_from(left).unwrap_or(usize::MAX));
        left -= chunk.len() as u64;
        Ok(chunk)
    });
    // A body of at most `keep` bytes breaks off at its end; nothing comes after the first error.
    let body = body.chain(stream::iter([Err(injected(Op::Get, ErrorKind::Unavailable))]));
    let body = body.scan(false, |broken, chunk| {
        let over = std::mem::replace(broken, chunk.is_err());
        std::future::ready((!over).then_some(chunk))
    });
    let body = body.then(move |chunk| async move {
        if chunk.is_err() {
            tokio::time::sleep(silence).await;
        }
        chunk
    });
    Content { body: body.boxed(), ..content }
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl Bucket for FaultyBucket {
    fn describe(&self) -> String {
        self.inner.describe()
    }

    async fn list(&self, prefix: &str, start: Option<Next>) -> Result<Page<ObjectInfo>> {
        let fault = self.begin(Op::List).await?;
        end(Op::List, fault, self.inner.list(prefix, start).await)
    }

    async fn head(&self, key: &str) -> Result<ObjectInfo> {
        let fault = self.begin(Op::Head).await?;
        end(Op::Head, fault, self.inner.head(key).await)
    }

    async fn get(&self, key: &str, range: ByteRange, size: Option<u64>) -> Result<Content> {
        let fault = self.begin(Op::Get).await?;
        got(fault, self.inner.get(key, range, size).await)
    }

    async fn put(&self, key: &str, body: Bytes, options: &PutOptions) -> Result<()> {
        let fault = self.begin(Op::Put).await?;
        end(Op::Put, fault, self.inner.put(key, body, options).await)
    }

    async fn upload(&self, key: &str, options: &PutOptions) -> Result<Box<dyn Upload>> {
        let fault = self.begin(Op::Upload).await?;
        let inner = end(Op::Upload, fault, self.inner.upload(key, options).await)?;
        Ok(Box::new(FaultyUpload { inner, faults: self.clone() }))
    }

    async fn resume_upload(
        &self,
        key: &str,
        options: &PutOptions,
        log: Arc<PartLog>,
    ) -> Result<Box<dyn Upload>> {
        let fault = self.begin(Op::Upload).await?;
        let upload = self.inner.resume_upload(key, options, log).await;
        let inner = end(Op::Upload, fault, upload)?;
        Ok(Box::new(FaultyUpload { inner, faults: self.clone() }))
    }

    async fn delete(&self, keys: &[String]) -> Result<()> {
        let fault = self.begin(Op::Delete).await?;
        end(Op::Delete, fault, self.inner.delete(keys).await)
    }

    async fn abort_uploads(&self, prefix: &str) -> Result<usize> {
        let fault = self.begin(Op::Abort).await?;
        end(Op::Abort, fault, self.inner.abort_uploads(prefix).await)
    }

    fn fencing(&self) -> Fencing {
        self.inner.fencing()
    }

    async fn prove_fencing(&self, key: &str, body: Bytes, options: &PutOptions) -> Result<()> {
        self.inner.prove_fencing(key, body, options).await
    }

    fn lists_any_prefix(&self) -> bool {
        self.inner.lists_any_prefix()
    }

    fn misses_cheaply(&self) -> bool {
        self.inner.misses_cheaply()
    }

    fn clock(&self) -> Option<StoreTime> {
        self.inner.clock()
    }

    async fn ask_time(&self, prefix: &str) -> Result<()> {
        self.inner.ask_time(prefix).await
    }

    fn by_new_connections(&self) -> Option<Arc<dyn Bucket>> {
        let inner = self.inner.by_new_connections()?;
        Some(Arc::new(Self { inner, ..self.clone() }))
    }

    fn heard(&self) -> Option<u64> {
        self.inner.heard()
    }

    fn last_failure(&self) -> Option<Error> {
        self.inner.last_failure()
    }

    async fn turn(&self, work: Work) -> Option<LongTurn> {
        self.inner.turn(work).await
    }

    async fn place(&self) -> Option<Place> {
        self.inner.place().await
    }

    fn stay_at(&self, place: Option<Place>) {
        self.inner.stay_at(place);
    }
}

struct FaultyUpload {
    inner: Box<dyn Upload>,
    faults: FaultyBucket,
}

#[async_trait]
impl Upload for FaultyUpload {
    fn part_size(&self) -> usize {
        self.inner.part_size()
    }

    /// A lost answer is a refusal here: a part that is given again replaces the one before.
    async fn part(&mut self, part: Bytes) -> Result<Taken> {
        match self.faults.begin(Op::Part).await? {
            Some(Fault::LoseAnswer(kind)) => Err(injected(Op::Part, kind)),
            _ => self.inner.part(part).await,
        }
    }

    async fn complete(&mut self) -> Result<()> {
        let fault = self.faults.begin(Op::Complete).await?;
        end(Op::Complete, fault, self.inner.complete().await)
    }

    async fn abort(&mut self) -> Result<()> {
        let fault = self.faults.begin(Op::Abort).await?;
        end(Op::Abort, fault, self.inner.abort().await)
    }
}
