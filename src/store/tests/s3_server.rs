//! A real S3 server for tests.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::store::Location;

/// A real S3 server on this machine, which ends with the last test that uses it.
pub(in crate::store) struct S3Server {
    child: Child,
    folder: TempDir,
    port: u16,
    paths: Mutex<u32>,
}

static SERVER: Mutex<Weak<S3Server>> = Mutex::new(Weak::new());

impl S3Server {
    pub(in crate::store) const BUCKET: &'static str = "bucket";

    pub(in crate::store) fn shared() -> Arc<Self> {
        let mut shared = SERVER.lock().unwrap_or_else(PoisonError::into_inner);
        shared.upgrade().unwrap_or_else(|| {
            let server = Arc::new(Self::start());
            *shared = Arc::downgrade(&server);
            server
        })
    }

    fn binary() -> PathBuf {
        let given = std::env::var_os("LITESTREAM_TEST_S3S_FS").map(PathBuf::from);
        let path = given.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join(".tools/bin/s3s-fs"));
        assert!(
            path.is_file(),
            "no S3 server at {}: install it (cargo install s3s-fs --version 0.14.1 --features binary --root \
             .tools), or name it in LITESTREAM_TEST_S3S_FS",
            path.display()
        );
        path
    }

    fn start() -> Self {
        let folder = TempDir::new().unwrap();
        fs::create_dir(folder.path().join(Self::BUCKET)).unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let child = Command::new(Self::binary())
            .args(["--host", "127.0.0.1", "--port", &port.to_string()])
            .args(["--access-key", "AKTEST", "--secret-key", "hunter2"])
            .arg(folder.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let server = Self { child, folder, port, paths: Mutex::new(0) };
        let deadline = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(Instant::now() < deadline, "the S3 server does not listen on port {port}");
            std::thread::sleep(Duration::from_millis(5));
        }
        server
    }

    /// A path that no test has used.
    pub(in crate::store) fn fresh_path(&self) -> String {
        let mut paths = self.paths.lock().unwrap_or_else(PoisonError::into_inner);
        *paths += 1;
        format!("some where/replica+{paths}")
    }

    pub(in crate::store) fn target(&self, path: &str) -> Location {
        self.target_with(Self::BUCKET, path, "AKTEST", "hunter2")
    }

    pub(in crate::store) fn target_with(
        &self,
        bucket: &str,
        path: &str,
        key: &str,
        secret: &str,
    ) -> Location {
        let url = format!("s3://{bucket}/{path}?endpoint=127.0.0.1:{}&part-size=5242880", self.port);
        let lookup = |name: &str| match name {
            "access-key-id" => Some(key.to_owned()),
            "secret-access-key" => Some(secret.to_owned()),
            "region" => Some("us-east-1".to_owned()),
            _ => None,
        };
        Location::parse(&url, &lookup).unwrap()
    }

    /// Where the server keeps the objects below `path`.
    pub(in crate::store) fn folder(&self, path: &str) -> PathBuf {
        self.folder.path().join(Self::BUCKET).join(path)
    }
}

impl Drop for S3Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
