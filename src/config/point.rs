//! Points in time, as people write them.
//!
//! | written | is |
//! | --- | --- |
//! | `2026-01-31T12:00:00.5+01:00` | RFC 3339 |
//! | `2026-01-31 12:00`, `2026-01-31` | UTC; a date is its first moment |
//! | `1769860800`, `1769860800.25` | Unix seconds |
//! | `5 minutes ago`, `1h30m ago`, `2 days ago` | before now |
//! | `now`, `today`, `yesterday`, `yesterday 14:00` | UTC |
//! | `000000000000002a`, `0x2a`, `txid:42`, `#42` | a TXID: 16 or prefixed hexadecimal digits, prefixed decimal ones |
//! | `latest` | all that there is |

use jiff::civil;
use jiff::tz::TimeZone;
use jiff::{Span, ToSpan as _, Zoned};

use crate::clock::{Clock as _, SystemClock, Timestamp};
use crate::error::{Error, Result};
use crate::ltx::Txid;
use crate::replica::RestorePoint;

/// Reads a TXID, a time or `latest`, as seen now.
///
/// # Errors
/// `Config`, with what would be one.
pub fn point(text: &str) -> Result<RestorePoint> {
    if text.trim().eq_ignore_ascii_case("latest") {
        return Ok(RestorePoint::Latest);
    }
    if looks_like_txid(text) {
        return txid(text).map(RestorePoint::Txid);
    }
    match moment(text, SystemClock.now()) {
        Some(time) => Ok(RestorePoint::Timestamp(time)),
        None => Err(Error::config(format!(
            "'{text}' is not a point in time; write {TIMES}, a TXID such as {} or txid:42, or latest",
            Txid::ONE
        ))),
    }
}

/// Reads a time, as seen now.
///
/// # Errors
/// `Config`, with what would be one.
pub(super) fn time(text: &str) -> Result<Timestamp> {
    moment(text, SystemClock.now())
        .ok_or_else(|| Error::config(format!("'{text}' is not a time; write {TIMES}")))
}

/// Reads a TXID.
///
/// # Errors
/// `Config`, with what would be one.
pub(super) fn txid(text: &str) -> Result<Txid> {
    let bare = text.trim().to_ascii_lowercase();
    let (prefixed, digits) = match bare.strip_prefix("txid").and_then(|rest| rest.strip_prefix([':', '='])) {
        Some(rest) => (true, rest.trim()),
        None => (false, bare.as_str()),
    };
    let number = if let Some(hexadecimal) = digits.strip_prefix("0x") {
        number(hexadecimal, 16)
    } else if let Some(decimal) = digits.strip_prefix('#') {
        number(decimal, 10)
    } else if digits.len() == 16 {
        number(digits, 16)
    } else if prefixed {
        number(digits, 10)
    } else {
        None
    };
    number.and_then(Txid::new).ok_or_else(|| {
        Error::config(format!(
            "'{text}' is not a TXID; write 16 hexadecimal digits, such as {}, or 0x2a, or txid:42 in decimal",
            Txid::ONE
        ))
    })
}

const TIMES: &str = "RFC 3339, such as 2026-01-31T12:00:00Z, a date, Unix seconds, '5 minutes ago' or \
                     'yesterday 14:00'";

fn looks_like_txid(text: &str) -> bool {
    let text = text.trim().to_ascii_lowercase();
    ["txid:", "txid=", "0x", "#"].iter().any(|prefix| text.starts_with(prefix))
        || text.len() == 16 && text.bytes().all(|b| b.is_ascii_hexdigit())
}

/// A number of digits only: no sign.
fn number(digits: &str, radix: u32) -> Option<u64> {
    let all = !digits.is_empty() && digits.chars().all(|c| c.is_digit(radix));
    all.then(|| u64::from_str_radix(digits, radix).ok())?
}

