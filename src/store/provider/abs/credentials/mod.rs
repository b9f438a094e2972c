//! Who we are: a shared access signature or a key of the settings, or else what Azure's own libraries would find.
//!
//! In the order of `DefaultAzureCredential`: a service principal in the environment, the identity of a workload in
//! Kubernetes, the managed identity of the machine, the Azure CLI.
//! Source: <https://learn.microsoft.com/azure/developer/go/sdk/authentication/credential-chains>.

mod cli;
mod machine;
mod principal;

use std::time::SystemTime;

use async_trait::async_trait;
use tokio::sync::OnceCell;

use self::cli::Cli;
use self::machine::Machine;
use super::location::{AzureSite, Given};
use super::signature::SharedKey;
use crate::error::{Error, ErrorKind, Result};
use crate::store::auth::{AccessToken, Env, TokenSource, Tokens};
use crate::store::{Secret, Site as _};

/// What tokens are for.
const RESOURCE: &str = "https://storage.azure.com";

/// Who sends requests.
#[derive(Debug)]
pub(super) enum Identity {
    /// Whoever has the signature, which goes into each URL.
    Sas(Secret),
    /// The account itself, whose key signs each request.
    Key(Box<SharedKey>),
    /// Whoever the tokens are of.
    Account(Tokens),
}

impl Identity {
    /// Who settings, environment and the files that it names say that we are.
    ///
    /// # Errors
    /// `Config` for credentials that cannot be used, naming them.
    pub(super) fn find(site: &AzureSite, env: Env<'_>) -> Result<Self> {
        match &site.given {
            Some(Given::Sas(token)) => Ok(Self::Sas(token.clone())),
            Some(Given::Key(key)) => {
                let account = site.account.as_deref().unwrap_or_default();
                Ok(Self::Key(Box::new(SharedKey::new(account, key)?)))
            }
            None => {
                let source: Box<dyn TokenSource> = match principal::find(env)? {
                    Some(source) => source,
                    None => Box::new(Local::new(site, env)),
                };
                Ok(Self::Account(Tokens::new(source)))
            }
        }
    }

    /// A token for requests, if they need one.
    ///
    /// # Errors
    /// Those of where it comes from.
    pub(super) async fn token(&self, now: SystemTime) -> Result<Option<Secret>> {
        match self {
            Self::Account(tokens) => tokens.token(now).await.map(Some),
            _ => Ok(None),
        }
    }

    /// Forgets `token`, which was refused.
    pub(super) async fn forget(&self, token: &Secret) {
        if let Self::Account(tokens) = self {
            tokens.forget(token).await;
        }
    }
}

/// Who this machine is: by its managed identity, or by whoever has logged in with the Azure CLI.
#[derive(Debug)]
struct Local {
    machine: Machine,
    cli: Cli,
    /// Which of the two has given a token before.
    chosen: OnceCell<Kind>,
    /// The replica's URL, for messages.
    replica: String,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Machine,
    Cli,
}

impl Local {
    fn new(site: &AzureSite, env: Env<'_>) -> Self {
        Self {
            machine: Machine::find(env),
            cli: Cli::find(env),
            chosen: OnceCell::new(),
            replica: site.url(),
        }
    }

    async fn choose(&self, now: SystemTime) -> Result<AccessToken> {
        let machine = match self.machine.fetch(now).await {
            Ok(token) => {
                let _ = self.chosen.set(Kind::Machine);
                return Ok(token);
            }
            Err(e) => e,
        };
        match self.cli.fetch(now).await {
            Ok(token) => {
                let _ = self.chosen.set(Kind::Cli);
                Ok(token)
            }
            Err(cli) => Err(self.missing(&machine, &cli)),
        }
    }

    fn missing(&self, machine: &Error, cli: &Error) -> Error {
        let text = format!(
            "no credentials for {}: give the setting account-key or sas-token, or AZURE_TENANT_ID, AZURE_CLIENT_ID and \
             AZURE_CLIENT_SECRET in the environment, or run 'az login' (this machine has no managed identity: {machine}; \
             the Azure CLI: {cli})",
            self.replica
        );
        Error::new(ErrorKind::Denied, text)
    }
}

#[async_trait]
impl TokenSource for Local {
    async fn fetch(&self, now: SystemTime) -> Result<AccessToken> {
        match self.chosen.get() {
            Some(Kind::Machine) => self.machine.fetch(now).await,
            Some(Kind::Cli) => self.cli.fetch(now).await,
            None => self.choose(now).await,
        }
    }
}
