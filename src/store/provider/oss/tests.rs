//! A server that does what the documentation of Alibaba Cloud's service says: there is no emulator of it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use bytes::Bytes;

use super::*;
use crate::clock::{Clock as _, SystemClock, Timestamp};
use crate::error::ErrorKind;
use crate::store::Lookup;
use crate::store::provider::s3::S3Bucket;
use crate::store::tests::recorder::{Answer, Recorder, Seen, run, status};
use crate::store::{Bucket as _, Fencing, PutOptions};

const PAGE: usize = 1000;
const KEY: &str = "p/0000/0000000000000001-0000000000000001.ltx";
const TIME: Timestamp = Timestamp::from_millis(1_700_000_000_123);

#[derive(Clone)]
struct Object {
    body: Vec<u8>,
    timestamp: String,
    stored: Timestamp,
}

#[derive(Default)]
struct State {
    objects: BTreeMap<String, Object>,
    /// Timestamp and parts of uploads, by their names.
    uploads: BTreeMap<String, (String, BTreeMap<usize, Vec<u8>>)>,
    next: usize,
    /// The bucket keeps versions: the condition is ignored.
    versioned: bool,
}

/// The service, with the bucket `bucket`.
pub(in crate::store) struct OssServer {
    pub(in crate::store) recorder: Recorder,
    state: Arc<Mutex<State>>,
}

impl OssServer {
    pub(in crate::store) fn start() -> Self {
        Self::with(false)
    }

    fn with(versioned: bool) -> Self {
        let state = Arc::new(Mutex::new(State { versioned, ..State::default() }));
        let service = Arc::clone(&state);
        let recorder = Recorder::start(move |seen| {
            assert!(seen.header("authorization").starts_with("OSS4-HMAC-SHA256 Credential=ak/"), "{seen:?}");
            assert_eq!(seen.header("x-oss-content-sha256"), "UNSIGNED-PAYLOAD");
            assert!(!seen.headers.keys().any(|name| name.starts_with("x-amz-")), "{seen:?}");
            service.lock().unwrap().answer(seen)
        });
        Self { recorder, state }
    }

    /// The replica URL of `path`, with its settings.
    pub(in crate::store) fn url(&self, path: &str) -> String {
        let endpoint = self.recorder.endpoint();
        format!(
            "oss://bucket/{path}?endpoint={endpoint}&part-size=5242880&access-key-id=ak&secret-access-key=sk"
        )
    }
}

fn refusal(code: u16, name: &str) -> Answer {
    status(code).header("Content-Type", "application/xml").body(format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>{name}</Code><Message>no</Message></Error>"
    ))
}

fn document(text: String) -> Answer {
    status(200).header("Content-Type", "application/xml").body(format!("<?xml version=\"1.0\"?>\n{text}"))
}

fn element(text: &str, name: &str) -> Vec<String> {
    let (first, last) = (format!("<{name}>"), format!("</{name}>"));
    let parts = text.split(&first).skip(1);
    parts.map(|part| part.split(&last).next().unwrap().replace("&amp;", "&")).collect()
}

impl State {
    fn answer(&mut self, seen: &Seen) -> Answer {
        let (path, query) = seen.path.split_once('?').unwrap_or((&seen.path, ""));
        let path = percent_encoding::percent_decode_str(path).decode_utf8().unwrap().into_owned();
        let Some(key) = path.strip_prefix("/bucket/") else { return refusal(404, "NoSuchBucket") };
        match (seen.method.as_str(), key, query) {
            ("POST", "", "delete") => {
                assert!(!seen.header("content-md5").is_empty());
                for key in element(&seen.text(), "Key") {
                    self.objects.remove(&key);
                }
                // Nothing is said where all is well and `Quiet` is asked for.
                status(200)
            }
            ("GET", "", _) => self.list(seen),
            ("POST", key, "uploads") => self.begin(key, seen),
            ("POST", key, _) => self.complete(key, seen),
            ("PUT", _, query) if query.contains("partNumber") => self.part(seen),
            ("PUT", key, "") => {
                let timestamp = seen.header("x-oss-meta-litestream-timestamp").to_owned();
                self.store(key, timestamp, seen.body.clone(), seen)
            }
            ("DELETE", _, query) if query.contains("uploadId") => {
                self.uploads.remove(&seen.query("uploadId").unwrap());
                status(204)
            }
            ("DELETE", key, "") => {
                self.objects.remove(key);
                status(204)
            }
            ("GET" | "HEAD", key, "") => self.get(key, seen),
            other => panic!("{other:?}"),
        }
    }

