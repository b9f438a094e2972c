//! Pages that the trees say will be wanted: those of keys that will be looked up, and interior pages when many are missing.

use std::sync::Arc;

use super::{Fetcher, Shared, State};
use crate::error::Result;
use crate::page::Pgno;
use crate::replica::btree;
use crate::replica::cache::FrameKey;
use crate::replica::index_prefetch::{Batch, Known, Lookups, Miss, distinct};
use crate::replica::map::{Frame, ReplicaFile};
use crate::replica::read_ahead::ReadAhead;
use crate::replica::record::{self, Integers};
use crate::replica::trees::{Home, Tree};
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
    /// Sends the requests for what will likely be looked up after `pgno`, which is not here.
    pub(super) fn look_further(
        &self,
        state: &State,
        pgno: Pgno,
        home: &Home,
        lookups: &mut Lookups,
    ) -> Result<()> {
        let tree = self.0.trees.tree_of(pgno);
        let miss = Miss { tree, is_table: home.is_in_table(), may_have: &|key| home.may_have(key) };
        if let Some(batch) = lookups.missed(&miss, &Near { shared: &self.0, state }) {
            runtime::handle()?.spawn(self.0.clone().look_up(state.clone(), batch));
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

    /// Brings what a batch names.
    async fn look_up(self: Arc<Self>, state: State, batch: Batch) {
        let leaves = self.bring_ways(&state, batch.tree, &batch.keys).await;
        let Some(join) = batch.then else { return };
        self.bring(&state, &leaves).await;
        let near = Near { shared: &self, state: &state };
        let values =
            batch.keys.iter().filter_map(|rowid| near.row(batch.tree, *rowid)?.get(join.column).copied()?);
        let values: Vec<i64> = values.collect();
        self.bring_ways(&state, join.tree, &values).await;
    }

    /// Brings the pages on the ways to `keys`, and waits for all but those of the level of `tree`, which are answered.
    async fn bring_ways(self: &Arc<Self>, state: &State, tree: Tree, keys: &[i64]) -> Vec<Pgno> {
        let mut leaves = Vec::new();
        for _ in 0..tree.depth {
            let ways: Vec<(Pgno, usize)> = keys.iter().map(|key| self.trees.way_to(tree, *key)).collect();
            leaves = distinct(ways.iter().filter(|(_, level)| *level >= tree.depth).map(|(page, _)| *page));
            self.send_for(state, &leaves).await;
            let interior =
                distinct(ways.iter().filter(|(_, level)| *level < tree.depth).map(|(page, _)| *page));
            if interior.is_empty() || self.flights.is_closed() {
                break;
            }
            self.bring(state, &interior).await;
        }
        leaves
    }

    /// Sends the requests for pages that are not here, once it is known where they are.
    async fn send_for(self: &Arc<Self>, state: &State, pages: &[Pgno]) {
        if let Some((blocks, numbers)) = state.map.unknown(pages) {
            blocks.bring_all(&self.files.source, &numbers).await;
        }
        for span in self.spans(state, pages) {
            self.early(state, span);
        }
    }

    /// Brings pages and waits until they are here, or cannot be had.
    async fn bring(self: &Arc<Self>, state: &State, pages: &[Pgno]) {
        self.send_for(state, pages).await;
        for &pgno in pages {
            let Some(frame) = state.map.frame(pgno) else { continue };
            if let Some(flight) = self.flights.find(frame.into()) {
                // One that failed is tried again by who really wants the page.
                flight.end().await;
            }
            if let Some(page) = self.files.cache.get(frame.into()) {
                self.trees.learn(pgno, &page, state.map.commit());
            }
        }
    }
}

/// The pages that are in the cache.
struct Near<'a> {
    shared: &'a Shared,
    state: &'a State,
}

impl Known for Near<'_> {
    fn leaf(&self, frame: FrameKey) -> Option<Arc<[u8]>> {
        self.shared.files.cache.get(frame)
    }

    fn row(&self, table: Tree, rowid: i64) -> Option<Integers> {
        let (leaf, level) = self.shared.trees.way_to(table, rowid);
        let frame = self.state.map.frame(leaf).filter(|_| level == table.depth)?;
        record::row(&self.shared.files.cache.get(frame.into())?, rowid)
    }
}
