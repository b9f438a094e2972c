//! Public keys that files are sealed to.

use std::fmt;

use aws_lc_rs::agreement::{PrivateKey, UnparsedPublicKey, X25519, agree};
use bech32::{Bech32, Hrp};

use crate::error::{Error, Result};

/// What the text of a recipient begins with, before its `1`.
const PREFIX: Hrp = Hrp::parse_unchecked("age");
/// The prime 2^255 - 19 of the curve, whose least byte is this, and the others but the last 0xff.
const LEAST: u8 = 0xed;
const MOST: u8 = 0x7f;

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
        let bytes = bytes_of_hex(text).ok_or_else(|| refused("it has not 64 hexadecimal digits"))?;
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

    /// The public key of an identity.
    pub(super) const fn of_identity(public: [u8; 32]) -> Self {
        Self(public)
    }

    fn is_canonical(&self) -> bool {
        let [least, between @ .., most] = self.0;
        most < MOST || (most == MOST && (between.iter().any(|byte| *byte != 0xff) || least < LEAST))
    }
}

impl fmt::Display for Recipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = bech32::encode::<Bech32>(PREFIX, &self.0);
        f.write_str(&text.expect("BUG: 32 bytes fit"))
    }
}

/// The bytes of 64 hexadecimal digits.
pub(super) fn bytes_of_hex(text: &str) -> Option<[u8; 32]> {
    let digits = text.as_bytes();
    let mut bytes = [0; 32];
    if digits.len() != 2 * bytes.len() {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        let digit = |digit: u8| (digit as char).to_digit(16);
        *byte = (digit(pair[0])? << 4 | digit(pair[1])?) as u8;
    }
    Some(bytes)
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

    #[test]
    fn what_nothing_can_be_sealed_to_is_refused_and_not_repeated() {
        let mut prime = [0xff; 32];
        (prime[0], prime[31]) = (LEAST, MOST);
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
