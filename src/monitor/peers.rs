//! How the processes of a machine that were told the same address report to the one that has the port.
//!
//! Each of them connects to a Unix socket in the abstract name space, which belongs to the same network name space as the
//! port, leaves no file behind and ends with its process. The process that has the port sends a question, a line of JSON;
//! the other one answers with a line. Both sides make sure that the other runs as the same user.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot};

use super::Monitor;
use super::report::Report;
use crate::fork::ClosedInChild;
use crate::primary::Primary;
use crate::runtime;
use crate::store::FileInfo;

/// How long a process has for its answer.
const PATIENCE: Duration = Duration::from_secs(1);
/// The longest line.
const LONGEST: u64 = 64 << 20;
/// Processes that report, at most.
const MOST: usize = 256;
/// Restore points that are shown, at most.
const POINTS: usize = 2000;

/// What the process that has the port asks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Question {
    /// For all that the other one knows.
    Report,
    /// For the files of a replica of a database that the other one publishes.
    Points {
        /// The database.
        db: String,
        /// The name of the replica.
        replica: String,
    },
}

/// A question, and where its answer goes.
type Asked = (Question, oneshot::Sender<Value>);

/// The processes that report to this one.
#[derive(Debug, Default)]
pub(super) struct Peers(Mutex<Vec<mpsc::Sender<Asked>>>);

impl Peers {
    fn all(&self) -> MutexGuard<'_, Vec<mpsc::Sender<Asked>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The answers of all of them that answer in time.
    async fn ask(&self, question: &Question) -> Vec<Value> {
        let peers: Vec<mpsc::Sender<Asked>> = {
            let mut all = self.all();
            all.retain(|peer| !peer.is_closed());
            all.clone()
        };
        let answers = peers.into_iter().map(|peer| async move {
            let (sender, answer) = oneshot::channel();
            peer.try_send((question.clone(), sender)).ok()?;
            tokio::time::timeout(PATIENCE, answer).await.ok()?.ok()
        });
        future::join_all(answers).await.into_iter().flatten().collect()
    }

    /// What they know.
    pub(super) async fn reports(&self) -> Vec<Report> {
        let answers = self.ask(&Question::Report).await;
        answers.into_iter().filter_map(|answer| serde_json::from_value(answer).ok()).collect()
    }

    /// The answer of the first one that has one.
    pub(super) async fn first_that_knows(&self, question: &Question) -> Option<Value> {
        self.ask(question).await.into_iter().find(|answer| !answer.is_null())
    }
}

