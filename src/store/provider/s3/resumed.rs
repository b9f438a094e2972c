//! Uploads that broke off and are taken up: what is sent again, what is not, and that what is completed is what the last
//! attempt was given.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use tempfile::TempDir;

use super::S3Bucket;
use super::location::S3Location;
use crate::clock::Timestamp;
use crate::error::{ErrorKind, Result};
use crate::runtime::block_on;
use crate::store::tests::recorder::{Answer, Recorder, Seen, status};
use crate::store::tests::s3_server::S3Server;
use crate::store::{Bucket as _, ByteRange, Location, PartLog, PutOptions, Taken};

const KEY: &str = "p/0000/0000000000000001-0000000000000001.ltx";

/// What a store has of an upload: its key, and each part with its ETag.
#[derive(Clone, Debug, Default)]
struct Unfinished {
    key: String,
    parts: BTreeMap<usize, (String, Vec<u8>)>,
}

/// A store that takes uploads in parts. It believes whatever a completion says of ETags, as careless ones do.
#[derive(Debug, Default)]
struct Store {
    begun: usize,
    uploads: BTreeMap<String, Unfinished>,
    objects: BTreeMap<String, Vec<u8>>,
    /// It refuses to list parts, with this.
    refuses_list: Option<(u16, &'static str)>,
    /// It refuses to complete uploads, as it has too much to do.
    is_busy: bool,
}

fn refusal(code: u16, name: &str) -> Answer {
    status(code).body(format!("<Error><Code>{name}</Code></Error>"))
}

fn etag(content: &[u8]) -> String {
    format!("\"{:x}-{}\"", crc_fast::checksum(crc_fast::CrcAlgorithm::Crc64Nvme, content), content.len())
}

impl Store {
    fn answer(&mut self, seen: &Seen) -> Answer {
        let key = seen.path.split('?').next().unwrap().trim_start_matches("/bucket/").to_owned();
        let Some(id) = seen.query("uploadId") else {
            return match &*seen.method {
                "POST" => self.begin(key),
                "PUT" => {
                    self.objects.insert(key, seen.body.clone());
                    status(200)
                }
                _ => self.list(),
            };
        };
        let Some(upload) = self.uploads.get_mut(&id).filter(|upload| upload.key == key) else {
            return refusal(404, "NoSuchUpload");
        };
        match &*seen.method {
            "PUT" => {
                let etag = etag(&seen.body);
                let number = seen.query("partNumber").unwrap().parse().unwrap();
                upload.parts.insert(number, (etag.clone(), seen.body.clone()));
                status(200).header("ETag", etag)
            }
            "GET" => match self.refuses_list {
                Some((code, name)) => refusal(code, name),
                None => parts(upload, seen),
            },
            "DELETE" => {
                self.uploads.remove(&id);
                status(204)
            }
            "POST" if self.is_busy => refusal(503, "SlowDown"),
            _ => {
                let named = |n: &&usize| seen.text().contains(&format!("<PartNumber>{n}</PartNumber>"));
                let body =
                    upload.parts.keys().filter(named).flat_map(|n| upload.parts[n].1.clone()).collect();
                self.objects.insert(key, body);
                self.uploads.remove(&id);
                status(200).body("<CompleteMultipartUploadResult/>")
            }
        }
    }

    fn begin(&mut self, key: String) -> Answer {
        self.begun += 1;
        let id = format!("up {}", self.begun);
        let text = format!(
            "<InitiateMultipartUploadResult><UploadId>{id}</UploadId></InitiateMultipartUploadResult>"
        );
        self.uploads.insert(id, Unfinished { key, ..Unfinished::default() });
        status(200).body(text)
    }

    /// The uploads that are not finished.
    fn list(&self) -> Answer {
        let upload = |(id, upload): (&String, &Unfinished)| {
            format!("<Upload><Key>{}</Key><UploadId>{id}</UploadId></Upload>", upload.key)
        };
        let uploads: String = self.uploads.iter().map(upload).collect();
        status(200).body(format!("<ListMultipartUploadsResult>{uploads}</ListMultipartUploadsResult>"))
    }
}

/// Two parts a page, as names that are not quoted.
fn parts(upload: &Unfinished, seen: &Seen) -> Answer {
    let after: usize = seen.query("part-number-marker").map_or(0, |after| after.parse().unwrap());
    let rest: Vec<_> = upload.parts.range(after + 1..).collect();
    let part = |(number, (etag, body)): &(&usize, &(String, Vec<u8>))| {
        format!(
            "<Part><PartNumber>{number}</PartNumber><ETag>{}</ETag><Size>{}</Size></Part>",
            etag.trim_matches('"'),
            body.len()
        )
    };
    let page: String = rest.iter().take(2).map(part).collect();
    let more = rest.len() > 2;
    status(200).body(format!("<ListPartsResult><IsTruncated>{more}</IsTruncated>{page}</ListPartsResult>"))
}

/// A store, and a log beside it.
struct Bench {
    store: Arc<Mutex<Store>>,
    server: Recorder,
    folder: TempDir,
}

impl Bench {
    fn new() -> Self {
        let store = Arc::<Mutex<Store>>::default();
        let answering = Arc::clone(&store);
        let server = Recorder::start(move |seen| answering.lock().unwrap().answer(seen));
        Self { store, server, folder: TempDir::new().unwrap() }
    }

