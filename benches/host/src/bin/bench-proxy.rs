//! A network that is slower than loopback, in front of an S3 server.
//!
//! ```text
//! bench-proxy UPSTREAM_PORT      prints "port N", then a line for each request that begins or ends
//! ```
//!
//! Commands on standard input, one a line: `rtt MS` (each request waits so long before it is passed
//! on) and `cap MBIT` (all answers together get so many megabits a second; 0 is no cap).
//!
//! ```text
//! B id ns METHOD target range      a request has come; "-" for no range
//! E id ns status bytes             its answer, of so many bytes of body, was passed on
//! ```
//! Times are nanoseconds of the monotonic clock.

use std::error::Error;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// What is passed on at once; small enough that a cap is smooth.
const CHUNK: usize = 64 * 1024;

/// The line between client and server.
struct Line {
    rtt_ns: AtomicU64,
    /// Bits a second; 0 is no cap.
    cap: AtomicU64,
    /// When the bytes that were let through so far will all have passed.
    busy_until: Mutex<Instant>,
    began: Instant,
    requests: AtomicU64,
}

fn main() -> Result<()> {
    let upstream: u16 = std::env::args().nth(1).ok_or("usage: bench-proxy UPSTREAM_PORT")?.parse()?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    say(&format!("port {}", listener.local_addr()?.port()));
    let line = Arc::new(Line {
        rtt_ns: AtomicU64::new(0),
        cap: AtomicU64::new(0),
        busy_until: Mutex::new(Instant::now()),
        began: Instant::now(),
        requests: AtomicU64::new(0),
    });
    let accepting = Arc::clone(&line);
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let line = Arc::clone(&accepting);
            // A connection that breaks is the client's or the server's to report.
            thread::spawn(move || line.serve(client, upstream).is_ok());
        }
    });
    for command in io::stdin().lines() {
        line.command(&command?)?;
        say("ok");
    }
    Ok(())
}

fn say(text: &str) {
    let mut out = io::stdout().lock();
    // Nobody listens any more when the bench has ended.
    let _ = writeln!(out, "{text}").and_then(|()| out.flush());
}

impl Line {
    fn command(&self, text: &str) -> Result<()> {
        match text.split_once(' ') {
            Some(("rtt", ms)) => self.rtt_ns.store((ms.parse::<f64>()? * 1e6) as u64, Ordering::Relaxed),
            Some(("cap", mbit)) => self.cap.store((mbit.parse::<f64>()? * 1e6) as u64, Ordering::Relaxed),
            _ => return Err(format!("unknown command {text}").into()),
        }
        Ok(())
    }

    fn serve(&self, client: TcpStream, upstream: u16) -> Result<()> {
        let server = TcpStream::connect(("127.0.0.1", upstream))?;
        client.set_nodelay(true)?;
        server.set_nodelay(true)?;
        let (mut up, mut down) = (BufReader::new(client), BufReader::with_capacity(CHUNK, Prompt(server)));
        while let Some(request) = Head::read(&mut up)? {
            let id = self.requests.fetch_add(1, Ordering::Relaxed);
            let range = request.header("range").unwrap_or("-").to_owned();
            let mut words = request.first.split(' ');
            let (method, target) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
            say(&format!("B {id} {} {method} {target} {range}", self.now()));
            thread::sleep(Duration::from_nanos(self.rtt_ns.load(Ordering::Relaxed)));
            down.get_mut().0.write_all(request.text.as_bytes())?;
            self.pass(&mut up, &mut down.get_mut().0, request.length().unwrap_or(0), false)?;
            let answer = Head::read(&mut down)?.ok_or("the server closed the connection")?;
            let status = answer.first.split(' ').nth(1).unwrap_or("0").to_owned();
            let bare = method == "HEAD" || matches!(status.as_str(), "204" | "304");
            up.get_mut().write_all(answer.text.as_bytes())?;
            let passed = match answer.length() {
                _ if bare => Ok(0),
                Some(length) => self.pass(&mut down, up.get_mut(), length, true),
                None => self.pass_chunked(&mut down, up.get_mut()),
            };
            say(&format!("E {id} {} {status} {}", self.now(), passed.as_ref().unwrap_or(&0)));
            passed?;
        }
        Ok(())
    }

    fn now(&self) -> u128 {
        self.began.elapsed().as_nanos()
    }

    fn pass(&self, from: &mut impl Read, to: &mut TcpStream, length: u64, slowly: bool) -> Result<u64> {
        let mut buffer = vec![0; CHUNK.min(usize::try_from(length)?)];
        let mut left = length;
        while left > 0 {
            let want = buffer.len().min(usize::try_from(left)?);
            let read = from.read(&mut buffer[..want])?;
            if read == 0 {
                return Err("the connection was closed in the middle of a body".into());
            }
            if slowly {
                self.wait_for_line(read as u64);
            }
            to.write_all(&buffer[..read])?;
            left -= read as u64;
        }
        Ok(length)
    }

    fn pass_chunked(&self, from: &mut impl BufRead, to: &mut TcpStream) -> Result<u64> {
        let mut total = 0;
        loop {
            let mut line = String::new();
            from.read_line(&mut line)?;
            let size = u64::from_str_radix(line.trim_end().split(';').next().unwrap_or(""), 16)?;
            to.write_all(line.as_bytes())?;
            // The chunk, and the end of its line.
            total += self.pass(from, to, size + 2, true)? - 2;
            if size == 0 {
                return Ok(total);
            }
        }
    }

    /// Waits until `bytes` more have passed through the line.
    fn wait_for_line(&self, bytes: u64) {
        let cap = self.cap.load(Ordering::Relaxed);
        if cap == 0 {
            return;
        }
        let until = {
            let mut busy_until = self.busy_until.lock().expect("no thread panics while it has the lock");
            *busy_until =
                (*busy_until).max(Instant::now()) + Duration::from_secs_f64(bytes as f64 * 8.0 / cap as f64);
            *busy_until
        };
        thread::sleep(until.saturating_duration_since(Instant::now()));
    }
}

/// The server's end of the line: what has come is acknowledged at once. A server that holds back the rest of
/// an answer until its first packet is acknowledged would add 40 ms to the round trip that was set.
struct Prompt(TcpStream);

impl Read for Prompt {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.0.read(buffer)?;
        // Linux sends the acknowledgement that is due when this is set, and forgets it with the next packet.
        #[cfg(target_os = "linux")]
        std::os::linux::net::TcpStreamExt::set_quickack(&self.0, true)?;
        Ok(read)
    }
}

/// The head of a request or of an answer.
struct Head {
    first: String,
    text: String,
}

impl Head {
    fn read(from: &mut impl BufRead) -> Result<Option<Self>> {
        let mut text = String::new();
        if from.read_line(&mut text)? == 0 {
            return Ok(None);
        }
        let first = text.trim_end().to_owned();
        loop {
            let before = text.len();
            if from.read_line(&mut text)? == 0 {
                return Err("the connection was closed in the middle of a head".into());
            }
            if text[before..].trim_end().is_empty() {
                return Ok(Some(Self { first, text }));
            }
        }
    }

    fn header(&self, name: &str) -> Option<&str> {
        let of_name = |line: &&str| line.split_once(':').is_some_and(|(n, _)| n.eq_ignore_ascii_case(name));
        self.text.lines().skip(1).find(of_name)?.split_once(':').map(|(_, value)| value.trim())
    }

    /// The length of the body, if it is told.
    fn length(&self) -> Option<u64> {
        self.header("content-length")?.parse().ok()
    }
}
