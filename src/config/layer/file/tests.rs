//! Configuration files as users write them: what an open gets, and what is said of broken ones.

use std::path::Path;
use std::time::Duration;

use super::super::Env;
use super::read::read;
use crate::config::{
    Config, InForce, PrimaryConfig, configure, forget, in_force, resolve, resolve_configured, tests::params,
};
use crate::primary::{Calendar, ReplicaConfig, SnapshotAt, SyncReplicas};
use crate::store::{Location, ReplicaIdentity};

/// A configuration file, and the environment that names it.
#[derive(Debug)]
struct File {
    folder: tempfile::TempDir,
    variables: Vec<(&'static str, String)>,
}

impl Env for File {
    fn var(&self, name: &str) -> Option<String> {
        let named = || self.folder.path().join("litestream.yml").display().to_string();
        let known = self.variables.iter().find(|(known, _)| *known == name).map(|(_, value)| value.clone());
        if name == "LITESTREAM_CONFIG" { Some(named()) } else { known.filter(|value| !value.is_empty()) }
    }
}

impl File {
    fn of(text: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("litestream.yml"), text).unwrap();
        Self { folder, variables: Vec::new() }
    }

    fn with(mut self, name: &'static str, value: &str) -> Self {
        self.variables.push((name, value.to_owned()));
        self
    }

    fn open(&self, path: &str, query: &str) -> Result<Config, String> {
        resolve(Some(Path::new(path)), &params(query), query.contains("mode=ro"), self)
            .map_err(|e| self.short(&e.to_string()))
    }

    /// Without the folder of the file.
    fn short(&self, text: &str) -> String {
        text.replace(&format!("{}/", self.folder.path().display()), "")
    }

    fn primary(&self, path: &str, query: &str) -> PrimaryConfig {
        match self.open(path, query) {
            Ok(Config::Primary(config)) => config,
            other => panic!("{path}: {other:?}"),
        }
    }

    fn refusal(&self, path: &str, query: &str) -> String {
        self.open(path, query).unwrap_err()
    }

    fn rows(&self, path: &str, query: &str) -> Vec<InForce> {
        in_force(Some(Path::new(path)), &params(query), false, self).unwrap()
    }
}

fn places(replicas: &[ReplicaConfig]) -> Vec<String> {
    replicas.iter().map(|replica| ReplicaIdentity::from(&replica.target).to_string()).collect()
}

fn located(url: &str) -> Location {
    Location::parse(url, &|_: &str| None).unwrap()
}

const SECONDS: fn(u64) -> Duration = Duration::from_secs;

#[test]
fn an_entry_makes_a_primary_of_its_path() {
    let file = File::of(
        "dbs:\n  - path: /d/app.db\n    replicas:\n      - url: s3://mybkt/app\n        sync-interval: 5s\n",
    );
    let config = file.primary("/d/app.db", "vfs=litestream");
    assert_eq!(places(&config.replicas), ["s3://mybkt/app"]);
    assert_eq!(config.replicas[0].options.sync_interval, SECONDS(5));
    assert!(
        matches!(file.open("/d/app.db", "mode=ro"), Ok(Config::Replica(c)) if c.targets.len() == 1 && c.hint.is_none())
    );
    assert!(file.refusal("/d/other.db", "").starts_with("no replica URL for other.db"));
    assert!(file.refusal("/d/app.db", "config=off").starts_with("no replica URL for app.db"));
    // The environment's URL is for what has no entry.
    let file = file.with("LITESTREAM_REPLICA_URL", "file:///env");
    assert_eq!(places(&file.primary("/d/app.db", "").replicas), ["s3://mybkt/app"]);
    assert!(matches!(file.open("/d/other.db", ""), Ok(Config::Replica(_))));
}

#[test]
fn role_replica_in_an_entry_reads() {
    let file = File::of(
        "dbs:\n- path: /d/app.db\n  role: replica\n  poll-interval: 3s\n  replica: {url: 'file:///r'}\n",
    );
    let Ok(Config::Replica(config)) = file.open("/d/app.db", "") else { panic!("not a replica") };
    assert_eq!((config.options.poll_interval, config.hint), (SECONDS(3), None));
    assert!(matches!(file.open("/d/app.db", "role=primary"), Ok(Config::Primary(_))));
    let file = File::of("dbs:\n- path: /d/app.db\n  role: primary\n  replica: {url: 'file:///r'}\n");
    assert!(matches!(file.open("/d/app.db", "mode=ro"), Ok(Config::Replica(_))));
}

