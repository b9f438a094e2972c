//! One request to the port of the page, and its answer.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::http::{Answer, Request, Status, is_token};
use super::peers::{Peers, Question};
use super::report::Machine;
use super::{Monitor, exposition, page};
use crate::metrics::CONTENT_TYPE;
use crate::primary::{DatabaseFigures, Primary};
use crate::runtime;

/// What is known this long is not asked for again.
const FRESH: Duration = Duration::from_millis(500);
/// Databases that only a process without a listener publishes, which is asked by its control socket, at most.
const ASKED: usize = 8;

/// What is behind a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Door {
    /// The page, metrics, health.
    Page,
    /// The tools of an assistant.
    Tools,
}

/// What answers requests.
pub(super) struct Front {
    pub(super) monitor: Arc<Monitor>,
    pub(super) peers: Arc<Peers>,
    pub(super) door: Door,
    pub(super) local: SocketAddr,
    /// What was known last; who asks meanwhile waits for the same.
    known: Mutex<Option<(Instant, Arc<Machine>)>>,
}

impl Front {
    pub(super) fn new(monitor: Arc<Monitor>, door: Door, local: SocketAddr) -> Self {
        Self { monitor, peers: Arc::default(), door, local, known: Mutex::default() }
    }

    /// What the processes of the machine know.
    pub(super) async fn machine(&self) -> Arc<Machine> {
        let mut known = self.known.lock().await;
        if let Some((at, machine)) = &*known
            && at.elapsed() < FRESH
        {
            return Arc::clone(machine);
        }
        let machine = Arc::new(self.gather().await);
        *known = Some((Instant::now(), Arc::clone(&machine)));
        machine
    }

    async fn gather(&self) -> Machine {
        let monitor = Arc::clone(&self.monitor);
        let ours = runtime::blocking(move || Ok(monitor.report(false)));
        let (ours, others) = tokio::join!(ours, self.peers.reports());
        let mut machine = Machine::of(ours.into_iter().chain(others).collect());
        let unpublished: Vec<String> =
            machine.unpublished().take(ASKED).map(|database| database.path.clone()).collect();
        if !unpublished.is_empty() {
            let asked = runtime::long_blocking(move || Ok(ask_publishers(&unpublished))).await;
            for database in asked.unwrap_or_default() {
                if let Some(known) = machine.databases.iter_mut().find(|known| known.path == database.path) {
                    known.replicas = database.replicas;
                }
            }
        }
        machine
    }

    /// Whether who asks may see URLs: who has the token or, if there is none, who is on this machine and names it.
    fn admits(&self, request: &Request) -> bool {
        let Some(token) = &self.monitor.options.listen_token else {
            return self.local.ip().is_loopback() && request.names_this_machine();
        };
        let in_query = request.query.iter().find(|(key, _)| key == "token").map(|(_, value)| value.as_str());
        request.bearer().or(in_query).is_some_and(|given| is_token(given, token))
    }
}

fn ask_publishers(paths: &[String]) -> Vec<DatabaseFigures> {
    let all = Primary::all();
    let wanted = all.iter().filter(|primary| paths.iter().any(|path| primary.is_at(path)));
    wanted.map(|primary| primary.figures(true)).collect()
}

const REFUSED: &str = "\
This page shows where databases are and where they are replicated to, and you do not come from this machine, or by a name \
that it does not know for its own: give the token that listen_token has, as ?token=... or in the header 'Authorization: \
Bearer ...'. Without listen_token nobody else may see it. /metrics and /healthz are for everybody.
";

/// The answer to `request`.
pub(super) async fn answer(front: &Arc<Front>, request: &Request) -> Answer {
    if !matches!(&*request.method, "GET" | "HEAD") {
        return Answer::text(Status::MethodNotAllowed("GET, HEAD"), "nothing here can be changed\n");
    }
    match &*request.path {
        "/metrics" => {
            rendered(front, |front, machine| Answer {
                status: Status::Ok,
                content_type: CONTENT_TYPE,
                body: exposition::text(machine, &front.monitor.options.limits),
            })
            .await
        }
        "/healthz" => health(front).await,
        "/" | "/status.json" | "/points.json" if !front.admits(request) => {
            Answer::text(Status::Unauthorized, REFUSED)
        }
        "/" => Answer {
            status: Status::Ok,
            content_type: "text/html; charset=utf-8",
            body: page::HTML.to_owned(),
        },
        "/status.json" => rendered(front, status).await,
        "/points.json" => points(front, request).await,
        _ => Answer::text(Status::NotFound, "there are /, /healthz, /metrics and /status.json here\n"),
    }
}

