//! The listener: the first process has the port, and the next one takes over when it ends.
//!
//! A process that does not get the port connects to the one that has it, and waits for questions ([`peers`]). The end of
//! that connection is the end of the other process: then it tries again. So nothing asks again and again meanwhile.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::AbortHandle;

use super::connection::{self, Door, Front};
use super::http::{self, Answer, Request};
use super::{Monitor, mcp, peers};
use crate::fork::ClosedInChild;

/// The wait before the port is tried again, where another program seems to have it; it doubles up to `WAIT_MAX`.
const WAIT_MIN: Duration = Duration::from_millis(50);
const WAIT_MAX: Duration = Duration::from_secs(5);

/// How long a request may take to come.
const HEAD: Duration = Duration::from_secs(5);
/// How long an answer may take, with all that it waits for.
const ANSWER: Duration = Duration::from_secs(10);
/// Connections whose request is not there yet, at most: the oldest goes for a new one.
const READING: usize = 64;
/// Connections in all, with those that wait for an answer or do not take it.
const OPEN: usize = 128;
/// Requests that are answered at the same time.
const ANSWERING: usize = 16;

/// Listens at `address`, or waits until it may, until the process ends.
pub(super) async fn run(monitor: Arc<Monitor>, door: Door, address: String) {
    let (mut wait, mut is_told) = (WAIT_MIN, false);
    loop {
        let refused = match bind(&address).await {
            Ok(listener) => hold(&monitor, door, listener).await,
            Err(e) => e,
        };
        if refused.kind() == io::ErrorKind::AddrInUse
            && let Ok(()) = peers::report_to_holder(&monitor, &address).await
        {
            // The process that had the port has ended.
            wait = WAIT_MIN;
            continue;
        }
        if wait == WAIT_MAX && !std::mem::replace(&mut is_told, true) {
            tracing::warn!(
                "cannot listen on {address}: {refused}; it is tried again. Give another port, or end what has this one"
            );
        }
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(WAIT_MAX);
    }
}

/// Binds `host:port`; without a host all addresses of the machine.
async fn bind(address: &str) -> io::Result<TcpListener> {
    match address.strip_prefix(':') {
        None => TcpListener::bind(address).await,
        Some(port) => match TcpListener::bind(format!("[::]:{port}")).await {
            Err(e) if e.kind() != io::ErrorKind::AddrInUse => {
                TcpListener::bind(format!("0.0.0.0:{port}")).await
            }
            bound => bound,
        },
    }
}

/// Answers requests, and asks the other processes, as long as the port is there.
async fn hold(monitor: &Arc<Monitor>, door: Door, listener: TcpListener) -> io::Error {
    let _in_child = ClosedInChild::of(&listener);
    let local = match listener.local_addr() {
        Ok(local) => local,
        Err(e) => return e,
    };
    match door {
        Door::Page => tracing::info!("metrics and status at http://{local}/"),
        Door::Tools => tracing::info!("tools of MCP at http://{local}/"),
    }
    let front = Arc::new(Front::new(Arc::clone(monitor), door, local));
    let mut beside = vec![tokio::spawn(peers::hold(Arc::clone(&front.peers), local))];
    if let Some(heartbeat) = monitor.options.heartbeat.clone().filter(|_| door == Door::Page) {
        let front = Arc::clone(&front);
        let machine = move || {
            let front = Arc::clone(&front);
            async move { front.machine().await }
        };
        beside.push(tokio::spawn(super::heartbeat::run(heartbeat, machine)));
    }
    let ended = accept(&front, &listener).await;
    beside.iter().for_each(tokio::task::JoinHandle::abort);
    ended
}

