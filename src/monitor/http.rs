//! Requests and answers of HTTP/1.1, as far as a listener needs them: a head of a few kilobytes, a body of some more where
//! one is wanted, one answer for each connection. The head is parsed by `httparse`, as it is in the client of the stores.

use std::fmt::Write as _;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

/// The longest head of a request.
const LONGEST_HEAD: usize = 8 << 10;
const MOST_HEADERS: usize = 64;
/// Bytes that are read at most of a client that continues to send.
const LINGER: usize = 64 << 10;
/// The longest body of a request.
const LONGEST_BODY: u64 = 64 << 10;

/// The head of a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) method: String,
    /// The path, without its query.
    pub(super) path: String,
    /// The query, decoded.
    pub(super) query: Vec<(String, String)>,
    pub(super) host: Option<String>,
    pub(super) authorization: Option<String>,
    pub(super) origin: Option<String>,
    pub(super) accept: Option<String>,
    pub(super) content_type: Option<String>,
    /// The header `MCP-Protocol-Version`.
    pub(super) protocol_version: Option<String>,
    pub(super) content_length: Option<String>,
    /// It waits to be told that its body is wanted.
    pub(super) expects: bool,
    /// What came of the body together with the head.
    pub(super) begun: Vec<u8>,
}

impl Request {
    /// What it gives in the header `Authorization`.
    pub(super) fn bearer(&self) -> Option<&str> {
        let (scheme, token) = self.authorization.as_deref()?.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
    }

    /// Whether it names this machine by its header `Host`. A page of somebody else's that has its name lead here (DNS
    /// rebinding) comes with that name.
    pub(super) fn names_this_machine(&self) -> bool {
        is_this_machine(self.host.as_deref().unwrap_or_default())
    }
}

/// Whether a name, or an address, with or without a port, is one of this machine.
pub(super) fn is_this_machine(host: &str) -> bool {
    let (name, port) = match host.strip_prefix('[') {
        Some(rest) => rest.split_once(']').unwrap_or_default(),
        None => host.split_at(host.find(':').unwrap_or(host.len())),
    };
    let is_digits = |port: &str| !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    if !port.is_empty() && !port.strip_prefix(':').is_some_and(is_digits) {
        return false;
    }
    name.eq_ignore_ascii_case("localhost")
        || name.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Whether a token that was given is the right one, in a time that does not tell how much of it is.
pub(super) fn is_token(given: &str, token: &str) -> bool {
    aws_lc_rs::constant_time::verify_slices_are_equal(given.as_bytes(), token.as_bytes()).is_ok()
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) status: Status,
    pub(super) content_type: &'static str,
    pub(super) body: String,
}

/// The status of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Status {
    Ok,
    Accepted,
    BadRequest,
    Unauthorized,
    Forbidden,
    NotFound,
    /// With the methods that are.
    MethodNotAllowed(&'static str),
    NotAcceptable,
    LengthRequired,
    BodyTooLarge,
    UnsupportedMediaType,
    HeadTooLarge,
    Unavailable,
}

impl Status {
    const fn line(self) -> &'static str {
        match self {
            Self::Ok => "200 OK",
            Self::Accepted => "202 Accepted",
            Self::BadRequest => "400 Bad Request",
            Self::Unauthorized => "401 Unauthorized",
            Self::Forbidden => "403 Forbidden",
            Self::NotFound => "404 Not Found",
            Self::MethodNotAllowed(_) => "405 Method Not Allowed",
            Self::NotAcceptable => "406 Not Acceptable",
            Self::LengthRequired => "411 Length Required",
            Self::BodyTooLarge => "413 Content Too Large",
            Self::UnsupportedMediaType => "415 Unsupported Media Type",
            Self::HeadTooLarge => "431 Request Header Fields Too Large",
            Self::Unavailable => "503 Service Unavailable",
        }
    }
}

impl Answer {
    /// Text for people.
    pub(super) fn text(status: Status, body: impl Into<String>) -> Self {
        Self { status, content_type: "text/plain; charset=utf-8", body: body.into() }
    }

    /// The bytes of it, without the body for `HEAD`.
    fn bytes(&self, is_head: bool) -> Vec<u8> {
        let mut head = String::new();
        write!(
            head,
            "HTTP/1.1 {}\r\nContent-Type: {}\r\nContent-Length: {}\r\nConnection: close\r\nCache-Control: no-store\r\n\
             X-Content-Type-Options: nosniff\r\nReferrer-Policy: no-referrer\r\nX-Frame-Options: DENY\r\n\
             Content-Security-Policy: default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; \
             connect-src 'self'; img-src data:\r\n",
            self.status.line(),
            self.content_type,
            self.body.len()
        )
        .expect("BUG: writing to a string failed");
        match self.status {
            Status::Unauthorized => head.push_str("WWW-Authenticate: Bearer realm=\"litestream\"\r\n"),
            Status::MethodNotAllowed(allowed) => {
                write!(head, "Allow: {allowed}\r\n").expect("BUG: writing to a string failed");
            }
            _ => {}
        }
        head.push_str("\r\n");
        let mut bytes = head.into_bytes();
        if !is_head {
            bytes.extend_from_slice(self.body.as_bytes());
        }
        bytes
    }
}

