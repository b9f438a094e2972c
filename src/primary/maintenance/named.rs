//! Which settings of the history were named, and what holds for the others.

use std::time::Duration;

use jiff::SignedDuration;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::primary::maintenance::calendar::Calendar;
use crate::primary::maintenance::settings::{Settings, SnapshotAt};

/// The settings of the history that were named: in the URI, in the environment, or at an earlier open.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamedSettings {
    /// See [`Settings::levels`].
    #[serde(default, skip_serializing_if = "Option::is_none", with = "durations")]
    pub levels: Option<Vec<Duration>>,
    /// See [`Settings::snapshot_interval`].
    #[serde(default, skip_serializing_if = "Option::is_none", with = "duration")]
    pub snapshot_interval: Option<Duration>,
    /// See [`Settings::snapshot_at`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot_at: Option<SnapshotAt>,
    /// See [`Settings::snapshot_retention`].
    #[serde(default, skip_serializing_if = "Option::is_none", with = "duration")]
    pub snapshot_retention: Option<Duration>,
    /// See [`Settings::l0_retention`].
    #[serde(default, skip_serializing_if = "Option::is_none", with = "duration")]
    pub l0_retention: Option<Duration>,
    /// See [`Settings::retention`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retention: Option<bool>,
    /// See [`Settings::calendar`]. Where one of its numbers is named, the others are 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calendar: Option<Calendar>,
}

/// How much history an open asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HistoryOptions {
    /// What it names. Files are deleted earlier than before only because of that.
    pub named: NamedSettings,
    /// What holds where neither this open nor an earlier one named a value.
    pub defaults: Settings,
}

impl HistoryOptions {
    /// The settings of an open that no other preceded.
    pub fn settings(&self) -> Settings {
        self.named.clone().over(&self.defaults)
    }
}

impl NamedSettings {
    /// These settings, and those of `earlier` where they name none.
    pub(in crate::primary) fn or(self, earlier: Self) -> Self {
        Self {
            levels: self.levels.or(earlier.levels),
            snapshot_interval: self.snapshot_interval.or(earlier.snapshot_interval),
            snapshot_at: self.snapshot_at.or(earlier.snapshot_at),
            snapshot_retention: self.snapshot_retention.or(earlier.snapshot_retention),
            l0_retention: self.l0_retention.or(earlier.l0_retention),
            retention: self.retention.or(earlier.retention),
            calendar: self.calendar.or(earlier.calendar),
        }
    }

    /// These settings, and the defaults where they name none.
    pub(in crate::primary) fn over(self, defaults: &Settings) -> Settings {
        Settings {
            levels: self.levels.unwrap_or_else(|| defaults.levels.clone()),
            snapshot_interval: self.snapshot_interval.unwrap_or(defaults.snapshot_interval),
            snapshot_at: self.snapshot_at.unwrap_or(defaults.snapshot_at),
            snapshot_retention: self.snapshot_retention.unwrap_or(defaults.snapshot_retention),
            l0_retention: self.l0_retention.unwrap_or(defaults.l0_retention),
            retention: self.retention.unwrap_or(defaults.retention),
            calendar: self.calendar.unwrap_or(defaults.calendar),
        }
    }

    /// Each setting that is named, with its value as a user writes it. Of the calendar all numbers are, or none.
    pub fn shown(&self) -> Vec<(&'static str, String)> {
        let levels = self.levels.as_ref();
        let levels = levels.map(|all| all.iter().map(|level| text(*level)).collect::<Vec<_>>().join(","));
        let count = |count: fn(Calendar) -> u32| self.calendar.map(|calendar| count(calendar).to_string());
        let all = [
            ("levels", levels),
            ("snapshot_interval", self.snapshot_interval.map(text)),
            ("snapshot_at", self.snapshot_at.map(|at| at.to_string())),
            ("snapshot_retention", self.snapshot_retention.map(text)),
            ("l0_retention", self.l0_retention.map(text)),
            ("retention", self.retention.map(|kept| if kept { "on" } else { "off" }.to_owned())),
            ("retention_hourly", count(|calendar| calendar.hourly)),
            ("retention_daily", count(|calendar| calendar.daily)),
            ("retention_weekly", count(|calendar| calendar.weekly)),
            ("retention_monthly", count(|calendar| calendar.monthly)),
        ];
        all.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
    }

