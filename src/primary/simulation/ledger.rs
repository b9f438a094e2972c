//! What everybody sees of a run who sees the body of each request and each file of the state folder, and has the identity:
//! what each content key was used for, and whether anything can be read without a key.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use aws_lc_rs::digest::{SHA256, digest};

use crate::ltx::sealing::{content_key_of, sample_keyring, sample_recipients};
use crate::ltx::{FileId, Header, Keyring, Level, Plain, Recipients};
use crate::store::Layout;

/// What every page has in its middle.
pub(super) const TOKEN: &[u8; 16] = b"pages have this!";
/// The place of the identity in the samples' keys.
const IDENTITY: usize = 0;
/// The size of a slot of the file of keys, and where it has a key.
const SLOT: usize = 96;
const KEY: std::ops::Range<usize> = 56..88;

type Key = [u8; 32];

/// A file that was sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Place {
    /// The body of a request for a file of this replica.
    Replica(&'static str, FileId),
    /// A file of the state folder.
    StateFolder,
}

/// What a content key was used for.
struct Use {
    place: Place,
    /// All of the file that was seen.
    body: Vec<u8>,
}

/// What was seen of several runs.
pub(super) struct Ledger {
    keyring: Keyring,
    /// Whether the files of this run are sealed.
    is_sealed: bool,
    /// The first level that is not merged.
    top: Level,
    /// By content key, in this run.
    uses: HashMap<Key, Use>,
    /// The file of each content key of earlier runs, as its SHA-256.
    earlier: HashMap<Key, [u8; 32]>,
    /// The nonces of all frames of all sealed files of earlier runs.
    nonces: HashSet<[u8; 12]>,
    /// The number of bodies in which the token of each page stood in clear.
    plain: usize,
}

impl Ledger {
    pub(super) fn new() -> Self {
        Self {
            keyring: sample_keyring(&[IDENTITY], Plain::None),
            is_sealed: false,
            top: Level::L0,
            uses: HashMap::new(),
            earlier: HashMap::new(),
            nonces: HashSet::new(),
            plain: 0,
        }
    }

    /// A run begins, of which levels below `top` are merged.
    pub(super) fn begin(&mut self, is_sealed: bool, top: Level) {
        self.end();
        (self.is_sealed, self.top, self.plain) = (is_sealed, top, 0);
    }

    /// A run has ended: keys and nonces that it used are never used again.
    pub(super) fn end(&mut self) {
        for (key, Use { body, place }) in self.uses.drain() {
            for nonce in nonces(&body) {
                assert!(self.nonces.insert(nonce), "a nonce of {place:?} was used before");
            }
            self.earlier.insert(key, hash(&body));
        }
    }

    /// The number of files that were sealed in runs that ended.
    pub(super) fn files(&self) -> usize {
        self.earlier.len()
    }

    /// Whom the files of this run are sealed to.
    pub(super) fn recipients(&self) -> Recipients {
        if self.is_sealed { sample_recipients(&[IDENTITY]) } else { Recipients::default() }
    }

    /// What opens them.
    pub(super) fn keyring(&self) -> Keyring {
        if self.is_sealed { self.keyring.clone() } else { Keyring::default() }
    }

    /// Whether nothing stood in clear so far.
    pub(super) const fn saw_nothing_plain(&self) -> bool {
        self.plain == 0
    }

    /// Something is sent to `replica` as `key`: all of it or, of an upload, what was sent by now.
    pub(super) fn sent(&mut self, replica: &'static str, key: &str, body: &[u8]) {
        let file = Layout::Ltx.file(key);
        if self.is_sealed
            && let Some(id) = file
        {
            self.add(Place::Replica(replica, id), body);
        }
        self.look_for_token(body, key);
    }

    /// A file of the state folder has these bytes.
    pub(super) fn found(&mut self, path: &Path, bytes: &[u8]) {
        if !self.is_sealed {
            return;
        }
        self.look_for_token(bytes, &path.display().to_string());
        if is_keys(path) {
            self.check_slots(bytes);
        } else if [b"LTX1", b"LTX4"].iter().any(|magic| bytes.starts_with(*magic)) {
            self.add(Place::StateFolder, bytes);
        }
    }

    fn look_for_token(&mut self, bytes: &[u8], name: &str) {
        if bytes.windows(TOKEN.len()).any(|window| window == TOKEN) {
            assert!(!self.is_sealed, "{name} has a page in clear");
            self.plain += 1;
        }
    }

    /// Notes what the content key of a file is used for: for one file only.
    fn add(&mut self, place: Place, body: &[u8]) {
        let Some(fixed) = body.first_chunk::<{ Header::SIZE }>() else { return };
        let header = Header::decode(fixed).expect("a header");
        assert!(header.is_sealed(), "{place:?} is not sealed");
        // The power failed before there was more of it.
        let Some(key) = content_key_of(body, self.keyring.identities()) else { return };
        assert!(!self.earlier.contains_key(&key), "the content key of {place:?} was used in an earlier run");
        let Some(known) = self.uses.get_mut(&key) else {
            self.uses.insert(key, Use { place, body: body.to_vec() });
            return;
        };
        let common = known.body.len().min(body.len());
        assert!(
            known.body[..common] == body[..common],
            "the content key of {place:?} was used for {:?} too, which has other bytes",
            known.place
        );
        if known.body.len() < body.len() {
            known.body = body.to_vec();
        }
    }

