//! What a reader of a replica has and demands.

use super::cipher::Cipher;
use super::content_key::ContentKey;
use super::hpke::{self, ENTRY};
use super::identity::{Identities, Identity};
use crate::error::{Error, ErrorKind, Result};
use crate::ltx::{FrameCodec, Header, Txid};

/// Which files of a replica are taken that are not sealed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Plain {
    /// All of them.
    #[default]
    Any,
    /// Those that end at this transaction or before.
    UpTo(Txid),
    /// None.
    None,
}

/// The identities that open the sealed files of a replica, and which files it may have beside those.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Keyring {
    identities: Identities,
    plain: Plain,
}

impl Keyring {
    /// A keyring of `identities`, with which the `plain` files are taken.
    pub const fn new(identities: Identities, plain: Plain) -> Self {
        Self { identities, plain }
    }

    /// The identities.
    pub const fn identities(&self) -> &Identities {
        &self.identities
    }

    /// Which plain files are taken.
    pub const fn plain(&self) -> Plain {
        self.plain
    }

    /// Refuses a file that is not sealed where it must be.
    ///
    /// # Errors
    /// `Denied`, with what would admit it.
    pub fn admit(&self, header: &Header) -> Result<()> {
        let taken = header.is_sealed()
            || match self.plain {
                Plain::Any => true,
                Plain::UpTo(last) => header.max <= last,
                Plain::None => false,
            };
        if taken { Ok(()) } else { Err(self.refused()) }
    }

    fn refused(&self) -> Error {
        let last = match self.plain {
            Plain::UpTo(last) => format!(" after TXID {last} (plain_until)"),
            Plain::Any | Plain::None => String::new(),
        };
        Error::new(
            ErrorKind::Denied,
            format!(
                "it is not sealed, and this replica is read as one that is sealed{last}. If it was written before \
                 encryption was turned on, give as plain_until the last TXID of that time, the one before sealed_since in \
                 litestream_status of the primary; if encryption was turned off since, require_encryption=0; if neither, \
                 somebody put it there"
            ),
        )
    }

    /// The codec of the plain file with this header.
    ///
    /// # Errors
    /// As [`Keyring::admit`].
    pub(in crate::ltx) fn plain_codec(&self, header: &Header) -> Result<FrameCodec> {
        self.admit(header)?;
        Ok(FrameCodec::plain(header.page_size))
    }

    /// Refuses a file of which its header tells already that it is not read.
    ///
    /// # Errors
    /// `Denied` if it is sealed and there is no identity, or if it is not sealed where it must be.
    pub fn may_open(&self, header: &Header) -> Result<()> {
        if header.is_sealed() && self.identities.is_empty() { Err(no_identity()) } else { self.admit(header) }
    }

    /// Begins to look for the content key of a file.
    ///
    /// # Errors
    /// `Denied` if there is no identity, with what to set.
    pub(in crate::ltx) fn opener(&self) -> Result<Opener> {
        if self.identities.is_empty() {
            return Err(no_identity());
        }
        Ok(Opener { identities: self.identities.clone(), found: None, entries: 0 })
    }
}

/// Looks for the content key of a file in the entries of its recipients, as they come.
pub(in crate::ltx) struct Opener {
    identities: Identities,
    found: Option<ContentKey>,
    entries: usize,
}

impl Opener {
    /// Tries the next entry. One that does not open, for whatever reason, is another recipient's.
    pub(in crate::ltx) fn entry(&mut self, entry: &[u8; ENTRY]) {
        self.entries += 1;
        if self.found.is_none() {
            let open = |identity: &Identity| hpke::open(&identity.secret, &identity.public, entry);
            self.found = self.identities.find_map(open);
        }
    }

    /// The codec of the file, whose header is `header`, stored as `bytes`.
    ///
    /// # Errors
    /// `Denied` if no entry opened.
    pub(in crate::ltx) fn finish(self, header: &Header, bytes: &[u8; Header::SIZE]) -> Result<FrameCodec> {
        let Some(key) = self.found else {
            let (given, sealed) = (self.identities.len(), self.entries);
            return Err(Error::new(
                ErrorKind::Denied,
                format!(
                    "it is sealed to {}, and {}: give an identity of one of its recipients as age_identity_file",
                    counted(sealed, "recipient", "recipients"),
                    match given {
                        1 => "the identity that is given is none of theirs".to_owned(),
                        n => format!("none of the {n} identities that are given is theirs"),
                    }
                ),
            ));
        };
        Ok(FrameCodec::opened(header, Cipher::new(&key, bytes)))
    }
}

fn no_identity() -> Error {
    Error::new(
        ErrorKind::Denied,
        "it is sealed, and no identity is given that opens it: set age_identity_file (or LITESTREAM_AGE_IDENTITY_FILE, or \
         age.identities in litestream.yml)",
    )
}

fn counted(n: usize, one: &str, many: &str) -> String {
    format!("{n} {}", if n == 1 { one } else { many })
}
