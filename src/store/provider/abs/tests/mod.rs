//! What an emulator does not do: credentials, refusals, answers that are lost.

use std::sync::Mutex;
use std::time::{SystemTime, UNIX_EPOCH};

use reqwest::Method;
use tempfile::TempDir;

use super::*;
use crate::clock::Timestamp;
use crate::store::Lookup;
use crate::store::auth::jwt_tests::{new_key, read as read_token};
use crate::store::http::call::Call;
use crate::store::tests::recorder::{Answer, Recorder, Seen, run, silence, status};
use crate::store::{Settings, Source};

const TIME: Timestamp = Timestamp::from_millis(1_700_000_000_123);
const KEY: &str = "p/ltx/0/0000000000000001-0000000000000001.ltx";
const EMPTY: &str = "<?xml version=\"1.0\" encoding=\"utf-8\"?><EnumerationResults ContainerName=\"c\"><Blobs />\
                     <NextMarker /></EnumerationResults>";
/// The account and the key that every Azurite has.
pub(in crate::store) const EMULATED_ACCOUNT: &str = "devstoreaccount1";
pub(in crate::store) const EMULATED_KEY: &str =
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

struct Nothing;

impl Lookup for Nothing {
    fn param(&self, _: &str) -> Option<String> {
        None
    }

    fn env(&self, _: &str) -> Option<String> {
        None
    }
}

fn site_from(rest: &str, query: &str, around: &dyn Lookup) -> Result<AzureSite> {
    let settings = Settings::new(&PROVIDER, query, around)?;
    let site = (PROVIDER.locate)(&Source::Url { scheme: "abs", rest }, &settings)?;
    Ok(site.as_any().downcast_ref::<AzureSite>().unwrap().clone())
}

fn bucket_at(recorder: &Recorder) -> AzureBucket {
    let query = format!("endpoint={}&account-key=a2V5", recorder.endpoint());
    AzureBucket::new(site_from("//me@c/p", &query, &Nothing).unwrap())
}

/// A bucket on `server` without credentials of its own, with these environment variables.
fn bucket_with(server: &Recorder, variables: &[(&str, String)]) -> AzureBucket {
    let site = site_from("//me@c/p", &format!("endpoint={}", server.endpoint()), &Nothing).unwrap();
    let variables: Vec<(String, String)> =
        variables.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
    let env =
        move |name: &str| variables.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone());
    AzureBucket::with(site, Box::new(env), IDLE_TIMEOUT)
}

/// Makes the container that tests use at an emulator.
pub(in crate::store) fn make_container(endpoint: &str) {
    let key = percent_encoding::utf8_percent_encode(EMULATED_KEY, percent_encoding::NON_ALPHANUMERIC);
    let query = format!("endpoint={endpoint}/{EMULATED_ACCOUNT}&account-key={key}");
    let bucket = AzureBucket::new(site_from("//devstoreaccount1@container/p", &query, &Nothing).unwrap());
    let call = Call::new(Method::PUT, "/container?restype=container");
    run(async { bucket.session().await.unwrap().send(&call, Way::Usual).await.map(drop) }).unwrap();
}

fn options(if_absent: bool) -> PutOptions {
    PutOptions { timestamp: TIME, if_absent }
}

fn empty_listing() -> Answer {
    status(200).header("Content-Type", "application/xml").body(EMPTY)
}

/// A refusal in the service's words.
fn refusal(code: u16, name: &'static str, message: &str) -> Answer {
    status(code).header("x-ms-error-code", name).header("Content-Type", "application/xml").body(format!(
        "\u{feff}<?xml version=\"1.0\" encoding=\"utf-8\"?><Error><Code>{name}</Code><Message>{message}\n\
         RequestId:x\nTime:2026-01-01T00:00:00Z</Message></Error>"
    ))
}

fn list(bucket: &AzureBucket) -> Result<Page<ObjectInfo>> {
    run(async { bucket.list("p/", None).await })
}

