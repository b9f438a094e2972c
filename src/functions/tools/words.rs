//! How a database stands, in words.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::clock::Timestamp;
use crate::ltx::Txid;
use crate::monitor::Overview;
use crate::primary::{DatabaseFigures, ReplicaFigures};

/// What is wrong first, then databases that are open, those that are `closed`, and `restores` that are under way or ended.
pub(super) fn status(overview: &Overview, closed: &[Value], restores: &[Value]) -> String {
    let mut replicas = overview.databases.iter().flat_map(|database| &database.replicas);
    let mut text = match &overview.unhealthy[..] {
        [] if overview.databases.is_empty() => "No database is open here.\n".to_owned(),
        [] if replicas.any(|replica| replica.failing_since.is_some()) => {
            "Something fails and is tried again; no limit is exceeded yet.\n".to_owned()
        }
        [] => "All is well.\n".to_owned(),
        wrong => format!("Something is wrong:\n{}", lines(wrong)),
    };
    for database in &overview.databases {
        for replica in &database.replicas {
            line(&mut text, &format!("{}, in {}: {}", database.path, replica.url, of_replica(replica)));
        }
    }
    for row in closed {
        line(&mut text, &format!("{}, in {}: {}", word(row, "path"), word(row, "url"), of_closed(row)));
    }
    for row in restores {
        let failure =
            row.get("error").map_or(String::new(), |e| format!(": {}", e.as_str().unwrap_or_default()));
        line(
            &mut text,
            &format!(
                "restore of {} from {}: {}{failure}",
                word(row, "path"),
                word(row, "url"),
                word(row, "state")
            ),
        );
    }
    text
}

fn line(text: &mut String, line: &str) {
    writeln!(text, "- {line}").expect("BUG: writing to a string failed");
}

fn lines(all: &[String]) -> String {
    let mut text = String::new();
    all.iter().for_each(|one| line(&mut text, one));
    text
}

fn word<'a>(row: &'a Value, name: &str) -> &'a str {
    row[name].as_str().unwrap_or("?")
}

fn of_closed(row: &Value) -> String {
    let published = row.get("txid").and_then(Value::as_str);
    let published = published.map(|txid| format!("transaction {txid} was the last one published from here"));
    match word(row, "state") {
        "no database" => "the database file is not there; litestream_restore writes it".to_owned(),
        _ => format!(
            "no process that is seen here has it open; {}",
            published.unwrap_or_else(|| "it was never published from here".to_owned())
        ),
    }
}

fn of_replica(replica: &ReplicaFigures) -> String {
    let does = match &*replica.state {
        "starting" => "the replica was not looked at yet",
        "empty" => "the database has no pages yet",
        "copying" => "the whole database, or what differs of it, is being sent",
        "publishing" => "a file is on its way",
        "idle" if replica.lag > 0 => "a commit is about to be sent",
        "idle" => "every commit is in the replica",
        "retrying" => "replication fails and is tried again",
        "stopped" => "replication is stopped until somebody decides",
        "standby" => "a process that is not seen here publishes it",
        other => other,
    };
    let mut text = does.to_owned();
    let mut add = |what: String| text.push_str(&format!("; {what}"));
    if let Some(txid) = replica.txid {
        let time = replica.time.map_or(String::new(), |time| format!(" of {}", moment(time)));
        add(format!("its last transaction is {}{time}", digits(txid)));
    }
    if replica.lag > 0 {
        add(format!(
            "the oldest commit that is not there has waited for {:.1} s",
            replica.lag as f64 / 1000.0
        ));
    }
    if let Some(files) = replica.outbox_files.filter(|files| *files > 0) {
        let bytes = replica.outbox_bytes.unwrap_or_default();
        add(format!("{files} files of {bytes} bytes wait on local disk"));
    }
    if replica.has_hole {
        add("it lost files and is not healed".to_owned());
    }
    if let Some(since) = replica.failing_since {
        add(format!("failing since {}", moment(since)));
    }
    if let Some(error) = &replica.error {
        add(format!("the reason: {error}"));
    }
    if let Some(error) = &replica.verification_error {
        add(format!("the last verification failed: {error}"));
    }
    if let Some((txid, at)) = replica.verified {
        add(format!("proven restorable up to {} on {}", digits(txid), moment(at)));
    }
    if let Some(notice) = &replica.notice {
        add(format!("noticed: {notice}"));
    }
    text
}

