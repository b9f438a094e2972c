//! Opening a replica: its first state, and the tasks that belong to it.

use std::sync::Arc;

use super::core::Core;
use super::disk::Disk;
use super::files::Files;
use super::hydration::Hydration;
use super::options::{HydrationOptions, Options};
use super::plan::RestorePoint;
use super::poller::Poller;
use super::source::Source;
use super::{follow, hydrate, poll};
use crate::error::Result;
use crate::runtime;
use crate::store::Replica;

impl Core {
    /// Opens the replica in `store`, for nobody else to share. [`super::open`] shares.
    ///
    /// # Errors
    /// Those of the store; `NotFound` if the replica stays empty; `Corrupt`; those of the file system
    /// if the disk cache cannot be used.
    pub fn with_store(store: Arc<Replica>, options: &Options) -> Result<Arc<Self>> {
        let place = store.url();
        Self::at_place(store, &place, options, RestorePoint::Latest)
    }

    /// The same for a replica whose URL does not say all that tells it from others; `place` does. Where the latest state
    /// cannot be read, the one at `point` is enough.
    pub(super) fn at_place(
        store: Arc<Replica>,
        place: &str,
        options: &Options,
        point: RestorePoint,
    ) -> Result<Arc<Self>> {
        let disk = options.disk.as_ref().map(|disk| Disk::open(disk, place)).transpose()?;
        let keeps_sealed = options.hydration.as_ref().is_some_and(|hydration| !hydration.plain);
        let files = Files::new(Source::new(store), options, disk);
        let files = Arc::new(if keeps_sealed { files.without_sealed() } else { files });
        let opening = (files.clone(), options.clone());
        let (snapshot, follow) =
            runtime::block_on(async move { follow::open(&opening.0, &opening.1, point).await })?;
        let hydrate = |hydration: &HydrationOptions| Hydration::open(&hydration.path, &files, &snapshot);
        let hydration = options.hydration.as_ref().map(hydrate).transpose()?;
        let poller = Arc::new(Poller::new(options));
        let core = Arc::new(Self::new(files, snapshot, follow, Arc::clone(&poller), hydration));
        let polling = runtime::handle()?.spawn(poll::run(Arc::downgrade(&core), poller));
        core.ends_with(polling.abort_handle());
        if core.lacks_latest() {
            // It was read for somebody who chooses it.
            core.pasts.add(&core.snapshot());
        }
        hydrate::start(&core)?;
        Ok(core)
    }
}
