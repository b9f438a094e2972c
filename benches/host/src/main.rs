//! A SQLite host with next to no overhead of its own: it times each commit where an application would.
//!
//! ```text
//! bench-host prepare PATH ROWS                         a database of ROWS rows with two indexes
//! bench-host insert  URI SECONDS [LIBRARY [wait]]      autocommitted inserts as fast as they go
//! bench-host single  URI COUNT INTERVAL_MS [LIBRARY]   single commits, each after a pause
//! bench-host restarts URI SECONDS [LIBRARY]            the same, and how long commits take that restart the WAL
//! bench-host points  URI SECONDS ROWS KIB [LIBRARY]    single rows of the first ROWS by primary key
//! ```
//!
//! With a library, it is loaded and, before anything is written, `litestream_sync()` is called.
//! `insert` prints one JSON object, with the processor time of its own and of all other threads and the bytes written to
//! files for each commit; with `wait` it prints a line when it is ready and begins when it was
//! answered. `restarts` prints of each of those commits how long it took and how long its thread ran, in nanoseconds. `single` prints the wall-clock time after each commit, in nanoseconds since 1970; `points`
//! prints queries a second, each a transaction of its own, with a page cache of KIB.

use std::error::Error;
use std::os::unix::fs::FileExt as _;
use std::process::Command;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rusqlite::{Connection, LoadExtensionGuard};
use rustix::time::{ClockId, clock_gettime};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const INSERT: &str = "INSERT INTO event(user, kind, body) VALUES (?1, ?2, ?3)";

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["prepare", path, rows] => prepare(path, rows.parse()?),
        ["insert", uri, seconds] => insert(&open(uri, None)?, seconds.parse()?),
        ["insert", uri, seconds, library] => insert(&open(uri, Some(library))?, seconds.parse()?),
        ["insert", uri, seconds, library, "wait"] => {
            let db = open(uri, Some(library))?;
            println!("ready");
            std::io::stdin().read_line(&mut String::new())?;
            insert(&db, seconds.parse()?)
        }
        ["restarts", uri, seconds] => restarts(&open(uri, None)?, seconds.parse()?),
        ["restarts", uri, seconds, library] => restarts(&open(uri, Some(library))?, seconds.parse()?),
        ["single", uri, count, ms] => single(&open(uri, None)?, count.parse()?, ms.parse()?),
        ["single", uri, count, ms, library] => {
            single(&open(uri, Some(library))?, count.parse()?, ms.parse()?)
        }
        ["points", uri, seconds, rows, kib] => {
            points(&connect(uri, None)?, seconds.parse()?, rows.parse()?, kib.parse()?)
        }
        ["points", uri, seconds, rows, kib, library] => {
            points(&connect(uri, Some(library))?, seconds.parse()?, rows.parse()?, kib.parse()?)
        }
        _ => Err("usage: bench-host prepare|insert|restarts|single|points …; see src/main.rs".into()),
    }
}

fn open(uri: &str, library: Option<&str>) -> Result<Connection> {
    let db = connect(uri, library)?;
    db.execute_batch("PRAGMA synchronous=NORMAL")?;
    if library.is_some() {
        db.query_row("SELECT litestream_sync(300)", (), |_| Ok(()))?;
        // Else the kernel writes the first copy, which the store just got, back while the run is measured.
        Command::new("sync").status()?;
    }
    Ok(db)
}

fn connect(uri: &str, library: Option<&str>) -> Result<Connection> {
    if let Some(library) = library {
        let loader = Connection::open_in_memory()?;
        // SAFETY: the library is the one under test, and stays loaded.
        unsafe {
            let _guard = LoadExtensionGuard::new(&loader)?;
            loader.load_extension(library, None::<&str>)?;
        }
    }
    Ok(Connection::open(uri)?)
}

fn prepare(path: &str, rows: u64) -> Result<()> {
    let db = Connection::open(path)?;
    db.execute_batch(
        "PRAGMA journal_mode=WAL;
         CREATE TABLE event(id INTEGER PRIMARY KEY, user INTEGER, kind TEXT, body BLOB);
         CREATE INDEX event_user ON event(user);
         CREATE INDEX event_kind ON event(kind, user);
         BEGIN",
    )?;
    {
        let mut statement = db.prepare(INSERT)?;
        for n in 0..rows {
            statement.execute((user(n), kind(n), body(n, 300)))?;
        }
    }
    db.execute_batch("COMMIT; PRAGMA wal_checkpoint(TRUNCATE)")?;
    Ok(())
}

fn insert(db: &Connection, seconds: f64) -> Result<()> {
    let mut statement = db.prepare(INSERT)?;
    let mut times = Vec::with_capacity(1 << 20);
    let used = Used::until_now()?;
    let began = Instant::now();
    let limit = Duration::from_secs_f64(seconds);
    let mut before = began;
    while before - began < limit {
        let n = times.len() as u64;
        statement.execute((user(n), kind(n), body(n, 100)))?;
        let after = Instant::now();
        times.push((after - before).as_nanos() as u64);
        before = after;
    }
    let elapsed = (before - began).as_secs_f64();
    let used = Used::until_now()?.per(times.len(), &used);
    times.sort_unstable();
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize] as f64 / 1e6;
    println!(
        r#"{{"commits": {}, "seconds": {elapsed:.3}, "p50_ms": {:.4}, "p99_ms": {:.4}, "max_ms": {:.3}, "rss_kib": {}, "own_us": {:.3}, "others_us": {:.3}, "written": {:.1}}}"#,
        times.len(),
        at(0.5),
        at(0.99),
        at(1.0),
        peak_rss_kib(),
        used.own_us,
        used.others_us,
        used.written,
    );
    Ok(())
}