    /// Checks that no key is kept of what is never merged.
    fn check_slots(&self, keys: &[u8]) {
        for slot in keys.as_chunks::<SLOT>().0 {
            if let Some(Use { place: Place::Replica(_, id), .. }) = self.uses.get(&slot[KEY])
                && id.level >= self.top
                && id.level != Level::L0
            {
                panic!("the key of {id} is kept, which is never merged");
            }
        }
    }

    /// The files whose keys are anywhere in `keys`.
    pub(super) fn kept(&self, keys: &[u8]) -> Vec<Place> {
        keys.windows(KEY.len()).filter_map(|window| Some(self.uses.get(window)?.place)).collect()
    }
}

/// Whether this is the file of the keys that are kept.
pub(super) fn is_keys(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name == "keys")
}

fn hash(bytes: &[u8]) -> [u8; 32] {
    digest(&SHA256, bytes).as_ref().try_into().expect("SHA-256 has 32 bytes")
}

/// The nonces of the frames of a sealed file, of which the end may be missing.
fn nonces(file: &[u8]) -> Vec<[u8; 12]> {
    const HEAD: usize = 6 + 4;
    let recipients = u16::from_be_bytes([file[80], file[81]]);
    let mut rest = &file[Header::SIZE + 80 * usize::from(recipients)..];
    let mut nonces = Vec::new();
    while let Some((head, body)) = rest.split_at_checked(HEAD)
        && head[..6] != [0; 6]
        && let Some(nonce) = body.first_chunk()
    {
        nonces.push(*nonce);
        let size = u32::from_be_bytes([head[6], head[7], head[8], head[9]]);
        rest = body.get(size as usize..).unwrap_or_default();
    }
    nonces
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;
    use crate::ltx::sealing::{Sealing, sample_public};
    use crate::ltx::{Encoder, FileName, Txid};
    use crate::page::{PageCount, PageSize, Pgno};

    fn ledger() -> Ledger {
        let mut ledger = Ledger::new();
        ledger.begin(true, Level::new(2).unwrap());
        ledger
    }

    fn plain() -> Vec<u8> {
        let name = FileName::single(Txid::new(2).unwrap());
        let header = Header::new(PageSize::MIN, PageCount::new(1), name, Timestamp::from_millis(0));
        let mut encoder = Encoder::new(Vec::new(), header).unwrap();
        let mut page = [0; 512];
        page[..TOKEN.len()].copy_from_slice(TOKEN);
        encoder.page(Pgno::ONE, &page).unwrap();
        encoder.finish().unwrap().0
    }

    fn sealed() -> Sealing {
        Sealing::of(&plain(), &[sample_public(IDENTITY)])
    }

    const KEY_OF_FILE: &str = "ltx/0/0000000000000002-0000000000000002.ltx";

    #[test]
    fn a_retry_and_a_beginning_are_the_same_file() {
        let (mut ledger, file) = (ledger(), sealed().file());
        for len in [file.len(), 300, file.len()] {
            ledger.sent("one", KEY_OF_FILE, &file[..len]);
        }
        ledger.sent("one", KEY_OF_FILE, &sealed().file());
        ledger.end();
        assert_eq!(ledger.files(), 2);
    }

    #[test]
    #[should_panic(expected = "which has other bytes")]
    fn a_content_key_of_two_files_is_noticed() {
        let (mut ledger, mut sealing) = (ledger(), sealed());
        ledger.sent("one", KEY_OF_FILE, &sealing.file());
        sealing.frames[0].1 = sealing.frame(1, &lz4_flex::block::compress(&[7; 512]));
        ledger.found(Path::new("spool/2"), &sealing.file());
    }

    #[test]
    #[should_panic(expected = "a nonce of")]
    fn a_nonce_of_two_files_is_noticed() {
        let (mut ledger, mut other) = (ledger(), sealed());
        let one = sealed();
        ledger.sent("one", KEY_OF_FILE, &one.file());
        other.frames.clone_from(&one.frames);
        ledger.sent("one", KEY_OF_FILE, &other.file());
        ledger.end();
    }

    #[test]
    #[should_panic(expected = "is not sealed")]
    fn a_file_that_is_not_sealed_is_noticed() {
        ledger().sent("one", KEY_OF_FILE, &plain());
    }

    #[test]
    #[should_panic(expected = "has a page in clear")]
    fn a_page_in_clear_is_noticed() {
        ledger().found(Path::new("restored"), TOKEN);
    }

    #[test]
    #[should_panic(expected = "which is never merged")]
    fn a_key_of_a_snapshot_is_noticed() {
        let (mut ledger, sealing) = (ledger(), sealed());
        ledger.sent("one", "ltx/9/0000000000000002-0000000000000002.ltx", &sealing.file());
        let slot = [&[1; 56][..], &sealing.content_key, &[0; 8]].concat();
        ledger.found(Path::new("replicas/one/keys"), &slot);
    }
}
