//! HPKE (RFC 9180) in base mode, as a single shot: what sealed files have their content keys wrapped with.
//!
//! The suite is DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, ChaCha20-Poly1305. The primitives are those that TLS uses here;
//! X25519 clamps private keys and refuses a shared secret of zeros.

use aws_lc_rs::aead::{self, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::agreement::{PrivateKey, UnparsedPublicKey, X25519, agree};
use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Prk};
use aws_lc_rs::hmac;
use zeroize::Zeroizing;

use super::content_key::ContentKey;
use super::random;
use crate::error::{Error, ErrorKind, Result};

/// The size of an encapsulated key.
const ENCAPSULATED: usize = 32;
/// The size of a content key.
const CONTENT_KEY: usize = 32;
/// The size of an authentication tag.
pub(in crate::ltx) const TAG: usize = 16;
/// The size of what one recipient has in a file: encapsulated key, sealed content key, tag.
pub(in crate::ltx) const ENTRY: usize = ENCAPSULATED + CONTENT_KEY + TAG;
/// What content keys are sealed for.
const INFO: &[u8] = b"ltx-cek-wrap";

/// The suite as the key schedule names it: "HPKE", then KEM, KDF and AEAD.
const SUITE: &[u8] = b"HPKE\x00\x20\x00\x01\x00\x03";
/// The KEM as it names itself.
const KEM: &[u8] = b"KEM\x00\x20";
const VERSION: &[u8] = b"HPKE-v1";

/// Bytes that wipe themselves.
type Key = Zeroizing<[u8; 32]>;

/// Opens the content key that `entry` seals to the key pair `secret` and `public`; `None` if it was sealed to another.
pub(super) fn open(secret: &PrivateKey, public: &[u8; 32], entry: &[u8; ENTRY]) -> Option<ContentKey> {
    let (encapsulated, sealed) = entry.split_first_chunk::<ENCAPSULATED>()?;
    let shared = decapsulate(secret, public, encapsulated)?;
    let (key, nonce) = schedule(&shared, INFO);
    let mut opened = Zeroizing::new([0; CONTENT_KEY + TAG]);
    opened.copy_from_slice(sealed);
    let key = unbound(&key);
    let plain = key.open_in_place(Nonce::assume_unique_for_key(nonce), Aad::empty(), &mut *opened).ok()?;
    let mut opened = Zeroizing::new([0; CONTENT_KEY]);
    opened.copy_from_slice(plain);
    Some(ContentKey::of(opened))
}

/// Seals `content_key` to the public key `to`: what that recipient has in a file. The ephemeral key comes from the
/// operating system.
///
/// # Errors
/// `Io` if the system gives no random numbers; `Config` if nothing can be sealed to `to`.
pub(super) fn seal(to: &[u8; 32], content_key: &ContentKey) -> Result<[u8; ENTRY]> {
    let refused = || Error::new(ErrorKind::Config, "nothing can be sealed to this recipient");
    let secret: Zeroizing<[u8; 32]> = random()?;
    let secret = PrivateKey::from_private_key(&X25519, &*secret).map_err(|_| refused())?;
    let public = secret.compute_public_key().map_err(|_| refused())?;
    let encapsulated: &[u8] = public.as_ref();
    let theirs = UnparsedPublicKey::new(&X25519, to.as_slice());
    let shared = agree(&secret, theirs, (), |dh| Ok(extract_and_expand(dh, encapsulated, to)));
    let (key, nonce) = schedule(&shared.map_err(|()| refused())?, INFO);
    let mut sealed = Zeroizing::new(*content_key.bytes());
    let tag = unbound(&key)
        .seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), Aad::empty(), &mut *sealed)
        .map_err(|_| refused())?;
    let mut entry = [0; ENTRY];
    entry[..ENCAPSULATED].copy_from_slice(encapsulated);
    entry[ENCAPSULATED..ENCAPSULATED + CONTENT_KEY].copy_from_slice(&*sealed);
    entry[ENCAPSULATED + CONTENT_KEY..].copy_from_slice(tag.as_ref());
    Ok(entry)
}

/// The key of ChaCha20-Poly1305 that `bytes` are.
pub(super) fn unbound(bytes: &[u8; 32]) -> LessSafeKey {
    LessSafeKey::new(UnboundKey::new(&aead::CHACHA20_POLY1305, bytes).expect("BUG: the key has its size"))
}

/// `Decap` of section 4.1: the secret that the sender shares with the key pair.
fn decapsulate(secret: &PrivateKey, public: &[u8; 32], encapsulated: &[u8; 32]) -> Option<Key> {
    let theirs = UnparsedPublicKey::new(&X25519, encapsulated.as_slice());
    agree(secret, theirs, (), |dh| Ok(extract_and_expand(dh, encapsulated, public))).ok()
}

/// `ExtractAndExpand` of section 4.1: what both sides make of the Diffie-Hellman secret `dh`.
fn extract_and_expand(dh: &[u8], encapsulated: &[u8], public: &[u8]) -> Key {
    let prk = labeled_extract(KEM, &[], b"eae_prk", dh);
    labeled_expand(KEM, &prk, b"shared_secret", &[encapsulated, public].concat())
}

/// Key and nonce with which a sender seals a content key.
#[cfg(test)]
pub(super) fn seal_schedule(dh: &[u8], encapsulated: &[u8], public: &[u8]) -> (Key, [u8; 12]) {
    schedule(&extract_and_expand(dh, encapsulated, public), INFO)
}