    fn bucket(&self) -> S3Bucket {
        self.bucket_with("")
    }

    fn bucket_with(&self, settings: &str) -> S3Bucket {
        let url = format!(
            "s3://bucket/p?endpoint=127.0.0.1:{}&access-key-id=AK&secret-access-key=s&region=us-east-1{settings}",
            self.server.port
        );
        let location = Location::parse(&url, &|_: &str| None).unwrap();
        S3Bucket::new(location.site().as_any().downcast_ref::<S3Location>().unwrap().clone())
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("upload.parts")
    }

    /// What an attempt comes to that gives these parts, and completes the upload if it `ends`; without that it is killed.
    fn attempt(&self, key: &str, parts: &[&'static str], ends: bool) -> Result<Vec<Taken>> {
        let (bucket, path, key) = (self.bucket(), self.path(), key.to_owned());
        let parts = parts.to_vec();
        block_on(async move {
            let mut upload = bucket.resume_upload(&key, &options(), opened(&path)).await?;
            let mut taken = Vec::new();
            for part in parts {
                taken.push(upload.part(Bytes::from_static(part.as_bytes())).await?);
            }
            if ends {
                upload.complete().await?;
            }
            Ok(taken)
        })
    }

    /// The requests since `from`, without the query's names of keys.
    fn requests(&self, from: usize) -> Vec<String> {
        self.server.requests()[from..]
            .iter()
            .map(|line| line.replace(&format!("/bucket/{KEY}"), "K"))
            .collect()
    }

    fn object(&self) -> String {
        String::from_utf8(self.store.lock().unwrap().objects[KEY].clone()).unwrap()
    }

    fn unfinished(&self) -> Vec<String> {
        self.store.lock().unwrap().uploads.keys().cloned().collect()
    }
}

/// What arrives late: the store has another content of this part.
fn overwrite(store: &Mutex<Store>, number: usize, content: &str) {
    let mut store = store.lock().unwrap();
    let upload = store.uploads.values_mut().next().unwrap();
    upload.parts.insert(number, (etag(content.as_bytes()), content.as_bytes().to_vec()));
}

fn opened(path: &Path) -> Arc<PartLog> {
    Arc::new(PartLog::open(path.to_owned(), "db".to_owned(), Timestamp::from_millis(1)))
}

fn options() -> PutOptions {
    PutOptions { timestamp: Timestamp::from_millis(1_700_000_000_123), if_absent: true }
}

use Taken::{Kept, Later, Sent};

#[test]
fn what_arrived_is_not_sent_again_and_the_first_part_goes_last() {
    let bench = Bench::new();
    let first = bench.attempt(KEY, &["one..", "two..", "three", "four."], false).unwrap();
    assert_eq!(first, [Later, Sent, Sent, Sent]);
    assert_eq!(
        bench.requests(0),
        [
            "POST K?uploads=",
            "PUT K?partNumber=2&uploadId=up%201",
            "PUT K?partNumber=3&uploadId=up%201",
            "PUT K?partNumber=4&uploadId=up%201",
        ],
        "nothing is removed when it breaks off"
    );
    let before = bench.server.seen().len();
    // Another header, and a changed page of the same length.
    let second = bench.attempt(KEY, &["ONE..", "two..", "THREE", "four.", "five"], true).unwrap();
    assert_eq!(second, [Later, Kept, Sent, Kept, Sent]);
    assert_eq!(
        bench.requests(before),
        [
            "GET K?uploadId=up%201",
            "GET K?part-number-marker=3&uploadId=up%201",
            "PUT K?partNumber=3&uploadId=up%201",
            "PUT K?partNumber=5&uploadId=up%201",
            "PUT K?partNumber=1&uploadId=up%201",
            "GET K?uploadId=up%201",
            "GET K?part-number-marker=2&uploadId=up%201",
            "GET K?part-number-marker=4&uploadId=up%201",
            "POST K?uploadId=up%201",
            &format!("GET /bucket/?prefix={}&uploads=", KEY.replace('/', "%2F")),
        ]
    );
    let completion = bench.server.seen()[before + 8].clone();
    assert_eq!(completion.header("if-none-match"), "*");
    assert_eq!(bench.object(), "ONE..two..THREEfour.five");
    assert!(!bench.path().exists(), "a log outlives its upload");
}

#[test]
fn an_attempt_that_has_less_to_send_completes_less() {
    let bench = Bench::new();
    bench.attempt(KEY, &["one..", "two..", "three", "four."], false).unwrap();
    assert_eq!(bench.attempt(KEY, &["one..", "two..", "thr"], true).unwrap(), [Later, Kept, Sent]);
    assert_eq!(bench.object(), "one..two..thr");
    // All of it in one part.
    bench.attempt("p/other", &["one..", "two..", "three"], false).unwrap();
    assert_eq!(bench.attempt("p/other", &["o"], true).unwrap(), [Later]);
    assert_eq!(bench.store.lock().unwrap().objects["p/other"], b"o");
    assert!(bench.unfinished().is_empty() && !bench.path().exists());
}

#[test]
fn a_store_that_lost_the_upload_gets_all_of_it_again() {
    let bench = Bench::new();
    let parts = ["one..", "two..", "three"];
    bench.attempt(KEY, &parts, false).unwrap();
    // A rule of the bucket removed it.
    bench.store.lock().unwrap().uploads.clear();
    assert_eq!(bench.attempt(KEY, &parts, false).unwrap(), [Later, Sent, Sent]);
    assert_eq!(bench.unfinished(), ["up 2"]);
    // It may be removed at any moment.
    let (bucket, path) = (bench.bucket(), bench.path());
    let store = Arc::clone(&bench.store);
    let refused = block_on(async move {
        let mut upload = bucket.resume_upload(KEY, &options(), opened(&path)).await?;
        upload.part("one..".into()).await?;
        store.lock().unwrap().uploads.clear();
        Ok(upload.part("TWO..".into()).await.unwrap_err())
    });
    assert_eq!(refused.unwrap().kind(), ErrorKind::NotFound);
    assert!(!bench.path().exists());
    assert_eq!(bench.attempt(KEY, &parts, true).unwrap(), [Later, Sent, Sent]);
    assert_eq!(bench.object(), "one..two..three");
}

#[test]
fn what_a_store_does_not_list_is_sent_again_and_nothing_stays_behind() {
    for refused in [(403, "AccessDenied"), (501, "NotImplemented")] {
        let bench = Bench::new();
        let parts = ["one..", "two..", "three"];
        bench.attempt(KEY, &parts, false).unwrap();
        bench.store.lock().unwrap().refuses_list = Some(refused);
        assert_eq!(bench.attempt(KEY, &parts, false).unwrap(), [Later, Sent, Sent]);
        assert_eq!(bench.unfinished(), ["up 2"], "{refused:?}");
        // A store that is away is asked again.
        bench.store.lock().unwrap().refuses_list = Some((503, "SlowDown"));
        let e = bench.attempt(KEY, &parts, true).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Unavailable);
        bench.store.lock().unwrap().refuses_list = None;
        assert_eq!(bench.attempt(KEY, &parts, true).unwrap(), [Later, Kept, Kept]);
        assert_eq!(bench.object(), "one..two..three");
    }
}

#[test]
fn a_part_that_arrives_late_takes_no_other_ones_place() {
    let bench = Bench::new();
    let parts = ["one..", "two..", "three"];
    bench.attempt(KEY, &parts, false).unwrap();
    overwrite(&bench.store, 2, "TWO..");
    assert_eq!(bench.attempt(KEY, &parts, false).unwrap(), [Later, Sent, Kept]);
    // After the first look at what the store has.
    let (bucket, path) = (bench.bucket(), bench.path());
    let late = Arc::clone(&bench.store);
    let refused = block_on(async move {
        let mut upload = bucket.resume_upload(KEY, &options(), opened(&path)).await?;
        for part in parts {
            upload.part(part.into()).await?;
        }
        overwrite(&late, 3, "THREE");
        Ok(upload.complete().await.unwrap_err())
    })
    .unwrap();
    assert!(refused.kind() == ErrorKind::WrongAnswer && refused.to_string().contains("part 3"), "{refused}");
    assert_eq!(bench.attempt(KEY, &parts, true).unwrap(), [Later, Kept, Sent]);
    assert_eq!(bench.object(), "one..two..three");
}

#[test]
fn uploads_that_nobody_completes_are_given_up() {
    let bench = Bench::new();
    bench.attempt("p/other", &["one..", "two.."], false).unwrap();
    // Of another object.
    assert_eq!(bench.attempt(KEY, &["one..", "two.."], false).unwrap(), [Later, Sent]);
    assert_eq!(bench.unfinished(), ["up 2"]);
    // Of this one, which no log names.
    std::fs::remove_file(bench.path()).unwrap();
    bench.attempt(KEY, &["one..", "two.."], false).unwrap();
    assert_eq!(bench.unfinished(), ["up 2", "up 3"]);
    bench.attempt(KEY, &["one..", "two.."], true).unwrap();
    assert!(bench.unfinished().is_empty());
    // Of no use any more.
    bench.attempt(KEY, &["one..", "two.."], false).unwrap();
    let replica =
        Arc::new(crate::store::Replica::new(Arc::new(bench.bucket()), "p", crate::store::Layout::Numbered));
    let log = opened(&bench.path());
    block_on(async move { replica.give_up_upload(&log).await }).unwrap();
    assert!(bench.unfinished().is_empty() && !bench.path().exists());
}

#[test]
fn what_arrived_outlives_a_completion_that_is_put_off() {
    let bench = Bench::new();
    bench.store.lock().unwrap().is_busy = true;
    let error = bench.attempt(KEY, &["one..", "two.."], true).unwrap_err();
    assert!(error.is_transient() && bench.path().exists(), "{error}");
    bench.store.lock().unwrap().is_busy = false;
    assert_eq!(bench.attempt(KEY, &["one..", "two.."], true).unwrap(), [Later, Kept]);
    assert_eq!(bench.object(), "one..two..");
    assert!(bench.unfinished().is_empty() && !bench.path().exists());
}

#[test]
fn an_object_that_is_to_be_kept_in_another_way_is_begun_anew() {
    for settings in ["&storage-class=STANDARD_IA", "&sse-kms-key-id=alias/k"] {
        let bench = Bench::new();
        bench.attempt(KEY, &["one..", "two.."], false).unwrap();
        let (bucket, path) = (bench.bucket_with(settings), bench.path());
        let taken = block_on(async move {
            let mut upload = bucket.resume_upload(KEY, &options(), opened(&path)).await?;
            upload.part("one..".into()).await?;
            upload.part("two..".into()).await
        });
        assert_eq!((taken.unwrap(), bench.unfinished()), (Sent, vec!["up 2".to_owned()]), "{settings}");
    }
}

#[test]
fn a_completion_that_failed_is_not_taken_up() {
    let bench = Bench::new();
    let (bucket, path) = (bench.bucket(), bench.path());
    let store = Arc::clone(&bench.store);
    block_on(async move {
        let mut upload = bucket.resume_upload(KEY, &options(), opened(&path)).await?;
        upload.part("one..".into()).await?;
        upload.part("two..".into()).await?;
        assert!(path.exists());
        // Whatever it answers: an answer that is lost may follow.
        let key = store.lock().unwrap().uploads.remove("up 1").unwrap().key;
        assert_eq!(key, KEY);
        assert!(upload.complete().await.is_err());
        assert!(!path.exists());
        Ok(())
    })
    .unwrap();
}

#[test]
fn without_a_place_for_its_log_an_upload_is_as_any_other() {
    let bench = Bench::new();
    let path = bench.folder.path().join("missing/upload.parts");
    let bucket = bench.bucket();
    block_on(async move {
        let mut upload = bucket.resume_upload(KEY, &options(), opened(&path)).await?;
        upload.part("one..".into()).await?;
        assert_eq!(upload.part("two..".into()).await?, Sent);
        upload.complete().await
    })
    .unwrap();
    assert_eq!(bench.object(), "one..two..");
}

#[test]
fn a_real_server_that_does_not_say_what_its_parts_are_gets_all_of_them_again() {
    let server = S3Server::shared();
    let path = server.fresh_path();
    let location = server.target(&path);
    let bucket = S3Bucket::new(location.site().as_any().downcast_ref::<S3Location>().unwrap().clone());
    let folder = TempDir::new().unwrap();
    let log = folder.path().join("upload.parts");
    let key = format!("{path}/0000/file");
    block_on(async move {
        let part = |byte: u8| Bytes::from(vec![byte; 5 << 20]);
        let mut upload = bucket.resume_upload(&key, &options(), opened(&log)).await?;
        for byte in 1..=3 {
            upload.part(part(byte)).await?;
        }
        drop(upload);
        let mut upload = bucket.resume_upload(&key, &options(), opened(&log)).await?;
        for byte in [9, 2] {
            assert_ne!(upload.part(part(byte)).await?, Kept);
        }
        upload.complete().await?;
        let got = bucket.get(&key, ByteRange::All, None).await?.bytes().await?;
        assert!(got == [part(9), part(2)].concat() && !log.exists());
        Ok(())
    })
    .unwrap();
}
