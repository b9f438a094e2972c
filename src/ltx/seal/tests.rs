//! Files of the reference implementation are opened; what was changed, moved or cut off is not.

use std::fs;
use std::time::{Duration, Instant};

use super::sealing::{Sealing, for_a_crowd, keyring, pair, sample_keyring, seal, whole};
use super::*;
use crate::clock::Timestamp;
use crate::error::{Error, ErrorKind, Result};
use crate::ltx::tests::frames::agree_on;
use crate::ltx::{
    Decoder, Encoder, FileName, FrameCodec, Header, Outline, OutlineRead, PageIndex, PartHasher, Summary,
    TailRead, Txid,
};
use crate::page::{PageCount, PageSize, Pgno};

type Page = (Pgno, Vec<u8>);
type Pages = Vec<Page>;

/// The files of a sample, all levels.
fn files(sample: &str) -> Vec<(FileName, Vec<u8>)> {
    let mut files = Vec::new();
    for level in fs::read_dir(sealing::sample(sample).join("ltx")).unwrap() {
        for file in fs::read_dir(level.unwrap().path()).unwrap() {
            let path = file.unwrap().path();
            files.push((
                path.file_name().unwrap().to_str().unwrap().parse().unwrap(),
                fs::read(path).unwrap(),
            ));
        }
    }
    assert!(!files.is_empty());
    files
}

fn decode(bytes: &[u8], keyring: &Keyring) -> Result<(Pages, Summary)> {
    let mut decoder = Decoder::open(bytes, keyring)?;
    let mut page = vec![0; decoder.header().page_size.bytes()];
    let mut pages = Pages::new();
    while let Some(pgno) = decoder.next_page(&mut page)? {
        pages.push((pgno, page.clone()));
    }
    Ok((pages, decoder.finish()?))
}

/// A plain file of `count` pages from `first` on, which are small or noise by turns.
fn plain(min: u64, first: u32, count: u32) -> Vec<u8> {
    let size = PageSize::new(512).unwrap();
    let name = FileName::new(Txid::new(min).unwrap(), Txid::new(min).unwrap()).unwrap();
    let header =
        Header::new(size, PageCount::new(first + count - 1), name, Timestamp::from_millis(min as i64));
    let mut encoder = Encoder::new(Vec::new(), header).unwrap();
    let mut random = min << 20 | 1;
    for n in first..first + count {
        let mut page = vec![n as u8; 512];
        for byte in page.iter_mut().take(if n % 2 == 0 { 512 } else { 8 }) {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            *byte = (random >> 33) as u8;
        }
        encoder.page(Pgno::new(n).unwrap(), &page).unwrap();
    }
    encoder.finish().unwrap().0
}

fn outline(bytes: &[u8], keyring: &Keyring) -> Result<Outline> {
    match Outline::read(bytes, bytes, bytes.len() as u64, keyring)? {
        OutlineRead::Outline(outline) => Ok(*outline),
        OutlineRead::NeedMore(_) => Err(Error::corrupt("the whole file is not enough")),
    }
}

/// The pages as a reader on demand gets them, each on its own.
fn on_demand(bytes: &[u8], keyring: &Keyring) -> Result<Vec<Result<Page>>> {
    let Outline { header, index, codec } = outline(bytes, keyring)?;
    let page = |entry: crate::ltx::IndexEntry| {
        let mut page = vec![0; header.page_size.bytes()];
        let frame = &bytes[entry.offset as usize..(entry.offset + entry.size) as usize];
        let found = codec.decode(frame, &mut page)?;
        if found == entry.pgno { Ok((found, page)) } else { Err(Error::corrupt("another page")) }
    };
    Ok(index.iter().map(page).collect())
}

#[test]
fn files_of_the_reference_implementation_are_opened() {
    for (sample, places, count) in [
        ("one-recipient-4096", &[0][..], 6),
        ("three-recipients-512", &[0], 6),
        ("three-recipients-512", &[1], 6),
        ("three-recipients-512", &[2], 6),
        ("turned-on-at-3-4096", &[1], 5),
        ("key-changed-at-4-65536", &[0, 1], 5),
        ("with-checksums-4096", &[1], 1),
    ] {
        let keyring = sample_keyring(places, Plain::UpTo(Txid::new(2).unwrap()));
        let files = files(sample);
        assert_eq!(files.len(), count);
        for (name, bytes) in files {
            let (pages, summary) = decode(&bytes, &keyring).unwrap();
            assert_eq!((summary.header.name(), summary.size), (name, bytes.len() as u64));
            let found: Pages = on_demand(&bytes, &keyring).unwrap().into_iter().map(Result::unwrap).collect();
            assert_eq!(found, pages, "{sample} {name}");
            if summary.header.max.get() == 1 {
                let database = fs::read(sealing::sample(sample).join("at-1.db")).unwrap();
                assert!(pages.iter().flat_map(|(_, page)| page).eq(&database), "{sample}");
            }
        }
    }
}

