//! Any bytes as a WAL file. As no fuzzer guesses a checksum chain, the first bytes say which parts of
//! it are mended before the scan.
#![no_main]

mod heap;

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use litestream_vfs::page::PageCount;
use litestream_vfs::wal::{
    ByteOrder, Checksum, Committed, End, FrameHeader, FrameNo, IndexHeader, Position, Scan, WalHeader, scan,
};

static FILE: LazyLock<File> = LazyLock::new(|| tempfile::tempfile().expect("a temporary file"));

/// How the input is mended: whether the header is, in which byte order, and which frames are not (bit
/// `i % 8`).
struct Mend {
    header: bool,
    order: ByteOrder,
    unmended: u8,
}

fuzz_target!(init: heap::limit_until_panic(), |input: &[u8]| {
    let Some((&[flags, unmended, at], bytes)) = input.split_first_chunk() else { return };
    let order = if flags & 2 == 0 { ByteOrder::Little } else { ByteOrder::Big };
    let mut wal = bytes.to_vec();
    let header = mend(&mut wal, &Mend { header: flags & 1 == 1, order, unmended });
    FILE.set_len(0).expect("truncate");
    FILE.write_all_at(&wal, 0).expect("write");
    if let Some(header) = header {
        let start = Position::start_of(&header);
        explore(&wal, start);
        // A position in the middle that no chain led to.
        let _ = scan(&FILE, Position { frame: FrameNo(u32::from(at)), ..start }, End::LastCommit);
    }
    if let Some(index) = bytes.first_chunk::<{ IndexHeader::SIZE }>() {
        let _ = IndexHeader::decode(index);
    }
});

/// Makes checksums right; returns the header if it is valid then.
fn mend(wal: &mut [u8], how: &Mend) -> Option<WalHeader> {
    let (head, mut frames) = wal.split_first_chunk_mut::<{ WalHeader::SIZE }>()?;
    if how.header {
        let magic = 0x377f_0682 | u32::from(how.order == ByteOrder::Big);
        head[..4].copy_from_slice(&magic.to_be_bytes());
        head[4..8].copy_from_slice(&3_007_000_u32.to_be_bytes());
        head[8..12].copy_from_slice(&512_u32.to_be_bytes());
        let sum = Checksum::default().update(how.order, &head[..24]);
        put(&mut head[24..], sum);
    }
    let header = WalHeader::decode(head).ok()?;
    let mut chain = header.checksum;
    let size = FrameHeader::frame_size(header.page_size);
    let mut n = 0;
    while let Some((frame, rest)) = frames.split_at_mut_checked(size) {
        if how.unmended >> (n % 8) & 1 == 0 {
            frame[8..16].copy_from_slice(&head[16..24]);
            let (head, page) = frame.split_first_chunk_mut::<{ FrameHeader::SIZE }>()?;
            chain = FrameHeader::expected_checksum(chain, header.order, head, page);
            put(&mut head[16..], chain);
        }
        (frames, n) = (rest, n + 1);
    }
    Some(header)
}

fn put(to: &mut [u8], sum: Checksum) {
    to[..4].copy_from_slice(&sum.0.to_be_bytes());
    to[4..8].copy_from_slice(&sum.1.to_be_bytes());
}

/// Scans to the last commit; what was found is in the file, and an index that says so agrees.
fn explore(wal: &[u8], from: Position) {
    let Scan::Committed(found) = scan(&FILE, from, End::LastCommit).expect("a broken chain is an end") else {
        return;
    };
    check(wal, &found);
    let index = IndexHeader {
        change: 1,
        page_size: Some(found.page_size),
        mx_frame: found.to.frame,
        page_count: found.commit,
        frame_checksum: found.to.checksum,
        salts: found.to.salts,
    };
    let again = scan(&FILE, from, End::Index(index)).expect("the index is right");
    let Scan::Committed(again) = again else { panic!("the index names frames: {again:?}") };
    assert_eq!((again.to, again.commit, &again.pages), (found.to, found.commit, &found.pages));
    let wrong = IndexHeader { frame_checksum: Checksum(!found.to.checksum.0, 0), ..index };
    assert!(scan(&FILE, from, End::Index(wrong)).is_err());
    one_too_far(wal, from, IndexHeader { mx_frame: found.to.frame.next(), ..index });
    let nothing = scan(&FILE, found.to, End::Index(index)).expect("a position at the end");
    assert!(matches!(nothing, Scan::Nothing));
}

/// An index that names one frame more is refused, unless that frame is unsealed and ends a transaction: then
/// the index is all there is to go by.
fn one_too_far(wal: &[u8], from: Position, index: IndexHeader) {
    let page_size = index.page_size.expect("that of the WAL");
    let size = FrameHeader::frame_size(page_size);
    let frame = wal[WalHeader::SIZE..].chunks_exact(size).nth(index.mx_frame.0 as usize - 1);
    let head = frame.and_then(|frame| frame.first_chunk::<{ FrameHeader::SIZE }>());
    let head = head.filter(|head| FrameHeader::is_unsealed(head));
    let commit = head.map(FrameHeader::decode).and_then(|head| head.pgno.and(head.commit));
    let Some(commit) = commit else {
        assert!(scan(&FILE, from, End::Index(index)).is_err());
        return;
    };
    let Ok(Scan::Committed(found)) = scan(&FILE, from, End::Index(index)) else {
        panic!("frame {} is vouched for", index.mx_frame)
    };
    assert_eq!((found.to, found.commit), (Position::end_of(&index), commit));
    check(wal, &found);
}

/// The newest committed frame of each page of the database, read from the bytes the plain way.
fn check(wal: &[u8], found: &Committed) {
    let size = FrameHeader::frame_size(found.page_size);
    let mut newest = std::collections::BTreeMap::new();
    let mut commit = PageCount::ZERO;
    for (n, frame) in (1..=found.to.frame.0).zip(wal[WalHeader::SIZE..].chunks_exact(size)) {
        let header = FrameHeader::decode(frame.first_chunk().expect("a frame has a header"));
        newest.insert(header.pgno.expect("a committed frame has a page"), FrameNo(n));
        commit = header.commit.unwrap_or(commit);
    }
    newest.retain(|pgno, _| commit.contains(*pgno));
    assert_eq!((commit, newest), (found.commit, found.pages.clone()));
}