    fn store(&mut self, key: &str, timestamp: String, body: Vec<u8>, seen: &Seen) -> Answer {
        let forbids = seen.header("x-oss-forbid-overwrite") == "true" && !self.versioned;
        if forbids && self.objects.contains_key(key) {
            return refusal(409, "FileAlreadyExists");
        }
        self.objects.insert(key.to_owned(), Object { body, timestamp, stored: SystemClock.now() });
        document("<CompleteMultipartUploadResult></CompleteMultipartUploadResult>".to_owned())
    }

    fn list(&self, seen: &Seen) -> Answer {
        assert_eq!(seen.query("list-type").as_deref(), Some("2"));
        let query = |name| seen.query(name).unwrap_or_default();
        let (prefix, after) = (query("prefix"), query("start-after").max(query("continuation-token")));
        let mut found = self.objects.iter().filter(|(name, _)| name.starts_with(&prefix) && **name > after);
        let page: Vec<_> = found.by_ref().take(PAGE).collect();
        let contents: String = page
            .iter()
            .map(|(key, object)| {
                let (size, stored) = (object.body.len(), object.stored);
                format!("<Contents><Key>{key}</Key><LastModified>{stored}</LastModified><Size>{size}</Size></Contents>")
            })
            .collect();
        let next = match found.next() {
            Some(_) => format!(
                "<IsTruncated>true</IsTruncated><NextContinuationToken>{}</NextContinuationToken>",
                page[PAGE - 1].0
            ),
            None => "<IsTruncated>false</IsTruncated>".to_owned(),
        };
        document(format!("<ListBucketResult>{contents}{next}</ListBucketResult>"))
    }

    fn get(&self, key: &str, seen: &Seen) -> Answer {
        let Some(object) = self.objects.get(key) else { return refusal(404, "NoSuchKey") };
        let size = object.body.len();
        let described = |answer: Answer| {
            let stored = jiff::Timestamp::from_millisecond(object.stored.as_millis()).unwrap();
            let stored = jiff::fmt::rfc2822::DateTimePrinter::new().timestamp_to_rfc9110_string(&stored);
            answer
                .header("x-oss-meta-litestream-timestamp", object.timestamp.clone())
                .header("Last-Modified", stored.unwrap())
        };
        if seen.method == "HEAD" {
            return described(status(200).header("Content-Length", size.to_string()));
        }
        let Some(range) = seen.header("range").strip_prefix("bytes=") else {
            return described(status(200).body(object.body.clone()));
        };
        let (first, last) = range.split_once('-').unwrap();
        let (first, end) = match (first.parse::<usize>(), last.parse::<usize>()) {
            (Ok(first), Ok(last)) => (first, last.saturating_add(1).min(size)),
            (Err(_), Ok(last)) => (size.saturating_sub(last), size),
            other => panic!("{other:?}"),
        };
        if first >= size {
            // Unless it is told to keep to the standard, the service answers with the whole object.
            assert_eq!(seen.header("x-oss-range-behavior"), "standard");
            return refusal(416, "InvalidRange").header("Content-Range", format!("bytes */{size}"));
        }
        described(status(206))
            .header("Content-Range", format!("bytes {first}-{}/{size}", end - 1))
            .body(object.body[first..end].to_vec())
    }

