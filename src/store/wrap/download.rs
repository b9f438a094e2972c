//! The content of a file as it comes, asked for again from where it broke off, or where it hardly comes any more.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::{self, BoxStream, StreamExt as _};
use futures_util::{FutureExt as _, TryStreamExt as _};
use tokio::time::{Instant, sleep, sleep_until};

use bytes::Bytes;

use super::backoff::Backoff;
use super::hedge::Permit;
use super::retry::Retry;
use crate::error::{Error, ErrorKind, Result};
use crate::store::{Bucket, ByteRange, Content};

/// A body from which nothing comes for so long is asked for again.
const SILENCE: Duration = Duration::from_secs(3);
/// So is one from which in this time fewer bytes come than these: less than a kilobyte a second.
const SLOW: Duration = Duration::from_secs(5);
const SLOW_BYTES: u64 = 5 << 10;

/// What is downloaded.
#[derive(Clone, Debug)]
pub(super) struct Object {
    pub(super) key: Arc<str>,
    /// Its size, if a listing gave it.
    pub(super) size: Option<u64>,
}

impl Object {
    pub(super) async fn get(&self, bucket: &dyn Bucket, range: ByteRange) -> Result<Content> {
        bucket.get(&self.key, range, self.size).await
    }
}

impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.key)
    }
}

/// What is still to come of a file.
pub(super) struct Download {
    store: Retry,
    what: Object,
    file_size: u64,
    /// The bytes `at..end` are still to come.
    at: u64,
    end: u64,
    body: Body,
    watch: Watch,
    /// A request for the same bytes that was made because they came slowly.
    second: Option<Second>,
    /// Held until bytes come fast again: then the second request has helped.
    permit: Option<Permit>,
}

type Body = BoxStream<'static, Result<Bytes>>;

/// A second request for what is still to come, made at `at`; its body, once that begins to come.
struct Second {
    begun: Instant,
    at: u64,
    body: BoxFuture<'static, Result<Body>>,
    permit: Permit,
}

/// What comes first while bytes are waited for.
enum Event {
    Chunk(Option<Result<Bytes>>),
    Second(Result<Body>),
    Slow,
}

impl Download {
    /// `content`, which `what` of `store` answered for `range`, as one that continues when it breaks off.
    pub(super) fn resumable(store: &Retry, what: Object, range: ByteRange, content: Content) -> Content {
        let Content { offset, file_size, timestamp, body } = content;
        let end = range.within(file_size).map_or(file_size, |(_, end)| end);
        let download = Self {
            store: store.clone(),
            what,
            file_size,
            at: offset,
            end,
            body,
            watch: Watch::default(),
            second: None,
            permit: None,
        };
        let body = stream::try_unfold(download, |mut download| async move {
            Ok(download.next().await?.map(|chunk| (chunk, download)))
        });
        Content { offset, file_size, timestamp, body: body.boxed() }
    }

    async fn next(&mut self) -> Result<Option<Bytes>> {
        let store = self.store.clone();
        let mut backoff = Backoff::new(store.policy());
        while self.at < self.end {
            match self.event().await {
                Event::Chunk(Some(Ok(chunk))) if chunk.is_empty() => {}
                Event::Chunk(Some(Ok(chunk))) => {
                    self.at += chunk.len() as u64;
                    return Ok(Some(chunk));
                }
                Event::Chunk(Some(Err(failure))) => self.go_on_after(failure, &mut backoff).await?,
                Event::Chunk(None) => {
                    let failure = Error::new(ErrorKind::Unavailable, format!("{} ended early", self.what));
                    self.go_on_after(failure, &mut backoff).await?;
                }
                Event::Second(answer) => drop(self.take_second(answer)),
                Event::Slow => self.hurry()?,
            }
        }
        Ok(None)
    }

    /// Waits for what comes first.
    async fn event(&mut self) -> Event {
        if self.watch.is_slow() {
            return Event::Slow;
        }
        let begun = Instant::now();
        let limit = sleep(self.watch.limit());
        let event = match &mut self.second {
            None => tokio::select! {
                biased;
                chunk = self.body.next() => Event::Chunk(chunk),
                () = limit => Event::Slow,
            },
            Some(second) => tokio::select! {
                biased;
                answer = &mut second.body => Event::Second(answer),
                chunk = self.body.next() => Event::Chunk(chunk),
                () = limit => Event::Slow,
            },
        };
        let come = if let Event::Chunk(Some(Ok(chunk))) = &event { chunk.len() } else { 0 };
        if self.watch.note(begun.elapsed(), come as u64) {
            // Its bytes come as they should.
            self.permit = None;
        }
        event
    }

    /// Bytes come slowly: asks for them on another connection too, if that may be.
    ///
    /// # Errors
    /// `Timeout` if it has been so for too long.
    fn hurry(&mut self) -> Result<()> {
        let slow_for = self.watch.begin_again();
        if slow_for >= self.store.policy().max_elapsed {
            return Err(Error::new(
                ErrorKind::Timeout,
                format!(
                    "{} of replica {} comes too slowly: less than {} KiB in {} s; check the network",
                    self.what,
                    self.store.describe(),
                    (SLOW_BYTES / SLOW.as_secs() * slow_for.as_secs()) >> 10,
                    slow_for.as_secs()
                ),
            ));
        }
        if let Some(in_vain) = self.permit.take() {
            self.store.hedge().use_up(in_vain);
        }
        if self.second.is_none()
            && let Some(permit) = self.store.hedge().permit_now()
        {
            tracing::debug!(what = %self.what, "a download is slow, asking again");
            self.second = Some(Second { begun: Instant::now(), at: self.at, body: self.ask_again(), permit });
        }
        Ok(())
    }

