//! Access tokens, which are kept until they are about to expire.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use serde::Deserialize;
use tokio::sync::Mutex;

use super::{Ask, Reply, ask};
use crate::error::{Error, ErrorKind, Result};
use crate::store::Secret;

/// Tokens are replaced so long before they expire.
const RENEW_BEFORE: Duration = Duration::from_secs(60);
/// How long a token of unknown lifetime is used.
const LIFETIME: Duration = Duration::from_secs(300);
/// The longest part of a service's own words that is repeated.
const MAX_WORDS: usize = 300;

/// A token, which each request carries.
#[derive(Clone, Debug)]
pub(in crate::store) struct AccessToken {
    pub(in crate::store) secret: Secret,
    pub(in crate::store) expires: SystemTime,
}

/// Where tokens come from.
#[async_trait]
pub(in crate::store) trait TokenSource: Send + Sync + fmt::Debug {
    /// A new token. `now` is the time by the best clock that is known, which may not be this machine's.
    ///
    /// # Errors
    /// `Denied` if the service refuses, `Unavailable` or `Timeout` if it cannot be reached.
    async fn fetch(&self, now: SystemTime) -> Result<AccessToken>;
}

/// The tokens of one session.
#[derive(Debug)]
pub(in crate::store) struct Tokens {
    source: Box<dyn TokenSource>,
    /// Held while one is fetched, so that one request serves all who wait.
    cached: Mutex<Option<AccessToken>>,
}

impl Tokens {
    /// The tokens that `source` gives.
    pub(in crate::store) fn new(source: Box<dyn TokenSource>) -> Self {
        Self { source, cached: Mutex::new(None) }
    }

    /// A token that is valid at `now`, fetched or renewed if need be.
    ///
    /// # Errors
    /// Those of the source.
    pub(in crate::store) async fn token(&self, now: SystemTime) -> Result<Secret> {
        let mut cached = self.cached.lock().await;
        if let Some(known) = cached.as_ref().filter(|token| now + RENEW_BEFORE < token.expires) {
            return Ok(known.secret.clone());
        }
        match self.source.fetch(now).await {
            Ok(fresh) => Ok(cached.insert(fresh).secret.clone()),
            // The one that is about to expire will do until then.
            Err(e) => match cached.as_ref().filter(|token| now < token.expires) {
                Some(known) => Ok(known.secret.clone()),
                None => Err(e),
            },
        }
    }

    /// Forgets the token `refused`, which the store no longer takes.
    pub(in crate::store) async fn forget(&self, refused: &Secret) {
        let mut cached = self.cached.lock().await;
        if cached.as_ref().is_some_and(|known| known.secret == *refused) {
            *cached = None;
        }
    }
}

/// The answer of a token endpoint. Some give the seconds as a text.
#[derive(Deserialize)]
struct TokenAnswer {
    access_token: String,
    expires_in: Option<serde_json::Value>,
    /// Seconds since 1970: some say only this.
    expires_on: Option<serde_json::Value>,
}

#[derive(Default, Deserialize)]
struct TokenRefusal {
    #[serde(default)]
    error: serde_json::Value,
    #[serde(default)]
    error_description: String,
}

/// Asks a token endpoint of OAuth 2.
///
/// # Errors
/// `Denied` with the service's words if it refuses; those of [`ask`].
pub(in crate::store) async fn oauth_token(request: Ask, now: SystemTime) -> Result<AccessToken> {
    let reply = ask(request).await?;
    if reply.status != 200 {
        return Err(refusal(&reply));
    }
    let answer: TokenAnswer = serde_json::from_slice(&reply.body).map_err(|_| {
        Error::wrong_answer(format!("{} answered with something else than a token", reply.place))
    })?;
    let seconds = |value: serde_json::Value| match value {
        serde_json::Value::String(text) => text.parse().ok(),
        other => other.as_u64(),
    };
    let lifetime = answer.expires_in.and_then(seconds).map(Duration::from_secs);
    let end = answer.expires_on.and_then(seconds).map(|at| UNIX_EPOCH + Duration::from_secs(at));
    let expires = lifetime.map(|lifetime| now + lifetime).or(end).unwrap_or(now + LIFETIME);
    Ok(AccessToken { secret: Secret::new(answer.access_token), expires })
}

/// The error of a service that gives no token.
fn refusal(reply: &Reply) -> Error {
    let words: TokenRefusal = serde_json::from_slice(&reply.body).unwrap_or_default();
    let name = words.error.as_str().unwrap_or_default();
    let text: String =
        words.error_description.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let text: String = text.trim().chars().take(MAX_WORDS).collect();
    let why = match (name, text.as_str()) {
        ("", "") => format!("HTTP status {}", reply.status),
        (name, "") => name.to_owned(),
        ("", text) => text.to_owned(),
        (name, text) => format!("{name}: {text}"),
    };
    let kind = match reply.status {
        408 | 429 | 500.. => ErrorKind::Unavailable,
        _ => ErrorKind::Denied,
    };
    Error::new(kind, format!("{} gives no token ({why})", reply.place))
}

/// The fields of a form, encoded.
pub(in crate::store) fn urlencoded(fields: &[(&str, &str)]) -> String {
    url::form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;
    use crate::store::tests::recorder::run;

    #[derive(Clone, Debug, Default)]
    struct Counted(Arc<AtomicU64>);

    #[async_trait]
    impl TokenSource for Counted {
        async fn fetch(&self, now: SystemTime) -> Result<AccessToken> {
            match self.0.fetch_add(1, Ordering::Relaxed) {
                n @ 0..2 => Ok(AccessToken {
                    secret: Secret::new(format!("token {n}")),
                    expires: now + Duration::from_secs(3600),
                }),
                _ => Err(Error::new(ErrorKind::Unavailable, "no more")),
            }
        }
    }

    #[test]
    fn a_token_is_kept_renewed_and_used_to_its_end() {
        let source = Counted::default();
        let tokens = Tokens::new(Box::new(source.clone()));
        let start = SystemTime::now();
        let at = |seconds| tokens.token(start + Duration::from_secs(seconds));
        run(async {
            for seconds in [0, 1, 3500] {
                assert_eq!(at(seconds).await.unwrap().reveal(), "token 0");
            }
            assert_eq!(at(3550).await.unwrap().reveal(), "token 1");
            // It cannot be renewed, and is valid for a moment yet.
            assert_eq!(at(3550 + 3599).await.unwrap().reveal(), "token 1");
            assert_eq!(at(3550 + 3601).await.unwrap_err().kind(), ErrorKind::Unavailable);
        });
        assert_eq!(source.0.load(Ordering::Relaxed), 4);
    }

    #[test]
    fn a_token_that_is_refused_is_forgotten() {
        let tokens = Tokens::new(Box::new(Counted::default()));
        let now = SystemTime::now();
        run(async {
            let first = tokens.token(now).await.unwrap();
            tokens.forget(&Secret::new("another")).await;
            assert_eq!(tokens.token(now).await.unwrap(), first);
            tokens.forget(&first).await;
            assert_eq!(tokens.token(now).await.unwrap().reveal(), "token 1");
        });
    }
}
