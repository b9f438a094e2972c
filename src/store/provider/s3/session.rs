//! Everything a store needs to talk: client, credentials, region. Made at first use.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use aws_config::environment::region::EnvironmentVariableRegionProvider;
use aws_config::meta::region::RegionProviderChain;
use aws_config::profile::region::ProfileFileRegionProvider;
use aws_config::{BehaviorVersion, SdkConfig};
use aws_sigv4::http_request::{
    PayloadChecksumKind, PercentEncodingMode, SignableBody, SignableRequest, SigningSettings,
    UriPathNormalizationMode, sign,
};
use aws_sigv4::sign::v4;
use aws_types::service_config::ServiceConfigKey;
use bytes::Bytes;
use http::header::{HeaderName, HeaderValue};
use reqwest::{Method, Response};

use super::address::{self, Address};
use super::aliyun;
use super::credentials::{self, Identity};
use super::dialect::Dialect;
use super::failure::{Failure, Place, Refusal};
use super::host::Quirks;
use super::location::S3Location;
use crate::error::{Error, ErrorKind, Result};
use crate::runtime;
use crate::store::clock::StoreClock;
use crate::store::http::common::{Common, Environment, environment};
use crate::store::http::sessions::Renewable;
use crate::store::http::{Http, Way, answer};

/// The region of those that have none.
const DEFAULT_REGION: &str = "us-east-1";
/// A refusal's text is shorter.
const MAX_REFUSAL: usize = 64 << 10;
/// Hashing more than this on a thread of the runtime would keep others waiting.
const HASH_HERE: usize = 512 << 10;

/// A request that waited for so long for its turn is signed anew: stores refuse signatures of a quarter of an hour ago.
const OLD: Duration = Duration::from_secs(60);

/// A request to the bucket.
#[derive(Clone, Debug)]
pub(super) struct Request {
    pub(super) method: Method,
    pub(super) key: Option<String>,
    pub(super) query: Vec<(&'static str, String)>,
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) body: Bytes,
}

impl Request {
    /// A request for an object.
    pub(super) fn object(method: Method, key: String) -> Self {
        Self { method, key: Some(key), query: Vec::new(), headers: Vec::new(), body: Bytes::new() }
    }

    /// A request for the bucket.
    pub(super) fn bucket(method: Method) -> Self {
        Self { method, key: None, query: Vec::new(), headers: Vec::new(), body: Bytes::new() }
    }

    pub(super) fn query(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.query.push((name, value.into()));
        self
    }

    pub(super) fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    pub(super) fn headers(mut self, headers: impl IntoIterator<Item = (&'static str, String)>) -> Self {
        self.headers.extend(headers);
        self
    }

    pub(super) fn body(mut self, body: Bytes) -> Self {
        self.body = body;
        self
    }

    /// Readers bound by themselves how much they ask for at once.
    fn reads_an_object(&self) -> bool {
        self.method == Method::GET && self.key.is_some()
    }
}

/// A client of one bucket.
#[derive(Debug)]
pub(super) struct Session {
    target: Arc<S3Location>,
    pub(super) http: Http,
    clock: Arc<StoreClock>,
    identity: Identity,
    /// A custom endpoint, from the target or from AWS's configuration.
    endpoint: Option<String>,
    /// As [`Quirks::ask_consistent`].
    ask_consistent: bool,
    region: Mutex<Arc<str>>,
    region_given: bool,
    /// The store refused what may have changed since the start: credentials, region, endpoint, certificates.
    outdated: AtomicBool,
}

impl Renewable for Session {
    fn is_outdated(&self) -> bool {
        self.outdated.load(Ordering::Relaxed)
    }
}

impl Session {
    /// Reads the environment and AWS's configuration files, again if `renew`; makes no request. Those that are made
    /// are given up when no byte flows for `idle_timeout`.
    pub(super) async fn start(
        target: Arc<S3Location>,
        clock: Arc<StoreClock>,
        idle_timeout: Duration,
        renew: bool,
    ) -> Result<Self> {
        let given = Identity::given(&target);
        let mut endpoint = target.endpoint.clone();
        let mut region = target.region.clone();
        let region_given = region.is_some();
        let identity = match given {
            Some(given) if region.is_some() && endpoint.is_some() => given,
            None if target.dialect == Dialect::Aliyun => return Err(credentials::missing_of_aliyun(&target)),
            given => {
                let config = configuration(renew).await;
                region = region.or_else(|| config.region().map(|region| region.to_string()));
                if endpoint.is_none() && !target.bucket.starts_with("arn:") {
                    endpoint = configured_endpoint(&config);
                }
                given.unwrap_or_else(|| Identity::chain(config))
            }
        };
        let region = region.unwrap_or_else(|| DEFAULT_REGION.to_owned());
        let endpoint_name = endpoint.clone().unwrap_or_else(|| address::amazon("s3", &region));
        let base = Address::new(&target, endpoint.as_deref(), &region).url(None, &[]);
        let http = Http::new(&base, &endpoint_name, target.skip_verify, idle_timeout)?;
        Ok(Self {
            http,
            clock,
            identity,
            ask_consistent: endpoint.as_deref().is_some_and(|endpoint| Quirks::of(endpoint).ask_consistent),
            endpoint,
            region: Mutex::new(region.into()),
            region_given,
            outdated: AtomicBool::new(false),
            target,
        })
    }

