//! SFTP against real servers: who is let in, what refusals say, what a server that overwrites means. What every store does is in
//! the tests of all stores.

use std::fs;
use std::io::Write as _;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;

use super::SftpBucket;
use super::site::SftpSite;
use crate::clock::Timestamp;
use crate::error::{Error, ErrorKind};
use crate::store::tests::emulator::{Emulator, RCLONE_SFTP, SSHD};
use crate::store::tests::recorder::run;
use crate::store::{Bucket, ByteRange, Fencing, Location, PutOptions};

const NAME: &str = "ltx/0/0000000000000001-0000000000000001.ltx";

fn read(server: &Emulator, name: &str) -> String {
    fs::read_to_string(server.folder().join(name)).unwrap().trim().to_owned()
}

/// A replica on OpenSSH's server, at `path`.
pub(in crate::store) fn location(server: &Emulator, path: &str) -> Location {
    with(server, path, &[])
}

/// The same with these settings in the place of the right ones; an empty one is left out.
fn with(server: &Emulator, path: &str, instead: &[(&str, &str)]) -> Location {
    let user = instead.iter().find(|(known, _)| *known == "user").map(|(_, user)| (*user).to_owned());
    let user = user.unwrap_or_else(|| read(server, "user"));
    let url = format!("sftp://{user}@127.0.0.1:{}/{path}", server.port);
    let around = |name: &str| {
        let given = instead.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
        given.or_else(|| match name {
            "key-path" => Some(server.folder().join("id").display().to_string()),
            "host-key" => Some(read(server, "host.pub")),
            _ => None,
        })
    };
    Location::parse(&url, &around).unwrap()
}

fn bucket(location: &Location) -> SftpBucket {
    SftpBucket::new(location.site().as_any().downcast_ref::<SftpSite>().unwrap().clone())
}

/// A bucket of a folder that no test has used, and the key of a file in it.
fn fresh(server: &Arc<Emulator>, instead: &[(&str, &str)]) -> (SftpBucket, String) {
    let path = format!("{}/files/{}", server.folder().display(), server.fresh_path());
    let location = with(server, &path, instead);
    (bucket(&location), format!("{}/{NAME}", location.site().root()))
}

fn if_absent() -> PutOptions {
    PutOptions { timestamp: Timestamp::from_millis(1_700_000_000_123), if_absent: true }
}

fn put(bucket: &SftpBucket, key: &str) -> Result<(), Error> {
    run(bucket.put(key, Bytes::from_static(b"content"), &if_absent()))
}

/// Makes a key in the server's folder by `ssh-keygen`, which the server lets in from then on.
fn make_key(server: &Emulator, name: &str, kind: &str, passphrase: &str) -> String {
    let path = server.folder().join(name);
    let mut command = std::process::Command::new("ssh-keygen");
    command.args(["-q", "-C", "", "-t", kind, "-N", passphrase, "-f"]).arg(&path);
    assert!(command.status().unwrap().success());
    let mut allowed =
        fs::OpenOptions::new().append(true).open(server.folder().join("authorized_keys")).unwrap();
    allowed.write_all(read(server, &format!("{name}.pub")).as_bytes()).unwrap();
    allowed.write_all(b"\n").unwrap();
    path.display().to_string()
}

#[test]
fn keys_of_all_kinds_log_in() {
    let server = SSHD.shared(|_| {});
    let sealed = make_key(&server, "sealed", "ed25519", "open sesame");
    let rsa = make_key(&server, "rsa", "rsa", "");
    for settings in [
        &[("key-path", rsa.as_str())][..],
        &[("key-path", &sealed), ("key-passphrase", "open sesame")],
        &[("concurrent-writes", "false")],
        &[("skip-verify", "true"), ("host-key", "")],
    ] {
        let (bucket, key) = fresh(&server, settings);
        put(&bucket, &key).unwrap();
        assert_eq!(run(bucket.head(&key)).unwrap().size, 7);
    }
}

#[test]
fn who_is_not_let_in_is_told_why_without_a_secret() {
    let server = SSHD.shared(|_| {});
    let sealed = make_key(&server, "closed", "ed25519", "open sesame");
    let host = read(&server, "id.pub");
    let none = "/no/such/file";
    for (settings, kind, words) in [
        (&[("key-path", sealed.as_str())][..], ErrorKind::Config, "is encrypted; set key-passphrase"),
        (&[("key-path", &sealed), ("key-passphrase", "hunter2")], ErrorKind::Config, "with key-passphrase"),
        (&[("key-path", none)], ErrorKind::Config, "cannot read the key in '/no/such/file'"),
        (&[("key-path", "/proc/version")], ErrorKind::Config, "must name a private key"),
        (&[("key-path", ""), ("password", "hunter2")], ErrorKind::Denied, "check password and user"),
        (
            &[("user", "root"), ("key-path", &format!("{}/host", server.folder().display()))],
            ErrorKind::Denied,
            "check key-path and user",
        ),
        (&[("host-key", "")], ErrorKind::Config, "set host-key to 'ssh-ed25519 "),
        (&[("host-key", &host)], ErrorKind::Denied, "the setting host-key has SHA256:"),
    ] {
        let (bucket, key) = fresh(&server, settings);
        let e = put(&bucket, &key).unwrap_err();
        assert_eq!(e.kind(), kind, "{settings:?}: {e}");
        let text = e.to_string();
        assert!(text.contains(words) && !text.contains("hunter2"), "{text}");
    }
}