    fn begin(&mut self, key: &str, seen: &Seen) -> Answer {
        self.next += 1;
        let name = format!("U{}-{key}", self.next);
        let timestamp = seen.header("x-oss-meta-litestream-timestamp").to_owned();
        self.uploads.insert(name.clone(), (timestamp, BTreeMap::new()));
        document(format!(
            "<InitiateMultipartUploadResult><UploadId>{name}</UploadId></InitiateMultipartUploadResult>"
        ))
    }

    fn part(&mut self, seen: &Seen) -> Answer {
        let Some((_, parts)) = self.uploads.get_mut(&seen.query("uploadId").unwrap()) else {
            return refusal(404, "NoSuchUpload");
        };
        let number = seen.query("partNumber").unwrap();
        parts.insert(number.parse().unwrap(), seen.body.clone());
        status(200).header("ETag", format!("\"{number}\""))
    }

    fn complete(&mut self, key: &str, seen: &Seen) -> Answer {
        let name = seen.query("uploadId").unwrap();
        let Some((timestamp, parts)) = self.uploads.get(&name).cloned() else {
            return refusal(404, "NoSuchUpload");
        };
        let numbers = element(&seen.text(), "PartNumber");
        let body = numbers.iter().flat_map(|n| parts[&n.parse().unwrap()].clone()).collect();
        let answer = self.store(key, timestamp, body, seen);
        if answer.status == 200 {
            self.uploads.remove(&name);
        }
        answer
    }
}

/// An environment with these variables.
struct Env(&'static [(&'static str, &'static str)]);

impl Lookup for Env {
    fn param(&self, _: &str) -> Option<String> {
        None
    }

    fn env(&self, variable: &str) -> Option<String> {
        self.0.iter().find(|(name, _)| *name == variable).map(|(_, value)| (*value).to_owned())
    }
}

fn site(url: &str, env: &dyn Lookup) -> Result<S3Location> {
    let location = crate::store::Location::parse(url, env)?;
    Ok(location.site().as_any().downcast_ref::<S3Location>().unwrap().clone())
}

fn options() -> PutOptions {
    PutOptions { timestamp: TIME, if_absent: true }
}

#[test]
fn urls_are_those_of_litestream() {
    let nothing = Env(&[]);
    for (url, region, endpoint) in [
        ("oss://b/p", "cn-hangzhou", "https://oss-cn-hangzhou.aliyuncs.com"),
        ("oss://b/p?region=eu-central-1", "eu-central-1", "https://oss-eu-central-1.aliyuncs.com"),
        ("oss://b.oss-cn-beijing.aliyuncs.com/p", "cn-beijing", "https://oss-cn-beijing.aliyuncs.com"),
        (
            "oss://b.oss-cn-beijing-internal.aliyuncs.com/p",
            "cn-beijing",
            "https://oss-cn-beijing-internal.aliyuncs.com",
        ),
        ("oss://b/p?endpoint=oss-us-west-1.aliyuncs.com", "us-west-1", "https://oss-us-west-1.aliyuncs.com"),
        ("oss://b/p?endpoint=127.0.0.1:9000", "cn-hangzhou", "http://127.0.0.1:9000"),
    ] {
        let site = site(url, &nothing).unwrap();
        assert_eq!(
            (site.bucket.as_str(), site.path.as_str(), site.to_string().as_str()),
            ("b", "p", "oss://b/p")
        );
        assert_eq!(
            (site.region.as_deref(), site.endpoint.as_deref()),
            (Some(region), Some(endpoint)),
            "{url}"
        );
    }
    for url in
        ["oss:///p", "oss://ak:hunter2@b/p", "oss://b:80/p", "oss://b/p?access-key-id=x", "oss://b/p?x=1"]
    {
        let e = site(url, &nothing).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Config, "{url}");
        assert!(!e.to_string().contains("hunter2"), "{e}");
    }
}

