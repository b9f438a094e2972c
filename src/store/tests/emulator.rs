//! Servers of others, most of which stand for a cloud's, and which tests start on this machine.

use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// A program that is a server.
#[derive(Clone, Copy)]
pub(in crate::store) struct Program {
    /// The environment variable that names it.
    variable: &'static str,
    /// Where `make tools` puts it.
    path: &'static str,
    /// Its arguments, with its port and a folder of its own.
    arguments: fn(u16, &Path) -> Vec<String>,
    shared: &'static Mutex<Weak<Emulator>>,
}

/// Google Cloud Storage: fsouza's fake-gcs-server.
pub(in crate::store) static FAKE_GCS: Program = Program {
    variable: "LITESTREAM_TEST_FAKE_GCS",
    path: ".tools/bin/fake-gcs-server",
    arguments: |port, _| {
        let url = format!("http://127.0.0.1:{port}");
        let text = format!(
            "-backend memory -scheme http -host 127.0.0.1 -port {port} -public-host 127.0.0.1:{port} -external-url {url} \
             -log-level error"
        );
        text.split(' ').map(str::to_owned).collect()
    },
    shared: {
        static SHARED: Mutex<Weak<Emulator>> = Mutex::new(Weak::new());
        &SHARED
    },
};

/// Azure Blob Storage: Microsoft's Azurite.
pub(in crate::store) static AZURITE: Program = Program {
    variable: "LITESTREAM_TEST_AZURITE",
    path: ".tools/bin/azurite-blob",
    arguments: |port, folder| {
        let text =
            format!("--blobHost 127.0.0.1 --blobPort {port} --silent --skipApiVersionCheck --location");
        text.split(' ').map(str::to_owned).chain([folder.display().to_string()]).collect()
    },
    shared: {
        static SHARED: Mutex<Weak<Emulator>> = Mutex::new(Weak::new());
        &SHARED
    },
};

/// A WebDAV share, for user `me` with password `hunter2`: `rclone serve webdav`.
pub(in crate::store) static WEBDAV: Program = Program {
    variable: "LITESTREAM_TEST_RCLONE",
    path: ".venv/bin/rclone",
    arguments: |port, folder| {
        let text = format!("serve webdav --addr 127.0.0.1:{port} --user me --pass hunter2");
        text.split(' ').map(str::to_owned).chain([folder.display().to_string()]).collect()
    },
    shared: {
        static SHARED: Mutex<Weak<Emulator>> = Mutex::new(Weak::new());
        &SHARED
    },
};

/// SFTP: OpenSSH's server, which needs no password but a key that it makes.
pub(in crate::store) static SSHD: Program = Program {
    variable: "LITESTREAM_TEST_SSHD_SCRIPT",
    path: "tests/sshd.sh",
    arguments: |port, folder| vec![port.to_string(), folder.display().to_string()],
    shared: {
        static SHARED: Mutex<Weak<Emulator>> = Mutex::new(Weak::new());
        &SHARED
    },
};

/// SFTP: `rclone serve sftp`, for user `me` with password `hunter2`. It overwrites where a rename should fail.
pub(in crate::store) static RCLONE_SFTP: Program = Program {
    variable: "LITESTREAM_TEST_RCLONE",
    path: ".venv/bin/rclone",
    arguments: |port, folder| {
        let text = format!("serve sftp --addr 127.0.0.1:{port} --user me --pass hunter2");
        text.split(' ').map(str::to_owned).chain([folder.display().to_string()]).collect()
    },
    shared: {
        static SHARED: Mutex<Weak<Emulator>> = Mutex::new(Weak::new());
        &SHARED
    },
};

/// NATS with JetStream.
pub(in crate::store) static NATS: Program = Program {
    variable: "LITESTREAM_TEST_NATS",
    path: ".venv/bin/nats-server",
    arguments: |port, folder| {
        let text = format!("-a 127.0.0.1 -p {port} -js -sd");
        text.split(' ').map(str::to_owned).chain([folder.display().to_string()]).collect()
    },
    shared: {
        static SHARED: Mutex<Weak<Emulator>> = Mutex::new(Weak::new());
        &SHARED
    },
};

/// A running server, which ends with the last test that uses it.
pub(in crate::store) struct Emulator {
    child: Child,
    pub(in crate::store) port: u16,
    paths: Mutex<u32>,
    folder: TempDir,
}

impl Program {
    /// The server that the tests of this process share; `prepare` is called once for it.
    pub(in crate::store) fn shared(&self, prepare: impl FnOnce(&Emulator)) -> Arc<Emulator> {
        let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        shared.upgrade().unwrap_or_else(|| {
            let server = Arc::new(self.start());
            prepare(&server);
            *shared = Arc::downgrade(&server);
            server
        })
    }

    fn binary(&self) -> PathBuf {
        let given = std::env::var_os(self.variable).map(PathBuf::from);
        let path = given.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join(self.path));
        let (missing, variable) = (path.display(), self.variable);
        assert!(path.exists(), "no server at {missing}: install it (make tools), or name it in {variable}");
        path
    }

    fn start(&self) -> Emulator {
        let folder = TempDir::new().unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let binary = self.binary();
        let child = Command::new(&binary)
            .args((self.arguments)(port, folder.path()))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let server = Emulator { child, port, paths: Mutex::new(0), folder };
        let deadline = Instant::now() + Duration::from_secs(60);
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(Instant::now() < deadline, "{} does not listen on port {port}", binary.display());
            std::thread::sleep(Duration::from_millis(5));
        }
        server
    }
}

impl Emulator {
    /// The folder of its own.
    pub(in crate::store) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(in crate::store) fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// A path that no test has used.
    pub(in crate::store) fn fresh_path(&self) -> String {
        let mut paths = self.paths.lock().unwrap_or_else(PoisonError::into_inner);
        *paths += 1;
        format!("some where/replica+{paths}")
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
