//! What an emulator does not do: conditions of resumable uploads, credentials, refusals, answers that are lost.

use std::sync::Mutex;
use std::time::{SystemTime, UNIX_EPOCH};

use reqwest::Method;
use serde_json::json;
use tempfile::TempDir;

use super::*;
use crate::clock::Timestamp;
use crate::store::Lookup;
use crate::store::auth::jwt_tests::{new_key, read as read_token};
use crate::store::http::call::Call;
use crate::store::tests::recorder::{Answer, Recorder, Seen, run, silence, status};

use crate::store::{Settings, Source};

pub(in crate::store) mod server;

use server::{Fault, GcsServer, refusal};

const PART: usize = 5 << 20;
const TIME: Timestamp = Timestamp::from_millis(1_700_000_000_123);

struct Around;

impl Lookup for Around {
    fn param(&self, _: &str) -> Option<String> {
        None
    }

    fn env(&self, variable: &str) -> Option<String> {
        (variable == "STORAGE_EMULATOR_HOST").then(|| "emulator:4443".to_owned())
    }
}

struct Nothing;

impl Lookup for Nothing {
    fn param(&self, _: &str) -> Option<String> {
        None
    }

    fn env(&self, _: &str) -> Option<String> {
        None
    }
}

fn site_from(rest: &str, query: &str, around: &dyn Lookup) -> Result<GcsSite> {
    let settings = Settings::new(&PROVIDER, query, around)?;
    let site = (PROVIDER.locate)(&Source::Url { scheme: "gs", rest }, &settings)?;
    Ok(site.as_any().downcast_ref::<GcsSite>().unwrap().clone())
}

fn bucket_at(recorder: &Recorder) -> GcsBucket {
    let query = format!("endpoint={}&part-size={PART}", recorder.endpoint());
    GcsBucket::new(site_from("//bucket/p", &query, &Nothing).unwrap())
}