#[test]
fn urls_are_those_of_litestream() {
    let key = |name: &str| (name == "account-key").then(|| "a2V5".to_owned());
    let site = |rest, query| site_from(rest, query, &key).unwrap();
    for (rest, account, container, path) in [
        ("//me@c/some/path", "me", "c", "some/path"),
        ("/me@c/some/path", "me", "c", "some/path"),
        ("//me@c", "me", "c", ""),
        ("//me@c//x/../y%20z/", "me", "c", "y z"),
    ] {
        let site = site(rest, "");
        assert_eq!(
            (site.account.as_deref(), site.container.as_str(), site.path.as_str()),
            (Some(account), container, path),
            "{rest}"
        );
    }
    assert_eq!(site("//me@c/p", "").url(), "abs://me@c/p");
    assert_eq!(site("//me@c/p", "").base(), "https://me.blob.core.windows.net");
    assert_eq!(site("//c/p", "account-name=me"), site("//me@c/p", ""));
    let signed =
        site_from("//c/p", "endpoint=http://127.0.0.1:1/x&sas-token=%3Fsv%3D1%26sig%3Ds", &key).unwrap();
    assert_eq!(signed.given, Some(location::Given::Sas(crate::store::Secret::new("sv=1&sig=s"))));
    for (rest, query) in [
        ("//c/p", ""),
        ("//me@/p", ""),
        ("//me:hunter2@c/p", ""),
        ("//Me.x@c/p", ""),
        ("//me@c/p", "region=x"),
        ("//me@c/p", "part-size=1000"),
        ("//c/p", "endpoint=http://127.0.0.1:1/me"),
    ] {
        let e = site_from(rest, query, &key).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Config, "{rest}?{query}");
        assert!(!e.to_string().contains("hunter2"), "{e}");
    }
}

#[test]
fn a_blob_is_written_as_litestream_writes_it() {
    let server = Recorder::start(|_| status(201));
    let bucket = bucket_at(&server);
    run(async { bucket.put("p/a b/+%", Bytes::from_static(b"123"), &options(true)).await }).unwrap();
    let put = &server.seen()[0];
    assert_eq!((put.method.as_str(), put.path.as_str()), ("PUT", "/c/p/a%20b/%2B%25"));
    for (name, value) in [
        ("x-ms-blob-type", "BlockBlob"),
        ("x-ms-access-tier", "Hot"),
        ("x-ms-meta-litestreamtimestamp", "2023-11-14T22:13:20.123Z"),
        ("if-none-match", "*"),
        ("content-type", "application/octet-stream"),
        ("content-length", "3"),
        ("content-md5", "ICy5YqxZB1uWSwcVLSNLcA=="),
        ("x-ms-version", "2021-12-02"),
    ] {
        assert_eq!(put.header(name), value, "{name}");
    }
    assert!(put.header("authorization").starts_with("SharedKey me:"));
}

