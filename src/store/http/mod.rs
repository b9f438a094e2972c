//! The HTTP client: limits of time, certificates, and what its failures mean.

use std::error::Error as _;
use std::fs::File;
use std::net::{IpAddr, ToSocketAddrs as _};
use std::os::unix::fs::FileExt as _;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant, SystemTime};

use bytes::{Bytes, BytesMut};
use futures_util::stream::{self, BoxStream, StreamExt as _};
use http_body::{Frame, SizeHint};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::{Certificate, Client, Response};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};
use url::Url;

use self::common::{Common, Environment, environment};
use crate::error::{Error, ErrorKind, Result};
use crate::runtime;

pub(in crate::store) mod answer;
pub(in crate::store) mod call;
pub(in crate::store) mod common;
pub(in crate::store) mod endpoint;
pub(in crate::store) mod failure;
pub(in crate::store) mod notify;
pub(in crate::store) mod sessions;
pub(in crate::store) mod xml;

/// To resolve, connect and agree on TLS.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Without a single byte in either direction.
pub(in crate::store) const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// An unused connection is kept for so long. Until then it costs at most one wake-up.
const POOL_IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// More unused connections to one server are closed at once.
const POOL_MAX_IDLE: usize = 32;
/// The pieces in which a request's body is handed to the connection, so that progress is seen.
const PIECE: usize = 64 << 10;
/// The pieces in which a file is read for that.
const FILE_PIECE: usize = 256 << 10;
/// How many requests that are in turn a bucket gets at the same time.
pub(in crate::store) const TURNS: usize = 16;
/// How many merges a bucket gets at the same time.
const MERGES: usize = 8;
/// How many uploads of several parts: each has parts in memory.
const UPLOADS: usize = 4;
/// How many buckets of a server get all of their turns at the same time. One that does not answer has only its own.
const BUCKETS: usize = 2;

/// By which connections a request goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::store) enum Way {
    /// One that is open and unused, or else a new one.
    Usual,
    /// A new one: what lets one connection die may have let all die that are open.
    New,
}

/// Less than so many bytes a second, over as long as silence is borne, is no answer.
const SLOWEST: u64 = 1 << 10;

/// A client of one server.
#[derive(Clone, Debug)]
pub(in crate::store) struct Http {
    /// Shared with the other stores of the process.
    client: Arc<Client>,
    /// The one that keeps no connection, made when it is needed.
    without_pool: Arc<OnceLock<Arc<Client>>>,
    /// The bucket's URL.
    base: Arc<str>,
    skip_verify: bool,
    /// What messages call the server.
    endpoint: Arc<str>,
    idle_timeout: Duration,
    /// Shared with the other stores in the bucket.
    turns: Arc<Turns>,
    /// Shared with the other stores on the server.
    server_turns: Arc<Turns>,
}

/// The turns of a bucket, or of a server. Who waits for one of the server has one of the bucket; a merge may wait for that of an
/// upload, and both for that of a request; never the other way round.
#[derive(Debug)]
struct Turns {
    requests: Semaphore,
    merges: Arc<Semaphore>,
    uploads: Arc<Semaphore>,
}

/// Work of several requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// Files are read, and one is made of them.
    Merge,
    /// A file is encoded, on a thread of its own, and uploaded part by part meanwhile.
    Upload,
}

impl Work {
    /// How much of it a bucket gets at the same time.
    pub(in crate::store) const fn turns(self) -> usize {
        match self {
            Self::Merge => MERGES,
            Self::Upload => UPLOADS,
        }
    }
}

impl Turns {
    /// Those of so many `buckets` together.
    fn of(buckets: usize) -> Self {
        let long = |work: Work| Arc::new(Semaphore::new(buckets * work.turns()));
        let (merges, uploads) = (long(Work::Merge), long(Work::Upload));
        Self { requests: Semaphore::new(buckets * TURNS), merges, uploads }
    }

    /// Waits for one.
    async fn request(&self) -> SemaphorePermit<'_> {
        self.requests.acquire().await.expect("BUG: nothing closes it")
    }

    /// Waits for one of `work`.
    async fn long(&self, work: Work) -> OwnedSemaphorePermit {
        let turns = match work {
            Work::Merge => &self.merges,
            Work::Upload => &self.uploads,
        };
        Arc::clone(turns).acquire_owned().await.expect("BUG: nothing closes it")
    }
}

/// A turn of work of several requests, until it is dropped.
#[derive(Debug)]
pub struct LongTurn {
    _of_bucket: OwnedSemaphorePermit,
    _of_server: OwnedSemaphorePermit,
}

/// What clients differ in.
#[derive(PartialEq)]
struct Kind {
    loopback: bool,
    plain: bool,
    skip_verify: bool,
    keeps_connections: bool,
    /// Certificates and proxies.
    environment: Environment,
    /// When the files of certificates were written that it names.
    certificates: Vec<Option<SystemTime>>,
}

