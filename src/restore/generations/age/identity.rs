//! The secret keys that open encrypted files.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::agreement::{PrivateKey, UnparsedPublicKey, X25519, agree};
use bech32::Bech32;
use bech32::primitives::decode::CheckedHrpstring;

use super::{derive, unseal};
use crate::error::{Error, Result};

/// What the text of an identity begins with, before its `1`.
const PREFIX: &str = "age-secret-key-";
/// What a key is derived for.
const PURPOSE: &[u8] = b"age-encryption.org/v1/X25519";

/// Secret keys. They are never printed.
#[derive(Clone, Default)]
pub struct Identities(Arc<[Identity]>);

struct Identity {
    secret: PrivateKey,
    public: [u8; 32],
}

impl Identities {
    /// Reads identities, one a line or separated by spaces: `AGE-SECRET-KEY-1…`. Lines that begin with
    /// `#` are comments, as `age-keygen` writes them.
    ///
    /// # Errors
    /// `Config` if one cannot be read, or there is none. The text is not repeated.
    pub fn parse(text: &str) -> Result<Self> {
        let lines = text.lines().map(str::trim).filter(|line| !line.starts_with('#'));
        let words: Vec<&str> = lines.flat_map(str::split_whitespace).collect();
        if words.is_empty() {
            return Err(malformed("there is none"));
        }
        words.into_iter().map(Identity::parse).collect::<Result<Vec<_>>>().map(|all| Self(all.into()))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The file key that was sealed to one of these.
    pub(super) fn unwrap(&self, ephemeral: &[u8; 32], sealed: &[u8; 32]) -> Option<[u8; 16]> {
        self.0.iter().find_map(|identity| identity.unwrap(ephemeral, sealed))
    }
}

impl Identity {
    fn parse(word: &str) -> Result<Self> {
        let decoded = CheckedHrpstring::new::<Bech32>(word)
            .map_err(|_| malformed("one is misspelled or cut off; each begins with AGE-SECRET-KEY-1"))?;
        if decoded.hrp().to_lowercase() != PREFIX {
            return Err(malformed("one is of another kind; each begins with AGE-SECRET-KEY-1"));
        }
        let secret: Vec<u8> = decoded.byte_iter().collect();
        let secret =
            PrivateKey::from_private_key(&X25519, &secret).map_err(|_| malformed("one is no X25519 key"))?;
        let public = secret.compute_public_key().map_err(|_| malformed("one is no X25519 key"))?;
        let public = public.as_ref().try_into().map_err(|_| malformed("one is no X25519 key"))?;
        Ok(Self { secret, public })
    }

    fn unwrap(&self, ephemeral: &[u8; 32], sealed: &[u8; 32]) -> Option<[u8; 16]> {
        let salt = [ephemeral.as_slice(), &self.public].concat();
        let theirs = UnparsedPublicKey::new(&X25519, ephemeral.as_slice());
        let key = agree(&self.secret, theirs, (), |shared| Ok(derive(shared, &salt, PURPOSE))).ok()?;
        let mut sealed = *sealed;
        unseal(&key, [0; 12], &mut sealed)?.try_into().ok()
    }
}

impl fmt::Debug for Identities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} age identities", self.0.len())
    }
}

fn malformed(what: &str) -> Error {
    Error::config(format!("age identities: {what}"))
}
