//! A replica to read: a database of one table with two indexes, and LTX files that make it.
//!
//! ```text
//! bench-replica DATABASE FOLDER ROWS     writes DATABASE, and FOLDER/{level:04x}/{min}-{max}.ltx
//! ```
//!
//! The files are those that a writer with compaction leaves behind: a snapshot, and increments over the
//! levels, newest and smallest last. Each transaction changes some rows anywhere and adds some. The same
//! ROWS give the same bytes.

use std::error::Error;
use std::fs;
use std::io::BufWriter;
use std::path::Path;

use rusqlite::Connection;

#[path = "../ltx.rs"]
mod ltx;
use ltx::{Ltx, PAGE};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Rows that a transaction changes, and as many that it adds.
const CHANGED: u64 = 10;
/// Level, files of it, transactions in each: 36 files with the snapshot.
const FILES: [(u8, u64, u64); 4] = [(3, 1, 60), (2, 3, 8), (1, 7, 3), (0, 24, 1)];
const KINDS: u64 = 20;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [database, folder, rows] = arguments.as_slice() else {
        return Err("usage: bench-replica DATABASE FOLDER ROWS".into());
    };
    let mut writer = Writer { db: fill(Path::new(database), rows.parse()?)?, rows: rows.parse()?, txid: 1 };
    let mut before = image(database)?;
    write_file(Path::new(folder), 9, 1, 1, &[], &before)?;
    for (level, files, transactions) in FILES {
        for _ in 0..files {
            let min = writer.txid + 1;
            writer.commit(transactions)?;
            let after = image(database)?;
            write_file(Path::new(folder), level, min, writer.txid, &before, &after)?;
            before = after;
        }
    }
    Ok(())
}

fn fill(path: &Path, rows: u64) -> Result<Connection> {
    let db = Connection::open(path)?;
    db.execute_batch(
        "PRAGMA page_size=4096;
         PRAGMA journal_mode=WAL;
         PRAGMA synchronous=OFF;
         CREATE TABLE item(id INTEGER PRIMARY KEY, key TEXT NOT NULL, kind TEXT NOT NULL, payload TEXT NOT NULL);
         BEGIN",
    )?;
    {
        let mut insert = db.prepare("INSERT INTO item VALUES (?1, ?2, ?3, ?4)")?;
        for n in 1..=rows {
            insert.execute((n as i64, key(n), kind(n), payload(n)))?;
        }
    }
    db.execute_batch(
        "COMMIT;
         CREATE INDEX item_key ON item(key);
         CREATE INDEX item_kind ON item(kind);
         PRAGMA wal_checkpoint(TRUNCATE)",
    )?;
    Ok(db)
}

struct Writer {
    db: Connection,
    rows: u64,
    txid: u64,
}

impl Writer {
    fn commit(&mut self, transactions: u64) -> Result<()> {
        for _ in 0..transactions {
            self.txid += 1;
            self.db.execute_batch("BEGIN")?;
            for n in 0..CHANGED {
                let row = 1 + mix(self.txid * 1000 + n) % self.rows;
                let text = payload(self.txid << 32 | n);
                self.db.execute("UPDATE item SET payload = ?2 WHERE id = ?1", (row as i64, text))?;
                self.rows += 1;
                let row = (self.rows as i64, key(self.rows), kind(self.rows), payload(self.rows));
                self.db.execute("INSERT INTO item VALUES (?1, ?2, ?3, ?4)", row)?;
            }
            self.db.execute_batch("COMMIT")?;
        }
        // All is in the database file then.
        self.db.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)")?;
        Ok(())
    }
}

fn image(database: &str) -> Result<Vec<u8>> {
    let bytes = fs::read(database)?;
    if bytes.is_empty() || bytes.len() % PAGE != 0 || bytes.len() > 1 << 30 {
        return Err(format!("{database} has {} bytes", bytes.len()).into());
    }
    Ok(bytes)
}

/// Writes the pages of `after` that are not in `before`.
fn write_file(folder: &Path, level: u8, min: u64, max: u64, before: &[u8], after: &[u8]) -> Result<()> {
    let folder = folder.join(format!("{level:04x}"));
    fs::create_dir_all(&folder)?;
    let out = fs::File::create(folder.join(format!("{min:016x}-{max:016x}.ltx")))?;
    let mut file = Ltx::new(BufWriter::new(out), min, max, (after.len() / PAGE) as u32)?;
    for (n, page) in after.chunks(PAGE).enumerate() {
        if before.get(n * PAGE..(n + 1) * PAGE) != Some(page) {
            file.page(n as u32 + 1, page)?;
        }
    }
    file.finish()?;
    Ok(())
}

/// Values that are spread and are the same in each run.
fn mix(n: u64) -> u64 {
    let n = (n ^ (n >> 30)).wrapping_add(0x9e37_79b9_7f4a_7c15).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let n = (n ^ (n >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    n ^ (n >> 31)
}

/// In no order that rows have.
fn key(n: u64) -> String {
    format!("{:016x}", mix(n))
}

fn kind(n: u64) -> String {
    format!("kind-{:02}", mix(n ^ 0x5555) % KINDS)
}

/// 250 letters and digits that hardly compress.
fn payload(n: u64) -> String {
    const DIGITS: &[u8; 64] = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_";
    let words = (0..25).map(|i| mix(n.wrapping_mul(31) ^ i << 48));
    words.flat_map(|w| (0..10).map(move |i| char::from(DIGITS[(w >> (6 * i)) as usize & 63]))).collect()
}
