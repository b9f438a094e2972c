//! Where a container is: `abs://account@container/path`.

use std::sync::Arc;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::AzureBucket;
use crate::error::{Error, Result};
use crate::store::http::endpoint;
use crate::store::paths::{authority_and_path, clean_path, decode};
use crate::store::setting::{self, Secret, Settings, StoreKind, StoreSetting};
use crate::store::spelling::escaped;
use crate::store::{Bucket, Layout, Opening, Provider, Site, Source};

/// What is not encoded in the name of a container or a blob.
const NAME: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
const EXAMPLE: &str = "abs://account@container/path";

/// Azure Blob Storage.
pub(in crate::store) static PROVIDER: Provider = Provider {
    name: "abs",
    schemes: &["abs", "azure"],
    example: EXAMPLE,
    settings: &[
        setting::ENDPOINT,
        setting::SKIP_VERIFY,
        ACCOUNT_NAME,
        ACCOUNT_KEY,
        SAS_TOKEN,
        setting::PART_SIZE,
    ],
    environment: &[
        ("account-key", &["LITESTREAM_AZURE_ACCOUNT_KEY"]),
        ("sas-token", &["LITESTREAM_AZURE_SAS_TOKEN"]),
    ],
    layout: Layout::Ltx,
    takes_common_endpoint: true,
    is_remote: true,
    locate,
};

const ACCOUNT_NAME: StoreSetting = StoreSetting::new(
    "account-name",
    StoreKind::Text,
    "Storage account of Azure, where the replica URL does not have it.",
);
const ACCOUNT_KEY: StoreSetting = StoreSetting::new(
    "account-key",
    StoreKind::Secret,
    "Access key of that account, in base64. Without it or `sas_token`: the credentials that Azure's own tools would find.",
);
const SAS_TOKEN: StoreSetting = StoreSetting::new(
    "sas-token",
    StoreKind::Secret,
    "Shared access signature (`sv=…&sig=…`). Wins over `account_key`.",
);

/// A place in a container of Azure Blob Storage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct AzureSite {
    /// The storage account; always known if there is no custom endpoint or there is an account key.
    pub(super) account: Option<String>,
    pub(super) container: String,
    pub(super) path: String,
    /// A custom endpoint, without a slash at its end.
    pub(super) endpoint: Option<String>,
    pub(super) skip_verify: bool,
    /// Credentials that were given; else the environment and this machine have some.
    pub(super) given: Option<Given>,
    /// Bytes of a part.
    pub(super) part_size: usize,
}

/// Credentials of the settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Given {
    /// A shared access signature, without a question mark.
    Sas(Secret),
    /// The account's key, in base64.
    Key(Secret),
}

fn locate(source: &Source<'_>, settings: &Settings<'_>) -> Result<Arc<dyn Site>> {
    let (account, container, path) = match source {
        Source::Url { rest, .. } => place(rest)?,
        Source::Fields => {
            let field = |name| settings.field(name).unwrap_or_default();
            (None, field("bucket"), field("path"))
        }
    };
    if container.is_empty() || container.contains([':', '/']) {
        return Err(Error::config(format!(
            "the replica URL names no container of Azure; write {EXAMPLE}, and a server of your own as the setting \
             endpoint=http://host:port/account"
        )));
    }
    let account = account.or_else(|| settings.get("account-name"));
    let endpoint = settings.get("endpoint").map(|e| endpoint::normalize(&e)).transpose()?;
    let given = given(settings);
    check_account(account.as_deref(), endpoint.is_some(), given.as_ref())?;
    Ok(Arc::new(AzureSite {
        account,
        container,
        path: clean_path(&path),
        endpoint,
        skip_verify: settings.flag("skip-verify")?.unwrap_or(false),
        given,
        part_size: settings.part_size()?,
    }))
}

