//! What a real server on this machine does not do: other regions, refusals, servers that lack features,
//! broken connections. A small server in the test gives the answers; it understands HTTP, not S3.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;

use super::*;
use crate::clock::Timestamp;
use crate::ltx::FileName;
use crate::ltx::{FileId, Level, Txid};
use crate::runtime::block_on;
use crate::store::tests::conformance::of_many_writers_at_once_one_wins;
use crate::store::tests::recorder::{Answer, Recorder, Seen, request, silence, status};
use crate::store::tests::s3_server::S3Server;
use crate::store::{Layout, Location, Replica, RetryPolicy};

fn refusal(code: u16, name: &str) -> Answer {
    status(code).body(format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>{name}</Code><Message>In the store's words</Message>\
         </Error>"
    ))
}

/// The replica below `p`.
fn replica(bucket: S3Bucket) -> Replica {
    Replica::new(Arc::new(bucket), "p", Layout::Numbered)
}

impl Recorder {
    /// The answers, in order; the last one for all further requests.
    fn scripted(answers: Vec<Answer>) -> Self {
        let next = Mutex::new(answers.into_iter().peekable());
        Self::start(move |_| {
            let mut next = next.lock().unwrap();
            let answer = next.next().expect("BUG: more requests than answers");
            if next.peek().is_none() {
                *next = vec![answer.clone(), answer.clone()].into_iter().peekable();
                next.next();
            }
            answer
        })
    }

    fn target(&self, settings: &str) -> S3Location {
        let url = format!(
            "s3://bucket/p?endpoint=127.0.0.1:{}&access-key-id=AK&secret-access-key=hunter2{settings}",
            self.port
        );
        let location = Location::parse(&url, &|_: &str| None).unwrap();
        location.site().as_any().downcast_ref::<S3Location>().unwrap().clone()
    }

    fn store(&self) -> Replica {
        replica(S3Bucket::new(self.target("&region=us-east-1")))
    }

    fn store_in(&self, bucket: &str) -> Replica {
        let target = self.target("&region=us-east-1");
        replica(S3Bucket::new(S3Location { bucket: bucket.to_owned(), ..target }))
    }

    /// One that gives up after a second of silence.
    fn impatient_store(&self) -> Replica {
        replica(S3Bucket::with_idle_timeout(self.target("&region=us-east-1"), Duration::from_secs(1)))
    }
}

fn id(n: u64) -> FileId {
    FileId::new(Level::L0, FileName::single(Txid::new(n).unwrap()))
}

fn options(if_absent: bool) -> PutOptions {
    PutOptions { timestamp: Timestamp::from_millis(1_700_000_000_123), if_absent }
}

const TIMESTAMP: &str = "x-amz-meta-litestream-timestamp";
const KEY: &str = "/bucket/p/0000/0000000000000001-0000000000000001.ltx";

fn found() -> Answer {
    status(200).header("Last-Modified", "Tue, 14 Nov 2023 22:13:20 GMT")
}

/// The error of reading file 1, which names where it was looked for, and no secret.
fn read_error(server: &Recorder) -> Error {
    let store = server.store();
    let e = block_on(async move { store.get(id(1), ByteRange::All).await }).unwrap_err();
    assert!(!e.to_string().contains("hunter2"), "{e}");
    e
}

fn names_the_place(e: &Error, server: &Recorder) {
    let text = e.to_string();
    for part in ["bucket", "us-east-1", &format!("http://127.0.0.1:{}", server.port)] {
        assert!(text.contains(part), "'{part}' is not in: {text}");
    }
}

#[test]
fn a_put_is_one_signed_request_that_every_store_understands() {
    let server = Recorder::scripted(vec![status(200)]);
    let store = server.store();
    let target = replica(S3Bucket::new(
        server.target("&session-token=tok&storage-class=STANDARD_IA&sse-kms-key-id=alias/k&region=eu-west-1"),
    ));
    block_on(async move {
        store.put(id(1), Bytes::from_static(b"hello"), options(true)).await?;
        target.put(id(1), Bytes::from(vec![7; 200_000]), options(false)).await
    })
    .unwrap();
    let seen = server.seen();
    assert_eq!(server.requests(), [format!("PUT {KEY}"), format!("PUT {KEY}")]);
    let first = &seen[0];
    assert_eq!((first.body.as_slice(), first.header("content-length")), (&b"hello"[..], "5"));
    assert_eq!(first.header("if-none-match"), "*");
    assert_eq!(first.header(TIMESTAMP), "2023-11-14T22:13:20.123Z");
    // printf hello | sha256sum
    assert_eq!(
        first.header("x-amz-content-sha256"),
        "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"
    );
    assert!(first.header("authorization").contains(
        "SignedHeaders=content-type;host;x-amz-content-sha256;x-amz-date;x-amz-meta-litestream-timestamp,"
    ));
    assert!(first.header("authorization").contains("/us-east-1/s3/aws4_request"));
    for absent in ["transfer-encoding", "x-amz-trailer", "accept-encoding", "expect", "x-amz-security-token"]
    {
        assert_eq!(first.header(absent), "", "{absent}");
    }
    assert!(!first.headers.keys().any(|name| name.contains("checksum")));
    let second = &seen[1];
    assert_eq!((second.body.len(), second.header("content-length")), (200_000, "200000"));
    assert_eq!(second.header("if-none-match"), "");
    assert_eq!(second.header("x-amz-security-token"), "tok");
    assert_eq!(second.header("x-amz-storage-class"), "STANDARD_IA");
    assert_eq!(second.header("x-amz-server-side-encryption-aws-kms-key-id"), "alias/k");
    assert!(second.header("authorization").contains("/eu-west-1/s3/"));
}

