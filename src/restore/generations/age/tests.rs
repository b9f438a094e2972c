//! A file that Litestream 0.3.13 encrypted is decrypted; what was changed is not.

use std::fs;
use std::path::Path;

use super::*;

fn golden(name: &str) -> Vec<u8> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/litestream-0.3");
    if name == "identity" {
        return fs::read(folder.join(name)).unwrap();
    }
    let generation = fs::read_dir(folder.join("age/generations")).unwrap().next().unwrap().unwrap().path();
    fs::read(generation.join(name)).unwrap()
}

fn identities() -> Identities {
    Identities::parse(std::str::from_utf8(&golden("identity")).unwrap()).unwrap()
}

fn decrypt(sealed: &[u8], identities: &Identities) -> Result<Vec<u8>> {
    let mut plain = Vec::new();
    Plaintext::open(sealed, identities)?.read_to_end(&mut plain).map_err(failure)?;
    Ok(plain)
}

#[test]
fn a_real_file_is_decrypted() {
    let plain = decrypt(&golden("snapshots/00000003.snapshot.lz4"), &identities()).unwrap();
    assert_eq!(plain[..4], 0x184D_2204_u32.to_le_bytes(), "an LZ4 frame");
}

#[test]
fn whatever_is_changed_or_cut_off_is_refused() {
    let sound = golden("snapshots/00000000.snapshot.lz4");
    let identities = identities();
    assert!(decrypt(&sound, &identities).is_ok());
    for at in 0..sound.len() {
        let mut changed = sound.clone();
        changed[at] ^= 1;
        assert!(decrypt(&changed, &identities).is_err(), "byte {at}");
        assert!(decrypt(&sound[..at], &identities).is_err(), "{at} bytes");
    }
    assert!(decrypt(&[sound.as_slice(), b"x"].concat(), &identities).is_err());
}

#[test]
fn identities_are_read_as_age_keygen_writes_them() {
    let text = String::from_utf8(golden("identity")).unwrap();
    let identity = text.trim();
    for good in [
        format!("# created: 2026-01-31\n# public key: age1\n{identity}\n"),
        format!("  {identity}\r\n\n{identity}"),
        identity.to_lowercase(),
    ] {
        let sealed = golden("snapshots/00000000.snapshot.lz4");
        assert!(decrypt(&sealed, &Identities::parse(&good).unwrap()).is_ok());
    }
    assert_eq!(format!("{:?}", identities()), "1 age identities");
    let misspelled = identity.replace("KEY-1", "KEY-1Q");
    for bad in ["", "# nothing\n", "AGE-SECRET-KEY-1", &misspelled, &identity[..70], "age1qqqq"] {
        let e = Identities::parse(bad).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Config);
        assert!(!e.to_string().contains(&identity[20..]), "{e}");
    }
}

/// A long file has many chunks, and the number of the last one is part of its seal.
#[test]
fn chunks_cannot_be_left_out_or_moved() {
    let key = derive(b"a file's key 16B", &[7; 16], b"payload");
    let plain: Vec<u8> = (0..200_000_u32).map(|i| (i >> 3) as u8).collect();
    let seal = |n: usize, chunk: &[u8], last: bool| {
        let mut nonce = [0; 12];
        nonce[3..11].copy_from_slice(&(n as u64).to_be_bytes());
        nonce[11] = u8::from(last);
        let key = LessSafeKey::new(UnboundKey::new(&aead::CHACHA20_POLY1305, &key).unwrap());
        let mut sealed = chunk.to_vec();
        key.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::empty(), &mut sealed).unwrap();
        sealed
    };
    let chunks: Vec<Vec<u8>> =
        plain.chunks(64 * 1024).enumerate().map(|(n, chunk)| seal(n, chunk, n == 3)).collect();
    let read = |chunks: &[&[u8]]| {
        let file = [&[7; 16], chunks.concat().as_slice()].concat();
        let mut out = Vec::new();
        let read = Payload::open(file.as_slice(), b"a file's key 16B").unwrap().read_to_end(&mut out);
        read.ok().map(|_| out)
    };
    let [a, b, c, d] = &chunks.iter().map(Vec::as_slice).collect::<Vec<_>>()[..] else { panic!("4 chunks") };
    assert_eq!(read(&[a, b, c, d]).as_deref(), Some(plain.as_slice()));
    for wrong in [vec![*a, *b, *c], vec![*a, *c, *b, *d], vec![*a, *b, *d], vec![*b, *c, *d], vec![]] {
        assert_eq!(read(&wrong), None);
    }
    assert_eq!(read(&[&seal(0, b"", true)]).as_deref(), Some(&[][..]), "an empty file");
    assert_eq!(read(&[a, b, c, &seal(3, &plain[..1], false)]), None, "the last one does not say so");
    let full = &plain[..3 * 64 * 1024];
    assert_eq!(read(&[a, b, &seal(2, &full[2 * 64 * 1024..], true)]).as_deref(), Some(full));
    assert_eq!(read(&[a, b, c, &seal(3, b"", true)]), None, "an empty last chunk");
}
