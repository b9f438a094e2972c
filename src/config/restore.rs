//! What the SQL functions that take a replica URL, or a database instead of it, are told.

use std::path::Path;
use std::time::Duration;

use super::catalog::{
    BANDWIDTH, DRY_RUN, FOLLOW_INTERVAL, FORCE, IF_DB_NOT_EXISTS, IF_REPLICA_EXISTS, INTEGRITY_CHECK,
    PARALLELISM, QUICK, REWIND, TIMESTAMP, TXID,
};
use super::layer::Given;
use super::resolve::{FoundReplica, Layers, history};
use super::setting::{IntegrityCheck, Scope};
use super::{Env, seal};
use crate::error::{Error, Result};
use crate::primary::HistorySettings;
use crate::replica::RestorePoint;
use crate::store::Location;

/// What a restore needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RestoreConfig {
    /// Where the replica is.
    pub target: Location,
    /// Which state is restored.
    pub point: RestorePoint,
    /// Replace the file if it exists.
    pub force: bool,
    /// Downloads at the same time.
    pub parallelism: usize,
    /// That the file exists is no error.
    pub if_db_not_exists: bool,
    /// That the replica is empty is no error.
    pub if_replica_exists: bool,
    /// What SQLite checks before the file gets its name.
    pub integrity_check: IntegrityCheck,
    /// An earlier state is to become the present of a primary that opens the file.
    pub rewind: bool,
    /// Only tell what would be restored.
    pub dry_run: bool,
}

/// Reads the arguments of `litestream_restore` and `litestream_restore_plan`: a replica, and options as a JSON object.
///
/// # Errors
/// `Config`: not a JSON object, an unknown option, a value that does not fit, or both `txid` and
/// `timestamp`.
pub fn restore(url: &str, options: Option<&str>, env: &dyn Env) -> Result<RestoreConfig> {
    let scopes = [Scope::Restore, Scope::State, Scope::Store, Scope::Seal];
    let given = Given::options(&json_params(options)?, env, &scopes)?;
    restore_with(replica_at(url, &given)?, &given)
}

/// The same of a replica that was found already, whose settings are not asked for.
///
/// # Errors
/// As [`restore`].
pub fn restore_from(target: Location, options: &str, env: &dyn Env) -> Result<RestoreConfig> {
    let scopes = [Scope::Restore, Scope::State];
    restore_with(target, &Given::options(&json_params(Some(options))?, env, &scopes)?)
}

fn restore_with(target: Location, given: &Given<'_>) -> Result<RestoreConfig> {
    Ok(RestoreConfig {
        target,
        point: given.state(&[&TXID, &TIMESTAMP])?,
        force: given.get(&FORCE)?,
        parallelism: given.get(&PARALLELISM)? as usize,
        if_db_not_exists: given.get(&IF_DB_NOT_EXISTS)?,
        if_replica_exists: given.get(&IF_REPLICA_EXISTS)?,
        integrity_check: given.get(&INTEGRITY_CHECK)?,
        rewind: given.get(&REWIND)?,
        dry_run: given.get(&DRY_RUN)?,
    })
}

/// What a copy that follows a replica needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FollowConfig {
    /// Where the replica is.
    pub target: Location,
    /// How often to look for what is new.
    pub interval: Duration,
    /// The most bytes to download in a second.
    pub bandwidth: Option<u64>,
}

/// Reads the arguments of `litestream_follow`: a replica, and options as a JSON object.
///
/// # Errors
/// `Config`: not a JSON object, an unknown option, or a value that does not fit.
pub fn follow(url: &str, options: Option<&str>, env: &dyn Env) -> Result<FollowConfig> {
    let given = Given::options(&json_params(options)?, env, &[Scope::Follow, Scope::Store, Scope::Seal])?;
    Ok(FollowConfig {
        target: replica_at(url, &given)?,
        interval: given.get(&FOLLOW_INTERVAL)?,
        bandwidth: given.get(&BANDWIDTH)?,
    })
}

