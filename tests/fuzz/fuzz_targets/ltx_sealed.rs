//! Any bytes as a sealed file: whoever has no key makes none that verifies, and no page that was not sealed.
#![no_main]

mod heap;

use std::collections::HashSet;
use std::fs;
use std::path::Path;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use litestream_vfs::error::Result;
use litestream_vfs::ltx::{Decoder, Identities, Keyring, Outline, OutlineRead, Plain};
use litestream_vfs::page::Pgno;

/// What the reference implementation sealed.
struct Samples {
    keyring: Keyring,
    files: HashSet<Vec<u8>>,
    pages: HashSet<(Pgno, Vec<u8>)>,
}

static SAMPLES: LazyLock<Samples> = LazyLock::new(|| {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../golden/ltx4");
    let keys = fs::read(folder.join("keys.json")).expect("the keys of the samples");
    let keys: serde_json::Value = serde_json::from_slice(&keys).expect("they are JSON");
    let keys: Vec<&str> =
        keys.as_array().expect("a list").iter().filter_map(|key| key["identity"].as_str()).collect();
    let identities = Identities::parse(&keys.join("\n")).expect("they are identities");
    let mut samples = Samples {
        keyring: Keyring::new(identities, Plain::None),
        files: HashSet::new(),
        pages: HashSet::new(),
    };
    samples.add(&folder);
    assert!(samples.files.len() > 20);
    samples
});

impl Samples {
    fn add(&mut self, folder: &Path) {
        for entry in fs::read_dir(folder).expect("the samples") {
            let path = entry.expect("a sample").path();
            if path.is_dir() {
                self.add(&path);
            } else if let Ok(bytes) = fs::read(&path)
                && let Ok(pages) = decode(&bytes, &self.keyring)
            {
                self.pages.extend(pages);
                self.files.insert(bytes);
            }
        }
    }
}

fuzz_target!(init: { LazyLock::force(&SAMPLES); heap::limit_until_panic() }, |bytes: &[u8]| {
    let _ = Decoder::verifying(bytes, &Keyring::default()).and_then(Decoder::finish);
    if decode(bytes, &SAMPLES.keyring).is_ok() {
        assert!(SAMPLES.files.contains(bytes), "a file that nobody sealed");
    }
    for head in [bytes.len(), bytes.len().min(100)] {
        let read = Outline::read(&bytes[..head], bytes, bytes.len() as u64, &SAMPLES.keyring);
        let Ok(OutlineRead::Outline(outline)) = read else { continue };
        let mut page = vec![0; outline.header.page_size.bytes()];
        for entry in outline.index.iter() {
            let frame = &bytes[entry.offset as usize..(entry.offset + entry.size) as usize];
            if let Ok(pgno) = outline.codec.decode(frame, &mut page) {
                assert!(SAMPLES.pages.contains(&(pgno, page.clone())), "a page that nobody sealed");
            }
        }
    }
});

fn decode(bytes: &[u8], keyring: &Keyring) -> Result<Vec<(Pgno, Vec<u8>)>> {
    let mut decoder = Decoder::open(bytes, keyring)?;
    let mut page = vec![0; decoder.header().page_size.bytes()];
    let mut pages = Vec::new();
    while let Some(pgno) = decoder.next_page(&mut page)? {
        pages.push((pgno, page.clone()));
    }
    decoder.finish()?;
    Ok(pages)
}