#[test]
fn our_own_form_of_a_file_is_read_like_theirs() {
    for seeds in [&[1][..], &[1, 2, 3]] {
        let file = plain(7, 3, 9);
        let sealed = seal(&file, seeds);
        let expected = decode(&file, &Keyring::default()).unwrap().0;
        for seed in seeds {
            assert_eq!(decode(&sealed, &keyring(&[*seed], Plain::None)).unwrap().0, expected);
            assert_eq!(decode(&sealed, &keyring(&[99, *seed], Plain::None)).unwrap().0, expected);
        }
        let without_key = Decoder::verifying(&sealed[..], &Keyring::default()).unwrap();
        assert!(!without_key.has_content());
        assert_eq!(without_key.finish().unwrap().pages, 9);
    }
}

#[test]
fn without_the_right_key_an_error_says_what_to_set() {
    let sealed = seal(&plain(7, 3, 2), &[1, 2]);
    for (keyring, words) in [
        (Keyring::default(), "set age_identity_file"),
        (
            keyring(&[3], Plain::None),
            "sealed to 2 recipients, and the identity that is given is none of theirs",
        ),
        (keyring(&[3, 4], Plain::None), "none of the 2 identities"),
    ] {
        for e in [decode(&sealed, &keyring).unwrap_err(), outline(&sealed, &keyring).unwrap_err()] {
            assert_eq!(e.kind(), ErrorKind::Denied);
            assert!(e.to_string().contains(words), "{e}");
        }
    }
    assert_eq!(
        Decoder::new(&sealed[..]).unwrap_err().kind(),
        ErrorKind::Unsupported,
        "where only plain files may be"
    );
}

#[test]
fn plain_files_are_taken_only_where_they_may_be() {
    let file = plain(7, 3, 2);
    for (limit, taken) in [
        (Plain::Any, true),
        (Plain::UpTo(Txid::new(7).unwrap()), true),
        (Plain::UpTo(Txid::new(6).unwrap()), false),
        (Plain::None, false),
    ] {
        let keyring = keyring(&[1], limit);
        assert_eq!(decode(&file, &keyring).is_ok(), taken, "{limit:?}");
        assert_eq!(outline(&file, &keyring).is_ok(), taken, "{limit:?}");
        assert_eq!(Decoder::verifying(&file[..], &keyring).is_ok(), taken, "{limit:?}");
        if let Err(e) = decode(&file, &keyring) {
            assert_eq!(e.kind(), ErrorKind::Denied);
            // Any number would be that of this file, which need not be the last one.
            assert!(e.to_string().contains("give as plain_until the last TXID of that time"), "{e}");
            assert!(!e.to_string().contains("0000000000000007"), "{e}");
        }
    }
}

#[test]
fn every_flipped_bit_is_noticed() {
    let sealed = seal(&plain(7, 3, 2), &[1, 2]);
    let keyring = keyring(&[2], Plain::None);
    let (pages, _) = decode(&sealed, &keyring).unwrap();
    for bit in 0..sealed.len() * 8 {
        let mut flipped = sealed.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert!(decode(&flipped, &keyring).is_err(), "bit {bit}");
        let without_key = Decoder::verifying(&flipped[..], &Keyring::default()).and_then(Decoder::finish);
        assert!(without_key.is_err(), "bit {bit}, without a key");
        // And if whoever flipped it made the checksum hold again.
        let mut forged = whole(flipped[..flipped.len() - 8].to_vec());
        forged.truncate(sealed.len());
        if let Ok((found, _)) = decode(&forged, &keyring) {
            assert!(found == pages, "bit {bit}, with the right checksum");
        }
        for page in on_demand(&forged, &keyring).into_iter().flatten().flatten() {
            assert!(pages.contains(&page), "bit {bit}, on demand");
        }
    }
}

#[test]
fn frames_that_are_cut_off_give_what_the_decoder_gives() {
    let sealed = seal(&plain(7, 3, 4), &[1, 2]);
    let keyring = keyring(&[2], Plain::None);
    agree_on(|| Decoder::open(&sealed[..], &keyring), 600);
    for bit in (0..sealed.len() * 8).step_by(5) {
        let mut flipped = sealed.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        agree_on(|| Decoder::open(&flipped[..], &keyring), 600);
    }
}

