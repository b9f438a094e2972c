//! Any bytes as a pack, plain and sealed, also with checksums and seals that are right: what is accepted gives frames that are
//! within it, and no others, and blocks of a page index that ascends and has no gap. Without the key nobody makes a sealed one
//! that says something else, or a page that was not sealed.
#![no_main]

mod heap;

use std::collections::HashSet;
use std::fs;
use std::path::Path;
use std::sync::LazyLock;

use crc_fast::{CrcAlgorithm, checksum};
use libfuzzer_sys::fuzz_target;
use litestream_vfs::clock::Timestamp;
use litestream_vfs::ltx::{
    FileId, FileName, FrameCodec, Identities, IndexEntry, Keyring, Level, Outline, OutlineRead, PackCipher,
    PackPart, Plain, Txid,
};
use litestream_vfs::page::{PageSize, Pgno};
use litestream_vfs::replica::{Pack, PackedIndex};
use litestream_vfs::store::{ByteRange, FileInfo};

/// What precedes the pages, what is said of each, and what the table has of a block.
const HEAD: usize = 72;
const ENTRY: usize = 16;
const BLOCK_ENTRY: usize = 24;

/// What the golden packs say.
struct Samples {
    plain: FrameCodec,
    /// That of the file whose packs are sealed.
    sealed: FrameCodec,
    /// The pages that were sealed.
    pages: HashSet<(Pgno, Vec<u8>)>,
    /// What a sealed pack lists.
    listed: Vec<IndexEntry>,
    /// What the blocks of a sealed pack list.
    indexed: Vec<IndexEntry>,
}

static SAMPLES: LazyLock<Samples> = LazyLock::new(|| {
    let outline = sealed_file();
    let page_size = PageSize::new(4096).expect("it is one");
    let mut samples = Samples {
        plain: FrameCodec::plain(page_size),
        sealed: outline.0,
        pages: outline.1,
        listed: Vec::new(),
        indexed: Vec::new(),
    };
    let (listed, indexed) = samples.read("plain-in-blocks.pack", &samples.plain);
    assert_eq!(
        (samples.read("plain.pack", &samples.plain).0, indexed.len()),
        (listed.clone(), listed.len() + 4)
    );
    let (listed, indexed) = samples.read("sealed-in-blocks.pack", &samples.sealed);
    assert_eq!(
        (samples.read("sealed.pack", &samples.sealed).0, indexed.len()),
        (listed.clone(), listed.len() + 4)
    );
    assert_eq!(listed.len(), samples.pages.len());
    (samples.listed, samples.indexed) = (listed, indexed);
    samples
});

/// The codec of the golden file that is sealed, and its pages.
fn sealed_file() -> (FrameCodec, HashSet<(Pgno, Vec<u8>)>) {
    let keys = fs::read(golden("ltx4/keys.json")).expect("the keys of the samples");
    let keys: serde_json::Value = serde_json::from_slice(&keys).expect("they are JSON");
    let identity = keys[0]["identity"].as_str().expect("a key");
    let keyring = Keyring::new(Identities::parse(identity).expect("it is an identity"), Plain::None);
    let path = "ltx4/one-recipient-4096/ltx/9/0000000000000001-0000000000000001.ltx";
    let bytes = fs::read(golden(path)).expect("the file");
    let read = Outline::read(&bytes, &bytes, bytes.len() as u64, &keyring).expect("it is whole");
    let OutlineRead::Outline(outline) = read else { panic!("the whole file is not enough") };
    let mut page = vec![0; outline.header.page_size.bytes()];
    let pages = outline.index.iter().map(|entry| {
        let frame = &bytes[entry.offset as usize..(entry.offset + entry.size) as usize];
        let pgno = outline.codec.decode(frame, &mut page).expect("it was sealed");
        (pgno, page.clone())
    });
    (outline.codec.clone(), pages.collect())
}

fn golden(path: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../golden").join(path)
}