/// Makes the bucket that tests use at an emulator.
pub(in crate::store) fn make_bucket(endpoint: &str) {
    let site = site_from("//bucket/p", &format!("endpoint={endpoint}"), &Nothing).unwrap();
    let bucket = GcsBucket::new(site);
    let call = Call::new(Method::POST, "/storage/v1/b?project=p")
        .header("content-type", "application/json")
        .body(r#"{"name": "bucket"}"#.into());
    run(async { bucket.session().await.unwrap().send(&call, Way::Usual).await.map(drop) }).unwrap();
}

fn options(if_absent: bool) -> PutOptions {
    PutOptions { timestamp: TIME, if_absent }
}

fn body(len: usize) -> Bytes {
    (0..len).map(|i| (i * 7 + i / 251) as u8).collect()
}

async fn read(bucket: &GcsBucket, key: &str, range: ByteRange) -> Result<Bytes> {
    bucket.get(key, range, None).await?.bytes().await
}

const KEY: &str = "p/ltx/0/0000000000000001-0000000000000001.ltx";

#[test]
fn urls_are_those_of_litestream() {
    let site = |rest, query| site_from(rest, query, &Nothing).unwrap();
    for (rest, bucket, path) in [
        ("//b/some/path", "b", "some/path"),
        ("/b/some/path", "b", "some/path"),
        ("//b", "b", ""),
        ("//b//x/../y%20z/", "b", "y z"),
    ] {
        let site = site(rest, "");
        assert_eq!((site.bucket.as_str(), site.path.as_str()), (bucket, path), "{rest}");
        assert_eq!((site.endpoint, site.is_emulator), (None, false));
    }
    assert_eq!(site("//b/p", "").url(), "gs://b/p");
    assert_eq!(site("//b/p", "part-size=6000000").part_size, 22 * (256 << 10));
    let private = site("//b/p", "endpoint=https://storage-x.p.googleapis.com/");
    assert_eq!(private.endpoint.as_deref(), Some("https://storage-x.p.googleapis.com"));
    assert!(!private.is_emulator);
    let emulated = site_from("//b/p", "", &Around).unwrap();
    assert_eq!((emulated.endpoint.as_deref(), emulated.is_emulator), (Some("http://emulator:4443"), true));
    for (rest, query) in [
        ("///p", ""),
        ("//me@b/p", ""),
        ("//localhost:4443/p", ""),
        ("//b/p", "region=x"),
        ("//b/p", "part-size=1000"),
        ("//b/p", "endpoint=ftp://x"),
    ] {
        assert_eq!(site_from(rest, query, &Nothing).unwrap_err().kind(), ErrorKind::Config, "{rest}?{query}");
    }
}

#[test]
fn an_object_has_name_content_and_time() {
    let server = GcsServer::start();
    let bucket = bucket_at(&server.recorder);
    run(async {
        bucket.put("p/a b/+%", body(1000), &options(true)).await.unwrap();
        let info = bucket.head("p/a b/+%").await.unwrap();
        assert_eq!((info.key.as_str(), info.size, info.timestamp), ("p/a b/+%", 1000, TIME));
        assert!(info.stored > TIME);
        let page = bucket.list("p/a ", None).await.unwrap();
        assert_eq!(page, Page { entries: vec![info], next: None });
        assert_eq!(
            read(&bucket, "p/a b/+%", ByteRange::Suffix { len: 10 }).await.unwrap(),
            body(1000)[990..]
        );
    });
    assert_eq!(server.metadata("p/a b/+%"), json!({"litestream-timestamp": "2023-11-14T22:13:20.123Z"}));
    let put = &server.recorder.seen()[0];
    assert_eq!(
        put.path,
        "/upload/storage/v1/b/bucket/o?uploadType=multipart&ifGenerationMatch=0&fields=generation"
    );
    // As Google's own tools compute it.
    assert!(put.text().contains("\"crc32c\":\"") && put.header("authorization").is_empty());
}

#[test]
fn the_checksum_is_that_of_google() {
    let bucket = GcsBucket::new(site_from("//bucket/p", "", &Nothing).unwrap());
    let description = bucket.description("k", &options(true), Some(b"123456789"));
    // The check value of CRC-32C is e3069283.
    assert!(description.contains("\"crc32c\":\"4waSgw==\""), "{description}");
}

#[test]
fn a_listing_begins_where_one_asks() {
    let server = GcsServer::start();
    let bucket = bucket_at(&server.recorder);
    run(async {
        for key in ["p/a", "p/b", "p/c", "p/folder/", "q"] {
            bucket.put(key, body(1), &options(true)).await.unwrap();
        }
        let keys = |page: Page<ObjectInfo>| page.entries.into_iter().map(|o| o.key).collect::<Vec<_>>();
        assert_eq!(keys(bucket.list("p/", None).await.unwrap()), ["p/a", "p/b", "p/c"]);
        let after = Some(Next::After("p/a".into()));
        assert_eq!(keys(bucket.list("p/", after).await.unwrap()), ["p/b", "p/c"]);
        bucket.ask_time("p/").await.unwrap();
        assert_eq!(keys(bucket.list("nothing/", None).await.unwrap()), [] as [String; 0]);
    });
}

#[test]
fn parts_arrive_whole_whatever_happens_to_them() {
    // The first try of each request that brings content meets with this.
    type Trouble = fn(&Seen) -> Fault;
    let troubles: [Trouble; 4] = [
        |_| Fault::None,
        |_| Fault::Lose,
        |seen| Fault::Cut(seen.body.len() / 2 + 12345.min(seen.body.len() / 2)),
        |_| Fault::Instead(status(503)),
    ];
    for (n, trouble) in troubles.into_iter().enumerate() {
        for len in [PART * 2, PART * 2 + 77] {
            let seen: Mutex<Vec<String>> = Mutex::default();
            let server = GcsServer::with_faults(move |request| {
                let range = request.header("content-range").to_owned();
                let brings = request.method == "PUT" && !request.body.is_empty();
                let mut seen = seen.lock().unwrap();
                if !brings || seen.contains(&range) {
                    return Fault::None;
                }
                seen.push(range);
                trouble(request)
            });
            let bucket = bucket_at(&server.recorder);
            run(async {
                let mut upload = bucket.upload(KEY, &options(true)).await.unwrap();
                for part in body(len).chunks(PART) {
                    let part = Bytes::copy_from_slice(part);
                    for attempt in 0.. {
                        match upload.part(part.clone()).await {
                            Ok(_) => break,
                            Err(e) => {
                                assert!(e.is_transient() && attempt < 9, "trouble {n}, {len} bytes: {e}")
                            }
                        }
                    }
                }
                for attempt in 0.. {
                    match upload.complete().await {
                        Ok(()) => break,
                        Err(e) => assert!(e.is_transient() && attempt < 9, "trouble {n}, {len} bytes: {e}"),
                    }
                }
            });
            assert!(server.content(KEY) == body(len), "trouble {n}, {len} bytes");
            assert_eq!(server.uploads(), 0);
        }
    }
}

#[test]
fn an_upload_does_not_replace_what_came_meanwhile() {
    let server = GcsServer::start();
    let bucket = bucket_at(&server.recorder);
    run(async {
        let mut upload = bucket.upload(KEY, &options(true)).await.unwrap();
        for _ in 0..2 {
            upload.part(body(PART)).await.unwrap();
        }
        bucket.put(KEY, body(10), &options(true)).await.unwrap();
        let e = upload.complete().await.unwrap_err();
        assert_eq!(e.kind(), ErrorKind::AlreadyExists, "{e}");
        assert_eq!(bucket.fencing(), Fencing::Atomic);
        let mut upload = bucket.upload(KEY, &options(true)).await.unwrap();
        for _ in 0..4 {
            upload.part(body(PART)).await.unwrap();
        }
        let e = upload.complete().await.unwrap_err();
        assert_eq!(e.kind(), ErrorKind::AlreadyExists, "{e}");
    });
    assert_eq!(server.content(KEY), body(10));
}

#[test]
fn what_is_given_up_is_removed() {
    let server = GcsServer::start();
    let bucket = bucket_at(&server.recorder);
    run(async {
        let mut upload = bucket.upload(KEY, &options(true)).await.unwrap();
        for _ in 0..2 {
            upload.part(body(PART)).await.unwrap();
        }
        assert_eq!(server.uploads(), 1);
        upload.abort().await.unwrap();
    });
    assert_eq!((server.uploads(), server.objects()), (0, vec![]));
}

#[test]
fn a_store_that_ignores_the_condition_is_asked_first() {
    // It does not know the parameter.
    let inner = GcsServer::start();
    let port = inner.recorder.port;
    let server = Recorder::start(move |seen| {
        let path = seen.path.replace("&ifGenerationMatch=0", "");
        forward(port, &Seen { path, ..seen.clone() })
    });
    let bucket = bucket_at(&server);
    run(async {
        bucket.put(KEY, body(10), &options(true)).await.unwrap();
        assert_eq!(bucket.fencing(), Fencing::Unproven);
        bucket.prove_fencing(KEY, body(10), &options(true)).await.unwrap();
        assert_eq!(bucket.fencing(), Fencing::LookFirst);
        let e = bucket.put(KEY, body(20), &options(true)).await.unwrap_err();
        assert_eq!(e.kind(), ErrorKind::AlreadyExists, "{e}");
    });
    assert_eq!(inner.content(KEY), body(10));
}

/// The answer of the server on `port`, without its headers but for the length.
fn forward(port: u16, seen: &Seen) -> Answer {
    use std::io::{Read as _, Write as _};
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
    let mut text = format!("{} {} HTTP/1.1\r\n", seen.method, seen.path);
    for (name, value) in &seen.headers {
        text += &format!("{name}: {value}\r\n");
    }
    stream.write_all(format!("{text}\r\n").as_bytes()).unwrap();
    stream.write_all(&seen.body).unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let text = String::from_utf8_lossy(&answer).into_owned();
    let code = text.split(' ').nth(1).unwrap().parse().unwrap();
    status(code).body(answer[text.find("\r\n\r\n").unwrap() + 4..].to_vec())
}

#[test]
fn many_objects_are_deleted_in_few_requests() {
    let server = GcsServer::start();
    let bucket = bucket_at(&server.recorder);
    let keys: Vec<String> = (0..250).map(|n| format!("p/{n}")).collect();
    run(async {
        for key in keys.iter().step_by(2) {
            bucket.put(key, body(1), &options(true)).await.unwrap();
        }
        bucket.put("p/kept", body(1), &options(true)).await.unwrap();
        bucket.delete(&keys).await.unwrap();
        bucket.delete(&keys[..1]).await.unwrap();
        bucket.delete(&[]).await.unwrap();
    });
    assert_eq!(server.objects(), ["p/kept"]);
    let posts = server.recorder.requests().into_iter().filter(|r| r.starts_with("POST /batch")).count();
    assert_eq!(posts, 3);
}

#[test]
fn without_batches_each_object_is_deleted_by_its_own() {
    let server = GcsServer::with_faults(|seen| match seen.path.as_str() {
        "/batch/storage/v1" => Fault::Instead(status(404)),
        _ => Fault::None,
    });
    let bucket = bucket_at(&server.recorder);
    let keys: Vec<String> = (0..3).map(|n| format!("p/{n}")).collect();
    run(async {
        bucket.put("p/1", body(1), &options(true)).await.unwrap();
        bucket.delete(&keys).await.unwrap();
        bucket.delete(&keys).await.unwrap();
    });
    assert_eq!(server.objects(), [] as [String; 0]);
    assert_eq!(server.recorder.requests().iter().filter(|r| r.contains("/batch/")).count(), 1);
}

#[test]
fn a_deletion_that_is_refused_within_a_batch_is_an_error() {
    let server = Recorder::start(|_| {
        let refused = refusal(403, "forbidden", "no storage.objects.delete access").body_text();
        status(200).header("Content-Type", "multipart/mixed; boundary=b").body(format!(
            "--b\r\nContent-Type: application/http\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n\r\n--b\r\nContent-Type: \
             application/http\r\n\r\nHTTP/1.1 403 Forbidden\r\n\r\n{refused}\r\n--b--\r\n"
        ))
    });
    let bucket = bucket_at(&server);
    let e = run(async { bucket.delete(&["p/1".into(), "p/2".into()]).await }).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Denied);
    assert!(e.to_string().contains("p/2") && e.to_string().contains("storage.objects.delete"), "{e}");
}

