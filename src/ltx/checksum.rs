//! CRC-64/GO-ISO, the checksum of LTX files.

use crc_fast::{CrcAlgorithm, Digest};

use crate::page::Pgno;

/// Bit 63 is set in every checksum of the format, so that none is ever zero.
pub(super) const CHECKSUM_FLAG: u64 = 1 << 63;

/// A CRC-64/GO-ISO of bytes that arrive in pieces.
#[derive(Clone, Debug)]
pub(super) struct Hasher(Digest);

impl Hasher {
    pub(super) fn new() -> Self {
        Self(Digest::new(CrcAlgorithm::Crc64GoIso))
    }

    pub(super) fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The plain CRC.
    pub(super) fn crc(&self) -> u64 {
        self.0.finalize()
    }

    /// The CRC as the format writes it.
    pub(super) fn checksum(&self) -> u64 {
        CHECKSUM_FLAG | self.crc()
    }
}

/// The checksum of a database that is known page by page: the exclusive or of its pages' checksums.
#[derive(Clone, Copy, Debug)]
pub(super) struct DatabaseChecksum(u64);

impl DatabaseChecksum {
    /// The checksum of a database without pages.
    pub(super) const EMPTY: Self = Self(CHECKSUM_FLAG);

    /// Adds a page that was not added before.
    pub(super) fn add(&mut self, pgno: Pgno, page: &[u8]) {
        let mut hasher = Hasher::new();
        hasher.update(&pgno.get().to_be_bytes());
        hasher.update(page);
        self.0 = CHECKSUM_FLAG | (self.0 ^ hasher.crc());
    }

    /// Adds pages of which none was added before.
    pub(super) fn join(&mut self, pages: Self) {
        self.0 = CHECKSUM_FLAG | (self.0 ^ pages.0);
    }

    pub(super) fn get(self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ltx::tests::oracle;

    #[test]
    fn it_is_the_crc_of_the_definition_however_the_bytes_arrive() {
        let bytes: Vec<u8> = (0..5000_u32).map(|i| ((i * i) >> 3) as u8).collect();
        for len in [0, 1, 6, 10, 16, 100, 4096, 5000] {
            let bytes = &bytes[..len];
            for step in [1, 7, 512, 5000] {
                let mut hasher = Hasher::new();
                bytes.chunks(step).for_each(|piece| hasher.update(piece));
                assert_eq!(hasher.crc(), oracle::crc(bytes), "{len} bytes, {step} at a time");
            }
        }
        let mut check = Hasher::new();
        check.update(b"123456789");
        assert_eq!(check.checksum(), 0xb909_56c7_75a4_1001);
    }
}
