//! Pages that the trees say will be wanted: those of rows that an index names, and interior pages when
//! many are missing.

use std::sync::Arc;

use super::{Fetcher, Shared, State};
use crate::error::Result;
use crate::page::Pgno;
use crate::replica::btree;
use crate::replica::index_prefetch::distinct;
use crate::replica::map::{Frame, ReplicaFile};
use crate::replica::read_ahead::ReadAhead;
use crate::replica::trees::Home;
use crate::runtime;

/// From the second interior page on that is missing somewhere below one page, those beside it come too.
const SCATTERED: u32 = 2;
/// As many of them at once,
const MOST: usize = 128;
/// and as many bytes.
const MOST_BYTES: u64 = 512 * 1024;
/// What is below a page with more children than this is not looked at before it is wanted.
const FEW: usize = 64;

impl Fetcher {
    /// Sends the requests for the rows that an index names, if look-ups follow it.
    pub(super) fn look_further(
        &self,
        state: &State,
        pgno: Pgno,
        home: &Home,
        ahead: &mut ReadAhead,
    ) -> Result<()> {
        let is_there = |rowid| home.sibling_with(rowid) == Some(pgno);
        let rows = if home.sibling_with(0).is_some() {
            ahead.lookups.rows_after(is_there, |key| self.0.files.cache.get(key))
        } else {
            Vec::new()
        };
        if !rows.is_empty() {
            let (root, depth) = self.0.trees.root_of(pgno);
            runtime::handle()?.spawn(self.0.clone().look_up(state.clone(), root, depth, rows));
        }
        Ok(())
    }

    /// Takes in the interior pages below `pgno` that are on this machine, so that a walk can go on below them.
    pub(super) fn learn_below(&self, state: &State, pgno: Pgno) {
        let Some(node) = self.0.trees.children(pgno).filter(|node| node.children.len() <= FEW) else {
            return;
        };
        let mut page = vec![0; state.page_size.bytes()];
        for &child in &node.children {
            let Some((frame, file)) = state.map.get(child) else { return };
            if self.0.read_near(child, frame, file, &mut page) {
                if !btree::looks_interior(&page) {
                    return;
                }
                self.0.trees.learn(child, &page, state.map.commit());
            }
        }
    }

    /// Sends the requests for interior pages beside `pgno`, which is one and was missing, once look-ups turn out to be
    /// all over the tree: the nearest ones that are not here, in one round. Below a page that has leaves none are
    /// missing, so nothing comes.
    pub(super) fn complete_level(&self, state: &State, pgno: Pgno, ahead: &mut ReadAhead) {
        let Some(home) = self.0.trees.home(pgno) else { return };
        if ahead.interior_was_missing(&home) < SCATTERED {
            return;
        }
        let mut bytes = 0;
        let away = home.outwards().filter_map(|page| self.0.size_away(state, page).map(|size| (page, size)));
        let fits = |(page, size)| {
            bytes += size;
            (bytes <= MOST_BYTES).then_some(page)
        };
        let pages: Vec<Pgno> = away.take(MOST).map_while(fits).collect();
        for span in self.0.spans(state, &pages) {
            self.0.early(state, span);
        }
    }
}

impl Shared {
    /// The size of the frame of `pgno`, if it is neither in memory nor on its way.
    fn size_away(&self, state: &State, pgno: Pgno) -> Option<u64> {
        let (frame, file) = state.map.get(pgno)?;
        let is_near = file.is_held(pgno, frame)
            || self.files.cache.contains(frame.into())
            || self.flights.find(frame.into()).is_some();
        (!is_near).then_some(frame.size.into())
    }

    /// Reads a page that is in the cache or on this machine.
    fn read_near(&self, pgno: Pgno, frame: Frame, file: &ReplicaFile, buf: &mut [u8]) -> bool {
        let cached = self.files.cache.get(frame.into());
        cached.as_ref().inspect(|page| buf.copy_from_slice(page)).is_some()
            || self.read_here(pgno, frame, file, buf)
    }

    /// Brings the pages on the ways from `root` to `rows`, of which the leaves are `depth` levels below
    /// it.
    async fn look_up(self: Arc<Self>, state: State, root: Pgno, depth: usize, rows: Vec<i64>) {
        for _ in 0..depth {
            let ways: Vec<(Pgno, usize)> = rows.iter().map(|row| self.trees.way_to(root, *row)).collect();
            let leaves = distinct(ways.iter().filter(|(_, d)| *d >= depth).map(|(page, _)| *page));
            for span in self.spans(&state, &leaves) {
                self.early(&state, span);
            }
            let interior = distinct(ways.iter().filter(|(_, d)| *d < depth).map(|(page, _)| *page));
            if interior.is_empty() || self.flights.is_closed() {
                return;
            }
            self.bring_interior(&state, &interior).await;
        }
    }

    /// Brings interior pages and waits until they are known.
    async fn bring_interior(self: &Arc<Self>, state: &State, pages: &[Pgno]) {
        for &pgno in pages {
            let page = state.map.frame(pgno).and_then(|frame| self.files.cache.get(frame.into()));
            if let Some(page) = page {
                self.trees.learn(pgno, &page, state.map.commit());
            }
        }
        let requests: Vec<_> =
            self.spans(state, pages).into_iter().filter_map(|span| self.early(state, span)).collect();
        for request in requests {
            // One that failed is tried again by who really wants the page.
            let _ = request.await;
        }
    }
}