#[test]
fn a_customers_key_goes_with_every_request_for_content() {
    let server = Recorder::start(|seen| match seen.method.as_str() {
        "HEAD" => found(),
        _ => status(200),
    });
    let key = "A".repeat(43) + "=";
    let store = replica(S3Bucket::new(server.target(&format!("&region=r&sse-customer-key={key}"))));
    block_on(async move {
        store.put(id(1), Bytes::new(), options(false)).await?;
        store.get(id(1), ByteRange::All).await?;
        store.head(id(1)).await.map(drop)
    })
    .unwrap();
    for seen in server.seen() {
        assert_eq!(seen.header("x-amz-server-side-encryption-customer-algorithm"), "AES256");
        assert_eq!(seen.header("x-amz-server-side-encryption-customer-key"), key);
        assert!(!seen.header("x-amz-server-side-encryption-customer-key-md5").is_empty());
    }
}

/// A store that keeps what is put, if its condition holds.
fn atomic() -> Recorder {
    let objects: Mutex<BTreeMap<String, Vec<u8>>> = Mutex::default();
    Recorder::start(move |seen| {
        let mut objects = objects.lock().unwrap();
        match seen.method.as_str() {
            "PUT" if seen.header("if-none-match") == "*" && objects.contains_key(&seen.path) => {
                refusal(412, "PreconditionFailed")
            }
            "PUT" => {
                objects.insert(seen.path.clone(), seen.body.clone());
                status(200)
            }
            "GET" => objects
                .get(&seen.path)
                .map_or(refusal(404, "NoSuchKey"), |body| status(200).body(body.clone())),
            _ => status(405),
        }
    })
}

#[test]
fn of_many_writers_one_wins_where_the_store_decides_atomically() {
    let server = atomic();
    block_on(of_many_writers_at_once_one_wins(Arc::new(server.store()))).unwrap();
}

#[test]
fn a_store_without_conditions_is_asked_first() {
    let server = Recorder::start(|seen| match (seen.method.as_str(), seen.header("if-none-match")) {
        (_, "*") => refusal(501, "NotImplemented"),
        ("HEAD", _) if seen.path.contains("0000000000000002") => found(),
        ("HEAD", _) => status(404),
        _ => status(200),
    });
    let store = server.store();
    let same = store.clone();
    block_on(async move {
        assert_eq!(store.fencing(), Fencing::Unproven);
        store.put(id(1), Bytes::from_static(b"x"), options(true)).await?;
        assert_eq!(store.fencing(), Fencing::LookFirst);
        let e = store.put(id(2), Bytes::from_static(b"x"), options(true)).await.unwrap_err();
        assert_eq!(e.kind(), ErrorKind::AlreadyExists);
        Ok(())
    })
    .unwrap();
    let methods: Vec<String> = server.seen().into_iter().map(|seen| seen.method).collect();
    assert_eq!(methods, ["PUT", "HEAD", "PUT", "HEAD"]);
    assert_eq!(same.fencing(), Fencing::LookFirst);
}

#[test]
fn a_store_that_ignores_conditions_is_found_out() {
    let server = Recorder::start(|seen| if seen.method == "HEAD" { found() } else { status(200) });
    let store = server.store();
    block_on(async move {
        store.put(id(1), Bytes::from_static(b"x"), options(true)).await?;
        assert_eq!(store.fencing(), Fencing::Unproven);
        store.prove_fencing(id(1), Bytes::from_static(b"x"), options(true)).await?;
        assert_eq!(store.fencing(), Fencing::LookFirst);
        let e = store.put(id(2), Bytes::from_static(b"x"), options(true)).await.unwrap_err();
        assert_eq!(e.kind(), ErrorKind::AlreadyExists);
        Ok(())
    })
    .unwrap();
    let server = atomic();
    let store = server.store();
    block_on(async move {
        store.put(id(1), Bytes::from_static(b"x"), options(true)).await?;
        for _ in 0..3 {
            store.prove_fencing(id(1), Bytes::from_static(b"x"), options(true)).await?;
            assert_eq!(store.fencing(), Fencing::Atomic);
        }
        Ok(())
    })
    .unwrap();
    assert_eq!(server.seen().len(), 2, "it is asked once");
}

#[test]
fn a_conflict_of_conditional_writes_is_tried_again() {
    let conflict = refusal(409, "ConditionalRequestConflict");
    let server = Recorder::scripted(vec![conflict.clone(), conflict, refusal(412, "PreconditionFailed")]);
    let store = patient(&server);
    let e = block_on(async move { store.put(id(1), Bytes::new(), options(true)).await }).unwrap_err();
    assert_eq!((e.kind(), server.seen().len()), (ErrorKind::AlreadyExists, 3));
}

/// What stores say with status 409 when something else was under way.
const CONFLICTS: [&str; 5] =
    ["ConditionalRequestConflict", "OperationAborted", "Conflict", "ResourceConflict", "SomethingOfItsOwn"];

#[test]
fn a_conflict_is_tried_again_and_never_taken_for_another_writer() {
    for code in CONFLICTS {
        let answers = vec![refusal(409, code), refusal(409, code), status(200).body("content")];
        let server = Recorder::scripted(answers.clone());
        let store = patient(&server);
        block_on(async move { store.put(id(1), Bytes::from_static(b"x"), options(true)).await }).unwrap();
        assert_eq!(server.seen().len(), 3, "{code}");
        let server = Recorder::scripted(answers);
        let store = patient(&server);
        let body = block_on(async move { store.get(id(1), ByteRange::All).await?.bytes().await }).unwrap();
        assert_eq!((&body[..], server.seen().len()), (&b"content"[..], 3), "{code}");
    }
    // No code at all, as from a proxy.
    let server = Recorder::scripted(vec![status(409), status(200)]);
    let store = patient(&server);
    block_on(async move { store.delete(&[id(1)]).await }).unwrap();
}