/// What `render` makes of all that is known: off the threads that requests to stores need.
async fn rendered(front: &Arc<Front>, render: fn(&Front, &Machine) -> Answer) -> Answer {
    let machine = front.machine().await;
    let front = Arc::clone(front);
    let rendered = runtime::blocking(move || Ok(render(&front, &machine)));
    rendered.await.unwrap_or_else(|e| Answer::text(Status::Unavailable, format!("{e}\n")))
}

async fn health(front: &Front) -> Answer {
    let wrong = front.monitor.options.limits.unhealthy(&*front.machine().await);
    if wrong.is_empty() {
        Answer::text(Status::Ok, "ok\n")
    } else {
        Answer::text(Status::Unavailable, wrong.join("\n") + "\n")
    }
}

fn json(body: String) -> Answer {
    Answer { status: Status::Ok, content_type: "application/json", body }
}

fn status(front: &Front, machine: &Machine) -> Answer {
    let limits = &front.monitor.options.limits;
    let mut status = serde_json::to_value(machine).unwrap_or_default();
    if let Some(status) = status.as_object_mut() {
        status.insert("unhealthy".to_owned(), json!(limits.unhealthy(machine)));
        status.insert("max_lag".to_owned(), json!(limits.max_lag.as_millis() as u64));
        status.insert("disk_reserve".to_owned(), json!(limits.disk_reserve));
    }
    json(status.to_string())
}

/// The files of a replica, from which its restore points show.
async fn points(front: &Front, request: &Request) -> Answer {
    let of = |name: &str| {
        request.query.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone()).unwrap_or_default()
    };
    let question = Question::Points { db: of("db"), replica: of("replica") };
    let points = match super::peers::points(&of("db"), &of("replica")).await {
        Some(points) => Some(points),
        None => front.peers.first_that_knows(&question).await,
    };
    json(json!({ "points": points }).to_string())
}

#[cfg(test)]
mod tests {
    use super::super::Options;
    use super::*;

    fn front(local: &str, token: Option<&str>) -> Front {
        let options = Options {
            listen: Some(local.to_owned()),
            listen_token: token.map(str::to_owned),
            ..Options::default()
        };
        let monitor = Monitor::new(options, 0);
        Front::new(Arc::new(monitor), Door::Page, local.parse().unwrap())
    }

    fn request(host: &str, authorization: Option<&str>, token: Option<&str>) -> Request {
        Request {
            host: Some(host.to_owned()),
            authorization: authorization.map(str::to_owned),
            query: token.map(|token| ("token".to_owned(), token.to_owned())).into_iter().collect(),
            ..Request::default()
        }
    }

    #[test]
    fn who_is_not_on_this_machine_needs_the_token() {
        let local = front("127.0.0.1:9090", None);
        for host in ["localhost:9090", "LOCALHOST", "127.0.0.1:9090", "[::1]:9090"] {
            assert!(local.admits(&request(host, None, None)), "{host}");
        }
        // A name of somebody else's that leads here.
        for host in ["evil.example:9090", "localhost.evil.example", "", "10.0.0.1"] {
            assert!(!local.admits(&request(host, None, None)), "{host}");
        }
        let public = front("0.0.0.0:9090", Some("secret"));
        assert!(!public.admits(&request("localhost:9090", None, None)));
        assert!(!public.admits(&request("db.example", Some("Bearer secre"), None)));
        assert!(!public.admits(&request("db.example", None, Some("secret2"))));
        assert!(public.admits(&request("db.example", Some("Bearer secret"), None)));
        assert!(public.admits(&request("db.example", None, Some("secret"))));
        // A proxy on this machine comes as one that is here.
        let behind = front("127.0.0.1:9090", Some("secret"));
        assert!(!behind.admits(&request("localhost:9090", None, None)));
        assert!(behind.admits(&request("localhost:9090", Some("Bearer secret"), None)));
        let without = front("0.0.0.0:9090", None);
        assert!(!without.admits(&request("localhost", Some("Bearer "), Some(""))));
    }
}
