//! The header of an LTX file.

use super::bytes::{u16_at, u32_at, u64_at};
use super::checksum::CHECKSUM_FLAG;
use super::{FileName, Lineage, Shape, Txid};
use crate::clock::Timestamp;
use crate::error::{Error, ErrorKind, Result};
use crate::page::{PageCount, PageSize};

const MAGIC: [u8; 4] = *b"LTX1";
/// How a sealed file begins.
const SEALED_MAGIC: [u8; 4] = *b"LTX4";
/// The primitives of sealed files, from byte 82 on: DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, ChaCha20-Poly1305.
const SUITE: [u8; 6] = [0x00, 0x20, 0x00, 0x01, 0x00, 0x03];

/// The flags of a header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct HeaderFlags(u32);

impl HeaderFlags {
    /// No flag: the file keeps checksums of the whole database before and after it.
    pub const NONE: Self = Self(0);
    /// The file keeps no checksums of the whole database.
    pub const NO_CHECKSUM: Self = Self(1 << 1);
    /// The pages of the file are sealed to its recipients.
    pub const SEALED: Self = Self(1 << 2);

    /// The flags whose bits are set in `bits`.
    ///
    /// # Errors
    /// `Unsupported` if a bit is set that the format does not define.
    pub fn from_bits(bits: u32) -> Result<Self> {
        if bits & !(Self::NO_CHECKSUM.0 | Self::SEALED.0) != 0 {
            let message =
                format!("LTX header flags {bits:#x} are unknown; a newer version may read the file");
            return Err(Error::new(ErrorKind::Unsupported, message));
        }
        Ok(Self(bits))
    }

    /// The flags as the header has them.
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// These flags and those of `other`.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether all flags of `other` are set.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

/// The header of an LTX file.
///
/// ```text
///   0  magic "LTX1", "LTX4"  40  pre-apply checksum u64
///   4  flags u32             48  WAL offset i64
///   8  page size u32         56  WAL size i64
///  12  commit u32            64  salt-1 u32
///  16  min TXID u64          68  salt-2 u32
///  24  max TXID u64          72  node id u64
///  32  timestamp i64         80  8 reserved bytes, written as zero
///                            88  lineage u64, 0 if unset
///                            96  4 reserved bytes, written as zero
/// ```
/// Integers are big-endian. Source: `github.com/superfly/ltx`, format version 3. There bytes 80 to 100 are reserved,
/// written as zero and not looked at; the lineage is ours. A sealed file, version 4, has other bytes there:
///
/// ```text
///  80  recipients u16        84  KDF u16
///  82  KEM u16               86  AEAD u16           88  12 reserved bytes, written as zero
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The flags.
    pub flags: HeaderFlags,
    /// The page size of the database.
    pub page_size: PageSize,
    /// The size of the database after the file was applied.
    pub commit: PageCount,
    /// The first transaction in the file.
    pub min: Txid,
    /// The last transaction in the file.
    pub max: Txid,
    /// When the last commit in the file was made.
    pub timestamp: Timestamp,
    /// The checksum of the database before the file is applied; zero in a snapshot and without
    /// checksums.
    pub pre_apply_checksum: u64,
    /// Where in the WAL the file's frames begin, in bytes; zero if they come from no WAL.
    pub wal_offset: i64,
    /// How much of the WAL the file covers, in bytes.
    pub wal_size: i64,
    /// The first salt of that WAL.
    pub salt1: u32,
    /// The second salt of that WAL.
    pub salt2: u32,
    /// Who wrote the file; zero if unset.
    pub node_id: u64,
    /// The history that the file belongs to, if its writer says so; a sealed one says nothing.
    pub lineage: Option<Lineage>,
    /// To how many recipients the pages are sealed; zero if they are not.
    pub recipients: u16,
}

impl Header {
    /// The size in bytes.
    pub const SIZE: usize = 100;

    /// A header for the transactions of `name`, without database checksums, WAL position or node id.
    pub fn new(page_size: PageSize, commit: PageCount, name: FileName, timestamp: Timestamp) -> Self {
        Self {
            flags: HeaderFlags::NO_CHECKSUM,
            page_size,
            commit,
            min: name.min(),
            max: name.max(),
            timestamp,
            pre_apply_checksum: 0,
            wal_offset: 0,
            wal_size: 0,
            salt1: 0,
            salt2: 0,
            node_id: 0,
            lineage: None,
            recipients: 0,
        }
    }

    /// The name that a file with this header has.
    ///
    /// # Panics
    /// If `min` is above `max`, which [`Header::validate`] refuses.
    pub fn name(&self) -> FileName {
        FileName::new(self.min, self.max).expect("BUG: an LTX header was used without being validated")
    }

    /// Whether the file holds every page of the database.
    pub fn is_snapshot(&self) -> bool {
        self.min == Txid::ONE
    }

