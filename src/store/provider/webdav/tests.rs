//! What is sent to a WebDAV server and what its answers mean, by a server that answers as a test says. What real servers do
//! is in the tests of all stores.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;

use super::WebdavBucket;
use super::site::WebdavSite;
use crate::clock::Timestamp;
use crate::error::{Error, ErrorKind};
use crate::store::tests::recorder::{Answer, Recorder, Seen, run, silence, status};
use crate::store::{Bucket, ByteRange, Fencing, Location, PutOptions};

const KEY: &str = "app/ltx/0/0000000000000001-0000000000000001.ltx";

fn bucket(server: &Recorder, credentials: &str) -> WebdavBucket {
    let url = format!("webdav://{credentials}127.0.0.1:{}/app", server.port);
    let location = Location::parse(&url, &|_: &str| None).unwrap();
    let site = location.site().as_any().downcast_ref::<WebdavSite>().unwrap().clone();
    WebdavBucket::with_idle_timeout(site, std::env::temp_dir(), Duration::from_secs(5))
}

fn if_absent() -> PutOptions {
    PutOptions { timestamp: Timestamp::from_millis(1), if_absent: true }
}

async fn put(bucket: &WebdavBucket) -> Result<(), Error> {
    bucket.put(KEY, Bytes::from_static(b"content"), &if_absent()).await
}

/// A server that has no folders, and then those that were made.
fn server_without_folders() -> (Recorder, Arc<Mutex<Vec<String>>>) {
    let folders = Arc::new(Mutex::new(vec![String::new()]));
    let known = Arc::clone(&folders);
    let answer = move |seen: &Seen| {
        let mut known = known.lock().unwrap();
        let path = seen.path.trim_matches('/').to_owned();
        let above = path.rsplit_once('/').map_or("", |(above, _)| above).to_owned();
        match seen.method.as_str() {
            "PUT" | "MKCOL" if !known.contains(&above) => status(409),
            "MKCOL" if known.contains(&path) => status(405),
            "MKCOL" => {
                known.push(path);
                status(201)
            }
            _ => status(201),
        }
    };
    (Recorder::start(answer), folders)
}

#[test]
fn a_file_is_put_with_its_length_under_another_name_and_moved_if_its_own_is_free() {
    let (server, folders) = server_without_folders();
    let bucket = bucket(&server, "");
    run(put(&bucket)).unwrap();
    assert_eq!(folders.lock().unwrap()[1..], ["app", "app/ltx", "app/ltx/0"]);
    let seen = server.seen();
    let [.., put, moved] = &seen[..] else { panic!("{seen:?}") };
    assert_eq!(
        (put.method.as_str(), put.header("content-length"), put.text().as_str()),
        ("PUT", "7", "content")
    );
    assert!(
        put.path.starts_with("/app/ltx/0/.0000000000000001-0000000000000001.ltx.")
            && put.path.ends_with(".tmp")
    );
    assert_eq!((moved.method.as_str(), &moved.path, moved.header("overwrite")), ("MOVE", &put.path, "F"));
    assert_eq!(moved.header("destination"), format!("{}/{KEY}", server.endpoint()));
    // The folder is there by now.
    let before = server.seen().len();
    run(self::put(&bucket)).unwrap();
    assert_eq!(server.seen().len() - before, 2);
}

#[test]
fn a_name_that_is_taken_is_another_writers_and_nothing_is_left() {
    let server = Recorder::start(|seen| status(if seen.method == "MOVE" { 412 } else { 201 }));
    let bucket = bucket(&server, "");
    assert_eq!(bucket.fencing(), Fencing::Unproven);
    assert_eq!(run(put(&bucket)).unwrap_err().kind(), ErrorKind::AlreadyExists);
    assert_eq!(bucket.fencing(), Fencing::Atomic);
    let put = server.seen()[0].path.clone();
    wait(|| server.requests().contains(&format!("DELETE {put}")));
}

#[test]
fn a_server_that_overwrites_all_the_same_is_asked_first_from_then_on() {
    let server = Recorder::start(|seen| match seen.method.as_str() {
        "PROPFIND" => described("/app/x.ltx"),
        _ => status(204),
    });
    let bucket = bucket(&server, "");
    run(bucket.prove_fencing(KEY, Bytes::from_static(b"content"), &if_absent())).unwrap();
    assert_eq!(bucket.fencing(), Fencing::LookFirst);
    assert_eq!(run(put(&bucket)).unwrap_err().kind(), ErrorKind::AlreadyExists);
    assert!(server.requests().last().unwrap().starts_with("PROPFIND "));
}