#[test]
fn retention_is_a_duration_a_flag_or_a_calendar() {
    let named = |text: &str| {
        let text = format!(
            "{text}dbs:\n- path: /d/app.db\n  retention: {{daily: 7}}\n  replica: {{url: 'file:///r', retention: {{weekly: 5, enabled: true}}}}\n"
        );
        File::of(&text).primary("/d/app.db", "retention_monthly=3").replicas.remove(0).options.history.named
    };
    let first = named("retention: {hourly: 24, daily: 9}\n");
    let calendar = Calendar { hourly: 24, daily: 7, weekly: 5, monthly: 3 };
    assert_eq!((first.calendar, first.retention), (Some(calendar), Some(true)));
    let old = named("retention: 72h\n");
    assert_eq!(old.snapshot_retention, Some(SECONDS(72 * 3600)));
    assert_eq!(old.calendar, Some(Calendar { hourly: 0, ..calendar }));
    let plain = File::of("retention: off\ndbs:\n- path: /d/app.db\n  replica: {url: 'file:///r'}\n");
    let plain = plain.primary("/d/app.db", "").replicas.remove(0).options.history.named;
    assert_eq!((plain.calendar, plain.retention), (None, Some(false)));
}

#[test]
fn the_uri_wins_over_the_entry_and_the_entry_over_the_file_and_that_over_the_environment() {
    let text = "sync-interval: 4s\nsnapshot: {interval: 2h, retention: 72h}\nl0-retention: 0\nretention: {enabled: false}\n\
                levels: [{interval: 1m}, {interval: 10m}]\nshutdown-sync-timeout: 20s\n\
                dbs:\n- path: /d/app.db\n  snapshot: {interval: 1h, at: 3:30}\n  watch-interval: 7s\n  replica: {url: 'file:///r', spool-limit: 5M}\n";
    let file =
        File::of(text).with("LITESTREAM_SYNC_INTERVAL", "9s").with("LITESTREAM_VERIFY_INTERVAL", "11s");
    let config = file.primary("/d/app.db", "watch_interval=8s");
    let options = &config.replicas[0].options;
    assert_eq!((options.sync_interval, options.verify_interval), (SECONDS(4), SECONDS(11)));
    assert_eq!((config.options.watch_interval, config.options.close_timeout), (SECONDS(8), SECONDS(20)));
    assert_eq!(options.spool_limit, 5_000_000);
    let named = &options.history.named;
    assert_eq!(
        (named.snapshot_interval, named.snapshot_retention),
        (Some(SECONDS(3600)), Some(SECONDS(72 * 3600)))
    );
    assert_eq!(named.snapshot_at, Some(SnapshotAt::Minute(210)));
    assert_eq!((named.l0_retention, named.retention), (Some(Duration::ZERO), Some(false)));
    assert_eq!(named.levels, Some(vec![SECONDS(60), SECONDS(600)]));
}

#[test]
fn a_replica_in_the_uri_replaces_those_of_the_entry() {
    let file = File::of(
        "dbs:\n- path: /d/app.db\n  close-timeout: 6s\n  replica: {url: 'file:///r', sync-interval: 2s}\n",
    );
    let config = file.primary("/d/app.db", "replica=file:///other");
    assert_eq!(places(&config.replicas), ["file:///other"]);
    assert_eq!(
        (config.options.close_timeout, config.replicas[0].options.sync_interval),
        (SECONDS(6), SECONDS(1))
    );
}

#[test]
fn the_keys_of_litestream_0_3_hold() {
    let text = "access-key-id: AK\nsecret-access-key: SK\naddr: ':9090'\ndbs:\n  - path: /d/app.db\n    replicas:\n      \
                - type: s3\n        bucket: mybkt\n        path: app\n        region: us-west-2\n        retention: 72h\n        \
                snapshot-interval: 4h\n        validation-interval: 6h\n        retention-check-interval: 1h\n        name: main\n";
    let file = File::of(text);
    let config = file.primary("/d/app.db", "");
    let url = "s3://mybkt/app?region=us-west-2&access-key-id=AK&secret-access-key=SK";
    assert_eq!(config.replicas[0].target, located(url));
    let named = &config.replicas[0].options.history.named;
    assert_eq!(
        (named.snapshot_interval, named.snapshot_retention),
        (Some(SECONDS(4 * 3600)), Some(SECONDS(72 * 3600)))
    );
    let without_effect: Vec<String> = file
        .rows("/d/app.db", "")
        .into_iter()
        .filter(|row| row.note.is_some())
        .map(|row| row.setting)
        .collect();
    assert_eq!(without_effect, ["validation-interval", "retention-check-interval", "name"]);
}

