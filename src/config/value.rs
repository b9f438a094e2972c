//! What the text of a setting means.

use std::path::PathBuf;
use std::time::Duration;

use crate::error::{Error, Result};

/// A boolean as SQLite reads one in a URI: `yes`, `true`, `on`, any number but 0, and their opposites.
pub(super) fn flag(text: &str) -> Result<bool> {
    match text.to_ascii_lowercase().as_str() {
        "yes" | "true" | "on" => Ok(true),
        "no" | "false" | "off" => Ok(false),
        other => other
            .parse::<i64>()
            .map(|n| n != 0)
            .map_err(|_| Error::config(format!("'{text}' is neither true nor false"))),
    }
}

/// Whether SQLite takes `text` for true in a parameter of its own: it reads a number as far as there are digits,
/// and takes what it cannot read for false. Source: `sqlite3GetBoolean`.
pub(super) fn is_on_for_sqlite(text: &str) -> bool {
    let is_number = text.starts_with(|c: char| c.is_ascii_digit());
    if is_number { text.bytes().any(|b| b != b'0') } else { flag(text).unwrap_or(false) }
}

/// A whole number from `min` to `max`.
pub(super) fn count(text: &str, min: u64, max: u64) -> Result<u64> {
    match text.parse() {
        Ok(n) if (min..=max).contains(&n) => Ok(n),
        _ => Err(Error::config(format!("'{text}' is not a whole number from {min} to {max}"))),
    }
}

/// A duration of `min` to `max`.
///
/// Where at most an hour makes sense, a large number without a unit is refused: it may be meant in milliseconds.
pub(super) fn duration_within(text: &str, min: &str, max: &str) -> Result<Duration> {
    const LARGE: Duration = Duration::from_secs(100);
    const SHORT: Duration = Duration::from_secs(3600);
    let value = within(text, min, max, duration);
    if !is_bare_number(text) || value.as_ref().is_ok_and(|value| *value < LARGE) {
        return value;
    }
    let is_short = duration(max).is_ok_and(|max| max <= SHORT);
    match value {
        Ok(value) if !is_short => Ok(value),
        Ok(_) => Err(Error::config(format!(
            "'{text}' has no unit; write {text}s for seconds, {text}ms for milliseconds"
        ))),
        Err(e) => Err(Error::new(
            e.kind(),
            format!("{e}; without a unit it is in seconds: for milliseconds write {text}ms"),
        )),
    }
}

/// One to `count` durations of `min` to `max`, with commas between them.
pub(super) fn durations(text: &str, min: &str, max: &str, count: usize) -> Result<Vec<Duration>> {
    let all: Vec<_> =
        text.split(',').map(|text| duration_within(text.trim(), min, max)).collect::<Result<_>>()?;
    if all.len() > count {
        return Err(Error::config(format!("'{text}' has {} durations; give at most {count}", all.len())));
    }
    Ok(all)
}

/// A size in bytes of `min` to `max`.
pub(super) fn size_within(text: &str, min: &str, max: &str) -> Result<u64> {
    within(text, min, max, size)
}

/// Whether both are durations, and `text` is longer than `limit`.
pub(super) fn is_longer(text: &str, limit: &str) -> bool {
    matches!((duration(text), duration(limit)), (Ok(time), Ok(limit)) if time > limit)
}

/// Whether both are sizes, and `text` is smaller than `limit`.
pub(super) fn is_smaller(text: &str, limit: &str) -> bool {
    matches!((size(text), size(limit)), (Ok(size), Ok(limit)) if size < limit)
}

fn within<T: PartialOrd>(text: &str, min: &str, max: &str, read: fn(&str) -> Result<T>) -> Result<T> {
    let value = read(text)?;
    let limit = |text| read(text).expect("BUG: a limit that cannot be read");
    if value < limit(min) || value > limit(max) {
        return Err(Error::config(format!("'{text}' is not within {min} and {max}")));
    }
    Ok(value)
}

/// A number of seconds, as an argument of a SQL function gives it.
///
/// # Errors
/// `Config` if it is negative, or longer than a year.
pub fn seconds(seconds: f64) -> Result<Duration> {
    // Beyond that, adding it to a moment could overflow.
    const LONGEST: Duration = Duration::from_secs(365 * 86_400);
    Duration::try_from_secs_f64(seconds).ok().filter(|d| *d <= LONGEST).ok_or_else(|| {
        Error::config(format!("{seconds:?} is not a number of seconds from 0 to {}", LONGEST.as_secs()))
    })
}