    /// Whether the file keeps checksums of the whole database.
    pub fn has_database_checksums(&self) -> bool {
        !self.flags.contains(HeaderFlags::NO_CHECKSUM)
    }

    /// Whether the pages are sealed.
    pub const fn is_sealed(&self) -> bool {
        self.flags.contains(HeaderFlags::SEALED)
    }

    /// Where the parts of the file are.
    pub const fn shape(&self) -> Shape {
        Shape::new(self.recipients)
    }

    /// The rules between the fields.
    ///
    /// # Errors
    /// `Corrupt`, naming the rule that is broken.
    pub fn validate(&self) -> Result<()> {
        if self.min > self.max {
            return Err(broken(format!("min TXID {} is above max TXID {}", self.min, self.max)));
        }
        self.validate_wal_position()?;
        if self.is_sealed() != (self.recipients > 0) {
            return Err(broken("a sealed file has recipients, and no other has"));
        }
        let checksum = self.pre_apply_checksum;
        let may_have_checksum = self.has_database_checksums() && !self.is_snapshot();
        if may_have_checksum && checksum & CHECKSUM_FLAG == 0 {
            return Err(broken("the pre-apply checksum is missing or malformed"));
        }
        if !may_have_checksum && checksum != 0 {
            return Err(broken("a pre-apply checksum is set where none may be"));
        }
        Ok(())
    }

    fn validate_wal_position(&self) -> Result<()> {
        if self.wal_offset < 0 || self.wal_size < 0 {
            return Err(broken("the WAL offset or size is negative"));
        }
        let has_wal = self.salt1 != 0 || self.salt2 != 0 || self.wal_size != 0;
        if has_wal && self.wal_offset == 0 {
            return Err(broken("a WAL size or salt is set without a WAL offset"));
        }
        Ok(())
    }

    /// Whether Litestream wrote the file: it sets no node id, and we always do.
    pub const fn is_litestreams(&self) -> bool {
        self.node_id == 0
    }

    /// The bytes of the header. They are valid if the header is.
    pub fn encode(&self) -> [u8; Self::SIZE] {
        let mut bytes = [0; Self::SIZE];
        bytes[0..4].copy_from_slice(if self.is_sealed() { &SEALED_MAGIC } else { &MAGIC });
        bytes[4..8].copy_from_slice(&self.flags.bits().to_be_bytes());
        bytes[8..12].copy_from_slice(&self.page_size.get().to_be_bytes());
        bytes[12..16].copy_from_slice(&self.commit.get().to_be_bytes());
        bytes[16..24].copy_from_slice(&self.min.get().to_be_bytes());
        bytes[24..32].copy_from_slice(&self.max.get().to_be_bytes());
        bytes[32..40].copy_from_slice(&self.timestamp.as_millis().to_be_bytes());
        bytes[40..48].copy_from_slice(&self.pre_apply_checksum.to_be_bytes());
        bytes[48..56].copy_from_slice(&self.wal_offset.to_be_bytes());
        bytes[56..64].copy_from_slice(&self.wal_size.to_be_bytes());
        bytes[64..68].copy_from_slice(&self.salt1.to_be_bytes());
        bytes[68..72].copy_from_slice(&self.salt2.to_be_bytes());
        bytes[72..80].copy_from_slice(&self.node_id.to_be_bytes());
        if self.is_sealed() {
            bytes[80..82].copy_from_slice(&self.recipients.to_be_bytes());
            bytes[82..88].copy_from_slice(&SUITE);
        } else {
            bytes[88..96].copy_from_slice(&self.lineage.map_or(0, Lineage::get).to_be_bytes());
        }
        bytes
    }

    /// Reads a header and validates it. The reserved bytes are not looked at.
    ///
    /// # Errors
    /// `Corrupt` if it is none, `Unsupported` if it has flags of a newer format or is sealed by other primitives.
    pub fn decode(bytes: &[u8; Self::SIZE]) -> Result<Self> {
        if bytes[0..4] != MAGIC && bytes[0..4] != SEALED_MAGIC {
            return Err(Error::corrupt("not an LTX file: it does not begin with LTX1 or LTX4"));
        }
        let flags = HeaderFlags::from_bits(u32_at(bytes, 4))?;
        let is_sealed = flags.contains(HeaderFlags::SEALED);
        if is_sealed != (bytes[0..4] == SEALED_MAGIC) {
            return Err(broken("files that begin with LTX4 are sealed, and no others are"));
        }
        if is_sealed && bytes[82..88] != SUITE {
            let message = "LTX header: the file is sealed by other primitives; a newer version may read it";
            return Err(Error::new(ErrorKind::Unsupported, message));
        }
        let header = Self {
            flags,
            page_size: PageSize::new(u32_at(bytes, 8)).map_err(|e| e.context("LTX header"))?,
            commit: PageCount::new(u32_at(bytes, 12)),
            min: txid(u64_at(bytes, 16))?,
            max: txid(u64_at(bytes, 24))?,
            timestamp: Timestamp::from_millis(u64_at(bytes, 32) as i64),
            pre_apply_checksum: u64_at(bytes, 40),
            wal_offset: u64_at(bytes, 48) as i64,
            wal_size: u64_at(bytes, 56) as i64,
            salt1: u32_at(bytes, 64),
            salt2: u32_at(bytes, 68),
            node_id: u64_at(bytes, 72),
            lineage: if is_sealed { None } else { Lineage::new(u64_at(bytes, 88)) },
            recipients: if is_sealed { u16_at(bytes, 80) } else { 0 },
        };
        header.validate()?;
        Ok(header)
    }
}

