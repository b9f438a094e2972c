//! Who we are: Google's application default credentials.
//!
//! In the order of Google's libraries: the file that `GOOGLE_APPLICATION_CREDENTIALS` names, the file that
//! `gcloud auth application-default login` wrote, the metadata service of the machine.
//! Source: <https://cloud.google.com/docs/authentication/application-default-credentials>.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use serde::Deserialize;
use serde_json::json;

use super::site::GcsSite;
use crate::error::{Error, ErrorKind, Result};
use crate::store::auth::{AccessToken, Ask, Env, SigningKey, TokenSource, Tokens, oauth_token, urlencoded};
use crate::store::{Secret, Site as _};

/// All that we do, and nothing more.
const SCOPE: &str = "https://www.googleapis.com/auth/devstorage.read_write";
const GOOGLE: &str = "googleapis.com";
const TOKEN_URI: &str = "https://oauth2.googleapis.com/token";
/// The longest lifetime that Google accepts in a token that we sign.
const LIFETIME: Duration = Duration::from_secs(3600);
/// This machine's clock may be ahead by so much.
const BEFORE: Duration = Duration::from_secs(10);
/// The metadata service's address, which needs no name service.
const METADATA_HOST: &str = "169.254.169.254";
/// It is on the machine's own network, or it is not there.
const METADATA_PATIENCE: Duration = Duration::from_secs(3);

/// Who sends requests.
#[derive(Debug)]
pub(super) enum Identity {
    /// Nobody: an emulator takes any request.
    Anonymous,
    /// Whoever the tokens are of.
    Account {
        tokens: Tokens,
        /// The project that pays for requests, if it is another than the bucket's.
        quota_project: Option<String>,
        /// The cloud that the account belongs to.
        universe: Option<String>,
    },
}

/// A file of credentials, of one of the types.
#[derive(Deserialize)]
struct File {
    #[serde(rename = "type", default)]
    kind: String,
    quota_project_id: Option<String>,
    universe_domain: Option<String>,
    client_email: Option<String>,
    private_key_id: Option<String>,
    private_key: Option<String>,
    client_id: Option<String>,
    client_secret: Option<String>,
    refresh_token: Option<String>,
    token_uri: Option<String>,
}

impl Identity {
    /// Who the environment and the files that it names say that we are.
    ///
    /// # Errors
    /// `Config` for a file that cannot be used, naming it.
    pub(super) fn find(site: &GcsSite, env: Env<'_>) -> Result<Self> {
        if site.is_emulator {
            return Ok(Self::Anonymous);
        }
        if let Some(path) = env("GOOGLE_APPLICATION_CREDENTIALS") {
            let path = PathBuf::from(path);
            return read(&path).map_err(|e| {
                let name = path.display();
                e.context(format_args!("GOOGLE_APPLICATION_CREDENTIALS names '{name}', which cannot be used"))
            });
        }
        if let Some(path) = well_known(env).filter(|path| path.is_file()) {
            return read(&path).map_err(|e| {
                e.context(format_args!("the credentials of gcloud in '{}' cannot be used", path.display()))
            });
        }
        let host = env("GCE_METADATA_HOST").unwrap_or_else(|| METADATA_HOST.to_owned());
        let source = Metadata { host, replica: site.url(), is_there: AtomicBool::new(false) };
        Ok(Self::Account { tokens: Tokens::new(Box::new(source)), quota_project: None, universe: None })
    }

    /// A token for requests, if they need one.
    ///
    /// # Errors
    /// Those of where it comes from.
    pub(super) async fn token(&self, now: SystemTime) -> Result<Option<Secret>> {
        match self {
            Self::Anonymous => Ok(None),
            Self::Account { tokens, .. } => tokens.token(now).await.map(Some),
        }
    }

    /// Forgets `token`, which was refused.
    pub(super) async fn forget(&self, token: &Secret) {
        if let Self::Account { tokens, .. } = self {
            tokens.forget(token).await;
        }
    }

    pub(super) fn quota_project(&self) -> Option<&str> {
        match self {
            Self::Account { quota_project, .. } => quota_project.as_deref(),
            Self::Anonymous => None,
        }
    }

    /// The domain of the cloud.
    pub(super) fn universe(&self) -> &str {
        match self {
            Self::Account { universe: Some(universe), .. } => universe,
            _ => GOOGLE,
        }
    }
}

/// Where gcloud leaves the credentials of a user.
fn well_known(env: Env<'_>) -> Option<PathBuf> {
    let folder = match env("CLOUDSDK_CONFIG") {
        Some(folder) => PathBuf::from(folder),
        None => Path::new(&env("HOME")?).join(".config/gcloud"),
    };
    Some(folder.join("application_default_credentials.json"))
}