impl Samples {
    /// What a golden pack lists, and what its blocks do.
    fn read(&self, name: &str, codec: &FrameCodec) -> (Vec<IndexEntry>, Vec<IndexEntry>) {
        let bytes = fs::read(golden("packs").join(name)).expect("the pack");
        let size = u64::from_be_bytes(bytes[32..40].try_into().expect("eight bytes"));
        let pack = Pack::parse(&file(3, size), bytes.clone().into(), codec).expect("it is a pack");
        let indexed = pack.index().map(|index| {
            let blocks = (0..index.blocks()).map(|n| index.read(n, index.came(n).expect("it came")));
            blocks.flat_map(|block| block.expect("it is the block")).collect()
        });
        (pack.frames().map(|(entry, _)| entry).collect(), indexed.unwrap_or_default())
    }
}

fuzz_target!(init: { LazyLock::force(&SAMPLES); heap::limit_until_panic() }, |bytes: &[u8]| {
    let Some((ask, bytes)) = bytes.split_first_chunk::<16>() else { return };
    let n = |at: usize| u32::from_be_bytes([ask[at], ask[at + 1], ask[at + 2], ask[at + 3]]);
    let Some(pgno) = Pgno::new(n(0)) else { return };
    let file = file(u64::from(n(4) % 16) + 1, n(8).into());
    let asked = IndexEntry { pgno, offset: n(12).into(), size: n(12).into() };
    let cipher = SAMPLES.sealed.pack_cipher([ask[15]; PackCipher::SALT]).expect("it is sealed");
    for (codec, cipher) in [(&SAMPLES.plain, None), (&SAMPLES.sealed, Some(&cipher))] {
        for bytes in [bytes.to_vec(), summed(bytes)] {
            if let Some((listed, indexed)) = read(&file, &bytes, codec, asked) && codec.is_sealed() {
                assert!(listed == SAMPLES.listed, "a list that nobody sealed");
                assert!(indexed.is_empty() || indexed == SAMPLES.indexed, "blocks that nobody sealed");
            }
        }
        read(&file, &named(&file, bytes, cipher), codec, asked);
    }
});

fn file(max: u64, size: u64) -> FileInfo {
    let max = Txid::new(max).expect("it is not 0");
    let name = FileName::new(Txid::ONE, max).expect("it is not before the first");
    FileInfo { id: FileId::new(Level::SNAPSHOT, name), size, timestamp: Timestamp::from_millis(0) }
}

/// What the pack `bytes` lists, and what its blocks list; `None` if it is none. An index whose blocks cannot all be read counts
/// as none.
fn read(
    file: &FileInfo,
    bytes: &[u8],
    codec: &FrameCodec,
    asked: IndexEntry,
) -> Option<(Vec<IndexEntry>, Vec<IndexEntry>)> {
    let pack = Pack::parse(file, bytes.to_vec().into(), codec).ok()?;
    let mut page = vec![0; 4096];
    let mut end = 0;
    let mut listed = Vec::new();
    for (entry, frame) in pack.frames() {
        assert!(entry.offset >= end && entry.offset + entry.size <= file.size);
        assert_eq!(entry.size, frame.len() as u64);
        assert_eq!(pack.frame(entry), Some(frame));
        if let Ok(pgno) = codec.decode(frame, &mut page)
            && codec.is_sealed()
        {
            assert!(SAMPLES.pages.contains(&(pgno, page.clone())), "a page that nobody sealed");
        }
        end = entry.offset + entry.size;
        listed.push(entry);
    }
    pack.frame(asked);
    pack.entry(asked.pgno);
    Some((listed, pack.index().and_then(|index| blocks(index, bytes, codec, file)).unwrap_or_default()))
}

