//! A connection to a NATS server, and the requests of JetStream.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_nats::client::{Request, RequestErrorKind};
use async_nats::connection::State;
use async_nats::{Client, ConnectErrorKind, ConnectOptions, Event, HeaderMap, Message, Subscriber};
use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::creds;
use super::object::{Object, Stored};
use super::site::{Login, NatsSite};
use crate::error::{Error, ErrorKind, Result};
use crate::store::Site as _;
use crate::store::http::sessions::Renewable;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A request is given up that has no answer for so long, as in Litestream.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// The server removes a listing that nobody ended after this.
const LISTING_NANOS: u64 = 30_000_000_000;

/// JetStream's codes of errors.
pub(super) const WRONG_SEQUENCE: u64 = 10071;
const NO_MESSAGE: u64 = 10037;
const NO_STREAM: u64 = 10059;
/// Of the account, of the server, of the stream: bytes, messages.
const NO_SPACE: [u64; 5] = [10002, 10023, 10028, 10047, 10077];

/// A connection.
pub(super) struct Session {
    client: Client,
    site: NatsSite,
    /// The connection broke off.
    gone: watch::Receiver<bool>,
    /// A request went unanswered.
    broken: AtomicBool,
    /// What the server said last that belongs to no request, such as what is not permitted.
    said: Arc<Mutex<Option<String>>>,
}

impl Renewable for Session {
    fn is_outdated(&self) -> bool {
        self.broken.load(Ordering::Relaxed)
            || *self.gone.borrow()
            || self.client.connection_state() != State::Connected
    }
}

/// Why a request has no good answer.
#[derive(Debug)]
pub(super) enum Failure {
    Error(Error),
    /// JetStream's code, and its words.
    Refused(u64, String),
}

impl From<Error> for Failure {
    fn from(e: Error) -> Self {
        Self::Error(e)
    }
}

/// What JetStream answers to a request.
#[derive(Deserialize)]
struct Answer {
    error: Option<Refusal>,
}

#[derive(Deserialize)]
struct Refusal {
    #[serde(default)]
    err_code: u64,
    #[serde(default)]
    description: String,
}

impl Session {
    /// Connects and logs in.
    ///
    /// # Errors
    /// `Unavailable`, `Timeout`, `Denied`, `Config`, `NoBucket`: each names the server.
    pub(super) async fn begin(site: &NatsSite) -> Result<Self> {
        let (leaves, gone) = watch::channel(false);
        let said = Arc::new(Mutex::new(None));
        let heard = Arc::clone(&said);
        let options = options(site).await?.event_callback(move |event| {
            match event {
                Event::Disconnected | Event::Closed => drop(leaves.send(true)),
                Event::ServerError(e) => {
                    *heard.lock().unwrap_or_else(PoisonError::into_inner) = Some(e.to_string());
                }
                _ => {}
            }
            std::future::ready(())
        });
        let client = options.connect(site.server.as_str()).await.map_err(|e| not_connected(&e, site))?;
        Ok(Self { client, site: site.clone(), gone, broken: AtomicBool::new(false), said })
    }