/// A number of seconds, or a duration with its unit, as an argument of a SQL function gives it.
///
/// # Errors
/// `Config` if it is none, or longer than a year.
pub fn timeout(text: &str) -> Result<Duration> {
    duration(text).and_then(|duration| seconds(duration.as_secs_f64()))
}

/// Units of durations, in milliseconds.
const UNITS: &[(&[&str], f64)] = &[
    (&["ms", "millisecond", "milliseconds"], 1.0),
    (&["s", "sec", "secs", "second", "seconds"], 1_000.0),
    (&["m", "min", "mins", "minute", "minutes"], 60_000.0),
    (&["h", "hr", "hrs", "hour", "hours"], 3_600_000.0),
    (&["d", "day", "days"], 86_400_000.0),
    (&["w", "week", "weeks"], 604_800_000.0),
];

/// `1s`, `500ms`, `1m30s`, `1.5h`, `7d`, `30 days`, or a number of seconds.
fn duration(text: &str) -> Result<Duration> {
    let read = if is_bare_number(text) { text.parse().ok() } else { with_units(text).map(|ms| ms / 1000.0) };
    read.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()).ok_or_else(|| {
        Error::config(format!("'{text}' is not a duration; write a number of seconds, or 500ms, 1s, 2m, 7d"))
    })
}

/// Whether `text` is a number without a unit.
fn is_bare_number(text: &str) -> bool {
    text.parse::<f64>().is_ok()
}

/// Milliseconds of numbers, each with its unit.
fn with_units(text: &str) -> Option<f64> {
    let mut rest = text.trim();
    let mut sum = None;
    while !rest.is_empty() {
        let (number, after) = rest.split_at(rest.find(|c: char| !c.is_ascii_digit() && c != '.')?);
        let after = after.trim_start();
        let (unit, after) = after.split_at(after.find(|c: char| !c.is_alphabetic()).unwrap_or(after.len()));
        let unit = unit.to_ascii_lowercase();
        let (_, ms) = UNITS.iter().find(|(names, _)| names.contains(&unit.as_str()))?;
        *sum.get_or_insert(0.0) += number.parse::<f64>().ok()? * ms;
        rest = after.trim_start();
    }
    sum
}

/// A path of a local file or folder, which no shell has expanded.
///
/// # Errors
/// `Config` for `~` and for a path of Windows, with what to write.
pub(super) fn path(text: &str) -> Result<PathBuf> {
    if let Some(rest) = text.strip_prefix('~').filter(|rest| rest.is_empty() || rest.starts_with('/')) {
        let home = std::env::var("HOME").unwrap_or_else(|_| "/home/me".to_owned());
        return Err(Error::config(format!("'~' is not expanded in '{text}'; write {home}{rest}")));
    }
    Ok(PathBuf::from(text))
}

/// Names of sizes and how many bytes each is.
const SIZES: &[(&str, u64)] = &[
    ("", 1),
    ("b", 1),
    ("kb", 1_000),
    ("mb", 1_000_000),
    ("gb", 1_000_000_000),
    ("tb", 1_000_000_000_000),
    ("kib", 1 << 10),
    ("mib", 1 << 20),
    ("gib", 1 << 30),
    ("tib", 1 << 40),
];

/// `32MB`, `32MiB`, `1.5GiB`, or a number of bytes.
fn size(text: &str) -> Result<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit = unit.trim_start().to_ascii_lowercase();
    let unit = SIZES.iter().find(|(name, _)| *name == unit).map(|(_, bytes)| *bytes);
    match (number.parse::<f64>(), unit) {
        (Ok(number), Some(unit)) if number.is_finite() => Ok((number * unit as f64) as u64),
        _ => Err(Error::config(format!("'{text}' is not a size; write a number of bytes, or 32MB, 32MiB"))),
    }
}