/// What all blocks of `index` list, of the pack `bytes`; `None` if one cannot be read.
fn blocks(index: &PackedIndex, bytes: &[u8], codec: &FrameCodec, file: &FileInfo) -> Option<Vec<IndexEntry>> {
    let mut entries: Vec<IndexEntry> = Vec::new();
    let mut end = codec.shape().first_frame();
    for n in 0..index.blocks() {
        let block = match index.range(n) {
            Some(ByteRange::Bounded { offset, len }) => &bytes[offset as usize..(offset + len) as usize],
            _ => &[],
        };
        assert_eq!(index.came(n), Some(block));
        for entry in index.read(n, block).ok()? {
            assert!(Some(entry.pgno) > entries.last().map(|entry| entry.pgno));
            assert!(entry.offset == end && index.of(entry.pgno) == Some(n));
            end += entry.size;
            entries.push(entry);
        }
    }
    assert_eq!(entries.last().map(|entry| entry.pgno), Some(index.last()));
    assert!(end == index.end() && end < file.size && entries.len() as u64 == index.pages());
    Some(entries)
}

/// `bytes` with the checksum that the front needs.
fn summed(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let front =
        bytes.get(8..12).map_or(0, |size| u32::from_be_bytes(size.try_into().expect("four bytes")) as usize);
    if let Some(body) = front.checked_sub(8).filter(|_| front <= bytes.len()) {
        let sum = checksum(CrcAlgorithm::Crc64Nvme, &bytes[..body]);
        bytes[body..front].copy_from_slice(&sum.to_be_bytes());
    }
    bytes
}

/// `bytes` behind a head that names `file`, with the checksums of all that, sealed by `cipher`. The first twelve say how many
/// pages and blocks there are, which is the last page, where the frames end, and how many bytes there are of blocks.
fn named(file: &FileInfo, bytes: &[u8], cipher: Option<&PackCipher>) -> Vec<u8> {
    let (said, rest) = bytes.split_at(bytes.len().min(12));
    let at = |n: usize| said.get(n).copied().unwrap_or(0);
    // Few, so that they may fit.
    let (pages, blocks) = (usize::from(at(0) % 8), usize::from(at(1) % 4));
    let last = u32::from_be_bytes([0, at(2), at(3), at(4)]);
    let end = u64::from(u32::from_be_bytes([0, at(5), at(6), at(7)]));
    let (front, mut of_blocks) = rest.split_at(rest.len().saturating_sub(usize::from(at(8))));
    let listed = pages * ENTRY + blocks * BLOCK_ENTRY;
    let mut front = front.to_vec();
    front.resize(front.len().max(listed), 0);
    let seal = cipher.map_or(0, |_| PackCipher::SALT + PackCipher::OVERHEAD);
    let mut all = if cipher.is_some() { b"LSVPACKS" } else { b"LSVPACK1" }.to_vec();
    all.extend(((HEAD + seal + front.len() + 8) as u32).to_be_bytes());
    all.extend(u32::from(file.id.level.get()).to_be_bytes());
    for n in [file.id.name.min().get(), file.id.name.max().get(), file.size, 7, end] {
        all.extend(n.to_be_bytes());
    }
    for n in [last, pages as u32, blocks as u32, (front.len() - listed) as u32] {
        all.extend(n.to_be_bytes());
    }
    all.extend(cipher.iter().flat_map(|cipher| cipher.salt()));
    let sealed = |number: u32, mut content: Vec<u8>| {
        let part = PackPart { head: &all, number, count: blocks as u32 + 1 };
        cipher.into_iter().for_each(|cipher| cipher.seal(part, &mut content));
        content
    };
    let mut stored = Vec::new();
    for (number, block) in (1..).zip(front[pages * ENTRY..listed].chunks_exact_mut(BLOCK_ENTRY)) {
        let (own, others) = of_blocks.split_at(usize::from(block[15]).min(of_blocks.len()));
        let has_pages = block[8..12] != [0; 4];
        let own = if has_pages { sealed(number, own.to_vec()) } else { own.to_vec() };
        block[12..16].copy_from_slice(&(own.len() as u32).to_be_bytes());
        block[16..24].copy_from_slice(&checksum(CrcAlgorithm::Crc64Nvme, &own).to_be_bytes());
        stored.extend(own);
        of_blocks = others;
    }
    let list = sealed(0, front[..listed].to_vec());
    all.extend(list);
    all.extend(&front[listed..]);
    let sum = checksum(CrcAlgorithm::Crc64Nvme, &all);
    all.extend(sum.to_be_bytes());
    all.extend(stored);
    all
}