#[test]
fn a_server_behind_another_is_told_the_path_alone() {
    let server = Recorder::start(|seen| {
        match (seen.method.as_str(), seen.header("destination").starts_with("http")) {
            ("MOVE", true) => status(502),
            _ => status(201),
        }
    });
    let bucket = bucket(&server, "");
    run(async { put(&bucket).await.and(put(&bucket).await) }).unwrap();
    let seen = server.seen();
    let moves: Vec<&str> =
        seen.iter().filter(|s| s.method == "MOVE").map(|s| s.header("destination")).collect();
    assert_eq!(moves[1..], [format!("/{KEY}"), format!("/{KEY}")]);
}

fn wait(done: impl Fn() -> bool) {
    for _ in 0..5000 {
        if done() {
            return;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    panic!("it did not come");
}

fn described(href: &str) -> Answer {
    status(207).body(format!(
        "<D:multistatus xmlns:D=\"DAV:\"><D:response><D:href>{href}</D:href><D:propstat><D:prop><D:resourcetype/>\
         <D:getcontentlength>7</D:getcontentlength><D:getlastmodified>Sat, 28 Nov 2026 09:00:01 GMT</D:getlastmodified>\
         </D:prop><D:status>HTTP/1.1 200 OK</D:status></D:propstat></D:response></D:multistatus>"
    ))
}

#[test]
fn who_asks_is_said_when_the_server_wants_to_know() {
    let server = Recorder::start(|seen| match seen.header("authorization") {
        "" => status(401).header("WWW-Authenticate", "Basic realm=\"share\""),
        "Basic bWU6aHVudGVyMg==" => described("/app/x"),
        other => panic!("{other}"),
    });
    let bucket = bucket(&server, "me:hunter2@");
    run(async { bucket.head(KEY).await.and(bucket.head(KEY).await) }).unwrap();
    // Not asked again.
    assert_eq!(server.seen().len(), 3);
    // Requests that were all under way before the first one was asked.
    let bucket = self::bucket(&server, "me:hunter2@");
    let all = (0..8).map(|_| bucket.head(KEY));
    run(futures_util::future::try_join_all(all)).unwrap();
}

#[test]
fn the_password_does_not_go_to_a_server_that_knows_digest() {
    let (old, count) = (AtomicBool::new(false), AtomicUsize::new(0));
    let server = Recorder::start(move |seen| {
        let challenge = |nonce: &str| {
            let text = format!(
                "Digest realm=\"r\", qop=\"auth\", nonce=\"{nonce}\", algorithm=SHA-256, Basic realm=\"r\""
            );
            status(401).header("WWW-Authenticate", text)
        };
        let said = seen.header("authorization");
        assert!(!said.starts_with("Basic"));
        if said.is_empty() {
            return challenge("one");
        }
        assert!(
            said.starts_with("Digest username=\"me\", realm=\"r\"") && said.contains("response="),
            "{said}"
        );
        assert!(said.contains(&format!("uri=\"{}\"", seen.path)), "{said}");
        // After the first good answer the nonce has become old.
        if count.fetch_add(1, Ordering::Relaxed) == 1 && !old.swap(true, Ordering::Relaxed) {
            return challenge("two");
        }
        described("/app/x")
    });
    let bucket = bucket(&server, "me:hunter2@");
    run(async { bucket.head(KEY).await.and(bucket.head(KEY).await) }).unwrap();
    let said: Vec<String> =
        server.seen().iter().map(|seen| seen.header("authorization").to_owned()).collect();
    assert_eq!(said.len(), 4, "{said:?}");
    assert!(said[2].contains("nc=00000002") && said[3].contains("nonce=\"two\""), "{said:?}");
}

#[test]
fn refusals_name_the_server_and_the_remedy_and_no_secret() {
    for (answer, credentials, kind, words) in [
        (status(401), "", ErrorKind::Denied, "set webdav-username and webdav-password"),
        (
            status(401).header("WWW-Authenticate", "Basic realm=\"x\""),
            "me:hunter2@",
            ErrorKind::Denied,
            "check webdav-username and webdav-password",
        ),
        (status(403), "me:hunter2@", ErrorKind::Denied, "not read-only"),
        (status(405), "", ErrorKind::Unsupported, "it must know WebDAV"),
        (
            status(301).header("Location", "https://there/x?k=hunter2"),
            "",
            ErrorKind::Config,
            "https://there/x;",
        ),
        (status(423), "", ErrorKind::Unavailable, "for now"),
        (status(413), "", ErrorKind::Unsupported, "too large"),
        (status(507), "", ErrorKind::NoSpace, "no space"),
        (status(500), "", ErrorKind::Unavailable, "for now"),
        (silence(), "", ErrorKind::Unavailable, "cannot write app/ltx/0/"),
    ] {
        let shown = format!("{answer:?}");
        let server = Recorder::start(move |_| answer.clone());
        let bucket = bucket(&server, credentials);
        let e = run(put(&bucket)).unwrap_err();
        assert_eq!(e.kind(), kind, "{shown}: {e}");
        assert!(e.to_string().contains(words), "{shown}: {e}");
        assert!(
            e.to_string().contains(&server.port.to_string()) && !e.to_string().contains("hunter2"),
            "{e}"
        );
    }
}

#[test]
fn an_answer_that_is_cut_off_or_of_another_range_is_an_error() {
    let server = Recorder::start(|seen| match seen.header("range") {
        "bytes=2-3" => status(206).header("Content-Range", "bytes 4-5/7").body("45"),
        "" => status(200).body("content").cut(3),
        _ => status(200).header("Content-Type", "text/html").body("<html>"),
    });
    let bucket = bucket(&server, "");
    let kind = |range| run(async { bucket.get(KEY, range, None).await?.bytes().await }).unwrap_err().kind();
    assert_eq!(kind(ByteRange::Bounded { offset: 2, len: 2 }), ErrorKind::WrongAnswer);
    assert_eq!(kind(ByteRange::All), ErrorKind::Unavailable);
    assert_eq!(kind(ByteRange::Suffix { len: 3 }), ErrorKind::WrongAnswer);
}

#[test]
fn a_large_file_is_sent_with_its_length_from_a_local_copy() {
    let server = Recorder::start(|_| status(201));
    let bucket = bucket(&server, "");
    let part = Bytes::from(vec![7; 1 << 20]);
    run(async {
        let mut upload = bucket.upload(KEY, &if_absent()).await?;
        for _ in 0..3 {
            upload.part(part.clone()).await?;
        }
        assert!(server.seen().iter().all(|seen| seen.method == "PROPFIND"));
        upload.complete().await
    })
    .unwrap();
    let put = server.seen().into_iter().find(|seen| seen.method == "PUT").unwrap();
    assert_eq!((put.header("content-length"), put.header("transfer-encoding")), ("3145728", ""));
    assert!(put.body.len() == 3 << 20 && put.body.iter().all(|byte| *byte == 7));
}

#[test]
fn what_crashes_left_is_removed_after_a_day() {
    let file = |name: &str, time: &str| {
        format!(
            "<response><href>/app/ltx/0/{name}</href><propstat><prop><getcontentlength>7</getcontentlength>\
             <getlastmodified>{time}</getlastmodified></prop><status>HTTP/1.1 200 OK</status></propstat></response>"
        )
    };
    let (old, new) = ("Sat, 28 Nov 2026 09:00:00 GMT", "Sun, 29 Nov 2026 20:00:00 GMT");
    let files = [file(".a.tmp", old), file(".b.tmp", new), file("c.ltx", old)].concat();
    let server = Recorder::start(move |_| {
        let body = format!("<multistatus xmlns=\"DAV:\">{files}</multistatus>");
        status(207).header("Date", "Sun, 29 Nov 2026 21:00:00 GMT").body(body)
    });
    let bucket = bucket(&server, "");
    run(async {
        bucket.ask_time("app/ltx/0/").await?;
        bucket.upload(KEY, &if_absent()).await?;
        bucket.upload(KEY, &if_absent()).await.map(drop)
    })
    .unwrap();
    let requests = server.requests();
    assert_eq!(requests[1..], ["PROPFIND /app/ltx/0/", "DELETE /app/ltx/0/.a.tmp"]);
}
