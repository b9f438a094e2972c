//! Public keys that files are sealed to.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::agreement::{PrivateKey, UnparsedPublicKey, X25519, agree};
use bech32::primitives::decode::CheckedHrpstring;
use bech32::{Bech32, Hrp};

use crate::error::{Error, Result};

/// What the text of a recipient begins with, before its `1`.
const PREFIX: Hrp = Hrp::parse_unchecked("age");
/// A list has no more than this.
const MOST: usize = 64;
/// What is no X25519 recipient, by how it begins, in lower case.
const OTHERS: [(&str, &str); 6] = [
    ("age-secret-key-", "it is an identity, which is secret: give the public key, which begins with age1"),
    ("ssh-", "it is an SSH key; make a pair with litestream_keygen()"),
    ("ecdsa-", "it is an SSH key; make a pair with litestream_keygen()"),
    ("age1pq1", "it is a post-quantum one, which is not supported"),
    ("age1tag", "it is one of a plugin, which is not supported"),
    ("-----begin", "it is no recipient of age"),
];
/// The prime 2^255 - 19 of the curve, whose least byte is this, and the others but the last 0xff.
const LEAST: u8 = 0xed;
const HIGHEST: u8 = 0x7f;

/// A public key of X25519, displayed as age writes it: `age1…`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Recipient([u8; 32]);

impl Recipient {
    /// The public key that 64 hexadecimal digits are.
    ///
    /// # Errors
    /// `Config` if they are none to which anything can be sealed. The text, which may be a private key, is not
    /// repeated.
    pub fn from_hex(text: &str) -> Result<Self> {
        let mut bytes = [0; 32];
        read_hex(text, &mut bytes).ok_or_else(|| refused("it has not 64 hexadecimal digits"))?;
        Self::checked(bytes)
    }

    /// The recipient that `text` writes: `age1…`, the public key of an X25519 pair.
    ///
    /// # Errors
    /// `Config` if it is none, with what it is instead. The text, which may be a private key, is not repeated.
    pub fn parse(text: &str) -> Result<Self> {
        let lower = text.to_ascii_lowercase();
        if let Some((_, what)) = OTHERS.iter().find(|(start, _)| lower.starts_with(start)) {
            return Err(refused(what));
        }
        if is_hex(text) {
            return Err(refused(
                "hexadecimal digits do not say whether they are a public or a private key: write it as \
                 litestream_recipient('...') gives it, beginning with age1",
            ));
        }
        let decoded = CheckedHrpstring::new::<Bech32>(text)
            .map_err(|_| refused("it is misspelled or cut off; each begins with age1"))?;
        if decoded.hrp() != PREFIX {
            return Err(refused("it is one of a plugin, or of another kind; each begins with age1"));
        }
        let bytes: Vec<u8> = decoded.byte_iter().collect();
        let recipient = Self::checked(bytes.try_into().map_err(|_| refused("it is no X25519 key"))?)?;
        // Bits that no byte has are zero.
        if recipient.to_string().eq_ignore_ascii_case(text) {
            Ok(recipient)
        } else {
            Err(refused("it is misspelled"))
        }
    }

    fn checked(bytes: [u8; 32]) -> Result<Self> {
        let recipient = Self(bytes);
        if !recipient.is_canonical() {
            return Err(refused("it is no X25519 key: keys are below 2^255 - 19"));
        }
        // Keys of a small order share zeros with everybody.
        let secret =
            PrivateKey::generate(&X25519).map_err(|_| refused("the system gives no random numbers"))?;
        let theirs = UnparsedPublicKey::new(&X25519, bytes.as_slice());
        agree(&secret, theirs, (), |_| Ok(()))
            .map_err(|()| refused("it is no X25519 key: nothing can be sealed to it"))?;
        Ok(recipient)
    }

    /// The bytes of the public key.
    pub(super) const fn bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The public key of an identity.
    pub(super) const fn of_identity(public: [u8; 32]) -> Self {
        Self(public)
    }

    fn is_canonical(&self) -> bool {
        let [least, between @ .., most] = self.0;
        most < HIGHEST || (most == HIGHEST && (between.iter().any(|byte| *byte != 0xff) || least < LEAST))
    }
}

impl fmt::Display for Recipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = bech32::encode::<Bech32>(PREFIX, &self.0);
        f.write_str(&text.expect("BUG: 32 bytes fit"))
    }
}

/// Whom the files of a replica are sealed to: a set, in no order; with none, they are not sealed.
#[derive(Clone, Debug, Default)]
pub struct Recipients(Arc<[Recipient]>);

impl Recipients {
    /// Reads recipients, one a line or separated by spaces or commas. Lines that begin with `#` are comments.
    ///
    /// # Errors
    /// `Config` if one is refused, there is none, one is there twice, or there are more than 64. None is repeated.
    pub fn parse(text: &str) -> Result<Self> {
        let lines = text.lines().map(str::trim).filter(|line| !line.starts_with('#'));
        let words = lines.flat_map(|line| line.split(|c: char| c.is_whitespace() || c == ','));
        let mut recipients: Vec<Recipient> = Vec::new();
        for (place, word) in words.filter(|word| !word.is_empty()).enumerate() {
            let recipient =
                Recipient::parse(word).map_err(|e| e.context(format_args!("recipient {}", place + 1)))?;
            if recipients.contains(&recipient) {
                return Err(Error::config(format!("recipient {} is there before", place + 1)));
            }
            recipients.push(recipient);
        }
        match recipients.len() {
            0 => Err(Error::config(
                "there is no recipient, so nothing could be opened: write who may, age1...",
            )),
            count if count > MOST => {
                Err(Error::config(format!("{count} recipients are too many: at most {MOST}")))
            }
            _ => Ok(Self(recipients.into())),
        }
    }

