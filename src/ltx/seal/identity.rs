//! Private keys, which open what was sealed to them.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use aws_lc_rs::agreement::{PrivateKey, X25519};
use bech32::primitives::decode::CheckedHrpstring;
use bech32::{Bech32, ByteIterExt as _, Fe32IterExt as _, Hrp};
use zeroize::Zeroizing;

use super::random;
use super::recipient::{Recipient, read_hex};
use crate::error::{Error, Result};
use crate::secret::SecretBytes;

/// What the text of an identity begins with, before its `1`.
const PREFIX: Hrp = Hrp::parse_unchecked("age-secret-key-");
/// The size of a private key.
const KEY: usize = 32;
/// More than the letters of an identity, and the end of its line.
const LONGEST: usize = 128;
/// Identities of age that are no X25519 keys, by how they begin.
const OTHERS: [(&str, &str); 4] = [
    ("AGE-SECRET-KEY-PQ-", "a post-quantum one"),
    ("AGE-PLUGIN-", "one of a plugin"),
    ("-----BEGIN ", "an SSH key or an encrypted file"),
    ("age1", "a public key, a recipient"),
];

/// Private keys. They lie in one piece of memory for secrets, and are never printed; two lists are equal if their
/// public keys are.
#[derive(Clone, Default)]
pub struct Identities(Arc<Keys>);

struct Keys {
    /// The private keys, one after the other.
    secrets: SecretBytes,
    /// Their public keys.
    public: Vec<[u8; 32]>,
}

impl Default for Keys {
    fn default() -> Self {
        Self { secrets: SecretBytes::new(0), public: Vec::new() }
    }
}

/// A private key at work, in ordinary memory. It wipes itself when it is dropped.
pub struct Identity {
    /// The private key.
    pub(crate) secret: PrivateKey,
    /// Its public key.
    pub(crate) public: [u8; 32],
}

impl Identities {
    /// Reads identities, one a line or separated by spaces: `AGE-SECRET-KEY-1…`, or 64 hexadecimal digits. Lines that
    /// begin with `#` are comments, as `age-keygen` writes them.
    ///
    /// # Errors
    /// `Config` if one cannot be read, or there is none. The text is not repeated.
    pub fn parse(text: &str) -> Result<Self> {
        let lines = || text.lines().map(str::trim).filter(|line| !line.starts_with('#'));
        let count = lines().flat_map(str::split_whitespace).count();
        if count == 0 {
            return Err(malformed("there is none"));
        }
        if let Some((_, kind)) =
            lines().find_map(|line| OTHERS.iter().find(|(start, _)| line.starts_with(start)))
        {
            return Err(malformed(&format!(
                "{kind} is none that is read here; each begins with AGE-SECRET-KEY-1"
            )));
        }
        let mut secrets = SecretBytes::new(count * KEY);
        let mut public = Vec::with_capacity(count);
        let words = lines().flat_map(str::split_whitespace);
        for (word, place) in words.zip(secrets.reveal_mut().chunks_exact_mut(KEY)) {
            read_key(word, place)?;
            public.push(public_of(&private_key(place)?)?);
        }
        Ok(Self(Arc::new(Keys { secrets, public })))
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.public.is_empty()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.public.len()
    }

    /// What `open` makes of the first identity with which it makes anything. Each leaves the memory for secrets only
    /// meanwhile.
    pub fn find_map<T>(&self, mut open: impl FnMut(&Identity) -> Option<T>) -> Option<T> {
        let mut pairs = self.0.secrets.reveal().chunks_exact(KEY).zip(&self.0.public);
        pairs.find_map(|(secret, public)| {
            let secret = private_key(secret).expect("BUG: it was a key when it was read");
            open(&Identity { secret, public: *public })
        })
    }
}

/// Puts the private key that `word` writes into `place`, and nowhere else.
fn read_key(word: &str, place: &mut [u8]) -> Result<()> {
    if read_hex(word, place).is_some() {
        return Ok(());
    }
    let decoded = CheckedHrpstring::new::<Bech32>(word)
        .map_err(|_| malformed("one is misspelled or cut off; each begins with AGE-SECRET-KEY-1"))?;
    if decoded.hrp() != PREFIX {
        return Err(malformed("one is of another kind; each begins with AGE-SECRET-KEY-1"));
    }
    if decoded.byte_iter().len() != KEY {
        return Err(malformed("one is no X25519 key"));
    }
    place.iter_mut().zip(decoded.byte_iter()).for_each(|(to, from)| *to = from);
    // Bits that no byte has are zero.
    if written(place).eq(word.chars().map(|letter| letter.to_ascii_lowercase())) {
        Ok(())
    } else {
        Err(malformed("one is misspelled"))
    }
}

