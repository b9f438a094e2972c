//! What requests need beside themselves: client and credentials. Made at first use.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use reqwest::Response;

use super::credentials::Identity;
use super::failure::{Failure, Refusal};
use super::site::GcsSite;
use crate::error::{ErrorKind, Result};
use crate::store::Secret;
use crate::store::auth::Env;
use crate::store::clock::StoreClock;
use crate::store::http::call::Call;
use crate::store::http::sessions::Renewable;
use crate::store::http::{Http, Way, answer};

/// A refusal's text is shorter.
const MAX_REFUSAL: usize = 64 << 10;

/// A client of one bucket.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) http: Http,
    base: String,
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
    /// Finds out who we are from the environment and the files that it names; makes no request.
    ///
    /// # Errors
    /// `Config` for credentials that cannot be read.
    pub(super) fn begin(
        site: &GcsSite,
        clock: Arc<StoreClock>,
        idle_timeout: Duration,
        env: Env<'_>,
    ) -> Result<Self> {
        let identity = Identity::find(site, env)?;
        let base = match &site.endpoint {
            Some(endpoint) => endpoint.clone(),
            None => format!("https://storage.{}", identity.universe()),
        };
        let http = Http::new(&format!("{base}/{}", site.bucket), &base, site.skip_verify, idle_timeout)?;
        Ok(Self { http, base, identity, clock, outdated: AtomicBool::new(false) })
    }

    fn note_outdated(&self) {
        self.outdated.store(true, Ordering::Relaxed);
    }

    /// Sends `call`. A token that is refused is replaced once. After another refusal the session is outdated: who tries
    /// again does so with a new one.
    ///
    /// # Errors
    /// `Refused` for an answer that is no success.
    pub(super) async fn send(&self, call: &Call, way: Way) -> Result<Response, Failure> {
        let mut renewed = false;
        loop {
            let token = self.identity.token(self.clock.signing_time()).await;
            let token = token.inspect_err(|_| self.note_outdated())?;
            let response = self.send_once(call, token.as_ref(), way).await?;
            let status = response.status();
            if call.accepts(&response) {
                return answer::no_web_page(&self.http, response).map_err(Failure::from);
            }
            let refusal = self.refusal(response).await;
            if let (401, Some(token), false) = (status.as_u16(), &token, renewed) {
                self.identity.forget(token).await;
                renewed = true;
                continue;
            }
            if matches!(status.as_u16(), 300..=403) {
                self.note_outdated();
            }
            return Err(Failure::Refused(refusal));
        }
    }

    async fn send_once(&self, call: &Call, token: Option<&Secret>, way: Way) -> Result<Response> {
        let mut extra = Vec::new();
        extra.extend(token.map(|token| ("authorization", format!("Bearer {}", token.reveal()))));
        let project = self.identity.quota_project();
        extra.extend(project.map(|project| ("x-goog-user-project", project.to_owned())));
        let sent = call.send(&self.http, &format!("{}{}", self.base, call.path), &extra, way).await;
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
        let mut refusal = Refusal {
            status: response.status().as_u16(),
            size: answer::size_of_refused_range(response.headers()),
            ..Refusal::default()
        };
        // A refusal is one even if its reason gets lost on the way.
        if let Ok(body) = self.http.read_all(response, MAX_REFUSAL).await {
            refusal.read(&body);
        }
        refusal
    }
}
