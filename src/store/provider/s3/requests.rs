//! The exact requests for each S3-compatible store: where they go, what they carry and what is signed.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use reqwest::Method;

use super::location::S3Location;
use super::session::Request;
use super::{Dialect, S3Bucket};
use crate::clock::Timestamp;
use crate::runtime::block_on;
use crate::store::{Location, PutOptions};

const KEY: &str = "p/0000/0000000000000001-0000000000000001.ltx";

/// A store: its replica URL, and the URL of the bucket in requests, without a slash at its end.
struct Case {
    what: &'static str,
    url: &'static str,
    bucket: &'static str,
    region: &'static str,
    /// Headers that this store gets beside those of all, in every request.
    extra: &'static [&'static str],
    /// `Content-MD5` with deletions.
    content_md5: bool,
}

const fn case(what: &'static str, url: &'static str, bucket: &'static str, region: &'static str) -> Case {
    Case { what, url, bucket, region, extra: &[], content_md5: true }
}

const CASES: &[Case] = &[
    case("AWS", "s3://b/p?region=eu-west-1", "https://b.s3.eu-west-1.amazonaws.com", "eu-west-1"),
    case(
        "AWS, a dot in the name",
        "s3://b.c/p?region=eu-west-1",
        "https://s3.eu-west-1.amazonaws.com/b.c",
        "eu-west-1",
    ),
    case(
        "AWS by host",
        "s3://b.s3.eu-west-1.amazonaws.com/p",
        "https://b.s3.eu-west-1.amazonaws.com",
        "eu-west-1",
    ),
    case("AWS China", "s3://b/p?region=cn-north-1", "https://b.s3.cn-north-1.amazonaws.com.cn", "cn-north-1"),
    case(
        "AWS access point",
        "s3://arn:aws:s3:eu-west-1:123456789012:accesspoint/db/p",
        "https://db-123456789012.s3-accesspoint.eu-west-1.amazonaws.com",
        "eu-west-1",
    ),
    case("MinIO by host", "s3://b.localhost:9000/p", "http://localhost:9000/b", "us-east-1"),
    case("MinIO", "s3://b/p?endpoint=minio.example:9000", "https://minio.example:9000/b", "us-east-1"),
    case("MinIO, local", "s3://b/p?endpoint=192.168.1.2:9000", "http://192.168.1.2:9000/b", "us-east-1"),
    case(
        "Cloudflare R2",
        "s3://b/p?endpoint=https://acc.r2.cloudflarestorage.com&region=auto",
        "https://acc.r2.cloudflarestorage.com/b",
        "auto",
    ),
    case(
        "Backblaze by host",
        "s3://b.s3.us-west-000.backblazeb2.com/p",
        "https://s3.us-west-000.backblazeb2.com/b",
        "us-west-000",
    ),
    case(
        "Backblaze",
        "s3://b/p?endpoint=s3.us-west-000.backblazeb2.com&region=us-west-000",
        "https://s3.us-west-000.backblazeb2.com/b",
        "us-west-000",
    ),
    case("Filebase by host", "s3://b.s3.filebase.com/p", "https://s3.filebase.com/b", "us-east-1"),
    case(
        "DigitalOcean by host",
        "s3://b.fra1.digitaloceanspaces.com/p",
        "https://b.fra1.digitaloceanspaces.com",
        "fra1",
    ),
    case("Scaleway by host", "s3://b.s3.fr-par.scw.cloud/p", "https://b.s3.fr-par.scw.cloud", "fr-par"),
    case(
        "Hetzner",
        "s3://b/p?endpoint=https://fsn1.your-objectstorage.com&region=fsn1",
        "https://fsn1.your-objectstorage.com/b",
        "fsn1",
    ),
    case(
        "Hetzner, virtual host",
        "s3://b/p?endpoint=https://fsn1.your-objectstorage.com&region=fsn1&force-path-style=false",
        "https://b.fsn1.your-objectstorage.com",
        "fsn1",
    ),
    case(
        "Supabase",
        "s3://b/p?endpoint=https://x.supabase.co/storage/v1/s3&region=eu-central-1",
        "https://x.supabase.co/storage/v1/s3/b",
        "eu-central-1",
    ),
    case(
        "Oracle Cloud",
        "s3://b/p?endpoint=https://ns.compat.objectstorage.eu-frankfurt-1.oraclecloud.com&region=eu-frankfurt-1",
        "https://ns.compat.objectstorage.eu-frankfurt-1.oraclecloud.com/b",
        "eu-frankfurt-1",
    ),
    case(
        "Google Cloud Storage by its S3 interface",
        "s3://b/p?endpoint=https://storage.googleapis.com&region=auto",
        "https://storage.googleapis.com/b",
        "auto",
    ),
    Case {
        extra: &["x-tigris-consistent"],
        content_md5: false,
        ..case(
            "Tigris",
            "s3://b/p?endpoint=https://fly.storage.tigris.dev&region=auto",
            "https://fly.storage.tigris.dev/b",
            "auto",
        )
    },
    Case {
        extra: &["x-tigris-consistent"],
        content_md5: false,
        ..case(
            "Tigris, new name",
            "s3://b/p?endpoint=t3.storage.dev&region=auto",
            "https://t3.storage.dev/b",
            "auto",
        )
    },
];