#[test]
fn a_listing_has_sizes_and_times_and_no_folders() {
    let server = Recorder::start(|seen| {
        match seen.query("marker") {
        None => status(200).body(
            "<EnumerationResults><Blobs><Blob><Name>p/a</Name><Properties><Last-Modified>Tue, 14 Nov 2023 22:13:21 GMT\
             </Last-Modified><Content-Length>5</Content-Length></Properties><Metadata><LitestreamTimestamp>\
             2023-11-14T22:13:20.123Z</LitestreamTimestamp><other /></Metadata></Blob><Blob><Name>p/d</Name><Properties>\
             <Last-Modified>Tue, 14 Nov 2023 22:13:21 GMT</Last-Modified><Content-Length>0</Content-Length>\
             <ResourceType>directory</ResourceType></Properties><Metadata /></Blob></Blobs><NextMarker>m&amp;1</NextMarker>\
             </EnumerationResults>",
        ),
        Some(_) => status(200).body(
            "<EnumerationResults><Blobs><Blob><Name>p/e &amp; f</Name><Properties><Last-Modified>Tue, 14 Nov 2023 \
             22:13:21 GMT</Last-Modified><Content-Length>7</Content-Length></Properties></Blob></Blobs><NextMarker/>\
             </EnumerationResults>",
        ),
    }
    });
    let bucket = bucket_at(&server);
    let first = list(&bucket).unwrap();
    let stored = Timestamp::from_millis(1_700_000_001_000);
    let a = ObjectInfo { key: "p/a".into(), size: 5, timestamp: TIME, stored };
    assert_eq!(first, Page { entries: vec![a], next: Some(Next::Token("m&1".into())) });
    let second = run(async { bucket.list("p/", first.next).await }).unwrap();
    let e = ObjectInfo { key: "p/e & f".into(), size: 7, timestamp: stored, stored };
    assert_eq!(second, Page { entries: vec![e], next: None });
    assert_eq!(
        server.requests()[1],
        "GET /c?restype=container&comp=list&include=metadata&prefix=p%2F&marker=m%261"
    );
}

#[test]
fn a_range_from_the_end_is_asked_for_from_the_start() {
    let server = Recorder::start(|seen| {
        let whole: Vec<u8> = (0..100).collect();
        match seen.method.as_str() {
            "HEAD" => status(200)
                .header("Content-Length", "100")
                .header("Last-Modified", "Tue, 14 Nov 2023 22:13:21 GMT"),
            _ => status(206).header("Content-Range", "bytes 90-99/100").body(&whole[90..]),
        }
    });
    let bucket = bucket_at(&server);
    for size in [Some(100), None] {
        let content = run(async { bucket.get(KEY, ByteRange::Suffix { len: 10 }, size).await }).unwrap();
        assert_eq!((content.offset, content.file_size), (90, 100));
    }
    assert_eq!(
        server.seen().iter().map(|seen| seen.header("range").to_owned()).collect::<Vec<_>>(),
        ["bytes=90-99", "", "bytes=90-99"]
    );
}

#[test]
fn a_signature_goes_into_each_url_and_no_message() {
    let server =
        Recorder::start(|_| refusal(403, "AuthenticationFailed", "Signature sig=hunter2 did not match"));
    let query = format!("endpoint={}&sas-token=%3Fsv%3D1%26sig%3Dhunter2", server.endpoint());
    let bucket = AzureBucket::new(site_from("//c/p", &query, &Nothing).unwrap());
    let e = list(&bucket).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Denied);
    assert!(e.to_string().contains("sas-token") && !e.to_string().contains("hunter2"), "{e}");
    let seen = &server.seen()[0];
    assert!(seen.path.ends_with("&prefix=p%2F&sv=1&sig=hunter2"), "{}", seen.path);
    assert_eq!(seen.header("authorization"), "");
}

#[test]
fn a_wrong_clock_signs_by_the_time_of_the_store() {
    let server = Recorder::start(|seen| {
        let answer = match seen.header("x-ms-date") {
            date if date.starts_with("Tue, 14 Nov 2023 22:13:2") => empty_listing(),
            _ => refusal(403, "AuthenticationFailed", "Request date header too old"),
        };
        answer.header("Date", "Tue, 14 Nov 2023 22:13:20 GMT")
    });
    list(&bucket_at(&server)).unwrap();
    assert_eq!(server.seen().len(), 2);
}

