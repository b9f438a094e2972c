//! Packs that were asked for, and that come or do not.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::{LARGEST, Pack, PackedIndex};
use crate::error::ErrorKind;
use crate::ltx::{FrameCodec, IndexEntry};
use crate::page::Pgno;
use crate::replica::source::Source;
use crate::store::{ByteRange, FileInfo, may_have_pack};

/// What the packs of one replica may take in memory.
const MEMORY: usize = 2 * LARGEST;
/// How long a pack is waited for once all else is there. It is used whenever it comes.
const PATIENCE: Duration = Duration::from_secs(1);

/// The packs of one replica.
#[derive(Debug)]
pub(in crate::replica) struct Packs {
    is_on: bool,
    /// None is asked for of a file of up to this many bytes.
    least: u64,
    memory: Arc<AtomicUsize>,
}

/// Where a pack will be.
type Slot = Arc<OnceLock<Held>>;

/// A pack, and the memory that it takes.
#[derive(Debug)]
struct Held {
    pack: Pack,
    memory: Arc<AtomicUsize>,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.memory.fetch_sub(self.pack.memory(), Ordering::Relaxed);
    }
}

impl Held {
    /// `None` if there is no memory for it.
    fn new(pack: Pack, memory: &Arc<AtomicUsize>) -> Option<Self> {
        let add = |used: usize| used.checked_add(pack.memory()).filter(|sum| *sum <= MEMORY);
        memory.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add).ok()?;
        Some(Self { pack, memory: Arc::clone(memory) })
    }
}

impl Packs {
    /// None are asked for unless `is_on`, nor of a file of up to `least` bytes.
    pub(in crate::replica) fn new(is_on: bool, least: u64) -> Self {
        Self { is_on, least, memory: Arc::default() }
    }

    /// Asks for the pack of `file`, if that may have one.
    pub(in crate::replica) fn ask(&self, source: &Source, file: &FileInfo) -> Option<Asked> {
        if !self.is_on || file.size <= self.least || !may_have_pack(file.id) {
            return None;
        }
        let (slot, memory, file) = (Slot::default(), Arc::clone(&self.memory), file.clone());
        let front = ByteRange::Prefix { len: LARGEST as u64 };
        let (to, answer) = (Arc::clone(&slot), source.pack(file.id, front));
        let (codec, known) = oneshot::channel::<FrameCodec>();
        let task = tokio::spawn(async move {
            let answer = answer.await;
            // Nobody reads a file that did not open.
            let Ok(codec) = known.await else { return };
            match answer.and_then(|bytes| Pack::parse(&file, bytes, &codec)) {
                Ok(pack) => {
                    if let Some(held) = Held::new(pack, &memory) {
                        let _ = to.set(held);
                    }
                }
                Err(e) if e.kind() == ErrorKind::NotFound => {}
                Err(e) => tracing::debug!("{}: {e}", file.id),
            }
        });
        Some(Asked { slot, task, codec })
    }
}

/// A pack that was asked for.
#[derive(Debug)]
pub(in crate::replica) struct Asked {
    slot: Slot,
    task: JoinHandle<()>,
    /// Where the codec of the file is awaited.
    codec: oneshot::Sender<FrameCodec>,
}

impl Asked {
    /// The pack of the file, which has this `codec`, and whose trailer has `checksum`, or none: it is waited for as long as its
    /// request takes.
    pub(in crate::replica) async fn whenever_it_comes(self, checksum: u64, codec: &FrameCodec) -> FilePack {
        // A task that is over has no use for it.
        let _ = self.codec.send(codec.clone());
        let _ = self.task.await;
        FilePack { slot: self.slot, checksum }
    }

    /// The pack of the file, which has this `codec`, and whose trailer has `checksum`: there by now, or to come, or none.
    pub(in crate::replica) async fn of(self, checksum: u64, codec: &FrameCodec) -> FilePack {
        // As above.
        let _ = self.codec.send(codec.clone());
        // Who reads meanwhile does without.
        let _ = timeout(PATIENCE, self.task).await;
        FilePack { slot: self.slot, checksum }
    }
}

/// The pages of a file that a pack has, once it has come.
#[derive(Clone, Debug)]
pub(in crate::replica) struct FilePack {
    slot: Slot,
    /// What the trailer of the file has.
    checksum: u64,
}

impl FilePack {
    /// The frame of the page that the file's page index has as `entry`, if it is here.
    pub(in crate::replica) fn frame(&self, entry: IndexEntry) -> Option<&[u8]> {
        self.pack()?.frame(entry)
    }

    /// What the file's page index has of page `pgno`, if that page is here.
    pub(in crate::replica) fn entry(&self, pgno: Pgno) -> Option<IndexEntry> {
        self.pack()?.entry(pgno)
    }

    /// Shows each page that is here to `visit`, with its frame.
    pub(in crate::replica) fn each(&self, visit: impl FnMut((IndexEntry, &[u8]))) {
        self.pack().into_iter().flat_map(Pack::frames).for_each(visit);
    }

    /// The page index of the file, if it is here; its blocks are fetched with [`Source::pack`].
    pub(in crate::replica) fn index(&self) -> Option<&PackedIndex> {
        self.pack()?.index()
    }

    /// The pack, if it is one of this very file.
    fn pack(&self) -> Option<&Pack> {
        self.slot.get().map(|held| &held.pack).filter(|pack| pack.checksum() == self.checksum)
    }
}

#[cfg(test)]
impl FilePack {
    /// That of `file`, as it is when `bytes`, its pack, are more than come with its front.
    pub(in crate::replica) fn with_front_of(
        file: &FileInfo,
        bytes: bytes::Bytes,
        codec: &FrameCodec,
    ) -> Self {
        let pack = Pack::parse(file, bytes, codec).unwrap().without_blocks_that_came();
        let (slot, checksum) = (Slot::default(), pack.checksum());
        slot.set(Held { pack, memory: Arc::default() }).unwrap();
        Self { slot, checksum }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replica::pack::tests::any_pack;

    #[test]
    fn what_packs_take_in_memory_is_bounded_and_given_back() {
        let memory = Arc::new(AtomicUsize::new(MEMORY - 2 * any_pack().memory()));
        let two = [0, 1].map(|_| Held::new(any_pack(), &memory).unwrap());
        assert!(Held::new(any_pack(), &memory).is_none());
        drop(two);
        assert!(Held::new(any_pack(), &memory).is_some());
    }
}
