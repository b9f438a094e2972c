//! How a publisher hears other processes: by one socket for all databases of the process, with a name (a hard link) in the
//! folder of local state of each. Databases whose folders are on other file systems, or have other owners or permissions,
//! have a socket of their own.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio::net::UnixDatagram;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use super::control_socket::{Letter, MESSAGE_SIZE, Message, PUBLISHER, address, bind, sweep};
use crate::files::Rights;
use crate::fork::PerProcess;
use crate::primary::ownership::Ownership;

/// The sockets of this process.
static SOCKETS: PerProcess<Mutex<Vec<Weak<Socket>>>> = PerProcess::new();

/// How many names of a socket are tried. With none of them a further socket is opened.
const NAMES: usize = 4;

/// What the databases that are heard by one socket have in common.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Kind {
    runtime: tokio::runtime::Id,
    device: u64,
    rights: Rights,
}

struct Socket {
    kind: Kind,
    inode: u64,
    heard: Arc<Heard>,
    task: JoinHandle<()>,
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The databases that a socket hears for, by the inodes of their folders of local state.
#[derive(Default)]
struct Heard(Mutex<BTreeMap<u64, Database>>);

struct Database {
    /// Until the ear is dropped, which its role has.
    owner: Arc<Ownership>,
    /// Tells this ear from an earlier one of the same folder.
    number: u64,
}

/// What a database is heard by. It is heard no longer when this is dropped.
pub(super) struct Ear {
    socket: Arc<Socket>,
    folder: u64,
    number: u64,
    /// The process that listens.
    pid: u32,
}

impl Ear {
    /// Listens for other processes. Only for the process that publishes, inside the runtime.
    ///
    /// # Errors
    /// Those of the folder.
    pub(super) fn open(owner: &Arc<Ownership>) -> io::Result<Self> {
        let folder = &owner.db.folder;
        let meta = fs::metadata(folder)?;
        let kind = Kind { runtime: Handle::current().id(), device: meta.dev(), rights: Rights::of(folder)? };
        sweep(folder);
        // None is locked while a folder may be slow.
        let known = known().into_iter().find(|socket| socket.takes(kind, folder));
        let socket = match known {
            Some(socket) => socket,
            None => {
                let socket = Arc::new(Socket::open(kind, folder)?);
                sockets().push(Arc::downgrade(&socket));
                socket
            }
        };
        let number = crate::primary::random_u64();
        socket.heard.lock().insert(meta.ino(), Database { owner: Arc::clone(owner), number });
        Ok(Self { socket, folder: meta.ino(), number, pid: std::process::id() })
    }
}

impl Drop for Ear {
    fn drop(&mut self) {
        // A thread that a forked child does not have may have locked it.
        if self.pid != std::process::id() {
            return;
        }
        let mut heard = self.socket.heard.lock();
        let is_mine = heard.get(&self.folder).is_some_and(|database| database.number == self.number);
        let database = if is_mine { heard.remove(&self.folder) } else { None };
        drop(heard);
        drop(database);
    }
}

fn sockets() -> MutexGuard<'static, Vec<Weak<Socket>>> {
    SOCKETS.get().lock().unwrap_or_else(PoisonError::into_inner)
}

/// The sockets that hear for some database.
fn known() -> Vec<Arc<Socket>> {
    let mut sockets = sockets();
    sockets.retain(|socket| socket.strong_count() > 0);
    sockets.iter().filter_map(Weak::upgrade).collect()
}

impl Socket {
    /// A new one, with its first name in `folder`.
    fn open(kind: Kind, folder: &Path) -> io::Result<Self> {
        let (path, _open) = address(folder, PUBLISHER)?;
        let socket = bind(&path)?;
        socket.set_nonblocking(true)?;
        let socket = UnixDatagram::from_std(socket)?;
        let inode = fs::metadata(folder.join(PUBLISHER))?.ino();
        let heard: Arc<Heard> = Arc::default();
        let task = tokio::spawn(listen(socket, Arc::clone(&heard)));
        Ok(Self { kind, inode, heard, task })
    }

    /// Gives the socket a name in `folder` too, if it may hear for databases of that kind; whether it has it.
    fn takes(&self, kind: Kind, folder: &Path) -> bool {
        if self.kind != kind || self.task.is_finished() {
            return false;
        }
        let name = folder.join(PUBLISHER);
        let is_ours = |path: &Path| fs::metadata(path).is_ok_and(|meta| meta.ino() == self.inode);
        // A folder may be gone, and another process may listen in one that came in its place.
        self.names().iter().filter(|path| is_ours(path)).any(|path| {
            let is_linked = fs::hard_link(path, &name).is_ok() && is_ours(&name);
            if !is_linked {
                let _ = fs::remove_file(&name);
            }
            is_linked
        })
    }

    /// Some of its names.
    fn names(&self) -> Vec<PathBuf> {
        let heard = self.heard.lock();
        heard.values().take(NAMES).map(|database| database.owner.db.folder.join(PUBLISHER)).collect()
    }
}

impl Heard {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Database>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The databases that a message is for, to a folder with the inode `to`. Version 0.1.0 does not say to which: then it is for
    /// all, or for the one that has the mailbox for its answer.
    fn databases(&self, to: Option<u64>, message: &Message) -> Vec<Arc<Ownership>> {
        let heard = self.lock();
        if let Some(database) = to.and_then(|folder| heard.get(&folder)) {
            return vec![Arc::clone(&database.owner)];
        }
        let is_for = |owner: &&Arc<Ownership>| {
            heard.len() == 1 || message.mailbox().is_none_or(|mailbox| owner.db.folder.join(mailbox).exists())
        };
        heard.values().map(|database| &database.owner).filter(is_for).cloned().collect()
    }
}

/// Hears what other processes say, until it is aborted.
async fn listen(socket: UnixDatagram, heard: Arc<Heard>) {
    let mut bytes = vec![0; MESSAGE_SIZE];
    while let Ok(len) = socket.recv(&mut bytes).await {
        let Some((to, message)) = read(&bytes[..len]) else { continue };
        for owner in heard.databases(to, &message) {
            owner.heard(message.clone());
        }
    }
}

fn read(bytes: &[u8]) -> Option<(Option<u64>, Message)> {
    match serde_json::from_slice::<Letter<Message>>(bytes) {
        Ok(letter) => Some((Some(letter.to), letter.message)),
        Err(_) => Some((None, serde_json::from_slice(bytes).ok()?)),
    }
}