fn txid(n: u64) -> Result<Txid> {
    Txid::new(n).ok_or_else(|| broken("a TXID is zero"))
}

fn broken(rule: impl std::fmt::Display) -> Error {
    Error::corrupt(format!("LTX header: {rule}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(min: u64) -> Header {
        let name = FileName::new(Txid::new(min).unwrap(), Txid::new(7).unwrap()).unwrap();
        Header::new(PageSize::new(4096).unwrap(), PageCount::new(3), name, Timestamp::from_millis(-5))
    }

    #[test]
    fn every_field_survives() {
        let full = Header {
            wal_offset: 32,
            wal_size: 4120,
            salt1: 1,
            salt2: 2,
            node_id: u64::MAX,
            lineage: Lineage::new(9),
            ..header(2)
        };
        assert_eq!(Header::decode(&full.encode()).unwrap(), full);
        let tracked = Header { flags: HeaderFlags::NONE, pre_apply_checksum: CHECKSUM_FLAG | 9, ..header(2) };
        assert_eq!(Header::decode(&tracked.encode()).unwrap(), tracked);
        assert_eq!(Header::decode(&sealed().encode()).unwrap(), sealed());
    }

    fn sealed() -> Header {
        let mut sealed = header(2);
        (sealed.flags, sealed.recipients) = (HeaderFlags(0x6), 3);
        sealed
    }

    #[test]
    fn a_sealed_file_says_so_twice_and_names_its_primitives() {
        let good = sealed().encode();
        for (at, byte, kind) in [
            (3, b'1', ErrorKind::Corrupt),
            (7, 0x2, ErrorKind::Corrupt),
            (7, 0xe, ErrorKind::Unsupported),
            (81, 0, ErrorKind::Corrupt),
            (83, 0x10, ErrorKind::Unsupported),
            (85, 2, ErrorKind::Unsupported),
            (87, 1, ErrorKind::Unsupported),
        ] {
            let mut bytes = good;
            bytes[at] = byte;
            assert_eq!(Header::decode(&bytes).unwrap_err().kind(), kind, "byte {at}");
        }
        let mut reserved = good;
        reserved[88..].fill(1);
        assert_eq!(Header::decode(&reserved).unwrap(), sealed());
        let mut plain = header(2).encode();
        plain[7] = 0x6;
        assert!(Header::decode(&plain).is_err());
    }

    #[test]
    fn broken_rules_are_refused() {
        type Change = fn(&mut Header);
        let changes: [Change; 8] = [
            |h| h.min = Txid::new(8).unwrap(),
            |h| h.wal_size = 1,
            |h| h.salt1 = 1,
            |h| h.salt2 = 1,
            |h| h.wal_offset = -1,
            |h| (h.wal_offset, h.wal_size) = (32, -1),
            |h| h.pre_apply_checksum = CHECKSUM_FLAG,
            |h| h.flags = HeaderFlags::NONE,
        ];
        for (i, change) in changes.iter().enumerate() {
            let mut changed = header(2);
            change(&mut changed);
            assert!(changed.validate().is_err(), "change {i}");
            assert!(Header::decode(&changed.encode()).is_err(), "change {i}");
        }
        let snapshot = Header { flags: HeaderFlags::NONE, ..header(1) };
        assert!(snapshot.validate().is_ok());
        assert!(Header { pre_apply_checksum: CHECKSUM_FLAG, ..snapshot }.validate().is_err());
    }

    #[test]
    fn foreign_bytes_are_refused_by_name() {
        let good = header(2).encode();
        for (at, byte, kind) in [
            (0, b'l', ErrorKind::Corrupt),
            (7, 1, ErrorKind::Unsupported),
            (10, 0, ErrorKind::Corrupt),
            (23, 0, ErrorKind::Corrupt),
        ] {
            let mut bytes = good;
            bytes[at] = byte;
            assert_eq!(Header::decode(&bytes).unwrap_err().kind(), kind, "byte {at}");
        }
    }
}