    /// Sends a message that has an answer.
    pub(super) async fn ask(
        &self,
        subject: String,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<Message, Failure> {
        let request = Request::new().payload(body).headers(headers).timeout(Some(REQUEST_TIMEOUT));
        let mut gone = self.gone.clone();
        let answer = tokio::select! {
            answer = self.client.send_request(subject, request) => answer,
            _ = gone.wait_for(|gone| *gone) => return Err(self.broke_off().into()),
        };
        answer.map_err(|e| self.unanswered(e.kind()).into())
    }

    /// A request of JetStream's interface and its answer.
    pub(super) async fn api(&self, what: &str, body: &Value) -> Result<Value, Failure> {
        let stream = self.site.names.stream();
        let subject = format!("$JS.API.{what}.{stream}");
        let message = self.ask(subject, HeaderMap::new(), body.to_string().into()).await?;
        accepted(&message.payload)
    }

    /// Stores a message in the stream.
    pub(super) async fn publish(
        &self,
        subject: String,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<(), Failure> {
        let message = self.ask(subject, headers, body).await?;
        accepted(&message.payload).map(drop)
    }

    /// The message that describes `key`, even of an object that was deleted.
    pub(super) async fn meta(&self, key: &str) -> Result<Option<(Object, Stored)>, Failure> {
        let asked = json!({ "last_by_subj": self.site.names.meta(key) });
        match self.api("STREAM.MSG.GET", &asked).await {
            Ok(mut answer) => {
                let stored: Stored =
                    serde_json::from_value(answer["message"].take()).map_err(|e| unreadable(&e))?;
                Ok(Some((Object::read(&stored.content()?)?, stored)))
            }
            Err(Failure::Refused(NO_MESSAGE, _)) => Ok(None),
            Err(failure) => Err(failure),
        }
    }

    /// The content of the message of this number; from any server that has it, else from the stream's leader.
    pub(super) async fn message(&self, seq: u64) -> Result<Option<Bytes>, Failure> {
        let (asked, subject) =
            (json!({ "seq": seq }), format!("$JS.API.DIRECT.GET.{}", self.site.names.stream()));
        let direct = self.client.request(subject, asked.to_string().into());
        if let Ok(message) = direct.await
            && message.status.is_none()
        {
            return Ok(Some(message.payload));
        }
        match self.api("STREAM.MSG.GET", &asked).await {
            Ok(mut answer) => {
                let stored: Stored =
                    serde_json::from_value(answer["message"].take()).map_err(|e| unreadable(&e))?;
                Ok(Some(stored.content()?.into()))
            }
            Err(Failure::Refused(NO_MESSAGE, _)) => Ok(None),
            Err(failure) => Err(failure),
        }
    }

    /// Removes the messages of a subject.
    pub(super) async fn purge(&self, subject: &str) -> Result<(), Failure> {
        self.api("STREAM.PURGE", &json!({ "filter": subject })).await.map(drop)
    }

    /// The messages of `subject` in their order, only the last of each subject or all, with their content or only its size.
    pub(super) async fn messages(
        &self,
        subject: &str,
        last: bool,
        headers_only: bool,
    ) -> Result<Vec<Message>, Failure> {
        let inbox = self.client.new_inbox();
        let subscribed = self.client.subscribe(inbox.clone()).await;
        let mut messages =
            subscribed.map_err(|e| Error::new(ErrorKind::Unavailable, format!("cannot listen: {e}")))?;
        let config = json!({
            "stream_name": self.site.names.stream(),
            "config": {
                "deliver_subject": inbox, "deliver_policy": if last { "last_per_subject" } else { "all" },
                "ack_policy": "none", "replay_policy": "instant", "filter_subject": subject,
                "headers_only": headers_only, "inactive_threshold": LISTING_NANOS, "mem_storage": true,
                "num_replicas": 1,
            },
        });
        let made = self.api("CONSUMER.CREATE", &config).await?;
        let number = |field: &Value| field.as_u64().unwrap_or(0);
        let expected = number(&made["num_pending"]) + number(&made["delivered"]["consumer_seq"]);
        let found = match expected {
            0 => Ok(Vec::new()),
            _ => self.collect(&mut messages).await,
        };
        if let Some(name) = made["name"].as_str() {
            let subject = format!("$JS.API.CONSUMER.DELETE.{}.{name}", self.site.names.stream());
            let _ = self.client.publish(subject, Bytes::new()).await;
        }
        found
    }

    /// The messages up to the one that ends the listing.
    async fn collect(&self, messages: &mut Subscriber) -> Result<Vec<Message>, Failure> {
        use futures_util::StreamExt as _;
        let (mut found, mut gone) = (Vec::new(), self.gone.clone());
        loop {
            let next = tokio::select! {
                next = tokio::time::timeout(REQUEST_TIMEOUT, messages.next()) => next,
                _ = gone.wait_for(|gone| *gone) => return Err(self.broke_off().into()),
            };
            let message = match next {
                Ok(Some(message)) => message,
                Ok(None) => return Err(self.broke_off().into()),
                Err(_) => return Err(self.unanswered(RequestErrorKind::TimedOut).into()),
            };
            let Some(Delivery { nth, left, .. }) = delivery(&message) else { continue };
            found.push(message);
            // One that was dropped on its way must not look like a file that is not there.
            if nth != found.len() as u64 {
                return Err(self.broke_off().into());
            }
            if left == 0 {
                return Ok(found);
            }
        }
    }

    fn broke_off(&self) -> Error {
        self.broken.store(true, Ordering::Relaxed);
        Error::new(ErrorKind::Unavailable, format!("the connection to {} broke off", self.site.server))
    }

    fn unanswered(&self, kind: RequestErrorKind) -> Error {
        let (server, bucket) = (&self.site.server, &self.site.names.bucket);
        match kind {
            RequestErrorKind::NoResponders => Error::new(
                ErrorKind::Unavailable,
                format!(
                    "nothing at {server} answers for the object store '{bucket}': check that JetStream is enabled there, and \
                     that there is such a store (nats object add {bucket})"
                ),
            ),
            RequestErrorKind::TimedOut => {
                self.broken.store(true, Ordering::Relaxed);
                let said = self.said.lock().unwrap_or_else(PoisonError::into_inner).take();
                match said {
                    Some(said) => Error::new(
                        ErrorKind::Denied,
                        format!(
                            "{server} does not answer, and says: {said}; check what the user is permitted to"
                        ),
                    ),
                    None => Error::new(
                        ErrorKind::Timeout,
                        format!("{server} was silent for {} s; check the network", REQUEST_TIMEOUT.as_secs()),
                    ),
                }
            }
            RequestErrorKind::MaxPayloadExceeded => Error::new(
                ErrorKind::Unsupported,
                format!("{server} takes no messages of 128 KiB; raise its max_payload"),
            ),
            _ => self.broke_off(),
        }
    }

    /// The error for a user who wanted to `what`.
    pub(super) fn explain(&self, failure: Failure, what: &str) -> Error {
        let (url, server, bucket) = (self.site.url(), &self.site.server, &self.site.names.bucket);
        match failure {
            Failure::Error(e) => e.context(format_args!("cannot {what} of {url}")),
            Failure::Refused(NO_STREAM, _) => Error::new(
                ErrorKind::NoBucket,
                format!(
                    "{server} has no object store '{bucket}'; make it (nats object add {bucket}), or correct the replica URL"
                ),
            ),
            Failure::Refused(code, said) if NO_SPACE.contains(&code) => {
                Error::new(ErrorKind::NoSpace, format!("{server} has no space to {what} of {url} ({said})"))
            }
            Failure::Refused(code, said) => Error::new(
                ErrorKind::Unavailable,
                format!("{server} cannot {what} of {url} ({said}, error {code} of JetStream)"),
            ),
        }
    }
}

/// What the answer's address says of a message that was delivered.
pub(super) struct Delivery {
    /// Its number in the stream.
    pub(super) seq: u64,
    pub(super) nanos: i64,
    /// Which of those that were delivered it is, from 1 on.
    nth: u64,
    /// How many are still to come.
    left: u64,
}

/// `$JS.ACK.<stream>.<consumer>.<delivered>.<seq>.<consumer seq>.<time>.<left>`, with two more names in front since 2.3.
pub(super) fn delivery(message: &Message) -> Option<Delivery> {
    let reply = message.reply.as_ref()?;
    let parts: Vec<&str> = reply.strip_prefix("$JS.ACK.")?.split('.').collect();
    let at = if parts.len() == 7 { 0 } else { 2 };
    let number = |n: usize| parts.get(at + n)?.parse::<u64>().ok();
    let nanos = i64::try_from(number(5)?).ok()?;
    Some(Delivery { seq: number(3)?, nanos, nth: number(4)?, left: number(6)? })
}

fn unreadable(e: &serde_json::Error) -> Error {
    Error::wrong_answer(format!("an answer of JetStream cannot be read: {e}"))
}

fn accepted(body: &[u8]) -> Result<Value, Failure> {
    let value: Value = serde_json::from_slice(body).map_err(|e| unreadable(&e))?;
    let answer = Answer::deserialize(&value).map_err(|e| unreadable(&e))?;
    match answer.error {
        None => Ok(value),
        Some(Refusal { err_code, description }) => Err(Failure::Refused(err_code, description)),
    }
}

async fn options(site: &NatsSite) -> Result<ConnectOptions> {
    // A connection that broke is made again by who needs one, with what then holds.
    let mut options = ConnectOptions::new()
        .name("litestream_vfs")
        .connection_timeout(CONNECT_TIMEOUT)
        .max_reconnects(1)
        .require_tls(site.tls);
    for file in &site.root_cas {
        options = options.add_root_certificates(file.clone());
    }
    if let Some((certificate, key)) = &site.client_cert {
        options = options.add_client_certificate(certificate.clone(), key.clone());
    }
    Ok(match &site.login {
        Login::Nobody => options,
        Login::User(name, password) => options.user_and_password(name.clone(), password.reveal().to_owned()),
        Login::Token(token) => options.token(token.reveal().to_owned()),
        Login::Nkey(seed) => options.nkey(seed.reveal().to_owned()),
        Login::Jwt(jwt, seed) => creds::of_user(options, jwt.reveal(), seed.reveal())
            .ok_or_else(|| Error::config("jwt and seed cannot be used: the seed (SU…) is none"))?,
        Login::Creds(path) => creds::of_file(options, path).await?,
    })
}

/// Whether the server spoke, and not as TLS has it, or refused a certificate.
fn is_of_tls(e: &async_nats::ConnectError) -> bool {
    let mut cause = std::error::Error::source(e);
    while let Some(e) = cause {
        if e.downcast_ref::<std::io::Error>().is_some_and(|e| e.kind() == std::io::ErrorKind::InvalidData) {
            return true;
        }
        cause = e.source();
    }
    false
}

fn not_connected(e: &async_nats::ConnectError, site: &NatsSite) -> Error {
    let server = &site.server;
    match e.kind() {
        ConnectErrorKind::AuthorizationViolation | ConnectErrorKind::Authentication => {
            Error::new(ErrorKind::Denied, format!("{server} does not let us in {}", site.login.remedy()))
        }
        kind if kind == ConnectErrorKind::Tls || is_of_tls(e) => Error::config(format!(
            "no TLS with {server}: {e}; check tls, root-cas, client-cert and client-key"
        )),
        ConnectErrorKind::TimedOut => {
            let limit = CONNECT_TIMEOUT.as_secs();
            let text =
                format!("cannot connect to {server} within {limit} s; check the address and the network");
            Error::new(ErrorKind::Timeout, text)
        }
        _ => Error::new(
            ErrorKind::Unavailable,
            format!("cannot connect to {server}: {e}; check the address and the network"),
        ),
    }
}
