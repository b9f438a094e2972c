//! A service principal of the environment, and a workload's identity in Kubernetes: both ask Microsoft Entra for tokens.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::json;

use super::RESOURCE;
use crate::error::{Error, ErrorKind, Result};
use crate::store::Secret;
use crate::store::auth::{
    AccessToken, Ask, Env, SigningKey, TokenSource, certificate, oauth_token, urlencoded,
};

const AUTHORITY: &str = "https://login.microsoftonline.com";
/// The lifetime of what proves who we are.
const LIFETIME: Duration = Duration::from_secs(600);
/// This machine's clock may be ahead by so much.
const BEFORE: Duration = Duration::from_secs(10);
const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// A client of a tenant, and how it proves that it is the one.
#[derive(Debug)]
struct Principal {
    /// Where tokens are given.
    url: String,
    client: String,
    proof: Proof,
}

#[derive(Debug)]
enum Proof {
    Password(Secret),
    /// By a certificate, whose digest is `thumbprint`.
    Certificate {
        key: SigningKey,
        thumbprint: String,
    },
    /// By a token in a file, which Kubernetes renews.
    File(PathBuf),
}

/// The principal of the environment, if it has one.
///
/// # Errors
/// `Config` for a certificate that cannot be used, naming its file.
pub(super) fn find(env: Env<'_>) -> Result<Option<Box<dyn TokenSource>>> {
    let (Some(tenant), Some(client)) = (env("AZURE_TENANT_ID"), env("AZURE_CLIENT_ID")) else {
        return Ok(None);
    };
    let proof = if let Some(secret) = env("AZURE_CLIENT_SECRET") {
        Proof::Password(Secret::new(secret))
    } else if let Some(path) = env("AZURE_CLIENT_CERTIFICATE_PATH") {
        read(Path::new(&path)).map_err(|e| {
            e.context(format_args!("AZURE_CLIENT_CERTIFICATE_PATH names '{path}', which cannot be used"))
        })?
    } else if let Some(path) = env("AZURE_FEDERATED_TOKEN_FILE") {
        Proof::File(PathBuf::from(path))
    } else {
        return Ok(None);
    };
    let authority = env("AZURE_AUTHORITY_HOST").unwrap_or_else(|| AUTHORITY.to_owned());
    let authority = authority.trim_end_matches('/');
    let scheme = if authority.contains("://") { "" } else { "https://" };
    let url = format!("{scheme}{authority}/{tenant}/oauth2/v2.0/token");
    Ok(Some(Box::new(Principal { url, client, proof })))
}

fn read(path: &Path) -> Result<Proof> {
    let pem = std::fs::read(path).map_err(|e| Error::config(e.to_string()))?;
    let pem = String::from_utf8(pem).map_err(|_| {
        Error::config("it is not in PEM; write it so: openssl pkcs12 -in it.pfx -out it.pem -nodes")
    })?;
    let key = SigningKey::from_pem(&pem)?;
    let der = certificate(&pem)?;
    let thumbprint = URL_SAFE_NO_PAD.encode(digest(&SHA1_FOR_LEGACY_USE_ONLY, &der));
    Ok(Proof::Certificate { key, thumbprint })
}

impl Principal {
    /// What the form says to prove who we are.
    fn proof(&self, now: SystemTime) -> Result<Vec<(&'static str, String)>> {
        let assertion = match &self.proof {
            Proof::Password(secret) => return Ok(vec![("client_secret", secret.reveal().to_owned())]),
            Proof::Certificate { key, thumbprint } => self.sign(key, thumbprint, now)?,
            Proof::File(path) => {
                let token = std::fs::read_to_string(path).map_err(|e| {
                    let path = path.display();
                    Error::config(format!(
                        "AZURE_FEDERATED_TOKEN_FILE names '{path}', which cannot be used: {e}"
                    ))
                })?;
                Secret::new(token.trim())
            }
        };
        Ok(vec![
            ("client_assertion_type", ASSERTION_TYPE.to_owned()),
            ("client_assertion", assertion.reveal().to_owned()),
        ])
    }

    fn sign(&self, key: &SigningKey, thumbprint: &str, now: SystemTime) -> Result<Secret> {
        let mut random = [0; 16];
        getrandom::fill(&mut random)
            .map_err(|e| Error::new(ErrorKind::Io, format!("no random numbers: {e}")))?;
        let seconds = |time: SystemTime| time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let begins = now - BEFORE;
        let header = json!({"alg": "RS256", "typ": "JWT", "x5t": thumbprint});
        let claims = json!({
            "aud": self.url, "iss": self.client, "sub": self.client, "jti": URL_SAFE_NO_PAD.encode(random),
            "nbf": seconds(begins), "iat": seconds(begins), "exp": seconds(begins + LIFETIME),
        });
        key.sign(&header, &claims)
    }
}

#[async_trait]
impl TokenSource for Principal {
    async fn fetch(&self, now: SystemTime) -> Result<AccessToken> {
        let scope = format!("{RESOURCE}/.default");
        let proof = self.proof(now)?;
        let mut form = vec![
            ("grant_type", "client_credentials"),
            ("client_id", self.client.as_str()),
            ("scope", scope.as_str()),
        ];
        form.extend(proof.iter().map(|(name, value)| (*name, value.as_str())));
        oauth_token(Ask::form(&self.url, urlencoded(&form)), now).await.map_err(|e| match e.kind() {
            ErrorKind::Denied => {
                let remedy = "check AZURE_TENANT_ID, AZURE_CLIENT_ID and what proves the identity";
                Error::new(ErrorKind::Denied, format!("{e}; {remedy}"))
            }
            _ => e,
        })
    }
}
