//! What comes to the port of the tools: who is let in, and what is let through.
//!
//! A page in a browser of this machine can send requests to it, also under a name of its own that it has lead here (DNS
//! rebinding). So without a token the headers `Host` and `Origin` must name this machine, and a message is only taken as
//! `application/json`, which a browser sends to no other site unasked.

use std::future::Future;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::oneshot;

use super::connection::Front;
use super::http::{Answer, Request, Status, is_this_machine, is_token};
use super::{Caller, Options, Overview, TOOLS};
use crate::mcp::{Reply, VERSIONS};
use crate::runtime;

/// Where messages are taken.
const PATHS: [&str; 3] = ["/", "/mcp", "/mcp/"];

/// Why no tools are offered with these options, if so.
pub(super) fn objection(options: &Options) -> Option<String> {
    let address = options.mcp_addr.as_deref()?;
    let (host, port) = address.rsplit_once(':').unwrap_or((address, ""));
    if options.mcp_token.as_deref() == Some("") {
        return Some("LITESTREAM_MCP_TOKEN is set to nothing: give a token, or unset it".to_owned());
    }
    if options.mcp_token.is_none() && !is_loopback(host) {
        return Some(format!(
            "other machines reach that address, and there is no mcp_token: set it, or LITESTREAM_MCP_TOKEN, or write \
             127.0.0.1:{port} for this machine only"
        ));
    }
    let port_of_page = options.listen.as_deref().and_then(|address| Some(address.rsplit_once(':')?.1));
    (port_of_page == Some(port)).then(|| format!("the status page has port {port} already: give another one"))
}

