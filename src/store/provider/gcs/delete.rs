//! Deleting: a hundred objects in one request, or each by its own where the service takes no batches.

use std::fmt::Write as _;
use std::sync::atomic::Ordering;

use reqwest::Method;

use super::GcsBucket;
use super::failure::{Failure, Refusal};
use super::session::Session;
use super::write::boundary;
use crate::error::Result;
use crate::store::http::call::Call;

/// The most deletions that one batch may have.
const MAX_CALLS: usize = 100;
/// An answer has less than a kilobyte for each.
const MAX_ANSWER: usize = 1 << 20;

impl GcsBucket {
    pub(super) async fn delete_objects(&self, keys: &[String]) -> Result<()> {
        let session = self.session().await?;
        for keys in keys.chunks(MAX_CALLS) {
            if keys.len() == 1 || self.shared.delete_singly.load(Ordering::Relaxed) {
                self.delete_singly(&session, keys).await?;
            } else {
                self.delete_together(&session, keys).await?;
            }
        }
        Ok(())
    }

    async fn delete_singly(&self, session: &Session, keys: &[String]) -> Result<()> {
        for key in keys {
            let call = Call::new(Method::DELETE, self.site().object_path(key));
            match session.send(&call, self.way).await {
                Ok(_) => {}
                Err(Failure::Refused(refusal)) if is_gone(&refusal) => {}
                Err(failure) => return Err(self.explain(session, failure, &format!("delete {key}"))),
            }
        }
        Ok(())
    }

    async fn delete_together(&self, session: &Session, keys: &[String]) -> Result<()> {
        let boundary = boundary()?;
        let call = Call::new(Method::POST, "/batch/storage/v1")
            .header("content-type", format!("multipart/mixed; boundary={boundary}"))
            .body(self.batch(keys, &boundary).into());
        let response = match session.send(&call, self.way).await {
            Ok(response) => response,
            Err(Failure::Refused(refusal)) if refusal.may_be_of_the_kind() => {
                return self.delete_singly_from_now_on(session, keys).await;
            }
            Err(failure) => {
                return Err(self.explain(session, failure, &format!("delete {} files", keys.len())));
            }
        };
        let answer = session.http.read_all(response, MAX_ANSWER).await?;
        let text = String::from_utf8_lossy(&answer);
        let outcomes = outcomes(&text);
        if outcomes.len() != keys.len() {
            return self.delete_singly_from_now_on(session, keys).await;
        }
        // The answers come in the order of the requests.
        for (key, refusal) in keys.iter().zip(outcomes) {
            match refusal {
                Some(refusal) if !is_gone(&refusal) => {
                    return Err(self.explain(session, Failure::Refused(refusal), &format!("delete {key}")));
                }
                _ => {}
            }
        }
        Ok(())
    }

    async fn delete_singly_from_now_on(&self, session: &Session, keys: &[String]) -> Result<()> {
        self.delete_singly(session, keys).await?;
        self.shared.delete_singly.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// A body of many requests.
    fn batch(&self, keys: &[String], boundary: &str) -> String {
        let mut body = String::new();
        for (n, key) in keys.iter().enumerate() {
            let path = self.site().object_path(key);
            let written = write!(
                body,
                "--{boundary}\r\nContent-Type: application/http\r\nContent-ID: <{n}>\r\n\r\n\
                 DELETE {path} HTTP/1.1\r\n\r\n\r\n"
            );
            written.expect("BUG: writing to a string does not fail");
        }
        body + &format!("--{boundary}--\r\n")
    }
}

/// Whether the object was not there. A missing bucket is another matter.
fn is_gone(refusal: &Refusal) -> bool {
    refusal.status == 404 && !refusal.is_of_the_bucket()
}

/// The answers in the body of a batch's answer: none for a success, else what was refused.
fn outcomes(text: &str) -> Vec<Option<Refusal>> {
    let answers = text.split("\nHTTP/1.1 ").skip(1);
    let outcome = |answer: &str| {
        let status: u16 = answer.split_whitespace().next()?.parse().ok()?;
        if (200..300).contains(&status) {
            return Some(None);
        }
        let mut refusal = Refusal { status, ..Refusal::default() };
        let (first, last) = (answer.find('{'), answer.rfind('}'));
        if let Some(document) = first.zip(last).and_then(|(first, last)| answer.get(first..=last)) {
            refusal.read(document.as_bytes());
        }
        Some(Some(refusal))
    };
    answers.filter_map(outcome).collect()
}
