//! Packs of sealed files: nothing in clear, nothing that was changed, moved or forged, and the same use to a reader.

use bytes::Bytes;

use super::super::index::IndexWriter;
use super::*;
use crate::ltx::sealing::{sample_keyring, sample_recipients};
use crate::ltx::{Encoder, Outline, OutlineRead, Plain, Recipients, Seal};

/// Two blocks: the last page is the first one of the second.
const LAST: u32 = PackedIndex::BLOCK as u32 + 1;
const TOKENS: [&[u8; 16]; 3] = [b"token of page 1!", b"token of page 2!", b"token of the end"];

/// A file, sealed or not, and its pack. Nobody asks how large the file is.
struct Packed {
    file: FileInfo,
    codec: FrameCodec,
    pack: Bytes,
}

fn packed(recipients: &Recipients) -> Packed {
    let (page_size, commit) = (PageSize::new(4096).unwrap(), PageCount::new(LAST));
    let header = Header::new(page_size, commit, name(2, 40), Timestamp::from_millis(0));
    let mut encoder = match recipients.is_empty() {
        true => Encoder::new(Vec::new(), header),
        false => Encoder::sealed(Vec::new(), Seal::new(header, recipients).unwrap()),
    }
    .unwrap();
    let id = id(5, 2, 40);
    let mut builder = PackBuilder::new(id, &encoder).unwrap().unwrap().with_blocks_from(0);
    let pages = [(1, first(&[])), (2, table(&[3, 4], &[9])), (3, leaf()), (LAST, table(&[3, 4], &[9]))];
    let mut tokens = TOKENS.iter();
    for (n, mut page) in pages {
        if n != 3 {
            page[3000..3016].copy_from_slice(*tokens.next().unwrap());
        }
        encoder.page(pgno(n), &page).unwrap();
        let (entry, frame) = encoder.last_frame().unwrap();
        builder.page(&page, entry, frame);
    }
    let (bytes, summary) = encoder.finish().unwrap();
    let read = Outline::read(&bytes, &bytes, bytes.len() as u64, &sample_keyring(&[0], Plain::Any));
    let OutlineRead::Outline(outline) = read.unwrap() else { panic!("the whole file is not enough") };
    let pack = builder.finish(&Summary { size: FILE_SIZE, ..summary }).unwrap().bytes;
    Packed { file: FileInfo { id, ..file() }, codec: outline.codec, pack }
}

fn sealed() -> Packed {
    packed(&sample_recipients(&[0]))
}

impl Packed {
    /// The pages and all entries that a reader takes of `bytes`; an error if it takes any less.
    fn taken(&self, bytes: Bytes) -> Result<(Vec<u32>, Vec<IndexEntry>)> {
        let pack = Pack::parse(&self.file, bytes, &self.codec)?;
        let mut page = vec![0; 4096];
        let mut pages = Vec::new();
        for (entry, frame) in pack.frames() {
            assert_eq!(self.codec.decode(frame, &mut page)?, entry.pgno);
            pages.push(entry.pgno.get());
        }
        let index = pack.index().unwrap();
        let blocks = (0..index.blocks()).map(|n| index.read(n, index.came(n).unwrap()));
        Ok((pages, blocks.collect::<Result<Vec<_>>>()?.concat()))
    }

    fn is_taken(&self, bytes: impl Into<Bytes>) -> bool {
        self.taken(bytes.into()).is_ok()
    }

    /// The pack that somebody makes of what this one says, with this cipher.
    fn again(&self, cipher: Option<&PackCipher>) -> Bytes {
        let pack = Pack::parse(&self.file, self.pack.clone(), &self.codec).unwrap();
        let mut writer = IndexWriter::new(self.codec.shape().first_frame());
        self.taken(self.pack.clone()).unwrap().1.into_iter().for_each(|entry| writer.push(entry));
        let identity = Identity { id: self.file.id, size: self.file.size, checksum: pack.checksum() };
        encode(&identity, &pack.frames().collect::<Vec<_>>(), writer.finish(), cipher).into()
    }
}

#[test]
fn it_is_read_with_the_key_of_its_file() {
    let sealed = sealed();
    let (pages, entries) = sealed.taken(sealed.pack.clone()).unwrap();
    assert_eq!(pages, [1, 2, LAST]);
    assert_eq!(entries.iter().map(|entry| entry.pgno.get()).collect::<Vec<_>>(), [1, 2, 3, LAST]);
    assert_eq!(entries[0].offset, sealed.codec.shape().first_frame());
}

