//! Sealed files for tests, written down as plainly as possible.

use std::cell::Cell;
use std::fs;
use std::path::{Path, PathBuf};

use aws_lc_rs::aead::{Aad, LessSafeKey, Nonce};
use aws_lc_rs::agreement::{PrivateKey, UnparsedPublicKey, X25519, agree};
use aws_lc_rs::digest::{SHA256, digest};

use super::hpke::{self, ENTRY, expand, seal_schedule, unbound};
use super::{Identities, Keyring, Plain, Recipients};
use crate::ltx::tests::oracle::crc;
use crate::ltx::{Decoder, Header, HeaderFlags};

thread_local! {
    /// Content keys and nonces of tests need not be secret, only different.
    static NEXT: Cell<u64> = const { Cell::new(1) };
}

/// Bytes that no other call in this thread gave.
fn fresh<const N: usize>() -> [u8; N] {
    let n = NEXT.replace(NEXT.get() + 1);
    let hash = digest(&SHA256, &n.to_be_bytes());
    hash.as_ref()[..N].try_into().unwrap()
}

/// The folder of a sample that the reference implementation wrote.
pub(crate) fn sample(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/ltx4").join(name)
}

/// The identities of the samples with these places in `keys.json`, with which `plain` files are taken.
pub(crate) fn sample_keyring(places: &[usize], plain: Plain) -> Keyring {
    let keys: serde_json::Value = serde_json::from_slice(&fs::read(sample("keys.json")).unwrap()).unwrap();
    let of = |place: &usize| keys[place]["identity"].as_str().unwrap().to_owned();
    let text = places.iter().map(of).collect::<Vec<_>>().join("\n");
    let identities =
        if places.is_empty() { Identities::default() } else { Identities::parse(&text).unwrap() };
    Keyring::new(identities, plain)
}

/// The public keys of the samples with these places.
pub(crate) fn sample_recipients(places: &[usize]) -> Recipients {
    let keys: serde_json::Value = serde_json::from_slice(&fs::read(sample("keys.json")).unwrap()).unwrap();
    let of = |place: &usize| keys[place]["recipient"].as_str().unwrap().to_owned();
    Recipients::parse(&places.iter().map(of).collect::<Vec<_>>().join("\n")).unwrap()
}

/// The bytes of the public key of the sample with this place.
pub(crate) fn sample_public(place: usize) -> [u8; 32] {
    *sample_recipients(&[place]).iter().next().unwrap().bytes()
}

/// The content key of the sealed file that begins with `head`; `None` if none of `identities` opens it, or it ends before.
pub(crate) fn content_key_of(head: &[u8], identities: &Identities) -> Option<[u8; 32]> {
    let header = Header::decode(head.first_chunk()?).ok()?;
    let entries = head.get(Header::SIZE..super::head_size(&header))?.as_chunks::<ENTRY>().0;
    let open = |entry| identities.find_map(|one| hpke::open(&one.secret, &one.public, entry));
    entries.iter().find_map(open).map(|key| *key.bytes())
}

/// A private key for each `seed`, and its public key.
pub(crate) fn pair(seed: u8) -> ([u8; 32], [u8; 32]) {
    let secret = [seed; 32];
    let public = PrivateKey::from_private_key(&X25519, &secret).unwrap().compute_public_key().unwrap();
    (secret, public.as_ref().try_into().unwrap())
}

/// A keyring that has these private keys, and takes `plain` files.
pub(crate) fn keyring(seeds: &[u8], plain: Plain) -> Keyring {
    let hex = |seed: &u8| format!("{seed:02x}").repeat(32);
    let identities = match seeds {
        [] => Identities::default(),
        _ => Identities::parse(&seeds.iter().map(hex).collect::<Vec<_>>().join("\n")).unwrap(),
    };
    Keyring::new(identities, plain)
}

/// The plain file `plain`, sealed to the key pairs of `seeds`.
pub(crate) fn seal(plain: &[u8], seeds: &[u8]) -> Vec<u8> {
    let recipients: Vec<[u8; 32]> = seeds.iter().map(|seed| pair(*seed).1).collect();
    Sealing::of(plain, &recipients).file()
}

/// The parts of a sealed file.
#[derive(Clone)]
pub(crate) struct Sealing {
    pub(crate) header: Header,
    pub(crate) content_key: [u8; 32],
    pub(crate) recipients: Vec<u8>,
    /// Page number and frame, with its head and size.
    pub(crate) frames: Vec<(u32, Vec<u8>)>,
    /// What seals the page index; `None` for what belongs there.
    pub(crate) tag: Option<[u8; 16]>,
}

impl Sealing {
    /// The parts of the sealed form of `plain`.
    pub(crate) fn of(plain: &[u8], recipients: &[[u8; 32]]) -> Self {
        let mut decoder = Decoder::new(plain).unwrap();
        let mut header = Header { lineage: None, recipients: recipients.len() as u16, ..*decoder.header() };
        header.flags = HeaderFlags::from_bits(header.flags.bits() | HeaderFlags::SEALED.bits()).unwrap();
        let content_key = fresh();
        let mut sealing = Self {
            header,
            content_key,
            recipients: recipients.iter().flat_map(|to| wrap(to, &content_key)).collect(),
            frames: Vec::new(),
            tag: None,
        };
        let mut page = vec![0; header.page_size.bytes()];
        while let Some(pgno) = decoder.next_page(&mut page).unwrap() {
            let frame = sealing.frame(pgno.get(), &lz4_flex::block::compress(&page));
            sealing.frames.push((pgno.get(), frame));
        }
        sealing
    }