/// `KeySchedule` of section 5.1 in base mode: key and nonce of the only message.
fn schedule(shared: &Key, info: &[u8]) -> (Key, [u8; 12]) {
    let psk = labeled_extract(SUITE, &[], b"psk_id_hash", &[]);
    let info = labeled_extract(SUITE, &[], b"info_hash", info);
    let context = [&[0], psk.as_slice(), info.as_slice()].concat();
    let secret = labeled_extract(SUITE, shared.as_slice(), b"secret", &[]);
    let key = labeled_expand(SUITE, &secret, b"key", &context);
    (key, *labeled_expand(SUITE, &secret, b"base_nonce", &context))
}

/// `LabeledExtract` of section 4. An extract of HKDF is the HMAC of its input, with the salt as key (RFC 5869).
fn labeled_extract(suite: &[u8], salt: &[u8], label: &[u8], input: &[u8]) -> Key {
    let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, salt));
    for part in [VERSION, suite, label, input] {
        context.update(part);
    }
    Zeroizing::new(context.sign().as_ref().try_into().expect("BUG: SHA-256 has 32 bytes"))
}

/// `LabeledExpand` of section 4.
fn labeled_expand<const N: usize>(suite: &[u8], prk: &Key, label: &[u8], info: &[u8]) -> Zeroizing<[u8; N]> {
    let length = u16::try_from(N).expect("BUG: keys are short").to_be_bytes();
    expand(prk, &[&length, VERSION, suite, label, info])
}

/// `HKDF-Expand` with SHA-256 (RFC 5869) of the key `prk`, for what the parts of `info` say.
pub(super) fn expand<const N: usize>(prk: &[u8; 32], info: &[&[u8]]) -> Zeroizing<[u8; N]> {
    struct Length(usize);
    impl KeyType for Length {
        fn len(&self) -> usize {
            self.0
        }
    }
    let mut out = Zeroizing::new([0; N]);
    Prk::new_less_safe(HKDF_SHA256, prk)
        .expand(info, Length(N))
        .and_then(|okm| okm.fill(&mut *out))
        .expect("BUG: so few bytes can be derived");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex<const N: usize>(text: &str) -> [u8; N] {
        let byte = |at| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).unwrap();
        assert_eq!(text.len(), 2 * N);
        std::array::from_fn(byte)
    }

    /// Appendix A.2.1 of RFC 9180: this suite, base mode.
    #[test]
    fn it_is_hpke_by_the_vectors_of_the_rfc() {
        let secret: [u8; 32] = hex("8057991eef8f1f1af18f4a9491d16a1ce333f695d4db8e38da75975c4478e0fb");
        let public: [u8; 32] = hex("4310ee97d88cc1f088a5576c77ab0cf5c3ac797f3d95139c6c84b5429c59662a");
        let encapsulated: [u8; 32] = hex("1afa08d3dec047a643885163f1180476fa7ddb54c6a8029ea33f95796bf2ac4a");
        let info: [u8; 20] = hex("4f6465206f6e2061204772656369616e2055726e");
        let secret = PrivateKey::from_private_key(&X25519, &secret).unwrap();
        assert_eq!(secret.compute_public_key().unwrap().as_ref(), public);

        let shared = decapsulate(&secret, &public, &encapsulated).unwrap();
        assert_eq!(*shared, hex("0bbe78490412b4bbea4812666f7916932b828bba79942424abb65244930d69a7"));
        let (key, nonce) = schedule(&shared, &info);
        assert_eq!(*key, hex("ad2744de8e17f4ebba575b3f5f5a8fa1f69c2a07f6e7500bc60ca6e3e3ec1c91"));
        assert_eq!(nonce, hex("5c4d98150661b848853b547f"));

        let aad: [u8; 7] = hex("436f756e742d30");
        let mut sealed: [u8; 45] =
            hex("1c5250d8034ec2b784ba2cfd69dbdb8af406cfe3ff938e131f0def8c8b60b4db21993c62ce81883d2dd1b51a28");
        let opened = unbound(&key).open_in_place(
            Nonce::assume_unique_for_key(nonce),
            Aad::from(aad.as_slice()),
            &mut sealed,
        );
        assert_eq!(opened.unwrap(), b"Beauty is truth, truth beauty");
    }

    #[test]
    fn what_is_sealed_to_one_opens_for_that_one_alone_and_never_looks_the_same() {
        let pair = |seed: u8| {
            let secret = PrivateKey::from_private_key(&X25519, &[seed; 32]).unwrap();
            let public: [u8; 32] = secret.compute_public_key().unwrap().as_ref().try_into().unwrap();
            (secret, public)
        };
        let ((secret, public), (other, others)) = (pair(3), pair(4));
        let key = ContentKey::generate().unwrap();
        let entries = [seal(&public, &key).unwrap(), seal(&public, &key).unwrap()];
        assert_ne!(entries[0], entries[1]);
        for entry in &entries {
            assert_eq!(open(&secret, &public, entry).unwrap().bytes(), key.bytes());
            assert!(open(&other, &others, entry).is_none());
        }
    }

    #[test]
    fn a_shared_secret_of_zeros_is_refused() {
        let secret = PrivateKey::from_private_key(&X25519, &[7; 32]).unwrap();
        assert!(decapsulate(&secret, &[9; 32], &[0; 32]).is_none());
    }
}