/// The time that `text` is when it is `now`.
fn moment(text: &str, now: Timestamp) -> Option<Timestamp> {
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    text.parse()
        .ok()
        .or_else(|| unix_seconds(&text))
        .or_else(|| in_utc(&text).and_then(|time| of(&time)))
        .or_else(|| relative(&text.to_ascii_lowercase(), now).and_then(|time| of(&time)))
}

fn of(time: &Zoned) -> Option<Timestamp> {
    i64::try_from(time.timestamp().as_nanosecond().div_euclid(1_000_000)).ok().map(Timestamp::from_millis)
}

/// `1769860800` or `1769860800.25`; finer than milliseconds is rounded down.
fn unix_seconds(text: &str) -> Option<Timestamp> {
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let milliseconds: String = fraction.chars().chain("00".chars()).take(3).collect();
    let seconds = i64::try_from(number(seconds, 10)?).ok()?;
    number(fraction, 10)?;
    let ms = seconds.checked_mul(1000)?.checked_add(milliseconds.parse().ok()?)?;
    // What has no date is no time.
    jiff::Timestamp::from_millisecond(ms).ok()?;
    Some(Timestamp::from_millis(ms))
}

/// A date, or a date and a time of day, without an offset.
fn in_utc(text: &str) -> Option<Zoned> {
    let (date, time) = text.split_once([' ', 't', 'T']).map_or((text, None), |(d, t)| (d, Some(t)));
    let date: civil::Date = only(date, "-").then(|| date.parse().ok())??;
    let time = time.map_or(Some(civil::Time::midnight()), time_of_day)?;
    date.to_datetime(time).to_zoned(TimeZone::UTC).ok()
}

/// `14:00`, `14:00:05.25`.
fn time_of_day(text: &str) -> Option<civil::Time> {
    (only(text, ":.") && text.contains(':')).then(|| text.parse().ok())?
}

/// Whether `text` is digits and these, which excludes offsets and zones that would be overlooked.
fn only(text: &str, others: &str) -> bool {
    text.chars().all(|c| c.is_ascii_digit() || others.contains(c))
}