#[test]
fn a_file_cut_at_any_length_is_refused() {
    let sealed = seal(&plain(7, 3, 2), &[1, 2]);
    let keyring = keyring(&[1], Plain::None);
    for len in 0..sealed.len() {
        assert!(decode(&sealed[..len], &keyring).is_err(), "{len} bytes");
        assert!(outline(&sealed[..len], &keyring).is_err(), "{len} bytes");
    }
    assert!(decode(&[&sealed[..], &[0]].concat(), &keyring).is_err(), "a byte too many");
}

/// Whether a file is read, from its beginning or on demand.
fn is_read(file: &[u8]) -> bool {
    let keyring = keyring(&[1], Plain::None);
    let pages = on_demand(file, &keyring).map(|pages| pages.into_iter().all(|page| page.is_ok()));
    decode(file, &keyring).is_ok() || pages.unwrap_or(false)
}

#[test]
fn parts_fit_into_no_other_file() {
    let to = [pair(1).1];
    let (one, other) = (Sealing::of(&plain(7, 3, 4), &to), Sealing::of(&plain(8, 3, 4), &to));
    // The same pages, of the same header, sealed twice.
    let twin = Sealing::of(&plain(7, 3, 4), &to);
    assert!(is_read(&one.file()) && is_read(&other.file()) && is_read(&twin.file()));
    for from in [&other, &twin] {
        let frame = Sealing { frames: [&from.frames[..1], &one.frames[1..]].concat(), ..one.clone() };
        let last = Sealing { frames: [&one.frames[..3], &from.frames[3..]].concat(), ..one.clone() };
        let recipients = Sealing { recipients: from.recipients.clone(), ..one.clone() };
        let tag = Sealing { tag: Some(from.own_tag()), ..one.clone() };
        for (what, file) in
            [("a frame", frame), ("the last frame", last), ("recipients", recipients), ("tag", tag)]
        {
            assert!(!is_read(&file.file()), "{what}");
        }
    }
    let header = Sealing { header: other.header, ..one.clone() };
    assert!(
        !is_read(&Sealing { tag: Some(one.own_tag()), ..header.clone() }.file()),
        "the header of another file"
    );
    let mut renumbered = one.clone();
    renumbered.header.max = Txid::new(9).unwrap();
    assert!(!is_read(&renumbered.file()), "another TXID");
}

#[test]
fn frames_are_not_moved_left_out_or_repeated() {
    let one = Sealing::of(&plain(7, 3, 4), &[pair(1).1]);
    let (tag, frames) = (Some(one.own_tag()), one.frames.clone());
    let renamed =
        |frame: &(u32, Vec<u8>), pgno: u32| (pgno, [&pgno.to_be_bytes()[..], &frame.1[4..]].concat());
    for changed in [
        frames[1..].to_vec(),
        frames[..3].to_vec(),
        vec![frames[0].clone(), frames[2].clone(), frames[3].clone()],
        vec![renamed(&frames[0], 3), renamed(&frames[2], 4), renamed(&frames[1], 5), frames[3].clone()],
        vec![frames[0].clone(), frames[1].clone(), frames[2].clone(), renamed(&frames[2], 6)],
    ] {
        let keyring = keyring(&[1], Plain::None);
        for tag in [tag, None] {
            let file = Sealing { frames: changed.clone(), tag, ..one.clone() };
            // With a tag of the right key only the owner of that could have made it.
            let is_forged = tag.is_some() || changed.iter().any(|frame| !frames.contains(frame));
            assert!(!is_forged || decode(&file.file(), &keyring).is_err());
            if tag.is_some() {
                assert!(outline(&file.file(), &keyring).is_err(), "the index was not sealed with the file");
            }
        }
    }
}

#[test]
fn what_breaks_a_rule_of_the_format_is_refused() {
    let one = Sealing::of(&plain(7, 3, 2), &[pair(1).1]);
    let decodes = |frames: Vec<(u32, Vec<u8>)>| is_read(&Sealing { frames, ..one.clone() }.file());
    assert!(decodes(one.frames.clone()));
    assert!(!decodes(Vec::new()), "no frame at all");
    let block = |page: &[u8]| lz4_flex::block::compress(page);
    for (what, frame) in [
        ("half a page", one.frame(3, &block(&[1; 256]))),
        ("two pages", one.frame(3, &block(&[1; 1024]))),
        ("no LZ4", one.frame(3, &[0xff; 20])),
        ("nothing", one.frame(3, &[])),
        ("more than a page needs", one.frame(3, &[1; 531])),
    ] {
        assert!(!decodes(vec![(3, frame)]), "{what}");
    }
    let flagged = |flags: u8| {
        let mut frame = one.frames[0].clone();
        frame.1[5] = flags;
        vec![frame]
    };
    assert!(!decodes(flagged(0)) && !decodes(flagged(3)));
}

