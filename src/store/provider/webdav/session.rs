//! What requests need beside themselves: a client, and how the server wants to be told who asks.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::HeaderMap;
use reqwest::{Method, Response};

use super::digest::Login;
use super::failure::{Failure, Refusal};
use super::site::WebdavSite;
use crate::error::{ErrorKind, Result};
use crate::store::clock::StoreClock;
use crate::store::http::call::Call;
use crate::store::http::sessions::Renewable;
use crate::store::http::{Http, Way, answer};

/// A refusal's text is shorter.
const MAX_REFUSAL: usize = 64 << 10;

/// A client of one server.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) http: Http,
    site: WebdavSite,
    /// How to log in, once the server has asked for it.
    login: Mutex<Option<Arc<Login>>>,
    clock: Arc<StoreClock>,
    /// The server refused what may have changed since the start, such as a certificate.
    outdated: AtomicBool,
}

impl Renewable for Session {
    fn is_outdated(&self) -> bool {
        self.outdated.load(Ordering::Relaxed)
    }
}

impl Session {
    /// Makes no request.
    ///
    /// # Errors
    /// Those of [`Http::new`].
    pub(super) fn begin(site: &WebdavSite, clock: Arc<StoreClock>, idle_timeout: Duration) -> Result<Self> {
        let http = Http::new(&site.server, &site.server, site.skip_verify, idle_timeout)?;
        let (site, login) = (site.clone(), Mutex::default());
        Ok(Self { http, site, login, clock, outdated: AtomicBool::new(false) })
    }

    /// Sends `call`. Who asks is said when the server wants to know it, and from then on with each request. A challenge
    /// that is new, as one is whose nonce has become old, is answered once.
    ///
    /// # Errors
    /// `Refused` for an answer that is no success.
    pub(super) async fn send(&self, call: &Call, way: Way) -> Result<Response, Failure> {
        let mut challenged = false;
        loop {
            let login = self.login.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let response = self.send_once(call, login.as_deref(), way).await?;
            if call.accepts(&response) && call.method == Method::GET {
                return answer::no_web_page(&self.http, response).map_err(Failure::from);
            } else if call.accepts(&response) {
                // Servers say in HTML what they made.
                return Ok(response);
            }
            if response.status() == 401
                && !challenged
                && self.is_told_how(login.as_deref(), response.headers())
            {
                challenged = true;
                continue;
            }
            if matches!(response.status().as_u16(), 300..=403) {
                self.outdated.store(true, Ordering::Relaxed);
            }
            return Err(Failure::Refused(self.refusal(response).await));
        }
    }

    /// Whether there is a user to log in and a challenge that we understand, which is kept. The request that is refused
    /// said who asks by `used`, if it did.
    fn is_told_how(&self, used: Option<&Login>, headers: &HeaderMap) -> bool {
        let Some(login) = self.site.user.as_ref().and(Login::of(headers)) else { return false };
        // The name and the password were refused.
        let again = matches!((used, &login), (Some(Login::Basic), Login::Basic));
        *self.login.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(login));
        !again
    }

    async fn send_once(&self, call: &Call, login: Option<&Login>, way: Way) -> Result<Response> {
        let mut extra = Vec::new();
        if let (Some(login), Some(user)) = (login, &self.site.user) {
            extra.push(("authorization", login.authorization(user, call.method.as_str(), &call.path)?));
        }
        let url = format!("{}{}", self.site.server, call.path);
        let sent = call.send(&self.http, &url, &extra, way).await;
        // A certificate that is not trusted may be by now.
        let response = sent.inspect_err(|e| {
            if e.kind() == ErrorKind::Config {
                self.outdated.store(true, Ordering::Relaxed);
            }
        })?;
        answer::hear_time(&self.clock, response.headers());
        Ok(response)
    }

    async fn refusal(&self, response: Response) -> Refusal {
        let headers = response.headers();
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let mut refusal = Refusal {
            status: response.status().as_u16(),
            size: answer::size_of_refused_range(headers),
            location: text("location"),
            ..Refusal::default()
        };
        // A refusal is one even if its reason gets lost on the way.
        if let Ok(body) = self.http.read_all(response, MAX_REFUSAL).await {
            refusal.read(&body);
        }
        refusal
    }
}
