//! Which of Litestream 0.3's objects make the database at a point.

use std::collections::BTreeMap;

use super::name::{Name, Part};
use super::{Forecast, RestorePoint, broken};
use crate::clock::Timestamp;
use crate::error::{Error, ErrorKind, Result};
use crate::store::RawInfo;

/// All generations of a replica, by name.
#[derive(Debug, Default)]
pub(super) struct Generations(BTreeMap<String, Generation>);

/// The objects of one generation.
#[derive(Debug, Default)]
struct Generation {
    /// By the index of the WAL file that continues it.
    snapshots: BTreeMap<u32, RawInfo>,
    /// By the index of the WAL file, and the offset in it.
    segments: BTreeMap<(u32, u64), RawInfo>,
}

/// What makes a database: a snapshot, and the WAL files that continue it.
#[derive(Debug)]
pub(in crate::restore) struct Backup {
    /// The generation.
    pub(super) generation: String,
    /// The snapshot.
    pub(super) snapshot: RawInfo,
    /// The index of the WAL file that continues it.
    pub(super) index: u32,
    /// The WAL files in order: the index of each, and its pieces with their offsets.
    pub(super) wals: Vec<(u32, Vec<(u64, RawInfo)>)>,
}

impl Generations {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The generations that `listed` objects belong to.
    pub(super) fn of(listed: Vec<RawInfo>) -> Self {
        let mut generations = Self::default();
        for object in listed {
            let Some(Name { generation, part }) = Name::parse(&object.path) else { continue };
            let generation = generations.0.entry(generation).or_default();
            match part {
                Part::Snapshot { index } => generation.snapshots.insert(index, object),
                Part::Segment { index, offset } => generation.segments.insert((index, offset), object),
            };
        }
        generations
    }

    /// What makes the database at `point`: from the generation that was written last, of what is not
    /// later. `None` if there is no snapshot that early.
    pub(super) fn backup(&self, point: RestorePoint) -> Option<Backup> {
        let backups = self.0.iter().filter_map(|(name, generation)| generation.backup(name, point));
        backups.max_by_key(Backup::last)
    }

    /// The error about a point that is before all; `None` if there is nothing at all.
    pub(super) fn not_covered(&self) -> Option<Error> {
        let snapshots = self.0.values().flat_map(|generation| generation.snapshots.values());
        let first = snapshots.map(|snapshot| snapshot.timestamp).min()?;
        let last = self.backup(RestorePoint::Latest)?.last();
        Some(Error::new(
            ErrorKind::NotFound,
            format!("the replica holds no state of that time or earlier; it covers {first} to {last}"),
        ))
    }
}

impl Generation {
    fn backup(&self, name: &str, point: RestorePoint) -> Option<Backup> {
        let admitted = |object: &RawInfo| match point {
            RestorePoint::Timestamp(time) => object.timestamp <= time,
            _ => true,
        };
        let (first, snapshot) = self.snapshots.iter().rev().find(|(_, snapshot)| admitted(snapshot))?;
        let mut wals: BTreeMap<u32, Vec<(u64, RawInfo)>> = BTreeMap::new();
        for ((index, offset), segment) in self.segments.range((*first, 0)..).take_while(|(_, s)| admitted(s))
        {
            wals.entry(*index).or_default().push((*offset, segment.clone()));
        }
        Some(Backup {
            generation: name.to_owned(),
            snapshot: snapshot.clone(),
            index: *first,
            wals: wals.into_iter().collect(),
        })
    }
}

impl Backup {
    /// All objects, in the order in which they are applied.
    pub(in crate::restore) fn objects(&self) -> impl Iterator<Item = &RawInfo> {
        let segments = self.wals.iter().flat_map(|(_, wal)| wal).map(|(_, segment)| segment);
        std::iter::once(&self.snapshot).chain(segments)
    }

    /// When the last of them was stored.
    pub(in crate::restore) fn last(&self) -> Timestamp {
        self.objects().map(|object| object.timestamp).max().unwrap_or(self.snapshot.timestamp)
    }

    /// What restoring it would do.
    pub(in crate::restore) fn forecast(&self) -> Forecast {
        Forecast {
            txid: None,
            generation: Some(self.generation.clone()),
            timestamp: self.last(),
            pages: None,
            bytes: None,
            files: self.objects().count(),
            download: self.objects().map(|object| object.size).sum(),
        }
    }

    /// Checks that the WAL files follow one another and begin at their beginning. That the end of one is
    /// missing cannot be seen: nothing tells how long it was.
    ///
    /// # Errors
    /// `Corrupt`.
    pub(super) fn check(&self) -> Result<()> {
        for (expected, (index, wal)) in (self.index..).zip(&self.wals) {
            if *index != expected || wal.first().is_none_or(|(offset, _)| *offset != 0) {
                return Err(broken(format!(
                    "{}/{}/wal/{expected:08x}_00000000.wal.lz4 is missing; an earlier time can be restored",
                    super::FOLDER,
                    self.generation
                )));
            }
        }
        Ok(())
    }
}