#[test]
fn a_size_that_no_page_needs_is_refused_before_it_is_read() {
    let sealed = seal(&plain(7, 3, 2), &[1]);
    let codec = outline(&sealed, &keyring(&[1], Plain::None)).unwrap().codec;
    for size in [0_u32, 28, 28 + 531, u32::MAX] {
        let frame = [&[0, 0, 0, 3, 0, 1][..], &size.to_be_bytes()].concat();
        let e = codec.decode(&frame, &mut [0; 512]).unwrap_err().to_string();
        assert!(e.contains("a sealed page has no"), "{e}");
    }
}

#[test]
fn the_index_is_found_from_the_end_with_the_last_frame() {
    let sealed = seal(&plain(7, 3, 40), &[1, 2, 3]);
    let (size, keyring) = (sealed.len() as u64, keyring(&[3], Plain::None));
    let tail = |len: u64| &sealed[(size - len) as usize..];
    let (mut len, mut asked) = (1, 0);
    let found = loop {
        match Outline::read(&sealed[..100], tail(len), size, &keyring).unwrap() {
            OutlineRead::Outline(found) => break found,
            OutlineRead::NeedMore(more) => {
                assert!(more > len && more <= size, "{len} {more}");
                (len, asked) = (more, asked + 1);
            }
        }
    };
    assert_eq!(asked, 3, "the size of the index, the index, the last frame");
    let last = found.index.iter().last().unwrap();
    assert_eq!(size - len, last.offset);
    let without = FrameCodec::plain(found.header.page_size);
    assert!(
        PageIndex::check_tail(tail(len), &found.codec).is_ok()
            && PageIndex::check_tail(tail(len), &without).is_ok()
    );
    assert!(
        matches!(PageIndex::from_tail(&sealed, size, found.codec.shape()), Ok(TailRead::Index(index)) if index == found.index)
    );
}

#[test]
fn parts_make_the_checksum_of_a_sealed_file() {
    let sealed = seal(&plain(7, 3, 5), &[1, 2]);
    let Outline { index, codec, .. } = outline(&sealed, &keyring(&[1], Plain::None)).unwrap();
    let mut hasher = PartHasher::default();
    hasher.update(&sealed[..index.first_frame() as usize]);
    let mut end = index.first_frame() as usize;
    for entry in index.iter() {
        end += entry.size as usize;
        hasher.frame(&sealed[entry.offset as usize..end], &codec, &mut [0; 512]).unwrap();
    }
    hasher.update(&sealed[end..sealed.len() - 8]);
    let stored = u64::from_be_bytes(*sealed.last_chunk().unwrap());
    assert_eq!(hasher.finish().of_file(), stored);
}

#[test]
fn as_many_recipients_as_there_can_be_take_bounded_time() {
    let (file, begun) = (for_a_crowd(&plain(7, 3, 2)), Instant::now());
    let e = decode(&file, &keyring(&[1], Plain::None)).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Denied);
    assert!(e.to_string().contains("65535 recipients"), "{e}");
    assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", begun.elapsed());
    // A file that only says so has no room for them.
    let mut bytes = seal(&plain(7, 3, 2), &[1]);
    bytes[80..82].copy_from_slice(&[0xff, 0xff]);
    assert!(decode(&bytes, &keyring(&[1], Plain::None)).is_err());
    assert!(outline(&bytes, &keyring(&[1], Plain::None)).is_err());
}

/// The pages of a database: some that compress, and some that do not.
fn content(size: u32, count: u32) -> Pages {
    let mut random = 0x9e37_79b9_u32 ^ size;
    let mut byte = || {
        random ^= random << 13;
        random ^= random >> 17;
        random ^= random << 5;
        random as u8
    };
    let mut page = |n: u32| (0..size).map(|_| if n.is_multiple_of(3) { n as u8 } else { byte() }).collect();
    (1..=count).map(|n| (Pgno::new(n).unwrap(), page(n))).collect()
}

fn recipients(seeds: &[u8]) -> Recipients {
    let hex = |seed: &u8| pair(*seed).1.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let texts: Vec<String> =
        seeds.iter().map(|seed| Recipient::from_hex(&hex(seed)).unwrap().to_string()).collect();
    Recipients::parse(&texts.join(" ")).unwrap()
}