    /// Whether files are not sealed.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many there are.
    pub(super) fn count(&self) -> u16 {
        u16::try_from(self.0.len()).expect("BUG: recipients are counted when they are read")
    }

    /// Each of them.
    pub fn iter(&self) -> impl Iterator<Item = &Recipient> {
        self.0.iter()
    }

    /// All of them as age writes them, sorted.
    pub fn texts(&self) -> Vec<String> {
        let mut texts: Vec<String> = self.0.iter().map(ToString::to_string).collect();
        texts.sort_unstable();
        texts
    }
}

impl PartialEq for Recipients {
    fn eq(&self, other: &Self) -> bool {
        self.0.len() == other.0.len() && self.0.iter().all(|one| other.0.contains(one))
    }
}

impl Eq for Recipients {}

/// Whether `text` is the 64 hexadecimal digits of a key.
pub(super) fn is_hex(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|digit| digit.is_ascii_hexdigit())
}

/// Puts the bytes of 64 hexadecimal digits into `place`, which has room for them; `None` if there are others.
pub(super) fn read_hex(text: &str, place: &mut [u8]) -> Option<()> {
    if !is_hex(text) {
        return None;
    }
    for (byte, pair) in place.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        let digit = |digit: u8| (digit as char).to_digit(16);
        *byte = (digit(pair[0])? << 4 | digit(pair[1])?) as u8;
    }
    Some(())
}

fn refused(why: &str) -> Error {
    Error::config(format!("the public key is refused: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(bytes: [u8; 32]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn hex_becomes_what_age_writes() {
        let hex = "d8eacf9b4a83a020c699a7d70913ea0c8b423b5c4b72957eba2ffecd73cc2a43";
        let age = "age1mr4vlx62swszp35e5ltsjyl2pj95yw6ufdef2l469llv6u7v9fpsmk7rgt";
        assert_eq!(Recipient::from_hex(hex).unwrap().to_string(), age);
        assert_eq!(Recipient::from_hex(&hex.to_uppercase()).unwrap().to_string(), age);
    }

    const ONE: &str = "age1mr4vlx62swszp35e5ltsjyl2pj95yw6ufdef2l469llv6u7v9fpsmk7rgt";

    #[test]
    fn a_list_is_a_set_of_x25519_recipients() {
        let pair = crate::ltx::keygen().unwrap();
        let other = pair.lines().next().unwrap().strip_prefix("# public key: ").unwrap();
        let list = Recipients::parse(&format!("# ours\n{ONE}\n{other}\n")).unwrap();
        assert_eq!(list, Recipients::parse(&format!("{other}, {}", ONE.to_uppercase())).unwrap());
        assert_ne!(list, Recipients::parse(ONE).unwrap());
        assert_eq!(list.texts().len(), 2);
        let identity = pair.lines().nth(1).unwrap();
        let hex = "d8eacf9b4a83a020c699a7d70913ea0c8b423b5c4b72957eba2ffecd73cc2a43";
        let several = vec![other; 65].join(" ");
        for (text, why) in [
            (identity, "secret"),
            (hex, "litestream_recipient"),
            ("", "no recipient"),
            ("# none", "no recipient"),
            ("ssh-ed25519 AAAAC3", "SSH"),
            ("age1pq1qqqq", "post-quantum"),
            ("age1yubikey1qqqq", "misspelled"),
            (&ONE[..40], "misspelled"),
            (&several, "there before"),
        ] {
            let e = Recipients::parse(text).unwrap_err().to_string();
            assert!(e.contains(why), "{e}");
            assert!(text.is_empty() || text.starts_with('#') || !e.contains(text), "{e}");
        }
    }

    #[test]
    fn what_nothing_can_be_sealed_to_is_refused_and_not_repeated() {
        let mut prime = [0xff; 32];
        (prime[0], prime[31]) = (LEAST, HIGHEST);
        let mut below = prime;
        below[0] -= 1;
        let mut high = [1; 32];
        high[31] = 0x80;
        for bad in
            [hex([0; 32]), hex(prime), hex([0xff; 32]), hex(high), hex([7; 32])[1..].into(), "g".repeat(64)]
        {
            let e = Recipient::from_hex(&bad).unwrap_err().to_string();
            assert!(!e.contains(&bad), "{e}");
        }
        // The last canonical one has a small order.
        assert!(Recipient(below).is_canonical() && Recipient::from_hex(&hex(below)).is_err());
        let e = Recipient::from_hex("é".repeat(32).as_str()).unwrap_err();
        assert!(e.to_string().contains("64"), "{e}");
    }
}