#[test]
fn several_replicas_have_settings_of_their_own() {
    let text = "dbs:\n- path: /d/app.db\n  sync-replicas: any\n  commit: 2\n  commit-timeout: 3s\n  replicas:\n  - url: file:///a\n    sync-interval: 2s\n  \
                - path: /b\n  - type: s3\n    bucket: c.s3.eu-west-1.amazonaws.com\n";
    let config = File::of(text).primary("/d/app.db", "");
    assert_eq!(places(&config.replicas), ["file:///a", "file:///b", "s3://c"]);
    let seconds: Vec<u64> = config.replicas.iter().map(|r| r.options.sync_interval.as_secs()).collect();
    assert_eq!((seconds, config.options.sync_replicas), (vec![2, 1, 1], SyncReplicas::AtLeast(1)));
    assert_eq!((config.commit.to_string(), config.commit_timeout), ("2".to_owned(), SECONDS(3)));
}

#[test]
fn defaults_at_the_top_reach_each_replica_as_in_litestream() {
    let text = "endpoint: http://minio:9000\nregion: eu-1\npart-size: 16MiB\nhost-key: ssh-ed25519 AAAA\n\
                dbs:\n- path: /d/a.db\n  replica: {url: 's3://b/a'}\n- path: /d/b.db\n  replica: {url: 's3://b/b?region=eu-3', region: eu-2, part-size: 5MB}\n";
    let file = File::of(text);
    let a = &file.primary("/d/a.db", "").replicas[0].target;
    assert_eq!(*a, located("s3://b/a?endpoint=http://minio:9000&region=eu-1"));
    // A field wins over the same setting in the URL. A part is never smaller than the store takes.
    let b = &file.primary("/d/b.db", "").replicas[0].target;
    assert_eq!(*b, located("s3://b/b?endpoint=http://minio:9000&region=eu-2&part-size=5242880"));
    let notes: Vec<_> = file.rows("/d/a.db", "").into_iter().filter(|row| row.note.is_some()).collect();
    assert_eq!(
        notes.iter().map(|row| row.setting.as_str()).collect::<Vec<_>>(),
        ["part-size", "host-key", "part-size"]
    );
}

#[test]
fn credentials_are_all_of_one_place() {
    let text = "access-key-id: FILE\nsecret-access-key: SECRET\ndbs:\n- path: /d/a.db\n  replica: {url: 's3://b/a'}\n";
    let file = File::of(text)
        .with("LITESTREAM_ACCESS_KEY_ID", "ENV")
        .with("LITESTREAM_SECRET_ACCESS_KEY", "ENVSECRET");
    let target = |query: &str| file.primary("/d/a.db", query).replicas[0].target.clone();
    assert_eq!(target(""), located("s3://b/a?access-key-id=FILE&secret-access-key=SECRET"));
    let uri = "access_key_id=U&secret_access_key=V&session_token=T";
    assert_eq!(target(uri), located("s3://b/a?access-key-id=U&secret-access-key=V&session-token=T"));
    let half = file.refusal("/d/a.db", "access_key_id=U");
    assert!(half.contains("'access-key-id' is given without 'secret-access-key'"), "{half}");
}

