//! A request to a store that speaks HTTP, before it is signed.

use std::fs::File;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, HeaderName, HeaderValue};
use reqwest::{Method, Response};

use super::{Http, Payload, Way};
use crate::error::{Error, Result};

/// A request.
#[derive(Clone, Debug)]
pub(in crate::store) struct Call {
    pub(in crate::store) method: Method,
    /// Path and query below the store's address, encoded.
    pub(in crate::store) path: String,
    pub(in crate::store) headers: Vec<(&'static str, String)>,
    pub(in crate::store) body: Payload,
    /// It reads an object's content: readers bound by themselves how much they ask for at once.
    reads: bool,
    /// A status that is a good answer, beside those from 200 to 299.
    pub(in crate::store) expects: Option<u16>,
}

impl Call {
    /// A request for `path`, encoded, with its query.
    pub(in crate::store) fn new(method: Method, path: impl Into<String>) -> Self {
        let (headers, body) = (Vec::new(), Payload::from(Bytes::new()));
        Self { method, path: path.into(), headers, body, reads: false, expects: None }
    }

    pub(in crate::store) fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    pub(in crate::store) fn headers(
        mut self,
        headers: impl IntoIterator<Item = (&'static str, String)>,
    ) -> Self {
        self.headers.extend(headers);
        self
    }

    pub(in crate::store) fn body(mut self, body: Bytes) -> Self {
        self.body = body.into();
        self
    }

    /// With the first `len` bytes of a local file for a body.
    pub(in crate::store) fn file(mut self, file: Arc<File>, len: u64) -> Self {
        self.body = Payload::File(file, len);
        self
    }

    pub(in crate::store) fn reads(mut self) -> Self {
        self.reads = true;
        self
    }

    pub(in crate::store) fn expects(mut self, status: u16) -> Self {
        self.expects = Some(status);
        self
    }

    /// Whether `response` is a good answer.
    pub(in crate::store) fn accepts(&self, response: &Response) -> bool {
        response.status().is_success() || self.expects == Some(response.status().as_u16())
    }

    /// Sends it to `url`, with `extra` headers: those of credentials. In turn, unless readers or new connections are not
    /// to wait for others.
    ///
    /// # Errors
    /// Those of [`Http::send`]; `Config` for a value that no header may have.
    pub(in crate::store) async fn send(
        &self,
        http: &Http,
        url: &str,
        extra: &[(&'static str, String)],
        way: Way,
    ) -> Result<Response> {
        let at_once = self.reads || way == Way::New;
        let _turn = if at_once { None } else { Some(http.turn().await) };
        let url = url.parse();
        let url = url.map_err(|_| Error::config(format!("{} makes no valid URL", http.endpoint())))?;
        let mut request = reqwest::Request::new(self.method.clone(), url);
        let headers = request.headers_mut();
        if self.body.is_empty() && matches!(self.method, Method::PUT | Method::POST) {
            headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
        }
        for (name, value) in &self.headers {
            headers.insert(HeaderName::from_static(name), header_value(name, value)?);
        }
        for (name, value) in extra {
            let mut value = header_value(name, value)?;
            value.set_sensitive(true);
            headers.insert(HeaderName::from_static(name), value);
        }
        http.send(request, self.body.clone(), way).await
    }
}

fn header_value(name: &str, value: &str) -> Result<HeaderValue> {
    HeaderValue::from_str(value).map_err(|_| {
        Error::config(format!("a value for the header {name} has a character that no header may have"))
    })
}