async fn accept(front: &Arc<Front>, listener: &TcpListener) -> io::Error {
    /// The wait after an error that passes, such as too many open files.
    const PAUSE: Duration = Duration::from_millis(100);
    let crowd = Arc::new(Crowd::new());
    loop {
        // Beyond that connections wait in the system, where they cost the program no descriptor.
        let place = Arc::clone(&crowd.open).acquire_owned().await.expect("BUG: nothing closes it");
        match listener.accept().await {
            Ok((stream, from)) => {
                let in_child = ClosedInChild::of(&stream);
                crowd.admit(front, stream, (place, in_child), from);
            }
            Err(e) if e.kind() == io::ErrorKind::InvalidInput => return e,
            Err(e) => {
                tracing::debug!("cannot accept a connection: {e}");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// The connections.
struct Crowd {
    /// Those whose request is not there yet, the oldest first.
    reading: Mutex<Reading>,
    open: Arc<Semaphore>,
    answering: Semaphore,
}

#[derive(Default)]
struct Reading {
    next: u64,
    tasks: VecDeque<(u64, AbortHandle)>,
}

impl Crowd {
    fn new() -> Self {
        let open = Arc::new(Semaphore::new(OPEN));
        Self { reading: Mutex::default(), open, answering: Semaphore::new(ANSWERING) }
    }

    fn reading(&self) -> MutexGuard<'_, Reading> {
        self.reading.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins to read a request. Who says nothing keeps nobody away: there are only so many, and the oldest is let go.
    fn admit(
        self: &Arc<Self>,
        front: &Arc<Front>,
        stream: TcpStream,
        (place, in_child): (OwnedSemaphorePermit, ClosedInChild),
        from: SocketAddr,
    ) {
        let mut reading = self.reading();
        let id = reading.next;
        reading.next += 1;
        let (crowd, front) = (Arc::clone(self), Arc::clone(front));
        let task = tokio::spawn(async move {
            let _place = place;
            crowd.serve(id, &front, (stream, in_child), from).await;
        });
        reading.tasks.push_back((id, task.abort_handle()));
        if reading.tasks.len() > READING
            && let Some((_, oldest)) = reading.tasks.pop_front()
        {
            oldest.abort();
        }
    }

    async fn serve(
        &self,
        id: u64,
        front: &Arc<Front>,
        (mut stream, _in_child): (TcpStream, ClosedInChild),
        from: SocketAddr,
    ) {
        let read = tokio::time::timeout(HEAD, receive(front, &mut stream)).await;
        self.reading().tasks.retain(|(other, _)| *other != id);
        let request = match read {
            Err(_) | Ok(Err(None)) => return,
            Ok(request) => request,
        };
        let Ok(_permit) = self.answering.acquire().await else { return };
        let (answer, is_head) = match request {
            Ok(Received { head, body }) => match answer(front, &head, body, &mut stream).await {
                Some(answer) => (answer, head.method == "HEAD"),
                None => return tracing::debug!("an answer to {from} took too long, or nobody waited for it"),
            },
            Err(answer) => (answer.unwrap_or_else(|| unreachable!("BUG: nobody is there")), false),
        };
        if tokio::time::timeout(ANSWER, http::send(&mut stream, &answer, is_head)).await.is_err() {
            tracing::debug!("{from} was too slow to take an answer");
        }
    }
}

/// A request, with its body where one is wanted.
struct Received {
    head: Request,
    body: Vec<u8>,
}

/// Reads a request. Of who is not let in no body is read.
///
/// # Errors
/// The answer to what is none, or `None` where nobody is left to answer.
async fn receive(front: &Front, stream: &mut TcpStream) -> Result<Received, Option<Answer>> {
    let mut head = http::read(stream).await?;
    let body = match front.door {
        Door::Page => Vec::new(),
        Door::Tools => {
            mcp::admit(front, &head).map_err(Some)?;
            http::read_body(stream, &mut head).await?
        }
    };
    Ok(Received { head, body })
}

/// The answer to a request; `None` if it takes too long or nobody waits for it any more. What tools do may take as long as
/// somebody waits.
async fn answer(front: &Arc<Front>, head: &Request, body: Vec<u8>, stream: &mut TcpStream) -> Option<Answer> {
    match front.door {
        Door::Page => tokio::time::timeout(ANSWER, connection::answer(front, head)).await.ok(),
        Door::Tools => mcp::answer(front, body, http::gone(stream)).await,
    }
}