#[test]
fn refusals_name_the_thing_and_the_remedy() {
    use ErrorKind::*;
    for (answer, kind, words) in [
        (refusal(401, "authError", "Invalid Credentials"), Denied, "GOOGLE_APPLICATION_CREDENTIALS"),
        (
            refusal(
                401,
                "authError",
                "Invalid JWT: Token must be a short-lived token (60 minutes) and in a reasonable timeframe.",
            ),
            Denied,
            "set the clock",
        ),
        (
            refusal(403, "forbidden", "x@y does not have storage.objects.list access"),
            Denied,
            "Storage Object User",
        ),
        (refusal(403, "accountDisabled", "The billing account is disabled"), Denied, "billing"),
        (
            refusal(404, "notFound", "The specified bucket does not exist."),
            NoBucket,
            "bucket 'bucket' does not exist",
        ),
        (refusal(429, "rateLimitExceeded", "Too many"), Unavailable, "for now (rateLimitExceeded: Too many)"),
        (refusal(403, "rateLimitExceeded", "Too many"), Unavailable, "for now"),
        (refusal(503, "backendError", "Backend Error"), Unavailable, "for now"),
        (status(502).body("<html>Bad Gateway"), Unavailable, "HTTP status 502"),
        (refusal(413, "uploadTooLarge", "big"), Unsupported, "part-size"),
        (refusal(400, "invalid", "Bad\nRequest"), Config, "(invalid: Bad Request)"),
        (status(200).header("Content-Type", "text/html").body("<html>Log in"), WrongAnswer, "web page"),
        (status(200).body("{}"), WrongAnswer, "no listing"),
    ] {
        let server = Recorder::start(move |_| answer.clone());
        let bucket = bucket_at(&server);
        let e = run(async { bucket.list("p/", None).await }).unwrap_err();
        let place = server.endpoint();
        assert_eq!(e.kind(), kind, "{e}");
        for words in [words, &place] {
            assert!(e.to_string().contains(words), "{words}: {e}");
        }
    }
}