#[test]
fn a_conflict_that_stays_is_named_and_passes() {
    let server = Recorder::scripted(vec![refusal(409, "OperationAborted")]);
    let policy =
        RetryPolicy { max_attempts: 3, base_delay: Duration::from_millis(1), ..RetryPolicy::default() };
    let store = server.store().patient(policy);
    let e = block_on(async move { store.put(id(1), Bytes::new(), options(true)).await }).unwrap_err();
    assert_eq!((e.kind(), server.seen().len()), (ErrorKind::Unavailable, 3));
    assert!(e.to_string().contains("OperationAborted") && e.to_string().contains("for now"), "{e}");
}

#[test]
fn a_store_may_say_with_status_409_that_a_file_is_there() {
    for code in ["FileAlreadyExists", "ObjectAlreadyExists", "KeyAlreadyExists"] {
        let server = Recorder::scripted(vec![refusal(409, code)]);
        let store = patient(&server);
        let e = block_on(async move { store.put(id(1), Bytes::new(), options(true)).await }).unwrap_err();
        assert_eq!((e.kind(), server.seen().len()), (ErrorKind::AlreadyExists, 1), "{code}");
    }
}

#[test]
fn a_conflict_of_a_completion_is_tried_again() {
    for code in CONFLICTS {
        for if_absent in [true, false] {
            let attempts = Mutex::new(0);
            let server = multipart_where(status(404), move |_| {
                let mut attempts = attempts.lock().unwrap();
                *attempts += 1;
                if *attempts <= 2 {
                    refusal(409, code)
                } else {
                    status(200).body("<CompleteMultipartUploadResult/>")
                }
            });
            let policy = RetryPolicy { base_delay: Duration::from_millis(1), ..RetryPolicy::default() };
            let store = server.store().patient(policy);
            block_on(async move {
                let mut upload = store.upload(id(1), options(if_absent)).await?;
                upload.part(Bytes::from_static(b"12345")).await?;
                upload.part(Bytes::from_static(b"678")).await?;
                upload.complete().await
            })
            .unwrap_or_else(|e| panic!("{code}: {e}"));
        }
    }
}

#[test]
fn an_upload_that_the_store_forgot_is_to_be_written_again() {
    let server = multipart_where(status(404), |_| refusal(404, "NoSuchUpload"));
    let store = server.store();
    let e = block_on(async move { upload_two(&store, true).await }).unwrap_err();
    assert!(e.kind() == ErrorKind::Unavailable && e.to_string().contains("written again"), "{e}");
}

fn patient(server: &Recorder) -> Replica {
    let policy = RetryPolicy { base_delay: Duration::from_millis(1), ..RetryPolicy::default() };
    server.store().patient(policy)
}

#[test]
fn failures_that_pass_are_tried_again() {
    let silent = silence();
    let server = Recorder::scripted(vec![
        refusal(503, "SlowDown"),
        status(429),
        status(500),
        silent,
        refusal(400, "RequestTimeout"),
        status(200).body("content"),
    ]);
    let store = patient(&server);
    let body = block_on(async move { store.get(id(1), ByteRange::All).await?.bytes().await });
    assert_eq!((&body.unwrap()[..], server.seen().len()), (&b"content"[..], 6));
}

#[test]
fn a_body_that_breaks_off_is_an_error_and_goes_on_behind_patience() {
    let cut = status(200).body("0123456789").cut(4);
    let server = Recorder::scripted(vec![cut.clone()]);
    let store = server.store();
    let e = block_on(async move { store.get(id(1), ByteRange::All).await?.bytes().await }).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Unavailable, "{e}");

    let rest = status(206).header("Content-Range", "bytes 4-9/10").body("456789");
    let server = Recorder::scripted(vec![cut, rest]);
    let store = patient(&server);
    let body = block_on(async move { store.get(id(1), ByteRange::All).await?.bytes().await }).unwrap();
    assert_eq!(&body[..], b"0123456789");
    assert_eq!(server.seen()[1].header("range"), "bytes=4-9");
}

#[test]
fn a_server_that_ignores_ranges_is_understood() {
    let server = Recorder::scripted(vec![status(200).body("0123456789")]);
    let store = server.store();
    block_on(async move {
        for (range, offset, expected) in [
            (ByteRange::Bounded { offset: 3, len: 4 }, 3, "3456"),
            (ByteRange::Prefix { len: 3 }, 0, "012"),
            (ByteRange::Prefix { len: 30 }, 0, "0123456789"),
            (ByteRange::Suffix { len: 3 }, 7, "789"),
            (ByteRange::Suffix { len: 30 }, 0, "0123456789"),
        ] {
            let content = store.get(id(1), range).await?;
            assert_eq!((content.offset, content.file_size), (offset, 10));
            assert_eq!(&content.bytes().await?[..], expected.as_bytes());
        }
        Ok(())
    })
    .unwrap();
}

#[test]
fn another_range_than_was_asked_for_is_refused() {
    for content_range in ["bytes 0-3/10", "bytes 5-9/10", "bytes 3-1/10", "bytes */10", "nonsense"] {
        let server =
            Recorder::scripted(vec![status(206).header("Content-Range", content_range).body("0123")]);
        let store = server.store();
        let range = ByteRange::Bounded { offset: 3, len: 4 };
        let e = block_on(async move { store.get(id(1), range).await }).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::WrongAnswer, "{content_range}: {e}");
    }
}