    /// The frame of page `pgno` whose LZ4 block is `block`.
    pub(crate) fn frame(&self, pgno: u32, block: &[u8]) -> Vec<u8> {
        let head = [&pgno.to_be_bytes()[..], &[0, 1]].concat();
        let bound = [digest(&SHA256, &self.header.encode()).as_ref(), &pgno.to_be_bytes(), &head].concat();
        let nonce: [u8; 12] = fresh();
        let mut sealed = block.to_vec();
        let key = unbound(&expand(&self.content_key, &[b"ltx-page-key"]));
        add_tag(&key, nonce, &bound, &mut sealed);
        let body = [&nonce[..], &sealed].concat();
        [&head[..], &(body.len() as u32).to_be_bytes(), &body].concat()
    }

    fn index(&self) -> Vec<u8> {
        let mut index = Vec::new();
        let mut offset = 100 + self.recipients.len();
        for (pgno, frame) in &self.frames {
            for n in [*pgno as usize, offset, frame.len()] {
                put_varint(&mut index, n);
            }
            offset += frame.len();
        }
        index.push(0);
        let size = index.len() as u64;
        [index, size.to_be_bytes().to_vec()].concat()
    }

    /// The tag of its page index.
    pub(crate) fn own_tag(&self) -> [u8; 16] {
        let key = unbound(&expand(&self.content_key, &[b"ltx-index-key"]));
        let mut tag = Vec::new();
        add_tag(&key, *b"ltx-idx-auth", &self.index(), &mut tag);
        tag.try_into().unwrap()
    }

    /// The file, with a checksum that holds.
    pub(crate) fn file(&self) -> Vec<u8> {
        let frames: Vec<u8> = self.frames.iter().flat_map(|(_, frame)| frame.clone()).collect();
        let tag = self.tag.unwrap_or_else(|| self.own_tag());
        let parts = [
            &self.header.encode()[..],
            &self.recipients,
            &frames,
            &[0; 6],
            &self.index(),
            &tag,
            &self.recipients,
            &[0; 8],
        ];
        whole(parts.concat())
    }
}

/// All forms of the sealed file `of`, for `name` to tell them apart, that have one part of `other` in place of their own, and
/// a file checksum that holds.
pub(crate) fn with_parts_of(of: &Sealing, other: &Sealing) -> Vec<(&'static str, Vec<u8>)> {
    let changed = |change: fn(&mut Sealing, &Sealing)| {
        let mut forged = of.clone();
        change(&mut forged, other);
        forged.file()
    };
    vec![
        ("header", changed(|forged, other| forged.header = other.header)),
        ("recipients", changed(|forged, other| forged.recipients.clone_from(&other.recipients))),
        ("first frame", changed(|forged, other| forged.frames[0] = other.frames[0].clone())),
        ("frames", changed(|forged, other| forged.frames.clone_from(&other.frames))),
        ("index tag", changed(|forged, other| forged.tag = Some(other.own_tag()))),
        (
            "index",
            changed(|forged, _| {
                let tag = forged.own_tag();
                forged.frames.pop();
                forged.tag = Some(tag);
            }),
        ),
        (
            "all but the header",
            changed(|forged, other| *forged = Sealing { header: forged.header, ..other.clone() }),
        ),
    ]
}

/// The plain file `plain`, which says that it is sealed to as many as there can be, to none of whom it is.
pub(crate) fn for_a_crowd(plain: &[u8]) -> Vec<u8> {
    let mut crowd = Sealing::of(plain, &[pair(1).1]);
    crowd.header.recipients = u16::MAX;
    crowd.recipients = (0..usize::from(u16::MAX) * ENTRY).map(|n| (n / 3) as u8).collect();
    crowd.file()
}

/// The bytes of a file but its checksum, and that.
pub(crate) fn whole(bytes: Vec<u8>) -> Vec<u8> {
    let checksum = (1 << 63 | crc(&bytes)).to_be_bytes();
    [bytes, checksum.to_vec()].concat()
}

/// What the recipient with the public key `to` has in a file.
fn wrap(to: &[u8; 32], content_key: &[u8; 32]) -> [u8; ENTRY] {
    let ephemeral = PrivateKey::from_private_key(&X25519, &fresh::<32>()).unwrap();
    let public = ephemeral.compute_public_key().unwrap();
    let theirs = UnparsedPublicKey::new(&X25519, to.as_slice());
    let (key, nonce) =
        agree(&ephemeral, theirs, (), |dh| Ok(seal_schedule(dh, public.as_ref(), to))).unwrap();
    let mut sealed = content_key.to_vec();
    add_tag(&unbound(&key), nonce, &[], &mut sealed);
    [public.as_ref(), &sealed].concat().try_into().unwrap()
}

fn add_tag(key: &LessSafeKey, nonce: [u8; 12], bound: &[u8], sealed: &mut Vec<u8>) {
    key.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(bound), sealed).unwrap();
}

fn put_varint(out: &mut Vec<u8>, n: usize) {
    if n < 128 {
        out.push(n as u8);
    } else {
        out.push((n % 128 + 128) as u8);
        put_varint(out, n / 128);
    }
}
