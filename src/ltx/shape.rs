//! Where the parts of a file are.

use super::seal::{ENTRY, TAG};
use super::{Header, Trailer};

/// Where the parts of a file are, which differs between plain and sealed ones: the header tells it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Shape {
    recipients: u16,
}

impl Shape {
    /// That of a file that is not sealed.
    pub const PLAIN: Self = Self { recipients: 0 };

    /// That of a file sealed to as many recipients; with none, that of a plain one.
    pub const fn new(recipients: u16) -> Self {
        Self { recipients }
    }

    /// Whether the file is sealed.
    pub const fn is_sealed(self) -> bool {
        self.recipients > 0
    }

    /// The size of what a file has for its recipients, once behind the header and once before the trailer.
    pub const fn recipients(self) -> usize {
        self.recipients as usize * ENTRY
    }

    /// Where the first frame begins, in bytes from the start of the file.
    pub const fn first_frame(self) -> u64 {
        (Header::SIZE + self.recipients()) as u64
    }

    /// The size of what follows the page index: the trailer, and in a sealed file a tag and the recipients.
    pub const fn after_index(self) -> u64 {
        let seal = if self.is_sealed() { TAG + self.recipients() } else { 0 };
        (seal + Trailer::SIZE) as u64
    }
}
