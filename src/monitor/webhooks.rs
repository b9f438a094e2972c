//! Webhooks: events that an operator should know of are posted to addresses of the user's.
//!
//! Each address has a queue and a task of its own, so that one that is dead or slow keeps no other waiting. Nothing waits for
//! any but a close that had something to tell, for a second, unless the address fails. The body is signed together with the
//! time, so that a recorded request cannot be sent again later:
//!
//! ```text
//! X-Litestream-Signature: t=<seconds since the Unix epoch>,v1=<hexadecimal HMAC-SHA256 of "<t>.<body>" with the secret>
//! ```

use std::fmt::Write as _;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aws_lc_rs::hmac;
use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::clock::{Clock as _, SystemClock};
use crate::error::{ErrorKind, Result};
use crate::events::{self, Course, Occurrence};
use crate::fork::PerProcess;
use crate::runtime;
use crate::store::{Notification, host_of, notify};

/// Where events go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Webhook {
    /// The address, which may be a secret.
    pub url: String,
    /// The names of the events; empty for all of them.
    pub events: Vec<String>,
    /// What bodies are signed with.
    pub secret: Option<String>,
}

impl Webhook {
    fn wants(&self, occurrence: &Occurrence) -> bool {
        self.events.is_empty() || self.events.iter().any(|event| event == occurrence.event.name)
    }
}

/// Events that wait for one address, at most.
const QUEUED: usize = 256;
/// How long an attempt may take.
const ATTEMPT: Duration = Duration::from_secs(10);
/// The pause after a first failure; it doubles up to `PAUSE_MAX`.
const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// An event that was not delivered after this is given up.
const PATIENCE: Duration = Duration::from_secs(900);
/// How long a last close waits for what it had to tell.
const AT_CLOSE: Duration = Duration::from_secs(1);

/// How the addresses stand.
static LINES: PerProcess<Mutex<Vec<Arc<Line>>>> = PerProcess::new();

/// How one address stands.
#[derive(Debug, Default)]
struct Line {
    /// Events that it was not told of yet.
    waiting: AtomicU64,
    /// The last attempt failed: nobody waits for it.
    fails: AtomicBool,
}

fn lines() -> MutexGuard<'static, Vec<Arc<Line>>> {
    LINES.get().lock().unwrap_or_else(PoisonError::into_inner)
}

/// Hands events to the addresses that want them, until the process ends.
pub(super) async fn run(webhooks: Vec<Webhook>) {
    let queues: Vec<(Webhook, Arc<Line>, mpsc::Sender<Occurrence>)> = webhooks
        .into_iter()
        .map(|webhook| {
            let (line, (sender, queue)) = (Arc::<Line>::default(), mpsc::channel(QUEUED));
            lines().push(Arc::clone(&line));
            tokio::spawn(deliver(webhook.clone(), Arc::clone(&line), queue));
            (webhook, line, sender)
        })
        .collect();
    loop {
        let occurrence = events::next().await;
        for (webhook, line, queue) in queues.iter().filter(|(webhook, ..)| webhook.wants(&occurrence)) {
            line.waiting.fetch_add(1, Ordering::SeqCst);
            if queue.try_send(occurrence.clone()).is_err() {
                line.waiting.fetch_sub(1, Ordering::SeqCst);
                let host = host_of(&webhook.url);
                tracing::warn!("the webhook at {host} does not keep up: an event is not sent to it");
            }
        }
        events::handed_over();
    }
}

/// Delivers to one address, one after the other.
async fn deliver(webhook: Webhook, line: Arc<Line>, mut queue: mpsc::Receiver<Occurrence>) {
    while let Some(occurrence) = queue.recv().await {
        send(&webhook, &line, &occurrence).await;
        line.waiting.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Sends one event, again and again for a while.
async fn send(webhook: &Webhook, line: &Line, occurrence: &Occurrence) {
    let (begun, mut pause, mut is_told) = (Instant::now(), PAUSE_MIN, false);
    loop {
        let answer = attempt(webhook, occurrence).await;
        line.fails.store(answer.is_err(), Ordering::SeqCst);
        let Err(e) = answer else { return };
        let host = host_of(&webhook.url);
        if e.kind() == ErrorKind::Denied || begun.elapsed() + pause > PATIENCE {
            let event = occurrence.event.name;
            tracing::warn!("the webhook at {host} was not told of {event}: {e}");
            return;
        }
        if !std::mem::replace(&mut is_told, true) {
            tracing::warn!(
                "the webhook at {host} cannot be told: {e}; it is tried again for a quarter of an hour"
            );
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

async fn attempt(webhook: &Webhook, occurrence: &Occurrence) -> Result<()> {
    let body = body(occurrence);
    let mut headers = vec![("x-litestream-event", occurrence.event.name.to_owned())];
    if let Some(secret) = &webhook.secret {
        let now = SystemClock.now().as_millis() / 1000;
        headers.push(("x-litestream-signature", signature(secret, now, &body)));
    }
    notify(&Notification { url: webhook.url.clone(), body: Some(body.into()), headers }, ATTEMPT).await
}

/// What is posted.
fn body(occurrence: &Occurrence) -> String {
    json!({
        "id": occurrence.id,
        "event": occurrence.event.name,
        "resolved": occurrence.course == Course::Over,
        "database": occurrence.db.display().to_string(),
        "replica": Some(&occurrence.replica).filter(|replica| !replica.is_empty()),
        "error": occurrence.error,
        "attempts": occurrence.attempts,
        "since": occurrence.since.to_string(),
        "timestamp": occurrence.at.to_string(),
        "version": env!("CARGO_PKG_VERSION"),
        "context": {"pid": std::process::id()},
    })
    .to_string()
}

/// The value of the header that proves who sends `body`, and when.
fn signature(secret: &str, seconds: i64, body: &str) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    let signed = hmac::sign(&key, format!("{seconds}.{body}").as_bytes());
    let mut hex = String::new();
    for byte in signed.as_ref() {
        write!(hex, "{byte:02x}").expect("BUG: writing to a string failed");
    }
    format!("t={seconds},v1={hex}")
}

/// Lets a close that had something to tell wait for a moment: the process may end right after it.
pub(super) fn wait_at_close() {
    const LOOK: Duration = Duration::from_millis(20);
    let is_on_its_way =
        |line: &Arc<Line>| line.waiting.load(Ordering::SeqCst) > 0 && !line.fails.load(Ordering::SeqCst);
    let deadline = Instant::now() + AT_CLOSE;
    while (events::are_waiting() || lines().iter().any(is_on_its_way)) && Instant::now() < deadline {
        runtime::nap(LOOK);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_signature_is_that_of_time_and_body() {
        // printf '1700000000.{"a":1}' | openssl dgst -sha256 -hmac s3cret
        let expected = "t=1700000000,v1=1698a50bc74d1ff1db85c4e0a5297c2ad9fdba245d5737cdb789e4cc6e098940";
        assert_eq!(signature("s3cret", 1_700_000_000, r#"{"a":1}"#), expected);
    }
}