#[test]
fn a_redirect_to_another_region_is_followed_once() {
    // With a region that nobody gave, the store's word is taken.
    let redirect = status(301).header("x-amz-bucket-region", "eu-central-1");
    let server = Recorder::scripted(vec![redirect.clone(), status(200).body("x"), status(200).body("y")]);
    let mut target = server.target("");
    target.region = None;
    let store = replica(S3Bucket::new(target));
    block_on(async move {
        store.get(id(1), ByteRange::All).await?.bytes().await?;
        store.get(id(1), ByteRange::All).await?.bytes().await
    })
    .unwrap();
    let regions: Vec<bool> =
        server.seen().iter().map(|seen| seen.header("authorization").contains("/eu-central-1/")).collect();
    assert_eq!(regions, [false, true, true]);

    // A region that was given stays, and the message says what to do.
    let server = Recorder::scripted(vec![redirect]);
    let e = read_error(&server);
    assert_eq!((e.kind(), server.seen().len()), (ErrorKind::Config, 1));
    assert!(e.to_string().contains("set region=eu-central-1"), "{e}");
    names_the_place(&e, &server);

    let malformed = status(400).body(
        "<Error><Code>AuthorizationHeaderMalformed</Code><Message>m</Message><Region>garage</Region></Error>",
    );
    let e = read_error(&Recorder::scripted(vec![malformed]));
    assert!(e.kind() == ErrorKind::Config && e.to_string().contains("region=garage"), "{e}");
}

#[test]
fn refusals_name_bucket_endpoint_region_and_remedy() {
    for (answer, kind, remedy) in [
        (refusal(404, "NoSuchBucket"), ErrorKind::NoBucket, "create it"),
        (refusal(403, "AccessDenied"), ErrorKind::Denied, "policy"),
        (refusal(403, "InvalidAccessKeyId"), ErrorKind::Denied, "check access-key-id"),
        (refusal(403, "SignatureDoesNotMatch"), ErrorKind::Denied, "check secret-access-key"),
        (refusal(403, "RequestTimeTooSkewed"), ErrorKind::Denied, "set the clock"),
        (refusal(400, "ExpiredToken"), ErrorKind::Denied, "renew"),
        (status(403), ErrorKind::Denied, "credentials"),
        (refusal(400, "InvalidArgument"), ErrorKind::Config, "In the store's words"),
        (refusal(503, "SlowDown"), ErrorKind::Unavailable, "SlowDown"),
        (status(502).body("<html>Bad gateway</html>"), ErrorKind::Unavailable, "502"),
    ] {
        let server = Recorder::scripted(vec![answer]);
        let e = read_error(&server);
        assert_eq!(e.kind(), kind, "{e}");
        assert!(e.to_string().contains(remedy), "'{remedy}' is not in: {e}");
        names_the_place(&e, &server);
    }
    let e = read_error(&Recorder::scripted(vec![refusal(404, "NoSuchKey")]));
    assert_eq!(e.to_string(), "replica s3://bucket/p has no p/0000/0000000000000001-0000000000000001.ltx");
}

#[test]
fn a_store_that_repeats_the_secret_does_not_make_us_repeat_it() {
    let body = "<Error><Code>Odd</Code><Message>hunter2 is what you sent\nand</Message></Error>";
    let e = read_error(&Recorder::scripted(vec![status(400).body(body)]));
    assert!(e.to_string().contains("(secret) is what you sent and"), "{e}");
}

#[test]
fn nobody_at_the_endpoint_is_named() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let server = Recorder::of_nobody(port);
    let e = read_error(&server);
    assert_eq!(e.kind(), ErrorKind::Unavailable);
    assert!(e.to_string().contains(&format!("cannot connect to http://127.0.0.1:{port}")), "{e}");
    assert!(e.to_string().contains("refused"), "{e}");
}

fn page(keys: &[u64], next: Option<&str>) -> Answer {
    let mut xml = String::from(
        "<?xml version=\"1.0\"?><ListBucketResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">",
    );
    for n in keys {
        xml += &format!(
            "<Contents><Key>p/0000/{n:016x}-{n:016x}.ltx</Key><LastModified>2023-11-14T22:13:20.000Z</LastModified>\
             <ETag>&quot;x&quot;</ETag><Size>{n}</Size><StorageClass>STANDARD</StorageClass></Contents>"
        );
    }
    xml += "<Contents><Key>p/0000/x</Key><LastModified>2023-11-14T22:13:20Z</LastModified><Size>1</Size></Contents>";
    xml += &format!("<IsTruncated>{}</IsTruncated>", next.is_some());
    if let Some(token) = next.filter(|token| !token.is_empty()) {
        xml += &format!("<NextContinuationToken>{token}</NextContinuationToken>");
    }
    status(200).body(xml + "</ListBucketResult>")
}

fn list(server: &Recorder, from: u64) -> Result<Vec<u64>> {
    let store = server.store();
    let files = block_on(async move { store.list(Level::L0, Txid::new(from).unwrap()).await })?;
    Ok(files.into_iter().map(|file| file.id.name.min().get()).collect())
}

#[test]
fn listings_go_from_page_to_page() {
    let server =
        Recorder::scripted(vec![page(&[1, 2], Some("a+b/c=")), page(&[3], Some("d")), page(&[4], None)]);
    assert_eq!(list(&server, 1).unwrap(), [1, 2, 3, 4]);
    assert_eq!(
        server.requests(),
        [
            "GET /bucket/?list-type=2&prefix=p%2F0000%2F",
            "GET /bucket/?continuation-token=a%2Bb%2Fc%3D&list-type=2&prefix=p%2F0000%2F",
            "GET /bucket/?continuation-token=d&list-type=2&prefix=p%2F0000%2F",
        ]
    );
}

#[test]
fn listings_start_where_they_are_wanted_even_if_the_store_does_not() {
    let server = Recorder::scripted(vec![page(&[1, 2, 4, 3], None)]);
    assert_eq!(list(&server, 3).unwrap(), [3, 4]);
    assert_eq!(
        server.requests(),
        ["GET /bucket/?list-type=2&prefix=p%2F0000%2F&start-after=p%2F0000%2F0000000000000003"]
    );
}

#[test]
fn listings_that_do_not_end_are_errors() {
    for answers in [vec![page(&[1], Some("a"))], vec![page(&[1], Some(""))]] {
        assert_eq!(list(&Recorder::scripted(answers), 1).unwrap_err().kind(), ErrorKind::WrongAnswer);
    }
}

