//! How the URL of a replica is spelled: where it is shown, so that it leads back to the replica; in local state, without
//! escapes, as all versions wrote it there.

use percent_encoding::percent_decode_str;

/// A path, or the name of a bucket, as a part of a URL that is shown. Only what would be read as something else is escaped.
pub(in crate::store) fn escaped(part: &str) -> String {
    let mut shown = String::with_capacity(part.len());
    let mut rest = part.chars();
    while let Some(c) = rest.next() {
        // A space that ends a URL is easily lost.
        let is_end = c == ' ' && rest.as_str().is_empty();
        if matches!(c, '%' | '?' | '#' | '\\') || c.is_ascii_control() || is_end {
            shown.push_str(&format!("%{:02X}", u32::from(c)));
        } else {
            shown.push(c);
        }
    }
    shown
}

/// `url`, which is shown, as local state spells it.
pub fn in_local_state(url: &str) -> String {
    percent_decode_str(url).decode_utf8_lossy().into_owned()
}

/// Writes a URL that is shown to local state, for `#[serde(with = …)]`.
pub mod stored_url {
    use serde::{Deserialize as _, Deserializer, Serialize as _, Serializer};

    use super::{escaped, in_local_state};

    /// Writes it.
    ///
    /// # Errors
    /// Those of the serializer.
    pub fn serialize<S: Serializer>(url: &str, serializer: S) -> Result<S::Ok, S::Error> {
        in_local_state(url).serialize(serializer)
    }

    /// Reads it.
    ///
    /// # Errors
    /// Those of the deserializer.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
        String::deserialize(deserializer).map(|url| escaped(&url))
    }
}