/// Reads the head of a request.
///
/// # Errors
/// The answer to what is none, or `None` where nobody is left to answer.
pub(super) async fn read(stream: &mut (impl AsyncRead + Unpin)) -> Result<Request, Option<Answer>> {
    let mut head = Vec::new();
    loop {
        let mut chunk = [0; 1024];
        match stream.read(&mut chunk).await {
            Ok(0) | Err(_) => return Err(None),
            Ok(len) => head.extend_from_slice(&chunk[..len]),
        }
        if let Some(request) = parse(&head).map_err(Some)? {
            return Ok(request);
        }
        if head.len() > LONGEST_HEAD {
            return Err(Some(Answer::text(Status::HeadTooLarge, "the head of the request is too long\n")));
        }
    }
}

/// Reads the body of a request whose head was read.
///
/// # Errors
/// As [`read`].
pub(super) async fn read_body(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    request: &mut Request,
) -> Result<Vec<u8>, Option<Answer>> {
    let refused = |status, why: &str| Err(Some(Answer::text(status, format!("{why}\n"))));
    let Some(length) = &request.content_length else {
        return refused(
            Status::LengthRequired,
            "the request does not say how long it is: give it a Content-Length",
        );
    };
    let Some(length) = length.parse::<u64>().ok().filter(|_| !length.starts_with('+')) else {
        return refused(Status::BadRequest, "Content-Length is no number");
    };
    if length > LONGEST_BODY {
        return refused(Status::BodyTooLarge, &format!("the request has more than {LONGEST_BODY} bytes"));
    }
    let mut body = std::mem::take(&mut request.begun);
    let missing = length.saturating_sub(body.len() as u64);
    if request.expects && missing > 0 && stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await.is_err() {
        return Err(None);
    }
    match stream.take(missing).read_to_end(&mut body).await {
        Ok(read) if read as u64 == missing => {}
        Ok(_) | Err(_) => return Err(None),
    }
    body.truncate(length as usize);
    Ok(body)
}

/// Waits until the other side is gone, or sends more than anybody who waits for an answer.
pub(super) async fn gone(stream: &mut (impl AsyncRead + Unpin)) {
    let mut read = 0;
    let mut unasked = [0; 1024];
    while let Ok(len @ 1..) = stream.read(&mut unasked).await {
        read += len;
        if read > LINGER {
            return;
        }
    }
}

/// The request that `head` is; `None` while it is not whole.
///
/// # Errors
/// The answer to what is no request.
fn parse(head: &[u8]) -> Result<Option<Request>, Answer> {
    let bad = |what: &str| Answer::text(Status::BadRequest, format!("{what}\n"));
    let mut headers = [httparse::EMPTY_HEADER; MOST_HEADERS];
    let mut parsed = httparse::Request::new(&mut headers);
    let len = match parsed.parse(head) {
        Ok(httparse::Status::Complete(len)) => len,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(e) => return Err(bad(&format!("this is no request: {e}"))),
    };
    let target = parsed.path.unwrap_or_default();
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let header = |name: &str| {
        let mut values = parsed.headers.iter().filter(|header| header.name.eq_ignore_ascii_case(name));
        let value = values.next().map(|header| String::from_utf8_lossy(header.value).trim().to_owned());
        if values.next().is_some() { Err(bad(&format!("{name} is given twice"))) } else { Ok(value) }
    };
    let has = |name: &str| parsed.headers.iter().any(|header| header.name.eq_ignore_ascii_case(name));
    let list = |name: &str| {
        let values = parsed.headers.iter().filter(|header| header.name.eq_ignore_ascii_case(name));
        let values: Vec<_> =
            values.map(|header| String::from_utf8_lossy(header.value).into_owned()).collect();
        (!values.is_empty()).then(|| values.join(","))
    };
    Ok(Some(Request {
        method: parsed.method.unwrap_or_default().to_owned(),
        path: path.to_owned(),
        query: url::form_urlencoded::parse(query.as_bytes())
            .map(|(key, value)| (key.into_owned(), value.into_owned()))
            .collect(),
        host: header("host")?,
        authorization: header("authorization")?,
        origin: header("origin")?,
        accept: list("accept"),
        content_type: header("content-type")?,
        protocol_version: header("mcp-protocol-version")?,
        content_length: header("content-length")?.filter(|_| !has("transfer-encoding")),
        expects: header("expect")?.is_some_and(|what| what.eq_ignore_ascii_case("100-continue")),
        begun: head[len..].to_vec(),
    }))
}