/// The header of a WAL has other salts after each restart: they are looked at between two commits.
fn restarts(db: &Connection, seconds: f64) -> Result<()> {
    let path: String = db.query_row("SELECT file FROM pragma_database_list", (), |row| row.get(0))?;
    let mut statement = db.prepare(INSERT)?;
    statement.execute((user(0), kind(0), body(0, 100)))?;
    let wal = std::fs::File::open(format!("{path}-wal"))?;
    let salts = || -> Result<[u8; 8]> {
        let mut salts = [0; 8];
        wal.read_exact_at(&mut salts, 16)?;
        Ok(salts)
    };
    let limit = Duration::from_secs_f64(seconds);
    let (began, mut of, mut n) = (Instant::now(), salts()?, 0);
    while began.elapsed() < limit {
        n += 1;
        let (before, ran) = (Instant::now(), thread_time());
        statement.execute((user(n), kind(n), body(n, 100)))?;
        let (took, ran) = (before.elapsed(), thread_time() - ran);
        let now = salts()?;
        if std::mem::replace(&mut of, now) != now {
            println!("{} {}", took.as_nanos(), ran.as_nanos());
        }
    }
    Ok(())
}

/// The processor time of this thread.
fn thread_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// What the process has used: microseconds of processors by this thread and by all others, and bytes written to files.
struct Used {
    own_us: f64,
    others_us: f64,
    written: f64,
}

impl Used {
    fn until_now() -> Result<Self> {
        let own_us = nanoseconds_of("/proc/thread-self")? / 1e3;
        let mut all_us = 0.0;
        for thread in std::fs::read_dir("/proc/self/task")? {
            // One that ends meanwhile did not run long.
            all_us += nanoseconds_of(&thread?.path().to_string_lossy()).unwrap_or(0.0) / 1e3;
        }
        let io = std::fs::read_to_string("/proc/self/io")?;
        let written = io.lines().find_map(|line| line.strip_prefix("write_bytes: ")).ok_or("no write_bytes")?;
        Ok(Self { own_us, others_us: all_us - own_us, written: written.parse()? })
    }

    /// What came since `before`, for each of `count` commits.
    fn per(&self, count: usize, before: &Self) -> Self {
        let share = |now: f64, before: f64| (now - before) / count as f64;
        Self {
            own_us: share(self.own_us, before.own_us),
            others_us: share(self.others_us, before.others_us),
            written: share(self.written, before.written),
        }
    }
}

/// How long the thread or process of this folder in /proc ran.
fn nanoseconds_of(folder: &str) -> Result<f64> {
    let text = std::fs::read_to_string(format!("{folder}/schedstat"))?;
    Ok(text.split(' ').next().ok_or("an empty schedstat")?.parse()?)
}

fn single(db: &Connection, count: u64, interval_ms: u64) -> Result<()> {
    let mut statement = db.prepare(INSERT)?;
    for n in 0..count {
        std::thread::sleep(Duration::from_millis(interval_ms));
        statement.execute((user(n), kind(n), body(n, 100)))?;
        println!("{}", SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos());
    }
    Ok(())
}

fn points(db: &Connection, seconds: f64, rows: u64, kib: u64) -> Result<()> {
    db.execute_batch(&format!("PRAGMA cache_size=-{kib}"))?;
    let mut warm = db.prepare("SELECT sum(length(body)) FROM event WHERE id BETWEEN 1 AND ?1")?;
    // Twice: what comes first may push out what it finds.
    (0..2).try_for_each(|_| warm.query_row((rows as i64,), |_| Ok(())))?;
    let mut statement = db.prepare("SELECT body FROM event WHERE id = ?1")?;
    let limit = Duration::from_secs_f64(seconds);
    let began = Instant::now();
    let mut queries = 0;
    while began.elapsed() < limit {
        for _ in 0..100 {
            queries += 1;
            let id = (1 + mix(queries) % rows) as i64;
            statement.query_row((id,), |row| Ok(row.get_ref(0)?.as_blob()?.len()))?;
        }
    }
    println!("{:.0}", queries as f64 / began.elapsed().as_secs_f64());
    Ok(())
}

/// Values that are spread over the indexes and are the same in each run.
fn mix(n: u64) -> u64 {
    let n = (n ^ (n >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    (n ^ (n >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb)
}

fn user(n: u64) -> i64 {
    (mix(n + 1) % 50_000) as i64
}

fn kind(n: u64) -> &'static str {
    ["created", "updated", "viewed", "deleted", "shared"][(mix(n + 7) % 5) as usize]
}

fn body(n: u64, size: usize) -> Vec<u8> {
    (0..size / 8).flat_map(|i| mix(n * 64 + i as u64 / 2).to_le_bytes()).collect()
}

/// The most memory that was resident so far; 0 where the system does not tell.
fn peak_rss_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"));
    line.and_then(|l| l.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}