/// Whether only this machine reaches an address that is written so.
fn is_loopback(host: &str) -> bool {
    let name = host.trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost")
        || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Lets a request in, by its head.
///
/// # Errors
/// The answer to whom it is not.
pub(super) fn admit(front: &Front, head: &Request) -> Result<(), Answer> {
    let refused = |status, why: &str| Err(Answer::text(status, format!("{why}\n")));
    if !PATHS.contains(&&*head.path) {
        return refused(Status::NotFound, "messages are taken at / and at /mcp");
    }
    match &front.monitor.options.mcp_token {
        Some(token) if !head.bearer().is_some_and(|given| is_token(given, token)) => {
            return refused(
                Status::Unauthorized,
                "give the token that mcp_token has, in the header 'Authorization: Bearer ...'",
            );
        }
        None if !front.local.ip().is_loopback() || !head.names_this_machine() => {
            return refused(
                Status::Forbidden,
                "without mcp_token this is for this machine only, by a name that is its own: localhost, or 127.0.0.1",
            );
        }
        _ => {}
    }
    if !has_own_origin(head) {
        return refused(Status::Forbidden, "a page of another site may not call tools");
    }
    if head.method != "POST" {
        return refused(
            Status::MethodNotAllowed("POST"),
            "each message is a POST: there are no streams and no sessions",
        );
    }
    let media = head.content_type.as_deref().and_then(|text| text.split(';').next()).unwrap_or_default();
    if !media.trim().eq_ignore_ascii_case("application/json") {
        return refused(Status::UnsupportedMediaType, "a message is application/json");
    }
    let takes =
        |accept: &str| ["application/json", "application/*", "*/*"].iter().any(|one| accept.contains(one));
    if head.accept.as_deref().is_some_and(|accept| !takes(&accept.to_ascii_lowercase())) {
        return refused(Status::NotAcceptable, "an answer is application/json");
    }
    match head.protocol_version.as_deref() {
        Some(version) if !VERSIONS.contains(&version) => refused(
            Status::BadRequest,
            &format!("MCP-Protocol-Version '{version}' is not spoken here: {} are", VERSIONS.join(", ")),
        ),
        _ => Ok(()),
    }
}

/// Whether a request that a page sent comes from this machine or, with a token, from a page of the same host.
fn has_own_origin(head: &Request) -> bool {
    let Some(origin) = head.origin.as_deref() else { return true };
    let host = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
    host.is_some_and(|host| is_this_machine(host) || head.host.as_deref() == Some(host))
}

/// The answer to a message. Nothing is left running for who is `gone`: then there is none.
pub(super) async fn answer(
    front: &Arc<Front>,
    message: Vec<u8>,
    gone: impl Future<Output = ()>,
) -> Option<Answer> {
    let stopped = Arc::new(AtomicBool::new(false));
    let (done, mut result) = oneshot::channel();
    let working = {
        let (front, stopped) = (Arc::clone(front), Arc::clone(&stopped));
        runtime::thread("mcp", move || drop(done.send(reply(&front, &message, &stopped))))
    };
    if let Err(e) = working {
        return Some(Answer::text(Status::Unavailable, format!("{}\n", runtime::no_thread(e))));
    }
    tokio::select! {
        reply = &mut result => {
            Some(reply.map_or_else(|_| Answer::text(Status::Unavailable, "this failed by a bug\n"), as_answer))
        }
        () = gone => {
            stopped.store(true, Ordering::Relaxed);
            // It keeps its place among those that are answered until it has ended.
            let _ = result.await;
            None
        }
    }
}

fn reply(front: &Arc<Front>, message: &[u8], stopped: &AtomicBool) -> Reply {
    let overview = || {
        let front = Arc::clone(front);
        let machine = runtime::block_on(async move { Ok((front.machine().await, front)) });
        machine.map_or_else(
            |_| Overview::default(),
            |(machine, front)| Overview::of(&machine, &front.monitor.options.limits),
        )
    };
    let caller = Caller { overview: &overview, is_stopped: &|| stopped.load(Ordering::Relaxed) };
    TOOLS.get().map_or(Reply::Nothing, |tools| tools(&caller, message))
}

fn as_answer(reply: Reply) -> Answer {
    let json = |status, body| Answer { status, content_type: "application/json", body };
    match reply {
        Reply::Nothing => Answer::text(Status::Accepted, ""),
        Reply::Message(message) => json(Status::Ok, message),
        Reply::NoMessage(message) => json(Status::BadRequest, message),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Monitor;
    use super::super::connection::Door;
    use super::*;

    fn options(address: &str, token: Option<&str>) -> Options {
        Options {
            mcp_addr: Some(address.to_owned()),
            mcp_token: token.map(str::to_owned),
            ..Options::default()
        }
    }

    fn front(local: &str, token: Option<&str>) -> Front {
        let monitor = Monitor::new(options(local, token), 0);
        Front::new(Arc::new(monitor), Door::Tools, local.parse().unwrap())
    }

    fn request(change: impl FnOnce(&mut Request)) -> Request {
        let mut request = Request {
            method: "POST".to_owned(),
            path: "/".to_owned(),
            host: Some("localhost:3001".to_owned()),
            content_type: Some("application/json; charset=utf-8".to_owned()),
            accept: Some("application/json, text/event-stream".to_owned()),
            ..Request::default()
        };
        change(&mut request);
        request
    }

    fn status(front: &Front, change: impl FnOnce(&mut Request)) -> Option<Status> {
        admit(front, &request(change)).err().map(|answer| answer.status)
    }

    fn some(text: &str) -> Option<String> {
        Some(text.to_owned())
    }

    #[test]
    fn other_machines_need_a_token() {
        assert!(objection(&options("127.0.0.1:3001", Some(""))).unwrap().contains("set to nothing"));
        for address in ["127.0.0.1:3001", "localhost:3001", "[::1]:3001", "127.8.0.1:1"] {
            assert_eq!(objection(&options(address, None)), None, "{address}");
        }
        for address in
            [":3001", "0.0.0.0:3001", "[::]:3001", "db.example:3001", "10.0.0.1:3001", "localhost.evil:1"]
        {
            let why = objection(&options(address, None)).unwrap();
            assert!(why.contains("mcp_token") && why.contains("127.0.0.1"), "{why}");
            assert_eq!(objection(&options(address, Some("x"))), None, "{address}");
        }
        let both = Options { listen: some(":3001"), ..options("127.0.0.1:3001", None) };
        assert!(objection(&both).unwrap().contains("3001"));
    }

    #[test]
    fn a_page_of_another_site_is_kept_out() {
        let here = front("127.0.0.1:3001", None);
        assert_eq!(status(&here, |_| ()), None);
        for host in [
            "evil.example:3001",
            "localhost.evil.example",
            "localhost:evil.example",
            "localhost:",
            "[::1].evil.example",
            "[::1",
            "10.0.0.1:3001",
            "",
        ] {
            assert_eq!(status(&here, |r| r.host = some(host)), Some(Status::Forbidden), "{host}");
        }
        assert_eq!(status(&here, |r| r.host = None), Some(Status::Forbidden));
        for origin in ["http://localhost:6274", "http://127.0.0.1", "https://[::1]:3001"] {
            assert_eq!(status(&here, |r| r.origin = some(origin)), None, "{origin}");
        }
        for origin in [
            "https://evil.example",
            "null",
            "file://",
            "http://localhost.evil.example",
            "http://127.0.0.1.nip.io",
            "http://localhost:1@evil.example",
        ] {
            assert_eq!(status(&here, |r| r.origin = some(origin)), Some(Status::Forbidden), "{origin}");
        }
        let rebound =
            |r: &mut Request| (r.host, r.origin) = (some("evil.example"), some("http://evil.example"));
        assert_eq!(status(&here, rebound), Some(Status::Forbidden));
        for media in ["text/plain", "application/x-www-form-urlencoded", "application/jsonp"] {
            assert_eq!(
                status(&here, |r| r.content_type = some(media)),
                Some(Status::UnsupportedMediaType),
                "{media}"
            );
        }
        assert_eq!(status(&here, |r| r.content_type = None), Some(Status::UnsupportedMediaType));
    }

    #[test]
    fn who_has_the_token_is_let_in() {
        for local in ["0.0.0.0:3001", "127.0.0.1:3001"] {
            let door = front(local, Some("s3cret"));
            let with = |token: &str| Some(format!("Bearer {token}"));
            assert_eq!(status(&door, |_| ()), Some(Status::Unauthorized));
            for wrong in ["", "s3cre", "s3cret2", "S3CRET"] {
                assert_eq!(
                    status(&door, |r| r.authorization = with(wrong)),
                    Some(Status::Unauthorized),
                    "{wrong}"
                );
            }
            // What stands in a URL is in the logs of proxies.
            let in_query = |r: &mut Request| r.query = vec![("token".to_owned(), "s3cret".to_owned())];
            assert_eq!(status(&door, in_query), Some(Status::Unauthorized));
            let from_afar =
                |r: &mut Request| (r.host, r.authorization) = (some("db.example"), with("s3cret"));
            assert_eq!(status(&door, from_afar), None);
            let from_a_page = |r: &mut Request| {
                from_afar(r);
                r.origin = some("https://evil.example");
            };
            assert_eq!(status(&door, from_a_page), Some(Status::Forbidden));
        }
        assert_eq!(status(&front("0.0.0.0:3001", None), |_| ()), Some(Status::Forbidden));
    }

    #[test]
    fn a_message_is_a_post_in_a_version_that_is_spoken() {
        let here = front("127.0.0.1:3001", None);
        for path in PATHS {
            assert_eq!(status(&here, |r| path.clone_into(&mut r.path)), None);
        }
        assert_eq!(status(&here, |r| "/metrics".clone_into(&mut r.path)), Some(Status::NotFound));
        for method in ["GET", "DELETE", "HEAD", "OPTIONS", "PUT"] {
            let refused = status(&here, |r| method.clone_into(&mut r.method));
            assert_eq!(refused, Some(Status::MethodNotAllowed("POST")), "{method}");
        }
        assert_eq!(status(&here, |r| r.accept = some("text/html")), Some(Status::NotAcceptable));
        assert_eq!(status(&here, |r| r.accept = None), None);
        for version in VERSIONS {
            assert_eq!(status(&here, |r| r.protocol_version = some(version)), None);
        }
        for version in ["2026-07-28", "1", ""] {
            assert_eq!(status(&here, |r| r.protocol_version = some(version)), Some(Status::BadRequest));
        }
    }
}
