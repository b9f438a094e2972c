//! Sealed files, format version 4: pages that only chosen identities can read.
//!
//! ```text
//!   header          100 bytes; "LTX4", flag 0x4, how many recipients, which primitives
//!   recipient block 80 bytes per recipient: the content key of the file, sealed to it   [`Keyring`]
//!   page block      frames as in version 3, whose LZ4 block is sealed                   [`Cipher`]
//!   page index      as in version 3
//!   index tag       16 bytes                                                            [`Cipher::check_index`]
//!   recipient block once more, the same bytes
//!   trailer         16 bytes
//! ```
//! The content key is random and belongs to one file. A key derived from it seals each page, together with the header,
//! the page's number and the head of its frame, so that no frame fits anywhere else; another one proves the page index.
//! The file checksum covers the bytes as they are stored, and can be compared without a key.
//!
//! Nothing proves the header but a frame that opens with it.
//!
//! Source: the proposal of Litestream's makers, `github.com/superfly/ltx` pull request 78, commit 965f985.
//!
//! | file | what it does |
//! | --- | --- |
//! | `identity`, `recipient` | private and public keys, as age writes them |
//! | `hpke` | a content key is sealed to a recipient |
//! | `content_key` | the key of one file, and what tells that file from all others |
//! | `cipher` | a content key seals and opens frames, and proves page indexes |
//! | `file_seal` | a file that is about to be written gets a content key |
//! | `pack_cipher` | a content key seals and opens the pack of its file |
//! | `keyring` | which identities there are, and which plain files are taken beside sealed ones |

mod cipher;
mod content_key;
mod file_seal;
mod hpke;
mod identity;
mod keyring;
mod pack_cipher;
mod recipient;
#[cfg(test)]
pub(crate) mod sealing;
#[cfg(test)]
mod tests;

pub(super) use cipher::{Cipher, NONCE, OVERHEAD};
pub use content_key::{ContentKey, SealId};
pub(super) use content_key::{SealHasher, head_size};
pub use file_seal::Seal;
pub(super) use hpke::{ENTRY, TAG};
pub use identity::{Identities, Identity, keygen};
pub use keyring::{Keyring, Plain};
pub use pack_cipher::{PackCipher, PackPart};
pub use recipient::{Recipient, Recipients};

use zeroize::Zeroizing;

use crate::error::{Error, ErrorKind, Result};

/// Secret bytes from the operating system, asked for at each use: a process that was forked has no generator in common
/// with another one.
///
/// # Errors
/// `Io` if the system gives none.
fn random<const N: usize>() -> Result<Zeroizing<[u8; N]>> {
    let mut bytes = Zeroizing::new([0; N]);
    getrandom::fill(&mut *bytes)
        .map_err(|e| Error::new(ErrorKind::Io, format!("the system gives no random numbers: {e}")))?;
    Ok(bytes)
}
