//! What requests need beside themselves: client and credentials. Made at first use.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use reqwest::Response;
use url::Url;

use super::credentials::Identity;
use super::failure::{Failure, Refusal};
use super::location::AzureSite;
use super::signature::http_date;
use crate::error::{Error, ErrorKind, Result};
use crate::store::Secret;
use crate::store::auth::Env;
use crate::store::clock::StoreClock;
use crate::store::http::call::Call;
use crate::store::http::sessions::Renewable;
use crate::store::http::{Http, Way, answer};

/// A refusal's text is shorter.
const MAX_REFUSAL: usize = 64 << 10;
/// The version of the interface: the first with blocks of 4000 MiB and bearer tokens everywhere is older.
const VERSION: &str = "2021-12-02";

/// A client of one container.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) http: Http,
    base: String,
    /// The path of `base`, which emulators have.
    base_path: String,
    identity: Identity,
    clock: Arc<StoreClock>,
    /// The store refused what may have changed since the start: credentials, endpoint, certificates.
    outdated: AtomicBool,
}

impl Renewable for Session {
    fn is_outdated(&self) -> bool {
        self.outdated.load(Ordering::Relaxed)
    }
}

impl Session {
    /// Finds out who we are from the settings, the environment and the files that it names; makes no request.
    ///
    /// # Errors
    /// `Config` for credentials that cannot be read.
    pub(super) fn begin(
        site: &AzureSite,
        clock: Arc<StoreClock>,
        idle_timeout: Duration,
        env: Env<'_>,
    ) -> Result<Self> {
        let identity = Identity::find(site, env)?;
        let base = site.base();
        let url = Url::parse(&base).map_err(|e| Error::config(format!("'{base}' is not a URL: {e}")))?;
        let base_path = url.path().trim_end_matches('/').to_owned();
        let http = Http::new(&format!("{base}/{}", site.container), &base, site.skip_verify, idle_timeout)?;
        Ok(Self { http, base, base_path, identity, clock, outdated: AtomicBool::new(false) })
    }

    fn note_outdated(&self) {
        self.outdated.store(true, Ordering::Relaxed);
    }

    /// Sends `call`. A token that is refused is replaced once, and a signature by a wrong clock is made again by the
    /// store's. After another refusal the session is outdated: who tries again does so with a new one.
    ///
    /// # Errors
    /// `Refused` for an answer that is no success.
    pub(super) async fn send(&self, call: &Call, way: Way) -> Result<Response, Failure> {
        let mut renewed = false;
        loop {
            let time = self.clock.signing_time();
            let token = self.identity.token(time).await.inspect_err(|_| self.note_outdated())?;
            let response = self.send_once(call, time, token.as_ref(), way).await?;
            if call.accepts(&response) {
                return answer::no_web_page(&self.http, response).map_err(Failure::from);
            }
            let refusal = self.refusal(response).await;
            if matches!(refusal.status, 401 | 403) && !renewed {
                renewed = true;
                match &token {
                    Some(token) if refusal.status == 401 => {
                        self.identity.forget(token).await;
                        continue;
                    }
                    None if self.clock.is_skewed(time) => continue,
                    _ => {}
                }
            }
            if matches!(refusal.status, 300..=403) {
                self.note_outdated();
            }
            return Err(Failure::Refused(refusal));
        }
    }

    async fn send_once(
        &self,
        call: &Call,
        time: SystemTime,
        token: Option<&Secret>,
        way: Way,
    ) -> Result<Response> {
        let mut extra = vec![("x-ms-version", VERSION.to_owned()), ("x-ms-date", http_date(time)?)];
        let mut url = format!("{}{}", self.base, call.path);
        match (&self.identity, token) {
            (Identity::Sas(sas), _) => {
                url.push(if call.path.contains('?') { '&' } else { '?' });
                url.push_str(sas.reveal());
            }
            (Identity::Key(key), _) => {
                extra.push(("authorization", key.authorize(call, &self.base_path, &extra)));
            }
            (Identity::Account(_), token) => {
                extra.extend(token.map(|token| ("authorization", format!("Bearer {}", token.reveal()))));
            }
        }
        let sent = call.send(&self.http, &url, &extra, way).await;
        // A certificate that is not trusted may be by now.
        let response = sent.inspect_err(|e| {
            if e.kind() == ErrorKind::Config {
                self.note_outdated();
            }
        })?;
        answer::hear_time(&self.clock, response.headers());
        Ok(response)
    }

    async fn refusal(&self, response: Response) -> Refusal {
        let mut refusal = Refusal::of(response.status().as_u16(), response.headers());
        // A refusal is one even if its reason gets lost on the way.
        if let Ok(body) = self.http.read_all(response, MAX_REFUSAL).await {
            refusal.read(&body);
        }
        refusal
    }
}