#[test]
fn a_missing_object_is_told_from_a_missing_bucket() {
    let server = GcsServer::start();
    let bucket = bucket_at(&server.recorder);
    let query = format!("endpoint={}", server.recorder.endpoint());
    let nowhere = GcsBucket::new(site_from("//nowhere/p", &query, &Nothing).unwrap());
    run(async {
        for e in [bucket.head(KEY).await.unwrap_err(), read(&bucket, KEY, ByteRange::All).await.unwrap_err()]
        {
            assert_eq!(e.kind(), ErrorKind::NotFound);
            assert!(e.to_string().contains("replica gs://bucket/p has no p/ltx/0/"), "{e}");
        }
        for e in [nowhere.head(KEY).await.unwrap_err(), nowhere.list("p/", None).await.unwrap_err()] {
            assert_eq!(e.kind(), ErrorKind::NoBucket);
            assert!(e.to_string().contains("bucket 'nowhere' does not exist"), "{e}");
        }
    });
}

#[test]
fn a_download_that_breaks_off_is_an_error() {
    let server = Recorder::start(|_| {
        status(206).header("Content-Range", "bytes 0-999/5000").body(vec![7; 1000]).cut(300)
    });
    let bucket = bucket_at(&server);
    let range = ByteRange::Bounded { offset: 0, len: 1000 };
    let e = run(async { read(&bucket, KEY, range).await }).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Unavailable, "{e}");
    let server = Recorder::start(|_| silence());
    let bucket = bucket_at(&server);
    let e = run(async { read(&bucket, KEY, range).await }).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Unavailable, "{e}");
}