#[test]
fn a_folder_gives_each_database_a_path_of_its_own() {
    let text = "dbs:\n- dir: /d\n  pattern: '*.db'\n  recursive: true\n  replica: {url: 's3://b/all?region=x'}\n\
                - dir: /e\n  pattern: '*'\n  replica: {path: /backup}\n- dir: /f\n  pattern: '*'\n  replica: {type: s3, bucket: b}\n\
                - path: /d/own.db\n  replica: {url: 'file:///own'}\n";
    let file = File::of(text);
    let of = |path: &str| places(&file.primary(path, "").replicas).remove(0);
    assert_eq!(of("/d/x/y/a.db"), "s3://b/all/x/y/a.db");
    assert_eq!(of("/d/a b#%.db"), "s3://b/all/a b%23%25.db");
    assert_eq!(of("/e/a.sqlite"), "file:///backup/a.sqlite");
    assert_eq!(of("/f/a.sqlite"), "s3://b/a.sqlite");
    assert_eq!(of("/d/own.db"), "file:///own");
    assert!(file.refusal("/e/deeper/a.sqlite", "").starts_with("no replica URL"));
}

#[test]
fn paths_are_written_as_in_litestream() {
    let home = std::env::var("HOME").unwrap();
    let text = "dbs:\n- path: ~/app.db\n  replica: {path: ~/backup}\n- path: sqlite:///d/$NAME.db\n  meta-path: /m/${NAME}\n  replica: {url: 'file:///$NAME'}\n";
    let file = File::of(text).with("NAME", "two");
    assert_eq!(
        places(&file.primary(&format!("{home}/app.db"), "").replicas),
        [format!("file://{home}/backup")]
    );
    let config = file.primary("/d/two.db", "");
    assert_eq!(config.state_folder.as_deref(), Some(Path::new("/m/two")));
    assert_eq!(places(&config.replicas), ["file:///two"]);
}

#[test]
fn a_variable_that_is_not_set_is_told() {
    let file = File::of("region: $NOWHERE\ndbs:\n- path: /d/a.db\n  replica: {url: 's3://b/a'}\n");
    let rows = file.rows("/d/a.db", "");
    let note = rows.iter().find(|row| row.setting == "$NOWHERE").unwrap();
    assert!(
        file.short(&note.origin) == "litestream.yml:1" && note.note.as_ref().unwrap().contains("not set"),
        "{note:?}"
    );
}

#[test]
fn each_value_has_its_origin_in_a_mixture_of_all_layers() {
    let text = "sync-interval: 4s\ndbs:\n- path: /d/app.db\n  close-timeout: 6s\n  replica:\n    url: s3://b/app\n    endpoint: http://x:1\n    secret-access-key: hidden\n    access-key-id: shown\n";
    let file = File::of(text).with("LITESTREAM_VERIFY_INTERVAL", "11s");
    let rows = file.rows("/d/app.db", "watch_interval=8s&snapshot_retention=2d");
    let of = |setting: &str| {
        let row = rows.iter().find(|row| row.setting == setting).unwrap_or_else(|| panic!("no {setting}"));
        (
            row.value.clone().unwrap_or_default(),
            file.short(&row.origin),
            row.replica.clone().unwrap_or_default(),
        )
    };
    let is = |setting: &str, value: &str, origin: &str, replica: &str| {
        assert_eq!(of(setting), (value.to_owned(), origin.to_owned(), replica.to_owned()), "{setting}");
    };
    is("role", "primary", "default", "");
    is("watch_interval", "8s", "URI parameter watch_interval", "");
    is("close_timeout", "6s", "litestream.yml:4", "");
    is("sync_replicas", "all", "default", "");
    is("replica", "s3://b/app", "litestream.yml:6", "s3://b/app");
    is("sync_interval", "4s", "litestream.yml:1", "s3://b/app");
    is("snapshot_retention", "2d", "URI parameter snapshot_retention", "s3://b/app");
    is("verify_interval", "11s", "LITESTREAM_VERIFY_INTERVAL", "s3://b/app");
    is("endpoint", "http://x:1", "litestream.yml:7", "s3://b/app");
    is("access_key_id", "shown", "litestream.yml:9", "s3://b/app");
    is("secret_access_key", "(secret)", "litestream.yml:8", "s3://b/app");
    assert!(rows.iter().any(|row| row.setting == "config" && row.origin == "LITESTREAM_CONFIG"));
}