#[test]
fn a_page_of_html_is_not_an_empty_listing() {
    for body in ["<html><body>Welcome</body></html>", "", "not xml at all", "<ListBucketResult><Contents>"] {
        let e = list(&Recorder::scripted(vec![status(200).body(body)]), 1).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::WrongAnswer, "{body}: {e}");
    }
}

#[test]
fn deletions_carry_their_md5_and_report_what_failed() {
    let answer = "<DeleteResult><Error><Key>p/0000/a&amp;b</Key><Code>AccessDenied</Code><Message>no</Message></Error>\
                  <Error><Key>y</Key><Code>NoSuchKey</Code></Error><Error><Key>z</Key><Code>InternalError</Code></Error>\
                  </DeleteResult>";
    let server = Recorder::scripted(vec![status(200).body(answer)]);
    let store = server.store();
    let e = block_on(async move { store.delete(&[id(1), id(2)]).await }).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Denied, "{e}");
    assert!(e.to_string().contains("'p/0000/a&b' and 1 more"), "{e}");
    let seen = &server.seen()[0];
    assert_eq!(seen.path, "/bucket/?delete=");
    let md5 = {
        use base64::Engine as _;
        use md5::Digest as _;
        base64::engine::general_purpose::STANDARD.encode(md5::Md5::digest(&seen.body))
    };
    assert_eq!(seen.header("content-md5"), md5);
    assert!(seen.header("authorization").contains("content-md5;"));
    assert!(
        String::from_utf8_lossy(&seen.body)
            .contains("<Key>p/0000/0000000000000002-0000000000000002.ltx</Key>")
    );
}

#[test]
fn a_store_that_deletes_only_singly_is_served() {
    let server = Recorder::start(|seen| match seen.method.as_str() {
        "POST" => refusal(501, "NotImplemented"),
        _ => status(204),
    });
    let store = server.store();
    block_on(async move {
        // A file from 1 on may have a pack, which goes too.
        store.delete(&[id(2), id(3)]).await?;
        store.delete(&[id(4), id(5)]).await
    })
    .unwrap();
    let methods: Vec<String> = server.seen().into_iter().map(|seen| seen.method).collect();
    assert_eq!(methods, ["POST", "DELETE", "DELETE", "DELETE", "DELETE"]);
}

/// A store that takes multipart uploads, and answers their completion as `complete` says.
fn multipart(complete: impl Fn(&Seen) -> Answer + Send + Sync + 'static) -> Recorder {
    multipart_where(found(), complete)
}

/// One that answers `head` when it is asked for the object.
fn multipart_where(head: Answer, complete: impl Fn(&Seen) -> Answer + Send + Sync + 'static) -> Recorder {
    Recorder::start(move |seen| {
        match (seen.method.as_str(), seen.path.split_once('?').map_or("", |(_, q)| q)) {
            ("POST", "uploads=") => status(200).body(
                "<InitiateMultipartUploadResult><UploadId>up 1</UploadId></InitiateMultipartUploadResult>",
            ),
            ("POST", _) => complete(seen),
            ("PUT", "partNumber=2&uploadId=up%201") if seen.body == b"bad" => status(500),
            ("PUT", _) => status(200).header("ETag", format!("\"{}\"", seen.body.len())),
            ("DELETE", _) => status(204),
            _ => head.clone(),
        }
    })
}

async fn upload_two(store: &Replica, if_absent: bool) -> Result<()> {
    let mut upload = store.upload(id(1), options(if_absent)).await?;
    upload.part(Bytes::from_static(b"12345")).await?;
    assert!(upload.part(Bytes::from_static(b"bad")).await.is_err());
    upload.part(Bytes::from_static(b"678")).await?;
    upload.complete().await
}

#[test]
fn an_upload_is_begun_filled_and_completed() {
    let server = multipart(|_| status(200).body("<CompleteMultipartUploadResult/>"));
    let store = server.store();
    block_on(async move { upload_two(&store, true).await }).unwrap();
    assert_eq!(
        server.requests(),
        [
            format!("POST {KEY}?uploads="),
            format!("PUT {KEY}?partNumber=1&uploadId=up%201"),
            format!("PUT {KEY}?partNumber=2&uploadId=up%201"),
            format!("PUT {KEY}?partNumber=2&uploadId=up%201"),
            format!("POST {KEY}?uploadId=up%201"),
        ]
    );
    let seen = server.seen();
    assert_eq!(seen[0].header(TIMESTAMP), "2023-11-14T22:13:20.123Z");
    assert_eq!(seen[4].header("if-none-match"), "*");
    let completion = String::from_utf8_lossy(&seen[4].body);
    assert!(
        completion.contains("<Part><PartNumber>2</PartNumber><ETag>&quot;3&quot;</ETag></Part>"),
        "{completion}"
    );
}

#[test]
fn a_completion_that_says_success_and_means_failure_is_one() {
    for (answer, kind) in [
        (refusal(200, "InternalError"), ErrorKind::Unavailable),
        (refusal(200, "PreconditionFailed"), ErrorKind::AlreadyExists),
        (refusal(412, "PreconditionFailed"), ErrorKind::AlreadyExists),
        (refusal(409, "ConditionalRequestConflict"), ErrorKind::AlreadyExists),
        (refusal(400, "InvalidPart"), ErrorKind::Config),
    ] {
        let server = multipart(move |_| answer.clone());
        let store = server.store();
        let e = block_on(async move { upload_two(&store, true).await }).unwrap_err();
        assert_eq!(e.kind(), kind, "{e}");
    }
}