fn written(size: u32, pages: &Pages, to: &[u8], stored: bool) -> (Vec<u8>, Summary) {
    let count = PageCount::new(pages.len() as u32);
    let name = FileName::single(Txid::ONE);
    let header = Header::new(PageSize::new(size).unwrap(), count, name, Timestamp::from_millis(1));
    let seal = Seal::new(header, &recipients(to)).unwrap();
    let encoder = Encoder::sealed(Vec::new(), seal).unwrap();
    let mut encoder = if stored { encoder.stored() } else { encoder };
    for (pgno, page) in pages {
        encoder.page(*pgno, page).unwrap();
    }
    encoder.finish().unwrap()
}

#[test]
fn what_is_written_opens_for_each_recipient_whatever_the_page_size() {
    for size in [512, 1024, 4096, 65536] {
        for (to, stored) in [(&[1][..], false), (&[1, 2, 3], false), (&[2], true)] {
            let pages = content(size, 7);
            let (bytes, summary) = written(size, &pages, to, stored);
            assert_eq!(summary.size, bytes.len() as u64);
            for seed in to {
                let keyring = keyring(&[*seed], Plain::None);
                let mut decoder = Decoder::open(&bytes[..], &keyring).unwrap();
                let mut page = vec![0; size as usize];
                for (pgno, content) in &pages {
                    assert_eq!(decoder.next_page(&mut page).unwrap(), Some(*pgno));
                    assert!(page == *content);
                }
                assert_eq!(decoder.finish().unwrap(), summary);
                let outline = Outline::read(&bytes, &bytes, bytes.len() as u64, &keyring).unwrap();
                assert!(matches!(outline, OutlineRead::Outline(_)));
            }
            assert!(Decoder::open(&bytes[..], &keyring(&[9], Plain::None)).is_err());
        }
    }
}

#[test]
fn nothing_of_a_page_is_in_clear_and_no_two_files_are_sealed_alike() {
    let pages = content(512, 5);
    let files = [0; 20].map(|_| written(512, &pages, &[1], false).0);
    for (_, page) in &pages {
        assert!(!files[0].windows(16).any(|bytes| bytes == &page[..16]));
    }
    // Encapsulated keys, sealed content keys, nonces, tags.
    for at in [100, 132, 180 + 10, files[0].len() - 16 - 80 - 16] {
        let there: std::collections::BTreeSet<&[u8]> =
            files.iter().map(|bytes| &bytes[at..at + 12]).collect();
        assert_eq!(there.len(), files.len(), "at {at}");
    }
}

#[test]
fn who_wrote_a_file_reads_it_by_its_content_key() {
    let pages = content(512, 5);
    let count = PageCount::new(5);
    let header = Header::new(PageSize::MIN, count, FileName::single(Txid::ONE), Timestamp::from_millis(1));
    let seal = Seal::new(header, &recipients(&[1, 2])).unwrap();
    let (id, key) = (seal.id(), seal.key().clone());
    let mut encoder = Encoder::sealed(Vec::new(), seal).unwrap();
    for (pgno, page) in &pages {
        encoder.page(*pgno, page).unwrap();
    }
    let (bytes, summary) = encoder.finish().unwrap();
    let find = |asked: &SealId| (*asked == id).then(|| key.clone());
    assert_eq!(Decoder::kept(&bytes[..], find).unwrap().finish().unwrap(), summary);
    let other = written(512, &pages, &[1, 2], false).0;
    assert_eq!(Decoder::kept(&other[..], find).unwrap_err().kind(), ErrorKind::Denied);
    let codec = FrameCodec::kept(&bytes, find).unwrap().unwrap();
    PageIndex::check_tail(&bytes, &codec).unwrap();
    assert!(FrameCodec::kept(&other, find).unwrap().is_none());
    let plain = Encoder::new(Vec::new(), header);
    let mut plain = plain.unwrap();
    pages.iter().for_each(|(pgno, page)| plain.page(*pgno, page).unwrap());
    let plain = plain.finish().unwrap().0;
    assert_eq!(Decoder::kept(&plain[..], find).unwrap_err().kind(), ErrorKind::Denied);
}

#[test]
fn a_sealed_file_without_pages_is_not_written() {
    let header = Header::new(
        PageSize::MIN,
        PageCount::new(5),
        FileName::single(Txid::new(2).unwrap()),
        Timestamp::from_millis(1),
    );
    let encoder = Encoder::sealed(Vec::new(), Seal::new(header, &recipients(&[1])).unwrap()).unwrap();
    assert_eq!(encoder.finish().unwrap_err().kind(), ErrorKind::Corrupt);
    assert!(Encoder::new(Vec::new(), recipients(&[1]).header(header)).is_err());
    assert!(Seal::new(header, &Recipients::default()).is_err());
}