#[test]
fn credentials_come_from_the_environment_or_are_asked_for() {
    let env =
        Env(&[("OSS_ACCESS_KEY_ID", "id"), ("OSS_ACCESS_KEY_SECRET", "secret"), ("AWS_ACCESS_KEY_ID", "no")]);
    assert_eq!(site("oss://b/p", &env).unwrap().access_key_id.as_deref(), Some("id"));
    let bucket = S3Bucket::new(site("oss://b/p", &Env(&[])).unwrap());
    let e = run(async { bucket.list("p/", None).await }).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Denied);
    assert!(e.to_string().contains("oss://b/p") && e.to_string().contains("OSS_ACCESS_KEY_SECRET"), "{e}");
}

#[test]
fn an_object_is_written_in_the_words_of_alibaba() {
    let server = OssServer::start();
    let bucket = S3Bucket::new(site(&server.url("p"), &Env(&[])).unwrap());
    run(async {
        bucket.put(KEY, Bytes::from_static(b"123"), &options()).await.unwrap();
        let e = bucket.put(KEY, Bytes::from_static(b"456"), &options()).await.unwrap_err();
        assert_eq!((e.kind(), bucket.fencing()), (ErrorKind::AlreadyExists, Fencing::Atomic), "{e}");
        assert_eq!(bucket.head(KEY).await.unwrap().timestamp, TIME);
    });
    let put = &server.recorder.seen()[0];
    assert_eq!(put.path, format!("/bucket/{KEY}"));
    for (name, value) in [
        ("x-oss-forbid-overwrite", "true"),
        ("x-oss-meta-litestream-timestamp", "2023-11-14T22:13:20.123Z"),
        ("if-none-match", ""),
    ] {
        assert_eq!(put.header(name), value, "{name}");
    }
    assert_eq!(server.state.lock().unwrap().objects[KEY].body, b"123");
}

#[test]
fn a_bucket_that_keeps_versions_is_asked_first() {
    let server = OssServer::with(true);
    let bucket = S3Bucket::new(site(&server.url("p"), &Env(&[])).unwrap());
    run(async {
        bucket.put(KEY, Bytes::from_static(b"1"), &options()).await.unwrap();
        bucket.prove_fencing(KEY, Bytes::from_static(b"1"), &options()).await.unwrap();
        assert_eq!(bucket.fencing(), Fencing::LookFirst);
        let e = bucket.put(KEY, Bytes::from_static(b"2"), &options()).await.unwrap_err();
        assert_eq!(e.kind(), ErrorKind::AlreadyExists, "{e}");
    });
}

#[test]
fn refusals_name_the_thing_and_the_remedy() {
    for (code, name, kind, words) in [
        (403, "InvalidAccessKeyId", ErrorKind::Denied, "access-key-id"),
        (403, "SignatureDoesNotMatch", ErrorKind::Denied, "secret-access-key"),
        (403, "RequestTimeTooSkewed", ErrorKind::Denied, "set the clock"),
        (403, "AccessDenied", ErrorKind::Denied, "not allowed to list"),
        (404, "NoSuchBucket", ErrorKind::NoBucket, "bucket 'bucket' does not exist"),
        (503, "ServiceUnavailable", ErrorKind::Unavailable, "for now"),
    ] {
        let server = Recorder::start(move |_| refusal(code, name));
        let url = format!(
            "oss://bucket/p?endpoint={}&access-key-id=ak&secret-access-key=hunter2",
            server.endpoint()
        );
        let bucket = S3Bucket::new(site(&url, &Env(&[])).unwrap());
        let e = run(async { bucket.list("p/", None).await }).unwrap_err();
        assert_eq!(e.kind(), kind, "{e}");
        assert!(e.to_string().contains(words) && !e.to_string().contains("hunter2"), "{words}: {e}");
    }
}