fn read(path: &Path) -> Result<Identity> {
    let text = std::fs::read(path).map_err(|e| Error::config(e.to_string()))?;
    let file: File = serde_json::from_slice(&text)
        .map_err(|e| Error::config(format!("it is no file of credentials (line {})", e.line())))?;
    let (quota_project, universe) = (file.quota_project_id.clone(), file.universe_domain.clone());
    let source: Box<dyn TokenSource> = match file.kind.as_str() {
        "service_account" => Box::new(ServiceAccount::read(file)?),
        "authorized_user" => Box::new(AuthorizedUser::read(file)?),
        other => {
            return Err(Error::config(format!(
                "credentials of type '{other}' are not supported; use the key of a service account, \
                 'gcloud auth application-default login', or a machine's own account"
            )));
        }
    };
    Ok(Identity::Account { tokens: Tokens::new(source), quota_project, universe })
}

fn field(name: &str, value: Option<String>) -> Result<String> {
    value.filter(|v| !v.is_empty()).ok_or_else(|| Error::config(format!("it has no '{name}'")))
}

/// A service account, whose key signs the tokens: nobody needs to be asked.
#[derive(Debug)]
struct ServiceAccount {
    email: String,
    key_id: String,
    key: SigningKey,
}

impl ServiceAccount {
    fn read(file: File) -> Result<Self> {
        Ok(Self {
            email: field("client_email", file.client_email)?,
            key_id: file.private_key_id.unwrap_or_default(),
            key: SigningKey::from_pem(&field("private_key", file.private_key)?)?,
        })
    }
}

#[async_trait]
impl TokenSource for ServiceAccount {
    async fn fetch(&self, now: SystemTime) -> Result<AccessToken> {
        let issued = now - BEFORE;
        let expires = issued + LIFETIME;
        let seconds = |time: SystemTime| time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let header = json!({"alg": "RS256", "typ": "JWT", "kid": self.key_id});
        let claims = json!({
            "iss": self.email, "sub": self.email, "scope": SCOPE, "iat": seconds(issued), "exp": seconds(expires),
        });
        Ok(AccessToken { secret: self.key.sign(&header, &claims)?, expires })
    }
}

/// A user who once logged in with gcloud.
#[derive(Debug)]
struct AuthorizedUser {
    client_id: String,
    client_secret: Secret,
    refresh_token: Secret,
    token_uri: String,
}

impl AuthorizedUser {
    fn read(file: File) -> Result<Self> {
        Ok(Self {
            client_id: field("client_id", file.client_id)?,
            client_secret: Secret::new(field("client_secret", file.client_secret)?),
            refresh_token: Secret::new(field("refresh_token", file.refresh_token)?),
            token_uri: file.token_uri.unwrap_or_else(|| TOKEN_URI.to_owned()),
        })
    }
}

#[async_trait]
impl TokenSource for AuthorizedUser {
    async fn fetch(&self, now: SystemTime) -> Result<AccessToken> {
        let form = urlencoded(&[
            ("grant_type", "refresh_token"),
            ("client_id", &self.client_id),
            ("client_secret", self.client_secret.reveal()),
            ("refresh_token", self.refresh_token.reveal()),
        ]);
        oauth_token(Ask::form(&self.token_uri, form), now).await.map_err(|e| match e.kind() {
            ErrorKind::Denied => {
                let remedy = "log in again with 'gcloud auth application-default login'";
                Error::new(ErrorKind::Denied, format!("{e}; {remedy}"))
            }
            _ => e,
        })
    }
}

/// The account that a machine of Google Cloud has.
#[derive(Debug)]
struct Metadata {
    host: String,
    /// The replica's URL, for messages.
    replica: String,
    /// It has given a token: it is there, even if it does not answer now.
    is_there: AtomicBool,
}

#[async_trait]
impl TokenSource for Metadata {
    async fn fetch(&self, now: SystemTime) -> Result<AccessToken> {
        let path = "computeMetadata/v1/instance/service-accounts/default/token";
        let request = Ask::get(format!("http://{}/{path}", self.host))
            .header("metadata-flavor", "Google")
            .within(METADATA_PATIENCE);
        match oauth_token(request, now).await {
            Ok(token) => {
                self.is_there.store(true, Ordering::Relaxed);
                Ok(token)
            }
            Err(e) if e.kind() == ErrorKind::Denied => {
                let remedy = "give the machine a service account with access to Cloud Storage";
                Err(Error::new(
                    ErrorKind::Denied,
                    format!("no credentials for {}: {e}; {remedy}", self.replica),
                ))
            }
            Err(e) if self.is_there.load(Ordering::Relaxed) => Err(e),
            Err(e) => Err(self.missing(&e)),
        }
    }
}

impl Metadata {
    fn missing(&self, e: &Error) -> Error {
        let text = format!(
            "no credentials for {}: there is no metadata service here ({e}), GOOGLE_APPLICATION_CREDENTIALS names no file, \
             and nobody has logged in; set it to the file of a service account's key, or run \
             'gcloud auth application-default login'",
            self.replica
        );
        Error::new(ErrorKind::Denied, text)
    }
}
