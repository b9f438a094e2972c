//! Which pages are in the local file, and what was checked of them.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::bits::Bits;
use super::parts::{Part, Parts};
use super::record::{Origin, Pages, Record};
use crate::page::{PageCount, Pgno};
use crate::replica::map::{Frame, PageMap, ReplicaFile};
use crate::replica::snapshot::Snapshot;
use crate::replica::verdict::Verdict;

/// The pages that are in the file.
///
/// A page is *here*, or missing. If it is here, it may be *unproven*: not all of its LTX file was read yet, so that
/// the file's checksum was not compared. If it is missing, it may be *lost*: it was here and proven, and its own
/// checksum is still there to compare it with when it comes again.
///
/// Readers see a page only while it is here, and hold the lock while they read it. Who writes pages takes them away
/// under the lock, writes without it, and adds them under it: a page is never read while it is written.
#[derive(Debug)]
pub(super) struct Held {
    /// Where the replica has the versions that the file has.
    map: Arc<PageMap>,
    /// The last transaction that they are of.
    txid: u64,
    here: Bits,
    unproven: Bits,
    lost: Bits,
    /// The pages of `map` that are not here.
    missing: u64,
    /// What was read of files that have unproven pages, by number.
    parts: HashMap<u32, Parts>,
}

/// What is to be done so that all pages are here and proven.
#[derive(Debug)]
pub(super) enum Work {
    /// To read these files whole.
    Check(Vec<Arc<ReplicaFile>>),
    /// To fetch the pages of a map that are not among these.
    Fetch(Arc<PageMap>, Bits),
    Nothing,
}

impl Held {
    /// What `record` says of a file that has `whole` pages, for the state `snapshot`, whose map is `map`.
    pub(super) fn begin(
        record: Option<(Record, Pages)>,
        whole: u64,
        snapshot: &Snapshot,
        map: Arc<PageMap>,
    ) -> Self {
        let (mut here, mut unproven, mut lost) = (Bits::default(), Bits::default(), Bits::default());
        let mut parts = HashMap::new();
        let mut txid = 0;
        if let Some((record, pages)) = record {
            (here, unproven, lost, txid) = (pages.here, pages.unproven, pages.lost, record.txid);
            let origin = |file: &ReplicaFile| Origin::from(&file.info);
            let file = |from: Origin| map.files().find(|file| origin(file) == from).map(|file| file.number);
            parts = record.parts.into_iter().filter_map(|(from, read)| Some((file(from)?, read))).collect();
        }
        for bits in [&mut here, &mut unproven, &mut lost] {
            bits.resize(map.commit());
        }
        let mut missing = 0;
        for pgno in pages(&map) {
            let Some((frame, file)) = map.get(pgno) else { continue };
            // Its file ends no later than the record, so that the page did not change since.
            let same = file.info.id.name.max().get() <= txid;
            let proven = !unproven.has(pgno);
            let known = here.has(pgno) && same && (proven || parts.contains_key(&frame.file));
            if !same {
                lost.remove(pgno);
            } else if known && proven && pgno.index() as u64 >= whole {
                lost.add(pgno);
            }
            if !known || pgno.index() as u64 >= whole {
                here.remove(pgno);
                unproven.remove(pgno);
                missing += 1;
            }
        }
        Self { map, txid: snapshot.txid.get(), here, unproven, lost, missing, parts }
    }

    pub(super) fn map(&self) -> &Arc<PageMap> {
        &self.map
    }

    /// The last transaction that the pages are of.
    pub(super) fn txid(&self) -> u64 {
        self.txid
    }

    /// Which pages are here, for the record.
    pub(super) fn pages(&self) -> Pages {
        Pages { here: self.here.clone(), unproven: self.unproven.clone(), lost: self.lost.clone() }
    }

    /// The parts that were read of files with unproven pages, for the record.
    pub(super) fn parts(&self) -> Vec<(Origin, Parts)> {
        let of = |file: &Arc<ReplicaFile>| {
            let parts = self.parts.get(&file.number)?;
            Some((Origin::from(&file.info), parts.clone()))
        };
        self.map.files().filter_map(of).collect()
    }

    /// The parts that were read of `file`.
    pub(super) fn parts_of(&self, file: &ReplicaFile) -> Parts {
        self.parts.get(&file.number).cloned().unwrap_or_default()
    }

    /// Whether page `pgno` is here, in the version that the replica has at `frame`.
    pub(super) fn has(&self, pgno: Pgno, frame: Frame) -> bool {
        self.here.has(pgno) && self.map.frame(pgno) == Some(frame)
    }

    /// Whether page `pgno` is missing, in the version that the replica has at `frame`.
    pub(super) fn wants(&self, pgno: Pgno, frame: Frame) -> bool {
        !self.here.has(pgno) && self.map.frame(pgno) == Some(frame)
    }

    /// Whether the checksum of a missing page is there.
    pub(super) fn is_lost(&self, pgno: Pgno) -> bool {
        self.lost.has(pgno)
    }

    /// The checksum of a missing page is not to be believed any more.
    pub(super) fn forget_sum(&mut self, pgno: Pgno) {
        self.lost.remove(pgno);
    }