static CLIENTS: Common<Kind, Client> = Common::new();
/// By the URL of a bucket.
static TURNS_IN: Common<String, Turns> = Common::new();
/// By the URL of a server.
static TURNS_AT: Common<String, Turns> = Common::new();

/// A client of the server at `base`, a URL. Reads the environment for certificates and proxies.
fn client(base: &str, skip_verify: bool, way: Way) -> Result<Arc<Client>> {
    let matters = |name: &str| {
        name == "AWS_CA_BUNDLE"
            || name.starts_with("SSL_CERT_")
            || name.to_ascii_lowercase().ends_with("_proxy")
    };
    let written = |name: &str| std::fs::metadata(std::env::var_os(name)?).ok()?.modified().ok();
    let kind = Kind {
        loopback: is_loopback(base),
        plain: base.starts_with("http://"),
        skip_verify,
        keeps_connections: way == Way::Usual,
        environment: environment(matters),
        certificates: ["AWS_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR"].map(written).to_vec(),
    };
    if let Some(client) = CLIENTS.get(&kind) {
        return Ok(client);
    }
    let client = new_client(&kind)?;
    Ok(CLIENTS.share(kind, client))
}

fn new_client(kind: &Kind) -> Result<Client> {
    let mut builder = Client::builder()
        .user_agent(concat!("litestream_vfs/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(CONNECT_TIMEOUT)
        .pool_idle_timeout(POOL_IDLE_TIMEOUT)
        .pool_max_idle_per_host(if kind.keeps_connections { POOL_MAX_IDLE } else { 0 })
        .tcp_nodelay(true)
        .redirect(reqwest::redirect::Policy::none())
        .dns_resolver(SystemNames);
    if kind.loopback {
        builder = builder.no_proxy();
    }
    if kind.plain {
        // No certificate will be seen: do not read and keep the system's.
        builder = builder.tls_certs_only([]);
    } else if kind.skip_verify {
        builder = builder.tls_danger_accept_invalid_certs(true);
    } else if let Some(bundle) = std::env::var_os("AWS_CA_BUNDLE").filter(|path| !path.is_empty()) {
        builder = builder.tls_certs_only(certificates(bundle.as_ref())?);
    }
    builder.build().map_err(|e| {
        Error::config(format!(
            "cannot set up TLS: {}; check SSL_CERT_FILE, SSL_CERT_DIR and AWS_CA_BUNDLE",
            root_cause(&e)
        ))
    })
}

/// Asks the system for the addresses of a name, on a thread that is there.
struct SystemNames;

impl Resolve for SystemNames {
    fn resolve(&self, name: Name) -> Resolving {
        let found = runtime::blocking(move || {
            let found = (name.as_str(), 0).to_socket_addrs();
            found.map_err(|e| Error::new(ErrorKind::Unavailable, e.to_string()).with_source(e))
        });
        Box::pin(async move { Ok(Box::new(found.await?) as Addrs) })
    }
}

fn certificates(path: &std::path::Path) -> Result<Vec<Certificate>> {
    let bad = |why: &dyn std::fmt::Display| {
        Error::config(format!("AWS_CA_BUNDLE names '{}', which cannot be used: {why}", path.display()))
    };
    let pem = std::fs::read(path).map_err(|e| bad(&e))?;
    let certificates = Certificate::from_pem_bundle(&pem).map_err(|e| bad(&root_cause(&e)))?;
    if certificates.is_empty() { Err(bad(&"it holds no certificate")) } else { Ok(certificates) }
}

fn is_loopback(base: &str) -> bool {
    let Ok(url) = Url::parse(base) else { return false };
    let Some(host) = url.host_str() else { return false };
    let address = host.trim_matches(['[', ']']).parse::<IpAddr>();
    // The latter are AWS's metadata services, which no proxy can reach.
    let is_here = |ip: IpAddr| ip.is_loopback() || matches!(ip, IpAddr::V4(ip) if ip.is_link_local());
    address.map_or(host == "localhost" || host.ends_with(".localhost"), is_here)
}

impl Http {
    /// A client of the bucket at `base`, a URL, of the server that messages call `endpoint`. It gives up when no byte flows for
    /// `idle_timeout`. Reads the environment for certificates and proxies.
    ///
    /// # Errors
    /// `Config` if the certificates cannot be read.
    pub(in crate::store) fn new(
        base: &str,
        endpoint: &str,
        skip_verify: bool,
        idle_timeout: Duration,
    ) -> Result<Self> {
        Ok(Self {
            client: client(base, skip_verify, Way::Usual)?,
            without_pool: Arc::default(),
            base: base.into(),
            skip_verify,
            endpoint: endpoint.into(),
            idle_timeout,
            turns: TURNS_IN.get_or_share(base.to_owned(), || Turns::of(1)),
            server_turns: TURNS_AT.get_or_share(endpoint.to_owned(), || Turns::of(BUCKETS)),
        })
    }

    /// Waits until this store may send one of the requests that are in turn: with a hundred databases
    /// that write, a connection and its buffers for each would cost more than all else together.
    pub(in crate::store) async fn turn(&self) -> (SemaphorePermit<'_>, SemaphorePermit<'_>) {
        let of_bucket = self.turns.request().await;
        (of_bucket, self.server_turns.request().await)
    }

    /// Waits until such `work` may begin.
    pub(in crate::store) async fn long_turn(&self, work: Work) -> LongTurn {
        let of_bucket = self.turns.long(work).await;
        LongTurn { _of_bucket: of_bucket, _of_server: self.server_turns.long(work).await }
    }

    fn client(&self, way: Way) -> Result<Arc<Client>> {
        if way == Way::Usual {
            return Ok(Arc::clone(&self.client));
        }
        if let Some(client) = self.without_pool.get() {
            return Ok(Arc::clone(client));
        }
        let made = client(&self.base, self.skip_verify, way)?;
        Ok(Arc::clone(self.without_pool.get_or_init(|| made)))
    }

    /// What messages call the server.
    pub(in crate::store) fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// Sends `request` with `body`, and waits for the head of the answer for as long as bytes flow.
    ///
    /// # Errors
    /// `Unavailable` or `Timeout`, naming the endpoint; `Config` if its certificate is not trusted.
    pub(in crate::store) async fn send(
        &self,
        mut request: reqwest::Request,
        body: impl Into<Payload>,
        way: Way,
    ) -> Result<Response> {
        let client = self.client(way)?;
        let sent = Arc::new(AtomicU64::new(0));
        let body = body.into();
        if !body.is_empty() {
            *request.body_mut() = Some(body.counted(&sent));
        }
        let mut answer = std::pin::pin!(client.execute(request));
        loop {
            let before = sent.load(Ordering::Relaxed);
            match tokio::time::timeout(self.idle_timeout, &mut answer).await {
                Ok(answer) => return answer.map_err(|e| transport_error(&e, &self.endpoint)),
                Err(_) if sent.load(Ordering::Relaxed) != before => {}
                Err(_) => return Err(self.silent()),
            }
        }
    }

    /// All of a body.
    ///
    /// # Errors
    /// `WrongAnswer` if it is longer than `limit`; `Timeout` if it hardly comes.
    pub(in crate::store) async fn read_all(&self, mut response: Response, limit: usize) -> Result<Bytes> {
        let mut all = BytesMut::new();
        let begun = Instant::now();
        while let Some(chunk) = self.next_chunk(&mut response).await? {
            if all.len() + chunk.len() > limit {
                return Err(Error::wrong_answer(format!(
                    "{} answered with more than {limit} bytes",
                    self.endpoint
                )));
            }
            all.extend_from_slice(&chunk);
            let waited = begun.elapsed();
            if waited > self.idle_timeout && (all.len() as u64) < SLOWEST * waited.as_secs() {
                return Err(self.trickles(all.len(), waited));
            }
        }
        Ok(all.freeze())
    }

    /// `len` bytes of a body, after `skip` others.
    pub(in crate::store) fn read_stream(
        &self,
        response: Response,
        skip: u64,
        len: u64,
    ) -> BoxStream<'static, Result<Bytes>> {
        let state = (self.clone(), response, skip, len);
        stream::try_unfold(state, |(http, mut response, mut skip, mut left)| async move {
            while left > 0 {
                let Some(mut chunk) = http.next_chunk(&mut response).await? else {
                    return Err(http.broken("it ended early"));
                };
                let skipped = skip.min(chunk.len() as u64);
                skip -= skipped;
                let _ = chunk.split_to(skipped as usize);
                chunk.truncate(usize::try_from(left).unwrap_or(usize::MAX));
                left -= chunk.len() as u64;
                if !chunk.is_empty() {
                    return Ok(Some((chunk, (http, response, skip, left))));
                }
            }
            Ok(None)
        })
        .boxed()
    }

    async fn next_chunk(&self, response: &mut Response) -> Result<Option<Bytes>> {
        match tokio::time::timeout(self.idle_timeout, response.chunk()).await {
            Ok(Ok(chunk)) => Ok(chunk),
            Ok(Err(e)) => Err(self.broken(&root_cause(&e))),
            Err(_) => Err(self.silent()),
        }
    }

    fn silent(&self) -> Error {
        Error::new(
            ErrorKind::Timeout,
            format!("{} was silent for {} s; check the network", self.endpoint, self.idle_timeout.as_secs()),
        )
    }

    fn trickles(&self, bytes: usize, waited: Duration) -> Error {
        let (endpoint, seconds) = (&self.endpoint, waited.as_secs());
        Error::new(
            ErrorKind::Timeout,
            format!("{endpoint} sent no more than {bytes} bytes in {seconds} s; check the network"),
        )
    }

    fn broken(&self, why: &str) -> Error {
        Error::new(ErrorKind::Unavailable, format!("the answer of {} broke off: {why}", self.endpoint))
    }
}

fn transport_error(e: &reqwest::Error, endpoint: &str) -> Error {
    let cause = root_cause(e);
    if cause.contains("not valid yet") || cause.contains("NotValidYet") {
        return Error::config(format!(
            "the TLS certificate of {endpoint} is not valid yet by the clock of this machine: {cause}; set the clock"
        ));
    }
    if cause.contains("certificate") {
        return Error::config(format!(
            "the TLS certificate of {endpoint} is not trusted: {cause}; name its authority in SSL_CERT_FILE or \
             AWS_CA_BUNDLE, or set skip-verify=true"
        ));
    }
    if e.is_timeout() {
        let seconds = CONNECT_TIMEOUT.as_secs();
        return Error::new(
            ErrorKind::Timeout,
            format!("cannot connect to {endpoint} within {seconds} s; check the endpoint and the network"),
        );
    }
    if e.is_connect() {
        return Error::new(
            ErrorKind::Unavailable,
            format!("cannot connect to {endpoint}: {cause}; check the endpoint and the network"),
        );
    }
    Error::new(ErrorKind::Unavailable, format!("the connection to {endpoint} failed: {cause}"))
}

/// The innermost message, which says most and repeats no URL.
fn root_cause(e: &reqwest::Error) -> String {
    let Some(mut cause) = e.source() else { return "the request cannot be made".to_owned() };
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

/// What a request carries.
#[derive(Clone, Debug)]
pub(in crate::store) enum Payload {
    /// Bytes in memory.
    Memory(Bytes),
    /// This number of bytes of a local file, from its beginning.
    File(Arc<File>, u64),
}

impl From<Bytes> for Payload {
    fn from(bytes: Bytes) -> Self {
        Self::Memory(bytes)
    }
}

impl Payload {
    /// How many bytes it has.
    pub(in crate::store) fn len(&self) -> u64 {
        match self {
            Self::Memory(bytes) => bytes.len() as u64,
            Self::File(_, len) => *len,
        }
    }

    pub(in crate::store) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The body of a request, which counts in `sent` what was handed to the connection.
    fn counted(self, sent: &Arc<AtomicU64>) -> reqwest::Body {
        let sent = Arc::clone(sent);
        match self {
            Self::Memory(rest) => reqwest::Body::wrap(SentBody { rest, sent }),
            Self::File(file, len) => {
                let pieces = Mutex::new(pieces_of(file, len));
                reqwest::Body::wrap(SentFile { pieces, left: len, sent })
            }
        }
    }
}

/// The first `len` bytes of a local file.
fn pieces_of(file: Arc<File>, len: u64) -> BoxStream<'static, Result<Bytes>> {
    stream::try_unfold(0, move |at| {
        let file = Arc::clone(&file);
        async move {
            if at == len {
                return Ok(None);
            }
            let piece = runtime::blocking(move || {
                let mut piece = vec![0; (FILE_PIECE as u64).min(len - at) as usize];
                file.read_exact_at(&mut piece, at)
                    .map_err(|e| Error::io("cannot read a file for its upload", e))?;
                Ok(Bytes::from(piece))
            });
            let piece = piece.await?;
            let at = at + piece.len() as u64;
            Ok(Some((piece, at)))
        }
    })
    .boxed()
}

/// The beginning of a local file, as a body of known length that counts what was handed to the connection.
struct SentFile {
    /// Nobody else has it: bodies must be `Sync`, which streams are not.
    pieces: Mutex<BoxStream<'static, Result<Bytes>>>,
    left: u64,
    sent: Arc<AtomicU64>,
}

impl http_body::Body for SentFile {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>>>> {
        let this = &mut *self;
        let pieces = this.pieces.get_mut().unwrap_or_else(PoisonError::into_inner);
        pieces.poll_next_unpin(cx).map_ok(|piece| {
            this.left = this.left.saturating_sub(piece.len() as u64);
            this.sent.fetch_add(piece.len() as u64, Ordering::Relaxed);
            Frame::data(piece)
        })
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

/// A body of known length that counts what was handed to the connection.
struct SentBody {
    rest: Bytes,
    sent: Arc<AtomicU64>,
}

impl http_body::Body for SentBody {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if self.rest.is_empty() {
            return Poll::Ready(None);
        }
        let len = PIECE.min(self.rest.len());
        let piece = self.rest.split_to(len);
        self.sent.fetch_add(len as u64, Ordering::Relaxed);
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.rest.len() as u64)
    }
}