#[test]
fn an_error_names_where_the_value_was_found() {
    let text = "dbs:\n- path: /d/a.db\n  replica:\n    url: ftp://b/a\n- path: /d/b.db\n  replica:\n    type: tape\n- path: /d/c.db\n  replica:\n    type: s3\n";
    let file = File::of(text);
    assert!(file.refusal("/d/a.db", "").starts_with("litestream.yml:4: url: replica URLs of scheme 'ftp'"));
    assert!(
        file.refusal("/d/b.db", "").starts_with("litestream.yml:7: there are no replicas of type 'tape'")
    );
    let missing = file.refusal("/d/c.db", "");
    assert!(missing.starts_with("litestream.yml:10: a replica of type s3 needs its bucket"), "{missing}");
    let gone = resolve(Some(Path::new("/d/a.db")), &params("config=/nowhere.yml"), false, &file)
        .unwrap_err()
        .to_string();
    assert!(gone.starts_with("config: cannot read the configuration /nowhere.yml"), "{gone}");
}

#[test]
fn a_file_that_changed_is_read_again() {
    let file = File::of("dbs:\n- path: /d/a.db\n  replica: {url: 'file:///one'}\n");
    assert_eq!(places(&file.primary("/d/a.db", "").replicas), ["file:///one"]);
    let path = file.folder.path().join("litestream.yml");
    let once = super::document(&path, &file).unwrap();
    assert!(std::sync::Arc::ptr_eq(&once, &super::document(&path, &file).unwrap()));
    std::fs::write(&path, "dbs:\n- path: /d/a.db\n  replica: {url: 'file:///three'}\n").unwrap();
    assert_eq!(places(&file.primary("/d/a.db", "").replicas), ["file:///three"]);
}

/// What is wrong in `text`, as `line: message`.
fn wrong(text: &str) -> String {
    match read(Path::new("/c.yml"), text, &[]) {
        Ok(document) => {
            let warnings = document.notes.iter().filter(|note| note.is_warning);
            let warnings: Vec<String> =
                warnings.map(|note| format!("{}: {}", note.line.line, note.text)).collect();
            format!("only warned of {warnings:?}")
        }
        Err(e) => e.to_string().strip_prefix("/c.yml:").map_or_else(|| e.to_string(), str::to_owned),
    }
}