#[test]
fn nothing_of_the_pages_is_in_clear() {
    let found = |packed: &Packed| {
        let is_in = |token: &&&[u8; 16]| packed.pack.windows(16).any(|bytes| bytes == token.as_slice());
        TOKENS.iter().filter(is_in).count()
    };
    assert_eq!(found(&packed(&Recipients::default())), TOKENS.len(), "the control");
    assert_eq!(found(&sealed()), 0);
    // Nor the list of pages, which begins with page 1.
    let is_first = |packed: &Packed, head: usize| packed.pack[head..head + 4] == [0, 0, 0, 1];
    assert!(is_first(&packed(&Recipients::default()), HEAD), "the control");
    assert!(!is_first(&sealed(), SEALED_HEAD));
}

/// Changes nine bytes and not their CRC-64/NVME: by its polynomial, the highest power in the first bit.
fn keep_checksum(bytes: &mut [u8]) {
    let polynomial = 1_u128 << 64 | 0xad93_d235_94c9_3659;
    let is_in = |bit: &usize| polynomial >> (64 - bit) & 1 == 1;
    (0..65).filter(is_in).for_each(|bit| bytes[bit / 8] ^= 1 << (bit % 8));
}

#[test]
fn a_block_is_not_proven_by_its_checksum() {
    let sealed = sealed();
    let pack = Pack::parse(&sealed.file, sealed.pack.clone(), &sealed.codec).unwrap();
    let index = pack.index().unwrap();
    let mut block = index.came(0).unwrap().to_vec();
    keep_checksum(&mut block);
    assert_eq!(checksum(&block), checksum(index.came(0).unwrap()), "the control");
    assert!(block != index.came(0).unwrap());
    let e = index.read(0, &block).unwrap_err();
    assert!(e.to_string().contains("not sealed"), "{e}");
}

#[test]
fn it_is_forged_by_nobody_without_the_key_of_its_file() {
    let (ours, theirs) = (sealed(), sealed());
    let by = |packed: &Packed| ours.again(Some(&packed.codec.pack_cipher([7; 16]).unwrap()));
    assert!(ours.is_taken(by(&ours)), "the control");
    assert!(!ours.is_taken(by(&theirs)));
    assert!(!ours.is_taken(theirs.pack.clone()));
    // As if it were of the other file, by what it says.
    let mut renamed = theirs.pack.to_vec();
    renamed[40..48].copy_from_slice(&ours.pack[40..48]);
    assert!(!ours.is_taken(forged(renamed)));
    assert_ne!(ours.pack[HEAD..SEALED_HEAD], theirs.pack[HEAD..SEALED_HEAD]);
}

#[test]
fn a_plain_one_in_its_place_is_none_and_the_other_way_round() {
    let sealed = sealed();
    let plain = sealed.again(None);
    assert!(!sealed.is_taken(plain.clone()));
    let mut named = plain.to_vec();
    named[..8].copy_from_slice(seal::MAGIC);
    assert!(!sealed.is_taken(forged(named)));
    let open = packed(&Recipients::default());
    assert!(open.is_taken(open.pack.clone()), "the control");
    assert!(!open.is_taken(open.again(sealed.codec.pack_cipher([7; 16]).as_ref())));
}

/// As [`trees`], of a file that is sealed, and its pack is there.
fn sealed_trees() -> (History, Vec<u32>) {
    let (mut history, interior) = trees();
    history.recipients = sample_recipients(&[0]);
    let pack = history.put_packed(9, 1, 1);
    history.put_pack(id(9, 1, 1), pack);
    (history, interior)
}

#[test]
fn pages_of_it_need_no_request() {
    let (history, interior) = sealed_trees();
    assert_eq!(reads(&history, &interior, &still()), 0);
    let off = Options { pack: false, ..still() };
    assert!(reads(&history, &interior, &off) > 10, "pack=off");
}

#[test]
fn one_that_does_not_fit_costs_time_only() {
    let (history, interior) = sealed_trees();
    let file = id(9, 1, 1);
    let mut of_another_seal = history.clone();
    of_another_seal.store = crate::store::MemoryStore::new();
    let of_another_seal = of_another_seal.put_packed(9, 1, 1);
    let mut plain = history.clone();
    plain.recipients = Recipients::default();
    for (what, pack) in [("of another seal", of_another_seal), ("plain", plain.pack(9, 1, 1))] {
        history.put_pack(file, pack);
        assert!(reads(&history, &interior, &still()) > 10, "{what}");
    }
}

#[test]
fn a_disk_cache_keeps_its_frames_sealed() {
    let (history, interior) = sealed_trees();
    let folder = tempfile::tempdir().unwrap();
    let disk = DiskOptions { folder: folder.path().to_owned(), bytes: 64 << 20 };
    let options = Options { disk: Some(disk), ..still() };
    assert_eq!(reads(&history, &[ROOT], &options), 0);
    history.put_pack(id(9, 1, 1), Bytes::new());
    assert_eq!(reads(&history, &interior, &options), 0);
}
