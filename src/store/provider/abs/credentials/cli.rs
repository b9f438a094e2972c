//! Whoever has logged in with the Azure CLI.

use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use serde::Deserialize;

use super::RESOURCE;
use crate::error::{Error, ErrorKind, Result};
use crate::runtime;
use crate::store::Secret;
use crate::store::auth::{AccessToken, Env, TokenSource};

/// How long a token is used whose end is not given.
const LIFETIME: Duration = Duration::from_secs(300);
/// It is a slow program, which may ask over the network.
const PATIENCE: Duration = Duration::from_secs(30);
/// The longest part of the program's own words that is repeated.
const MAX_WORDS: usize = 200;

/// The program `az`.
#[derive(Debug)]
pub(super) struct Cli {
    /// The folders that it is looked for in.
    path: Option<String>,
}

#[derive(Deserialize)]
struct Answer {
    #[serde(rename = "accessToken")]
    token: String,
    /// Seconds since 1970. Old versions give only a local time.
    expires_on: Option<u64>,
}

impl Cli {
    pub(super) fn find(env: Env<'_>) -> Self {
        Self { path: env("PATH") }
    }
}

#[async_trait]
impl TokenSource for Cli {
    async fn fetch(&self, now: SystemTime) -> Result<AccessToken> {
        let path = self.path.clone();
        let output = tokio::time::timeout(PATIENCE, runtime::blocking(move || run(path))).await;
        let output = output.map_err(|_| {
            let seconds = PATIENCE.as_secs();
            Error::new(
                ErrorKind::Timeout,
                format!("'az account get-access-token' has not ended within {seconds} s"),
            )
        })??;
        let answer: Answer = serde_json::from_slice(&output)
            .map_err(|_| Error::wrong_answer("'az account get-access-token' printed no token"))?;
        let expires = answer.expires_on.map_or(now + LIFETIME, |at| UNIX_EPOCH + Duration::from_secs(at));
        Ok(AccessToken { secret: Secret::new(answer.token), expires })
    }
}

/// What the program prints.
fn run(path: Option<String>) -> Result<Vec<u8>> {
    let mut command = Command::new("az");
    command.args(["account", "get-access-token", "--output", "json", "--resource", RESOURCE]);
    command.stdin(std::process::Stdio::null());
    if let Some(path) = path {
        command.env("PATH", path);
    }
    let output = command
        .output()
        .map_err(|e| Error::new(ErrorKind::Denied, format!("the program 'az' does not run ({e})")))?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    let words = String::from_utf8_lossy(&output.stderr);
    let words: String = words.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let words: String = words.trim().chars().take(MAX_WORDS).collect();
    Err(Error::new(ErrorKind::Denied, format!("'az account get-access-token' failed: {words}")))
}
