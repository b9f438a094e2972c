//! The file of credentials of a user of NATS, as its tools write it:
//!
//! ```text
//! -----BEGIN NATS USER JWT-----
//! eyJ0…
//! ------END NATS USER JWT------
//!
//! (words for people)
//!
//! -----BEGIN USER NKEY SEED-----
//! SU…
//! ------END USER NKEY SEED------
//! ```
//!
//! It is read here, and not by the client: that takes a library of regular expressions for it, which is a third of a megabyte.

use std::path::Path;
use std::sync::Arc;

use async_nats::{AuthError, ConnectOptions};
use nkeys::KeyPair;
use zeroize::Zeroizing;

use crate::error::{Error, Result};

/// Logs in with the JWT and the seed in the file `path`.
///
/// # Errors
/// `Config` if the file cannot be read, or has not both.
pub(super) async fn of_file(options: ConnectOptions, path: &Path) -> Result<ConnectOptions> {
    let cannot = |why: &dyn std::fmt::Display| {
        Error::config(format!("cannot use the credentials in '{}': {why}; check creds", path.display()))
    };
    let text = tokio::fs::read_to_string(path).await.map(Zeroizing::new).map_err(|e| cannot(&e))?;
    let (jwt, seed) = parts(&text).ok_or_else(|| cannot(&"there is no JWT with a seed after it"))?;
    of_user(options, jwt, seed).ok_or_else(|| cannot(&"what should be a seed (SU…) is none"))
}

/// Logs in with a JWT and the seed of its user; `None` if it is no seed.
pub(super) fn of_user(options: ConnectOptions, jwt: &str, seed: &str) -> Option<ConnectOptions> {
    let pair = Arc::new(KeyPair::from_seed(seed).ok()?);
    Some(options.jwt(jwt.to_owned(), move |nonce| {
        let pair = Arc::clone(&pair);
        async move { pair.sign(&nonce).map_err(AuthError::new) }
    }))
}

/// The JWT and the seed: the first two lines of one word each that stand between two lines that end in dashes.
fn parts(text: &str) -> Option<(&str, &str)> {
    let mut lines = text.lines().map(str::trim).peekable();
    let mut framed = std::iter::from_fn(move || {
        loop {
            let (line, next) = (lines.next()?, *lines.peek()?);
            if is_rule(line) && is_word(next) {
                lines.next();
                if lines.next().is_some_and(is_rule) {
                    return Some(next);
                }
            }
        }
    });
    Some((framed.next()?, framed.next()?))
}

/// Whether there are dashes at its end, and others before: tools look no further, and editors put a mark before the first line.
fn is_rule(line: &str) -> bool {
    line.strip_suffix("---").is_some_and(|line| line.contains("---"))
}

fn is_word(line: &str) -> bool {
    let is_of_word = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.=".contains(&byte);
    !line.is_empty() && !is_rule(line) && line.bytes().all(is_of_word)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "-----BEGIN NATS USER JWT-----\neyJ0.eXAi-_=\n------END NATS USER JWT------\n\n\
                        ************************* IMPORTANT *************************\nNKEYs are secret.\n\n\
                        -----BEGIN USER NKEY SEED-----\nSUAIO3FHUX5PNV2L\n------END USER NKEY SEED------\n";

    #[test]
    fn both_parts_are_found() {
        let parts_of = |text: &str| parts(text).map(|(jwt, seed)| (jwt.to_owned(), seed.to_owned()));
        let both = Some(("eyJ0.eXAi-_=".to_owned(), "SUAIO3FHUX5PNV2L".to_owned()));
        assert_eq!(parts_of(FILE), both);
        assert_eq!(parts_of(&FILE.replace('\n', "\r\n")), both);
        assert_eq!(parts_of(FILE.trim_end()), both);
        assert_eq!(parts_of(&format!("\u{feff}{FILE}")), both);
        assert_eq!(parts_of(&format!("alice: {FILE}")), both);
        let (jwt, rest) = FILE.split_once("\n\n").unwrap();
        let (_, seed) = rest.split_once("\n\n").unwrap();
        assert_eq!(parts_of(&format!("{jwt}\nalice\n{seed}")), both);
        assert_eq!(parts_of(&FILE.replace("-----\n", "-----  \n  ")), both);
    }

    #[test]
    fn a_file_without_both_has_none() {
        let (jwt, seed) = FILE.split_at(FILE.find("***").unwrap());
        for text in ["", jwt, seed, &FILE.replace("SUAI", "SU AI"), &FILE.replace("SUAIO3FHUX5PNV2L\n", "")] {
            assert_eq!(parts(text), None, "{text}");
        }
    }
}