    /// The first setting that is not what it is in `settings`: its name, the value named here, and the one
    /// there.
    pub(in crate::primary) fn difference(
        &self,
        settings: &Settings,
    ) -> Option<(&'static str, String, String)> {
        let named = self.clone().over(settings).shown();
        let there = settings.shown();
        named.into_iter().zip(there).find(|(a, b)| a != b).map(|((name, a), (_, b))| (name, a, b))
    }
}

impl Settings {
    /// Each setting with its value as a user writes it.
    fn shown(&self) -> Vec<(&'static str, String)> {
        self.clone().all_named().shown()
    }

    fn all_named(self) -> NamedSettings {
        NamedSettings {
            levels: Some(self.levels),
            snapshot_interval: Some(self.snapshot_interval),
            snapshot_at: Some(self.snapshot_at),
            snapshot_retention: Some(self.snapshot_retention),
            l0_retention: Some(self.l0_retention),
            retention: Some(self.retention),
            calendar: Some(self.calendar),
        }
    }

    /// What makes files go earlier than with the settings `before`, in words; `None` if nothing does.
    pub(in crate::primary) fn shortens(&self, before: &Self) -> Option<String> {
        if !self.retention {
            return None;
        }
        let shorter = [
            !before.retention && self.retention,
            self.snapshot_retention < before.snapshot_retention,
            !self.keeps_l0() && (before.keeps_l0() || self.l0_retention < before.l0_retention),
            self.calendar.hourly < before.calendar.hourly,
            self.calendar.daily < before.calendar.daily,
            self.calendar.weekly < before.calendar.weekly,
            self.calendar.monthly < before.calendar.monthly,
        ];
        let names = [
            "retention",
            "snapshot_retention",
            "l0_retention",
            "retention_hourly",
            "retention_daily",
            "retention_weekly",
            "retention_monthly",
        ];
        let value = |settings: &Self, name: &str| {
            settings.shown().into_iter().find(|(n, _)| *n == name).map(|(_, value)| value).unwrap_or_default()
        };
        let changes: Vec<String> = names
            .into_iter()
            .zip(shorter)
            .filter(|(_, shorter)| *shorter)
            .map(|(name, _)| format!("{name}={} (it was {})", value(self, name), value(before, name)))
            .collect();
        (!changes.is_empty()).then(|| changes.join(", "))
    }
}

fn signed(duration: Duration) -> SignedDuration {
    SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX)
}

/// `720h`, `1m 30s`.
pub(in crate::primary) fn text(duration: Duration) -> String {
    format!("{:#}", signed(duration))
}

fn parse<E: serde::de::Error>(text: &str) -> Result<Duration, E> {
    let read: Option<SignedDuration> = text.parse().ok();
    read.and_then(|d| Duration::try_from(d).ok())
        .ok_or_else(|| E::custom(format!("'{text}' is not a duration")))
}

/// A duration as a user writes it.
mod duration {
    use super::*;

    pub(super) fn serialize<S: Serializer>(value: &Option<Duration>, to: S) -> Result<S::Ok, S::Error> {
        value.map(text).serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Duration>, D::Error> {
        Option::<String>::deserialize(from)?.map(|text| parse(&text)).transpose()
    }
}

/// Durations as a user writes them.
mod durations {
    use super::*;

    pub(super) fn serialize<S: Serializer>(value: &Option<Vec<Duration>>, to: S) -> Result<S::Ok, S::Error> {
        let texts = value.as_ref().map(|all| all.iter().map(|one| text(*one)).collect::<Vec<_>>());
        texts.serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Vec<Duration>>, D::Error> {
        let texts = Option::<Vec<String>>::deserialize(from)?;
        texts.map(|texts| texts.iter().map(|text| parse(text)).collect()).transpose()
    }
}
