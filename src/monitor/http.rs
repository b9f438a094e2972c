//! Requests and answers of HTTP/1.1, as far as a listener needs them that only shows: a head of a few kilobytes, no body,
//! one answer for each connection. The head is parsed by `httparse`, as it is in the client of the stores.

use std::fmt::Write as _;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

/// The longest head of a request.
const LONGEST_HEAD: usize = 8 << 10;
const MOST_HEADERS: usize = 64;

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
    BadRequest,
    Unauthorized,
    NotFound,
    MethodNotAllowed,
    TooLarge,
    Unavailable,
}

impl Status {
    const fn line(self) -> &'static str {
        match self {
            Self::Ok => "200 OK",
            Self::BadRequest => "400 Bad Request",
            Self::Unauthorized => "401 Unauthorized",
            Self::NotFound => "404 Not Found",
            Self::MethodNotAllowed => "405 Method Not Allowed",
            Self::TooLarge => "431 Request Header Fields Too Large",
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
            Status::MethodNotAllowed => head.push_str("Allow: GET, HEAD\r\n"),
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
            return Err(Some(Answer::text(Status::TooLarge, "the head of the request is too long\n")));
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
    match parsed.parse(head) {
        Ok(httparse::Status::Complete(_)) => {}
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(e) => return Err(bad(&format!("this is no request: {e}"))),
    }
    let target = parsed.path.unwrap_or_default();
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let header = |name: &str| {
        let mut values = parsed.headers.iter().filter(|header| header.name.eq_ignore_ascii_case(name));
        let value = values.next().map(|header| String::from_utf8_lossy(header.value).trim().to_owned());
        if values.next().is_some() { Err(bad(&format!("{name} is given twice"))) } else { Ok(value) }
    };
    Ok(Some(Request {
        method: parsed.method.unwrap_or_default().to_owned(),
        path: path.to_owned(),
        query: url::form_urlencoded::parse(query.as_bytes())
            .map(|(key, value)| (key.into_owned(), value.into_owned()))
            .collect(),
        host: header("host")?,
        authorization: header("authorization")?,
    }))
}

/// Sends the answer, and waits until the other side has it: a connection that is closed while something unread has come
/// takes what was sent with it.
pub(super) async fn send(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), answer: &Answer, is_head: bool) {
    /// What is read at most of somebody who goes on to send.
    const LINGER: usize = 64 << 10;
    if stream.write_all(&answer.bytes(is_head)).await.is_err() || stream.shutdown().await.is_err() {
        return;
    }
    let mut read = 0;
    let mut rest = [0; 1024];
    let drain = async {
        while let Ok(len @ 1..) = stream.read(&mut rest).await {
            read += len;
            if read > LINGER {
                break;
            }
        }
    };
    let _ = tokio::time::timeout(Duration::from_secs(1), drain).await;
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

    #[tokio::test]
    async fn a_head_without_end_is_refused() {
        let endless = vec![b'a'; 1 << 20];
        let head = [b"GET /".as_slice(), &endless].concat();
        let refused = read(&mut head.as_slice()).await.unwrap_err().unwrap();
        assert_eq!(refused.status, Status::TooLarge);
    }
}