/// Whether `text` is an address that a notification can go to.
pub(super) fn is_web_address(text: &str) -> bool {
    ["http://", "https://"].iter().any(|scheme| text.starts_with(scheme))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_people_and_litestream_write_them() {
        for (text, ms) in [
            ("1s", 1000),
            ("500ms", 500),
            ("2m", 120_000),
            ("1m30s", 90_000),
            ("1.5s", 1500),
            ("1h", 3_600_000),
            ("3", 3000),
            ("0.25", 250),
            ("0", 0),
            ("7d", 7 * 86_400_000),
            ("30 days", 30 * 86_400_000),
            ("1d12h", 36 * 3_600_000),
            ("1 h 30 min", 5_400_000),
            ("2 Weeks", 14 * 86_400_000),
        ] {
            assert_eq!(duration(text).unwrap(), Duration::from_millis(ms), "{text}");
        }
        for text in
            ["", "s", "-1s", "-1", "1x", "inf", "NaN", "1e300", "soon", "1s ago", "5 5s", "1.2.3s", "d7"]
        {
            let message = duration(text).unwrap_err().to_string();
            assert!(message.contains("500ms"), "{text}: {message}");
        }
    }

    #[test]
    fn durations_are_a_list() {
        let read = |text| durations(text, "1s", "1h", 3);
        assert_eq!(read("30s, 5m,1h").unwrap(), [30, 300, 3600].map(Duration::from_secs));
        assert_eq!(read("2").unwrap(), [Duration::from_secs(2)]);
        assert_eq!(
            read("1s,2s,3s,4s").unwrap_err().to_string(),
            "'1s,2s,3s,4s' has 4 durations; give at most 3"
        );
        assert!(read("").is_err() && read("1s,,2s").is_err() && read("1s,0s").is_err());
    }

    #[test]
    fn seconds_are_bounded() {
        assert_eq!(seconds(0.5).unwrap(), Duration::from_millis(500));
        assert!([-1.0, 1e300, f64::INFINITY, f64::NAN].into_iter().all(|s| seconds(s).is_err()));
    }

    #[test]
    fn sizes_tell_powers_of_ten_from_powers_of_two() {
        for (text, bytes) in [
            ("32MB", 32_000_000),
            ("32MiB", 32 << 20),
            ("32 mib", 32 << 20),
            ("1.5GiB", 3 << 29),
            ("1048576", 1 << 20),
            ("7B", 7),
        ] {
            assert_eq!(size(text).unwrap(), bytes, "{text}");
        }
        for text in ["", "MB", "32M", "-1", "1.2.3MB", "lots", "32MBs"] {
            assert!(size(text).unwrap_err().to_string().contains("32MiB"), "{text}");
        }
    }

    #[test]
    fn a_value_outside_its_limits_is_refused_with_the_limits() {
        let message = duration_within("2h", "10ms", "1h").unwrap_err().to_string();
        assert_eq!(message, "'2h' is not within 10ms and 1h");
        let message = duration_within("5000", "10ms", "1h").unwrap_err().to_string();
        assert!(message.ends_with("in seconds: for milliseconds write 5000ms"), "{message}");
        let message = duration_within("500", "10ms", "1h").unwrap_err().to_string();
        assert_eq!(message, "'500' has no unit; write 500s for seconds, 500ms for milliseconds");
        assert_eq!(duration_within("60", "10ms", "1h").unwrap(), Duration::from_secs(60));
        assert_eq!(duration_within("86400", "1s", "8760h").unwrap(), Duration::from_secs(86_400));
        assert!(duration_within("10ms", "10ms", "1h").is_ok());
        assert!(size_within("1TiB", "1MiB", "1TiB").is_ok());
        assert!(size_within("1MB", "1MiB", "1TiB").is_err());
        assert!(count("65", 1, 64).is_err());
        assert_eq!(count("64", 1, 64).unwrap(), 64);
    }

    #[test]
    fn flags_are_spelled_as_sqlite_spells_them() {
        for text in ["1", "yes", "TRUE", "on", "2"] {
            assert!(flag(text).unwrap(), "{text}");
        }
        for text in ["0", "no", "False", "off"] {
            assert!(!flag(text).unwrap(), "{text}");
        }
        assert!(flag("maybe").is_err());
        assert!(flag("").is_err());
    }

    #[test]
    fn parameters_of_sqlite_are_read_as_sqlite_reads_them() {
        for text in ["1", "Yes", "true", "on", "2", "01", "1x", "0x1"] {
            assert!(is_on_for_sqlite(text), "{text}");
        }
        for text in ["0", "00", "no", "False", "off", "", "maybe", "full"] {
            assert!(!is_on_for_sqlite(text), "{text}");
        }
    }
}
