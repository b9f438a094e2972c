//! A page of a state, wherever it is by now.

use std::sync::{Arc, PoisonError};

use super::core::Core;
use super::files::gone;
use super::map::PageMap;
use super::read_ahead::ReadAhead;
use super::snapshot::Snapshot;
use crate::error::{ErrorKind, Result};
use crate::page::Pgno;
use crate::runtime;

impl Core {
    /// Reads page `pgno` of `snapshot`. `buf` has the size of a page.
    ///
    /// # Errors
    /// Those of the store; `Corrupt`; `NotFound` if the replica no longer holds that state.
    pub fn page(
        self: &Arc<Self>,
        snapshot: &Arc<Snapshot>,
        pgno: Pgno,
        ahead: &mut ReadAhead,
        buf: &mut [u8],
    ) -> Result<()> {
        let map = snapshot.map();
        if snapshot.read_preserved(pgno, buf) {
            return Ok(());
        }
        match self.fetcher.page(&map, snapshot.page_size, pgno, ahead, buf) {
            Err(e) if e.kind() == ErrorKind::NotFound => {
                self.page_that_moved(snapshot, &map, pgno, ahead, buf)
            }
            Err(e) if e.kind() == ErrorKind::Corrupt && self.was_replaced(&map, pgno, ahead)? => {
                self.page_that_moved(snapshot, &map, pgno, ahead, buf)
            }
            done => done,
        }
    }

    /// Whether the file in which `map` has page `pgno` is no longer there as it was: what it holds now
    /// is not damaged, it is another file.
    #[cold]
    fn was_replaced(&self, map: &PageMap, pgno: Pgno, ahead: &ReadAhead) -> Result<bool> {
        let Some((_, file)) = map.get(pgno) else { return Ok(false) };
        let (files, file) = (self.files.clone(), file.clone());
        runtime::wait_for(|| ahead.is_interrupted(), async move {
            let id = file.info.id;
            Ok(!files.source.list(id.level, id.name.min()).await?.contains(&file.info))
        })
    }

    /// Reads a page whose file, of `map`, is gone.
    #[cold]
    fn page_that_moved(
        self: &Arc<Self>,
        snapshot: &Arc<Snapshot>,
        map: &Arc<PageMap>,
        pgno: Pgno,
        ahead: &mut ReadAhead,
        buf: &mut [u8],
    ) -> Result<()> {
        let relocated = self.relocate(snapshot, map, ahead);
        if let Ok(()) = relocated {
            match self.fetcher.page(&snapshot.map(), snapshot.page_size, pgno, ahead, buf) {
                Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::Corrupt) => {}
                done => return done,
            }
        }
        // What the latest state still has of this one is found with it.
        let core = self.clone();
        let polled =
            runtime::wait_for(|| ahead.is_interrupted(), async move { core.poll_suspiciously().await });
        let map = snapshot.map();
        if snapshot.read_preserved(pgno, buf) {
            return Ok(());
        }
        match self.fetcher.page(&map, snapshot.page_size, pgno, ahead, buf) {
            Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::Corrupt) => {
                relocated?;
                polled?;
                Err(gone(snapshot, &e))
            }
            done => done,
        }
    }

    /// Finds out where the pages of `snapshot` are now, unless somebody else has since `map` was read.
    fn relocate(&self, snapshot: &Arc<Snapshot>, map: &Arc<PageMap>, ahead: &ReadAhead) -> Result<()> {
        let _alone = snapshot.moving.lock().unwrap_or_else(PoisonError::into_inner);
        if !Arc::ptr_eq(&snapshot.map(), map) {
            return Ok(());
        }
        let (files, snapshot) = (self.files.clone(), snapshot.clone());
        runtime::wait_for(|| ahead.is_interrupted(), async move { files.relocate(&snapshot).await })
    }
}
