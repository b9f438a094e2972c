//! The full copy that all later files build on: the first file of a replica, and the first after a
//! gap. The application goes on writing meanwhile.

use std::io::Write;
use std::sync::Arc;

use crate::error::Result;
use crate::ltx::{FileId, Header, Txid};
use crate::page::{PageCount, PageSize, Pgno};
use crate::primary::hooks::PinnedView;
use crate::primary::seals::{Seals, Subject};
use crate::primary::shipper::Shipper;
use crate::primary::shipper::copying::{Copying, Counted};
use crate::primary::shipper::sums::{self, Base, NewSums, Sums};
use crate::primary::streaming_upload::{self, PartWriter};
use crate::replica::{PackBuilder, Packed};
use crate::store::{PartLog, PutOptions, Upload};

/// How much of the database file is read at once.
const READ_BYTES: usize = 256 * 1024;

/// The pages of a view, in order.
pub(in crate::primary) struct ViewPages(Box<dyn PinnedView>);

impl ViewPages {
    pub(in crate::primary) const fn new(view: Box<dyn PinnedView>) -> Self {
        Self(view)
    }

    /// Encodes every page but the lock page, and with a base only those that differ from it. With `pack`, makes a pack of them
    /// if the file gets one. Beside that, returns the size of the file.
    ///
    /// # Errors
    /// `Io` of the database, and those of `out`.
    pub(in crate::primary) fn encode<W: Write>(
        &mut self,
        out: W,
        header: Header,
        sums: &mut Compared,
        pack: bool,
        (copying, seals): (&Copying, &Seals),
    ) -> Result<(W, (u64, Option<Packed>))> {
        let id = FileId::single(header.max);
        let mut encoder = seals.encoder(out, header, Subject::Replica(id), seals.keep_of(id.level))?;
        let mut pack = if pack { PackBuilder::new(id, &encoder)? } else { None };
        self.each(|pgno, page| {
            let Some(page) = page else {
                sums.skip();
                return Ok(());
            };
            if sums.differs(pgno, page) {
                encoder.page(pgno, page)?;
                if let (Some(pack), Some((entry, frame))) = (&mut pack, encoder.last_frame()) {
                    pack.page(page, entry, frame);
                }
            }
            copying.encodes(pgno);
            Ok(())
        })?;
        let (out, summary) = encoder.finish()?;
        Ok((out, (summary.size, pack.and_then(|pack| pack.finish(&summary)))))
    }

    /// Whether any page differs from `base`.
    ///
    /// # Errors
    /// `Io` of the database.
    pub(in crate::primary) fn differ_from(&mut self, mut base: Base) -> Result<bool> {
        let mut differing = false;
        self.each(|_, page| {
            let known = base.next();
            differing |= page.is_some_and(|page| known != Some(sums::sum_of(page)));
            Ok(())
        })?;
        Ok(differing || base.left() > 0)
    }

    /// Shows every page to `visit`, in order; the lock page without content.
    ///
    /// # Errors
    /// `Io` of the database, and those of `visit`.
    pub(in crate::primary) fn each(
        &mut self,
        mut visit: impl FnMut(Pgno, Option<&[u8]>) -> Result<()>,
    ) -> Result<()> {
        let (page_size, commit) = (self.page_size(), self.commit());
        let batch = READ_BYTES / page_size.bytes();
        let mut buf = vec![0; batch * page_size.bytes()];
        let mut next = 1u32;
        while next <= commit.get() {
            let pages = batch.min((commit.get() - next + 1) as usize);
            let buf = &mut buf[..pages * page_size.bytes()];
            let first = Pgno::new(next).expect("BUG: page numbers begin at 1");
            self.0.read_pages(first, buf)?;
            for (i, page) in buf.chunks_exact(page_size.bytes()).enumerate() {
                let pgno = Pgno::new(next + i as u32).expect("BUG: page numbers begin at 1");
                visit(pgno, (pgno != page_size.lock_page()).then_some(page))?;
            }
            next += pages as u32;
        }
        Ok(())
    }

    /// The size of the database in the view.
    pub(in crate::primary) fn commit(&self) -> PageCount {
        self.0.commit()
    }

    /// The page size.
    pub(in crate::primary) fn page_size(&self) -> PageSize {
        self.0.page_size()
    }
}

/// What the pages of a database are compared with, and their checksums for the next time.
pub(in crate::primary) struct Compared {
    base: Option<Base>,
    new: Option<NewSums>,
    /// How many pages differ.
    pub(in crate::primary) differing: u64,
}

impl Compared {
    /// With the replica as of `last`, if it is known what that holds.
    pub(in crate::primary) fn with(sums: &Sums, last: Option<Txid>, page_size: PageSize) -> Self {
        let base = last.and_then(|last| sums.base(last, page_size));
        Self { base, new: sums.begin(page_size), differing: 0 }
    }

    /// Whether only what differs is sent.
    pub(in crate::primary) fn has_base(&self) -> bool {
        self.base.is_some()
    }

    fn skip(&mut self) {
        if let Some(base) = &mut self.base {
            base.next();
        }
        if let Some(new) = &mut self.new {
            new.push(0);
        }
    }

    fn differs(&mut self, pgno: Pgno, page: &[u8]) -> bool {
        let sum = sums::sum_of(page);
        if let Some(new) = &mut self.new {
            new.push(sum);
        }
        // Page 1 goes always: every file has a page.
        let known = self.base.as_mut().and_then(Base::next);
        let differs = known != Some(sum) || pgno == Pgno::ONE;
        self.differing += u64::from(differs);
        differs
    }

    /// The database is in the replica as `txid`.
    pub(in crate::primary) fn adopt(self, txid: Txid) -> Result<()> {
        self.new.map_or(Ok(()), |new| new.finish()?.adopt(txid))
    }
}

/// What a copy came to.
pub(in crate::primary) struct Encoded {
    pub(in crate::primary) compared: Compared,
    /// What its pack holds, if it gets one.
    pub(in crate::primary) pack: Option<Packed>,
    /// Its size in bytes.
    pub(in crate::primary) size: u64,
}

/// Uploads the view, or what `sums` finds to differ. The upload is still to be completed, and its pack to be written, if it
/// gets one.
///
/// # Errors
/// Those of the view and of the store, where the next attempt finds what `log` has then.
pub(in crate::primary) async fn upload(
    shipper: &Shipper,
    id: FileId,
    options: PutOptions,
    mut pages: ViewPages,
    header: Header,
    mut sums: Compared,
    log: Option<Arc<PartLog>>,
) -> Result<(Box<dyn Upload>, Encoded)> {
    let (store, copying, seals) = (&shipper.store, Arc::clone(&shipper.copying), Arc::clone(&shipper.seals));
    copying.begins(pages.commit());
    let pack = shipper.options.pack;
    let encode = move |out: PartWriter| {
        let out = Counted { out, copying: Arc::clone(&copying) };
        let (Counted { out, .. }, (size, pack)) =
            pages.encode(out, header, &mut sums, pack, (&copying, &seals))?;
        Ok((out, Encoded { compared: sums, pack, size }))
    };
    let has = |bytes| shipper.copying.has(bytes);
    streaming_upload::resume(store, id, options, log, encode, has).await
}
