//! How other processes reach the one that publishes: datagrams to a socket in the folder of local state. Who hears them is
//! in `ear`.
//!
//! Nobody depends on them arriving: the publisher looks at the database when it takes over, and who
//! waits for an answer asks again.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::files;
use crate::primary::ownership::report::Report;

/// The publisher's socket.
pub(super) const PUBLISHER: &str = "vfs.sock";
/// The most that a socket's address may be long, with room to spare.
const LONGEST: usize = 100;
/// The most that a message may be long.
pub(super) const MESSAGE_SIZE: usize = 8192;

/// What other processes say to the publisher.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Message {
    /// There are commits.
    Committed,
    /// Somebody waits until all that is committed is in the replica; the answer goes to this mailbox.
    Sync(String),
    /// Replication that stopped shall go on, with force or not. The answer is that of a sync.
    Resume(bool, String),
    /// Who said so with force does not wait for it any more: it shall not.
    Withdraw,
    /// As `Resume`, for the replica with this id only. Version 0.1.0 does not understand it, and says nothing.
    ResumeOne(bool, String, String),
    /// Who waits asks how replication stands; an answer for each replica goes to this mailbox, at once. Version 0.1.0 does
    /// not understand it, and says nothing.
    Status(String),
    /// As `Sync`, of one who asks for no upload before its time.
    Wait(String),
    /// Commits wait: what is sent from now on is to be on disk first. Version 0.1.0 does not understand it, and says nothing.
    CommitsWait,
}

/// What the publisher answers.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Answer {
    /// All is in the replica, which ends with this transaction.
    Done(u64),
    /// Replication stopped.
    Stopped(String),
    /// There is nothing to replicate yet.
    Empty(String),
    /// It did not work so far; it is tried again.
    Failing(String),
    /// The answer for the replica with this id. It comes before those above, which are for version 0.1.0.
    Of(String, Box<Answer>),
    /// How replication to the replica with this id stands.
    Report(String, Report),
}

/// The address of a socket in `folder`. The second value must live while it is used: a path that is too
/// long for an address is named by the descriptor of its folder.
pub(super) fn address(folder: &Path, name: &str) -> io::Result<(PathBuf, Option<File>)> {
    let path = folder.join(name);
    if path.as_os_str().len() <= LONGEST {
        return Ok((path, None));
    }
    let open = File::open(folder)?;
    Ok((PathBuf::from(format!("/proc/self/fd/{}/{name}", open.as_raw_fd())), Some(open)))
}

/// A socket that those may send to who may use the database.
pub(super) fn bind(path: &Path) -> io::Result<UnixDatagram> {
    let socket = UnixDatagram::bind(path)?;
    files::as_in_folder(path);
    Ok(socket)
}

fn send(folder: &Path, name: &str, what: &impl Serialize) -> io::Result<()> {
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    let (path, _open) = address(folder, name)?;
    let bytes = serde_json::to_vec(what).expect("BUG: a message is plain data");
    socket.send_to(&bytes, path).map(drop)
}

/// Says something to the publisher of the database whose local state is in `folder`.
///
/// # Errors
/// Whatever says that nobody listens.
pub(super) fn tell(folder: &Path, message: &Message) -> io::Result<()> {
    let (socket, home) = (fs::metadata(folder.join(PUBLISHER))?, fs::metadata(folder)?);
    // Version 0.1.0 understands no address, and its sockets have one name.
    match socket.nlink() {
        1 => send(folder, PUBLISHER, message),
        _ => send(folder, PUBLISHER, &Letter { to: home.ino(), message }),
    }
}

/// A message to a socket that hears for several databases.
#[derive(Serialize, Deserialize)]
pub(super) struct Letter<M> {
    /// The inode of the folder of local state of the database that it is for.
    pub(super) to: u64,
    pub(super) message: M,
}

impl Message {
    /// Where the answer is to go.
    pub(super) fn mailbox(&self) -> Option<&str> {
        match self {
            Self::Sync(mailbox) | Self::Resume(_, mailbox) | Self::ResumeOne(_, mailbox, _) => Some(mailbox),
            Self::Status(mailbox) | Self::Wait(mailbox) => Some(mailbox),
            Self::Committed | Self::Withdraw | Self::CommitsWait => None,
        }
    }
}

/// Answers to a mailbox; `false` if nobody is there. Who is gone needs no answer.
pub(super) fn answer(folder: &Path, mailbox: &str, answer: &Answer) -> bool {
    let is_name = mailbox.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.'));
    let sent = is_name.then(|| send(folder, mailbox, answer));
    if let Some(Err(e)) = &sent {
        tracing::debug!("no answer to {mailbox}: {e}");
    }
    sent.is_some_and(|sent| sent.is_ok())
}

/// Where the answers to one who waits arrive.
pub(super) struct Mailbox {
    socket: UnixDatagram,
    folder: PathBuf,
    pub(super) name: String,
}

impl Mailbox {
    /// A new one in `folder`.
    ///
    /// # Errors
    /// Those of the folder.
    pub(super) fn open(folder: &Path) -> io::Result<Self> {
        let name = format!("{}-{:016x}.sock", std::process::id(), crate::primary::random_u64());
        let (path, _open) = address(folder, &name)?;
        let socket = bind(&path)?;
        Ok(Self { socket, folder: folder.to_path_buf(), name })
    }

    /// The next answer, if one comes within `patience`.
    pub(super) fn wait(&self, patience: Duration) -> Option<Answer> {
        self.socket.set_read_timeout(Some(patience)).ok()?;
        let mut bytes = [0; MESSAGE_SIZE];
        let len = self.socket.recv(&mut bytes).ok()?;
        serde_json::from_slice(&bytes[..len]).ok()
    }
}

impl Drop for Mailbox {
    fn drop(&mut self) {
        let _ = fs::remove_file(self.folder.join(&self.name));
    }
}

/// Removes the publisher's socket. Only for the process that publishes.
pub(super) fn close(folder: &Path) {
    let _ = fs::remove_file(folder.join(PUBLISHER));
}

/// Removes the sockets of processes that are gone. One who still waits opens another.
pub(super) fn sweep(folder: &Path) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for path in entries.flatten().map(|entry| entry.path()) {
        let is_old = path.file_name().is_some_and(|name| name == PUBLISHER);
        let is_orphan = path.extension().is_some_and(|e| e == "sock") && owner(&path).is_some_and(is_gone);
        if is_old || is_orphan {
            let _ = fs::remove_file(path);
        }
    }
}

/// The process that opened a mailbox.
fn owner(path: &Path) -> Option<u32> {
    path.file_name()?.to_str()?.split_once('-')?.0.parse().ok()
}

fn is_gone(pid: u32) -> bool {
    Path::new("/proc/self").exists() && !Path::new(&format!("/proc/{pid}")).exists()
}