fn private_key(bytes: &[u8]) -> Result<PrivateKey> {
    PrivateKey::from_private_key(&X25519, bytes).map_err(|_| malformed("one is no X25519 key"))
}

fn public_of(secret: &PrivateKey) -> Result<[u8; 32]> {
    let public = secret.compute_public_key().map_err(|_| malformed("one is no X25519 key"))?;
    public.as_ref().try_into().map_err(|_| malformed("one is no X25519 key"))
}

/// The letters of a private key as age writes it, in lower case. They are nowhere together: `bech32::encode` would leave them
/// on the stack.
fn written(secret: &[u8]) -> impl Iterator<Item = char> {
    secret.iter().copied().bytes_to_fes().with_checksum::<Bech32>(&PREFIX).chars()
}

/// A new pair of keys, as the lines of a file that `age-keygen` would write. The private key comes from the operating
/// system.
///
/// # Errors
/// `Io` if the system gives no random numbers.
pub fn keygen() -> Result<Zeroizing<String>> {
    let secret = random::<KEY>()?;
    let public = Recipient::of_identity(public_of(&private_key(&*secret)?)?);
    let comment = format!("# public key: {public}\n");
    let mut lines = Zeroizing::new(String::with_capacity(comment.len() + LONGEST));
    lines.push_str(&comment);
    lines.extend(written(&*secret).map(|letter| letter.to_ascii_uppercase()));
    lines.push('\n');
    Ok(lines)
}

impl PartialEq for Identities {
    fn eq(&self, other: &Self) -> bool {
        self.0.public == other.0.public
    }
}

impl Eq for Identities {}

impl Hash for Identities {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.public.hash(state);
    }
}

impl fmt::Debug for Identities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} age identities", self.0.public.len())
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

fn malformed(what: &str) -> Error {
    Error::config(format!("age identities: {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    const IDENTITY: &str = "AGE-SECRET-KEY-1W6ZNEUE7YDWYY9P6KSUP7RE4JWT6CLX6R5P4C5KNFKR5JS2S606SEPEUP8";
    const HEX: &str = "76853cf33e235c42143ab4381f0f359397ac7cda1d035c52d34d87494150d3f5";

    #[test]
    fn both_spellings_are_the_same_key() {
        let one = Identities::parse(IDENTITY).unwrap();
        for same in
            [HEX.to_owned(), HEX.to_uppercase(), IDENTITY.to_lowercase(), format!("# a\n\n {IDENTITY}\r\n")]
        {
            assert_eq!(Identities::parse(&same).unwrap(), one);
        }
        let two = Identities::parse(&format!("{IDENTITY}\n{HEX}")).unwrap();
        assert_eq!((two.len(), one.len()), (2, 1));
        assert_ne!(one, two);
        let (mut shown, mut tried) = (format!("{two:?}"), 0);
        let second = two.find_map(|identity| {
            shown += &format!(" {identity:?}");
            tried += 1;
            (tried == 2).then_some(identity.public)
        });
        assert_eq!((shown.as_str(), second), ("2 age identities (secret) (secret)", Some(two.0.public[1])));
    }

    #[test]
    fn what_is_no_identity_is_refused_and_not_repeated() {
        let mut mixed = IDENTITY.to_owned();
        mixed.replace_range(20..21, &IDENTITY[20..21].to_lowercase());
        for bad in [
            String::new(),
            "# only a comment".to_owned(),
            mixed,
            IDENTITY[..IDENTITY.len() - 1].to_owned(),
            IDENTITY.replace("KEY-1W", "KEY-1Q"),
            HEX[1..].to_owned(),
            format!("{HEX}0"),
            "age1mr4vlx62swszp35e5ltsjyl2pj95yw6ufdef2l469llv6u7v9fpsmk7rgt".to_owned(),
            "AGE-PLUGIN-YUBIKEY-1QQPQVQSYQCYQ5RQWZQF".to_owned(),
            "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEAAAAA".to_owned(),
            bech32::encode::<Bech32>(PREFIX, &[7; 31]).unwrap(),
            bech32::encode::<Bech32>(Hrp::parse_unchecked("age"), &[7; 32]).unwrap(),
        ] {
            let e = Identities::parse(&bad).unwrap_err();
            assert_eq!(e.kind(), ErrorKind::Config);
            let rest = bad.get(16..).unwrap_or_default();
            assert!(rest.is_empty() || !e.to_string().contains(rest), "{e}");
        }
    }

    #[test]
    fn a_new_pair_opens_what_is_sealed_to_it() {
        let (one, other) = (keygen().unwrap(), keygen().unwrap());
        assert_ne!(*one, *other);
        let identities = Identities::parse(&one).unwrap();
        let recipient = Recipient::of_identity(identities.0.public[0]);
        assert!(one.starts_with(&format!("# public key: {recipient}\nAGE-SECRET-KEY-1")), "{recipient}");
    }
}
