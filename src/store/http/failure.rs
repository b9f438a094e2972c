//! Why a request to a store that speaks HTTP fails, and how the store's own words are repeated.

use crate::error::Error;

/// The longest part of a store's own words that is repeated, in characters.
const MAX_WORDS: usize = 300;

/// Why a request failed; `R` is what a provider keeps of a refusal.
#[derive(Debug)]
pub(in crate::store) enum Failure<R> {
    /// The store answered, and refused.
    Refused(R),
    /// There was no answer, or none that can be understood.
    Error(Error),
}

impl<R> From<Error> for Failure<R> {
    fn from(e: Error) -> Self {
        Self::Error(e)
    }
}

/// What a store said, in parentheses: the HTTP status or, where there is one, its name `code` for the failure, and its
/// `message` without what is in `secrets`.
pub(in crate::store) fn words<'a>(
    status: u16,
    code: &str,
    message: &str,
    secrets: impl IntoIterator<Item = &'a str>,
) -> String {
    let mut message: String = message.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    for secret in secrets {
        message = message.replace(secret, "(secret)");
    }
    let message: String = message.trim().chars().take(MAX_WORDS).collect();
    match (code, message.as_str()) {
        ("", "") => format!(" (HTTP status {status})"),
        (code, "") => format!(" ({code})"),
        ("", message) => format!(" (HTTP status {status}: {message})"),
        (code, message) => format!(" ({code}: {message})"),
    }
}