#[test]
fn what_is_broken_is_named_with_its_line_and_a_remedy() {
    let entry = |rest: &str| format!("dbs:\n- path: /d/a.db\n{rest}");
    let replica = |rest: &str| entry(&format!("  replica:\n    url: s3://b/a\n{rest}"));
    for (text, expected) in [
        ("dbs: [\n".to_owned(), "this is not YAML"),
        ("dbs:\n\t- path: x\n".to_owned(), "2: this is not YAML"),
        ("dbs:\n  - path: x\n - path: y\n".to_owned(), "this is not YAML"),
        ("a: *nowhere\n".to_owned(), "1: this is not YAML"),
        ("- path: /x\n".to_owned(), "1: the file has keys with values, and this is a list"),
        ("dbs: /d/a.db\n".to_owned(), "1: 'dbs' is a list, each item behind a dash"),
        ("dbs:\n  path: /d/a.db\n".to_owned(), "2: 'dbs' is a list, each item behind a dash"),
        ("dbs:\n- /d/a.db\n".to_owned(), "2: an entry of dbs has keys with values"),
        ("dbs:\n-\n".to_owned(), "2: this entry of dbs is empty"),
        ("dbs:\n- path: /a\ndbs:\n- path: /b\n".to_owned(), "3: the key 'dbs' is given twice, first in line 1"),
        (entry(""), "2: this entry of dbs has no replica: write 'replica:'"),
        (entry("  replica:\n"), "this replica is empty: write 'url:"),
        (entry("  replica: s3://b/a\n"), "3: 's3://b/a' must be a key of the replica: write 'url: s3://b/a'"),
        (entry("  replicas:\n    url: s3://b/a\n"), "4: 'replicas' is a list"),
        (entry("  replicas:\n  - s3://b/a\n"), "4: 's3://b/a' must be a key"),
        (replica("  replicas:\n  - url: s3://b/b\n"), "5: 'replica' and 'replicas' are both given, the first in line 3"),
        (replica("    path: x\n"), "5: 'url' and 'path' are both given"),
        (replica("    bucket: x\n"), "5: 'url' and 'bucket' are both given"),
        (entry("  replica:\n    type: s3\n    path: s3://b/a\n"), "5: 's3://b/a' is a URL: write 'url' instead of 'path'"),
        (replica("    url: s3://b/b\n"), "5: the key 'url' is given twice, first in line 4"),
        (replica("  dir: /d\n"), "5: 'path' and 'dir' are both given"),
        ("dbs:\n- replica: {url: 'file:///r'}\n".to_owned(), "2: this entry of dbs has neither 'path' nor 'dir'"),
        ("dbs:\n- dir: /d\n  replica: {url: 'file:///r'}\n".to_owned(), "2: 'dir' needs a 'pattern'"),
        ("dbs:\n- dir: /d\n  pattern: '[a'\n  replica: {url: 'file:///r'}\n".to_owned(), "3: pattern: '[a' has a ["),
        (replica("  pattern: '*.db'\n"), "5: 'pattern' belongs to 'dir'"),
        ("dbs:\n- dir: /d\n  pattern: '*'\n  recursive: sometimes\n  replica: {url: 'file:///r'}\n".to_owned(), "4: recursive: 'sometimes' is neither true nor false"),
        (replica("  meta-dir: /m\n"), "5: meta-dir belongs to 'dir'"),
        ("dbs:\n- dir: /d\n  pattern: '*'\n  meta-dir: /m\n  meta-path: /n\n  replica: {url: 'file:///r'}\n".to_owned(), "4: meta-dir and meta-path are both given"),
        (replica("- path: /d/../d/a.db\n  replica:\n    url: s3://b/b\n"), "5: /d/a.db has an entry already, in line 2"),
        ("dbs:\n- path: /a\n  meta-path: /m\n  replica: {url: 'file:///r'}\n- path: /b\n  meta-path: /m\n  replica: {url: 'file:///s'}\n".to_owned(), "5: meta-path is that of another database already, in line 2: give each one its own"),
        (replica("    sync-interval: fast\n"), "5: sync-interval: 'fast' is not a duration"),
        (replica("    sync-interval: 10\n"), "5: sync-interval: '10' has no unit, and Litestream takes it for nanoseconds: write 10s"),
        (replica("    sync-interval: 0s\n"), "5: sync-interval: '0s' is not within 10ms and 1h"),
        (replica("    sync-interval: [1s]\n"), "5: 'sync-interval' has one value, and this is a list"),
        (replica("    force-path-style: maybe\n"), "5: force-path-style: 'maybe' is neither true nor false"),
        (replica("    part-size: big\n"), "5: part-size: 'big' is not a size"),
        (replica("    part-size: 2GiB\n"), "5: part-size: '2GiB' is not within 5MiB and 1GiB"),
        (replica("    age:\n      recipients: []\n"), "6: age.recipients is an empty list"),
        (replica("    age: {recipients: age1xyz}\n"), "5: 'recipients' is a list"),
        (replica("    age:\n"), "5: age is empty"),
        (replica("    age: {recipient: [age1xyz]}\n"), "5: unknown key 'recipient' in age, and it asks for encryption"),
        (replica("    Age: {recipients: [age1xyz]}\n"), "5: unknown key 'Age' in a replica, and it asks for encryption"),
        (replica("    age-recipients: [age1xyz]\n"), "5: unknown key 'age-recipients' in a replica, and it asks"),
        (replica("    recipients: [age1xyz]\n"), "5: unknown key 'recipients' in a replica, and it asks"),
        (replica("  encryption: age\n"), "5: unknown key 'encryption' in an entry of dbs, and it asks"),
        (replica("    age-recipient:\n"), "5: age-recipient is empty, and encryption that is asked for"),
        (replica("    age-recipient: $NOT_SET\n"), "5: age-recipient is empty, and encryption that is asked for"),
        (replica("    age-recipient: \"${NOT_SET}\"\n"), "5: age-recipient is empty, and encryption that is asked for"),
        (replica("    age-recipients-file: $NOT_SET\n"), "5: age-recipients-file is empty"),
        (replica("    require-encryption: ''\n"), "5: require-encryption is empty"),
        (replica("    age-identity: AGE-SECRET-KEY-1X\n    age: {identities: [AGE-SECRET-KEY-1Y]}\n"), "6: age.identities is given in /c.yml:5 already"),
        (replica("  role: leader\n"), "5: role: 'leader' is none of primary, replica"),
        (replica("  snapshot: 1h\n"), "5: 'snapshot' has keys with values, and this is a single value"),
        (replica("  retention: {daily: often}\n"), "5: daily: 'often' is not a whole number from 0 to 1000000"),
        (replica("  snapshot: {at: 25:00}\n"), "5: at: '25:00' is not a time of day in UTC"),
        (replica("  snapshot: {interval: 0s}\n"), "5: interval: '0s' is not within 1s and 8760h"),
        (replica("  snapshot:\n    retention: 1h\n  retention: 2h\n"), "7: retention is given in /c.yml:6 already: keep one"),
        ("levels:\n- interval: 0s\n".to_owned(), "levels: '0s' is not within 1s and 8760h"),
        ("levels:\n- 30s\n".to_owned(), "2: a level has keys with values, and this is a single value"),
        ("levels:\n- intervall: 30s\n".to_owned(), "2: this level has no interval: write '- interval: 30s'"),
        (format!("levels: [{}]\n", "{interval: 1s},".repeat(9)), "1: levels: '1s,1s,1s,1s,1s,1s,1s,1s,1s' has 9 durations; give at most 8"),
        ("logging: {level: loud}\n".to_owned(), "1: level: 'loud' is none of off, error"),
        ("logging: {type: xml}\n".to_owned(), "1: type: 'xml' is none of text, json"),
        ("retention: {enabled: perhaps}\n".to_owned(), "1: enabled: 'perhaps' is neither true nor false"),
        ("l0-retention: -5m\n".to_owned(), "1: l0-retention: '-5m' is not a duration"),
    ] {
        let said = wrong(&text);
        assert!(said.contains(expected), "{text}\n{said}");
        assert!(!said.contains("HIDDEN"), "{said}");
    }
}