#[test]
fn refusals_name_the_thing_and_the_remedy() {
    use ErrorKind::*;
    for (answer, kind, words) in [
        (refusal(403, "AuthenticationFailed", "The MAC signature is not the same"), Denied, "account-key"),
        (refusal(403, "AuthorizationPermissionMismatch", "not authorized"), Denied, "permissions"),
        (refusal(403, "AuthorizationFailure", "not authorized"), Denied, "firewall"),
        (refusal(403, "AccountIsDisabled", "disabled"), Denied, "subscription"),
        (refusal(403, "AuthenticationFailed", "Request date header too old"), Denied, "set the clock"),
        (
            refusal(403, "AuthenticationFailed", "Signature not valid in the specified time frame: Expiry"),
            Denied,
            "renew sas-token",
        ),
        (refusal(404, "ContainerNotFound", "no"), NoBucket, "container 'c' does not exist"),
        (refusal(409, "ContainerBeingDeleted", "wait"), Unavailable, "for now (ContainerBeingDeleted: wait)"),
        (refusal(409, "BlobImmutableDueToPolicy", "no"), Denied, "policy"),
        (refusal(409, "BlobArchived", "no"), Unsupported, "rehydrate"),
        (refusal(412, "LeaseIdMissing", "no"), Denied, "lease"),
        (refusal(503, "ServerBusy", "busy"), Unavailable, "for now"),
        (status(502).body("<html>Bad Gateway"), Unavailable, "HTTP status 502"),
        (refusal(413, "RequestBodyTooLarge", "big"), Unsupported, "part-size"),
        (refusal(400, "InvalidUri", "Bad"), Config, "(InvalidUri: Bad)"),
        (status(200).header("Content-Type", "text/html").body("<html>Log in"), WrongAnswer, "web page"),
        (status(200).body("{}"), WrongAnswer, "no EnumerationResults document"),
    ] {
        let server = Recorder::start(move |_| answer.clone());
        let e = list(&bucket_at(&server)).unwrap_err();
        let place = server.endpoint();
        assert_eq!(e.kind(), kind, "{e}");
        for words in [words, &place] {
            assert!(e.to_string().contains(words), "{words}: {e}");
        }
    }
}

#[test]
fn an_account_that_has_no_address_may_not_exist() {
    let unknown = || {
        let text = "cannot connect: failed to lookup address information; check the endpoint and the network";
        Error::new(ErrorKind::Unavailable, text)
    };
    let site = site_from("//me@c/p", "", &Nothing).unwrap();
    assert!(site.hint(unknown()).to_string().ends_with("whether there is a storage account 'me'"));
    let custom = site_from("//me@c/p", "endpoint=http://nowhere/me", &Nothing).unwrap();
    assert_eq!(custom.hint(unknown()).to_string(), unknown().to_string());
}

#[test]
fn a_missing_blob_is_told_from_a_missing_container() {
    let blob = Recorder::start(|_| refusal(404, "BlobNotFound", "The specified blob does not exist."));
    let container = Recorder::start(|_| refusal(404, "ContainerNotFound", "no"));
    let head = |server| run(async { bucket_at(server).head(KEY).await }).unwrap_err();
    let (blob, container) = (head(&blob), head(&container));
    assert_eq!((blob.kind(), container.kind()), (ErrorKind::NotFound, ErrorKind::NoBucket));
    assert!(blob.to_string().contains("replica abs://me@c/p has no p/ltx/0/"), "{blob}");
    assert!(container.to_string().contains("container 'c' does not exist"), "{container}");
}

#[test]
fn every_answer_that_says_that_a_blob_is_there_says_so() {
    for (code, name) in
        [(409, "BlobAlreadyExists"), (412, "ConditionNotMet"), (403, "UnauthorizedBlobOverwrite")]
    {
        let server = Recorder::start(move |_| refusal(code, name, "no"));
        let bucket = bucket_at(&server);
        let e = run(async { bucket.put(KEY, Bytes::new(), &options(true)).await }).unwrap_err();
        assert_eq!((e.kind(), bucket.fencing()), (ErrorKind::AlreadyExists, Fencing::Atomic), "{e}");
    }
}