/// A request as it goes out: method and URL, and the names of its headers.
struct Sent {
    line: String,
    headers: Vec<String>,
    signed: Vec<String>,
}

impl Sent {
    fn of(request: &reqwest::Request) -> Self {
        let mut headers: Vec<String> =
            request.headers().keys().map(|name| name.as_str().to_owned()).collect();
        headers.sort();
        let authorization = request.headers()["authorization"].to_str().unwrap();
        let (_, signed) = authorization.split_once("SignedHeaders=").unwrap();
        let signed = signed.split(',').next().unwrap().split(';').map(str::to_owned).collect();
        Self { line: format!("{} {}", request.method(), request.url()), headers, signed }
    }
}

fn bucket(case: &Case) -> S3Bucket {
    let around = |name: &str| match name {
        "access-key-id" => Some("AK".to_owned()),
        "secret-access-key" => Some("hunter2".to_owned()),
        _ => None,
    };
    let location = Location::parse(case.url, &around).unwrap_or_else(|e| panic!("{}: {e}", case.what));
    S3Bucket::new(location.site().as_any().downcast_ref::<S3Location>().unwrap().clone())
}

/// What a replica sends: a file, a range of it, a listing, a deletion of several, and the parts of an upload.
fn requests(bucket: &S3Bucket) -> Vec<Request> {
    let options = PutOptions { timestamp: Timestamp::from_millis(1_700_000_000_123), if_absent: true };
    let object = |method| Request::object(method, KEY.to_owned());
    vec![
        object(Method::PUT)
            .headers(bucket.object_headers(&options))
            .body(Bytes::from_static(b"x"))
            .header("if-none-match", "*"),
        object(Method::GET).header("range", "bytes=-16"),
        Request::bucket(Method::GET).query("list-type", "2").query("prefix", "p/0000/"),
        bucket.deletion(&["p/a".to_owned(), "p/b".to_owned()]),
        object(Method::PUT).query("partNumber", "1").query("uploadId", "u").body(Bytes::from_static(b"x")),
    ]
}

fn sent(case: &Case) -> Vec<Sent> {
    let bucket = bucket(case);
    block_on(async move {
        let session = bucket.session().await?;
        let region: Arc<str> = session.region();
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        let mut all = Vec::new();
        for request in requests(&bucket) {
            all.push(Sent::of(&session.signed(&request, &region, time).await?));
        }
        Ok(all)
    })
    .unwrap()
}

/// `names` and those of all requests, in order.
fn with_common(case: &Case, names: &[&str]) -> Vec<String> {
    let common = ["authorization", "x-amz-content-sha256", "x-amz-date"];
    let mut all: Vec<String> =
        names.iter().chain(case.extra).chain(&common).map(|name| (*name).to_owned()).collect();
    all.sort();
    all
}

fn signed(names: &[&str]) -> Vec<String> {
    let mut all: Vec<String> = names
        .iter()
        .chain(&["host", "x-amz-content-sha256", "x-amz-date"])
        .map(|n| (*n).to_owned())
        .collect();
    all.sort();
    all
}

#[test]
fn each_store_gets_exactly_the_requests_that_it_understands() {
    for case in CASES {
        let (what, bucket) = (case.what, case.bucket);
        let [put, get, list, delete, part] = &sent(case)[..] else { panic!("five requests") };
        let lines = [put, get, list, delete, part].map(|sent| sent.line.as_str());
        assert_eq!(
            lines,
            [
                &format!("PUT {bucket}/{KEY}")[..],
                &format!("GET {bucket}/{KEY}"),
                &format!("GET {bucket}/?list-type=2&prefix=p%2F0000%2F"),
                &format!("POST {bucket}/?delete="),
                &format!("PUT {bucket}/{KEY}?partNumber=1&uploadId=u"),
            ],
            "{what}"
        );
        // Nothing else: no checksum, no trailer, no `expect`, and nothing signed that a proxy may change, such as
        // `accept-encoding` or the condition.
        let metadata = ["content-type", Dialect::Amazon.timestamp()];
        assert_eq!(
            put.headers,
            with_common(case, &["content-type", "if-none-match", Dialect::Amazon.timestamp()]),
            "{what}"
        );
        assert_eq!(put.signed, signed(&metadata), "{what}");
        assert_eq!(get.headers, with_common(case, &["range"]), "{what}");
        assert_eq!(list.headers, with_common(case, &[]), "{what}");
        assert_eq!(part.headers, with_common(case, &[]), "{what}");
        for plain in [get, list, part] {
            assert_eq!(plain.signed, signed(&[]), "{what}");
        }
        let md5: &[&str] =
            if case.content_md5 { &["content-md5", "content-type"] } else { &["content-type"] };
        assert_eq!(delete.headers, with_common(case, md5), "{what}");
        assert_eq!(delete.signed, signed(md5), "{what}");
    }
}

#[test]
fn each_store_is_signed_for_in_its_region() {
    for case in CASES.iter().filter(|case| !case.region.is_empty()) {
        let bucket = bucket(case);
        let region = block_on(async move { Ok(bucket.session().await?.region()) }).unwrap();
        assert_eq!(&*region, case.region, "{}", case.what);
    }
}