/// A bucket on `server` that is no emulator's, with these environment variables.
fn bucket_with(server: &Recorder, variables: &[(&str, String)]) -> GcsBucket {
    let site = site_from("//bucket/p", &format!("endpoint={}", server.endpoint()), &Nothing).unwrap();
    let variables: Vec<(String, String)> =
        variables.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
    let env =
        move |name: &str| variables.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone());
    GcsBucket::with(GcsSite { is_emulator: false, ..site }, Box::new(env), IDLE_TIMEOUT)
}

fn file_of(folder: &TempDir, name: &str, value: &serde_json::Value) -> String {
    let path = folder.path().join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, value.to_string()).unwrap();
    path.display().to_string()
}

fn empty_listing() -> Answer {
    status(200).body(json!({"kind": "storage#objects"}).to_string())
}

#[test]
fn a_service_account_signs_its_own_tokens() {
    let server = Recorder::start(|_| empty_listing());
    let (folder, key) = (TempDir::new().unwrap(), new_key());
    let path = file_of(
        &folder,
        "key.json",
        &json!({
            "type": "service_account", "client_email": "me@project", "private_key_id": "k1", "private_key": key,
            "quota_project_id": "payer",
        }),
    );
    let bucket = bucket_with(&server, &[("GOOGLE_APPLICATION_CREDENTIALS", path)]);
    run(async {
        bucket.list("p/", None).await.unwrap();
        bucket.list("p/", None).await.unwrap();
    });
    let seen = server.seen();
    assert_eq!(seen[0].header("authorization"), seen[1].header("authorization"));
    assert_eq!(seen[0].header("x-goog-user-project"), "payer");
    let (header, claims) = read_token(seen[0].header("authorization").strip_prefix("Bearer ").unwrap(), &key);
    assert_eq!(header, json!({"alg": "RS256", "typ": "JWT", "kid": "k1"}));
    assert_eq!((&claims["iss"], &claims["sub"]), (&json!("me@project"), &json!("me@project")));
    assert_eq!(claims["scope"], "https://www.googleapis.com/auth/devstorage.read_write");
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let (issued, expires) = (claims["iat"].as_u64().unwrap(), claims["exp"].as_u64().unwrap());
    assert!(issued <= now && now - issued < 60 && expires == issued + 3600);
}