/// Takes the reports of other processes, as long as this one has the port of `local`.
pub(super) async fn hold(peers: Arc<Peers>, local: SocketAddr) {
    /// The pause before the name is tried again: another process may be about to let it go.
    const PAUSE: Duration = Duration::from_secs(1);
    let mut is_told = false;
    let listener = loop {
        match listen(local.port()) {
            Ok(listener) => break listener,
            Err(e) if !std::mem::replace(&mut is_told, true) => {
                tracing::warn!("other processes of this machine are not shown yet: {e}");
            }
            Err(_) => {}
        }
        tokio::time::sleep(PAUSE).await;
    };
    let _in_child = ClosedInChild::of(&listener);
    loop {
        match listener.accept().await {
            Ok((stream, _)) if is_ours(&stream) => {
                let (sender, questions) = mpsc::channel(4);
                let mut all = peers.all();
                all.retain(|peer| !peer.is_closed());
                if all.len() < MOST {
                    all.push(sender);
                    tokio::spawn(converse(stream, questions));
                }
            }
            Ok(_) => {}
            Err(e) => {
                tracing::debug!("{e}");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// Asks one process, until it ends or does not answer.
async fn converse(stream: UnixStream, mut questions: mpsc::Receiver<Asked>) {
    let mut stream = BufReader::new(stream);
    let _in_child = ClosedInChild::of(stream.get_ref());
    loop {
        let mut byte = [0];
        let asked = tokio::select! {
            asked = questions.recv() => asked,
            // Nothing comes unasked but the end.
            _ = stream.read(&mut byte) => None,
        };
        let Some((question, answer_to)) = asked else { return };
        let answer = async {
            write_line(stream.get_mut(), &question).await?;
            read_line::<Value>(&mut stream).await
        };
        match tokio::time::timeout(PATIENCE, answer).await {
            Ok(Ok(Some(answer))) => drop(answer_to.send(answer)),
            _ => return,
        }
    }
}

/// Reports to the process that has the port, until it ends.
///
/// # Errors
/// No process of ours has it, as far as can be told.
pub(super) async fn report_to_holder(monitor: &Arc<Monitor>, address: &str) -> io::Result<()> {
    let port = address.rsplit(':').next().and_then(|port| port.parse().ok());
    let stream = connect(port.ok_or(io::ErrorKind::InvalidInput)?)?;
    if !is_ours(&stream) {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    let mut stream = BufReader::new(stream);
    let _in_child = ClosedInChild::of(stream.get_ref());
    while let Some(question) = read_line::<Question>(&mut stream).await.unwrap_or_default() {
        let answer = match question {
            Question::Report => {
                let monitor = Arc::clone(monitor);
                let report = runtime::blocking(move || Ok(monitor.report(false))).await;
                report.ok().and_then(|report| serde_json::to_value(report).ok()).unwrap_or_default()
            }
            Question::Points { db, replica } => points(&db, &replica).await.unwrap_or_default(),
        };
        if write_line(stream.get_mut(), &answer).await.is_err() {
            break;
        }
    }
    Ok(())
}

/// The files of a replica of a database that this process publishes, as far as they are known.
pub(super) async fn points(db: &str, replica: &str) -> Option<Value> {
    let primary = Primary::all().into_iter().find(|primary| primary.is_at(db) && primary.publishes())?;
    let files = tokio::time::timeout(PATIENCE / 2, primary.files_of(replica)?).await.ok()?.ok()?;
    let skipped = files.len().saturating_sub(POINTS);
    let shown = |file: &FileInfo| {
        serde_json::json!({
            "level": file.id.level.get(),
            "min": file.id.name.min().to_string(),
            "max": file.id.name.max().to_string(),
            "time": file.timestamp.as_millis(),
            "size": file.size,
        })
    };
    let mut files = files;
    files.sort_by_key(|file| file.timestamp);
    Some(files.iter().skip(skipped).map(shown).collect())
}

async fn write_line(stream: &mut UnixStream, message: &impl Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    stream.write_all(&line).await
}

/// The next line; `None` at the end.
async fn read_line<T: for<'de> Deserialize<'de>>(
    stream: &mut BufReader<UnixStream>,
) -> io::Result<Option<T>> {
    let mut line = Vec::new();
    let len = (&mut *stream).take(LONGEST).read_until(b'\n', &mut line).await?;
    if len == 0 {
        return Ok(None);
    }
    Ok(Some(serde_json::from_slice(&line)?))
}

/// Whether the other side runs as the same user.
fn is_ours(stream: &UnixStream) -> bool {
    let us = rustix::process::geteuid().as_raw();
    stream.peer_cred().is_ok_and(|other| other.uid() == us)
}

/// The name of the socket of the process that has `port`.
fn name(port: u16) -> String {
    format!("litestream_vfs/{}/{port}", rustix::process::geteuid().as_raw())
}

#[cfg(target_os = "linux")]
fn listen(port: u16) -> io::Result<UnixListener> {
    use std::os::linux::net::SocketAddrExt as _;
    use std::os::unix::net;
    let address = net::SocketAddr::from_abstract_name(name(port))?;
    let listener = net::UnixListener::bind_addr(&address)?;
    listener.set_nonblocking(true)?;
    UnixListener::from_std(listener)
}

#[cfg(target_os = "linux")]
fn connect(port: u16) -> io::Result<UnixStream> {
    use std::os::linux::net::SocketAddrExt as _;
    use std::os::unix::net;
    let address = net::SocketAddr::from_abstract_name(name(port))?;
    let stream = net::UnixStream::connect_addr(&address)?;
    stream.set_nonblocking(true)?;
    UnixStream::from_std(stream)
}

/// Only Linux has the abstract name space: elsewhere each process shows itself alone.
#[cfg(not(target_os = "linux"))]
fn listen(_: u16) -> io::Result<UnixListener> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(not(target_os = "linux"))]
fn connect(_: u16) -> io::Result<UnixStream> {
    Err(io::ErrorKind::Unsupported.into())
}
