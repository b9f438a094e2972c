//! The managed identity of a machine or an app in Azure.
//! Source: <https://learn.microsoft.com/entra/identity/managed-identities-azure-resources/how-to-use-vm-token>.

use std::time::{Duration, SystemTime};

use async_trait::async_trait;

use super::RESOURCE;
use crate::error::Result;
use crate::store::Secret;
use crate::store::auth::{AccessToken, Ask, Env, TokenSource, oauth_token, urlencoded};

/// The metadata service of a machine, which is on its own network, or is not there.
const METADATA: &str = "http://169.254.169.254";
const PATIENCE: Duration = Duration::from_secs(3);

/// Where the identity is asked for.
#[derive(Debug)]
pub(super) struct Machine {
    url: String,
    /// What shows that the request comes from the machine itself.
    header: (&'static str, Secret),
}

impl Machine {
    /// The service that the environment names, as in apps and functions, or that of a virtual machine.
    pub(super) fn find(env: Env<'_>) -> Self {
        let app = env("IDENTITY_ENDPOINT").zip(env("IDENTITY_HEADER"));
        let (place, version, header) = match app {
            Some((endpoint, secret)) => (endpoint, "2019-08-01", ("x-identity-header", Secret::new(secret))),
            None => {
                let host = env("AZURE_POD_IDENTITY_AUTHORITY_HOST").unwrap_or_else(|| METADATA.to_owned());
                let place = format!("{}/metadata/identity/oauth2/token", host.trim_end_matches('/'));
                (place, "2018-02-01", ("metadata", Secret::new("true")))
            }
        };
        let client = env("AZURE_CLIENT_ID");
        let mut fields = vec![("api-version", version), ("resource", RESOURCE)];
        fields.extend(client.as_deref().map(|client| ("client_id", client)));
        Self { url: format!("{place}?{}", urlencoded(&fields)), header }
    }
}

#[async_trait]
impl TokenSource for Machine {
    async fn fetch(&self, now: SystemTime) -> Result<AccessToken> {
        let (name, value) = &self.header;
        oauth_token(Ask::get(&self.url).header(name, value.reveal()).within(PATIENCE), now).await
    }
}