#[test]
fn a_completion_whose_answer_was_lost_is_found_to_be_done() {
    for (if_absent, size, expected) in [
        (false, 8, None),
        (false, 9, Some(ErrorKind::Unavailable)),
        (true, 8, Some(ErrorKind::AlreadyExists)),
    ] {
        let attempts = Mutex::new(0);
        let server =
            Recorder::start(move |seen| match (seen.method.as_str(), seen.path.contains("uploads=")) {
                ("POST", true) => status(200).body(
                    "<InitiateMultipartUploadResult><UploadId>u</UploadId></InitiateMultipartUploadResult>",
                ),
                ("POST", false) => {
                    let mut attempts = attempts.lock().unwrap();
                    *attempts += 1;
                    if *attempts == 1 { silence() } else { refusal(404, "NoSuchUpload") }
                }
                ("PUT", _) => status(200).header("ETag", "\"e\""),
                ("HEAD", _) => found().header("Content-Length", size.to_string()),
                _ => status(204),
            });
        let store = server.store();
        let result = block_on(async move {
            let mut upload = store.upload(id(1), options(if_absent)).await?;
            upload.part(Bytes::from_static(b"12345")).await?;
            upload.part(Bytes::from_static(b"678")).await?;
            assert_eq!(upload.complete().await.unwrap_err().kind(), ErrorKind::Unavailable);
            upload.complete().await
        });
        assert_eq!(result.err().map(|e| e.kind()), expected, "if_absent {if_absent} size {size}");
    }
}

#[test]
fn the_parts_of_an_upload_that_is_given_up_are_removed() {
    let server = multipart(|_| status(500));
    let store = server.store();
    block_on(async move {
        let mut upload = store.upload(id(1), options(true)).await?;
        for _ in 0..2 {
            upload.part(Bytes::from_static(b"12345")).await?;
        }
        upload.abort().await?;
        assert_eq!(upload.complete().await.unwrap_err().kind(), ErrorKind::Interrupted);
        Ok(())
    })
    .unwrap();
    assert_eq!(server.requests().last().unwrap(), &format!("DELETE {KEY}?uploadId=up%201"));
}

#[test]
fn a_file_without_metadata_has_the_time_at_which_it_was_stored() {
    let server = Recorder::scripted(vec![
        found().header("Content-Length", "7"),
        found().header("Content-Length", "7").header(TIMESTAMP, "2020-01-02T03:04:05.678901234Z"),
    ]);
    let store = server.store();
    block_on(async move {
        assert_eq!(store.head(id(1)).await?.timestamp, Timestamp::from_millis(1_700_000_000_000));
        let head = store.head(id(1)).await?;
        assert_eq!((head.size, head.timestamp.to_string().as_str()), (7, "2020-01-02T03:04:05.678Z"));
        Ok(())
    })
    .unwrap();
}

#[test]
fn a_real_server_keeps_litestreams_layout_and_tells_what_is_wrong() {
    let server = S3Server::shared();
    let path = server.fresh_path();
    let store = server.target(&path).connect();
    let folder = server.folder(&path);
    std::fs::create_dir_all(folder.join("0000/sub")).unwrap();
    for junk in ["0000/README", "0000/sub/0000000000000003-0000000000000003.ltx"] {
        std::fs::write(folder.join(junk), "x").unwrap();
    }
    let wrong =
        |bucket: &str, key: &str, secret: &str| server.target_with(bucket, &path, key, secret).connect();
    let (no_bucket, no_key, no_secret) = (
        wrong("missing", "AKTEST", "hunter2"),
        wrong("bucket", "AKOTHER", "hunter2"),
        wrong("bucket", "AKTEST", "hunter3"),
    );
    block_on(async move {
        store.put(id(1), Bytes::from_static(b"x"), options(true)).await?;
        let names: Vec<String> =
            store.list(Level::L0, Txid::ONE).await?.iter().map(|file| file.id.name.to_string()).collect();
        assert_eq!(names, ["0000000000000001-0000000000000001.ltx"]);
        let e = no_bucket.list(Level::L0, Txid::ONE).await.unwrap_err();
        assert!(
            e.kind() == ErrorKind::NoBucket && e.to_string().contains("bucket 'missing' does not exist"),
            "{e}"
        );
        for denied in [no_key, no_secret] {
            let e = denied.list(Level::L0, Txid::ONE).await.unwrap_err();
            assert!(e.kind() == ErrorKind::Denied && !e.to_string().contains("hunter"), "{e}");
        }
        Ok(())
    })
    .unwrap();
    assert_eq!(std::fs::read(folder.join("0000/0000000000000001-0000000000000001.ltx")).unwrap(), b"x");
}

#[test]
fn a_server_that_falls_silent_is_given_up() {
    // It keeps its connections open and says nothing, or nothing more.
    for beginning in ["", "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n0123"] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = Recorder::of_nobody(listener.local_addr().unwrap().port());
        let connection = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            request(&mut BufReader::new(&stream)).unwrap();
            stream.write_all(beginning.as_bytes()).unwrap();
            // Until the client hangs up.
            let _ = std::io::copy(&mut stream, &mut std::io::sink());
        });
        let store = server.impatient_store();
        let e = block_on(async move { store.get(id(1), ByteRange::All).await?.bytes().await }).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Timeout, "{e}");
        assert!(e.to_string().contains(&format!("http://127.0.0.1:{} was silent", server.port)), "{e}");
        connection.join().unwrap();
    }
}

#[test]
fn a_slow_upload_is_not_given_up_while_it_advances() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let server = Recorder::of_nobody(listener.local_addr().unwrap().port());
    const SIZE: usize = 32 << 20;
    let reader = std::thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        let mut reader = BufReader::with_capacity(1 << 20, &stream);
        let mut line = String::new();
        while line != "\r\n" {
            line.clear();
            reader.read_line(&mut line).unwrap();
        }
        // Longer in all than the limit, and never as long between two pieces.
        let mut piece = vec![0; SIZE / 16];
        for _ in 0..16 {
            std::thread::sleep(Duration::from_millis(100));
            reader.read_exact(&mut piece).unwrap();
        }
        (&stream).write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").unwrap();
    });
    let store = server.impatient_store();
    block_on(async move { store.put(id(1), Bytes::from(vec![1; SIZE]), options(false)).await }).unwrap();
    reader.join().unwrap();
}

