//! NATS against a real server: what others left there, and what refusals say. What every store does is in the tests of all
//! stores.

use bytes::Bytes;
use serde_json::json;

use super::NatsBucket;
use super::site::NatsSite;
use crate::clock::Timestamp;
use crate::error::{Error, ErrorKind};
use crate::store::tests::emulator::{Emulator, NATS};
use crate::store::tests::recorder::run;
use crate::store::{Bucket, ByteRange, Fencing, Location, PutOptions};

const KEY: &str = "ltx/0/0000000000000001-0000000000000001.ltx";

async fn request(server: &Emulator, subject: String, body: serde_json::Value) -> Bytes {
    let client = async_nats::connect(format!("127.0.0.1:{}", server.port)).await.unwrap();
    client.request(subject, body.to_string().into()).await.unwrap().payload
}

/// Makes an object store as other clients do; the URL of the replica that it is.
pub(in crate::store) fn make_bucket(server: &Emulator) -> String {
    let name = format!("b{}", server.fresh_path().rsplit('+').next().unwrap());
    let config = json!({
        "name": format!("OBJ_{name}"), "subjects": [format!("$O.{name}.C.>"), format!("$O.{name}.M.>")],
        "allow_rollup_hdrs": true, "allow_direct": true, "discard": "new", "storage": "file", "num_replicas": 1,
    });
    let made = run(request(server, format!("$JS.API.STREAM.CREATE.OBJ_{name}"), config));
    assert!(!made.windows(7).any(|bytes| bytes == b"\"error\""), "{made:?}");
    format!("nats://127.0.0.1:{}/{name}", server.port)
}

fn bucket(url: &str) -> NatsBucket {
    let location = Location::parse(url, &|_: &str| None).unwrap();
    NatsBucket::new(location.site().as_any().downcast_ref::<NatsSite>().unwrap().clone())
}

fn if_absent() -> PutOptions {
    PutOptions { timestamp: Timestamp::from_millis(1_700_000_000_123), if_absent: true }
}

fn put(bucket: &NatsBucket, content: &'static [u8]) -> Result<(), Error> {
    run(bucket.put(KEY, Bytes::from_static(content), &if_absent()))
}

#[test]
fn what_litestream_deleted_is_written_again() {
    let server = NATS.shared(|_| {});
    let bucket = bucket(&make_bucket(&server));
    put(&bucket, b"content").unwrap();
    let names = &bucket.site().names;
    let (mut object, _) =
        run(async { bucket.session().await?.meta(KEY).await.map_err(|_| Error::config("")) })
            .unwrap()
            .unwrap();
    object.deleted = true;
    run(request(&server, names.meta(KEY), serde_json::to_value(&object).unwrap()));
    assert_eq!(run(bucket.list("", None)).unwrap().entries, []);
    put(&bucket, b"again").unwrap();
    assert_eq!(run(async { bucket.get(KEY, ByteRange::All, None).await?.bytes().await }).unwrap(), "again");
    assert_eq!(put(&bucket, b"once more").unwrap_err().kind(), ErrorKind::AlreadyExists);
    assert_eq!(bucket.fencing(), Fencing::Atomic);
}

#[test]
fn nothing_is_left_of_what_is_deleted_or_was_refused() {
    let server = NATS.shared(|_| {});
    let bucket = bucket(&make_bucket(&server));
    put(&bucket, b"content").unwrap();
    put(&bucket, b"refused").unwrap_err();
    let messages = || {
        let stream = bucket.site().names.stream();
        let info = run(request(&server, format!("$JS.API.STREAM.INFO.{stream}"), json!({})));
        serde_json::from_slice::<serde_json::Value>(&info).unwrap()["state"]["messages"].as_u64().unwrap()
    };
    for _ in 0..5000 {
        if messages() == 2 {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    assert_eq!(messages(), 2);
    run(bucket.delete(&[KEY.to_owned()])).unwrap();
    assert_eq!(messages(), 0);
}

#[test]
fn an_object_store_that_is_not_there_and_a_server_that_is_not_are_told() {
    let server = NATS.shared(|_| {});
    let nowhere = bucket(&format!("nats://127.0.0.1:{}/nowhere", server.port));
    let e = run(nowhere.list("", None)).unwrap_err();
    assert!(e.kind() == ErrorKind::NoBucket && e.to_string().contains("nats object add nowhere"), "{e}");
    let e = put(&nowhere, b"content").unwrap_err();
    assert!(e.to_string().contains("nats object add nowhere"), "{e}");
    let e = put(&bucket("nats://me:hunter2@127.0.0.1:1/b"), b"content").unwrap_err();
    assert!(e.kind() == ErrorKind::Unavailable && e.to_string().contains("127.0.0.1:1"), "{e}");
    assert!(!e.to_string().contains("hunter2"), "{e}");
}
