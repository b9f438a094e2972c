//! `litestream_keygen()` and `litestream_recipient(hex)`: keys of encrypted replicas.

use rusqlite::types::Value;

use crate::error::{Error, Result};
use crate::ltx::{self, Recipient};
use crate::sqlite::Call;

/// A new pair of keys, as the lines of a file for `age_identity_file`.
///
/// # Errors
/// `Io` if the system gives no random numbers.
pub(super) fn keygen(_: &Call<'_>) -> Result<Value> {
    ltx::keygen().map(|lines| Value::Text(lines.to_string()))
}

/// The recipient `age1…` whose public key has these 64 hexadecimal digits.
///
/// # Errors
/// `Config` if they are no public key; the text is not repeated.
pub(super) fn recipient(call: &Call<'_>) -> Result<Value> {
    let hex: Option<String> = call.arg(0)?;
    let hex = hex.ok_or_else(|| Error::config("give it the 64 hexadecimal digits of a public key"))?;
    Recipient::from_hex(hex.trim()).map(|recipient| Value::Text(recipient.to_string()))
}