/// `now`, `yesterday 14:00`, `5 minutes ago`.
fn relative(text: &str, now: Timestamp) -> Option<Zoned> {
    let now = jiff::Timestamp::from_millisecond(now.as_millis()).ok()?.to_zoned(TimeZone::UTC);
    if text == "now" {
        return Some(now);
    }
    if let Some(amount) = text.strip_suffix(" ago") {
        let article = ["a ", "an "].iter().find_map(|article| amount.strip_prefix(article));
        let amount = article.map_or(amount.to_owned(), |unit| format!("1 {unit}"));
        let span: Span = amount.parse().ok().filter(|_| amount.starts_with(|c: char| c.is_ascii_digit()))?;
        return now.checked_sub(span).ok().filter(|time| *time <= now);
    }
    let (day, time) = text.split_once(' ').map_or((text, None), |(d, t)| (d, Some(t)));
    let days = match day {
        "today" => 0,
        "yesterday" => 1,
        _ => return None,
    };
    let time = time.map(|t| t.strip_prefix("at ").unwrap_or(t));
    let time = time.map_or(Some(civil::Time::midnight()), time_of_day)?;
    now.date().checked_sub(days.days()).ok()?.to_datetime(time).to_zoned(TimeZone::UTC).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-03-01T10:20:30.500Z
    const NOW: &str = "2026-03-01T10:20:30.5Z";

    fn read(text: &str) -> Option<String> {
        moment(text, NOW.parse().unwrap()).map(|time| time.to_string())
    }

    #[test]
    fn times_are_read_as_people_write_them() {
        for (text, expected) in [
            ("2026-01-31T12:00:00Z", "2026-01-31T12:00:00Z"),
            ("2026-01-31t12:00:00z", "2026-01-31T12:00:00Z"),
            ("2026-01-31T12:00:00.123999+01:00", "2026-01-31T11:00:00.123Z"),
            ("2026-01-31 12:00:00-02:30", "2026-01-31T14:30:00Z"),
            ("2026-01-31", "2026-01-31T00:00:00Z"),
            ("2026-01-31 12:05", "2026-01-31T12:05:00Z"),
            (" 2026-01-31T12:05:06.25 ", "2026-01-31T12:05:06.25Z"),
            ("1769860800", "2026-01-31T12:00:00Z"),
            ("1769860800.1239", "2026-01-31T12:00:00.123Z"),
            ("0", "1970-01-01T00:00:00Z"),
            ("now", NOW),
            ("5 minutes ago", "2026-03-01T10:15:30.5Z"),
            ("5  MINUTES  ago", "2026-03-01T10:15:30.5Z"),
            ("an hour ago", "2026-03-01T09:20:30.5Z"),
            ("90s ago", "2026-03-01T10:19:00.5Z"),
            ("1h30m ago", "2026-03-01T08:50:30.5Z"),
            ("250ms ago", "2026-03-01T10:20:30.25Z"),
            ("2 days ago", "2026-02-27T10:20:30.5Z"),
            ("1 month ago", "2026-02-01T10:20:30.5Z"),
            ("today", "2026-03-01T00:00:00Z"),
            ("yesterday", "2026-02-28T00:00:00Z"),
            ("Yesterday 14:00", "2026-02-28T14:00:00Z"),
            ("yesterday at 14:00:05.5", "2026-02-28T14:00:05.5Z"),
        ] {
            assert_eq!(read(text).as_deref(), Some(expected), "{text}");
        }
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for text in [
            "",
            "noon",
            "ago",
            "minutes ago",
            "-5 minutes ago",
            "5 minutes",
            "5 minutes ago ago",
            "in 5 minutes",
            "99999999999 years ago",
            "tomorrow",
            "yesterday noon",
            "yesterday 25:00",
            "yesterday 14",
            "2026-02-30",
            "2026-13-01",
            "2026-1-1",
            "2026-01-31T",
            "2026-01-31T25:00:00Z",
            "2026-01-31T12:00[Europe/Berlin]",
            "2026-01-31T12:00:00+99:00",
            "1769860800.",
            ".5",
            "-1",
            "1e9",
            "99999999999999999999",
            "999999999999999",
            "txid:1",
        ] {
            assert_eq!(read(text), None, "{text}");
            let message = time(text).unwrap_err().to_string();
            assert!(message.contains("is not a time") && message.contains("minutes ago"), "{message}");
        }
    }

    #[test]
    fn transactions_are_told_from_times() {
        for text in
            ["000000000000002a", "000000000000002A", "0x2a", "0X2A", "txid:42", "TXID=42", "#42", "txid:0x2a"]
        {
            assert_eq!(point(text).unwrap(), RestorePoint::Txid(Txid::new(42).unwrap()), "{text}");
            assert_eq!(txid(text).unwrap().get(), 42);
        }
        assert_eq!(point("Latest").unwrap(), RestorePoint::Latest);
        assert_eq!(
            point("1769860800").unwrap(),
            RestorePoint::Timestamp(Timestamp::from_millis(1_769_860_800_000))
        );
    }

    #[test]
    fn what_is_no_transaction_is_refused() {
        for text in [
            "",
            "42",
            "2a",
            "0x",
            "0xg",
            "#",
            "#2a",
            "#-1",
            "#+1",
            "txid:",
            "txid:2a",
            "0x0",
            "#0",
            "0000000000000000",
            "0x10000000000000000",
            "#18446744073709551616",
            "00000000000000000042",
        ] {
            let message = txid(text).unwrap_err().to_string();
            assert!(message.contains("is not a TXID") && message.contains("txid:42"), "{message}");
        }
        let message = point("noon").unwrap_err().to_string();
        assert!(
            message.contains("'noon' is not a point in time") && message.contains("txid:42"),
            "{message}"
        );
    }
}