#[test]
fn blocks_that_another_writer_made_the_service_drop_are_another_writers_blob() {
    let server = Recorder::start(|seen| match (seen.method.as_str(), seen.query("comp").as_deref()) {
        ("PUT", Some("block")) => status(201),
        ("PUT", Some("blocklist")) => {
            refusal(400, "InvalidBlockList", "The specified block list is invalid.")
        }
        _ => status(200)
            .header("Content-Length", "100")
            .header("Last-Modified", "Tue, 14 Nov 2023 22:13:21 GMT"),
    });
    let bucket = bucket_at(&server);
    run(async {
        let mut upload = bucket.upload(KEY, &options(true)).await.unwrap();
        upload.part(Bytes::from_static(b"1")).await.unwrap();
        let e = upload.complete().await.unwrap_err();
        assert_eq!(e.kind(), ErrorKind::AlreadyExists, "{e}");
    });
}

#[test]
fn a_part_whose_answer_is_lost_is_sent_again_under_its_name() {
    let lost: Mutex<Vec<String>> = Mutex::default();
    let server = Recorder::start(move |seen| {
        let mut lost = lost.lock().unwrap();
        if lost.contains(&seen.path) {
            return status(201);
        }
        lost.push(seen.path.clone());
        silence()
    });
    let bucket = bucket_at(&server);
    run(async {
        let mut upload = bucket.upload(KEY, &options(true)).await.unwrap();
        for part in [&b"1"[..], b"2"] {
            let part = Bytes::from_static(part);
            assert!(upload.part(part.clone()).await.unwrap_err().is_transient());
            upload.part(part).await.unwrap();
        }
        assert!(upload.complete().await.unwrap_err().is_transient());
        upload.complete().await.unwrap();
    });
    let seen = server.seen();
    let blocks: Vec<String> = seen.iter().filter_map(|seen| seen.query("blockid")).collect();
    assert_eq!((&blocks[0], &blocks[2]), (&blocks[1], &blocks[3]));
    assert!(blocks[0] != blocks[2] && blocks.iter().all(|name| name.len() == 88));
    let list = format!("<BlockList><Latest>{}</Latest><Latest>{}</Latest></BlockList>", blocks[0], blocks[2]);
    assert!(seen.last().unwrap().text().ends_with(&list));
    assert_eq!(seen.last().unwrap().header("if-none-match"), "*");
}

#[test]
fn a_download_that_breaks_off_is_an_error() {
    let server = Recorder::start(|_| {
        status(206).header("Content-Range", "bytes 0-999/5000").body(vec![7; 1000]).cut(300)
    });
    let range = ByteRange::Bounded { offset: 0, len: 1000 };
    let got = run(async { bucket_at(&server).get(KEY, range, None).await?.bytes().await });
    assert_eq!(got.unwrap_err().kind(), ErrorKind::Unavailable);
}

#[test]
fn a_store_that_ignores_the_condition_is_asked_first() {
    let server = Recorder::start(|seen| match seen.method.as_str() {
        "HEAD" => {
            status(200).header("Content-Length", "1").header("Last-Modified", "Tue, 14 Nov 2023 22:13:21 GMT")
        }
        _ => status(201),
    });
    let bucket = bucket_at(&server);
    run(async {
        bucket.put(KEY, Bytes::new(), &options(true)).await.unwrap();
        assert_eq!(bucket.fencing(), Fencing::Unproven);
        bucket.prove_fencing(KEY, Bytes::new(), &options(true)).await.unwrap();
        assert_eq!(bucket.fencing(), Fencing::LookFirst);
        let e = bucket.put(KEY, Bytes::new(), &options(true)).await.unwrap_err();
        assert_eq!(e.kind(), ErrorKind::AlreadyExists, "{e}");
    });
}

mod credentials {
    use super::*;