/// What a verification needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifyConfig {
    /// Where the replica is.
    pub target: Location,
    /// Only list the files and look at their headers and page indexes.
    pub quick: bool,
    /// How much history the replica is to keep.
    pub history: HistorySettings,
}

/// What a look at retention needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetentionConfig {
    /// Where the replica is.
    pub target: Location,
    /// How much history it is to keep.
    pub history: HistorySettings,
}

/// Reads the arguments of `litestream_verify`: a replica, and options as a JSON object.
///
/// # Errors
/// `Config`: not a JSON object, an unknown option, or a value that does not fit.
pub fn verify(url: &str, options: Option<&str>, env: &dyn Env) -> Result<VerifyConfig> {
    let scopes = [Scope::Verify, Scope::Shipper, Scope::Store, Scope::Seal];
    let given = Given::options(&json_params(options)?, env, &scopes)?;
    let RetentionConfig { target, history } = kept_at(url, &given)?;
    Ok(VerifyConfig { target, quick: given.get(&QUICK)?, history })
}

/// Reads the arguments of `litestream_retention_plan`: a replica, and options as a JSON object.
///
/// # Errors
/// `Config`: not a JSON object, an unknown option, or a value that does not fit.
pub fn retention(url: &str, options: Option<&str>, env: &dyn Env) -> Result<RetentionConfig> {
    let given = Given::options(&json_params(options)?, env, &[Scope::Shipper, Scope::Store, Scope::Seal])?;
    kept_at(url, &given)
}

/// The replica that `name` means, and how much history it is to keep: as options say, then what configures the database.
fn kept_at(name: &str, given: &Given<'_>) -> Result<RetentionConfig> {
    if let Some(first) = configured_at(name, given)? {
        let history = history(&first.given)?.settings();
        return Ok(RetentionConfig { target: first.location, history });
    }
    Ok(RetentionConfig { target: replica_at(name, given)?, history: history(given)?.settings() })
}

/// The first replica of the database that `name` means, if it means one that is configured.
fn configured_at<'a>(name: &str, given: &Given<'a>) -> Result<Option<FoundReplica<'a>>> {
    if name.is_empty() || Location::has_scheme(name) {
        return Ok(None);
    }
    let layers = Layers::with(Some(Path::new(name)), given.clone())?;
    Ok(layers.configured()?.into_iter().next())
}

/// Reads a replica, and options of the store as a JSON object.
///
/// # Errors
/// `Config`: not a JSON object, an unknown option, or a value that does not fit.
pub fn target(url: &str, options: Option<&str>, env: &dyn Env) -> Result<Location> {
    let given = Given::options(&json_params(options)?, env, &[Scope::Store, Scope::Seal])?;
    replica_at(url, &given)
}

/// The replica that `name` means: a URL, or the path of a database that is configured, whose first replica it is.
fn replica_at(name: &str, given: &Given<'_>) -> Result<Location> {
    if name.is_empty() || Location::has_scheme(name) {
        let (given, url) = given.of_replica(name, &[Scope::Seal])?;
        return Ok(Location::parse(&url, &given)?.read_with(seal::keyring(&given)?));
    }
    if let Some(first) = configured_at(name, given)? {
        return Ok(first.location);
    }
    let layers = Layers::with(Some(Path::new(name)), given.clone())?;
    Location::parse(name, given).map_err(|e| match &layers.document {
        Some(document) => Error::config(format!("{e}; {} has no such database", document.file.display())),
        None => e,
    })
}