    /// A request for what is still to come, over a new connection.
    fn request(&self) -> BoxFuture<'static, Result<Body>> {
        let (store, what, file_size) = (self.store.fresh(), self.what.clone(), self.file_size);
        let (at, end) = (self.at, self.end);
        async move { rest(&*store, &what, file_size, at, end).await }.boxed()
    }

    /// The same, until its body begins to come.
    fn ask_again(&self) -> BoxFuture<'static, Result<Body>> {
        let (request, what) = (self.request(), self.what.clone());
        async move {
            let mut body = request.await?;
            match body.next().await {
                Some(Ok(chunk)) => Ok(stream::iter([Ok(chunk)]).chain(body).boxed()),
                Some(Err(e)) => Err(e),
                None => Err(Error::new(ErrorKind::Unavailable, format!("{what} ended early"))),
            }
        }
        .boxed()
    }

    /// Reads on from the second request, if that has an answer.
    fn take_second(&mut self, answer: Result<Body>) -> Result<()> {
        let Some(Second { at, permit, .. }) = self.second.take() else { return Ok(()) };
        match answer {
            Ok(body) => {
                self.body = skip(body, self.at - at);
                self.watch = Watch { slow_for: self.watch.slow_for, ..Watch::default() };
                self.permit = Some(permit);
                Ok(())
            }
            Err(e) => {
                self.store.hedge().use_up(permit);
                Err(e)
            }
        }
    }

    /// Continues where it broke off: where the second request is, if that has an answer in time, or else asks again.
    async fn go_on_after(&mut self, mut failure: Error, backoff: &mut Backoff<'_>) -> Result<()> {
        loop {
            let request = self.request();
            let in_time = self.second.as_ref().map(|second| second.begun + SILENCE);
            let again = async {
                if let Some(in_time) = in_time {
                    sleep_until(in_time).await;
                }
                backoff.pause(failure).await?;
                Ok::<_, Error>(request.await)
            };
            let answer = match &mut self.second {
                None => again.await?,
                Some(second) => tokio::select! {
                    biased;
                    answer = &mut second.body => match self.take_second(answer) {
                        Ok(()) => return Ok(()),
                        Err(e) => Err(e),
                    },
                    answer = again => answer?,
                },
            };
            match answer {
                Err(e) => failure = e,
                Ok(body) => {
                    self.body = body;
                    return Ok(());
                }
            }
        }
    }
}

/// The bytes `at..end` of a file of `file_size` bytes.
async fn rest(store: &dyn Bucket, what: &Object, file_size: u64, at: u64, end: u64) -> Result<Body> {
    let content = what.get(store, ByteRange::Bounded { offset: at, len: end - at }).await?;
    if content.file_size == file_size && content.offset == at {
        return Ok(content.body);
    }
    Err(Error::wrong_answer(format!("{what} of replica {} was replaced while it was read", store.describe())))
}

/// `body` without its first `n` bytes.
fn skip(body: Body, mut n: u64) -> Body {
    let cut = move |mut chunk: Bytes| {
        let len = n.min(chunk.len() as u64);
        n -= len;
        chunk.split_off(len as usize)
    };
    body.map_ok(cut).boxed()
}

/// How fast bytes come, measured only while they are waited for: who reads may be slow too.
#[derive(Debug, Default)]
struct Watch {
    /// Since the last byte.
    silent: Duration,
    /// Since the measurement began, and what has come since.
    waited: Duration,
    come: u64,
    /// How long it has been slow in the measurements before.
    slow_for: Duration,
}

impl Watch {
    fn is_slow(&self) -> bool {
        self.silent >= SILENCE || (self.waited >= SLOW && self.come < SLOW_BYTES)
    }

    /// How long to wait until the next look.
    fn limit(&self) -> Duration {
        (SILENCE - self.silent.min(SILENCE)).min(SLOW - self.waited.min(SLOW))
    }

    /// Notes a wait and what it brought. Returns whether bytes come as fast as they should.
    fn note(&mut self, waited: Duration, come: u64) -> bool {
        self.waited += waited;
        self.come += come;
        self.silent = if come > 0 { Duration::ZERO } else { self.silent + waited };
        let is_fast = self.come >= SLOW_BYTES;
        if is_fast {
            *self = Self::default();
        }
        is_fast
    }

    /// Begins to measure again after it was slow. Returns for how long it has been so.
    fn begin_again(&mut self) -> Duration {
        *self = Self { slow_for: self.slow_for + self.waited, ..Self::default() };
        self.slow_for
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slow_is_a_silence_or_too_few_bytes_while_they_are_waited_for() {
        let second = Duration::from_secs(1);
        let mut watch = Watch::default();
        for _ in 0..2 {
            assert!(!watch.note(second, 0) && !watch.is_slow());
        }
        assert!(!watch.note(second, 0) && watch.is_slow(), "silence");
        assert_eq!((watch.begin_again(), watch.is_slow()), (3 * second, false));
        for n in 1..=5 {
            assert!(!watch.note(second, 1));
            assert_eq!(watch.is_slow(), n == 5, "a trickle");
        }
        assert_eq!(watch.begin_again(), 8 * second);
        assert!(watch.note(4 * second, SLOW_BYTES), "fast enough");
        assert!(!watch.is_slow() && watch.slow_for.is_zero());
        assert_eq!(watch.limit(), SILENCE);
    }

    #[test]
    fn what_was_read_before_is_skipped() {
        let chunks = ["abc", "de", "f"].map(|chunk| Ok(Bytes::from_static(chunk.as_bytes())));
        let rest = skip(stream::iter(chunks).boxed(), 4);
        let read = crate::runtime::block_on(rest.try_collect::<Vec<Bytes>>()).unwrap();
        assert_eq!(read.concat(), b"ef");
    }
}