#[test]
fn unknown_keys_are_warned_of_with_the_nearest() {
    let text = "sync-intervall: 1s\nloging: {level: info}\nquux: 1\ndbs:\n- path: /d/a.db\n  replic: x\n  replica:\n    url: s3://b/a\n    acces-key-id: A\n    regoin: B\n  snapshot: {intervall: 1h}\n";
    assert_eq!(
        wrong(text),
        format!(
            "only warned of {:?}",
            [
                "1: unknown key 'sync-intervall' in the file: it has no effect; did you mean 'sync-interval'?",
                "2: unknown key 'loging' in the file: it has no effect; did you mean 'logging'?",
                "3: unknown key 'quux' in the file: it has no effect",
                "6: unknown key 'replic' in an entry of dbs: it has no effect; did you mean 'replica'?",
                "9: unknown key 'acces-key-id' in a replica: it has no effect; did you mean 'access-key-id'?",
                "10: unknown key 'regoin' in a replica: it has no effect; did you mean 'region'?",
                "11: unknown key 'intervall' in snapshot: it has no effect; did you mean 'interval'?",
            ]
        )
    );
}

#[test]
fn no_secret_is_shown() {
    let text = "webdav-password: HIDDEN\nsecret-acess-key: HIDDEN\npaswword: HIDDEN\nheartbeat-url: https://h/HIDDEN\n\
        dbs:\n- path: /d/a.db\n  secret-access-key: HIDDEN\n  replica:\n    url: s3://b/a\n    sas-tokn: HIDDEN\n";
    let file = File::of(text);
    let rows = file.rows("/d/a.db", "");
    assert!(rows.iter().filter(|row| row.note.is_some()).count() >= 5, "{rows:?}");
    let heartbeat = rows.iter().find(|row| row.setting == "heartbeat_url").unwrap();
    assert_eq!(heartbeat.value.as_deref(), Some("(secret)"));
    assert!(!format!("{rows:?}").contains("HIDDEN"), "{rows:?}");
    assert!(
        wrong(text)
            .contains("'secret-access-key' in an entry of dbs: it has no effect; it belongs to a replica")
    );
    for place in [
        "replica: webdav://u:HIDDEN@h/x",
        "replica: s3://b/x?secret-access-key=HIDDEN",
        "replica: {path: 'webdav://u:HIDDEN@h/x'}",
        "replica: {url: 's3//AKIA:HIDDEN@b/x'}",
        "replica: {url: '//u:HIDDEN@b/x'}",
    ] {
        let refused = File::of(&format!("dbs:\n- path: /d/a.db\n  {place}\n")).refusal("/d/a.db", "");
        assert!(!refused.contains("HIDDEN"), "{refused}");
    }
}