/// Account, container and path of what follows the scheme.
fn place(rest: &str) -> Result<(Option<String>, String, String)> {
    let (authority, path) = authority_and_path(rest, EXAMPLE)?;
    let (account, container) = match authority.rsplit_once('@') {
        Some((account, _)) if account.contains(':') => {
            return Err(Error::config(
                "an account's key does not belong into the replica URL's authority; use the setting account-key, or \
                 LITESTREAM_AZURE_ACCOUNT_KEY in the environment",
            ));
        }
        Some((account, container)) => (Some(decode(account)?).filter(|name| !name.is_empty()), container),
        None => (None, authority),
    };
    Ok((account, decode(container)?, decode(path)?))
}

/// The credentials that the settings give. A signature wins over a key, as in Litestream.
fn given(settings: &Settings<'_>) -> Option<Given> {
    if let Some(token) = settings.get("sas-token") {
        return Some(Given::Sas(Secret::new(token.trim().trim_start_matches('?'))));
    }
    settings.get("account-key").map(|key| Given::Key(Secret::new(key.trim())))
}

fn check_account(account: Option<&str>, has_endpoint: bool, given: Option<&Given>) -> Result<()> {
    let Some(account) = account else {
        let needed = !has_endpoint || matches!(given, Some(Given::Key(_)));
        return if needed {
            Err(Error::config(format!(
                "the storage account is missing; write {EXAMPLE}, or give the setting account-name"
            )))
        } else {
            Ok(())
        };
    };
    // It becomes a part of a host's name.
    if account.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-') {
        return Ok(());
    }
    Err(Error::config(format!(
        "'{account}' is no storage account of Azure, whose names have small letters and digits; write {EXAMPLE}"
    )))
}

impl AzureSite {
    /// The address of the account's blobs, without a slash at its end.
    pub(super) fn base(&self) -> String {
        match (&self.endpoint, &self.account) {
            (Some(endpoint), _) => endpoint.clone(),
            (None, account) => {
                format!("https://{}.blob.core.windows.net", account.as_deref().unwrap_or_default())
            }
        }
    }

    /// The path of the container.
    pub(super) fn container_path(&self) -> String {
        format!("/{}", encode(&self.container))
    }

    /// The path of a blob, whose slashes stay.
    pub(super) fn blob_path(&self, key: &str) -> String {
        let parts: Vec<String> = key.split('/').map(encode).collect();
        format!("{}/{}", self.container_path(), parts.join("/"))
    }

    /// `e`, with a hint at the account if its server cannot be found: an account that does not exist has no address.
    pub(super) fn hint(&self, e: Error) -> Error {
        match &self.account {
            Some(account) if self.endpoint.is_none() && e.to_string().contains("lookup address") => {
                Error::new(e.kind(), format!("{e}, and whether there is a storage account '{account}'"))
            }
            _ => e,
        }
    }

    /// The texts that no message may hold.
    pub(super) fn secret(&self) -> Option<&str> {
        let (Given::Sas(secret) | Given::Key(secret)) = self.given.as_ref()?;
        Some(secret.reveal()).filter(|secret| !secret.is_empty())
    }
}

/// The text as a part of a path, or as a value in a query.
pub(super) fn encode(text: &str) -> String {
    utf8_percent_encode(text, NAME).to_string()
}

impl Site for AzureSite {
    fn url(&self) -> String {
        let account = self.account.as_ref().map(|account| format!("{account}@")).unwrap_or_default();
        let slash = if self.path.is_empty() { "" } else { "/" };
        format!("abs://{account}{}{slash}{}", escaped(&self.container), escaped(&self.path))
    }

    fn root(&self) -> &str {
        &self.path
    }

    fn identity(&self) -> Vec<(&'static str, String)> {
        self.endpoint.iter().map(|endpoint| ("endpoint", endpoint.clone())).collect()
    }

    fn open(&self, _: &Opening<'_>) -> Arc<dyn Bucket> {
        Arc::new(AzureBucket::new(self.clone()))
    }
}