#[test]
fn a_wrong_clock_signs_by_the_time_of_the_store() {
    let server = Recorder::start(|seen| {
        let token = seen.header("authorization").strip_prefix("Bearer ").unwrap().to_owned();
        let claims = token.split('.').nth(1).unwrap();
        let claims =
            base64::Engine::decode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, claims).unwrap();
        let claims: serde_json::Value = serde_json::from_slice(&claims).unwrap();
        // Tuesday, 14 November 2023, 22:13:20.
        let answer = if claims["iat"].as_u64().unwrap().abs_diff(1_700_000_000) < 60 {
            empty_listing()
        } else {
            refusal(
                401,
                "authError",
                "Invalid JWT: Token must be a short-lived token and in a reasonable timeframe",
            )
        };
        answer.header("Date", "Tue, 14 Nov 2023 22:13:20 GMT")
    });
    let (folder, key) = (TempDir::new().unwrap(), new_key());
    let account = json!({"type": "service_account", "client_email": "me@project", "private_key": key});
    let path = file_of(&folder, "key.json", &account);
    let bucket = bucket_with(&server, &[("GOOGLE_APPLICATION_CREDENTIALS", path)]);
    run(async { bucket.list("p/", None).await }).unwrap();
    assert_eq!(server.seen().len(), 2);
}