/// What rclone serves, to user `me` with this password.
fn rclone(server: &Emulator, password: &str) -> SftpBucket {
    let url =
        format!("sftp://me:{password}@127.0.0.1:{}/{}?skip-verify=true", server.port, server.fresh_path());
    bucket(&Location::parse(&url, &|_: &str| None).unwrap())
}

#[test]
fn a_password_logs_in_and_a_wrong_one_is_never_shown() {
    let server = RCLONE_SFTP.shared(|_| {});
    let key = format!("some where/{NAME}");
    put(&rclone(&server, "hunter2"), &key).unwrap();
    let e = put(&rclone(&server, "hunter3"), &key).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Denied, "{e}");
    assert!(e.to_string().contains("check password and user") && !e.to_string().contains("hunter"), "{e}");
}

#[test]
fn a_server_whose_rename_overwrites_is_asked_first_from_then_on() {
    let server = RCLONE_SFTP.shared(|_| {});
    let bucket = rclone(&server, "hunter2");
    let key = format!("overwritten/{NAME}");
    put(&bucket, &key).unwrap();
    assert_eq!(bucket.fencing(), Fencing::Unproven);
    run(bucket.prove_fencing(&key, Bytes::from_static(b"content"), &if_absent())).unwrap();
    assert_eq!(bucket.fencing(), Fencing::LookFirst);
    assert_eq!(put(&bucket, &key).unwrap_err().kind(), ErrorKind::AlreadyExists);
}

#[test]
fn a_folder_of_others_and_a_file_of_another_size_are_refused() {
    let server = SSHD.shared(|_| {});
    let e = put(&bucket(&with(&server, "not-ours", &[])), &format!("not-ours/{NAME}")).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Denied, "{e}");
    assert!(e.to_string().contains("check the owner and the permissions of the folder"), "{e}");
    let (bucket, key) = fresh(&server, &[]);
    put(&bucket, &key).unwrap();
    let got = |range, size| run(async { bucket.get(&key, range, size).await?.bytes().await });
    let bounded = ByteRange::Bounded { offset: 2, len: 3 };
    assert_eq!(got(bounded, Some(7)).unwrap(), "nte");
    assert_eq!(got(ByteRange::Suffix { len: 3 }, Some(7)).unwrap(), "ent");
    for size in [3, 6, 8, 100] {
        assert_eq!(got(bounded, Some(size)).unwrap_err().kind(), ErrorKind::WrongAnswer, "{size}");
    }
}

#[test]
fn a_connection_that_is_gone_is_made_again_and_an_upload_continues() {
    let server = SSHD.shared(|_| {});
    let (bucket, key) = fresh(&server, &[]);
    let part = Bytes::from(vec![7; 1 << 20]);
    run(async {
        let mut upload = bucket.upload(&key, &if_absent()).await?;
        for _ in 0..3 {
            upload.part(part.clone()).await?;
            bucket.session().await?.leave();
        }
        upload.complete().await
    })
    .unwrap();
    let content = run(async { bucket.get(&key, ByteRange::All, None).await?.bytes().await }).unwrap();
    assert!(content.len() == 3 << 20 && content.iter().all(|byte| *byte == 7));
}

#[test]
fn what_crashes_left_is_removed_after_a_day() {
    let server = SSHD.shared(|_| {});
    let (bucket, key) = fresh(&server, &[]);
    put(&bucket, &key).unwrap();
    let file = std::path::Path::new("/").join(&key);
    let left = |name: &str| file.with_file_name(name);
    for (name, hours) in [(".a.ltx.1.tmp", 25), (".b.ltx.1.tmp", 23)] {
        let made = fs::File::create(left(name)).unwrap();
        made.set_modified(SystemTime::now() - Duration::from_secs(hours * 3600)).unwrap();
    }
    run(bucket.delete(&[format!("{key}.other")])).unwrap();
    assert_eq!(
        (left(".a.ltx.1.tmp").exists(), left(".b.ltx.1.tmp").exists(), file.exists()),
        (false, true, true)
    );
}