/// Sends the answer, and waits until the other side has it: a connection that is closed while something unread has come
/// takes what was sent with it.
pub(super) async fn send(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), answer: &Answer, is_head: bool) {
    if stream.write_all(&answer.bytes(is_head)).await.is_err() || stream.shutdown().await.is_err() {
        return;
    }
    let _ = tokio::time::timeout(Duration::from_secs(1), gone(stream)).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_read_when_it_is_whole() {
        let head = b"GET /points.json?db=%2Fa%20b.db&x HTTP/1.1\r\nHost: localhost:9090\r\nAuthorization: Bearer x\r\n\r\n";
        for cut in [0, 10, head.len() - 1] {
            assert_eq!(parse(&head[..cut]).unwrap(), None);
        }
        let request = parse(head).unwrap().unwrap();
        assert_eq!((&*request.method, &*request.path), ("GET", "/points.json"));
        assert_eq!(request.query[0], ("db".to_owned(), "/a b.db".to_owned()));
        assert_eq!(request.host.as_deref(), Some("localhost:9090"));
        assert_eq!(request.authorization.as_deref(), Some("Bearer x"));
    }

    #[test]
    fn what_is_no_request_is_answered() {
        assert_eq!(parse(b"\x16\x03\x01\x02\x00\x01").unwrap_err().status, Status::BadRequest);
        let twice = parse(b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n").unwrap_err();
        assert_eq!(twice.status, Status::BadRequest);
        let many = format!("GET / HTTP/1.1\r\n{}\r\n", "X: y\r\n".repeat(MOST_HEADERS + 1));
        assert_eq!(parse(many.as_bytes()).unwrap_err().status, Status::BadRequest);
    }

    /// The body of the request `text`, or the status of its refusal.
    async fn body_of(text: &str) -> Result<String, Option<Status>> {
        let mut stream = connection(text);
        let mut request = read(&mut stream).await.unwrap();
        let body = read_body(&mut stream, &mut request).await;
        body.map(|body| String::from_utf8(body).unwrap()).map_err(|e| e.map(|answer| answer.status))
    }

    /// A connection on which `text` comes, and then the end.
    fn connection(text: &str) -> impl AsyncRead + AsyncWrite + Unpin {
        tokio::io::join(std::io::Cursor::new(text.as_bytes().to_vec()), tokio::io::sink())
    }

    #[tokio::test]
    async fn a_body_is_as_long_as_it_says() {
        let head = "POST / HTTP/1.1\r\nHost: a\r\n";
        assert_eq!(
            body_of(&format!("{head}Content-Length: 4\r\n\r\nwhat more")).await,
            Ok("what".to_owned())
        );
        assert_eq!(body_of(&format!("{head}Content-Length: 5\r\n\r\nwhat")).await, Err(None));
        let long = "x".repeat(5000);
        assert_eq!(body_of(&format!("{head}content-length: 5000\r\n\r\n{long}")).await, Ok(long));
        for (header, status) in [
            ("", Status::LengthRequired),
            ("Transfer-Encoding: chunked\r\nContent-Length: 4\r\n", Status::LengthRequired),
            ("Content-Length: -1\r\n", Status::BadRequest),
            ("Content-Length: +1\r\n", Status::BadRequest),
            ("Content-Length: 65537\r\n", Status::BodyTooLarge),
            ("Content-Length: 10000000000000\r\n", Status::BodyTooLarge),
        ] {
            assert_eq!(body_of(&format!("{head}{header}\r\n")).await, Err(Some(status)), "{header}");
        }
    }

    #[test]
    fn a_token_is_a_bearers() {
        let bearer = |text: &str| {
            let request = Request { authorization: Some(text.to_owned()), ..Request::default() };
            request.bearer().map(str::to_owned)
        };
        assert_eq!(bearer("Bearer x").as_deref(), Some("x"));
        assert_eq!(bearer("bearer  x ").as_deref(), Some("x"));
        assert_eq!(bearer("Basic x"), None);
        assert_eq!(bearer("x"), None);
    }

    #[tokio::test]
    async fn a_head_without_end_is_refused() {
        let endless = vec![b'a'; 1 << 20];
        let head = [b"GET /".as_slice(), &endless].concat();
        let refused = read(&mut head.as_slice()).await.unwrap_err().unwrap();
        assert_eq!(refused.status, Status::HeadTooLarge);
    }
}
