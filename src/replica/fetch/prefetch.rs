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

/// After so many interior pages below one page were missing, the others below it come too.
const SCATTERED: u32 = 4;
/// Unless there are more than this.
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

    /// Sends the requests for all interior pages beside `pgno` once some of them were missing one after
    /// another: look-ups all over a table need them all.
    pub(super) fn complete_level(&self, state: &State, pgno: Pgno, ahead: &mut ReadAhead) {
        let Some(home) = self.0.trees.home(pgno) else { return };
        if ahead.interior_was_missing(&home) == SCATTERED && home.children().len() <= FEW {
            for span in self.0.spans(state, home.children()) {
                self.0.early(state, span);
            }
        }
    }
}

impl Shared {
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