/// PUTs that are held until the gate opens: how many there are, how many there were at most.
#[derive(Default)]
struct Held {
    now: usize,
    most: usize,
    open: bool,
}

#[test]
fn many_databases_take_turns_and_readers_do_not_wait_for_them() {
    let held = Arc::new((Mutex::new(Held::default()), std::sync::Condvar::new()));
    let at_server = Arc::clone(&held);
    let server = Recorder::start(move |seen| {
        if seen.method == "PUT" && seen.path.starts_with("/bucket/") {
            let (held, changed) = &*at_server;
            let mut held = held.lock().unwrap();
            held.now += 1;
            held.most = held.most.max(held.now);
            changed.notify_all();
            held = changed.wait_while(held, |held| !held.open).unwrap();
            held.now -= 1;
        }
        found().body("content")
    });
    let (one, other) = (server.store(), server.store());
    let writers = {
        let stores = [one.clone(), other.clone()];
        std::thread::spawn(move || {
            block_on(async move {
                let put = |n| stores[n as usize % 2].put(id(n), Bytes::from_static(b"x"), options(false));
                futures_util::future::try_join_all((1..=http::TURNS as u64 + 8).map(put)).await
            })
        })
    };
    let (state, changed) = &*held;
    drop(changed.wait_while(state.lock().unwrap(), |held| held.now < http::TURNS).unwrap());
    let read = block_on(async move { other.get(id(1), ByteRange::All).await?.bytes().await }).unwrap();
    assert_eq!(read, "content");
    let elsewhere = server.store_in("another-bucket");
    block_on(async move { elsewhere.put(id(1), Bytes::from_static(b"x"), options(false)).await }).unwrap();
    state.lock().unwrap().open = true;
    changed.notify_all();
    writers.join().unwrap().unwrap();
    assert_eq!(state.lock().unwrap().most, http::TURNS);
}

#[test]
fn merges_and_uploads_take_turns() {
    for work in [Work::Merge, Work::Upload] {
        such_work_takes_turns(work);
    }
}

fn such_work_takes_turns(work: Work) {
    let server = Recorder::scripted(vec![status(200)]);
    let [one, two, three] = ["one", "two", "three"].map(|bucket| server.store_in(bucket));
    let all_of = |store: &Replica| -> Vec<_> {
        let store = store.clone();
        let turns = async move { Ok(join_all((0..work.turns()).map(|_| store.turn(work))).await) };
        block_on(turns).unwrap()
    };
    let waits_for = |store: &Replica| {
        let store = store.clone();
        let waits = std::thread::spawn(move || {
            block_on(async move { Ok(store.turn(work).await.is_some()) }).unwrap()
        });
        // Requests are not held up, and until that one is answered there was time to get a turn.
        let answered = one.clone();
        block_on(async move { answered.put(id(1), Bytes::from_static(b"x"), options(false)).await }).unwrap();
        assert!(!waits.is_finished(), "there was one more turn");
        waits
    };
    let mut of_one = all_of(&one);
    let more_of_one = waits_for(&one);
    // A bucket that does not answer does not hold up another one.
    let _of_two = all_of(&two);
    let of_three = waits_for(&three);
    of_one.pop();
    of_one.pop();
    assert!(more_of_one.join().unwrap() && of_three.join().unwrap());
}

/// Runs in a process of its own, whose environment another test has set: lists the replica that
/// `TEST_REPLICA` names and prints what came of it.
#[test]
#[ignore = "other tests run it"]
fn in_an_environment() {
    let url = std::env::var("TEST_REPLICA").unwrap();
    let store = Location::parse(&url, &|_: &str| None).unwrap().connect();
    match block_on(async move { store.list(Level::L0, Txid::ONE).await }) {
        Ok(files) => println!("result: {} files", files.len()),
        Err(e) => println!("result: {:?} {e}", e.kind()),
    }
}

fn listed_in(environment: &[(&str, &str)], url: &str) -> String {
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "store::provider::s3::tests::in_an_environment", "--ignored", "--nocapture"])
        .env_clear()
        .env("AWS_EC2_METADATA_DISABLED", "true")
        .envs(environment.iter().copied())
        .env("TEST_REPLICA", url)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let result = text.lines().find_map(|line| line.split_once("result: "));
    result.map_or_else(|| panic!("{text}"), |(_, result)| result.to_owned())
}

#[test]
fn credentials_region_and_endpoint_come_from_aws_configuration() {
    let server = Recorder::scripted(vec![page(&[1, 2], None)]);
    let endpoint = format!("http://127.0.0.1:{}", server.port);
    let folder = tempfile::TempDir::new().unwrap();
    let config = folder.path().join("config");
    std::fs::write(
        &config,
        format!(
            "[profile p]\naws_access_key_id = AKPROFILE\naws_secret_access_key = s\nregion = eu-north-1\n\
             services = dev\n[services dev]\ns3 =\n  endpoint_url = {endpoint}\n"
        ),
    )
    .unwrap();
    let profile = [("AWS_CONFIG_FILE", config.to_str().unwrap()), ("AWS_PROFILE", "p")];
    assert_eq!(listed_in(&profile, "s3://bucket/p"), "2 files");
    let variables = [
        ("AWS_ACCESS_KEY_ID", "AKVARIABLE"),
        ("AWS_SECRET_ACCESS_KEY", "s"),
        ("AWS_SESSION_TOKEN", "token"),
        ("AWS_REGION", "us-west-2"),
    ];
    assert_eq!(listed_in(&variables, &format!("s3://bucket/p?endpoint={endpoint}")), "2 files");
    let seen = server.seen();
    assert!(seen[0].header("authorization").contains("Credential=AKPROFILE/"));
    assert!(seen[0].header("authorization").contains("/eu-north-1/s3/"));
    assert!(seen[1].header("authorization").contains("Credential=AKVARIABLE/"));
    assert!(seen[1].header("authorization").contains("/us-west-2/s3/"));
    assert_eq!(seen[1].header("x-amz-security-token"), "token");
}