#[test]
fn a_user_gets_tokens_for_what_gcloud_left() {
    let server = Recorder::start(|_| empty_listing());
    let google = Recorder::start(|_| status(200).body(r#"{"access_token": "token-1", "expires_in": 3599}"#));
    let home = TempDir::new().unwrap();
    file_of(
        &home,
        ".config/gcloud/application_default_credentials.json",
        &json!({
            "type": "authorized_user", "client_id": "cid", "client_secret": "hunter2", "refresh_token": "1//r",
            "token_uri": format!("{}/token", google.endpoint()),
        }),
    );
    let bucket = bucket_with(&server, &[("HOME", home.path().display().to_string())]);
    run(async {
        bucket.list("p/", None).await.unwrap();
        bucket.list("p/", None).await.unwrap();
    });
    assert!(server.seen().iter().all(|seen| seen.header("authorization") == "Bearer token-1"));
    let asked = google.seen();
    assert_eq!(asked.len(), 1);
    assert_eq!(
        asked[0].text(),
        "grant_type=refresh_token&client_id=cid&client_secret=hunter2&refresh_token=1%2F%2Fr"
    );
}

#[test]
fn a_machine_has_an_account() {
    let server = Recorder::start(|_| empty_listing());
    let metadata = Recorder::start(|seen| match seen.header("metadata-flavor") {
        "Google" => status(200).body(r#"{"access_token": "of-the-machine", "expires_in": 3599}"#),
        _ => status(403),
    });
    let host = format!("127.0.0.1:{}", metadata.port);
    let bucket = bucket_with(&server, &[("GCE_METADATA_HOST", host)]);
    run(async { bucket.list("p/", None).await }).unwrap();
    assert_eq!(server.seen()[0].header("authorization"), "Bearer of-the-machine");
    let path = "GET /computeMetadata/v1/instance/service-accounts/default/token";
    assert_eq!(metadata.requests(), [path]);
}

#[test]
fn without_credentials_the_error_says_how_to_give_some() {
    let server = Recorder::start(|_| empty_listing());
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let bucket = bucket_with(&server, &[("GCE_METADATA_HOST", closed.to_string())]);
    let e = run(async { bucket.list("p/", None).await }).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Denied);
    for words in ["gs://bucket/p", "GOOGLE_APPLICATION_CREDENTIALS", "gcloud auth application-default login"]
    {
        assert!(e.to_string().contains(words), "{e}");
    }
    assert!(server.seen().is_empty());
}

#[test]
fn a_token_that_expires_is_replaced_and_a_refused_account_is_read_again() {
    // The service forgets the first token, and then does not know the account any more.
    let valid = Arc::new(Mutex::new("token 1"));
    let known = Arc::clone(&valid);
    let server = Recorder::start(move |seen| match seen.header("authorization") {
        token if token == format!("Bearer {}", known.lock().unwrap()) => empty_listing(),
        _ => refusal(401, "authError", "Invalid Credentials"),
    });
    let count = Mutex::new(0);
    let google = Recorder::start(move |seen| {
        if seen.text().contains("refresh_token=old") && *count.lock().unwrap() == 2 {
            return status(400)
                .body(r#"{"error": "invalid_grant", "error_description": "Token has been revoked."}"#);
        }
        *count.lock().unwrap() += 1;
        status(200)
            .body(format!(r#"{{"access_token": "token {}", "expires_in": 3599}}"#, count.lock().unwrap()))
    });
    let folder = TempDir::new().unwrap();
    let write = |refresh: &str| {
        file_of(
            &folder,
            "adc.json",
            &json!({
                "type": "authorized_user", "client_id": "cid", "client_secret": "hunter2", "refresh_token": refresh,
                "token_uri": google.endpoint(),
            }),
        )
    };
    let bucket = bucket_with(&server, &[("GOOGLE_APPLICATION_CREDENTIALS", write("old"))]);
    let list = || run(async { bucket.list("p/", None).await });
    list().unwrap();
    *valid.lock().unwrap() = "token 2";
    list().unwrap();
    *valid.lock().unwrap() = "token 3";
    let e = list().unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Denied);
    assert!(e.to_string().contains("invalid_grant: Token has been revoked.); log in again"), "{e}");
    assert!(!e.to_string().contains("hunter2") && !e.to_string().contains("old"), "{e}");
    write("new");
    list().unwrap();
}

#[test]
fn files_that_are_no_credentials_are_named() {
    let server = Recorder::start(|_| empty_listing());
    let folder = TempDir::new().unwrap();
    let file = |name, value| file_of(&folder, name, &value);
    for (path, words) in [
        ("/does/not/exist.json".to_owned(), "No such file"),
        (file("a.json", json!("hunter2")), "no file of credentials"),
        (file("b.json", json!({"type": "external_account"})), "type 'external_account'"),
        (file("c.json", json!({"type": "service_account", "client_email": "x"})), "'private_key'"),
        (
            file("d.json", json!({"type": "service_account", "client_email": "x", "private_key": "hunter2"})),
            "no private key",
        ),
    ] {
        let bucket = bucket_with(&server, &[("GOOGLE_APPLICATION_CREDENTIALS", path.clone())]);
        let e = run(async { bucket.list("p/", None).await }).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Config);
        assert!(e.to_string().contains(words) && e.to_string().contains(&path), "{words}: {e}");
        assert!(!e.to_string().contains("hunter2"), "{e}");
    }
}

#[test]
fn the_emulator_does_not_give_the_size_of_an_empty_object_with_a_range() {
    let server = Recorder::start(|seen| match seen.query("alt") {
        Some(_) => status(206).header("Content-Range", "bytes 0--1/0"),
        None => status(200)
            .body(json!({"name": KEY, "size": "0", "timeCreated": "2026-01-01T00:00:00Z"}).to_string()),
    });
    let bucket = bucket_at(&server);
    run(async {
        let content = bucket.get(KEY, ByteRange::Suffix { len: 10 }, None).await.unwrap();
        assert_eq!((content.offset, content.file_size), (0, 0));
        assert_eq!(content.bytes().await.unwrap(), Bytes::new());
    });
}