/// The members of a JSON object whose values are text, numbers or booleans; `null` is not given.
fn json_params(json: Option<&str>) -> Result<Vec<(String, String)>> {
    use serde_json::Value;

    let Some(json) = json else { return Ok(Vec::new()) };
    // The text may hold a secret: it is not repeated.
    let not_an_object = || Error::config("options are not a JSON object, such as {\"force\": true}");
    let Ok(Value::Object(members)) = serde_json::from_str(json) else { return Err(not_an_object()) };
    let mut params = Vec::with_capacity(members.len());
    for (key, value) in members {
        match value {
            Value::Null => {}
            Value::String(text) => params.push((key, text)),
            // A number has no hexadecimal digits: it can only be decimal.
            Value::Number(n) if key == "txid" => params.push((key, format!("#{n}"))),
            Value::Bool(_) | Value::Number(_) => params.push((key, value.to_string())),
            Value::Array(_) | Value::Object(_) => {
                return Err(Error::config(format!("option '{key}' is neither text, number nor boolean")));
            }
        }
    }
    Ok(params)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;
    use crate::ltx::{Plain, Txid};

    fn read(options: &str) -> Result<RestoreConfig> {
        restore("file:///r", Some(options), &[])
    }

    #[test]
    fn options_have_defaults() {
        let config = restore("file:///r", None, &[]).unwrap();
        assert_eq!(config.target, Location::parse("file:///r", &|_: &str| None).unwrap());
        assert_eq!((config.point, config.force, config.parallelism), (RestorePoint::Latest, false, 8));
        assert_eq!(read("{}").unwrap(), config);
        assert_eq!(read(r#"{"txid": null}"#).unwrap(), config);
    }

    #[test]
    fn options_are_read() {
        let config =
            read(r#"{"force": true, "txid": "000000000000002a", "parallelism": 2, "region": "x"}"#).unwrap();
        assert_eq!(config.point, RestorePoint::Txid(Txid::new(42).unwrap()));
        assert_eq!((config.force, config.parallelism), (true, 2));
        let config = read(r#"{"txid": 42, "ifReplicaExists": true, "integrity-check": "FULL"}"#).unwrap();
        assert_eq!(config.point, RestorePoint::Txid(Txid::new(42).unwrap()));
        assert!(config.if_replica_exists && !config.if_db_not_exists && !config.dry_run);
        assert_eq!(config.integrity_check, IntegrityCheck::Full);
        let config = read(r#"{"timestamp": 1769860800}"#).unwrap();
        assert_eq!(config.point, RestorePoint::Timestamp(Timestamp::from_millis(1_769_860_800_000)));
        let config = read(r#"{"timestamp": "2026-01-31T12:00:00Z"}"#).unwrap();
        assert_eq!(config.point, RestorePoint::Timestamp(Timestamp::from_millis(1_769_860_800_000)));
    }

    #[test]
    fn store_settings_are_options_too() {
        let options = r#"{"endpoint": "http://127.0.0.1:9", "forcePathStyle": true}"#;
        let url = "s3://bucket/path?endpoint=http://127.0.0.1:9&force-path-style=true";
        let expected = Location::parse(url, &|_: &str| None).unwrap();
        assert_eq!(target("s3://bucket/path", Some(options), &[]).unwrap(), expected);
    }

    #[test]
    fn what_opens_a_replica_is_an_option_of_every_function() {
        let key = "76853cf33e235c42143ab4381f0f359397ac7cda1d035c52d34d87494150d3f5";
        let options = format!(r#"{{"ageIdentity": "{key}", "plain_until": 7}}"#);
        let config = read(&options).unwrap();
        assert!(!format!("{config:?}").contains(key));
        for target in [
            config.target,
            verify("file:///r", Some(&options), &[]).unwrap().target,
            target("file:///r", Some(&options), &[]).unwrap(),
            target(&format!("file:///r?age-identity={key}&plain_until=7"), None, &[]).unwrap(),
        ] {
            assert_eq!(target.keyring().identities().len(), 1);
            assert_eq!(target.keyring().plain(), Plain::UpTo(Txid::new(7).unwrap()));
            assert_eq!(target.to_string(), "file:///r");
        }
        let e = read(r#"{"age_identity": "QQQ", "age_identity_file": "/k"}"#).unwrap_err().to_string();
        assert!(e.contains("keep one") && !e.contains("QQQ"), "{e}");
    }

    #[test]
    fn a_verification_is_quick_or_thorough() {
        assert!(!verify("file:///r", None, &[]).unwrap().quick);
        assert!(verify("file:///r", Some(r#"{"quick": true}"#), &[]).unwrap().quick);
        let e = verify("file:///r", Some(r#"{"force": true}"#), &[]).unwrap_err();
        assert!(e.to_string().contains("unknown parameter 'force'"), "{e}");
    }

    #[test]
    fn a_database_stands_for_its_first_replica() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("litestream.yml");
        let text = "dbs:\n- path: /d/app.db\n  replicas:\n  - url: s3://bucket/app\n    region: here\n  - path: /other\n";
        std::fs::write(&file, text).unwrap();
        let config: &'static str = file.display().to_string().leak();
        let env = [("LITESTREAM_CONFIG", config)];
        let parsed = |url: &str| Location::parse(url, &|_: &str| None).unwrap();
        assert_eq!(target("/d/app.db", None, &env).unwrap(), parsed("s3://bucket/app?region=here"));
        let there = restore("/d/app.db", Some(r#"{"region": "there"}"#), &env).unwrap().target;
        assert_eq!(there, parsed("s3://bucket/app?region=there"));
        let e = verify("/d/other.db", None, &env).unwrap_err().to_string();
        assert!(
            e.contains("'/d/other.db' is not a replica URL") && e.contains("has no such database"),
            "{e}"
        );
        let e = target("/d/app.db", None, &[("LITESTREAM_CONFIG", "off")]).unwrap_err().to_string();
        assert!(e.ends_with("or file:///d/app.db for a folder"), "{e}");
    }

    #[test]
    fn what_is_kept_comes_from_options_and_from_what_configures_the_database() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("litestream.yml");
        let text = "retention: {daily: 7}\ndbs:\n- path: /d/app.db\n  replica: {url: 's3://bucket/app', retention: 48h}\n";
        std::fs::write(&file, text).unwrap();
        let config: &'static str = file.display().to_string().leak();
        let env = [("LITESTREAM_CONFIG", config)];
        let kept = retention("/d/app.db", Some(r#"{"retention_hourly": 24}"#), &env).unwrap().history;
        assert_eq!((kept.calendar.hourly, kept.calendar.daily), (24, 7));
        assert_eq!(kept.snapshot_retention.as_secs(), 48 * 3600);
        let plain = retention("s3://bucket/app", None, &env).unwrap().history;
        assert!(plain.calendar.is_empty() && plain.snapshot_retention.as_secs() == 24 * 3600);
        let now = Timestamp::from_millis(1_769_860_800_000);
        assert!(verify("/d/app.db", None, &env).unwrap().history.thins(now).is_some());
        assert_eq!(verify("s3://bucket/app", None, &env).unwrap().history.thins(now), None);
        let e = retention(
            "s3://bucket/app",
            Some(r#"{"snapshot_at": "03:00", "snapshot_interval": "7h"}"#),
            &env,
        );
        assert!(e.unwrap_err().to_string().contains("snapshot_at=03:00 does not fit"));
    }

    #[test]
    fn a_mistake_is_named() {
        for (options, expected) in [
            ("force", "not a JSON object"),
            ("[]", "not a JSON object"),
            (r#"{"froce": true}"#, "unknown parameter 'froce'; did you mean 'force'?"),
            (r#"{"overwrite": true}"#, "unknown parameter 'overwrite'; known are "),
            (r#"{"sync_interval": 1}"#, "unknown parameter 'sync_interval'"),
            (r#"{"force": "perhaps"}"#, "force: 'perhaps' is neither true nor false"),
            (r#"{"force": {}}"#, "'force' is neither text, number nor boolean"),
            (r#"{"txid": "2a"}"#, "txid: '2a' is not a TXID"),
            (r#"{"timestamp": "noon"}"#, "timestamp: 'noon' is not a time"),
            (r#"{"parallelism": 0}"#, "parallelism: '0' is not a whole number from 1 to 64"),
            (
                r#"{"txid": "000000000000002a", "timestamp": "2026-01-31T12:00:00Z"}"#,
                "'txid' and 'timestamp' are both given",
            ),
        ] {
            let message = read(options).unwrap_err().to_string();
            assert!(message.contains(expected), "{options}: {message}");
        }
    }
}