    /// A service that gives the token `name` to whoever asks.
    fn giver(name: &'static str) -> Recorder {
        Recorder::start(move |_| {
            status(200)
                .body(format!(r#"{{"access_token": "{name}", "expires_in": "3599", "expires_on": "1"}}"#))
        })
    }

    fn store() -> Recorder {
        Recorder::start(|_| empty_listing())
    }

    fn principal(authority: &Recorder, more: (&'static str, String)) -> Vec<(&'static str, String)> {
        vec![
            ("AZURE_TENANT_ID", "tenant".to_owned()),
            ("AZURE_CLIENT_ID", "client".to_owned()),
            ("AZURE_AUTHORITY_HOST", authority.endpoint()),
            more,
        ]
    }

    fn field(seen: &Seen, name: &str) -> String {
        let text = seen.text();
        let found = url::form_urlencoded::parse(text.as_bytes()).find(|(field, _)| field == name);
        found.unwrap_or_else(|| panic!("no {name}: {text}")).1.into_owned()
    }

    #[test]
    fn a_principal_has_a_secret() {
        let (server, authority) = (store(), giver("of-the-principal"));
        let env = principal(&authority, ("AZURE_CLIENT_SECRET", "hunter2".to_owned()));
        let bucket = bucket_with(&server, &env);
        list(&bucket).unwrap();
        list(&bucket).unwrap();
        assert!(server.seen().iter().all(|s| s.header("authorization") == "Bearer of-the-principal"));
        assert_eq!(authority.requests(), ["POST /tenant/oauth2/v2.0/token"]);
        assert_eq!(
            authority.seen()[0].text(),
            "grant_type=client_credentials&client_id=client&scope=https%3A%2F%2Fstorage.azure.com%2F.default\
             &client_secret=hunter2"
        );
    }

    #[test]
    fn a_principal_has_a_certificate() {
        let (server, authority) = (store(), giver("by-certificate"));
        let (folder, key) = (TempDir::new().unwrap(), new_key());
        let path = folder.path().join("it.pem");
        // Only its digest matters here.
        let pem = format!("{key}-----BEGIN CERTIFICATE-----\nYWJj\n-----END CERTIFICATE-----\n");
        std::fs::write(&path, pem).unwrap();
        let more = ("AZURE_CLIENT_CERTIFICATE_PATH", path.display().to_string());
        list(&bucket_with(&server, &principal(&authority, more))).unwrap();
        let seen = &authority.seen()[0];
        let (header, claims) = read_token(&field(seen, "client_assertion"), &key);
        // The SHA-1 of "abc".
        assert_eq!(header["x5t"], "qZk-NkcGgWq6PiVxeFDCbJzQ2J0");
        assert_eq!((&claims["iss"], &claims["sub"]), (&"client".into(), &"client".into()));
        assert_eq!(claims["aud"], format!("{}/tenant/oauth2/v2.0/token", authority.endpoint()));
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        assert!(claims["nbf"].as_u64().unwrap() <= now && claims["exp"].as_u64().unwrap() > now);
    }

    #[test]
    fn a_workload_has_a_file_that_is_renewed() {
        let (server, authority) = (
            Recorder::start(|seen| match seen.header("authorization") {
                "Bearer of-the-workload" => refusal(401, "InvalidAuthenticationInfo", "expired"),
                _ => empty_listing(),
            }),
            giver("of-the-workload"),
        );
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("token");
        std::fs::write(&path, "first\n").unwrap();
        let env = principal(&authority, ("AZURE_FEDERATED_TOKEN_FILE", path.display().to_string()));
        let bucket = bucket_with(&server, &env);
        list(&bucket).unwrap_err();
        std::fs::write(&path, "second\n").unwrap();
        list(&bucket).unwrap_err();
        let said: Vec<String> = authority.seen().iter().map(|seen| field(seen, "client_assertion")).collect();
        assert_eq!(said, ["first", "first", "second", "second"]);
    }

    #[test]
    fn a_machine_and_an_app_have_an_identity() {
        let (server, metadata) = (store(), giver("of-the-machine"));
        let env = [
            ("AZURE_POD_IDENTITY_AUTHORITY_HOST", metadata.endpoint()),
            ("AZURE_CLIENT_ID", "user-assigned".to_owned()),
        ];
        list(&bucket_with(&server, &env)).unwrap();
        let env = [
            ("IDENTITY_ENDPOINT", format!("{}/app", metadata.endpoint())),
            ("IDENTITY_HEADER", "of-the-app".to_owned()),
        ];
        list(&bucket_with(&server, &env)).unwrap();
        assert_eq!(
            metadata.requests(),
            [
                "GET /metadata/identity/oauth2/token?api-version=2018-02-01&resource=https%3A%2F%2Fstorage.azure.com\
             &client_id=user-assigned",
                "GET /app?api-version=2019-08-01&resource=https%3A%2F%2Fstorage.azure.com",
            ]
        );
        let seen = metadata.seen();
        assert_eq!((seen[0].header("metadata"), seen[1].header("x-identity-header")), ("true", "of-the-app"));
        assert!(server.seen().iter().all(|s| s.header("authorization") == "Bearer of-the-machine"));
    }

    /// A program `az`, and an address where nobody is.
    fn with_cli(script: &str) -> (TempDir, Vec<(&'static str, String)>) {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("az");
        std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let env = vec![
            ("AZURE_POD_IDENTITY_AUTHORITY_HOST", format!("http://{closed}")),
            ("PATH", format!("{}:/usr/bin:/bin", folder.path().display())),
        ];
        (folder, env)
    }

    #[test]
    fn the_cli_is_asked_last() {
        let server = store();
        let script = r#"[ "$*" = "account get-access-token --output json --resource https://storage.azure.com" ] &&
            echo '{"accessToken": "of-the-cli", "expiresOn": "2026-01-01", "expires_on": 99999999999}'"#;
        let (_folder, env) = with_cli(script);
        list(&bucket_with(&server, &env)).unwrap();
        assert_eq!(server.seen()[0].header("authorization"), "Bearer of-the-cli");
    }

    #[test]
    fn without_credentials_the_error_says_how_to_give_some() {
        let server = store();
        let (_folder, env) = with_cli("echo \"Please run 'az login'\" >&2; exit 1");
        let e = list(&bucket_with(&server, &env)).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Denied);
        for words in ["abs://me@c/p", "account-key", "AZURE_CLIENT_SECRET", "Please run 'az login'"] {
            assert!(e.to_string().contains(words), "{e}");
        }
        assert!(server.seen().is_empty());
    }

    #[test]
    fn a_refusal_of_the_authority_is_shown_without_the_secret() {
        let (server, authority) = (
            store(),
            Recorder::start(|_| {
                status(401).body(
                    r#"{"error": "invalid_client", "error_description": "AADSTS7000222: The provided client secret keys for app 'client' are expired."}"#,
                )
            }),
        );
        let env = principal(&authority, ("AZURE_CLIENT_SECRET", "hunter2".to_owned()));
        let e = list(&bucket_with(&server, &env)).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Denied);
        assert!(e.to_string().contains("AADSTS7000222") && !e.to_string().contains("hunter2"), "{e}");
    }

    #[test]
    fn a_file_that_is_no_certificate_is_named() {
        let (server, authority) = (store(), giver("x"));
        let folder = TempDir::new().unwrap();
        for (name, content) in [("a", &b"hunter2"[..]), ("b.pfx", b"\x30\x82\xff\xfe")] {
            let path = folder.path().join(name);
            std::fs::write(&path, content).unwrap();
            let more = ("AZURE_CLIENT_CERTIFICATE_PATH", path.display().to_string());
            let e = list(&bucket_with(&server, &principal(&authority, more))).unwrap_err();
            assert_eq!(e.kind(), ErrorKind::Config);
            assert!(e.to_string().contains(&path.display().to_string()), "{e}");
            assert!(!e.to_string().contains("hunter2"), "{e}");
        }
    }
}
