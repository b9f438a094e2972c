//! The header of the WAL file.

use crate::error::{Error, Result};
use crate::page::PageSize;
use crate::wal::checksum::{ByteOrder, Checksum};

/// The two salts of one generation of the WAL. SQLite draws new ones whenever it restarts the WAL:
/// the first counts up by one, the second is random.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Salts(pub u32, pub u32);

impl Salts {
    /// Reads salts as the WAL file and the WAL index store them: big-endian in both.
    pub fn from_be_bytes(bytes: [u8; 8]) -> Self {
        let Checksum(a, b) = Checksum::from_be_bytes(bytes);
        Self(a, b)
    }

    /// Whether SQLite drew these salts when it restarted the WAL after the generation with salts `earlier`.
    /// Two generations between which the WAL was empty are not told by their salts.
    pub fn follow(self, earlier: Self) -> bool {
        self.0 == earlier.0.wrapping_add(1)
    }
}

/// The header of the WAL file.
///
/// ```text
///  0  magic        u32  0x377f0682, or 0x377f0683 when checksums are big-endian
///  4  version      u32  3007000
///  8  page size    u32
/// 12  checkpoint   u32  sequence number
/// 16  salt 1       u32
/// 20  salt 2       u32
/// 24  checksum     2 x u32, over bytes 0..24
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WalHeader {
    /// The byte order of all checksums in the file.
    pub order: ByteOrder,
    /// The page size of the database.
    pub page_size: PageSize,
    /// The salts of this generation.
    pub salts: Salts,
    /// The checksum of this header: the start of the chain.
    pub checksum: Checksum,
}

impl WalHeader {
    /// The size of the header in bytes.
    pub const SIZE: usize = 32;
    const MAGIC: u32 = 0x377f_0682;
    const VERSION: u32 = 3_007_000;

    /// Reads and verifies a header.
    ///
    /// # Errors
    /// `Corrupt`: not a WAL, an unknown version, or a checksum that does not fit.
    pub fn decode(bytes: &[u8; Self::SIZE]) -> Result<Self> {
        let word = |at: usize| u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let order = match word(0) {
            Self::MAGIC => ByteOrder::Little,
            m if m == Self::MAGIC | 1 => ByteOrder::Big,
            m => return Err(Error::corrupt(format!("WAL magic number is {m:#010x}"))),
        };
        if word(4) != Self::VERSION {
            return Err(Error::corrupt(format!("WAL version {} is not {}", word(4), Self::VERSION)));
        }
        let checksum = Checksum(word(24), word(28));
        if Checksum::default().update(order, &bytes[..24]) != checksum {
            return Err(Error::corrupt("the checksum of the WAL header does not fit"));
        }
        let page_size = PageSize::new(word(8))?;
        Ok(Self { order, page_size, salts: Salts(word(16), word(20)), checksum })
    }
}