/// A store, and what gives credentials: at `path`, `answer`; under `/bucket`, a listing.
fn store_and_credentials(path: &'static str, answer: &'static str) -> Recorder {
    Recorder::start(move |seen| match seen.path.split('?').next() {
        Some(asked) if asked == path => status(200).body(answer),
        _ if seen.path.starts_with("/bucket") => page(&[1, 2], None),
        _ => status(404),
    })
}

#[test]
fn a_container_gives_credentials() {
    let server = store_and_credentials(
        "/credentials",
        r#"{"AccessKeyId": "AKCONTAINER", "SecretAccessKey": "s", "Token": "t", "Expiration": "2999-01-01T00:00:00Z"}"#,
    );
    let here = format!("http://127.0.0.1:{}", server.port);
    let variables = [
        ("AWS_CONTAINER_CREDENTIALS_FULL_URI", &*format!("{here}/credentials")),
        ("AWS_CONTAINER_AUTHORIZATION_TOKEN", "may-i"),
        ("AWS_REGION", "us-west-2"),
        // It would lead nowhere.
        ("HTTP_PROXY", "http://127.0.0.1:1"),
    ];
    assert_eq!(listed_in(&variables, &format!("s3://bucket/p?endpoint={here}")), "2 files");
    let seen = server.seen();
    assert_eq!((&*seen[0].path, seen[0].header("authorization")), ("/credentials", "may-i"));
    assert!(seen[1].header("authorization").contains("Credential=AKCONTAINER/"));
    assert_eq!(seen[1].header("x-amz-security-token"), "t");
}

#[test]
fn a_role_is_assumed_with_a_web_identity() {
    let server = store_and_credentials(
        "/",
        "<AssumeRoleWithWebIdentityResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\">\
         <AssumeRoleWithWebIdentityResult><Credentials><AccessKeyId>AKROLE</AccessKeyId>\
         <SecretAccessKey>s</SecretAccessKey><SessionToken>t</SessionToken>\
         <Expiration>2999-01-01T00:00:00Z</Expiration></Credentials></AssumeRoleWithWebIdentityResult>\
         </AssumeRoleWithWebIdentityResponse>",
    );
    let here = format!("http://127.0.0.1:{}", server.port);
    let token = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(token.path(), "the-token").unwrap();
    let variables = [
        ("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/r"),
        ("AWS_WEB_IDENTITY_TOKEN_FILE", token.path().to_str().unwrap()),
        ("AWS_ENDPOINT_URL_STS", &*here),
        ("AWS_REGION", "us-west-2"),
    ];
    assert_eq!(listed_in(&variables, &format!("s3://bucket/p?endpoint={here}")), "2 files");
    let seen = server.seen();
    let asked = String::from_utf8(seen[0].body.clone()).unwrap();
    assert!(asked.contains("Action=AssumeRoleWithWebIdentity") && asked.contains("the-token"), "{asked}");
    assert!(seen[1].header("authorization").contains("Credential=AKROLE/"));
}

#[test]
fn without_credentials_the_message_says_how_to_give_them() {
    let result = listed_in(&[], "s3://bucket/p?endpoint=http://127.0.0.1:1");
    assert!(result.starts_with("Denied") && result.contains("AWS_ACCESS_KEY_ID"), "{result}");
}

#[test]
fn a_bundle_of_certificates_that_cannot_be_used_is_named() {
    let url = "s3://bucket/p?endpoint=https://127.0.0.1:1&access-key-id=a&secret-access-key=b&region=r";
    for bundle in ["/no/such/file", "/dev/null"] {
        let result = listed_in(&[("AWS_CA_BUNDLE", bundle)], url);
        assert!(result.starts_with("Config") && result.contains(bundle), "{result}");
    }
}

#[test]
fn unfinished_uploads_are_given_up_page_by_page_and_no_others() {
    let page = |more: &str, uploads: &[(&str, &str)]| {
        let upload =
            |(key, id): &(&str, &str)| format!("<Upload><Key>{key}</Key><UploadId>{id}</UploadId></Upload>");
        let uploads: String = uploads.iter().map(upload).collect();
        let text = format!("<ListMultipartUploadsResult>{more}{uploads}</ListMultipartUploadsResult>");
        status(200).body(text)
    };
    let more = "<IsTruncated>true</IsTruncated><NextKeyMarker>p/0000/b</NextKeyMarker>\
                <NextUploadIdMarker>two</NextUploadIdMarker>";
    let first = page(more, &[("p/0000/a", "one"), ("p/0000/b", "two")]);
    let last = page("", &[("p/0000/b", "three"), ("another", "four")]);
    let server = Recorder::start(move |seen| match (&*seen.method, &*seen.path) {
        ("DELETE", _) => status(204),
        (_, path) if path.contains("key-marker") => last.clone(),
        _ => first.clone(),
    });
    let bucket = S3Bucket::new(server.target("&region=us-east-1"));
    assert_eq!(block_on(async move { bucket.abort_uploads("p/0000/").await }).unwrap(), 3);
    assert_eq!(
        server.requests(),
        [
            "GET /bucket/?prefix=p%2F0000%2F&uploads=",
            "DELETE /bucket/p/0000/a?uploadId=one",
            "DELETE /bucket/p/0000/b?uploadId=two",
            "GET /bucket/?key-marker=p%2F0000%2Fb&prefix=p%2F0000%2F&upload-id-marker=two&uploads=",
            "DELETE /bucket/p/0000/b?uploadId=three",
        ]
    );
    // A store that does not know this has none to give up.
    let server = Recorder::start(|_| refusal(501, "NotImplemented"));
    let bucket = S3Bucket::new(server.target("&region=us-east-1"));
    assert_eq!(block_on(async move { bucket.abort_uploads("p/0000/").await }).unwrap(), 0);
}
