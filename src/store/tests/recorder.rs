//! A small server for tests, which understands HTTP and remembers what it was asked. What it answers, a test says.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// A request as the server saw it; header names in lower case.
#[derive(Clone, Debug, Default)]
pub(in crate::store) struct Seen {
    pub(in crate::store) method: String,
    /// With the query, as it was sent.
    pub(in crate::store) path: String,
    pub(in crate::store) headers: BTreeMap<String, String>,
    pub(in crate::store) body: Vec<u8>,
}

impl Seen {
    pub(in crate::store) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    /// A field of the query, decoded.
    pub(in crate::store) fn query(&self, name: &str) -> Option<String> {
        let (_, query) = self.path.split_once('?')?;
        // A plus is a plus: nobody here sends forms.
        let query = query.replace('+', "%2B");
        let found = url::form_urlencoded::parse(query.as_bytes()).find(|(field, _)| field == name);
        found.map(|(_, value)| value.into_owned())
    }

    pub(in crate::store) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// What the server answers.
#[derive(Clone, Debug, Default)]
pub(in crate::store) struct Answer {
    pub(in crate::store) status: u16,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
    /// Close the connection after this number of bytes of the body.
    cut: Option<usize>,
    /// Close the connection without an answer.
    silent: bool,
}

pub(in crate::store) fn status(status: u16) -> Answer {
    Answer { status, ..Answer::default() }
}

/// No answer: the connection is closed.
pub(in crate::store) fn silence() -> Answer {
    Answer { silent: true, ..Answer::default() }
}

impl Answer {
    pub(in crate::store) fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    pub(in crate::store) fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// Close the connection after this number of bytes of the body.
    pub(in crate::store) fn cut(mut self, after: usize) -> Self {
        self.cut = Some(after);
        self
    }

    pub(in crate::store) fn body_text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// A server that answers each request as `answer` says and remembers it.
pub(in crate::store) struct Recorder {
    pub(in crate::store) port: u16,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Recorder {
    pub(in crate::store) fn start(answer: impl Fn(&Seen) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (log, answer) = (Arc::clone(&seen), Arc::new(answer));
        // It waits for connections until the test process ends.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (log, answer) = (Arc::clone(&log), Arc::clone(&answer));
                std::thread::spawn(move || serve(&stream, &log, &*answer));
            }
        });
        Self { port, seen }
    }

    /// None: something else, or nobody, answers at `port`.
    pub(in crate::store) fn of_nobody(port: u16) -> Self {
        Self { port, seen: Arc::default() }
    }

    pub(in crate::store) fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub(in crate::store) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    pub(in crate::store) fn requests(&self) -> Vec<String> {
        self.seen().iter().map(|seen| format!("{} {}", seen.method, seen.path)).collect()
    }
}

fn serve(stream: &TcpStream, log: &Mutex<Vec<Seen>>, answer: &dyn Fn(&Seen) -> Answer) {
    let mut reader = BufReader::new(stream);
    while let Some(seen) = request(&mut reader) {
        log.lock().unwrap().push(seen.clone());
        let answer = answer(&seen);
        if answer.silent {
            return;
        }
        let head = seen.method == "HEAD" || answer.status == 204;
        let mut text = format!("HTTP/1.1 {} X\r\n", answer.status);
        if !answer.headers.iter().any(|(name, _)| *name == "Content-Length") && answer.status != 204 {
            text += &format!("Content-Length: {}\r\n", answer.body.len());
        }
        for (name, value) in &answer.headers {
            text += &format!("{name}: {value}\r\n");
        }
        let body = if head { &[] } else { &answer.body[..answer.cut.unwrap_or(answer.body.len())] };
        let mut writer = stream;
        let sent = writer.write_all(format!("{text}\r\n").as_bytes()).and_then(|()| writer.write_all(body));
        if sent.is_err() || answer.cut.is_some() {
            return;
        }
    }
}

/// The next request of a connection.
pub(in crate::store) fn request(reader: &mut BufReader<&TcpStream>) -> Option<Seen> {
    let mut line = || {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|n| *n > 0)?;
        Some(line.trim_end().to_owned())
    };
    let first = line()?;
    let mut words = first.split(' ');
    let mut seen =
        Seen { method: words.next()?.to_owned(), path: words.next()?.to_owned(), ..Seen::default() };
    while let Some(header) = line().filter(|line| !line.is_empty()) {
        let (name, value) = header.split_once(": ")?;
        seen.headers.insert(name.to_ascii_lowercase(), value.to_owned());
    }
    seen.body = vec![0; seen.header("content-length").parse().unwrap_or(0)];
    reader.read_exact(&mut seen.body).ok()?;
    Some(seen)
}

/// What `work` comes to, on the runtime that requests run on.
pub(in crate::store) fn run<T>(work: impl Future<Output = T>) -> T {
    crate::runtime::handle().unwrap().block_on(work)
}