#[test]
fn an_endpoint_for_all_is_not_for_googles_store() {
    let file = File::of(
        "endpoint: http://localhost:9009\ndbs:\n- path: /d/a.db\n  replicas:\n  - url: gs://b/x\n  - {type: gs, bucket: b, path: y}\n  \
         - url: s3://b/x\n  - {url: 'gs://b/z', endpoint: 'http://localhost:9010'}\n",
    );
    let replicas = file.primary("/d/a.db", "").replicas;
    let at: Vec<String> = replicas.iter().map(|r| ReplicaIdentity::from(&r.target).whereabouts()).collect();
    let has_port: Vec<(bool, bool)> =
        at.iter().map(|at| (at.contains("9009"), at.contains("9010"))).collect();
    assert_eq!(has_port, [(false, false), (false, false), (true, false), (false, true)], "{at:?}");
}

#[test]
fn an_entry_of_the_program_has_no_replica_by_the_environment() {
    let file = File::of("").with("LITESTREAM_REPLICA_URL", "file:///elsewhere");
    let path = Path::new("/configured/without/a/replica.db");
    configure(path, "{\"sync-interval\": \"5s\"}").unwrap();
    let refused = resolve_configured(path, &params(""), false, &file).unwrap_err().to_string();
    assert!(refused.contains("no replica URL for replica.db"), "{refused}");
    let refused = configure(path, "{\"replica\": 5}").unwrap_err().to_string();
    assert!(refused.contains("'5' is no URL of a replica"), "{refused}");
    configure(path, "{\"replica\": \"file:///mine\"}").unwrap();
    let Some(Config::Primary(config)) = resolve_configured(path, &params(""), false, &file).unwrap() else {
        panic!()
    };
    assert_eq!(places(&config.replicas), ["file:///mine"]);
    forget(path);
    assert!(resolve_configured(path, &params(""), false, &file).unwrap().is_none());
}

#[test]
fn a_path_through_a_link_is_where_the_link_leads_now() {
    let folder = tempfile::tempdir().unwrap();
    let real = folder.path().canonicalize().unwrap();
    let link = real.join("current");
    for version in ["one", "two"] {
        std::fs::create_dir(real.join(version)).unwrap();
        std::fs::write(real.join(version).join("app.db"), "").unwrap();
    }
    std::os::unix::fs::symlink(real.join("one"), &link).unwrap();
    let file =
        File::of(&format!("dbs:\n- path: {}/app.db\n  replica: {{url: 'file:///r'}}\n", link.display()));
    let is_ours =
        |path: &std::path::Path| resolve_configured(path, &params(""), false, &file).unwrap().is_some();
    assert!(is_ours(&real.join("one/app.db")) && !is_ours(&real.join("two/app.db")));
    std::fs::remove_file(&link).unwrap();
    std::os::unix::fs::symlink(real.join("two"), &link).unwrap();
    assert!(!is_ours(&real.join("one/app.db")) && is_ours(&real.join("two/app.db")));
    assert!(is_ours(&link.join("app.db")));
}

#[test]
fn what_waits_longer_than_anything_here_waits_as_long_as_it_may() {
    let text = "shutdown-sync-timeout: 15m\ndbs:\n- path: /d/app.db\n  replica: {url: 'file:///r', sync-interval: 2h}\n";
    let config = File::of(text).primary("/d/app.db", "");
    assert_eq!(config.options.close_timeout, Duration::from_secs(600));
    assert_eq!(config.replicas[0].options.sync_interval, Duration::from_secs(3600));
}

#[test]
fn what_is_empty_is_nothing() {
    for text in
        ["", "# nothing\n", "dbs:\n", "dbs: []\nage:\n  identities: []\n", "snapshot:\nlogging:\nlevels:\n"]
    {
        assert_eq!(wrong(text), "only warned of []", "{text}");
    }
}

#[test]
fn a_thousand_databases_of_one_folder_are_found_at_once() {
    let file = File::of("dbs:\n- dir: /d\n  pattern: '*.db'\n  replica: {url: 'file:///r'}\n");
    let began = std::time::Instant::now();
    for n in 0..1000 {
        assert_eq!(places(&file.primary(&format!("/d/{n}.db"), "").replicas), [format!("file:///r/{n}.db")]);
    }
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
}