    fn note_outdated(&self) {
        self.outdated.store(true, Ordering::Relaxed);
    }

    pub(super) fn region(&self) -> Arc<str> {
        Arc::clone(&self.region.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The error for a user who wanted to `what`.
    pub(super) fn explain(&self, failure: Failure, what: &str) -> Error {
        match failure {
            Failure::Error(e) => e.context(format_args!("cannot {what} of {}", self.target)),
            Failure::Refused(refusal) => {
                let region = self.region();
                let place = Place { target: &self.target, endpoint: self.http.endpoint(), region: &region };
                refusal.into_error(what, &place)
            }
        }
    }

    /// Sends `request`. Tries once more by itself where the answer says how to do it right: in another region, or with
    /// the store's own time where this machine's is wrong. After another refusal the session is outdated: who tries
    /// again does so with a new one.
    pub(super) async fn send(&self, request: &Request, way: Way) -> Result<Response, Failure> {
        let mut corrected = false;
        let mut retimed = false;
        loop {
            let region = self.region();
            let time = self.clock.signing_time();
            let response = self.send_once(request, &region, way, time).await?;
            if response.status().is_success() {
                return answer::no_web_page(&self.http, response).map_err(Failure::from);
            }
            let refusal = self.refusal(response).await?;
            if !corrected && self.correct_region(&refusal, &region) {
                corrected = true;
            } else if !retimed && refusal.is_of_time() && self.clock.is_skewed(time) {
                retimed = true;
            } else {
                if refusal.may_be_outdated() {
                    self.note_outdated();
                }
                return Err(Failure::Refused(refusal));
            }
        }
    }

    async fn send_once(
        &self,
        request: &Request,
        region: &Arc<str>,
        way: Way,
        time: SystemTime,
    ) -> Result<Response> {
        // Not in turn: who gives the credentials may be slow, or silent.
        let mut built = self.signed(request, region, time).await?;
        let at_once = request.reads_an_object() || way == Way::New;
        let signed = Instant::now();
        let _turn = if at_once { None } else { Some(self.http.turn().await) };
        if signed.elapsed() >= OLD {
            built = self.signed(request, region, self.clock.signing_time()).await?;
        }
        let sent = self.http.send(built, request.body.clone(), way).await;
        // A certificate that is not trusted may be by now.
        let response = sent.inspect_err(|e| {
            if e.kind() == ErrorKind::Config {
                self.note_outdated()
            }
        })?;
        answer::hear_time(&self.clock, response.headers());
        Ok(response)
    }

    /// `request` as it is sent, without its body: for this store, signed for `region` at `time`.
    pub(super) async fn signed(
        &self,
        request: &Request,
        region: &Arc<str>,
        time: SystemTime,
    ) -> Result<reqwest::Request> {
        let address = Address::new(&self.target, self.endpoint.as_deref(), region);
        let url = address.url(request.key.as_deref(), &request.query);
        let mut built = reqwest::Request::new(
            request.method.clone(),
            url.parse().map_err(|_| Error::config(format!("{} makes no valid URL", self.target)))?,
        );
        for (name, value) in &request.headers {
            built.headers_mut().insert(HeaderName::from_static(name), header_value(name, value)?);
        }
        if self.ask_consistent {
            built.headers_mut().insert("x-tigris-consistent", HeaderValue::from_static("true"));
        }
        let signed = self.signature(request, url, region, time).await?;
        for (name, value) in signed {
            built.headers_mut().insert(HeaderName::from_static(name), header_value(name, &value)?);
        }
        Ok(built)
    }

    /// The headers that sign `request`, which goes to `url`.
    async fn signature(
        &self,
        request: &Request,
        url: String,
        region: &Arc<str>,
        time: SystemTime,
    ) -> Result<Vec<(&'static str, String)>> {
        let credentials = self.identity.credentials(&self.target.to_string()).await;
        let credentials = credentials.inspect_err(|_| self.note_outdated())?;
        if self.target.dialect == Dialect::Aliyun {
            return aliyun::sign(request, &self.target.bucket, region, time, &credentials);
        }
        let unsigned = Unsigned {
            method: request.method.clone(),
            url,
            headers: request.headers.clone(),
            body: request.body.clone(),
            region: Arc::clone(region),
            time,
            credentials,
        };
        unsigned.sign().await
    }

    async fn refusal(&self, response: Response) -> Result<Refusal> {
        let text = |name: &str| response.headers().get(name).and_then(|v| v.to_str().ok()).map(str::to_owned);
        let mut refusal = Refusal {
            status: response.status().as_u16(),
            region: text("x-amz-bucket-region"),
            size: answer::size_of_refused_range(response.headers()),
            ..Refusal::default()
        };
        // A refusal is one even if its reason gets lost on the way.
        if let Ok(body) = self.http.read_all(response, MAX_REFUSAL).await {
            refusal.read(&body);
        }
        Ok(refusal)
    }

    /// Takes the region that the store names. Returns whether that changes anything.
    fn correct_region(&self, refusal: &Refusal, used: &str) -> bool {
        let movable = self.endpoint.is_none() || !self.region_given;
        let Some(right) = refusal.region.as_deref().filter(|right| *right != used && !right.is_empty())
        else {
            return false;
        };
        if !movable || !refusal.is_wrong_region() {
            return false;
        }
        tracing::debug!(bucket = self.target.bucket, region = right, "the bucket is in another region");
        *self.region.lock().unwrap_or_else(PoisonError::into_inner) = right.into();
        true
    }
}

/// What AWS's environment variables and files say. The machine's own metadata service is not asked
/// for a region: it takes seconds to fail where there is none, and a wrong region is corrected anyway.
///
/// The stores of a process share it until one of them wants to `renew` it: what it has read of a file it does not read
/// again.
async fn configuration(renew: bool) -> Arc<SdkConfig> {
    static CONFIGURATIONS: Common<Environment, SdkConfig> = Common::new();
    let environment = environment(|name| name.starts_with("AWS_") || name == "HOME");
    if let Some(config) = CONFIGURATIONS.get(&environment).filter(|_| !renew) {
        return config;
    }
    let region = RegionProviderChain::first_try(EnvironmentVariableRegionProvider::new())
        .or_else(ProfileFileRegionProvider::new());
    let defaults = aws_config::defaults(BehaviorVersion::latest()).http_client(super::aws::http_client());
    let config = defaults.region(region).load().await;
    CONFIGURATIONS.share(environment, config)
}

fn configured_endpoint(config: &aws_config::SdkConfig) -> Option<String> {
    let key = ServiceConfigKey::builder()
        .service_id("S3")
        .env("AWS_ENDPOINT_URL")
        .profile("endpoint_url")
        .build()
        .expect("BUG: the key has all its fields");
    config
        .service_config()
        .and_then(|service| service.load_config(key))
        .or_else(|| config.endpoint_url().map(str::to_owned))
        .filter(|endpoint| endpoint.starts_with("http"))
}

fn header_value(name: &str, value: &str) -> Result<HeaderValue> {
    let mut header = HeaderValue::from_str(value).map_err(|_| {
        Error::config(format!(
            "a setting that becomes the header {name} has a character that no header may have"
        ))
    })?;
    header.set_sensitive(name == "authorization" || name.ends_with("-key") || name.ends_with("-token"));
    Ok(header)
}

/// All that a signature covers.
struct Unsigned {
    method: Method,
    url: String,
    headers: Vec<(&'static str, String)>,
    body: Bytes,
    region: Arc<str>,
    time: SystemTime,
    credentials: aws_credential_types::Credentials,
}

impl Unsigned {
    async fn sign(self) -> Result<Vec<(&'static str, String)>> {
        if self.body.len() <= HASH_HERE {
            return self.sign_here();
        }
        runtime::blocking(move || self.sign_here()).await
    }

    /// The headers to add. What a proxy may change on the way is not signed.
    fn sign_here(&self) -> Result<Vec<(&'static str, String)>> {
        let bug = |e: &dyn std::fmt::Display| {
            Error::new(ErrorKind::Unsupported, format!("cannot sign a request: {e}"))
        };
        let mut settings = SigningSettings::default();
        settings.percent_encoding_mode = PercentEncodingMode::Single;
        settings.uri_path_normalization_mode = UriPathNormalizationMode::Disabled;
        settings.payload_checksum_kind = PayloadChecksumKind::XAmzSha256;
        let identity = self.credentials.clone().into();
        let params = v4::SigningParams::builder()
            .identity(&identity)
            .region(&self.region)
            .name("s3")
            .time(self.time)
            .settings(settings)
            .build()
            .map_err(|e| bug(&e))?
            .into();
        let headers = self
            .headers
            .iter()
            .filter(|(name, _)| name.starts_with("x-amz-") || matches!(*name, "content-md5" | "content-type"))
            .map(|(name, value)| (*name, value.as_str()));
        let request =
            SignableRequest::new(self.method.as_str(), &self.url, headers, SignableBody::Bytes(&self.body))
                .map_err(|e| bug(&e))?;
        let (instructions, _) = sign(request, &params).map_err(|e| bug(&e))?.into_parts();
        let (headers, _) = instructions.into_parts();
        Ok(headers.into_iter().map(|header| (header.name(), header.value().to_owned())).collect())
    }
}