    /// The share of the pages that are here, of a thousand; all only if none is missing and all are proven.
    pub(super) fn per_mille(&self) -> u64 {
        let commit = u64::from(self.map.commit().get());
        let here = commit.saturating_sub(self.missing).saturating_mul(1000);
        let share = here.checked_div(commit).unwrap_or(1000);
        if self.unproven.is_empty() { share } else { share.min(999) }
    }

    /// What is to be done, but for the files that `waits` says are not to be read now.
    pub(super) fn work(&self, waits: impl Fn(u32) -> bool) -> Work {
        if self.missing == 0 && self.unproven.is_empty() {
            return Work::Nothing;
        }
        let (mut check, mut skip, mut fetched) = (BTreeMap::new(), self.here.clone(), false);
        for pgno in pages(&self.map) {
            let Some((frame, file)) = self.map.get(pgno) else { continue };
            let here = self.here.has(pgno);
            let is_proven = match here {
                true => !self.unproven.has(pgno),
                false => self.lost.has(pgno) || is_kept_whole(file),
            };
            if is_proven {
                fetched |= !here;
            } else if waits(frame.file) {
                skip.add(pgno);
            } else {
                check.entry(frame.file).or_insert_with(|| file.clone());
            }
        }
        match (check.is_empty(), fetched) {
            (false, _) => Work::Check(check.into_values().collect()),
            (true, true) => Work::Fetch(self.map.clone(), skip),
            (true, false) => Work::Nothing,
        }
    }

    /// Shows a page that was missing.
    pub(super) fn add(&mut self, pgno: Pgno) {
        self.here.add(pgno);
        self.lost.remove(pgno);
        self.missing -= 1;
    }

    /// Shows those of `pages` that are still missing, and notes that `part` of `file` was read, which has them.
    pub(super) fn add_part(&mut self, file: &ReplicaFile, pages: &[(Pgno, Frame)], part: Part) {
        if !self.map.files().any(|known| known.number == file.number) {
            return;
        }
        for &(pgno, frame) in pages {
            if self.wants(pgno, frame) {
                self.add(pgno);
                self.unproven.add(pgno);
            }
        }
        self.parts.entry(file.number).or_default().add(part);
    }

    /// A page is not here as it was written. What was proven of it stays known by its checksum.
    pub(super) fn lose(&mut self, pgno: Pgno) {
        let proven = !self.unproven.has(pgno);
        self.take_away(pgno);
        if proven {
            self.lost.add(pgno);
        }
    }

    fn take_away(&mut self, pgno: Pgno) {
        self.here.remove(pgno);
        self.unproven.remove(pgno);
        self.missing += 1;
    }

    /// Ends the reading of `file`: the checksum that its parts make, if they are all there. Its pages stay here
    /// only if that is `checksum`.
    pub(super) fn judge(&mut self, file: &ReplicaFile, checksum: u64) -> Option<u64> {
        let found = self.parts.remove(&file.number).and_then(|parts| parts.of_file(file.info.size));
        let map = self.map.clone();
        let is_of = |pgno: &Pgno| map.frame(*pgno).is_some_and(|frame| frame.file == file.number);
        for pgno in pages(&map).filter(is_of) {
            if !self.unproven.has(pgno) {
                continue;
            }
            if found == Some(checksum) {
                self.unproven.remove(pgno);
            } else {
                self.take_away(pgno);
            }
        }
        found
    }

    /// The versions that the file has are now where `map` says. Unproven ones are fetched from there.
    pub(super) fn moved(&mut self, map: PageMap) {
        let old = std::mem::replace(&mut self.map, Arc::new(map));
        if !self.unproven.is_empty() {
            let moved: Vec<Pgno> =
                old.differences(&self.map).filter(|pgno| self.unproven.has(*pgno)).collect();
            moved.into_iter().for_each(|pgno| self.take_away(pgno));
        }
        self.forget_parts();
    }

    /// Goes on to `next`, in which the pages of `changed` are others.
    pub(super) fn advance(&mut self, next: &Snapshot, after: Arc<PageMap>, changed: &[Pgno]) {
        for &pgno in changed {
            self.missing -= u64::from(self.map.frame(pgno).is_some() && !self.here.has(pgno));
            self.missing += u64::from(after.frame(pgno).is_some());
            for bits in [&mut self.here, &mut self.unproven, &mut self.lost] {
                bits.remove(pgno);
            }
        }
        for bits in [&mut self.here, &mut self.unproven, &mut self.lost] {
            bits.resize(after.commit());
        }
        self.map = after;
        self.txid = next.txid.get();
        self.forget_parts();
    }

    /// Forgets what was read of files that have no pages any more.
    fn forget_parts(&mut self) {
        let map = &self.map;
        self.parts.retain(|number, _| map.files().any(|file| file.number == *number));
    }
}

/// Whether a file passed its checksum and all of it was kept, so that its pages need no other check.
pub(super) fn is_kept_whole(file: &ReplicaFile) -> bool {
    file.verdict.is(Verdict::Whole) && file.kept.get().is_some()
}

fn pages(map: &PageMap) -> impl Iterator<Item = Pgno> + use<> {
    let commit: PageCount = map.commit();
    (1..=commit.get()).filter_map(Pgno::new)
}
