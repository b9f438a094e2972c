//! How AWS's credential chain asks other services: through the HTTP client that this library has anyway,
//! so that certificates and proxies are the same and no second client is linked.

use std::io;
use std::time::Duration;

use aws_smithy_runtime_api::client::http::{
    HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpClient, SharedHttpConnector,
    http_client_fn,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_types::body::SdkBody;

use crate::store::http::{Http, IDLE_TIMEOUT, Way};

/// Larger answers are not credentials.
const MAX_ANSWER: usize = 1 << 20;

/// The client for AWS's credential chain.
pub(super) fn http_client() -> SharedHttpClient {
    http_client_fn(|settings, _| SharedHttpConnector::new(Connector { limit: limit(settings) }))
}

/// How long a request may take. Where a service may well not be there, as the metadata service of a
/// machine that is none of AWS's, the chain sets shorter limits.
fn limit(settings: &HttpConnectorSettings) -> Duration {
    match (settings.connect_timeout(), settings.read_timeout()) {
        (Some(connect), Some(read)) => connect + read,
        _ => IDLE_TIMEOUT,
    }
}

#[derive(Debug)]
struct Connector {
    limit: Duration,
}

impl HttpConnector for Connector {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let limit = self.limit;
        HttpConnectorFuture::new(async move {
            match tokio::time::timeout(limit, answer(request)).await {
                Ok(answer) => answer,
                Err(e) => Err(ConnectorError::timeout(e.into())),
            }
        })
    }
}

async fn answer(request: HttpRequest) -> Result<HttpResponse, ConnectorError> {
    let failed = |e: crate::error::Error| ConnectorError::io(e.into());
    let endpoint = endpoint_of(request.uri());
    let (parts, body) = request.try_into_http1x().map_err(|e| ConnectorError::user(e.into()))?.into_parts();
    let body =
        body.bytes().ok_or_else(|| ConnectorError::user(io::Error::other("a body of no size").into()))?;
    let body = bytes::Bytes::copy_from_slice(body);
    let request = ::http::Request::from_parts(parts, reqwest::Body::default());
    let request = reqwest::Request::try_from(request).map_err(|e| ConnectorError::user(e.into()))?;
    let http = Http::new(&endpoint, &endpoint, false, IDLE_TIMEOUT).map_err(failed)?;
    let response = http.send(request, body, Way::Usual).await.map_err(failed)?;
    let (status, headers) = (response.status(), response.headers().clone());
    let body = http.read_all(response, MAX_ANSWER).await.map_err(failed)?;
    let mut answer = ::http::Response::new(SdkBody::from(body));
    *answer.status_mut() = status;
    *answer.headers_mut() = headers;
    answer.try_into().map_err(|e| ConnectorError::other(Box::new(e), None))
}

/// The server's URL, without a path, which may hold what is nobody's business.
fn endpoint_of(uri: &str) -> String {
    url::Url::parse(uri).map_or_else(|_| uri.to_owned(), |url| url.origin().ascii_serialization())
}
