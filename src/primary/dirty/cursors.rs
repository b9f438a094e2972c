//! The cursors of all shippers of a database: whoever restarts the WAL is told of their positions, and records are deleted
//! behind the slowest of them.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::primary::dirty::{Cursor, Journal, Mark, Position, Positions};

/// The cursors of the shippers, by number.
#[derive(Debug)]
pub(in crate::primary) struct Cursors {
    positions: Positions,
    journal: Arc<Journal>,
    slots: Mutex<Vec<Slot>>,
}

/// The part of one shipper.
#[derive(Clone, Debug, Default)]
struct Slot {
    /// Its cursors in the WAL: that of its state, and that in memory.
    positions: Vec<Position>,
    needs: Needs,
}

/// The records that a shipper needs.
#[derive(Clone, Debug, Default)]
enum Needs {
    /// All of them: its cursor is being chosen.
    #[default]
    All,
    /// Those after `from`, in front of which the journal had `before`.
    After { from: Cursor, before: Mark },
    /// None: it has no cursor.
    None,
}

impl Cursors {
    /// The cursors of the `shippers` (a count) of the database whose local state is in `folder`. Until each of them told its
    /// own, no record is deleted.
    pub(in crate::primary) fn new(folder: &Path, journal: Arc<Journal>, shippers: usize) -> Self {
        let slots = Mutex::new(vec![Slot::default(); shippers]);
        Self { positions: Positions::new(folder), journal, slots }
    }

    fn slots(&self) -> MutexGuard<'_, Vec<Slot>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes the positions of all shippers, of which those of `shipper` are `positions` now. To be called before a view
    /// is released that is to become a cursor.
    pub(in crate::primary) fn note_positions(&self, shipper: usize, positions: Vec<Position>) {
        let mut slots = self.slots();
        slots[shipper].positions = positions;
        let all: Vec<Position> = slots.iter().flat_map(|slot| slot.positions.iter().copied()).collect();
        // Without them a restart of the WAL costs a comparison.
        if let Err(e) = self.positions.write(&all) {
            tracing::debug!("{e}");
        }
    }

    /// A cursor of `shipper` is being chosen: it is of a view that is pinned from now on.
    pub(in crate::primary) fn chooses(&self, shipper: usize) {
        self.slots()[shipper].needs = Needs::All;
    }

    /// `shipper` has no cursor: what it lacks is found by a comparison.
    pub(in crate::primary) fn gives_up(&self, shipper: usize) {
        self.slots()[shipper].needs = Needs::None;
        self.note_positions(shipper, Vec::new());
    }

    /// The earliest cursor from which `shipper`, or a process that continues from its state, may look for what follows is `from`;
    /// `before` was taken before the view was pinned that this is the end of.
    pub(in crate::primary) fn needs_after(&self, shipper: usize, from: Cursor, before: Mark) {
        self.slots()[shipper].needs = Needs::After { from, before };
    }

    /// Deletes the records that no shipper needs.
    pub(in crate::primary) fn delete_unneeded(&self) {
        let slots = self.slots();
        let mut cursors = Vec::new();
        let mut mark: Option<Mark> = None;
        for slot in slots.iter() {
            match &slot.needs {
                Needs::All => return,
                Needs::None => {}
                Needs::After { from, before } => {
                    cursors.push(*from);
                    mark = Some(mark.map_or_else(|| before.clone(), |mark| mark.and(before)));
                }
            }
        }
        if let Some(mark) = mark {
            self.journal.delete_behind(&mark, &cursors);
        }
    }
}