fn moment(millis: i64) -> String {
    Timestamp::from_millis(millis).to_string()
}

fn digits(txid: u64) -> String {
    Txid::new(txid).map_or_else(|| "none".to_owned(), |txid| txid.to_string())
}

/// The same for programs.
pub(super) fn figures(database: &DatabaseFigures) -> Value {
    let replicas = database.replicas.iter().map(|replica| {
        json!({
            "url": replica.url,
            "state": replica.state,
            "txid": replica.txid.map(digits),
            "time": replica.time.map(moment),
            "lag_seconds": replica.lag as f64 / 1000.0,
            "waiting_bytes": replica.outbox_bytes,
            "verified_txid": replica.verified.map(|(txid, _)| digits(txid)),
            "failing_since": replica.failing_since.map(moment),
            "error": replica.error,
        })
    });
    json!({
        "path": database.path,
        "pid": database.pid,
        "size": database.db_size,
        "disk_free": database.disk_free,
        "replicas": replicas.collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn overview(change: impl FnOnce(&mut ReplicaFigures)) -> Overview {
        let mut replica = ReplicaFigures {
            url: "s3://b/app".to_owned(),
            state: "idle".to_owned(),
            txid: Some(42),
            time: Some(0),
            ..ReplicaFigures::default()
        };
        change(&mut replica);
        let database = DatabaseFigures {
            path: "/d/app.db".to_owned(),
            replicas: vec![replica],
            ..DatabaseFigures::default()
        };
        Overview { databases: vec![database], ..Overview::default() }
    }

    #[test]
    fn a_status_is_said_in_words() {
        let text = status(&overview(|_| ()), &[], &[]);
        assert_eq!(
            text,
            "All is well.\n- /d/app.db, in s3://b/app: every commit is in the replica; its last transaction is \
             000000000000002a of 1970-01-01T00:00:00Z\n"
        );
        let mut wrong = overview(|replica| {
            replica.state = "retrying".to_owned();
            (replica.lag, replica.error) = (5200, Some("no route".to_owned()));
        });
        wrong.unhealthy = vec!["/d/app.db to s3: late".to_owned()];
        let text = status(&wrong, &[], &[]);
        assert!(text.starts_with("Something is wrong:\n- /d/app.db to s3: late\n"), "{text}");
        assert!(
            text.contains("is tried again") && text.contains("5.2 s") && text.contains("no route"),
            "{text}"
        );
    }

    #[test]
    fn what_fails_within_its_limits_is_not_well_and_what_waits_is_not_there() {
        let failing = overview(|replica| {
            replica.state = "retrying".to_owned();
            replica.failing_since = Some(0);
        });
        let text = status(&failing, &[], &[]);
        assert!(
            text.starts_with("Something fails and is tried again") && !text.contains("All is well"),
            "{text}"
        );
        let text = status(&overview(|replica| replica.lag = 800), &[], &[]);
        assert!(text.contains("a commit is about to be sent") && !text.contains("every commit"), "{text}");
    }

    #[test]
    fn a_database_that_is_closed_has_its_words_too() {
        let row = |state: &str, txid: Option<&str>| {
            let row = json!({ "path": "/d/b.db", "url": "file:///r", "state": state, "txid": txid });
            status(&Overview::default(), &[row], &[])
        };
        assert!(row("ok", Some("0000000000000007")).contains("0000000000000007 was the last one published"));
        assert!(row("not initialized", None).contains("never published"));
        assert!(row("no database", None).contains("litestream_restore"));
    }
}
