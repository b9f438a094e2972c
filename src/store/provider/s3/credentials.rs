//! Who we are: credentials that were given, or those that AWS's official chain finds.

use std::error::Error as _;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_config::SdkConfig;
use aws_credential_types::Credentials;
use aws_credential_types::provider::ProvideCredentials as _;
use aws_credential_types::provider::error::CredentialsError;
use tokio::sync::Mutex;

use super::location::S3Location;
use crate::error::{Error, ErrorKind, Result};

/// Temporary credentials are replaced so long before they expire.
const RENEW_BEFORE: Duration = Duration::from_secs(60);

pub(super) enum Identity {
    Given(Credentials),
    Chain {
        /// Shared with the other stores of the process.
        config: Arc<SdkConfig>,
        /// Held while they are fetched, so that one fetch serves all who wait.
        cached: Mutex<Option<Credentials>>,
    },
}

impl Identity {
    /// The credentials that `target` carries.
    pub(super) fn given(target: &S3Location) -> Option<Self> {
        let (id, secret) = (target.access_key_id.as_ref()?, target.secret_access_key.as_ref()?);
        let token = target.session_token.as_ref().map(|token| token.reveal().to_owned());
        Some(Self::Given(Credentials::new(id, secret.reveal(), token, None, "replica settings")))
    }

    /// The credentials that AWS's chain finds when they are needed.
    pub(super) fn chain(config: Arc<SdkConfig>) -> Self {
        Self::Chain { config, cached: Mutex::new(None) }
    }

    /// The credentials, fetched or renewed if need be.
    pub(super) async fn credentials(&self, url: &str) -> Result<Credentials> {
        let (config, cached) = match self {
            Self::Given(credentials) => return Ok(credentials.clone()),
            Self::Chain { config, cached } => (config, cached),
        };
        let provider = config.credentials_provider().ok_or_else(|| missing(url))?;
        let mut cached = cached.lock().await;
        let now = SystemTime::now();
        if let Some(known) = cached.as_ref().filter(|c| valid_at(c, now + RENEW_BEFORE)) {
            return Ok(known.clone());
        }
        match provider.provide_credentials().await {
            Ok(fresh) => Ok(cached.insert(fresh).clone()),
            Err(e) => match cached.as_ref().filter(|c| valid_at(c, now)) {
                Some(known) => Ok(known.clone()),
                None => Err(failed(url, &e)),
            },
        }
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Given(_) => "Given",
            Self::Chain { .. } => "Chain",
        })
    }
}

fn valid_at(credentials: &Credentials, time: SystemTime) -> bool {
    credentials.expiry().is_none_or(|expiry| time < expiry)
}

fn missing(url: &str) -> Error {
    Error::new(
        ErrorKind::Denied,
        format!(
            "no credentials for {url}; give the settings access-key-id and secret-access-key, or what AWS \
             tools use (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a profile, a role)"
        ),
    )
}

/// The error of a replica in Alibaba Cloud without credentials.
pub(super) fn missing_of_aliyun(target: &S3Location) -> Error {
    Error::new(
        ErrorKind::Denied,
        format!(
            "no credentials for {target}; give the settings access-key-id and secret-access-key, or OSS_ACCESS_KEY_ID and \
             OSS_ACCESS_KEY_SECRET in the environment"
        ),
    )
}

fn failed(url: &str, e: &CredentialsError) -> Error {
    if matches!(e, CredentialsError::CredentialsNotLoaded(_)) {
        return missing(url);
    }
    let mut text = e.to_string();
    let mut source = e.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    let kind = match e {
        CredentialsError::ProviderTimedOut(_) => ErrorKind::Timeout,
        CredentialsError::InvalidConfiguration(_) => ErrorKind::Config,
        _ => ErrorKind::Denied,
    };
    Error::new(kind, format!("cannot get credentials for {url}: {text}"))
}
