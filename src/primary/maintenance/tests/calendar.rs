//! Restore points by the calendar: after each commit every point that is promised restores to what it was, and of what is
//! older than the retention nothing else is there a round later, by when the store got it: more is not known of a file that is
//! listed. Stores fail for hours, processes are killed, and commits of an
//! outage are published when it is over, as they were made.
//!
//! `cargo test` runs some weeks; `scripts/calendar.py` runs years, with more policies.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::interrupted::kill_somewhere;
use super::world::{MINUTE, World, plan, settings};
use crate::clock::Timestamp;
use crate::ltx::{FileId, Level};
use crate::primary::maintenance::calendar::Period;
use crate::primary::maintenance::settings::before;
use crate::primary::maintenance::{Calendar, Settings, SnapshotAt};
use crate::store::Op;

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);

fn calendar(hourly: u32, daily: u32, weekly: u32, monthly: u32) -> Calendar {
    Calendar { hourly, daily, weekly, monthly }
}

/// Retention, time of snapshots, calendar.
fn policies() -> Vec<(Duration, SnapshotAt, Calendar)> {
    vec![
        (DAY, SnapshotAt::Anytime, calendar(24, 7, 12, 12)),
        (DAY, SnapshotAt::Minute(180), calendar(24, 7, 12, 12)),
        (HOUR * 2, SnapshotAt::Minute(180), calendar(48, 0, 0, 0)),
        (DAY, SnapshotAt::Anytime, calendar(0, 30, 0, 0)),
        (DAY, SnapshotAt::Anytime, calendar(0, 0, 0, 12)),
        (DAY * 3, SnapshotAt::Minute(750), calendar(0, 0, 52, 0)),
        (HOUR, SnapshotAt::Anytime, calendar(1, 1, 1, 1)),
        (DAY * 30, SnapshotAt::Anytime, calendar(24, 60, 0, 24)),
        (DAY, SnapshotAt::Anytime, calendar(0, 0, 0, 0)),
        (HOUR * 12, SnapshotAt::Minute(1439), calendar(5, 3, 2, 1)),
    ]
}

/// A number of the environment, which `scripts/calendar.py` sets.
fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap())
}

/// A world with one commit an hour.
struct Years {
    world: World,
    calendar: Calendar,
    /// When commits were made that an outage keeps from the replica.
    waiting: Vec<Timestamp>,
    /// Until when the store is away.
    away: Option<Timestamp>,
    /// Since when each snapshot is known to be there.
    snapshots: BTreeMap<FileId, Timestamp>,
    most_bytes: u64,
}

impl Years {
    fn new(seed: u64, (retention, at, calendar): (Duration, SnapshotAt, Calendar)) -> Self {
        let settings = Settings {
            snapshot_interval: DAY,
            snapshot_at: at,
            snapshot_retention: retention,
            calendar,
            ..settings()
        };
        let world = World::new(seed, settings);
        world.memory.set_clock(world.clock.clone());
        Self { world, calendar, waiting: Vec::new(), away: None, snapshots: BTreeMap::new(), most_bytes: 0 }
    }

    fn hour(&mut self) {
        let minute = self.world.random(58) as u32;
        self.world.pass(MINUTE * minute);
        self.waiting.push(self.world.now());
        match self.away {
            Some(end) if self.world.now() < end => {}
            _ => self.publish(),
        }
        self.world.pass(MINUTE * (59 - minute));
        if self.away.is_none() {
            if self.world.random(40) == 0 {
                kill_somewhere(&mut self.world);
                self.world.store.heal();
                self.world.restart();
            }
            self.world.round();
            if self.world.random(100) == 0 {
                let hours = self.world.random(30) as u32 + 1;
                let end = self.world.now().as_millis() + (HOUR * hours).as_millis() as i64;
                self.away = Some(Timestamp::from_millis(end));
            }
        }
        let now = self.world.now();
        for snapshot in self.world.files(Level::SNAPSHOT.get()) {
            self.snapshots.entry(snapshot.id).or_insert(now);
        }
        self.world.pass(MINUTE);
    }

    fn publish(&mut self) {
        self.away = None;
        for time in std::mem::take(&mut self.waiting) {
            self.world.commit_of(time);
        }
    }

    /// The points that `docs/operating.md` promises: of commits, not of files.
    fn promised(&self) -> BTreeSet<u64> {
        let mut promised = BTreeSet::new();
        for period in Period::ALL {
            let lasts: BTreeMap<Timestamp, u64> =
                self.world.states.iter().map(|(txid, (time, _))| (period.start(*time), *txid)).collect();
            promised.extend(lasts.into_values().rev().take(self.calendar.count(period) as usize));
        }
        promised
    }

    fn check(&mut self) {
        let promised = self.promised();
        for txid in &promised {
            let restored = self.world.restore(*txid);
            assert!(restored.as_ref() == Some(&self.world.states[txid].1), "transaction {txid} is not there");
        }
        self.world.assert_restores_latest();
        let files = self.world.all_files();
        self.most_bytes = self.most_bytes.max(files.iter().map(|file| file.size).sum());
        let needed: BTreeSet<FileId> =
            promised.iter().flat_map(|txid| plan(&files, *txid).unwrap()).map(|file| file.id).collect();
        let since = before(before(self.world.now(), self.world.settings.snapshot_retention), HOUR * 3);
        let is_base = |id: &FileId| self.snapshots.get(id).is_some_and(|there| *there <= since);
        let Some(base) = files.iter().map(|file| file.id).filter(is_base).max_by_key(|id| id.name.max())
        else {
            return;
        };
        for file in &files {
            let last = self.world.files(file.id.level.get()).last().map(|last| last.id);
            let is_old = file.id.name.max() < base.name.max() && Some(file.id) != last;
            assert!(!is_old || needed.contains(&file.id), "{} is kept for nothing", file.id);
        }
    }

    /// States that no later check looks at.
    fn forget(&mut self) {
        let promised = self.promised();
        let files = self.world.all_files();
        let ends: BTreeSet<u64> = files.iter().map(|file| file.id.name.max().get()).collect();
        let oldest = ends.first().copied().unwrap_or(0);
        for (txid, (_, pages)) in &mut self.world.states {
            if *txid < oldest && !promised.contains(txid) {
                pages.clear();
            }
        }
    }
}

fn run(days: u64, number: usize) {
    let policy = policies()[number];
    let mut years = Years::new(100 + number as u64, policy);
    for hour in 1..=days * 24 {
        years.hour();
        if hour % 24 == 0 && years.away.is_none() {
            years.world.round();
            years.check();
            years.forget();
        }
    }
    let copies = u64::from(policy.2.hourly + policy.2.daily + policy.2.weekly + policy.2.monthly) + 24;
    let snapshot = years.world.files(9).last().map_or(0, |file| file.size);
    println!(
        "policy {number}: {:?} {} {:?}: at most {} bytes in {} files now; {} bytes as hourly snapshots; {} lists, {} gets",
        policy.0,
        policy.1,
        policy.2,
        years.most_bytes,
        years.world.all_files().len(),
        copies * snapshot,
        years.world.store.count(Op::List),
        years.world.store.count(Op::Get),
    );
}

#[test]
fn every_promised_point_restores_and_nothing_else_is_kept() {
    let days = number("CALENDAR_DAYS").unwrap_or(40);
    match number("CALENDAR_POLICY") {
        Some(policy) => run(days, policy as usize),
        None => [1, 2, 9].into_iter().for_each(|policy| run(days, policy)),
    }
}
